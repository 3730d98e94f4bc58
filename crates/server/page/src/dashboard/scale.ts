/** Round numbers between two values, about `count` of them. */
export function ticks(low: number, high: number, count: number): number[] {
  if (!(high > low)) return [low];
  const raw = (high - low) / Math.max(1, count);
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = power * ([1, 2, 5].find((factor) => factor * power >= raw) ?? 10);
  const found: number[] = [];
  for (let i = Math.ceil(low / step - 1e-9); i * step <= high + step * 1e-9; i++) found.push(i === 0 ? 0 : i * step);
  return found;
}

/** A number as short as it can be read: 0.325, 12.4, 8,350, 1.2e-5. */
export function short(value: number): string {
  if (!Number.isFinite(value)) return "–";
  const size = Math.abs(value);
  if (size === 0) return "0";
  if (size >= 1e6 || size < 1e-3) return value.toExponential(2).replace(/\.?0+e/, "e").replace("e+", "e");
  if (size >= 1000) return Math.round(value).toLocaleString("en");
  return String(Number(value.toPrecision(size >= 100 ? 4 : 3)));
}

/** A number on an axis whose neighbours are `step` away. */
export function tick(value: number, step: number): string {
  const size = Math.max(Math.abs(value), step);
  if (value === 0) return "0";
  if (size >= 1e4) return value.toLocaleString("en", { notation: "compact" });
  if (step < 1e-4) return value.toExponential(1).replace(/\.0e/, "e").replace("e+", "e");
  const digits = Math.max(0, -Math.floor(Math.log10(step) + 1e-9));
  return value.toLocaleString("en", { minimumFractionDigits: digits, maximumFractionDigits: digits });
}

export function time(seconds: number): string {
  if (seconds < 0.95) return `${Math.round(1000 * seconds)} ms`;
  if (seconds < 9.95) return `${seconds.toFixed(1)} s`;
  if (seconds < 90) return `${Math.round(seconds)} s`;
  const minutes = Math.round(seconds / 60);
  if (minutes < 90) return `${minutes} min`;
  const hours = Math.floor(minutes / 60);
  return hours < 48 ? `${hours} h ${minutes % 60} min` : `${Math.round(hours / 24)} days`;
}

export const share = (value: number) => `${(100 * value).toFixed(1)} %`;

/** The mean of each value with its neighbours of a window; a window of 1 leaves them as they are. */
export function smoothed(values: number[], window: number): number[] {
  if (window <= 1) return values;
  const half = Math.floor(window / 2);
  const sums = [0];
  const counts = [0];
  for (const value of values) {
    const finite = Number.isFinite(value);
    sums.push(sums[sums.length - 1]! + (finite ? value : 0));
    counts.push(counts[counts.length - 1]! + (finite ? 1 : 0));
  }
  return values.map((value, i) => {
    if (!Number.isFinite(value)) return NaN;
    const [from, to] = [Math.max(0, i - half), Math.min(values.length, i + half + 1)];
    return (sums[to]! - sums[from]!) / (counts[to]! - counts[from]!);
  });
}

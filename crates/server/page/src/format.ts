const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });

export function count(value: number): string {
  return whole.format(value);
}

export function tokens(value: number): string {
  return value === 1 ? "1 token" : `${count(value)} tokens`;
}

export function duration(seconds: number): string {
  if (seconds < 1) return `${Math.max(0.1, seconds).toFixed(1)} s`;
  if (seconds < 60) return `${Math.floor(seconds)} s`;
  const minutes = Math.floor(seconds / 60);
  const rest = Math.floor(seconds % 60);
  if (minutes < 60) return rest === 0 ? `${minutes} min` : `${minutes} min ${rest} s`;
  return `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}

export function rate(tokensPerSecond: number): string {
  return `${tokensPerSecond >= 10 ? Math.round(tokensPerSecond) : tokensPerSecond.toFixed(1)} tokens/s`;
}

export function parameters(value: number): string {
  if (value >= 1e9) return `${(value / 1e9).toFixed(value >= 1e10 ? 0 : 1)}B`;
  return `${Math.round(value / 1e6)}M`;
}

export function contextLength(value: number): string {
  return value % 1024 === 0 && value >= 1024 ? `${value / 1024}k context` : `${count(value)} context`;
}

/** The first line of a message, short enough for a list. */
export function titleOf(text: string): string {
  const line = text.trim().split("\n", 1)[0] ?? "";
  const clean = cleanTitle(line);
  return clean.length > 60 ? `${clean.slice(0, 59).trimEnd()}…` : clean;
}

/** Titles are one line: control characters and marks that reverse the direction of writing are removed. */
export function cleanTitle(text: string): string {
  return text
    .replace(/[\u0000-\u001f\u007f-\u009f\u200e\u200f\u2028-\u202e\u2066-\u2069]+/g, " ")
    .replace(/ +/g, " ")
    .trim()
    .slice(0, 200);
}

/** Where a conversation stands in the list, by the day it was last written to. */
export function dayGroup(time: number, now: number): string {
  const day = 86_400_000;
  const midnight = new Date(now).setHours(0, 0, 0, 0);
  if (time >= midnight) return "Today";
  if (time >= midnight - day) return "Yesterday";
  if (time >= midnight - 7 * day) return "Last seven days";
  return "Earlier";
}

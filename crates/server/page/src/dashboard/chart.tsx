import { useLayoutEffect, useMemo, useRef, useState } from "preact/hooks";
import type { Panel } from "./panels";
import { short, smoothed, tick, ticks } from "./scale";
import type { Series } from "./series";

const HEIGHT = 190;
const PAD = { top: 8, right: 10, bottom: 22, left: 52 };

interface Curve {
  name: string;
  steps: number[];
  raw: number[];
  values: number[];
  /** Most lines have no such number, as of scores that are measured now and then: each is drawn as a point. */
  sparse: boolean;
}

/** A number of a stage, ready to be drawn. A number that few lines have keeps those alone. */
function curveOf(series: Series, name: string, window: number): Curve[] {
  const column = series.column(name);
  if (column === null) return [];
  const there = column.values.flatMap((value, i) => (Number.isFinite(value) ? [i] : []));
  const sparse = there.length < column.values.length / 2;
  const steps = sparse ? there.map((i) => column.steps[i]!) : column.steps;
  const raw = sparse ? there.map((i) => column.values[i]!) : column.values;
  return [{ name, steps, raw, values: smoothed(raw, window), sparse }];
}

interface Range {
  low: number;
  high: number;
}

function rangeOf(values: Iterable<number>): Range | null {
  let [low, high] = [Infinity, -Infinity];
  for (const value of values) {
    if (value < low) low = value;
    if (value > high) high = value;
  }
  return low <= high ? { low, high } : null;
}

function padded({ low, high }: Range, share: boolean): Range {
  if (share) return { low: Math.min(0, low), high: [0.01, 0.05, 0.1, 0.25, 0.5].find((edge) => high <= edge * 0.95) ?? Math.max(1, high) };
  if (low === high) {
    const air = Math.abs(low) * 0.1 || 1;
    return { low: low - air, high: high + air };
  }
  const air = 0.06 * (high - low);
  // A number that is never negative keeps its zero where it is near.
  return { low: low >= 0 && low < 0.35 * high ? 0 : low - air, high: high + air };
}

/**
 * A path through the points. Where several share a column of the picture, the first, the least, the largest and the last
 * of them are drawn, so that no peak is lost.
 */
function path(steps: number[], values: number[], x: (step: number) => number, y: (value: number) => number): string {
  let text = "";
  let broken = true;
  let before = -Infinity;
  const at = (i: number) => `${broken ? "M" : "L"}${x(steps[i]!).toFixed(1)} ${y(values[i]!).toFixed(1)}`;
  const draw = (i: number) => {
    text += at(i);
    broken = false;
  };
  let i = 0;
  while (i < values.length) {
    const step = steps[i]!;
    // A step that comes again was repeated after values that were not finite.
    if (!Number.isFinite(values[i]) || step <= before) broken = true;
    if (!Number.isFinite(values[i])) {
      i++;
      continue;
    }
    const column = Math.floor(x(step));
    let [last, least, most] = [i, i, i];
    while (last + 1 < values.length && Number.isFinite(values[last + 1]) && steps[last + 1]! > steps[last]!) {
      if (Math.floor(x(steps[last + 1]!)) !== column) break;
      last++;
      if (values[last]! < values[least]!) least = last;
      if (values[last]! > values[most]!) most = last;
    }
    for (const place of [...new Set([i, Math.min(least, most), Math.max(least, most), last])].sort((a, b) => a - b)) draw(place);
    before = steps[last]!;
    i = last + 1;
  }
  return text;
}

/** The line whose step is nearest. */
function nearest(steps: number[], step: number): number {
  let best = -1;
  let distance = Infinity;
  // From the end, so that of a step that was repeated the last try counts.
  for (let i = steps.length - 1; i >= 0; i--) {
    const away = Math.abs(steps[i]! - step);
    if (away < distance) [best, distance] = [i, away];
    if (distance === 0) break;
  }
  return best;
}

export function Chart({
  panel,
  series,
  version,
  window,
  cursor,
  setCursor,
}: {
  panel: Panel;
  series: Series;
  version: number;
  window: number;
  cursor: number | null;
  setCursor(step: number | null): void;
}) {
  const frame = useRef<HTMLDivElement>(null);
  const [width, setWidth] = useState(0);
  useLayoutEffect(() => {
    const observed = frame.current!;
    const observer = new ResizeObserver(() => setWidth(observed.clientWidth));
    observer.observe(observed);
    setWidth(observed.clientWidth);
    return () => observer.disconnect();
  }, []);

  const drawn = useMemo(() => {
    const curves = panel.names.flatMap((name) => curveOf(series, name, window));
    const first = curves[0];
    const spread = panel.band === undefined || window > 1 ? null : series.column(panel.band);
    const finite = (values: number[]) => values.filter(Number.isFinite);
    const edges =
      first === undefined || first.sparse || spread === null
        ? null
        : [-1, 1].map((side) => first.values.map((value, i) => value + side * (spread.values[i] ?? NaN)));
    // The same steps below all curves, so that the cursor stands at the same place.
    const steps = rangeOf(series.metrics.steps);
    const all = rangeOf([...curves.flatMap(({ raw }) => finite(raw)), ...(edges ?? []).flatMap(finite)]);
    if (width === 0 || steps === null || all === null) return null;
    const values = padded(all, panel.share ?? false);
    const [right, bottom] = [width - PAD.right, HEIGHT - PAD.bottom];
    const last = Math.max(steps.high, steps.low + 1);
    const x = (step: number) => PAD.left + ((step - steps.low) / (last - steps.low)) * (right - PAD.left);
    const y = (value: number) => bottom - ((value - values.low) / (values.high - values.low)) * (bottom - PAD.top);
    const clip = (value: number) => Math.min(Math.max(value, values.low), values.high);
    const band = edges === null ? null : area(first!.steps, edges[0]!, edges[1]!, x, (value) => y(clip(value)));
    const lines = curves.map(({ steps, values }) => path(steps, values, x, y));
    const faint = window > 1 ? curves.map(({ steps, raw }) => path(steps, raw, x, y)) : [];
    const across = ticks(steps.low, last, Math.max(2, Math.floor((right - PAD.left) / 80))).filter(Number.isInteger);
    return { curves, lines, faint, band, x, y, right, bottom, across, up: ticks(values.low, values.high, 5), steps: { ...steps, last } };
  }, [panel, series, version, window, width]);

  const at = (curve: Curve) => (cursor === null ? curve.steps.length - 1 : nearest(curve.steps, cursor));
  const moved = (event: PointerEvent) => {
    if (drawn === null) return;
    const left = frame.current!.getBoundingClientRect().left;
    const part = (event.clientX - left - PAD.left) / (drawn.right - PAD.left);
    const step = drawn.steps.low + Math.min(1, Math.max(0, part)) * (drawn.steps.last - drawn.steps.low);
    setCursor(Math.min(Math.round(step), drawn.steps.high));
  };
  const pressed = (event: KeyboardEvent) => {
    if (drawn === null) return;
    const by = { ArrowLeft: -1, ArrowRight: 1, PageUp: 10, PageDown: -10, Home: -Infinity, End: Infinity }[event.key];
    if (event.key === "Escape") setCursor(null);
    if (by === undefined) return;
    event.preventDefault();
    const from = cursor ?? drawn.steps.high;
    setCursor(Math.min(drawn.steps.high, Math.max(drawn.steps.low, from + by)));
  };
  const said = drawn?.curves.map((curve) => `${curve.name} ${short(curve.raw[at(curve)] ?? NaN)}`).join(", ");
  const gap = drawn === null || drawn.up.length < 2 ? 1 : drawn.up[1]! - drawn.up[0]!;
  return (
    <figure class="panel">
      <figcaption>
        <span class="panel-title" title={panel.note}>
          {panel.title}
        </span>
        <span class="legend">
          {drawn?.curves.map((curve, i) => (
            <span key={curve.name} class="legend-entry">
              <i class={`swatch series-${(i % 6) + 1}`} />
              {drawn.curves.length > 1 && <span class="legend-name">{named(curve.name)}</span>}
              <b>{short(curve.raw[at(curve)] ?? NaN)}</b>
            </span>
          ))}
        </span>
      </figcaption>
      <div
        ref={frame}
        class="plot"
        tabIndex={0}
        role="img"
        aria-label={`${panel.title}${said === undefined ? "" : `: ${said}`}${cursor === null ? "" : `, step ${cursor}`}`}
        onPointerMove={moved}
        onPointerDown={moved}
        onPointerLeave={() => setCursor(null)}
        onKeyDown={pressed}
        onBlur={() => setCursor(null)}
      >
        {drawn !== null && (
          <svg width={width} height={HEIGHT} viewBox={`0 0 ${width} ${HEIGHT}`} aria-hidden="true">
            {drawn.up.map((value) => (
              <g key={value}>
                <line class="grid" x1={PAD.left} x2={drawn.right} y1={drawn.y(value)} y2={drawn.y(value)} />
                <text class="tick" x={PAD.left - 7} y={drawn.y(value) + 4} text-anchor="end">
                  {tick(value, gap)}
                </text>
              </g>
            ))}
            {drawn.across.map((step) => (
              <text key={step} class="tick" x={drawn.x(step)} y={HEIGHT - 5} text-anchor="middle">
                {step.toLocaleString("en")}
              </text>
            ))}
            <line class="axis" x1={PAD.left} x2={drawn.right} y1={drawn.bottom} y2={drawn.bottom} />
            {drawn.band !== null && <path class="band series-1" d={drawn.band} />}
            {drawn.faint.map((line, i) => (
              <path key={i} class={`curve faint series-${(i % 6) + 1}`} d={line} />
            ))}
            {drawn.lines.map((line, i) => (
              <path key={i} class={`curve series-${(i % 6) + 1}`} d={line} />
            ))}
            {drawn.curves.map((curve, i) =>
              curve.sparse && curve.steps.length <= 200
                ? curve.values.map((value, j) => (
                    <circle key={`${i} ${j}`} class={`point series-${(i % 6) + 1}`} cx={drawn.x(curve.steps[j]!)} cy={drawn.y(value)} r={2} />
                  ))
                : null,
            )}
            {drawn.curves.map((curve, i) => {
              const point = at(curve);
              const value = curve.values[point] ?? NaN;
              if (!Number.isFinite(value) || (cursor === null && curve.steps.length > 1)) return null;
              return <circle key={curve.name} class={`point series-${(i % 6) + 1}`} cx={drawn.x(curve.steps[point]!)} cy={drawn.y(value)} r={3} />;
            })}
            {cursor !== null && cursor >= drawn.steps.low && cursor <= drawn.steps.high && (
              <line class="cursor" x1={drawn.x(cursor)} x2={drawn.x(cursor)} y1={PAD.top} y2={drawn.bottom} />
            )}
          </svg>
        )}
      </div>
    </figure>
  );
}

/** The area between two curves, in pieces where numbers are missing. */
function area(steps: number[], low: number[], high: number[], x: (step: number) => number, y: (value: number) => number): string {
  const every = Math.max(1, Math.floor(steps.length / 600));
  let text = "";
  let piece: number[] = [];
  const close = () => {
    if (piece.length > 1) {
      const up = piece.map((i) => `${x(steps[i]!).toFixed(1)} ${y(high[i]!).toFixed(1)}`);
      const down = [...piece].reverse().map((i) => `${x(steps[i]!).toFixed(1)} ${y(low[i]!).toFixed(1)}`);
      text += `M${[...up, ...down].join("L")}Z`;
    }
    piece = [];
  };
  for (let i = 0; i < steps.length; i += every) {
    if (!Number.isFinite(low[i]) || (i > 0 && steps[i]! <= steps[i - every]!)) close();
    if (Number.isFinite(low[i])) piece.push(i);
  }
  close();
  return text;
}

/** A name without what the title says. */
function named(name: string): string {
  const found = /^(?:rewards\/(.+)\/mean|groups\/(.+)|eval\/(.+)\/pass@1|expert_load\/(.+)|(.+)_s)$/.exec(name);
  return (found?.slice(1).find((part) => part !== undefined) ?? name).replaceAll("_", " ");
}

import { useEffect, useMemo, useReducer, useState } from "preact/hooks";
import { ThemeSelect } from "../view/theme";
import { Chart } from "./chart";
import { panels } from "./panels";
import { hashOf, placeOf, type Place } from "./place";
import { Rollouts } from "./rollouts";
import { time } from "./scale";
import type { Series } from "./series";
import { Advice, Reasons, Scores, Stages } from "./stages";
import type { Run, Stage } from "./types";
import { ask, type Watch } from "./watch";

const VIEWS: [Place["view"], string][] = [
  ["curves", "Curves"],
  ["rollouts", "Rollouts"],
  ["settings", "Settings"],
];

/** The stage to show where none is chosen: the newest that has begun. */
function preferred(run: Run): string {
  const begun = run.stages.filter(({ state }) => state !== "waiting");
  return (begun[begun.length - 1] ?? run.stages[0])?.name ?? "";
}

export function Page({ watch }: { watch: Watch }) {
  const [, redraw] = useReducer<number, void>((n) => n + 1, 0);
  const [place, setPlace] = useState(() => placeOf(location.hash));
  useEffect(() => {
    const stop = watch.listen(() => redraw());
    // What came before anybody listened.
    redraw();
    return stop;
  }, [watch]);
  useEffect(() => {
    const moved = () => setPlace(placeOf(location.hash));
    addEventListener("hashchange", moved);
    return () => removeEventListener("hashchange", moved);
  }, []);
  const { run } = watch;
  const name = run === null ? "" : (watch.stage(place.stage)?.name ?? preferred(run));
  const stage = watch.stage(name);
  useEffect(() => watch.want(name), [name]);
  const title = run?.name ?? "Run";
  useEffect(() => {
    document.title = `${title} · Minke`;
  }, [title]);
  const go = (change: Partial<Place>) => {
    const next = { ...placeOf(location.hash), ...change };
    // What is typed replaces the address; where one goes can be gone back from.
    const kept = "view" in change || "stage" in change || "group" in change;
    if (kept) location.hash = hashOf(next);
    else history.replaceState(null, "", hashOf(next));
    setPlace(next);
  };
  return (
    <div class="board">
      <a class="skip" href="#main" onClick={(event) => (event.preventDefault(), document.getElementById("main")?.focus())}>
        Skip to the curves
      </a>
      <header class="top">
        <span class="name">Minke</span>
        <h1>{title}</h1>
        <Status watch={watch} />
        <label class="theme">
          <span class="off-screen">Colours</span>
          <ThemeSelect />
        </label>
      </header>
      <main id="main" tabIndex={-1}>
        {watch.problem !== null && <p class="advice broken" role="alert">{watch.problem}</p>}
        {watch.failure !== null && <p class="advice broken" role="alert">{watch.failure}</p>}
        {run !== null && run.stages.length === 0 && <p class="note">The run has not begun: its folder has no run.json yet.</p>}
        {run !== null && run.stages.length > 0 && (
          <>
            <Advice stages={run.stages} />
            <Stages stages={run.stages} shown={name} show={(chosen) => go({ stage: chosen, group: "" })} />
          </>
        )}
        {stage !== undefined && (
          <>
            <nav class="views" aria-label="Views">
              {VIEWS.map(([view, label]) => (
                <a
                  key={view}
                  href={hashOf({ ...place, view })}
                  aria-current={place.view === view ? "page" : undefined}
                  onClick={(event) => (event.preventDefault(), go({ view }))}
                >
                  {label}
                </a>
              ))}
              <span class="muted">of {stage.name}</span>
            </nav>
            {place.view === "curves" && <Curves series={watch.series.get(name)} stage={stage} />}
            {place.view === "curves" && <Reasons stage={stage} />}
            {place.view === "curves" && run !== null && <Scores stages={run.stages} />}
            {place.view === "rollouts" && <Rollouts key={name} stage={stage} place={place} go={go} />}
            {place.view === "settings" && <Settings run={run!} />}
          </>
        )}
      </main>
    </div>
  );
}

/** How old what is shown is, in the words of a person. */
function Status({ watch }: { watch: Watch }) {
  const [, redraw] = useReducer<number, void>((n) => n + 1, 0);
  useEffect(() => {
    const timer = setInterval(() => redraw(), 1000);
    return () => clearInterval(timer);
  }, []);
  const { run, connected } = watch;
  if (connected === "lost") {
    return (
      <span class="status lost" role="status">
        the server does not answer; trying again. After the end of a run: minke report RUN --live
      </span>
    );
  }
  if (run === null) return <span class="status">reading …</span>;
  const away = (performance.now() - watch.readAt) / 1000;
  const quiet = run.stages.flatMap(({ quiet_seconds }) => (quiet_seconds === null ? [] : [quiet_seconds + away]));
  const running = run.stages.some(({ state }) => state === "running");
  const finished = run.stages.length > 0 && run.stages.every(({ state }) => state === "finished");
  const since = quiet.length > 0 ? `, last line ${time(Math.min(...quiet))} ago` : "";
  const word = finished ? "finished" : running ? "running" : "quiet";
  return (
    <span class={`status ${word}`}>
      <i class="dot" />
      {word}
      {since}
    </span>
  );
}

function Curves({ series, stage }: { series: Series | undefined; stage: Stage }) {
  const [cursor, setCursor] = useState<number | null>(null);
  const [window, setWindow] = useState(1);
  // Made anew with every line: what is drawn is computed once for all moves of the cursor.
  const { main, rest } = useMemo(
    () => (series === undefined ? { main: [], rest: [] } : panels(series)),
    [series, series?.version],
  );
  if (series === undefined || series.metrics.length === 0) {
    return <p class="note">{stage.state === "waiting" ? "The stage has not begun." : "No step is done yet."}</p>;
  }
  const chart = (panel: (typeof main)[number]) => (
    <Chart key={panel.title} panel={panel} series={series} version={series.version} window={window} cursor={cursor} setCursor={setCursor} />
  );
  const last = series.metrics.steps[series.metrics.length - 1]!;
  return (
    <>
      <div class="tools">
        <span role="status" id="newest-step" data-step={last}>
          {cursor === null ? `Newest step: ${last.toLocaleString("en")}` : `Step ${cursor.toLocaleString("en")}`}
        </span>
        <label>
          Smoothing{" "}
          <select value={String(window)} onChange={(event) => setWindow(Number(event.currentTarget.value))}>
            <option value="1">none</option>
            <option value="9">mean of 9 steps</option>
            <option value="33">mean of 33 steps</option>
          </select>
        </label>
      </div>
      <div class="panels">{main.map(chart)}</div>
      {rest.length > 0 && <Rest count={rest.length}>{() => <div class="panels">{rest.map(chart)}</div>}</Rest>}
    </>
  );
}

/** Other numbers, drawn once they are asked for. */
function Rest({ count, children }: { count: number; children: () => preact.ComponentChildren }) {
  const [open, setOpen] = useState(false);
  return (
    <details class="rest" open={open} onToggle={(event) => setOpen(event.currentTarget.open)}>
      <summary>Other numbers ({count})</summary>
      {open && children()}
    </details>
  );
}

function Settings({ run }: { run: Run }) {
  const [config, setConfig] = useState<string | null>(null);
  useEffect(() => {
    void ask<unknown>("config", {}).then(
      (config) => setConfig(JSON.stringify(config, null, 2)),
      () => setConfig("The settings cannot be read."),
    );
  }, []);
  return (
    <section class="settings">
      <dl>
        {run.facts.map(([name, value]) => (
          <div key={name}>
            <dt>{name}</dt>
            <dd>{value}</dd>
          </div>
        ))}
      </dl>
      <pre tabIndex={0}>{config}</pre>
    </section>
  );
}

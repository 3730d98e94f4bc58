import { Series } from "./series";
import type { Found, Group, Run, SeriesAnswer, Stage } from "./types";

/** What a stream of the server says. */
interface News {
  version: number;
  problem: string | null;
}

/** Why the server did not answer. */
export class Refused extends Error {}

export async function ask<T>(name: string, query: Record<string, string>, signal?: AbortSignal): Promise<T> {
  const given = Object.entries(query).filter(([, value]) => value !== "");
  const response = await fetch(`api/${name}?${new URLSearchParams(given)}`, signal === undefined ? {} : { signal });
  const body: unknown = await response.json().catch(() => null);
  if (!response.ok) {
    const error = typeof body === "object" && body !== null && "error" in body ? body.error : null;
    throw new Refused(typeof error === "string" ? error : `the server answered ${response.status}`);
  }
  return body as T;
}

export const find = (stage: string, query: Record<string, string>, signal: AbortSignal) =>
  ask<Found>("rollouts", { ...query, stage }, signal);

export const group = (stage: string, number: number, signal: AbortSignal) =>
  ask<Group>("group", { stage, group: String(number) }, signal);

/** The state of the run as far as it is known here. */
export class Watch {
  run: Run | null = null;
  /** When `run` was read, as `performance.now()`. */
  readAt = 0;
  connected: "connecting" | "live" | "lost" = "connecting";
  /** What the server cannot read. */
  problem: string | null = null;
  /** What went wrong here. */
  failure: string | null = null;
  readonly series = new Map<string, Series>();

  private readonly listeners = new Set<() => void>();
  private wanted = "";
  private busy = false;
  private again = false;

  listen(listener: () => void): () => void {
    this.listeners.add(listener);
    return () => this.listeners.delete(listener);
  }

  private changed() {
    this.listeners.forEach((listener) => listener());
  }

  start() {
    const events = new EventSource("api/events");
    events.onmessage = (message: MessageEvent<string>) => {
      const news = JSON.parse(message.data) as News;
      this.connected = "live";
      this.problem = news.problem;
      void this.update();
      this.changed();
    };
    // The browser tries again by itself.
    events.onerror = () => {
      this.connected = "lost";
      this.changed();
    };
  }

  /** The curves of this stage are shown: its numbers are kept up to date. */
  want(stage: string) {
    if (stage === this.wanted) return;
    this.wanted = stage;
    void this.update();
  }

  stage(name: string): Stage | undefined {
    return this.run?.stages.find((stage) => stage.name === name);
  }

  /** Reads what is new. Calls that come meanwhile lead to one more reading. */
  private async update() {
    if (this.busy) {
      this.again = true;
      return;
    }
    this.busy = true;
    try {
      do {
        this.again = false;
        await this.read();
        this.failure = null;
        this.changed();
      } while (this.again);
    } catch (error) {
      this.failure = error instanceof Refused ? error.message : null;
      if (!(error instanceof Refused)) this.connected = "lost";
      this.changed();
    } finally {
      this.busy = false;
    }
  }

  private async read() {
    this.run = await ask<Run>("run", {});
    this.readAt = performance.now();
    const stage = this.stage(this.wanted);
    if (stage === undefined) return;
    let series = this.series.get(stage.name);
    if (series === undefined) {
      series = new Series();
      this.series.set(stage.name, series);
    }
    const known = series;
    const behind = () =>
      known.generation !== stage.generation ||
      known.metrics.length < stage.metrics ||
      known.timings.length < stage.timings;
    let more = behind();
    while (more) {
      const answer = await ask<SeriesAnswer>("series", {
        stage: stage.name,
        generation: String(Math.max(0, known.generation)),
        metrics: String(known.generation < 0 ? 0 : known.metrics.length),
        timings: String(known.generation < 0 ? 0 : known.timings.length),
      });
      more = known.add(answer);
      this.changed();
    }
  }
}

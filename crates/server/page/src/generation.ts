import { Cut, Refused, cancel, describe, openStream, readEvents, reopenStream } from "./api";
import type { Failure, Message, Progress, Stats, Status } from "./model";
import type { StreamEvent } from "./sse";

export type Phase = "connecting" | "busy" | "prefill" | "thought" | "answer" | "reconnecting" | "ended";

/** What a generation needs from the page around it. */
export interface Host {
  /** Asks the reader for a key. False if the reader closed the question. */
  askKey(): Promise<boolean>;
  save(message: Message): void;
  ended(generation: Generation): void;
}

const SAVE_EVERY_MS = 1000;
const PAUSES_MS = [500, 1000, 2000, 4000, 8000];
const MAX_BUSY_RETRIES = 5;
const MAX_RETRY_AFTER_S = 60;

function pauseMs(attempt: number): number {
  return PAUSES_MS[Math.min(attempt, PAUSES_MS.length - 1)]!;
}

export function noStats(): Stats {
  return {
    promptTokens: 0,
    cachedTokens: 0,
    outputTokens: 0,
    reasoningTokens: 0,
    promptSeconds: 0,
    reasoningSeconds: 0,
    seconds: 0,
  };
}

function number(value: unknown): number | undefined {
  return typeof value === "number" && Number.isFinite(value) ? value : undefined;
}

function record(value: unknown): Record<string, unknown> {
  return typeof value === "object" && value !== null ? (value as Record<string, unknown>) : {};
}

/** Reads one answer from the server into a message, over as many connections as it takes. */
export class Generation {
  phase: Phase = "connecting";
  progress: Progress | null = null;
  /** When the next attempt is due, while waiting for one. */
  retryAt = 0;
  readonly stats: Stats;
  private readonly abort = new AbortController();
  private readonly listeners = new Set<() => void>();
  private frame = 0;
  private saveTimer: ReturnType<typeof setTimeout> | undefined;
  private wake: (() => void) | null = null;

  /** `message` belongs to the generation from here on; readers copy it. */
  constructor(
    readonly message: Message,
    private readonly host: Host,
  ) {
    this.stats = message.stats ?? noStats();
    message.stats = this.stats;
    addEventListener("online", this.tryNow);
  }

  /** Calls `listener` at most once per frame while something changes. Returns what ends that. */
  listen(listener: () => void): () => void {
    this.listeners.add(listener);
    return () => this.listeners.delete(listener);
  }

  start(body: Record<string, unknown>): Promise<void> {
    return this.run(() => this.open(body));
  }

  resume(): Promise<void> {
    this.set("reconnecting");
    return this.run(() => this.reopen());
  }

  stop(): void {
    if (this.phase === "ended") return;
    const id = this.message.response?.id;
    // The answer is over for the reader at once; the server is told, and may be gone already.
    if (id !== undefined) cancel(id).catch(() => undefined);
    this.finish("stopped", null);
  }

  /** Ends without a word to the server, which goes on: for a conversation that was removed. */
  drop(): void {
    this.finish("stopped", null);
  }

  /** Ends an answer whose name the server never told, so that it cannot be asked for. */
  lose(): void {
    this.finish("interrupted", { code: "interrupted", sentence: "The page was closed before the answer began." });
  }

  /** Cuts a pause between two attempts short. */
  readonly tryNow = (): void => this.wake?.();

  private async run(connect: () => Promise<Response>): Promise<void> {
    try {
      let response = await connect();
      // Connections in a row that brought nothing.
      let barren = 0;
      while (this.phase !== "ended") {
        const before = this.message.response?.sequence;
        try {
          await readEvents(response, this.abort, (event) => this.take(event));
        } catch (error) {
          if (!(error instanceof Cut)) throw error;
        }
        // `take` may have ended it, which the compiler cannot see.
        if ((this.phase as Phase) === "ended") return;
        if (this.message.response === null) throw new Cut();
        this.set("reconnecting");
        barren = this.message.response.sequence === before ? barren + 1 : 0;
        if (barren > 0) await this.pause("reconnecting", pauseMs(barren - 1));
        if ((this.phase as Phase) === "ended") return;
        response = await this.reopen();
      }
    } catch (error) {
      if (this.phase === "ended") return;
      if (error instanceof Refused && error.status === 404 && this.message.response !== null) {
        this.finish("interrupted", { code: "interrupted", sentence: "The server was restarted and lost the rest." });
      } else {
        this.finish("failed", describe(error, this.message.model));
      }
    }
  }

  private async open(body: Record<string, unknown>): Promise<Response> {
    for (let attempt = 0; ; attempt++) {
      try {
        const response = await openStream(body, this.abort.signal);
        // The name comes before the first event, so a cut at any place can be mended; it is stored at once, as a page
        // that is closed before its last write is done has nothing else to go on from.
        const id = response.headers.get("x-minke-response");
        if (id !== null) {
          this.message.response = { id, sequence: -1 };
          this.save();
        }
        return response;
      } catch (error) {
        if (!(error instanceof Refused)) throw error;
        if (error.status === 401) {
          if (!(await this.host.askKey())) throw error;
        } else if ((error.status === 429 || error.status === 503) && attempt < MAX_BUSY_RETRIES) {
          const seconds = Math.min(error.retryAfter ?? 2 ** attempt, MAX_RETRY_AFTER_S);
          await this.pause("busy", seconds * 1000);
        } else {
          throw error;
        }
        this.abort.signal.throwIfAborted();
        this.set("connecting");
      }
    }
  }

  private async reopen(): Promise<Response> {
    const { id, sequence } = this.message.response!;
    for (let attempt = 0; ; attempt++) {
      try {
        return await reopenStream(id, sequence, this.abort.signal);
      } catch (error) {
        if (error instanceof Refused && error.status === 404) throw error;
        if (error instanceof Refused && error.status === 401) {
          if (!(await this.host.askKey())) throw error;
          continue;
        }
        if (!(error instanceof Cut) && !(error instanceof Refused && error.status >= 429)) throw error;
        await this.pause("reconnecting", pauseMs(attempt));
        this.abort.signal.throwIfAborted();
      }
    }
  }

  private pause(phase: Phase, milliseconds: number): Promise<void> {
    this.retryAt = Date.now() + milliseconds;
    this.set(phase);
    return new Promise((resolve) => {
      const timer = setTimeout(() => this.wake?.(), milliseconds);
      this.wake = () => {
        clearTimeout(timer);
        this.wake = null;
        resolve();
      };
    });
  }

  private take(event: StreamEvent): void {
    if (this.phase === "ended") return;
    const { message } = this;
    const sequence = number(event.sequence_number);
    const response = record(event["response"]);
    if (message.response !== null && sequence !== undefined) {
      // After a resumption the server may repeat what is here already.
      if (sequence <= message.response.sequence) return;
      message.response.sequence = sequence;
    }
    switch (event.type) {
      case "response.created":
      case "response.in_progress":
        this.takeProgress(event["progress"]);
        break;
      case "response.reasoning_text.delta":
        this.takeDelta("thought", event["delta"]);
        break;
      case "response.output_text.delta":
        this.takeDelta("text", event["delta"]);
        break;
      case "response.reasoning_text.done":
        if (typeof event["text"] === "string") message.thought = event["text"];
        break;
      case "response.output_text.done":
        if (typeof event["text"] === "string") message.text = event["text"];
        break;
      case "response.completed":
        this.takeTotals(response);
        this.finish("done", null);
        return;
      case "response.incomplete": {
        this.takeTotals(response);
        const reason = record(response["incomplete_details"])["reason"];
        this.finish(reason === "max_output_tokens" ? "cut_short" : "stopped", null);
        return;
      }
      case "response.failed":
        this.takeTotals(response);
        this.fail(record(response["error"]));
        return;
      case "response.cancelled":
        this.takeTotals(response);
        this.finish("stopped", null);
        return;
      case "error":
        this.fail({ ...event, ...record(event["error"]) });
        return;
    }
    this.changed();
    this.saveTimer ??= setTimeout(() => this.save(), SAVE_EVERY_MS);
  }

  private takeProgress(value: unknown): void {
    const said = record(value);
    const promptTokens = number(said["prompt_tokens"]);
    if (promptTokens === undefined) return;
    this.progress = {
      promptTokens,
      cachedTokens: number(said["cached_tokens"]) ?? 0,
      prefilledTokens: number(said["prefilled_tokens"]) ?? 0,
      completionTokens: number(said["completion_tokens"]) ?? 0,
      reasoningTokens: number(said["reasoning_tokens"]) ?? 0,
    };
    this.stats.promptTokens = promptTokens;
    this.stats.cachedTokens = this.progress.cachedTokens;
    this.stats.outputTokens = Math.max(this.stats.outputTokens, this.progress.completionTokens);
    this.stats.reasoningTokens = Math.max(this.stats.reasoningTokens, this.progress.reasoningTokens);
    if (this.stats.outputTokens === 0) this.phase = "prefill";
  }

  /** Until the server counts, a piece of text counts as one token. */
  private takeDelta(field: "thought" | "text", delta: unknown): void {
    if (typeof delta !== "string") return;
    const { message, stats } = this;
    const sinceStart = (Date.now() - message.created) / 1000;
    if (stats.promptSeconds === 0) stats.promptSeconds = Math.max(sinceStart, 0.001);
    message[field] += delta;
    stats.outputTokens++;
    stats.seconds = sinceStart;
    if (field === "thought") {
      stats.reasoningTokens++;
      stats.reasoningSeconds = sinceStart - stats.promptSeconds;
    }
    this.phase = field === "thought" ? "thought" : "answer";
  }

  private takeTotals(response: Record<string, unknown>): void {
    const { stats } = this;
    const usage = record(response["usage"]);
    stats.promptTokens = number(usage["input_tokens"]) ?? stats.promptTokens;
    stats.cachedTokens = number(record(usage["input_tokens_details"])["cached_tokens"]) ?? stats.cachedTokens;
    stats.outputTokens = number(usage["output_tokens"]) ?? stats.outputTokens;
    stats.reasoningTokens =
      number(record(usage["output_tokens_details"])["reasoning_tokens"]) ?? stats.reasoningTokens;
    const timings = record(response["timings"]);
    stats.promptSeconds = number(timings["prompt_seconds"]) ?? stats.promptSeconds;
    stats.reasoningSeconds = number(timings["reasoning_seconds"]) ?? stats.reasoningSeconds;
    stats.seconds = number(timings["seconds"]) ?? stats.seconds;
  }

  private fail(error: Record<string, unknown>): void {
    const said = typeof error["message"] === "string" ? `: ${error["message"].replace(/\.$/, "")}` : "";
    if (error["code"] === "context_length_exceeded") {
      this.finish("failed", { code: "context", sentence: `The context is full${said}.` });
    } else {
      this.finish("failed", { code: "server", sentence: `The server could not finish this answer${said}.` });
    }
  }

  private finish(status: Status, failure: Failure | null): void {
    if (this.phase === "ended") return;
    this.message.status = status;
    this.message.failure = failure;
    this.phase = "ended";
    removeEventListener("online", this.tryNow);
    this.abort.abort();
    this.wake?.();
    this.save();
    cancelAnimationFrame(this.frame);
    for (const listener of this.listeners) listener();
    this.host.ended(this);
  }

  /** The copy in storage always holds exactly the events up to its sequence number, so a reload can go on from it. */
  save(): void {
    clearTimeout(this.saveTimer);
    this.saveTimer = undefined;
    this.message.revision++;
    this.host.save(snapshot(this.message));
  }

  private set(phase: Phase): void {
    this.phase = phase;
    this.changed();
  }

  private changed(): void {
    if (this.frame !== 0) return;
    this.frame = requestAnimationFrame(() => {
      this.frame = 0;
      for (const listener of this.listeners) listener();
    });
  }
}

export function snapshot(message: Message): Message {
  return {
    ...message,
    stats: message.stats === null ? null : { ...message.stats },
    response: message.response === null ? null : { ...message.response },
  };
}

import { useLayoutEffect, useRef } from "preact/hooks";
import type { App } from "../app";
import { copyFrom } from "../clipboard";
import { duration, rate, tokens } from "../format";
import type { Generation, Phase } from "../generation";
import { MarkdownView } from "../markdown/view";
import type { Message, Stats } from "../model";
import { focusMessage } from "./focus";
import { useClock, usePhase } from "./live";
import { memo } from "./memo";
import { Prefill } from "./prefill";
import { Siblings } from "./siblings";
import { Thought } from "./thought";

interface Props {
  app: App;
  message: Message;
  revision: number;
  generation: Generation | null;
  position: number;
  count: number;
  busy: boolean;
}

export const AssistantMessage = memo(function AssistantMessage(props: Props) {
  const { app, message, revision, generation, position, count, busy } = props;
  const phase = usePhase(generation);
  const place = useRef<HTMLDivElement>(null);
  const view = useRef<MarkdownView | null>(null);

  useLayoutEffect(() => {
    view.current ??= new MarkdownView(place.current!);
    const { status } = message;
    const show = () => view.current!.update((generation?.message ?? message).text, status !== "running", status === "done");
    show();
    return generation?.listen(show);
  }, [generation, generation === null ? revision : 0]);

  const running = message.status === "running";
  // Another tab reads this answer and stores it from time to time.
  const elsewhere = running && generation === null;
  const thinking = phase === "thought" || (elsewhere && message.text === "");
  const hasThought = message.thought !== "" || phase === "thought";
  return (
    <article class="answer" aria-label="Answer" aria-busy={running}>
      {hasThought && <Thought message={message} revision={revision} generation={generation} running={thinking} />}
      <div class="prose" ref={place} />
      {generation !== null && <Waiting generation={generation} phase={phase} />}
      {!running && <Ending app={app} message={message} busy={busy} />}
      <div class="actions">
        <Siblings app={app} message={message} position={position} count={count} disabled={busy} />
        {!running && message.text !== "" && (
          <button type="button" class="quiet" onClick={(event) => void copyFrom(event.currentTarget, message.text)}>
            Copy
          </button>
        )}
        {!running && message.status !== "failed" && message.status !== "interrupted" && (
          <button type="button" class="quiet" disabled={busy} onClick={() => regenerate(app, message)}>
            Regenerate
          </button>
        )}
        <Speed message={message} generation={generation} counts={!thinking} />
      </div>
    </article>
  );
});

function regenerate(app: App, message: Message): void {
  void app.regenerate(message);
  focusMessage();
}

/** What there is to see before the first token, and while the connection is lost. */
function Waiting({ generation, phase }: { generation: Generation; phase: Phase }) {
  useClock(phase === "busy" || phase === "prefill" || phase === "reconnecting" || phase === "connecting");
  const seconds = Math.max(0, Math.ceil((generation.retryAt - Date.now()) / 1000));
  if (phase === "prefill" && generation.progress !== null) return <Prefill progress={generation.progress} />;
  if (phase === "connecting" || phase === "prefill") return <p class="waiting">Waiting for the server</p>;
  if (phase === "busy" || phase === "reconnecting") {
    return (
      <p class="waiting" role="status">
        {phase === "busy" ? "The server is busy" : "Offline, reconnecting"}
        {seconds > 0 && <span aria-hidden="true">; next attempt in {duration(seconds)}</span>}
        <button type="button" class="quiet" onClick={generation.tryNow}>
          Try now
        </button>
      </p>
    );
  }
  return null;
}

/** How the answer ended, where that was not by itself. */
function Ending({ app, message, busy }: { app: App; message: Message; busy: boolean }) {
  const again = (label: string) => (
    <button type="button" class="quiet" disabled={busy} onClick={() => regenerate(app, message)}>
      {label}
    </button>
  );
  switch (message.status) {
    case "failed":
      return (
        <p class="ending ending-failed">
          {message.failure?.sentence ?? "The answer failed."} {again("Retry")}
        </p>
      );
    case "interrupted":
      return (
        <p class="ending ending-failed">
          Interrupted. {message.failure?.sentence ?? ""} {again("Continue")}
        </p>
      );
    case "stopped":
      return <p class="ending">Stopped.</p>;
    case "cut_short":
      return <p class="ending">Cut short at the largest number of tokens.</p>;
    default:
      return null;
  }
}

function tokensPerSecond(stats: Stats): number | null {
  const seconds = stats.seconds - stats.promptSeconds;
  return stats.outputTokens > 1 && seconds > 0.2 ? stats.outputTokens / seconds : null;
}

/** While the thought runs its own line has the counts, so that the same number does not stand in two places. */
function Speed(props: { message: Message; generation: Generation | null; counts: boolean }) {
  const { message, generation, counts } = props;
  useClock(generation !== null);
  const stats = generation?.stats ?? message.stats;
  if (stats === null || stats.outputTokens === 0) return null;
  const speed = tokensPerSecond(stats);
  return (
    <span class="speed">
      {speed !== null && <span>{rate(speed)}</span>}
      {counts && <span>{tokens(stats.outputTokens)}</span>}
      {counts && <span>{duration(stats.seconds)}</span>}
    </span>
  );
}

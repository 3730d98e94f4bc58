import { useLayoutEffect, useRef, useState } from "preact/hooks";
import { duration, tokens } from "../format";
import type { Generation } from "../generation";
import type { Message } from "../model";
import { ThoughtView } from "../thought";
import { useClock } from "./live";

interface Props {
  message: Message;
  revision: number;
  generation: Generation | null;
  /** Tokens of the thought are still expected. */
  running: boolean;
}

/** The thought: its end while it runs, one line when it is over, all of it if the reader opens it. */
export function Thought({ message, revision, generation, running }: Props) {
  const [choice, setChoice] = useState<"none" | "open" | "folded">("none");
  const mode = choice === "open" ? "all" : choice === "none" && running ? "preview" : "folded";
  const place = useRef<HTMLDivElement>(null);
  const view = useRef<ThoughtView | null>(null);

  useLayoutEffect(() => {
    view.current ??= new ThoughtView(place.current!);
    const show = () => {
      const { thought } = generation?.message ?? message;
      if (mode === "all") {
        view.current!.update(thought);
      } else if (mode === "preview") {
        view.current!.preview(thought);
        place.current!.scrollTop = place.current!.scrollHeight;
      } else {
        view.current!.clear();
      }
    };
    show();
    return generation?.listen(show);
  }, [mode, generation, generation === null ? revision : 0]);

  return (
    <section class={`thought thought-${mode}`} aria-label="Thought">
      <button
        type="button"
        class="thought-line"
        aria-expanded={mode === "all"}
        onClick={() => setChoice(mode === "all" ? "folded" : "open")}
      >
        <svg class="chevron" viewBox="0 0 10 10" width="10" height="10" aria-hidden="true">
          <path d="M3 1.5 7 5 3 8.5" fill="none" stroke="currentColor" stroke-width="1.3" />
        </svg>
        <Line message={message} generation={generation} running={running} />
      </button>
      <div class="thought-text" ref={place} hidden={mode === "folded"} />
    </section>
  );
}

function Line({ message, generation, running }: Omit<Props, "revision">) {
  useClock(running);
  const stats = generation?.stats ?? message.stats;
  if (stats === null) return <span>Thought</span>;
  // While it runs the clock goes on between tokens too.
  const seconds = running
    ? Math.max(stats.reasoningSeconds, (Date.now() - message.created) / 1000 - stats.promptSeconds)
    : stats.reasoningSeconds;
  return (
    <span>
      {running ? "Thinking" : "Thought"} for {duration(seconds)} · {tokens(stats.reasoningTokens)}
    </span>
  );
}

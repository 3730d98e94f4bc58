import type { RefObject } from "preact";
import { useLayoutEffect, useState } from "preact/hooks";
import type { App } from "../app";
import { count } from "../format";
import { useClock } from "./live";

interface Props {
  app: App;
  area: RefObject<HTMLTextAreaElement>;
}

export function Composer({ app, area }: Props) {
  const [text, setText] = useState("");
  const running = app.running();
  const canSend = text.trim() !== "" && app.model !== null;

  useLayoutEffect(() => {
    const field = area.current!;
    // Where the style sheet cannot let the field grow with its text.
    if (CSS.supports("field-sizing", "content")) return;
    field.style.height = "auto";
    field.style.height = `${field.scrollHeight}px`;
  }, [text]);

  const submit = () => {
    if (running !== null || !canSend) return;
    setText("");
    void app.send(text);
    area.current?.focus();
  };

  return (
    <form
      class="composer"
      aria-label="Write a message"
      onSubmit={(event) => {
        event.preventDefault();
        submit();
      }}
    >
      <div class="composer-field">
        <textarea
          id="message"
          ref={area}
          rows={1}
          aria-label="Message"
          placeholder="Write a message"
          value={text}
          onInput={(event) => setText(event.currentTarget.value)}
          onKeyDown={(event) => {
            if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
            event.preventDefault();
            submit();
          }}
        />
        {running !== null ? (
          <button type="button" class="primary" onClick={() => running.stop()}>
            Stop
          </button>
        ) : (
          <button type="submit" class="primary" disabled={!canSend}>
            Send
          </button>
        )}
      </div>
      <ContextMeter app={app} />
    </form>
  );
}

/** How much of the context the conversation takes so far. */
function ContextMeter({ app }: { app: App }) {
  const running = app.running();
  useClock(running !== null);
  const context = app.modelInUse()?.context ?? null;
  const last = app.shown().findLast((message) => message.stats !== null && message.stats.promptTokens > 0);
  const stats = running?.stats ?? last?.stats ?? null;
  if (context === null || stats === null || stats.promptTokens === 0) return <div class="meter" />;
  const used = stats.promptTokens + stats.outputTokens;
  const share = Math.min(1, used / context);
  return (
    <div class={share > 0.9 ? "meter meter-full" : "meter"}>
      <div
        class="meter-bar"
        role="meter"
        aria-label="Context in use"
        aria-valuemin={0}
        aria-valuemax={context}
        aria-valuenow={Math.min(used, context)}
        aria-valuetext={`${count(used)} of ${count(context)} tokens`}
      >
        <div style={{ width: `${100 * share}%` }} />
      </div>
      <span>
        {count(used)} of {count(context)} tokens
      </span>
    </div>
  );
}

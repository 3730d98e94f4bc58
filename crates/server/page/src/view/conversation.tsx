import { useEffect, useLayoutEffect, useRef, useState } from "preact/hooks";
import type { App } from "../app";
import { copyFrom } from "../clipboard";
import { Scroller } from "../scroller";
import { facts } from "./header";
import { AssistantMessage } from "./answer";
import { UserMessage } from "./question";

export function Conversation({ app }: { app: App }) {
  const frame = useRef<HTMLElement>(null);
  const content = useRef<HTMLDivElement>(null);
  const scroller = useRef<Scroller | null>(null);
  const [following, setFollowing] = useState(true);

  useLayoutEffect(() => {
    const made = new Scroller(frame.current!, content.current!, setFollowing);
    scroller.current = made;
    made.follow();
    return () => made.dispose();
  }, []);

  const messages = app.shown();
  const asked = messages.filter((message) => message.role === "user").at(-1)?.id;
  const running = app.running() !== null;
  useEffect(() => {
    if (running) scroller.current?.follow();
  }, [asked, running]);

  const clicked = (event: MouseEvent) => {
    const button = (event.target as Element).closest<HTMLButtonElement>("button.copy-code");
    const code = button?.closest("figure")?.querySelector("code");
    if (button && code) void copyFrom(button, code.textContent ?? "");
  };

  return (
    <main class="scroll" ref={frame} onClick={clicked} tabIndex={0} aria-label="Conversation">
      <div class="log" ref={content}>
        {app.ready && messages.length === 0 && <Beginning app={app} />}
        {messages.map((message) => {
          const siblings = app.siblings(message);
          const common = {
            app,
            message,
            revision: message.revision,
            position: siblings.indexOf(message),
            count: siblings.length,
          };
          return message.role === "user" ? (
            <UserMessage key={message.id} {...common} busy={running} />
          ) : (
            <AssistantMessage
              key={message.id}
              {...common}
              busy={running}
              generation={app.generations.get(message.id) ?? null}
            />
          );
        })}
      </div>
      {!following && (
        <button type="button" class="jump" onClick={() => scroller.current?.follow()}>
          Jump to latest
        </button>
      )}
    </main>
  );
}

function Beginning({ app }: { app: App }) {
  const model = app.modelInUse();
  return (
    <section class="beginning" aria-label="New conversation">
      <p class="beginning-name">{model === null ? "Minke" : model.id}</p>
      {model !== null && <p class="beginning-facts">{facts(model).join(" · ")}</p>}
      <p class="beginning-hint">
        Conversations stay in this browser.
        <br />
        <span>
          <kbd>Enter</kbd> sends
        </span>
        {", "}
        <span>
          <kbd>Shift</kbd> <kbd>Enter</kbd> begins a line
        </span>
        {", "}
        <span>
          <kbd>Esc</kbd> stops an answer
        </span>
        {", "}
        <span>
          <kbd>/</kbd> searches
        </span>
      </p>
    </section>
  );
}

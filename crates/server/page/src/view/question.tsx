import { useEffect, useRef, useState } from "preact/hooks";
import type { App } from "../app";
import { copyFrom } from "../clipboard";
import type { Message } from "../model";
import { focusMessage } from "./focus";
import { memo } from "./memo";
import { Siblings } from "./siblings";

interface Props {
  app: App;
  message: Message;
  revision: number;
  position: number;
  count: number;
  busy: boolean;
}

export const UserMessage = memo(function UserMessage({ app, message, position, count, busy }: Props) {
  const [editing, setEditing] = useState(false);
  const edit = useRef<HTMLButtonElement>(null);
  const close = () => {
    setEditing(false);
    requestAnimationFrame(() => edit.current?.focus());
  };
  return (
    <article class="question" aria-label="Your message">
      {editing ? (
        <Editor
          text={message.text}
          cancel={close}
          save={(text) => {
            setEditing(false);
            void app.edit(message, text);
            focusMessage();
          }}
        />
      ) : (
        <>
          <div class="question-text">{message.text}</div>
          <div class="actions">
            <Siblings app={app} message={message} position={position} count={count} disabled={busy} />
            <button type="button" class="quiet" onClick={(event) => void copyFrom(event.currentTarget, message.text)}>
              Copy
            </button>
            <button type="button" class="quiet" ref={edit} disabled={busy} onClick={() => setEditing(true)}>
              Edit
            </button>
          </div>
        </>
      )}
    </article>
  );
});

function Editor({ text, save, cancel }: { text: string; save(text: string): void; cancel(): void }) {
  const area = useRef<HTMLTextAreaElement>(null);
  useEffect(() => {
    area.current!.focus();
    area.current!.setSelectionRange(text.length, text.length);
  }, []);
  const submit = () => save(area.current!.value);
  return (
    <form
      class="editor"
      onSubmit={(event) => {
        event.preventDefault();
        submit();
      }}
    >
      <textarea
        ref={area}
        aria-label="Edit your message"
        defaultValue={text}
        onKeyDown={(event) => {
          if (event.key === "Escape") {
            event.stopPropagation();
            cancel();
          } else if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
            event.preventDefault();
            submit();
          }
        }}
      />
      <div class="editor-actions">
        <button type="submit" class="primary">
          Ask again
        </button>
        <button type="button" class="quiet" onClick={cancel}>
          Cancel
        </button>
      </div>
    </form>
  );
}

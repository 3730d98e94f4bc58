import { useRef } from "preact/hooks";
import type { App } from "../app";
import { Dialog } from "./dialog";

export function KeyQuestion({ app }: { app: App }) {
  const key = useRef<HTMLInputElement>(null);
  const remember = useRef<HTMLInputElement>(null);
  return (
    <Dialog class="key" label="Key of the server" close={() => app.answerKey(null, false)}>
      <form
        onSubmit={(event) => {
          event.preventDefault();
          const value = key.current!.value.trim();
          if (value !== "") app.answerKey(value, remember.current!.checked);
        }}
      >
        <h2>This server asks for a key</h2>
        {app.keyRefused && (
          <p class="ending-failed" role="alert">
            The server did not accept the last key.
          </p>
        )}
        <label>
          Key
          <input ref={key} name="key" type="password" autocomplete="off" spellcheck={false} required />
        </label>
        <label class="check">
          <input ref={remember} name="remember" type="checkbox" />
          Remember it in this browser
        </label>
        <p class="hint">Without that, it is forgotten when this tab is closed.</p>
        <div class="editor-actions">
          <button type="submit" class="primary">
            Use this key
          </button>
          <button type="button" class="quiet" onClick={() => app.answerKey(null, false)}>
            Cancel
          </button>
        </div>
      </form>
    </Dialog>
  );
}

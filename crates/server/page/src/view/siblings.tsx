import type { App } from "../app";
import type { Message } from "../model";

interface Props {
  app: App;
  message: Message;
  position: number;
  count: number;
  disabled: boolean;
}

/** Switches between messages that stand in the same place. */
export function Siblings({ app, message, position, count, disabled }: Props) {
  if (count < 2) return null;
  const go = (step: number) => void app.switchTo(app.siblings(message)[position + step]!);
  return (
    <span class="siblings" role="group" aria-label="Versions">
      <button
        type="button"
        class="quiet"
        aria-label="Version before"
        disabled={disabled || position === 0}
        onClick={() => go(-1)}
      >
        ‹
      </button>
      <span aria-label={`Version ${position + 1} of ${count}`} role="img">
        {position + 1}/{count}
      </span>
      <button
        type="button"
        class="quiet"
        aria-label="Version after"
        disabled={disabled || position + 1 === count}
        onClick={() => go(1)}
      >
        ›
      </button>
    </span>
  );
}

import { count } from "../format";
import type { Progress } from "../model";

/** How much of the prompt is read; the part that was found in the cache has a shade of its own. */
export function Prefill({ progress }: { progress: Progress }) {
  const { promptTokens, cachedTokens } = progress;
  const done = Math.max(progress.prefilledTokens, cachedTokens);
  const share = (value: number) => `${promptTokens > 0 ? Math.min(100, (100 * value) / promptTokens) : 0}%`;
  return (
    <div class="prefill">
      <div
        class="prefill-bar"
        role="progressbar"
        aria-label="Reading the prompt"
        aria-valuemin={0}
        aria-valuemax={promptTokens}
        aria-valuenow={done}
      >
        <div class="prefill-done" style={{ width: share(done) }} />
        <div class="prefill-cached" style={{ width: share(cachedTokens) }} />
      </div>
      <p class="waiting">
        Reading the prompt: {count(done)} of {count(promptTokens)} tokens
        {cachedTokens > 0 && `, ${count(cachedTokens)} from the cache`}
      </p>
    </div>
  );
}

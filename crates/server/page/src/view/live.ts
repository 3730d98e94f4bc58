import { useEffect, useReducer } from "preact/hooks";
import type { Generation, Phase } from "../generation";

/** Redraws the caller several times a second while `active`, for clocks and counts. */
export function useClock(active: boolean): void {
  const [, redraw] = useReducer<number, void>((n) => n + 1, 0);
  useEffect(() => {
    if (!active) return;
    const timer = setInterval(() => redraw(), 250);
    return () => clearInterval(timer);
  }, [active]);
}

/** What a generation is at; the caller is redrawn when that changes, and not for every token. */
export function usePhase(generation: Generation | null): Phase {
  const [, redraw] = useReducer<number, void>((n) => n + 1, 0);
  const phase = generation?.phase ?? "ended";
  useEffect(() => {
    if (generation === null) return;
    let seen = phase;
    const look = () => {
      if (generation.phase === seen) return;
      seen = generation.phase;
      redraw();
    };
    // It may have gone on between the drawing and this effect.
    look();
    return generation.listen(look);
  }, [generation]);
  return phase;
}

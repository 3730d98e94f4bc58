import type { Series } from "./series";

/** A drawing: some numbers of a stage that have one unit. */
export interface Panel {
  title: string;
  names: string[];
  /** A number that is drawn as a band around the first. */
  band?: string;
  note?: string;
  /** Shares are drawn from 0, to 1 unless all of them are small. */
  share?: boolean;
}

const PANELS: readonly Panel[] = [
  {
    title: "Reward",
    names: ["reward"],
    band: "reward_std",
    note: "mean over the answers of a step; the band is one mean deviation within a group",
  },
  {
    title: "Shares of answers",
    names: ["rewards/accuracy/mean", "rewards/format/mean", "rewards/language_consistency/mean"],
    share: true,
  },
  { title: "Loss", names: ["loss", "next", "mtp", "balance"] },
  { title: "Groups without a gradient", names: ["frac_reward_zero_std", "groups/all_right", "groups/all_wrong"], share: true },
  { title: "Length of an answer, tokens", names: ["completions/mean_length"] },
  { title: "Answers cut off", names: ["completions/clipped_ratio"], share: true },
  { title: "Entropy, nats", names: ["entropy"] },
  { title: "Divergence from the reference, nats", names: ["kl"] },
  { title: "Gradient norm", names: ["grad_norm"] },
  { title: "Tokens that the clip holds back", names: ["clip_ratio"], share: true },
  { title: "Answers kept", names: ["kept_ratio"], share: true },
  { title: "Attempts of an answer", names: ["attempts"] },
  { title: "Learning rate", names: ["learning_rate"] },
  { title: "Tokens per second", names: ["tokens_per_second", "rollout_tokens_per_second"] },
  { title: "Seconds of a step", names: ["step_time", "rollout_s", "training_s", "scoring_s", "eval_s"] },
];

/** Numbers that are the same as another, or that say little as a curve. */
const UNSHOWN = new Set(["rollback_to", "reward_std"]);

/** The drawings of a stage: those that are known, then one for each number that is in none of them. */
export function panels(series: Series): { main: Panel[]; rest: Panel[] } {
  const names = series.names();
  const there = new Set(names);
  const evals = names.filter((name) => name.startsWith("eval/") && name.endsWith("pass@1"));
  const loads = names.filter((name) => name.startsWith("expert_load/"));
  const main: Panel[] = PANELS.map((panel) => ({ ...panel, names: panel.names.filter((name) => there.has(name)) }));
  main.splice(2, 0, { title: "Held-out answers that are right", names: evals, share: true });
  main.push({ title: "Load of the fullest expert over the mean, less 1", names: loads });
  const drawn = new Set(main.flatMap((panel) => panel.names));
  const rest = names.filter((name) => !drawn.has(name) && !UNSHOWN.has(name));
  return {
    main: main.filter((panel) => panel.names.length > 0),
    rest: rest.map((name) => ({ title: name, names: [name] })),
  };
}

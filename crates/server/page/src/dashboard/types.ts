/** What the server says, as `minke_train::live` writes it. */

export type State = "waiting" | "running" | "quiet" | "finished";
export type Verdict = "right" | "wrong" | "gold_unusable";

export interface Run {
  name: string;
  facts: [string, string][];
  stages: Stage[];
}

export interface Stage {
  name: string;
  kind: string;
  state: State;
  steps: number;
  total: number | null;
  seconds: number;
  step_seconds: number | null;
  left_seconds: number | null;
  quiet_seconds: number | null;
  newest: Record<string, unknown> | null;
  generation: number;
  metrics: number;
  timings: number;
  groups: number;
  rollouts: number;
  read: number;
  amiss: Amiss[];
  scores: Score[];
  broken: string[];
}

export interface Amiss {
  reason: string;
  advice: string;
  steps: number;
  first: number;
  last: number;
  streak: number;
  now: boolean;
}

export interface Score {
  task: string;
  side: string;
  mode: string;
  problems: number;
  pass_at_1: { mean: number; low: number; high: number };
  blind: number | null;
  pass_at_k: [number, number] | null;
  mean_tokens: number | null;
  truncated: number | null;
}

export interface Lines {
  from: number;
  to: number;
  total: number;
  steps: number[];
  columns: [string, (number | null)[]][];
}

export interface SeriesAnswer {
  generation: number;
  metrics: Lines;
  timings: Lines;
}

export interface Brief {
  verdict: Verdict;
  truncated: boolean;
  tokens: number;
  reward: number | null;
  advantage: number | null;
  fits: boolean;
}

export interface FoundGroup {
  group: number;
  step: number;
  task: string;
  problem: string;
  question: string;
  rollouts: Brief[];
}

export interface Found {
  groups: number;
  rollouts: number;
  fitting: number;
  found: FoundGroup[];
  next: number | null;
}

export interface Rollout {
  text: string;
  verdict: Verdict;
  format: number;
  language?: number;
  overlong?: number;
  reward: number | null;
  advantage: number | null;
  tokens: number;
  truncated: boolean;
}

export interface Group {
  group: number;
  record: { step: number; task: string; id: string; question: string; rollouts: Rollout[] };
}

//! The names of what a run writes about its steps, under those of TRL where it has one.

/// The step, in every line.
pub const STEP: &str = "step";
/// What an update minimised.
pub const LOSS: &str = "loss";
/// Cross-entropy of the next token, in nats.
pub const NEXT: &str = "next";
/// Cross-entropy of the token after the next, in nats.
pub const MTP: &str = "mtp";
/// Balance loss of the experts without its factor.
pub const BALANCE: &str = "balance";
/// Norm of all gradients before clipping.
pub const GRAD_NORM: &str = "grad_norm";
/// Learning rate of the update: Muon's where it is used, otherwise AdamW's.
pub const LEARNING_RATE: &str = "learning_rate";
/// Tokens that were learned from or drawn.
pub const NUM_TOKENS: &str = "num_tokens";
/// Updates left out because a value was not finite.
pub const SKIPPED: &str = "skipped";
/// By how much the fullest expert exceeds the mean load, as a share of the mean.
pub const MAX_VIOLATION: &str = "expert_load/max_violation";
/// Where the names of expert loads begin.
pub const EXPERT_LOAD: &str = "expert_load/";
/// Step that a rollback went back to.
pub const ROLLBACK_TO: &str = "rollback_to";
/// Numbers of the data that a rollback passed over: the first, and the first behind it.
pub const SKIPPED_DATA: &str = "skipped_data";

/// Mean reward.
pub const REWARD: &str = "reward";
/// Mean deviation of the rewards of a group.
pub const REWARD_STD: &str = "reward_std";
/// Share of groups whose rewards are all the same.
pub const FRAC_REWARD_ZERO_STD: &str = "frac_reward_zero_std";
/// Share of groups whose answers are all right.
pub const ALL_RIGHT: &str = "groups/all_right";
/// Share of groups whose answers are all wrong.
pub const ALL_WRONG: &str = "groups/all_wrong";
/// Groups that were drawn, those that made room for others included.
pub const GROUPS: &str = "groups/drawn";
/// Share of right answers.
pub const ACCURACY: &str = "rewards/accuracy/mean";
/// Share of answers with exactly one thought and then an answer.
pub const FORMAT: &str = "rewards/format/mean";
/// Mean share of a thought's words that are in the language that is rewarded.
pub const LANGUAGE: &str = "rewards/language_consistency/mean";
/// Mean estimate of the divergence from the reference, by token.
pub const KL: &str = "kl";
/// Mean entropy of the distributions that tokens were drawn from, in nats.
pub const ENTROPY: &str = "entropy";
/// Share of tokens whose ratio the clip holds back.
pub const CLIP_RATIO: &str = "clip_ratio";
/// Share of tokens whose ratio is exactly 1 in the first update of a step.
pub const RATIO_EXACT: &str = "ratio_exact";
/// Mean length of an answer in tokens.
pub const MEAN_LENGTH: &str = "completions/mean_length";
/// Share of answers that the cap cut off.
pub const CUT_OFF: &str = "completions/clipped_ratio";
/// Mean number of attempts of an answer.
pub const ATTEMPTS: &str = "attempts";
/// Answers that were learned from.
pub const LEARNED: &str = "learned";
/// Answers to problems that cannot be graded.
pub const GOLD_UNUSABLE: &str = "gold_unusable";
/// Share of answers to problems that cannot be graded.
pub const GOLD_UNUSABLE_RATIO: &str = "gold_unusable_ratio";
/// Answers that rejection sampling kept.
pub const KEPT: &str = "kept";
/// Share of answers that rejection sampling kept.
pub const KEPT_RATIO: &str = "kept_ratio";
/// Answers that an endpoint did not give.
pub const UNANSWERED: &str = "unanswered";

/// Mean of the steps by which the policies were too old that drew what a step learned from, and the largest.
pub const STALENESS_MEAN: &str = "sampling/staleness/mean";
/// See [`STALENESS_MEAN`].
pub const STALENESS_MAX: &str = "sampling/staleness/max";
/// Mean importance weight of what workers drew, before weights are cut off, and the largest.
pub const IMPORTANCE_MEAN: &str = "sampling/importance_sampling_ratio/mean";
/// See [`IMPORTANCE_MEAN`].
pub const IMPORTANCE_MAX: &str = "sampling/importance_sampling_ratio/max";
/// Share of the importance weights that were cut off.
pub const IMPORTANCE_CUT: &str = "sampling/importance_sampling_ratio/truncated";

/// Requests that were lost with the workers that had them.
pub const LOST_REQUESTS: &str = "sampling/lost_requests";
/// Rollouts that were thrown away because their policy was too old.
pub const STALE_ROLLOUTS: &str = "sampling/stale_rollouts";

/// Rollouts of a worker, by its place in the list of the stage.
pub fn rollouts_of_worker(worker: usize) -> String {
    format!("sampling/worker_{worker}/rollouts")
}

/// Seconds of a step.
pub const STEP_TIME: &str = "step_time";
/// Of every rank, seconds of a step in forwards and backwards, with what it waited there for other ranks, but not for their gradients.
pub const RANK_TIMES: &str = "rank_times";
/// Tokens of a step over its seconds.
pub const TOKENS_PER_SECOND: &str = "tokens_per_second";
/// Tokens drawn over the seconds of drawing them.
pub const ROLLOUT_TOKENS_PER_SECOND: &str = "rollout_tokens_per_second";

/// Where the names of held-out scores begin.
pub const EVAL: &str = "eval/";
/// Where the names of held-out shares of right answers end.
pub const PASS_AT_1: &str = "pass@1";

/// The share of right answers to held-out problems of a task.
pub fn pass_at_1(task: &str) -> String {
    format!("{EVAL}{task}/{PASS_AT_1}")
}

/// The seconds of a part of a step.
pub fn seconds(part: &str) -> String {
    format!("{part}_s")
}

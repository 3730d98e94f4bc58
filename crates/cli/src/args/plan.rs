//! What `minke plan` takes: a question each.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use minke_plan::schedule::Schedule;

use super::{Output, values};

/// `minke plan`
#[derive(Subcommand)]
pub enum Plan {
    /// What did the training of DeepSeek-V3 or R1 cost?
    Cost(PlanCost),
    /// What would mine cost: layout, memory per rank, step, links, days, money, energy?
    Train(PlanTrain),
    /// How does a training run scale with the number of ranks, and what breaks first?
    Scale(PlanTrain),
    /// What is the cheapest way to so many tokens?
    Cheapest(PlanCheapest),
    /// Which part under a rule of export can train or serve it, how many, how long?
    Export(PlanExport),
    /// What happens to a training run if a node dies?
    Failure(PlanTrain),
    /// What would R1's reinforcement learning cost with rollouts of my length?
    Rl(PlanRl),
    /// How fast are tokens read and written, for how many users, at what price?
    Serve(PlanServe),
    /// What fits on what I have, and how fast can it write?
    Fit(PlanFit),
    /// Which rank holds which expert, for loads that were counted?
    Balance(PlanBalance),
    /// Which parts are known, with rules of export and sources?
    Hardware(PlanHardware),
}

/// What all questions share.
#[derive(Args)]
pub struct Assumed {
    /// A number that the answer rests on, such as mfu=0.35 or h800.rent=1.5; may be given again. The answer lists them all
    #[arg(long, value_name = "NAME=VALUE", value_parser = values::set)]
    pub set: Vec<(String, String)>,
    /// TOML file of such numbers, a line each: mfu = 0.35
    #[arg(long, value_name = "FILE")]
    pub assume: Option<PathBuf>,
    #[command(flatten)]
    pub drawn: Drawn,
}

/// Where an answer goes.
#[derive(Args)]
pub struct Drawn {
    /// TOML file with parts of your own; may be given again
    #[arg(long, value_name = "FILE")]
    pub hardware: Vec<PathBuf>,
    /// File for the answer as a picture
    #[arg(long, value_name = "FILE")]
    pub svg: Option<PathBuf>,
    #[command(flatten)]
    pub output: Output,
}

/// The model that is asked about.
#[derive(Args)]
pub struct Planned {
    /// Name (deepseek-v3, deepseek-r1, deepseek-v2, deepseek-v2-lite, deepseek-r1-distill-qwen-7b, ..), a config.json, or a
    /// folder with one
    pub model: String,
}

/// `minke plan cost`
#[derive(Args)]
pub struct PlanCost {
    #[command(flatten)]
    pub model: Planned,
    #[command(flatten)]
    pub assumed: Assumed,
}

/// `minke plan train`, `scale` and `failure`
#[derive(Args)]
pub struct PlanTrain {
    #[command(flatten)]
    pub model: Planned,
    /// Tokens of the run, such as 14.8T
    #[arg(long, default_value = "14.8T", value_parser = values::count)]
    pub tokens: f64,
    /// Part, as minke plan hardware names it
    #[arg(long, default_value = "h800")]
    pub part: String,
    /// How many
    #[arg(long, default_value_t = 2048)]
    pub count: usize,
    /// Sequences of a step
    #[arg(long, default_value_t = 15_360)]
    pub batch: usize,
    /// Tokens of a sequence
    #[arg(long, default_value_t = 4096)]
    pub sequence: usize,
    /// Ranks of a pipeline [default: with --expert, of the fastest layout that fits]
    #[arg(long, value_name = "RANKS")]
    pub pipeline: Option<usize>,
    /// Ranks over which experts are spread
    #[arg(long, value_name = "RANKS")]
    pub expert: Option<usize>,
    /// Order of work in a pipeline: 1f1b, zb1p or dualpipe [default: the faster of 1f1b and dualpipe]
    #[arg(long, value_parser = values::schedule)]
    pub schedule: Option<Schedule>,
    /// Products with weights: fp8 or bf16 [default: fp8 where the part has it]; on one machine that was measured f32 or bf16
    /// [default: f32]
    #[arg(long, value_parser = ["fp8", "bf16", "f32"])]
    pub precision: Option<String>,
    /// Share of the dense BF16 rate that is reached, in place of the simulated one
    #[arg(long)]
    pub mfu: Option<f64>,
    #[command(flatten)]
    pub assumed: Assumed,
}

/// `minke plan cheapest`
#[derive(Args)]
pub struct PlanCheapest {
    #[command(flatten)]
    pub model: Planned,
    /// Tokens of the run, such as 1T
    #[arg(long, value_parser = values::count)]
    pub tokens: f64,
    /// Days that it may take
    #[arg(long)]
    pub days: Option<f64>,
    /// Most of a part
    #[arg(long, default_value_t = 2048)]
    pub most: usize,
    /// Sequences of a step
    #[arg(long, default_value_t = 15_360)]
    pub batch: usize,
    /// Tokens of a sequence
    #[arg(long, default_value_t = 4096)]
    pub sequence: usize,
    #[command(flatten)]
    pub assumed: Assumed,
}

/// `minke plan export`
#[derive(Args)]
pub struct PlanExport {
    #[command(flatten)]
    pub model: Planned,
    /// Tokens of the training run
    #[arg(long, default_value = "14.8T", value_parser = values::count)]
    pub tokens: f64,
    /// Days that it may take
    #[arg(long, default_value_t = 60.0)]
    pub days: f64,
    /// Most of a part
    #[arg(long, default_value_t = 16_384)]
    pub most: usize,
    /// Tokens of cache of a user who is served
    #[arg(long, default_value = "4989", value_parser = values::count)]
    pub context: f64,
    #[command(flatten)]
    pub assumed: Assumed,
}

/// `minke plan rl`
#[derive(Args)]
pub struct PlanRl {
    #[command(flatten)]
    pub model: Planned,
    /// Tokens of a rollout, on average
    #[arg(long, value_parser = values::count)]
    pub rollout_tokens: f64,
    /// Part, as minke plan hardware names it
    #[arg(long, default_value = "h800")]
    pub part: String,
    /// How many
    #[arg(long, default_value_t = 512)]
    pub count: usize,
    /// Ranks that share one copy of the model while it writes
    #[arg(long, value_name = "RANKS", default_value_t = 64)]
    pub decode_ranks: usize,
    #[command(flatten)]
    pub assumed: Assumed,
}

/// `minke plan serve`
#[derive(Args)]
pub struct PlanServe {
    #[command(flatten)]
    pub model: Planned,
    /// Part, as minke plan hardware names it
    #[arg(long, default_value = "h800")]
    pub part: String,
    /// Ranks that write for one group of users
    #[arg(long, value_name = "RANKS", default_value_t = 144)]
    pub decode_ranks: usize,
    /// Ranks that read prompts together
    #[arg(long, value_name = "RANKS", default_value_t = 32)]
    pub prefill_ranks: usize,
    /// Tokens of cache that a user has, on average
    #[arg(long, default_value = "4989", value_parser = values::count)]
    pub context: f64,
    /// Tokens of a prompt
    #[arg(long, default_value_t = 4096)]
    pub prompt: usize,
    /// Users per rank [default: as many as fit]
    #[arg(long)]
    pub users: Option<f64>,
    #[command(flatten)]
    pub assumed: Assumed,
}

/// `minke plan fit`
#[derive(Args)]
pub struct PlanFit {
    /// As in the other questions [default: every model that has a name]; a GGUF file with a part that minke doctor --part
    /// measured: how fast it runs there
    pub model: Option<String>,
    /// Part, as minke plan hardware names it
    #[arg(long)]
    pub part: String,
    /// How many, in one machine
    #[arg(long, default_value_t = 1)]
    pub count: usize,
    /// Tokens of the one user
    #[arg(long, default_value = "4096", value_parser = values::count)]
    pub context: f64,
    #[command(flatten)]
    pub assumed: Assumed,
}

/// `minke plan balance`
#[derive(Args)]
pub struct PlanBalance {
    /// JSON file: a list per layer, in it the load of each expert
    pub loads: PathBuf,
    /// Slots for experts and their copies, all ranks together
    #[arg(long)]
    pub slots: usize,
    /// Groups of consecutive experts, which a node should hold whole
    #[arg(long)]
    pub groups: usize,
    /// Nodes
    #[arg(long)]
    pub nodes: usize,
    /// Ranks, all nodes together
    #[arg(long)]
    pub ranks: usize,
    #[command(flatten)]
    pub drawn: Drawn,
}

/// `minke plan hardware`
#[derive(Args)]
pub struct PlanHardware {
    #[command(flatten)]
    pub drawn: Drawn,
}

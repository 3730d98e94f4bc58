//! The model as data.
//!
//! The published `config.json` becomes a checked [`ModelConfig`]; from it follow, by pure functions, every parameter's
//! name and shape ([`params`]), the rotary frequencies ([`rope`]), the weight formats' geometry ([`mod@format`]) and every
//! count that the papers print ([`cost`]). Loader, exporter, planner and trainer read these tables and nothing else,
//! so they cannot disagree. There is no tensor and no I/O in this crate.
//!
//! # Legend of shape letters
//!
//! Shapes are written `[T, D]` in documentation; where a name is ambiguous, model code carries the letters as a suffix
//! (`q_nope_THN`). The letters mean the same everywhere in the project:
//!
//! | Letter | Meaning | R1 |
//! |---|---|---:|
//! | `B` | sequences in a batch | |
//! | `T` | packed tokens of a batch, all sequences one after the other | |
//! | `D` | `hidden_size` | 7168 |
//! | `H` | heads: `num_attention_heads` | 128 |
//! | `N` | `qk_nope_head_dim`, the part of a head without position | 128 |
//! | `R` | `qk_rope_head_dim`, the rotated part of a head | 64 |
//! | `V` | `v_head_dim` | 128 |
//! | `C` | `kv_lora_rank`, the width of the cached latent | 512 |
//! | `Q` | `q_lora_rank`, the width of the compressed query | 1536 |
//! | `E` | experts: `n_routed_experts` | 256 |
//! | `K` | experts per token: `num_experts_per_tok` | 8 |
//! | `F` | width of a feed-forward: `intermediate_size`, `moe_intermediate_size` | 18432, 2048 |
//! | `W` | vocabulary: `vocab_size` | 129280 |
//! | `P` | pages of the cache | |
//! | `G` | group size, the rollouts of one question | 16 |
//!
//! Matrices are stored `[out, in]`, as published, and applied as `y = x W^T`.

pub mod config;
pub mod cost;
pub mod draw;
mod error;
pub mod format;
pub mod params;
pub mod placement;
mod precision;
pub mod presets;
pub mod rope;

pub use config::ModelConfig;
pub use error::Error;
pub use format::Format;
pub use params::{ParamRole, ParamSpec, Shard, parameters};
pub use placement::Placement;
pub use precision::Precision;

//! The operations, one folder each: `reference.rs` is the executable specification, `cpu.rs` the tuned version,
//! `mod.rs` states equation, shapes and numerics.

pub mod adamw;
pub mod attention;
pub mod cache;
pub mod embed;
pub mod grouped_matmul;
pub(crate) mod lanes;
pub mod log_prob;
pub mod matmul;
pub mod muon;
pub mod norm;
pub mod pointwise;
pub mod rope;
pub mod route;
pub mod rows;
pub mod sample;
pub(crate) mod split;
pub mod stored_matmul;
pub mod swiglu;
#[cfg(test)]
pub(crate) mod testing;

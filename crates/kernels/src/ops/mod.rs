//! The operations, one folder each: `reference.rs` is the executable specification, `cpu.rs` the tuned version,
//! `mod.rs` states equation, shapes and numerics.

pub mod attention;
pub mod cache;
pub mod grouped_matmul;
pub mod log_prob;
pub mod matmul;
pub mod muon;
pub mod adamw;
pub mod embed;
pub mod norm;
pub mod pointwise;
pub mod rope;
pub mod route;
pub mod rows;
pub mod swiglu;
pub(crate) mod lanes;
pub(crate) mod split;
#[cfg(test)]
pub(crate) mod testing;

//! How are numbers stored in fewer bits than they are computed in? One file per format; arithmetic is in f32.

pub mod bf16;
pub mod fp8;

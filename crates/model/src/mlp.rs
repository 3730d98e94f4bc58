//! What does a dense feed-forward compute? `down(silu(gate(x)) * up(x))`.

use minke_tensor::{Param, Pass, Tensor};

use crate::source::{Source, params};

/// A SwiGLU feed-forward; also the shared expert.
#[derive(Clone)]
pub(crate) struct Mlp {
    gate_proj: Param,
    up_proj: Param,
    down_proj: Param,
}

params!(Mlp { gate_proj, up_proj, down_proj });

impl Mlp {
    pub(crate) fn new(source: &mut Source, prefix: &str) -> Self {
        let mut take = |name: &str| source.take(&format!("{prefix}.{name}.weight"));
        Self { gate_proj: take("gate_proj"), up_proj: take("up_proj"), down_proj: take("down_proj") }
    }

    /// Returns the output. x [T, D] -> [T, D]
    pub(crate) fn forward(&self, pass: Pass<'_>, x: &Tensor) -> minke_tensor::Result<Tensor> {
        let hidden = x.matmul(pass, &self.gate_proj)?.swiglu(pass, &x.matmul(pass, &self.up_proj)?)?;
        hidden.matmul(pass, &self.down_proj)
    }
}

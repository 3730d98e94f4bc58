//! The dense feed-forward: `down(silu(gate(x)) * up(x))`.

use minke_tensor::{Pass, Tensor};

use crate::projection::Projection;
use crate::source::{ParamSource, params};

/// A SwiGLU feed-forward; also the shared expert.
#[derive(Clone)]
pub(crate) struct Mlp {
    gate_proj: Projection,
    up_proj: Projection,
    down_proj: Projection,
}

params!(Mlp { gate_proj, up_proj, down_proj });

impl Mlp {
    pub(crate) fn new(source: &mut ParamSource, prefix: &str) -> Self {
        let mut projection = |name: &str| Projection::new(source, &format!("{prefix}.{name}"));
        Self { gate_proj: projection("gate_proj"), up_proj: projection("up_proj"), down_proj: projection("down_proj") }
    }

    /// The output. x [T, D] -> [T, D]
    pub(crate) fn forward(&self, pass: Pass<'_>, x: &Tensor) -> minke_tensor::Result<Tensor> {
        let [gate, up] = Projection::forward_each([&self.gate_proj, &self.up_proj], pass, x)?;
        self.down_proj.forward(pass, &gate.swiglu(pass, &up)?)
    }
}

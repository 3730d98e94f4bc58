//! Reference implementation of SwiGLU.

fn sigmoid(z: f64) -> f64 {
    1.0 / (1.0 + (-z).exp())
}

/// `silu(gate) * up`.
pub fn swiglu(gate: &[f64], up: &[f64]) -> Vec<f64> {
    gate.iter().zip(up).map(|(g, u)| g * sigmoid(*g) * u).collect()
}

/// The gradients dgate and dup.
pub fn swiglu_backward(gate: &[f64], up: &[f64], dy: &[f64]) -> (Vec<f64>, Vec<f64>) {
    let each = |i: usize| {
        let (g, s) = (gate[i], sigmoid(gate[i]));
        (dy[i] * up[i] * s * (1.0 + g * (1.0 - s)), dy[i] * g * s)
    };
    (0..dy.len()).map(each).unzip()
}

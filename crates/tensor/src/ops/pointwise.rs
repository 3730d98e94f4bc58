//! Operations element by element, and sums.

use minke_kernels::Device;
use minke_kernels::ops::{pointwise, swiglu};

use super::expect_same;
use crate::shape::Shape;
use crate::tensor::{Op, Pass, Result, Tensor};

impl Tensor {
    /// `a + scale * b`.
    ///
    /// # Errors
    /// If the shapes differ.
    pub fn add_scaled(&self, pass: Pass<'_>, b: &Tensor, scale: f32) -> Result<Tensor> {
        expect_same("add_scaled", ("a", self.shape()), ("b", b.shape()))?;
        let (x, z) = (self.view("add_scaled")?, b.view("add_scaled")?);
        let y = Tensor::write(pass.device, self.shape(), |y| pointwise::add_scaled(pass.device, x, z, scale, y));
        Ok(y.made_by(pass, self.recorded() || b.recorded(), || Op::AddScaled {
            a: self.origin(),
            b: b.origin(),
            scale,
        }))
    }

    /// `a + b`.
    ///
    /// # Errors
    /// If the shapes differ.
    pub fn add(&self, pass: Pass<'_>, b: &Tensor) -> Result<Tensor> {
        self.add_scaled(pass, b, 1.0)
    }

    /// `scale * x`.
    ///
    /// # Errors
    /// If x is not F32.
    pub fn scale(&self, pass: Pass<'_>, scale: f32) -> Result<Tensor> {
        let x = self.view("scale")?;
        let y = Tensor::write(pass.device, self.shape(), |y| pointwise::scale(pass.device, x, scale, y));
        Ok(y.made_by(pass, self.recorded(), || Op::Scale { x: self.origin(), scale }))
    }

    /// `a * b` element by element.
    ///
    /// # Errors
    /// If the shapes differ.
    pub fn mul(&self, pass: Pass<'_>, b: &Tensor) -> Result<Tensor> {
        expect_same("mul", ("a", self.shape()), ("b", b.shape()))?;
        let (x, z) = (self.view("mul")?, b.view("mul")?);
        let y = Tensor::write(pass.device, self.shape(), |y| pointwise::mul(pass.device, x, z, y));
        Ok(y.made_by(pass, self.recorded() || b.recorded(), || Op::Mul { a: self.clone(), b: b.clone() }))
    }

    /// The smaller of `a` and `b` element by element.
    ///
    /// # Errors
    /// If the shapes differ.
    pub fn min(&self, pass: Pass<'_>, b: &Tensor) -> Result<Tensor> {
        expect_same("min", ("a", self.shape()), ("b", b.shape()))?;
        let (x, z) = (self.view("min")?, b.view("min")?);
        let y = Tensor::write(pass.device, self.shape(), |y| pointwise::min(pass.device, x, z, y));
        Ok(y.made_by(pass, self.recorded() || b.recorded(), || Op::Min { a: self.clone(), b: b.clone() }))
    }

    /// `e^x`.
    ///
    /// # Errors
    /// If x is not F32.
    pub fn exp(&self, pass: Pass<'_>) -> Result<Tensor> {
        let x = self.view("exp")?;
        let y = Tensor::write(pass.device, self.shape(), |y| pointwise::exp(pass.device, x, y));
        Ok(y.clone().made_by(pass, self.recorded(), || Op::Exp { x: self.origin(), y }))
    }

    /// The sigmoid 1 / (1 + e^-x).
    ///
    /// # Errors
    /// If x is not F32.
    pub fn sigmoid(&self, pass: Pass<'_>) -> Result<Tensor> {
        let x = self.view("sigmoid")?;
        let y = Tensor::write(pass.device, self.shape(), |y| pointwise::sigmoid(pass.device, x, y));
        Ok(y.clone().made_by(pass, self.recorded(), || Op::Sigmoid { x: self.origin(), y }))
    }

    /// `x` limited to `[low, high]`.
    ///
    /// # Errors
    /// If x is not F32.
    pub fn clamp(&self, pass: Pass<'_>, low: f32, high: f32) -> Result<Tensor> {
        let x = self.view("clamp")?;
        let y = Tensor::write(pass.device, self.shape(), |y| pointwise::clamp(pass.device, x, low, high, y));
        Ok(y.made_by(pass, self.recorded(), || Op::Clamp { x: self.clone(), low, high }))
    }

    /// The scalar `sum(x * weights)`; the weights are constants.
    ///
    /// # Numerics
    /// Chunks of constant length are combined in index order, in f64.
    ///
    /// # Errors
    /// If the numbers of elements differ.
    pub fn weighted_sum(&self, pass: Pass<'_>, weights: &Tensor) -> Result<Tensor> {
        expect_same("weighted_sum", ("x", self.shape()), ("weights", weights.shape()))?;
        let (x, w) = (self.view("weighted_sum")?, weights.view("weighted_sum")?);
        let y = Tensor::write(pass.device, Shape::new(&[1]), |y| pointwise::weighted_sum(pass.device, x, w, y));
        Ok(y.made_by(pass, self.recorded(), || Op::WeightedSum { x: self.origin(), weights: weights.detach() }))
    }

    /// `silu(gate) * up`.
    ///
    /// # Errors
    /// If the shapes differ.
    pub fn swiglu(&self, pass: Pass<'_>, up: &Tensor) -> Result<Tensor> {
        expect_same("swiglu", ("gate", self.shape()), ("up", up.shape()))?;
        let (g, u) = (self.view("swiglu")?, up.view("swiglu")?);
        let y = Tensor::write(pass.device, self.shape(), |y| swiglu::swiglu(pass.device, g, u, y));
        // In bf16 the backward reads both rounded: half the memory.
        let keep = |x: &Tensor| match pass.record && x.is_in_bf16() {
            true => x.narrowed(pass.device, "swiglu"),
            false => Ok(x.clone()),
        };
        let (gate, kept_up) = (keep(self)?, keep(up)?);
        let wanted = self.recorded() || up.recorded();
        Ok(y.made_by(pass, wanted, || Op::Swiglu { gate, up: kept_up }))
    }

    /// Whether every value is finite, for the host.
    pub fn all_finite(&self, device: &Device) -> bool {
        let values = self.widened(device);
        pointwise::all_finite(device, values.view("all_finite").expect("invariant: widened values are F32"))
    }
}

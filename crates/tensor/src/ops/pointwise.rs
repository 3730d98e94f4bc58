//! Operations element by element, and sums.

use minke_kernels::ops::{pointwise, swiglu};

use super::expect_same;
use crate::shape::Shape;
use crate::tensor::{Op, Pass, Result, Tensor};

impl Tensor {
    /// Returns `a + scale * b`.
    ///
    /// # Errors
    /// If the shapes differ.
    pub fn add_scaled(&self, pass: Pass<'_>, b: &Tensor, scale: f32) -> Result<Tensor> {
        expect_same("add_scaled", ("a", self.shape()), ("b", b.shape()))?;
        let cpu = pass.cpu();
        let y = Tensor::write(cpu, self.shape(), |y| pointwise::add_scaled(cpu, self.values(), b.values(), scale, y));
        Ok(y.made_by(pass, self.recorded() || b.recorded(), || Op::AddScaled { a: self.clone(), b: b.clone(), scale }))
    }

    /// Returns `a + b`.
    ///
    /// # Errors
    /// If the shapes differ.
    pub fn add(&self, pass: Pass<'_>, b: &Tensor) -> Result<Tensor> {
        self.add_scaled(pass, b, 1.0)
    }

    /// Returns `scale * x`.
    pub fn scale(&self, pass: Pass<'_>, scale: f32) -> Tensor {
        let cpu = pass.cpu();
        let y = Tensor::write(cpu, self.shape(), |y| pointwise::scale(cpu, self.values(), scale, y));
        y.made_by(pass, self.recorded(), || Op::Scale { x: self.clone(), scale })
    }

    /// Returns `a * b` element by element.
    ///
    /// # Errors
    /// If the shapes differ.
    pub fn mul(&self, pass: Pass<'_>, b: &Tensor) -> Result<Tensor> {
        expect_same("mul", ("a", self.shape()), ("b", b.shape()))?;
        let cpu = pass.cpu();
        let y = Tensor::write(cpu, self.shape(), |y| pointwise::mul(cpu, self.values(), b.values(), y));
        Ok(y.made_by(pass, self.recorded() || b.recorded(), || Op::Mul { a: self.clone(), b: b.clone() }))
    }

    /// Returns the smaller of `a` and `b` element by element.
    ///
    /// # Errors
    /// If the shapes differ.
    pub fn min(&self, pass: Pass<'_>, b: &Tensor) -> Result<Tensor> {
        expect_same("min", ("a", self.shape()), ("b", b.shape()))?;
        let cpu = pass.cpu();
        let y = Tensor::write(cpu, self.shape(), |y| pointwise::min(cpu, self.values(), b.values(), y));
        Ok(y.made_by(pass, self.recorded() || b.recorded(), || Op::Min { a: self.clone(), b: b.clone() }))
    }

    /// Returns e^x.
    pub fn exp(&self, pass: Pass<'_>) -> Tensor {
        let cpu = pass.cpu();
        let y = Tensor::write(cpu, self.shape(), |y| pointwise::exp(cpu, self.values(), y));
        y.clone().made_by(pass, self.recorded(), || Op::Exp { x: self.clone(), y })
    }

    /// Returns 1 / (1 + e^-x).
    pub fn sigmoid(&self, pass: Pass<'_>) -> Tensor {
        let cpu = pass.cpu();
        let y = Tensor::write(cpu, self.shape(), |y| pointwise::sigmoid(cpu, self.values(), y));
        y.clone().made_by(pass, self.recorded(), || Op::Sigmoid { x: self.clone(), y })
    }

    /// Returns x limited to `[low, high]`.
    pub fn clamp(&self, pass: Pass<'_>, low: f32, high: f32) -> Tensor {
        let cpu = pass.cpu();
        let y = Tensor::write(cpu, self.shape(), |y| pointwise::clamp(cpu, self.values(), low, high, y));
        y.made_by(pass, self.recorded(), || Op::Clamp { x: self.clone(), low, high })
    }

    /// Returns the scalar `sum(x * weights)`; the weights are constants.
    ///
    /// # Numerics
    /// Chunks of constant length are combined in index order, in f64.
    ///
    /// # Errors
    /// If the numbers of elements differ.
    pub fn weighted_sum(&self, pass: Pass<'_>, weights: &Tensor) -> Result<Tensor> {
        expect_same("weighted_sum", ("x", self.shape()), ("weights", weights.shape()))?;
        let cpu = pass.cpu();
        let sum = pointwise::dot(cpu, self.values(), weights.values()) as f32;
        let y = Tensor::write(cpu, Shape::new(&[1]), |y| y[0] = sum);
        Ok(y.made_by(pass, self.recorded(), || Op::WeightedSum { x: self.clone(), weights: weights.detach() }))
    }

    /// Returns `silu(gate) * up`.
    ///
    /// # Errors
    /// If the shapes differ.
    pub fn swiglu(&self, pass: Pass<'_>, up: &Tensor) -> Result<Tensor> {
        expect_same("swiglu", ("gate", self.shape()), ("up", up.shape()))?;
        let cpu = pass.cpu();
        let y = Tensor::write(cpu, self.shape(), |y| swiglu::swiglu(cpu, self.values(), up.values(), y));
        let wanted = self.recorded() || up.recorded();
        Ok(y.made_by(pass, wanted, || Op::Swiglu { gate: self.clone(), up: up.clone() }))
    }

    /// Returns whether every value is finite.
    pub fn all_finite(&self, pass: Pass<'_>) -> bool {
        pointwise::all_finite(pass.cpu(), self.values())
    }
}

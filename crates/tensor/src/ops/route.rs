//! Operations that send tokens to experts and back. Shapes depend on sizes, never on the choices.

use minke_kernels::ops::route::{self, Routing};
use minke_kernels::ops::rows;

use crate::error::mismatch;
use crate::shape::Shape;
use crate::tensor::{Dispatch, Indices, Op, Pass, Result, Tensor};

impl Dispatch {
    /// Returns the plan for the given choices.
    ///
    /// # Shapes
    /// indices [T, K] of experts below `experts`
    pub fn new(pass: Pass<'_>, indices: &Indices, per_token: usize, experts: usize) -> Self {
        let cpu = pass.cpu();
        let (mut token_of, mut slot_of) = (None, None);
        let slots = indices.len();
        let offsets = Indices::write(cpu, experts + 1, |offsets| {
            token_of = Some(Indices::write(cpu, slots, |token_of| {
                slot_of = Some(Indices::write(cpu, slots, |slot_of| {
                    route::plan(indices.values(), per_token, experts, offsets, token_of, slot_of);
                }));
            }));
        });
        let token_of = token_of.expect("invariant: written above");
        let slot_of = slot_of.expect("invariant: written above");
        Self { offsets, token_of, slot_of, per_token }
    }
}

impl Indices {
    /// Returns the experts that each token visits, in order of falling biased score.
    ///
    /// # Shapes
    /// scores [T, E], bias `[E]` if there is one -> [T, K]
    ///
    /// # Errors
    /// If the shapes do not fit.
    pub fn select_experts(pass: Pass<'_>, scores: &Tensor, bias: Option<&[f32]>, routing: &Routing) -> Result<Indices> {
        let (shape, biased) = (scores.shape(), bias.map_or(routing.experts, <[f32]>::len));
        if shape.width() != routing.experts || biased != routing.experts {
            return Err(mismatch("select_experts", ("scores", &shape), ("bias", &Shape::new(&[biased]))));
        }
        let cpu = pass.cpu();
        Ok(Indices::write(cpu, shape.rows() * routing.per_token, |indices| {
            route::select(cpu, scores.values(), bias, routing, indices);
        }))
    }
}

impl Tensor {
    /// Returns the tokens' rows in the order of slots.
    ///
    /// # Shapes
    /// x [T, D] -> [T * K, D]
    ///
    /// # Errors
    /// If the plan is for another number of tokens.
    pub fn dispatch(&self, pass: Pass<'_>, plan: &Dispatch) -> Result<Tensor> {
        let x = self.shape();
        if x.rows() * plan.per_token != plan.token_of.len() {
            return Err(mismatch("dispatch", ("x", &x), ("plan", &Shape::new(&[plan.token_of.len()]))));
        }
        let cpu = pass.cpu();
        let y = Tensor::write(cpu, Shape::new(&[plan.token_of.len(), x.width()]), |y| {
            rows::gather_rows(cpu, self.values(), x.width(), plan.token_of.values(), y);
        });
        Ok(y.made_by(pass, self.recorded(), || Op::Dispatch { x: self.clone(), plan: plan.clone() }))
    }

    /// Returns for each token the weighted sum of its slots' rows, in the order of its choices.
    ///
    /// # Shapes
    /// ys [T * K, D], weights [T, K] -> [T, D]
    ///
    /// # Errors
    /// If the shapes do not fit the plan.
    pub fn combine(&self, pass: Pass<'_>, weights: &Tensor, plan: &Dispatch) -> Result<Tensor> {
        let (ys, w) = (self.shape(), weights.shape());
        if ys.rows() != plan.slot_of.len() || w.elements() != ys.rows() || w.width() != plan.per_token {
            return Err(mismatch("combine", ("ys", &ys), ("weights", &w)));
        }
        let cpu = pass.cpu();
        let y = Tensor::write(cpu, Shape::new(&[w.rows(), ys.width()]), |y| {
            route::combine(cpu, self.values(), weights.values(), plan.slot_of.values(), ys.width(), y);
        });
        let wanted = self.recorded() || weights.recorded();
        Ok(y.made_by(pass, wanted, || Op::Combine { ys: self.clone(), weights: weights.clone(), plan: plan.clone() }))
    }

    /// Returns `x[t, indices[t, k]]`.
    ///
    /// # Shapes
    /// x [T, E], indices [T, K] below E -> [T, K]
    ///
    /// # Errors
    /// If the tokens differ.
    pub fn pick_columns(&self, pass: Pass<'_>, indices: &Indices) -> Result<Tensor> {
        let x = self.shape();
        let per_token = indices.len() / x.rows().max(1);
        if per_token * x.rows() != indices.len() {
            return Err(mismatch("pick_columns", ("x", &x), ("indices", &Shape::new(&[indices.len()]))));
        }
        let cpu = pass.cpu();
        let y = Tensor::write(cpu, x.with_width(per_token), |y| {
            route::pick_columns(cpu, self.values(), x.width(), indices.values(), per_token, y);
        });
        Ok(y.made_by(pass, self.recorded(), || Op::PickColumns { x: self.clone(), indices: indices.clone() }))
    }

    /// Returns `x / (sum of its row + epsilon)`.
    pub fn normalize_rows(&self, pass: Pass<'_>, epsilon: f32) -> Tensor {
        let x = self.shape();
        let cpu = pass.cpu();
        let y = Tensor::write(cpu, x, |y| route::normalize_rows(cpu, self.values(), x.width(), epsilon, y));
        y.made_by(pass, self.recorded(), || Op::NormalizeRows { x: self.clone(), epsilon })
    }

    /// Returns e^x / (sum of e^x over the row).
    pub fn softmax_rows(&self, pass: Pass<'_>) -> Tensor {
        let x = self.shape();
        let cpu = pass.cpu();
        let y = Tensor::write(cpu, x, |y| route::softmax_rows(cpu, self.values(), x.width(), y));
        y.clone().made_by(pass, self.recorded(), || Op::SoftmaxRows { x: self.clone(), y })
    }
}

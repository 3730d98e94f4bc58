//! Operations that send tokens to experts and back. Shapes depend on sizes, never on the choices.

use std::sync::Arc;

use minke_kernels::ops::attention::Span;
use minke_kernels::ops::route::{self, Routing};
use minke_kernels::ops::rows;

use super::expect_below;
use crate::error::{Error, mismatch};
use crate::experts::FetchedExperts;
use crate::shape::Shape;
use crate::tensor::{Dispatch, Exchange, Indices, Op, Pass, Result, Tensor};

impl Dispatch {
    /// The plan for the given choices.
    ///
    /// # Shapes
    /// indices [T, K] of experts below `experts`
    ///
    /// # Errors
    /// If there are fewer experts, or a rank that has some of them has ended.
    pub fn new(pass: Pass<'_>, indices: &Indices, per_token: usize, experts: usize) -> Result<Self> {
        expect_below("dispatch", indices, experts)?;
        let (device, slots) = (pass.device, indices.len());
        let mut offsets = Indices::unwritten(device, experts + 1, slots + 1);
        let mut token_of = Indices::unwritten(device, slots, slots / per_token.max(1));
        let mut slot_of = Indices::unwritten(device, slots, slots);
        let to = (offsets.view_mut(), token_of.view_mut(), slot_of.view_mut());
        route::plan(device, indices.view(), per_token, to.0, to.1, to.2);
        let exchange = match pass.expert_ranks.filter(|ranks| ranks.ranks() > 1) {
            Some(ranks) => Some(Arc::new(Exchange::new(device, ranks, &offsets)?)),
            None => None,
        };
        Ok(Self { offsets, token_of, slot_of, per_token, exchange })
    }

    /// The number of rows that the experts here multiply.
    pub(crate) fn rows(&self) -> usize {
        self.exchange.as_ref().map_or(self.token_of.len(), |exchange| exchange.rows())
    }

    /// First row of each of the experts here, and the end.
    pub(crate) fn row_offsets(&self) -> &Indices {
        self.exchange.as_ref().map_or(&self.offsets, |exchange| &exchange.offsets)
    }

    /// Fetches the experts of a layer that rows are sent to from the source of the pass, if it has one.
    ///
    /// # Errors
    /// If the source fails.
    pub fn fetch_experts(&self, pass: Pass<'_>, layer: usize) -> Result<FetchedExperts> {
        let Some(source) = pass.experts else { return Ok(FetchedExperts::default()) };
        let offsets = self.row_offsets().read();
        let with_rows = (0..).zip(offsets.windows(2)).filter(|(_, rows)| rows[0] < rows[1]);
        let experts: Vec<u32> = with_rows.map(|(expert, _)| expert).collect();
        if experts.is_empty() {
            return Ok(FetchedExperts::default());
        }
        source.fetch(layer, &experts).map_err(|source| Error::ExpertSource { layer, source })
    }
}

impl Indices {
    /// The experts that each token visits, in order of falling biased score.
    ///
    /// # Shapes
    /// scores [T, E], bias `[E]` if there is one -> [T, K]
    ///
    /// # Errors
    /// If the shapes do not fit.
    pub fn select_experts(
        pass: Pass<'_>,
        scores: &Tensor,
        bias: Option<&Tensor>,
        routing: &Routing,
    ) -> Result<Indices> {
        let (shape, biased) = (scores.shape(), bias.map_or(routing.experts, |bias| bias.shape().elements()));
        if shape.width() != routing.experts || biased != routing.experts {
            return Err(mismatch("select_experts", ("scores", &shape), ("bias", &Shape::new(&[biased]))));
        }
        let (scores, bias) =
            (scores.view("select_experts")?, bias.map(|bias| bias.view("select_experts")).transpose()?);
        let mut indices = Indices::unwritten(pass.device, shape.rows() * routing.per_token, routing.experts);
        route::select(pass.device, scores, bias, routing, indices.view_mut());
        Ok(indices)
    }
}

impl Tensor {
    /// The tokens' rows in the order of slots, T K of them; where ranks share out the experts, the rows of all ranks for the experts
    /// here.
    ///
    /// # Shapes
    /// x [T, D] -> [S, D]
    ///
    /// # Errors
    /// If the plan is for another number of tokens, or another rank has ended.
    pub fn dispatch(&self, pass: Pass<'_>, plan: &Dispatch) -> Result<Tensor> {
        let x = self.shape();
        if x.rows() * plan.per_token != plan.token_of.len() {
            return Err(mismatch("dispatch", ("x", &x), ("plan", &Shape::new(&[plan.token_of.len()]))));
        }
        let from = self.view("dispatch")?;
        let y = Tensor::write(pass.device, Shape::new(&[plan.token_of.len(), x.width()]), |y| {
            rows::gather_rows(pass.device, from, x.width(), plan.token_of.view(), y);
        });
        let y = match &plan.exchange {
            Some(exchange) => exchange.there(pass.device, &y)?,
            None => y,
        };
        Ok(y.made_by(pass, self.recorded(), || Op::Dispatch { x: self.origin(), plan: plan.clone() }))
    }

    /// For each token the weighted sum of its slots' rows, in the order of its choices.
    ///
    /// # Shapes
    /// ys [S, D], weights [T, K] -> [T, D]
    ///
    /// # Errors
    /// If the shapes do not fit the plan, or another rank has ended.
    pub fn combine(&self, pass: Pass<'_>, weights: &Tensor, plan: &Dispatch) -> Result<Tensor> {
        let (ys, w) = (self.shape(), weights.shape());
        if ys.rows() != plan.rows() || w.elements() != plan.slot_of.len() || w.width() != plan.per_token {
            return Err(mismatch("combine", ("ys", &ys), ("weights", &w)));
        }
        let own = match &plan.exchange {
            Some(exchange) => exchange.back(pass.device, self)?,
            None => self.detach(),
        };
        let (from, factors) = (own.view("combine")?, weights.view("combine")?);
        let y = Tensor::write(pass.device, Shape::new(&[w.rows(), ys.width()]), |y| {
            route::combine(pass.device, from, factors, plan.slot_of.view(), ys.width(), y);
        });
        let wanted = self.recorded() || weights.recorded();
        let mut ys = own;
        ys.node = self.node.clone();
        Ok(y.made_by(pass, wanted, || Op::Combine { ys, weights: weights.clone(), plan: plan.clone() }))
    }

    /// `x[t, indices[t, k]]`.
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
        expect_below("pick_columns", indices, x.width())?;
        let from = self.view("pick_columns")?;
        let y = Tensor::write(pass.device, x.with_width(per_token), |y| {
            route::pick_columns(pass.device, from, x.width(), indices.view(), per_token, y);
        });
        Ok(y.made_by(pass, self.recorded(), || Op::PickColumns { x: self.origin(), indices: indices.clone() }))
    }

    /// `x / (sum of its row + epsilon)`.
    ///
    /// # Errors
    /// If x is not F32.
    pub fn normalize_rows(&self, pass: Pass<'_>, epsilon: f32) -> Result<Tensor> {
        let (x, shape) = (self.view("normalize_rows")?, self.shape());
        let y = Tensor::write(pass.device, shape, |y| {
            route::normalize_rows(pass.device, x, shape.width(), epsilon, y);
        });
        Ok(y.made_by(pass, self.recorded(), || Op::NormalizeRows { x: self.clone(), epsilon }))
    }

    /// `e^x / (sum of e^x over the row)`.
    ///
    /// # Errors
    /// If x is not F32.
    pub fn softmax_rows(&self, pass: Pass<'_>) -> Result<Tensor> {
        let (x, shape) = (self.view("softmax_rows")?, self.shape());
        let y = Tensor::write(pass.device, shape, |y| route::softmax_rows(pass.device, x, shape.width(), y));
        Ok(y.clone().made_by(pass, self.recorded(), || Op::SoftmaxRows { x: self.origin(), y }))
    }

    /// The constants of the sequence-wise balance loss of the given choices: see
    /// [`route::balance_factors`](minke_kernels::ops::route::balance_factors).
    ///
    /// # Shapes
    /// indices [T, K] -> [T, E]
    ///
    /// # Errors
    /// If an expert is not below `experts`, or the choices are not K for every token.
    pub fn balance_factors(
        pass: Pass<'_>,
        indices: &Indices,
        spans: &[Span],
        [per_token, experts]: [usize; 2],
    ) -> Result<Tensor> {
        expect_below("balance_factors", indices, experts)?;
        let sequences: Vec<_> = spans.iter().map(|span| span.first_row..span.first_row + span.rows).collect();
        let tokens = indices.len() / per_token.max(1);
        if tokens * per_token != indices.len() || sequences.iter().any(|rows| rows.end > tokens) {
            let shapes = (Shape::new(&[indices.len()]), Shape::new(&[sequences.len()]));
            return Err(mismatch("balance_factors", ("indices", &shapes.0), ("spans", &shapes.1)));
        }
        Ok(Tensor::write(pass.device, Shape::new(&[tokens, experts]), |factors| {
            route::balance_factors(pass.device, indices.view(), &sequences, [per_token, experts], factors);
        }))
    }
}

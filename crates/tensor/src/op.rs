//! What can be recorded? A closed set of operations; `backward.rs` has one arm for each.

use std::sync::Arc;

use minke_kernels::ops::attention::{Heads, Span};
use minke_kernels::ops::rope::Layout;

use crate::dispatch::Dispatch;
use crate::recompute::Region;
use crate::{Indices, Param, Shape, Tensor};

/// One recorded operation.
pub(crate) struct Node {
    pub op: Op,
    pub shape: Shape,
    /// Longest way back to a leaf: inputs always have a smaller one, so falling depth is an order for the backward.
    pub depth: u32,
}

impl Node {
    pub(crate) fn new(op: Op, shape: Shape) -> Arc<Self> {
        let mut depth = 0;
        op.each_input(|x| depth = depth.max(x.node.as_ref().map_or(0, |node| node.depth + 1)));
        Arc::new(Self { op, shape, depth })
    }
}

/// An operation with its inputs and what its backward needs to remember.
pub(crate) enum Op {
    /// A start of the tape.
    Leaf,
    Matmul {
        x: Tensor,
        w: Param,
    },
    GroupedMatmul {
        x: Tensor,
        w: Param,
        offsets: Indices,
    },
    Embed {
        w: Param,
        ids: Indices,
    },
    RmsNorm {
        x: Tensor,
        w: Param,
        inverse_rms: Tensor,
    },
    AddRow {
        x: Tensor,
        w: Param,
    },
    Rope {
        x: Tensor,
        cos_sin: Tensor,
        start: usize,
        layout: Layout,
    },
    Attention {
        q: Tensor,
        k: Tensor,
        v: Tensor,
        out: Tensor,
        log_sum: Tensor,
        spans: Arc<[Span]>,
        heads: Heads,
        scale: f32,
    },
    Swiglu {
        gate: Tensor,
        up: Tensor,
    },
    /// a + scale * b
    AddScaled {
        a: Tensor,
        b: Tensor,
        scale: f32,
    },
    Scale {
        x: Tensor,
        scale: f32,
    },
    Mul {
        a: Tensor,
        b: Tensor,
    },
    Exp {
        x: Tensor,
        y: Tensor,
    },
    Sigmoid {
        x: Tensor,
        y: Tensor,
    },
    Clamp {
        x: Tensor,
        low: f32,
        high: f32,
    },
    Min {
        a: Tensor,
        b: Tensor,
    },
    /// Sum of x times constant weights.
    WeightedSum {
        x: Tensor,
        weights: Tensor,
    },
    Columns {
        x: Tensor,
        start: usize,
    },
    ConcatColumns {
        a: Tensor,
        b: Tensor,
    },
    AppendShared {
        x: Tensor,
        shared: Tensor,
    },
    GatherRows {
        x: Tensor,
        ids: Indices,
    },
    Dispatch {
        x: Tensor,
        plan: Dispatch,
    },
    Combine {
        ys: Tensor,
        weights: Tensor,
        plan: Dispatch,
    },
    PickColumns {
        x: Tensor,
        indices: Indices,
    },
    NormalizeRows {
        x: Tensor,
        epsilon: f32,
    },
    HeadLogProb {
        x: Tensor,
        w: Param,
        targets: Indices,
        inverse_temperature: f32,
        log_sum: Tensor,
    },
    Recompute(Region),
    /// An operation of the inference path, recorded only to be named when a gradient is asked of it.
    Inference {
        op: &'static str,
        x: Tensor,
    },
}

impl Op {
    /// Calls `visit` with every differentiable input.
    pub(crate) fn each_input(&self, mut visit: impl FnMut(&Tensor)) {
        match self {
            Self::Leaf | Self::Embed { .. } => {}
            Self::Matmul { x, .. }
            | Self::GroupedMatmul { x, .. }
            | Self::RmsNorm { x, .. }
            | Self::AddRow { x, .. }
            | Self::Rope { x, .. }
            | Self::Scale { x, .. }
            | Self::Exp { x, .. }
            | Self::Sigmoid { x, .. }
            | Self::Clamp { x, .. }
            | Self::WeightedSum { x, .. }
            | Self::Columns { x, .. }
            | Self::GatherRows { x, .. }
            | Self::Dispatch { x, .. }
            | Self::PickColumns { x, .. }
            | Self::NormalizeRows { x, .. }
            | Self::HeadLogProb { x, .. }
            | Self::Inference { x, .. } => visit(x),
            Self::Attention { q, k, v, .. } => [q, k, v].into_iter().for_each(visit),
            Self::Swiglu { gate: a, up: b }
            | Self::AddScaled { a, b, .. }
            | Self::Mul { a, b }
            | Self::Min { a, b }
            | Self::ConcatColumns { a, b }
            | Self::AppendShared { x: a, shared: b }
            | Self::Combine { ys: a, weights: b, .. } => [a, b].into_iter().for_each(visit),
            Self::Recompute(region) => region.inputs.iter().for_each(visit),
        }
    }
}

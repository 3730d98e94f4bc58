//! Rotary positions and attention.

use std::sync::Arc;

use minke_kernels::Floats;
use minke_kernels::ops::attention::{self, Heads, Memory, Span, TILE};
use minke_kernels::ops::rope::{self, Direction, Layout};

use crate::error::mismatch;
use crate::shape::Shape;
use crate::tensor::{Indices, Op, Pass, Result, Tensor};

impl Tensor {
    /// Cosine and sine of the rotation angles at the given positions.
    ///
    /// # Shapes
    /// positions `[T]`, inverse_frequencies [R / 2] -> [T, R] (cosine and sine of each pair beside each other)
    pub fn cos_sin(pass: Pass<'_>, positions: &Indices, inverse_frequencies: &[f32], multiplier: f32) -> Tensor {
        Tensor::write(pass.device, Shape::new(&[positions.len(), 2 * inverse_frequencies.len()]), |out| {
            rope::cos_sin(pass.device, positions.view(), inverse_frequencies, multiplier, out);
        })
    }

    /// `x` with the columns from `start` of every head rotated.
    ///
    /// # Shapes
    /// x [T, H, W], cos_sin [T, R] with start + R <= W -> [T, H, W]
    ///
    /// # Errors
    /// If the shapes do not fit.
    pub fn rope(&self, pass: Pass<'_>, cos_sin: &Tensor, start: usize, layout: Layout) -> Result<Tensor> {
        let (x, table) = (self.shape(), cos_sin.shape());
        let &[tokens, heads, width] = x.dims() else { return Err(mismatch("rope", ("x", &x), ("cos_sin", &table))) };
        if table.rows() != tokens || start + table.width() > width {
            return Err(mismatch("rope", ("x", &x), ("cos_sin", &table)));
        }
        let (device, from, turns) = (pass.device, self.view("rope")?, cos_sin.view("rope")?);
        let y = Tensor::write(device, x, |y| {
            rope::rotate(device, from, turns, heads, width, start, layout, Direction::Forward, y);
        });
        let op = || Op::Rope { x: self.origin(), cos_sin: cos_sin.detach(), start, layout };
        Ok(y.made_by(pass, self.recorded(), op))
    }

    /// Causal attention of queries over keys and values of the same batch.
    ///
    /// # Shapes
    /// q [T, H, W], k [T, KV, W], v [T, KV, V] -> [T, H, V]; each span is one whole sequence
    ///
    /// # Errors
    /// If the shapes do not fit, or the spans do not cover the batch.
    pub fn attention(
        pass: Pass<'_>,
        q: &Tensor,
        k: &Tensor,
        v: &Tensor,
        spans: &Arc<[Span]>,
        scale: f32,
    ) -> Result<Tensor> {
        let heads = heads_of(q.shape(), k.shape(), v.shape())?;
        let tokens = q.shape().dims()[0];
        if spans.iter().map(|span| span.rows).sum::<usize>() != tokens {
            return Err(mismatch("attention", ("q", &q.shape()), ("spans", &Shape::new(&[spans.len()]))));
        }
        // Tiles point into the batch itself: tile t of a sequence begins 32 t rows behind its first.
        let mut tiles = Vec::new();
        let spans_here: Vec<Span> = spans
            .iter()
            .map(|span| {
                let first_tile = tiles.len();
                tiles.extend((0..span.rows.div_ceil(TILE)).map(|t| (span.first_row + t * TILE) as u32));
                Span { first_tile, ..*span }
            })
            .collect();
        let memory = Memory {
            keys: Floats::F32(k.view("attention")?),
            values: Floats::F32(v.view("attention")?),
            key_strides: attention::batch_strides(heads.key_value, heads.width),
            value_strides: attention::batch_strides(heads.key_value, heads.value_width),
            tiles: &tiles,
        };
        let (out, log_sum) = run(pass, q, memory, &spans_here, heads, scale)?;
        let wanted = q.recorded() || k.recorded() || v.recorded();
        // In bf16 the backward rounds its operands: they are kept so.
        let in_bf16 = pass.record && [q, k, v].iter().any(|x| x.is_in_bf16());
        let keep = |x: &Tensor| if in_bf16 { x.narrowed(pass.device, "attention") } else { Ok(x.clone()) };
        let (q, k, v, kept) = (keep(q)?, keep(k)?, keep(v)?, keep(&out)?);
        Ok(out.made_by(pass, wanted, || Op::Attention {
            q,
            k,
            v,
            out: kept,
            log_sum,
            spans: Arc::clone(spans),
            heads,
            scale,
        }))
    }
}

fn heads_of(q: Shape, k: Shape, v: Shape) -> Result<Heads> {
    let refuse = || mismatch("attention", ("q", &q), ("k", &k));
    let (&[tokens, query, width], &[rows, key_value, key_width], &[values, value_heads, value_width]) =
        (q.dims(), k.dims(), v.dims())
    else {
        return Err(refuse());
    };
    let fits = tokens == rows && rows == values && width == key_width && key_value == value_heads;
    if !fits || key_value == 0 || query % key_value != 0 {
        return Err(refuse());
    }
    Ok(Heads { query, key_value, width, value_width })
}

/// Runs the kernel and returns (out, log_sum).
pub(super) fn run<'a>(
    pass: Pass<'_>,
    q: &Tensor,
    memory: Memory<'a, Floats<'a>>,
    spans: &[Span],
    heads: Heads,
    scale: f32,
) -> Result<(Tensor, Tensor)> {
    let (device, shape, q) = (pass.device, q.shape().with_width(heads.value_width), q.view("attention")?);
    let mut out = Tensor::unwritten(device, shape);
    let mut log_sum = Tensor::unwritten(device, Shape::new(&[shape.rows()]));
    attention::attention(device, q, memory, spans, heads, scale, out.view_mut(), log_sum.view_mut());
    Ok((out, log_sum))
}

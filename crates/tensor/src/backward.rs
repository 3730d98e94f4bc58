//! How do gradients flow back? One walk over the recorded nodes, one arm per operation.

use std::collections::HashMap;
use std::sync::Arc;

use minke_kernels::ops::attention::{self, Saved};
use minke_kernels::ops::matmul::Size;
use minke_kernels::ops::rope::{self, Direction};
use minke_kernels::ops::{embed, grouped_matmul, log_prob, matmul, norm, pointwise, route, rows, swiglu};
use minke_kernels::{Cpu, Device};

use crate::error::Error;
use crate::tensor::{Node, Op, Param, Pass, Region, Result, Tensor};

/// Gradients of parameters, by their row in the table. Kept between steps, so that memory is reused.
#[derive(Default)]
pub struct Gradients {
    by_param: Vec<Option<Tensor>>,
}

impl Gradients {
    /// Returns the gradient of a parameter, if the loss depends on it.
    pub fn get(&self, param: &Param) -> Option<&Tensor> {
        self.by_param.get(param.id())?.as_ref()
    }

    /// Returns all gradients with the rows of their parameters, in the order of the table.
    pub fn iter(&self) -> impl Iterator<Item = (usize, &Tensor)> {
        self.by_param.iter().enumerate().filter_map(|(id, gradient)| Some((id, gradient.as_ref()?)))
    }

    /// Sets all gradients to zero, keeping their memory.
    pub fn clear(&mut self, device: &Device) {
        let Device::Cpu(cpu) = device;
        for gradient in self.by_param.iter_mut().flatten() {
            pointwise::fill(cpu, 0.0, own(gradient));
        }
    }

    /// Returns the gradient of a parameter for adding to.
    fn of(&mut self, cpu: &Cpu, param: &Param) -> &mut [f32] {
        if self.by_param.len() <= param.id() {
            self.by_param.resize(param.id() + 1, None);
        }
        let zeros = || Tensor::write(cpu, param.shape(), |to| to.fill(0.0));
        own(self.by_param[param.id()].get_or_insert_with(zeros))
    }
}

/// Returns the values of a gradient for writing: the walk is their only owner.
fn own(gradient: &mut Tensor) -> &mut [f32] {
    gradient.values_mut().expect("invariant: gradients in the walk are not shared")
}

/// Adds the gradients of a recorded scalar with respect to every parameter it depends on to `gradients`.
///
/// # Errors
/// If the tensor is not a recorded scalar, or the tape holds an operation of the inference path.
pub fn backward(device: &Device, loss: &Tensor, gradients: &mut Gradients) -> Result<()> {
    let Some(node) = &loss.node else { return Err(Error::NotALoss("a tensor without history".into())) };
    if loss.shape().elements() != 1 {
        return Err(Error::NotALoss(format!("a tensor of shape {}", loss.shape())));
    }
    let seed = Tensor::from_slice(device, loss.shape().dims(), &[1.0]);
    let mut walk = Walk { pass: Pass::recording(device), slots: Slots::default(), gradients };
    walk.run(node, seed)
}

/// Gradients of intermediate results on their way.
#[derive(Default)]
struct Slots {
    index: HashMap<*const Node, usize>,
    nodes: Vec<Arc<Node>>,
    gradients: Vec<Option<Tensor>>,
}

impl Slots {
    /// Finds every node that `root` depends on, in an order that only the tape determines.
    fn discover(&mut self, root: &Arc<Node>) {
        let mut stack = vec![Arc::clone(root)];
        while let Some(node) = stack.pop() {
            if self.index.contains_key(&Arc::as_ptr(&node)) {
                continue;
            }
            self.index.insert(Arc::as_ptr(&node), self.nodes.len());
            node.op.each_input(|x| stack.extend(x.node.clone()));
            self.nodes.push(node);
        }
        self.gradients.resize_with(self.nodes.len(), || None);
    }

    fn of(&mut self, node: &Arc<Node>) -> &mut Option<Tensor> {
        let slot = self.index[&Arc::as_ptr(node)];
        &mut self.gradients[slot]
    }
}

struct Walk<'a> {
    pass: Pass<'a>,
    slots: Slots,
    gradients: &'a mut Gradients,
}

impl Walk<'_> {
    fn run(&mut self, root: &Arc<Node>, seed: Tensor) -> Result<()> {
        self.slots.discover(root);
        *self.slots.of(root) = Some(seed);
        let mut order: Vec<usize> = (0..self.slots.nodes.len()).collect();
        order.sort_by_key(|&i| (std::cmp::Reverse(self.slots.nodes[i].depth), i));
        for i in order {
            let node = Arc::clone(&self.slots.nodes[i]);
            if matches!(node.op, Op::Leaf) {
                continue;
            }
            if let Some(dy) = self.slots.gradients[i].take() {
                self.step(&node.op, &dy)?;
            }
        }
        Ok(())
    }

    /// Returns a new tensor of the shape of `like`, written by `fill`.
    fn write(&self, like: &Tensor, fill: impl FnOnce(&Cpu, &mut [f32])) -> Tensor {
        let cpu = self.pass.cpu();
        Tensor::write(cpu, like.shape(), |to| fill(cpu, to))
    }

    /// Hands a gradient to an input: the first is kept, later ones are added to it.
    fn give(&mut self, input: &Tensor, gradient: Tensor) {
        let Some(node) = &input.node else { return };
        let cpu = self.pass.cpu();
        let slot = self.slots.of(node);
        let Some(sum) = slot else {
            *slot = Some(gradient);
            return;
        };
        if let Some(values) = sum.values_mut() {
            pointwise::accumulate(cpu, gradient.values(), 1.0, values);
        } else {
            // The same tensor was handed to another input as well; this one gets its own.
            let both = (sum.values(), gradient.values());
            *sum = Tensor::write(cpu, node.shape, |to| pointwise::add_scaled(cpu, both.0, both.1, 1.0, to));
        }
    }

    /// Computes and hands over the gradient of an input if it is wanted.
    fn give_with(&mut self, input: &Tensor, fill: impl FnOnce(&Cpu, &mut [f32])) {
        if input.recorded() {
            let gradient = self.write(input, fill);
            self.give(input, gradient);
        }
    }

    #[allow(clippy::too_many_lines)]
    fn step(&mut self, op: &Op, dy: &Tensor) -> Result<()> {
        let d = dy.values();
        let cpu = self.pass.cpu();
        match op {
            Op::Leaf => {}
            Op::Matmul { x, w } => {
                let size = Size { m: x.shape().rows(), n: w.shape().rows(), k: w.shape().width() };
                self.give_with(x, |cpu, dx| matmul::matmul_by_plain(cpu, d, w.values(), size, dx));
                matmul::matmul_backward_weight_add(cpu, d, x.values(), size, self.gradients.of(cpu, w));
            }
            Op::GroupedMatmul { x, w, offsets } => {
                let (shape, offsets) = (w.shape(), offsets.values());
                let size = Size { m: x.shape().rows(), n: shape.dims()[1], k: shape.width() };
                self.give_with(x, |cpu, dx| {
                    grouped_matmul::grouped_matmul_by_plain(cpu, d, w.values(), offsets, size, dx);
                });
                let dw = self.gradients.of(cpu, w);
                grouped_matmul::grouped_matmul_backward_weight_add(cpu, d, x.values(), offsets, size, dw);
            }
            Op::Embed { w, ids } => {
                embed::embed_backward_add(cpu, w.shape().width(), ids.values(), d, self.gradients.of(cpu, w));
            }
            Op::RmsNorm { x, w, inverse_rms } => {
                let dw = self.gradients.of(cpu, w);
                let dx = Tensor::write(cpu, x.shape(), |dx| {
                    norm::rms_norm_backward(cpu, x.values(), w.values(), inverse_rms.values(), d, dx, dw);
                });
                self.give(x, dx);
            }
            Op::AddRow { x, w } => {
                rows::column_sums_add(cpu, d, x.shape().width(), self.gradients.of(cpu, w));
                self.give(x, dy.clone());
            }
            Op::Rope { x, cos_sin, start, layout } => {
                let shape = x.shape();
                let (heads, width) = (shape.dims()[1], shape.width());
                let table = cos_sin.values();
                self.give_with(x, |cpu, dx| {
                    rope::rotate(cpu, d, table, heads, width, *start, *layout, Direction::Inverse, dx);
                });
            }
            Op::Attention { q, k, v, out, log_sum, spans, heads, scale } => {
                let saved =
                    Saved { q: q.values(), k: k.values(), v: v.values(), out: out.values(), log_sum: log_sum.values() };
                let (mut dk, mut dv) = (None, None);
                let dq = self.write(q, |cpu, dq| {
                    dk = Some(self.write(k, |_, dk| {
                        dv = Some(self.write(v, |_, dv| {
                            let to = attention::Gradients { q: dq, k: dk, v: dv };
                            attention::attention_backward(cpu, saved, d, spans, *heads, *scale, to);
                        }));
                    }));
                });
                self.give(q, dq);
                for (input, gradient) in [(k, dk), (v, dv)] {
                    self.give(input, gradient.expect("invariant: written above"));
                }
            }
            Op::Swiglu { gate, up } => {
                let mut dup = None;
                let dgate = self.write(gate, |cpu, dgate| {
                    dup = Some(self.write(up, |_, dup| {
                        swiglu::swiglu_backward(cpu, gate.values(), up.values(), d, dgate, dup);
                    }));
                });
                self.give(gate, dgate);
                self.give(up, dup.expect("invariant: written above"));
            }
            Op::AddScaled { a, b, scale } => {
                self.give(a, dy.clone());
                if *scale == 1.0 {
                    self.give(b, dy.clone());
                } else {
                    self.give_with(b, |cpu, db| pointwise::scale(cpu, d, *scale, db));
                }
            }
            Op::Scale { x, scale } => self.give_with(x, |cpu, dx| pointwise::scale(cpu, d, *scale, dx)),
            Op::Mul { a, b } => {
                self.give_with(a, |cpu, da| pointwise::mul(cpu, d, b.values(), da));
                self.give_with(b, |cpu, db| pointwise::mul(cpu, d, a.values(), db));
            }
            Op::Exp { x, y } => self.give_with(x, |cpu, dx| pointwise::mul(cpu, d, y.values(), dx)),
            Op::Sigmoid { x, y } => self.give_with(x, |cpu, dx| pointwise::sigmoid_backward(cpu, y.values(), d, dx)),
            Op::Clamp { x, low, high } => {
                self.give_with(x, |cpu, dx| pointwise::clamp_backward(cpu, x.values(), *low, *high, d, dx));
            }
            Op::Min { a, b } => {
                let mut db = None;
                let da = self.write(a, |cpu, da| {
                    db = Some(self.write(b, |_, db| {
                        pointwise::min_backward(cpu, a.values(), b.values(), d, da, db);
                    }));
                });
                self.give(a, da);
                self.give(b, db.expect("invariant: written above"));
            }
            Op::WeightedSum { x, weights } => {
                self.give_with(x, |cpu, dx| pointwise::scale(cpu, weights.values(), d[0], dx));
            }
            Op::Columns { x, start } => {
                let (width, len) = (x.shape().width(), dy.shape().width());
                self.give_with(x, |cpu, dx| {
                    pointwise::fill(cpu, 0.0, dx);
                    rows::columns_backward_add(cpu, d, width, *start, len, dx);
                });
            }
            Op::ConcatColumns { a, b } => {
                let (left, right) = (a.shape().width(), b.shape().width());
                self.give_with(a, |cpu, da| rows::columns(cpu, d, left + right, 0, left, da));
                self.give_with(b, |cpu, db| rows::columns(cpu, d, left + right, left, right, db));
            }
            Op::AppendShared { x, shared } => {
                let shape = x.shape();
                let (heads, n, r) = (shape.dims()[1], shape.width(), shared.shape().width());
                let mut dshared = None;
                let dx = self.write(x, |cpu, dx| {
                    dshared = Some(self.write(shared, |_, dshared| {
                        rows::append_shared_backward(cpu, d, heads, n, r, dx, dshared);
                    }));
                });
                self.give(x, dx);
                self.give(shared, dshared.expect("invariant: written above"));
            }
            Op::GatherRows { x, ids } => {
                let width = x.shape().width();
                self.give_with(x, |cpu, dx| {
                    pointwise::fill(cpu, 0.0, dx);
                    embed::embed_backward_add(cpu, width, ids.values(), d, dx);
                });
            }
            Op::Dispatch { x, plan } => {
                let width = x.shape().width();
                self.give_with(x, |cpu, dx| {
                    route::gather_backward(cpu, d, plan.slot_of.values(), plan.per_token, width, dx);
                });
            }
            Op::Combine { ys, weights, plan } => {
                let width = ys.shape().width();
                let mut dweights = None;
                let dys = self.write(ys, |cpu, dys| {
                    dweights = Some(self.write(weights, |_, dweights| {
                        let (w, slots) = (weights.values(), plan.slot_of.values());
                        route::combine_backward(cpu, ys.values(), w, slots, d, width, dys, dweights);
                    }));
                });
                self.give(ys, dys);
                self.give(weights, dweights.expect("invariant: written above"));
            }
            Op::PickColumns { x, indices } => {
                let (experts, per_token) = (x.shape().width(), dy.shape().width());
                self.give_with(x, |cpu, dx| {
                    route::pick_columns_backward(cpu, d, indices.values(), per_token, experts, dx);
                });
            }
            Op::NormalizeRows { x, epsilon } => {
                let width = x.shape().width();
                self.give_with(x, |cpu, dx| {
                    route::normalize_rows_backward(cpu, x.values(), width, *epsilon, d, dx);
                });
            }
            Op::SoftmaxRows { x, y } => {
                let width = x.shape().width();
                self.give_with(x, |cpu, dx| route::softmax_rows_backward(cpu, y.values(), width, d, dx));
            }
            Op::HeadLogProb { x, w, targets, inverse_temperature, log_sum } => {
                let size = Size { m: x.shape().rows(), n: w.shape().rows(), k: w.shape().width() };
                let head = log_prob::Head { weight: w.values(), packed: w.packed(cpu) };
                let dw = self.gradients.of(cpu, w);
                let dx = Tensor::write(cpu, x.shape(), |dx| {
                    let given = (log_sum.values(), d);
                    let targets = targets.values();
                    let to = (dx, dw);
                    log_prob::head_log_prob_backward(
                        cpu,
                        x.values(),
                        head,
                        targets,
                        size,
                        *inverse_temperature,
                        given,
                        to,
                    );
                });
                self.give(x, dx);
            }
            Op::Recompute(region) => self.recompute(region, dy)?,
            Op::Inference { op, .. } => return Err(Error::NotDifferentiable { op }),
        }
        Ok(())
    }

    /// Computes a region again, this time recording, and walks it.
    fn recompute(&mut self, region: &Region, dy: &Tensor) -> Result<()> {
        let inputs: Vec<Tensor> = region.inputs.iter().map(Tensor::leaf).collect();
        let y = (region.function)(&inputs, self.pass)?;
        let Some(node) = &y.node else { return Ok(()) };
        debug_assert_eq!(y.shape(), dy.shape());
        let mut inner = Walk { pass: self.pass, slots: Slots::default(), gradients: self.gradients };
        inner.run(node, dy.clone())?;
        let Walk { mut slots, .. } = inner;
        for (outer, leaf) in region.inputs.iter().zip(&inputs) {
            let node = leaf.node.as_ref().expect("invariant: a leaf has a node");
            let found = slots.index.contains_key(&Arc::as_ptr(node)).then(|| slots.of(node).take()).flatten();
            if let Some(gradient) = found {
                self.give(outer, gradient);
            }
        }
        Ok(())
    }
}

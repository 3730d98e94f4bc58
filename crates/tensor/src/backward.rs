//! The backward: one walk over the recorded nodes, one arm per operation.

use std::collections::HashMap;
use std::sync::Arc;

use minke_kernels::ops::attention::{self, Saved};
use minke_kernels::ops::matmul::Size;
use minke_kernels::ops::rope::{self, Direction};
use minke_kernels::ops::{bf16_matmul, embed, grouped_matmul, log_prob, matmul, norm, pointwise, route, rows, swiglu};
use minke_kernels::{Device, ViewMut};

use crate::error::Error;
use crate::frozen;
use crate::ops::head;
use crate::shape::Shape;
use crate::tensor::{KeptOperand, Node, Op, Operand, Origin, Param, Pass, Region, Result, Tensor};

/// Gradients of parameters, by their row in the table. Kept between steps, so that memory is reused.
#[derive(Default)]
pub struct Gradients {
    by_param: Vec<Option<Tensor>>,
}

impl Gradients {
    /// The gradient of a parameter, if the loss depends on it.
    pub fn get(&self, param: &Param) -> Option<&Tensor> {
        self.by_param.get(param.id())?.as_ref()
    }

    /// All gradients with the rows of their parameters, in the order of the table.
    pub fn iter(&self) -> impl Iterator<Item = (usize, &Tensor)> {
        self.by_param.iter().enumerate().filter_map(|(id, gradient)| Some((id, gradient.as_ref()?)))
    }

    /// Replaces the gradient of a parameter by values of the host.
    ///
    /// # Panics
    /// If there is another number of values.
    pub fn write(&mut self, device: &Device, param: &Param, values: &[f32]) {
        self.of(device, param).write(values);
    }

    /// Sets all gradients to zero, keeping their memory.
    pub fn clear(&mut self, device: &Device) {
        for gradient in self.by_param.iter_mut().flatten() {
            pointwise::fill(device, 0.0, gradient.view_mut());
        }
    }

    /// The gradient of a parameter for adding to.
    fn of(&mut self, device: &Device, param: &Param) -> ViewMut<'_, f32> {
        if self.by_param.len() <= param.id() {
            self.by_param.resize(param.id() + 1, None);
        }
        let zeros = || Tensor::zeros(device, param.shape().dims());
        self.by_param[param.id()].get_or_insert_with(zeros).view_mut()
    }
}

/// Adds the gradients of a recorded scalar with respect to every parameter it depends on to `gradients`.
///
/// # Errors
/// If the tensor is not a recorded scalar, or the tape holds an operation of the inference path.
pub fn backward(device: &Device, loss: &Tensor, gradients: &mut Gradients) -> Result<()> {
    walk(device, loss, gradients).map(|_| ())
}

/// The same, and the gradient of a [`leaf`](Tensor::leaf): zeros if the scalar does not depend on it.
///
/// # Errors
/// As [`backward`].
///
/// # Panics
/// If the tensor is no leaf.
pub fn backward_to(device: &Device, loss: &Tensor, gradients: &mut Gradients, leaf: &Tensor) -> Result<Tensor> {
    let mut slots = walk(device, loss, gradients)?;
    let node = leaf.node.as_ref().expect("a leaf");
    let found = slots.index.contains_key(&Arc::as_ptr(node)).then(|| slots.of(node).take()).flatten();
    Ok(found.unwrap_or_else(|| Tensor::zeros(device, leaf.shape().dims())))
}

/// Walks the tape; what is left are the gradients of its leaves.
fn walk(device: &Device, loss: &Tensor, gradients: &mut Gradients) -> Result<Slots> {
    let Some(node) = &loss.node else { return Err(Error::NotALoss("a tensor without history".into())) };
    if loss.shape().elements() != 1 {
        return Err(Error::NotALoss(format!("a tensor of shape {}", loss.shape())));
    }
    let seed = Tensor::from_slice(device, loss.shape().dims(), &[1.0]);
    let mut walk = Walk { pass: Pass::recording(device), slots: Slots::default(), made_again: None, gradients };
    walk.run(node, seed)?;
    Ok(walk.slots)
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
            node.op.each_input(|input| stack.extend(input.cloned()));
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
    /// The rows that were last made again, and by which operation: the products that read them follow each other.
    made_again: Option<(Arc<Node>, Tensor)>,
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

    /// A tensor of a shape that an operation has yet to write.
    fn like(&self, shape: Shape) -> Tensor {
        Tensor::unwritten(self.pass.device, shape)
    }

    /// Hands a gradient to an input: the first is kept, later ones are added to it.
    fn give(&mut self, input: Option<&Arc<Node>>, gradient: Tensor) -> Result<()> {
        let Some(node) = input else { return Ok(()) };
        let device = self.pass.device;
        let slot = self.slots.of(node);
        let Some(sum) = slot else {
            *slot = Some(gradient);
            return Ok(());
        };
        if sum.is_unshared() {
            pointwise::accumulate(device, gradient.view("backward")?, 1.0, sum.view_mut());
        } else {
            // The same tensor was handed to another input as well; this one gets its own.
            let both = (sum.view("backward")?, gradient.view("backward")?);
            *sum = Tensor::write(device, node.shape, |to| pointwise::add_scaled(device, both.0, both.1, 1.0, to));
        }
        Ok(())
    }

    /// Computes and hands over the gradient of an input if it is wanted.
    fn give_with(&mut self, input: Option<&Arc<Node>>, fill: impl FnOnce(&Device, ViewMut<'_, f32>)) -> Result<()> {
        let Some(node) = input else { return Ok(()) };
        let device = self.pass.device;
        self.give(input, Tensor::write(device, node.shape, |to| fill(device, to)))
    }

    /// The rows that a product read. Those of SwiGLU in bf16 are made from gate and up as they are kept, which is rounded.
    fn operand(&mut self, op: &'static str, kept: &KeptOperand, w: &Param) -> Result<Operand> {
        let (node, shape) = match kept {
            KeptOperand::Rows(rows) => return Ok(rows.clone()),
            KeptOperand::Again { x, .. } => (x.node.as_ref().expect("invariant: an operation made them"), x.shape),
        };
        let rows = match &self.made_again {
            Some((by, rows)) if Arc::ptr_eq(by, node) => rows.clone(),
            _ => {
                // Memory first: what was made again before is not needed any more.
                self.made_again = None;
                let (device, pass) = (self.pass.device, Pass::inference(self.pass.device));
                let rows = match &node.op {
                    Op::RmsNorm { x, w, epsilon, .. } => x.detach().rms_norm(pass, w, *epsilon)?,
                    Op::Swiglu { gate, up } => gate.widened(device).swiglu(pass, &up.widened(device))?,
                    _ => unreachable!("invariant: the tape keeps the rows of other operations"),
                };
                self.made_again.insert((Arc::clone(node), rows)).1.clone()
            }
        };
        let mut rows = rows.reshape(shape.dims())?;
        rows.node = Some(Arc::clone(node));
        rows.operand(self.pass.device, w.dense(), op)
    }

    /// Computes both gradients of a product in bf16 at once: `fill` gets where to write dx, if it is wanted, and what to add dW to.
    fn rounded(
        &mut self,
        x: &Origin,
        w: &Param,
        fill: impl FnOnce(Option<ViewMut<'_, f32>>, ViewMut<'_, f32>),
    ) -> Result<()> {
        let mut dx = x.node.as_ref().map(|node| self.like(node.shape));
        fill(dx.as_mut().map(Tensor::view_mut), self.gradients.of(self.pass.device, w));
        dx.map_or(Ok(()), |dx| self.give(x.node.as_ref(), dx))
    }

    #[allow(clippy::too_many_lines)]
    fn step(&mut self, op: &Op, dy: &Tensor) -> Result<()> {
        const OP: &str = "backward";
        let d = dy.view(OP)?;
        let device = self.pass.device;
        match op {
            Op::Leaf => {}
            Op::Matmul { x, w } => {
                let size = Size { m: x.shape().rows(), n: w.shape().rows(), k: w.shape().width() };
                match &self.operand(OP, x, w)? {
                    Operand::F32(x) => {
                        let weight = w.view(OP)?;
                        self.give_with(x.node.as_ref(), |device, dx| matmul::matmul_nn(device, d, weight, size, dx))?;
                        matmul::matmul_backward_weight_add(device, d, x.view(OP)?, size, self.gradients.of(device, w));
                    }
                    Operand::Bf16 { x, rows } => self.rounded(x, w, |to, dw| {
                        bf16_matmul::backward(device, d, rows.bf16(), w.value().bf16(), size, to, dw);
                    })?,
                }
            }
            Op::FrozenMatmul { x, w } => {
                self.give(x.node.as_ref(), frozen::matmul_nn(device, d, w, x.shape)?)?;
            }
            Op::FrozenGroupedMatmul { x, w, plan } => {
                self.give(x.node.as_ref(), frozen::grouped_matmul_nn(device, d, w, plan, x.shape)?)?;
            }
            Op::GroupedMatmul { x, w, plan } => {
                let (shape, offsets) = (w.shape(), plan.row_offsets().view());
                let size = Size { m: x.shape().rows(), n: shape.dims()[1], k: shape.width() };
                match &self.operand(OP, x, w)? {
                    Operand::F32(x) => {
                        let weight = w.view(OP)?;
                        self.give_with(x.node.as_ref(), |device, dx| {
                            grouped_matmul::grouped_matmul_nn(device, d, weight, offsets, size, dx);
                        })?;
                        let (x, dw) = (x.view(OP)?, self.gradients.of(device, w));
                        grouped_matmul::grouped_matmul_backward_weight_add(device, d, x, offsets, size, dw);
                    }
                    Operand::Bf16 { x, rows } => self.rounded(x, w, |to, dw| {
                        bf16_matmul::grouped::backward(device, d, rows.bf16(), w.value().bf16(), offsets, size, to, dw);
                    })?,
                }
            }
            Op::Embed { w, ids } => {
                embed::embed_backward_add(device, w.shape().width(), ids.view(), d, self.gradients.of(device, w));
            }
            Op::RmsNorm { x, w, inverse_rms, .. } => {
                let mut dx = self.like(x.shape());
                let given = (x.view(OP)?, w.view(OP)?, inverse_rms.view(OP)?);
                // The op makes both; what nobody wants is one row.
                let mut unwanted = w.is_frozen().then(|| Tensor::zeros(device, w.shape().dims()));
                let dw = match &mut unwanted {
                    Some(row) => row.view_mut(),
                    None => self.gradients.of(device, w),
                };
                norm::rms_norm_backward(device, given.0, given.1, given.2, d, dx.view_mut(), dw);
                self.give(x.node.as_ref(), dx)?;
            }
            Op::AddRow { x, w } => {
                if !w.is_frozen() {
                    rows::column_sums_add(device, d, x.shape.width(), self.gradients.of(device, w));
                }
                self.give(x.node.as_ref(), dy.clone())?;
            }
            Op::Rope { x, cos_sin, start, layout } => {
                let shape = x.shape;
                let (heads, width) = (shape.dims()[1], shape.width());
                let table = cos_sin.view(OP)?;
                self.give_with(x.node.as_ref(), |device, dx| {
                    rope::rotate(device, d, table, heads, width, *start, *layout, Direction::Inverse, dx);
                })?;
            }
            Op::Attention { q, k, v, out, log_sum, spans, heads, scale } => {
                let [of_q, of_k, of_v, of_out] = [q, k, v, out].map(Tensor::floats);
                let saved = Saved { q: of_q, k: of_k, v: of_v, out: of_out, log_sum: log_sum.view(OP)? };
                let (mut dq, mut dk, mut dv) = (self.like(q.shape()), self.like(k.shape()), self.like(v.shape()));
                let to = attention::Gradients { q: dq.view_mut(), k: dk.view_mut(), v: dv.view_mut() };
                attention::attention_backward(device, saved, d, spans, *heads, *scale, to);
                for (input, gradient) in [(q, dq), (k, dk), (v, dv)] {
                    self.give(input.node.as_ref(), gradient)?;
                }
            }
            Op::Swiglu { gate, up } => {
                let (mut dgate, mut dup) = (self.like(gate.shape()), self.like(up.shape()));
                let (g, u) = (gate.floats(), up.floats());
                swiglu::swiglu_backward(device, g, u, d, dgate.view_mut(), dup.view_mut());
                self.give(gate.node.as_ref(), dgate)?;
                self.give(up.node.as_ref(), dup)?;
            }
            Op::AddScaled { a, b, scale } => {
                self.give(a.node.as_ref(), dy.clone())?;
                if *scale == 1.0 {
                    self.give(b.node.as_ref(), dy.clone())?;
                } else {
                    self.give_with(b.node.as_ref(), |device, db| pointwise::scale(device, d, *scale, db))?;
                }
            }
            Op::Scale { x, scale } => {
                self.give_with(x.node.as_ref(), |device, dx| pointwise::scale(device, d, *scale, dx))?
            }
            Op::Mul { a, b } => {
                let (of_a, of_b) = (a.view(OP)?, b.view(OP)?);
                self.give_with(a.node.as_ref(), |device, da| pointwise::mul(device, d, of_b, da))?;
                self.give_with(b.node.as_ref(), |device, db| pointwise::mul(device, d, of_a, db))?;
            }
            Op::Exp { x, y } => {
                let y = y.view(OP)?;
                self.give_with(x.node.as_ref(), |device, dx| pointwise::mul(device, d, y, dx))?;
            }
            Op::Sigmoid { x, y } => {
                let y = y.view(OP)?;
                self.give_with(x.node.as_ref(), |device, dx| pointwise::sigmoid_backward(device, y, d, dx))?;
            }
            Op::Clamp { x, low, high } => {
                let from = x.view(OP)?;
                self.give_with(x.node.as_ref(), |device, dx| {
                    pointwise::clamp_backward(device, from, *low, *high, d, dx)
                })?;
            }
            Op::Min { a, b } => {
                let (mut da, mut db) = (self.like(a.shape()), self.like(b.shape()));
                pointwise::min_backward(device, a.view(OP)?, b.view(OP)?, d, da.view_mut(), db.view_mut());
                self.give(a.node.as_ref(), da)?;
                self.give(b.node.as_ref(), db)?;
            }
            Op::WeightedSum { x, weights } => {
                let weights = weights.view(OP)?;
                self.give_with(x.node.as_ref(), |device, dx| pointwise::scale_by(device, weights, d, dx))?;
            }
            Op::Columns { x, start } => {
                let (width, len) = (x.shape.width(), dy.shape().width());
                self.give_with(x.node.as_ref(), |device, mut dx| {
                    pointwise::fill(device, 0.0, dx.again());
                    rows::columns_backward_add(device, d, width, *start, len, dx);
                })?;
            }
            Op::ConcatColumns { a, b } => {
                let (left, right) = (a.shape.width(), b.shape.width());
                self.give_with(a.node.as_ref(), |device, da| rows::columns(device, d, left + right, 0, left, da))?;
                self.give_with(b.node.as_ref(), |device, db| rows::columns(device, d, left + right, left, right, db))?;
            }
            Op::AppendShared { x, shared } => {
                let shape = x.shape;
                let (heads, n, r) = (shape.dims()[1], shape.width(), shared.shape.width());
                let (mut dx, mut dshared) = (self.like(x.shape), self.like(shared.shape));
                rows::append_shared_backward(device, d, (heads, n, r), dx.view_mut(), dshared.view_mut());
                self.give(x.node.as_ref(), dx)?;
                self.give(shared.node.as_ref(), dshared)?;
            }
            Op::GatherRows { x, ids } => {
                let width = x.shape.width();
                self.give_with(x.node.as_ref(), |device, mut dx| {
                    pointwise::fill(device, 0.0, dx.again());
                    embed::embed_backward_add(device, width, ids.view(), d, dx);
                })?;
            }
            Op::Dispatch { x, plan } => {
                let width = x.shape.width();
                let own = plan.exchange.as_ref().map(|exchange| exchange.back(device, dy)).transpose()?;
                let d = own.as_ref().unwrap_or(dy).view(OP)?;
                self.give_with(x.node.as_ref(), |device, dx| {
                    route::gather_backward(device, d, plan.slot_of.view(), plan.per_token, width, dx);
                })?;
            }
            Op::Combine { ys, weights, plan } => {
                let width = ys.shape().width();
                let (mut dys, mut dweights) = (self.like(ys.shape()), self.like(weights.shape()));
                let (from, w, slots) = (ys.view(OP)?, weights.view(OP)?, plan.slot_of.view());
                route::combine_backward(device, from, w, slots, d, width, dys.view_mut(), dweights.view_mut());
                if let Some(exchange) = &plan.exchange {
                    dys = exchange.there(device, &dys)?;
                }
                self.give(ys.node.as_ref(), dys)?;
                self.give(weights.node.as_ref(), dweights)?;
            }
            Op::PickColumns { x, indices } => {
                let (experts, per_token) = (x.shape.width(), dy.shape().width());
                self.give_with(x.node.as_ref(), |device, dx| {
                    route::pick_columns_backward(device, d, indices.view(), per_token, experts, dx);
                })?;
            }
            Op::NormalizeRows { x, epsilon } => {
                let (from, width) = (x.view(OP)?, x.shape().width());
                self.give_with(x.node.as_ref(), |device, dx| {
                    route::normalize_rows_backward(device, from, width, *epsilon, d, dx);
                })?;
            }
            Op::SoftmaxRows { x, y } => {
                let (y, width) = (y.view(OP)?, x.shape.width());
                self.give_with(x.node.as_ref(), |device, dx| route::softmax_rows_backward(device, y, width, d, dx))?;
            }
            Op::HeadLogProb { x, w, targets, inverse_temperature, log_sum } => {
                let size = Size { m: x.shape().rows(), n: w.shape().rows(), k: w.shape().width() };
                let rows = self.operand(OP, x, w)?;
                let head = head(device, &rows, w, w.dense())?;
                let (mut dx, dw) = (self.like(x.shape()), self.gradients.of(device, w));
                let (given, to) = ((log_sum.view(OP)?, d), (dx.view_mut(), dw));
                log_prob::head_log_prob_backward(device, head, targets.view(), size, *inverse_temperature, given, to);
                self.give(x.node(), dx)?;
            }
            Op::FrozenHeadLogProb { x, w, targets, inverse_temperature, log_sum } => {
                let given = (log_sum.view(OP)?, d);
                let dx = frozen::head_log_prob_nn(device, x, w, targets, *inverse_temperature, given)?;
                self.give(x.node.as_ref(), dx)?;
            }
            Op::LogProbRows { logits, targets, inverse_temperature, log_sum } => {
                let mut dz = logits.copy(device);
                let given = (log_sum.view(OP)?, d);
                log_prob::log_prob_rows_backward(device, dz.view_mut(), targets.view(), *inverse_temperature, given);
                self.give(logits.node.as_ref(), dz)?;
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
        let mut inner = Walk { pass: self.pass, slots: Slots::default(), made_again: None, gradients: self.gradients };
        inner.run(node, dy.clone())?;
        let Walk { mut slots, .. } = inner;
        for (outer, leaf) in region.inputs.iter().zip(&inputs) {
            let node = leaf.node.as_ref().expect("invariant: a leaf has a node");
            let found = slots.index.contains_key(&Arc::as_ptr(node)).then(|| slots.of(node).take()).flatten();
            if let Some(gradient) = found {
                self.give(outer.node.as_ref(), gradient)?;
            }
        }
        Ok(())
    }
}

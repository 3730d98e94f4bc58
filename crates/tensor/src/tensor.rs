//! Tensors, and the tape of operations that made them.
//!
//! The types here refer to each other: a recorded tensor holds its node, a node its operation, an operation its input
//! tensors, parameters and regions that are computed again. What is done with them stands in the other modules.

use std::fmt;
use std::sync::{Arc, OnceLock};

use minke_kernels::ops::attention::{Heads, Span};
use minke_kernels::ops::rope::Layout;
use minke_kernels::ops::{bf16_matmul, cast};
use minke_kernels::{Bf16, Buffer, Device, Dtype, Floats, FloatsMut, View, ViewMut};

use minke_spec::Precision;

use crate::comm::Comm;
use crate::error::Error;
use crate::experts::ExpertSource;
use crate::shape::Shape;
use crate::stored::{SplitHeads, StoredWeight};

/// The result of a fallible operation of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// A contiguous tensor in memory of a device. Clones share the values.
///
/// The host gets values only as a copy ([`Tensor::read`]).
#[derive(Clone)]
pub struct Tensor {
    shape: Shape,
    dtype: Dtype,
    storage: Arc<Storage>,
    pub(crate) node: Option<Arc<Node>>,
}

/// Values, and what products derived from them.
struct Storage {
    buffer: Buffer,
    /// Rows of some width rounded to bf16, so that all products that read them share the work and the memory.
    rounded: OnceLock<Tensor>,
}

impl Storage {
    fn new(buffer: Buffer) -> Arc<Self> {
        Arc::new(Self { buffer, rounded: OnceLock::new() })
    }
}

impl Tensor {
    /// A tensor with the given values.
    ///
    /// # Panics
    /// If their number is not that of the shape.
    pub fn from_slice(device: &Device, shape: &[usize], values: &[f32]) -> Self {
        let shape = Shape::new(shape);
        assert_eq!(shape.elements(), values.len(), "{shape} holds another number of values");
        Self { shape, dtype: Dtype::F32, storage: Storage::new(device.upload(values)), node: None }
    }

    /// A tensor of zeros in F32.
    pub fn zeros(device: &Device, shape: &[usize]) -> Self {
        Self::zeros_as(device, Dtype::F32, shape)
    }

    /// A tensor of zeros.
    pub fn zeros_as(device: &Device, dtype: Dtype, shape: &[usize]) -> Self {
        let shape = Shape::new(shape);
        let storage = Storage::new(device.zeros::<u8>(shape.elements() * dtype.bytes()));
        Self { shape, dtype, storage, node: None }
    }

    /// A tensor in F32 whose values an operation has yet to write.
    pub(crate) fn unwritten(device: &Device, shape: Shape) -> Self {
        let storage = Storage::new(device.buffer::<f32>(shape.elements()));
        Self { shape, dtype: Dtype::F32, storage, node: None }
    }

    /// A tensor in F32 whose values `fill` writes, all of them.
    pub(crate) fn write(device: &Device, shape: Shape, fill: impl FnOnce(ViewMut<'_, f32>)) -> Self {
        let mut y = Self::unwritten(device, shape);
        fill(y.view_mut());
        y
    }

    /// The shape.
    pub fn shape(&self) -> Shape {
        self.shape
    }

    /// What the elements are.
    pub fn dtype(&self) -> Dtype {
        self.dtype
    }

    /// A copy that shares no memory, without history.
    pub(crate) fn copy(&self, device: &Device) -> Self {
        let bytes = self.bytes();
        let mut buffer = device.buffer::<u8>(bytes.len());
        minke_kernels::ops::copy(device, bytes, buffer.view_mut());
        Self { shape: self.shape, dtype: self.dtype, storage: Storage::new(buffer), node: None }
    }

    /// Copies the values to the host, row-major; those of other types than F32 are widened.
    pub fn read(&self) -> Vec<f32> {
        match self.dtype {
            Dtype::F32 => self.storage.buffer.view::<f32>().read(),
            Dtype::Bf16 => self.storage.buffer.view::<Bf16>().read().into_iter().map(Bf16::to_f32).collect(),
        }
    }

    /// Copies the only value to the host.
    ///
    /// # Panics
    /// If there is another number of them.
    pub fn item(&self) -> f32 {
        assert_eq!(self.shape.elements(), 1, "{} is not a scalar", self.shape);
        self.read()[0]
    }

    /// The values as an operation reads them.
    pub(crate) fn view(&self, op: &'static str) -> Result<View<'_, f32>> {
        match self.dtype {
            Dtype::F32 => Ok(self.storage.buffer.view()),
            dtype => Err(Error::Dtype { op, dtype }),
        }
    }

    /// The same values under another shape.
    ///
    /// # Errors
    /// If the number of elements differs.
    pub fn reshape(&self, dims: &[usize]) -> Result<Self> {
        let shape = Shape::new(dims);
        if shape.elements() != self.shape.elements() {
            return Err(crate::error::mismatch("reshape", ("x", &self.shape), ("target", &shape)));
        }
        Ok(Self { shape, ..self.clone() })
    }

    /// The same values without their history.
    pub fn detach(&self) -> Self {
        Self { node: None, ..self.clone() }
    }

    /// A start of a tape: [`backward`](crate::backward) computes gradients of this tensor.
    pub fn leaf(&self) -> Self {
        Self { node: Some(Node::new(Op::Leaf, self.shape)), ..self.detach() }
    }

    /// Attaches how the tensor was made, if the pass records and an input or a parameter needs gradients.
    pub(crate) fn made_by(mut self, pass: Pass<'_>, wanted: bool, op: impl FnOnce() -> Op) -> Self {
        if pass.record && wanted {
            self.node = Some(Node::new(op(), self.shape));
        }
        self
    }

    /// Whether gradients flow through this tensor.
    pub(crate) fn recorded(&self) -> bool {
        self.node.is_some()
    }

    /// Whether no other tensor holds the values.
    pub(crate) fn is_unshared(&mut self) -> bool {
        Arc::get_mut(&mut self.storage).is_some()
    }

    /// The values for writing.
    ///
    /// # Panics
    /// If another tensor holds them too, or they are not F32.
    pub(crate) fn view_mut(&mut self) -> ViewMut<'_, f32> {
        assert_eq!(self.dtype, Dtype::F32, "invariant: only F32 is written in place");
        self.buffer_mut().view_mut()
    }

    /// The memory of the values for writing; what was derived from the old ones is dropped.
    ///
    /// # Panics
    /// If other tensors share them.
    fn buffer_mut(&mut self) -> &mut Buffer {
        let storage = Arc::get_mut(&mut self.storage).expect("invariant: what is written in place is not shared");
        storage.rounded = OnceLock::new();
        &mut storage.buffer
    }

    /// The values in their type, row-major.
    pub(crate) fn floats(&self) -> Floats<'_> {
        match self.dtype {
            Dtype::F32 => Floats::F32(self.storage.buffer.view()),
            Dtype::Bf16 => Floats::Bf16(self.storage.buffer.view()),
        }
    }

    /// The rows rounded to bf16 and padded, as products of operands in bf16 read them, without history.
    ///
    /// # Shapes
    /// x [.., D] -> [R, `row_len(D)`]
    pub(crate) fn rounded_rows(&self, device: &Device, op: &'static str) -> Result<Self> {
        let (x, width) = (self.view(op)?, self.shape.width());
        let shape = Shape::new(&[self.shape.rows(), bf16_matmul::row_len(width)]);
        let round = || {
            let mut rows = device.buffer::<Bf16>(shape.elements());
            bf16_matmul::round_rows(device, x, width, rows.view_mut());
            Self { shape, dtype: Dtype::Bf16, storage: Storage::new(rows), node: None }
        };
        let kept = self.storage.rounded.get_or_init(round);
        // Under another shape the values may be rows of another width; without padding that makes no difference.
        let unpadded = kept.shape.elements() == self.shape.elements() && shape.width() == width;
        Ok(if kept.shape == shape || unpadded { Self { shape, ..kept.clone() } } else { round() })
    }

    /// The values of an F32 tensor rounded to bf16, with the same history.
    pub(crate) fn narrowed(&self, device: &Device, op: &'static str) -> Result<Self> {
        let storage = if bf16_matmul::row_len(self.shape.width()) == self.shape.width() {
            self.rounded_rows(device, op)?.storage
        } else {
            let x = self.view(op)?;
            let mut buffer = device.buffer::<Bf16>(x.len());
            cast::narrow(device, x, buffer.view_mut());
            Storage::new(buffer)
        };
        Ok(Self { dtype: Dtype::Bf16, storage, ..self.clone() })
    }

    /// The values of a tensor that is bf16.
    ///
    /// # Panics
    /// If it is not.
    pub(crate) fn bf16(&self) -> View<'_, Bf16> {
        match self.floats() {
            Floats::Bf16(values) => values,
            Floats::F32(_) => panic!("invariant: what a product in bf16 reads is bf16"),
        }
    }

    /// The values as F32, without history; a tensor that is F32 is shared.
    pub(crate) fn widened(&self, device: &Device) -> Self {
        match self.floats() {
            Floats::F32(_) => self.detach(),
            Floats::Bf16(x) => Self::write(device, self.shape, |y| cast::widen(device, x, y)),
        }
    }

    /// Whether a product in bf16 lies behind the tensor on the tape.
    pub(crate) fn is_in_bf16(&self) -> bool {
        self.node.as_ref().is_some_and(|node| node.precision == Precision::Bf16)
    }

    /// What the backward knows of an input whose values it does not need.
    pub(crate) fn origin(&self) -> Origin {
        Origin { shape: self.shape, node: self.node.clone() }
    }

    /// The values in their type, for writing.
    ///
    /// # Panics
    /// If other tensors share them.
    pub(crate) fn floats_mut(&mut self) -> FloatsMut<'_> {
        match self.dtype {
            Dtype::F32 => FloatsMut::F32(self.buffer_mut().view_mut()),
            Dtype::Bf16 => FloatsMut::Bf16(self.buffer_mut().view_mut()),
        }
    }

    /// The bytes of the values.
    pub(crate) fn bytes(&self) -> View<'_, u8> {
        self.storage.buffer.view()
    }

    /// The bytes of the values, for writing.
    ///
    /// # Panics
    /// If other tensors share them.
    pub(crate) fn bytes_mut(&mut self) -> ViewMut<'_, u8> {
        self.buffer_mut().view_mut()
    }

    /// Checks that the tensor has the given rank.
    pub(crate) fn expect_rank(&self, op: &'static str, rank: usize) -> Result<()> {
        if self.shape.dims().len() == rank {
            return Ok(());
        }
        Err(Error::Shape { op, left: format!("x {}", self.shape), right: format!("rank {rank}") })
    }
}

impl std::fmt::Debug for Tensor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Tensor {} {}", self.dtype.name(), self.shape)
    }
}

/// A list of u32 on a device: token ids, positions, choices of experts. Never differentiable. Clones share the values.
///
/// What they may index is checked when they are made, once: an operation compares [`Indices::below`] with its size.
#[derive(Clone)]
pub struct Indices {
    storage: Arc<Buffer>,
    below: usize,
}

impl Indices {
    /// A list with the given values.
    pub fn from_slice(device: &Device, values: &[u32]) -> Self {
        let below = values.iter().max().map_or(0, |&most| most as usize + 1);
        Self { storage: Arc::new(device.upload(values)), below }
    }

    /// A list whose values, all below `below`, an operation has yet to write.
    pub(crate) fn unwritten(device: &Device, len: usize, below: usize) -> Self {
        Self { storage: Arc::new(device.buffer::<u32>(len)), below }
    }

    /// Copies the values to the host.
    pub fn read(&self) -> Vec<u32> {
        self.view().read()
    }

    /// The sum of all values, modulo 2^32, for the host: the work of reading them once.
    pub fn sum(&self, device: &Device) -> u32 {
        minke_kernels::ops::stream::sum(device, self.view())
    }

    /// A number that every value is below: the largest and one, or what the operation that made them had to choose from.
    pub fn below(&self) -> usize {
        self.below
    }

    /// The values as an operation reads them.
    pub(crate) fn view(&self) -> View<'_, u32> {
        self.storage.view()
    }

    /// The values for writing.
    ///
    /// # Panics
    /// If other indices share them.
    pub(crate) fn view_mut(&mut self) -> ViewMut<'_, u32> {
        Arc::get_mut(&mut self.storage).expect("invariant: what is written in place is not shared").view_mut()
    }

    /// The number of values.
    pub fn len(&self) -> usize {
        self.view().len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// A function that is called with intermediate values.
type Listener<'a> = dyn Fn(Tap<'_>, &Tensor) + 'a;

/// The circumstances of one forward: device, whether a tape is recorded, the listener to intermediate values, the source of
/// experts that are not in memory, the ranks that have the others.
#[derive(Clone, Copy)]
pub struct Pass<'a> {
    /// Where it runs.
    pub device: &'a Device,
    /// Whether results keep how they were made.
    pub record: bool,
    /// Whether blocks keep only their inputs and are computed again in the backward.
    pub recompute: bool,
    pub(crate) tap: Option<&'a Listener<'a>>,
    pub(crate) experts: Option<&'a dyn ExpertSource>,
    pub(crate) expert_ranks: Option<&'a Comm>,
}

impl<'a> Pass<'a> {
    /// A pass that computes values only.
    pub fn inference(device: &'a Device) -> Self {
        Self { device, record: false, recompute: false, tap: None, experts: None, expert_ranks: None }
    }

    /// A pass that records a tape.
    pub fn recording(device: &'a Device) -> Self {
        Self { record: true, ..Self::inference(device) }
    }

    /// The same pass with a source of experts that are not in memory.
    pub fn with_experts(self, source: &'a dyn ExpertSource) -> Self {
        Self { experts: Some(source), ..self }
    }

    /// The same pass on one of several ranks that share out the experts of every layer in their order: rows are sent to the rank of
    /// their expert, and back. All ranks do the same passes.
    pub fn with_expert_ranks(self, ranks: &'a Comm) -> Self {
        Self { expert_ranks: Some(ranks), ..self }
    }

    /// The same pass with recomputation of blocks switched on or off.
    pub fn with_recompute(self, recompute: bool) -> Self {
        Self { recompute, ..self }
    }

    /// The same pass with a listener for intermediate values.
    pub fn with_tap(self, tap: &'a dyn Fn(Tap<'_>, &Tensor)) -> Self {
        Self { tap: Some(tap), ..self }
    }

    /// Calls the listener, if there is one, with an intermediate value.
    pub fn tap(&self, tap: Tap<'_>, value: &Tensor) {
        if let Some(listener) = self.tap {
            listener(tap, value);
        }
    }
}

/// Which intermediate value a listener is called with; as text, its name in `minke debug taps`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tap<'a> {
    /// The rows that are multiplied with a weight.
    Input {
        /// Name of the weight.
        weight: &'a str,
        /// Which of its matrices, if it has one per expert.
        expert: Option<usize>,
    },
    /// A value of a layer.
    Layer {
        /// The layer, from 0.
        layer: usize,
        /// Its name there: `c_q`, `c_kv`, `gate.scores`, `out`.
        value: &'static str,
    },
}

impl fmt::Display for Tap<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Input { weight, expert: None } => write!(f, "{weight}.input"),
            Self::Input { weight, expert: Some(expert) } => write!(f, "{weight}.input.{expert}"),
            Self::Layer { layer, value } => write!(f, "layers.{layer}.{value}"),
        }
    }
}

/// A parameter: its published name, its place in the table, its weight.
#[derive(Clone)]
pub struct Param {
    pub(crate) name: Arc<str>,
    pub(crate) id: usize,
    pub(crate) weight: Weight,
    pub(crate) precision: Precision,
    pub(crate) frozen: bool,
    pub(crate) adapter: Option<Box<Adapter>>,
}

/// A low-rank pair beside a matrix that is not trained: products with the matrix become `x W^T + scale (x A^T) B^T`.
#[derive(Clone)]
pub struct Adapter {
    pub(crate) scale: f32,
    /// [r, in]
    pub(crate) a: Param,
    /// [out, r]
    pub(crate) b: Param,
}

/// How the values of a parameter are held.
#[derive(Clone)]
pub enum Weight {
    /// As f32 or bf16: what is trained, and what is small.
    Dense(Dense),
    /// As they lie in a file, in any format; for inference.
    Stored(Arc<StoredWeight>),
    /// As [`Weight::Stored`], of MLA's `kv_b_proj` where a file holds its two halves apart; for inference.
    Split(Arc<SplitHeads>),
}

/// Values in f32, or in bf16: then products round their rows to bf16 too. A matrix keeps one packed copy per version of them, made
/// when it is first multiplied with.
#[derive(Clone)]
pub struct Dense {
    pub(crate) value: Tensor,
    pub(crate) packed: Arc<OnceLock<Packed>>,
}

/// A matrix, or stacked experts, as the product of a device reads it.
pub(crate) struct Packed {
    pub buffer: Buffer,
    /// The device whose layout it has, by its name.
    pub device: &'static str,
}

/// Where each copy of a token goes: slots are sorted by expert, tokens in order within an expert.
#[derive(Clone)]
pub struct Dispatch {
    /// First slot of each expert. [E + 1]
    pub offsets: Indices,
    /// Token of each slot. [T * K]
    pub token_of: Indices,
    /// Slot of each (token, choice). [T, K]
    pub slot_of: Indices,
    /// Choices per token, K.
    pub per_token: usize,
    /// The way to experts of other ranks, if there are any.
    pub(crate) exchange: Option<Arc<Exchange>>,
}

/// The way of the rows of one layer and one pass to the experts of other ranks.
pub(crate) struct Exchange {
    pub ranks: Comm,
    /// Rows for each rank.
    pub sent: Vec<usize>,
    /// Rows from each rank.
    pub received: Vec<usize>,
    /// Of each row here, sorted by expert: its place among the rows as they come.
    pub sorted: Vec<u32>,
    /// First row here of each expert of this rank, and the end.
    pub offsets: Indices,
}

/// One recorded operation.
pub(crate) struct Node {
    pub op: Op,
    pub shape: Shape,
    /// Longest way back to a leaf: inputs always have a smaller one, so falling depth is an order for the backward.
    pub depth: u32,
    /// That of the model whose products lie behind.
    pub precision: Precision,
}

/// An input of an operation without its values.
#[derive(Clone)]
pub(crate) struct Origin {
    pub shape: Shape,
    pub node: Option<Arc<Node>>,
}

/// The rows that a product with a weight reads.
#[derive(Clone)]
pub(crate) enum Operand {
    F32(Tensor),
    /// Rounded rows, which the products that read the same tensor share.
    Bf16 {
        x: Origin,
        rows: Tensor,
    },
}

impl Operand {
    fn origin(&self) -> Origin {
        match self {
            Self::F32(x) => x.origin(),
            Self::Bf16 { x, .. } => x.clone(),
        }
    }

    /// What the tape keeps of it: not the rows, where a norm or SwiGLU made them.
    pub(crate) fn kept(self) -> KeptOperand {
        let (x, precision) = (self.origin(), self.precision());
        match x.node.as_ref().map(|node| &node.op) {
            Some(Op::RmsNorm { .. } | Op::Swiglu { .. }) => KeptOperand::Again { x, precision },
            _ => KeptOperand::Rows(self),
        }
    }

    fn precision(&self) -> Precision {
        match self {
            Self::F32(_) => Precision::F32,
            Self::Bf16 { .. } => Precision::Bf16,
        }
    }
}

/// What the tape keeps of the rows that a product read.
pub(crate) enum KeptOperand {
    Rows(Operand),
    /// Nothing: the backward makes them again, from what the operation that made them keeps.
    Again {
        x: Origin,
        precision: Precision,
    },
}

impl KeptOperand {
    pub(crate) fn shape(&self) -> Shape {
        match self {
            Self::Rows(Operand::F32(x)) => x.shape,
            Self::Rows(Operand::Bf16 { x, .. }) | Self::Again { x, .. } => x.shape,
        }
    }

    fn precision(&self) -> Precision {
        match self {
            Self::Rows(rows) => rows.precision(),
            Self::Again { precision, .. } => *precision,
        }
    }

    pub(crate) fn node(&self) -> Option<&Arc<Node>> {
        match self {
            Self::Rows(Operand::F32(x)) => x.node.as_ref(),
            Self::Rows(Operand::Bf16 { x, .. }) | Self::Again { x, .. } => x.node.as_ref(),
        }
    }
}

impl Node {
    pub(crate) fn new(op: Op, shape: Shape) -> Arc<Self> {
        let (mut depth, mut precision) = (0, op.precision());
        op.each_input(|input| {
            let Some(node) = input else { return };
            depth = depth.max(node.depth + 1);
            if node.precision == Precision::Bf16 {
                precision = Precision::Bf16;
            }
        });
        Arc::new(Self { op, shape, depth, precision })
    }
}

/// An operation with its inputs and what its backward needs.
pub(crate) enum Op {
    /// A start of the tape.
    Leaf,
    Matmul {
        x: KeptOperand,
        w: Param,
    },
    GroupedMatmul {
        x: KeptOperand,
        w: Param,
        plan: Dispatch,
    },
    /// A product with a weight that is not trained: only the input has a gradient.
    FrozenMatmul {
        x: Origin,
        w: Param,
    },
    FrozenGroupedMatmul {
        x: Origin,
        w: Param,
        plan: Dispatch,
    },
    Embed {
        w: Param,
        ids: Indices,
    },
    RmsNorm {
        x: Tensor,
        w: Param,
        epsilon: f32,
        inverse_rms: Tensor,
    },
    AddRow {
        x: Origin,
        w: Param,
    },
    Rope {
        x: Origin,
        cos_sin: Tensor,
        start: usize,
        layout: Layout,
    },
    /// In bf16, all but the log of the sums are kept as bf16.
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
    /// In bf16, both inputs are kept as bf16.
    Swiglu {
        gate: Tensor,
        up: Tensor,
    },
    /// a + scale * b
    AddScaled {
        a: Origin,
        b: Origin,
        scale: f32,
    },
    Scale {
        x: Origin,
        scale: f32,
    },
    Mul {
        a: Tensor,
        b: Tensor,
    },
    Exp {
        x: Origin,
        y: Tensor,
    },
    Sigmoid {
        x: Origin,
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
        x: Origin,
        weights: Tensor,
    },
    Columns {
        x: Origin,
        start: usize,
    },
    ConcatColumns {
        a: Origin,
        b: Origin,
    },
    AppendShared {
        x: Origin,
        shared: Origin,
    },
    GatherRows {
        x: Origin,
        ids: Indices,
    },
    Dispatch {
        x: Origin,
        plan: Dispatch,
    },
    Combine {
        ys: Tensor,
        weights: Tensor,
        plan: Dispatch,
    },
    PickColumns {
        x: Origin,
        indices: Indices,
    },
    NormalizeRows {
        x: Tensor,
        epsilon: f32,
    },
    SoftmaxRows {
        x: Origin,
        y: Tensor,
    },
    HeadLogProb {
        x: KeptOperand,
        w: Param,
        targets: Indices,
        inverse_temperature: f32,
        log_sum: Tensor,
    },
    FrozenHeadLogProb {
        x: Tensor,
        w: Param,
        targets: Indices,
        inverse_temperature: f32,
        log_sum: Tensor,
    },
    LogProbRows {
        logits: Tensor,
        targets: Indices,
        inverse_temperature: f32,
        log_sum: Tensor,
    },
    Recompute(Region),
    /// An operation of the inference path, recorded only to be named when a gradient is asked of it.
    Inference {
        op: &'static str,
        x: Origin,
    },
}

impl Op {
    /// Calls `visit` with every differentiable input.
    pub(crate) fn each_input(&self, mut visit: impl FnMut(Option<&Arc<Node>>)) {
        let mut all = |inputs: &[&Option<Arc<Node>>]| inputs.iter().for_each(|node| visit(node.as_ref()));
        match self {
            Self::Leaf | Self::Embed { .. } => {}
            Self::Matmul { x, .. } | Self::GroupedMatmul { x, .. } | Self::HeadLogProb { x, .. } => visit(x.node()),
            Self::RmsNorm { x, .. }
            | Self::Clamp { x, .. }
            | Self::NormalizeRows { x, .. }
            | Self::FrozenHeadLogProb { x, .. }
            | Self::LogProbRows { logits: x, .. } => all(&[&x.node]),
            Self::AddRow { x, .. }
            | Self::FrozenMatmul { x, .. }
            | Self::FrozenGroupedMatmul { x, .. }
            | Self::Rope { x, .. }
            | Self::Scale { x, .. }
            | Self::Exp { x, .. }
            | Self::Sigmoid { x, .. }
            | Self::WeightedSum { x, .. }
            | Self::Columns { x, .. }
            | Self::GatherRows { x, .. }
            | Self::Dispatch { x, .. }
            | Self::PickColumns { x, .. }
            | Self::SoftmaxRows { x, .. }
            | Self::Inference { x, .. } => all(&[&x.node]),
            Self::Attention { q, k, v, .. } => all(&[&q.node, &k.node, &v.node]),
            Self::Swiglu { gate: a, up: b }
            | Self::Mul { a, b }
            | Self::Min { a, b }
            | Self::Combine { ys: a, weights: b, .. } => all(&[&a.node, &b.node]),
            Self::AddScaled { a, b, .. } | Self::ConcatColumns { a, b } | Self::AppendShared { x: a, shared: b } => {
                all(&[&a.node, &b.node])
            }
            Self::Recompute(region) => region.inputs.iter().for_each(|x| visit(x.node.as_ref())),
        }
    }

    /// In which precision the operation multiplied.
    fn precision(&self) -> Precision {
        match self {
            Self::Matmul { x, .. } | Self::GroupedMatmul { x, .. } | Self::HeadLogProb { x, .. } => x.precision(),
            Self::FrozenMatmul { w, .. } | Self::FrozenGroupedMatmul { w, .. } | Self::FrozenHeadLogProb { w, .. } => {
                w.precision()
            }
            _ => Precision::F32,
        }
    }
}

type Function = dyn Fn(&[Tensor], Pass<'_>) -> Result<Tensor> + Send + Sync;

/// A recorded region: its inputs and how to compute its output from them.
pub(crate) struct Region {
    pub inputs: Vec<Tensor>,
    pub function: Arc<Function>,
}

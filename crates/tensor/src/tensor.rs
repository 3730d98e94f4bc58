//! What is computed with? Contiguous f32 tensors and lists of u32 indices.

use std::sync::Arc;

use minke_kernels::{Buffer, Cpu, Device};

use crate::op::{Node, Op};
use crate::{Error, Pass, Result, Shape};

/// A contiguous tensor of f32. Clones share the values.
#[derive(Clone)]
pub struct Tensor {
    shape: Shape,
    storage: Arc<Buffer>,
    pub(crate) node: Option<Arc<Node>>,
}

impl Tensor {
    /// Returns a tensor with the given values.
    ///
    /// # Panics
    /// If their number is not that of the shape.
    pub fn from_slice(device: &Device, shape: &[usize], values: &[f32]) -> Self {
        let shape = Shape::new(shape);
        assert_eq!(shape.elements(), values.len(), "{shape} holds another number of values");
        let Device::Cpu(cpu) = device;
        Self::write(cpu, shape, |to| to.copy_from_slice(values))
    }

    /// Returns a tensor of zeros.
    pub fn zeros(device: &Device, shape: &[usize]) -> Self {
        let Device::Cpu(cpu) = device;
        Self::write(cpu, Shape::new(shape), |to| to.fill(0.0))
    }

    /// Returns a tensor whose values `fill` writes, all of them.
    pub(crate) fn write(cpu: &Cpu, shape: Shape, fill: impl FnOnce(&mut [f32])) -> Self {
        let mut buffer = cpu.buffer::<f32>(shape.elements());
        fill(buffer.as_mut_slice());
        Self { shape, storage: Arc::new(buffer), node: None }
    }

    /// Returns the shape.
    pub fn shape(&self) -> Shape {
        self.shape
    }

    /// Returns the values, row-major.
    pub fn values(&self) -> &[f32] {
        self.storage.as_slice()
    }

    /// Returns the only value.
    ///
    /// # Panics
    /// If there is another number of them.
    pub fn item(&self) -> f32 {
        assert_eq!(self.shape.elements(), 1, "{} is not a scalar", self.shape);
        self.values()[0]
    }

    /// Returns the same values under another shape.
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

    /// Returns the same values without their history.
    pub fn detach(&self) -> Self {
        Self { node: None, ..self.clone() }
    }

    /// Returns a start of a tape: gradients of this tensor can be asked of [`backward`](crate::backward).
    pub fn leaf(&self) -> Self {
        Self { node: Some(Node::new(Op::Leaf, self.shape)), ..self.detach() }
    }

    /// Attaches how the tensor was made, if the pass records and an input or a parameter wants to know.
    pub(crate) fn made_by(mut self, pass: Pass<'_>, wanted: bool, op: impl FnOnce() -> Op) -> Self {
        if pass.record && wanted {
            self.node = Some(Node::new(op(), self.shape));
        }
        self
    }

    /// Returns whether gradients flow through this tensor.
    pub(crate) fn recorded(&self) -> bool {
        self.node.is_some()
    }

    /// Returns the values for writing, if nobody else holds them.
    pub(crate) fn values_mut(&mut self) -> Option<&mut [f32]> {
        Arc::get_mut(&mut self.storage).map(Buffer::as_mut_slice)
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
        write!(f, "Tensor {}", self.shape)
    }
}

/// A list of u32 on a device: token ids, positions, choices of experts. Never differentiable. Clones share the values.
#[derive(Clone)]
pub struct Indices(Arc<Buffer>);

impl Indices {
    /// Returns a list with the given values.
    pub fn from_slice(device: &Device, values: &[u32]) -> Self {
        let Device::Cpu(cpu) = device;
        Self::write(cpu, values.len(), |to| to.copy_from_slice(values))
    }

    /// Returns a list whose values `fill` writes, all of them.
    pub(crate) fn write(cpu: &Cpu, len: usize, fill: impl FnOnce(&mut [u32])) -> Self {
        let mut buffer = cpu.buffer::<u32>(len);
        fill(buffer.as_mut_slice());
        Self(Arc::new(buffer))
    }

    /// Returns the values.
    pub fn values(&self) -> &[u32] {
        self.0.as_slice()
    }

    /// Returns their number.
    pub fn len(&self) -> usize {
        self.values().len()
    }

    /// Returns whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

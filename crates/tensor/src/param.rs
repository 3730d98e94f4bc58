//! What is learned? Named tensors of the one table in `minke_spec::params`.

use std::sync::Arc;

use minke_kernels::ops::{adamw, grouped_matmul, matmul, muon};
use minke_kernels::{Cpu, Device};
use minke_spec::Format;

use crate::backward::Gradients;
use crate::shape::Shape;
use crate::stored::{SplitHeads, StoredWeight};
use crate::tensor::{Dense, Param, Result, Tensor, Weight};

impl Param {
    /// Returns a parameter with the given name, row in the table and weight.
    pub fn new(name: &str, id: usize, weight: impl Into<Weight>) -> Self {
        Self { name: name.into(), id, weight: weight.into() }
    }

    /// Returns the published name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the row in the table of parameters; gradients and optimizer state use it too.
    pub fn id(&self) -> usize {
        self.id
    }

    /// Returns the shape.
    pub fn shape(&self) -> Shape {
        self.weight.shape()
    }

    /// Returns the weight.
    pub fn weight(&self) -> &Weight {
        &self.weight
    }

    /// Returns whether the values are held as f32, as training needs them.
    pub fn is_dense(&self) -> bool {
        matches!(self.weight, Weight::Dense(_))
    }

    fn dense(&self) -> &Dense {
        match &self.weight {
            Weight::Dense(dense) => dense,
            other => panic!("invariant: {} was asked for as f32 and stays {}", self.name, other.format().name()),
        }
    }

    /// Returns the values.
    ///
    /// # Panics
    /// If the weight stays as it lies in a file ([`Param::is_dense`]).
    pub fn values(&self) -> &[f32] {
        self.dense().value.values()
    }

    /// Returns the values as a tensor without history.
    ///
    /// # Panics
    /// As [`Param::values`].
    pub fn value(&self) -> &Tensor {
        &self.dense().value
    }

    /// Changes the values in place and forgets what was derived from the old ones.
    ///
    /// # Panics
    /// As [`Param::values`].
    pub fn update(&mut self, device: &Device, change: impl FnOnce(&mut [f32])) {
        change(self.values_mut(device));
    }

    /// Returns the values to be changed; what was derived from the old ones is forgotten.
    fn values_mut(&mut self, device: &Device) -> &mut [f32] {
        let Weight::Dense(dense) = &mut self.weight else { panic!("invariant: what is trained is held as f32") };
        dense.packed = Arc::default();
        if dense.value.values_mut().is_none() {
            // Somebody still reads the old version (a tape, a frozen reference): leave it to them.
            dense.value = Tensor::from_slice(device, dense.value.shape().dims(), dense.value.values());
        }
        dense.value.values_mut().expect("invariant: the copy above is not shared")
    }

    /// Returns the packed values of a matrix `[n, k]` or of stacked experts `[E, n, k]`.
    pub(crate) fn packed(&self, cpu: &Cpu) -> &[f32] {
        self.dense().packed(cpu, &self.name)
    }
}

impl Dense {
    /// Returns the packed values of a matrix `[n, k]` or of stacked experts `[E, n, k]`.
    pub(crate) fn packed(&self, cpu: &Cpu, name: &str) -> &[f32] {
        let pack = || {
            let (values, shape) = (self.value.values(), self.value.shape());
            let (experts, n, k) = match *shape.dims() {
                [n, k] => (None, n, k),
                [experts, n, k] => (Some(experts), n, k),
                _ => panic!("invariant: {name} {shape} is a matrix or a stack of them"),
            };
            let mut packed = cpu.buffer::<f32>(experts.unwrap_or(1) * matmul::packed_len(cpu, n, k));
            match experts {
                None => matmul::pack(cpu, values, n, k, packed.as_mut_slice()),
                Some(experts) => grouped_matmul::pack(cpu, values, experts, n, k, packed.as_mut_slice()),
            }
            packed
        };
        self.packed.get_or_init(pack).as_slice()
    }
}

impl Weight {
    /// Returns the weight whose halves are `keys [H C, N]`, per head the transposed of its rows that make keys, and
    /// `values [H V, C]`.
    ///
    /// # Errors
    /// If they do not belong together.
    pub fn split(keys: StoredWeight, values: StoredWeight, heads: usize) -> Result<Self> {
        Ok(Self::Split(Arc::new(SplitHeads::new(keys, values, heads)?)))
    }

    /// Returns the shape.
    pub fn shape(&self) -> Shape {
        match self {
            Self::Dense(dense) => dense.value.shape(),
            Self::Stored(stored) => stored.shape(),
            Self::Split(split) => split.shape(),
        }
    }

    /// Returns the format in which the weight is held: F32 unless it stays as it lies in a file; of halves, the keys'.
    pub fn format(&self) -> Format {
        match self {
            Self::Dense(_) => Format::F32,
            Self::Stored(stored) => stored.format(),
            Self::Split(split) => split.keys.format(),
        }
    }

    /// Returns the values as f32.
    pub fn decode(&self, device: &Device) -> Tensor {
        let Device::Cpu(cpu) = device;
        match self {
            Self::Dense(dense) => dense.value.clone(),
            Self::Stored(stored) => Tensor::write(cpu, stored.shape(), |out| stored.decode(cpu, out)),
            Self::Split(split) => Tensor::write(cpu, split.shape(), |out| split.decode(cpu, out)),
        }
    }
}

impl From<Tensor> for Weight {
    fn from(value: Tensor) -> Self {
        Self::Dense(Dense { value: value.detach(), packed: Arc::default() })
    }
}

impl From<StoredWeight> for Weight {
    fn from(stored: StoredWeight) -> Self {
        Self::Stored(Arc::new(stored))
    }
}

impl std::fmt::Debug for Param {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {} {}", self.name, self.weight.format().name(), self.shape())
    }
}

/// The updates of an optimizer, as operations on a parameter, its gradient and its state.
pub mod optimize {
    use super::{Device, Gradients, Param, Tensor, adamw, muon};
    pub use minke_kernels::ops::adamw::AdamW;
    pub use minke_kernels::ops::muon::Muon;

    /// Takes one AdamW step with first and second moments `m`, `v`; `step` counts from 1.
    pub fn adamw_step(
        device: &Device,
        param: &mut Param,
        gradient: &Tensor,
        (m, v): (&mut Tensor, &mut Tensor),
        settings: &AdamW,
        step: u64,
    ) {
        let Device::Cpu(cpu) = device;
        let (m, v) = (m.values_mut(), v.values_mut());
        let (m, v) = m.zip(v).expect("invariant: optimizer state is not shared");
        param.update(device, |values| adamw::step(cpu, values, gradient.values(), m, v, settings, step));
    }

    /// Takes one Muon step on parameters that are matrices or stacks of them, each with its gradient and momentum. All of
    /// them are one operation, so that threads share their matrices evenly.
    pub fn muon_step(device: &Device, mut params: Vec<(&mut Param, Tensor, &mut Tensor)>, settings: &Muon) {
        let Device::Cpu(cpu) = device;
        let matrices = params.iter_mut().map(|(param, gradient, momentum)| {
            let shape = param.shape();
            let [.., rows, columns] = *shape.dims() else { panic!("invariant: Muon is for matrices, not {shape}") };
            let momentum = momentum.values_mut().expect("invariant: optimizer state is not shared");
            muon::Matrices { param: param.values_mut(device), grad: gradient.values(), momentum, rows, columns }
        });
        muon::step(cpu, matrices.collect(), settings);
    }

    /// Returns the Euclidean norm of all gradients, summed in the order of the table.
    pub fn gradient_norm(device: &Device, gradients: &Gradients) -> f64 {
        let Device::Cpu(cpu) = device;
        let squares = gradients.iter().map(|(_, g)| minke_kernels::ops::pointwise::sum_squares(cpu, g.values()));
        squares.sum::<f64>().sqrt()
    }
}

//! Parameters: named tensors of the one table in `minke_spec::params`.

use std::sync::Arc;

use minke_kernels::ops::{adamw, grouped_matmul, matmul, muon};
use minke_kernels::{Device, View, ViewMut};
use minke_spec::Format;

use crate::backward::Gradients;
use crate::shape::Shape;
use crate::stored::{SplitHeads, StoredWeight};
use crate::tensor::{Dense, Packed, Param, Result, Tensor, Weight};

impl Param {
    /// A parameter with the given name, row in the table and weight.
    pub fn new(name: &str, id: usize, weight: impl Into<Weight>) -> Self {
        Self { name: name.into(), id, weight: weight.into() }
    }

    /// The published name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The row in the table of parameters; gradients and optimizer state use it too.
    pub fn id(&self) -> usize {
        self.id
    }

    /// The shape.
    pub fn shape(&self) -> Shape {
        self.weight.shape()
    }

    /// The weight.
    pub fn weight(&self) -> &Weight {
        &self.weight
    }

    /// Whether the values are held as f32, as training needs them.
    pub fn is_dense(&self) -> bool {
        matches!(self.weight, Weight::Dense(_))
    }

    fn dense(&self) -> &Dense {
        match &self.weight {
            Weight::Dense(dense) => dense,
            other => panic!("invariant: {} was asked for as f32 and stays {}", self.name, other.format().name()),
        }
    }

    /// The values as an operation reads them.
    pub(crate) fn view(&self, op: &'static str) -> Result<View<'_, f32>> {
        self.dense().value.view(op)
    }

    /// The values as a tensor without history.
    ///
    /// # Panics
    /// If the weight stays as it lies in a file ([`Param::is_dense`]).
    pub fn value(&self) -> &Tensor {
        &self.dense().value
    }

    /// Replaces the values by those of the host and drops what was derived from the old ones.
    ///
    /// # Panics
    /// If the weight stays as it lies in a file ([`Param::is_dense`]), or there is another number of values.
    pub fn write(&mut self, device: &Device, values: &[f32]) {
        self.view_mut(device).write(values);
    }

    /// Reads the values, changes them on the host, and writes them back.
    ///
    /// # Panics
    /// If the weight stays as it lies in a file ([`Param::is_dense`]).
    pub fn update(&mut self, device: &Device, change: impl FnOnce(&mut [f32])) {
        let mut values = self.value().read();
        change(&mut values);
        self.write(device, &values);
    }

    /// The values to be changed; what was derived from the old ones is dropped.
    fn view_mut(&mut self, device: &Device) -> ViewMut<'_, f32> {
        let Weight::Dense(dense) = &mut self.weight else { panic!("invariant: what is trained is held as f32") };
        dense.packed = Arc::default();
        if !dense.value.is_unshared() {
            // A tape or a frozen reference still reads the old version: leave it to them.
            dense.value = dense.value.copy(device);
        }
        dense.value.view_mut()
    }

    /// The packed values of a matrix `[n, k]` or of stacked experts `[E, n, k]`.
    pub(crate) fn packed(&self, device: &Device, op: &'static str) -> Result<View<'_, f32>> {
        self.dense().packed(device, op, &self.name)
    }
}

impl Dense {
    /// The packed values of a matrix `[n, k]` or of stacked experts `[E, n, k]`.
    fn packed(&self, device: &Device, op: &'static str, name: &str) -> Result<View<'_, f32>> {
        let (values, shape) = (self.value.view(op)?, self.value.shape());
        let pack = || {
            let (experts, n, k) = match *shape.dims() {
                [n, k] => (None, n, k),
                [experts, n, k] => (Some(experts), n, k),
                _ => panic!("invariant: {name} {shape} is a matrix or a stack of them"),
            };
            let mut buffer = device.buffer::<f32>(experts.unwrap_or(1) * matmul::packed_len(device, n, k));
            match experts {
                None => matmul::pack(device, values, n, k, buffer.view_mut()),
                Some(experts) => grouped_matmul::pack(device, values, experts, n, k, buffer.view_mut()),
            }
            Packed { buffer, device: device.name() }
        };
        let packed = self.packed.get_or_init(pack);
        assert_eq!(packed.device, device.name(), "{name} was packed for another device");
        Ok(packed.buffer.view())
    }
}

impl Weight {
    /// The weight whose halves are `keys [H C, N]`, per head the transposed of its rows that make keys, and
    /// `values [H V, C]`.
    ///
    /// # Errors
    /// If they do not belong together.
    pub fn split(keys: StoredWeight, values: StoredWeight, heads: usize) -> Result<Self> {
        Ok(Self::Split(Arc::new(SplitHeads::new(keys, values, heads)?)))
    }

    /// The shape.
    pub fn shape(&self) -> Shape {
        match self {
            Self::Dense(dense) => dense.value.shape(),
            Self::Stored(stored) => stored.shape(),
            Self::Split(split) => split.shape(),
        }
    }

    /// The format in which the weight is held; of halves, the keys'.
    pub fn format(&self) -> Format {
        match self {
            Self::Dense(dense) => dense.value.dtype().format(),
            Self::Stored(stored) => stored.format(),
            Self::Split(split) => split.keys.format(),
        }
    }

    /// The values as f32.
    ///
    /// # Errors
    /// If an expert is not in memory.
    pub fn decode(&self, device: &Device) -> Result<Tensor> {
        match self {
            Self::Dense(dense) => Ok(dense.value.clone()),
            Self::Stored(stored) => {
                let mut values = Tensor::unwritten(device, stored.shape());
                stored.decode(device, values.view_mut())?;
                Ok(values)
            }
            Self::Split(split) => Ok(Tensor::write(device, split.shape(), |out| split.decode(device, out))),
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
        let gradient = gradient.view("adamw").expect("invariant: gradients are F32");
        adamw::step(device, param.view_mut(device), gradient, m.view_mut(), v.view_mut(), settings, step);
    }

    /// Takes one Muon step on parameters that are matrices or stacks of them, each with its gradient and momentum. All of
    /// them are one operation, so that threads share their matrices evenly.
    pub fn muon_step(device: &Device, mut params: Vec<(&mut Param, Tensor, &mut Tensor)>, settings: &Muon) {
        let matrices = params.iter_mut().map(|(param, gradient, momentum)| {
            let shape = param.shape();
            let [.., rows, columns] = *shape.dims() else { panic!("invariant: Muon is for matrices, not {shape}") };
            let grad = gradient.view("muon").expect("invariant: gradients are F32");
            muon::Matrices { param: param.view_mut(device), grad, momentum: momentum.view_mut(), rows, columns }
        });
        muon::step(device, matrices.collect(), settings);
    }

    /// The Euclidean norm of all gradients, for the host, summed in the order of the table.
    pub fn gradient_norm(device: &Device, gradients: &Gradients) -> f64 {
        let all = gradients.iter().map(|(_, g)| g.view("gradient_norm").expect("invariant: gradients are F32"));
        minke_kernels::ops::pointwise::sum_squares(device, all).sqrt()
    }
}

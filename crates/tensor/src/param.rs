//! What is learned? Named tensors of the one table in `minke_spec::params`.

use std::sync::Arc;

use minke_kernels::ops::{adamw, grouped_matmul, matmul, muon};
use minke_kernels::{Cpu, Device};

use crate::backward::Gradients;
use crate::shape::Shape;
use crate::tensor::{Param, Tensor};

impl Param {
    /// Returns a parameter with the given name, row in the table and values.
    pub fn new(name: &str, id: usize, value: Tensor) -> Self {
        Self { name: name.into(), id, value: value.detach(), packed: Arc::default() }
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
        self.value.shape()
    }

    /// Returns the values.
    pub fn values(&self) -> &[f32] {
        self.value.values()
    }

    /// Returns the values as a tensor without history.
    pub fn value(&self) -> &Tensor {
        &self.value
    }

    /// Changes the values in place and forgets what was derived from the old ones.
    pub fn update(&mut self, device: &Device, change: impl FnOnce(&mut [f32])) {
        change(self.values_mut(device));
    }

    /// Returns the values to be changed; what was derived from the old ones is forgotten.
    fn values_mut(&mut self, device: &Device) -> &mut [f32] {
        self.packed = Arc::default();
        if self.value.values_mut().is_none() {
            // Somebody still reads the old version (a tape, a frozen reference): leave it to them.
            self.value = Tensor::from_slice(device, self.shape().dims(), self.value.values());
        }
        self.value.values_mut().expect("invariant: the copy above is not shared")
    }

    /// Returns the packed values of a matrix `[n, k]` or of stacked experts `[E, n, k]`.
    pub(crate) fn packed(&self, cpu: &Cpu) -> &[f32] {
        let pack = || {
            let (values, shape) = (self.values(), self.shape());
            let (experts, n, k) = match *shape.dims() {
                [n, k] => (None, n, k),
                [experts, n, k] => (Some(experts), n, k),
                _ => panic!("invariant: {} {shape} is a matrix or a stack of them", self.name),
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

impl std::fmt::Debug for Param {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.name, self.shape())
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

//! Parameters: named tensors of the one table in `minke_spec::params`.

use std::sync::Arc;

use minke_kernels::ops::{bf16_matmul, cast, grouped_matmul, matmul};
use minke_kernels::{Bf16, Device, Dtype, Floats, FloatsMut, Pod, View};
use minke_spec::{Format, Precision};

use crate::shape::Shape;
use crate::stored::{SplitHeads, StoredWeight};
use crate::tensor::{Dense, Packed, Param, Result, Tensor, Weight};

impl Param {
    /// A parameter with the given name, row in the table and weight.
    pub fn new(name: &str, id: usize, weight: impl Into<Weight>) -> Self {
        Self { name: name.into(), id, weight: weight.into(), precision: Precision::F32, frozen: false, adapter: None }
    }

    /// From now on the parameter is not trained: it gets no gradient, and gradients flow through it in any format.
    pub fn freeze(&mut self) {
        self.frozen = true;
    }

    /// Whether the parameter is not trained.
    pub fn is_frozen(&self) -> bool {
        self.frozen
    }

    /// In which precision products with it are; of a weight that stays as it lies in a file, their gradients.
    pub(crate) fn precision(&self) -> Precision {
        match &self.weight {
            Weight::Dense(dense) if dense.value.dtype() == Dtype::Bf16 => Precision::Bf16,
            Weight::Dense(_) => Precision::F32,
            Weight::Stored(_) | Weight::Split(_) => self.precision,
        }
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

    /// Whether the values are held as f32 or bf16, as training needs them.
    pub fn is_dense(&self) -> bool {
        matches!(self.weight, Weight::Dense(_))
    }

    pub(crate) fn dense(&self) -> &Dense {
        match &self.weight {
            Weight::Dense(dense) => dense,
            other => panic!("invariant: {} was asked for as values and stays {}", self.name, other.format().name()),
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
        match self.floats_mut(device) {
            FloatsMut::F32(to) => to.write(values),
            FloatsMut::Bf16(to) => cast::narrow(device, device.upload(values).view(), to),
        }
    }

    /// Holds the values in the precision of a model, rounded if need be. A weight that stays as it lies in a file multiplies as
    /// its format says; under `Bf16` the gradients that flow through it are products of bf16.
    pub fn hold_as(&mut self, device: &Device, precision: Precision) {
        self.precision = precision;
        if let Weight::Dense(dense) = &mut self.weight {
            let value = match (precision, dense.value.dtype()) {
                (Precision::F32, Dtype::F32) | (Precision::Bf16, Dtype::Bf16) => return,
                (Precision::F32, Dtype::Bf16) => dense.value.widened(device),
                (Precision::Bf16, Dtype::F32) => {
                    dense.value.narrowed(device, "hold_as").expect("invariant: the values are F32")
                }
            };
            *dense = Dense { value, packed: Arc::default() };
        }
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
    fn floats_mut(&mut self, device: &Device) -> FloatsMut<'_> {
        let Weight::Dense(dense) = &mut self.weight else { panic!("invariant: what is trained is dense") };
        dense.packed = Arc::default();
        if !dense.value.is_unshared() {
            // A tape or a frozen reference still reads the old version: leave it to them.
            dense.value = dense.value.copy(device);
        }
        dense.value.floats_mut()
    }
}

impl Dense {
    /// The packed values of a matrix `[n, k]` or of stacked experts `[E, n, k]`: f32 or bf16, as the values are.
    pub(crate) fn packed<T: Pod>(&self, device: &Device, name: &str) -> View<'_, T> {
        let shape = self.value.shape();
        let pack = || {
            let (experts, n, k) = match *shape.dims() {
                [n, k] => (None, n, k),
                [experts, n, k] => (Some(experts), n, k),
                _ => panic!("invariant: {name} {shape} is a matrix or a stack of them"),
            };
            let count = experts.unwrap_or(1);
            let buffer = match (self.value.floats(), experts) {
                (Floats::F32(values), experts) => {
                    let mut buffer = device.buffer::<f32>(count * matmul::packed_len(device, n, k));
                    match experts {
                        None => matmul::pack(device, values, n, k, buffer.view_mut()),
                        Some(experts) => grouped_matmul::pack(device, values, experts, n, k, buffer.view_mut()),
                    }
                    buffer
                }
                (Floats::Bf16(values), experts) => {
                    let mut buffer = device.buffer::<Bf16>(count * bf16_matmul::packed_len(device, n, k));
                    match experts {
                        None => bf16_matmul::pack(device, values, n, k, buffer.view_mut()),
                        Some(experts) => bf16_matmul::grouped::pack(device, values, experts, n, k, buffer.view_mut()),
                    }
                    buffer
                }
            };
            Packed { buffer, device: device.name() }
        };
        let packed = self.packed.get_or_init(pack);
        assert_eq!(packed.device, device.name(), "{name} was packed for another device");
        packed.buffer.view()
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
            Self::Dense(dense) => Ok(dense.value.widened(device)),
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
///
/// A parameter that is held as bf16 has a *master*, the f32 values that updates add up: a step moves the master, and the
/// parameter becomes its rounded value.
pub mod optimize {
    use minke_kernels::ops::{adamw, cast, muon};
    use minke_kernels::{Device, FloatsMut, ViewMut};

    use super::Param;
    use crate::tensor::Tensor;
    pub use minke_kernels::ops::adamw::AdamW;
    pub use minke_kernels::ops::muon::Muon;

    /// A parameter with what an update reads and writes beside it.
    pub struct Update<'a> {
        /// The parameter.
        pub param: &'a mut Param,
        /// Its master, if it has one ([`master`]).
        pub master: Option<&'a mut Tensor>,
        /// The gradient of the loss.
        pub gradient: Tensor,
    }

    /// The master with which a parameter starts, if it is held as bf16: the same values as f32.
    pub fn master(device: &Device, param: &Param) -> Option<Tensor> {
        let value = param.value();
        (value.dtype() != minke_kernels::Dtype::F32).then(|| value.widened(device))
    }

    /// The f32 values that an update moves.
    fn moved<'a>(device: &Device, param: &'a mut Param, master: &'a mut Option<&mut Tensor>) -> ViewMut<'a, f32> {
        match (param.floats_mut(device), master) {
            (FloatsMut::F32(values), None) => values,
            (FloatsMut::Bf16(_), Some(master)) => master.view_mut(),
            _ => panic!("invariant: a parameter has a master exactly if it is bf16"),
        }
    }

    /// Rounds the master to the parameter, if there is one.
    fn round(device: &Device, param: &mut Param, master: Option<&mut Tensor>) {
        if let (FloatsMut::Bf16(to), Some(master)) = (param.floats_mut(device), master) {
            cast::narrow(device, master.view("round").expect("invariant: a master is F32"), to);
        }
    }

    /// Takes one AdamW step with first and second moments `m`, `v`; `step` counts from 1.
    pub fn adamw_step(
        device: &Device,
        update: Update<'_>,
        (m, v): (&mut Tensor, &mut Tensor),
        settings: &AdamW,
        step: u64,
    ) {
        let Update { param, mut master, gradient } = update;
        let gradient = gradient.view("adamw").expect("invariant: gradients are F32");
        let values = moved(device, param, &mut master);
        adamw::step(device, values, gradient, m.view_mut(), v.view_mut(), settings, step);
        round(device, param, master);
    }

    /// Takes one Muon step on parameters that are matrices or stacks of them, each with its momentum. All of them are one
    /// operation, so that threads share their matrices evenly.
    pub fn muon_step(device: &Device, mut updates: Vec<(Update<'_>, &mut Tensor)>, settings: &Muon) {
        let matrices = updates.iter_mut().map(|(update, momentum)| {
            let shape = update.param.shape();
            let [.., rows, columns] = *shape.dims() else { panic!("invariant: Muon is for matrices, not {shape}") };
            let grad = update.gradient.view("muon").expect("invariant: gradients are F32");
            let param = moved(device, update.param, &mut update.master);
            muon::Matrices { param, grad, momentum: momentum.view_mut(), rows, columns }
        });
        muon::step(device, matrices.collect(), settings);
        updates.into_iter().for_each(|(update, _)| round(device, update.param, update.master));
    }

    /// The sum of the squares of a gradient, for the host.
    pub fn sum_squares(device: &Device, gradient: &Tensor) -> f64 {
        let gradient = gradient.view("sum_squares").expect("invariant: gradients are F32");
        minke_kernels::ops::pointwise::sum_squares(device, std::iter::once(gradient))
    }
}

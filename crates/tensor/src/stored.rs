//! How are weights held that nobody trains? As they lie in their file, a view per matrix.

use minke_kernels::format::{self, Stored};
use minke_kernels::ops::stored_matmul;
use minke_kernels::{Device, ViewMut};
use minke_spec::Format;
use minke_spec::format::fp8_scale_shape;
use minke_sys::Bytes;

use crate::error::{Error, mismatch};
use crate::shape::Shape;

/// A matrix, or the stacked experts of a layer, in the bytes of a file.
#[derive(Clone, Debug)]
pub struct StoredWeight {
    format: Format,
    shape: Shape,
    /// One view, or one per expert.
    matrices: Vec<StoredMatrix>,
}

/// One matrix in the bytes of a file.
#[derive(Clone, Debug)]
pub struct StoredMatrix {
    /// Its rows.
    pub bytes: Bytes,
    /// Of FP8: the scales of its blocks of 128 x 128; empty for every other format.
    pub scales: Vec<f32>,
}

impl StoredWeight {
    /// Returns a weight of shape `[n, k]` with one matrix, or `[E, n, k]` with E of them.
    ///
    /// # Errors
    /// If a row is not made of whole blocks of the format, or number or lengths of the matrices are not those of the shape.
    pub fn new(format: Format, shape: &[usize], matrices: Vec<StoredMatrix>) -> Result<Self, Error> {
        let &[.., n, k] = shape else { return Err(refuse(format, shape, "is not a matrix")) };
        if k == 0 || !k.is_multiple_of(format.block_elements()) {
            return Err(refuse(format, shape, "has rows that are not whole blocks"));
        }
        let experts: usize = shape[..shape.len() - 2].iter().product();
        let scales = if format == Format::F8E4M3 { fp8_scale_shape(n, k).iter().product() } else { 0 };
        let fits = |matrix: &StoredMatrix| matrix.bytes.len() == n * format.bytes(k) && matrix.scales.len() == scales;
        if shape.len() > 3 || matrices.len() != experts || !matrices.iter().all(fits) {
            return Err(refuse(format, shape, "has another number of bytes"));
        }
        Ok(Self { format, shape: Shape::new(shape), matrices })
    }

    /// Returns the format.
    pub fn format(&self) -> Format {
        self.format
    }

    /// Returns the shape.
    pub fn shape(&self) -> Shape {
        self.shape
    }

    /// Writes the values as f32.
    pub(crate) fn decode(&self, device: &Device, mut out: ViewMut<'_, f32>) {
        let each = self.shape.elements() / self.matrices.len().max(1);
        for expert in 0..self.matrices.len() {
            let out = out.again().part(expert * each..(expert + 1) * each);
            stored_matmul::decode(device, self.matrix(expert), 0, out);
        }
    }

    /// Copies the values of rows `first..` of the first matrix to the host, as many as `out` holds.
    ///
    /// # Panics
    /// If the matrix has fewer.
    pub fn decode_rows(&self, device: &Device, first: usize, out: &mut [f32]) {
        let mut rows = device.buffer::<f32>(out.len());
        stored_matmul::decode(device, self.matrix(0), first, rows.view_mut());
        rows.view().read_into(out);
    }

    /// Returns the bytes of the first matrix, row by row.
    pub fn bytes(&self) -> &[u8] {
        &self.matrices[0].bytes
    }

    /// Returns the matrix, or that of an expert.
    pub(crate) fn matrix(&self, expert: usize) -> Stored<'_> {
        let dims = self.shape.dims();
        let (n, k) = (dims[dims.len() - 2], dims[dims.len() - 1]);
        let StoredMatrix { bytes, scales } = &self.matrices[expert];
        Stored::new(self.format, bytes, scales, n, k)
    }
}

/// Returns whether [`quantize`] writes a format.
pub fn can_quantize(format: Format) -> bool {
    format::can_quantize(format)
}

/// Writes rows of values in a format, with the least error: of the squares, weighted by column if `weights` is not empty.
///
/// # Shapes
/// x [rows, k], weights `[k]` or empty, out: the bytes of x in the format
///
/// # Panics
/// If the format cannot be written or a length does not fit.
pub fn quantize(device: &Device, format: Format, x: &[f32], k: usize, weights: &[f32], out: &mut [u8]) {
    format::quantize(device, format, x, k, weights, out);
}

/// MLA's `kv_b_proj [H (N + V), C]` in two halves, by head: what makes keys, transposed, and what makes values.
#[derive(Clone, Debug)]
pub struct SplitHeads {
    /// [H C, N]
    pub(crate) keys: StoredWeight,
    /// [H V, C]
    pub(crate) values: StoredWeight,
    pub(crate) heads: usize,
}

impl SplitHeads {
    /// Returns the two halves.
    ///
    /// # Errors
    /// If they do not belong together.
    pub(crate) fn new(keys: StoredWeight, values: StoredWeight, heads: usize) -> Result<Self, Error> {
        let (k, v) = (keys.shape(), values.shape());
        match (k.dims(), v.dims()) {
            (&[rows, _], &[value_rows, latent])
                if heads > 0 && rows == heads * latent && value_rows.is_multiple_of(heads) =>
            {
                Ok(Self { keys, values, heads })
            }
            _ => Err(mismatch("split", ("keys", &k), ("values", &v))),
        }
    }

    /// Writes the values of the whole as f32.
    pub(crate) fn decode(&self, device: &Device, out: ViewMut<'_, f32>) {
        stored_matmul::decode_split(device, self.keys.matrix(0), self.values.matrix(0), self.heads, out);
    }

    /// Returns the shape of the whole.
    pub(crate) fn shape(&self) -> Shape {
        let ([_, n], [rows, latent]) = (self.keys.matrix(0).shape(), self.values.matrix(0).shape());
        Shape::new(&[self.heads * n + rows, latent])
    }
}

fn refuse(format: Format, shape: &[usize], reason: &str) -> Error {
    Error::Shape { op: "stored", left: format!("{} {shape:?}", format.name()), right: reason.into() }
}

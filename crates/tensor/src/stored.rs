//! Stored weights, which are not trained: as they lie in their file, a view per matrix, or with their rows interleaved.

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
    /// So many rows of a matrix are interleaved; 0 if they lie as in a file.
    lanes: usize,
    shape: Shape,
    /// One view, or one per expert; none of an expert that is not in memory.
    matrices: Vec<Option<StoredMatrix>>,
}

/// One matrix, in the bytes of a file or with its rows interleaved.
#[derive(Clone, Debug)]
pub struct StoredMatrix {
    /// Its rows.
    pub bytes: Bytes,
    /// Of FP8: the scales of its blocks of 128 x 128; empty for every other format.
    pub scales: Vec<f32>,
}

impl StoredWeight {
    /// A weight of shape `[n, k]` with one matrix, or `[E, n, k]` with E of them.
    ///
    /// # Errors
    /// If a row is not made of whole blocks of the format, or number or lengths of the matrices are not those of the shape.
    pub fn new(format: Format, shape: &[usize], matrices: Vec<StoredMatrix>) -> Result<Self, Error> {
        Self::checked(format, shape, matrices.into_iter().map(Some).collect())
    }

    /// Stacked experts `[E, n, k]`, of which some are not in memory: a pass that needs one of those fetches it from its
    /// [`ExpertSource`](crate::ExpertSource).
    ///
    /// # Errors
    /// As [`StoredWeight::new`], and if the shape is not that of experts.
    pub fn experts(format: Format, shape: &[usize], matrices: Vec<Option<StoredMatrix>>) -> Result<Self, Error> {
        if shape.len() != 3 {
            return Err(refuse(format, shape, "is not made of experts"));
        }
        Self::checked(format, shape, matrices)
    }

    fn checked(format: Format, shape: &[usize], matrices: Vec<Option<StoredMatrix>>) -> Result<Self, Error> {
        let &[.., n, k] = shape else { return Err(refuse(format, shape, "is not a matrix")) };
        if k == 0 || !k.is_multiple_of(format.block_elements()) {
            return Err(refuse(format, shape, "has rows that are not whole blocks"));
        }
        let experts: usize = shape[..shape.len() - 2].iter().product();
        let fits = |matrix: &StoredMatrix| matrix.fits(format, 0, n, k);
        if shape.len() > 3 || matrices.len() != experts || !matrices.iter().flatten().all(fits) {
            return Err(refuse(format, shape, "has another number of bytes"));
        }
        Ok(Self { format, lanes: 0, shape: Shape::new(shape), matrices })
    }

    /// The same weight with the rows of its matrices interleaved, in memory of its own, for products in less time; as it is if
    /// the format or the device has no such layout, or an expert is not in memory. The bytes that were read are given back to the
    /// system where they are those of a file.
    ///
    /// # Numerics
    /// Every product has the bits that it had.
    #[must_use]
    pub fn interleaved(&self, device: &Device) -> Self {
        let made = || {
            let each = self.interleaved_len(device)?;
            let mut bytes = vec![0; each.checked_mul(self.matrices.len())?];
            for (matrix, out) in bytes.chunks_exact_mut(each.max(1)).enumerate() {
                self.interleave(device, matrix, out);
            }
            self.with_interleaved(device, &Bytes::from(bytes))
        };
        made().unwrap_or_else(|| self.clone())
    }

    /// Bytes of each matrix with its rows interleaved; none if the format or the device has no such layout, or an expert is not
    /// in memory.
    pub fn interleaved_len(&self, device: &Device) -> Option<usize> {
        let lanes = stored_matmul::interleaved_lanes(device, self.format).filter(|_| self.is_whole())?;
        let [.., n, k] = *self.shape.dims() else { return None };
        Stored::interleaved_len(self.format, lanes, n, k)
    }

    /// Writes the bytes of a matrix with its rows interleaved, and gives those that were read back to the system.
    ///
    /// # Panics
    /// If there is no such layout, or `out` has another number of bytes than [`StoredWeight::interleaved_len`].
    pub fn interleave(&self, device: &Device, matrix: usize, out: &mut [u8]) {
        let matrix = self.matrices[matrix].as_ref().expect("invariant: only a whole weight has the layout");
        stored_matmul::interleave(device, self.stored(matrix), out);
        matrix.bytes.forget_pages();
    }

    /// The same weight, of the bytes of all its matrices as [`StoredWeight::interleave`] writes them; none if they are too few or
    /// too many.
    pub fn with_interleaved(&self, device: &Device, bytes: &Bytes) -> Option<Self> {
        let each = self.interleaved_len(device)?;
        let lanes = stored_matmul::interleaved_lanes(device, self.format)?;
        let count = self.matrices.len();
        let matrix =
            |i: usize| Some(StoredMatrix { bytes: bytes.slice(i * each..(i + 1) * each)?, scales: Vec::new() });
        let matrices = (0..count).map(matrix).collect();
        (each.checked_mul(count)? == bytes.len()).then_some(Self {
            format: self.format,
            lanes,
            shape: self.shape,
            matrices,
        })
    }

    /// How many matrices there are.
    pub fn matrices(&self) -> usize {
        self.matrices.len()
    }

    /// About how many bytes so many of a format become where rows are interleaved; none if it has no such layout.
    pub fn interleaved_bytes(format: Format, bytes: u64) -> Option<u64> {
        let len = Stored::interleaved_len(format, 8, 8, 256)? as u64;
        Some((u128::from(bytes) * u128::from(len) / (8 * format.bytes(256)) as u128) as u64)
    }

    /// The format.
    pub fn format(&self) -> Format {
        self.format
    }

    /// The shape.
    pub fn shape(&self) -> Shape {
        self.shape
    }

    /// Writes the values as f32.
    ///
    /// # Errors
    /// If an expert is not in memory.
    pub(crate) fn decode(&self, device: &Device, mut out: ViewMut<'_, f32>) -> Result<(), Error> {
        let each = self.shape.elements() / self.matrices.len().max(1);
        for (expert, matrix) in self.matrices.iter().enumerate() {
            let name = || format!("{} {}", self.format.name(), self.shape);
            let absent = || Error::ExpertAbsent { name: name(), expert: expert as u32 };
            let out = out.again().part(expert * each..(expert + 1) * each);
            stored_matmul::decode(device, self.stored(matrix.as_ref().ok_or_else(absent)?), 0, out);
        }
        Ok(())
    }

    /// Copies the values of rows `first..` of the first matrix to the host, as many as `out` holds.
    ///
    /// # Panics
    /// If the matrix has fewer.
    pub fn decode_rows(&self, device: &Device, first: usize, out: &mut [f32]) {
        let mut rows = device.buffer::<f32>(out.len());
        stored_matmul::decode(device, self.matrix(), first, rows.view_mut());
        rows.view().read_into(out);
    }

    /// The bytes of the matrix, row by row.
    ///
    /// # Panics
    /// If these are experts of which the first is not in memory, or rows are interleaved.
    pub fn bytes(&self) -> &[u8] {
        assert_eq!(self.lanes, 0, "interleaved rows are not those of a file");
        &self.only().bytes
    }

    /// The matrix.
    pub(crate) fn matrix(&self) -> Stored<'_> {
        self.stored(self.only())
    }

    fn only(&self) -> &StoredMatrix {
        self.matrices[0].as_ref().expect("invariant: only an expert can be absent")
    }

    /// The matrix of an expert, if it is in memory.
    pub(crate) fn expert(&self, expert: usize) -> Option<&StoredMatrix> {
        self.matrices[expert].as_ref()
    }

    /// Whether all matrices are in memory.
    pub(crate) fn is_whole(&self) -> bool {
        self.matrices.iter().all(Option::is_some)
    }

    /// Whether a matrix has the size of those of this weight.
    pub(crate) fn fits(&self, matrix: &StoredMatrix) -> bool {
        let [.., n, k] = *self.shape.dims() else { unreachable!("a weight has matrices") };
        matrix.fits(self.format, self.lanes, n, k)
    }

    /// A matrix of this weight as kernels read it.
    pub(crate) fn stored<'a>(&self, matrix: &'a StoredMatrix) -> Stored<'a> {
        let [.., n, k] = *self.shape.dims() else { unreachable!("a weight has matrices") };
        match self.lanes {
            0 => Stored::new(self.format, &matrix.bytes, &matrix.scales, n, k),
            lanes => Stored::interleaved(self.format, lanes, &matrix.bytes, n, k),
        }
    }
}

impl StoredMatrix {
    fn fits(&self, format: Format, lanes: usize, n: usize, k: usize) -> bool {
        if lanes > 0 {
            return Some(self.bytes.len()) == Stored::interleaved_len(format, lanes, n, k);
        }
        let scales = if format == Format::F8E4M3 { fp8_scale_shape(n, k).iter().product() } else { 0 };
        self.bytes.len() == n * format.bytes(k) && self.scales.len() == scales
    }
}

/// Whether [`quantize`] writes a format.
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
    /// The two halves.
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
        stored_matmul::decode_split(device, self.keys.matrix(), self.values.matrix(), self.heads, out);
    }

    /// The shape of the whole.
    pub(crate) fn shape(&self) -> Shape {
        let ([_, n], [rows, latent]) = (self.keys.matrix().shape(), self.values.matrix().shape());
        Shape::new(&[self.heads * n + rows, latent])
    }
}

fn refuse(format: Format, shape: &[usize], reason: &str) -> Error {
    Error::Shape { op: "stored", left: format!("{} {shape:?}", format.name()), right: reason.into() }
}

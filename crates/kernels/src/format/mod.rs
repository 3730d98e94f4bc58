//! How are numbers stored in fewer bits than they are computed in? One file per format.
//!
//! A matrix stays as it lies in its file ([`Stored`]). Formats of floats decode to f32; formats of codes *expand*,
//! without loss, to bytes with a scale, and a shift, per 16 or 32 elements:
//!
//! ```text
//! value = scale * (code - zero) + shift
//! ```
//!
//! That is all that a product needs to know about them (`ops::stored_matmul`), and all that decoding needs: a new
//! format is a file with its layout, a row in `minke_spec::Format` and an arm of `coded!`.

use minke_spec::Format;
use minke_spec::format::{FP8_BLOCK, fp8_scale_shape};

use crate::simd::simd_fn;

pub mod bf16;
pub mod f16;
pub mod fp8;
mod q2_k;
mod q3_k;
mod q4_0;
mod q4_1;
mod q4_k;
mod q5_0;
mod q5_1;
mod q5_k;
mod q6_k;
mod q8_0;

/// A format of codes.
pub(crate) trait Coded {
    /// Its name and geometry.
    const FORMAT: Format;
    /// Elements that share a scale.
    const SUB: usize;
    /// The code that stands for zero.
    const ZERO: i32;
    /// Whether a shift is added.
    const SHIFTED: bool;

    /// Expands a block: a code per element, a scale and, if `SHIFTED`, a shift per sub-block.
    fn expand(block: &[u8], codes: &mut [u8], scales: &mut [f32], shifts: &mut [f32]);
}

/// Runs a block of code with `$F` as the type of a format of codes, and another for formats of floats.
macro_rules! coded {
    ($format:expr, $F:ident => $coded:expr, $float:pat => $other:expr $(,)?) => {
        $crate::format::coded!(
            @each [Q4_0 Q4_1 Q5_0 Q5_1 Q8_0 Q2K Q3K Q4K Q5K Q6K] $format, $F => $coded, $float => $other
        )
    };
    (@each [$($name:ident)*] $format:expr, $F:ident => $coded:expr, $float:pat => $other:expr) => {
        match $format {
            $(minke_spec::Format::$name => {
                type $F = $crate::format::$name;
                $coded
            })*
            $float => $other,
        }
    };
}
pub(crate) use coded;
pub(crate) use q2_k::Q2K;
pub(crate) use q3_k::Q3K;
pub(crate) use q4_0::Q4_0;
pub(crate) use q4_1::Q4_1;
pub(crate) use q4_k::Q4K;
pub(crate) use q5_0::Q5_0;
pub(crate) use q5_1::Q5_1;
pub(crate) use q5_k::Q5K;
pub(crate) use q6_k::Q6K;
pub(crate) use q8_0::Q8_0;

/// A matrix as it lies in a file: rows one after the other, each of whole blocks.
#[derive(Clone, Copy, Debug)]
pub struct Stored<'a> {
    format: Format,
    bytes: &'a [u8],
    scales: &'a [f32],
    n: usize,
    k: usize,
}

impl<'a> Stored<'a> {
    /// Returns the matrix `[n, k]` in `bytes`; `scales` are the block scales of FP8 (`[ceil(n / 128), ceil(k / 128)]`),
    /// empty for every other format.
    ///
    /// # Panics
    /// If the lengths are not those of the shape, or a row is not made of whole blocks.
    pub fn new(format: Format, bytes: &'a [u8], scales: &'a [f32], n: usize, k: usize) -> Self {
        assert!(k > 0 && k.is_multiple_of(format.block_elements()), "{} rows of {k}", format.name());
        assert_eq!(bytes.len(), n * format.bytes(k), "{} [{n}, {k}]", format.name());
        let of_blocks = if format == Format::F8E4M3 { fp8_scale_shape(n, k).iter().product() } else { 0 };
        assert_eq!(scales.len(), of_blocks, "block scales of {} [{n}, {k}]", format.name());
        Self { format, bytes, scales, n, k }
    }

    /// Returns the format.
    pub fn format(&self) -> Format {
        self.format
    }

    /// Returns rows and columns.
    pub fn shape(&self) -> [usize; 2] {
        [self.n, self.k]
    }

    /// Returns the bytes of a row.
    #[inline(always)]
    pub(crate) fn row_bytes(&self) -> usize {
        self.format.bytes(self.k)
    }

    /// Returns the bytes of the blocks that hold columns `from..to` of a row.
    #[inline(always)]
    pub(crate) fn part(&self, row: usize, from: usize, to: usize) -> &'a [u8] {
        let start = row * self.row_bytes();
        &self.bytes[start + self.format.bytes(from)..start + self.format.bytes(to)]
    }

    /// Writes columns `from..from + out.len()` of a row as f32; both ends lie between blocks.
    #[inline(always)]
    pub(crate) fn decode_part(&self, row: usize, from: usize, out: &mut [f32]) {
        coded!(self.format,
            F => decode_coded::<F>(self.part(row, from, from + out.len()), out),
            Format::F32 | Format::F16 | Format::Bf16 | Format::F8E4M3 => self.decode_floats(row, from, out),
        );
    }

    /// Does what [`decode_part`](Self::decode_part) does, for a format of floats.
    #[inline(always)]
    pub(crate) fn decode_floats(&self, row: usize, from: usize, out: &mut [f32]) {
        let bytes = self.part(row, from, from + out.len());
        match self.format {
            Format::F32 => {
                for (bytes, out) in bytes.as_chunks().0.iter().zip(out) {
                    *out = f32::from_le_bytes(*bytes);
                }
            }
            Format::F16 => {
                for (bytes, out) in bytes.as_chunks().0.iter().zip(out) {
                    *out = f16::decode(u16::from_le_bytes(*bytes));
                }
            }
            Format::Bf16 => {
                for (bytes, out) in bytes.as_chunks().0.iter().zip(out) {
                    *out = bf16::decode(u16::from_le_bytes(*bytes));
                }
            }
            _ => {
                debug_assert!(self.format == Format::F8E4M3 && from.is_multiple_of(FP8_BLOCK));
                let first = row / FP8_BLOCK * self.k.div_ceil(FP8_BLOCK) + from / FP8_BLOCK;
                fp8::decode_row(bytes, &self.scales[first..], out);
            }
        }
    }
}

/// Writes the values of whole blocks of a format of codes.
#[inline(always)]
fn decode_coded<F: Coded>(bytes: &[u8], out: &mut [f32]) {
    let (elements, subs) = (F::FORMAT.block_elements(), F::FORMAT.block_elements() / F::SUB);
    let (mut codes, mut scales, mut shifts) = ([0; 256], [0.0; 16], [0.0; 16]);
    for (block, out) in bytes.chunks_exact(F::FORMAT.block_bytes()).zip(out.chunks_exact_mut(elements)) {
        F::expand(block, &mut codes[..elements], &mut scales[..subs], &mut shifts[..subs]);
        for (s, out) in out.chunks_exact_mut(F::SUB).enumerate() {
            for (out, code) in out.iter_mut().zip(&codes[s * F::SUB..]) {
                let value = scales[s] * (i32::from(*code) - F::ZERO) as f32;
                *out = if F::SHIFTED { value + shifts[s] } else { value };
            }
        }
    }
}

simd_fn! {
    /// Writes rows `first..` of a stored matrix as f32, as many as `out` holds.
    ///
    /// # Shapes
    /// w [n, k], out [rows, k]
    pub fn decode_rows<S>(_s: S, w: Stored<'_>, first: usize, out: &mut [f32]) {
        for (i, out) in out.chunks_exact_mut(w.k.max(1)).enumerate() {
            w.decode_part(first + i, 0, out);
        }
    }
}

/// Writes `code = f(byte, code)` for N bytes and codes. Over copies: loops over parts of larger slices are not vectorized.
#[inline(always)]
fn each<const N: usize>(bytes: &[u8], codes: &mut [u8], f: impl Fn(u8, u8) -> u8) {
    let (mut from, mut to) = ([0; N], [0; N]);
    from.copy_from_slice(&bytes[..N]);
    to.copy_from_slice(&codes[..N]);
    for i in 0..N {
        to[i] = f(from[i], to[i]);
    }
    codes[..N].copy_from_slice(&to);
}

/// Writes `factor * byte` for N bytes, over copies as [`each`].
#[inline(always)]
fn scaled<const N: usize>(factor: f32, bytes: [u8; N], out: &mut [f32]) {
    let mut values = [0.0; N];
    for i in 0..N {
        values[i] = factor * f32::from(bytes[i]);
    }
    out[..N].copy_from_slice(&values);
}

/// Writes 32 codes of 4 bits: the low halves of 16 bytes, then the high ones.
#[inline(always)]
fn nibbles(packed: &[u8], codes: &mut [u8]) {
    let (low, high) = codes.split_at_mut(16);
    each::<16>(packed, low, |byte, _| byte & 15);
    each::<16>(packed, high, |byte, _| byte >> 4);
}

//! Formats that store numbers in fewer bits than they are computed in, one file each.
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

use std::ops::Range;

use minke_spec::Format;
use minke_spec::format::{FP8_BLOCK, fp8_scale_shape};

use self::panel::{BlockFactors, Factors};
use crate::isa::Isa;
use crate::simd::{Simd, simd_fn};

pub mod bf16;
pub mod f16;
mod fit;
pub mod fp8;
mod grid;
mod halves;
mod iq1_m;
mod iq1_s;
mod iq2_s;
mod iq2_xs;
mod iq2_xxs;
mod iq3_s;
mod iq3_xxs;
mod iq4_nl;
mod iq4_xs;
pub(crate) mod panel;
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
mod quantize;

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
    /// Bits of a code.
    const BITS: usize;
    /// The codes that those of 4 bits stand for, if they are not evenly spaced.
    const VALUES: Option<[u8; 16]> = None;
    /// How scales lie in rows that are interleaved; none if the format has no such layout.
    const FACTORS: Option<Factors> = None;

    /// Expands a block: a code per element, not yet replaced by `VALUES`, a scale and, if `SHIFTED`, a shift per sub-block.
    fn expand<S: Simd>(s: S, block: &[u8], codes: &mut [u8], scales: &mut [f32], shifts: &mut [f32]);

    /// The scales of a block as they are stored, if `FACTORS` says how they lie in rows that are interleaved.
    fn factors(_block: &[u8]) -> BlockFactors {
        BlockFactors::default()
    }
}

/// A format of codes that can also be made.
trait Quantized: Coded {
    /// Writes the block that stands for these values with the least loss, the sum of `w (x - value)^2`.
    fn quantize(isa: Isa, x: &[f32], w: &[f32], block: &mut [u8]);
}

/// Runs a block of code with `$F` as the type of a format of codes, and another for formats of floats.
macro_rules! coded {
    ($format:expr, $F:ident => $coded:expr, $float:pat => $other:expr $(,)?) => {
        $crate::format::coded!(
            @each [
                Q4_0 Q4_1 Q5_0 Q5_1 Q8_0 Q2K Q3K Q4K Q5K Q6K
                Iq1S Iq1M Iq2Xxs Iq2Xs Iq2S Iq3Xxs Iq3S Iq4Nl Iq4Xs
            ] $format, $F => $coded, $float => $other
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
use coded;
pub(crate) use iq1_m::Iq1M;
pub(crate) use iq1_s::Iq1S;
pub(crate) use iq2_s::Iq2S;
pub(crate) use iq2_xs::Iq2Xs;
pub(crate) use iq2_xxs::Iq2Xxs;
pub(crate) use iq3_s::Iq3S;
pub(crate) use iq3_xxs::Iq3Xxs;
pub(crate) use iq4_nl::Iq4Nl;
pub(crate) use iq4_xs::Iq4Xs;
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
pub use quantize::{can_quantize, quantize};

/// A matrix as it lies in a file, rows one after the other, each of whole blocks; or with its rows interleaved.
#[derive(Clone, Copy, Debug)]
pub struct Stored<'a> {
    format: Format,
    /// So many rows are interleaved; 0 if none are.
    lanes: usize,
    bytes: &'a [u8],
    scales: &'a [f32],
    n: usize,
    k: usize,
}

impl<'a> Stored<'a> {
    /// The matrix `[n, k]` in `bytes`; `scales` are the block scales of FP8 (`[ceil(n / 128), ceil(k / 128)]`),
    /// empty for every other format.
    ///
    /// # Panics
    /// If the lengths are not those of the shape, or a row is not made of whole blocks.
    pub fn new(format: Format, bytes: &'a [u8], scales: &'a [f32], n: usize, k: usize) -> Self {
        assert!(k > 0 && k.is_multiple_of(format.block_elements()), "{} rows of {k}", format.name());
        assert_eq!(bytes.len(), n * format.bytes(k), "{} [{n}, {k}]", format.name());
        let of_blocks = if format == Format::F8E4M3 { fp8_scale_shape(n, k).iter().product() } else { 0 };
        assert_eq!(scales.len(), of_blocks, "block scales of {} [{n}, {k}]", format.name());
        Self { format, lanes: 0, bytes, scales, n, k }
    }

    /// The matrix `[n, k]` with its rows interleaved for registers of so many lanes, as `ops::stored_matmul::interleave` makes it.
    ///
    /// # Panics
    /// If the format has no such layout, or the length is another.
    pub fn interleaved(format: Format, lanes: usize, bytes: &'a [u8], n: usize, k: usize) -> Self {
        assert!(k > 0 && k.is_multiple_of(format.block_elements()), "{} rows of {k}", format.name());
        assert_eq!(Some(bytes.len()), Self::interleaved_len(format, lanes, n, k), "{} [{n}, {k}]", format.name());
        Self { format, lanes, bytes, scales: &[], n, k }
    }

    /// The format.
    pub fn format(&self) -> Format {
        self.format
    }

    /// Rows and columns.
    pub fn shape(&self) -> [usize; 2] {
        [self.n, self.k]
    }

    /// So many rows are interleaved; 0 if none are.
    #[inline(always)]
    pub(crate) fn lanes(&self) -> usize {
        self.lanes
    }

    /// The bytes of a row.
    #[inline(always)]
    pub(crate) fn row_bytes(&self) -> usize {
        self.format.bytes(self.k)
    }

    /// The bytes of the blocks that hold columns `from..to` of a row.
    #[inline(always)]
    pub(crate) fn part(&self, row: usize, from: usize, to: usize) -> &'a [u8] {
        debug_assert_eq!(self.lanes, 0);
        let start = row * self.row_bytes();
        &self.bytes[start + self.format.bytes(from)..start + self.format.bytes(to)]
    }

    /// Writes columns `from..from + out.len()` of a row of floats as f32; both ends lie between blocks.
    #[inline(always)]
    pub(crate) fn decode_floats(&self, row: usize, from: usize, out: &mut [f32]) {
        debug_assert_eq!(self.lanes, 0);
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
                    *out = bf16::Bf16(u16::from_le_bytes(*bytes)).to_f32();
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

/// Writes codes, scales and shifts of columns `from..to`, at most 256, of some rows: 256 codes, 16 scales and shifts per row.
type Expand = fn(Isa, Stored<'_>, Range<usize>, (usize, usize), &mut [u8], &mut [f32], &mut [f32]);

/// A format of codes, as products and decoding use it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Coding {
    /// Elements per scale.
    pub sub: usize,
    /// The code that stands for zero; none if shifts are added instead.
    pub zero: Option<u8>,
    /// Bits of a code.
    pub bits: usize,
    /// What the codes stand for, if they are not evenly spaced.
    pub values: Option<[u8; 16]>,
    /// Expands rows that are not interleaved.
    expand: Expand,
    /// How scales lie in rows that are interleaved, and the scales of a block; bytes of a block.
    factors: Option<Factors>,
    block_factors: fn(&[u8]) -> BlockFactors,
    block_bytes: usize,
}

impl Coding {
    /// The coding of a format of codes; none for floats.
    pub fn of(format: Format) -> Option<Self> {
        coded!(format, F => {
            let zero = if F::SHIFTED { None } else { Some(F::ZERO as u8) };
            Some(Self {
                sub: F::SUB,
                zero,
                bits: F::BITS,
                values: F::VALUES,
                expand: expand_rows::<F>,
                factors: F::FACTORS,
                block_factors: F::factors,
                block_bytes: F::FORMAT.block_bytes(),
            })
        }, _ => None)
    }
}

/// Writes rows `first..` of a stored matrix as f32, as many as `out` holds.
///
/// # Shapes
/// w [n, k], out [rows, k]
pub fn decode_rows(isa: Isa, w: Stored<'_>, first: usize, out: &mut [f32]) {
    let Some(coding) = Coding::of(w.format) else {
        return if w.lanes > 0 {
            halves::decode_interleaved(isa, w, first, out)
        } else {
            decode_float_rows(isa, w, first, out)
        };
    };
    if w.lanes > 0 {
        return panel::decode_interleaved(isa, &coding, w, first, out);
    }
    let (mut codes, mut scales, mut shifts) = ([0; 256], [0.0; 16], [0.0; 16]);
    for (i, out) in out.chunks_exact_mut(w.k).enumerate() {
        for (part, out) in out.chunks_mut(256).enumerate() {
            let columns = (256 * part, 256 * part + out.len());
            (coding.expand)(isa, w, first + i..first + i + 1, columns, &mut codes, &mut scales, &mut shifts);
            write_values(isa, &coding, &codes, &scales, &shifts, out);
        }
    }
}

simd_fn! {
    /// Expands rows; prefetches what will probably be read next.
    fn expand_rows<S, F: Coded>(
        s: S, w: Stored<'_>, rows: Range<usize>, columns: (usize, usize),
        codes: &mut [u8], scales: &mut [f32], shifts: &mut [f32],
    ) {
        // Of the type, not of `w`: constants when this is compiled.
        let (elements, block) = const { (F::FORMAT.block_elements(), F::FORMAT.block_bytes()) };
        let row_bytes = w.k / elements * block;
        let parts = codes.as_chunks_mut::<256>().0.iter_mut().zip(scales.as_chunks_mut::<16>().0).zip(shifts.as_chunks_mut::<16>().0);
        for (row, ((codes, scales), shifts)) in rows.zip(parts) {
            let bytes = &w.bytes[row * row_bytes + columns.0 / elements * block..row * row_bytes + columns.1 / elements * block];
            // The columns to come, or the first ones of the next rows if these were the last.
            let ahead = if columns.1 < w.k { bytes.len() } else { (S::LANES - 1) * row_bytes + bytes.len() };
            // One more line than they fill: they need not begin with one.
            for line in (0..256 / elements * block + 63).step_by(64) {
                s.prefetch(bytes.as_ptr().wrapping_add(ahead + line));
            }
            let codes = codes.chunks_exact_mut(elements);
            let scales = scales.chunks_exact_mut(elements / F::SUB);
            let shifts = shifts.chunks_exact_mut(elements / F::SUB);
            for (((block, codes), scales), shifts) in bytes.chunks_exact(block).zip(codes).zip(scales).zip(shifts) {
                F::expand(s, block, codes, scales, shifts);
            }
        }
    }

    /// Writes what expanded codes stand for.
    fn write_values<S>(_s: S, coding: &Coding, codes: &[u8], scales: &[f32], shifts: &[f32], out: &mut [f32]) {
        for (s, out) in out.chunks_exact_mut(coding.sub).enumerate() {
            let codes = &codes[s * coding.sub..][..out.len()];
            match (coding.zero, coding.values) {
                (None, _) => out.iter_mut().zip(codes).for_each(|(y, c)| *y = scales[s] * f32::from(*c) + shifts[s]),
                (Some(zero), None) => {
                    out.iter_mut().zip(codes).for_each(|(y, c)| *y = scales[s] * (i32::from(*c) - i32::from(zero)) as f32);
                }
                (Some(zero), Some(values)) => out.iter_mut().zip(codes).for_each(|(y, c)| {
                    *y = scales[s] * (i32::from(values[usize::from(*c & 15)]) - i32::from(zero)) as f32;
                }),
            }
        }
    }

    fn decode_float_rows<S>(_s: S, w: Stored<'_>, first: usize, out: &mut [f32]) {
        for (i, out) in out.chunks_exact_mut(w.k).enumerate() {
            w.decode_floats(first + i, 0, out);
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

/// Two bytes of a block, as a half is read.
fn u16_at(block: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([block[at], block[at + 1]])
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

/// Packs 32 codes of 4 bits, as [`nibbles`] reads them.
fn pack_nibbles(codes: &[u8; 32], packed: &mut [u8]) {
    for (i, byte) in packed.iter_mut().enumerate() {
        *byte = codes[i] & 15 | codes[16 + i] << 4;
    }
}

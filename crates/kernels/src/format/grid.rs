//! What is a grid? The formats IQ1 to IQ3 store 8 or 4 elements as one number: which entry of a published list they are.
//!
//! The lists are in `grids/`, as the `gguf` package has them: in hexadecimal the levels of all elements of all entries, two
//! bits each (four for IQ3), low bits of a byte first. Made, for `IQ2_XXS` as for each, by
//!
//! ```text
//! python3 -c 'from gguf.quants import *; print(IQ2_XXS.grid_hex.decode())' | fold -w 96 > grids/iq2_xxs.hex
//! ```
//!
//! Signs are stored apart, a bit each; some formats store seven for eight elements, the last one making their number even.
//! Eight codes are made at once in a word of 64 bits. Wider registers would gain nothing, so these formats expand in one
//! function for all instruction sets.

/// The code that stands for zero in every format with a grid: magnitudes, at most 62, fit on either side below 128.
pub(super) const ZERO: u8 = 64;

/// Returns N entries of W codes each, from the digits of a list and what its levels stand for.
pub(super) const fn grid<const N: usize, const W: usize>(hex: &[u8], levels: &[i8]) -> [[u8; W]; N] {
    let bits = if levels.len() <= 4 { 2 } else { 4 };
    let mut grid = [[0; W]; N];
    let (mut at, mut element) = (0, 0);
    while element < N * W {
        if hex[at] == b'\n' {
            at += 1;
        }
        let byte = digit(hex[at]) << 4 | digit(hex[at + 1]);
        at += 2;
        let mut shift = 0;
        while shift < 8 {
            let level = levels[(byte >> shift & ((1 << bits) - 1)) as usize];
            grid[element / W][element % W] = ZERO.wrapping_add_signed(level);
            (element, shift) = (element + 1, shift + bits);
        }
    }
    assert!(at + 1 == hex.len(), "a list holds its entries and a line feed");
    grid
}

const fn digit(letter: u8) -> u8 {
    match (letter as char).to_digit(16) {
        Some(digit) => digit as u8,
        None => panic!("lists are in hexadecimal"),
    }
}

/// What negates those of eight codes whose bit is set: see [`signed`].
pub(super) static SIGNS: [u64; 256] = signs();
/// The same for seven bits and one more that makes their number even.
pub(super) static EVEN_SIGNS: [u64; 128] = signs();

const fn signs<const N: usize>() -> [u64; N] {
    let mut signs = [0; N];
    let mut i = 0;
    while i < N {
        let bits = if N == 128 { i | (i.count_ones() as usize & 1) << 7 } else { i };
        let mut j = 0;
        while j < 8 {
            signs[i] |= ((bits as u64 >> j & 1) * 0x7f) << (8 * j);
            j += 1;
        }
        i += 1;
    }
    signs
}

/// Returns eight codes, those with signs negated: `128 - code`, which is `(code ^ 127) + 1`.
#[inline(always)]
pub(super) fn signed(codes: u64, signs: u64) -> [u8; 8] {
    ((codes ^ signs) + (signs & 0x0101_0101_0101_0101)).to_le_bytes()
}

/// Returns eight codes of two entries.
#[inline(always)]
pub(super) fn pair(first: [u8; 4], second: [u8; 4]) -> u64 {
    u64::from(u32::from_le_bytes(first)) | u64::from(u32::from_le_bytes(second)) << 32
}

/// Writes `d * (2 * scale + 1)` for scales of 4 bits, the low half of a byte first.
#[inline(always)]
pub(super) fn odd_scales(d: f32, packed: &[u8], scales: &mut [f32]) {
    for (packed, scales) in packed.iter().zip(scales.as_chunks_mut::<2>().0) {
        *scales = [odd(d, packed & 15), odd(d, packed >> 4)];
    }
}

/// Returns `d * (2 * scale + 1)`.
#[inline(always)]
pub(super) fn odd(d: f32, scale: u8) -> f32 {
    d * f32::from(2 * scale + 1)
}

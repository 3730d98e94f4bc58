//! Grids: the formats IQ1 to IQ3 store 8 or 4 elements as one number, the index of an entry in a published list.
//!
//! The lists are in `grids/`, as the `gguf` package has them: in hexadecimal the levels of all elements of all entries, two
//! bits each (four for IQ3), low bits of a byte first. Made, for `IQ2_XXS` as for each, by
//!
//! ```text
//! python3 -c 'from gguf.quants import *; print(IQ2_XXS.grid_hex.decode())' | fold -w 96 > grids/iq2_xxs.hex
//! ```
//!
//! Signs are stored apart, a bit each; some formats store seven for eight elements, the last one making their number even.
//! All entries of a block are taken from the list at once, and eight codes get their signs at once, in a word of 64 bits.

/// The code that stands for zero in every format with a grid: magnitudes, at most 62, fit on either side below 128.
pub(super) const ZERO: u8 = 64;

/// N entries of W codes each, from the digits of a list, the code of zero and what its levels stand for.
pub(super) const fn grid<const N: usize, const W: usize>(hex: &[u8], zero: u8, levels: &[i8]) -> [[u8; W]; N] {
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
            grid[element / W][element % W] = zero.wrapping_add_signed(level);
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

/// Writes 256 codes, eight an entry, those negated whose sign is set: `128 - code`, which is `(code ^ 127) + 1`.
#[inline(always)]
pub(super) fn write_signed(mut entries: [u64; 32], signs: [u16; 32], codes: &mut [u8]) {
    for (codes, signs) in entries.iter_mut().zip(signs) {
        let ones = ones(u64::from(signs));
        *codes = (*codes ^ ((ones << 7) - ones)) + ones;
    }
    write(entries, codes);
}

/// A one in byte i of a word for every bit i that is set, of eight.
#[inline(always)]
pub(super) fn ones(bits: u64) -> u64 {
    // Bit i stays in byte i, and is carried to the top of it.
    let apart = (bits * 0x0101_0101_0101_0101) & 0x8040_2010_0804_0201;
    (apart + 0x0040_6070_787c_7e7f) >> 7 & 0x0101_0101_0101_0101
}

/// Writes codes, eight an entry.
#[inline(always)]
pub(super) fn write<const N: usize>(entries: [u64; N], codes: &mut [u8]) {
    for (codes, entry) in codes.as_chunks_mut::<8>().0.iter_mut().zip(entries) {
        *codes = entry.to_le_bytes();
    }
}

/// N numbers of B bytes each.
#[inline(always)]
pub(super) fn words<const N: usize, const B: usize>(bytes: &[u8]) -> [u64; N] {
    let mut words = [0; N];
    for (word, bytes) in words.iter_mut().zip(bytes.as_chunks::<B>().0) {
        let mut whole = [0; 8];
        whole[..B].copy_from_slice(bytes);
        *word = u64::from_le_bytes(whole);
    }
    words
}

/// The lowest four fields of BITS bits each of every word.
#[inline(always)]
pub(super) fn fields<const BITS: u32>(words: [u64; 8]) -> [u16; 32] {
    let mask = (1 << BITS) - 1;
    let mut fields = [0; 32];
    for (fields, word) in fields.as_chunks_mut::<4>().0.iter_mut().zip(words) {
        // Each field at the start of 16 bits, all words at once.
        let field = |i: u32| (word >> (i * BITS) & mask) << (16 * i);
        let apart = field(0) | field(1) | field(2) | field(3);
        *fields = [apart as u16, (apart >> 16) as u16, (apart >> 32) as u16, (apart >> 48) as u16];
    }
    fields
}

/// Seven signs each and the eighth that makes their number even.
#[inline(always)]
pub(super) fn even(mut signs: [u16; 32]) -> [u16; 32] {
    for signs in &mut signs {
        let seven = *signs & 127;
        let four = seven ^ seven >> 4;
        let two = four ^ four >> 2;
        *signs = seven | (two ^ two >> 1) << 7 & 128;
    }
    signs
}

/// Writes `d * (2 * scale + 1)` for scales of 4 bits, the low half of a byte first.
#[inline(always)]
pub(super) fn odd_scales(d: f32, packed: &[u8], scales: &mut [f32]) {
    for (packed, scales) in packed.iter().zip(scales.as_chunks_mut::<2>().0) {
        *scales = [odd(d, packed & 15), odd(d, packed >> 4)];
    }
}

/// `d * (2 * scale + 1)`.
#[inline(always)]
pub(super) fn odd(d: f32, scale: u8) -> f32 {
    d * f32::from(2 * scale + 1)
}

//! Some columns of a few rows of a matrix of codes, side by side as products take them, and the layout of a whole matrix in
//! which rows lie so already.
//!
//! Rows as a file has them must be expanded and turned each time. *Interleaved* rows are that once and for all: as many as a
//! register has lanes lie together, and of those 256 columns after 256 (the last ones may be fewer), each so:
//!
//! ```text
//! scales, then shifts if the format has some; LANES of each side by side
//!     Factors::Halves   per sub-block a half
//!     Factors::Bytes    a half, then per sub-block a byte that it is multiplied with
//!     Factors::Nibbles  a half for scales, one for shifts, then per sub-block a byte: what they are multiplied with,
//!                       scales with the low half, shifts with the high one
//!     Factors::Eighths  a half, then per sub-block a byte: what it is multiplied with, and a bit for the shift
//! codes in units of 32 columns: BITS registers of LANES words of four bytes; column c is byte c % 4 of word c / 4
//!     8 bits        the eight words
//!     4, 5, 6 bits  four registers of nibbles: register j holds the low 4 bits of word j, and of word 4 + j above them
//!     2, 3, 6 bits  then two of pairs, for words 0..4 and 4..8, whose bits 2j and 2j + 1 are the next ones of word j
//!     3, 5 bits     then one whose bit w of every byte is the last bit of word w
//! ```
//!
//! Rows behind the last one are zeros. Nothing is lost and nothing is computed anew, so a product has the same bits. Rows of
//! F16 and BF16 lie as `halves` says.

use std::ops::Range;

use minke_spec::Format;

use super::{Coding, Stored, halves, write_values};
use crate::device::{Cpu, Parts};
use crate::isa::Isa;
use crate::simd::{LANES, Simd, simd_fn};

/// The number of the layout of interleaved rows, which files of them name: another layout gets another number.
pub const LAYOUT: u32 = 3;
/// Columns of a panel: a whole block of every format of codes.
pub(crate) const DEPTH: usize = 256;
/// How far ahead of what is read interleaved rows are fetched: what a thread reads while memory answers.
pub(crate) const AHEAD: usize = 4096;
/// Bytes of a line of the cache.
pub(crate) const LINE: usize = 64;
/// Columns of which the codes lie together.
pub(crate) const UNIT: usize = 32;

/// How the scales of a format lie in interleaved rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Factors {
    /// `scale[s]` is a half.
    Halves,
    /// `scale[s]` is a half of the block times a byte, with a sign if `signed`.
    Bytes { signed: bool },
    /// `scale[s]` is a half of the block times the low half of a byte, `shift[s]` another times its high half.
    Nibbles,
    /// `scale[s]` is a half of the block times the low half of a byte, `shift[s]` is `-7/8 scale[s]`, or `-9/8` if the byte's highest
    /// bit is set.
    Eighths,
}

/// Registers of the planes of codes of so many bits in a unit, and at which bit of a code those of a plane begin.
struct Planes {
    nibbles: usize,
    pairs: usize,
    singles: usize,
    pair: i32,
    single: i32,
}

impl Planes {
    const fn of(bits: usize) -> Self {
        Self {
            nibbles: bits & 4,
            pairs: bits & 2,
            singles: bits & 1,
            pair: (bits & 4) as i32,
            single: (bits & 6) as i32,
        }
    }
}

/// The scales and shifts of a block as they are stored: halves, and the bytes that they are multiplied with.
#[derive(Clone, Copy, Default)]
pub(crate) struct BlockFactors {
    /// Of scales and shifts.
    pub halves: [u16; 2],
    /// Of scales and shifts, by sub-block.
    pub bytes: [[u8; 16]; 2],
}

/// Some columns of a few rows of W. Registers of it lie within lines of the cache.
#[repr(C, align(64))]
pub(crate) struct Panel {
    /// Side by side: [depth / 4, LANES, 4] and [depth / sub, LANES].
    pub codes: [u8; LANES * DEPTH],
    pub scales: [f32; LANES * 16],
    pub shifts: [f32; LANES * 16],
    /// As they were expanded, if they do not lie side by side in W.
    rows: Option<Rows>,
    /// First column, and how many; rows.
    pub from: usize,
    pub depth: usize,
    pub columns: usize,
}

/// The same columns row by row: [LANES, 256] and [LANES, 16].
#[repr(C, align(64))]
struct Rows {
    codes: [u8; LANES * DEPTH],
    scales: [f32; LANES * 16],
    shifts: [f32; LANES * 16],
}

impl Rows {
    fn new() -> Self {
        Self { codes: [0; LANES * DEPTH], scales: [0.0; LANES * 16], shifts: [0.0; LANES * 16] }
    }
}

impl Panel {
    pub fn new() -> Self {
        let (codes, scales) = ([0; LANES * DEPTH], [0.0; LANES * 16]);
        Self { codes, scales, shifts: scales, rows: None, from: 0, depth: 0, columns: 0 }
    }

    /// Makes it that of rows of W from row `first` on, of the columns that it says.
    #[inline(always)]
    pub fn fill<S: Simd>(&mut self, s: S, coding: &Coding, w: Stored<'_>, first: usize) {
        self.lay(s, coding, w, first);
        if let Some(values) = &coding.values {
            for word in 0..self.depth / 4 {
                // SAFETY: the panel has LANES words of four codes for every four columns.
                unsafe { s.look_up(values, self.codes.as_mut_ptr().add(4 * word * S::LANES)) };
            }
        }
    }

    /// The codes of interleaved rows of W as they lie, BITS registers for each unit of 32 columns, with scales and shifts in the
    /// panel, and those of a later one fetched; nothing if the rows do not lie so, or their codes are replaced by what they stand for.
    #[inline(always)]
    pub fn packed_codes<'a, S: Simd>(
        &mut self,
        s: S,
        coding: &Coding,
        w: Stored<'a>,
        first: usize,
    ) -> Option<&'a [u8]> {
        if w.lanes != S::LANES || !first.is_multiple_of(S::LANES) || coding.values.is_some() {
            return None;
        }
        let part = w.interleaved_part(coding, first / S::LANES, self.from, self.depth);
        // Not in a closure, which would be compiled without the path's instructions.
        let codes = unpack_head(s, coding, part, self);
        for line in (0..part.len() - codes.len()).step_by(LINE) {
            s.prefetch(part.as_ptr().wrapping_add(AHEAD + line));
        }
        Some(codes)
    }

    /// As many bytes as the panel is filled of, [`AHEAD`] or all of those ahead of them, if rows of W from row `first` on are
    /// interleaved; fewer at the end of W.
    #[inline(always)]
    pub fn bytes_ahead<'a>(&self, coding: &Coding, w: Stored<'a>, first: usize) -> &'a [u8] {
        if w.lanes == 0 || !first.is_multiple_of(w.lanes) {
            return &[];
        }
        let Range { start, end } = w.interleaved_range(coding, first / w.lanes, self.from, self.depth);
        let (ahead, last) = ((end - start).max(AHEAD), w.bytes.len());
        &w.bytes[(start + ahead).min(last)..(end + ahead).min(last)]
    }

    /// As [`Panel::fill`], with codes that are not replaced by what they stand for.
    #[inline(always)]
    fn lay<S: Simd>(&mut self, s: S, coding: &Coding, w: Stored<'_>, first: usize) {
        assert!(w.lanes == 0 || w.lanes == S::LANES, "rows interleaved for registers of {} lanes", w.lanes);
        if w.lanes > 0 && first.is_multiple_of(S::LANES) {
            unpack(s, coding, w.interleaved_part(coding, first / S::LANES, self.from, self.depth), self);
            return;
        }
        if w.lanes > 0 {
            take_rows(s.isa(), coding, w, first, self);
        } else {
            let (rows, columns) = (first..first + self.columns, (self.from, self.from + self.depth));
            let Rows { codes, scales, shifts } = self.rows.get_or_insert_with(Rows::new);
            (coding.expand)(s.isa(), w, rows, columns, codes, scales, shifts);
        }
        turn(s, coding, self);
    }

    /// Codes, scales and shifts of one row of those that lie side by side.
    fn row(&self, coding: &Coding, lanes: usize, lane: usize, out: (&mut [u8], &mut [f32], &mut [f32])) {
        let (codes, scales, shifts) = out;
        for (word, codes) in codes[..self.depth].as_chunks_mut::<4>().0.iter_mut().enumerate() {
            *codes = self.codes.as_chunks::<4>().0[word * lanes + lane];
        }
        for sub in 0..self.depth / coding.sub {
            scales[sub] = self.scales[sub * lanes + lane];
            shifts[sub] = self.shifts[sub * lanes + lane];
        }
    }
}

impl Coding {
    /// Bits of a code as it is multiplied.
    #[inline(always)]
    pub fn product_bits(&self) -> usize {
        if self.values.is_some() { 8 } else { self.bits }
    }

    /// Sub-blocks of so many columns. Divisions by constants: this is asked for in the innermost loops.
    #[inline(always)]
    fn subs(&self, depth: usize) -> usize {
        if self.sub == 16 { depth / 16 } else { depth / 32 }
    }

    /// Bytes of the scales, and of all, of columns of LANES rows that are interleaved, for every lane.
    #[inline(always)]
    fn interleaved_bytes(&self, depth: usize) -> Option<(usize, usize)> {
        let (kinds, subs) = (if self.zero.is_none() { 2 } else { 1 }, self.subs(depth));
        let factors = match self.factors? {
            Factors::Halves => kinds * subs * 2,
            Factors::Bytes { .. } => kinds * (2 + subs),
            Factors::Nibbles => kinds * 2 + subs,
            Factors::Eighths => 2 + subs,
        };
        Some((factors, factors + depth / UNIT * self.bits * 4))
    }
}

impl<'a> Stored<'a> {
    /// Bytes of `[n, k]` with its rows interleaved for registers of so many lanes; none if the format has no such layout.
    pub fn interleaved_len(format: Format, lanes: usize, n: usize, k: usize) -> Option<usize> {
        if halves::is_half(format) {
            return halves::len(lanes, n, k);
        }
        let coding = Coding::of(format)?;
        let part = |depth: usize| coding.interleaved_bytes(depth).map(|(_, bytes)| bytes);
        let per_lane = (k / DEPTH).checked_mul(part(DEPTH)?)?.checked_add(part(k % DEPTH)?)?;
        n.checked_next_multiple_of(lanes)?.checked_mul(per_lane)
    }

    /// Columns from a multiple of 256 on, of a group of interleaved rows.
    #[inline(always)]
    fn interleaved_part(&self, coding: &Coding, group: usize, from: usize, depth: usize) -> &'a [u8] {
        &self.bytes[self.interleaved_range(coding, group, from, depth)]
    }

    /// Where they lie in the bytes of W.
    #[inline(always)]
    fn interleaved_range(&self, coding: &Coding, group: usize, from: usize, depth: usize) -> Range<usize> {
        let bytes = |depth| self.lanes * coding.interleaved_bytes(depth).map_or(0, |(_, bytes)| bytes);
        let start = group * (self.k / DEPTH * bytes(DEPTH) + bytes(self.k % DEPTH)) + from / DEPTH * bytes(DEPTH);
        start..start + bytes(depth)
    }
}

/// Rows of a format that a path interleaves; none if it has no such layout.
pub(crate) fn interleaved_lanes(isa: Isa, format: Format) -> Option<usize> {
    if halves::is_half(format) {
        return Some(2 * lanes(isa));
    }
    Coding::of(format)?.factors.map(|_| lanes(isa))
}

/// Writes the bytes of a matrix with its rows interleaved for the lanes of the device.
///
/// # Panics
/// If the format has no such layout, they are interleaved already, or there is room for another number of bytes.
pub(crate) fn interleave(cpu: &Cpu, w: Stored<'_>, bytes: &mut [u8]) {
    let [n, k] = w.shape();
    let lanes = interleaved_lanes(cpu.isa(), w.format).unwrap_or_default();
    assert_eq!((Some(bytes.len()), w.lanes), (Stored::interleaved_len(w.format, lanes, n, k), 0));
    if halves::is_half(w.format) {
        return halves::interleave(cpu, w, lanes, bytes);
    }
    let Some(coding) = Coding::of(w.format) else { panic!("{} has no codes", w.format.name()) };
    let groups = n.div_ceil(lanes);
    let each = bytes.len() / groups.max(1);
    let all = Parts::new(bytes);
    cpu.run_if(n * k > 1 << 16, groups, |group| {
        // SAFETY: each group is one task's.
        let mut out = unsafe { all.part(group * each, each) };
        let mut panel = Panel::new();
        let first = group * lanes;
        panel.columns = lanes.min(n - first);
        for from in (0..k).step_by(DEPTH) {
            (panel.from, panel.depth) = (from, DEPTH.min(k - from));
            lay(cpu.isa(), &coding, w, first, &mut panel);
            let (factors, len) = coding.interleaved_bytes(panel.depth).unwrap_or_default();
            let (part, rest) = std::mem::take(&mut out).split_at_mut(lanes * len);
            out = rest;
            let (head, codes) = part.split_at_mut(lanes * factors);
            for lane in 0..panel.columns {
                write_factors(&coding, w.part(first + lane, from, from + panel.depth), lanes, lane, head);
            }
            pack(cpu.isa(), &coding, &panel, codes);
        }
    });
}

/// Writes the scales and shifts of a row's blocks at their places.
fn write_factors(coding: &Coding, blocks: &[u8], lanes: usize, lane: usize, out: &mut [u8]) {
    if coding.factors == Some(Factors::Nibbles) {
        let BlockFactors { halves, bytes: [scales, shifts] } = (coding.block_factors)(blocks);
        let (head, bytes) = out.split_at_mut(4 * lanes);
        for (half, out) in halves.iter().zip(head.chunks_exact_mut(2 * lanes)) {
            out[2 * lane..][..2].copy_from_slice(&half.to_le_bytes());
        }
        for ((scale, shift), out) in scales.iter().zip(shifts).zip(bytes.chunks_exact_mut(lanes)) {
            out[lane] = scale | shift << 4;
        }
        return;
    }
    let kinds = if coding.zero.is_none() && coding.factors != Some(Factors::Eighths) { 2 } else { 1 };
    let each = out.len() / kinds;
    for (kind, out) in out.chunks_exact_mut(each).enumerate() {
        for (i, block) in blocks.chunks_exact(coding.block_bytes).enumerate() {
            let factors = (coding.block_factors)(block);
            out[2 * (i * lanes + lane)..][..2].copy_from_slice(&factors.halves[kind].to_le_bytes());
            if let Some(Factors::Bytes { .. } | Factors::Eighths) = coding.factors {
                for (byte, out) in factors.bytes[kind].iter().zip(out[2 * lanes..].chunks_exact_mut(lanes)) {
                    out[lane] = *byte;
                }
            }
        }
    }
}

/// Writes rows of interleaved codes as f32, as many as `out` holds, from row `first` on.
pub(super) fn decode_interleaved(isa: Isa, coding: &Coding, w: Stored<'_>, first: usize, out: &mut [f32]) {
    let (mut panel, mut codes, mut scales, mut shifts) = (Panel::new(), [0; DEPTH], [0.0; 16], [0.0; 16]);
    panel.columns = w.lanes;
    let last = first + out.len() / w.k;
    for group in first / w.lanes..last.div_ceil(w.lanes) {
        for from in (0..w.k).step_by(DEPTH) {
            (panel.from, panel.depth) = (from, DEPTH.min(w.k - from));
            lay(isa, coding, w, group * w.lanes, &mut panel);
            for row in first.max(group * w.lanes)..last.min((group + 1) * w.lanes) {
                panel.row(coding, w.lanes, row % w.lanes, (&mut codes, &mut scales, &mut shifts));
                let out = &mut out[(row - first) * w.k + from..][..panel.depth];
                write_values(isa, coding, &codes, &scales, &shifts, out);
            }
        }
    }
}

simd_fn! {
    fn lanes<S>(_s: S) -> usize {
        S::LANES
    }

    fn lay<S>(s: S, coding: &Coding, w: Stored<'_>, first: usize, panel: &mut Panel) {
        panel.lay(s, coding, w, first);
    }

    /// Writes the codes of a panel as they lie in interleaved rows.
    fn pack<S>(s: S, coding: &Coding, panel: &Panel, out: &mut [u8]) {
        let units = panel.depth / UNIT;
        assert!(panel.depth <= DEPTH && out.len() == units * coding.bits * 4 * S::LANES);
        let (from, to) = (panel.codes.as_ptr(), out.as_mut_ptr());
        // SAFETY: the panel has eight registers for every unit, and there is room for BITS of each.
        unsafe {
            match coding.bits {
                2 => pack_codes::<S, 2>(s, from, units, to),
                3 => pack_codes::<S, 3>(s, from, units, to),
                4 => pack_codes::<S, 4>(s, from, units, to),
                5 => pack_codes::<S, 5>(s, from, units, to),
                6 => pack_codes::<S, 6>(s, from, units, to),
                8 => pack_codes::<S, 8>(s, from, units, to),
                bits => unreachable!("no codes of {bits} bits are interleaved"),
            }
        }
    }
}

/// Lays side by side what was expanded: the same code for all formats.
#[inline(always)]
fn turn<S: Simd>(s: S, coding: &Coding, panel: &mut Panel) {
    let (words, count) = (panel.depth / 4, coding.subs(panel.depth));
    let Some(rows) = &panel.rows else { return };
    // SAFETY: there are LANES rows of 64 words, and of 16 scales and shifts; what is asked for, rounded up to LANES, lies
    // in the rows, and side by side in the panel.
    unsafe {
        side_by_side(s, rows.codes.as_ptr().cast(), DEPTH / 4, words, panel.codes.as_mut_ptr().cast());
        side_by_side(s, rows.scales.as_ptr().cast(), 16, count, panel.scales.as_mut_ptr().cast());
        if coding.zero.is_none() {
            side_by_side(s, rows.shifts.as_ptr().cast(), 16, count, panel.shifts.as_mut_ptr().cast());
        }
    }
}

/// Expands rows that begin within a group of interleaved ones: each is taken out of its own.
#[cold]
fn take_rows(isa: Isa, coding: &Coding, w: Stored<'_>, first: usize, panel: &mut Panel) {
    let mut group = Panel { from: panel.from, depth: panel.depth, columns: w.lanes, ..Panel::new() };
    let rows = panel.rows.get_or_insert_with(Rows::new);
    for lane in 0..panel.columns {
        let row = first + lane;
        lay(isa, coding, w, row - row % w.lanes, &mut group);
        let out = (
            &mut rows.codes[DEPTH * lane..][..DEPTH],
            &mut rows.scales[16 * lane..][..16],
            &mut rows.shifts[16 * lane..][..16],
        );
        group.row(coding, w.lanes, row % w.lanes, out);
    }
}

/// Makes a panel of columns of interleaved rows.
#[inline(always)]
fn unpack<S: Simd>(s: S, coding: &Coding, part: &[u8], panel: &mut Panel) {
    let codes = unpack_head(s, coding, part, panel);
    let (units, from, to) = (panel.depth / UNIT, codes.as_ptr(), panel.codes.as_mut_ptr());
    // SAFETY: there are so many units, BITS registers each, and the panel has eight for each.
    unsafe {
        match coding.bits {
            2 => unpack_codes::<S, 2>(s, from, units, to),
            3 => unpack_codes::<S, 3>(s, from, units, to),
            4 => unpack_codes::<S, 4>(s, from, units, to),
            5 => unpack_codes::<S, 5>(s, from, units, to),
            6 => unpack_codes::<S, 6>(s, from, units, to),
            8 => unpack_codes::<S, 8>(s, from, units, to),
            bits => unreachable!("no codes of {bits} bits are interleaved"),
        }
    }
}

/// Writes the scales and shifts of columns of interleaved rows, and returns their codes: BITS registers for each unit.
#[inline(always)]
fn unpack_head<'a, S: Simd>(s: S, coding: &Coding, part: &'a [u8], panel: &mut Panel) -> &'a [u8] {
    let (subs, shifted) = (coding.subs(panel.depth), coding.zero.is_none());
    let (factors, len) = coding.interleaved_bytes(panel.depth).unwrap_or_default();
    assert!(panel.depth <= DEPTH && part.len() == S::LANES * len);
    let (head, codes) = part.split_at(S::LANES * factors);
    if coding.factors == Some(Factors::Nibbles) {
        unpack_nibbles(s, head, subs, panel);
    } else if coding.factors == Some(Factors::Eighths) {
        unpack_eighths(s, head, subs, panel);
    } else if shifted {
        let (first, second) = head.split_at(head.len() / 2);
        unpack_factors(s, coding, first, subs, &mut panel.scales);
        unpack_factors(s, coding, second, subs, &mut panel.shifts);
    } else {
        unpack_factors(s, coding, head, subs, &mut panel.scales);
    }
    codes
}

/// Writes the scales, or the shifts, of sub-blocks.
#[inline(always)]
fn unpack_factors<S: Simd>(s: S, coding: &Coding, from: &[u8], subs: usize, to: &mut [f32; LANES * 16]) {
    let lanes = S::LANES;
    assert!(
        subs <= 16 && from.len() == if coding.factors == Some(Factors::Halves) { 2 * subs } else { 2 + subs } * lanes
    );
    // SAFETY: so many bytes are there, and room for 16 registers of floats.
    unsafe {
        let (from, to) = (from.as_ptr(), to.as_mut_ptr());
        if coding.factors == Some(Factors::Halves) {
            for sub in 0..subs {
                s.store_ptr(s.load_f16(from.add(2 * sub * lanes)), to.add(sub * lanes));
            }
            return;
        }
        let (half, bytes) = (s.load_f16(from), from.add(2 * lanes));
        let signed = coding.factors == Some(Factors::Bytes { signed: true });
        for sub in 0..subs {
            let at = bytes.add(sub * lanes);
            let byte = if signed { s.load_bytes::<true>(at) } else { s.load_bytes::<false>(at) };
            s.store_ptr(s.mul(half, byte), to.add(sub * lanes));
        }
    }
}

/// Writes the scales and shifts of sub-blocks that share a byte.
#[inline(always)]
fn unpack_nibbles<S: Simd>(s: S, from: &[u8], subs: usize, panel: &mut Panel) {
    let lanes = S::LANES;
    assert!(subs <= 16 && subs.is_multiple_of(4) && from.len() == (4 + subs) * lanes);
    let (mut low, mut high) = ([0u8; 16 * LANES], [0u8; 16 * LANES]);
    // SAFETY: so many bytes are there, and room for 16 times LANES of them and of floats.
    unsafe {
        let (from, bytes) = (from.as_ptr(), from.as_ptr().add(4 * lanes));
        for at in (0..subs * lanes).step_by(4 * lanes) {
            let both = s.load_words(bytes.add(at));
            s.store_words(s.and_bytes(both, 15), low.as_mut_ptr().add(at));
            s.store_words(s.and_bytes(s.shift(both, -4), 15), high.as_mut_ptr().add(at));
        }
        let (scale, shift) = (s.load_f16(from), s.load_f16(from.add(2 * lanes)));
        for at in (0..subs * lanes).step_by(lanes) {
            s.store_ptr(s.mul(scale, s.load_bytes::<false>(low.as_ptr().add(at))), panel.scales.as_mut_ptr().add(at));
            s.store_ptr(s.mul(shift, s.load_bytes::<false>(high.as_ptr().add(at))), panel.shifts.as_mut_ptr().add(at));
        }
    }
}

/// Writes the scales of sub-blocks, and shifts that are seven or nine eighths of them.
#[inline(always)]
fn unpack_eighths<S: Simd>(s: S, from: &[u8], subs: usize, panel: &mut Panel) {
    let lanes = S::LANES;
    assert!(subs <= 16 && subs.is_multiple_of(4) && from.len() == (2 + subs) * lanes);
    let mut low = [0u8; 16 * LANES];
    let (zero, seven, nine) = (s.splat(0.0), s.splat(-0.875), s.splat(-1.125));
    // SAFETY: so many bytes are there, and room for 16 times LANES of them and of floats.
    unsafe {
        let (half, bytes) = (s.load_f16(from.as_ptr()), from.as_ptr().add(2 * lanes));
        for at in (0..subs * lanes).step_by(4 * lanes) {
            s.store_words(s.and_bytes(s.load_words(bytes.add(at)), 15), low.as_mut_ptr().add(at));
        }
        for at in (0..subs * lanes).step_by(lanes) {
            let scale = s.mul(half, s.load_bytes::<false>(low.as_ptr().add(at)));
            let eighths = s.select_less(s.load_bytes::<true>(bytes.add(at)), zero, nine, seven);
            s.store_ptr(scale, panel.scales.as_mut_ptr().add(at));
            s.store_ptr(s.mul(scale, eighths), panel.shifts.as_mut_ptr().add(at));
        }
    }
}

/// Packs the codes of units of eight registers into BITS.
///
/// # Safety
/// `from` is valid for eight registers of every unit, `to` for BITS.
#[inline(always)]
unsafe fn pack_codes<S: Simd, const BITS: usize>(s: S, from: *const u8, units: usize, to: *mut u8) {
    let (register, planes) = (4 * S::LANES, Planes::of(BITS));
    for unit in 0..units {
        // SAFETY: the caller's promise.
        unsafe {
            let (from, to) = (from.add(unit * 8 * register), to.add(unit * BITS * register));
            if BITS == 8 {
                std::ptr::copy_nonoverlapping(from, to, 8 * register);
                continue;
            }
            let (mut pairs, mut singles) = ([s.splat_int(0); 2], s.splat_int(0));
            for j in 0..4 {
                for (half, pairs) in pairs.iter_mut().enumerate() {
                    let (word, j) = (s.load_words(from.add((4 * half + j) * register)), j as i32);
                    let (pair, single) = (s.and_bytes(word, 3 << planes.pair), s.and_bytes(word, 1 << planes.single));
                    *pairs = s.or(*pairs, s.shift(pair, 2 * j - planes.pair));
                    singles = s.or(singles, s.shift(single, 4 * half as i32 + j - planes.single));
                }
                if planes.nibbles > 0 {
                    let (first, second) =
                        (s.load_words(from.add(j * register)), s.load_words(from.add((4 + j) * register)));
                    let both = s.or(s.and_bytes(first, 15), s.shift(s.and_bytes(second, 15), 4));
                    s.store_words(both, to.add(j * register));
                }
            }
            if planes.pairs > 0 {
                s.store_words(pairs[0], to.add(planes.nibbles * register));
                s.store_words(pairs[1], to.add((planes.nibbles + 1) * register));
            }
            if planes.singles > 0 {
                s.store_words(singles, to.add((planes.nibbles + planes.pairs) * register));
            }
        }
    }
}

/// Writes the codes of units, eight registers for each.
///
/// # Safety
/// `from` is valid for BITS registers of every unit, `to` for eight.
#[inline(always)]
unsafe fn unpack_codes<S: Simd, const BITS: usize>(s: S, from: *const u8, units: usize, to: *mut u8) {
    let register = 4 * S::LANES;
    for unit in 0..units {
        // SAFETY: the caller's promise.
        unsafe { unpack_unit::<S, BITS>(s, from.add(unit * BITS * register), to.add(unit * 8 * register)) };
    }
}

/// Writes the codes of a unit.
///
/// # Safety
/// `from` is valid for BITS registers, `to` for eight.
#[inline(always)]
pub(crate) unsafe fn unpack_unit<S: Simd, const BITS: usize>(s: S, from: *const u8, to: *mut u8) {
    let (register, planes) = (4 * S::LANES, const { Planes::of(BITS) });
    let (mut pairs, mut singles) = ([s.splat_int(0); 2], s.splat_int(0));
    // SAFETY: the caller's promise.
    unsafe {
        if BITS == 8 {
            std::ptr::copy_nonoverlapping(from, to, 8 * register);
            return;
        }
        if planes.pairs > 0 {
            pairs[0] = s.load_words(from.add(planes.nibbles * register));
            pairs[1] = s.load_words(from.add((planes.nibbles + 1) * register));
        }
        if planes.singles > 0 {
            singles = s.load_words(from.add((planes.nibbles + planes.pairs) * register));
        }
        for j in 0..4 {
            let mut words = [s.splat_int(0); 2];
            if planes.nibbles > 0 {
                let both = s.load_words(from.add(j * register));
                words = [s.and_bytes(both, 15), s.and_bytes(s.shift(both, -4), 15)];
            }
            for half in 0..2 {
                let (word, j32) = (&mut words[half], j as i32);
                if planes.pairs > 0 {
                    let pair = s.shift(pairs[half], planes.pair - 2 * j32);
                    *word = s.or(*word, s.and_bytes(pair, 3 << planes.pair));
                }
                if planes.singles > 0 {
                    let single = s.shift(singles, planes.single - 4 * half as i32 - j32);
                    *word = s.or(*word, s.and_bytes(single, 1 << planes.single));
                }
                s.store_words(*word, to.add((4 * half + j) * register));
            }
        }
    }
}

/// Writes words 0 to `count` of LANES rows, `stride` words apart, as `[count, LANES]`.
///
/// # Safety
/// Rows and output are valid for `count` rounded up to LANES.
#[inline(always)]
unsafe fn side_by_side<S: Simd>(s: S, rows: *const u32, stride: usize, count: usize, to: *mut u32) {
    for p in (0..count).step_by(S::LANES) {
        // SAFETY: the caller's promise.
        unsafe { s.transpose(rows.wrapping_add(p), stride, to.wrapping_add(p * S::LANES), S::LANES) };
    }
}

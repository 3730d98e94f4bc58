//! Interleaved rows of F16 and BF16: of as many rows as two registers have lanes the same columns lie together, column after column, as
//! products of f32 take their right operand. Rows behind the last one are zeros.

use minke_spec::Format;

use super::Stored;
use super::f16::F16;
use crate::device::{Cpu, Parts};
use crate::element::Element;
use crate::format::bf16::Bf16;
use crate::isa::Isa;
use crate::simd::{LANES, simd_fn};

/// Columns that are turned at once: of so many rows they stay in the first cache.
const TURNED: usize = 32;

/// Whether rows of a format lie so.
pub(super) fn is_half(format: Format) -> bool {
    matches!(format, Format::F16 | Format::Bf16)
}

/// Bytes of `[n, k]` whose rows lie `lanes` together.
pub(super) fn len(lanes: usize, n: usize, k: usize) -> Option<usize> {
    n.checked_next_multiple_of(lanes)?.checked_mul(k)?.checked_mul(size_of::<u16>())
}

impl<'a> Stored<'a> {
    /// The values of a group of interleaved rows. [k, lanes]
    #[inline(always)]
    pub(crate) fn group(&self, group: usize) -> &'a [u16] {
        debug_assert!(is_half(self.format) && self.lanes > 0);
        // SAFETY: every pair of bytes is a number.
        let (before, halves, after) = unsafe { self.bytes.align_to::<u16>() };
        assert!(before.is_empty() && after.is_empty(), "interleaved rows begin at an even address");
        let each = self.lanes * self.k;
        &halves[group * each..][..each]
    }
}

impl Stored<'_> {
    /// Writes columns `from..from + out.len()` of an interleaved row as f32.
    pub(crate) fn decode_halves(&self, row: usize, from: usize, out: &mut [f32]) {
        let group = &self.group(row / self.lanes)[from * self.lanes + row % self.lanes..];
        for (&half, out) in group.iter().step_by(self.lanes).zip(out) {
            *out = if self.format == Format::F16 { F16(half).to_f32() } else { Bf16(half).to_f32() };
        }
    }
}

/// Writes rows so that so many lie together.
pub(super) fn interleave(cpu: &Cpu, w: Stored<'_>, lanes: usize, bytes: &mut [u8]) {
    let ([n, k], each) = (w.shape(), 2 * lanes * w.k);
    let all = Parts::new(bytes);
    cpu.run_if(n * k > 1 << 16, n.div_ceil(lanes), |group| {
        // SAFETY: each group is one task's.
        let out = unsafe { all.part(group * each, each) };
        for (part, out) in out.chunks_mut(2 * lanes * TURNED).enumerate() {
            let (from, depth) = (part * TURNED, out.len() / (2 * lanes));
            for lane in 0..lanes.min(n - group * lanes) {
                let row = w.part(group * lanes + lane, from, from + depth).as_chunks::<2>().0;
                for (value, out) in row.iter().zip(out.as_chunks_mut::<2>().0[lane..].iter_mut().step_by(lanes)) {
                    *out = *value;
                }
            }
        }
    });
}

/// Writes interleaved rows as f32, as many as `out` holds, from row `first` on.
pub(super) fn decode_interleaved(isa: Isa, w: Stored<'_>, first: usize, out: &mut [f32]) {
    let (lanes, k) = (w.lanes, w.k);
    let (mut row, last) = (first, first + out.len() / k);
    let mut out = out;
    while row < last {
        let count = (lanes - row % lanes).min(last - row);
        let (rows, rest) = std::mem::take(&mut out).split_at_mut(count * k);
        let (group, lane) = (w.group(row / lanes), row % lanes);
        match w.format {
            Format::F16 => decode_group::<F16>(isa, group, lanes, lane, k, rows),
            _ => decode_group::<Bf16>(isa, group, lanes, lane, k, rows),
        }
        (row, out) = (row + count, rest);
    }
}

simd_fn! {
    /// Writes rows of a group from row `first` of it on, a square of columns and rows after the other.
    fn decode_group<S, T: Element>(s: S, group: &[u16], lanes: usize, first: usize, k: usize, out: &mut [f32]) {
        assert!(group.len() == lanes * k && lanes.is_multiple_of(S::LANES) && first + out.len() / k <= lanes);
        let (mut columns, mut rows) = ([0.0f32; LANES * LANES], [0.0f32; LANES * LANES]);
        let (count, side) = (out.len() / k, S::LANES);
        for square in first / side..(first + count).div_ceil(side) {
            for from in (0..k).step_by(side) {
                let depth = side.min(k - from);
                // SAFETY: a group has a register of every square for every column; the squares have room for one.
                unsafe {
                    for c in 0..depth {
                        let values = T::load(s, group.as_ptr().add((from + c) * lanes + square * side).cast());
                        s.store_ptr(values, columns.as_mut_ptr().add(c * side));
                    }
                    s.transpose(columns.as_ptr().cast(), side, rows.as_mut_ptr().cast(), side);
                }
                for lane in first.max(square * side)..(first + count).min((square + 1) * side) {
                    let to = &mut out[(lane - first) * k + from..][..depth];
                    to.copy_from_slice(&rows[(lane - square * side) * side..][..depth]);
                }
            }
        }
    }
}

//! The tuned product: rows of W are expanded, 16 or 32 at a time and a few hundred columns deep, and laid side by side as
//! the registers want them; then every row of x passes over that panel.

use minke_spec::Format;

use crate::device::{Buffer, Cpu, Parts};
use crate::format::{Coded, Stored, coded};
use crate::ops::split::by_rows;
use crate::simd::{Simd, simd_fn};
use crate::tile::{Left, Output, Right, panel_width, product};

/// Elements of x that share a scale.
const BLOCK: usize = 32;
/// Columns of W that are expanded at once: a whole block of every format of codes.
const DEPTH: usize = 256;
/// The same, of formats of floats.
const FLOAT_DEPTH: usize = 128;
/// The most lanes that a register has.
const LANES: usize = 16;
/// Elements of W per task, about.
const TASK: usize = 1 << 16;

/// A product of one matrix, or of some rows of it, with some rows of x.
pub(super) struct Job<'a> {
    pub w: Stored<'a>,
    /// First row of `w`, and how many.
    pub first: usize,
    pub n: usize,
    /// First row of x, how far it is to the next, and how many.
    pub x_first: usize,
    pub x_step: usize,
    pub m: usize,
    /// Where element (0, 0) of y lies, and how far it is to the next row.
    pub y_first: usize,
    pub y_row: usize,
}

/// x, rounded as the format of the weights asks.
pub(super) enum Prepared<'a> {
    Floats { x: &'a [f32], k: usize },
    Codes(Codes),
}

/// Rows of x as codes.
pub(super) struct Codes {
    k: usize,
    /// [m, k] of i8
    codes: Buffer,
    /// [m, k / 32]
    scales: Buffer,
    /// What a row adds to the sum of a sub-block whatever the codes of W are: of formats around zero `-zero * sum of q`, as
    /// i32; of shifted formats what their shift is multiplied with, `scale * sum of q`, as the bits of an f32. [m, k / sub]
    constants: Buffer,
}

impl<'a> Prepared<'a> {
    pub(super) fn new(cpu: &Cpu, x: &'a [f32], k: usize, format: Format) -> Self {
        coded!(format, F => {
            Self::Codes(Codes::new(cpu, x, k, F::SUB, if F::SHIFTED { None } else { Some(F::ZERO) }))
        }, _ => Self::Floats { x, k })
    }

    fn rows(&self) -> usize {
        let (len, k) = match self {
            Self::Floats { x, k } => (x.len(), *k),
            Self::Codes(codes) => (codes.codes.bytes(), codes.k),
        };
        len.checked_div(k).unwrap_or(usize::MAX)
    }
}

impl Codes {
    /// Rounds x; `zero` is the code that stands for zero in the weights, none if they are shifted.
    fn new(cpu: &Cpu, x: &[f32], k: usize, sub: usize, zero: Option<i32>) -> Self {
        let m = x.len().checked_div(k).unwrap_or(0);
        let (mut codes, mut scales) = (cpu.buffer::<i8>(m * k), cpu.buffer::<f32>(m * (k / BLOCK)));
        let mut constants = cpu.buffer::<i32>(m * (k / sub));
        {
            let all_codes = Parts::new(codes.as_mut_slice::<i8>());
            let all_scales = Parts::new(scales.as_mut_slice::<f32>());
            by_rows(cpu, m, k, [(constants.as_mut_slice::<i32>(), k / sub)], |rows, [constants]| {
                let (first, count) = (rows.start, rows.len());
                // SAFETY: each range of rows is one task's.
                let codes = unsafe { all_codes.part(first * k, count * k) };
                // SAFETY: as above.
                let scales = unsafe { all_scales.part(first * (k / BLOCK), count * (k / BLOCK)) };
                round(cpu.isa(), &x[first * k..][..count * k], sub, zero, codes, scales, constants);
            });
        }
        Self { k, codes, scales, constants }
    }
}

simd_fn! {
    /// Rounds rows of x, block by block.
    fn round<S>(
        _s: S,
        x: &[f32],
        sub: usize,
        zero: Option<i32>,
        codes: &mut [i8],
        scales: &mut [f32],
        constants: &mut [i32],
    ) {
        // Adding 1.5 * 2^23 leaves the nearest integer in the low bits, ties to even.
        const MAGIC: f32 = 12_582_912.0;
        let blocks = x.as_chunks::<BLOCK>().0.iter().zip(codes.as_chunks_mut::<BLOCK>().0);
        for (((x, codes), scale), constants) in blocks.zip(scales).zip(constants.chunks_exact_mut(BLOCK / sub)) {
            // Magnitudes order like their bits; not a number is the largest and stays in the scale.
            let largest = f32::from_bits(x.iter().fold(0, |largest, x| largest.max(x.to_bits() & 0x7fff_ffff)));
            *scale = largest / 127.0;
            let inverse = if *scale > 0.0 { 1.0 / *scale } else { 0.0 };
            for (x, code) in x.iter().zip(&mut *codes) {
                *code = (x * inverse + MAGIC).to_bits() as i8;
            }
            for (codes, constant) in codes.chunks_exact(sub).zip(constants) {
                let sum: i32 = codes.iter().map(|&q| i32::from(q)).sum();
                *constant = zero.map_or((*scale * sum as f32).to_bits() as i32, |zero| -zero * sum);
            }
        }
    }
}

/// Runs all jobs, columns of y in parallel.
pub(super) fn run(cpu: &Cpu, x: &Prepared<'_>, jobs: &[Job<'_>], y: &Parts<'_, f32>) {
    let Some(k) = jobs.first().map(|job| job.w.shape()[1]) else { return };
    let group = (TASK / k.max(1)).next_multiple_of(2 * LANES).max(2 * LANES);
    let jobs: Vec<&Job<'_>> = jobs.iter().filter(|job| job.m > 0).collect();
    let starts: Vec<(usize, usize)> =
        jobs.iter().enumerate().flat_map(|(j, job)| (0..job.n).step_by(group).map(move |at| (j, at))).collect();
    for job in &jobs {
        let (x_last, y_last) = (job.x_first + (job.m - 1) * job.x_step, job.y_first + (job.m - 1) * job.y_row);
        assert!(x_last < x.rows() && y_last + job.n <= y.len() && job.n <= job.y_row);
    }
    let work: usize = jobs.iter().map(|job| job.n * k * job.m).sum();
    cpu.run_if(work > TASK, starts.len(), |task| {
        let (job, at) = (jobs[starts[task].0], starts[task].1);
        columns_of(cpu.isa(), x, job, at..job.n.min(at + group), y);
    });
}

simd_fn! {
    /// Computes some columns of y.
    fn columns_of<S>(s: S, x: &Prepared<'_>, job: &Job<'_>, columns: std::ops::Range<usize>, y: &Parts<'_, f32>) {
        match x {
            Prepared::Floats { x, k } => {
                // SAFETY: `run` checked that the rows of y lie within it, and tasks have disjoint columns.
                unsafe { float_columns(s, x, *k, job, columns, y) };
            }
            Prepared::Codes(x) => coded!(job.w.format(), F => {
                // SAFETY: as above.
                unsafe { coded_columns::<S, F>(s, x, job, columns, y) }
            }, _ => unreachable!("x was prepared for the format of w")),
        }
    }
}

/// Computes columns of y for a format of floats.
///
/// # Safety
/// The columns of y lie within it and are this call's alone.
#[inline(always)]
unsafe fn float_columns<S: Simd>(
    s: S,
    x: &[f32],
    k: usize,
    job: &Job<'_>,
    columns: std::ops::Range<usize>,
    y: &Parts<'_, f32>,
) {
    let width = panel_width::<S>();
    let mut rows = [0.0f32; 2 * LANES * FLOAT_DEPTH];
    let mut panel = [0.0f32; 2 * LANES * FLOAT_DEPTH];
    for at in columns.clone().step_by(width) {
        let n = width.min(columns.end - at);
        for from in (0..k).step_by(FLOAT_DEPTH) {
            let depth = FLOAT_DEPTH.min(k - from);
            for j in 0..n {
                job.w.decode_part(job.first + at + j, from, &mut rows[j * FLOAT_DEPTH..][..depth]);
            }
            for half in 0..2 {
                let from: *const u32 = rows[half * S::LANES * FLOAT_DEPTH..].as_ptr().cast();
                let to: *mut u32 = panel[half * S::LANES..].as_mut_ptr().cast();
                for p in (0..depth).step_by(S::LANES) {
                    // SAFETY: LANES rows and as many columns from p on lie in `rows`, FLOAT_DEPTH being a multiple of
                    // LANES, and their transposed in `panel`.
                    unsafe { s.transpose(from.wrapping_add(p), FLOAT_DEPTH, to.wrapping_add(p * width), width) };
                }
            }
            let left = Left { pointer: x[job.x_first * k + from..].as_ptr(), row: job.x_step * k, column: 1 };
            let right = Right { pointer: panel.as_ptr(), row: width, panel: 0 };
            let out = Output { pointer: y.pointer(job.y_first + at), row: job.y_row };
            // SAFETY: the panel has `depth` rows of `width`, and x and y are as the caller promises.
            unsafe { product(s, (job.m, n, depth), left, right, out, from > 0) };
        }
    }
}

/// Computes columns of y for a format of codes.
///
/// # Safety
/// As [`float_columns`].
#[inline(always)]
unsafe fn coded_columns<S: Simd, F: Coded>(
    s: S,
    x: &Codes,
    job: &Job<'_>,
    columns: std::ops::Range<usize>,
    y: &Parts<'_, f32>,
) {
    let elements = F::FORMAT.block_elements();
    let (lanes, subs) = (S::LANES, DEPTH / F::SUB);
    let (mut codes, mut code_panel) = ([0u8; LANES * DEPTH], [0u8; LANES * DEPTH]);
    let (mut scales, mut scale_panel) = ([0.0f32; LANES * 16], [0.0f32; LANES * 16]);
    let (mut shifts, mut shift_panel) = ([0.0f32; LANES * 16], [0.0f32; LANES * 16]);
    for at in columns.clone().step_by(lanes) {
        let n = lanes.min(columns.end - at);
        for from in (0..x.k).step_by(DEPTH) {
            let depth = DEPTH.min(x.k - from);
            for j in 0..n {
                let bytes = job.w.part(job.first + at + j, from, from + depth);
                // The same columns of the next rows if these were the last of this row, else the columns to come.
                let ahead =
                    if from + depth < x.k { bytes.len() } else { (lanes - 1) * job.w.row_bytes() + bytes.len() };
                for line in (0..bytes.len()).step_by(64) {
                    s.prefetch(bytes.as_ptr().wrapping_add(ahead + line).cast());
                }
                let blocks = bytes.chunks_exact(F::FORMAT.block_bytes());
                let codes = codes[j * DEPTH..][..DEPTH].chunks_exact_mut(elements);
                let scales = scales[j * 16..][..subs].chunks_exact_mut(elements / F::SUB);
                let shifts = shifts[j * 16..][..subs].chunks_exact_mut(elements / F::SUB);
                for (((block, codes), scales), shifts) in blocks.zip(codes).zip(scales).zip(shifts) {
                    F::expand(block, codes, scales, shifts);
                }
            }
            // SAFETY: there are LANES rows of 64 words, and of 16 scales and shifts, as many of which as are asked for,
            // rounded up to LANES, lie in the rows, and transposed in the panels.
            unsafe {
                side_by_side(s, codes.as_ptr().cast(), DEPTH / 4, depth / 4, code_panel.as_mut_ptr().cast());
                let count = depth / F::SUB;
                side_by_side(s, scales.as_ptr().cast(), 16, count, scale_panel.as_mut_ptr().cast());
                if F::SHIFTED {
                    side_by_side(s, shifts.as_ptr().cast(), 16, count, shift_panel.as_mut_ptr().cast());
                }
            }
            let panel =
                Panel { codes: &code_panel, scales: &scale_panel, shifts: &shift_panel, from, depth, columns: n };
            let mut i = 0;
            while i < job.m {
                let c = y.pointer(job.y_first + i * job.y_row + at);
                let row = job.x_first + i * job.x_step;
                // SAFETY: the caller's promise.
                unsafe {
                    i += match job.m - i {
                        8.. if S::TILE_ROWS >= 12 => rows::<S, F, 8>(s, x, row, job.x_step, &panel, c, job.y_row),
                        4.. => rows::<S, F, 4>(s, x, row, job.x_step, &panel, c, job.y_row),
                        2.. => rows::<S, F, 2>(s, x, row, job.x_step, &panel, c, job.y_row),
                        _ => rows::<S, F, 1>(s, x, row, job.x_step, &panel, c, job.y_row),
                    };
                }
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

/// Columns of W side by side, some terms deep.
struct Panel<'a> {
    /// [depth / 4, LANES, 4]
    codes: &'a [u8],
    /// [depth / SUB, LANES]
    scales: &'a [f32],
    shifts: &'a [f32],
    /// First term, number of terms, columns that exist.
    from: usize,
    depth: usize,
    columns: usize,
}

/// Computes R rows of a panel, continuing their sums if it is not the first, and returns R.
#[inline(always)]
#[allow(clippy::too_many_arguments)]
unsafe fn rows<S: Simd, F: Coded, const R: usize>(
    s: S,
    x: &Codes,
    row: usize,
    step: usize,
    panel: &Panel<'_>,
    y: *mut f32,
    y_row: usize,
) -> usize {
    let (k, from) = (x.k, panel.from);
    let at: [usize; R] = std::array::from_fn(|r| row + r * step);
    let codes = at.map(|row| &x.codes.as_slice::<i8>()[row * k + from..][..panel.depth]);
    let scales = at.map(|row| &x.scales.as_slice::<f32>()[(row * k + from) / BLOCK..][..panel.depth / BLOCK]);
    let constants = at.map(|row| &x.constants.as_slice::<i32>()[(row * k + from) / F::SUB..][..panel.depth / F::SUB]);
    let mut sums = [s.splat(0.0); R];
    if from > 0 {
        for (r, sum) in sums.iter_mut().enumerate() {
            // SAFETY: the caller's promise.
            *sum = unsafe { s.load_ptr_n(y.wrapping_add(r * y_row), panel.columns) };
        }
    }
    for sub in 0..panel.depth / F::SUB {
        let mut integers = [s.splat_int(0); R];
        if !F::SHIFTED {
            for (integer, constants) in integers.iter_mut().zip(constants) {
                *integer = s.splat_int(constants[sub]);
            }
        }
        for p in (0..F::SUB).step_by(4) {
            let term = sub * F::SUB + p;
            // SAFETY: the panel has LANES words of four codes for every four terms, and a row of x has `depth` codes.
            unsafe {
                let w = s.load_words(panel.codes.as_ptr().add(term * S::LANES));
                for (integer, codes) in integers.iter_mut().zip(codes) {
                    let q = codes.as_ptr().add(term).cast::<i32>().read_unaligned();
                    *integer =
                        if F::ZERO == 128 { s.dot::<true>(*integer, w, q) } else { s.dot::<false>(*integer, w, q) };
                }
            }
        }
        let scale = s.load(&panel.scales[sub * S::LANES..]);
        for (r, sum) in sums.iter_mut().enumerate() {
            let both = s.mul(scale, s.splat(scales[r][sub * F::SUB / BLOCK]));
            *sum = s.fma(s.to_float(integers[r]), both, *sum);
            if F::SHIFTED {
                let shift = s.load(&panel.shifts[sub * S::LANES..]);
                *sum = s.fma(shift, s.splat(f32::from_bits(constants[r][sub] as u32)), *sum);
            }
        }
    }
    for (r, &sum) in sums.iter().enumerate() {
        // SAFETY: the caller's promise.
        unsafe { s.store_ptr_n(sum, y.wrapping_add(r * y_row), panel.columns) };
    }
    R
}

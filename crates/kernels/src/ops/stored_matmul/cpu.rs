//! The tuned product: a few hundred columns of 8 to 32 rows of W are laid side by side as the registers take them; then every
//! row of x passes over that panel. Where rows of W lie so already, few rows of x take them from there.

use std::ops::Range;

use minke_spec::Format;

use crate::amx::{Configured, SIDE, Tiles};
use crate::device::{Buffer, Cpu, Parts};
use crate::element::Element;
use crate::format::bf16::Bf16;
use crate::format::f16::F16;
use crate::format::panel::{AHEAD, DEPTH, LINE, Panel, UNIT, unpack_unit};
use crate::format::{Coding, Stored, decode_rows};
use crate::isa::Isa;
use crate::ops::bf16_matmul;
use crate::ops::cast::cpu::narrow_all;
use crate::ops::matmul::cpu::heads::strided_nn;
use crate::ops::matmul::cpu::matmul_nn_add;
use crate::ops::matmul::{HeadSlice, Size};
use crate::ops::split::by_rows;
use crate::simd::{LANES, Simd, simd_fn};
use crate::tile::{self, Left, Output, Right, panel_width};

/// Elements of x that share a scale.
const BLOCK: usize = 32;
/// Columns of W that are decoded at once, of formats of floats.
const FLOAT_DEPTH: usize = 128;
/// Elements of W per task, at least.
const TASK: usize = 1 << 16;
/// Rows of x from which on a tile, which has 16, takes less time than they do by themselves.
const TILED: usize = 12;
/// Rows of x up to which codes are unpacked for every tile of them.
const FEW: usize = 16;
/// Panels of 16 columns that rows of x pass over together.
const PANELS: usize = 2;
/// Tasks per thread, at most, of products with few rows and with more: few enough that what a task begins with costs nothing, enough
/// that threads end together.
const TASKS: [usize; 2] = [16, 64];

/// One of the products of a call: some rows of a matrix with some rows of x.
struct Product<'a> {
    w: Stored<'a>,
    /// First row of `w`, and how many.
    first: usize,
    n: usize,
    x: &'a Prepared<'a>,
    /// First row of x, how far it is to the next, and how many.
    x_first: usize,
    x_step: usize,
    m: usize,
    y: &'a Parts<'a, f32>,
    /// Where element (0, 0) of y lies, and how far it is to the next row.
    y_first: usize,
    y_row: usize,
}

/// x, rounded as the format of the weights requires.
enum Prepared<'a> {
    Floats { x: &'a [f32], k: usize },
    Codes(Codes),
}

/// Rows of x as codes. The columns of a panel lie together, row by row, so that few lines of the cache hold what a panel meets.
struct Codes {
    coding: Coding,
    m: usize,
    k: usize,
    /// Rows behind the last one that tiles may read.
    spare: usize,
    /// [k / 256, m, 256] of i8; of the last columns there may be fewer than 256
    codes: Buffer,
    /// [k / 256, m, 8]
    scales: Buffer,
    /// What a row adds to the sum of a sub-block whatever the codes of W are: of formats around zero `-zero * sum of q`, as
    /// i32; of shifted formats what their shift is multiplied with, `scale * sum of q`, as the bits of an f32.
    /// [k / 256, m, 256 / sub]
    constants: Buffer,
}

/// Some columns of a row of x as codes.
#[derive(Clone, Copy, Default)]
struct Columns<'a> {
    codes: &'a [i8],
    scales: &'a [f32],
    constants: &'a [i32],
}

impl<'a> Prepared<'a> {
    /// Rows of x for products that take every `step`-th.
    fn new(cpu: &Cpu, x: &'a [f32], k: usize, step: usize, format: Format) -> Self {
        match Coding::of(format) {
            Some(coding) => {
                let spare = if cpu.isa().tiles().is_some() { step * (SIDE - 1) } else { 0 };
                Self::Codes(Codes::new(cpu, x, k, coding, spare))
            }
            None => Self::Floats { x, k },
        }
    }

    fn rows(&self) -> usize {
        match self {
            Self::Floats { x, k } => x.len().checked_div(*k).unwrap_or(usize::MAX),
            Self::Codes(codes) => codes.m,
        }
    }
}

impl Codes {
    fn new(cpu: &Cpu, x: &[f32], k: usize, coding: Coding, spare: usize) -> Self {
        let m = x.len().checked_div(k).unwrap_or(0);
        let room = m * k + spare * DEPTH.min(k);
        let (mut codes, mut scales) = (cpu.buffer::<i8>(room), cpu.buffer::<f32>(room / BLOCK));
        let mut constants = cpu.buffer::<i32>(room / coding.sub);
        {
            let codes = Parts::new(codes.as_mut_slice::<i8>());
            let scales = Parts::new(scales.as_mut_slice::<f32>());
            let constants = Parts::new(constants.as_mut_slice::<i32>());
            by_rows::<u8, 0>(cpu, m, k, [], |rows, []| {
                for row in rows {
                    for (part, x) in x[row * k..][..k].chunks(DEPTH).enumerate() {
                        let (at, len) = (part * DEPTH * m + row * x.len(), x.len());
                        // SAFETY: each row is one task's.
                        unsafe {
                            let codes = codes.part(at, len);
                            let scales = scales.part(at / BLOCK, len / BLOCK);
                            let constants = constants.part(at / coding.sub, len / coding.sub);
                            round(cpu.isa(), x, &coding, codes, scales, constants);
                        }
                    }
                }
            });
        }
        Self { coding, m, k, spare, codes, scales, constants }
    }

    /// R rows, `step` apart, in the columns of a panel.
    #[inline(always)]
    fn rows_of<const R: usize, const SUB: usize>(&self, row: usize, step: usize, panel: &Panel) -> [Columns<'_>; R] {
        let mut columns = [Columns::default(); R];
        for (r, columns) in columns.iter_mut().enumerate() {
            *columns = self.columns::<SUB>(row + r * step, panel.from, panel.depth);
        }
        columns
    }

    /// A row in the columns of a panel.
    #[inline(always)]
    fn columns<const SUB: usize>(&self, row: usize, from: usize, depth: usize) -> Columns<'_> {
        let start = from * self.m + row * depth;
        Columns {
            codes: &self.codes.as_slice()[start..][..depth],
            scales: &self.scales.as_slice()[start / BLOCK..][..depth / BLOCK],
            constants: &self.constants.as_slice()[start / SUB..][..depth / SUB],
        }
    }
}

simd_fn! {
    /// Rounds columns of a row of x, block by block.
    fn round<S>(
        _s: S,
        x: &[f32],
        coding: &Coding,
        codes: &mut [i8],
        scales: &mut [f32],
        constants: &mut [i32],
    ) {
        // Adding 1.5 * 2^23 leaves the nearest integer in the low bits, ties to even.
        const MAGIC: f32 = 12_582_912.0;
        let blocks = x.as_chunks::<BLOCK>().0.iter().zip(codes.as_chunks_mut::<BLOCK>().0);
        for (((x, codes), scale), constants) in blocks.zip(scales).zip(constants.chunks_exact_mut(BLOCK / coding.sub)) {
            // Magnitudes order like their bits; not a number is the largest and stays in the scale.
            let largest = f32::from_bits(x.iter().fold(0, |largest, x| largest.max(x.to_bits() & 0x7fff_ffff)));
            *scale = largest / 127.0;
            let inverse = if *scale > 0.0 { 1.0 / *scale } else { 0.0 };
            for (x, code) in x.iter().zip(&mut *codes) {
                *code = (x * inverse + MAGIC).to_bits() as i8;
            }
            for (codes, constant) in codes.chunks_exact(coding.sub).zip(constants) {
                let sum: i32 = codes.iter().map(|&q| i32::from(q)).sum();
                *constant = coding.zero.map_or((*scale * sum as f32).to_bits() as i32, |zero| -i32::from(zero) * sum);
            }
        }
    }
}

pub(super) fn matmul<const N: usize>(cpu: &Cpu, x: &[f32], w: [Stored<'_>; N], m: usize, y: [&mut [f32]; N]) {
    let mut prepared: Vec<(Format, Prepared<'_>)> = Vec::with_capacity(N);
    for w in &w {
        if prepared.iter().all(|(format, _)| *format != w.format()) {
            prepared.push((w.format(), Prepared::new(cpu, x, w.shape()[1], 1, w.format())));
        }
    }
    let parts = y.map(Parts::new);
    let products: Vec<Product<'_>> = w
        .into_iter()
        .zip(&parts)
        .map(|(w, y)| {
            let [n, _] = w.shape();
            let of_format = prepared.iter().find(|(format, _)| *format == w.format());
            let (_, x) = of_format.expect("invariant: x was prepared for every format");
            Product { w, first: 0, n, x, x_first: 0, x_step: 1, m, y, y_first: 0, y_row: n }
        })
        .collect();
    run(cpu, &products);
}

pub(super) fn embed(cpu: &Cpu, w: Stored<'_>, ids: &[u32], y: &mut [f32]) {
    let [_, k] = w.shape();
    by_rows(cpu, ids.len(), k, [(y, k)], |rows, [y]| {
        for (id, y) in ids[rows].iter().zip(y.chunks_exact_mut(k.max(1))) {
            decode_rows(cpu.isa(), w, *id as usize, y);
        }
    });
}

pub(super) fn grouped_matmul<'a>(
    cpu: &Cpu,
    x: &[f32],
    experts: impl Fn(usize) -> Stored<'a>,
    offsets: &[u32],
    [n, k]: [usize; 2],
    y: &mut [f32],
) {
    let m = offsets.last().map_or(0, |&m| m as usize);
    assert!(offsets.first() == Some(&0) && offsets.is_sorted());
    assert_eq!((x.len(), y.len()), (m * k, m * n));
    let mut chosen = (0..offsets.len() - 1).filter(|&e| offsets[e] < offsets[e + 1]).peekable();
    let Some(format) = chosen.peek().map(|&e| experts(e).format()) else { return };
    let (x, y) = (Prepared::new(cpu, x, k, 1, format), Parts::new(y));
    let product = |e: usize| {
        let (start, w) = (offsets[e] as usize, experts(e));
        assert_eq!((w.shape(), w.format()), ([n, k], format), "experts of one layer have one shape and one format");
        let m = offsets[e + 1] as usize - start;
        Product { w, first: 0, n, x: &x, x_first: start, x_step: 1, m, y: &y, y_first: start * n, y_row: n }
    };
    let products: Vec<Product<'_>> = chosen.map(product).collect();
    run(cpu, &products);
}

pub(super) fn heads_matmul(cpu: &Cpu, x: &[f32], w: Stored<'_>, slice: HeadSlice, tokens: usize, y: &mut [f32]) {
    let HeadSlice { heads, per_head, first, count, latent } = slice;
    let (x, y) = (Prepared::new(cpu, x, latent, heads, w.format()), Parts::new(y));
    let product = |h: usize| Product {
        w,
        first: h * per_head + first,
        n: count,
        x: &x,
        x_first: h,
        x_step: heads,
        m: tokens,
        y: &y,
        y_first: h * count,
        y_row: heads * count,
    };
    let products: Vec<Product<'_>> = (0..heads).map(product).collect();
    run(cpu, &products);
}

pub(super) fn heads_matmul_nn(cpu: &Cpu, x: &[f32], w: Stored<'_>, slice: HeadSlice, tokens: usize, y: &mut [f32]) {
    let HeadSlice { heads, per_head, first, count, latent } = slice;
    let parts = Parts::new(y);
    cpu.run(heads, |h| {
        let mut rows = cpu.buffer::<f32>(count * latent);
        decode_rows(cpu.isa(), w, h * per_head + first, rows.as_mut_slice());
        let (size, rows) = (Size { m: tokens, n: latent, k: count }, rows.as_slice());
        // SAFETY: heads write disjoint columns of y.
        unsafe { strided_nn(cpu, size, x, (h * count, heads * count), rows, &parts, (h * latent, heads * latent)) };
    });
}

/// Elements of W that are decoded at once for `dy W`.
const BAND: usize = 1 << 20;

pub(super) fn matmul_nn(cpu: &Cpu, dy: &[f32], w: Stored<'_>, dx: &mut [f32]) {
    let [n, k] = w.shape();
    dx.fill(0.0);
    if dx.is_empty() || n == 0 {
        return;
    }
    let rows = (BAND / k).clamp(1, n);
    let mut band = cpu.buffer::<f32>(rows * k);
    for first in (0..n).step_by(rows) {
        let band = &mut band.as_mut_slice()[..rows.min(n - first) * k];
        decode(cpu, w, first, band);
        matmul_nn_add(cpu, dy, (first, n), band, k, dx);
    }
}

pub(super) fn bf16_matmul_nn(cpu: &Cpu, dy: &[f32], w: Stored<'_>, dx: &mut [f32]) {
    let [n, k] = w.shape();
    bf16_matmul::cpu::matmul_nn(cpu, dy, (n, k), dx, |first, band| {
        let mut wide = cpu.buffer::<f32>(band.len());
        decode(cpu, w, first, wide.as_mut_slice());
        narrow_all(cpu, wide.as_slice(), band);
    });
}

pub(super) fn split_heads_matmul(
    cpu: &Cpu,
    x: &[f32],
    keys: Stored<'_>,
    values: Stored<'_>,
    heads: usize,
    y: &mut [f32],
) {
    let ([_, n], [value_rows, latent]) = (keys.shape(), values.shape());
    let v = value_rows / heads;
    let (m, width) = (x.len() / latent, n + v);
    let parts = Parts::new(y);
    cpu.run(heads, |h| {
        let mut rows = cpu.buffer::<f32>(latent * n);
        decode_rows(cpu.isa(), keys, h * latent, rows.as_mut_slice());
        let (size, rows) = (Size { m, n, k: latent }, rows.as_slice());
        // SAFETY: heads write disjoint columns of y.
        unsafe { strided_nn(cpu, size, x, (0, latent), rows, &parts, (h * width, heads * width)) };
    });
    let x = Prepared::new(cpu, x, latent, 1, values.format());
    let product = |h: usize| Product {
        w: values,
        first: h * v,
        n: v,
        x: &x,
        x_first: 0,
        x_step: 1,
        m,
        y: &parts,
        y_first: h * width + n,
        y_row: heads * width,
    };
    let products: Vec<Product<'_>> = (0..heads).map(product).collect();
    run(cpu, &products);
}

pub(super) fn decode(cpu: &Cpu, w: Stored<'_>, first: usize, out: &mut [f32]) {
    let [_, k] = w.shape();
    by_rows(cpu, out.len() / k, k, [(out, k)], |rows, [out]| decode_rows(cpu.isa(), w, first + rows.start, out));
}

/// Runs all products, columns of y in parallel. They are of one k.
fn run(cpu: &Cpu, products: &[Product<'_>]) {
    let Some(k) = products.first().map(|product| product.w.shape()[1]) else { return };
    let products: Vec<&Product<'_>> = products.iter().filter(|product| product.m > 0).collect();
    let columns: usize = products.iter().map(|product| product.n).sum();
    let tasks = TASKS[usize::from(products.iter().any(|product| product.m > FEW))];
    let group = (TASK / k.max(1)).max(columns / (tasks * cpu.threads())).max(1).next_multiple_of(2 * LANES);
    let starts: Vec<(usize, usize)> = products
        .iter()
        .enumerate()
        .flat_map(|(j, product)| (0..product.n).step_by(group).map(move |at| (j, at)))
        .collect();
    for product in &products {
        let (x_last, y_last) =
            (product.x_first + (product.m - 1) * product.x_step, product.y_first + (product.m - 1) * product.y_row);
        assert!(x_last < product.x.rows() && y_last + product.n <= product.y.len() && product.n <= product.y_row);
    }
    let work: usize = products.iter().map(|product| product.n * k * product.m).sum();
    cpu.run_if(work > TASK, starts.len(), |task| {
        let (product, at) = (products[starts[task].0], starts[task].1);
        let columns = at..product.n.min(at + group);
        match product.x {
            // SAFETY: x and y have these rows, checked above, and tasks have disjoint columns.
            Prepared::Floats { x, k } => unsafe { float_columns(cpu.isa(), x, *k, product, columns) },
            // SAFETY: as above.
            Prepared::Codes(x) => unsafe { coded_columns(cpu.isa(), x, product, columns) },
        }
    });
}

simd_fn! {
    /// Decodes columns `from..from + depth` of n rows of W, from row `first` on, and lays them side by side.
    fn decode_panel<S>(s: S, w: Stored<'_>, first: usize, n: usize, from: usize, depth: usize, rows: &mut [f32], panel: &mut [f32]) {
        let width = panel_width::<S>();
        assert!(depth <= FLOAT_DEPTH && n <= width && rows.len() == width * FLOAT_DEPTH && panel.len() == rows.len());
        for (j, row) in rows.chunks_exact_mut(FLOAT_DEPTH).take(n).enumerate() {
            if w.lanes() > 0 {
                w.decode_halves(first + j, from, &mut row[..depth]);
            } else {
                w.decode_floats(first + j, from, &mut row[..depth]);
            }
        }
        for half in 0..2 {
            let from: *const u32 = rows[half * S::LANES * FLOAT_DEPTH..].as_ptr().cast();
            let to: *mut u32 = panel[half * S::LANES..].as_mut_ptr().cast();
            for p in (0..depth).step_by(S::LANES) {
                // SAFETY: LANES rows and as many columns from p on lie in `rows`, FLOAT_DEPTH being a multiple of LANES,
                // and their transposed in `panel`.
                unsafe { s.transpose(from.wrapping_add(p), FLOAT_DEPTH, to.wrapping_add(p * width), width) };
            }
        }
    }

    /// Multiplies rows of x with a panel of floats.
    ///
    /// # Safety
    /// As [`product`].
    unsafe fn float_product<S>(s: S, shape: (usize, usize, usize), a: Left, b: Right, c: Output, accumulate: bool) {
        // SAFETY: the caller's promise.
        unsafe { tile::product(s, shape, a, b, c, accumulate) };
    }

    /// Takes zero from the codes of a panel, which have a sign then.
    fn take_zero<S>(_s: S, coding: &Coding, panel: &mut Panel) {
        if let Some(zero) = coding.zero {
            panel.codes.iter_mut().for_each(|code| *code = code.wrapping_sub(zero));
        }
    }

    /// Computes columns of y for rows of halves that lie as products take them.
    ///
    /// # Safety
    /// As [`float_columns`]; groups of interleaved rows of T begin with the first column.
    unsafe fn half_columns<S, T: Element>(s: S, x: &[f32], k: usize, product: &Product<'_>, columns: Range<usize>) {
        let Product { w, first, x_first, x_step, m, y, y_first, y_row, .. } = *product;
        let width = panel_width::<S>();
        // Few rows read a group at once, for many it is a part that stays in the first cache.
        let depth = if m <= S::TILE_ROWS { k } else { FLOAT_DEPTH };
        for from in (0..k).step_by(depth) {
            for at in columns.clone().step_by(width) {
                let (n, depth) = (width.min(columns.end - at), depth.min(k - from));
                let group = &w.group((first + at) / width)[from * width..][..depth * width];
                let left = Left { pointer: x[x_first * k + from..].as_ptr(), row: x_step * k, column: 1 };
                let right = Right { pointer: group.as_ptr().cast::<T>(), row: width, panel: 0 };
                let out = Output { pointer: y.pointer(y_first + at), row: y_row };
                // SAFETY: the caller's promise; the group has `width` columns.
                unsafe { tile::product(s, (m, n, depth), left, right, out, from > 0) };
            }
        }
    }

    /// Twice the lanes of a register: columns of y for which floats are decoded at once.
    fn float_width<S>(_s: S) -> usize {
        2 * S::LANES
    }

    /// Makes a panel that of rows of W from row `first` on.
    fn fill<S>(s: S, coding: &Coding, w: Stored<'_>, first: usize, panel: &mut Panel) {
        panel.fill(s, coding, w, first);
    }

    /// Computes columns of y for a format of codes that are summed as such of BITS by SUB, and shifted or not.
    ///
    /// # Safety
    /// As [`float_columns`].
    unsafe fn columns_of<S; const SUB: usize, const BITS: usize, const SHIFTED: bool>(
        s: S,
        x: &Codes,
        product: &Product<'_>,
        columns: Range<usize>,
        tiles: Option<Tiles>,
    ) {
        let Product { w, first, x_first, x_step, m, y, y_first, y_row, .. } = *product;
        if S::LANES == SIDE && m >= SIDE && let Some(tiles) = tiles {
            let mut tiled = Tiled::new(tiles, SUB);
            // Rows behind the last whole tile, if they are too few to make one more worth it.
            let rest = if m % SIDE < TILED { m % SIDE } else { 0 };
            let (whole, rest_first) = (m - rest, x_first + (m - rest) * x_step);
            for at in columns.clone().step_by(PANELS * SIDE) {
                let y = y.pointer(y_first + at);
                let rest_y = y.wrapping_add(whole * y_row);
                for from in (0..x.k).step_by(DEPTH) {
                    let mut count = 0;
                    for (panel, at) in tiled.panels.iter_mut().zip((at..columns.end).step_by(SIDE)) {
                        (panel.from, panel.depth) = (from, DEPTH.min(x.k - from));
                        panel.columns = SIDE.min(columns.end - at);
                        fill(s.isa(), &x.coding, w, first + at, panel);
                        let y = rest_y.wrapping_add(count * SIDE);
                        // SAFETY: the caller's promise, for the panel's columns.
                        unsafe {
                            let codes = &panel.codes;
                            all_rows::<S, SUB, BITS, SHIFTED>(s, x, rest_first, x_step, rest, codes, panel, &[], y, y_row);
                        }
                        take_zero(s.isa(), &x.coding, panel);
                        tiled.ahead[count] = panel.bytes_ahead(&x.coding, w, first + at);
                        count += 1;
                    }
                    // SAFETY: the caller's promise, for the columns of the panels.
                    unsafe { tiled_rows::<S, SUB, SHIFTED>(s, &mut tiled, x, x_first, x_step, whole, count, y, y_row) };
                }
            }
            return;
        }
        let mut panel = Panel::new();
        for at in columns.clone().step_by(S::LANES) {
            panel.columns = S::LANES.min(columns.end - at);
            for from in (0..x.k).step_by(DEPTH) {
                (panel.from, panel.depth) = (from, DEPTH.min(x.k - from));
                let y = y.pointer(y_first + at);
                // Few rows take their codes from where they lie, which costs less than to store and load a panel.
                let few = m == 1 || S::TILE_ROWS >= 12 && m <= FEW && x.coding.bits < 8;
                let as_they_lie = few || x.coding.bits == 8;
                let packed = if as_they_lie { panel.packed_codes(s, &x.coding, w, first + at) } else { None };
                // They fetch by themselves.
                let ahead = if !few { panel.bytes_ahead(&x.coding, w, first + at) } else { &[] };
                // SAFETY: the caller's promise, for the panel's columns.
                unsafe {
                    match packed {
                        Some(packed) if few => {
                            few_rows::<S, SUB, BITS, SHIFTED>(s, x, x_first, x_step, m, packed, &panel, y, y_row);
                        }
                        // Codes of 8 bits lie as they are multiplied.
                        Some(packed) => {
                            all_rows::<S, SUB, BITS, SHIFTED>(s, x, x_first, x_step, m, packed, &panel, ahead, y, y_row);
                        }
                        None => {
                            fill(s.isa(), &x.coding, w, first + at, &mut panel);
                            let codes = &panel.codes;
                            all_rows::<S, SUB, BITS, SHIFTED>(s, x, x_first, x_step, m, codes, &panel, ahead, y, y_row);
                        }
                    }
                }
            }
        }
    }
}

/// Computes columns of y for a format of codes.
///
/// # Safety
/// As [`float_columns`].
unsafe fn coded_columns(isa: Isa, x: &Codes, product: &Product<'_>, columns: Range<usize>) {
    let tiles = isa.tiles();
    // SAFETY: the caller's promise.
    unsafe {
        match (x.coding.sub, x.coding.zero.is_none(), x.coding.product_bits()) {
            (16, true, ..=4) => columns_of::<16, 4, true>(isa, x, product, columns, tiles),
            (32, true, ..=4) => columns_of::<32, 4, true>(isa, x, product, columns, tiles),
            (32, true, 5) => columns_of::<32, 5, true>(isa, x, product, columns, tiles),
            (16, false, ..=4) => columns_of::<16, 4, false>(isa, x, product, columns, tiles),
            (16, false, 6) => columns_of::<16, 6, false>(isa, x, product, columns, tiles),
            (16, false, 7) => columns_of::<16, 7, false>(isa, x, product, columns, tiles),
            (32, false, ..=4) => columns_of::<32, 4, false>(isa, x, product, columns, tiles),
            (32, false, 5) => columns_of::<32, 5, false>(isa, x, product, columns, tiles),
            (32, false, 7) => columns_of::<32, 7, false>(isa, x, product, columns, tiles),
            (32, false, 8) => columns_of::<32, 8, false>(isa, x, product, columns, tiles),
            other => unreachable!("no format is summed as {other:?}"),
        }
    }
}

/// Computes columns of y for a format of floats.
///
/// # Safety
/// x and y have the rows of the product, and its columns of y are this call's alone.
unsafe fn float_columns(isa: Isa, x: &[f32], k: usize, product: &Product<'_>, columns: Range<usize>) {
    let width = float_width(isa);
    let w = product.w;
    if w.lanes() > 0 && (product.first + columns.start).is_multiple_of(w.lanes()) {
        assert_eq!(w.lanes(), width, "rows interleaved for registers of other lanes");
        // SAFETY: the caller's promise; the groups begin there.
        return unsafe {
            match w.format() {
                Format::F16 => half_columns::<F16>(isa, x, k, product, columns),
                _ => half_columns::<Bf16>(isa, x, k, product, columns),
            }
        };
    }
    let mut rows = [0.0f32; 2 * LANES * FLOAT_DEPTH];
    let mut panel = [0.0f32; 2 * LANES * FLOAT_DEPTH];
    let (rows, panel) = (&mut rows[..width * FLOAT_DEPTH], &mut panel[..width * FLOAT_DEPTH]);
    for at in columns.clone().step_by(width) {
        let n = width.min(columns.end - at);
        for from in (0..k).step_by(FLOAT_DEPTH) {
            let depth = FLOAT_DEPTH.min(k - from);
            decode_panel(isa, product.w, product.first + at, n, from, depth, rows, panel);
            let left = Left { pointer: x[product.x_first * k + from..].as_ptr(), row: product.x_step * k, column: 1 };
            let right = Right { pointer: panel.as_ptr(), row: width, panel: 0 };
            let out = Output { pointer: product.y.pointer(product.y_first + at), row: product.y_row };
            // SAFETY: the caller's promise; the panel has `depth` rows of `n` columns.
            unsafe { float_product(isa, (product.m, n, depth), left, right, out, from > 0) };
        }
    }
}

/// Rows of x in the next tile, if so many are left. Tiles of one or two are slow: 5 rows are 3 and 2, not 4 and 1.
#[inline(always)]
fn tile_rows<S: Simd>(left: usize) -> usize {
    match left {
        8.. if S::TILE_ROWS >= 12 => 8,
        1 | 2 => left,
        3 | 5 | 6 | 9 => 3,
        _ => 4,
    }
}

/// Multiplies m rows of x, `step` apart, with a panel of these codes, as many at a time as the registers hold, and continues their sums
/// in y if it is not the first. Bytes of a later panel are fetched meanwhile.
///
/// # Safety
/// y has these rows, `y_row` apart, with the panel's columns, and they are this call's alone.
#[inline(always)]
#[allow(clippy::too_many_arguments)]
unsafe fn all_rows<S: Simd, const SUB: usize, const BITS: usize, const SHIFTED: bool>(
    s: S,
    x: &Codes,
    row: usize,
    step: usize,
    m: usize,
    codes: &[u8],
    panel: &Panel,
    ahead: &[u8],
    y: *mut f32,
    y_row: usize,
) {
    let mut i = 0;
    while i < m {
        let (row, y, ahead) = (row + i * step, y.wrapping_add(i * y_row), if i == 0 { ahead } else { &[] });
        // SAFETY: the caller's promise.
        unsafe {
            i += match tile_rows::<S>(m - i) {
                8 if S::TILE_ROWS >= 12 => {
                    rows::<S, 8, SUB, BITS, SHIFTED>(s, x, row, step, codes, panel, ahead, y, y_row)
                }
                1 => rows::<S, 1, SUB, BITS, SHIFTED>(s, x, row, step, codes, panel, ahead, y, y_row),
                2 => rows::<S, 2, SUB, BITS, SHIFTED>(s, x, row, step, codes, panel, ahead, y, y_row),
                3 => rows::<S, 3, SUB, BITS, SHIFTED>(s, x, row, step, codes, panel, ahead, y, y_row),
                _ => rows::<S, 4, SUB, BITS, SHIFTED>(s, x, row, step, codes, panel, ahead, y, y_row),
            };
        }
    }
}

/// Multiplies a few rows of x with columns of interleaved rows of W, whose codes are multiplied as they are unpacked.
///
/// # Safety
/// As [`all_rows`]; `packed` are the codes of these columns, those of the panel, whose scales and shifts they have.
#[inline(always)]
#[allow(clippy::too_many_arguments)]
unsafe fn few_rows<S: Simd, const SUB: usize, const BITS: usize, const SHIFTED: bool>(
    s: S,
    x: &Codes,
    row: usize,
    step: usize,
    m: usize,
    packed: &[u8],
    panel: &Panel,
    y: *mut f32,
    y_row: usize,
) {
    let mut i = 0;
    while i < m {
        let (row, y, first) = (row + i * step, y.wrapping_add(i * y_row), i == 0);
        // SAFETY: the caller's promise.
        unsafe {
            i += match tile_rows::<S>(m - i) {
                1 => packed_rows::<S, 1, SUB, BITS, SHIFTED>(s, x, row, step, packed, panel, first, y, y_row),
                8 if S::TILE_ROWS >= 12 => {
                    packed_rows::<S, 8, SUB, BITS, SHIFTED>(s, x, row, step, packed, panel, first, y, y_row)
                }
                2 if S::TILE_ROWS >= 12 => {
                    packed_rows::<S, 2, SUB, BITS, SHIFTED>(s, x, row, step, packed, panel, first, y, y_row)
                }
                3 if S::TILE_ROWS >= 12 => {
                    packed_rows::<S, 3, SUB, BITS, SHIFTED>(s, x, row, step, packed, panel, first, y, y_row)
                }
                _ if S::TILE_ROWS >= 12 => {
                    packed_rows::<S, 4, SUB, BITS, SHIFTED>(s, x, row, step, packed, panel, first, y, y_row)
                }
                _ => unreachable!("few rows are one where registers are few"),
            };
        }
    }
}

/// Computes R of a few rows, continuing their sums if the panel is not the first, and returns R. The `first` ones fetch.
///
/// # Safety
/// As [`few_rows`].
#[inline(always)]
#[allow(clippy::too_many_arguments)]
unsafe fn packed_rows<S: Simd, const R: usize, const SUB: usize, const BITS: usize, const SHIFTED: bool>(
    s: S,
    x: &Codes,
    row: usize,
    step: usize,
    packed: &[u8],
    panel: &Panel,
    first: bool,
    y: *mut f32,
    y_row: usize,
) -> usize {
    // SAFETY: the caller's promise.
    unsafe {
        let columns = x.rows_of::<R, SUB>(row, step, panel);
        let mut sums = load_sums(s, panel, y, y_row);
        let sums_of = (&columns, &mut sums);
        match x.coding.bits {
            2 if BITS == 4 => add_packed::<S, R, 2, SUB, BITS, SHIFTED>(s, packed, panel, first, sums_of),
            3 if BITS == 4 => add_packed::<S, R, 3, SUB, BITS, SHIFTED>(s, packed, panel, first, sums_of),
            4 if BITS == 4 => add_packed::<S, R, 4, SUB, BITS, SHIFTED>(s, packed, panel, first, sums_of),
            5 if BITS == 5 => add_packed::<S, R, 5, SUB, BITS, SHIFTED>(s, packed, panel, first, sums_of),
            6 if BITS == 6 => add_packed::<S, R, 6, SUB, BITS, SHIFTED>(s, packed, panel, first, sums_of),
            8 if BITS == 8 && R == 1 => add_packed::<S, R, 8, SUB, BITS, SHIFTED>(s, packed, panel, first, sums_of),
            bits => unreachable!("codes of {bits} bits are interleaved and summed as such of {BITS}"),
        }
        store_sums(s, &sums, panel, y, y_row);
    }
    R
}

/// Adds the products of R rows of x with codes that lie in PACKED bits to their sums.
///
/// # Safety
/// `packed` are the codes of the panel.
#[inline(always)]
unsafe fn add_packed<
    S: Simd,
    const R: usize,
    const PACKED: usize,
    const SUB: usize,
    const BITS: usize,
    const SHIFTED: bool,
>(
    s: S,
    packed: &[u8],
    panel: &Panel,
    first: bool,
    (columns, sums): (&[Columns<'_>; R], &mut [S::V; R]),
) {
    assert_eq!(packed.len(), panel.depth / UNIT * PACKED * 4 * S::LANES);
    for (unit, packed) in packed.chunks_exact(PACKED * 4 * S::LANES).enumerate() {
        if R == 1 || first {
            for line in (0..PACKED * 4 * S::LANES).step_by(LINE) {
                s.prefetch(packed.as_ptr().wrapping_add(AHEAD + line));
            }
        }
        // Registers, once this is compiled.
        let mut words = [0u8; UNIT * LANES];
        // SAFETY: there are PACKED registers, and room for eight.
        unsafe { unpack_unit::<S, PACKED>(s, packed.as_ptr(), words.as_mut_ptr()) };
        for part in 0..UNIT / SUB {
            let (w, sub) = (words[part * SUB * S::LANES..].as_ptr(), unit * (UNIT / SUB) + part);
            // SAFETY: these are the words of a sub-block.
            unsafe { sub_block::<S, R, SUB, BITS, SHIFTED>(s, w, panel, sub, columns, sums) };
        }
    }
}

/// The sums of R rows of y so far: zeros for the first panel.
///
/// # Safety
/// As [`all_rows`].
#[inline(always)]
unsafe fn load_sums<S: Simd, const R: usize>(s: S, panel: &Panel, y: *const f32, y_row: usize) -> [S::V; R] {
    let mut sums = [s.splat(0.0); R];
    if panel.from > 0 {
        for (r, sum) in sums.iter_mut().enumerate() {
            // SAFETY: the caller's promise.
            *sum = unsafe { s.load_ptr_n(y.wrapping_add(r * y_row), panel.columns) };
        }
    }
    sums
}

/// Writes the sums of R rows of y. Masked stores are slow where the whole register is meant.
///
/// # Safety
/// As [`all_rows`].
#[inline(always)]
unsafe fn store_sums<S: Simd>(s: S, sums: &[S::V], panel: &Panel, y: *mut f32, y_row: usize) {
    for (r, &sum) in sums.iter().enumerate() {
        let y = y.wrapping_add(r * y_row);
        // SAFETY: the caller's promise.
        unsafe { if panel.columns == S::LANES { s.store_ptr(sum, y) } else { s.store_ptr_n(sum, y, panel.columns) } }
    }
}

/// Adds the products of a sub-block to the sums of R rows of x, of which these are the panel's columns.
///
/// # Safety
/// `w` is valid for LANES words of four codes for every four columns of a sub-block.
#[inline(always)]
unsafe fn sub_block<S: Simd, const R: usize, const SUB: usize, const BITS: usize, const SHIFTED: bool>(
    s: S,
    w: *const u8,
    panel: &Panel,
    sub: usize,
    x: &[Columns<'_>; R],
    sums: &mut [S::V; R],
) {
    let (mut integers, mut q) = ([s.splat_int(0); R], [std::ptr::null(); R]);
    for r in 0..R {
        if !(SHIFTED || BITS == 8 && S::CENTERED) {
            integers[r] = s.splat_int(x[r].constants[sub]);
        }
        q[r] = x[r].codes[sub * SUB..][..SUB].as_ptr();
    }
    let integers = match SUB {
        // SAFETY: the caller's promise; q are so many codes.
        16 => unsafe { s.dots::<R, 4, BITS>(integers, w, q) },
        // SAFETY: as above.
        _ => unsafe { s.dots::<R, 8, BITS>(integers, w, q) },
    };
    let scale = s.load(&panel.scales[sub * S::LANES..]);
    for (r, sum) in sums.iter_mut().enumerate() {
        let both = s.mul(scale, s.splat(x[r].scales[sub * SUB / BLOCK]));
        *sum = s.fma(s.to_float(integers[r]), both, *sum);
        if SHIFTED {
            let shift = s.load(&panel.shifts[sub * S::LANES..]);
            *sum = s.fma(shift, s.splat(f32::from_bits(x[r].constants[sub] as u32)), *sum);
        }
    }
}

/// Computes all rows of some panels whose codes have a sign, by tiles of 16 rows: what [`all_rows`] computes, to the bit.
///
/// # Safety
/// As [`all_rows`], for the columns of all panels from `y` on.
#[inline(always)]
#[allow(clippy::too_many_arguments)]
unsafe fn tiled_rows<S: Simd, const SUB: usize, const SHIFTED: bool>(
    s: S,
    tiled: &mut Tiled<'_>,
    x: &Codes,
    row: usize,
    step: usize,
    m: usize,
    count: usize,
    y: *mut f32,
    y_row: usize,
) {
    let Tiled { panels, ahead, integers, scales, constants, sizes } = tiled;
    let Panel { from, depth, .. } = panels[0];
    let subs = depth / SUB;
    assert!(row + (m - 1) * step < x.m && step * (SIDE - 1) <= x.spare);
    for i in (0..m).step_by(SIDE) {
        let (rows, start) = (SIDE.min(m - i), from * x.m + (row + i * step) * depth);
        let codes = x.codes.as_slice::<i8>()[start..].as_ptr();
        // SAFETY: scales and constants lie as codes do, with as many rows behind the last, and a row behind those.
        unsafe {
            let of_x = x.scales.as_slice::<u32>()[start / BLOCK..].as_ptr();
            s.transpose(of_x, step * (depth / BLOCK), scales.as_mut_ptr().cast(), SIDE);
            if SHIFTED {
                let of_x = x.constants.as_slice::<u32>()[start / SUB..].as_ptr();
                s.transpose(of_x, step * subs, constants.as_mut_ptr().cast(), SIDE);
            }
        }
        for (at, panel) in panels[..count].iter().enumerate() {
            let share = ahead[at].len().div_ceil(m.div_ceil(SIDE)).next_multiple_of(LINE);
            for line in (0..share).step_by(LINE) {
                s.prefetch(ahead[at].as_ptr().wrapping_add(i / SIDE * share + line));
            }
            let y = y.wrapping_add(i * y_row + at * SIDE);
            let mut sums = [s.splat(0.0); SIDE];
            if from > 0 {
                for (r, sum) in sums.iter_mut().enumerate() {
                    if r < rows {
                        // SAFETY: the caller's promise.
                        *sum = unsafe { s.load_ptr_n(y.wrapping_add(r * y_row), panel.columns) };
                    }
                }
            }
            // SAFETY: rows lie `step * depth` codes apart, with some behind the last; a panel has words of 16 columns.
            let product = |sub: usize, to: &mut [i32; SIDE * SIDE]| unsafe {
                let (a, b) = (codes.add(sub * SUB), panel.codes.as_ptr().add(sub * SUB * SIDE));
                sizes.product(a, step * depth, b, to.as_mut_ptr());
            };
            product(0, &mut integers[0]);
            product(1.min(subs - 1), &mut integers[1]);
            for sub in 0..subs {
                if sub + 2 < subs {
                    product(sub + 2, &mut integers[(sub + 2) % 4]);
                }
                let integers = &integers[sub % 4];
                let scale = s.load(&panel.scales[sub * S::LANES..]);
                let shift = if SHIFTED { s.load(&panel.shifts[sub * S::LANES..]) } else { scale };
                let of_x = &scales[sub * SUB / BLOCK];
                for r in 0..SIDE {
                    // SAFETY: a tile has 16 rows of 16 integers.
                    let products = unsafe { s.load_words(integers.as_ptr().add(r * SIDE).cast()) };
                    sums[r] = s.fma(s.to_float(products), s.mul(scale, s.splat(of_x[r])), sums[r]);
                    if SHIFTED {
                        sums[r] = s.fma(shift, s.splat(constants[sub][r]), sums[r]);
                    }
                }
            }
            // SAFETY: the caller's promise.
            unsafe { store_sums(s, &sums[..rows], panel, y, y_row) };
        }
    }
}

/// What products by tiles use, within lines of the cache.
#[repr(C, align(64))]
struct Tiled<'a> {
    /// Products of a sub-block, and of those behind it, because it takes a while until what a tile stored can be loaded.
    integers: [[i32; SIDE * SIDE]; 4],
    /// Scales and constants of 16 rows of x, by sub-block.
    scales: [[f32; SIDE]; SIDE],
    constants: [[f32; SIDE]; SIDE],
    panels: [Panel; PANELS],
    /// Bytes of later panels, which are fetched meanwhile.
    ahead: [&'a [u8]; PANELS],
    sizes: Configured,
}

impl Tiled<'_> {
    fn new(tiles: Tiles, sub: usize) -> Self {
        Self {
            integers: [[0; SIDE * SIDE]; 4],
            scales: [[0.0; SIDE]; SIDE],
            constants: [[0.0; SIDE]; SIDE],
            panels: std::array::from_fn(|_| Panel::new()),
            ahead: [&[]; PANELS],
            sizes: tiles.configure(SIDE, sub / 4),
        }
    }
}

/// Computes R rows of a panel of these codes, continuing their sums if it is not the first, and returns R.
///
/// # Safety
/// R rows of y from `y` on, `y_row` apart, are valid for the panel's columns and this call's alone.
#[inline(always)]
#[allow(clippy::too_many_arguments)]
unsafe fn rows<S: Simd, const R: usize, const SUB: usize, const BITS: usize, const SHIFTED: bool>(
    s: S,
    x: &Codes,
    row: usize,
    step: usize,
    codes: &[u8],
    panel: &Panel,
    ahead: &[u8],
    y: *mut f32,
    y_row: usize,
) -> usize {
    let depth = panel.depth;
    let columns = x.rows_of::<R, SUB>(row, step, panel);
    // SAFETY: the caller's promise.
    let mut sums = unsafe { load_sums::<S, R>(s, panel, y, y_row) };
    let share = ahead.len().div_ceil(depth / SUB).next_multiple_of(LINE);
    for sub in 0..depth / SUB {
        for line in (sub * share..ahead.len().min((sub + 1) * share)).step_by(LINE) {
            s.prefetch(ahead.as_ptr().wrapping_add(line));
        }
        let w = codes[sub * SUB * S::LANES..][..SUB * S::LANES].as_ptr();
        // SAFETY: the panel has LANES words of four codes for every four terms.
        unsafe { sub_block::<S, R, SUB, BITS, SHIFTED>(s, w, panel, sub, &columns, &mut sums) };
    }
    // SAFETY: the caller's promise.
    unsafe { store_sums(s, &sums, panel, y, y_row) };
    R
}

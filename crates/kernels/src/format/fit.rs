//! The scale, or the scale and minimum, with which numbers lose least when they become codes.
//!
//! ```text
//! value = scale * code - minimum        loss = sum of w (x - value)^2
//! ```
//!
//! For given codes the best scale and minimum are those of least squares; for a given scale and minimum the best codes are
//! the nearest. So a search takes many scales around the one that just covers the values, rounds, fits, rounds again, and
//! keeps what lost least. All candidates go through the values together, one per lane.
//!
//! Blocks of 256 store the scales and minimums of their parts as small integers, `scale = d * factor`: the same search finds
//! `d`, then every part tries the neighbours of its factor and minimum, then `d` is fitted to what came out.

use super::f16;
use crate::isa::Isa;
use crate::simd::{Simd, simd_fn};

/// Candidates that are tried at once.
const LANES: usize = 16;
/// How often candidates are rounded and fitted.
const ROUNDS: usize = 3;
/// How often a block's scales are fitted to its codes.
const BLOCK_ROUNDS: usize = 2;

/// What a minimum may be.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Minimum {
    /// There is none: codes have a sign.
    Absent,
    /// What is subtracted is not negative.
    Positive,
    /// Any number.
    Any,
}

/// What codes may stand for before they are scaled.
#[derive(Clone, Copy)]
pub(super) enum Levels {
    /// The integers from the first to the second, each its own code.
    Even(f32, f32),
    /// These, ascending; a code is a place in the list.
    Listed(&'static [f32; 16]),
}

impl Levels {
    /// The least and the largest, and how far two neighbours lie apart, about.
    fn extent(self) -> (f32, f32, f32) {
        match self {
            Self::Even(least, most) => (least, most, 1.0),
            Self::Listed(list) => (list[0], list[15], (list[15] - list[0]) / 15.0),
        }
    }

    /// The nearest level in every lane.
    #[inline(always)]
    fn nearest_all<S: Simd>(self, s: S, x: S::V) -> S::V {
        match self {
            Self::Even(least, most) => s.round(s.min(s.max(x, s.splat(least)), s.splat(most))),
            Self::Listed(list) => {
                // A step up behind every middle between two.
                let (zero, one, steep) = (s.splat(0.0), s.splat(1.0), s.splat(1e30));
                let mut level = s.splat(list[0]);
                for pair in list.windows(2) {
                    let behind = s.mul(s.sub(x, s.splat(0.5 * (pair[0] + pair[1]))), steep);
                    let step = s.mul(s.splat(pair[1] - pair[0]), s.min(s.max(behind, zero), one));
                    level = s.add(level, step);
                }
                level
            }
        }
    }

    /// The code of the nearest level.
    #[inline(always)]
    fn code(self, x: f32) -> i8 {
        match self {
            Self::Even(least, most) => nearest(x, (least, most)) as i8,
            Self::Listed(list) => list.windows(2).filter(|pair| x > 0.5 * (pair[0] + pair[1])).count() as i8,
        }
    }

    /// The level that a code stands for.
    #[inline(always)]
    fn level(self, code: i8) -> f32 {
        match self {
            Self::Even(..) => f32::from(code),
            Self::Listed(list) => list[code as usize & 15],
        }
    }
}

/// The numbers that a format of blocks of 256 has.
pub(super) struct Grid {
    /// Elements that share a factor.
    pub sub: usize,
    /// What codes may be.
    pub levels: Levels,
    /// The least and the largest factor.
    pub factors: (f32, f32),
    /// The largest minimum; 0 if there are none.
    pub minimums: f32,
}

/// What a block of 256 becomes: `value = d * factor * code - least * minimum`.
pub(super) struct Fitted {
    /// f16.
    pub d: u16,
    /// f16.
    pub least: u16,
    /// Per part.
    pub factors: [i8; 16],
    /// Per part.
    pub minimums: [u8; 16],
    /// Per element.
    pub codes: [i8; 256],
}

impl Fitted {
    /// Fits 256 values with their weights.
    pub(super) fn new(isa: Isa, x: &[f32], w: &[f32], grid: &Grid) -> Self {
        let mut out = Self { d: 0, least: 0, factors: [0; 16], minimums: [0; 16], codes: [0; 256] };
        block(isa, x, w, grid, &mut out);
        out
    }
}

/// A scale and a minimum per lane.
#[derive(Clone, Copy)]
struct Candidates {
    scale: [f32; LANES],
    minimum: [f32; LANES],
}

/// What rounding with each candidate gave: the loss, and the sums from which a better candidate follows.
struct Outcome {
    loss: [f32; LANES],
    wq: [f32; LANES],
    wqq: [f32; LANES],
    wqx: [f32; LANES],
}

/// The nearest integer within bounds, ties to even.
#[inline(always)]
fn nearest(x: f32, (least, most): (f32, f32)) -> f32 {
    // Adding 1.5 * 2^23 leaves an integer.
    const MAGIC: f32 = 12_582_912.0;
    let inside = if x > least { x } else { least };
    let inside = if inside < most { inside } else { most };
    (inside + MAGIC) - MAGIC
}

/// The inverse, or 0 if there is none: then every code is 0.
#[inline(always)]
fn inverse(x: f32) -> f32 {
    let inverse = 1.0 / x;
    if inverse.is_finite() { inverse } else { 0.0 }
}

/// Rounds the values with every candidate.
#[inline(always)]
fn round_all<S: Simd>(s: S, x: &[f32], w: &[f32], levels: Levels, c: &Candidates) -> Outcome {
    let inverses = c.scale.map(inverse);
    let mut out = Outcome { loss: [0.0; LANES], wq: [0.0; LANES], wqq: [0.0; LANES], wqx: [0.0; LANES] };
    let zero = s.splat(0.0);
    for at in (0..LANES).step_by(S::LANES) {
        let lanes = at..at + S::LANES;
        let (scale, minimum) = (s.load(&c.scale[lanes.clone()]), s.load(&c.minimum[lanes.clone()]));
        let inverse = s.load(&inverses[lanes.clone()]);
        let (mut loss, mut wq, mut wqq, mut wqx) = (zero, zero, zero, zero);
        for (&x, &w) in x.iter().zip(w) {
            let (x, w) = (s.splat(x), s.splat(w));
            let raised = s.add(x, minimum);
            let q = levels.nearest_all(s, s.mul(raised, inverse));
            let rest = s.sub(raised, s.mul(q, scale));
            let weighted = s.mul(w, q);
            // No fused operation: the same bits on every path.
            loss = s.add(loss, s.mul(w, s.mul(rest, rest)));
            wq = s.add(wq, weighted);
            wqq = s.add(wqq, s.mul(weighted, q));
            wqx = s.add(wqx, s.mul(weighted, x));
        }
        for (sums, to) in [(loss, &mut out.loss), (wq, &mut out.wq), (wqq, &mut out.wqq), (wqx, &mut out.wqx)] {
            s.store(sums, &mut to[lanes.clone()]);
        }
    }
    out
}

/// The candidates of least squares for the codes of an outcome; `w` and `wx` are sums over the values.
#[inline(always)]
fn fitted(outcome: &Outcome, w: f32, wx: f32, kind: Minimum) -> Candidates {
    let mut c = Candidates { scale: [0.0; LANES], minimum: [0.0; LANES] };
    for i in 0..LANES {
        let (wq, wqq, wqx) = (outcome.wq[i], outcome.wqq[i], outcome.wqx[i]);
        let alone = if wqq > 0.0 { wqx / wqq } else { 0.0 };
        let determinant = w * wqq - wq * wq;
        let both = kind != Minimum::Absent && determinant > 1e-5 * w * wqq;
        let scale = if both { (w * wqx - wx * wq) / determinant } else { alone };
        let minimum = if both { (scale * wq - wx) / w } else { 0.0 };
        let refused = kind == Minimum::Positive && (minimum < 0.0 || scale < 0.0);
        c.scale[i] = if refused { alone } else { scale };
        c.minimum[i] = if refused { 0.0 } else { minimum };
    }
    c
}

/// The scale and the minimum that lose least.
#[inline(always)]
fn search<S: Simd>(s: S, x: &[f32], w: &[f32], levels: Levels, kind: Minimum) -> (f32, f32) {
    let (mut least, mut most, mut sum, mut weighted) = (f32::INFINITY, f32::NEG_INFINITY, 0.0, 0.0);
    for (&x, &w) in x.iter().zip(w) {
        (least, most) = (least.min(x), most.max(x));
        sum += w;
        weighted += w * x;
    }
    if kind == Minimum::Positive {
        least = least.min(0.0);
    }
    let (lowest, highest, apart) = levels.extent();
    let mut c = Candidates { scale: [0.0; LANES], minimum: [0.0; LANES] };
    for i in 0..LANES {
        // From one code too few to one too many.
        let step = apart * (2.0 * (i / 2) as f32 / (LANES / 2 - 1) as f32 - 1.0);
        if kind == Minimum::Absent {
            // The number that is furthest from zero goes to either end of the codes, which need not be alike.
            let furthest = if -least > most { least } else { most };
            let end = if i % 2 == 0 && lowest < 0.0 { lowest - step } else { highest + step };
            c.scale[i] = furthest / end;
        } else {
            // All numbers, or those nearer to the middle.
            let cut = if i % 2 == 0 { 0.0 } else { 0.1 * (most - least) };
            c.minimum[i] = cut - least;
            c.scale[i] = (most - least - 2.0 * cut) / (highest + step);
            if kind == Minimum::Positive {
                c.minimum[i] = c.minimum[i].max(0.0);
            }
        }
    }
    let mut best = (f32::INFINITY, 0.0, 0.0);
    for _ in 0..ROUNDS {
        let outcome = round_all(s, x, w, levels, &c);
        for i in 0..LANES {
            if outcome.loss[i] < best.0 {
                best = (outcome.loss[i], c.scale[i], c.minimum[i]);
            }
        }
        c = fitted(&outcome, sum, weighted, kind);
    }
    (best.1, best.2)
}

/// The code of every value.
#[inline(always)]
fn codes_of(x: &[f32], scale: f32, minimum: f32, levels: Levels, codes: &mut [i8]) {
    let inverse = inverse(scale);
    for (x, code) in x.iter().zip(codes) {
        *code = levels.code((x + minimum) * inverse);
    }
}

simd_fn! {
    /// Fits one scale, and one minimum, to 32 values; returns both as f16.
    pub(super) fn flat<S>(s: S, x: &[f32], w: &[f32], levels: Levels, kind: Minimum, codes: &mut [i8; 32]) -> (u16, u16) {
        let (scale, minimum) = search(s, x, w, levels, kind);
        let (scale, shift) = (f16::encode(scale), f16::encode(-minimum));
        codes_of(x, f16::decode(scale), -f16::decode(shift), levels, codes);
        (scale, shift)
    }

    /// Fits 256 values.
    fn block<S>(simd: S, x: &[f32], w: &[f32], grid: &Grid, out: &mut Fitted) {
        let kind = if grid.minimums > 0.0 { Minimum::Positive } else { Minimum::Absent };
        let parts = x.len() / grid.sub;
        // Of each part: the best scale and minimum, and how much an error of either weighs.
        let (mut scales, mut minimums, mut by_scale, mut by_minimum) = ([0.0; 16], [0.0; 16], [0.0; 16], [0.0; 16]);
        for (s, (x, w)) in x.chunks_exact(grid.sub).zip(w.chunks_exact(grid.sub)).enumerate() {
            (scales[s], minimums[s]) = search(simd, x, w, grid.levels, kind);
            let inverse = inverse(scales[s]);
            for (x, w) in x.iter().zip(w) {
                let q = grid.levels.level(grid.levels.code((x + minimums[s]) * inverse));
                by_scale[s] += w * q * q;
                by_minimum[s] += w;
            }
        }
        let factors = Levels::Even(grid.factors.0, grid.factors.1);
        let (d, _) = search(simd, &scales[..parts], &by_scale[..parts], factors, Minimum::Absent);
        let (least, _) = match kind {
            Minimum::Absent => (0.0, 0.0),
            _ => {
                let levels = Levels::Even(0.0, grid.minimums);
                search(simd, &minimums[..parts], &by_minimum[..parts], levels, Minimum::Absent)
            }
        };
        let mut best = f32::INFINITY;
        let mut next = (f16::encode(d), f16::encode(least));
        for _ in 0..BLOCK_ROUNDS {
            let (d, least) = (f16::decode(next.0), f16::decode(next.1));
            let mut trial = Fitted { d: next.0, least: next.1, factors: [0; 16], minimums: [0; 16], codes: [0; 256] };
            let (mut loss, mut sums) = (0.0, Sums::default());
            for (s, (x, w)) in x.chunks_exact(grid.sub).zip(w.chunks_exact(grid.sub)).enumerate() {
                let (factor, minimum, lost) = neighbours(simd, x, w, grid, (d, scales[s]), (least, minimums[s]));
                (trial.factors[s], trial.minimums[s]) = (factor as i8, minimum as u8);
                loss += lost;
                let codes = &mut trial.codes[s * grid.sub..][..grid.sub];
                codes_of(x, d * factor, least * minimum, grid.levels, codes);
                sums.add(x, w, grid.levels, codes, (factor, minimum));
            }
            if loss < best {
                best = loss;
                *out = trial;
            }
            let (d, least) = sums.solve();
            next = (f16::encode(d), f16::encode(least));
        }
    }
}

/// The factor and the minimum of a part that lose least, near those of its best scale and minimum, and the loss.
#[inline(always)]
fn neighbours<S: Simd>(
    simd: S,
    x: &[f32],
    w: &[f32],
    grid: &Grid,
    (d, scale): (f32, f32),
    (least, minimum): (f32, f32),
) -> (f32, f32, f32) {
    let (factor, lowest) =
        (nearest(scale * inverse(d), grid.factors), nearest(minimum * inverse(least), (0.0, grid.minimums)));
    let (mut factors, mut minimums) = ([factor; LANES], [lowest; LANES]);
    let mut c = Candidates { scale: [0.0; LANES], minimum: [0.0; LANES] };
    for i in 0..LANES {
        // Without minimums seven factors to either side, else one to either side with two minimums to either side.
        let (by_factor, by_minimum) = if grid.minimums > 0.0 { (i % 3, i / 3) } else { (i, 2) };
        let middle = if grid.minimums > 0.0 { 1.0 } else { 7.0 };
        factors[i] = nearest(factor + by_factor as f32 - middle, grid.factors);
        minimums[i] = nearest(lowest + by_minimum as f32 - 2.0, (0.0, grid.minimums));
        c.scale[i] = d * factors[i];
        c.minimum[i] = least * minimums[i];
    }
    let loss = round_all(simd, x, w, grid.levels, &c).loss;
    let mut best = (factors[0], minimums[0], loss[0]);
    for i in 1..LANES {
        if loss[i] < best.2 {
            best = (factors[i], minimums[i], loss[i]);
        }
    }
    best
}

/// Sums over a block from which `d` and `least` follow: with `a = factor * code` and `b = minimum`, the value is `d a - least b`.
#[derive(Default)]
struct Sums {
    aa: f32,
    ab: f32,
    bb: f32,
    ax: f32,
    bx: f32,
}

impl Sums {
    #[inline(always)]
    fn add(&mut self, x: &[f32], w: &[f32], levels: Levels, codes: &[i8], (factor, minimum): (f32, f32)) {
        let (mut w_sum, mut wx, mut wq, mut wqq, mut wqx) = (0.0, 0.0, 0.0, 0.0, 0.0);
        for ((&x, &w), &code) in x.iter().zip(w).zip(codes) {
            let level = levels.level(code);
            let weighted = w * level;
            w_sum += w;
            wx += w * x;
            wq += weighted;
            wqq += weighted * level;
            wqx += weighted * x;
        }
        self.aa += factor * factor * wqq;
        self.ab += factor * minimum * wq;
        self.bb += minimum * minimum * w_sum;
        self.ax += factor * wqx;
        self.bx += minimum * wx;
    }

    #[inline(always)]
    fn solve(&self) -> (f32, f32) {
        let determinant = self.aa * self.bb - self.ab * self.ab;
        let alone = if self.aa > 0.0 { self.ax / self.aa } else { 0.0 };
        if determinant <= 1e-5 * self.aa * self.bb {
            return (alone, 0.0);
        }
        let d = (self.ax * self.bb - self.bx * self.ab) / determinant;
        let least = (self.ax * self.ab - self.bx * self.aa) / determinant;
        if d < 0.0 || least < 0.0 { (alone, 0.0) } else { (d, least) }
    }
}

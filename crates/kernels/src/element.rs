//! Types of floats, widened to f32 when they are read: those of the cache, f32 and bf16, and f16 of weights.

use crate::format::bf16::Bf16;
use crate::format::f16::{self, F16};
use crate::pod::Pod;
use crate::simd::Simd;
use crate::view::{View, ViewMut};

/// A view of floats of one of the types of the cache.
#[derive(Clone, Copy, Debug)]
pub enum Floats<'a> {
    /// IEEE single precision.
    F32(View<'a, f32>),
    /// The upper half of it.
    Bf16(View<'a, Bf16>),
}

impl Floats<'_> {
    /// The number of values.
    pub fn len(&self) -> usize {
        match self {
            Self::F32(values) => values.len(),
            Self::Bf16(values) => values.len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The values in f64, as references compute.
    pub(crate) fn wide(&self) -> Vec<f64> {
        match self {
            Self::F32(values) => values.wide(),
            Self::Bf16(values) => values.host().iter().map(|value| f64::from(value.to_f32())).collect(),
        }
    }
}

/// The same for writing.
#[derive(Debug)]
pub enum FloatsMut<'a> {
    /// IEEE single precision.
    F32(ViewMut<'a, f32>),
    /// The upper half of it.
    Bf16(ViewMut<'a, Bf16>),
}

/// A float of the cache or of weights.
pub(crate) trait Element: Pod {
    /// The nearest value, ties to even; not a number stays so. Of f16, what is too large becomes the largest.
    fn from_f32(x: f32) -> Self;
    /// The same value as f32.
    fn to_f32(self) -> f32;
    /// The values at `from`.
    ///
    /// # Safety
    /// `from` is valid for reading `LANES` values.
    unsafe fn load<S: Simd>(s: S, from: *const Self) -> S::V;
    /// The first `n <= LANES` values at `from`, zeros behind them.
    ///
    /// # Safety
    /// `from` is valid for reading `n` values.
    unsafe fn load_n<S: Simd>(s: S, from: *const Self, n: usize) -> S::V;
}

impl Element for f32 {
    #[inline(always)]
    fn from_f32(x: f32) -> Self {
        x
    }
    #[inline(always)]
    fn to_f32(self) -> f32 {
        self
    }
    #[inline(always)]
    unsafe fn load<S: Simd>(s: S, from: *const Self) -> S::V {
        // SAFETY: the caller's promise.
        unsafe { s.load_ptr(from) }
    }
    #[inline(always)]
    unsafe fn load_n<S: Simd>(s: S, from: *const Self, n: usize) -> S::V {
        // SAFETY: the caller's promise.
        unsafe { s.load_ptr_n(from, n) }
    }
}

impl Element for Bf16 {
    #[inline(always)]
    fn from_f32(x: f32) -> Self {
        Self::from_f32(x)
    }
    #[inline(always)]
    fn to_f32(self) -> f32 {
        self.to_f32()
    }
    #[inline(always)]
    unsafe fn load<S: Simd>(s: S, from: *const Self) -> S::V {
        // SAFETY: the caller's promise.
        unsafe { s.load_bf16(from) }
    }
    #[inline(always)]
    unsafe fn load_n<S: Simd>(s: S, from: *const Self, n: usize) -> S::V {
        // SAFETY: the caller's promise.
        unsafe { s.load_bf16_n(from, n) }
    }
}

impl Element for F16 {
    #[inline(always)]
    fn from_f32(x: f32) -> Self {
        Self(f16::encode(x))
    }
    #[inline(always)]
    fn to_f32(self) -> f32 {
        f16::decode(self.0)
    }
    #[inline(always)]
    unsafe fn load<S: Simd>(s: S, from: *const Self) -> S::V {
        // SAFETY: the caller's promise.
        unsafe { s.load_f16(from.cast()) }
    }
    #[inline(always)]
    unsafe fn load_n<S: Simd>(s: S, from: *const Self, n: usize) -> S::V {
        let mut part = [Self(0); 16];
        // SAFETY: the caller's promise, and LANES is at most 16.
        unsafe {
            part[..n].copy_from_slice(std::slice::from_raw_parts(from, n));
            s.load_f16(part.as_ptr().cast())
        }
    }
}

//! Registers of 128 bits of aarch64, two at a time, with the dot product of bytes.

use std::arch::aarch64::*;
use std::arch::asm;

use super::{Bf16, Isa, Kind, Simd};

/// Two registers of 128 bits; proof that the machine has them, and the dot product of bytes.
#[derive(Clone, Copy)]
pub(crate) struct Neon(());

impl Neon {
    /// # Safety
    /// The machine has NEON and its dot product.
    #[inline(always)]
    pub(crate) unsafe fn detected() -> Self {
        Self(())
    }
}

/// An instruction on both registers.
macro_rules! both {
    ($instruction:expr, $($x:expr),+) => {{
        // SAFETY: the token proves the instruction set.
        #[allow(unused_unsafe)]
        let both = unsafe { [$instruction($($x[0]),+), $instruction($($x[1]),+)] };
        both
    }};
}

/// Four sums of four products each, of bytes with a sign.
///
/// # Safety
/// The machine has the dot product of bytes.
#[inline(always)]
unsafe fn dot(mut sum: int32x4_t, w: int8x16_t, q: int8x16_t) -> int32x4_t {
    // SAFETY: the caller's promise.
    unsafe {
        asm!("sdot {0:v}.4s, {1:v}.16b, {2:v}.16b", inout(vreg) sum, in(vreg) w, in(vreg) q,
            options(pure, nomem, nostack, preserves_flags));
    }
    sum
}

/// Four halves as floats.
#[inline(always)]
fn widen(half: uint16x4_t) -> float32x4_t {
    let out: float32x4_t;
    // SAFETY: every NEON has the instruction.
    unsafe {
        asm!("fcvtl {0:v}.4s, {1:v}.4h", out(vreg) out, in(vreg) half, options(pure, nomem, nostack, preserves_flags));
    }
    out
}

// SAFETY of every block below: the token proves the instruction set; pointers are the caller's promise.
#[allow(clippy::undocumented_unsafe_blocks)]
impl Simd for Neon {
    type V = [float32x4_t; 2];
    const LANES: usize = 8;
    const TILE_ROWS: usize = 6;

    #[inline(always)]
    fn isa(self) -> Isa {
        Isa(Kind::Neon)
    }
    #[inline(always)]
    fn splat(self, x: f32) -> Self::V {
        unsafe { [vdupq_n_f32(x); 2] }
    }
    #[inline(always)]
    unsafe fn load_ptr(self, from: *const f32) -> Self::V {
        unsafe { [vld1q_f32(from), vld1q_f32(from.add(4))] }
    }
    #[inline(always)]
    unsafe fn load_bf16(self, from: *const Bf16) -> Self::V {
        unsafe {
            let values = vld1q_u16(from.cast());
            let wide = [vshll_n_u16::<16>(vget_low_u16(values)), vshll_high_n_u16::<16>(values)];
            both!(vreinterpretq_f32_u32, wide)
        }
    }
    #[inline(always)]
    unsafe fn store_ptr(self, v: Self::V, to: *mut f32) {
        unsafe {
            vst1q_f32(to, v[0]);
            vst1q_f32(to.add(4), v[1]);
        }
    }
    #[inline(always)]
    fn add(self, a: Self::V, b: Self::V) -> Self::V {
        both!(vaddq_f32, a, b)
    }
    #[inline(always)]
    fn sub(self, a: Self::V, b: Self::V) -> Self::V {
        both!(vsubq_f32, a, b)
    }
    #[inline(always)]
    fn mul(self, a: Self::V, b: Self::V) -> Self::V {
        both!(vmulq_f32, a, b)
    }
    #[inline(always)]
    fn div(self, a: Self::V, b: Self::V) -> Self::V {
        both!(vdivq_f32, a, b)
    }
    #[inline(always)]
    fn fma(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V {
        both!(vfmaq_f32, c, a, b)
    }
    #[inline(always)]
    fn max(self, a: Self::V, b: Self::V) -> Self::V {
        self.select_less(b, a, a, b)
    }
    #[inline(always)]
    fn min(self, a: Self::V, b: Self::V) -> Self::V {
        self.select_less(a, b, a, b)
    }
    #[inline(always)]
    fn sqrt(self, a: Self::V) -> Self::V {
        both!(vsqrtq_f32, a)
    }
    #[inline(always)]
    fn round(self, a: Self::V) -> Self::V {
        both!(vrndnq_f32, a)
    }
    #[inline(always)]
    fn scale_by_power(self, a: Self::V, n: Self::V) -> Self::V {
        let n = both!(vcvtnq_s32_f32, n);
        let bias = self.splat_int(127);
        let exponent = both!(vaddq_s32, n, bias);
        let power = both!(vshlq_n_s32::<23>, exponent);
        let power = both!(vreinterpretq_f32_s32, power);
        self.mul(a, power)
    }
    #[inline(always)]
    fn select_less(self, a: Self::V, b: Self::V, x: Self::V, y: Self::V) -> Self::V {
        let less = both!(vcltq_f32, a, b);
        both!(vbslq_f32, less, x, y)
    }
    #[inline(always)]
    fn prefetch<T>(self, at: *const T) {
        unsafe { asm!("prfm pldl1keep, [{0}]", in(reg) at, options(readonly, nostack, preserves_flags)) };
    }
    #[inline(always)]
    fn to_array(self, v: Self::V) -> [f32; 16] {
        let mut out = [0.0; 16];
        unsafe { self.store_ptr(v, out.as_mut_ptr()) };
        out
    }

    type I = [int32x4_t; 2];

    #[inline(always)]
    fn splat_int(self, x: i32) -> Self::I {
        unsafe { [vdupq_n_s32(x); 2] }
    }
    #[inline(always)]
    fn to_float(self, x: Self::I) -> Self::V {
        both!(vcvtq_f32_s32, x)
    }
    #[inline(always)]
    unsafe fn load_words(self, from: *const u8) -> Self::I {
        let bytes = unsafe { [vld1q_u8(from), vld1q_u8(from.add(16))] };
        both!(vreinterpretq_s32_u8, bytes)
    }
    #[inline(always)]
    unsafe fn store_words(self, x: Self::I, to: *mut u8) {
        let bytes = both!(vreinterpretq_u8_s32, x);
        unsafe {
            vst1q_u8(to, bytes[0]);
            vst1q_u8(to.add(16), bytes[1]);
        }
    }
    #[inline(always)]
    fn or(self, a: Self::I, b: Self::I) -> Self::I {
        both!(vorrq_s32, a, b)
    }
    #[inline(always)]
    fn and_bytes(self, a: Self::I, mask: u8) -> Self::I {
        let mask = self.splat_int(i32::from_le_bytes([mask; 4]));
        both!(vandq_s32, a, mask)
    }
    #[inline(always)]
    fn shift(self, a: Self::I, by: i32) -> Self::I {
        let (words, by) = (both!(vreinterpretq_u32_s32, a), self.splat_int(by));
        let words = both!(vshlq_u32, words, by);
        both!(vreinterpretq_s32_u32, words)
    }
    #[inline(always)]
    unsafe fn load_f16(self, from: *const u8) -> Self::V {
        unsafe {
            let halves = vreinterpretq_u16_u8(vld1q_u8(from));
            [widen(vget_low_u16(halves)), widen(vget_high_u16(halves))]
        }
    }
    #[inline(always)]
    unsafe fn load_bytes<const SIGNED: bool>(self, from: *const u8) -> Self::V {
        unsafe {
            if SIGNED {
                let wide = vmovl_s8(vld1_s8(from.cast()));
                [vcvtq_f32_s32(vmovl_s16(vget_low_s16(wide))), vcvtq_f32_s32(vmovl_high_s16(wide))]
            } else {
                let wide = vmovl_u8(vld1_u8(from));
                [vcvtq_f32_u32(vmovl_u16(vget_low_u16(wide))), vcvtq_f32_u32(vmovl_high_u16(wide))]
            }
        }
    }
    const CENTERED: bool = true;
    #[inline(always)]
    unsafe fn dots<const R: usize, const WORDS: usize, const BITS: usize>(
        self,
        sums: [Self::I; R],
        w: *const u8,
        q: [*const i8; R],
    ) -> [Self::I; R] {
        let mut sums = sums;
        for word in 0..WORDS {
            unsafe {
                let mut bytes = [vld1q_u8(w.add(32 * word)), vld1q_u8(w.add(32 * word + 16))];
                if BITS == 8 {
                    let middle = [vdupq_n_u8(128); 2];
                    bytes = both!(veorq_u8, bytes, middle);
                }
                let w = both!(vreinterpretq_s8_u8, bytes);
                for (sum, q) in sums.iter_mut().zip(q) {
                    let q = vreinterpretq_s8_s32(vdupq_n_s32(q.add(4 * word).cast::<i32>().read_unaligned()));
                    *sum = [dot(sum[0], w[0], q), dot(sum[1], w[1], q)];
                }
            }
        }
        sums
    }
    #[inline(always)]
    unsafe fn look_up(self, table: &[u8; 16], at: *mut u8) {
        unsafe {
            let table = vld1q_u8(table.as_ptr());
            for half in [at, at.add(16)] {
                vst1q_u8(half, vqtbl1q_u8(table, vld1q_u8(half)));
            }
        }
    }
    #[inline(always)]
    unsafe fn transpose(self, from: *const u32, stride: usize, to: *mut u32, to_stride: usize) {
        // Blocks of four by four words: words of pairs of rows, then pairs of words.
        for (i, j) in [(0, 0), (0, 4), (4, 0), (4, 4)] {
            unsafe {
                let (from, to) = (from.wrapping_add(i * stride + j), to.wrapping_add(j * to_stride + i));
                let [a, b, c, d] = [0, 1, 2, 3].map(|row: usize| from.wrapping_add(row * stride));
                let (a, b, c, d) = (vld1q_u32(a), vld1q_u32(b), vld1q_u32(c), vld1q_u32(d));
                let (even, odd) = (vtrn1q_u32(a, b), vtrn2q_u32(a, b));
                let (even_below, odd_below) = (vtrn1q_u32(c, d), vtrn2q_u32(c, d));
                let pairs = [(even, even_below), (odd, odd_below)];
                for (column, (above, below)) in pairs.into_iter().enumerate() {
                    let (above, below) = (vreinterpretq_u64_u32(above), vreinterpretq_u64_u32(below));
                    let (first, third) = (vtrn1q_u64(above, below), vtrn2q_u64(above, below));
                    vst1q_u32(to.wrapping_add(column * to_stride), vreinterpretq_u32_u64(first));
                    vst1q_u32(to.wrapping_add((column + 2) * to_stride), vreinterpretq_u32_u64(third));
                }
            }
        }
    }
}

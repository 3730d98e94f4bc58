//! Registers as plain arrays.

use super::{Bf16, Isa, Kind, Simd, f16};

/// Plain arrays: what the compiler makes of the target's baseline.
#[derive(Clone, Copy)]
pub(crate) struct Portable;

#[inline(always)]
fn zip(a: [f32; 8], b: [f32; 8], f: impl Fn(f32, f32) -> f32) -> [f32; 8] {
    let mut out = [0.0; 8];
    for i in 0..8 {
        out[i] = f(a[i], b[i]);
    }
    out
}

impl Simd for Portable {
    type V = [f32; 8];
    const LANES: usize = 8;
    const TILE_ROWS: usize = 4;

    #[inline(always)]
    fn isa(self) -> Isa {
        Isa(Kind::Portable)
    }
    #[inline(always)]
    fn splat(self, x: f32) -> Self::V {
        [x; 8]
    }
    #[inline(always)]
    unsafe fn load_ptr(self, from: *const f32) -> Self::V {
        // SAFETY: the caller's promise; unaligned reads are allowed.
        unsafe { from.cast::<[f32; 8]>().read_unaligned() }
    }
    #[inline(always)]
    unsafe fn load_bf16(self, from: *const Bf16) -> Self::V {
        // SAFETY: the caller's promise; unaligned reads are allowed.
        unsafe { from.cast::<[Bf16; 8]>().read_unaligned() }.map(Bf16::to_f32)
    }
    #[inline(always)]
    unsafe fn store_ptr(self, v: Self::V, to: *mut f32) {
        // SAFETY: the caller's promise; unaligned writes are allowed.
        unsafe { to.cast::<[f32; 8]>().write_unaligned(v) }
    }
    #[inline(always)]
    fn add(self, a: Self::V, b: Self::V) -> Self::V {
        zip(a, b, |a, b| a + b)
    }
    #[inline(always)]
    fn sub(self, a: Self::V, b: Self::V) -> Self::V {
        zip(a, b, |a, b| a - b)
    }
    #[inline(always)]
    fn mul(self, a: Self::V, b: Self::V) -> Self::V {
        zip(a, b, |a, b| a * b)
    }
    #[inline(always)]
    fn div(self, a: Self::V, b: Self::V) -> Self::V {
        zip(a, b, |a, b| a / b)
    }
    #[inline(always)]
    fn fma(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V {
        self.add(self.mul(a, b), c)
    }
    #[inline(always)]
    fn max(self, a: Self::V, b: Self::V) -> Self::V {
        zip(a, b, |a, b| if a > b { a } else { b })
    }
    #[inline(always)]
    fn min(self, a: Self::V, b: Self::V) -> Self::V {
        zip(a, b, |a, b| if a < b { a } else { b })
    }
    #[inline(always)]
    fn sqrt(self, a: Self::V) -> Self::V {
        a.map(f32::sqrt)
    }
    #[inline(always)]
    fn round(self, a: Self::V) -> Self::V {
        // Adding 1.5 * 2^23 leaves the nearest integer in the low bits; `exp` only needs |a| < 2^22.
        const MAGIC: f32 = 12_582_912.0;
        a.map(|x| (x + MAGIC) - MAGIC)
    }
    #[inline(always)]
    fn scale_by_power(self, a: Self::V, n: Self::V) -> Self::V {
        zip(a, n, |a, n| a * f32::from_bits(((n as i32 + 127) as u32) << 23))
    }
    #[inline(always)]
    fn select_less(self, a: Self::V, b: Self::V, x: Self::V, y: Self::V) -> Self::V {
        let mut out = y;
        for i in 0..8 {
            if a[i] < b[i] {
                out[i] = x[i];
            }
        }
        out
    }
    #[inline(always)]
    fn prefetch<T>(self, _at: *const T) {}
    #[inline(always)]
    fn to_array(self, v: Self::V) -> [f32; 16] {
        let mut out = [0.0; 16];
        out[..8].copy_from_slice(&v);
        out
    }

    type I = [i32; 8];

    #[inline(always)]
    fn splat_int(self, x: i32) -> Self::I {
        [x; 8]
    }
    #[inline(always)]
    fn to_float(self, x: Self::I) -> Self::V {
        x.map(|x| x as f32)
    }
    #[inline(always)]
    unsafe fn load_words(self, from: *const u8) -> Self::I {
        // SAFETY: the caller's promise; unaligned reads are allowed.
        unsafe { from.cast::<[i32; 8]>().read_unaligned() }
    }
    #[inline(always)]
    unsafe fn store_words(self, x: Self::I, to: *mut u8) {
        // SAFETY: the caller's promise; unaligned writes are allowed.
        unsafe { to.cast::<[i32; 8]>().write_unaligned(x) };
    }
    #[inline(always)]
    fn or(self, a: Self::I, b: Self::I) -> Self::I {
        std::array::from_fn(|i| a[i] | b[i])
    }
    #[inline(always)]
    fn and_bytes(self, a: Self::I, mask: u8) -> Self::I {
        a.map(|a| a & i32::from_le_bytes([mask; 4]))
    }
    #[inline(always)]
    fn shift(self, a: Self::I, by: i32) -> Self::I {
        a.map(|a| if by < 0 { (a as u32 >> -by) as i32 } else { a << by })
    }
    #[inline(always)]
    unsafe fn load_f16(self, from: *const u8) -> Self::V {
        // SAFETY: the caller's promise; unaligned reads are allowed.
        unsafe { from.cast::<[u16; 8]>().read_unaligned() }.map(f16::decode)
    }
    #[inline(always)]
    unsafe fn load_bytes<const SIGNED: bool>(self, from: *const u8) -> Self::V {
        // SAFETY: the caller's promise.
        unsafe { from.cast::<[u8; 8]>().read() }.map(|x| if SIGNED { f32::from(x as i8) } else { f32::from(x) })
    }
    const CENTERED: bool = false;
    #[inline(always)]
    unsafe fn dots<const R: usize, const WORDS: usize, const BITS: usize>(
        self,
        sums: [Self::I; R],
        w: *const u8,
        q: [*const i8; R],
    ) -> [Self::I; R] {
        let mut sums = sums;
        for word in 0..WORDS {
            for (sums, q) in sums.iter_mut().zip(q) {
                // SAFETY: the caller's promise; unaligned reads are allowed.
                let (w, q) = unsafe {
                    let q = q.add(4 * word).cast::<[i8; 4]>().read_unaligned();
                    (w.add(32 * word).cast::<[[u8; 4]; 8]>().read_unaligned(), q.map(i32::from))
                };
                for (sum, w) in sums.iter_mut().zip(w) {
                    let w = w.map(i32::from);
                    *sum += w[0] * q[0] + w[1] * q[1] + w[2] * q[2] + w[3] * q[3];
                }
            }
        }
        sums
    }
    #[inline(always)]
    unsafe fn look_up(self, table: &[u8; 16], at: *mut u8) {
        for i in 0..32 {
            // SAFETY: the caller's promise.
            unsafe { *at.add(i) = table[usize::from(*at.add(i) & 15)] };
        }
    }
    #[inline(always)]
    unsafe fn transpose(self, from: *const u32, stride: usize, to: *mut u32, to_stride: usize) {
        for i in 0..8 {
            for j in 0..8 {
                // SAFETY: the caller's promise.
                unsafe { to.add(j * to_stride + i).write_unaligned(from.add(i * stride + j).read_unaligned()) };
            }
        }
    }
}

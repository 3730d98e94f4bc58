//! One source of a kernel for several instruction sets: it is written against [`Simd`], [`simd_fn!`] compiles it for
//! each path and picks one at run time by the [`Isa`](crate::isa::Isa) of the device.
//!
//! Lanes never cross in the kernels' sums unless a function here says in which order, so a result depends on the path
//! and on nothing else.

use crate::format::bf16::Bf16;
use crate::format::f16;
use crate::isa::{Isa, Kind};

/// A vector of `LANES` floats of one instruction set.
///
/// A value of an implementing type is made only by [`simd_fn!`], after the instruction set was detected.
pub(crate) trait Simd: Copy {
    /// The register type.
    type V: Copy;
    /// Floats per register.
    const LANES: usize;
    /// Rows of the matrix-product tile that fit the register file (with two registers of columns).
    const TILE_ROWS: usize;

    /// The path.
    fn isa(self) -> Isa;
    /// `x` in every lane.
    fn splat(self, x: f32) -> Self::V;
    /// The floats at `from`.
    /// # Safety
    /// `from` is valid for reading `LANES` floats.
    unsafe fn load_ptr(self, from: *const f32) -> Self::V;
    /// The first `n <= LANES` floats at `from`, zeros behind them.
    /// # Safety
    /// `from` is valid for reading `n` floats.
    unsafe fn load_ptr_n(self, from: *const f32, n: usize) -> Self::V;
    /// The bf16 values at `from` as floats.
    /// # Safety
    /// `from` is valid for reading `LANES` values.
    unsafe fn load_bf16(self, from: *const Bf16) -> Self::V;
    /// Writes all lanes to `to`.
    /// # Safety
    /// `to` is valid for writing `LANES` floats.
    unsafe fn store_ptr(self, v: Self::V, to: *mut f32);
    /// Writes the first `n <= LANES` lanes to `to`.
    /// # Safety
    /// `to` is valid for writing `n` floats.
    unsafe fn store_ptr_n(self, v: Self::V, to: *mut f32, n: usize);
    /// `a + b`.
    fn add(self, a: Self::V, b: Self::V) -> Self::V;
    /// `a - b`.
    fn sub(self, a: Self::V, b: Self::V) -> Self::V;
    /// `a * b`.
    fn mul(self, a: Self::V, b: Self::V) -> Self::V;
    /// `a / b`.
    fn div(self, a: Self::V, b: Self::V) -> Self::V;
    /// `a * b + c`, rounded once where the instruction set can.
    fn fma(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V;
    /// The larger of `a` and `b`, and `b` if either is not a number.
    fn max(self, a: Self::V, b: Self::V) -> Self::V;
    /// The smaller of `a` and `b`, and `b` if either is not a number.
    fn min(self, a: Self::V, b: Self::V) -> Self::V;
    /// The square root.
    fn sqrt(self, a: Self::V) -> Self::V;
    /// The nearest integer, ties to even.
    fn round(self, a: Self::V) -> Self::V;
    /// `a * 2^n` for an integral `n` in `[-126, 127]`.
    fn scale_by_power(self, a: Self::V, n: Self::V) -> Self::V;
    /// `a < b ? x : y` by lane.
    fn select_less(self, a: Self::V, b: Self::V, x: Self::V, y: Self::V) -> Self::V;
    /// Prefetches the cache line at `at`; the address need not be valid.
    fn prefetch<T>(self, at: *const T);
    /// The lanes.
    fn to_array(self, v: Self::V) -> [f32; 16];

    /// A register of `LANES` integers of 32 bits.
    type I: Copy;
    /// `x` in every lane.
    fn splat_int(self, x: i32) -> Self::I;
    /// The integers as floats.
    fn to_float(self, x: Self::I) -> Self::V;
    /// The `LANES` words of four bytes at `from`.
    /// # Safety
    /// `from` is valid for reading `4 * LANES` bytes.
    unsafe fn load_words(self, from: *const u8) -> Self::I;
    /// Writes all words to `to`.
    /// # Safety
    /// `to` is valid for writing `4 * LANES` bytes.
    unsafe fn store_words(self, x: Self::I, to: *mut u8);
    /// The bits that either has.
    fn or(self, a: Self::I, b: Self::I) -> Self::I;
    /// The bits of every byte that `mask` has.
    fn and_bytes(self, a: Self::I, mask: u8) -> Self::I;
    /// Every word with its bits `by` places higher, or lower if it is negative; zeros come in.
    fn shift(self, a: Self::I, by: i32) -> Self::I;
    /// The `LANES` halves (f16) at `from` as floats.
    /// # Safety
    /// `from` is valid for reading `2 * LANES` bytes.
    unsafe fn load_f16(self, from: *const u8) -> Self::V;
    /// The `LANES` bytes at `from` as floats.
    /// # Safety
    /// `from` is valid for reading `LANES` bytes.
    unsafe fn load_bytes<const SIGNED: bool>(self, from: *const u8) -> Self::V;
    /// Whether dots take 128 from each byte of w if BITS is 8.
    const CENTERED: bool;
    /// In every lane `sums[r] + the sum over its bytes in WORDS words of w * q[r]`. Bytes of `q` have a sign and lie above -128;
    /// those of `w` have none and are below `2^BITS`, so that a path may add products in 16 bits.
    /// # Safety
    /// `w` is valid for reading WORDS registers, and each of `q` for `4 * WORDS` bytes.
    unsafe fn dots<const R: usize, const WORDS: usize, const BITS: usize>(
        self,
        sums: [Self::I; R],
        w: *const u8,
        q: [*const i8; R],
    ) -> [Self::I; R];
    /// Replaces the `4 * LANES` bytes at `at`, each below 16, by their places in `table`.
    /// # Safety
    /// `at` is valid for reading and writing them.
    unsafe fn look_up(self, table: &[u8; 16], at: *mut u8);
    /// Entry `at[i]`, modulo N, of a list for every i, its first byte lowest; N is a power of two.
    #[inline(always)]
    fn gather_64<const N: usize>(self, list: &[[u8; 8]; N], at: &[u16; 32]) -> [u64; 32] {
        const { assert!(N.is_power_of_two()) };
        let mut out = [0; 32];
        for (out, at) in out.iter_mut().zip(at) {
            *out = u64::from_le_bytes(list[usize::from(*at) & (N - 1)]);
        }
        out
    }
    /// The same for entries of four bytes, two to a word.
    #[inline(always)]
    fn gather_32<const N: usize>(self, list: &[[u8; 4]; N], at: &[u16; 64]) -> [u64; 32] {
        const { assert!(N.is_power_of_two()) };
        let entry = |at: u16| u64::from(u32::from_le_bytes(list[usize::from(at) & (N - 1)]));
        let mut out = [0; 32];
        for (out, [first, second]) in out.iter_mut().zip(at.as_chunks().0) {
            *out = entry(*first) | entry(*second) << 32;
        }
        out
    }
    /// Writes the transposed of `LANES` rows of `LANES` words; rows lie `stride` and `to_stride` words apart.
    /// # Safety
    /// `from` and `to` are valid for these rows.
    unsafe fn transpose(self, from: *const u32, stride: usize, to: *mut u32, to_stride: usize);

    /// The first `n <= LANES` bf16 values at `from` as floats, zeros behind them.
    /// # Safety
    /// `from` is valid for reading `n` values.
    #[inline(always)]
    unsafe fn load_bf16_n(self, from: *const Bf16, n: usize) -> Self::V {
        let mut part = [Bf16::ZERO; 16];
        // SAFETY: the caller's promise, and LANES is at most 16.
        unsafe {
            part[..n].copy_from_slice(std::slice::from_raw_parts(from, n));
            self.load_bf16(part.as_ptr())
        }
    }

    /// The first `LANES` floats of `from`.
    #[inline(always)]
    fn load(self, from: &[f32]) -> Self::V {
        assert!(from.len() >= Self::LANES);
        // SAFETY: the slice holds LANES floats.
        unsafe { self.load_ptr(from.as_ptr()) }
    }

    /// Up to `LANES` floats of `from`, zeros behind them.
    #[inline(always)]
    fn load_partial(self, from: &[f32]) -> Self::V {
        // SAFETY: the count is the length of the slice, at most LANES.
        unsafe { self.load_ptr_n(from.as_ptr(), from.len().min(Self::LANES)) }
    }

    /// Writes all lanes to the start of `to`.
    #[inline(always)]
    fn store(self, v: Self::V, to: &mut [f32]) {
        assert!(to.len() >= Self::LANES);
        // SAFETY: the slice holds LANES floats.
        unsafe { self.store_ptr(v, to.as_mut_ptr()) }
    }

    /// Writes as many lanes as `to` holds, at most `LANES`.
    #[inline(always)]
    fn store_partial(self, v: Self::V, to: &mut [f32]) {
        // SAFETY: the count is the length of the slice, at most LANES.
        unsafe { self.store_ptr_n(v, to.as_mut_ptr(), to.len().min(Self::LANES)) }
    }

    /// The sum of the lanes, halves added pairwise.
    #[inline(always)]
    fn sum(self, v: Self::V) -> f32 {
        let mut lanes = self.to_array(v);
        let mut half = Self::LANES / 2;
        while half > 0 {
            for i in 0..half {
                lanes[i] += lanes[i + half];
            }
            half /= 2;
        }
        lanes[0]
    }

    /// The largest lane, halves compared pairwise; if a lane is not a number, that or any other lane.
    #[inline(always)]
    fn largest(self, v: Self::V) -> f32 {
        let mut lanes = self.to_array(v);
        let mut half = Self::LANES / 2;
        while half > 0 {
            for i in 0..half {
                lanes[i] = if lanes[i] > lanes[i + half] { lanes[i] } else { lanes[i + half] };
            }
            half /= 2;
        }
        lanes[0]
    }

    /// `e^x`: relative error below 2e-7; exactly zero below -87.3 (minus infinity included); finite above 88; not a
    /// number for not a number.
    #[inline(always)]
    fn exp(self, x: Self::V) -> Self::V {
        let c = |v: f32| self.splat(v);
        let bounded = self.max(c(-87.3), self.min(c(88.0), x));
        let n = self.round(self.mul(bounded, c(std::f32::consts::LOG2_E)));
        // ln 2 in two parts: the first has few bits, so that n times it is exact.
        let r = self.fma(n, c(-0.693_359_4), bounded);
        let r = self.fma(n, c(2.121_944_4e-4), r);
        let mut p = c(1.987_569_1e-4);
        for coefficient in [1.398_199_9e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 0.5] {
            p = self.fma(p, r, c(coefficient));
        }
        let y = self.add(self.fma(p, self.mul(r, r), r), c(1.0));
        self.select_less(x, c(-87.3), c(0.0), self.scale_by_power(y, n))
    }

    /// The sigmoid 1 / (1 + e^-x).
    #[inline(always)]
    fn sigmoid(self, x: Self::V) -> Self::V {
        let one = self.splat(1.0);
        self.div(one, self.add(one, self.exp(self.sub(self.splat(0.0), x))))
    }
}

/// Compiles functions that are generic over [`Simd`] for every path and dispatches on the device's.
///
/// The body sees its first parameter as the token of the path and `S` as its type; callers pass an `Isa` there. A second type
/// parameter is the caller's choice. A function that is declared `unsafe` is so for its callers.
macro_rules! simd_fn {
    () => {};
    ($(#[$meta:meta])* $vis:vis unsafe fn $($rest:tt)*) => {
        $crate::simd::simd_fn! { @one [unsafe] [$(#[$meta])* $vis] $($rest)* }
    };
    ($(#[$meta:meta])* $vis:vis fn $($rest:tt)*) => {
        $crate::simd::simd_fn! { @one [] [$(#[$meta])* $vis] $($rest)* }
    };
    (
        @one [$($unsafe:tt)?] [$($head:tt)*]
        $name:ident<S $(, $F:ident: $bound:path)?>($s:ident: S $(, $arg:ident: $ty:ty)* $(,)?) $(-> $ret:ty)? $body:block
        $($rest:tt)*
    ) => {
        #[allow(clippy::too_many_arguments)]
        $($head)* $($unsafe)? fn $name$(<$F: $bound>)?(isa: $crate::isa::Isa $(, $arg: $ty)*) $(-> $ret)? {
            #[inline(always)]
            #[allow(clippy::too_many_arguments)]
            $($unsafe)? fn generic<S: $crate::simd::Simd $(, $F: $bound)?>($s: S $(, $arg: $ty)*) $(-> $ret)? $body
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx512f,avx512vl,avx512bw,avx512dq,avx512vnni,avx2,fma,f16c")]
            #[allow(clippy::too_many_arguments, unused_unsafe)]
            $($unsafe)? fn avx512$(<$F: $bound>)?(token: $crate::simd::Avx512 $(, $arg: $ty)*) $(-> $ret)? {
                // SAFETY: the promise of the caller, if there is one.
                unsafe { generic::<_ $(, $F)?>(token $(, $arg)*) }
            }
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma,f16c")]
            #[allow(clippy::too_many_arguments, unused_unsafe)]
            $($unsafe)? fn avx2$(<$F: $bound>)?(token: $crate::simd::Avx2 $(, $arg: $ty)*) $(-> $ret)? {
                // SAFETY: as above.
                unsafe { generic::<_ $(, $F)?>(token $(, $arg)*) }
            }
            // Like the other paths a function of its own, not part of its callers.
            #[inline(never)]
            #[allow(clippy::too_many_arguments, unused_unsafe)]
            $($unsafe)? fn portable$(<$F: $bound>)?(token: $crate::simd::Portable $(, $arg: $ty)*) $(-> $ret)? {
                // SAFETY: as above.
                unsafe { generic::<_ $(, $F)?>(token $(, $arg)*) }
            }
            // SAFETY: as above, and an `Isa` of a kind exists only if the machine has its features.
            #[allow(unused_unsafe)]
            unsafe {
                match isa.0 {
                    #[cfg(target_arch = "x86_64")]
                    $crate::isa::Kind::Avx512 => avx512$(::<$F>)?($crate::simd::Avx512::detected() $(, $arg)*),
                    #[cfg(target_arch = "x86_64")]
                    $crate::isa::Kind::Avx2 => avx2$(::<$F>)?($crate::simd::Avx2::detected() $(, $arg)*),
                    $crate::isa::Kind::Portable => portable$(::<$F>)?($crate::simd::Portable $(, $arg)*),
                }
            }
        }
        $crate::simd::simd_fn! { $($rest)* }
    };
}
pub(crate) use simd_fn;

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
    unsafe fn load_ptr_n(self, from: *const f32, n: usize) -> Self::V {
        let mut out = [0.0; 8];
        // SAFETY: the caller promises n readable floats.
        out[..n].copy_from_slice(unsafe { std::slice::from_raw_parts(from, n) });
        out
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
    unsafe fn store_ptr_n(self, v: Self::V, to: *mut f32, n: usize) {
        // SAFETY: the caller promises n writable floats.
        unsafe { std::slice::from_raw_parts_mut(to, n) }.copy_from_slice(&v[..n]);
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

#[cfg(target_arch = "x86_64")]
pub(crate) use x86::{Avx2, Avx512};

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::{Bf16, Isa, Kind, Simd};
    use std::arch::x86_64::*;

    /// 512-bit registers; proof that the machine has them.
    #[derive(Clone, Copy)]
    pub(crate) struct Avx512(());

    /// 256-bit registers; proof that the machine has them.
    #[derive(Clone, Copy)]
    pub(crate) struct Avx2(());

    impl Avx512 {
        /// # Safety
        /// The machine has AVX-512 F, VL, BW, DQ and VNNI.
        #[inline(always)]
        pub(crate) unsafe fn detected() -> Self {
            Self(())
        }
    }

    impl Avx2 {
        /// # Safety
        /// The machine has AVX2 and FMA.
        #[inline(always)]
        pub(crate) unsafe fn detected() -> Self {
            Self(())
        }
    }

    #[inline(always)]
    fn mask16(n: usize) -> __mmask16 {
        debug_assert!(n <= 16);
        ((1u32 << n) - 1) as __mmask16
    }

    // SAFETY of every block below: the token proves the instruction set; pointers are the caller's promise.
    #[allow(clippy::undocumented_unsafe_blocks)]
    impl Simd for Avx512 {
        type V = __m512;
        const LANES: usize = 16;
        const TILE_ROWS: usize = 12;

        #[inline(always)]
        fn isa(self) -> Isa {
            Isa(Kind::Avx512)
        }
        #[inline(always)]
        fn splat(self, x: f32) -> Self::V {
            unsafe { _mm512_set1_ps(x) }
        }
        #[inline(always)]
        unsafe fn load_ptr(self, from: *const f32) -> Self::V {
            unsafe { _mm512_loadu_ps(from) }
        }
        #[inline(always)]
        unsafe fn load_ptr_n(self, from: *const f32, n: usize) -> Self::V {
            unsafe { _mm512_maskz_loadu_ps(mask16(n), from) }
        }
        #[inline(always)]
        unsafe fn load_bf16(self, from: *const Bf16) -> Self::V {
            unsafe {
                let wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256(from.cast()));
                _mm512_castsi512_ps(_mm512_slli_epi32::<16>(wide))
            }
        }
        #[inline(always)]
        unsafe fn store_ptr(self, v: Self::V, to: *mut f32) {
            unsafe { _mm512_storeu_ps(to, v) }
        }
        #[inline(always)]
        unsafe fn store_ptr_n(self, v: Self::V, to: *mut f32, n: usize) {
            unsafe { _mm512_mask_storeu_ps(to, mask16(n), v) }
        }
        #[inline(always)]
        fn add(self, a: Self::V, b: Self::V) -> Self::V {
            unsafe { _mm512_add_ps(a, b) }
        }
        #[inline(always)]
        fn sub(self, a: Self::V, b: Self::V) -> Self::V {
            unsafe { _mm512_sub_ps(a, b) }
        }
        #[inline(always)]
        fn mul(self, a: Self::V, b: Self::V) -> Self::V {
            unsafe { _mm512_mul_ps(a, b) }
        }
        #[inline(always)]
        fn div(self, a: Self::V, b: Self::V) -> Self::V {
            unsafe { _mm512_div_ps(a, b) }
        }
        #[inline(always)]
        fn fma(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V {
            unsafe { _mm512_fmadd_ps(a, b, c) }
        }
        #[inline(always)]
        fn max(self, a: Self::V, b: Self::V) -> Self::V {
            unsafe { _mm512_max_ps(a, b) }
        }
        #[inline(always)]
        fn min(self, a: Self::V, b: Self::V) -> Self::V {
            unsafe { _mm512_min_ps(a, b) }
        }
        #[inline(always)]
        fn sqrt(self, a: Self::V) -> Self::V {
            unsafe { _mm512_sqrt_ps(a) }
        }
        #[inline(always)]
        fn round(self, a: Self::V) -> Self::V {
            unsafe { _mm512_roundscale_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(a) }
        }
        #[inline(always)]
        fn scale_by_power(self, a: Self::V, n: Self::V) -> Self::V {
            unsafe { _mm512_scalef_ps(a, n) }
        }
        #[inline(always)]
        fn select_less(self, a: Self::V, b: Self::V, x: Self::V, y: Self::V) -> Self::V {
            unsafe { _mm512_mask_blend_ps(_mm512_cmp_ps_mask::<_CMP_LT_OQ>(a, b), y, x) }
        }
        #[inline(always)]
        fn prefetch<T>(self, at: *const T) {
            unsafe { _mm_prefetch::<_MM_HINT_T0>(at.cast()) }
        }
        #[inline(always)]
        fn to_array(self, v: Self::V) -> [f32; 16] {
            let mut out = [0.0; 16];
            unsafe { _mm512_storeu_ps(out.as_mut_ptr(), v) };
            out
        }

        type I = __m512i;

        #[inline(always)]
        fn splat_int(self, x: i32) -> Self::I {
            unsafe { _mm512_set1_epi32(x) }
        }
        #[inline(always)]
        fn to_float(self, x: Self::I) -> Self::V {
            unsafe { _mm512_cvtepi32_ps(x) }
        }
        #[inline(always)]
        unsafe fn load_words(self, from: *const u8) -> Self::I {
            unsafe { _mm512_loadu_si512(from.cast()) }
        }
        #[inline(always)]
        unsafe fn store_words(self, x: Self::I, to: *mut u8) {
            unsafe { _mm512_storeu_si512(to.cast(), x) };
        }
        #[inline(always)]
        fn or(self, a: Self::I, b: Self::I) -> Self::I {
            unsafe { _mm512_or_si512(a, b) }
        }
        #[inline(always)]
        fn and_bytes(self, a: Self::I, mask: u8) -> Self::I {
            unsafe { _mm512_and_si512(a, _mm512_set1_epi8(mask as i8)) }
        }
        #[inline(always)]
        fn shift(self, a: Self::I, by: i32) -> Self::I {
            unsafe {
                if by < 0 {
                    _mm512_srl_epi32(a, _mm_cvtsi32_si128(-by))
                } else {
                    _mm512_sll_epi32(a, _mm_cvtsi32_si128(by))
                }
            }
        }
        #[inline(always)]
        unsafe fn load_f16(self, from: *const u8) -> Self::V {
            unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(from.cast())) }
        }
        #[inline(always)]
        unsafe fn load_bytes<const SIGNED: bool>(self, from: *const u8) -> Self::V {
            unsafe {
                let bytes = _mm_loadu_si128(from.cast());
                _mm512_cvtepi32_ps(if SIGNED { _mm512_cvtepi8_epi32(bytes) } else { _mm512_cvtepu8_epi32(bytes) })
            }
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
                unsafe {
                    let w = _mm512_loadu_si512(w.add(64 * word).cast());
                    for (sum, q) in sums.iter_mut().zip(q) {
                        let q = q.add(4 * word).cast::<i32>().read_unaligned();
                        *sum = _mm512_dpbusd_epi32(*sum, w, _mm512_set1_epi32(q));
                    }
                }
            }
            sums
        }
        #[inline(always)]
        unsafe fn look_up(self, table: &[u8; 16], at: *mut u8) {
            unsafe {
                let table = _mm512_broadcast_i32x4(_mm_loadu_si128(table.as_ptr().cast()));
                _mm512_storeu_si512(at.cast(), _mm512_shuffle_epi8(table, _mm512_loadu_si512(at.cast())));
            }
        }
        #[inline(always)]
        fn gather_64<const N: usize>(self, list: &[[u8; 8]; N], at: &[u16; 32]) -> [u64; 32] {
            const { assert!(N.is_power_of_two()) };
            let mut out = [0; 32];
            for (out, at) in out.as_chunks_mut::<8>().0.iter_mut().zip(at.as_chunks::<8>().0) {
                // SAFETY: `self` proves the features, and indices below N lie in the list.
                unsafe {
                    let at = _mm256_cvtepu16_epi32(_mm_loadu_si128(at.as_ptr().cast()));
                    let at = _mm256_and_si256(at, _mm256_set1_epi32(N as i32 - 1));
                    _mm512_storeu_si512(out.as_mut_ptr().cast(), _mm512_i32gather_epi64::<8>(at, list.as_ptr().cast()));
                }
            }
            out
        }
        #[inline(always)]
        fn gather_32<const N: usize>(self, list: &[[u8; 4]; N], at: &[u16; 64]) -> [u64; 32] {
            const { assert!(N.is_power_of_two()) };
            let mut out = [0; 32];
            for (out, at) in out.as_chunks_mut::<8>().0.iter_mut().zip(at.as_chunks::<16>().0) {
                // SAFETY: as above.
                unsafe {
                    let at = _mm512_cvtepu16_epi32(_mm256_loadu_si256(at.as_ptr().cast()));
                    let at = _mm512_and_si512(at, _mm512_set1_epi32(N as i32 - 1));
                    _mm512_storeu_si512(out.as_mut_ptr().cast(), _mm512_i32gather_epi32::<4>(at, list.as_ptr().cast()));
                }
            }
            out
        }
        #[inline(always)]
        unsafe fn transpose(self, from: *const u32, stride: usize, to: *mut u32, to_stride: usize) {
            unsafe {
                // Words of pairs of rows, then of fours; then whole lanes of 128 bits.
                let (mut row, mut pair, mut four) =
                    ([_mm512_setzero_si512(); 16], [_mm512_setzero_si512(); 16], [_mm512_setzero_si512(); 16]);
                for (i, row) in row.iter_mut().enumerate() {
                    *row = _mm512_loadu_si512(from.wrapping_add(i * stride).cast());
                }
                for i in (0..16).step_by(2) {
                    pair[i] = _mm512_unpacklo_epi32(row[i], row[i + 1]);
                    pair[i + 1] = _mm512_unpackhi_epi32(row[i], row[i + 1]);
                }
                for i in [0, 1, 4, 5, 8, 9, 12, 13] {
                    // Columns 2i and 2i + 1 of a group of four rows.
                    let at = i / 4 * 4 + i % 4 * 2;
                    four[at] = _mm512_unpacklo_epi64(pair[i], pair[i + 2]);
                    four[at + 1] = _mm512_unpackhi_epi64(pair[i], pair[i + 2]);
                }
                for column in 0..4 {
                    let [a, b, c, d] = [four[column], four[4 + column], four[8 + column], four[12 + column]];
                    let (even_low, even_high) =
                        (_mm512_shuffle_i32x4::<0x88>(a, b), _mm512_shuffle_i32x4::<0x88>(c, d));
                    let (odd_low, odd_high) = (_mm512_shuffle_i32x4::<0xdd>(a, b), _mm512_shuffle_i32x4::<0xdd>(c, d));
                    let columns = [
                        _mm512_shuffle_i32x4::<0x88>(even_low, even_high),
                        _mm512_shuffle_i32x4::<0x88>(odd_low, odd_high),
                        _mm512_shuffle_i32x4::<0xdd>(even_low, even_high),
                        _mm512_shuffle_i32x4::<0xdd>(odd_low, odd_high),
                    ];
                    for (lane, words) in columns.into_iter().enumerate() {
                        _mm512_storeu_si512(to.wrapping_add((4 * lane + column) * to_stride).cast(), words);
                    }
                }
            }
        }
    }

    #[inline(always)]
    fn mask8(n: usize) -> __m256i {
        const TABLE: [i32; 16] = [-1, -1, -1, -1, -1, -1, -1, -1, 0, 0, 0, 0, 0, 0, 0, 0];
        // SAFETY: n <= 8, so eight words from 8 - n lie in the table; only called with the AVX2 token at hand.
        unsafe { _mm256_loadu_si256(TABLE[8 - n..].as_ptr().cast()) }
    }

    // SAFETY of every block below: the token proves the instruction set; pointers are the caller's promise.
    #[allow(clippy::undocumented_unsafe_blocks)]
    impl Simd for Avx2 {
        type V = __m256;
        const LANES: usize = 8;
        const TILE_ROWS: usize = 6;

        #[inline(always)]
        fn isa(self) -> Isa {
            Isa(Kind::Avx2)
        }
        #[inline(always)]
        fn splat(self, x: f32) -> Self::V {
            unsafe { _mm256_set1_ps(x) }
        }
        #[inline(always)]
        unsafe fn load_ptr(self, from: *const f32) -> Self::V {
            unsafe { _mm256_loadu_ps(from) }
        }
        #[inline(always)]
        unsafe fn load_ptr_n(self, from: *const f32, n: usize) -> Self::V {
            unsafe { _mm256_maskload_ps(from, mask8(n)) }
        }
        #[inline(always)]
        unsafe fn load_bf16(self, from: *const Bf16) -> Self::V {
            unsafe {
                let wide = _mm256_cvtepu16_epi32(_mm_loadu_si128(from.cast()));
                _mm256_castsi256_ps(_mm256_slli_epi32::<16>(wide))
            }
        }
        #[inline(always)]
        unsafe fn store_ptr(self, v: Self::V, to: *mut f32) {
            unsafe { _mm256_storeu_ps(to, v) }
        }
        #[inline(always)]
        unsafe fn store_ptr_n(self, v: Self::V, to: *mut f32, n: usize) {
            unsafe { _mm256_maskstore_ps(to, mask8(n), v) }
        }
        #[inline(always)]
        fn add(self, a: Self::V, b: Self::V) -> Self::V {
            unsafe { _mm256_add_ps(a, b) }
        }
        #[inline(always)]
        fn sub(self, a: Self::V, b: Self::V) -> Self::V {
            unsafe { _mm256_sub_ps(a, b) }
        }
        #[inline(always)]
        fn mul(self, a: Self::V, b: Self::V) -> Self::V {
            unsafe { _mm256_mul_ps(a, b) }
        }
        #[inline(always)]
        fn div(self, a: Self::V, b: Self::V) -> Self::V {
            unsafe { _mm256_div_ps(a, b) }
        }
        #[inline(always)]
        fn fma(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V {
            unsafe { _mm256_fmadd_ps(a, b, c) }
        }
        #[inline(always)]
        fn max(self, a: Self::V, b: Self::V) -> Self::V {
            unsafe { _mm256_max_ps(a, b) }
        }
        #[inline(always)]
        fn min(self, a: Self::V, b: Self::V) -> Self::V {
            unsafe { _mm256_min_ps(a, b) }
        }
        #[inline(always)]
        fn sqrt(self, a: Self::V) -> Self::V {
            unsafe { _mm256_sqrt_ps(a) }
        }
        #[inline(always)]
        fn round(self, a: Self::V) -> Self::V {
            unsafe { _mm256_round_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(a) }
        }
        #[inline(always)]
        fn scale_by_power(self, a: Self::V, n: Self::V) -> Self::V {
            unsafe {
                let exponent = _mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127));
                _mm256_mul_ps(a, _mm256_castsi256_ps(_mm256_slli_epi32::<23>(exponent)))
            }
        }
        #[inline(always)]
        fn select_less(self, a: Self::V, b: Self::V, x: Self::V, y: Self::V) -> Self::V {
            unsafe { _mm256_blendv_ps(y, x, _mm256_cmp_ps::<_CMP_LT_OQ>(a, b)) }
        }
        #[inline(always)]
        fn prefetch<T>(self, at: *const T) {
            unsafe { _mm_prefetch::<_MM_HINT_T0>(at.cast()) }
        }
        #[inline(always)]
        fn to_array(self, v: Self::V) -> [f32; 16] {
            let mut out = [0.0; 16];
            unsafe { _mm256_storeu_ps(out.as_mut_ptr(), v) };
            out
        }

        type I = __m256i;

        #[inline(always)]
        fn splat_int(self, x: i32) -> Self::I {
            unsafe { _mm256_set1_epi32(x) }
        }
        #[inline(always)]
        fn to_float(self, x: Self::I) -> Self::V {
            unsafe { _mm256_cvtepi32_ps(x) }
        }
        #[inline(always)]
        unsafe fn load_words(self, from: *const u8) -> Self::I {
            unsafe { _mm256_loadu_si256(from.cast()) }
        }
        #[inline(always)]
        unsafe fn store_words(self, x: Self::I, to: *mut u8) {
            unsafe { _mm256_storeu_si256(to.cast(), x) };
        }
        #[inline(always)]
        fn or(self, a: Self::I, b: Self::I) -> Self::I {
            unsafe { _mm256_or_si256(a, b) }
        }
        #[inline(always)]
        fn and_bytes(self, a: Self::I, mask: u8) -> Self::I {
            unsafe { _mm256_and_si256(a, _mm256_set1_epi8(mask as i8)) }
        }
        #[inline(always)]
        fn shift(self, a: Self::I, by: i32) -> Self::I {
            unsafe {
                if by < 0 {
                    _mm256_srl_epi32(a, _mm_cvtsi32_si128(-by))
                } else {
                    _mm256_sll_epi32(a, _mm_cvtsi32_si128(by))
                }
            }
        }
        #[inline(always)]
        unsafe fn load_f16(self, from: *const u8) -> Self::V {
            unsafe { _mm256_cvtph_ps(_mm_loadu_si128(from.cast())) }
        }
        #[inline(always)]
        unsafe fn load_bytes<const SIGNED: bool>(self, from: *const u8) -> Self::V {
            unsafe {
                let bytes = _mm_loadl_epi64(from.cast());
                _mm256_cvtepi32_ps(if SIGNED { _mm256_cvtepi8_epi32(bytes) } else { _mm256_cvtepu8_epi32(bytes) })
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
            // Words of which products are added in 16 bits: at most 15 * 127 * 16, 31 * 127 * 8, 63 * 127 * 4, and twice
            // 127 * 127 or 128 * 127, all below 2^15.
            let together = const {
                match BITS {
                    ..=4 => 8,
                    5 => 4,
                    6 => 2,
                    _ => 1,
                }
            };
            let mut sums = sums;
            unsafe {
                for first in (0..WORDS).step_by(together) {
                    let mut pairs = [_mm256_setzero_si256(); R];
                    for word in first..WORDS.min(first + together) {
                        let w = _mm256_loadu_si256(w.add(32 * word).cast());
                        // A byte with its sign is a magnitude, and the sign moves to q.
                        let signs = _mm256_xor_si256(w, _mm256_set1_epi8(-128));
                        let w = if BITS == 8 { _mm256_abs_epi8(signs) } else { w };
                        for (pairs, q) in pairs.iter_mut().zip(q) {
                            let q = _mm256_set1_epi32(q.add(4 * word).cast::<i32>().read_unaligned());
                            let q = if BITS == 8 { _mm256_sign_epi8(q, signs) } else { q };
                            *pairs = _mm256_add_epi16(*pairs, _mm256_maddubs_epi16(w, q));
                        }
                    }
                    for (sum, pairs) in sums.iter_mut().zip(pairs) {
                        *sum = _mm256_add_epi32(*sum, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
                    }
                }
            }
            sums
        }
        #[inline(always)]
        unsafe fn look_up(self, table: &[u8; 16], at: *mut u8) {
            unsafe {
                let table = _mm256_broadcastsi128_si256(_mm_loadu_si128(table.as_ptr().cast()));
                _mm256_storeu_si256(at.cast(), _mm256_shuffle_epi8(table, _mm256_loadu_si256(at.cast())));
            }
        }
        #[inline(always)]
        unsafe fn transpose(self, from: *const u32, stride: usize, to: *mut u32, to_stride: usize) {
            unsafe {
                let (mut row, mut pair, mut four) =
                    ([_mm256_setzero_si256(); 8], [_mm256_setzero_si256(); 8], [_mm256_setzero_si256(); 8]);
                for (i, row) in row.iter_mut().enumerate() {
                    *row = _mm256_loadu_si256(from.wrapping_add(i * stride).cast());
                }
                for i in (0..8).step_by(2) {
                    pair[i] = _mm256_unpacklo_epi32(row[i], row[i + 1]);
                    pair[i + 1] = _mm256_unpackhi_epi32(row[i], row[i + 1]);
                }
                for i in [0, 1, 4, 5] {
                    // Columns 2i and 2i + 1 of a group of four rows.
                    let at = i / 4 * 4 + i % 4 * 2;
                    four[at] = _mm256_unpacklo_epi64(pair[i], pair[i + 2]);
                    four[at + 1] = _mm256_unpackhi_epi64(pair[i], pair[i + 2]);
                }
                for column in 0..4 {
                    let (a, b) = (four[column], four[4 + column]);
                    let (low, high) =
                        (_mm256_permute2x128_si256::<0x20>(a, b), _mm256_permute2x128_si256::<0x31>(a, b));
                    _mm256_storeu_si256(to.wrapping_add(column * to_stride).cast(), low);
                    _mm256_storeu_si256(to.wrapping_add((4 + column) * to_stride).cast(), high);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::isa::Isa;

    simd_fn! {
        fn exp_all<S>(s: S, x: &[f32], y: &mut [f32]) {
            for (x, y) in x.chunks(S::LANES).zip(y.chunks_mut(S::LANES)) {
                s.store_partial(s.exp(s.load_partial(x)), y);
            }
        }
        fn sum_largest<S>(s: S, x: &[f32]) -> (f32, f32) {
            let v = s.load_partial(x);
            (s.sum(v), s.largest(v))
        }
    }

    #[test]
    fn exp_is_close_on_every_path() {
        let x: Vec<f32> = (-8800..8790).map(|i| i as f32 * 0.01 + 0.003).collect();
        for isa in Isa::available() {
            let mut y = vec![0.0; x.len()];
            exp_all(isa, &x, &mut y);
            for (&x, &y) in x.iter().zip(&y) {
                let want = f64::from(x).exp();
                if x > -87.3 {
                    assert!((f64::from(y) - want).abs() <= 2e-7 * want, "{} exp({x}) = {y}, not {want}", isa.name());
                } else {
                    assert_eq!(y, 0.0);
                }
            }
            let mut edge = [0.0; 4];
            exp_all(isa, &[f32::NEG_INFINITY, f32::NAN, 0.0, 1e9], &mut edge);
            assert!(edge[0] == 0.0 && edge[1].is_nan() && edge[2] == 1.0 && edge[3] > 1e38);
        }
    }

    #[test]
    fn reductions_see_every_lane() {
        for isa in Isa::available() {
            let x: Vec<f32> = (1..=8).map(|i| -(i as f32)).collect();
            let (sum, _) = sum_largest(isa, &x);
            assert_eq!(sum, -36.0);
            let (_, largest) = sum_largest(isa, &[1.0, f32::NAN, 3.0]);
            assert!(largest == 1.0 || largest == 3.0 || largest.is_nan());
        }
    }
}

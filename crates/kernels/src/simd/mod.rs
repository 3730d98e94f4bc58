//! One source of a kernel for several instruction sets: it is written against [`Simd`], [`simd_fn!`] compiles it for
//! each path and picks one at run time by the [`Isa`](crate::isa::Isa) of the device.
//!
//! Lanes never cross in the kernels' sums unless a function here says in which order, so a result depends on the path
//! and on nothing else.

#[cfg(target_arch = "aarch64")]
mod neon;
mod portable;
#[cfg(target_arch = "x86_64")]
mod x86;

use crate::format::bf16::Bf16;
use crate::format::f16;
use crate::isa::{Isa, Kind};

#[cfg(target_arch = "aarch64")]
pub(crate) use neon::Neon;
pub(crate) use portable::Portable;
#[cfg(target_arch = "x86_64")]
pub(crate) use x86::{Avx2, Avx512};

/// The most lanes that a register has.
pub(crate) const LANES: usize = 16;

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
    #[inline(always)]
    unsafe fn load_ptr_n(self, from: *const f32, n: usize) -> Self::V {
        let mut part = [0.0; 16];
        // SAFETY: the caller's promise, and LANES is at most 16.
        unsafe {
            part[..n].copy_from_slice(std::slice::from_raw_parts(from, n));
            self.load_ptr(part.as_ptr())
        }
    }
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
    #[inline(always)]
    unsafe fn store_ptr_n(self, v: Self::V, to: *mut f32, n: usize) {
        // SAFETY: the caller promises n writable floats.
        unsafe { std::slice::from_raw_parts_mut(to, n) }.copy_from_slice(&self.to_array(v)[..n]);
    }
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
/// parameter, and constants behind a semicolon, are the caller's choice. A function that is declared `unsafe` is so for its callers.
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
        $name:ident<S $(, $F:ident: $bound:path)? $(; $(const $C:ident: $T:ty),+)?>
            ($s:ident: S $(, $arg:ident: $ty:ty)* $(,)?) $(-> $ret:ty)? $body:block
        $($rest:tt)*
    ) => {
        #[allow(clippy::too_many_arguments)]
        $($head)* $($unsafe)? fn $name<$($F: $bound,)? $($(const $C: $T),+)?>(
            isa: $crate::isa::Isa $(, $arg: $ty)*
        ) $(-> $ret)? {
            #[inline(always)]
            #[allow(clippy::too_many_arguments)]
            $($unsafe)? fn generic<S: $crate::simd::Simd, $($F: $bound,)? $($(const $C: $T),+)?>(
                $s: S $(, $arg: $ty)*
            ) $(-> $ret)? $body
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx512f,avx512vl,avx512bw,avx512dq,avx512vnni,avx2,fma,f16c")]
            #[allow(clippy::too_many_arguments, unused_unsafe)]
            $($unsafe)? fn avx512<$($F: $bound,)? $($(const $C: $T),+)?>(
                token: $crate::simd::Avx512 $(, $arg: $ty)*
            ) $(-> $ret)? {
                // SAFETY: the promise of the caller, if there is one.
                unsafe { generic::<_, $($F,)? $($($C),+)?>(token $(, $arg)*) }
            }
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma,f16c")]
            #[allow(clippy::too_many_arguments, unused_unsafe)]
            $($unsafe)? fn avx2<$($F: $bound,)? $($(const $C: $T),+)?>(
                token: $crate::simd::Avx2 $(, $arg: $ty)*
            ) $(-> $ret)? {
                // SAFETY: as above.
                unsafe { generic::<_, $($F,)? $($($C),+)?>(token $(, $arg)*) }
            }
            #[cfg(target_arch = "aarch64")]
            #[target_feature(enable = "neon,dotprod")]
            #[allow(clippy::too_many_arguments, unused_unsafe)]
            $($unsafe)? fn neon<$($F: $bound,)? $($(const $C: $T),+)?>(
                token: $crate::simd::Neon $(, $arg: $ty)*
            ) $(-> $ret)? {
                // SAFETY: as above.
                unsafe { generic::<_, $($F,)? $($($C),+)?>(token $(, $arg)*) }
            }
            // Like the other paths a function of its own, not part of its callers.
            #[inline(never)]
            #[allow(clippy::too_many_arguments, unused_unsafe)]
            $($unsafe)? fn portable<$($F: $bound,)? $($(const $C: $T),+)?>(
                token: $crate::simd::Portable $(, $arg: $ty)*
            ) $(-> $ret)? {
                // SAFETY: as above.
                unsafe { generic::<_, $($F,)? $($($C),+)?>(token $(, $arg)*) }
            }
            // SAFETY: as above, and an `Isa` of a kind exists only if the machine has its features.
            #[allow(unused_unsafe)]
            unsafe {
                match isa.0 {
                    #[cfg(target_arch = "x86_64")]
                    $crate::isa::Kind::Amx | $crate::isa::Kind::Avx512Bf16 | $crate::isa::Kind::Avx512 => {
                        avx512::<$($F,)? $($($C),+)?>($crate::simd::Avx512::detected() $(, $arg)*)
                    }
                    #[cfg(target_arch = "x86_64")]
                    $crate::isa::Kind::Avx2 => {
                        avx2::<$($F,)? $($($C),+)?>($crate::simd::Avx2::detected() $(, $arg)*)
                    }
                    #[cfg(target_arch = "aarch64")]
                    $crate::isa::Kind::Neon => {
                        neon::<$($F,)? $($($C),+)?>($crate::simd::Neon::detected() $(, $arg)*)
                    }
                    $crate::isa::Kind::Portable => portable::<$($F,)? $($($C),+)?>($crate::simd::Portable $(, $arg)*),
                }
            }
        }
        $crate::simd::simd_fn! { $($rest)* }
    };
}
pub(crate) use simd_fn;

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

//! Registers of 512 and 256 bits of x86-64.

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
                let (even_low, even_high) = (_mm512_shuffle_i32x4::<0x88>(a, b), _mm512_shuffle_i32x4::<0x88>(c, d));
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

/// Ends a step of sums over several rows. Without it the compiler adds up row by row instead, for which it keeps the words of all
/// steps, more than there are registers.
#[inline]
#[target_feature(enable = "avx2")]
fn step(mut sum: __m256i) -> __m256i {
    // SAFETY: there is no instruction in it.
    unsafe { core::arch::asm!("/* {0} */", inout(ymm_reg) sum, options(nomem, nostack, preserves_flags)) };
    sum
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
                    if R > 1 && together > 1 {
                        pairs = pairs.map(|pairs| step(pairs));
                    }
                }
                for (sum, pairs) in sums.iter_mut().zip(pairs) {
                    *sum = _mm256_add_epi32(*sum, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
                }
                if R > 1 && together < WORDS {
                    sums = sums.map(|sum| step(sum));
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
                let (low, high) = (_mm256_permute2x128_si256::<0x20>(a, b), _mm256_permute2x128_si256::<0x31>(a, b));
                _mm256_storeu_si256(to.wrapping_add(column * to_stride).cast(), low);
                _mm256_storeu_si256(to.wrapping_add((4 + column) * to_stride).cast(), high);
            }
        }
    }
}

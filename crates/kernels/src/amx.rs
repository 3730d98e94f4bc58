//! Tiles of AMX: registers of 16 rows of 64 bytes, and a unit that multiplies two of them.
//!
//! No function is compiled for AMX, so nothing but the assembly here uses tiles or changes their sizes.

use std::arch::asm;
use std::sync::OnceLock;

use crate::format::bf16::Bf16;

/// Rows of a tile, and columns of 32 bits.
pub(crate) const SIDE: usize = 16;

/// Proof that the processor has tiles of integers and bf16, and that the system lets this process use them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tiles(());

impl Tiles {
    /// The proof, if it can be had. Linux gives the state of tiles to a process that asks for it.
    pub(crate) fn permitted() -> Option<Self> {
        static PERMITTED: OnceLock<bool> = OnceLock::new();
        PERMITTED.get_or_init(|| processor_has_tiles() && system_permits()).then_some(Self(()))
    }

    /// Gives this thread's tiles sizes until what is returned is dropped: 0 to 3 have `rows` rows, 4 and 5 so many of `4 * words`
    /// bytes, 6 and 7 have `words` rows; all but 4 and 5 are 64 bytes long. What was in them is lost.
    ///
    /// # Panics
    /// If a size is zero or above [`SIDE`].
    pub(crate) fn configure(self, rows: usize, words: usize) -> Configured {
        assert!((1..=SIDE).contains(&rows) && (1..=SIDE).contains(&words));
        let mut settings = Settings { palette: 1, start_row: 0, reserved: [0; 14], bytes: [0; 16], rows: [0; 16] };
        for tile in 0..8 {
            settings.bytes[tile] = if matches!(tile, 4 | 5) { 4 * words as u16 } else { 64 };
            settings.rows[tile] = if tile < 6 { rows as u8 } else { words as u8 };
        }
        // SAFETY: the proof says that the instruction exists; the settings are valid by the assertion above.
        unsafe { asm!("ldtilecfg [{}]", in(reg) &raw const settings, options(nostack, readonly, preserves_flags)) };
        Configured(())
    }
}

/// What `ldtilecfg` reads.
#[repr(C, align(64))]
struct Settings {
    palette: u8,
    start_row: u8,
    reserved: [u8; 14],
    bytes: [u16; 16],
    rows: [u8; 16],
}

/// Tiles of this thread that have sizes. They are given up when it is dropped, so that the system need not save them.
pub(crate) struct Configured(());

impl Drop for Configured {
    fn drop(&mut self) {
        // SAFETY: there are tiles, or there would be no value of this type.
        unsafe { asm!("tilerelease", options(nomem, nostack, preserves_flags)) };
    }
}

impl Configured {
    /// Writes the product of rows of bytes with a sign, `out[i][j] = sum over p of a[i][p] b[p / 4][j][p % 4]`, where rows of a lie
    /// `a_row` bytes apart.
    ///
    /// # Shapes
    /// a [rows, 4 words], b [words, 16, 4], out [rows, 16]
    ///
    /// # Safety
    /// All of them are valid for the configured sizes.
    #[inline(always)]
    pub(crate) unsafe fn product(&self, a: *const i8, a_row: usize, b: *const u8, out: *mut i32) {
        // SAFETY: the tiles are configured, and the caller's promise.
        unsafe {
            asm!(
                "tilezero tmm0",
                "tileloadd tmm4, [{a} + {a_row}]",
                "tileloadd tmm6, [{b} + {line}]",
                "tdpbssd tmm0, tmm4, tmm6",
                "tilestored [{out} + {line}], tmm0",
                a = in(reg) a,
                a_row = in(reg) a_row,
                b = in(reg) b,
                out = in(reg) out,
                line = in(reg) 64usize,
                out("tmm0") _,
                out("tmm4") _,
                out("tmm6") _,
                options(nostack, preserves_flags),
            );
        }
    }
}

/// The operands of a product of bf16 in tiles.
#[derive(Clone, Copy)]
pub(crate) struct Operands {
    /// Rows, `a_row` bytes apart.
    pub a: *const Bf16,
    pub a_row: usize,
    /// Pairs of rows of 16 columns, `[steps * 16][16][2]`; the next 16 columns lie `b_panel` bytes behind.
    pub b: *const Bf16,
    pub b_panel: usize,
    /// Rows, `c_row` bytes apart.
    pub c: *mut f32,
    pub c_row: usize,
    /// Steps of 32 terms of every sum; at least one.
    pub steps: usize,
    /// Whether sums go on from what c holds.
    pub accumulate: bool,
}

impl Configured {
    /// Computes `c = a b` or `c += a b` for 2 * SIDE rows and 2 * SIDE columns, in four tiles at once.
    ///
    /// # Safety
    /// Rows and words are configured as [`SIDE`], and the operands are valid for this size.
    #[inline(always)]
    pub(crate) unsafe fn four_tiles_of_bf16(&self, operands: Operands) {
        let Operands { a, a_row, b, b_panel, c, c_row, steps, accumulate } = operands;
        // SAFETY: the tiles are configured, and the caller's promise.
        unsafe {
            asm!(
                "test {accumulate}, {accumulate}",
                "jz 2f",
                "tileloadd tmm0, [{c} + {c_row}]",
                "tileloadd tmm1, [{c} + {c_row} + 64]",
                "tileloadd tmm2, [{c_below} + {c_row}]",
                "tileloadd tmm3, [{c_below} + {c_row} + 64]",
                "jmp 3f",
                "2:",
                "tilezero tmm0",
                "tilezero tmm1",
                "tilezero tmm2",
                "tilezero tmm3",
                "3:",
                "tileloadd tmm4, [{a} + {a_row}]",
                "tileloadd tmm6, [{b} + {line}]",
                "tdpbf16ps tmm0, tmm4, tmm6",
                "tileloadd tmm7, [{right} + {line}]",
                "tdpbf16ps tmm1, tmm4, tmm7",
                "tileloadd tmm5, [{below} + {a_row}]",
                "tdpbf16ps tmm2, tmm5, tmm6",
                "tdpbf16ps tmm3, tmm5, tmm7",
                "add {a}, 64",
                "add {below}, 64",
                "add {b}, 1024",
                "add {right}, 1024",
                "dec {steps}",
                "jnz 3b",
                "tilestored [{c} + {c_row}], tmm0",
                "tilestored [{c} + {c_row} + 64], tmm1",
                "tilestored [{c_below} + {c_row}], tmm2",
                "tilestored [{c_below} + {c_row} + 64], tmm3",
                a = inout(reg) a => _,
                below = inout(reg) a.wrapping_byte_add(SIDE * a_row) => _,
                a_row = in(reg) a_row,
                b = inout(reg) b => _,
                right = inout(reg) b.wrapping_byte_add(b_panel) => _,
                line = in(reg) 64usize,
                c = in(reg) c,
                c_below = in(reg) c.wrapping_byte_add(SIDE * c_row),
                c_row = in(reg) c_row,
                steps = inout(reg) steps => _,
                accumulate = in(reg) usize::from(accumulate),
                out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
                options(nostack),
            );
        }
    }

    /// The same for the configured number of rows and 2 * SIDE columns, in two tiles: every sum has the same bits.
    ///
    /// # Safety
    /// Words are configured as [`SIDE`], and the operands are valid for this size.
    #[inline(always)]
    pub(crate) unsafe fn two_tiles_of_bf16(&self, operands: Operands) {
        let Operands { a, a_row, b, b_panel, c, c_row, steps, accumulate } = operands;
        // SAFETY: the tiles are configured, and the caller's promise.
        unsafe {
            asm!(
                "test {accumulate}, {accumulate}",
                "jz 2f",
                "tileloadd tmm0, [{c} + {c_row}]",
                "tileloadd tmm1, [{c} + {c_row} + 64]",
                "jmp 3f",
                "2:",
                "tilezero tmm0",
                "tilezero tmm1",
                "3:",
                "tileloadd tmm4, [{a} + {a_row}]",
                "tileloadd tmm6, [{b} + {line}]",
                "tdpbf16ps tmm0, tmm4, tmm6",
                "tileloadd tmm7, [{right} + {line}]",
                "tdpbf16ps tmm1, tmm4, tmm7",
                "add {a}, 64",
                "add {b}, 1024",
                "add {right}, 1024",
                "dec {steps}",
                "jnz 3b",
                "tilestored [{c} + {c_row}], tmm0",
                "tilestored [{c} + {c_row} + 64], tmm1",
                a = inout(reg) a => _,
                a_row = in(reg) a_row,
                b = inout(reg) b => _,
                right = inout(reg) b.wrapping_byte_add(b_panel) => _,
                line = in(reg) 64usize,
                c = in(reg) c,
                c_row = in(reg) c_row,
                steps = inout(reg) steps => _,
                accumulate = in(reg) usize::from(accumulate),
                out("tmm0") _, out("tmm1") _, out("tmm4") _, out("tmm6") _, out("tmm7") _,
                options(nostack),
            );
        }
    }
}

/// Whether the processor has AMX-TILE, AMX-INT8 and AMX-BF16.
fn processor_has_tiles() -> bool {
    const WANTED: u32 = 1 << 22 | 1 << 24 | 1 << 25;
    std::arch::x86_64::__get_cpuid_max(0).0 >= 7 && std::arch::x86_64::__cpuid_count(7, 0).edx & WANTED == WANTED
}

/// Asks Linux for the state of tiles; without it the first instruction of AMX would end the process.
fn system_permits() -> bool {
    #[cfg(target_os = "linux")]
    {
        const ARCH_REQ_XCOMP_PERM: i32 = 0x1023;
        const XFEATURE_XTILEDATA: i32 = 18;
        // SAFETY: the call takes two numbers and touches no memory of the process.
        unsafe { libc::syscall(libc::SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA) == 0 }
    }
    #[cfg(not(target_os = "linux"))]
    false
}

//! The instruction set that a kernel runs on. One is chosen when the device is made; every value of [`Isa`] is proof
//! that this machine has it.

use crate::amx::Tiles;

/// An instruction-set path that this machine supports.
///
/// Bits are promised per path: two paths agree to a stated bound, one path agrees with itself for any batch and any
/// number of threads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Isa(pub(crate) Kind);

/// The paths that exist. Private to the crate, so that [`Isa`] cannot be made without detection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// AVX-512 whose products of many rows use AMX's tiles.
    #[cfg(target_arch = "x86_64")]
    Amx,
    /// AVX-512 with VNNI, whose products of bf16 use `vdpbf16ps`.
    #[cfg(target_arch = "x86_64")]
    Avx512Bf16,
    /// AVX-512 with VNNI.
    #[cfg(target_arch = "x86_64")]
    Avx512,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    #[cfg(target_arch = "aarch64")]
    Neon,
    Portable,
}

impl Isa {
    /// The fastest path of this machine.
    pub fn detect() -> Self {
        Self::available()[0]
    }

    /// The path that every machine has.
    pub fn portable() -> Self {
        Self(Kind::Portable)
    }

    /// Every path of this machine, the fastest first; `portable` is always the last.
    pub fn available() -> Vec<Self> {
        let mut found = Vec::new();
        #[cfg(target_arch = "x86_64")]
        {
            if is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512vl")
                && is_x86_feature_detected!("avx512bw")
                && is_x86_feature_detected!("avx512dq")
                && is_x86_feature_detected!("avx512vnni")
            {
                if Tiles::permitted().is_some() {
                    found.push(Self(Kind::Amx));
                }
                if is_x86_feature_detected!("avx512bf16") {
                    found.push(Self(Kind::Avx512Bf16));
                }
                found.push(Self(Kind::Avx512));
            }
            if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") && is_x86_feature_detected!("f16c") {
                found.push(Self(Kind::Avx2));
            }
        }
        #[cfg(target_arch = "aarch64")]
        if std::arch::is_aarch64_feature_detected!("neon") && std::arch::is_aarch64_feature_detected!("dotprod") {
            found.push(Self(Kind::Neon));
        }
        found.push(Self(Kind::Portable));
        found
    }

    /// The tiles of the path, if it has some.
    pub(crate) fn tiles(self) -> Option<Tiles> {
        match self.0 {
            #[cfg(target_arch = "x86_64")]
            Kind::Amx => Tiles::permitted(),
            _ => None,
        }
    }

    /// The name of the path: `amx`, `avx512bf16`, `avx512`, `avx2`, `neon` or `portable`.
    pub fn name(self) -> &'static str {
        match self.0 {
            #[cfg(target_arch = "x86_64")]
            Kind::Amx => "amx",
            #[cfg(target_arch = "x86_64")]
            Kind::Avx512Bf16 => "avx512bf16",
            #[cfg(target_arch = "x86_64")]
            Kind::Avx512 => "avx512",
            #[cfg(target_arch = "x86_64")]
            Kind::Avx2 => "avx2",
            #[cfg(target_arch = "aarch64")]
            Kind::Neon => "neon",
            Kind::Portable => "portable",
        }
    }
}

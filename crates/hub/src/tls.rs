//! Encryption of clients, of this crate and of others that speak HTTP.

use std::sync::Arc;

use ureq::tls::{TlsConfig, TlsProvider};

/// The settings of a client that encrypts where [`is_possible`].
pub fn config() -> TlsConfig {
    TlsConfig::builder()
        .provider(TlsProvider::Rustls)
        .unversioned_rustls_crypto_provider(Arc::new(rustls_graviola::default_provider()))
        .build()
}

/// Whether the processor has the instructions that the library of encryption is written in.
pub fn is_possible() -> bool {
    #[cfg(target_arch = "x86_64")]
    {
        is_x86_feature_detected!("adx")
            && is_x86_feature_detected!("aes")
            && is_x86_feature_detected!("avx2")
            && is_x86_feature_detected!("bmi1")
            && is_x86_feature_detected!("bmi2")
            && is_x86_feature_detected!("pclmulqdq")
    }
    #[cfg(not(target_arch = "x86_64"))]
    true
}

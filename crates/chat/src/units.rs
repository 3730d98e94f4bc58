//! Sizes for people.

/// A size such as `1.5 GB` or `3.2 MB`, in powers of 1000.
pub fn gigabytes(bytes: u64) -> String {
    match bytes {
        1_000_000_000.. => format!("{:.1} GB", bytes as f64 / 1e9),
        _ => format!("{:.1} MB", bytes as f64 / 1e6),
    }
}

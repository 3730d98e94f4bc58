//! Types whose values may lie in a buffer.

/// Types that any initialized bytes are a value of.
///
/// # Safety
/// Implementors have no padding and no invalid bit pattern, and an alignment of at most 64.
pub unsafe trait Pod: Copy + Send + Sync + 'static {}
// SAFETY: plain numbers.
unsafe impl Pod for f32 {}
// SAFETY: plain numbers.
unsafe impl Pod for u32 {}
// SAFETY: plain numbers.
unsafe impl Pod for u16 {}
// SAFETY: plain numbers.
unsafe impl Pod for u8 {}
// SAFETY: plain numbers.
unsafe impl Pod for i32 {}
// SAFETY: plain numbers.
unsafe impl Pod for i8 {}

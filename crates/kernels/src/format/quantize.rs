//! Quantization: rows of f32 become rows of a format.

use minke_spec::Format;

use super::{Iq4Nl, Iq4Xs, Q2K, Q3K, Q4_0, Q4_1, Q4K, Q5_0, Q5_1, Q5K, Q6K, Q8_0, Quantized, bf16, f16};
use crate::Device;
use crate::device::Parts;
use crate::isa::Isa;

/// Rows of at least so many values are one task.
const TASK: usize = 1 << 14;

/// Encodes whole blocks: path, values, weights, bytes.
type Encode = fn(Isa, &[f32], &[f32], &mut [u8]);

/// What encodes rows of a format; nothing for formats that are only read.
fn encoder(format: Format) -> Option<Encode> {
    Some(match format {
        Format::F32 => |_, x, _, out| floats(x, out, f32::to_le_bytes),
        Format::F16 => |_, x, _, out| floats(x, out, |x| f16::encode(x).to_le_bytes()),
        Format::Bf16 => |_, x, _, out| floats(x, out, |x| bf16::Bf16::from_f32(x).0.to_le_bytes()),
        Format::Q4_0 => blocks::<Q4_0>,
        Format::Q4_1 => blocks::<Q4_1>,
        Format::Q5_0 => blocks::<Q5_0>,
        Format::Q5_1 => blocks::<Q5_1>,
        Format::Q8_0 => blocks::<Q8_0>,
        Format::Q2K => blocks::<Q2K>,
        Format::Q3K => blocks::<Q3K>,
        Format::Q4K => blocks::<Q4K>,
        Format::Q5K => blocks::<Q5K>,
        Format::Q6K => blocks::<Q6K>,
        Format::Iq4Nl => blocks::<Iq4Nl>,
        Format::Iq4Xs => blocks::<Iq4Xs>,
        _ => return None,
    })
}

fn floats<const N: usize>(x: &[f32], out: &mut [u8], encode: impl Fn(f32) -> [u8; N]) {
    for (x, out) in x.iter().zip(out.as_chunks_mut().0) {
        *out = encode(*x);
    }
}

fn blocks<F: Quantized>(isa: Isa, x: &[f32], w: &[f32], out: &mut [u8]) {
    let (elements, bytes) = (F::FORMAT.block_elements(), F::FORMAT.block_bytes());
    for ((x, w), block) in x.chunks_exact(elements).zip(w.chunks_exact(elements)).zip(out.chunks_exact_mut(bytes)) {
        F::quantize(isa, x, w, block);
    }
}

/// Whether [`quantize`] writes a format.
pub fn can_quantize(format: Format) -> bool {
    encoder(format).is_some()
}

/// Writes rows in a format with the least loss: the sum of `w (x - value)^2`, where `weights` has a w per column, all of
/// them 1 if it is empty. The same bytes for any number of threads.
///
/// # Shapes
/// x [rows, k], weights `[k]` or empty, out: the bytes of x in the format
///
/// # Panics
/// If [`can_quantize`] is false, rows are not whole blocks, or lengths do not fit.
pub fn quantize(device: &Device, format: Format, x: &[f32], k: usize, weights: &[f32], out: &mut [u8]) {
    let encode = encoder(format).expect("invariant: the caller asked whether the format can be written");
    assert!(k > 0 && k.is_multiple_of(format.block_elements()) && x.len().is_multiple_of(k));
    assert!(weights.is_empty() || weights.len() == k);
    assert_eq!(out.len(), format.bytes(x.len()));
    let weights = normalized(weights, k);
    let (rows, each) = (x.len() / k, format.bytes(k));
    let group = (TASK / k).max(1);
    match device {
        Device::Cpu(cpu) => {
            let parts = Parts::new(out);
            cpu.run(rows.div_ceil(group), |task| {
                for row in task * group..rows.min((task + 1) * group) {
                    // SAFETY: every row is one task's.
                    let out = unsafe { parts.part(row * each, each) };
                    encode(cpu.isa(), &x[row * k..][..k], &weights, out);
                }
            });
        }
        Device::Reference(_) => {
            for (x, out) in x.chunks_exact(k).zip(out.chunks_exact_mut(each)) {
                encode(Isa::portable(), x, &weights, out);
            }
        }
    }
}

/// Weights whose mean is 1 and of which none is 0: columns that were never seen still count a little.
fn normalized(weights: &[f32], k: usize) -> Vec<f32> {
    const LEAST: f32 = 1e-4;
    let mean = weights.iter().map(|&w| f64::from(w)).sum::<f64>() / k as f64;
    if mean > 0.0 && mean.is_finite() {
        weights.iter().map(|&w| ((f64::from(w) / mean) as f32).max(LEAST)).collect()
    } else {
        vec![1.0; k]
    }
}

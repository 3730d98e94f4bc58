//! Rotary angles by channel and position, and their changes for long context.
//!
//! A pair `i` of channels is rotated at position `p` by the angle `p * inverse_frequencies[i]`. YaRN stretches the slow
//! pairs and corrects the magnitude in one of two places: DeepSeek's configurations put it, squared, into the softmax
//! scale ([`softmax_scale`]); others multiply cos and sin ([`cos_sin_multiplier`]).

use crate::ModelConfig;
use crate::config::{AttentionConfig, Llama3RopeConfig, RopeConfig, RopeScaling, YarnConfig};

/// The rotation per position of each pair of channels, in radians.
///
/// # Shapes
/// `dim` channels -> `[dim / 2]`
///
/// # Paper
/// V3 4.3 (YaRN); facts sheet 1.4, 1.12
///
/// # Numerics
/// f32, in the order of operations of `transformers`: an angle is a product of f32 numbers and at position 9,000 the
/// last bit of a frequency is visible in the logits.
pub fn inverse_frequencies(rope: &RopeConfig, dim: usize) -> Vec<f32> {
    // The exponent is rounded to f32 as well; the power itself is taken in f64, which no platform rounds differently.
    let exponent = |i: usize| f64::from((2 * i) as f32 / dim as f32);
    let powers = (0..dim / 2).map(|i| f64::from(rope.theta as f32).powf(exponent(i)) as f32);
    match &rope.scaling {
        RopeScaling::None => powers.map(|power| 1.0 / power).collect(),
        RopeScaling::Linear(factor) => powers.map(|power| 1.0 / power / *factor as f32).collect(),
        RopeScaling::Yarn(yarn) => {
            let (low, high) = yarn_range(rope.theta, yarn, dim);
            let stretched = |(i, power): (usize, f32)| {
                let ramp = ((i as f32 - low as f32) / (high - low) as f32).clamp(0.0, 1.0);
                let kept = 1.0 - ramp;
                (1.0 / (yarn.factor as f32 * power)) * (1.0 - kept) + (1.0 / power) * kept
            };
            powers.enumerate().map(stretched).collect()
        }
        RopeScaling::Llama3(llama3) => powers.map(|power| llama3_frequency(llama3, 1.0 / power)).collect(),
        RopeScaling::Divisors(divisors) => powers.zip(divisors).map(|(power, divisor)| 1.0 / power / divisor).collect(),
    }
}

/// The factor of query-key products before the softmax.
///
/// For MLA with YaRN it contains the squared magnitude correction, weighted by `mscale_all_dim`; for every other model
/// it is one over the root of the width of a head.
///
/// # Paper
/// V3 4.3; facts sheet 1.4
pub fn softmax_scale(config: &ModelConfig) -> f64 {
    let (qk_head_dim, _) = config.head_dims();
    let scale = (qk_head_dim as f64).powf(-0.5);
    match (&config.attention, &config.rope.scaling) {
        (AttentionConfig::Mla(_), RopeScaling::Yarn(yarn)) => {
            let magnitude = yarn.mscale_all_dim.map_or(1.0, |mscale| yarn_magnitude(yarn.factor, mscale));
            scale * magnitude * magnitude
        }
        _ => scale,
    }
}

/// The factor of cos and sin, of queries and keys alike.
///
/// # Paper
/// V3 4.3; facts sheet 1.4, 1.12
pub fn cos_sin_multiplier(rope: &RopeConfig) -> f64 {
    match &rope.scaling {
        RopeScaling::Yarn(yarn) => yarn_attention_factor(yarn),
        RopeScaling::None | RopeScaling::Linear(_) | RopeScaling::Llama3(_) | RopeScaling::Divisors(_) => 1.0,
    }
}

/// The given attention factor, or YaRN's own.
pub(crate) fn yarn_attention_factor(yarn: &YarnConfig) -> f64 {
    yarn.attention_factor.unwrap_or_else(|| match (yarn.mscale, yarn.mscale_all_dim) {
        (Some(mscale), Some(all_dim)) => yarn_magnitude(yarn.factor, mscale) / yarn_magnitude(yarn.factor, all_dim),
        _ => yarn_magnitude(yarn.factor, 1.0),
    })
}

/// YaRN's magnitude correction, `0.1 mscale ln(factor) + 1`.
fn yarn_magnitude(factor: f64, mscale: f64) -> f64 {
    if factor <= 1.0 { 1.0 } else { 0.1 * mscale * factor.ln() + 1.0 }
}

/// The pairs between which frequencies pass from kept to divided.
fn yarn_range(theta: f64, yarn: &YarnConfig, dim: usize) -> (f64, f64) {
    // The pair that makes `rotations` turns within the original context.
    let pair = |rotations: f64| {
        let context = yarn.original_max_position_embeddings as f64;
        dim as f64 * (context / (rotations * 2.0 * std::f64::consts::PI)).ln() / (2.0 * theta.ln())
    };
    let low = pair(yarn.beta_fast).floor().max(0.0);
    let high = pair(yarn.beta_slow).ceil().min(dim as f64 - 1.0);
    // Equal ends would divide by zero; the amount is that of the reference code.
    if low == high { (low, high + 0.001) } else { (low, high) }
}

fn llama3_frequency(llama3: &Llama3RopeConfig, frequency: f32) -> f32 {
    let (factor, original) = (llama3.factor as f32, llama3.original_max_position_embeddings as f64);
    let longest = (original / llama3.low_freq_factor) as f32;
    let shortest = (original / llama3.high_freq_factor) as f32;
    let wavelength = (2.0 * std::f64::consts::PI) as f32 / frequency;
    if wavelength > longest {
        frequency / factor
    } else if wavelength < shortest {
        frequency
    } else {
        let range = (llama3.high_freq_factor - llama3.low_freq_factor) as f32;
        let kept = (original as f32 / wavelength - llama3.low_freq_factor as f32) / range;
        (1.0 - kept) * frequency / factor + kept * frequency
    }
}

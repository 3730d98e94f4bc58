//! Operations float by float: sums, products, bounds, and the few sums over everything that training needs.
//!
//! Every float's result depends on that float alone, so slices may be cut and threaded anywhere. [`weighted_sum`] and
//! [`sum_squares`] go in chunks of a constant size, combined in index order.

pub(crate) mod cpu;
pub mod reference;
#[cfg(test)]
mod tests;

use crate::{Device, View, ViewMut};
use reference::{one, two};

/// Computes `y = a + scale * b`.
///
/// # Numerics
/// One fused multiply-add where the path has it; exact product for a scale of 1.
pub fn add_scaled(device: &Device, a: View<'_, f32>, b: View<'_, f32>, scale: f32, y: ViewMut<'_, f32>) {
    assert_eq!((a.len(), b.len()), (y.len(), y.len()));
    match device {
        Device::Cpu(cpu) => {
            cpu::two(cpu, a.host(), b.host(), y.host(), |isa, a, b, y| cpu::add_scaled(isa, a, b, scale, y));
        }
        Device::Reference(_) => y.set(&two(a, b, |a, b| reference::add_scaled(a, b, scale.into()))),
    }
}

/// Computes `y += scale * x`.
///
/// # Numerics
/// As [`add_scaled`].
pub fn accumulate(device: &Device, x: View<'_, f32>, scale: f32, y: ViewMut<'_, f32>) {
    assert_eq!(x.len(), y.len());
    match device {
        Device::Cpu(cpu) => cpu::one(cpu, x.host(), y.host(), |isa, x, y| cpu::accumulate(isa, x, scale, y)),
        Device::Reference(_) => y.add(&one(x, |x| f64::from(scale) * x)),
    }
}

/// Computes `y = scale * x`.
pub fn scale(device: &Device, x: View<'_, f32>, scale: f32, y: ViewMut<'_, f32>) {
    assert_eq!(x.len(), y.len());
    match device {
        Device::Cpu(cpu) => cpu::one(cpu, x.host(), y.host(), |isa, x, y| cpu::scale(isa, x, scale, y)),
        Device::Reference(_) => y.set(&one(x, |x| f64::from(scale) * x)),
    }
}

/// Computes `y = scale * x` with a factor that the device computed.
///
/// # Shapes
/// x, y `[n]`, scale `[1]`
pub fn scale_by(device: &Device, x: View<'_, f32>, scale: View<'_, f32>, y: ViewMut<'_, f32>) {
    assert_eq!((x.len(), scale.len()), (y.len(), 1));
    match device {
        Device::Cpu(cpu) => {
            let scale = scale.host()[0];
            cpu::one(cpu, x.host(), y.host(), |isa, x, y| cpu::scale(isa, x, scale, y));
        }
        Device::Reference(_) => y.set(&one(x, |x| f64::from(scale.host()[0]) * x)),
    }
}

/// Computes `y = a * b`; also the gradient of either factor, from dy and the other.
pub fn mul(device: &Device, a: View<'_, f32>, b: View<'_, f32>, y: ViewMut<'_, f32>) {
    assert_eq!((a.len(), b.len()), (y.len(), y.len()));
    match device {
        Device::Cpu(cpu) => cpu::two(cpu, a.host(), b.host(), y.host(), cpu::mul),
        Device::Reference(_) => y.set(&two(a, b, |a, b| a * b)),
    }
}

/// Computes `y = e^x`; its gradient is `mul(dy, y)`.
///
/// # Numerics
/// The standard library's exponential, the same on every path; overflows to infinity.
pub fn exp(device: &Device, x: View<'_, f32>, y: ViewMut<'_, f32>) {
    assert_eq!(x.len(), y.len());
    match device {
        Device::Cpu(cpu) => cpu::one(cpu, x.host(), y.host(), |_, x, y| cpu::exp(x, y)),
        Device::Reference(_) => y.set(&one(x, f64::exp)),
    }
}

/// Computes `y = 1 / (1 + e^-x)`.
///
/// # Numerics
/// Relative error below 1e-6 for x above -87; below it y is under 1e-37.
pub fn sigmoid(device: &Device, x: View<'_, f32>, y: ViewMut<'_, f32>) {
    assert_eq!(x.len(), y.len());
    match device {
        Device::Cpu(cpu) => cpu::one(cpu, x.host(), y.host(), cpu::sigmoid),
        Device::Reference(_) => y.set(&one(x, reference::sigmoid)),
    }
}

/// Computes `dx = dy y (1 - y)`, the gradient of [`sigmoid`] from its result.
pub fn sigmoid_backward(device: &Device, y: View<'_, f32>, dy: View<'_, f32>, dx: ViewMut<'_, f32>) {
    assert_eq!((y.len(), dy.len()), (dx.len(), dx.len()));
    match device {
        Device::Cpu(cpu) => cpu::two(cpu, y.host(), dy.host(), dx.host(), cpu::sigmoid_backward),
        Device::Reference(_) => dx.set(&two(y, dy, reference::sigmoid_backward)),
    }
}

/// Computes `y = x` bounded to `[low, high]`. Not a number stays so.
pub fn clamp(device: &Device, x: View<'_, f32>, low: f32, high: f32, y: ViewMut<'_, f32>) {
    assert!(low <= high && x.len() == y.len());
    match device {
        Device::Cpu(cpu) => cpu::one(cpu, x.host(), y.host(), |isa, x, y| cpu::clamp(isa, x, low, high, y)),
        Device::Reference(_) => y.set(&one(x, |x| reference::clamp(x, low.into(), high.into()))),
    }
}

/// Computes the gradient of [`clamp`]: dy where `low <= x <= high`, else zero.
pub fn clamp_backward(device: &Device, x: View<'_, f32>, low: f32, high: f32, dy: View<'_, f32>, dx: ViewMut<'_, f32>) {
    assert_eq!((x.len(), dy.len()), (dx.len(), dx.len()));
    match device {
        Device::Cpu(cpu) => cpu::two(cpu, x.host(), dy.host(), dx.host(), |isa, x, dy, dx| {
            cpu::clamp_backward(isa, x, low, high, dy, dx);
        }),
        Device::Reference(_) => {
            dx.set(&two(x, dy, |x, dy| reference::clamp_backward(x, low.into(), high.into(), dy)));
        }
    }
}

/// Computes the smaller of `a` and `b`; not a number if either is.
pub fn min(device: &Device, a: View<'_, f32>, b: View<'_, f32>, y: ViewMut<'_, f32>) {
    assert_eq!((a.len(), b.len()), (y.len(), y.len()));
    match device {
        Device::Cpu(cpu) => cpu::two(cpu, a.host(), b.host(), y.host(), cpu::min),
        Device::Reference(_) => y.set(&two(a, b, reference::min)),
    }
}

/// Computes the gradients of [`min`]: dy to the smaller, half of it to each of two equals.
pub fn min_backward(
    device: &Device,
    a: View<'_, f32>,
    b: View<'_, f32>,
    dy: View<'_, f32>,
    da: ViewMut<'_, f32>,
    db: ViewMut<'_, f32>,
) {
    assert_eq!((a.len(), b.len(), da.len(), db.len()), (dy.len(), dy.len(), dy.len(), dy.len()));
    match device {
        Device::Cpu(cpu) => cpu::min_backward(cpu, a.host(), b.host(), dy.host(), da.host(), db.host()),
        Device::Reference(_) => {
            let (a, b, dy) = (a.wide(), b.wide(), dy.wide());
            let both: (Vec<f64>, Vec<f64>) = (0..dy.len()).map(|i| reference::min_backward(a[i], b[i], dy[i])).unzip();
            da.set(&both.0);
            db.set(&both.1);
        }
    }
}

/// Writes `value` everywhere.
pub fn fill(device: &Device, value: f32, y: ViewMut<'_, f32>) {
    match device {
        Device::Cpu(cpu) => cpu::fill(cpu, value, y.host()),
        Device::Reference(_) => y.host().fill(value),
    }
}

/// Computes the sum of `x_i weights_i`.
///
/// # Shapes
/// x, weights `[n]`, y `[1]`
///
/// # Numerics
/// In f64, rounded once: chunks of 4096 floats, each summed in a fixed order, added in index order: the same bits for
/// any threads and on every path.
pub fn weighted_sum(device: &Device, x: View<'_, f32>, weights: View<'_, f32>, y: ViewMut<'_, f32>) {
    assert_eq!((x.len(), y.len()), (weights.len(), 1));
    match device {
        Device::Cpu(cpu) => y.host()[0] = cpu::dot(cpu, x.host(), weights.host()) as f32,
        Device::Reference(_) => y.set(&[reference::dot(&x.wide(), &weights.wide())]),
    }
}

/// The sum of the squares of all values of all views, for the host.
///
/// # Numerics
/// In f64; of each view as [`weighted_sum`], views in order.
pub fn sum_squares<'a>(device: &Device, all: impl Iterator<Item = View<'a, f32>>) -> f64 {
    match device {
        Device::Cpu(cpu) => all.map(|x| cpu::sum_squares(cpu, x.host())).sum(),
        Device::Reference(_) => all.map(|x| reference::dot(&x.wide(), &x.wide())).sum(),
    }
}

/// Whether no value is infinite or not a number, for the host.
pub fn all_finite(device: &Device, x: View<'_, f32>) -> bool {
    match device {
        Device::Cpu(cpu) => cpu::all_finite(cpu, x.host()),
        Device::Reference(_) => x.host().iter().all(|x| x.is_finite()),
    }
}

//! Helpers of the tests of every op: all devices and paths, one to three threads, bounds, derivatives.
#![allow(clippy::unwrap_used)]

use crate::device::Cpu;
use crate::pod::Pod;
use crate::{Device, Isa, View, ViewMut};
use minke_spec::draw::{Domain, draw};

/// Standard normal floats.
pub(crate) fn random(seed: u64, len: usize) -> Vec<f32> {
    let mut stream = draw(seed, Domain::Data, &[len as u64]);
    (0..len).map(|_| stream.normal() as f32).collect()
}

/// Integers below `n`.
pub(crate) fn random_ids(seed: u64, len: usize, n: usize) -> Vec<u32> {
    let mut stream = draw(seed, Domain::Data, &[len as u64, n as u64]);
    (0..len).map(|_| stream.below(n as u64) as u32).collect()
}

/// An output buffer with contents that no result may contain.
pub(crate) fn unwritten(len: usize) -> Vec<f32> {
    vec![f32::NAN; len]
}

/// The floats as doubles.
pub(crate) fn wide(x: &[f32]) -> Vec<f64> {
    x.iter().map(|&v| f64::from(v)).collect()
}

/// The bits, so that comparisons see signs of zeros and not-a-numbers.
pub(crate) fn bits(x: &[f32]) -> Vec<u32> {
    x.iter().map(|v| v.to_bits()).collect()
}

/// Values of the host as operations take them.
pub(crate) fn view<T: Pod>(x: &[T]) -> View<'_, T> {
    View::of(x)
}

/// The same, for writing.
pub(crate) fn view_mut<T: Pod>(x: &mut [T]) -> ViewMut<'_, T> {
    ViewMut::of(x)
}

/// A path of the processor.
pub(crate) fn path(threads: usize, isa: Isa) -> Device {
    Device::cpu(threads, isa).unwrap()
}

/// The same for what only the processor has.
pub(crate) fn cpu(threads: usize, isa: Isa) -> Cpu {
    let Device::Cpu(cpu) = path(threads, isa) else { unreachable!("a path is one of the processor") };
    cpu
}

/// Every device and path, with each number of threads.
pub(crate) fn devices<const N: usize>(threads: [usize; N]) -> Vec<Device> {
    threads.into_iter().flat_map(|threads| Device::all(threads).unwrap()).collect()
}

/// Devices that give the same bits: every path with one to three threads, and the device of references.
pub(crate) fn groups() -> Vec<Vec<Device>> {
    let paths = Isa::available().into_iter().map(|isa| [1, 2, 3].map(|threads| path(threads, isa)).into());
    paths.chain([vec![Device::reference()]]).collect()
}

/// Runs `run` on every device and path, holds 2 and 3 threads to the bits of 1, and hands the outputs to `check`.
pub(crate) fn on_every_path(run: impl Fn(&Device) -> Vec<Vec<f32>>, check: impl Fn(&[Vec<f32>], &str)) {
    for devices in groups() {
        let one = run(&devices[0]);
        for device in &devices[1..] {
            let more = run(device);
            assert!(one.iter().map(|y| bits(y)).eq(more.iter().map(|y| bits(y))), "{device:?}");
        }
        check(&one, devices[0].name());
    }
}

/// Fails unless `|got - want| <= bound * (1 + |want|)` everywhere.
pub(crate) fn close(got: &[f32], want: &[f64], bound: f64, what: &str) {
    assert_eq!(got.len(), want.len(), "{what}");
    for (i, (&g, &w)) in got.iter().zip(want).enumerate() {
        assert!((f64::from(g) - w).abs() <= bound * (1.0 + w.abs()), "{what}: element {i} is {g}, not {w}");
    }
}

/// Fails unless `gradient` is the derivative of `sum(weights * f(x))`, by central differences.
pub(crate) fn is_derivative(gradient: &[f64], x: &[f64], weights: &[f64], f: impl Fn(&[f64]) -> Vec<f64>) {
    assert_eq!(gradient.len(), x.len());
    let loss = |x: &[f64]| -> f64 { f(x).iter().zip(weights).map(|(y, d)| y * d).sum() };
    let mut moved = x.to_vec();
    for i in 0..x.len() {
        const STEP: f64 = 1e-5;
        moved[i] = x[i] + STEP;
        let up = loss(&moved);
        moved[i] = x[i] - STEP;
        let slope = (up - loss(&moved)) / (2.0 * STEP);
        moved[i] = x[i];
        assert!((slope - gradient[i]).abs() <= 1e-7 * (1.0 + slope.abs()), "element {i}: {} not {slope}", gradient[i]);
    }
}

//! The bias, without any balance loss, evens out the load of experts where few tokens are most of the text: the same
//! model on the same stream, with V3's gamma and without. A bias that moves the wrong way, or that the choice does not
//! see, fails it. Figure: docs/figures/expert-load.svg.
#![allow(clippy::unwrap_used)]

mod skewed;

use minke_tensor::Device;

#[test]
fn the_fullest_expert_comes_down_to_the_mean() {
    let device = Device::open("cpu", 2).unwrap();
    let end = |gamma: f32| skewed::end(&skewed::violations(&device, gamma).unwrap());
    let (without, with) = (end(0.0), end(1e-3));
    println!("second half of the steps: gamma 0: {without:.2}, gamma 1e-3: {with:.2}");
    assert!(without > 2.0, "the load is even anyway: {without}");
    assert!(with < without / 3.0, "gamma 0: {without}, gamma 1e-3: {with}");
}

use super::*;
use crate::ops::testing::{devices, random, view, view_mut};

#[test]
fn values_are_rounded_one_by_one_and_come_back() {
    for device in devices([1, 2]) {
        for n in [0, 1, 15, 33, 50_001] {
            let mut x = random(1, n);
            x.iter_mut().step_by(7).zip([f32::NAN, f32::INFINITY, f32::MAX, 1e-40]).for_each(|(x, v)| *x = v);
            let mut y = vec![Bf16::ZERO; n];
            narrow(&device, view(&x), view_mut(&mut y));
            let mut back = vec![0.0; n];
            widen(&device, view(&y), view_mut(&mut back));
            for ((x, y), back) in x.iter().zip(y).zip(back) {
                assert_eq!(y, Bf16::from_f32(*x), "{device:?} {x}");
                assert_eq!(back.to_bits(), y.to_f32().to_bits());
            }
        }
    }
}

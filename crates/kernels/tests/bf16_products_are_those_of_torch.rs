//! A linear layer and both its gradients in bf16 against PyTorch, on every path.
#![allow(clippy::unwrap_used)]

use minke_kernels::ops::matmul::Size;
use minke_kernels::ops::{bf16_matmul, cast};
use minke_kernels::{Bf16, Device};
use safetensors::SafeTensors;

#[test]
fn a_linear_layer_and_its_gradients() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../testdata/bf16/golden.safetensors");
    let file = std::fs::read(path).unwrap();
    let tensors = SafeTensors::deserialize(&file).unwrap();
    let floats = |name: &str| -> Vec<f32> {
        tensors.tensor(name).unwrap().data().as_chunks().0.iter().map(|&value| f32::from_le_bytes(value)).collect()
    };
    let doubles = |name: &str| -> Vec<f64> {
        tensors.tensor(name).unwrap().data().as_chunks().0.iter().map(|&value| f64::from_le_bytes(value)).collect()
    };
    let &[m, k] = tensors.tensor("x").unwrap().shape() else { panic!("x is a matrix") };
    let n = tensors.tensor("w").unwrap().shape()[0];
    let size = Size { m, n, k };
    for device in Device::all(2).unwrap() {
        let [x, w, dy] = ["x", "w", "dy"].map(|name| device.upload(&floats(name)));
        let mut rows = device.zeros::<Bf16>(m * bf16_matmul::row_len(k));
        bf16_matmul::round_rows(&device, x.view(), k, rows.view_mut());
        let mut held = device.zeros::<Bf16>(n * k);
        cast::narrow(&device, w.view(), held.view_mut());
        let mut packed = device.zeros::<Bf16>(bf16_matmul::packed_len(&device, n, k));
        bf16_matmul::pack(&device, held.view(), n, k, packed.view_mut());
        let [mut y, mut dx, mut dw] = [m * n, m * k, n * k].map(|len| device.zeros::<f32>(len));
        bf16_matmul::matmul(&device, rows.view(), packed.view(), size, y.view_mut());
        let to = (Some(dx.view_mut()), dw.view_mut());
        bf16_matmul::backward(&device, dy.view(), rows.view(), held.view(), size, to.0, to.1);
        for (name, got) in [("y", y), ("dx", dx), ("dw", dw)] {
            for (i, (got, want)) in got.view::<f32>().read().into_iter().zip(doubles(name)).enumerate() {
                let off = (f64::from(got) - want).abs();
                assert!(off <= 4e-6 * (1.0 + want.abs()), "{} {name} {i} is {got}, not {want}", device.name());
            }
        }
    }
}

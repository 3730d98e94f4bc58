//! Weights that are not trained: in every format they pass on the gradient of the product with their values, and get none
//! themselves.
#![allow(clippy::unwrap_used)]

use minke_spec::Format;
use minke_spec::draw::{Domain, draw};
use minke_tensor::{
    Device, Dispatch, FetchedExperts, Gradients, Indices, Param, Pass, StoredMatrix, StoredWeight, Tensor, Weight,
    backward, quantize,
};

const FORMATS: [Format; 5] = [Format::F32, Format::Bf16, Format::Q8_0, Format::Q4_1, Format::Q4K];

fn random(seed: u64, len: usize) -> Vec<f32> {
    let mut stream = draw(seed, Domain::Data, &[len as u64]);
    (0..len).map(|_| stream.normal() as f32).collect()
}

fn tensor(device: &Device, shape: &[usize], seed: u64) -> Tensor {
    Tensor::from_slice(device, shape, &random(seed, shape.iter().product()))
}

/// A frozen stored weight, and the same values dense and trained.
fn both(device: &Device, format: Format, shape: &[usize], seed: u64) -> [Param; 2] {
    let values = random(seed, shape.iter().product());
    let width = shape[shape.len() - 1];
    let experts = if shape.len() == 3 { shape[0] } else { 1 };
    let matrix = |values: &[f32]| {
        let mut bytes = vec![0; format.bytes(values.len())];
        match format {
            Format::F32 => bytes.copy_from_slice(&values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<_>>()),
            _ => quantize(device, format, values, width, &[], &mut bytes),
        }
        StoredMatrix { bytes: bytes.into(), scales: Vec::new() }
    };
    let matrices = values.chunks(values.len() / experts).map(matrix).collect();
    let stored = StoredWeight::new(format, shape, matrices).unwrap();
    let mut kept = Param::new("w", 0, Weight::from(stored));
    let dense = Param::new("w", 0, kept.weight().decode(device).unwrap().reshape(shape).unwrap());
    kept.freeze();
    [kept, dense]
}

/// The gradient of `sum(y * weights)` with respect to a trained `a [in, 256]` whose product with x enters `layer`.
fn gradients(device: &Device, layer: impl Fn(Pass<'_>, &Tensor) -> Tensor) -> (Vec<f32>, usize) {
    let pass = Pass::recording(device);
    let a = Param::new("a", 1, tensor(device, &[256, 40], 21));
    let x = tensor(device, &[9, 40], 22).matmul(pass, &a).unwrap();
    let y = layer(pass, &x);
    let weights = tensor(device, y.shape().dims(), 23);
    let loss = y.weighted_sum(pass, &weights).unwrap();
    let mut gradients = Gradients::default();
    backward(device, &loss, &mut gradients).unwrap();
    (gradients.get(&a).unwrap().read(), gradients.iter().count())
}

fn assert_close(a: &[f32], b: &[f32], bound: f64, what: &str) {
    let norm = |values: &mut dyn Iterator<Item = f64>| values.map(|v| v * v).sum::<f64>().sqrt();
    let distance = norm(&mut a.iter().zip(b).map(|(a, b)| f64::from(a - b)));
    let size = norm(&mut b.iter().map(|&b| f64::from(b)));
    assert!(size > 0.0 && distance <= bound * size, "{what}: {distance} of {size}");
}

#[test]
fn a_product_passes_on_dy_times_its_values() {
    Device::all(2).unwrap().iter().for_each(|device| {
        for format in FORMATS {
            // More than a band of rows is decoded at a time: 5000 of 256.
            let [kept, dense] = both(device, format, &[5000, 256], 1);
            let [(a, count), (b, both)] =
                [&kept, &dense].map(|w| gradients(device, |pass, x| x.matmul(pass, w).unwrap()));
            assert_eq!((count, both), (1, 2), "{}: only what is trained has a gradient", format.name());
            assert_close(&a, &b, 1e-5, format.name());
        }
    });
}

#[test]
fn experts_pass_on_theirs() {
    Device::all(2).unwrap().iter().for_each(|device| {
        let chosen = Indices::from_slice(device, &[0, 0, 0, 2, 2, 2, 2, 2, 2]);
        let plan = Dispatch::new(Pass::inference(device), &chosen, 1, 3).unwrap();
        for format in FORMATS {
            let weights = both(device, format, &[3, 20, 256], 2);
            let layer = |w: &Param| {
                gradients(device, |pass, x| x.grouped_matmul(pass, w, &plan, &FetchedExperts::default()).unwrap())
            };
            let [(a, count), (b, both)] = [&weights[0], &weights[1]].map(layer);
            assert_eq!((count, both), (1, 2));
            assert_close(&a, &b, 1e-5, format.name());
        }
    });
}

#[test]
fn a_head_passes_on_its_own_in_chunks() {
    Device::all(2).unwrap().iter().for_each(|device| {
        let targets = Indices::from_slice(device, &[3, 0, 299, 7, 7, 150, 9, 1, 2]);
        for format in FORMATS {
            let [kept, dense] = both(device, format, &[300, 256], 3);
            // Small states, so that no softmax is all on one token.
            let layer = |w: &Param, dense: bool| {
                gradients(device, |pass, x| {
                    let x = x.scale(pass, 0.01).unwrap();
                    match dense {
                        true => x.head_log_prob(pass, w, &targets, 0.7).unwrap().log_prob,
                        false => x.matmul(pass, w).unwrap().log_prob_rows(pass, &targets, 0.7).unwrap().log_prob,
                    }
                })
            };
            // Codes round the states, so that logits differ from those of the decoded values.
            let bound = if format.block_elements() == 1 { 1e-5 } else { 2e-2 };
            let (want, count) = layer(&dense, true);
            assert_eq!(count, 2);
            for through_logits in [false, true] {
                let (found, count) = layer(&kept, !through_logits);
                assert_eq!(count, 1);
                assert_close(&found, &want, bound, format.name());
            }
        }
    });
}

#[test]
fn norms_and_biases_pass_on_theirs() {
    Device::all(2).unwrap().iter().for_each(|device| {
        let layer = |frozen: bool| {
            let (mut norm, mut bias) =
                (Param::new("norm", 2, tensor(device, &[256], 5)), Param::new("bias", 3, tensor(device, &[256], 6)));
            if frozen {
                norm.freeze();
                bias.freeze();
            }
            gradients(device, |pass, x| x.rms_norm(pass, &norm, 1e-5).unwrap().add_row(pass, &bias).unwrap())
        };
        let ((a, count), (b, all)) = (layer(true), layer(false));
        assert_eq!((count, all), (1, 3));
        assert_eq!(a, b);
    });
}

#[test]
fn nothing_is_recorded_in_front_of_what_is_trained() {
    let device = Device::open("cpu", 1).unwrap();
    let pass = Pass::recording(&device);
    let [mut kept, _] = both(&device, Format::Q8_0, &[64, 256], 8);
    kept.freeze();
    let x = Tensor::embed(pass, &kept, &Indices::from_slice(&device, &[1, 2])).unwrap();
    let [next, _] = both(&device, Format::Q8_0, &[64, 256], 9);
    let y = x.matmul(pass, &next).unwrap();
    let mut gradients = Gradients::default();
    let loss = y.weighted_sum(pass, &tensor(&device, &[2, 64], 10)).unwrap();
    assert!(backward(&device, &loss, &mut gradients).is_err(), "there is no history: nothing of it is trained");
}

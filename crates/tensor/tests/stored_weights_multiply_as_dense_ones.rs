//! Stored weights against dense ones: for floats to the bit, in every operation that takes a weight; MLA's two halves
//! as the whole; and none of them can be trained.
#![allow(clippy::unwrap_used)]

use minke_spec::Format;
use minke_spec::draw::{Domain, draw};
use minke_tensor::{
    Device, Dispatch, Dtype, Error, FetchedExperts, Indices, Param, Pass, StoredMatrix, StoredWeight, Tensor, Weight,
};

fn random(seed: u64, len: usize) -> Vec<f32> {
    let mut stream = draw(seed, Domain::Data, &[len as u64]);
    (0..len).map(|_| stream.normal() as f32).collect()
}

fn tensor(device: &Device, shape: &[usize], seed: u64) -> Tensor {
    Tensor::from_slice(device, shape, &random(seed, shape.iter().product()))
}

fn stored(shape: &[usize], values: &[f32]) -> StoredWeight {
    let experts = if shape.len() == 3 { shape[0] } else { 1 };
    let matrix = |values: &[f32]| StoredMatrix {
        bytes: values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>().into(),
        scales: Vec::new(),
    };
    let matrices = values.chunks(values.len() / experts).map(matrix).collect();
    StoredWeight::new(Format::F32, shape, matrices).unwrap()
}

/// The same parameter dense and stored.
fn both(device: &Device, shape: &[usize], seed: u64) -> [Param; 2] {
    let values = random(seed, shape.iter().product());
    [Param::new("w", 0, Tensor::from_slice(device, shape, &values)), Param::new("w", 0, stored(shape, &values))]
}

fn bits(x: &Tensor) -> Vec<u32> {
    x.read().iter().map(|value| value.to_bits()).collect()
}

fn each_device(check: impl Fn(&Device)) {
    Device::all(2).unwrap().iter().for_each(check);
}

#[test]
fn floats_have_the_same_bits_in_every_operation() {
    each_device(|device| {
        let pass = Pass::inference(device);
        let [dense, kept] = both(device, &[45, 70], 1);
        let x = tensor(device, &[13, 70], 2);
        assert_eq!(bits(&x.matmul(pass, &dense).unwrap()), bits(&x.matmul(pass, &kept).unwrap()));
        let ids = Indices::from_slice(device, &[44, 0, 7, 7]);
        assert_eq!(bits(&Tensor::embed(pass, &dense, &ids).unwrap()), bits(&Tensor::embed(pass, &kept, &ids).unwrap()));
        let targets = Indices::from_slice(device, &[3; 13]);
        let [a, b] = [&dense, &kept].map(|w| x.head_log_prob(pass, w, &targets, 0.7).unwrap());
        assert_eq!((bits(&a.log_prob), bits(&a.entropy)), (bits(&b.log_prob), bits(&b.entropy)));

        let [dense, kept] = both(device, &[3, 20, 70], 3);
        let chosen = Indices::from_slice(device, &[0, 0, 0, 0, 0, 0, 2, 2, 2, 2, 2, 2, 2]);
        let plan = Dispatch::new(pass, &chosen, 1, 3).unwrap();
        let none = FetchedExperts::default();
        let [a, b] = [&dense, &kept].map(|w| bits(&x.grouped_matmul(pass, w, &plan, &none).unwrap()));
        assert_eq!(a, b);

        // Two heads of 9 + 5 rows over a latent of 70.
        let [dense, kept] = both(device, &[2 * (9 + 5), 70], 4);
        let (q, z) = (tensor(device, &[13, 2, 9], 5), tensor(device, &[13, 2, 70], 6));
        let [a, b] = [&dense, &kept].map(|w| bits(&q.heads_matmul_nn(pass, w, 0).unwrap()));
        assert_eq!(a, b);
        let [a, b] = [&dense, &kept].map(|w| bits(&z.heads_matmul(pass, w, 9).unwrap()));
        assert_eq!(a, b);
    });
}

#[test]
fn halves_are_the_whole() {
    let (heads, n, v, latent) = (3, 10, 6, 40);
    let whole = random(7, heads * (n + v) * latent);
    let (mut keys, mut values) = (Vec::new(), Vec::new());
    for head in whole.chunks((n + v) * latent) {
        let (key_rows, value_rows) = head.split_at(n * latent);
        keys.extend((0..latent).flat_map(|c| (0..n).map(move |i| key_rows[i * latent + c])));
        values.extend_from_slice(value_rows);
    }
    let split =
        |keys_shape: &[usize]| Weight::split(stored(keys_shape, &keys), stored(&[heads * v, latent], &values), heads);
    assert!(split(&[heads * n, latent]).is_err(), "keys must be transposed");
    each_device(|device| {
        let pass = Pass::inference(device);
        let dense = Param::new("kv_b_proj", 0, Tensor::from_slice(device, &[heads * (n + v), latent], &whole));
        let halves = Param::new("kv_b_proj", 0, split(&[heads * latent, n]).unwrap());
        assert_eq!(halves.shape(), dense.shape());
        assert_eq!(halves.weight().decode(device).unwrap().read(), whole);
        let x = tensor(device, &[5, latent], 8);
        let (q, z) = (tensor(device, &[5, heads, n], 9), tensor(device, &[5, heads, latent], 10));
        let [a, b] = [&dense, &halves].map(|w| bits(&x.matmul(pass, w).unwrap()));
        assert_eq!(a, b);
        let [a, b] = [&dense, &halves].map(|w| bits(&q.heads_matmul_nn(pass, w, 0).unwrap()));
        assert_eq!(a, b);
        let [a, b] = [&dense, &halves].map(|w| bits(&z.heads_matmul(pass, w, n).unwrap()));
        assert_eq!(a, b);
    });
}

#[test]
fn what_is_stored_cannot_be_trained() {
    each_device(|device| {
        let [_, kept] = both(device, &[8, 16], 11);
        let x = tensor(device, &[2, 16], 12);
        let refused = x.leaf().matmul(Pass::recording(device), &kept).err().unwrap();
        assert!(matches!(refused, Error::NotTrainable { .. }) && refused.to_string().contains("w is held as F32"));
    });
}

#[test]
fn bytes_of_another_size_are_refused() {
    let matrix = |bytes: usize| vec![StoredMatrix { bytes: vec![0; bytes].into(), scales: Vec::new() }];
    assert!(StoredWeight::new(Format::Q4K, &[2, 256], matrix(288)).is_ok());
    for (format, shape, bytes) in [
        (Format::Q4K, &[2, 256][..], 287),
        (Format::Q4K, &[2, 128], 144),
        (Format::F32, &[4], 16),
        (Format::F32, &[2, 1, 2], 16),
        (Format::F8E4M3, &[2, 2], 4),
    ] {
        assert!(StoredWeight::new(format, shape, matrix(bytes)).is_err(), "{format:?} {shape:?} in {bytes} bytes");
    }
}

#[test]
fn numbers_of_another_type_are_refused_by_name() {
    each_device(|device| {
        let pass = Pass::inference(device);
        let halves = Tensor::zeros_as(device, Dtype::Bf16, &[4, 6]);
        assert_eq!((halves.dtype(), halves.read()), (Dtype::Bf16, vec![0.0; 24]));
        let [dense, _] = both(device, &[6, 6], 1);
        let whole = Tensor::zeros(device, &[4, 6]);
        let of_halves = Param::new("w", 0, Tensor::zeros_as(device, Dtype::Bf16, &[6]));
        let refused = [
            ("matmul", halves.matmul(pass, &dense).err()),
            ("rms_norm", whole.rms_norm(pass, &of_halves, 1e-6).err()),
            ("add_scaled", whole.add(pass, &halves).err()),
            ("scale", halves.scale(pass, 2.0).err()),
            ("softmax_rows", halves.softmax_rows(pass).err()),
            ("exp", halves.exp(pass).err()),
            ("swiglu", halves.swiglu(pass, &whole).err()),
            ("columns", halves.columns(pass, 1, 2).err()),
        ];
        for (op, refused) in refused {
            assert_eq!(refused.unwrap().to_string(), format!("{op} does not take BF16"));
        }
    });
}

#[test]
fn indices_are_compared_with_sizes_by_their_bound() {
    each_device(|device| {
        let pass = Pass::inference(device);
        let [dense, _] = both(device, &[6, 3], 1);
        let x = tensor(device, &[4, 3], 2);
        let ids = Indices::from_slice(device, &[0, 6, 2]);
        assert_eq!((ids.below(), ids.read()), (7, vec![0, 6, 2]));
        let refused = [
            Tensor::embed(pass, &dense, &ids).err(),
            x.gather_rows(pass, &ids).err(),
            Dispatch::new(pass, &ids, 1, 6).err(),
        ];
        for refused in refused {
            assert!(refused.unwrap().to_string().contains("indices up to 6 [3] does not fit"));
        }
    });
}

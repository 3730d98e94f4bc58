//! Balance loss and bias update against the worked example of `testdata/vectors/balance.json`.
#![allow(clippy::unwrap_used)]

use minke_model::gate::{balance_loss, update_bias};
use minke_tensor::{Device, Pass, Span, Tensor};

#[test]
fn loss_and_update_are_those_of_the_example() {
    let text = include_str!("../../../testdata/vectors/balance.json");
    let vector: serde_json::Value = serde_json::from_str(text).unwrap();
    let numbers = |value: &serde_json::Value| -> Vec<f64> {
        value.as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect()
    };
    let scores: Vec<f32> = vector["scores"].as_array().unwrap().iter().flat_map(&numbers).map(|v| v as f32).collect();
    let device = Device::open("cpu", 2).unwrap();
    let pass = Pass::inference(&device);
    let scores = Tensor::from_slice(&device, &[3, 4], &scores);
    let per_token = vector["K"].as_u64().unwrap() as usize;
    let span = Span { first_row: 0, rows: 3, first_position: 0, first_tile: 0 };
    let loss = balance_loss(pass, &scores, per_token, &[span]).unwrap().item();
    let got = f64::from(loss) * vector["alpha"].as_f64().unwrap();
    let want = vector["loss"].as_f64().unwrap();
    assert!((got - want).abs() <= 1e-6 * want, "{got}, not {want}");

    let load: Vec<u64> = numbers(&vector["load"]).iter().map(|&v| v as u64).collect();
    let mut bias = vec![0.0f32; 4];
    update_bias(&mut bias, &load, vector["gamma"].as_f64().unwrap() as f32);
    let want: Vec<f32> = numbers(&vector["bias_delta"]).iter().map(|&v| v as f32).collect();
    assert_eq!(bias, want);
}

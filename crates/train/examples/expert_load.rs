//! Draws docs/figures/expert-load.svg: how evenly experts are loaded on a skewed stream, with the bias of V3 2.1.2 and
//! without. `cargo run --release -p minke-train --example expert_load`

use std::path::Path;

use minke_tensor::Device;
use minke_train::report::plot::{Series, lines};

#[path = "../tests/skewed/mod.rs"]
mod skewed;

/// Steps that a point of the curve averages.
const WINDOW: usize = 10;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let device = Device::open("cpu", 1)?;
    let mut series = Vec::new();
    for (gamma, name) in [(0.0, "gamma = 0"), (1e-3, "gamma = 0.001")] {
        let violations = skewed::violations(&device, gamma)?;
        println!("{name}: {:.2} in the second half of the steps", skewed::end(&violations));
        let means = violations.chunks(WINDOW).map(|window| window.iter().sum::<f64>() / window.len() as f64);
        let points = means.enumerate().map(|(i, mean)| ((i * WINDOW) as f64, mean)).collect();
        series.push(Series { name: name.into(), points });
    }
    let title = "Fullest expert: share above the mean load, by step";
    let svg = lines(title, &series).ok_or("nothing to draw")?;
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/figures/expert-load.svg");
    std::fs::write(path, svg)?;
    Ok(())
}

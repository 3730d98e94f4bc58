//! Reading goldens.
#![allow(clippy::unwrap_used, dead_code)]

use std::path::PathBuf;

use safetensors::SafeTensors;

pub fn folder(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../testdata").join(name)
}

/// A golden file held in memory.
pub struct Golden(Vec<u8>);

impl Golden {
    pub fn open(name: &str) -> Self {
        Self(std::fs::read(folder(name).join("golden.safetensors")).unwrap())
    }

    fn tensors(&self) -> SafeTensors<'_> {
        SafeTensors::deserialize(&self.0).unwrap()
    }

    pub fn names(&self) -> Vec<String> {
        self.tensors().names().into_iter().map(str::to_string).collect()
    }

    pub fn floats(&self, name: &str) -> Vec<f32> {
        let tensors = self.tensors();
        let data = tensors.tensor(name).unwrap_or_else(|_| panic!("no {name}")).data();
        data.as_chunks().0.iter().map(|&b| f32::from_le_bytes(b)).collect()
    }

    pub fn ids(&self, name: &str) -> Vec<u32> {
        let tensors = self.tensors();
        let data = tensors.tensor(name).unwrap_or_else(|_| panic!("no {name}")).data();
        data.as_chunks().0.iter().map(|&b| i64::from_le_bytes(b) as u32).collect()
    }

    pub fn shape(&self, name: &str) -> Vec<usize> {
        self.tensors().tensor(name).unwrap().shape().to_vec()
    }
}

/// norm(a - b) / norm(b); norm(a) where b is zero.
pub fn relative(a: &[f32], b: &[f32]) -> f64 {
    assert_eq!(a.len(), b.len());
    let norm = |x: &mut dyn Iterator<Item = f64>| x.map(|v| v * v).sum::<f64>().sqrt();
    let difference = norm(&mut a.iter().zip(b).map(|(a, b)| f64::from(*a) - f64::from(*b)));
    let size = norm(&mut b.iter().map(|&b| f64::from(b)));
    if size == 0.0 { difference } else { difference / size }
}

/// Checks every gradient against the golden's `grad.<published name>` and returns the largest difference.
pub fn check_gradients(
    model: &minke_model::Transformer,
    gradients: &minke_tensor::Gradients,
    golden: &Golden,
    bound: f64,
) -> f64 {
    let specs = minke_spec::parameters(model.config());
    let (mut worst, mut checked) = (0.0f64, 0);
    for (spec, param) in specs.iter().zip(model.params()) {
        if spec.role == minke_spec::ParamRole::CorrectionBias {
            assert!(gradients.get(param).is_none());
            continue;
        }
        let gradient = gradients.get(param).unwrap_or_else(|| panic!("{} has no gradient", spec.name));
        for (i, published) in spec.published().iter().enumerate() {
            let elements: usize = published.shape.iter().product();
            let got = &gradient.read()[i * elements..][..elements];
            let difference = relative(got, &golden.floats(&format!("grad.{}", published.name)));
            assert!(difference <= bound, "gradient of {}: {difference:.2e}", published.name);
            worst = worst.max(difference);
            checked += 1;
        }
    }
    let in_golden = golden.names().iter().filter(|name| name.starts_with("grad.")).count();
    assert_eq!(checked, in_golden);
    worst
}

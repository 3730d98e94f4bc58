//! Experts that are not in memory are asked for once per layer, after routing and before any product, exactly those that rows
//! are sent to; the numbers are those of a model that holds all of them; a missing one is an error that names it.
#![allow(clippy::unwrap_used)]

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::error::Error;

use minke_model::{Batch, Transformer};
use minke_spec::{Format, ModelConfig, ParamRole, Placement};
use minke_tensor::{Device, ExpertSource, FetchedExperts, Pass, StoredMatrix, StoredWeight, Tap, Tensor, Weight};

const TOKENS: [u32; 9] = [3, 1, 4, 1, 5, 9, 2, 6, 5];

/// Matrices by weight, expert after expert.
type Matrices = BTreeMap<String, Vec<StoredMatrix>>;

/// A model of which the experts are absent, the same with all of them, and their matrices.
fn models(device: &Device) -> (Transformer, Transformer, Matrices) {
    let text = include_str!("../../../testdata/tiny-v3/config.json");
    let mut config = ModelConfig::from_json(text).unwrap().config;
    config.initializer_range = 0.25;
    let dense = Transformer::random(device, &config, &Placement::single(), 1).unwrap();
    let values: BTreeMap<&str, Vec<f32>> = dense.params().iter().map(|p| (p.name(), p.value().read())).collect();
    let mut all = Matrices::new();
    let mut build = |absent: bool| {
        Transformer::new(&config, &Placement::single(), |spec, shape| -> minke_model::Result<Weight> {
            let values = &values[spec.name.as_str()];
            if spec.role != ParamRole::Experts {
                return Ok(Tensor::from_slice(device, shape, values).into());
            }
            let bytes = |matrix: &[f32]| matrix.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>();
            let matrix = |values: &[f32]| StoredMatrix { bytes: bytes(values).into(), scales: Vec::new() };
            let matrices: Vec<StoredMatrix> = values.chunks(values.len() / shape[0]).map(matrix).collect();
            all.insert(spec.name.clone(), matrices.clone());
            let held = matrices.into_iter().map(|matrix| (!absent).then_some(matrix)).collect();
            Ok(StoredWeight::experts(Format::F32, shape, held)?.into())
        })
        .unwrap()
    };
    let (absent, held) = (build(true), build(false));
    (absent, held, all)
}

/// What happened in a forward, in order.
#[derive(Debug, PartialEq)]
enum Event {
    Fetched(usize, Vec<u32>),
    /// A product with an expert of a weight.
    Used(String, u32),
}

/// Gives what `change` leaves of the matrices, and counts.
struct Source<'a> {
    matrices: &'a Matrices,
    events: &'a RefCell<Vec<Event>>,
    change: &'a dyn Fn(&str, u32, StoredMatrix) -> Option<StoredMatrix>,
}

impl ExpertSource for Source<'_> {
    fn fetch(&self, layer: usize, experts: &[u32]) -> Result<FetchedExperts, Box<dyn Error + Send + Sync>> {
        self.events.borrow_mut().push(Event::Fetched(layer, experts.to_vec()));
        let mut fetched = FetchedExperts::default();
        let prefix = format!("model.layers.{layer}.");
        for (name, matrices) in self.matrices.iter().filter(|(name, _)| name.starts_with(&prefix)) {
            for &expert in experts {
                if let Some(matrix) = (self.change)(name, expert, matrices[expert as usize].clone()) {
                    fetched.insert(name, expert, matrix);
                }
            }
        }
        Ok(fetched)
    }
}

fn logits(model: &Transformer, pass: Pass<'_>) -> minke_model::Result<Vec<f32>> {
    let hidden = model.forward(pass, &Batch::packed(pass.device, &[&TOKENS]), None, false)?.hidden;
    Ok(model.logits(pass, &hidden)?.read())
}

#[test]
fn every_expert_is_fetched_before_it_is_used() {
    for device in Device::all(2).unwrap() {
        let (absent, held, matrices) = models(&device);
        let events = RefCell::new(Vec::new());
        let source = Source { matrices: &matrices, events: &events, change: &|_, _, matrix| Some(matrix) };
        let tap = |tap: Tap<'_>, _: &Tensor| {
            if let Tap::Input { weight, expert: Some(expert) } = tap {
                events.borrow_mut().push(Event::Used(weight.to_owned(), expert as u32));
            }
        };
        let pass = Pass::inference(&device).with_experts(&source).with_tap(&tap);
        let got = logits(&absent, pass).unwrap();
        assert_eq!(got, logits(&held, Pass::inference(&device)).unwrap(), "{device:?}");

        let config = absent.config();
        let layers: Vec<usize> = (0..config.num_hidden_layers).filter(|&layer| config.is_moe_layer(layer)).collect();
        let (mut asked, mut experts) = (Vec::new(), Vec::new());
        let mut used: BTreeMap<String, Vec<u32>> = BTreeMap::new();
        for event in events.borrow().iter() {
            match event {
                Event::Fetched(layer, ids) => {
                    asked.push(*layer);
                    experts = ids.clone();
                    assert!(ids.is_sorted() && !ids.is_empty());
                }
                Event::Used(weight, expert) => {
                    let layer = asked.last().expect("a fetch comes first");
                    assert!(
                        weight.starts_with(&format!("model.layers.{layer}.")) && experts.contains(expert),
                        "{weight}"
                    );
                    used.entry(weight.clone()).or_default().push(*expert);
                    // Exactly those that rows were sent to, and not all there are.
                    assert!(used[weight].len() <= experts.len());
                }
            }
        }
        assert_eq!(asked, layers, "once per layer");
        assert_eq!(used.len(), 3 * layers.len());
        for (weight, ids) in &used {
            let of = |event: &Event| match event {
                Event::Fetched(layer, ids) if weight.starts_with(&format!("model.layers.{layer}.")) => {
                    Some(ids.clone())
                }
                _ => None,
            };
            assert_eq!(events.borrow().iter().find_map(of).as_ref(), Some(ids), "{weight}");
        }
    }
}

#[test]
fn what_is_missing_is_named() {
    let device = Device::open("cpu", 1).unwrap();
    let (absent, held, matrices) = models(&device);
    let pass = Pass::inference(&device);
    let said = logits(&absent, pass).unwrap_err().to_string();
    assert!(
        said.starts_with("model.layers.1.mlp.experts.up_proj.weight: expert ") && said.ends_with("is not in memory")
    );

    let events = RefCell::new(Vec::new());
    let fails = |change: &dyn Fn(&str, u32, StoredMatrix) -> Option<StoredMatrix>| {
        let source = Source { matrices: &matrices, events: &events, change };
        logits(&absent, pass.with_experts(&source)).unwrap_err().to_string()
    };
    let first = |events: &RefCell<Vec<Event>>| match &events.borrow()[0] {
        Event::Fetched(_, experts) => experts[0],
        Event::Used(..) => unreachable!("nothing is tapped"),
    };
    let without_gate = |name: &str, _, matrix| (!name.contains("gate_proj")).then_some(matrix);
    let said = fails(&without_gate);
    let expert = first(&events);
    assert_eq!(
        said,
        format!("model.layers.1.mlp.experts.gate_proj.weight: expert {expert} is needed and is not in memory")
    );
    let said = fails(&|_, _, _| Some(StoredMatrix { bytes: vec![0; 12].into(), scales: Vec::new() }));
    assert!(said.contains(&format!("expert {expert} of 12 bytes")) && said.contains("up_proj"), "{said}");

    struct Broken;
    impl ExpertSource for Broken {
        fn fetch(&self, _: usize, _: &[u32]) -> Result<FetchedExperts, Box<dyn Error + Send + Sync>> {
            Err("the disk is gone".into())
        }
    }
    let said = logits(&absent, pass.with_experts(&Broken)).unwrap_err().to_string();
    assert_eq!(said, "experts of layer 1 cannot be had: the disk is gone");

    // A model that holds its experts is asked as well, and needs nothing.
    let source = Source { matrices: &matrices, events: &events, change: &|_, _, _| None };
    assert!(logits(&held, pass.with_experts(&source)).is_ok());
}

//! The importance of each column of a weight: the square of what comes in there, averaged over the tokens of a text,
//! since the error of an output is the sum of errors of weights times inputs.
//!
//! Written and read as llama.cpp does, in GGUF: per weight `NAME.in_sum2 [matrices, k]`, sums of squares, and
//! `NAME.counts [matrices, 1]`, tokens. A stack of experts has a row for each of them.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::io::Write;
use std::path::Path;

use minke_model::{Batch, Transformer};
use minke_spec::{Format, ParamRole, ParamSpec, parameters};
use minke_sys::atomic::{self, WriteError};
use minke_tensor::{Bytes, Device, Pass, Tap, Tensor};

use crate::gguf::{Header, TensorInfo};
use crate::gguf_write::{self, Pairs};
use crate::plan::PlannedTensor;
use crate::{Error, Result, contents, gguf_model};

const SUMS: &str = ".in_sum2";
const COUNTS: &str = ".counts";

/// Squares of inputs of weights, by name in GGUF.
#[derive(Clone, Debug, Default)]
pub struct Importance {
    weights: BTreeMap<String, Vec<Squares>>,
}

/// Squares of the inputs of a matrix.
#[derive(Clone, Debug, Default)]
struct Squares {
    /// Sums by column while they are collected, means after reading.
    columns: Vec<f32>,
    tokens: f32,
}

impl Importance {
    /// The importance in a file.
    ///
    /// # Errors
    /// If it is not a file of importance, or a tensor of it is not what it should be.
    pub fn open(path: &Path) -> Result<Self> {
        let bytes = contents::map(path)?;
        let bad = |reason: String| Error::BadFile { path: path.into(), reason };
        let advice = "give a file that minke imatrix or llama.cpp's imatrix wrote as GGUF";
        let header =
            Header::parse(&bytes).map_err(|reason| bad(format!("is no importance matrix ({reason}); {advice}")))?;
        let mut weights = BTreeMap::new();
        for (name, sums) in &header.tensors {
            let Some(weight) = name.strip_suffix(SUMS) else { continue };
            let counts = header.tensors.get(&format!("{weight}{COUNTS}"));
            let counts = counts.ok_or_else(|| bad(format!("has no {weight}{COUNTS}; {advice}")))?;
            let (sum_values, count_values) = (floats(&bytes, sums), floats(&bytes, counts));
            let (Some(sum_values), Some(count_values)) = (sum_values, count_values) else {
                return Err(bad(format!("tensor {name} is not F32; {advice}")));
            };
            let k = *sums.shape.last().expect("invariant: tensors have a dimension");
            let sane = |values: &[f32]| values.iter().all(|value| value.is_finite() && *value >= 0.0);
            if sum_values.len() / k != count_values.len() || !sane(&sum_values) || !sane(&count_values) {
                return Err(bad(format!(
                    "tensor {name} does not fit its counts, or a sum of squares is negative; {advice}"
                )));
            }
            let mean = |(sums, &tokens): (&[f32], &f32)| Squares {
                columns: sums.iter().map(|sum| if tokens > 0.0 { sum / tokens } else { 0.0 }).collect(),
                tokens,
            };
            weights.insert(weight.to_owned(), sum_values.chunks_exact(k).zip(&count_values).map(mean).collect());
        }
        if weights.is_empty() {
            return Err(bad(format!("says nothing about any weight; {advice}")));
        }
        Ok(Self { weights })
    }

    /// The importance of the k columns of a matrix of a weight; empty if the file has none.
    pub fn of(&self, weight: &str, matrix: usize, k: usize) -> &[f32] {
        let Some(all) = self.weights.get(weight) else { return &[] };
        // One for all matrices, or one for each.
        let squares = if all.len() == 1 { all.first() } else { all.get(matrix) };
        squares.map_or(&[], |squares| if squares.columns.len() == k { &squares.columns } else { &[] })
    }

    /// The number of weights that become codes and have no importance.
    ///
    /// # Errors
    /// If the importance of a weight does not fit this model's.
    pub fn unknown(&self, planned: &[PlannedTensor]) -> std::result::Result<usize, String> {
        let mut unknown = 0;
        for tensor in planned.iter().filter(|tensor| tensor.format.block_elements() > 1) {
            let Some(all) = self.weights.get(&tensor.name) else {
                unknown += 1;
                continue;
            };
            let matrices = tensor.elements() / (tensor.width() * tensor.shape[tensor.shape.len() - 2]);
            let columns = all.iter().map(|squares| squares.columns.len()).max();
            if columns != Some(tensor.width()) || ![1, matrices].contains(&all.len()) {
                let (name, shape) = (&tensor.name, &tensor.shape);
                return Err(format!("says something else than {shape:?} about {name}: it belongs to another model"));
            }
        }
        Ok(unknown)
    }

    /// The number of weights.
    pub fn len(&self) -> usize {
        self.weights.len()
    }

    /// Whether there are no weights.
    pub fn is_empty(&self) -> bool {
        self.weights.is_empty()
    }

    /// Adds what comes into the weights while a model reads a sequence of tokens.
    ///
    /// # Errors
    /// Those of the forward.
    pub fn read(&mut self, device: &Device, model: &Transformer, ids: &[u32]) -> Result<()> {
        let specs = parameters(model.config());
        let by_name: HashMap<&str, &ParamSpec> = specs.iter().map(|spec| (&*spec.name, spec)).collect();
        let into = RefCell::new(self);
        let listen = |tap: Tap<'_>, value: &Tensor| {
            let Tap::Input { weight, expert } = tap else { return };
            let Some(spec) = by_name.get(weight) else { return };
            let experts = if spec.role == ParamRole::Experts { spec.shape[0] } else { 1 };
            let add = |name: &str| {
                into.borrow_mut().add(name, (expert.unwrap_or(0), experts), &value.read(), value.shape().width());
            };
            add(&gguf_model::name_of(spec));
            if let (true, Some(layer)) = (spec.name.ends_with(".kv_b_proj.weight"), spec.layer) {
                // The half that makes values has the same columns; that of the keys lies transposed.
                add(&gguf_model::split_names(layer)[1]);
            }
        };
        let pass = Pass::inference(device).with_tap(&listen);
        let hidden = model.forward(pass, &Batch::packed(device, &[ids]), None, false)?.hidden;
        model.logits(pass, &hidden)?;
        Ok(())
    }

    /// Adds what came into a matrix, one of so many of its weight.
    ///
    /// # Shapes
    /// inputs [tokens, k]
    fn add(&mut self, weight: &str, (matrix, of): (usize, usize), inputs: &[f32], k: usize) {
        let all = self.weights.entry(weight.to_owned()).or_insert_with(|| vec![Squares::default(); of]);
        let squares = &mut all[matrix];
        squares.columns.resize(k, 0.0);
        for row in inputs.chunks_exact(k) {
            squares.columns.iter_mut().zip(row).for_each(|(sum, x)| *sum += x * x);
            squares.tokens += 1.0;
        }
    }

    /// Writes what was added, and of which text in chunks of how many tokens.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn save(&self, path: &Path, text: &str, (chunks, tokens): (usize, usize)) -> Result<()> {
        let mut pairs = Pairs::default();
        pairs.text("general.type", "imatrix");
        pairs.texts("imatrix.datasets", [text].into_iter());
        pairs.unsigned("imatrix.chunk_count", chunks);
        pairs.unsigned("imatrix.chunk_size", tokens);
        let mut tensors: Vec<(String, Vec<usize>, Vec<f32>)> = Vec::new();
        for (weight, all) in &self.weights {
            let k = all.iter().map(|squares| squares.columns.len()).max().unwrap_or(0);
            let columns = |squares: &Squares| {
                let mut columns = squares.columns.clone();
                columns.resize(k, 0.0);
                columns
            };
            tensors.push((format!("{weight}{SUMS}"), vec![all.len(), k], all.iter().flat_map(columns).collect()));
            let counts = all.iter().map(|squares| squares.tokens).collect();
            tensors.push((format!("{weight}{COUNTS}"), vec![all.len(), 1], counts));
        }
        atomic::replace_with(path, |to| {
            let infos = tensors.iter().map(|(name, shape, _)| (&**name, Format::F32, &**shape));
            gguf_write::header(to, &pairs, infos).map_err(WriteError::at(path))?;
            for (_, _, values) in &tensors {
                let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
                let written = to.write_all(&bytes).and_then(|()| gguf_write::pad(to, bytes.len()));
                written.map_err(WriteError::at(path))?;
            }
            Ok(())
        })
    }
}

fn floats(file: &Bytes, tensor: &TensorInfo) -> Option<Vec<f32>> {
    let values = file[tensor.range.clone()].as_chunks().0.iter().map(|value| f32::from_le_bytes(*value));
    (tensor.format == Format::F32).then(|| values.collect())
}

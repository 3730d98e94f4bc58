//! Tensors from one file to another, row by row, a few million numbers at a time: as bytes where the format stays, else
//! decoded and encoded. Sources are mapped, so that no model has to fit into memory.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;

use minke_model::{Lora, LoraLayer};
use minke_spec::parameters;
use minke_sys::atomic::{self, WriteError};
use minke_tensor::{Device, StoredMatrix, StoredWeight, quantize};

use crate::archive::Archive;
use crate::gguf_write::{self, Pairs};
use crate::importance::Importance;
use crate::load::block_scales;
use crate::plan::{Data, PlannedTensor, RowSlice, rows_and_width};
use crate::{Error, Result, shards};

/// Numbers that are decoded at once, unless a row or a head is larger.
const CHUNK: usize = 1 << 22;

/// What is written, from where, and a function for the progress.
pub struct TensorWriter<'a> {
    /// Where numbers are computed.
    pub device: &'a Device,
    /// Where they come from.
    pub archive: &'a Archive,
    /// What is written, in this order.
    pub planned: &'a [PlannedTensor],
    /// How much each column of a weight matters; nothing if all matter alike.
    pub importance: Option<&'a Importance>,
    /// What is added to the values: an adapter that becomes a part of its base.
    pub adapter: Option<&'a Lora>,
    /// Called with the bytes that are done; returns whether to go on.
    pub progress: &'a dyn Fn(u64) -> bool,
}

impl TensorWriter<'_> {
    /// Writes a GGUF file.
    ///
    /// # Errors
    /// If a tensor cannot be read or encoded, the file cannot be written, or `progress` returns false; no file stays.
    pub fn write_gguf(&self, pairs: &Pairs, target: &Path) -> Result<()> {
        let adapter = self.pairs()?;
        atomic::replace_with(target, |to| {
            let infos = self.planned.iter().map(|tensor| (&*tensor.name, tensor.format, &*tensor.shape));
            gguf_write::header(to, pairs, infos).map_err(WriteError::at(target))?;
            let mut done = 0;
            for tensor in self.planned {
                self.write(tensor, &adapter, &mut done, to, target)?;
                gguf_write::pad(to, tensor.bytes()).map_err(WriteError::at(target))?;
            }
            Ok(())
        })
    }

    /// Writes safetensors into a folder, in files of at most `shard_bytes` (a larger tensor is in a file of its own), with
    /// their index if there are several.
    ///
    /// # Errors
    /// As [`TensorWriter::write_gguf`].
    pub fn write_safetensors(&self, folder: &Path, shard_bytes: usize) -> Result<()> {
        let (pairs, mut done) = (self.pairs()?, 0);
        let shards = shards::share(self.planned, PlannedTensor::bytes, shard_bytes);
        for (name, shard) in &shards {
            let path = folder.join(name);
            atomic::replace_with(&path, |to| {
                let metadata = serde_json::json!({ "format": "pt" });
                let infos =
                    shard.iter().map(|tensor| (&*tensor.name, tensor.format.name(), &*tensor.shape, tensor.bytes()));
                to.write_all(&safetensors_header(metadata, infos)).map_err(WriteError::at(&path))?;
                shard.iter().try_for_each(|tensor| self.write(tensor, &pairs, &mut done, to, &path))
            })?;
        }
        shards::write_index(folder, &shards, |tensor| (&tensor.name, tensor.bytes()))
    }

    /// The pairs of the adapter by tensor of the archive.
    fn pairs(&self) -> Result<BTreeMap<String, Pair>> {
        let mut pairs = BTreeMap::new();
        let Some(lora) = self.adapter else { return Ok(pairs) };
        let specs = parameters(&self.archive.config);
        for layer in &lora.layers {
            let spec = specs.iter().find(|spec| spec.name.strip_suffix(".weight") == Some(&layer.module));
            let names = spec.map(|spec| self.archive.names(spec)).unwrap_or_default();
            let [name] = &names[..] else {
                let reason = "cannot be merged with an adapter: the file has it in parts; convert it to a folder first";
                return Err(self.archive.bad_tensor(&layer.module, reason));
            };
            pairs.insert(name.clone(), Pair::new(lora.scale, layer));
        }
        Ok(pairs)
    }

    /// Writes the bytes of a tensor.
    fn write(
        &self,
        tensor: &PlannedTensor,
        pairs: &BTreeMap<String, Pair>,
        done: &mut u64,
        to: &mut impl Write,
        path: &Path,
    ) -> Result<()> {
        let mut encoder =
            Encoder { writer: self, tensor, row: 0, pairs, values: Vec::new(), bytes: Vec::new(), done, to, path };
        match &tensor.data {
            Data::Values(values) => encoder.values.extend(values),
            Data::Parts(names, parts) => {
                let mut open: Option<(usize, StoredWeight)> = None;
                for part in parts {
                    if open.as_ref().is_none_or(|(name, _)| *name != part.name) {
                        open = Some((part.name, self.open(&names[part.name])?));
                    }
                    let (_, stored) = open.as_ref().expect("invariant: it was just opened");
                    encoder.part(&names[part.name], stored, part)?;
                }
            }
        }
        encoder.flush()
    }

    /// A tensor of the archive as one matrix.
    fn open(&self, name: &str) -> Result<StoredWeight> {
        let entry = &self.archive.tensors[name];
        let format = self.archive.stored_format(name)?;
        let (rows, width) = rows_and_width(&entry.shape);
        let matrix =
            StoredMatrix { bytes: self.archive.bytes(entry), scales: block_scales(self.archive, name, entry, format)? };
        StoredWeight::new(format, &[rows, width], vec![matrix])
            .map_err(|error| self.archive.bad_tensor(name, error.to_string()))
    }
}

/// A pair of an adapter, on the host.
struct Pair {
    scale: f32,
    rank: usize,
    a: Vec<f32>,
    b: Vec<f32>,
}

impl Pair {
    fn new(scale: f32, layer: &LoraLayer) -> Self {
        Self { scale, rank: layer.a.shape().rows(), a: layer.a.read(), b: layer.b.read() }
    }

    /// Adds `scale B A` to rows from `first` on.
    fn add_rows(&self, first: usize, rows: &mut [f32]) {
        let width = self.a.len() / self.rank;
        for (row, values) in rows.chunks_exact_mut(width).enumerate() {
            let of_b = &self.b[(first + row) * self.rank..][..self.rank];
            for (&b, of_a) in of_b.iter().zip(self.a.chunks_exact(width)) {
                let factor = self.scale * b;
                values.iter_mut().zip(of_a).for_each(|(value, a)| *value += factor * a);
            }
        }
    }
}

/// A tensor on its way.
struct Encoder<'a, W> {
    writer: &'a TensorWriter<'a>,
    tensor: &'a PlannedTensor,
    /// Rows that are written.
    row: usize,
    /// The adapter by tensor of the archive.
    pairs: &'a BTreeMap<String, Pair>,
    /// Rows that wait to be encoded.
    values: Vec<f32>,
    bytes: Vec<u8>,
    done: &'a mut u64,
    to: &'a mut W,
    path: &'a Path,
}

impl<W: Write> Encoder<'_, W> {
    /// Takes over rows of a tensor of the archive.
    fn part(&mut self, source: &str, stored: &StoredWeight, part: &RowSlice) -> Result<()> {
        let (k, format) = (stored.shape().width(), stored.format());
        let (device, pair) = (self.writer.device, self.pairs.get(source));
        let decode = |first: usize, rows: &mut [f32]| {
            stored.decode_rows(device, first, rows);
            if let Some(pair) = pair {
                pair.add_rows(first, rows);
            }
        };
        if part.transposed {
            let mut rows = vec![0.0; part.rows.len() * k];
            decode(part.rows.start, &mut rows);
            self.values.extend((0..k).flat_map(|column| rows.iter().skip(column).step_by(k)));
        } else if format == self.tensor.format && pair.is_none() {
            self.flush()?;
            let row = format.bytes(k);
            for bytes in stored.bytes()[part.rows.start * row..part.rows.end * row].chunks(4 * CHUNK) {
                self.put(bytes)?;
            }
            self.row += part.rows.len();
        } else {
            let step = (CHUNK / k).max(1);
            for first in part.rows.clone().step_by(step) {
                let (held, count) = (self.values.len(), step.min(part.rows.end - first));
                self.values.resize(held + count * k, 0.0);
                decode(first, &mut self.values[held..]);
                if self.values.len() >= CHUNK {
                    self.flush()?;
                }
            }
        }
        Ok(())
    }

    /// Encodes and writes the rows that wait, matrix by matrix.
    fn flush(&mut self) -> Result<()> {
        let values = std::mem::take(&mut self.values);
        let (k, format) = (self.tensor.width(), self.tensor.format);
        if format.block_elements() > 1 && !values.iter().all(|value| value.is_finite()) {
            let reason = "holds values that are not finite, which no code stands for; keep it with --tensor NAME=F16";
            return Err(self.writer.archive.bad_tensor(&self.tensor.name, reason));
        }
        let leading = &self.tensor.shape[..self.tensor.shape.len() - 1];
        let each = leading.last().copied().unwrap_or(1);
        let mut rest = &values[..];
        while !rest.is_empty() {
            let count = (each - self.row % each).min(rest.len() / k);
            let (rows, behind) = rest.split_at(count * k);
            let weights = self.writer.importance.map_or(&[][..], |all| all.of(&self.tensor.name, self.row / each, k));
            let mut bytes = std::mem::take(&mut self.bytes);
            bytes.resize(format.bytes(rows.len()), 0);
            quantize(self.writer.device, format, rows, k, weights, &mut bytes);
            self.put(&bytes)?;
            self.bytes = bytes;
            self.row += count;
            rest = behind;
        }
        self.values = values;
        self.values.clear();
        Ok(())
    }

    fn put(&mut self, bytes: &[u8]) -> Result<()> {
        self.to.write_all(bytes).map_err(WriteError::at(self.path))?;
        *self.done += bytes.len() as u64;
        if (self.writer.progress)(*self.done) { Ok(()) } else { Err(Error::Interrupted) }
    }
}

/// The header of a safetensors file, for metadata and for tensors of a name, format, shape and number of bytes: its length, then
/// JSON, filled up with spaces so that what follows begins on a line of the cache.
pub(crate) fn safetensors_header<'a>(
    metadata: serde_json::Value,
    tensors: impl Iterator<Item = (&'a str, &'a str, &'a [usize], usize)>,
) -> Vec<u8> {
    let mut map = serde_json::Map::new();
    map.insert("__metadata__".into(), metadata);
    let mut at = 0;
    for (name, format, shape, bytes) in tensors {
        let info = serde_json::json!({ "dtype": format, "shape": shape, "data_offsets": [at, at + bytes] });
        map.insert(name.into(), info);
        at += bytes;
    }
    let mut json = serde_json::Value::Object(map).to_string().into_bytes();
    json.resize((8 + json.len()).next_multiple_of(64) - 8, b' ');
    [&(json.len() as u64).to_le_bytes()[..], &json].concat()
}

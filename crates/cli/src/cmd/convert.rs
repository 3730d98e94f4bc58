//! `minke convert`: a model in the other layout. Its tensors go through memory a few rows at a time; the target appears
//! when all of it is there.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Result;
use minke_model::Lora;
use minke_spec::{Format, ParamRole};
use minke_sys::atomic;
use minke_tensor::Device;
use minke_weights::{Archive, Importance, Pairs, PlannedTensor, TensorWriter, load_adapter};
use serde::Serialize;

use super::{print_json, print_line};
use crate::args::{Convert, Model};
use crate::error::Exit;
use crate::interrupt::Interrupt;
use crate::metadata;
use crate::progress::Bar;

/// Bytes of a file of weights at most.
const SHARD_BYTES: usize = 5 << 30;

/// What was written.
#[derive(Serialize)]
pub struct Summary {
    source: String,
    target: String,
    tensors: usize,
    parameters: u64,
    bytes_before: u64,
    bytes_after: u64,
    bits_per_weight: f64,
    /// Bytes by format.
    formats: BTreeMap<&'static str, u64>,
    seconds: f64,
    /// What is unusual.
    pub notes: Vec<String>,
}

/// Runs `minke convert`.
pub fn run(args: &Convert) -> Result<()> {
    refuse_target(&args.target)?;
    let (path, folder) = args.adapter.beside(args.model.path()?)?;
    let archive = Archive::open(&path)?;
    let device = args.compute.device()?;
    let adapter =
        folder.map(|folder| load_adapter(&device, &folder, &archive.config)).transpose()?.map(|(_, lora)| lora);
    let to_gguf = is_gguf(&args.target);
    if to_gguf && archive.metadata.is_some() {
        return Err(Exit::Usage.because("source and target are both GGUF; to change formats, use minke quantize"));
    }
    let mut planned = if to_gguf { archive.plan_gguf()? } else { archive.plan_folder()? };
    if let Some(format) = args.format {
        let small = |tensor: &PlannedTensor| to_gguf && (!tensor.is_matrix() || tensor.role == Some(ParamRole::Router));
        for tensor in
            planned.iter_mut().filter(|tensor| !small(tensor) && tensor.role != Some(ParamRole::CorrectionBias))
        {
            tensor.format = format;
        }
    }
    if adapter.is_some() {
        // What was added is lost in the steps of codes.
        for tensor in planned.iter_mut().filter(|tensor| tensor.format.block_elements() > 1) {
            tensor.format = Format::Bf16;
        }
    }
    let writer = Writer::new(&archive, &planned, device)?.with_adapter(adapter.as_ref());
    let summary = if to_gguf {
        let (mut pairs, note) = metadata::pairs(&archive, &planned, &args.target)?;
        let number = match main_format(&planned) {
            Format::F32 => 0,
            Format::F16 => 1,
            _ => 32,
        };
        pairs.unsigned("general.file_type", number);
        writer.gguf(&pairs, None, &args.target, note.into_iter().chain(left_out(&archive)).collect())?
    } else {
        writer.folder(&args.target)?
    };
    summary.print(args.output.json)
}

/// Opens a source and refuses a target that is there.
pub fn open(source: &Model, target: &Path) -> Result<Archive> {
    refuse_target(target)?;
    Ok(Archive::open(&source.path()?)?)
}

/// Refuses a target that is there, or has no name.
fn refuse_target(target: &Path) -> Result<()> {
    if target.exists() {
        let advice = "remove it, or give another name";
        return Err(Exit::Usage.because(format!("{}: is there already; {advice}", target.display())));
    }
    if target.file_name().is_none() {
        return Err(Exit::Usage.because(format!("{}: is not a name for a file or folder", target.display())));
    }
    Ok(())
}

/// Whether a target is to be a GGUF file, by its name.
pub fn is_gguf(target: &Path) -> bool {
    target.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("gguf"))
}

/// The note about layers of a folder that have no place in GGUF.
pub fn left_out(archive: &Archive) -> Option<String> {
    let layers = archive.config.num_nextn_predict_layers;
    let left = archive.metadata.is_none() && layers > 0;
    left.then(|| format!("layers that predict further tokens are left out ({layers}): llama.cpp has no place for them"))
}

/// The format of most matrices' bytes.
fn main_format(planned: &[PlannedTensor]) -> Format {
    let mut bytes: BTreeMap<Format, usize> = BTreeMap::new();
    planned
        .iter()
        .filter(|tensor| tensor.is_matrix())
        .for_each(|tensor| *bytes.entry(tensor.format).or_default() += tensor.bytes());
    bytes.into_iter().max_by_key(|(_, bytes)| *bytes).map_or(Format::F32, |(format, _)| format)
}

/// Writes the tensors of a model.
pub struct Writer<'a> {
    archive: &'a Archive,
    planned: &'a [PlannedTensor],
    adapter: Option<&'a Lora>,
    device: Device,
    interrupt: Interrupt,
    bar: RefCell<Bar>,
    begun: std::time::Instant,
}

impl<'a> Writer<'a> {
    /// A writer; Ctrl-C stops it between two pieces, and nothing stays.
    ///
    /// # Errors
    /// If the operating system refuses a handler for Ctrl-C.
    pub fn new(archive: &'a Archive, planned: &'a [PlannedTensor], device: Device) -> Result<Self> {
        let total = planned.iter().map(PlannedTensor::bytes).sum::<usize>() as u64;
        Ok(Self {
            archive,
            planned,
            adapter: None,
            device,
            interrupt: Interrupt::install_with_terminate()?,
            bar: RefCell::new(Bar::new("MB written", 0, total.div_ceil(MEGABYTE))),
            begun: std::time::Instant::now(),
        })
    }

    /// The same, with an adapter that becomes a part of the weights.
    fn with_adapter(self, adapter: Option<&'a Lora>) -> Self {
        Self { adapter, ..self }
    }

    /// Writes a GGUF file.
    ///
    /// # Errors
    /// If it cannot be written, or Ctrl-C was pressed.
    pub fn gguf(
        self,
        pairs: &Pairs,
        importance: Option<&Importance>,
        target: &Path,
        notes: Vec<String>,
    ) -> Result<Summary> {
        self.with_writer(importance, |writer| Ok(writer.write_gguf(pairs, target)?))?;
        Ok(self.summary(target, notes))
    }

    fn folder(self, target: &Path) -> Result<Summary> {
        let mut notes = Vec::new();
        self.with_writer(None, |writer| {
            atomic::create_folder(target, |inside| -> Result<()> {
                let config = self.archive.folder_config(main_format(self.planned))?;
                atomic::write_new(&inside.join("config.json"), format!("{config:#}\n").as_bytes())?;
                notes.extend(metadata::write_files(self.archive, inside)?);
                Ok(writer.write_safetensors(inside, SHARD_BYTES)?)
            })
        })?;
        Ok(self.summary(target, notes))
    }

    fn with_writer(
        &self,
        importance: Option<&Importance>,
        run: impl FnOnce(&TensorWriter<'_>) -> Result<()>,
    ) -> Result<()> {
        let progress = |done: u64| {
            self.bar.borrow_mut().set(done / MEGABYTE, "");
            !self.interrupt.is_raised()
        };
        let (device, archive, planned, adapter) = (&self.device, self.archive, self.planned, self.adapter);
        run(&TensorWriter { device, archive, planned, importance, adapter, progress: &progress })
    }

    fn summary(self, target: &Path, notes: Vec<String>) -> Summary {
        self.bar.into_inner().finish("");
        let mut formats: BTreeMap<&'static str, u64> = BTreeMap::new();
        for tensor in self.planned {
            *formats.entry(tensor.format.name()).or_default() += tensor.bytes() as u64;
        }
        let parameters: u64 = self.planned.iter().map(|tensor| tensor.elements() as u64).sum();
        let bytes: u64 = formats.values().sum();
        Summary {
            source: self.archive.path.display().to_string(),
            target: target.display().to_string(),
            tensors: self.planned.len(),
            parameters,
            bytes_before: self.archive.file_bytes(),
            bytes_after: bytes,
            bits_per_weight: 8.0 * bytes as f64 / parameters.max(1) as f64,
            formats,
            seconds: self.begun.elapsed().as_secs_f64(),
            notes: self.archive.notes.iter().cloned().chain(notes).collect(),
        }
    }
}

/// What progress is counted in.
pub const MEGABYTE: u64 = 1_000_000;

impl Summary {
    /// Prints it, as JSON or as lines.
    ///
    /// # Errors
    /// If stdout is closed.
    pub fn print(&self, json: bool) -> Result<()> {
        if json {
            return print_json(self);
        }
        self.notes.iter().for_each(|note| eprintln!("minke: {note}"));
        let megabytes = |bytes: u64| bytes as f64 / MEGABYTE as f64;
        let formats: Vec<String> =
            self.formats.iter().map(|(name, &bytes)| format!("{name} {:.1}", megabytes(bytes))).collect();
        print_line(&format!(
            "{}: {} tensors, {:.1} MB ({}), {:.2} bits per weight; before {:.1} MB",
            self.target,
            self.tensors,
            megabytes(self.bytes_after),
            formats.join(", "),
            self.bits_per_weight,
            megabytes(self.bytes_before),
        ))
    }
}

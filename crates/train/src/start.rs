//! Where the weights of a stage begin: random, a published model, or what an earlier stage made of either.

use std::path::PathBuf;

use minke_model::Transformer;
use minke_spec::{Placement, Precision};
use minke_tensor::Device;
use minke_weights::{Archive, load_adapter};

use crate::config::{RunConfig, StageConfig};
use crate::stage::Context;
use crate::{Error, Result};

/// Where the weights of a stage begin.
pub(crate) enum Start<'a> {
    /// From random numbers.
    Random,
    /// From a model, and perhaps an adapter beside it.
    Model {
        /// What an adapter calls the model.
        name: String,
        /// Its files.
        archive: ArchiveOf<'a>,
        /// The folder of the adapter.
        adapter: Option<PathBuf>,
    },
}

/// An archive of one's own or of a published model.
pub(crate) enum ArchiveOf<'a> {
    Own(Box<Archive>),
    Base(&'a Archive),
}

impl ArchiveOf<'_> {
    pub(crate) fn get(&self) -> &Archive {
        match self {
            Self::Own(archive) => archive,
            Self::Base(archive) => archive,
        }
    }
}

impl<'a> Start<'a> {
    /// Where a stage begins; the stages before it are finished.
    pub(crate) fn of(config: &RunConfig, stage: &StageConfig, context: Context<'a>) -> Result<Self> {
        let Some(parent) = config.parent(stage) else {
            return Ok(match context.published {
                None => Self::Random,
                Some(base) => Self::Model {
                    name: base.name.clone(),
                    archive: ArchiveOf::Base(&base.archive),
                    adapter: base.adapter.clone(),
                },
            });
        };
        let folder = context.stages.join(parent.name());
        if parent.settings().lora().is_some() {
            return match Self::of(config, parent, context)? {
                Self::Model { name, archive, .. } => {
                    Ok(Self::Model { name, archive, adapter: Some(folder.join("adapter")) })
                }
                Self::Random => unreachable!("invariant: an adapter stands beside a model"),
            };
        }
        let path = std::path::absolute(folder.join("model")).map_err(Error::read(&folder))?;
        let archive = ArchiveOf::Own(Archive::open(&path)?.into());
        Ok(Self::Model { name: path.to_string_lossy().into_owned(), archive, adapter: None })
    }

    /// What an adapter calls the model; nothing for random numbers.
    pub(crate) fn name(&self) -> Option<&str> {
        match self {
            Self::Random => None,
            Self::Model { name, .. } => Some(name),
        }
    }

    /// The weights, all that is not trained frozen.
    ///
    /// # Errors
    /// If they cannot be loaded, or the stage cannot train them.
    pub(crate) fn weights(&self, config: &RunConfig, stage: &StageConfig, device: &Device) -> Result<Transformer> {
        let (settings, precision) = (stage.settings(), config.precision);
        let refuse = |reason: String| Error::Config(format!("stage {}: {reason}", stage.name()));
        let Self::Model { archive, adapter, .. } = self else {
            let placement = Placement::single();
            let model = settings.own_model().or(config.model.as_ref()).expect("invariant: [model] was asked for");
            return Ok(Transformer::random(device, model, &placement, config.seed)?.with_precision(device, precision));
        };
        let archive = archive.get();
        let is_frozen = settings.lora().is_some() || !stage.trains();
        // Weights that stay as they are keep their format; floats under `bf16` become what its products read. What a stage from
        // random weights left is dense as it was trained.
        let keeps_format = is_frozen
            && (precision == Precision::F32 || archive.is_quantized())
            && config.published_of(stage).is_some();
        let model = if keeps_format { archive.load_interleaved(device)? } else { archive.load_dense(device)? };
        let mut model = model.with_precision(device, precision);
        match (settings.lora(), adapter) {
            (None, None) if keeps_format => model.freeze(),
            (None, None) => {}
            (Some(lora), None) => {
                let fresh = lora.fresh(device, model.config(), config.seed).map_err(refuse)?;
                model.attach(&fresh)?;
            }
            (lora, Some(folder)) => {
                let (adapter, values) = load_adapter(device, folder, model.config())?;
                match lora {
                    Some(lora) => lora.goes_on_with(&adapter, &values).map_err(refuse)?,
                    None if stage.trains() => {
                        let advice = "give the stage the same lora, or merge it: minke convert --adapter";
                        return Err(refuse(format!("it starts from the adapter {}; {advice}", folder.display())));
                    }
                    None => {}
                }
                model.attach(&values)?;
                if lora.is_none() {
                    model.freeze();
                }
            }
        }
        // The adapter's weights too.
        Ok(model.with_precision(device, precision))
    }

    /// What a stage trains and what memory that takes, in a line.
    pub(crate) fn summary(&self, stage: &str, model: &Transformer) -> String {
        let (mut frozen, mut bytes, mut trained, mut state) = (0u64, 0u64, 0u64, 0u64);
        for param in model.params() {
            let count = param.shape().elements() as u64;
            let held = param.weight().format().bytes(param.shape().elements()) as u64;
            bytes += held;
            match param.is_frozen() {
                true => frozen += count,
                // Gradient, and two moments or one momentum: counted as two.
                false => (trained, state) = (trained + count, state + 12 * count),
            }
        }
        let megabytes = |bytes: u64| bytes.div_ceil(1_000_000);
        format!(
            "stage {stage}: {trained} parameters are trained, {frozen} stay as they are; weights {} MB, gradients and optimizer at \
             most {} MB, activations beside them",
            megabytes(bytes),
            megabytes(state)
        )
    }
}

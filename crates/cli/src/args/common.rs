//! Arguments that several commands share.

use std::path::{Path, PathBuf};

use clap::Args;
use minke_tensor::Device;
use minke_train::RunConfig;

use super::values;
use crate::error::Exit;
use crate::{environment, locate};

/// How the result is printed.
#[derive(Args)]
pub struct Output {
    /// Print the result as JSON
    #[arg(long)]
    pub json: bool,
}

/// What computes.
#[derive(Args)]
pub struct Compute {
    /// CPU threads [default: MINKE_THREADS, else all]
    #[arg(long, value_parser = values::between::<1, 1024>)]
    threads: Option<usize>,
    /// What computes: cpu, or reference (plain loops in f64, slow)
    #[arg(long, hide = true, default_value = "cpu", value_parser = Device::NAMES)]
    device: String,
}

impl Compute {
    /// The flag, else `MINKE_THREADS`, else as many threads as the machine has cores.
    ///
    /// # Errors
    /// If the variable is not a number of threads.
    fn threads(&self) -> anyhow::Result<usize> {
        match (self.threads, environment::threads()) {
            (Some(threads), _) => Ok(threads),
            (None, Some(text)) => values::between::<1, 1024>(&text)
                .map_err(|reason| Exit::Usage.because(format!("{}={text}: {reason}", environment::THREADS))),
            (None, None) => Ok(std::thread::available_parallelism().map_or(1, usize::from)),
        }
    }

    /// The device that models are loaded to.
    ///
    /// # Errors
    /// As [`Compute::threads`], and if the system does not give them.
    pub fn device(&self) -> anyhow::Result<Device> {
        Ok(Device::open(&self.device, self.threads()?)?)
    }
}

/// The model that a command reads.
#[derive(Args)]
pub struct Model {
    /// Folder of a model, GGUF file, folder or TOML of a run (its newest model), or name of a downloaded model
    model: PathBuf,
}

impl Model {
    /// Where it lies.
    ///
    /// # Errors
    /// As [`locate::model`].
    pub fn path(&self) -> anyhow::Result<PathBuf> {
        locate::model(&self.model)
    }

    /// As it was typed.
    pub fn named(&self) -> &Path {
        &self.model
    }
}

/// What stands beside the model.
#[derive(Args)]
pub struct Adapter {
    /// Folder of a low-rank adapter, as PEFT or a stage with lora writes it, to put beside the model
    #[arg(long = "adapter", value_name = "FOLDER")]
    folder: Option<PathBuf>,
}

impl Adapter {
    /// A model by its path, and the adapter beside it: that of the flag, or the one that the path itself is of.
    ///
    /// # Errors
    /// If there are two, or the base of an adapter is not here.
    pub fn beside(&self, path: PathBuf) -> anyhow::Result<(PathBuf, Option<PathBuf>)> {
        match (locate::base_of_adapter(&path)?, &self.folder) {
            (None, folder) => Ok((path, folder.clone())),
            (Some(base), None) => Ok((base, Some(path))),
            (Some(_), Some(_)) => {
                Err(Exit::Usage.because(format!("--adapter: {} is an adapter already", path.display())))
            }
        }
    }

    /// The folder of the flag.
    pub fn folder(&self) -> Option<&Path> {
        self.folder.as_deref()
    }
}

/// Where a run keeps what it makes.
#[derive(Args)]
pub struct RunFolder {
    /// Folder of everything that is made [default: out/NAME, the run's name; of answers to a set out/MODEL-TASK]
    #[arg(long, value_name = "FOLDER")]
    out: Option<PathBuf>,
}

impl RunFolder {
    /// The flag, else another folder.
    pub fn or(&self, folder: impl Into<PathBuf>) -> PathBuf {
        self.out.clone().unwrap_or_else(|| folder.into())
    }

    /// The flag, else the default of the run.
    pub fn of(&self, run: &RunConfig) -> PathBuf {
        self.out.clone().unwrap_or_else(|| crate::runs::default_folder(run))
    }
}

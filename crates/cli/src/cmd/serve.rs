//! `minke serve`: a model over HTTP, or the policy of a run, whose weights change while it is served.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Result;
use minke_chat::{ChatModel, DiskCache, PolicyVersion, Worker, WorkerConfig};
use minke_server::{Loader, Server};
use minke_tensor::Device;
use minke_weights::publication;

use super::chat_model;
use super::run::default_model;
use crate::args::{Adapter, Serve};
use crate::error::Exit;
use crate::{environment, locate};

/// Prompt tokens of a step. A request that comes while a step is computed waits for its end, so a step is short.
const CHUNK_TOKENS: usize = 64;
/// How often the folder of a policy is looked at.
const GLANCE: Duration = Duration::from_millis(100);
/// How long a version may be on its way before a line says what is missing.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long that line is not said again.
const QUIET: Duration = Duration::from_secs(300);
/// What a policy is called, unless `--model-name` says otherwise.
const POLICY: &str = "policy";

/// Runs `minke serve`.
pub fn run(args: &Serve) -> Result<()> {
    minke_sys::few_arenas();
    let config = args.settings.resolve()?.config;
    let model = args.model.as_ref().map(|model| locate::model(Path::new(model))).transpose()?;
    let device = args.compute.device()?;
    let mut worker_config =
        WorkerConfig::default().with_max_running(config.max_running).with_max_waiting(config.max_waiting);
    let source = match &args.watch {
        Some(folder) => {
            if config.disk_cache.is_some() {
                let reason = "--disk-cache: what it keeps belongs to one model, and --watch changes it; leave one out";
                return Err(Exit::Usage.because(reason));
            }
            worker_config = worker_config.for_rollouts();
            Source::Policy(Watched { folder, base: model, device: &device, max_running: config.max_running })
        }
        None => {
            worker_config = worker_config.with_chunk_tokens(CHUNK_TOKENS);
            let folder = config.disk_cache.clone().or_else(environment::disk_cache);
            if let Some(folder) = folder.filter(|_| config.disk_cache_bytes > 0) {
                let most_bytes = config.disk_cache_bytes;
                worker_config = worker_config.with_disk_cache(DiskCache { folder, most_bytes, warn });
            }
            Source::Model(model.map_or_else(default_model, Ok)?)
        }
    };
    let place = config.socket.as_ref().map(|socket| socket.display().to_string());
    // Before the model is read: a port that is taken is said at once.
    let server = Server::bind(config, warn)?.with_log(|line| eprintln!("{line}"));
    let place = server.url().or(place).unwrap_or_default();
    let loader = server.loader();
    std::thread::scope(|scope| {
        let device = &device;
        let loading = scope.spawn(move || {
            let result = match source {
                Source::Model(path) => load(&args.adapter, path, device, worker_config).map(|(worker, name)| {
                    announce(&worker, &name, &place);
                    loader.serve(worker, &name);
                }),
                Source::Policy(watched) => watched.serve(&loader, worker_config, &place),
            };
            result.inspect_err(|_| loader.stop())
        });
        let served = server.run();
        loading.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        Ok(served?)
    })
}

/// What is served.
enum Source<'a> {
    Model(PathBuf),
    Policy(Watched<'a>),
}

fn announce(worker: &Worker, name: &str, place: &str) {
    eprintln!("minke: {name} at {place}, {} tokens of context; Ctrl-C ends", worker.limit());
}

fn warn(line: &str) {
    eprintln!("minke: {line}");
}

fn load(adapter: &Adapter, path: PathBuf, device: &Device, config: WorkerConfig) -> Result<(Worker, String)> {
    let (path, adapter) = adapter.beside(path)?;
    let model = chat_model(&path, adapter.as_deref(), device, config.max_running)?;
    let name = path.file_stem().map_or_else(|| "model".into(), |name| name.to_string_lossy().into_owned());
    Ok((Worker::start(Arc::new(model), config)?, name))
}

/// The policy of a run, in the folder where it is published.
struct Watched<'a> {
    folder: &'a Path,
    /// Beside which its adapters stand, if they are such and it is not where they say.
    base: Option<PathBuf>,
    device: &'a Device,
    max_running: usize,
}

impl Watched<'_> {
    /// Serves the first version that is there, and each that follows, until the server ends.
    fn serve(&self, loader: &Loader, config: WorkerConfig, place: &str) -> Result<()> {
        if publication::current_version(self.folder)?.is_none() {
            eprintln!("minke: waits at {place} for a policy in {}; Ctrl-C ends", self.folder.display());
        }
        let (mut served, mut failing_since) = (None, None);
        while !loader.is_stopped() {
            let outcome = match publication::current_version(self.folder) {
                Ok(next) if next.is_none() || next == served => None,
                Ok(_) => Some(self.load(served)),
                Err(error) => Some(Err(error.into())),
            };
            match outcome {
                None => failing_since = None,
                Some(Ok((version, model))) => {
                    match served {
                        None => {
                            let worker = Worker::start(Arc::new(model), config.clone())?;
                            announce(&worker, POLICY, place);
                            loader.serve(worker, POLICY);
                        }
                        Some(_) => loader.replace(model)?,
                    }
                    (served, failing_since) = (Some(version), None);
                }
                Some(Err(error)) => {
                    let since = *failing_since.get_or_insert_with(Instant::now);
                    if since.elapsed() > PATIENCE {
                        warn(&format!("no other policy is served: {error:#}"));
                        failing_since = Some(Instant::now() + QUIET);
                    }
                }
            }
            std::thread::sleep(GLANCE);
        }
        Ok(())
    }

    /// The version that is there now, if all of it is, and it follows the one that is served.
    fn load(&self, served: Option<PolicyVersion>) -> Result<(PolicyVersion, ChatModel)> {
        let (version, path) = publication::whole_version(self.folder)?;
        let refuse = |reason: &str| Err(Exit::BadFile.because(format!("{}: {reason}", path.display())));
        if served.is_some_and(|served| served.run != version.run) {
            return refuse("is of another run than what is served; start the server anew for it");
        }
        let (model, adapter) = match &self.base {
            Some(_) if path.join(minke_weights::CONFIG_FILE).exists() => {
                return refuse("is a whole model, beside which no other stands; leave MODEL out");
            }
            Some(base) => (base.clone(), Some(path)),
            None => match locate::base_of_adapter(&path)? {
                Some(base) => (base, Some(path)),
                None => (path, None),
            },
        };
        let model = chat_model(&model, adapter.as_deref(), self.device, self.max_running)?;
        Ok((version, model.with_policy_version(version)))
    }
}

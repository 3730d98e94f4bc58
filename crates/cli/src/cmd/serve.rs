//! `minke serve`: a model over HTTP.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Result;
use minke_chat::{DiskCache, Worker, WorkerConfig};
use minke_server::Server;
use minke_tensor::Device;

use super::chat_model;
use super::run::default_model;
use crate::args::{Adapter, Serve};
use crate::{environment, locate};

/// Prompt tokens of a step. A request that comes while a step is computed waits for its end, so a step is short.
const CHUNK_TOKENS: usize = 64;

/// Runs `minke serve`.
pub fn run(args: &Serve) -> Result<()> {
    minke_sys::few_arenas();
    let config = args.settings.resolve()?.config;
    let path = match &args.model {
        Some(model) => locate::model(Path::new(model))?,
        None => default_model()?,
    };
    let device = args.compute.device()?;
    let mut worker_config = WorkerConfig::default()
        .with_max_running(config.max_running)
        .with_max_waiting(config.max_waiting)
        .with_chunk_tokens(CHUNK_TOKENS);
    let folder = config.disk_cache.clone().or_else(environment::disk_cache);
    if let Some(folder) = folder.filter(|_| config.disk_cache_bytes > 0) {
        let most_bytes = config.disk_cache_bytes;
        worker_config = worker_config.with_disk_cache(DiskCache { folder, most_bytes, warn });
    }
    let place = config.socket.as_ref().map(|socket| socket.display().to_string());
    // Before the model is read: a port that is taken is said at once.
    let server = Server::bind(config, warn)?.with_log(|line| eprintln!("{line}"));
    let place = server.url().or(place).unwrap_or_default();
    let loader = server.loader();
    std::thread::scope(|scope| {
        let loading = scope.spawn(move || {
            let loaded = load(&args.adapter, path, &device, worker_config);
            match loaded {
                Ok((worker, name)) => {
                    eprintln!("minke: {name} at {place}, {} tokens of context; Ctrl-C ends", worker.limit());
                    loader.serve(worker, &name);
                    Ok(())
                }
                Err(error) => {
                    loader.stop();
                    Err(error)
                }
            }
        });
        let served = server.run();
        loading.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        Ok(served?)
    })
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

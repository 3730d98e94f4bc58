//! Everything that the program reads from its environment; nothing else does.

use std::path::PathBuf;

use minke_chat::PackedFolder;
use minke_hub::Cache;

/// The variable that says how many threads to take.
pub const THREADS: &str = "MINKE_THREADS";

/// The Hub, where no other server is named.
const HUB: &str = "https://huggingface.co";

/// The value of a variable; one that is empty or only blank counts as not set.
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.trim().is_empty())
}

/// The file of settings of a server.
pub fn config() -> Option<PathBuf> {
    variable("MINKE_CONFIG").map(PathBuf::from)
}

/// The settings of a server that stand in variables of their own: `MINKE_PORT` for `port`.
pub fn settings() -> Vec<(String, String)> {
    const NAMES: [&str; 22] = [
        "MINKE_HOST",
        "MINKE_PORT",
        "MINKE_SOCKET",
        "MINKE_TLS_CERT",
        "MINKE_TLS_KEY",
        "MINKE_KEY_FILE",
        "MINKE_BASE_PATH",
        "MINKE_CORS_ORIGINS",
        "MINKE_ALLOWED_HOSTS",
        "MINKE_MODEL_NAME",
        "MINKE_MODEL_ALIASES",
        "MINKE_MAX_RUNNING",
        "MINKE_MAX_WAITING",
        "MINKE_MAX_N",
        "MINKE_MAX_CONNECTIONS",
        "MINKE_MAX_BODY_BYTES",
        "MINKE_SHARE_CACHE",
        "MINKE_DISK_CACHE",
        "MINKE_DISK_CACHE_BYTES",
        "MINKE_REASONING_FIELD",
        "MINKE_LOG",
        "MINKE_GRACE_SECONDS",
    ];
    // In every pod beside a Service called minke, Kubernetes sets MINKE_PORT to its address: tcp://10.0.0.1:80.
    let is_link = |name: &str, value: &str| name == "MINKE_PORT" && value.contains("://");
    let settings = NAMES.iter().filter_map(|name| Some(((*name).to_owned(), variable(name)?)));
    settings.filter(|(name, value)| !is_link(name, value)).collect()
}

/// The key of a server that was started with keys, for programs that use it.
pub const API_KEY: &str = "MINKE_API_KEY";

/// The value of [`API_KEY`].
pub fn api_key() -> Option<String> {
    variable(API_KEY)
}

/// The key of an endpoint, from the variable that a run names.
pub fn key(name: &str) -> Option<String> {
    variable(name)
}

/// How many threads to take, as it was written.
pub fn threads() -> Option<String> {
    variable(THREADS)
}

/// A process that was started as one of several.
pub struct Launched {
    /// Its rank, as it was written.
    pub rank: String,
    /// The number of ranks, as it was written.
    pub ranks: String,
    /// The variable that says so.
    pub variable: &'static str,
}

/// Which rank this process is, if it was started as one of several: by mpirun of Open MPI, mpirun of MPICH and its relatives, srun,
/// torchrun, or as a pod of a LeaderWorkerSet.
pub fn launched() -> Option<Launched> {
    const LAUNCHERS: [(&str, &str); 5] = [
        ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"),
        ("PMI_RANK", "PMI_SIZE"),
        // Not SLURM_NTASKS: a batch script has it too, and is one process.
        ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS"),
        ("RANK", "WORLD_SIZE"),
        ("LWS_WORKER_INDEX", "LWS_GROUP_SIZE"),
    ];
    LAUNCHERS
        .iter()
        .find_map(|(rank, ranks)| Some(Launched { rank: variable(rank)?, ranks: variable(ranks)?, variable: ranks }))
}

/// The plugin for MPI, if one was named.
pub fn mpi_plugin() -> Option<PathBuf> {
    variable("MINKE_MPI").map(PathBuf::from)
}

/// Whether output may be coloured.
pub fn may_colour() -> bool {
    variable("NO_COLOR").is_none()
}

/// The cache of downloaded models.
pub fn cache() -> Cache {
    Cache::new(shared_folders(&variable).0)
}

/// The address of the server that models come from.
pub fn endpoint() -> String {
    variable("HF_ENDPOINT").unwrap_or_else(|| HUB.into())
}

/// The token of the person at that server: as it is set, or where `hf auth login` leaves it.
pub fn token() -> Option<String> {
    let kept = || std::fs::read_to_string(shared_folders(&variable).1).ok();
    let token = variable("HF_TOKEN").or_else(kept)?;
    Some(token.trim().to_owned()).filter(|token| !token.is_empty())
}

/// Whether no server may be asked.
pub fn is_offline() -> bool {
    variable("HF_HUB_OFFLINE").is_some_and(|value| is_true(&value))
}

/// The file of what was typed, if there is a place for it.
pub fn history() -> Option<PathBuf> {
    own_folder("XDG_STATE_HOME", ".local/state").map(|folder| folder.join("history"))
}

/// The folder of kept conversations, if there is a place for it.
pub fn sessions() -> Option<PathBuf> {
    own_folder("XDG_DATA_HOME", ".local/share").map(|folder| folder.join("sessions"))
}

/// The folder of the server's prefix cache, if there is a place for it.
pub fn disk_cache() -> Option<PathBuf> {
    own_folder("XDG_CACHE_HOME", ".cache").map(|folder| folder.join("prefixes"))
}

/// The folder of packed copies of models, if there is a place for it.
pub fn packed() -> Option<PackedFolder> {
    own_folder("XDG_CACHE_HOME", ".cache").map(|folder| PackedFolder(folder.join("packed")))
}

/// The folder of published sets of problems, if there is a place for it.
pub fn problems() -> Option<PathBuf> {
    own_folder("XDG_CACHE_HOME", ".cache").map(|folder| folder.join("problems"))
}

/// The command that edits a file, if one was named.
pub fn editor() -> Option<String> {
    variable("VISUAL").or_else(|| variable("EDITOR"))
}

/// The program's folder below the one of a variable, or below home. A relative path is to be ignored, says XDG.
fn own_folder(name: &str, below_home: &str) -> Option<PathBuf> {
    let absolute = |path: &PathBuf| path.is_absolute();
    let named = variable(name).map(PathBuf::from).filter(absolute);
    let base = named.or_else(|| Some(std::env::home_dir().filter(absolute)?.join(below_home)))?;
    Some(base.join("minke"))
}

/// The folder of downloaded models and the file of the token, as `huggingface_hub` has them.
fn shared_folders(variable: &dyn Fn(&str) -> Option<String>) -> (PathBuf, PathBuf) {
    let path = |text: String| PathBuf::from(expanded(&text, variable));
    let cache = variable("XDG_CACHE_HOME").unwrap_or_else(|| "~/.cache".into());
    let home = variable("HF_HOME").unwrap_or_else(|| format!("{cache}/huggingface"));
    let hub = variable("HF_HUB_CACHE").or_else(|| variable("HUGGINGFACE_HUB_CACHE"));
    (hub.map_or_else(|| path(home.clone()).join("hub"), path), path(home).join("token"))
}

/// A path in which `~` at the beginning and variables as `$NAME` or `${NAME}` are replaced; those that are not set stay.
fn expanded(text: &str, variable: &dyn Fn(&str) -> Option<String>) -> String {
    let home = || variable("HOME").or_else(|| std::env::home_dir()?.into_os_string().into_string().ok());
    let tilde = text.strip_prefix('~').filter(|rest| rest.is_empty() || rest.starts_with('/'));
    let text = match tilde.zip(home()) {
        Some((rest, home)) => format!("{}{rest}", home.trim_end_matches('/')),
        None => text.to_owned(),
    };
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let (mut done, mut rest) = (String::new(), text.as_str());
    while let Some((before, after)) = rest.split_once('$') {
        let braced = after.strip_prefix('{').and_then(|inner| inner.split_once('}'));
        let end = after.find(|c| !is_name(c)).unwrap_or(after.len());
        let (name, behind) = braced.unwrap_or_else(|| after.split_at(end));
        done.push_str(before);
        match variable(name).filter(|_| !name.is_empty()) {
            Some(value) => done.push_str(&value),
            None => done.push_str(&rest[before.len()..rest.len() - behind.len()]),
        }
        rest = behind;
    }
    done + rest
}

fn is_true(value: &str) -> bool {
    ["1", "on", "yes", "true"].iter().any(|word| word.eq_ignore_ascii_case(value))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde::Deserialize;

    use super::*;

    #[derive(Deserialize)]
    struct Case {
        environment: BTreeMap<String, String>,
        cache: String,
        token: String,
        offline: bool,
    }

    #[test]
    fn folders_are_those_of_huggingface_hub() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../testdata/vectors/hub_environment.json");
        let text = std::fs::read_to_string(path).expect("the vectors");
        let cases: Vec<Case> = serde_json::from_str(&text).expect("cases");
        assert!(cases.len() >= 12);
        for Case { environment, cache, token, offline } in cases {
            let variable = |name: &str| environment.get(name).cloned();
            let found = shared_folders(&variable);
            assert_eq!(found, (PathBuf::from(cache), PathBuf::from(token)), "{environment:?}");
            let found = environment.get("HF_HUB_OFFLINE").is_some_and(|value| is_true(value));
            assert_eq!(found, offline, "{environment:?}");
        }
    }
}

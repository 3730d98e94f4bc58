//! Where a model lies that a text names: at a path, or under its name in the cache of downloads.

use std::path::{Path, PathBuf};

use minke_hub::{Cache, ModelName};

use crate::{Error, Result};

/// The path of a model. A path that exists wins over a name.
///
/// # Errors
/// [`Error::Name`] if it is neither a path nor can be a name; [`Error::NotDownloaded`] with the name if the cache does not
/// have it, or not whole.
pub fn locate(model: &str, cache: &Cache) -> Result<PathBuf> {
    if Path::new(model).exists() {
        return Ok(model.into());
    }
    let name = ModelName::parse(model)?;
    cache.find(&name).map_err(|absent| Error::NotDownloaded { name: Box::new(name), absent })
}

#[cfg(test)]
mod tests {
    use minke_hub::Absent;

    use super::*;

    #[test]
    fn a_model_that_is_not_there_is_told_from_what_is_no_name() {
        let folder = tempfile::tempdir().expect("a folder");
        let cache = Cache::new(folder.path().join("hub"));
        let found = |text: &str| locate(text, &cache);
        let path = folder.path().to_string_lossy();
        assert_eq!(found(&path).expect("it exists"), folder.path());
        for (text, repo) in [("r1", "deepseek-ai/DeepSeek-R1"), ("a/b:Q8_0", "a/b"), ("hf.co/a/b", "a/b")] {
            let error = found(text).expect_err("nothing was downloaded");
            let Error::NotDownloaded { name, absent } = error else { panic!("{text}: {error}") };
            assert_eq!((name.repo.as_str(), absent), (repo, Absent::Unknown), "{text}");
        }
        assert!(matches!(found("no such model"), Err(Error::Name(_))));
        // For a model that was downloaded in part, the error names what is missing.
        let snapshot = folder.path().join("hub/models--a--b/snapshots/0123456789abcdef0123456789abcdef01234567");
        std::fs::create_dir_all(&snapshot).expect("a folder");
        std::fs::write(snapshot.join("m-Q8_0-00001-of-00002.gguf"), "").expect("a file");
        assert!(matches!(found("a/b:Q8_0"), Err(Error::NotDownloaded { absent: Absent::Incomplete(_), .. })));
    }
}

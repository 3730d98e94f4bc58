//! The held-out scores of a stage, `eval.json` in its folder: written by evaluations, read by the model card and the report.

use std::path::Path;

use minke_eval::TaskReport;

use crate::{Error, Result, files};

/// File of the scores in the folder of a stage.
pub const FILE: &str = "eval.json";

/// The scores in the folder of a stage; none if it was not evaluated.
///
/// # Errors
/// If the file is there and cannot be read, or holds something else.
pub fn read(stage: &Path) -> Result<Vec<TaskReport>> {
    let path = stage.join(FILE);
    let text = match std::fs::read(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(Error::read(&path)(error)),
    };
    let bad = |error| {
        let reason = format!("not a list of scores: {error}; repair it, or move it away and evaluate again");
        Error::BadFile { path: path.clone(), reason }
    };
    serde_json::from_slice(&text).map_err(bad)
}

/// Adds scores to those in the folder of a stage, in place of older ones of the same side of a task in the same mode.
///
/// # Errors
/// As [`read`], the file being left as it is, or if it cannot be written.
pub fn add(stage: &Path, reports: &[TaskReport]) -> Result<()> {
    let mut kept = read(stage)?;
    kept.retain(|old| {
        !reports.iter().any(|new| (&new.task, new.side, &new.config) == (&old.task, old.side, &old.config))
    });
    kept.extend_from_slice(reports);
    files::replace_json(&stage.join(FILE), &kept)
}

/// What is wrong with the file, without the path on the machine that wrote it.
pub(crate) fn reason(error: &Error) -> String {
    match error {
        Error::BadFile { reason, .. } => format!("{FILE}: {reason}"),
        Error::Read { source, .. } | Error::Io { source, .. } => format!("{FILE}: {source}"),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use minke_eval::{EvalConfig, Interval, Split};

    fn report(task: &str, seed: u64, mean: f64) -> TaskReport {
        let interval = Interval { mean, low: mean, high: mean };
        TaskReport {
            task: task.into(),
            side: Split::Test,
            config: Some(EvalConfig { seed, ..EvalConfig::default() }),
            problems: 2,
            unusable: 0,
            pass_at_1: interval,
            pass_at_k: vec![(1, mean)],
            cons_at_k: Some(interval),
            greedy: None,
            mean_tokens: Some(1.0),
            thought_tokens_right: None,
            thought_tokens_wrong: None,
            attempts: Some(0.0),
            repeats: None,
            search: None,
            constant: None,
            format_rate: 0.0,
            truncated: Some(0.0),
            false_claims: None,
            counts: Vec::new(),
            transcripts: Vec::new(),
        }
    }

    #[test]
    fn new_scores_replace_those_of_the_same_mode() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(read(folder.path()).unwrap(), []);
        add(folder.path(), &[report("sums", 1, 0.25), report("sums", 2, 0.5)]).unwrap();
        add(folder.path(), &[report("sums", 2, 0.75), report("lists", 2, 0.125)]).unwrap();
        let expected = [report("sums", 1, 0.25), report("sums", 2, 0.75), report("lists", 2, 0.125)];
        assert_eq!(read(folder.path()).unwrap(), expected);
        // Those of another side stand beside them.
        let chosen_by = TaskReport { side: Split::Validation, ..report("sums", 1, 0.5) };
        add(folder.path(), std::slice::from_ref(&chosen_by)).unwrap();
        assert_eq!(read(folder.path()).unwrap(), [&expected[..], &[chosen_by]].concat());
    }

    #[test]
    fn what_cannot_be_read_is_an_error_and_stays_as_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(FILE);
        // Half a file, a file of another program, one field of another version, bytes that are not text.
        let other = serde_json::to_string(&[report("sums", 1, 0.5)]).unwrap().replace("pass_at_1", "pass1");
        for broken in [&b"[{\"task\": \"su"[..], b"{}", b"", other.as_bytes(), b"\xff\xfe"] {
            std::fs::write(&path, broken).unwrap();
            let message = read(folder.path()).unwrap_err().to_string();
            assert!(message.contains("eval.json: not a list of scores: ") && !message.contains('\n'), "{message}");
            assert_eq!(add(folder.path(), &[report("sums", 1, 0.5)]).unwrap_err().to_string(), message);
            assert_eq!(std::fs::read(&path).unwrap(), broken);
        }
        std::fs::remove_file(&path).unwrap();
        std::fs::create_dir(&path).unwrap();
        assert!(read(folder.path()).unwrap_err().to_string().starts_with("cannot read "));
    }
}

//! A file of answers: whatever was killed when, and however many sequences ran at once, it ends with the same bytes.
#![allow(clippy::unwrap_used)]

mod world;

use std::path::Path;

use minke_engine::{EngineConfig, Replicas};
use minke_eval::{Answer, Error, EvalConfig, Evaluator, Header, Problem, Questions, Results, TaskReport, prompts};
use minke_text::ChatTemplate;
use world::{World, world};

fn config() -> EvalConfig {
    EvalConfig { samples: 3, max_tokens: 20, greedy: false, seed: 5, ..EvalConfig::default() }
}

fn header(problems: &[Problem]) -> Header {
    Header {
        minke: "0".into(),
        task: "sums".into(),
        data: "d".into(),
        problems: problems.len(),
        samples: 3,
        model: "known".into(),
        model_sha256: "m".into(),
        config: Some(config()),
        prompts: None,
    }
}

/// Answers what is missing in a file, up to so many answers, as if the process was killed then.
fn go_on(world: &World, path: &Path, sequences: usize, most: usize) -> Result<Vec<Answer>, Error> {
    let problems = &world.problems[20..40];
    let sizes = EngineConfig::default().with_pages(8 * sequences).with_max_sequences(sequences).with_chunk_tokens(16);
    let mut engines = Replicas::new(&world.device, world.model.config(), &sizes.exact()).unwrap();
    let template = ChatTemplate::r1_unforced();
    let (tokenizer, model) = (&world.tokenizer, &world.model);
    let mut evaluator = Evaluator { engines: &mut engines, model, tokenizer, template: &template };
    let config = config();
    let prompts = prompts(&template, tokenizer, &world.task, problems, &config).unwrap();
    let mut results = Results::open(path, header(problems))?;
    let (done, mut new) = (results.done(), 0);
    let questions = Questions { task: &world.task, problems, prompts: &prompts, config: &config };
    evaluator.answer(questions, &done, &mut |answer| {
        results.append(answer)?;
        new += 1;
        let killed = || Error::Compare { reason: "killed".into() };
        if new < most { Ok(()) } else { Err(killed()) }
    })?;
    results.finish(problems.iter().map(|problem| problem.name.as_str()))
}

#[test]
fn a_file_ends_with_the_same_bytes_whatever_happened() {
    let (world, folder) = (world(), tempfile::tempdir().unwrap());
    let (whole, other) = (folder.path().join("whole.jsonl"), folder.path().join("other.jsonl"));
    let answers = go_on(&world, &whole, 40, usize::MAX).unwrap();
    assert_eq!(answers.len(), 60);
    let expected = std::fs::read(&whole).unwrap();
    assert_eq!(expected.iter().filter(|byte| **byte == b'\n').count(), 61);

    // Few sequences at once, killed after every answer.
    for sequences in [1, 3] {
        let _ = std::fs::remove_file(&other);
        let mut kills = 0;
        while go_on(&world, &other, sequences, 7).is_err() {
            kills += 1;
            assert!(kills < 60);
        }
        // Of sixty answers; engines that run beside the one that was killed may bring one each.
        assert!(kills >= 6, "{kills} kills");
        assert_eq!(std::fs::read(&other).unwrap(), expected, "{sequences} sequences at once");
    }
    // Killed in the middle of a line: at the end of the header, in it, in an answer, before the last line's end.
    for cut in [0, 1, 40, expected.len() / 2, expected.len() / 2 + 1, expected.len() - 1] {
        std::fs::write(&other, &expected[..cut]).unwrap();
        go_on(&world, &other, 40, usize::MAX).unwrap();
        assert_eq!(std::fs::read(&other).unwrap(), expected, "cut at {cut}");
    }
    // What is complete stays as it is, and reads as it was written.
    assert_eq!(go_on(&world, &whole, 40, 0).unwrap(), answers);
    assert_eq!(Results::read(&whole).unwrap(), (header(&world.problems[20..40]), answers.clone()));
    let report = TaskReport::new("sums", &world.task, &world.problems[20..40], &answers, Some(config())).unwrap();
    assert_eq!((report.problems, report.counts.iter().all(|count| count.samples == 3)), (20, true));
}

#[test]
fn a_file_of_another_evaluation_is_refused_by_name_and_stays_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("answers.jsonl");
    let there = header(&world().problems[20..40]);
    drop(Results::open(&path, there.clone()).unwrap());
    let before = std::fs::read(&path).unwrap();
    let refusal = |header: Header| Results::open(&path, header).err().unwrap().to_string();
    for (header, difference) in [
        (Header { model_sha256: "n".into(), ..there.clone() }, "model_sha256 is \"m\" there and \"n\" here"),
        (Header { data: "e".into(), ..there.clone() }, "data is \"d\" there and \"e\" here"),
        (
            Header { config: Some(EvalConfig { seed: 6, ..config() }), ..there.clone() },
            "config.seed is 5 there and 6 here",
        ),
        (Header { config: None, ..there.clone() }, "config."),
        (
            Header { config: Some(EvalConfig { shots: Some(8), ..config() }), ..there.clone() },
            "config.shots is nothing there and 8 here",
        ),
    ] {
        let message = refusal(header);
        assert!(message.contains(difference) && message.lines().count() == 1, "{message}");
    }
    // Another process that writes it.
    let open = Results::open(&path, there.clone()).unwrap();
    assert!(refusal(there.clone()).contains("is being written by another process"));
    drop(open);
    assert_eq!(std::fs::read(&path).unwrap(), before);

    // Damaged lines, and one that is there twice.
    let row = r#"{"id":"1","sample":0,"text":"7","verdict":"right","format":false}"#;
    for (rows, expected) in [
        (format!("{row}\n{{\"id\":\n{row}\n"), "line 3: EOF"),
        (format!("{row}\n{row}\n"), "line 3: sample 0 of 1 is there already"),
        (row.replace("right", "rihgt") + "\n", "line 2: unknown variant `rihgt`"),
        (row.replace("\"text\"", "\"txet\"") + "\n", "line 2: unknown field `txet`"),
    ] {
        std::fs::write(&path, [&before[..], rows.as_bytes()].concat()).unwrap();
        let message = refusal(there.clone());
        assert!(message.contains(expected) && message.lines().count() == 1, "{message}");
    }
    // An answer to what is not asked, and one that is missing.
    std::fs::write(&path, [&before[..], row.as_bytes(), b"\n"].concat()).unwrap();
    let finish =
        |names: &[&str]| Results::open(&path, there.clone()).unwrap().finish(names.iter().copied()).unwrap_err();
    assert!(finish(&["2"]).to_string().contains("an answer to \"1\", which is not asked"));
    assert!(finish(&["1"]).to_string().contains("has 1 of 60 answers"));
}

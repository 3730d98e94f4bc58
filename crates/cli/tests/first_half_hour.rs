//! What a newcomer types: names from elsewhere, questions without quotes, folders of runs.
#![allow(clippy::unwrap_used)]

mod common;

use common::{RUN, minke, minke_with_input, thinker};
use std::fs;

#[test]
fn a_run_is_trained_and_talked_to() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    fs::write(at.join("small.toml"), RUN).unwrap();
    let done = minke(at, &["run", "small.toml", "hi"]);
    assert_eq!(done.code, 4, "{done:?}");
    assert!(done.err.contains("small.toml: out/small holds no run yet; minke train small.toml"), "{done:?}");
    let done = minke(at, &["train", "small.toml", "--set", "stage.base.steps=2"]);
    assert!(done.err.ends_with("to talk to its newest model: minke run out/small\n"), "{done:?}");
    let ask = |model: &str| minke(at, &["run", model, "hi", "--temperature", "0", "--max-tokens", "3"]);
    let (tuned, base) = ("out/small/stages/tuned/model", "out/small/stages/base/model");
    for (named, stage) in [
        ("out/small", tuned),
        ("small.toml", tuned),
        ("out/small/stages/tuned", tuned),
        ("out/small/stages/base", base),
    ] {
        let (done, itself) = (ask(named), ask(stage));
        assert_eq!((&done.out, done.code), (&itself.out, itself.code), "{named}: {done:?}");
        let said = done.err.contains("the newest model is that of stage tuned, out/small/stages/tuned/model");
        assert_eq!(said, !named.contains("stages"), "{named}: {done:?}");
    }
    assert_ne!(ask(tuned).out, "", "it says something");
    let shown = minke(at, &["show", "out/small", "--json"]).json().remove(0);
    assert_eq!(shown["path"], tuned);
    // The newest stage that is finished.
    fs::remove_dir_all(at.join("out/small/stages/tuned")).unwrap();
    assert!(ask("out/small").err.contains("the newest model is that of stage base"));
    fs::remove_dir_all(at.join("out/small/stages/base/model")).unwrap();
    let done = ask("out/small");
    assert!(
        done.code == 4 && done.err.contains("no stage of this run is finished; go on with minke train"),
        "{done:?}"
    );
}

#[test]
fn questions_need_no_quotes() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let model = thinker(at);
    fs::create_dir(at.join("models")).unwrap();
    fs::rename(model, at.join("models/first-light")).unwrap();
    let prompt = |args: &[&str]| {
        let done = minke(at, &[&["run", "--json"], args].concat());
        (done.json()[0]["prompt"].as_str().unwrap().to_owned(), done.err)
    };
    for (args, question, is_said) in [
        (&["make 24 from 3 8"][..], "make 24 from 3 8", false),
        (&["make", "24", "from", "3", "8"], "make 24 from 3 8", true),
        (&["what", "is", "-3", "+", "8?"], "what is -3 + 8?", true),
        (&["make", "24", "--seed", "3", "from", "8"], "make 24 from 8", true),
        (&["hello"], "hello", false),
        (&["models/first-light", "make", "24", "from", "3"], "make 24 from 3", false),
        (&["models/first-light", "make 24"], "make 24", false),
    ] {
        let (asked, err) = prompt(args);
        assert_eq!(asked, question);
        assert_eq!(err.contains(&format!("asking models/first-light: {question}")), is_said, "{args:?}: {err}");
    }
    assert_eq!(minke_with_input(at, &["run", "models/first-light"], "hello").out, "ab\n\n8*3\n");
}

#[test]
fn names_of_other_programs_are_understood() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    for (name, stands_for) in [
        ("deepseek-r1:7b", "unsloth/DeepSeek-R1-Distill-Qwen-7B-GGUF:Q4_K_M"),
        ("https://huggingface.co/deepseek-ai/DeepSeek-R1", "deepseek-ai/DeepSeek-R1"),
        ("hf.co/acme/tiny-GGUF:Q8_0", "acme/tiny-GGUF:Q8_0"),
        ("https://huggingface.co/acme/tiny/blob/v2/tiny-Q8_0.gguf", "acme/tiny:Q8_0 at v2"),
    ] {
        let done = minke(at, &["run", name, "hi"]);
        assert_eq!((done.code, done.err.lines().count()), (4, 1), "{done:?}");
        let advice = format!("and not downloaded; check the spelling, or: minke pull {name}, which is {stands_for}");
        assert!(done.err.contains(&advice), "{done:?}");
        let done = minke(at, &["pull", name, "--offline"]);
        assert_eq!(done.code, 4, "{done:?}");
        assert!(done.err.contains(&format!("{name} is {stands_for}\n")), "{done:?}");
        assert!(done.err.contains(&format!("{stands_for}: not downloaded")), "{done:?}");
    }
    for (name, part) in [
        ("https://huggingface.co/datasets/acme/tiny", "is no address of a model"),
        ("https://example.com/acme/tiny", "for another server set HF_ENDPOINT"),
        ("deepseek-r1", "names models of very different size"),
    ] {
        for verb in ["run", "show", "fit"] {
            let done = minke(at, &[verb, name]);
            assert_eq!((done.code, done.out.as_str(), done.err.lines().count()), (4, "", 1), "{verb} {name}: {done:?}");
            assert!(done.err.contains(part), "{verb} {name}: {done:?}");
        }
    }
}

#[test]
fn batches_are_measured() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let model = thinker(at);
    let bench = |batch: &str| {
        let sizes = ["--prompt", "40", "--generate", "5", "--batch", batch, "--json"];
        minke(at, &[&["bench", model.to_str().unwrap()], &sizes[..]].concat())
    };
    let rows = bench("1,3").json().remove(0);
    for (row, batch) in rows.as_array().unwrap().iter().zip([1, 3]) {
        assert_eq!(
            (&row["batch"], &row["prompt_tokens"], &row["generated_tokens"]),
            (&batch.into(), &40.into(), &5.into())
        );
        assert!(row["prefill_tps"].as_f64().unwrap() > 0.0 && row["gen_tps"].as_f64().unwrap() > 0.0, "{row}");
    }
    assert_eq!(rows[1]["kv_bytes"].as_u64().unwrap(), 3 * rows[0]["kv_bytes"].as_u64().unwrap());
}

//! A broken TOML gives one line that says what, where and what to do.
#![allow(clippy::unwrap_used)]

mod support;

use minke_train::RunConfig;
use support::{HEAD, TASKS};

const BASE: &str = "[[stage]]\nkind = \"pretrain\"\nname = \"base\"\nsteps = 3\n";

fn check(toml: &str, expected: &str) {
    let message = RunConfig::from_toml(toml).map(|_| ()).unwrap_err().to_string();
    assert!(!message.contains('\n') && message.contains(expected), "{message:?} does not say {expected:?}");
}

#[test]
fn every_mistake_is_named() {
    let whole = |stages: &str| format!("{HEAD}{TASKS}{BASE}{stages}");
    RunConfig::from_toml(&whole("")).unwrap();
    check("name = \"x", "line 1: ");
    check(&whole("").replace("seed = 7", "sed = 7"), "line 3: unknown field `sed`");
    check(&whole("").replace("seed = 7", "precision = \"f16\""), "line 3: unknown variant `f16`");
    check(&whole("").replace("hidden_size", "hiden_size"), "[model]: ");
    check(&whole("").replace("deepseek_v3", "deepseek_v9"), "deepseek_v9");
    check(&format!("{HEAD}{BASE}"), "at least one [[task]]");
    check(&format!("{HEAD}{TASKS}"), "at least one [[task]] and one [[stage]]");
    check(&whole("").replace("\"countdown\"\nfamily", "\"sums\"\nfamily"), "two tasks \"sums\"");
    check(
        &whole("").replace("family = \"countdown\"", "family = \"cuntdown\""),
        "[[task]] 1 \"countdown\": unknown variant `cuntdown`",
    );
    check(
        &whole("").replace("family = \"countdown\"", "family = \"countdown\"\nlargest = 3"),
        "unknown field `largest`",
    );
    check(&whole("stepz = 3\n"), "[[stage]] 1 \"base\": unknown field `stepz`");
    check(&whole("").replace("pretrain", "retrain"), "[[stage]] 1 \"base\": unknown variant `retrain`");
    check(&whole("").replace("steps = 3", "steps = 0"), "stage base: steps is 0");
    check(&whole("").replace("steps = 3", "steps = -3"), "[[stage]] 1 \"base\": ");
    check(&whole("").replace("steps = 3", ""), "missing field `steps`");
    check(&whole(BASE), "two stages \"base\"");
    check(&whole("").replace("\"base\"", "\"../base\""), "stage \"../base\": a name has letters");
    check(&whole("training = { bach_tokens = 3 }\n"), "unknown field `bach_tokens`");
    check(&whole("learning_rate = { adamw = 5.0 }\n"), "stage base: learning_rate must lie between 0 and 1");
    check(
        &whole("mixture = [{ task = \"sudoku\" }]\n"),
        "stage base: there is no task \"sudoku\"; the run has countdown, sums",
    );
    check(&whole("mixture = [{ task = \"sums\", styles = {} }]\n"), "stage base: mixture");
    check(&whole("schedule = [{ to = 0.1 }, { to = 0.2 }]\n"), "only the last segment");
    check(&whole("[stage.training.optimizer]\nbeta1 = 1.5\n"), "stage base: optimizer: momentum, beta1");

    let workers = |more: &str| {
        let grpo = "[[stage]]\nkind = \"grpo\"\nname = \"z\"\nfrom = \"base\"\nsteps = 3\nmax_tokens = [[0, 9]]\n";
        whole(&format!("{grpo}learning_rate = {{ adamw = 1e-3 }}\n{more}"))
    };
    let one = "[stage.workers]\nurls = [\"http://127.0.0.1:1\"]\n";
    RunConfig::from_toml(&workers(one)).unwrap();
    check(&workers("[stage.workers]\nurls = []\n"), "stage z: workers.urls is empty");
    check(&workers("[stage.workers]\nurl = \"http://127.0.0.1:1\"\n"), "unknown field `url`");
    check(&workers("[stage.workers]\nurls = [\"127.0.0.1\"]\n"), "stage z: workers.urls: ");
    check(&workers("[stage.workers]\nurls = [\"http://a\", \"http://a\"]\n"), "\"http://a\" is there twice");
    check(&workers(&format!("temperature = 0.7\n{one}")), "stage z: temperature must be 1 with workers");
    check(&workers(&format!("{one}max_ratio = 0.5\n")), "stage z: workers.max_ratio must lie between 1");
    check(&workers(&format!("{one}max_staleness = 1001\n")), "stage z: workers.max_staleness must be at most");
    check(&workers(&format!("{one}requests = 0\n")), "stage z: workers.requests must lie between");
    check(&workers(&format!("{one}key_env = \"a-key\"\n")), "stage z: workers.key_env must be the name");

    let sft = |from: &str, data: &str| {
        whole(&format!("[[stage]]\nkind = \"sft\"\nname = \"s\"\nfrom = \"{from}\"\ndata = [{data}]\n"))
    };
    let clean = "{ kind = \"demonstrations\", style = \"clean\", count = 3 }";
    RunConfig::from_toml(&sft("base", clean)).unwrap();
    check(&sft("bse", clean), "stage s: no earlier stage is called \"bse\"");
    check(&sft("s", clean), "stage s: no earlier stage is called \"s\"");
    check(
        &sft("base", "{ kind = \"stage\", name = \"base\" }"),
        "stage s: \"base\" makes a model, but samples are wanted",
    );
    check(&sft("base", ""), "stage s: data is empty");
    check(&sft("base", &clean.replace("clean", "cleen")), "unknown variant `cleen`");
    check(&sft("base", &clean.replace("count = 3", "count = 3, task = \"sudoku\"")), "no task \"sudoku\"");
    check(
        &whole("[[stage]]\nkind = \"distill\"\nname = \"d\"\ndata = \"base\"\n"),
        "stage d: give the student either `model` or `from`",
    );
    check(&whole("").replace("[model]", "[model]\nvocab_size = 100"), "vocab_size 100 has no room for 320 tokens");
}

#[test]
fn a_teacher_is_obeyed_or_refused() {
    let kept = |more: &str| {
        let stage = "[[stage]]\nkind = \"reject\"\nname = \"kept\"\nquestions = 3\nmax_tokens = 9\n";
        format!("{HEAD}{TASKS}{BASE}{stage}{more}\n")
    };
    let of = |more: &str| format!("teacher = {{ url = \"http://127.0.0.1:1\", model = \"m\"{more} }}\n");
    RunConfig::from_toml(&kept(&of(""))).unwrap();
    // Nor is any model needed.
    RunConfig::from_toml(&kept(&of("")).replace(HEAD, "name = \"x\"\n").replace(BASE, "")).unwrap();
    check(&kept(""), "stage kept: give either `from`, a model that answers here, or `teacher`, an endpoint");
    check(&kept(&format!("from = \"base\"\n{}", of(""))), "stage kept: give either `from`");
    check(&kept("teacher = { model = \"m\" }"), "[[stage]] 2 \"kept\": missing field `url`");
    check(&kept("teacher = { url = \"http://127.0.0.1:1\" }"), "missing field `model`");
    check(&kept(&of(", key = \"sk\"")), "unknown field `key`");
    check(&kept(&of(", requests = 0")), "stage kept: teacher: requests must lie between 1 and 1024");
    check(&kept(&of(", body = { seed = 3 }")), "stage kept: teacher: body: seed is the stage's to set");
    check(&kept("teacher = { url = \"localhost:1\", model = \"m\" }"), "stage kept: teacher: url: ");
    for (field, value) in
        [("prompt", "\"forced_thought\""), ("engine", "{ max_sequences = 3 }"), ("checkpoint_every", "9")]
    {
        let more = format!("{field} = {value}\n{}", of(""));
        check(&kept(&more), &format!("stage kept: {field} belongs to a model that answers here"));
    }
}

#[test]
fn the_run_on_the_page_about_endpoints_is_one() {
    let page = include_str!("../../../docs/endpoints.md");
    let text = page.split("```toml\n").nth(1).unwrap().split("```").next().unwrap();
    // Its problems are in files that are not here.
    let (head, rest) = text.split_once("[[task]]").unwrap();
    let (_, stages) = rest.split_once("[[stage]]").unwrap();
    let run = RunConfig::from_toml(&format!("{head}{TASKS}[[stage]]{stages}")).unwrap();
    assert_eq!((run.key_variables(), run.published()), (vec!["TEACHER_KEY"], vec!["r1-distill-qwen-1.5b"]));
}

#[test]
fn the_stage_on_the_page_about_workers_is_one() {
    let page = include_str!("../../../docs/rollout-workers.md");
    let stage = page.split("```toml\n").nth(1).unwrap().split("```").next().unwrap();
    let run = RunConfig::from_toml(&format!("{HEAD}{TASKS}{BASE}{stage}")).unwrap();
    assert_eq!((run.key_variables(), run.stages.len()), (vec!["WORKERS_KEY"], 2));
    // What it says beside the addresses are the defaults, but for the folder and the key.
    let short = stage.lines().filter(|line| !line.starts_with("folder") && !line.starts_with("key_env"));
    let end = |line: &&str| line.starts_with("model = ");
    let short: Vec<&str> = short.take_while(|line| !end(line)).collect();
    let short = RunConfig::from_toml(&format!("{HEAD}{TASKS}{BASE}{}", short.join("\n"))).unwrap();
    let plain = |run: &RunConfig| {
        let text = toml::to_string(&run.stages[1]).unwrap();
        let lines = text.lines().filter(|line| !line.starts_with("folder") && !line.starts_with("key_env"));
        lines.map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(plain(&run), plain(&short));
}

#[test]
fn what_the_toml_leaves_out_is_filled_in_and_survives_a_round_trip() {
    let run = RunConfig::from_toml(&format!("{HEAD}{TASKS}{BASE}")).unwrap();
    let model = run.model.clone().unwrap();
    assert_eq!((model.vocab_size, &model.eos_token_ids[..], model.bos_token_id), (320, &[1][..], Some(0)));
    let again = RunConfig::from_toml(&toml::to_string(&run).unwrap()).unwrap();
    assert_eq!(again, run);
}

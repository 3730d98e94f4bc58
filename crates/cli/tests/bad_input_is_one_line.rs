//! Mistakes end with the right exit code and one line on stderr that says what is wrong; nothing else is printed, and
//! never a backtrace.
#![allow(clippy::unwrap_used)]

mod common;

use common::{Done, RUN, brooder, command, minke, minke_with_input, testdata, thinker};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Stdio;

const FAILED: i32 = 1;
const USAGE: i32 = 2;
const DOES_NOT_FIT: i32 = 3;
const BAD_FILE: i32 = 4;
const NETWORK: i32 = 5;

fn check(done: &Done, code: i32, part: &str, what: &str) {
    assert_eq!(done.code, code, "{what}: {done:?}");
    assert_eq!((done.out.as_str(), done.err.lines().count()), ("", 1), "{what}: {done:?}");
    assert!(done.err.starts_with("minke: ") && done.err.contains(part), "{what}: {part:?} is not in {done:?}");
    for word in ["panicked", "backtrace", "RUST_BACKTRACE", "src/"] {
        assert!(!done.err.contains(word), "{what}: {done:?}");
    }
}

#[test]
fn wrong_arguments() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    thinker(at);
    brooder(at);
    fs::create_dir(at.join("empty")).unwrap();
    fs::write(at.join("small.toml"), RUN).unwrap();
    fs::write(at.join("page.gguf"), "<!DOCTYPE html>\n<html>Not found</html>").unwrap();
    fs::write(at.join("pointer.gguf"), "version https://git-lfs.github.com/spec/v1\noid sha256:0").unwrap();
    fs::write(at.join("cut.gguf"), b"GGUF\x03\0\0\0\x10").unwrap();
    fs::create_dir(at.join("several")).unwrap();
    ["several/a.gguf", "several/b.gguf"].iter().for_each(|name| fs::write(at.join(name), "GGUF").unwrap());
    let long = "a ".repeat(400);
    let cases: &[(&[&str], i32, &str)] = &[
        (&["rum"], USAGE, "'run'"),
        (&["run", "thinker", "q", "--temprature", "1"], USAGE, "'--temperature'"),
        (&["run", "thinkr", "what is it?"], BAD_FILE, "thinkr: no such file or folder; check the spelling"),
        (&["run", "thinkr", "q"], BAD_FILE, "for a question of two words write quotes: minke run \"thinkr q\""),
        (&["run", "thinker", "q", "--temperature", "-1"], USAGE, "temperature = -1: it must be 0 (greedy) or"),
        (&["run", "thinker", "q", "--temperature", "NaN"], USAGE, "temperature = NaN"),
        (&["run", "thinker", "q", "--temperature", "warm"], USAGE, "invalid value 'warm'"),
        (&["run", "thinker", "q", "--top-p", "0"], USAGE, "top_p = 0: it must be above 0"),
        (&["run", "thinker", "q", "--top-p", "1.5"], USAGE, "top_p = 1.5"),
        (&["run", "thinker", "q", "--max-tokens", "0"], USAGE, "max_tokens = 0: it must be at least 1"),
        (&["run", "thinker", "q", "--max-tokens", "-3"], USAGE, "invalid value '-3' for '--max-tokens"),
        (
            &["run", "thinker", "q", "--threads", "0"],
            USAGE,
            "'0' for '--threads <THREADS>': must be a number from 1 to",
        ),
        (&["run", "thinker", "q", "--think", "maybe"], USAGE, "[possible values: show, fold, hide]"),
        (&["plan", "cost", "gpt"], USAGE, "model \"gpt\" is not known; known: deepseek-v3"),
        (&["plan", "train", "deepseek-v3", "--set", "pue=x"], USAGE, "--set pue=x: the value must be a number"),
        (
            &["plan", "train", "deepseek-v3", "--set", "foo=1"],
            USAGE,
            "assumption \"foo\" is not known; known: h800.bf16_flops",
        ),
        (&["plan", "train", "deepseek-v3", "--part", "h9"], USAGE, "part \"h9\" is not known; known: h800, h100"),
        (&["plan", "train", "deepseek-v3", "--part", "l20"], USAGE, "l20: parts_per_node (parts) has no sourced value"),
        (&["plan", "train", "deepseek-v3", "--tokens", "5Q"], USAGE, "write a number above 0, such as 8000"),
        (&["plan", "train", "deepseek-v3", "--count", "64"], DOES_NOT_FIT, "cannot be trained on 64 x h800"),
        (&["plan", "fit", "--part", "h800", "--hardware", "small.toml"], BAD_FILE, "small.toml: not a file of parts"),
        (&["run", "thinker", "q", "--seed", "-1"], USAGE, "invalid value '-1'"),
        (&["run", "thinker", " "], USAGE, "the question is empty"),
        (&["run", ""], USAGE, "a value is required"),
        (&["run", "thinker"], USAGE, "standard input has no question"),
        (&["run", "models/frist-light"], BAD_FILE, "and not downloaded; check the spelling, or: minke pull models/fr"),
        (&["run", "models/frist-light", "q"], BAD_FILE, "models/frist-light: no such file or folder"),
        (&["run", "r1.gguf"], BAD_FILE, "r1.gguf: no such file or folder; check the spelling"),
        (&["run", "r1-distill-qwen-7b"], BAD_FILE, "not downloaded; check the spelling, or: minke pull r1-distill"),
        (&["run", "r1-distil-qwen-7b", "q"], BAD_FILE, "no such file or folder; did you mean r1-distill-qwen-7b?"),
        (&["run", "deepseek-r1", "q"], BAD_FILE, "names models of very different size; write r1 for"),
        (&["run", "a/b:Q4_K_M", "q"], BAD_FILE, "a/b:Q4_K_M: no such file or folder, and not downloaded"),
        (&["run", "page.gguf", "q"], BAD_FILE, "page.gguf: is a web page, not weights: the download went wrong"),
        (&["run", "pointer.gguf", "q"], BAD_FILE, "pointer.gguf: is a Git LFS pointer, not the weights themselves"),
        (&["run", "cut.gguf", "q"], BAD_FILE, "cut.gguf: its header is broken"),
        (&["run", "several", "q"], BAD_FILE, "several: holds 2 models as GGUF; give the file of the one"),
        (&["bench", "nowhere"], BAD_FILE, "nowhere: no such file or folder"),
        (&["bench", "empty"], BAD_FILE, "empty: has no config.json"),
        (&["bench", "thinker", "--generate", "0"], USAGE, "'--generate <GENERATE>': must be at least 1"),
        (&["bench", "thinker", "--batch", "1,5000"], USAGE, "'--batch <BATCH>': must be a number from 1 to 4096"),
        (&["debug", "tokens", "nowhere", "text"], BAD_FILE, "nowhere: no such file or folder"),
        (&["debug", "logits", "thinker", "--ids", "263"], USAGE, "is not below 263; give --ids 1,2,3"),
        (&["fit", "nowhere"], BAD_FILE, "nowhere: no such file or folder"),
        (&["fit", "empty"], BAD_FILE, "empty: has no config.json"),
        (&["fit", "thinker", "--context", "1000"], USAGE, "--context 1000: this model holds 1 to 256 tokens"),
        (&["fit", "thinker", "--memory", "24 apples"], USAGE, "write a size such as 24G or 512M"),
        (&["pull"], USAGE, "<NAME>"),
        (&["pull", "r1-distil-qwen-7b"], USAGE, "is no model; did you mean r1-distill-qwen-7b?"),
        (&["pull", "qwen"], USAGE, "write ORG/NAME as on the Hugging Face Hub, or a short name such as"),
        (&["pull", "../../etc"], USAGE, "../../etc: is no model"),
        (&["pull", "a/b:"], USAGE, "a quantization is a word such as Q4_K_M"),
        (&["pull", "a/b", "--offline"], BAD_FILE, "a/b: not downloaded; run the same command without --offline"),
        (&["rm", "a/b"], BAD_FILE, "a/b: not downloaded; minke list says what is"),
        (&["list", "all"], USAGE, "unexpected argument 'all'"),
        (&["run", "thinker/config.json", "q"], BAD_FILE, "is a file, but not GGUF; give a GGUF file, or the folder"),
        (&["run", "empty", "q"], BAD_FILE, "empty: has no config.json"),
        (&["run", "thinker", &long], FAILED, "tokens and the engine holds sequences of 256"),
        (&["show", "nowhere"], BAD_FILE, "nowhere: no such file or folder"),
        (&["show", "small.toml"], BAD_FILE, "small.toml: out/small holds no run yet; minke train small.toml"),
        (&["show"], USAGE, "<MODEL>"),
        (&["train"], USAGE, "<RUN>"),
        (&["train", "nowhere.toml"], BAD_FILE, "nowhere.toml: no such file; give the TOML of a run"),
        (&["train", "empty"], BAD_FILE, "empty: is a folder; give the TOML"),
        (&["train", "small.toml", "--set", "seed"], USAGE, "'seed' for '--set <KEY=VALUE>': is not KEY=VALUE"),
        (&["train", "small.toml", "--set", "stage.bose.steps=1"], USAGE, "the run has nothing called \"bose\""),
        (&["train", "small.toml", "--set", "sed=1"], BAD_FILE, "unknown field `sed`"),
        (&["train", "small.toml", "--out", "small.toml"], FAILED, "small.toml"),
        (&["train", "small.toml", "--out", "/proc/nothing"], FAILED, "/proc/nothing"),
        (&["eval", "nowhere"], BAD_FILE, "nowhere: no such file or folder"),
        (&["eval", "thinker", "--samples", "0"], USAGE, "'--samples <SAMPLES>': must be at least 1"),
        (&["eval", "thinker", "--problems", "0"], USAGE, "'--problems <PROBLEMS>': must be at least 1"),
        (&["eval", "thinker", "--temperature", "-2"], USAGE, "temperature = -2"),
        (&["eval", "thinker", "--task", "chess"], USAGE, "--task chess: there is no such task; there are countdown"),
        (&["eval", "small.toml", "--task", "chess"], USAGE, "there are make"),
        (&["eval", "small.toml"], BAD_FILE, "out/small: no stage of the run is finished there; run `minke train"),
        (&["eval", "empty"], BAD_FILE, "empty: has no config.json"),
        (&["report", "small.toml"], BAD_FILE, "out/small: holds no run"),
        (&["report", "empty"], BAD_FILE, "empty: holds no run"),
        (&["report", "nowhere"], BAD_FILE, "nowhere: no such"),
    ];
    for (args, code, part) in cases {
        check(&minke(at, args), *code, part, &args.join(" "));
    }
    assert!(!at.join("out").exists(), "nothing is left of what was refused");
}

#[test]
fn wrong_environment_and_full_disks() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    thinker(at);
    for value in ["many", "0", "-1", "1e3"] {
        let done = Done::of(command(at, &["run", "thinker", "q"]).env("MINKE_THREADS", value).output().unwrap());
        check(&done, USAGE, &format!("MINKE_THREADS={value}: must be a number"), value);
    }
    for (endpoint, code, part) in [
        ("huggingface.co", NETWORK, "huggingface.co: is not the address of a server; write it as https://"),
        ("http://127.0.0.1:1", NETWORK, "what has arrived is kept: run the same command again"),
    ] {
        let done = Done::of(command(at, &["pull", "a/b"]).env("HF_ENDPOINT", endpoint).output().unwrap());
        check(&done, code, part, endpoint);
    }
    // A user that may read everything, such as root, is not refused.
    let locked = at.join("thinker/model.safetensors");
    fs::set_permissions(&locked, fs::Permissions::from_mode(0o000)).unwrap();
    if fs::File::open(&locked).is_err() {
        check(&minke(at, &["show", "thinker"]), BAD_FILE, "cannot be read: Permission denied", "no permission");
    }
    fs::set_permissions(&locked, fs::Permissions::from_mode(0o644)).unwrap();
    // Lines of another system are no mistake.
    assert_eq!(minke_with_input(at, &["run", "thinker"], "q\r\n").out, minke(at, &["run", "thinker", "q"]).out);
    if Path::new("/dev/full").exists() {
        for args in [&["show", "thinker"][..], &["run", "thinker", "q"]] {
            let full = fs::File::options().write(true).open("/dev/full").unwrap();
            let child = command(at, args).stdout(Stdio::from(full)).stderr(Stdio::piped()).spawn().unwrap();
            let done = Done::of(child.wait_with_output().unwrap());
            check(&done, FAILED, "cannot write to standard output: No space left", "/dev/full");
        }
    }
}

#[test]
fn damaged_models() {
    type Damage = fn(&Path);
    /// What is wrong, how it is done, exit code, part of the message.
    type Case<'a> = (&'a str, Box<dyn Fn(&Path)>, i32, &'a str);
    const WEIGHTS: &str = "model.safetensors";
    fn write(name: &'static str, text: &str) -> impl Fn(&Path) + use<> {
        let text = text.to_owned();
        move |model| fs::write(model.join(name), &text).unwrap()
    }
    fn replace(name: &'static str, from: &'static str, to: &'static str) -> impl Fn(&Path) {
        move |model| {
            let text = fs::read_to_string(model.join(name)).unwrap();
            assert!(text.contains(from), "{text}");
            fs::write(model.join(name), text.replacen(from, to, 1)).unwrap();
        }
    }
    /// Changes bytes of the header without changing its length.
    fn in_header(from: &'static str, to: &'static str) -> impl Fn(&Path) {
        assert_eq!(from.len(), to.len());
        move |model| {
            let path = model.join("model.safetensors");
            let mut bytes = fs::read(&path).unwrap();
            let at = bytes.windows(from.len()).position(|window| window == from.as_bytes()).unwrap();
            bytes[at..at + to.len()].copy_from_slice(to.as_bytes());
            fs::write(&path, bytes).unwrap();
        }
    }
    fn cut(name: &'static str, bytes: u64) -> impl Fn(&Path) {
        move |model| fs::File::options().write(true).open(model.join(name)).unwrap().set_len(bytes).unwrap()
    }
    fn remove(name: &'static str) -> impl Fn(&Path) {
        move |model| fs::remove_file(model.join(name)).unwrap()
    }
    /// Puts an index in the place of the one file of weights, which would come first.
    fn index(text: &str) -> impl Fn(&Path) + use<> {
        let write = write("model.safetensors.index.json", text);
        move |model| {
            fs::remove_file(model.join(WEIGHTS)).unwrap();
            write(model);
        }
    }
    let shard = |file: &str| index(&format!(r#"{{"weight_map": {{"x": "{file}"}}}}"#));
    // All of Llama 70B, in a file without a block on the disk.
    let huge: Damage = |model| {
        let config = minke_spec::presets::distilled("DeepSeek-R1-Distill-Llama-70B").unwrap();
        fs::write(model.join("config.json"), config.to_json()).unwrap();
        let (mut header, mut end) = (serde_json::Map::new(), 0);
        for tensor in minke_spec::params::published_tensors(&config) {
            let start = end;
            end += 2 * tensor.shape.iter().product::<usize>();
            let entry = serde_json::json!({ "dtype": "BF16", "shape": tensor.shape, "data_offsets": [start, end] });
            header.insert(tensor.name, entry);
        }
        let header = serde_json::to_vec(&header).unwrap();
        let bytes = [&(header.len() as u64).to_le_bytes()[..], &header].concat();
        fs::write(model.join("model.safetensors"), &bytes).unwrap();
        let file = fs::File::options().write(true).open(model.join("model.safetensors")).unwrap();
        file.set_len((bytes.len() + end) as u64).unwrap();
    };
    let cases: Vec<Case> = vec![
        ("config.json is no JSON", Box::new(write("config.json", "{")), BAD_FILE, "config.json: not valid JSON"),
        ("config.json is a list", Box::new(write("config.json", "[]")), BAD_FILE, "the top level is not an object"),
        (
            "unknown family",
            Box::new(replace("config.json", "\"llama\"", "\"gpt2\"")),
            BAD_FILE,
            "`model_type` = \"gpt2\" is not supported",
        ),
        (
            "a field is missing",
            Box::new(replace("config.json", "\"hidden_size\"", "\"hiden_size\"")),
            BAD_FILE,
            "`hidden_size` is missing",
        ),
        ("larger than the machine", Box::new(huge), DOES_NOT_FIT, "GB of memory (weights 139.0 GB, 256 tokens of"),
        ("no weights", Box::new(remove(WEIGHTS)), BAD_FILE, "has no weights; put model.safetensors"),
        ("empty weights", Box::new(cut(WEIGHTS, 0)), BAD_FILE, "model.safetensors: is not a safetensors file"),
        ("a web page", Box::new(write(WEIGHTS, "<!DOCTYPE html>\n<html>Not found</html>")), BAD_FILE, "is a web page"),
        (
            "a pointer",
            Box::new(write(WEIGHTS, "version https://git-lfs.github.com/spec/v1\noid sha256:0")),
            BAD_FILE,
            "is a Git LFS pointer",
        ),
        ("another format", Box::new(write(WEIGHTS, "GGUF\x03\0\0\0\x10\0\0\0\0\0\0\0")), BAD_FILE, "is GGUF"),
        ("a pickle", Box::new(write(WEIGHTS, "PK\x03\x04aaaaaaaaaaaaa")), BAD_FILE, "is a PyTorch file"),
        ("cut in the data", Box::new(cut(WEIGHTS, 100_000)), BAD_FILE, "was cut short; download it again"),
        ("cut in the header", Box::new(cut(WEIGHTS, 100)), BAD_FILE, "was cut short; download it again"),
        ("a broken header", Box::new(in_header("\"dtype\"", "\"dtype:")), BAD_FILE, "its header is broken"),
        ("a strange entry", Box::new(in_header("\"dtype\"", "\"type \"")), BAD_FILE, "its header is broken"),
        (
            "a tensor is missing",
            Box::new(in_header("lm_head.weight", "lm_hand.weight")),
            BAD_FILE,
            "tensor lm_head.weight: is missing",
        ),
        ("another shape", Box::new(in_header("[263,264]", "[264,263]")), BAD_FILE, "the configuration says [263, 264]"),
        (
            "another number format",
            Box::new(in_header("\"F32\"", "\"I32\"")),
            BAD_FILE,
            "is I32, which cannot be loaded",
        ),
        (
            "a missing shard",
            Box::new(shard("model-00001-of-00002.safetensors")),
            BAD_FILE,
            "model-00001-of-00002.safetensors: is missing",
        ),
        ("a broken index", Box::new(index("[1]")), BAD_FILE, "is not an index of weight files"),
        (
            "an index that leads out",
            Box::new(shard("../model.safetensors")),
            BAD_FILE,
            "which is not a file of this folder",
        ),
        ("no tokenizer", Box::new(remove("tokenizer.json")), BAD_FILE, "tokenizer.json: is missing"),
        ("a broken tokenizer", Box::new(cut("tokenizer.json", 500)), BAD_FILE, "tokenizer.json: is not JSON"),
        (
            "a tokenizer of another kind",
            Box::new(replace("tokenizer.json", "\"BPE\"", "\"Unigram\"")),
            BAD_FILE,
            "only BPE is supported",
        ),
        ("a broken template", Box::new(write("chat_template.jinja", "{% if %}")), BAD_FILE, "chat template"),
        (
            "broken settings",
            Box::new(write("generation_config.json", "{")),
            BAD_FILE,
            "generation_config.json: is not a JSON object",
        ),
        (
            "impossible settings",
            Box::new(write("generation_config.json", r#"{"temperature": -2}"#)),
            BAD_FILE,
            "generation_config.json: temperature = -2",
        ),
    ];
    let folder = tempfile::tempdir().unwrap();
    let sound = thinker(folder.path());
    for (what, damage, code, part) in &cases {
        let model = folder.path().join("damaged");
        fs::create_dir(&model).unwrap();
        for file in fs::read_dir(&sound).unwrap() {
            let file = file.unwrap();
            fs::copy(file.path(), model.join(file.file_name())).unwrap();
        }
        damage(&model);
        check(&minke(folder.path(), &["run", "damaged", "q"]), *code, part, what);
        fs::remove_dir_all(model).unwrap();
    }
}

#[test]
fn a_tokenizer_of_another_model() {
    let folder = tempfile::tempdir().unwrap();
    let model = thinker(folder.path());
    fs::copy(testdata("tokenizer/tokenizer.json"), model.join("tokenizer.json")).unwrap();
    let done = minke(folder.path(), &["run", "thinker", "q"]);
    check(&done, BAD_FILE, "the model knows 263; do the two belong together?", "another tokenizer");
}

#[test]
fn wrong_runs() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let cases = [
        ("seed = 5", "seed = ", "line 2: "),
        ("seed = 5", "seed = 5\nsed = 6", "unknown field `sed`"),
        ("hidden_size = 32", "hidden_sise = 32", "hidden_size"),
        ("num_attention_heads = 2", "num_attention_heads = 3", "head_dim"),
        ("\"llama\"", "\"lama\"", "model_type"),
        ("family = \"countdown\"", "family = \"chess\"", "chess"),
        ("counts = [2]", "counts = [9]", "counts"),
        ("kind = \"pretrain\"", "kind = \"pretrian\"", "pretrian"),
        ("steps = 12", "stops = 12", "stops"),
        ("steps = 12", "steps = 0", "steps"),
        ("steps = 12", "steps = -1", "integer `-1`"),
        ("from = \"base\"", "from = \"bose\"", "no earlier stage is called \"bose\""),
        ("name = \"tuned\"", "name = \"base\"", "two stages"),
        ("name = \"tuned\"", "name = \"../tuned\"", "../tuned"),
        ("count = 20", "count = 20, task = \"chess\"", "chess"),
        ("vocab_size = 300", "vocab_size = 3", "vocab"),
    ];
    for (from, to, part) in cases {
        assert!(RUN.contains(from));
        fs::write(at.join("run.toml"), RUN.replacen(from, to, 1)).unwrap();
        check(&minke(at, &["train", "run.toml"]), BAD_FILE, part, to);
    }
    assert!(!at.join("out/small/stages").exists(), "nothing is left of what was refused");
    fs::write(at.join("run.toml"), RUN).unwrap();
    let done = minke(at, &["train", "run.toml", "--set", "stage.base.steps=2"]);
    assert_eq!(done.code, 0, "{done:?}");
    check(
        &minke(at, &["train", "run.toml"]),
        BAD_FILE,
        "another configuration; choose another folder",
        "a changed run",
    );
}

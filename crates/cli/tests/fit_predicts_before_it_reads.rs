//! `minke fit` against numbers of the papers and of processes that ran: what a model takes, from headers alone.
#![allow(clippy::unwrap_used)]

mod common;
#[path = "common/server.rs"]
#[allow(dead_code)]
mod server;

use common::{Done, command, minke, r1_without_its_bytes, thinker};
use serde_json::Value;
use server::{Request, Server, files_of};
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

fn json(done: &Done) -> Value {
    serde_json::from_str(&done.out).unwrap_or_else(|error| panic!("{error}: {done:?}"))
}

#[test]
fn r1_does_not_fit_and_its_numbers_are_exact() {
    let folder = tempfile::tempdir().unwrap();
    r1_without_its_bytes(folder.path());
    let start = Instant::now();
    let done = minke(folder.path(), &["fit", ".", "--memory", "24G", "--json"]);
    println!("{:.2} s", start.elapsed().as_secs_f64());
    // A second where the machine is quiet; 688 GB cannot be read in ten.
    assert!(start.elapsed() < Duration::from_secs(10));
    assert_eq!(done.code, 3, "{done:?}");
    assert_eq!(done.err.lines().count(), 1);
    for part in ["needs 6", "and 24.0 GB are there", "take a quantization whose weights have at most 2"] {
        assert!(done.err.contains(part), "{part:?} is not in {}", done.err);
    }
    let said = json(&done);
    assert_eq!((said["fits"].as_bool(), &said["longest_context_tokens"]), (Some(false), &Value::Null));
    assert_eq!(said["parameters"].as_u64(), Some(671_026_419_200));
    assert_eq!((said["files"].as_u64(), said["tensors"].as_u64()), (Some(163), Some(91_991)));
    assert_eq!(said["tensor_bytes"].as_u64(), Some(688_574_839_360));
    assert_eq!((said["kv_bytes_per_token"].as_u64(), said["cache_dtype"].as_str()), (Some(70_272), Some("BF16")));
    let parts = said["parts"].as_object().unwrap();
    let part = |name: &str| parts[name].as_u64().unwrap();
    assert_eq!(parts.values().map(|bytes| bytes.as_u64().unwrap()).sum::<u64>(), 688_574_839_360);
    // 58 layers of 256 experts of three matrices of 7168 x 2048 bytes, each with a scale per 128 x 128.
    assert_eq!(part("experts"), 58 * 256 * 3 * (7168 * 2048 + 4 * 56 * 16));
    assert_eq!(part("shared_experts"), 58 * 3 * (7168 * 2048 + 4 * 56 * 16));
    assert_eq!(part("dense_feed_forward"), 3 * 3 * (7168 * 18_432 + 4 * 56 * 144));
    assert_eq!((part("embedding"), part("head")), (2 * 129_280 * 7168, 2 * 129_280 * 7168));
    // A token visits 8 of 256 experts, and reads one row of the embedding.
    let active = said["speed"]["active_bytes_per_token"].as_u64().unwrap();
    let others = ["attention", "dense_feed_forward", "shared_experts", "gate_and_norms", "head"];
    assert_eq!(active, part("experts") / 32 + others.map(part).iter().sum::<u64>());
    // With room for it, all of its context fits.
    let said = json(&minke(folder.path(), &["fit", ".", "--memory", "1TB", "--json"]));
    assert_eq!((said["fits"].as_bool(), said["context_tokens"].as_u64()), (Some(true), Some(163_840)));
}

#[test]
fn known_models_fit_by_the_table_alone() {
    let folder = tempfile::tempdir().unwrap();
    let fit = |name: &str| {
        let done = minke(folder.path(), &["fit", name, "--memory", "24G", "--json"]);
        assert!(done.err.contains("not downloaded; its sizes are those of the table of known models"), "{done:?}");
        (done.code, json(&done))
    };
    for name in ["r1", "deepseek-ai/DeepSeek-V3.1", "https://huggingface.co/deepseek-ai/DeepSeek-R1-0528"] {
        let (code, said) = fit(name);
        assert_eq!(code, 3, "{name}");
        // As from the headers of the files.
        assert_eq!(said["tensor_bytes"].as_u64(), Some(688_574_839_360), "{name}");
        assert_eq!(said["tensors"].as_u64(), Some(91_991), "{name}");
    }
    // Sizes of the published files: two bytes for each of the parameters that their model cards say.
    for (name, parameters) in [("r1-distill-qwen-1.5b", 1_777_088_000_u64), ("r1-distill-llama-8b", 8_030_261_248)] {
        let (code, said) = fit(name);
        assert_eq!((code, said["fits"].as_bool()), (0, Some(true)), "{name}");
        assert_eq!(said["tensor_bytes"].as_u64(), Some(2 * parameters), "{name}");
        assert_eq!(said["path"].as_str(), Some(&*format!("deepseek-ai/{}", known(name))));
    }
    // The table has no quantizations, and there is no server.
    let done = minke(folder.path(), &["fit", "r1:Q2_K"]);
    assert_eq!((done.code, done.out.as_str()), (5, ""), "{done:?}");
    let mut offline = command(folder.path(), &["fit", "r1:Q2_K"]);
    let done = Done::of(offline.env("HF_HUB_OFFLINE", "1").output().unwrap());
    assert!(done.code == 4 && done.err.contains("not downloaded"), "{done:?}");
}

fn known(short: &str) -> &'static str {
    minke_hub::SHORT_NAMES.iter().find(|(name, _)| *name == short).unwrap().1
}

#[test]
fn headers_of_a_server_are_enough() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let model = thinker(at);
    let done = minke(at, &["convert", "thinker", "t.gguf"]);
    assert_eq!(done.code, 0, "{done:?}");
    let files = files_of(&model);
    let weights = files["model.safetensors"].len();
    let gguf = std::fs::read(at.join("t.gguf")).unwrap();
    for (name, files, whole) in
        [("a/b", files, "thinker"), ("a/b:F32", [("t-F32.gguf".to_owned(), gguf)].into(), "t.gguf")]
    {
        let server = Server::start(files);
        let mut fit = command(at, &["fit", name, "--json", "--memory", "1G"]);
        let done = Done::of(fit.env("HF_ENDPOINT", server.endpoint()).output().unwrap());
        assert_eq!(done.code, 0, "{done:?}");
        assert!(done.err.contains("not downloaded; its sizes are those of the headers that"), "{done:?}");
        let (said, own) = (json(&done), json(&minke(at, &["fit", whole, "--json", "--memory", "1G"])));
        for key in ["parameters", "tensors", "tensor_bytes", "parts", "kv_bytes_per_token", "context_tokens", "need"] {
            assert_eq!(said[key], own[key], "{name}: {key}");
        }
        assert_eq!(said["path"], name);
        let asked = server.requests();
        let is_weight = |request: &&Request| request.path.ends_with(".safetensors") || request.path.ends_with(".gguf");
        let bytes: usize = asked.iter().filter(is_weight).map(|request| request.end.unwrap() - request.first).sum();
        assert!(bytes < weights, "{bytes} bytes of {weights} were asked for");
    }
    assert!(!at.join("no-cache").exists(), "nothing is kept");
    let server = Server::start(files_of(&model));
    let mut fit = command(at, &["fit", "a/none"]);
    let done = Done::of(fit.env("HF_ENDPOINT", server.endpoint()).output().unwrap());
    assert_eq!((done.code, done.out.as_str()), (5, ""), "{done:?}");
    assert!(done.err.contains("a/none at main: the server has no such thing"), "{done:?}");
}

#[test]
fn context_is_what_memory_leaves() {
    let folder = tempfile::tempdir().unwrap();
    thinker(folder.path());
    let fit = |args: &[&str]| minke(folder.path(), &[&["fit", "thinker"], args].concat());
    let all = json(&fit(&["--json"]));
    assert_eq!((all["context_tokens"].as_u64(), all["fits"].as_bool()), (Some(256), Some(true)));
    let need = |context: &str| json(&fit(&["--context", context, "--json"]))["need"]["total"].as_u64().unwrap();
    let (short, whole) = (need("64"), need("256"));
    assert!(short < whole);
    let done = fit(&["--context", "256", "--memory", &(whole - 1).to_string()]);
    assert_eq!(done.code, 3);
    assert!(done.err.contains("of memory") && done.out.contains("fits               no"), "{done:?}");
    assert_eq!(fit(&["--context", "64", "--memory", &short.to_string()]).code, 0);
    for wrong in [["--context", "257"], ["--context", "0"], ["--memory", "much"]] {
        let done = fit(&wrong);
        assert_eq!((done.code, done.out.as_str()), (2, ""), "{done:?}");
    }
}

#[test]
fn memory_and_speed_are_those_of_a_process_that_ran() {
    let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/first-light");
    if !Path::new("/proc/self/status").exists() {
        return println!("skipped: this system does not say how much memory a process took");
    }
    let said = json(&minke(&model, &["fit", ".", "--json"]));
    // The peak is read while the process runs.
    let bench = ["bench", ".", "--prompt", "400", "--generate", "100", "--json"];
    let mut child = command(&model, &bench).stdout(Stdio::piped()).spawn().unwrap();
    let (status, mut peak) = (format!("/proc/{}/status", child.id()), 0);
    while child.try_wait().unwrap().is_none() {
        let text = std::fs::read_to_string(&status).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kilobytes = line.and_then(|line| line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok());
        peak = peak.max(1024 * kilobytes.unwrap_or(0));
        std::thread::sleep(Duration::from_millis(2));
    }
    let done = Done::of(child.wait_with_output().unwrap());
    let speed = done.json()[0][0]["gen_tps"].as_f64().unwrap();
    let (need, expected) =
        (said["need"]["total"].as_u64().unwrap(), said["speed"]["tokens_per_second"].as_f64().unwrap());
    println!("memory: {need} expected, {peak} taken; tokens per second: {expected:.0} expected, {speed:.0} measured");
    // Of so small a model, the program itself is half. The bounds are wide for machines that other work shares.
    let ratio = need as f64 / peak as f64;
    assert!((0.8..1.3).contains(&ratio), "{need} bytes were expected, {peak} were taken");
    assert!(expected > 0.1 * speed && expected < 10.0 * speed, "{expected} expected, {speed} measured");
}

#[test]
fn the_doctor_knows_the_machine() {
    let folder = tempfile::tempdir().unwrap();
    let start = Instant::now();
    let said = minke(folder.path(), &["doctor", "--json"]).json().remove(0);
    // Three seconds are the limit; a machine that is busy takes longer than a quiet one.
    println!("{:.2} s", start.elapsed().as_secs_f64());
    assert!(start.elapsed() < Duration::from_secs(15));
    let paths: Vec<&str> = minke_tensor::Isa::available().iter().map(|isa| isa.name()).collect();
    assert_eq!(said["cpu"]["path"], paths[0]);
    assert_eq!(said["cpu"]["cores"], std::thread::available_parallelism().unwrap().get());
    let memory = |name: &str| said["memory"][name].as_u64().unwrap();
    assert!(memory("total_bytes") >= memory("available_bytes") && memory("total_bytes") > 1 << 28, "{said}");
    let rate = said["memory"]["read_bytes_per_second"].as_f64().unwrap();
    assert!((1e8..1e13).contains(&rate), "{rate} bytes per second of memory");
    let disk = &said["disk"];
    assert_eq!(disk["read_bytes_per_second"].is_null(), disk["reason"].is_string(), "{disk}");
    assert_eq!(said["gpu"]["used"], false);
    assert!(std::fs::read_dir(folder.path()).unwrap().next().is_none(), "nothing is left behind");
}

#[test]
fn the_planner_reads_what_the_doctor_measured() {
    let folder = tempfile::tempdir().unwrap();
    thinker(folder.path());
    let done = minke(folder.path(), &["doctor", "--part", "here"]);
    assert_eq!(done.code, 0, "{done:?}");
    std::fs::write(folder.path().join("here.toml"), &done.out).unwrap();
    assert_eq!(minke(folder.path(), &["convert", "thinker", "m.gguf"]).code, 0);
    let plan = |args: &[&str]| {
        let here = ["--part", "here", "--hardware", "here.toml", "--json"];
        json(&minke(folder.path(), &[&["plan"], args, &here].concat()))
    };
    let fact = |said: &Value, name: &str| {
        let facts = said["facts"].as_array().unwrap();
        facts.iter().find(|fact| fact["name"] == name).unwrap()["value"].as_f64().unwrap()
    };
    let said = plan(&["fit", "m.gguf", "--context", "64"]);
    assert!(fact(&said, "answer behind it, tokens/s") > 0.0 && fact(&said, "prompt, tokens/s") > 0.0, "{said}");
    // The memory is that of minke fit for as much as the machine has.
    let fit = json(&minke(folder.path(), &["fit", "m.gguf", "--context", "64", "--json"]));
    assert_eq!(fact(&said, "memory needed"), fit["need"]["total"].as_f64().unwrap());
    let rests = said["assumptions"].as_array().unwrap();
    assert!(
        rests.iter().all(|one| one["source"].as_str().unwrap().starts_with("measured by minke doctor on ")),
        "{said}"
    );
    std::fs::write(
        folder.path().join("s.json"),
        r#"{"model_type": "llama", "architectures": ["LlamaForCausalLM"], "num_attention_heads": 2, "num_key_value_heads": 1,
            "head_dim": 32, "hidden_act": "silu", "rms_norm_eps": 1e-6, "hidden_size": 64, "num_hidden_layers": 2,
            "intermediate_size": 128, "vocab_size": 256, "rope_theta": 10000.0, "max_position_embeddings": 64,
            "tie_word_embeddings": false, "bos_token_id": 0, "eos_token_id": 1}"#,
    )
    .unwrap();
    let step = |precision: &str, more: &[&str]| {
        let run = ["train", "s.json", "--count", "1", "--batch", "8", "--sequence", "64", "--precision", precision];
        fact(&plan(&[&run, more].concat()), "seconds of a step")
    };
    assert!(step("f32", &[]) > 0.0 && step("bf16", &[]) > 0.0);
    assert!(step("f32", &["--set", "here.f32_flops=1e6"]) > 100.0 * step("f32", &[]));
}

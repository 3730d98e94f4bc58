//! Stages that train an adapter beside a published model: the curve of PEFT and torch.optim on the same data, checkpoints that hold
//! the adapter alone and are resumed bit for bit, and what a later stage starts from.
#![allow(clippy::unwrap_used)]

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use minke_model::{Batch, LossWeights, Targets};
use minke_spec::{Format, ParamRole};
use minke_tensor::{Device, Pass, backward};
use minke_text::{ChatTemplate, Tokenizer};
use minke_train::optimizer::{LearningRates, OptimizerConfig};
use minke_train::trainer::Trainer;
use minke_train::{Base, Bases, Observer, RunConfig, Silent, StepView, execute_with};
use minke_weights::{ADAPTER_FILE, Archive, TensorWriter, load_adapter};
use safetensors::SafeTensors;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn device() -> Device {
    Device::open("cpu", 2).unwrap()
}

/// A golden of testdata/lora, which testdata/make/lora.py made.
struct Golden(Vec<u8>);

impl Golden {
    fn open(name: &str) -> Self {
        Self(std::fs::read(root().join("testdata/lora").join(name).join("golden.safetensors")).unwrap())
    }

    fn data(&self, name: &str) -> Vec<u8> {
        SafeTensors::deserialize(&self.0).unwrap().tensor(name).unwrap().data().to_vec()
    }

    fn floats(&self, name: &str) -> Vec<f32> {
        self.data(name).as_chunks().0.iter().map(|&b| f32::from_le_bytes(b)).collect()
    }

    fn ids(&self, name: &str) -> Vec<u32> {
        self.data(name).as_chunks().0.iter().map(|&b| i64::from_le_bytes(b) as u32).collect()
    }
}

#[test]
fn the_loss_falls_as_with_peft_and_torch() {
    let device = device();
    for (name, base) in [("llama", "tiny-llama"), ("qwen2", "tiny-qwen2"), ("v3", "tiny-v3")] {
        let golden = Golden::open(name);
        let mut model = Archive::open(&root().join("testdata").join(base)).unwrap().load_interleaved(&device).unwrap();
        let (_, lora) = load_adapter(&device, &root().join("testdata/lora").join(name), model.config()).unwrap();
        model.attach(&lora).unwrap();
        let rates = LearningRates { muon: None, adamw: 1e-3 };
        let mut trainer = Trainer::new(&device, model, rates, OptimizerConfig::default(), false);

        let ids: Vec<Vec<u32>> = (0..3).map(|i| golden.ids(&format!("ids.{i}"))).collect();
        let counted: Vec<Vec<u32>> = (0..3).map(|i| golden.ids(&format!("counted.{i}"))).collect();
        let counts: Vec<f32> = (ids.iter().zip(&counted))
            .flat_map(|(ids, counted)| {
                let range = counted[0] as usize..counted[1] as usize;
                (0..ids.len()).map(move |row| if range.contains(&(row + 1)) { 1.0 } else { 0.0 })
            })
            .collect();
        let batch = Batch::packed(&device, &ids.iter().map(Vec::as_slice).collect::<Vec<_>>());
        let targets = Targets::next_tokens(&device, &batch, &counts, Targets::count(&batch, &counts));
        let curve = golden.floats("curve");
        assert!(curve.len() == 51 && curve[50] < 0.7 * curve[0], "{name}: nothing was learned: {curve:?}");
        for (step, want) in curve.iter().enumerate() {
            let factors = LossWeights { mtp: 0.0, balance: 0.0 };
            let (losses, _) = trainer.model.loss(Pass::recording(&device), &batch, &targets, factors).unwrap();
            let got = losses.next;
            assert!((got / want - 1.0).abs() < 1e-3, "{name}: loss {got} before step {step}, PEFT {want}");
            backward(&device, &losses.total, &mut trainer.gradients).unwrap();
            trainer.apply(f64::from(losses.next), rates).unwrap();
        }
    }
}

const CONVERSATIONS: &str = r#"{"messages":[{"role":"user","content":"make 24 from 3 8 1"},{"role":"assistant","content":"3*8*1"}]}
{"messages":[{"role":"system","content":"Be short."},{"role":"user","content":"compute 7*8-5"},{"role":"assistant","content":"51"},{"role":"user","content":"and 7*8?"},{"role":"assistant","content":"56"}]}
{"messages":[{"role":"user","content":"compute 1+1"},{"role":"assistant","content":"2"}]}
"#;

/// The model of the repository, as if it had been published.
fn base() -> Base {
    let path = root().join("models/first-light");
    Base {
        name: "first-light".into(),
        archive: Archive::open(&path).unwrap(),
        adapter: None,
        tokenizer: Tokenizer::load(&path).unwrap(),
        template: ChatTemplate::load(&path).unwrap(),
    }
}

/// The same with matrices in codes.
fn quantized(folder: &Path) -> Base {
    let (mut base, path) = (base(), folder.join("q8_0.gguf"));
    let mut planned = base.archive.plan_gguf().unwrap();
    for tensor in planned.iter_mut().filter(|tensor| tensor.is_matrix() && tensor.role != Some(ParamRole::Router)) {
        if tensor.width().is_multiple_of(32) {
            tensor.format = Format::Q8_0;
        }
    }
    let pairs = base.archive.gguf_pairs("quantized", &planned).unwrap();
    let (device, progress) = (&device(), &|_| true);
    TensorWriter { device, archive: &base.archive, planned: &planned, importance: None, adapter: None, progress }
        .write_gguf(&pairs, &path)
        .unwrap();
    base.archive = Archive::open(&path).unwrap();
    assert!(base.archive.is_quantized());
    base
}

fn bases(base: Base) -> Bases {
    let mut bases = Bases::default();
    bases.add("published", base).unwrap();
    bases
}

const LORA: &str = r#"lora = { rank = 4, alpha = 8, target_modules = ["q_b_proj", "kv_b_proj", "o_proj"] }"#;

fn sft(name: &str, from: &str, file: &Path, lora: &str) -> String {
    let path = file.display();
    format!(
        "[[stage]]\nkind = \"sft\"\nname = \"{name}\"\nfrom = \"{from}\"\ndata = [{{ kind = \"file\", path = \"{path}\" }}]\n\
         epochs = 3\nlearning_rate = {{ adamw = 1e-2 }}\n{lora}\n\
         training = {{ batch_tokens = 60, checkpoint_every = 2, recompute = true }}\n"
    )
}

fn run(stages: &str) -> minke_train::Result<RunConfig> {
    RunConfig::from_toml(&format!("name = \"fine\"\nseed = 5\n{stages}"))
}

/// Stops after so many steps.
struct Stop(u64);

impl Observer for Stop {
    fn step(&mut self, view: &StepView<'_>) -> ControlFlow<()> {
        if view.step == self.0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }
}

fn execute(config: &RunConfig, out: &Path, observer: &mut dyn Observer) -> minke_train::Result<()> {
    execute_with(config, &bases(base()), out, &device(), None, observer)
}

/// The conversations in a file.
fn conversations(folder: &Path) -> PathBuf {
    let path = folder.join("conversations.jsonl");
    std::fs::write(&path, CONVERSATIONS).unwrap();
    path
}

#[test]
fn a_run_that_was_stopped_ends_with_the_same_adapter() {
    let folder = tempfile::tempdir().unwrap();
    let file = conversations(folder.path());
    let config = run(&(sft("one", "published", &file, LORA) + &sft("two", "one", &file, LORA))).unwrap();
    let (whole, cut) = (folder.path().join("whole"), folder.path().join("cut"));
    execute(&config, &whole, &mut Silent).unwrap();
    for stop in [3, 5] {
        execute(&config, &cut, &mut Stop(stop)).unwrap_err();
    }
    execute(&config, &cut, &mut Silent).unwrap();
    let read = |out: &Path, stage: &str, file: &str| std::fs::read(out.join("stages").join(stage).join(file)).unwrap();
    for stage in ["one", "two"] {
        for file in ["adapter/adapter_model.safetensors", "metrics.jsonl"] {
            assert!(read(&whole, stage, file) == read(&cut, stage, file), "{stage}/{file}");
        }
        assert!(!whole.join("stages").join(stage).join("model").exists());
    }
    // The second stage goes on with the adapter of the first, and changes it.
    let adapter = "adapter/adapter_model.safetensors";
    assert!(read(&whole, "one", adapter) != read(&whole, "two", adapter));
    let losses: Vec<f64> = String::from_utf8(read(&whole, "two", "metrics.jsonl"))
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["loss"].as_f64().unwrap())
        .collect();
    let first: serde_json::Value =
        serde_json::from_str(String::from_utf8(read(&whole, "one", "metrics.jsonl")).unwrap().lines().next().unwrap())
            .unwrap();
    assert!(losses[0] < 0.8 * first["loss"].as_f64().unwrap(), "{losses:?} after {first}");

    // A checkpoint holds the adapter and its two moments, nothing of the base.
    let checkpoints = whole.join("stages/one/checkpoints");
    let newest = std::fs::read_dir(checkpoints).unwrap().map(|entry| entry.unwrap().path()).max().unwrap();
    let names = |file: &str| {
        let bytes = std::fs::read(newest.join(file)).unwrap();
        let tensors = SafeTensors::deserialize(&bytes).unwrap();
        let mut names: Vec<String> = tensors.names().into_iter().map(str::to_owned).collect();
        names.sort();
        names
    };
    let bytes = read(&whole, "one", adapter);
    let saved = SafeTensors::deserialize(&bytes).unwrap();
    let mut expected: Vec<String> =
        saved.names().into_iter().map(|name| name.strip_prefix("base_model.model.").unwrap().to_owned()).collect();
    expected.sort();
    assert_eq!(names("weights.safetensors"), expected);
    let mut moments: Vec<String> =
        expected.iter().flat_map(|name| [format!("{name}.first"), format!("{name}.second")]).collect();
    moments.sort();
    assert_eq!(names("optimizer.safetensors"), moments);
}

#[test]
fn in_bf16_beside_weights_of_codes_too() {
    let folder = tempfile::tempdir().unwrap();
    let (file, bases) = (conversations(folder.path()), bases(quantized(folder.path())));
    let stage = sft("one", "published", &file, LORA);
    let in_bf16 = format!("precision = \"bf16\"\n{stage}");
    let train = |out: &str, stages: &str, observer: &mut dyn Observer| {
        execute_with(&run(stages).unwrap(), &bases, &folder.path().join(out), &device(), None, observer)
    };
    let losses = |out: &str| -> Vec<f64> {
        let text = std::fs::read_to_string(folder.path().join(out).join("stages/one/metrics.jsonl")).unwrap();
        let loss = |line: &str| serde_json::from_str::<serde_json::Value>(line).unwrap()["loss"].as_f64().unwrap();
        text.lines().map(loss).collect()
    };
    train("whole", &in_bf16, &mut Silent).unwrap();
    for stop in [3, 5] {
        train("cut", &in_bf16, &mut Stop(stop)).unwrap_err();
    }
    train("cut", &in_bf16, &mut Silent).unwrap();
    for file in ["adapter/adapter_model.safetensors", "metrics.jsonl"] {
        let [whole, cut] =
            ["whole", "cut"].map(|out| std::fs::read(folder.path().join(out).join("stages/one").join(file)));
        assert!(whole.unwrap() == cut.unwrap(), "{file}");
    }
    // The curve is that of f32 but for rounding, and rounding is there; so is one with layers that are not computed again.
    train("f32", &stage, &mut Silent).unwrap();
    train("kept", &in_bf16.replace("recompute = true", "recompute = false"), &mut Silent).unwrap();
    let rounded = losses("whole");
    assert!(rounded.last() < Some(&(0.8 * rounded[0])) && rounded != losses("f32"), "{rounded:?}");
    for out in ["f32", "kept"] {
        for (rounded, other) in rounded.iter().zip(&losses(out)) {
            assert!((rounded / other - 1.0).abs() < 0.02, "{rounded} in bf16, {other} in {out}");
        }
    }
}

#[test]
fn all_weights_of_a_published_model_can_be_trained() {
    let folder = tempfile::tempdir().unwrap();
    let file = conversations(folder.path());
    let config = run(&sft("full", "published", &file, "")).unwrap();
    execute(&config, folder.path(), &mut Silent).unwrap();
    let made = folder.path().join("stages/full/model");
    let (before, after) = (base(), Archive::open(&made).unwrap());
    assert_eq!(before.archive.config, after.config);
    assert_eq!(ChatTemplate::load(&made).unwrap().source(), before.template.source());
    assert_eq!(Tokenizer::load(&made).unwrap().encode("make 24"), before.tokenizer.encode("make 24"));
    let weights = |archive: &Archive| {
        let model = archive.load_dense(&device()).unwrap();
        let params = model.params();
        params.iter().map(|param| (param.name().to_owned(), param.value().read())).collect::<Vec<_>>()
    };
    for ((name, before), (_, after)) in weights(&before.archive).into_iter().zip(weights(&after)) {
        assert!(before != after || name.ends_with("e_score_correction_bias"), "{name} was not trained");
    }
}

#[test]
fn rollouts_of_a_published_model_are_kept_and_learned_from() {
    let folder = tempfile::tempdir().unwrap();
    let reject = "[[task]]\nname = \"sums\"\nfamily = \"arithmetic\"\n[[stage]]\nkind = \"reject\"\nname = \"kept\"\nfrom = \"published\"\n\
                  questions = 24\nsamples = 4\nmax_tokens = 60\nprompt = \"open\"\n\
                  engine = { max_sequences = 96, cache_tokens = 16384 }\n";
    let grpo = format!(
        "[[stage]]\nkind = \"grpo\"\nname = \"zero\"\nfrom = \"published\"\n{LORA}\nsteps = 2\nquestions_per_step = 4\ngroup_size = 4\n\
         max_tokens = [[0, 24]]\nlearning_rate = {{ adamw = 1e-3 }}\ncheckpoint_every = 1\n\
         engine = {{ max_sequences = 16, cache_tokens = 4096 }}\n"
    );
    for (precision, base) in [("f32", base()), ("bf16", quantized(folder.path()))] {
        let (config, out) =
            (run(&format!("precision = \"{precision}\"\n{reject}{grpo}")).unwrap(), folder.path().join(precision));
        execute_with(&config, &bases(base), &out, &device(), None, &mut Silent).unwrap();
        let kept = std::fs::read_to_string(out.join("stages/kept/data.jsonl")).unwrap();
        assert!(kept.lines().count() > 5, "{kept}");
        assert!(out.join("stages/zero/adapter").join(ADAPTER_FILE).exists());
        for line in std::fs::read_to_string(out.join("stages/zero/metrics.jsonl")).unwrap().lines() {
            let line: serde_json::Value = serde_json::from_str(line).unwrap();
            assert_eq!(line["ratio_exact"].as_f64(), Some(1.0), "{precision}: {line}");
        }
    }
}

#[test]
fn what_does_not_fit_together_is_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let file = conversations(folder.path());
    let parse = |toml: &str| run(toml).err().map(|error| error.to_string()).unwrap_or_default();
    let model = "[model]\nmodel_type = \"llama\"\nhidden_size = 32\nnum_hidden_layers = 1\nnum_attention_heads = 2\n\
                 intermediate_size = 64\nmax_position_embeddings = 128\n";
    let check = |message: String, expected: &str| {
        assert!(message.contains(expected) && !message.contains('\n'), "{message}, expected {expected}");
    };
    let plain = sft("s", "published", &file, "");
    check(parse(&format!("{model}{plain}")), "remove [model] and [tokenizer]");
    check(
        parse(&format!("[tokenizer]\nvocab_size = 300\n{plain}")),
        "[tokenizer]: the run starts from a published model",
    );
    check(
        parse(
            "[[task]]\nname = \"sums\"\nfamily = \"arithmetic\"\n[[stage]]\nkind = \"pretrain\"\nname = \"b\"\nsteps = 1\n",
        ),
        "there is no [model]",
    );
    check(parse(&sft("s", "published", &file, "lora = { rank = 4, dropout = 0.1 }")), "dropout");
    check(parse(&sft("s", "published", &file, "lora = { rank = 0 }")), "rank must lie");
    let muon = sft("s", "published", &file, LORA).replace("{ adamw = 1e-2 }", "{ muon = 1e-2, adamw = 1e-2 }");
    check(parse(&muon), "AdamW alone");

    let fails = |stages: &str| {
        let out = tempfile::tempdir().unwrap();
        execute(&run(stages).unwrap(), out.path(), &mut Silent).unwrap_err().to_string()
    };
    check(fails(&sft("s", "unknown", &file, "")), "\"unknown\": neither an earlier stage nor a model");
    let other = |names: &str| sft("s", "published", &file, &format!("lora = {{ target_modules = [{names}] }}"));
    check(fails(&other("\"qkv_proj\"")), "no linear layer is called qkv_proj; the model has ");
    check(fails(&other("\"q_b_proj\", \"up_proj\"")), "up_proj is also in routed experts");
    let after = |lora: &str| sft("one", "published", &file, LORA) + &sft("two", "one", &file, lora);
    check(fails(&after("")), "starts from the adapter");
    check(fails(&after(&LORA.replace("alpha = 8", "alpha = 9"))), "alpha = 8");
    check(fails(&after(&LORA.replace("rank = 4", "rank = 2"))), "rank = 4");

    let with = |text: &str| {
        let path = folder.path().join("bad.jsonl");
        std::fs::write(&path, text).unwrap();
        fails(&sft("s", "published", &path, ""))
    };
    let good = CONVERSATIONS.lines().next().unwrap();
    for (line, expected) in [
        ("", "line 2: "),
        ("{\"prompt\":\"a\"}", "line 2: unknown field `prompt`"),
        ("{\"messages\":[]}", "line 2: no message counts"),
        (r#"{"messages":[{"role":"user","content":"a"}]}"#, "line 2: no message counts"),
        (r#"{"messages":[{"role":"robot","content":"a"}]}"#, "line 2: message 1: unknown variant `robot`"),
        (
            r#"{"messages":[{"role":"user","content":"a","weight":0},{"role":"assistant","content":"b"}]}"#,
            "line 2: message 1 has \"weight\"",
        ),
    ] {
        check(with(&format!("{good}\n{line}\n{good}\n")), expected);
    }
    let long = format!(
        r#"{{"messages":[{{"role":"user","content":"a"}},{{"role":"assistant","content":"{}"}}]}}"#,
        "1+".repeat(4000)
    );
    check(with(&format!("{good}\n{good}\n{long}")), "line 3: has ");

    // Another file makes another run.
    let out = tempfile::tempdir().unwrap();
    let config = run(&sft("s", "published", &file, LORA)).unwrap();
    execute(&config, out.path(), &mut Silent).unwrap();
    std::fs::write(&file, good).unwrap();
    check(execute(&config, out.path(), &mut Silent).unwrap_err().to_string(), "made by another configuration");
}

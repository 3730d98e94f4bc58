//! A run that was killed ends with the bytes of one that was not.
#![allow(clippy::unwrap_used)]

mod support;

use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::Path;

use minke_spec::draw::hash;
use minke_train::{Error, Observer, RunConfig, Silent, StepView, execute};
use support::{assert_same, determined, device, run, run_in_bf16};

const STAGES: &str = r#"
    [[stage]]
    kind = "pretrain"
    name = "base"
    steps = 13
    training = { batch_tokens = 300, micro_batch_tokens = 200, checkpoint_every = 3 }
    [[stage]]
    kind = "sft"
    name = "cold-start"
    from = "base"
    data = [{ kind = "demonstrations", style = "clean", count = 20 }]
    training = { batch_tokens = 300, checkpoint_every = 4, mtp_weight = 0.0 }
"#;

/// Dies in the middle of a run: nothing more is written, as after kill -9.
struct Dies {
    after_steps: u64,
    messages: Vec<String>,
}

impl Observer for Dies {
    fn step(&mut self, _view: &StepView<'_>) -> ControlFlow<()> {
        if self.after_steps == 0 {
            resume_unwind(Box::new("killed"));
        }
        self.after_steps -= 1;
        ControlFlow::Continue(())
    }

    fn message(&mut self, text: &str) {
        self.messages.push(text.to_owned());
    }
}

fn run_and_die(config: &RunConfig, out: &Path, after_steps: u64) -> Vec<String> {
    let mut observer = Dies { after_steps, messages: Vec::new() };
    let died = catch_unwind(AssertUnwindSafe(|| execute(config, out, &device(), None, &mut observer)));
    assert!(died.is_err(), "the run ended before it was killed");
    observer.messages
}

#[test]
fn killed_at_any_step() {
    let config = run(STAGES);
    let whole = tempfile::tempdir().unwrap();
    execute(&config, whole.path(), &device(), None, &mut Silent).unwrap();
    let expected = determined(whole.path());
    assert!(expected.keys().any(|name| name.ends_with("optimizer.safetensors")));

    for round in 0..6u64 {
        let out = tempfile::tempdir().unwrap();
        let kills: Vec<u64> = (0..2).map(|i| hash(100 * round + i) % 11).collect();
        for &after_steps in &kills {
            run_and_die(&config, out.path(), after_steps);
        }
        execute(&config, out.path(), &device(), None, &mut Silent).unwrap();
        println!("killed after {kills:?} steps");
        assert_same(&determined(out.path()), &expected);
    }
}

#[test]
fn killed_in_bf16_the_masters_go_on_too() {
    let config = run_in_bf16(STAGES);
    let (whole, out) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    execute(&config, whole.path(), &device(), None, &mut Silent).unwrap();
    for after_steps in [5, 9] {
        run_and_die(&config, out.path(), after_steps);
    }
    execute(&config, out.path(), &device(), None, &mut Silent).unwrap();
    assert_same(&determined(out.path()), &determined(whole.path()));

    // What is published is what the model multiplied with; the master has digits behind it.
    let read = |name: &str| std::fs::read(out.path().join("stages/base").join(name)).unwrap();
    let (model, optimizer) = (read("model/model.safetensors"), read("checkpoints/step-00000013/optimizer.safetensors"));
    let [model, optimizer] = [&model, &optimizer].map(|bytes| safetensors::SafeTensors::deserialize(bytes).unwrap());
    let floats = |bytes: &[u8]| -> Vec<f32> { bytes.as_chunks().0.iter().map(|&b| f32::from_le_bytes(b)).collect() };
    let name = "model.layers.0.self_attn.o_proj.weight";
    let published = floats(model.tensor(name).unwrap().data());
    let master = floats(optimizer.tensor(&format!("{name}.master")).unwrap().data());
    let short = |x: &f32| x.to_bits() & 0xffff == 0;
    assert!(published.iter().all(short) && !master.iter().all(short));
    for (published, master) in published.iter().zip(&master) {
        assert!((published - master).abs() <= master.abs() / 256.0, "{published} is not {master} rounded");
    }
    for whole in ["model.norm.weight", "model.layers.1.mlp.gate.weight"] {
        assert!(!floats(model.tensor(whole).unwrap().data()).iter().all(short), "{whole} was rounded");
        assert!(optimizer.tensor(&format!("{whole}.master")).is_err());
    }
}

#[test]
fn killed_while_saving_and_with_a_damaged_checkpoint() {
    let config = run(STAGES);
    let (whole, out) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    execute(&config, whole.path(), &device(), None, &mut Silent).unwrap();
    run_and_die(&config, out.path(), 7);

    let stage = out.path().join("stages/base");
    let checkpoints = stage.join("checkpoints");
    let newest = checkpoints.join("step-00000006");
    assert!(newest.exists() && checkpoints.join("step-00000003").exists());
    // Half a checkpoint, half a line, half a file, and a newest checkpoint with one bit flipped.
    std::fs::create_dir(checkpoints.join(".step-00000009.tmp")).unwrap();
    std::fs::write(checkpoints.join(".step-00000009.tmp/weights.safetensors"), b"half").unwrap();
    std::fs::write(out.path().join(".run.json.tmp"), b"{").unwrap();
    let metrics = stage.join("metrics.jsonl");
    let mut text = std::fs::read(&metrics).unwrap();
    text.extend(b"{\"step\":7,\"lo");
    std::fs::write(&metrics, text).unwrap();
    let weights = newest.join("weights.safetensors");
    let mut bytes = std::fs::read(&weights).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(&weights, bytes).unwrap();

    let messages = run_and_die(&config, out.path(), 1);
    let damaged = |message: &&String| message.contains("weights.safetensors is damaged");
    assert_eq!(messages.iter().filter(damaged).count(), 1, "{messages:?}");
    execute(&config, out.path(), &device(), None, &mut Silent).unwrap();
    std::fs::remove_dir_all(checkpoints.join(".step-00000009.tmp")).ok();
    assert_same(&determined(out.path()), &determined(whole.path()));
}

#[test]
fn a_lost_data_cursor_would_be_noticed() {
    let config = run(STAGES);
    let (whole, out) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    execute(&config, whole.path(), &device(), None, &mut Silent).unwrap();
    run_and_die(&config, out.path(), 7);
    // The control: a checkpoint that says it stands at the beginning of the data, with a checksum that holds.
    let newest = out.path().join("stages/base/checkpoints/step-00000006");
    let state = std::fs::read_to_string(newest.join("state.json")).unwrap();
    let forgetful = state.replace("\"cursor\": 6", "\"cursor\": 0");
    assert_ne!(state, forgetful);
    std::fs::write(newest.join("state.json"), &forgetful).unwrap();
    let sums = std::fs::read_to_string(newest.join("SHA256SUMS")).unwrap();
    let sha = |text: &str| -> String {
        use sha2::Digest;
        sha2::Sha256::digest(text.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
    };
    std::fs::write(newest.join("SHA256SUMS"), sums.replace(&sha(&state), &sha(&forgetful))).unwrap();
    execute(&config, out.path(), &device(), None, &mut Silent).unwrap();
    let last = "stages/base/model/model.safetensors";
    assert_ne!(determined(out.path())[last], determined(whole.path())[last]);
}

#[test]
fn threads_change_nothing_and_an_observer_can_stop() {
    struct Stops;
    impl Observer for Stops {
        fn step(&mut self, view: &StepView<'_>) -> ControlFlow<()> {
            if view.step == 5 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        }
    }
    let config = run(STAGES);
    let (whole, out) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let one = minke_tensor::Device::open("cpu", 1).unwrap();
    execute(&config, whole.path(), &one, None, &mut Silent).unwrap();
    let stopped = execute(&config, out.path(), &device(), None, &mut Stops);
    assert!(matches!(stopped, Err(Error::Interrupted { step: 5, .. })), "{stopped:?}");
    execute(&config, out.path(), &device(), None, &mut Silent).unwrap();
    assert_same(&determined(out.path()), &determined(whole.path()));
}

#[test]
fn another_configuration_or_process_is_refused() {
    let config = run(STAGES);
    let out = tempfile::tempdir().unwrap();
    run_and_die(&config, out.path(), 14);
    // A later stage may still be edited; one that was begun may not, nor one that a begun stage depends on.
    let check = |from: &str, to: &str| -> Option<String> {
        let edited = run(&STAGES.replace(from, to));
        execute(&edited, out.path(), &device(), None, &mut Silent).err().map(|error| error.to_string())
    };
    let message = check("steps = 13", "steps = 14").unwrap();
    assert!(message.contains("stages/base/done.json: the stage was made by another configuration"), "{message}");
    let message = check("count = 20", "count = 21").unwrap();
    assert!(message.contains("belongs to another configuration; choose another folder"), "{message}");

    let message = execute(&run_in_bf16(STAGES), out.path(), &device(), None, &mut Silent).unwrap_err().to_string();
    assert!(message.contains("run.json: the run was begun with precision = \"f32\", not \"bf16\""), "{message}");

    let lock = std::fs::File::create(out.path().join(".lock")).unwrap();
    lock.lock().unwrap();
    let message = check("", "").unwrap();
    assert!(message.contains("is in use by another process"), "{message}");
}

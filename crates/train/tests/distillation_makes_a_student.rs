//! A smaller model of another family learns from the samples of a teacher that were kept.
#![allow(clippy::unwrap_used)]

mod small;

use minke_spec::config::ModelType;

#[test]
fn a_student_learns_from_kept_samples() {
    let run = small::run(
        r#"
        [[stage]]
        kind = "reject"
        name = "kept"
        from = "base"
        questions = 100
        samples = 6
        keep = 4
        max_tokens = 48
        prompt = "forced_thought"
        engine = { max_sequences = 64, cache_tokens = 8192 }
        [[stage]]
        kind = "distill"
        name = "student"
        data = "kept"
        epochs = 12
        training = { batch_tokens = 256 }
        [stage.model]
        model_type = "qwen2"
        hidden_size = 32
        num_hidden_layers = 1
        num_attention_heads = 2
        num_key_value_heads = 1
        intermediate_size = 64
        max_position_embeddings = 192
        "#,
    );
    let folder = small::stage(run.path(), "student");
    let next: Vec<f64> =
        small::lines(&folder.join("metrics.jsonl")).iter().filter_map(|l| l["next"].as_f64()).collect();
    println!("{} steps, loss {:.3} -> {:.3}", next.len(), next[0], next[next.len() - 1]);
    assert!(next[next.len() - 1] < 0.6 * next[0], "{next:?}");
    let student = minke_weights::load(&small::device(), &folder.join("model")).unwrap();
    assert_eq!(student.config().model_type, ModelType::Qwen2);
    assert_eq!(student.config().vocab_size, 320);
}

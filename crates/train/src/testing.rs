//! What unit tests train: the smallest model that has MLA, experts and multi-token prediction.

use minke_model::Transformer;
use minke_spec::{ModelConfig, Placement};
use minke_tensor::{Comm, Device};

use crate::Result;
use crate::data::Document;
use crate::optimizer::{LearningRates, OptimizerConfig};
use crate::ranks::Ranks;
use crate::record::Logs;
use crate::schedule::Schedule;
use crate::stage::{Progress, Stage, StepRecord};
use crate::supervised::{Documents, Supervised, SupervisedConfig};
use crate::trainer::Trainer;

pub(crate) const RATES: LearningRates = LearningRates { muon: Some(0.02), adamw: 3e-3 };

pub(crate) fn device() -> Device {
    Device::open("cpu", 2).unwrap()
}

pub(crate) fn model(device: &Device) -> Transformer {
    let config = serde_json::json!({
        "model_type": "deepseek_v3", "vocab_size": 40, "hidden_size": 16, "num_hidden_layers": 4,
        "num_attention_heads": 2, "intermediate_size": 32, "max_position_embeddings": 64, "q_lora_rank": 8,
        "kv_lora_rank": 8, "qk_nope_head_dim": 8, "qk_rope_head_dim": 4, "v_head_dim": 8, "n_routed_experts": 4,
        "n_shared_experts": 1, "num_experts_per_tok": 2, "moe_intermediate_size": 8, "first_k_dense_replace": 1,
        "n_group": 1, "topk_group": 1, "norm_topk_prob": true, "routed_scaling_factor": 1.0,
        "num_nextn_predict_layers": 1, "bos_token_id": 0, "eos_token_id": 1,
    });
    let config = ModelConfig::from_value(config).expect("invariant: a valid configuration").config;
    Transformer::random(device, &config, &Placement::single(), 3).expect("invariant: a supported family")
}

pub(crate) fn trainer(train_mtp: bool) -> Trainer {
    let device = device();
    Trainer::new(&device, model(&device), RATES, OptimizerConfig::default(), train_mtp)
}

/// The same trainer on so many ranks, each a thread, in `stages` stages within which `experts` share out the experts; what `work` makes of
/// each.
pub(crate) fn on_ranks<T: Send>([count, experts, stages]: [usize; 3], work: impl Fn(Trainer) -> T + Sync) -> Vec<T> {
    std::thread::scope(|scope| {
        let start = |comm| {
            scope.spawn(|| {
                let (device, config) = (device(), OptimizerConfig::default());
                let ranks = Ranks::sharing(comm, experts, stages).unwrap();
                let part = model(&device).part(&device, &ranks.placement());
                work(Trainer::shared(&device, part, RATES, config, true, &ranks))
            })
        };
        let threads: Vec<_> = Comm::threads(count).into_iter().map(start).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}

/// Documents of different lengths; of every other one only the end counts.
pub(crate) fn documents() -> Vec<Document> {
    let document = |n: usize| {
        let token_ids = (0..6 + n).map(|i| ((7 * i * i + 3 * n) % 40) as u32).collect();
        Document::counting_from(if n.is_multiple_of(2) { 1 } else { 4 }, token_ids)
    };
    (0..7).map(document).collect()
}

/// The same documents in every step.
struct Fixed(Vec<Document>);

impl Documents for Fixed {
    fn total_steps(&self) -> u64 {
        1
    }

    fn at(&self, _cursor: u64) -> Result<Vec<Document>> {
        Ok(self.0.clone())
    }
}

/// One step of a stage that learns from these documents, without a schedule.
pub(crate) fn update(
    training: &SupervisedConfig,
    trainer: &mut Trainer,
    documents: &[Document],
    learning_rate: LearningRates,
) -> Result<StepRecord> {
    let folder = tempfile::tempdir().expect("invariant: there is a folder for temporary files");
    let (documents, schedule) = (Box::new(Fixed(documents.to_vec())), Schedule::default());
    let mut stage = Supervised { documents, learning_rate, schedule: &schedule, training };
    stage.step(trainer, Progress { step: 0, cursor: 0 }, &mut Logs::open(folder.path(), [0; 4])?)
}

/// All weights, by name.
pub(crate) fn weights(model: &Transformer) -> Vec<(String, Vec<f32>)> {
    model.params().iter().map(|param| (param.name().to_owned(), param.value().read())).collect()
}

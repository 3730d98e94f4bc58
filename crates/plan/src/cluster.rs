//! Parts joined to a cluster, and how a training run is laid out on them.

use serde::Serialize;

use crate::Error;
use crate::assumption::Ledger;
use crate::hardware::Part;
use crate::model::Model;
use crate::schedule::Schedule;

/// What multiplies weights in training.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Arithmetic {
    /// FP8 in products with weights, BF16 elsewhere (V3 3.3).
    Fp8,
    /// BF16 throughout.
    Bf16,
    /// F32 throughout, on a machine that was measured.
    F32,
}

impl Arithmetic {
    /// The name by which it is asked for.
    pub fn name(self) -> &'static str {
        match self {
            Self::Fp8 => "fp8",
            Self::Bf16 => "bf16",
            Self::F32 => "f32",
        }
    }
}

/// The figures of a part that training needs, read once.
#[derive(Clone, Debug)]
pub struct Cluster {
    /// The part.
    pub part: Part,
    /// How many.
    pub count: usize,
    /// Dense BF16 rate of one, in FLOP/s: the unit in which utilisation is counted.
    pub bf16_flops: f64,
    /// What products with weights are done in.
    pub arithmetic: Arithmetic,
    /// Bytes of memory of one.
    pub memory: f64,
    /// Parts of a node.
    pub per_node: usize,
    /// Bytes/s per direction between nodes; none where there is one node.
    pub scale_out: Option<f64>,
    /// Bytes/s per direction within a node; none where there is one part.
    pub scale_up: Option<f64>,
}

impl Cluster {
    /// A cluster of so many of a part.
    ///
    /// # Errors
    /// If the count is zero, a figure that is needed has no source, or the part is one machine whose kernels were measured.
    pub fn new(part: &Part, count: usize, arithmetic: Option<Arithmetic>, ledger: &mut Ledger) -> Result<Self, Error> {
        if count == 0 || count > MAX_COUNT {
            return Err(Error::invalid("count", count, format!("must lie between 1 and {MAX_COUNT}")));
        }
        if ledger.has(part, "operation_seconds") {
            return Err(Error::Impossible(format!(
                "{}: the kernels of one machine were measured, which says nothing of many; ask plan train --count 1, or plan fit",
                part.name
            )));
        }
        let bf16_flops = ledger.figure(part, "bf16_flops")?;
        let memory = ledger.figure(part, "memory_bytes")?;
        let has_fp8 = ledger.has(part, "fp8_flops");
        let arithmetic = match arithmetic {
            Some(Arithmetic::Fp8) if !has_fp8 => {
                return Err(Error::invalid("precision", "fp8", format!("{} has no FP8 rate; use bf16", part.name)));
            }
            Some(Arithmetic::F32) => {
                let reason = "for clusters fp8 or bf16; f32 on one machine that minke doctor --part measured";
                return Err(Error::invalid("precision", "f32", reason));
            }
            Some(asked) => asked,
            None if has_fp8 => Arithmetic::Fp8,
            None => Arithmetic::Bf16,
        };
        let per_node = if count == 1 { 1 } else { ledger.figure(part, "parts_per_node")? as usize };
        let per_node = per_node.clamp(1, count);
        let scale_up = if per_node > 1 { Some(ledger.figure(part, "scale_up_bandwidth")?) } else { None };
        let scale_out = if count > per_node { Some(ledger.figure(part, "scale_out_bandwidth")?) } else { None };
        Ok(Self { part: part.clone(), count, bf16_flops, arithmetic, memory, per_node, scale_out, scale_up })
    }

    /// The slowest link that a group of ranks crosses: between nodes if it spans several.
    pub fn link(&self, ranks: usize) -> Option<f64> {
        if ranks > self.per_node { self.scale_out } else { self.scale_up }
    }
}

const MAX_COUNT: usize = 1 << 20;

/// How the ranks share the work of a training step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Layout {
    /// Ranks of a pipeline.
    pub pipeline: usize,
    /// Ranks over which the experts of a layer are spread.
    pub expert: usize,
    /// Pipelines that work on other sequences; a multiple of `expert`.
    pub data: usize,
    /// The order of work in a pipeline.
    pub schedule: Schedule,
    /// Micro-batches of one sequence that each pipeline takes per step.
    pub micro_batches: usize,
}

/// What a step works on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Batch {
    /// Sequences of all ranks together.
    pub sequences: usize,
    /// Tokens of a sequence.
    pub sequence_tokens: usize,
}

impl Batch {
    /// Tokens of a step.
    pub fn tokens(&self) -> f64 {
        self.sequences as f64 * self.sequence_tokens as f64
    }

    /// Checks its range.
    ///
    /// # Errors
    /// If a size is zero or absurd.
    pub fn check(&self) -> Result<(), Error> {
        for (name, value) in [("batch", self.sequences), ("sequence", self.sequence_tokens)] {
            if value == 0 || value > 1 << 24 {
                return Err(Error::invalid(name, value, format!("must lie between 1 and {}", 1 << 24)));
            }
        }
        Ok(())
    }
}

impl Layout {
    /// V3's layout, as far as so many ranks allow: a pipeline of 16, experts over 64, DualPipe.
    ///
    /// # Paper
    /// V3 3.2
    pub fn of_v3(ranks: usize, batch: Batch, model: &Model) -> Result<Self, Error> {
        let pipeline = 16.min(ranks);
        Self::new(pipeline, 64.min(ranks / pipeline), Schedule::DualPipe, ranks, batch, model)
    }

    /// A layout over all ranks of a cluster.
    ///
    /// # Errors
    /// If ranks, layers, experts or sequences cannot be shared out so.
    pub fn new(
        pipeline: usize,
        expert: usize,
        schedule: Schedule,
        ranks: usize,
        batch: Batch,
        model: &Model,
    ) -> Result<Self, Error> {
        batch.check()?;
        if pipeline == 0 || !ranks.is_multiple_of(pipeline) {
            return Err(Error::invalid("pipeline", pipeline, format!("must divide the number of ranks ({ranks})")));
        }
        let data = ranks / pipeline;
        if expert == 0 || !data.is_multiple_of(expert) || !model.experts().is_multiple_of(expert) {
            let reason = format!("must divide the {} experts and the {data} pipelines", model.experts());
            return Err(Error::invalid("expert", expert, reason));
        }
        let layers = model.config.num_hidden_layers;
        if pipeline > layers {
            return Err(Error::invalid("pipeline", pipeline, format!("the model has {layers} layers")));
        }
        if !batch.sequences.is_multiple_of(data) {
            let reason = format!("must be a multiple of the {data} pipelines");
            return Err(Error::invalid("batch", batch.sequences, reason));
        }
        let micro_batches = batch.sequences / data;
        schedule.check(pipeline, micro_batches.min(crate::schedule::MAX_MICRO_BATCHES))?;
        Ok(Self { pipeline, expert, data, schedule, micro_batches })
    }

    /// Every layout that the cluster allows, with powers of two.
    pub fn candidates(ranks: usize, batch: Batch, model: &Model) -> Vec<Self> {
        let powers = |most: usize| (0..=most.ilog2()).map(|power| 1usize << power);
        let mut found = Vec::new();
        for pipeline in powers(ranks.min(model.config.num_hidden_layers).min(16)) {
            for expert in powers((ranks / pipeline).clamp(1, model.experts())) {
                let schedules = if pipeline == 1 { &[Schedule::OneFOneB][..] } else { &Schedule::ALL[..] };
                for &schedule in schedules {
                    found.extend(Self::new(pipeline, expert, schedule, ranks, batch, model).ok());
                }
            }
        }
        found
    }

    /// Stages whose weights a rank holds: with DualPipe two, as every stage lies on two ranks of its pipeline.
    pub fn stages_per_rank(&self) -> usize {
        if self.pipeline == 1 { 1 } else { self.schedule.stages_per_rank() }
    }

    /// Ranks that hold the same weights: those outside of experts, and those of experts.
    pub fn copies(&self) -> (usize, usize) {
        (self.data * self.stages_per_rank(), self.data / self.expert * self.stages_per_rank())
    }

    /// Ranks that hold one copy of the model.
    pub fn replica(&self) -> usize {
        self.pipeline * self.expert
    }

    /// The layers of each stage: as many each, and the rest, which shares a rank with head and multi-token prediction, last.
    ///
    /// # Paper
    /// V3 3.2.1 (the first and the last layers lie on one rank)
    pub fn stages(&self, model: &Model) -> Vec<std::ops::Range<usize>> {
        let layers = model.config.num_hidden_layers;
        let each = layers.div_ceil(self.pipeline);
        // With heads on the last stage, the layers of the others are rounded up, unless that leaves a stage without any.
        if each * (self.pipeline - 1) < layers {
            return (0..self.pipeline).map(|stage| stage * each..((stage + 1) * each).min(layers)).collect();
        }
        (0..self.pipeline).map(|s| layers * s / self.pipeline..layers * (s + 1) / self.pipeline).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hardware::{Figure, Hardware};

    const V3_BATCH: Batch = Batch { sequences: 15_360, sequence_tokens: 4096 };

    #[test]
    fn v3_has_its_published_layout() {
        let model = Model::named("deepseek-v3").unwrap();
        let layout = Layout::of_v3(2048, V3_BATCH, &model).unwrap();
        assert_eq!((layout.pipeline, layout.expert, layout.data, layout.micro_batches), (16, 64, 128, 120));
        assert_eq!(layout.replica(), 1024);
        let stages = layout.stages(&model);
        assert_eq!((stages[0].clone(), stages[15].clone()), (0..4, 60..61));
    }

    #[test]
    fn every_layer_lies_in_one_stage() {
        for name in ["deepseek-v3", "deepseek-v2", "deepseek-r1-distill-qwen-7b"] {
            let model = Model::named(name).unwrap();
            for pipeline in [1, 2, 4, 8, 16] {
                let batch = Batch { sequences: 1024, sequence_tokens: 4096 };
                let layout = Layout::new(pipeline, 1, Schedule::OneFOneB, pipeline, batch, &model).unwrap();
                let stages = layout.stages(&model);
                assert_eq!(stages.len(), pipeline);
                assert!(stages.iter().all(|stage| !stage.is_empty()), "{name} {stages:?}");
                assert!(stages.windows(2).all(|pair| pair[0].end == pair[1].start), "{name} {stages:?}");
                assert_eq!((stages[0].start, stages[pipeline - 1].end), (0, model.config.num_hidden_layers));
            }
        }
    }

    #[test]
    fn what_cannot_be_shared_out_is_refused() {
        let model = Model::named("deepseek-v3").unwrap();
        let new = |pipeline, expert, ranks| Layout::new(pipeline, expert, Schedule::DualPipe, ranks, V3_BATCH, &model);
        for (result, told) in [
            (new(16, 64, 2040), "pipeline = 16"),
            (new(16, 3, 2048), "expert = 3"),
            (new(0, 1, 2048), "pipeline = 0"),
            (new(32, 1, 256 * 32), "micro-batches = 60"),
            (new(64, 1, 64), "pipeline = 64"),
            (new(2, 1, 14), "batch = 15360"),
        ] {
            let error = result.unwrap_err().to_string();
            assert!(error.starts_with(told), "{error}");
        }
    }

    #[test]
    fn figures_are_asked_for_only_where_they_count() {
        let hardware = Hardware::known().unwrap();
        let card = hardware.part("rtx-4090").unwrap();
        assert!(Cluster::new(card, 1, None, &mut Ledger::default()).is_ok());
        let error = Cluster::new(card, 8, None, &mut Ledger::default()).unwrap_err().to_string();
        assert!(error.contains("parts_per_node"), "{error}");
        let operation = Figure { value: 2e-6, source: "measured".into() };
        let mut here = card.clone();
        here.figures.insert("operation_seconds".into(), operation);
        let error = Cluster::new(&here, 1, None, &mut Ledger::default()).unwrap_err().to_string();
        assert!(error.contains("the kernels of one machine were measured"), "{error}");
        let a800 = hardware.part("a800").unwrap();
        let cluster = Cluster::new(a800, 16, None, &mut Ledger::default()).unwrap();
        assert_eq!(cluster.arithmetic, Arithmetic::Bf16);
        assert!(Cluster::new(a800, 16, Some(Arithmetic::Fp8), &mut Ledger::default()).is_err());
    }
}

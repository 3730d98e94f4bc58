//! The part of the model that each rank holds.

use std::ops::Range;

use crate::config::ModelConfig;
use crate::params::{ParamRole, ParamSpec, Shard};

/// One rank's place among those that share a model.
///
/// Every size that a rank computes with comes from here, so that a model built for one process is the special case of
/// a model built for many. What can be built today is a model whose experts and layers are shared out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Placement {
    /// Among the ranks that share out heads, channels and the vocabulary.
    tensors: Part,
    /// Among the ranks that share out experts.
    experts: Part,
    /// Among the stages of a pipeline.
    layers: Part,
}

/// One of several nearly equal parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Part {
    index: usize,
    count: usize,
}

impl Default for Part {
    fn default() -> Self {
        Self { index: 0, count: 1 }
    }
}

impl Part {
    /// Which of `total` things are in it: some that follow each other.
    fn of(self, total: usize) -> Range<usize> {
        total * self.index / self.count..total * (self.index + 1) / self.count
    }
}

impl Placement {
    /// The placement of a process that holds everything.
    pub fn single() -> Self {
        Self::default()
    }

    /// The placement of the rank with number `index` of `count` that share out the experts of every layer.
    ///
    /// # Panics
    /// If there is no such rank.
    pub fn of_experts(index: usize, count: usize) -> Self {
        assert!(index < count, "rank {index} of {count}");
        Self { experts: Part { index, count }, ..Self::default() }
    }

    /// The same, in the stage with number `index` of a pipeline of `count`: each has some layers that follow each other.
    ///
    /// # Panics
    /// If there is no such stage.
    #[must_use]
    pub fn with_layers(self, index: usize, count: usize) -> Self {
        assert!(index < count, "stage {index} of {count}");
        Self { layers: Part { index, count }, ..self }
    }

    /// Which of so many layers this rank holds; modules of multi-token prediction, which are behind them, are in the last stage.
    pub fn layers(&self, total: usize) -> Range<usize> {
        self.layers.of(total)
    }

    /// Whether this rank is in the last stage of its pipeline.
    pub fn is_last(&self) -> bool {
        self.layers.index + 1 == self.layers.count
    }

    /// Whether this rank holds a parameter of a model, or a part of it. The embedding is in the first stage, and in the last where that
    /// needs it: for multi-token prediction, and as the head.
    pub fn holds(&self, config: &ModelConfig, spec: &ParamSpec) -> bool {
        match spec.layer {
            Some(layer) if layer < config.num_hidden_layers => self.layers(config.num_hidden_layers).contains(&layer),
            None if spec.role == ParamRole::Embedding => {
                let is_needed = config.num_nextn_predict_layers > 0 || config.tie_word_embeddings;
                self.layers.index == 0 || (self.is_last() && is_needed)
            }
            _ => self.is_last(),
        }
    }

    /// Which of so many experts this rank holds.
    pub fn experts(&self, total: usize) -> Range<usize> {
        self.experts.of(total)
    }
}

impl ParamSpec {
    /// The shape of this parameter's part on one rank.
    ///
    /// # Shapes
    /// the whole shape, with the axis of [`ParamSpec::shard`] cut to the rank's part
    pub fn local_shape(&self, placement: &Placement) -> Vec<usize> {
        let mut shape = self.shape.clone();
        let (axis, part) = match self.shard {
            Shard::Replicated => return shape,
            Shard::Experts => (0, placement.experts),
            Shard::Rows | Shard::Vocabulary => (0, placement.tensors),
            Shard::Columns => (1, placement.tensors),
        };
        shape[axis] = part.of(shape[axis]).len();
        shape
    }

    /// Where that part lies among the elements of the whole. Of a parameter that is cut along its rows or columns it is all of them, as
    /// long as nothing builds such a model.
    pub fn local_elements(&self, placement: &Placement) -> Range<usize> {
        let each = self.elements() / self.shape[0].max(1);
        let rows = match self.shard {
            Shard::Experts => placement.experts(self.shape[0]),
            Shard::Replicated | Shard::Rows | Shard::Columns | Shard::Vocabulary => 0..self.shape[0],
        };
        rows.start * each..rows.end * each
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{parameters, presets};

    #[test]
    fn one_rank_holds_everything() {
        for spec in parameters(&presets::r1()) {
            assert_eq!(spec.local_shape(&Placement::single()), spec.shape, "{}", spec.name);
        }
    }

    #[test]
    fn the_parts_of_all_ranks_are_the_whole() {
        for total in [0, 1, 7, 256] {
            let parts: Vec<usize> = (0..3).flat_map(|index| Part { index, count: 3 }.of(total)).collect();
            assert_eq!(parts, (0..total).collect::<Vec<_>>());
        }
    }

    #[test]
    fn every_parameter_is_in_one_stage_and_the_embedding_perhaps_in_two() {
        let mut config = presets::r1();
        for mtp in [0, 1] {
            config.num_nextn_predict_layers = mtp;
            for spec in parameters(&config) {
                let holders: Vec<usize> =
                    (0..4).filter(|&i| Placement::single().with_layers(i, 4).holds(&config, &spec)).collect();
                let expected = match (spec.role, spec.layer) {
                    (ParamRole::Embedding, _) if mtp > 0 => vec![0, 3],
                    (ParamRole::Embedding, _) => vec![0],
                    // 61 layers: 15, 15, 15, 16.
                    (_, Some(layer)) => vec![(layer / 15).min(3)],
                    _ => vec![3],
                };
                assert_eq!(holders, expected, "{}", spec.name);
            }
        }
    }

    #[test]
    fn experts_lie_one_behind_the_other() {
        let specs = parameters(&presets::r1());
        let spec = specs.iter().find(|spec| spec.name == "model.layers.3.mlp.experts.up_proj.weight").expect("experts");
        let parts = (0..3).flat_map(|index| spec.local_elements(&Placement::of_experts(index, 3)).step_by(2048 * 7168));
        assert_eq!(parts.collect::<Vec<_>>(), (0..256).map(|expert| expert * 2048 * 7168).collect::<Vec<_>>());
    }

    #[test]
    fn experts_and_vocabulary_are_cut_along_their_own_axis() {
        let part = Part { index: 5, count: 64 };
        let placement = Placement { tensors: part, experts: part, ..Placement::single() };
        let specs = parameters(&presets::r1());
        for (name, shape) in [
            ("model.layers.3.mlp.experts.gate_proj.weight", vec![4, 2048, 7168]),
            ("model.layers.3.self_attn.o_proj.weight", vec![7168, 256]),
            ("model.layers.3.self_attn.q_b_proj.weight", vec![384, 1536]),
            ("lm_head.weight", vec![2020, 7168]),
            ("model.norm.weight", vec![7168]),
        ] {
            let spec = specs.iter().find(|spec| spec.name == name).expect(name);
            assert_eq!(spec.local_shape(&placement), shape, "{name}");
        }
    }
}

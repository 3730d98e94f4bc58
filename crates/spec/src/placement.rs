//! The part of the model that each rank holds.

use std::ops::Range;

use crate::params::{ParamSpec, Shard};

/// One rank's place among those that share a model.
///
/// Every size that a rank computes with comes from here, so that a model built for one process is the special case of
/// a model built for many. One process is what can be built today.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placement {
    rank: usize,
    num_ranks: usize,
}

impl Placement {
    /// The placement of a process that holds everything.
    pub fn single() -> Self {
        Self { rank: 0, num_ranks: 1 }
    }

    /// The number of ranks that share the model.
    pub fn num_ranks(&self) -> usize {
        self.num_ranks
    }

    /// Which of `total` heads, experts, rows or columns this rank holds: a contiguous, nearly equal part.
    pub fn part(&self, total: usize) -> Range<usize> {
        total * self.rank / self.num_ranks..total * (self.rank + 1) / self.num_ranks
    }
}

impl ParamSpec {
    /// The shape of this parameter's part on one rank.
    ///
    /// # Shapes
    /// the whole shape, with the axis of [`ParamSpec::shard`] cut to the rank's part
    pub fn local_shape(&self, placement: &Placement) -> Vec<usize> {
        let mut shape = self.shape.clone();
        let axis = match self.shard {
            Shard::Replicated => return shape,
            Shard::Rows | Shard::Experts | Shard::Vocabulary => 0,
            Shard::Columns => 1,
        };
        shape[axis] = placement.part(shape[axis]).len();
        shape
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
            let parts: Vec<usize> = (0..3).flat_map(|rank| Placement { rank, num_ranks: 3 }.part(total)).collect();
            assert_eq!(parts, (0..total).collect::<Vec<_>>());
        }
    }

    #[test]
    fn experts_and_vocabulary_are_cut_along_their_own_axis() {
        let placement = Placement { rank: 5, num_ranks: 64 };
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

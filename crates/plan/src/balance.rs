//! Balance of experts: which experts are copied, and which rank holds which copy, so that all ranks get as much to do.
//!
//! The algorithm is the one that DeepSeek published as EPLB: groups of experts are packed onto nodes, heavy experts are
//! copied within a node, copies are packed onto ranks. Where groups cannot be shared out over nodes, all is one node.

use serde::Serialize;

use crate::Error;

/// Where the copies of the experts of one layer lie.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ExpertPlacement {
    /// The expert of each slot; rank `r` of `n` holds the `r`-th of `n` equal runs of slots.
    pub slots: Vec<usize>,
    /// How many slots each expert has.
    pub copies: Vec<usize>,
}

/// What experts are shared out over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ranks {
    /// Slots for copies, all ranks together; a multiple of `ranks`.
    pub slots: usize,
    /// Groups of consecutive experts, which a node should hold whole.
    pub groups: usize,
    /// Nodes; they divide `ranks`.
    pub nodes: usize,
    /// Ranks of all nodes.
    pub ranks: usize,
}

/// The placement of each layer's experts for the loads that were counted.
///
/// # Shapes
/// `loads` is `[layers, E]`; each placement has `ranks.slots` slots.
///
/// # Paper
/// - V3 3.4.1 (redundant experts; rebalanced by the loads of the service)
/// - Test: crates/plan/tests/published_examples.rs
///
/// # Errors
/// If experts, slots, groups, nodes and ranks do not divide each other, or a load is not a number from 0 on.
pub fn place_experts(loads: &[Vec<f64>], ranks: Ranks) -> Result<Vec<ExpertPlacement>, Error> {
    let experts = loads.first().map_or(0, Vec::len);
    check(loads, experts, ranks)?;
    // Groups that cannot be shared out over the nodes: one group, one node.
    let hierarchical = ranks.groups.is_multiple_of(ranks.nodes);
    let (groups, nodes) = if hierarchical { (ranks.groups, ranks.nodes) } else { (1, 1) };
    Ok(loads.iter().map(|loads| place_layer(loads, groups, nodes, ranks)).collect())
}

/// The largest load of a rank over the mean, 1 if all are equal: by so much the slowest rank delays the others.
///
/// # Shapes
/// `loads` is `[E]`.
pub fn imbalance(loads: &[f64], placement: &ExpertPlacement, ranks: usize) -> f64 {
    let per_rank = placement.slots.len() / ranks.max(1);
    let load = |&expert: &usize| loads[expert] / placement.copies[expert] as f64;
    let sums = placement.slots.chunks(per_rank.max(1)).map(|slots| slots.iter().map(load).sum::<f64>());
    let most = sums.fold(0.0, f64::max);
    let mean = loads.iter().sum::<f64>() / ranks.max(1) as f64;
    if mean > 0.0 { most / mean } else { 1.0 }
}

fn check(loads: &[Vec<f64>], experts: usize, ranks: Ranks) -> Result<(), Error> {
    let Ranks { slots, groups, nodes, ranks } = ranks;
    if experts == 0 || loads.iter().any(|layer| layer.len() != experts) {
        return Err(Error::invalid("loads", loads.len(), "must be rows of equal length, one load per expert"));
    }
    if loads.iter().flatten().any(|load| !(load.is_finite() && *load >= 0.0)) {
        return Err(Error::invalid("loads", "", "must be numbers from 0 on"));
    }
    for (name, value) in [("slots", slots), ("groups", groups), ("nodes", nodes), ("ranks", ranks)] {
        if value == 0 {
            return Err(Error::invalid(name, value, "must be at least 1"));
        }
    }
    if !experts.is_multiple_of(groups) {
        return Err(Error::invalid("groups", groups, format!("must divide the number of experts ({experts})")));
    }
    if !ranks.is_multiple_of(nodes) {
        return Err(Error::invalid("nodes", nodes, format!("must divide the number of ranks ({ranks})")));
    }
    if !slots.is_multiple_of(ranks) || slots < experts {
        let reason = format!("must be a multiple of the ranks ({ranks}) and hold every expert ({experts})");
        return Err(Error::invalid("slots", slots, reason));
    }
    Ok(())
}

fn place_layer(loads: &[f64], groups: usize, nodes: usize, ranks: Ranks) -> ExpertPlacement {
    let group_size = loads.len() / groups;
    let group_loads: Vec<f64> = loads.chunks(group_size).map(|group| group.iter().sum()).collect();
    let (ranks_per_node, slots_per_node) = (ranks.ranks / nodes, ranks.slots / nodes);
    let mut placement = ExpertPlacement { slots: Vec::new(), copies: vec![0; loads.len()] };
    for node in pack(&group_loads, nodes) {
        let experts: Vec<usize> = node.iter().flat_map(|&group| group * group_size..(group + 1) * group_size).collect();
        let (copied, copies) = copy(&experts.iter().map(|&e| loads[e]).collect::<Vec<_>>(), slots_per_node);
        let copy_loads: Vec<f64> = copied.iter().map(|&i| loads[experts[i]] / copies[i] as f64).collect();
        let packed = pack(&copy_loads, ranks_per_node);
        placement.slots.extend(packed.iter().flatten().map(|&slot| experts[copied[slot]]));
        experts.iter().zip(copies).for_each(|(&expert, copies)| placement.copies[expert] = copies);
    }
    placement
}

/// Packs items into packs of equal number: the heaviest first, each to the lightest pack that has room.
fn pack(loads: &[f64], packs: usize) -> Vec<Vec<usize>> {
    let room = loads.len() / packs;
    if room == 1 {
        return (0..loads.len()).map(|item| vec![item]).collect();
    }
    let mut order: Vec<usize> = (0..loads.len()).collect();
    order.sort_by(|&a, &b| loads[b].total_cmp(&loads[a]));
    let mut packed = vec![(0.0f64, Vec::with_capacity(room)); packs];
    for item in order {
        let open = packed.iter_mut().filter(|(_, items)| items.len() < room);
        let lightest = open.min_by(|a, b| a.0.total_cmp(&b.0)).expect("invariant: room for every item");
        lightest.0 += loads[item];
        lightest.1.push(item);
    }
    packed.into_iter().map(|(_, items)| items).collect()
}

/// The item of each slot, each item at least once and the heaviest per copy once more until all slots are taken; and the
/// number of copies of each item.
fn copy(loads: &[f64], slots: usize) -> (Vec<usize>, Vec<usize>) {
    let mut copied: Vec<usize> = (0..loads.len()).collect();
    let mut copies = vec![1; loads.len()];
    while copied.len() < slots {
        let per_copy = |i: usize| loads[i] / copies[i] as f64;
        // The first of the heaviest.
        let heaviest = (0..loads.len()).fold(0, |best, i| if per_copy(i) > per_copy(best) { i } else { best });
        copied.push(heaviest);
        copies[heaviest] += 1;
    }
    (copied, copies)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ONE_NODE: Ranks = Ranks { slots: 8, groups: 1, nodes: 1, ranks: 4 };

    #[test]
    fn groups_that_no_number_of_nodes_divides_are_placed_as_one() {
        let loads = [vec![9.0, 1.0, 1.0, 1.0, 1.0, 1.0]];
        let three_nodes = Ranks { slots: 12, groups: 2, nodes: 3, ranks: 6 };
        let one_node = Ranks { groups: 1, nodes: 1, ..three_nodes };
        assert_eq!(place_experts(&loads, three_nodes).unwrap(), place_experts(&loads, one_node).unwrap());
    }

    #[test]
    fn what_does_not_divide_is_refused_by_name() {
        let loads = [vec![1.0; 6]];
        for (ranks, told) in [
            (Ranks { groups: 4, ..ONE_NODE }, "groups = 4"),
            (Ranks { nodes: 3, ..ONE_NODE }, "nodes = 3"),
            (Ranks { slots: 9, ..ONE_NODE }, "slots = 9"),
            (Ranks { slots: 4, ..ONE_NODE }, "slots = 4"),
            (Ranks { ranks: 0, ..ONE_NODE }, "ranks = 0"),
        ] {
            let error = place_experts(&loads, ranks).unwrap_err().to_string();
            assert!(error.starts_with(told), "{error}");
        }
        assert!(place_experts(&[vec![1.0, f64::NAN]], ONE_NODE).is_err());
        assert!(place_experts(&[vec![1.0], vec![]], ONE_NODE).is_err());
        assert!(place_experts(&[], ONE_NODE).is_err());
    }

    proptest! {
        #[test]
        fn every_expert_has_a_slot_and_the_count_of_copies_is_right(loads in prop::collection::vec(0.0f64..100.0, 16)) {
            let ranks = Ranks { slots: 24, groups: 4, nodes: 2, ranks: 8 };
            let placement = place_experts(std::slice::from_ref(&loads), ranks).unwrap().remove(0);
            prop_assert_eq!(placement.slots.len(), 24);
            for expert in 0..16 {
                let slots = placement.slots.iter().filter(|&&slot| slot == expert).count();
                prop_assert!(slots >= 1 && slots == placement.copies[expert]);
            }
            prop_assert!(imbalance(&loads, &placement, 8) >= 1.0 - 1e-9);
        }
    }
}

//! Fairness among tenants and among prompts: who is served next, and with how much of a step.
//!
//! Tenants take turns by the tokens that were computed for them, as the virtual token counters of arXiv 2401.00588 do.
//! Among the prompts of one tenant the shortest goes first, so that a question is not kept waiting by a book, and the
//! oldest keeps a part, so that it always moves on.

use std::collections::{BTreeMap, BTreeSet};

use crate::sequence::SequenceId;

/// The part of a tenant's tokens that its oldest prompt is sure of: one in so many.
const OLDEST_PART: usize = 8;

/// Whose a sequence is.
///
/// # Examples
/// ```
/// use minke_engine::Tenant;
/// let (one, other) = (Tenant { share: 1, prefixes: 1 }, Tenant { share: 2, prefixes: 2 });
/// assert_ne!(one, other);
/// assert_eq!(Tenant::default(), Tenant { share: 0, prefixes: 0 });
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Tenant {
    /// Sequences with one number take turns with those of other numbers, for places among those that run and for the
    /// prompt tokens of a step.
    pub share: u64,
    /// A sequence finds pages in the prefix cache that were computed under the same number, and no others: by the time
    /// that a prompt takes, nobody learns what another tenant asked (CVE-2025-46570).
    pub prefixes: u64,
}

/// What a prompt lacks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Demand {
    pub id: SequenceId,
    pub share: u64,
    /// Tokens that are to be computed.
    pub tokens: usize,
}

/// Tokens that were computed for each tenant.
#[derive(Default)]
pub(crate) struct Service {
    tokens: BTreeMap<u64, u64>,
}

impl Service {
    /// A tenant begins to take part beside the active ones: time in which it asked for nothing gives it no advantage.
    pub(crate) fn join(&mut self, share: u64, active: &BTreeSet<u64>) {
        let least = active.iter().filter_map(|other| self.tokens.get(other)).min().copied().unwrap_or(0);
        let own = self.tokens.entry(share).or_default();
        *own = (*own).max(least);
    }

    /// Counts what was computed for a tenant.
    pub(crate) fn count(&mut self, share: u64, tokens: usize) {
        *self.tokens.entry(share).or_default() += tokens as u64;
    }

    /// Shares `budget` tokens out among prompts, given in the order of their age: how many each one gets, in the same order.
    pub(crate) fn share_out(&self, mut budget: usize, demands: &[Demand]) -> Vec<usize> {
        let mut given = vec![0; demands.len()];
        let mut tenants = BTreeMap::<u64, Vec<usize>>::new();
        for (i, demand) in demands.iter().enumerate() {
            tenants.entry(demand.share).or_default().push(i);
        }
        let mut turns: Vec<(u64, usize, Vec<usize>)> = tenants
            .into_iter()
            .map(|(share, prompts)| {
                let wanted = prompts.iter().map(|&i| demands[i].tokens).sum();
                (self.tokens.get(&share).copied().unwrap_or(0), wanted, prompts)
            })
            .collect();
        turns.sort_by_key(|(served, wanted, _)| (*served, *wanted));
        for (_, _, mut prompts) in turns {
            let oldest = prompts[0];
            given[oldest] = demands[oldest].tokens.min(budget.div_ceil(OLDEST_PART));
            budget -= given[oldest];
            // Sorting keeps the order of age among equals.
            prompts.sort_by_key(|&i| demands[i].tokens);
            for i in prompts {
                let more = (demands[i].tokens - given[i]).min(budget);
                given[i] += more;
                budget -= more;
            }
        }
        given
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn demands(of: &[(u64, usize)]) -> Vec<Demand> {
        let demand = |(i, &(share, tokens)): (usize, &(u64, usize))| Demand { id: SequenceId(i as u64), share, tokens };
        of.iter().enumerate().map(demand).collect()
    }

    #[test]
    fn a_question_does_not_wait_for_a_book() {
        let service = Service::default();
        assert_eq!(service.share_out(64, &demands(&[(0, 8000), (0, 50)])), [14, 50]);
        assert_eq!(service.share_out(64, &demands(&[(0, 8000), (0, 500), (0, 30)])), [8, 26, 30]);
        assert_eq!(service.share_out(64, &demands(&[(0, 20), (0, 8000)])), [20, 44]);
        assert_eq!(service.share_out(1, &demands(&[(0, 8000), (0, 50)])), [1, 0], "the oldest moves on");
    }

    #[test]
    fn tenants_take_turns_by_what_was_computed_for_them() {
        let mut service = Service::default();
        let active = BTreeSet::from([1]);
        service.join(1, &BTreeSet::new());
        service.count(1, 1000);
        // The second one has not saved anything up: both have 1000.
        service.join(2, &active);
        let both = demands(&[(1, 300), (1, 300), (2, 300)]);
        let mut got = [0; 2];
        for _ in 0..4 {
            let given = service.share_out(64, &both);
            for (demand, tokens) in both.iter().zip(given) {
                service.count(demand.share, tokens);
                got[demand.share as usize - 1] += tokens;
            }
        }
        assert_eq!(got, [128, 128]);
    }

    proptest! {
        #[test]
        fn nothing_is_left_over_or_given_twice(
            of in prop::collection::vec((0..3u64, 2..300usize), 1..8),
            budget in 1..400usize,
        ) {
            let demands = demands(&of);
            let given = Service::default().share_out(budget, &demands);
            let (sum, wanted): (usize, usize) = (given.iter().sum(), of.iter().map(|(_, tokens)| tokens).sum());
            prop_assert_eq!(sum, budget.min(wanted));
            prop_assert!(given.iter().zip(&of).all(|(given, (_, tokens))| given <= tokens));
        }
    }
}

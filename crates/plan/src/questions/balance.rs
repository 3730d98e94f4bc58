//! Which rank holds which expert?

use crate::Error;
use crate::answer::{Answer, Table};
use crate::balance::{Ranks, imbalance, place_experts};
use crate::picture::Picture;

/// The placement of experts for loads that were counted, and how much it helps.
///
/// # Errors
/// As [`place_experts`].
pub fn balance(loads: &[Vec<f64>], ranks: Ranks) -> Result<Answer, Error> {
    let placed = place_experts(loads, ranks)?;
    let mut answer = Answer::new(format!(
        "Where do {} experts lie, in {} slots of {} ranks on {} nodes?",
        loads[0].len(),
        ranks.slots,
        ranks.ranks,
        ranks.nodes
    ));
    let mut table =
        Table::new("Slots, rank by rank", ["layer", "experts", "heaviest rank over mean", "without copies"]);
    let mut bars = Vec::new();
    for (layer, (loads, placement)) in loads.iter().zip(&placed).enumerate() {
        let per_rank = ranks.slots / ranks.ranks;
        let slots: Vec<String> = placement
            .slots
            .chunks(per_rank)
            .map(|slots| slots.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "))
            .collect();
        let after = imbalance(loads, placement, ranks.ranks);
        // Experts in order, as many per rank, if they can be shared out so.
        let before = (loads.len().is_multiple_of(ranks.ranks)).then(|| {
            let plain =
                crate::balance::ExpertPlacement { slots: (0..loads.len()).collect(), copies: vec![1; loads.len()] };
            imbalance(loads, &plain, ranks.ranks)
        });
        table.row([
            layer.to_string(),
            slots.join(" | "),
            format!("{after:.3}"),
            before.map_or("-".to_owned(), |before| format!("{before:.3}")),
        ]);
        bars.push((format!("layer {layer}"), after));
    }
    answer.tables.push(table);
    answer.picture = Picture::bars("Heaviest rank over mean", "times", bars);
    Ok(answer)
}

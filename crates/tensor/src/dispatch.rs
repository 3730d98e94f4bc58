//! Where does each token's copy go? The plan by which rows are sent to experts and back.

use minke_kernels::ops::route;

use crate::{Indices, Pass};

/// Where each copy of a token goes: slots are sorted by expert, tokens in order within an expert.
#[derive(Clone)]
pub struct Dispatch {
    /// First slot of each expert. [E + 1]
    pub offsets: Indices,
    /// Token of each slot. [T * K]
    pub token_of: Indices,
    /// Slot of each (token, choice). [T, K]
    pub slot_of: Indices,
    /// Choices per token, K.
    pub per_token: usize,
}

impl Dispatch {
    /// Returns the plan for the given choices.
    ///
    /// # Shapes
    /// indices [T, K] of experts below `experts`
    pub fn new(pass: Pass<'_>, indices: &Indices, per_token: usize, experts: usize) -> Self {
        let cpu = pass.cpu();
        let (mut token_of, mut slot_of) = (None, None);
        let slots = indices.len();
        let offsets = Indices::write(cpu, experts + 1, |offsets| {
            token_of = Some(Indices::write(cpu, slots, |token_of| {
                slot_of = Some(Indices::write(cpu, slots, |slot_of| {
                    route::plan(indices.values(), per_token, experts, offsets, token_of, slot_of);
                }));
            }));
        });
        let token_of = token_of.expect("invariant: written above");
        let slot_of = slot_of.expect("invariant: written above");
        Self { offsets, token_of, slot_of, per_token }
    }
}

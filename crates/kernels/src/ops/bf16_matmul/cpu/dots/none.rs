//! Processors without the instruction.

use super::block::Part;
use crate::isa::Isa;

/// Proof that there is the instruction, which there is none of.
#[derive(Clone, Copy)]
pub(super) enum Dots {}

impl Dots {
    pub(super) fn of(_isa: Isa) -> Option<Self> {
        None
    }

    pub(super) unsafe fn multiply(self, _part: Part) {
        match self {}
    }
}

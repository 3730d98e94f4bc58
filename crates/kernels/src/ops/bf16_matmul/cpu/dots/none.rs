//! Processors without the instruction.

use super::part::Part;
use crate::isa::Isa;

/// Proof that there is the instruction, which there is none of.
#[derive(Clone, Copy)]
pub(crate) enum Dots {}

impl Dots {
    pub(crate) fn of(_isa: Isa) -> Option<Self> {
        None
    }

    pub(super) unsafe fn multiply(self, _part: Part) {
        match self {}
    }
}

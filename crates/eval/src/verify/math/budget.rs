//! How much work may one verdict cost? Counted steps, never seconds, so that a verdict is the same on every machine.

/// Steps that are left. Each token, node of a tree and word of a long number costs some.
pub(super) struct Budget(u64);

impl Budget {
    /// Enough for an answer of any exam, little enough for a reward that is computed a thousand times per step.
    pub(super) fn new() -> Self {
        Self(STEPS)
    }

    /// Takes steps away; nothing if fewer are left.
    pub(super) fn spend(&mut self, steps: u64) -> Option<()> {
        self.0 = self.0.checked_sub(steps)?;
        Some(())
    }
}

/// About 50 ms of the most expensive kind, divisions of long numbers.
const STEPS: u64 = 400_000;

//! Under which circumstances is a forward computed? One value says it, and it is passed down.

use minke_kernels::{Cpu, Device};

use crate::Tensor;

/// Someone who is shown named intermediate values.
type Listener<'a> = dyn Fn(&str, &Tensor) + 'a;

/// The circumstances of one forward: device, whether a tape is recorded, who listens.
#[derive(Clone, Copy)]
pub struct Pass<'a> {
    /// Where it runs.
    pub device: &'a Device,
    /// Whether results remember how they were made.
    pub record: bool,
    /// Whether blocks keep only their inputs and are computed again in the backward.
    pub recompute: bool,
    pub(crate) tap: Option<&'a Listener<'a>>,
}

impl<'a> Pass<'a> {
    /// Returns a pass that computes values only.
    pub fn inference(device: &'a Device) -> Self {
        Self { device, record: false, recompute: false, tap: None }
    }

    /// Returns a pass that records a tape.
    pub fn recording(device: &'a Device) -> Self {
        Self { device, record: true, recompute: false, tap: None }
    }

    /// Returns the same pass with recomputation of blocks switched on or off.
    pub fn with_recompute(self, recompute: bool) -> Self {
        Self { recompute, ..self }
    }

    /// Returns the same pass with a listener for named intermediate values.
    pub fn with_tap(self, tap: &'a dyn Fn(&str, &Tensor)) -> Self {
        Self { tap: Some(tap), ..self }
    }

    /// Shows an intermediate value to the listener, if there is one.
    pub fn tap(&self, name: impl FnOnce() -> String, value: &Tensor) {
        if let Some(listener) = self.tap {
            listener(&name(), value);
        }
    }

    /// Returns the processor. The one `match` over devices until a second kind exists.
    pub(crate) fn cpu(&self) -> &'a Cpu {
        let Device::Cpu(cpu) = self.device;
        cpu
    }
}

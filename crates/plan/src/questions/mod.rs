//! Whole questions and their answers; each is one function of a model, parts and assumptions.

mod balance;
mod cheapest;
mod cost;
mod export;
mod failure;
mod fit;
mod hardware;
mod machine;
mod rl;
mod scale;
mod serve;
mod train;

pub use balance::balance;
pub use cheapest::{Cheapest, cheapest};
pub use cost::cost;
pub use export::{Restricted, export};
pub use failure::failure;
pub use fit::{Fit, fit};
pub use hardware::hardware;
pub use machine::{Runs, runs};
pub use rl::{Rl, rl};
pub use scale::scale;
pub use serve::{Serve, serve};
pub use train::{Train, train};

use crate::Error;
use crate::assumption::Ledger;
use crate::hardware::Part;

/// What hours of a part cost.
struct Price {
    /// Dollars of rent, if the part has one.
    rent: Option<f64>,
    /// Energy of the nodes and their building, in kWh, if the part's power is known.
    energy: Option<f64>,
    /// Dollars for it.
    energy_usd: Option<f64>,
}

impl Price {
    fn of(part: &Part, hours: f64, ledger: &mut Ledger) -> Result<Self, Error> {
        let rent = if ledger.has(part, "rent") { Some(hours * ledger.figure(part, "rent")?) } else { None };
        if !ledger.has(part, "power") {
            return Ok(Self { rent, energy: None, energy_usd: None });
        }
        let power = ledger.figure(part, "power")?;
        let overhead = ledger.positive(
            "node_power",
            1.82,
            "times that of its parts",
            "NVIDIA DGX H100 datasheet (2023): 10.2 kW for 8 parts of 700 W",
        )?;
        let pue = ledger.positive(
            "pue",
            1.58,
            "times the node's",
            "Uptime Institute, global survey of data centres (2023)",
        )?;
        let usd = ledger.positive(
            "electricity",
            0.0806,
            "USD/kWh",
            "EIA, average price of industry in the United States in 2023 (2024-03)",
        )?;
        let energy = power * overhead * pue * hours / 1000.0;
        Ok(Self { rent, energy: Some(energy), energy_usd: Some(energy * usd) })
    }

    fn add_to(&self, answer: &mut crate::Answer) {
        if let Some(rent) = self.rent {
            answer.fact("rent", rent, "USD");
        }
        if let (Some(energy), Some(usd)) = (self.energy, self.energy_usd) {
            answer.fact("energy, if at full power", energy / 1000.0, "MWh").fact("electricity", usd, "USD");
        }
    }
}

/// Checks a number of tokens or the like.
fn positive(name: &str, value: f64) -> Result<f64, Error> {
    if value.is_finite() && value > 0.0 && value < 1e20 {
        Ok(value)
    } else {
        Err(Error::invalid(name, value, "must be a number above 0"))
    }
}

const HOUR: f64 = 3600.0;
const DAY: f64 = 86_400.0;

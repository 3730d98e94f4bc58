//! What fits on what I have?

use minke_spec::Format;

use crate::Error;
use crate::answer::{Answer, Table, grouped};
use crate::assumption::Ledger;
use crate::hardware::Hardware;
use crate::model::Model;
use crate::picture::Picture;
use crate::questions::positive;

/// Hardware that is asked about.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Fit {
    /// Name of the part.
    pub part: String,
    /// How many, in one machine.
    pub count: usize,
    /// Tokens of one user.
    pub context_tokens: f64,
}

impl Fit {
    /// One of a part, for one user with 4,096 tokens.
    pub fn new(part: impl Into<String>) -> Self {
        Self { part: part.into(), count: 1, context_tokens: 4096.0 }
    }
}

const FORMATS: [Format; 6] = [Format::Bf16, Format::F8E4M3, Format::Q8_0, Format::Q4K, Format::Q2K, Format::Iq1S];

/// For each model and format: bytes, whether they fit, the longest context, and the tokens per second that memory allows one
/// user. With a disk, experts that find no room in memory are read from it.
///
/// # Errors
/// If there is no model or part, or a figure has no source.
pub fn fit(models: &[Model], hardware: &Hardware, asked: &Fit, mut ledger: Ledger) -> Result<Answer, Error> {
    let context = positive("context", asked.context_tokens)?;
    if asked.count == 0 || asked.count > 1 << 10 {
        return Err(Error::invalid("count", asked.count, "must lie between 1 and 1024"));
    }
    let part = hardware.part(&asked.part)?;
    let free = ledger.share("memory_share", 0.9, "of memory", "assumed; the rest is for work and buffers")?;
    let memory = ledger.figure(part, "memory_bytes")? * asked.count as f64 * free;
    let bandwidth = ledger.figure(part, "memory_bandwidth")?;
    let parallel = ledger.positive("parts_at_once", 1.0, "parts", "layers shared out: one part works at a time")?;
    let disk = if ledger.has(part, "disk_bandwidth") { Some(ledger.figure(part, "disk_bandwidth")?) } else { None };
    let mut answer = Answer::new(format!("What fits on {} x {}?", asked.count, part.title));
    answer.fact("memory for weights and cache", memory, "bytes");
    let mut table =
        Table::new("For one user", ["model", "format", "weights, GB", "fits", "longest context", "tokens/s at most"]);
    let (mut bars, mut too_large) = (Vec::new(), Vec::new());
    for model in models {
        let rows = table.rows.len();
        for format in FORMATS {
            let bytes = model.weight_bytes(format);
            let (read, experts_read) = model.bytes_per_token(format);
            let cache = context * model.kv_bytes();
            let seconds = (read + cache) / (bandwidth * parallel);
            let room = memory - bytes;
            let longest = (room / model.kv_bytes()).floor().min(model.config.max_position_embeddings as f64);
            let experts = model.expert_bytes(format);
            let (fits, longest, rate) = if room >= cache {
                ("yes", grouped(longest), Some(1.0 / seconds))
            } else if let Some(disk) = disk.filter(|_| experts > 0.0 && bytes - experts + cache < memory) {
                // What of the experts is not in memory is read from the disk, each as likely as the other.
                let absent = (bytes + cache - memory) / experts;
                ("from disk", grouped(context), Some(1.0 / (seconds + experts_read * absent / disk)))
            } else {
                ("no", "-".to_owned(), None)
            };
            // Among many models, those formats that do not fit only say so once.
            if rate.is_none() && models.len() > 1 {
                continue;
            }
            let told = rate.map_or("-".to_owned(), |rate| format!("{rate:.2}"));
            let cells = [
                model.name.clone(),
                format.name().to_owned(),
                format!("{:.1}", bytes / 1e9),
                fits.into(),
                longest,
                told,
            ];
            table.row(cells);
            // Among many models, each is drawn once, in the widest format that fits.
            if models.len() == 1 || table.rows.len() == rows + 1 {
                bars.extend(rate.map(|rate| (format!("{} {}", model.name, format.name()), rate)));
            }
        }
        if table.rows.len() == rows {
            too_large.push(model.name.as_str());
        }
    }
    if bars.is_empty() {
        answer.notes.push("Nothing fits: take more parts, or one with more memory.".into());
    } else if !too_large.is_empty() {
        answer.notes.push(format!("Too large in every format: {}.", too_large.join(", ")));
    }
    answer.tables.push(table);
    answer.picture = Picture::bars("Tokens per second of one user, at most", "tokens/s", bars);
    answer.notes.push(format!(
        "Rates are bounds: every byte that a token needs is read once, with {} tokens of cache in BF16.",
        grouped(context)
    ));
    answer.assumptions = ledger.finish()?;
    Ok(answer)
}

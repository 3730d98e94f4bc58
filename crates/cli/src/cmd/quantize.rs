//! `minke quantize`: a model with fewer bits per weight. Each tensor gets a format by a recipe, an override, and what its rows can have; codes are
//! chosen so that outputs change least.

use anyhow::Result;
use minke_weights::Importance;
use minke_weights::recipe::{Fallback, choose};

use super::convert::{Writer, is_gguf, left_out, open};
use crate::args::Quantize;
use crate::error::Exit;
use crate::metadata;

/// Runs `minke quantize`.
pub fn run(args: &Quantize) -> Result<()> {
    if !is_gguf(&args.target) {
        return Err(Exit::Usage.because("quantized weights are written as GGUF; give a target that ends in .gguf"));
    }
    let archive = open(&args.model, &args.target)?;
    let importance = args.imatrix.as_deref().map(Importance::open).transpose()?;
    let mut planned = archive.plan_gguf()?;
    let coded = planned.iter().filter(|tensor| tensor.format.block_elements() > 1).count();
    let fallen = choose(&archive.config, args.to, &args.overrides, &mut planned)
        .map_err(|reason| Exit::Usage.because(format!("--tensor {reason}")))?;
    let (mut pairs, note) = metadata::pairs(&archive, &planned, &args.target)?;
    pairs.unsigned("general.file_type", args.to.file_type());

    let mut notes: Vec<String> = note.into_iter().chain(left_out(&archive)).chain(fallbacks(&fallen)).collect();
    if coded > 0 {
        notes
            .push(format!("{coded} tensors of the source are codes already, whose error stays; F32 or BF16 is better"));
    }
    if let (Some(importance), Some(path)) = (&importance, &args.imatrix) {
        let unknown = importance.unknown(&planned);
        match unknown.map_err(|reason| Exit::BadFile.because(format!("{}: {reason}", path.display())))? {
            0 => {}
            count => notes
                .push(format!("the importance matrix says nothing about {count} tensors; their columns count alike")),
        }
    }
    Writer::new(&archive, &planned, args.compute.device()?)?
        .gguf(&pairs, importance.as_ref(), &args.target, notes)?
        .print(args.output.json)
}

/// The notes on formats that fell back to others, and for how many tensors.
fn fallbacks(fallen: &[Fallback]) -> Vec<String> {
    let mut kinds: Vec<_> = fallen.iter().map(|one| (one.meant, one.format)).collect();
    kinds.sort_unstable();
    kinds.dedup();
    let line = |(meant, format): (minke_spec::Format, minke_spec::Format)| {
        let of: Vec<&Fallback> = fallen.iter().filter(|one| (one.meant, one.format) == (meant, format)).collect();
        let (elements, count, first) = (meant.block_elements(), of.len(), &of[0].name);
        format!(
            "{count} tensors ({first}, ..) are {} instead of {}: their rows are no multiples of {elements}",
            format.name(),
            meant.name()
        )
    };
    kinds.into_iter().map(line).collect()
}

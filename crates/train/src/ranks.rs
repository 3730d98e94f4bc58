//! The ranks that share a run: what only the first of them does, and what they must agree on.

use minke_spec::Placement;
use minke_tensor::Comm;

use crate::{Error, Result};

/// Bytes that the first rank takes from all at once: MPI counts to 2^31.
const AT_ONCE: usize = 1 << 28;

/// The ranks that share a run. All of them read the output folder, and the first alone writes there.
#[derive(Clone, Debug, Default)]
pub struct Ranks {
    comm: Comm,
    /// Those that share out the experts of every layer with this one.
    experts: Comm,
    /// Those of its stage that have the same experts as this one.
    replicas: Comm,
    /// Those that have the same layers as this one.
    stage: Comm,
    /// The stages of this one's pipeline, one rank each.
    pipeline: Comm,
    /// The first and the last stage, if there are several and this one is of them: they share the embedding.
    ends: Option<Comm>,
    /// The ranks of the stage before this one and of it in this pipeline; the same of it and the stage behind.
    previous: Option<Comm>,
    next: Option<Comm>,
}

impl Ranks {
    /// Those of a communicator, each with all experts.
    pub fn new(comm: Comm) -> Self {
        Self { replicas: comm.clone(), stage: comm.clone(), comm, ..Self::default() }
    }

    /// Those of a communicator. The first ranks are the first of `stages` stages of a pipeline, and so on; within a stage, every `experts`
    /// that follow each other share out the experts of every layer.
    ///
    /// # Errors
    /// If they do not come out even, or a rank has ended.
    pub fn sharing(comm: Comm, experts: usize, stages: usize) -> Result<Self> {
        if experts == 1 && stages == 1 {
            return Ok(Self::new(comm));
        }
        if experts * stages == 0 || !comm.ranks().is_multiple_of(experts * stages) {
            let ranks = comm.ranks();
            let multiple = experts * stages;
            let reason = format!(
                "{stages} stages with experts over {experts} ranks need a multiple of {multiple} ranks, and there are {ranks}; start so \
                 many with mpirun or srun"
            );
            return Err(Error::Config(reason));
        }
        let width = comm.ranks() / stages;
        let (at, data) = (comm.rank() / width, comm.rank() % width);
        let (stage, pipeline) = (comm.split(at)?, comm.split(data)?);
        let (group, replicas) = (stage.split(data / experts)?, stage.split(data % experts)?);
        // Everybody takes part in every split.
        let is_end = at == 0 || at + 1 == stages;
        let ends = comm.split(usize::from(is_end))?;
        let links = [pipeline.split(at / 2)?, pipeline.split(at.div_ceil(2))?];
        let (before, behind) = (at > 0, at + 1 < stages);
        let [even, odd] = if at.is_multiple_of(2) {
            links
        } else {
            let [even, odd] = links;
            [odd, even]
        };
        Ok(Self {
            comm,
            experts: group,
            replicas,
            stage,
            pipeline,
            ends: (stages > 1 && is_end).then_some(ends),
            previous: before.then_some(odd),
            next: behind.then_some(even),
        })
    }

    /// Those that have the same layers as this one; each learns from other documents.
    pub(crate) fn stage(&self) -> &Comm {
        &self.stage
    }

    /// The stages of this one's pipeline.
    pub(crate) fn pipeline(&self) -> &Comm {
        &self.pipeline
    }

    /// The ranks with the embedding, if it is in two stages.
    pub(crate) fn ends(&self) -> Option<&Comm> {
        self.ends.as_ref()
    }

    /// Gives the stage before this one numbers and takes some from it; either may be none.
    pub(crate) fn swap_with_previous(&self, numbers: &[f32]) -> Result<Vec<f32>> {
        swap(self.previous.as_ref(), numbers)
    }

    /// The same with the stage behind.
    pub(crate) fn swap_with_next(&self, numbers: &[f32]) -> Result<Vec<f32>> {
        swap(self.next.as_ref(), numbers)
    }

    /// Those that share out the experts with this one.
    pub(crate) fn experts(&self) -> &Comm {
        &self.experts
    }

    /// Those that have the same experts as this one.
    pub(crate) fn replicas(&self) -> &Comm {
        &self.replicas
    }

    /// Which part of a model this rank has.
    pub(crate) fn placement(&self) -> Placement {
        let experts = Placement::of_experts(self.experts.rank(), self.experts.ranks());
        experts.with_layers(self.pipeline.rank(), self.pipeline.ranks())
    }

    /// Whether a rank has less than a whole model.
    pub(crate) fn have_parts(&self) -> bool {
        self.experts.ranks() > 1 || self.pipeline.ranks() > 1
    }

    /// What they send each other by.
    pub(crate) fn comm(&self) -> &Comm {
        &self.comm
    }

    /// This rank, from 0.
    pub fn rank(&self) -> usize {
        self.comm.rank()
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.comm.ranks()
    }

    /// Whether this is the rank that writes.
    pub fn is_first(&self) -> bool {
        self.rank() == 0
    }

    /// What only the first rank does; the others wait until it is done.
    pub(crate) fn first(&self, work: impl FnOnce() -> Result<()>) -> Result<()> {
        if self.is_first() {
            work()?;
        }
        Ok(self.comm.wait()?)
    }

    /// Whether any rank says so.
    pub(crate) fn any(&self, own: bool) -> Result<bool> {
        Ok(self.comm.all_gather(&[u8::from(own)])?.concat().contains(&1))
    }

    /// What every rank has, on the first rank, in the order of ranks; nothing on the others.
    pub(crate) fn gather(&self, own: Vec<u8>) -> Result<Option<Vec<Vec<u8>>>> {
        if self.count() == 1 {
            return Ok(Some(vec![own]));
        }
        let longest = self.comm.all_gather(&[own.len() as f64])?.concat().into_iter().fold(0.0, f64::max) as usize;
        let mut all = vec![Vec::new(); self.count()];
        let at_once = AT_ONCE / self.count();
        for begin in (0..longest).step_by(at_once) {
            let mut parts: Vec<&[u8]> = vec![&[]; self.count()];
            parts[0] = &own[begin.min(own.len())..(begin + at_once).min(own.len())];
            for (all, part) in all.iter_mut().zip(self.comm.all_to_all(&parts)?) {
                all.extend(part);
            }
        }
        Ok(self.is_first().then_some(all))
    }

    /// Refuses a rank of which something is not as on the first; `what` says so behind "rank 3".
    pub(crate) fn agree(&self, own: &str, what: &str) -> Result<()> {
        let all = self.comm.all_gather(own.as_bytes())?;
        match all.iter().position(|other| *other != all[0]) {
            Some(rank) => Err(Error::Config(format!("rank {rank} {what}"))),
            None => Ok(()),
        }
    }
}

/// Gives the other of two ranks numbers and takes its own; nothing where there is no other.
fn swap(pair: Option<&Comm>, numbers: &[f32]) -> Result<Vec<f32>> {
    let Some(pair) = pair else { return Ok(Vec::new()) };
    let other = 1 - pair.rank();
    let mut parts: [&[f32]; 2] = [&[]; 2];
    parts[other] = numbers;
    Ok(pair.all_to_all(&parts)?.swap_remove(other))
}

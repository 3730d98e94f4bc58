//! The shares of ranks in an optimizer (ZeRO, stage 1): every trained parameter has an owner, which sums its gradients, keeps its
//! state, moves it, and hands it to the others.

use minke_model::Transformer;
use minke_tensor::optimize::sum_squares;
use minke_tensor::{Comm, Device, Gradients, Param};

use crate::Result;
use crate::ranks::Ranks;

/// Numbers that a rank takes from all others at once, so that the memory for it stays small.
const AT_ONCE: usize = 1 << 22;

/// Which rank owns which parameters.
pub(crate) struct Shares {
    all: Comm,
    /// Of what the ranks of a stage have, of the experts that only some have, and of the embedding where it is in two stages.
    groups: Vec<Group>,
}

/// Which of the ranks that have the same parameters owns which of them.
struct Group {
    comm: Comm,
    /// Of each rank: rows of its parameters in the table, ascending, with their numbers of elements.
    owned: Vec<Vec<(usize, usize)>>,
}

/// A parameter that is trained.
#[derive(Clone, Copy)]
pub(crate) struct Trained {
    /// Its row in the table.
    pub(crate) id: usize,
    /// Its number of elements on this rank.
    pub(crate) elements: usize,
    /// Who has it.
    pub(crate) kind: Kind,
}

/// Which ranks have a parameter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// All of a stage.
    Whole,
    /// Those of a stage that have the same experts.
    Experts,
    /// All of the first and of the last stage.
    Ends,
}

impl Shares {
    /// The shares of ranks in what is trained.
    pub(crate) fn new(ranks: &Ranks, trained: &[Trained]) -> Self {
        let of = |kind: Kind| -> Vec<(usize, usize)> {
            trained.iter().filter(|param| param.kind == kind).map(|param| (param.id, param.elements)).collect()
        };
        let mut groups = match ranks.have_parts() {
            true => vec![Group::new(ranks.stage(), &of(Kind::Whole)), Group::new(ranks.replicas(), &of(Kind::Experts))],
            false => {
                let everything: Vec<(usize, usize)> = trained.iter().map(|param| (param.id, param.elements)).collect();
                vec![Group::new(ranks.comm(), &everything)]
            }
        };
        if let Some(ends) = ranks.ends() {
            groups.push(Group::new(ends, &of(Kind::Ends)));
        }
        let all = ranks.comm();
        Self { all: all.clone(), groups }
    }

    /// Whether this rank owns a parameter.
    pub(crate) fn owns(&self, id: usize) -> bool {
        self.groups.iter().any(|group| group.owns(id))
    }

    /// Makes the gradients of what this rank owns the sums over all ranks, added in the order of ranks. Those of other parameters mean
    /// nothing then.
    ///
    /// # Paper
    /// - ZeRO 5.1 (optimizer states in parts: reduce-scatter of gradients)
    pub(crate) fn sum(&self, device: &Device, model: &Transformer, gradients: &mut Gradients) -> Result<()> {
        self.groups.iter().try_for_each(|group| group.sum(device, model, gradients))
    }

    /// The Euclidean norm of all gradients, of which each rank has the sums of its own; added up in the order of the table.
    pub(crate) fn norm(&self, device: &Device, model: &Transformer, gradients: &Gradients) -> Result<f64> {
        let square = |param: &&Param| match gradients.get(param) {
            Some(gradient) if self.owns(param.id()) => sum_squares(device, gradient),
            _ => 0.0,
        };
        let mut own = Vec::new();
        for param in model.params() {
            own.resize(own.len().max(param.id() + 1), 0.0);
            own[param.id()] = square(&param);
        }
        let all = self.all.all_gather(&own)?;
        let rows = all.iter().map(Vec::len).max().unwrap_or(0);
        let of_row = |row| all.iter().filter_map(|of_rank: &Vec<f64>| of_rank.get(row)).sum::<f64>();
        Ok((0..rows).map(of_row).sum::<f64>().sqrt())
    }

    /// Gives every rank the parameters as their owners have them.
    ///
    /// # Paper
    /// - ZeRO 5.1 (all-gather of parameters behind the update)
    pub(crate) fn hand_out(&self, device: &Device, model: &mut Transformer) -> Result<()> {
        self.groups.iter().try_for_each(|group| group.hand_out(device, model))
    }
}

impl Group {
    /// Parameters, given by their rows in the table and their numbers of elements, shared out evenly: the largest first, each to the
    /// rank that has least.
    fn new(comm: &Comm, trained: &[(usize, usize)]) -> Self {
        let mut largest_first = trained.to_vec();
        largest_first.sort_by_key(|&(id, elements)| (std::cmp::Reverse(elements), id));
        let mut owned = vec![Vec::new(); comm.ranks()];
        let mut filled = vec![0; comm.ranks()];
        for (id, elements) in largest_first {
            let least = (0..comm.ranks()).min_by_key(|&rank| filled[rank]).expect("invariant: there is a rank");
            owned[least].push((id, elements));
            filled[least] += elements;
        }
        owned.iter_mut().for_each(|ids| ids.sort_unstable());
        Self { comm: comm.clone(), owned }
    }

    fn owns(&self, id: usize) -> bool {
        self.owned[self.comm.rank()].iter().any(|&(own, _)| own == id)
    }

    /// Numbers that go from one rank to another at once.
    fn at_once(&self) -> usize {
        AT_ONCE.div_ceil(self.comm.ranks())
    }

    /// Rounds until the longest share has been moved.
    fn rounds(&self) -> usize {
        let length = |owned: &Vec<(usize, usize)>| owned.iter().map(|(_, elements)| elements).sum::<usize>();
        self.owned.iter().map(length).max().unwrap_or(0).div_ceil(self.at_once())
    }

    fn sum(&self, device: &Device, model: &Transformer, gradients: &mut Gradients) -> Result<()> {
        if self.comm.ranks() == 1 {
            return Ok(());
        }
        let params = by_row(model.params().into_iter(), |param| param.id());
        let of = |id: usize| -> &Param { params[id].expect("invariant: what is trained is a parameter") };
        let mut readers: Vec<Reader> = self.owned.iter().map(|owned| Reader::new(owned)).collect();
        let mut writer = Writer::new(&self.owned[self.comm.rank()]);
        for _ in 0..self.rounds() {
            let read = |id, elements| gradients.get(of(id)).map_or_else(|| vec![0.0; elements], |own| own.read());
            let parts: Vec<Vec<f32>> = readers.iter_mut().map(|reader| reader.next(self.at_once(), read)).collect();
            let mut received = self.comm.all_to_all(&parts.iter().map(Vec::as_slice).collect::<Vec<_>>())?.into_iter();
            let mut sum = received.next().expect("invariant: there is a rank");
            for part in received {
                sum.iter_mut().zip(part).for_each(|(sum, part)| *sum += part);
            }
            writer.put(&sum, |id, values| gradients.write(device, of(id), values));
        }
        Ok(())
    }

    fn hand_out(&self, device: &Device, model: &mut Transformer) -> Result<()> {
        if self.comm.ranks() == 1 {
            return Ok(());
        }
        let mut params = by_row(model.params_mut().into_iter(), |param| param.id());
        let mut reader = Reader::new(&self.owned[self.comm.rank()]);
        let mut writers: Vec<Writer> = self.owned.iter().map(|owned| Writer::new(owned)).collect();
        for _ in 0..self.rounds() {
            let read =
                |id: usize, _| params[id].as_ref().expect("invariant: what is trained is a parameter").value().read();
            let own = reader.next(self.at_once(), read);
            for (rank, part) in self.comm.all_gather(&own)?.iter().enumerate() {
                writers[rank].put(part, |id, values| {
                    if rank != self.comm.rank() {
                        params[id].as_mut().expect("invariant: what is trained is a parameter").write(device, values);
                    }
                });
            }
        }
        Ok(())
    }
}

/// Things by their row in the table.
fn by_row<T>(all: impl Iterator<Item = T>, row: impl Fn(&T) -> usize) -> Vec<Option<T>> {
    let mut rows = Vec::new();
    for one in all {
        let row = row(&one);
        if rows.len() <= row {
            rows.resize_with(row + 1, || None);
        }
        rows[row] = Some(one);
    }
    rows
}

/// The values of parameters one behind the other, some at a time.
struct Reader<'a> {
    rest: std::slice::Iter<'a, (usize, usize)>,
    values: Vec<f32>,
}

impl<'a> Reader<'a> {
    fn new(owned: &'a [(usize, usize)]) -> Self {
        Self { rest: owned.iter(), values: Vec::new() }
    }

    /// The next values; fewer, or none, at the end.
    fn next(&mut self, count: usize, mut read: impl FnMut(usize, usize) -> Vec<f32>) -> Vec<f32> {
        while self.values.len() < count
            && let Some(&(id, elements)) = self.rest.next()
        {
            self.values.extend(read(id, elements));
        }
        let behind = self.values.split_off(self.values.len().min(count));
        std::mem::replace(&mut self.values, behind)
    }
}

/// The other way: values come some at a time, and a parameter is written when all of it is there.
struct Writer<'a> {
    rest: std::iter::Peekable<std::slice::Iter<'a, (usize, usize)>>,
    values: Vec<f32>,
}

impl<'a> Writer<'a> {
    fn new(owned: &'a [(usize, usize)]) -> Self {
        Self { rest: owned.iter().peekable(), values: Vec::new() }
    }

    fn put(&mut self, values: &[f32], mut write: impl FnMut(usize, &[f32])) {
        self.values.extend_from_slice(values);
        while let Some(&&(id, elements)) = self.rest.peek().filter(|(_, elements)| *elements <= self.values.len()) {
            self.rest.next();
            write(id, &self.values[..elements]);
            self.values.drain(..elements);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::supervised::SupervisedConfig;
    use crate::testing::{RATES, documents, on_ranks, trainer, update, weights};
    use crate::trainer::Trainer;

    /// Gradients are small numbers of the same size: a rank's are its number times these.
    const VALUES: [f32; 4] = [1.0, 1e8, -1e8, 0.1];

    /// Ranks, how many share out the experts, stages.
    const LAYOUTS: [[usize; 3]; 11] = [
        [2, 1, 1],
        [3, 1, 1],
        [8, 1, 1],
        [2, 2, 1],
        [4, 2, 1],
        [3, 3, 1],
        [8, 4, 1],
        [2, 1, 2],
        [4, 1, 2],
        [4, 2, 2],
        [8, 2, 2],
    ];

    #[test]
    fn sums_are_those_of_the_order_of_ranks() {
        let found = on_ranks([4, 1, 1], |mut trainer| {
            let (device, rank) = (trainer.device.clone(), trainer.ranks.rank());
            let Trainer { model, gradients, ranks, .. } = &mut trainer;
            for param in model.params() {
                gradients.write(&device, param, &vec![VALUES[rank]; param.shape().elements()]);
            }
            let trained = |p: &&Param| Trained { id: p.id(), elements: p.shape().elements(), kind: Kind::Whole };
            let shares = Shares::new(ranks, &model.params().iter().map(trained).collect::<Vec<_>>());
            shares.sum(&device, model, gradients).unwrap();
            let own = model.params().into_iter().filter(|param| shares.owns(param.id()));
            own.map(|param| (param.id(), gradients.get(param).unwrap().read())).collect::<Vec<_>>()
        });
        // ((1 + 1e8) - 1e8) + 0.1 in f32: another order gives 1.1 or 1.
        let mut ids = Vec::new();
        for (id, values) in found.into_iter().flatten() {
            assert!(values.iter().all(|value| *value == 0.1), "{id}: {:?}", &values[..1]);
            ids.push(id);
        }
        ids.sort_unstable();
        let all: Vec<usize> = trainer(true).model.params().iter().map(|param| param.id()).collect();
        assert_eq!(ids, all, "every parameter has one owner");
    }

    #[test]
    fn an_update_is_that_of_one_process() {
        let mut alone = trainer(true);
        let training = SupervisedConfig { micro_batch_tokens: 20, balance_weight: 0.01, ..SupervisedConfig::default() };
        let expected = update(&training, &mut alone, &documents(), RATES).unwrap().metrics;
        let states = |trainer: &Trainer| {
            let tensors = trainer.optimizer.tensors(&trainer.model);
            tensors.into_iter().map(|(name, tensor)| (name, tensor.read())).collect::<Vec<_>>()
        };
        for layout in LAYOUTS {
            let [ranks, ..] = layout;
            let found = on_ranks(layout, |mut trainer| {
                let record = update(&training, &mut trainer, &documents(), RATES).unwrap();
                assert_eq!(record.timings.iter().next().unwrap().1.as_array().unwrap().len(), ranks);
                (record.metrics, states(&trainer), weights(&trainer.model), trainer.ranks.experts().rank())
            });
            for (metrics, _, own, part) in &found {
                assert_eq!(metrics, &found[0].0, "ranks differ from each other");
                for (_, _, other, of) in &found {
                    // The same parameters, and of experts the same part.
                    let is_same = |name: &str| part == of || !name.contains(".experts.");
                    let both =
                        own.iter().filter_map(|(name, a)| Some((name, a, &other.iter().find(|(n, _)| n == name)?.1)));
                    both.filter(|(name, ..)| is_same(name)).for_each(|(name, a, b)| assert_eq!(a, b, "{name}"));
                }
                for name in ["loss", "next", "mtp", "balance", "grad_norm"] {
                    let (a, b) = (metrics.number(name).unwrap(), expected.number(name).unwrap());
                    assert!((a / b - 1.0).abs() < 1e-5, "{name}: {a} and {b}");
                }
                assert_eq!(metrics.number("expert_load/max_violation"), expected.number("expert_load/max_violation"));
            }
            // Momentum is the gradient times a constant: every gradient, by its owner; parts of experts one behind the other.
            let largest = found.iter().map(|(_, states, ..)| states.iter().map(|(_, v)| v.len()).sum::<usize>()).max();
            let mut pieces: Vec<(String, usize, Vec<f32>)> = Vec::new();
            for (_, states, _, part) in found {
                pieces.extend(states.into_iter().map(|(name, values)| (name, part, values)));
            }
            pieces.sort_by(|a, b| (&a.0, a.1).cmp(&(&b.0, b.1)));
            let mut all: Vec<(String, Vec<f32>)> = Vec::new();
            for (name, part, values) in pieces {
                match all.last_mut().filter(|(last, _)| *last == name) {
                    Some((_, whole)) if name.contains(".experts.") && part > 0 => whole.extend(values),
                    Some(_) => panic!("{name} has two owners"),
                    None => all.push((name, values)),
                }
            }
            let total: usize = all.iter().map(|(_, values)| values.len()).sum();
            assert!(largest.unwrap() < 2 * total / ranks, "{layout:?}: {largest:?} of {total} on one rank");
            let mut wanted = states(&alone);
            wanted.sort_by(|a, b| a.0.cmp(&b.0));
            assert_eq!(all.len(), wanted.len());
            for ((name, have), (wanted_name, want)) in all.iter().zip(&wanted) {
                assert_eq!((name, have.len()), (wanted_name, want.len()));
                let norm =
                    |values: &mut dyn Iterator<Item = f32>| values.map(|v| f64::from(v).powi(2)).sum::<f64>().sqrt();
                let size = norm(&mut want.iter().copied());
                let distance = norm(&mut have.iter().zip(want).map(|(a, b)| a - b));
                assert!(distance <= 1e-5 * size, "{layout:?}: {name}: {distance} of {size}");
            }
        }
    }
}

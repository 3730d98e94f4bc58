//! Collectives: what the ranks that share the work of a run send each other.
//!
//! A rank is a process of MPI or, within one process, a thread. Every rank calls the same operations in the same order. Nothing is
//! added up on the way: whoever sums has the parts of all ranks and adds them in the order of ranks, so a number of ranks has bits of
//! its own (E9).

use std::any::Any;
use std::path::Path;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};

use minke_sys::mpi::Group;
pub use minke_sys::mpi::{MpiError, PLUGIN_FILE, Plain};

use crate::error::Error;

type Result<T> = std::result::Result<T, Error>;

/// Ranks that share work, and which of them this one is. Clones are the same rank.
#[derive(Clone, Default)]
pub enum Comm {
    /// One rank: every operation returns at once.
    #[default]
    Single,
    /// Threads of this process.
    Threads(Seat),
    /// Processes that MPI started.
    Mpi(Arc<Group>),
}

/// The place of a thread among others.
#[derive(Clone)]
pub struct Seat {
    wires: Arc<Wires>,
    /// The ranks of this group, as the wires number them.
    members: Arc<[usize]>,
    rank: usize,
}

/// A thread's ends of the wires to and from all threads, itself included.
struct Wires {
    to: Vec<Sender<Box<dyn Any + Send>>>,
    from: Vec<Mutex<Receiver<Box<dyn Any + Send>>>>,
}

impl Comm {
    /// Ranks for so many threads, one for each. When a thread drops its rank, operations of the others that wait for it fail.
    pub fn threads(ranks: usize) -> Vec<Self> {
        let members: Arc<[usize]> = (0..ranks).collect();
        let mut ends: Vec<(Vec<_>, Vec<_>)> = (0..ranks).map(|_| (Vec::new(), Vec::new())).collect();
        for from in 0..ranks {
            for to in 0..ranks {
                let (sender, receiver) = channel();
                ends[from].0.push(sender);
                ends[to].1.push(Mutex::new(receiver));
            }
        }
        let seat = |(rank, (to, from))| {
            Self::Threads(Seat { wires: Arc::new(Wires { to, from }), members: members.clone(), rank })
        };
        ends.into_iter().enumerate().map(seat).collect()
    }

    /// All processes of an MPI job, by the plugin in this file. Once in a process.
    ///
    /// # Errors
    /// If the plugin cannot be loaded, or MPI does not start.
    pub fn mpi(plugin: &Path) -> Result<Self> {
        Ok(Self::Mpi(Arc::new(Group::start(plugin)?)))
    }

    /// This rank, from 0.
    pub fn rank(&self) -> usize {
        match self {
            Self::Single => 0,
            Self::Threads(seat) => seat.rank,
            Self::Mpi(group) => group.rank(),
        }
    }

    /// The number of ranks.
    pub fn ranks(&self) -> usize {
        match self {
            Self::Single => 1,
            Self::Threads(seat) => seat.members.len(),
            Self::Mpi(group) => group.ranks(),
        }
    }

    /// The ranks that give the same color, in the order that they have here.
    ///
    /// # Errors
    /// If a rank has ended.
    pub fn split(&self, color: usize) -> Result<Self> {
        Ok(match self {
            Self::Single => Self::Single,
            Self::Threads(seat) => {
                let colors = self.all_gather(&[color as u32])?;
                let members: Arc<[usize]> =
                    seat.members.iter().zip(colors).filter(|(_, of)| of[0] == color as u32).map(|(&m, _)| m).collect();
                let own = seat.members[seat.rank];
                let rank = members.iter().position(|&member| member == own);
                let rank = rank.expect("invariant: a rank has its own color");
                Self::Threads(Seat { wires: seat.wires.clone(), members, rank })
            }
            Self::Mpi(group) => Self::Mpi(Arc::new(group.split(color))),
        })
    }

    /// Sends a part to each rank and returns what each rank sent here, in the order of ranks.
    ///
    /// # Errors
    /// If a rank has ended, or the parts are more than MPI counts.
    ///
    /// # Panics
    /// If there is not one part for each rank, or another rank calls another operation.
    pub fn all_to_all<T: Plain>(&self, parts: &[&[T]]) -> Result<Vec<Vec<T>>> {
        assert_eq!(parts.len(), self.ranks(), "one part for each rank");
        match self {
            Self::Single => Ok(vec![parts[0].to_vec()]),
            Self::Threads(seat) => {
                for (part, &member) in parts.iter().zip(&*seat.members) {
                    // One that has ended is noticed where something is expected of it.
                    seat.wires.to[member].send(Box::new(part.to_vec())).ok();
                }
                let receive = |&member: &usize| {
                    let from = seat.wires.from[member].lock().unwrap_or_else(PoisonError::into_inner);
                    let part = from.recv().map_err(|_| Error::RankEnded { rank: member })?;
                    Ok(*part.downcast().expect("invariant: all ranks call the same operation"))
                };
                seat.members.iter().map(receive).collect()
            }
            Self::Mpi(group) => Ok(group.all_to_all(parts)?),
        }
    }

    /// What every rank has, in the order of ranks; the lengths may differ.
    ///
    /// # Errors
    /// As [`Comm::all_to_all`].
    pub fn all_gather<T: Plain>(&self, own: &[T]) -> Result<Vec<Vec<T>>> {
        self.all_to_all(&vec![own; self.ranks()])
    }

    /// Returns when all ranks have come here.
    ///
    /// # Errors
    /// If a rank has ended.
    pub fn wait(&self) -> Result<()> {
        self.all_gather::<u8>(&[]).map(|_| ())
    }

    /// Ends all ranks at once with an exit code, where they are processes: for one that cannot go on, while others wait for it.
    pub fn abort(&self, code: u8) {
        if let Self::Mpi(group) = self {
            group.abort(code);
        }
    }
}

impl std::fmt::Debug for Comm {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "rank {} of {}", self.rank(), self.ranks())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Does the same on so many threads, and returns what each found.
    fn on_threads<T: Send>(ranks: usize, work: impl Fn(Comm) -> T + Sync) -> Vec<T> {
        std::thread::scope(|scope| {
            let threads: Vec<_> = Comm::threads(ranks).into_iter().map(|comm| scope.spawn(|| work(comm))).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        })
    }

    #[test]
    fn every_part_arrives_where_it_belongs() {
        let found = on_threads(3, |comm| {
            let rank = comm.rank() as u32;
            let parts: Vec<Vec<u32>> = (0..3).map(|to| vec![10 * rank + to; to as usize + 1]).collect();
            comm.all_to_all(&parts.iter().map(|part| &part[..]).collect::<Vec<_>>()).unwrap()
        });
        for (to, parts) in found.iter().enumerate() {
            let expected: Vec<Vec<u32>> = (0..3).map(|from| vec![10 * from + to as u32; to + 1]).collect();
            assert_eq!(*parts, expected);
        }
    }

    #[test]
    fn a_part_of_the_ranks_is_a_group_of_its_own() {
        let found = on_threads(5, |comm| {
            let part = comm.split(comm.rank() % 2).unwrap();
            let again = part.split(0).unwrap();
            (part.rank(), again.ranks(), part.all_gather(&[comm.rank() as f32]).unwrap().concat())
        });
        for (rank, (place, ranks, seen)) in found.into_iter().enumerate() {
            let expected: Vec<f32> = (0..5).filter(|other| other % 2 == rank % 2).map(|other| other as f32).collect();
            assert_eq!((place, ranks, seen), (rank / 2, expected.len(), expected));
        }
    }

    #[test]
    fn a_rank_that_ends_is_named_by_those_that_wait_for_it() {
        let found = on_threads(3, |comm| {
            if comm.rank() == 1 {
                return String::new();
            }
            comm.wait().unwrap_err().to_string()
        });
        assert_eq!([&found[0], &found[2]], ["rank 1 has ended"; 2]);
    }

    #[test]
    fn alone_everything_returns_what_was_given() {
        let comm = Comm::default();
        assert_eq!((comm.rank(), comm.ranks()), (0, 1));
        assert_eq!(comm.all_gather(&[1.5f64, 2.5]).unwrap(), [[1.5, 2.5]]);
        assert_eq!(comm.split(7).unwrap().ranks(), 1);
    }
}

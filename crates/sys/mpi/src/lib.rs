//! The plugin by which Minke speaks to MPI: a handful of functions of plain C types over the `mpi` crate. It is built against the
//! cluster's own MPI library, so that what differs between libraries (handles, constants) stays in here.
//!
//! An error of the MPI library ends the whole job, as MPI itself has it; so no function returns one.

use std::slice::{from_raw_parts, from_raw_parts_mut};

use mpi::Threading;
use mpi::datatype::{Partition, PartitionMut};
use mpi::environment::Universe;
use mpi::topology::{Color, SimpleCommunicator};
use mpi::traits::{Communicator, CommunicatorCollectives};

/// Version of these functions; the program asks for it first and refuses another.
const VERSION: u32 = 1;

/// A job: MPI as long as it is started.
pub struct Job {
    _universe: Universe,
}

/// Ranks that speak to each other.
pub struct Group(SimpleCommunicator);

/// Which version of these functions this is.
#[unsafe(no_mangle)]
pub extern "C" fn minke_mpi_version() -> u32 {
    VERSION
}

/// Starts MPI, once in a process; null if that was done before, or if the library cannot be called by one thread at a time.
#[unsafe(no_mangle)]
pub extern "C" fn minke_mpi_start() -> *mut Job {
    match mpi::initialize_with_threading(Threading::Serialized) {
        Some((universe, threading)) if threading >= Threading::Serialized => {
            Box::into_raw(Box::new(Job { _universe: universe }))
        }
        _ => std::ptr::null_mut(),
    }
}

/// Ends MPI; all ranks wait for each other in it.
///
/// # Safety
/// `job` is from [`minke_mpi_start`] and is not used again, nor is any group.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn minke_mpi_end(job: *mut Job) {
    // SAFETY: it was made by `Box::into_raw`, and the caller gives it away.
    drop(unsafe { Box::from_raw(job) });
}

/// Ends all ranks of the job at once, with an exit code.
///
/// # Safety
/// `group` is from [`minke_mpi_world`] or [`minke_mpi_split`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn minke_mpi_abort(group: *const Group, code: i32) {
    // SAFETY: the caller's promise.
    unsafe { &*group }.0.abort(code);
}

/// All ranks of the job.
#[unsafe(no_mangle)]
pub extern "C" fn minke_mpi_world() -> *mut Group {
    Box::into_raw(Box::new(Group(SimpleCommunicator::world())))
}

/// The ranks of a group that give the same color, in the order that they have in it. Every rank of the group calls it.
///
/// # Safety
/// `group` is from [`minke_mpi_world`] or this function.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn minke_mpi_split(group: *const Group, color: i32) -> *mut Group {
    // SAFETY: the caller's promise.
    let part = unsafe { &*group }.0.split_by_color(Color::with_value(color));
    part.map_or(std::ptr::null_mut(), |part| Box::into_raw(Box::new(Group(part))))
}

/// This process's place in a group.
///
/// # Safety
/// `group` is from [`minke_mpi_world`] or [`minke_mpi_split`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn minke_mpi_rank(group: *const Group) -> i32 {
    // SAFETY: the caller's promise.
    unsafe { &*group }.0.rank()
}

/// The number of ranks of a group.
///
/// # Safety
/// `group` is from [`minke_mpi_world`] or [`minke_mpi_split`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn minke_mpi_size(group: *const Group) -> i32 {
    // SAFETY: the caller's promise.
    unsafe { &*group }.0.size()
}

/// Sends bytes to every rank of a group and receives bytes from every rank: `MPI_Alltoallv`. What belongs to each rank stands in the
/// order of ranks, without gaps; `*_counts` say how many bytes that is.
///
/// # Safety
/// `group` is from [`minke_mpi_world`] or [`minke_mpi_split`]; the counts are as many as it has ranks, none is negative, and `send`
/// and `receive` hold as many bytes as they add up to, which is at most `i32::MAX`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn minke_mpi_all_to_all(
    group: *const Group,
    send: *const u8,
    send_counts: *const i32,
    receive: *mut u8,
    receive_counts: *const i32,
) {
    // SAFETY: the caller's promise.
    let (group, send_counts, receive_counts) = unsafe {
        let group = &(*group).0;
        let ranks = group.size() as usize;
        (group, from_raw_parts(send_counts, ranks), from_raw_parts(receive_counts, ranks))
    };
    let total = |counts: &[i32]| counts.iter().map(|&count| count as usize).sum::<usize>();
    // Nothing must have an address that is one: that of an empty vector is 1, which Open MPI takes for `MPI_IN_PLACE`.
    let mut nothing = [0; 2];
    let (no_send, no_receive) = nothing.split_at_mut(1);
    // SAFETY: the caller's promise.
    let (send, receive) = unsafe {
        match (total(send_counts), total(receive_counts)) {
            (0, 0) => (&no_send[..0], &mut no_receive[..0]),
            (0, n) => (&no_send[..0], from_raw_parts_mut(receive, n)),
            (n, 0) => (from_raw_parts(send, n), &mut no_receive[..0]),
            (n, m) => (from_raw_parts(send, n), from_raw_parts_mut(receive, m)),
        }
    };
    let (from, to) = (starts(send_counts), starts(receive_counts));
    group.all_to_all_varcount_into(
        &Partition::new(send, send_counts, from),
        &mut PartitionMut::new(receive, receive_counts, to),
    );
}

/// Where each rank's part begins.
fn starts(counts: &[i32]) -> Vec<i32> {
    let mut end = 0;
    let next = |count: &i32| {
        end += count;
        end - count
    };
    counts.iter().map(next).collect()
}

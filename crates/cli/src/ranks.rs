//! The ranks of a job: whoever started the processes says in variables how many there are, and MPI connects them.

use std::path::PathBuf;

use anyhow::{Context, Result};
use minke_tensor::{Comm, PLUGIN_FILE};

use crate::environment::{self, Launched};
use crate::error::{self, Exit};

/// Joins the other ranks of the job, if this process was started as one of several.
///
/// # Errors
/// If the variables make no sense, the plugin for MPI is missing, or MPI connects another number of processes.
pub fn join() -> Result<Comm> {
    let Some(launched) = environment::launched() else { return Ok(Comm::Single) };
    let Launched { rank, ranks, variable } = &launched;
    let number = |text: &str| {
        let reason = || {
            Exit::Usage.because(format!("{variable}: rank {rank:?} of {ranks:?} is not a rank and a number of ranks"))
        };
        text.trim().parse::<usize>().map_err(|_| reason())
    };
    let (rank, ranks) = (number(rank)?, number(ranks)?);
    if ranks <= 1 {
        return Ok(Comm::Single);
    }
    let comm = Comm::mpi(&plugin()?).with_context(|| format!("rank {rank} of {ranks}, as {variable} says"))?;
    if (comm.rank(), comm.ranks()) != (rank, ranks) {
        return Err(Exit::Usage.because(format!(
            "{variable} says rank {rank} of {ranks}, MPI rank {} of {}: start the processes with the mpirun of the MPI library that the \
             plugin was built against, or srun --mpi=pmix, or unset {variable}",
            comm.rank(),
            comm.ranks()
        )));
    }
    Ok(comm)
}

/// The plugin: as named, or beside the program.
fn plugin() -> Result<PathBuf> {
    if let Some(named) = environment::mpi_plugin() {
        return Ok(named);
    }
    let program = std::env::current_exe().context("cannot find the program itself")?;
    Ok(program.with_file_name(PLUGIN_FILE))
}

/// Says which rank cannot go on and why, and ends all of them; those that are alone are left to their caller.
pub fn end_all(comm: &Comm, error: &anyhow::Error) {
    if comm.ranks() > 1 {
        eprintln!("minke: rank {} of {}: {}", comm.rank(), comm.ranks(), error::line(error));
        comm.abort(error::exit_code(error) as u8);
    }
}

//! Confinement by Linux.

use std::collections::BTreeSet;
use std::ffi::CString;
use std::fs::File;
use std::io::{self, Seek, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::{Duration, Instant};

use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible, PathBeneath, PathFd, Ruleset, RulesetAttr,
    RulesetCreatedAttr, Scope,
};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::MemfdFlags;
use rustix::process::{Pid, Signal, pidfd_send_signal};

use super::launch::{self, Plan, Prepared, Reach};
use super::root::Root;
use super::system_calls;
use super::{End, Files, How, Layer, Limits};

/// The newest Landlock whose rules are asked for; an older kernel gives what it has.
const LANDLOCK: ABI = ABI::V7;

/// What a process may do, prepared once for many processes.
pub struct Confinement(Prepared);

impl Confinement {
    /// Prepares what a process may do: the layers, what it may use up, the files that it may read.
    ///
    /// # Errors
    /// If a layer cannot be prepared or a file is missing; that a layer does not work is told by [`layers`] and by
    /// [`Confinement::start`].
    pub fn new(layers: &[Layer], limits: Limits, files: &Files) -> io::Result<Self> {
        let layers: BTreeSet<Layer> = layers.iter().copied().collect();
        let has = |layer| layers.contains(&layer);
        let (user, group) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        Ok(Self(Prepared {
            rules: if has(Layer::Landlock) { Some(rules(files)?) } else { None },
            filter: if has(Layer::Seccomp) { Some(system_calls::filter()?) } else { None },
            root: if has(Layer::MountNamespace) { Some(Root::plan(files)?) } else { None },
            user_map: [format!("{NOBODY} {user} 1"), format!("{NOBODY} {group} 1")],
            layers,
            limits,
        }))
    }

    /// Starts a program, which is one of the executable files, with its arguments (its own name left out), the whole of its
    /// environment, and its descriptors 0, 1, 2, ... It is killed when the thread that called this ends.
    ///
    /// # Errors
    /// If it cannot be started, or a layer does not work here.
    pub fn start(
        &self,
        program: &Path,
        arguments: &[&str],
        environment: &[(&str, &str)],
        files: &[BorrowedFd],
    ) -> io::Result<Child> {
        let path = CString::new(program.as_os_str().as_bytes())?;
        let arguments = arguments.iter().map(|argument| CString::new(*argument)).collect::<Result<Vec<_>, _>>()?;
        let variable = |(name, value): &(&str, &str)| CString::new(format!("{name}={value}"));
        let environment = environment.iter().map(variable).collect::<Result<Vec<_>, _>>()?;
        self.launch(Reach::Program { path: &path, arguments: &arguments, environment: &environment }, files)
    }

    fn launch(&self, reach: Reach, files: &[BorrowedFd]) -> io::Result<Child> {
        let (pid, handle) = launch::launch(&Plan::new(&self.0, reach, files)?)?;
        Ok(Child { pid, handle: Some(handle) })
    }
}

/// The user and the group inside of a user namespace.
const NOBODY: u32 = 65534;

fn rules(files: &Files) -> io::Result<OwnedFd> {
    let failed = |error: &dyn std::fmt::Display| io::Error::other(format!("Landlock: {error}"));
    let ruleset = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(LANDLOCK))
        .and_then(|rules| rules.handle_access(AccessNet::from_all(LANDLOCK)))
        .and_then(|rules| rules.scope(Scope::from_all(LANDLOCK)))
        .and_then(Ruleset::create);
    let mut rules = ruleset.map_err(|error| failed(&error))?;
    for (paths, run) in [(&files.readable, false), (&files.executable, true)] {
        for path in paths {
            let folder = std::fs::metadata(path)?.is_dir();
            let mut access = BitFlags::from(AccessFs::ReadFile);
            if folder {
                access |= AccessFs::ReadDir;
            }
            if run {
                access |= AccessFs::Execute;
            }
            let beneath = PathBeneath::new(PathFd::new(path).map_err(|error| failed(&error))?, access);
            rules = rules.add_rule(beneath).map_err(|error| failed(&error))?;
        }
    }
    Option::<OwnedFd>::from(rules).ok_or_else(|| failed(&"this kernel does not have it"))
}

/// A confined process. It is killed when this is dropped.
pub struct Child {
    pid: Pid,
    /// Its pidfd; nothing once it was waited for.
    handle: Option<OwnedFd>,
}

impl Child {
    /// What becomes readable when the process has ended.
    pub fn ended(&self) -> BorrowedFd<'_> {
        self.handle.as_ref().expect("invariant: only waiting takes the handle").as_fd()
    }

    /// Kills the process, with all that are in its pid namespace or, without one, in its group.
    pub fn kill(&self) {
        if let Some(handle) = &self.handle {
            // Each may find that the process has ended; until it was waited for, its number is no other's.
            let _ = rustix::process::kill_process_group(self.pid, Signal::KILL);
            let _ = pidfd_send_signal(handle, Signal::KILL);
        }
    }

    /// Waits for the end, and then kills what is left of its group.
    ///
    /// # Errors
    /// That of the system call.
    pub fn wait(mut self) -> io::Result<End> {
        self.reap()
    }

    fn reap(&mut self) -> io::Result<End> {
        wait_readable(&[self.ended()], Duration::MAX)?;
        self.kill();
        self.handle = None;
        launch::wait(self.pid)
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        if self.handle.is_some() {
            self.kill();
            // There is nobody to tell, and nothing else to do.
            let _ = self.reap();
        }
    }
}

/// Waits until a descriptor is readable or at its end, or the time is over; says of each whether it is.
///
/// # Errors
/// That of the system call.
pub fn wait_readable(files: &[BorrowedFd], time: Duration) -> io::Result<Vec<bool>> {
    let mut polled: Vec<PollFd> = files.iter().map(|file| PollFd::from_borrowed_fd(*file, PollFlags::IN)).collect();
    let start = Instant::now();
    loop {
        let left = Timespec::try_from(time.saturating_sub(start.elapsed())).ok();
        match poll(&mut polled, left.as_ref()) {
            Ok(_) => return Ok(polled.iter().map(|file| !file.revents().is_empty()).collect()),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// A file in memory with these bytes, to be read from its start.
///
/// # Errors
/// If there is no memory for it.
pub fn memory_file(bytes: &[u8]) -> io::Result<OwnedFd> {
    let mut file = File::from(rustix::fs::memfd_create(c"input", MemfdFlags::CLOEXEC)?);
    file.write_all(bytes)?;
    file.rewind()?;
    Ok(file.into())
}

/// The layers, each with the reason why it does not work on this machine. They are tried, not looked up.
pub fn layers() -> Vec<(Layer, Result<(), String>)> {
    Layer::ALL.map(|layer| (layer, works(layer).map_err(|error| error.to_string()))).into()
}

/// Starts a process that takes on the layer and ends.
fn works(layer: Layer) -> io::Result<()> {
    let with_users = [Layer::UserNamespace, layer];
    let alone = matches!(layer, Layer::Landlock | Layer::Seccomp | Layer::UserNamespace);
    let layers = if alone { &with_users[1..] } else { &with_users[..] };
    let limits = Limits { cpu_s: 10, memory_bytes: 1 << 40 };
    let end = Confinement::new(layers, limits, &Files::default())?.launch(Reach::Layers, &[])?.wait()?;
    match end.how {
        How::Exited(0) => Ok(()),
        how => Err(io::Error::other(format!("a process with it ended so: {how:?}"))),
    }
}

impl std::fmt::Debug for Confinement {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Confinement({:?}, {:?})", self.0.layers, self.0.limits)
    }
}

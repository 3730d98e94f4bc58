//! How does a process come to be confined before its program has run an instruction?
//!
//! The new process shares the memory of this one, and the thread that made it sleeps until the program is started or the
//! process ended (`CLONE_VM` and `CLONE_VFORK`): no page table is copied, however much memory a model takes. Until then it runs
//! the functions below on a stack of its own. Other threads run on beside it, so it only reads what was made for it, allocates
//! nothing, takes no lock, and does nothing but system calls.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::convert::Infallible;
use std::ffi::{CStr, CString, c_char, c_int, c_long, c_void};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;
use std::time::Duration;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::process::{Pid, Resource, Rlimit, Signal};
use rustix::thread::{CapabilitySet, CapabilitySets};
use seccompiler::BpfProgram;

use super::root::{Root, checked};
use super::{End, How, Layer, Limits};

/// Bytes of the stack on which the process prepares itself.
const STACK: usize = 256 << 10;
/// Open files of a process.
const OPEN_FILES: u64 = 64;
/// Bytes of its own stack.
const OWN_STACK: u64 = 8 << 20;
/// Capabilities that a kernel may know of, at most.
const CAPABILITIES: c_int = 64;

/// What a process takes on, prepared for many processes.
pub struct Prepared {
    pub layers: BTreeSet<Layer>,
    pub limits: Limits,
    /// Of Landlock.
    pub rules: Option<OwnedFd>,
    pub filter: Option<BpfProgram>,
    pub root: Option<Root>,
    /// `uid_map` and `gid_map` of a user namespace: nobody inside is the user outside.
    pub user_map: [String; 2],
}

/// How far the new process gets.
pub enum Reach<'a> {
    /// To its layers; then it ends.
    Layers,
    /// To the program.
    Program { path: &'a CStr, arguments: &'a [CString], environment: &'a [CString] },
}

/// All that the new process looks at.
pub struct Plan<'a> {
    prepared: &'a Prepared,
    path: Option<&'a CStr>,
    arguments: Vec<*const c_char>,
    environment: Vec<*const c_char>,
    /// What become 0, 1, 2, ...; each has a higher number than all of these.
    files: Vec<OwnedFd>,
    /// Where it could not go on, and why.
    failed: Cell<Option<(&'static str, Errno)>>,
}

impl<'a> Plan<'a> {
    pub fn new(prepared: &'a Prepared, reach: Reach<'a>, files: &[BorrowedFd]) -> io::Result<Self> {
        let lowest = files.len() as RawFd;
        let above = |file: &BorrowedFd| rustix::io::fcntl_dupfd_cloexec(file, lowest.max(3));
        let files = files.iter().map(above).collect::<Result<_, _>>()?;
        let pointers = |texts: &[CString]| texts.iter().map(|text| text.as_ptr()).chain([ptr::null()]).collect();
        let (path, arguments, environment) = match reach {
            Reach::Layers => (None, Vec::new(), Vec::new()),
            Reach::Program { path, arguments, environment } => {
                let mut with_name: Vec<*const c_char> = pointers(arguments);
                with_name.insert(0, path.as_ptr());
                (Some(path), with_name, pointers(environment))
            }
        };
        Ok(Self { prepared, path, arguments, environment, files, failed: Cell::new(None) })
    }
}

/// Starts a process by a plan: its number and its pidfd.
pub fn launch(plan: &Plan) -> io::Result<(Pid, OwnedFd)> {
    let mut flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::CLONE_PIDFD | libc::SIGCHLD;
    for (layer, flag) in [
        (Layer::UserNamespace, libc::CLONE_NEWUSER),
        (Layer::MountNamespace, libc::CLONE_NEWNS),
        (Layer::PidNamespace, libc::CLONE_NEWPID),
        (Layer::NetworkNamespace, libc::CLONE_NEWNET | libc::CLONE_NEWIPC),
    ] {
        flags |= if plan.prepared.layers.contains(&layer) { flag } else { 0 };
    }
    let mut stack = vec![0_u128; STACK / size_of::<u128>()];
    let mut handle: RawFd = -1;
    let mut before = MaybeUninit::uninit();
    // SAFETY: the sets are filled before they are read. The stack is aligned to 16 bytes and is the new process's alone; it and
    // the plan live on until `clone` returns, and by then the process has left this memory: it runs its program or has ended.
    // No signal reaches it in between, as all are blocked. The function allocates nothing and takes no lock, so that it does
    // not matter what other threads hold.
    let (number, error) = unsafe {
        let mut all = MaybeUninit::uninit();
        libc::sigfillset(all.as_mut_ptr());
        libc::pthread_sigmask(libc::SIG_BLOCK, all.as_ptr(), before.as_mut_ptr());
        let top = stack.as_mut_ptr_range().end.cast();
        let number = libc::clone(run, top, flags, ptr::from_ref(plan).cast_mut().cast(), &raw mut handle);
        let error = io::Error::last_os_error();
        libc::pthread_sigmask(libc::SIG_SETMASK, before.as_ptr(), ptr::null_mut());
        (number, error)
    };
    let Some(pid) = Pid::from_raw(number).filter(|_| number > 0) else {
        let names: Vec<&str> = plan.prepared.layers.iter().map(|layer| layer.name()).collect();
        return Err(io::Error::new(error.kind(), format!("a process with {}: {error}", names.join(", "))));
    };
    // SAFETY: `clone` has just put a new descriptor there.
    let handle = unsafe { OwnedFd::from_raw_fd(handle) };
    if let Some((step, error)) = plan.failed.get() {
        wait(pid)?;
        let error = io::Error::from(error);
        return Err(io::Error::new(error.kind(), format!("{step}: {error}")));
    }
    Ok((pid, handle))
}

/// What the new process does.
extern "C" fn run(plan: *mut c_void) -> c_int {
    // SAFETY: `launch` hands over a plan, which it keeps until this process has left its memory.
    let plan = unsafe { &*plan.cast::<Plan>() };
    match confine(plan) {
        Ok(()) => 0,
        Err(failed) => {
            plan.failed.set(Some(failed));
            1
        }
    }
}

/// Takes on all that confines, then starts the program. The order matters: each step needs rights that a later one takes.
fn confine(plan: &Plan) -> Result<(), (&'static str, Errno)> {
    let prepared = plan.prepared;
    let at = |step: &'static str| move |error| (step, error);
    default_signals();
    rustix::process::setsid().map_err(at("a session"))?;
    if prepared.layers.contains(&Layer::UserNamespace) {
        let maps = [(c"/proc/self/setgroups", "deny"), (c"/proc/self/uid_map", &prepared.user_map[0])];
        for (path, text) in maps.into_iter().chain([(c"/proc/self/gid_map", prepared.user_map[1].as_str())]) {
            write(path, text.as_bytes()).map_err(at("users of a namespace"))?;
        }
    }
    if let Some(root) = &prepared.root {
        root.enter().map_err(at("a root of its own"))?;
    }
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))
        .map_err(at("the signal of a parent's death"))?;
    limit(prepared).map_err(at("limits"))?;
    drop_capabilities().map_err(at("capabilities"))?;
    rustix::thread::set_no_new_privs(true).map_err(at("no new privileges"))?;
    if let Some(rules) = &prepared.rules {
        // SAFETY: the arguments are numbers.
        let result = unsafe { libc::syscall(libc::SYS_landlock_restrict_self, rules.as_raw_fd(), 0) };
        checked(result).map_err(at("Landlock"))?;
    }
    // From here on the rules may have lost their number to one that is handed over.
    hand_over(&plan.files).map_err(at("descriptors"))?;
    // SAFETY: the numbers are the kernel's own; nothing in this process uses what is closed.
    let result = unsafe { libc::syscall(libc::SYS_close_range, plan.files.len(), c_long::from(u32::MAX), 0) };
    checked(result).map_err(at("descriptors"))?;
    unblock_signals();
    if let Some(filter) = &prepared.filter {
        seccompiler::apply_filter(filter).map_err(|_| ("seccomp", Errno::INVAL))?;
    }
    match plan.path {
        Some(path) => execute(path, plan).map(|never| match never {}).map_err(at("the program")),
        None => Ok(()),
    }
}

fn write(path: &CStr, text: &[u8]) -> Result<(), Errno> {
    let file = rustix::fs::open(path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?;
    rustix::io::write(file, text).map(drop)
}

fn limit(prepared: &Prepared) -> Result<(), Errno> {
    let limits = &prepared.limits;
    for (resource, most) in [
        (Resource::Cpu, limits.cpu_s),
        (Resource::As, limits.memory_bytes),
        (Resource::Fsize, 0),
        (Resource::Nproc, 0),
        (Resource::Core, 0),
        (Resource::Memlock, 0),
        (Resource::Msgqueue, 0),
        (Resource::Nofile, OPEN_FILES),
    ] {
        rustix::process::setrlimit(resource, Rlimit { current: Some(most), maximum: Some(most) })?;
    }
    let highest = rustix::process::getrlimit(Resource::Stack).maximum.map_or(OWN_STACK, |most| most.min(OWN_STACK));
    rustix::process::setrlimit(Resource::Stack, Rlimit { current: Some(highest), maximum: Some(highest) })
}

/// Gives up all capabilities, and those that starting a program would bring back.
fn drop_capabilities() -> Result<(), Errno> {
    for capability in 0..CAPABILITIES {
        // Refused of one that does not exist, and of all where there is none to give up.
        // SAFETY: the arguments are numbers.
        unsafe { libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0) };
    }
    let none = CapabilitySet::empty();
    rustix::thread::set_capabilities(None, CapabilitySets { effective: none, permitted: none, inheritable: none })
}

/// Makes the descriptors 0, 1, 2, ...
fn hand_over(files: &[OwnedFd]) -> Result<(), Errno> {
    for (number, file) in files.iter().enumerate() {
        // SAFETY: the arguments are numbers, and what is replaced is used by nothing in this process.
        checked(unsafe { libc::dup2(file.as_raw_fd(), number as RawFd) }.into())?;
    }
    Ok(())
}

/// The actions of all signals as they are by default: what this program handles or ignores is not the other's business.
fn default_signals() {
    /// Bytes of a set of signals in the kernel.
    const SET: usize = 8;
    // The kernel's own structure, which is larger nowhere; all zeros stand for the default. The C library's function would leave
    // out the signals that it keeps for itself.
    let default = [0_u64; 8];
    for signal in 1..=64 {
        // SAFETY: the structure is read alone. A signal without an action of choice is refused.
        unsafe { libc::syscall(libc::SYS_rt_sigaction, signal, default.as_ptr(), ptr::null::<u64>(), SET) };
    }
}

fn unblock_signals() {
    let mut none = MaybeUninit::uninit();
    // SAFETY: the set is emptied before it is read.
    unsafe {
        libc::sigemptyset(none.as_mut_ptr());
        libc::pthread_sigmask(libc::SIG_SETMASK, none.as_ptr(), ptr::null_mut());
    }
}

fn execute(path: &CStr, plan: &Plan) -> Result<Infallible, Errno> {
    // SAFETY: all texts end with a zero and both lists with a null pointer.
    checked(unsafe { libc::execve(path.as_ptr(), plan.arguments.as_ptr(), plan.environment.as_ptr()) }.into())?;
    Err(Errno::NOEXEC)
}

/// Waits for the end of a process that was started here, once.
pub fn wait(pid: Pid) -> io::Result<End> {
    let mut status = 0;
    let mut usage = MaybeUninit::<libc::rusage>::zeroed();
    loop {
        // SAFETY: both are written to as what they are.
        let result = unsafe { libc::wait4(pid.as_raw_nonzero().get(), &raw mut status, 0, usage.as_mut_ptr()) };
        match result {
            -1 if io::Error::last_os_error().kind() == io::ErrorKind::Interrupted => {}
            -1 => return Err(io::Error::last_os_error()),
            _ => break,
        }
    }
    // SAFETY: every bit pattern, that of zeros too, is a value of these numbers.
    let usage = unsafe { usage.assume_init() };
    let time = |time: libc::timeval| Duration::new(time.tv_sec as u64, time.tv_usec as u32 * 1000);
    let how = if libc::WIFSIGNALED(status) {
        How::Signalled(libc::WTERMSIG(status))
    } else {
        How::Exited(libc::WEXITSTATUS(status))
    };
    Ok(End { how, cpu: time(usage.ru_utime) + time(usage.ru_stime) })
}

//! Which system calls does an interpreter need that only computes? This list; all others fail with `EPERM`.
//!
//! Calls that can do more than read are allowed for harmless arguments alone. There is no call to start a process or thread, to
//! reach the network, to signal or trace, to change a file, or to make memory that others share. `execve` has to be there, as
//! the filter stands before the program is started; what it may start is Landlock's and the mount namespace's business, and
//! whatever is started keeps the filter.

use std::collections::BTreeMap;
use std::io;

use seccompiler::SeccompCmpArgLen::{Dword, Qword};
use seccompiler::SeccompCmpOp::{Eq, MaskedEq};
use seccompiler::{BpfProgram, SeccompAction, SeccompCondition, SeccompFilter, SeccompRule};

/// Allowed whatever their arguments.
const ALLOWED: &[i64] = &[
    libc::SYS_brk,
    libc::SYS_clock_getres,
    libc::SYS_clock_gettime,
    libc::SYS_clock_nanosleep,
    libc::SYS_close,
    libc::SYS_execve,
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_faccessat,
    libc::SYS_faccessat2,
    libc::SYS_fstat,
    libc::SYS_futex,
    libc::SYS_getcwd,
    libc::SYS_getdents64,
    libc::SYS_getegid,
    libc::SYS_geteuid,
    libc::SYS_getgid,
    libc::SYS_getpid,
    libc::SYS_getppid,
    libc::SYS_getrandom,
    libc::SYS_getrusage,
    libc::SYS_gettid,
    libc::SYS_gettimeofday,
    libc::SYS_getuid,
    libc::SYS_lseek,
    libc::SYS_madvise,
    libc::SYS_mmap,
    libc::SYS_mprotect,
    libc::SYS_mremap,
    libc::SYS_munmap,
    libc::SYS_nanosleep,
    libc::SYS_newfstatat,
    libc::SYS_ppoll,
    libc::SYS_pread64,
    libc::SYS_pselect6,
    libc::SYS_read,
    libc::SYS_readlinkat,
    libc::SYS_restart_syscall,
    libc::SYS_rseq,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sched_getaffinity,
    libc::SYS_sched_yield,
    libc::SYS_set_robust_list,
    libc::SYS_set_tid_address,
    libc::SYS_sigaltstack,
    libc::SYS_statx,
    libc::SYS_sysinfo,
    libc::SYS_times,
    libc::SYS_uname,
    libc::SYS_write,
    libc::SYS_writev,
];

/// Older forms of the above, which 64-bit ARM never had.
#[cfg(target_arch = "x86_64")]
const ALLOWED_OLD: &[i64] = &[
    libc::SYS_access,
    libc::SYS_arch_prctl,
    libc::SYS_getrlimit,
    libc::SYS_lstat,
    libc::SYS_poll,
    libc::SYS_readlink,
    libc::SYS_select,
    libc::SYS_stat,
    libc::SYS_time,
];
#[cfg(not(target_arch = "x86_64"))]
const ALLOWED_OLD: &[i64] = &[];

/// Flags with which opening a file may do more than read.
const WRITING: libc::c_int = libc::O_WRONLY
    | libc::O_RDWR
    | libc::O_CREAT
    | libc::O_TRUNC
    | libc::O_APPEND
    | (libc::O_TMPFILE & !libc::O_DIRECTORY);

/// What `ioctl` may ask: whether a descriptor is a terminal, and whether `execve` closes it.
const IOCTLS: [u64; 3] = [libc::TCGETS, libc::FIOCLEX, libc::FIONCLEX];

/// What `fcntl` may ask: flags, and another number for a descriptor.
const FCNTLS: [libc::c_int; 5] = [libc::F_GETFD, libc::F_SETFD, libc::F_GETFL, libc::F_DUPFD, libc::F_DUPFD_CLOEXEC];

/// The filter, compiled for this processor.
///
/// # Errors
/// If the library does not know the processor.
pub fn filter() -> io::Result<BpfProgram> {
    compile().map_err(|error| io::Error::other(format!("the filter of system calls: {error}")))
}

fn compile() -> Result<BpfProgram, seccompiler::BackendError> {
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> =
        ALLOWED.iter().chain(ALLOWED_OLD).map(|call| (*call, Vec::new())).collect();
    let rule = |conditions: Vec<SeccompCondition>| SeccompRule::new(conditions);
    let reading = MaskedEq(WRITING as u64);
    #[cfg(target_arch = "x86_64")]
    rules.insert(libc::SYS_open, vec![rule(vec![SeccompCondition::new(1, Dword, reading.clone(), 0)?])?]);
    rules.insert(libc::SYS_openat, vec![rule(vec![SeccompCondition::new(2, Dword, reading, 0)?])?]);
    let one_of = |argument: u8, value: u64| rule(vec![SeccompCondition::new(argument, Dword, Eq, value)?]);
    rules.insert(libc::SYS_ioctl, IOCTLS.iter().map(|ask| one_of(1, *ask)).collect::<Result<_, _>>()?);
    rules.insert(libc::SYS_fcntl, FCNTLS.iter().map(|ask| one_of(1, *ask as u64)).collect::<Result<_, _>>()?);
    // Its own limits, to be read.
    let own = SeccompCondition::new(0, Dword, Eq, 0)?;
    rules.insert(libc::SYS_prlimit64, vec![rule(vec![own, SeccompCondition::new(2, Qword, Eq, 0)?])?]);
    let filter = SeccompFilter::new(
        rules,
        SeccompAction::Errno(libc::EPERM as u32),
        SeccompAction::Allow,
        std::env::consts::ARCH.try_into()?,
    )?;
    filter.try_into()
}

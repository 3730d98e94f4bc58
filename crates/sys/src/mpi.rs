//! MPI: ranks of a job that send each other numbers.
//!
//! Libraries of MPI differ in their binary interface, so the program links none: a plugin (`crates/sys/mpi`, over the `mpi` crate) is
//! built against the cluster's own library and loaded when a job has more than one rank. An error of the MPI library ends the job.

use std::ffi::c_void;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use libloading::Library;

/// Version of the plugin's functions that is spoken here.
const VERSION: u32 = 1;

/// What the plugin calls itself, as a file.
pub const PLUGIN_FILE: &str = if cfg!(target_os = "macos") { "libminke_mpi.dylib" } else { "libminke_mpi.so" };

/// Why MPI cannot be used.
#[derive(Debug)]
pub enum MpiError {
    /// The plugin cannot be loaded, or is none.
    Plugin {
        /// Its file.
        path: PathBuf,
        /// What the system said.
        reason: String,
    },
    /// The MPI library does not start.
    Start,
    /// One operation would move more bytes than MPI counts.
    TooLong {
        /// How many.
        bytes: usize,
    },
}

impl std::fmt::Display for MpiError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Plugin { path, reason } => write!(
                f,
                "{}: the plugin for MPI cannot be loaded: {reason}; build it as docs/clusters.md says",
                path.display()
            ),
            Self::Start => f.write_str("MPI does not start: the library cannot be called by one thread at a time"),
            Self::TooLong { bytes } => {
                write!(
                    f,
                    "{bytes} bytes in one operation are more than MPI counts; share the work out among more ranks"
                )
            }
        }
    }
}

impl std::error::Error for MpiError {}

/// Numbers that may be sent: every bit pattern is one.
///
/// # Safety
/// The type has no padding and no invalid bit pattern.
pub unsafe trait Plain: Copy + Default + Send + 'static {}
// SAFETY: so it is.
unsafe impl Plain for u8 {}
// SAFETY: so it is.
unsafe impl Plain for u32 {}
// SAFETY: so it is.
unsafe impl Plain for f32 {}
// SAFETY: so it is.
unsafe impl Plain for f64 {}

type Handle = *mut c_void;

/// The functions of the plugin, as `crates/sys/mpi/src/lib.rs` declares them.
struct Functions {
    start: unsafe extern "C" fn() -> Handle,
    end: unsafe extern "C" fn(Handle),
    abort: unsafe extern "C" fn(Handle, i32),
    world: unsafe extern "C" fn() -> Handle,
    split: unsafe extern "C" fn(Handle, i32) -> Handle,
    rank: unsafe extern "C" fn(Handle) -> i32,
    size: unsafe extern "C" fn(Handle) -> i32,
    all_to_all: unsafe extern "C" fn(Handle, *const u8, *const i32, *mut u8, *const i32),
}

/// MPI as long as it is started.
struct Job {
    functions: Functions,
    job: Handle,
    world: Handle,
    /// MPI may be called by any thread, but by one at a time.
    calls: Mutex<()>,
    /// Last, so that the functions stay where they are until then.
    _library: Library,
}

// SAFETY: the handles are given to the plugin alone, by one thread at a time (`Job::call`), for which MPI was asked at its start.
unsafe impl Send for Job {}
// SAFETY: the same.
unsafe impl Sync for Job {}

impl Job {
    fn call<T>(&self, function: impl FnOnce(&Functions) -> T) -> T {
        let _one = self.calls.lock().unwrap_or_else(PoisonError::into_inner);
        function(&self.functions)
    }
}

impl Drop for Job {
    fn drop(&mut self) {
        // The end waits for all ranks: one that panics must not make the others wait for what it will never send.
        if std::thread::panicking() {
            // SAFETY: the handle is the world's; the plugin is loaded.
            unsafe { (self.functions.abort)(self.world, 101) };
        }
        // SAFETY: the handle is of `start`, and this is its last use; no group is left, as each holds the job.
        unsafe { (self.functions.end)(self.job) };
    }
}

/// Ranks of a job that send to each other. The job ends with its last group, and all ranks wait for each other there.
pub struct Group {
    job: Arc<Job>,
    handle: Handle,
    rank: usize,
    ranks: usize,
}

// SAFETY: the handle is used under the lock of the job alone.
unsafe impl Send for Group {}
// SAFETY: the same.
unsafe impl Sync for Group {}

impl Group {
    /// Loads the plugin, starts MPI, and returns all ranks of the job. Once in a process.
    ///
    /// # Errors
    /// If the plugin is missing or another, or MPI does not start.
    pub fn start(plugin: &Path) -> Result<Self, MpiError> {
        let refuse = |reason: String| MpiError::Plugin { path: plugin.to_path_buf(), reason };
        let failed = |error: libloading::Error| {
            let said = std::error::Error::source(&error).map_or_else(|| error.to_string(), ToString::to_string);
            refuse(said)
        };
        // SAFETY: loading runs what the library does at its start. It is the file that the person who starts the program named or
        // put beside it, as trusted as the program.
        let library = unsafe { Library::new(plugin) }.map_err(failed)?;
        // SAFETY: the type is the one that the plugin declares.
        let version = unsafe { library.get::<unsafe extern "C" fn() -> u32>(b"minke_mpi_version") };
        // SAFETY: it takes nothing and returns a number.
        let version = version.map(|version| unsafe { version() }).map_err(failed)?;
        if version != VERSION {
            return Err(refuse(format!("it has version {version}, the program speaks {VERSION}")));
        }
        macro_rules! function {
            ($name:literal) => {
                // SAFETY: a plugin of this version declares the function with the type of the field.
                unsafe { *library.get($name).map_err(failed)? }
            };
        }
        let functions = Functions {
            start: function!(b"minke_mpi_start"),
            end: function!(b"minke_mpi_end"),
            abort: function!(b"minke_mpi_abort"),
            world: function!(b"minke_mpi_world"),
            split: function!(b"minke_mpi_split"),
            rank: function!(b"minke_mpi_rank"),
            size: function!(b"minke_mpi_size"),
            all_to_all: function!(b"minke_mpi_all_to_all"),
        };
        // SAFETY: the plugin was just loaded; MPI is asked for its world once it is started.
        let (job, world) = unsafe {
            let job = (functions.start)();
            if job.is_null() {
                return Err(MpiError::Start);
            }
            (job, (functions.world)())
        };
        let job = Arc::new(Job { functions, job, world, calls: Mutex::new(()), _library: library });
        Ok(Self::of(job, world))
    }

    fn of(job: Arc<Job>, handle: Handle) -> Self {
        // SAFETY: the handle is a group of the job.
        let [rank, ranks] = job.call(|f| unsafe { [(f.rank)(handle), (f.size)(handle)] }).map(|count| count as usize);
        Self { job, handle, rank, ranks }
    }

    /// This process among the ranks.
    pub fn rank(&self) -> usize {
        self.rank
    }

    /// How many ranks there are.
    pub fn ranks(&self) -> usize {
        self.ranks
    }

    /// The ranks that give the same color, in the order that they have here. All ranks call it.
    #[must_use]
    pub fn split(&self, color: usize) -> Self {
        // SAFETY: the handle is a group of the job, and a color is a number that is not negative.
        let part = self.job.call(|f| unsafe { (f.split)(self.handle, (color % (1 << 30)) as i32) });
        Self::of(self.job.clone(), part)
    }

    /// Sends numbers to each rank and returns what each sent here, in the order of ranks. All ranks call it.
    ///
    /// # Errors
    /// If they are more bytes than MPI counts.
    ///
    /// # Panics
    /// If there is not one part for each rank.
    pub fn all_to_all<T: Plain>(&self, parts: &[&[T]]) -> Result<Vec<Vec<T>>, MpiError> {
        assert_eq!(parts.len(), self.ranks, "one part for each rank");
        let sizes: Vec<u32> = parts.iter().map(|part| bytes_of(part)).collect::<Result<_, _>>()?;
        // What to expect, first.
        let ones = vec![1; self.ranks];
        let mut expected = vec![0u32; self.ranks];
        self.exchange(&sizes, &ones, &mut expected, &ones)?;
        let counts = expected.iter().map(|&bytes| bytes as usize / size_of::<T>()).collect::<Vec<_>>();
        let mut received = vec![T::default(); counts.iter().sum()];
        let own: Vec<usize> = parts.iter().map(|part| part.len()).collect();
        self.exchange(&parts.concat(), &own, &mut received, &counts)?;
        let mut rest = &received[..];
        let cut = |count: &usize| {
            let (part, behind) = rest.split_at(*count);
            rest = behind;
            part.to_vec()
        };
        Ok(counts.iter().map(cut).collect())
    }

    /// Moves so many numbers to each rank and from each rank.
    fn exchange<T: Plain>(
        &self,
        send: &[T],
        send_counts: &[usize],
        receive: &mut [T],
        receive_counts: &[usize],
    ) -> Result<(), MpiError> {
        bytes_of(send)?;
        bytes_of(receive)?;
        debug_assert_eq!(send_counts.iter().sum::<usize>(), send.len());
        debug_assert_eq!(receive_counts.iter().sum::<usize>(), receive.len());
        let bytes = |counts: &[usize]| counts.iter().map(|count| (count * size_of::<T>()) as i32).collect::<Vec<_>>();
        let (send_counts, receive_counts) = (bytes(send_counts), bytes(receive_counts));
        // SAFETY: the handle is a group of the job with as many ranks as there are counts, which add up to the bytes of the slices and
        // stay below `i32::MAX`; what is received are bytes, of which a `Plain` has none that is invalid.
        self.job.call(|f| unsafe {
            (f.all_to_all)(
                self.handle,
                send.as_ptr().cast(),
                send_counts.as_ptr(),
                receive.as_mut_ptr().cast(),
                receive_counts.as_ptr(),
            );
        });
        Ok(())
    }

    /// Ends all ranks of the job at once with an exit code: MPI's own way to say that one of them cannot go on.
    pub fn abort(&self, code: u8) {
        // Without the lock: a thread may wait in a call for ranks that will never answer.
        // SAFETY: the handle is the world's.
        unsafe { (self.job.functions.abort)(self.job.world, i32::from(code)) };
    }
}

/// The size of some numbers, if MPI counts that far.
fn bytes_of<T>(numbers: &[T]) -> Result<u32, MpiError> {
    let bytes = size_of_val(numbers);
    i32::try_from(bytes).map(|bytes| bytes as u32).map_err(|_| MpiError::TooLong { bytes })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_plugin_is_refused_by_name() {
        let folder = tempfile::tempdir().unwrap();
        let missing = folder.path().join(PLUGIN_FILE);
        let text = Group::start(&missing).map(|_| ()).unwrap_err().to_string();
        assert!(
            text.starts_with(&missing.display().to_string()) && text.ends_with("as docs/clusters.md says"),
            "{text}"
        );
        std::fs::write(&missing, "no library").unwrap();
        assert!(matches!(Group::start(&missing), Err(MpiError::Plugin { .. })));
        // A library that is something else: the C library has none of the functions.
        if cfg!(all(target_os = "linux", target_env = "gnu")) {
            let text = Group::start(Path::new("libc.so.6")).map(|_| ()).unwrap_err().to_string();
            assert!(text.contains("minke_mpi_version"), "{text}");
        }
    }
}

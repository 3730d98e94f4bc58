//! Services of the operating system: files as memory ([`Bytes`]), files that appear whole ([`atomic`]), how the allocator
//! shares out memory ([`few_arenas`]), signals ([`terminate_as_interrupt`]), processes that may do little ([`confine`]), other processes of the same job ([`mpi`]).
//!
//! With `kernels` the only crate with `unsafe`.

pub mod atomic;
pub mod confine;
pub mod mpi;

use std::fs::File;
use std::io;
use std::ops::{Deref, Range};
use std::path::Path;
use std::sync::Arc;

/// Lets the threads of a process that runs for days share two arenas of the C library's allocator instead of up to eight to
/// each core. What a thread frees goes back to the arena it came from, so each arena keeps the most that its threads ever held at
/// once, and a server's memory creeps up for hours. To be called before other threads start; other libraries than glibc have no
/// arenas, and nothing is done.
pub fn few_arenas() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: sets a number of the allocator, under a lock of its own.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 2);
    }
}

/// Makes SIGTERM do what SIGINT does, from now on. Without a handler process 1 of a container, which nothing else starts, is not ended
/// by it, and goes on until it is killed. Other systems than Linux have no containers, and nothing is done.
///
/// # Errors
/// If the system refuses.
pub fn terminate_as_interrupt() -> io::Result<()> {
    #[cfg(target_os = "linux")]
    {
        extern "C" fn interrupt(_signal: libc::c_int) {
            // SAFETY: raise may be called in a handler of signals; the arguments are constants.
            unsafe { libc::raise(libc::SIGINT) };
        }
        let handler = interrupt as extern "C" fn(libc::c_int) as *const ();
        // SAFETY: the handler lives as long as the program, and calls nothing that a handler may not.
        if unsafe { libc::signal(libc::SIGTERM, handler as libc::sighandler_t) } == libc::SIG_ERR {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

/// Bytes that many may read: a range of a file, mapped or read. Clones share them.
#[derive(Clone)]
pub struct Bytes {
    whole: Arc<Whole>,
    range: Range<usize>,
}

enum Whole {
    Mapped(memmap2::Mmap),
    Owned(Vec<u8>),
}

impl Bytes {
    /// Maps a file: its bytes are read when they are looked at, and the system may drop and read them again.
    ///
    /// The file must not shrink while it is mapped: the process would be killed where the bytes are missing. Where that
    /// could happen, read it ([`Bytes::from`] a vector).
    ///
    /// # Errors
    /// If the file cannot be opened or mapped.
    pub fn map(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        if file.metadata()?.len() == 0 {
            return Ok(Self::from(Vec::new()));
        }
        // SAFETY: the bytes are only read, as numbers of which every bit pattern is valid or as text that is checked; a
        // writer in another process can change what they say, not what reading them may do.
        let map = unsafe { memmap2::Mmap::map(&file)? };
        Ok(Self { range: 0..map.len(), whole: Arc::new(Whole::Mapped(map)) })
    }

    /// Lets the system drop the pages of a mapped file from this process: they are read again where someone looks at them. For
    /// bytes that were read once, as they count as memory of the process until then.
    pub fn forget_pages(&self) {
        #[cfg(unix)]
        if let Whole::Mapped(map) = &*self.whole {
            // SAFETY: the mapping is shared with its file and never written, so pages that are dropped come back as they were.
            // A refusal leaves them where they are.
            let _ = unsafe {
                map.unchecked_advise_range(memmap2::UncheckedAdvice::DontNeed, self.range.start, self.range.len())
            };
        }
    }

    /// A part, if these bytes have it.
    pub fn slice(&self, range: Range<usize>) -> Option<Self> {
        let (start, end) = (self.range.start.checked_add(range.start)?, self.range.start.checked_add(range.end)?);
        (start <= end && end <= self.range.end).then(|| Self { whole: Arc::clone(&self.whole), range: start..end })
    }
}

impl From<Vec<u8>> for Bytes {
    fn from(bytes: Vec<u8>) -> Self {
        Self { range: 0..bytes.len(), whole: Arc::new(Whole::Owned(bytes)) }
    }
}

impl Deref for Bytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        let whole: &[u8] = match &*self.whole {
            Whole::Mapped(map) => map,
            Whole::Owned(bytes) => bytes,
        };
        &whole[self.range.clone()]
    }
}

impl std::fmt::Debug for Bytes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Bytes({})", self.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mapped_file_is_what_was_written_and_parts_stay_within_it() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("file");
        std::fs::write(&path, b"0123456789").expect("written");
        let bytes = Bytes::map(&path).expect("mapped");
        assert_eq!(&*bytes, b"0123456789");
        bytes.forget_pages();
        assert_eq!(&*bytes, b"0123456789");
        let part = bytes.slice(2..8).expect("within");
        part.forget_pages();
        assert_eq!((&*part, &*part.slice(1..3).expect("within")), (&b"234567"[..], &b"34"[..]));
        assert!(
            part.slice(0..7).is_none() && part.slice(7..7).is_none() && part.slice(usize::MAX..usize::MAX).is_none()
        );
        assert!(part.slice(6..6).is_some_and(|empty| empty.is_empty()));
        std::fs::write(&path, b"").expect("written");
        assert!(Bytes::map(&path).expect("mapped").is_empty() && Bytes::map(folder.path()).is_err());
    }
}

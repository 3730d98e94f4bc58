//! A root in which the named files are all there is: a small file system in memory with mounts of them, read-only.

use std::collections::BTreeSet;
use std::ffi::{CStr, CString};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{MountFlags, MountPropagationFlags, UnmountFlags};

use super::Files;

/// Where the file system is mounted before it becomes the root; every Linux has the folder, and no program lies there.
const BEFORE: &CStr = c"/proc";

/// What to make in the new root. Planned in advance, as the process that makes the root may not allocate.
pub struct Root {
    /// What is made in memory, in order; all of it before the first mount, through which it would reach the files themselves.
    made: Vec<Step>,
    /// From where, to where.
    mounts: Vec<(CString, CString)>,
}

enum Step {
    Folder(CString),
    File(CString),
    Link { to: CString, at: CString },
}

impl Root {
    /// Plans the root.
    ///
    /// # Errors
    /// If a path is missing, not absolute, or cannot be looked at.
    pub fn plan(files: &Files) -> io::Result<Self> {
        let mut root = Planned { steps: Vec::new(), there: BTreeSet::new() };
        // Libraries are looked for as `/lib`, which today is a link.
        for entry in std::fs::read_dir("/")? {
            root.links(&entry?.path())?;
        }
        // Sorted, so that a folder comes before what is in it, which then needs no mount of its own.
        let mut real = BTreeSet::new();
        for path in files.readable.iter().chain(&files.executable) {
            root.links(path)?;
            real.insert(path.canonicalize()?);
        }
        let (mut mounts, mut folders) = (Vec::new(), Vec::<PathBuf>::new());
        for path in real {
            if folders.iter().any(|folder| path.starts_with(folder)) {
                continue;
            }
            let (at, is_folder) = (relative(&path)?, path.is_dir());
            root.folders_above(&path)?;
            if root.there.insert(path.clone()) {
                root.steps.push(if is_folder { Step::Folder(at.clone()) } else { Step::File(at.clone()) });
            }
            mounts.push((text(&path)?, at));
            folders.extend(is_folder.then_some(path));
        }
        Ok(Self { made: root.steps, mounts })
    }

    /// Makes the root and enters it. Only for a process in a mount namespace of its own; allocates nothing.
    ///
    /// # Errors
    /// Those of the system calls.
    pub fn enter(&self) -> Result<(), Errno> {
        rustix::mount::mount_change(c"/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?;
        rustix::mount::mount(c"tmpfs", BEFORE, c"tmpfs", MountFlags::NOSUID | MountFlags::NODEV, c"mode=755")?;
        rustix::process::chdir(BEFORE)?;
        for step in &self.made {
            match step {
                Step::Folder(at) => rustix::fs::mkdir(at.as_c_str(), Mode::from_raw_mode(0o755))?,
                Step::File(at) => {
                    let flags = OFlags::CREATE | OFlags::WRONLY | OFlags::CLOEXEC;
                    drop(rustix::fs::open(at.as_c_str(), flags, Mode::from_raw_mode(0o644))?);
                }
                Step::Link { to, at } => rustix::fs::symlink(to.as_c_str(), at.as_c_str())?,
            }
        }
        for (from, at) in &self.mounts {
            rustix::mount::mount_bind_recursive(from.as_c_str(), at.as_c_str())?;
        }
        rustix::process::pivot_root(c".", c".")?;
        rustix::mount::unmount(c".", UnmountFlags::DETACH)?;
        read_only()?;
        rustix::process::chdir(c"/")
    }
}

/// Everything mounted becomes read-only.
fn read_only() -> Result<(), Errno> {
    let mut attributes = libc::mount_attr {
        attr_set: libc::MOUNT_ATTR_RDONLY | libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV,
        attr_clr: 0,
        propagation: 0,
        userns_fd: 0,
    };
    // SAFETY: the path ends with a zero, and the attributes are a structure of the size that is given.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            libc::AT_FDCWD,
            c"/".as_ptr(),
            libc::AT_RECURSIVE as libc::c_uint,
            &raw mut attributes,
            size_of::<libc::mount_attr>(),
        )
    };
    checked(result)
}

/// The result of a system call of which only failure matters.
pub fn checked(result: libc::c_long) -> Result<(), Errno> {
    if result >= 0 { Ok(()) } else { Err(Errno::from_io_error(&io::Error::last_os_error()).unwrap_or(Errno::INVAL)) }
}

struct Planned {
    steps: Vec<Step>,
    /// The absolute paths of what the steps make.
    there: BTreeSet<PathBuf>,
}

impl Planned {
    fn folders_above(&mut self, path: &Path) -> io::Result<()> {
        let above: Vec<&Path> = path.ancestors().skip(1).filter(|folder| folder.parent().is_some()).collect();
        for folder in above.into_iter().rev() {
            if self.there.insert(folder.into()) {
                self.steps.push(Step::Folder(relative(folder)?));
            }
        }
        Ok(())
    }

    /// The links on the way to a path, as programs name files by them (`/lib64`, which is a link to `usr/lib64`).
    fn links(&mut self, path: &Path) -> io::Result<()> {
        let mut here = PathBuf::new();
        for component in path.components() {
            here.push(component);
            if matches!(component, Component::RootDir) {
                continue;
            }
            if here.symlink_metadata()?.is_symlink() {
                let to = std::fs::read_link(&here)?;
                if self.there.insert(here.clone()) {
                    self.folders_above(&here)?;
                    self.steps.push(Step::Link { to: text(&to)?, at: relative(&here)? });
                }
                let target = here.parent().unwrap_or(Path::new("/")).join(&to);
                let rest = path.strip_prefix(&here).map_err(io::Error::other)?;
                return self.links(&cleaned(&target.join(rest)));
            }
        }
        Ok(())
    }
}

/// The path without `.` and `..`, of which the links before them were followed already.
fn cleaned(path: &Path) -> PathBuf {
    let mut clean = PathBuf::new();
    for component in path.components() {
        match component {
            Component::CurDir => {}
            Component::ParentDir => drop(clean.pop()),
            other => clean.push(other),
        }
    }
    clean
}

fn relative(path: &Path) -> io::Result<CString> {
    text(path.strip_prefix("/").map_err(|_| {
        io::Error::new(io::ErrorKind::InvalidInput, format!("{}: not an absolute path", path.display()))
    })?)
}

fn text(path: &Path) -> io::Result<CString> {
    Ok(CString::new(path.as_os_str().as_bytes())?)
}

//! [`File`]: files of a directory, mapped.

use std::ffi::{CString, c_int};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use dsm_core::error::Reason;
use dsm_core::handle::ObjectId;
use dsm_core::provider::Forward;

use crate::descriptor::Kept;
use crate::error::{Error, LIST, OPEN_DIRECTORY};
use crate::limits;
use crate::liveness::Posix;
use crate::name::{NamespaceName, ObjectName, Style, split};
use crate::object::{Named, Place};
use crate::options::Options;
use crate::sys::{self, Errno, Stat};

/// How a directory is opened.
const OPEN: c_int = libc::O_RDONLY | libc::O_DIRECTORY;

/// Segments in files of a directory, one file each.
///
/// Any file system that can be mapped shared will do; on one that lies on a disk, changed
/// pages are written back now and then, which costs time but preserves nothing: this is memory, not
/// a database. The directory stays open, so that it may be renamed and relative paths are safe.
/// A namespace is known by its name and by the directory itself, whichever path leads there.
/// Removing other people's files must be forbidden in it, as it is in `/tmp` (sticky) or in a
/// directory of one's own.
///
/// Implements [`SegmentProvider`](dsm_core::provider::SegmentProvider) and
/// [`Root`](dsm_core::provider::Root), with the errors of [`Error`].
#[derive(Clone, Debug)]
pub struct File(Named);

// SAFETY: the same field each time.
unsafe impl Forward for File {
    type Target = Named;

    fn target(&self) -> &Named {
        &self.0
    }
}

impl File {
    /// The files of a namespace in `directory`, mode 0600.
    ///
    /// # Errors
    ///
    /// [`InvalidName`](dsm_core::error::ErrorKind::InvalidName), see [`NamespaceName::new`];
    /// [`NotFound`](dsm_core::error::ErrorKind::NotFound) and others if the directory can't be
    /// opened.
    pub fn new(directory: impl AsRef<Path>, namespace: &str) -> Result<Self, Error> {
        Self::with_options(directory, namespace, Options::new())
    }

    /// The files of a namespace in `directory`.
    ///
    /// # Errors
    ///
    /// As [`new`](Self::new).
    pub fn with_options(
        directory: impl AsRef<Path>,
        namespace: &str,
        options: Options,
    ) -> Result<Self, Error> {
        let place = Arc::new(Directory::open(directory.as_ref())?);
        Ok(Self(Named::new(place, namespace, options)?))
    }

    /// Which directory it is: device and inode, which no other has as long as this value lives.
    #[must_use]
    pub fn place_id(&self) -> ObjectId {
        self.0.place_id()
    }

    /// The namespace.
    #[must_use]
    pub fn namespace(&self) -> &NamespaceName {
        &self.0.namespace
    }

    /// Waits, liveness, time and entropy for the processes of this namespace.
    #[must_use]
    pub fn environment(&self) -> Posix {
        Posix::new(self.0.clone().into_control())
    }

    /// Names of all namespaces of which a file exists in `directory`, sorted.
    ///
    /// # Errors
    ///
    /// As the system says of the directory.
    pub fn namespaces(directory: impl AsRef<Path>) -> Result<Vec<NamespaceName>, Error> {
        namespaces(&Directory::open(directory.as_ref())?)
    }
}

/// An open directory.
#[derive(Debug)]
pub(crate) struct Directory {
    descriptor: Kept,
    path: PathBuf,
    label: String,
}

impl Directory {
    pub(crate) fn open(path: &Path) -> Result<Self, Error> {
        let label = path.display().to_string();
        let fail = |e| Error::os(e, OPEN_DIRECTORY, &*label);
        let name =
            CString::new(path.as_os_str().as_bytes()).map_err(|_| fail(Errno(libc::EINVAL)))?;
        let descriptor = Kept::new(sys::open_at(None, &name, OPEN, 0).map_err(fail)?);
        let descriptor = descriptor.map_err(fail)?;
        let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        Ok(Self { descriptor, path, label })
    }

    /// Does `work` on the directory.
    fn with<T>(&self, work: impl FnOnce(BorrowedFd<'_>) -> Result<T, Errno>) -> Result<T, Errno> {
        if let Ok(descriptor) = self.descriptor.get() {
            return work(descriptor);
        }
        // Somebody has closed it: by its path again, if that still leads there.
        let path = CString::new(self.path.as_os_str().as_bytes());
        let path = path.map_err(|_| Errno(libc::EINVAL))?;
        let again = sys::open_at(None, &path, OPEN, 0)?;
        if sys::stat(again.as_fd())?.id != self.descriptor.id() {
            return Err(Errno(libc::EBADF));
        }
        work(again.as_fd())
    }
}

impl Place for Directory {
    fn open(&self, name: &ObjectName, flags: c_int, mode: u32) -> Result<OwnedFd, Errno> {
        self.with(|directory| sys::open_at(Some(directory), name.without_slash(), flags, mode))
    }

    fn look(&self, name: &ObjectName) -> Result<Stat, Errno> {
        self.with(|directory| sys::stat_at(Some(directory), name.without_slash()))
    }

    fn unlink(&self, name: &ObjectName) -> Result<(), Errno> {
        self.with(|directory| sys::unlink_at(directory, name.without_slash()))
    }

    fn list(&self, found: &mut dyn FnMut(&str)) -> Result<(), Errno> {
        self.with(|directory| {
            // The open directory, wherever it has been moved; its old path where there is no /proc.
            let open = PathBuf::from(format!("/proc/self/fd/{}", directory.as_raw_fd()));
            let path = if cfg!(target_os = "linux") && open.exists() { &open } else { &self.path };
            list_directory(path, found)
        })
    }

    fn id(&self) -> ObjectId {
        self.descriptor.id()
    }

    fn label(&self) -> &str {
        &self.label
    }

    fn style(&self) -> Style {
        Style::Full
    }

    fn on_disk(&self) -> bool {
        true
    }

    fn space(&self) -> (Reason, u64, u64) {
        self.with(|directory| Ok(limits::space(directory))).unwrap_or_default()
    }
}

pub(crate) fn list_directory(path: &Path, found: &mut dyn FnMut(&str)) -> Result<(), Errno> {
    let errno = |e: std::io::Error| Errno(e.raw_os_error().unwrap_or(libc::EIO));
    for entry in std::fs::read_dir(path).map_err(errno)? {
        if let Some(name) = entry.map_err(errno)?.file_name().to_str() {
            found(name);
        }
    }
    Ok(())
}

pub(crate) fn namespaces(place: &dyn Place) -> Result<Vec<NamespaceName>, Error> {
    let mut names = Vec::new();
    let listed = place.list(&mut |file| {
        if let Some((namespace, _)) = split(file) {
            names.push(namespace.to_owned());
        }
    });
    listed.map_err(|e| Error::os(e, LIST, place.label()))?;
    names.sort_unstable();
    names.dedup();
    names.iter().map(|name| NamespaceName::new(name)).collect()
}

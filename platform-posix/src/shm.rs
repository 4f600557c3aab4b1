//! [`Shm`]: POSIX shared memory (`shm_open`).

#[cfg(target_os = "linux")]
use std::ffi::CString;
use std::ffi::c_int;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use dsm_core::error::Reason;
use dsm_core::handle::ObjectId;
use dsm_core::provider::Forward;

use crate::error::Error;
use crate::liveness::Posix;
use crate::name::{NamespaceName, ObjectName, Style};
use crate::object::{Named, Place};
use crate::options::Options;
use crate::sys::{self, Errno, Stat};

/// Segments in POSIX shared memory, one object each.
///
/// On Linux the objects are files `dsm.<namespace>.*` of the tmpfs in `/dev/shm`, whose memory is
/// reserved at creation so that touching it can't fault. On macOS and the BSDs memory is backed
/// by swap and can't be reserved; names are shortened on macOS, where they have 31 bytes.
///
/// Implements [`SegmentProvider`](dsm_core::provider::SegmentProvider) and
/// [`Root`](dsm_core::provider::Root), with the errors of [`Error`].
#[doc(alias = "shm_open")]
#[derive(Clone, Debug)]
pub struct Shm(Named);

// SAFETY: the same field each time.
unsafe impl Forward for Shm {
    type Target = Named;

    fn target(&self) -> &Named {
        &self.0
    }
}

impl Shm {
    /// The objects of a namespace, mode 0600.
    ///
    /// # Errors
    ///
    /// [`InvalidName`](dsm_core::error::ErrorKind::InvalidName), see [`NamespaceName::new`].
    pub fn new(namespace: &str) -> Result<Self, Error> {
        Self::with_options(namespace, Options::new())
    }

    /// The objects of a namespace.
    ///
    /// # Errors
    ///
    /// As [`new`](Self::new).
    pub fn with_options(namespace: &str, options: Options) -> Result<Self, Error> {
        Ok(Self(Named::new(Arc::new(SharedMemory), namespace, options)?))
    }

    /// The namespace.
    #[must_use]
    pub fn namespace(&self) -> &NamespaceName {
        &self.0.namespace
    }

    /// Which shared memory it is, where there can be several: another mount namespace of Linux may
    /// have another file system at `/dev/shm`. All zero elsewhere.
    #[must_use]
    pub fn place_id(&self) -> ObjectId {
        self.0.place_id()
    }

    /// Waits, liveness, time and entropy for the processes of this namespace.
    #[must_use]
    pub fn environment(&self) -> Posix {
        Posix::new(self.0.clone().into_control())
    }

    /// Names of all namespaces of which an object exists, sorted.
    ///
    /// # Errors
    ///
    /// [`Unsupported`](dsm_core::error::ErrorKind::Unsupported) on systems that don't list shared
    /// memory (all but Linux).
    pub fn namespaces() -> Result<Vec<NamespaceName>, Error> {
        crate::file::namespaces(&SharedMemory)
    }
}

/// The place of POSIX shared memory.
#[derive(Debug)]
pub(crate) struct SharedMemory;

impl Place for SharedMemory {
    fn open(&self, name: &ObjectName, flags: c_int, mode: u32) -> Result<OwnedFd, Errno> {
        // macOS takes nothing but these, and the system adds close-on-exec by itself.
        #[cfg(any(target_os = "macos", target_os = "ios"))]
        let flags = flags & (libc::O_RDWR | libc::O_CREAT | libc::O_EXCL | libc::O_TRUNC);
        // FreeBSD refuses flags it has no use for.
        #[cfg(not(any(target_os = "linux", target_os = "macos", target_os = "ios")))]
        let flags = flags & !(libc::O_NOFOLLOW | libc::O_NONBLOCK);
        sys::restart(|| sys::shm_open(name.with_slash(), flags, mode))
    }

    #[cfg(target_os = "linux")]
    fn look(&self, name: &ObjectName) -> Result<Stat, Errno> {
        // Where the C library has it.
        let path = [b"/dev/shm", name.with_slash().to_bytes_with_nul()].concat();
        let path = CString::from_vec_with_nul(path).map_err(|_| Errno(libc::EINVAL))?;
        sys::stat_at(None, &path)
    }

    #[cfg(not(target_os = "linux"))]
    fn look(&self, name: &ObjectName) -> Result<Stat, Errno> {
        sys::stat(self.open(name, crate::object::LOOK, 0)?.as_fd())
    }

    fn unlink(&self, name: &ObjectName) -> Result<(), Errno> {
        sys::shm_unlink(name.with_slash())
    }

    #[cfg(target_os = "linux")]
    fn list(&self, found: &mut dyn FnMut(&str)) -> Result<(), Errno> {
        crate::file::list_directory(std::path::Path::new("/dev/shm"), found)
    }

    #[cfg(not(target_os = "linux"))]
    fn list(&self, _found: &mut dyn FnMut(&str)) -> Result<(), Errno> {
        Err(Errno(libc::EOPNOTSUPP))
    }

    fn label(&self) -> &str {
        if cfg!(target_os = "linux") { "/dev/shm" } else { "shared memory" }
    }

    fn style(&self) -> Style {
        #[cfg(any(target_os = "macos", target_os = "ios"))]
        return Style::Short;
        #[cfg(not(any(target_os = "macos", target_os = "ios")))]
        return Style::Full;
    }

    fn on_disk(&self) -> bool {
        false
    }

    fn space(&self) -> (Reason, u64, u64) {
        #[cfg(target_os = "linux")]
        if let Ok(place) = sys::open_at(None, c"/dev/shm", libc::O_PATH | libc::O_DIRECTORY, 0) {
            return crate::limits::space(place.as_fd());
        }
        Default::default()
    }

    /// On Linux the file system at `/dev/shm`, which may be another one in another mount namespace.
    fn id(&self) -> ObjectId {
        #[cfg(target_os = "linux")]
        if let Ok(place) = sys::open_at(None, c"/dev/shm", libc::O_PATH | libc::O_DIRECTORY, 0) {
            return sys::stat(place.as_fd()).map_or(ObjectId::default(), |stat| stat.id);
        }
        ObjectId::default()
    }
}

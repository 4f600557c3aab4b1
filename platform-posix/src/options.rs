//! [`Options`]: permissions, trusted owners, hints about pages and memory nodes.

use std::ffi::c_int;
use std::path::PathBuf;
use std::ptr::NonNull;

use dsm_core::error::Reason;

use crate::error::Error;
use crate::sys::{self, Stat};

/// Whose objects are accepted.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub enum Owners {
    /// Only those of this process's effective user: the present one, and the one that it had when
    /// the options were made. So a process that gives up its privileges goes on with what it made
    /// before.
    #[default]
    Own,
    /// Also those of these users.
    Listed(Vec<u32>),
    /// Those of anybody; for tools that only look.
    Any,
}

/// Where the memory of a new segment should come from on a machine with several memory nodes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Numa {
    /// Pages are spread over the nodes of this set (bit i is node i).
    Interleave(u64),
    /// From this node while it has memory, then from others.
    Prefer(u32),
}

/// How a provider creates objects, and which it accepts.
///
/// ```
/// use platform_posix::{Numa, Options, Shm};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let options = Options::new().mode(0o660).huge_pages(true).numa(Numa::Interleave(0b11));
/// let shm = Shm::with_options("demo", options)?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Options {
    pub(crate) mode: u32,
    pub(crate) owners: Owners,
    pub(crate) huge_pages: bool,
    pub(crate) numa: Option<Numa>,
    pub(crate) lock_directory: PathBuf,
    /// Who made this.
    maker: u32,
}

impl Default for Options {
    fn default() -> Self {
        Self::new()
    }
}

impl Options {
    /// Mode 0600, own objects only, no hints.
    #[must_use]
    pub fn new() -> Self {
        Self {
            mode: 0o600,
            owners: Owners::Own,
            huge_pages: false,
            numa: None,
            lock_directory: PathBuf::from("/tmp"),
            maker: sys::effective_user(),
        }
    }

    /// Permission bits of new objects, whatever the umask is; an existing object with more than
    /// these is refused. Only the lower nine bits count.
    #[must_use]
    pub fn mode(mut self, mode: u32) -> Self {
        self.mode = mode & 0o777;
        self
    }

    /// Whose objects are accepted. A namespace shared between users needs this beside a mode
    /// such as 0660.
    #[must_use]
    pub fn owners(mut self, owners: Owners) -> Self {
        self.owners = owners;
        self
    }

    /// Asks for huge pages. Where the system has none to give, or gives none to shared memory,
    /// nothing changes.
    #[must_use]
    pub fn huge_pages(mut self, wanted: bool) -> Self {
        self.huge_pages = wanted;
        self
    }

    /// Asks for memory of certain nodes. Where the system has no such nodes nothing changes.
    #[must_use]
    pub fn numa(mut self, numa: Numa) -> Self {
        self.numa = Some(numa);
        self
    }

    /// Where lock files lie on systems that cannot lock shared memory itself (all but Linux).
    /// `/tmp` by default; all processes of a namespace must name the same.
    #[must_use]
    pub fn lock_directory(mut self, directory: impl Into<PathBuf>) -> Self {
        self.lock_directory = directory.into();
        self
    }

    /// Refuses what is no object of ours, belongs to somebody else, or is open to more people.
    pub(crate) fn accept(&self, stat: &Stat, object: &dyn Fn() -> String) -> Result<(), Error> {
        if !stat.regular {
            return Err(Error::refused(Reason::NotAnObject, "check of the object", object()));
        }
        self.accept_owner(stat.owner, object)?;
        self.accept_mode(stat.mode, object)
    }

    /// Refuses an owner who is not trusted.
    pub(crate) fn accept_owner(
        &self,
        owner: u32,
        object: &dyn Fn() -> String,
    ) -> Result<(), Error> {
        let own = sys::effective_user();
        let trusted = match &self.owners {
            Owners::Own => false,
            Owners::Listed(users) => users.contains(&owner),
            Owners::Any => true,
        };
        if trusted || owner == own || owner == self.maker {
            return Ok(());
        }
        Err(Error::refused(Reason::ForeignOwner { owner }, "check of the owner", object()))
    }

    /// Refuses permission bits beyond those asked for.
    pub(crate) fn accept_mode(&self, mode: u32, object: &dyn Fn() -> String) -> Result<(), Error> {
        if mode & 0o777 & !self.mode == 0 {
            return Ok(());
        }
        let reason =
            Reason::WritableByMore { mode: (mode & 0o777) as u16, asked: self.mode as u16 };
        Err(Error::refused(reason, "check of the mode", object()))
    }

    /// Passes the hints on for a fresh mapping. Must precede the backing with memory, which is
    /// when the system chooses the pages.
    pub(crate) fn advise(&self, base: NonNull<u8>, len: usize) {
        #[cfg(target_os = "linux")]
        {
            if self.huge_pages {
                // SAFETY: a hint about a mapping of our own; it changes no contents, and a
                // refusal is what falling back means.
                unsafe { libc::madvise(base.as_ptr().cast(), len, libc::MADV_HUGEPAGE) };
            }
            let (policy, nodes): (c_int, u64) = match self.numa {
                None => return,
                Some(Numa::Interleave(nodes)) => (libc::MPOL_INTERLEAVE, nodes),
                Some(Numa::Prefer(node)) => {
                    (libc::MPOL_PREFERRED, 1u64.checked_shl(node).unwrap_or(0))
                }
            };
            if nodes == 0 {
                return;
            }
            // The system reads one bit less than it is told of.
            let bits = u64::from(u64::BITS) + 1;
            // SAFETY: as above; `nodes` outlives the call and has the bits announced.
            unsafe {
                libc::syscall(
                    libc::SYS_mbind,
                    base.as_ptr(),
                    len,
                    policy,
                    &raw const nodes,
                    bits,
                    0,
                )
            };
        }
        #[cfg(not(target_os = "linux"))]
        let _: (c_int, _, _) = (0, base, len);
    }
}

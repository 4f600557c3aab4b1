//! [`SysV`]: System V shared memory (`shmget`).
//!
//! A segment's key is 32 bits of a hash of namespace and handle. That it collides is rare and
//! harmless: creation says "already exists" and the caller draws another handle; and so it does for
//! the key 0 (`IPC_PRIVATE`), which would create a segment that nobody finds. On attaching and
//! destroying, the identity tells: the System V id, which carries a sequence number, and the time
//! of creation. With no identity given (the creator was killed before it could record one) the key
//! and the owner have to do.
//!
//! There are no descriptors here, hence nothing to lock: the control object is a file of a
//! directory, mapped and locked like that of [`File`](crate::File).
//!
//! The memory is a hidden tmpfs without a size limit. It is backed by populating the mapping.

use std::mem::MaybeUninit;
use std::ops::Range;
use std::path::Path;
use std::ptr::NonNull;
use std::sync::Arc;
use std::time::Duration;

use dsm_core::error::{ErrorKind, Reason};
use dsm_core::handle::{ObjectId, SegmentHandle};
use dsm_core::provider::{Mapping, ObjectInfo, ProviderError, RangeOwner, Root, SegmentProvider};
use platform_common::blanks::Blanks;
use platform_common::refusal::check_range;

use crate::error::Error;
use crate::file::Directory;
use crate::limits;
use crate::liveness::Posix;
use crate::name::{NamespaceName, ObjectName, hash};
use crate::object::{self, Named, populate};
use crate::options::Options;
use crate::root::{PosixElection, check_size, enough_memory};
use crate::sys::{self, Errno};

/// `IPC_PRIVATE`, which `libc` declares with other types on other systems.
const PRIVATE: i32 = 0;

/// Segments in System V shared memory; the control object is a file of a directory.
///
/// Segments can't be listed by namespace: [`Root::enumerate`] is unsupported, and what is left
/// after a crash of all is known from the control object only.
#[doc(alias = "shmget")]
#[derive(Clone, Debug)]
pub struct SysV {
    control: Named,
    options: Options,
    blanks: Arc<Blanks>,
}

/// What `IPC_STAT` says of a segment.
struct Segment {
    shmid: libc::c_int,
    size: usize,
    owner: u32,
    mode: u32,
    id: ObjectId,
}

impl SysV {
    /// A namespace whose control object is a file of `directory`; mode 0600.
    ///
    /// # Errors
    ///
    /// As [`File::new`](crate::File::new).
    pub fn new(directory: impl AsRef<Path>, namespace: &str) -> Result<Self, Error> {
        Self::with_options(directory, namespace, Options::new())
    }

    /// A namespace whose control object is a file of `directory`.
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
        let control = Named::new(place, namespace, options.clone())?;
        // Not the name that `File` would use: both may share a directory.
        let control =
            control.with_control(ObjectName::new(&[b"dsm-sysv.", namespace.as_bytes(), b".ctl"]));
        Ok(Self { control, options, blanks: Arc::default() })
    }

    /// The namespace.
    #[must_use]
    pub fn namespace(&self) -> &NamespaceName {
        &self.control.namespace
    }

    /// Waits, liveness, time and entropy for the processes of this namespace.
    #[must_use]
    pub fn environment(&self) -> Posix {
        Posix::new(self.control.clone().into_control())
    }

    /// The System V key of a segment, as `ipcs -m` shows it.
    #[must_use]
    #[doc(alias = "ftok")]
    pub fn key(&self, handle: SegmentHandle) -> i32 {
        let text = format!("{}.{handle}", self.namespace());
        (hash(text.as_bytes()) >> 32) as u32 as i32
    }

    fn label(&self, handle: SegmentHandle) -> String {
        format!("System V segment {handle} (key {:#010x})", self.key(handle))
    }

    fn fail(&self, errno: Errno, step: &'static str, handle: SegmentHandle) -> Error {
        Error::os(errno, step, self.label(handle))
    }

    /// Says which of the system's limits has refused a new segment.
    fn refused(&self, errno: Errno, size: usize, handle: SegmentHandle) -> Error {
        let error = self.fail(errno, "shmget", handle);
        match errno {
            Errno(libc::ENOSPC) => {
                let is_number = limits::segments().is_none_or(|all| all.there >= all.most);
                let reason = if is_number { Reason::ShmMni } else { Reason::ShmAll };
                error.with_space(size as u64, "", || (reason, 0, 0))
            }
            Errno(libc::EINVAL) => {
                let most = limits::segments().map_or(0, |all| all.most_bytes);
                error.because(Reason::ShmMax).with_limit(size as u64, most)
            }
            _ => error,
        }
    }

    /// The segment behind a handle; refuses one that isn't `id` (unless that is all zero).
    fn find(&self, handle: SegmentHandle, id: ObjectId) -> Result<Segment, Error> {
        let key = self.key(handle);
        if key == PRIVATE {
            return Err(self.fail(Errno(libc::ENOENT), "shmget", handle));
        }
        // SAFETY: no memory is involved.
        let shmid = unsafe { libc::shmget(key as libc::key_t, 0, 0) };
        if shmid < 0 {
            return Err(self.fail(Errno::last(), "shmget", handle));
        }
        let segment = self.inspect(shmid, handle)?;
        if id != ObjectId::default() && segment.id != id {
            return Err(Error::refused(Reason::Replaced, "lookup", self.label(handle)));
        }
        Ok(segment)
    }

    #[expect(
        clippy::unnecessary_cast,
        reason = "the fields of shmid_ds differ in width between systems"
    )]
    fn inspect(&self, shmid: libc::c_int, handle: SegmentHandle) -> Result<Segment, Error> {
        let mut raw = MaybeUninit::<libc::shmid_ds>::zeroed();
        // SAFETY: `raw` is writable and of the type that IPC_STAT fills.
        if unsafe { libc::shmctl(shmid, libc::IPC_STAT, raw.as_mut_ptr()) } != 0 {
            return Err(match Errno::last() {
                // Removed since it was looked up.
                Errno(libc::EINVAL) => self.fail(Errno(libc::ENOENT), "shmctl", handle),
                e => self.fail(e, "shmctl", handle),
            });
        }
        // SAFETY: filled by the call, and valid as zeros.
        let raw = unsafe { raw.assume_init() };
        Ok(Segment {
            shmid,
            size: raw.shm_segsz as usize,
            owner: raw.shm_perm.uid as u32,
            mode: raw.shm_perm.mode as u32 & 0o777,
            id: ObjectId { device: raw.shm_ctime as u64, object: shmid as u64 },
        })
    }

    fn map(&self, segment: &Segment, handle: SegmentHandle) -> Result<Mapping, Error> {
        // SAFETY: a new mapping at an address of the system's choice affects no other memory.
        let base = unsafe { libc::shmat(segment.shmid, std::ptr::null(), 0) };
        // SHM_FAILED
        if base.addr() == usize::MAX {
            let (error, size) = (self.fail(Errno::last(), "shmat", handle), segment.size);
            return Err(error.with_addresses(size as u64, || limits::why_unmappable(size)));
        }
        let Some(base) = NonNull::new(base.cast::<u8>()) else {
            return Err(self.fail(Errno(libc::ENOMEM), "shmat", handle));
        };
        self.options.advise(base, segment.size);
        Ok(Mapping { base, len: segment.size, token: segment.shmid as usize })
    }
}

fn mark_destroyed(shmid: libc::c_int) -> Result<(), Errno> {
    // SAFETY: IPC_RMID reads no buffer.
    match unsafe { libc::shmctl(shmid, libc::IPC_RMID, std::ptr::null_mut()) } {
        0 => Ok(()),
        _ => Err(Errno::last()),
    }
}

/// Backs a range.
fn back(mapping: &Mapping, range: Range<usize>) -> Result<(), Error> {
    enough_memory(range.len())?;
    populate(mapping, range)
}

// SAFETY: mappings come from shmat, are unmapped by `detach` alone, and the first `reserved` bytes
// are backed by populating them.
unsafe impl SegmentProvider for SysV {
    type Error = Error;

    fn page_size(&self) -> usize {
        sys::page_size()
    }

    fn create(
        &self,
        handle: SegmentHandle,
        size: usize,
        reserved: usize,
    ) -> Result<(Mapping, ObjectId), Error> {
        check_size(size, reserved)?;
        let key = self.key(handle);
        if key == PRIVATE {
            return Err(self.fail(Errno(libc::EEXIST), "shmget", handle));
        }
        let flags = libc::IPC_CREAT | libc::IPC_EXCL | self.options.mode as libc::c_int;
        // SAFETY: no memory is involved.
        let shmid = unsafe { libc::shmget(key as libc::key_t, size, flags) };
        if shmid < 0 {
            return Err(self.refused(Errno::last(), size, handle));
        }
        let made = (|| {
            let segment = self.inspect(shmid, handle)?;
            let mapping = self.map(&segment, handle)?;
            if let Err(e) = back(&mapping, 0..reserved) {
                // SAFETY: mapped above, and nobody has seen it.
                unsafe { SegmentProvider::detach(self, mapping) };
                return Err(e);
            }
            Ok((mapping, segment.id))
        })();
        if made.is_err() {
            // The error at hand is the one to report.
            let _ = mark_destroyed(shmid);
        }
        made
    }

    fn attach(&self, handle: SegmentHandle, id: ObjectId) -> Result<Mapping, Error> {
        let segment = self.find(handle, id)?;
        self.options.accept_owner(segment.owner, &|| self.label(handle))?;
        self.options.accept_mode(segment.mode, &|| self.label(handle))?;
        self.map(&segment, handle)
    }

    fn reserve(
        &self,
        _handle: SegmentHandle,
        mapping: &Mapping,
        range: Range<usize>,
    ) -> Result<(), Error> {
        check_range(mapping, &range)?;
        back(mapping, range)
    }

    unsafe fn detach(&self, mapping: Mapping) {
        // On Linux what was attached may be unmapped like anything else, blanked or not.
        #[cfg(not(target_os = "linux"))]
        // SAFETY: the caller's promise.
        if unsafe { libc::shmdt(mapping.base.as_ptr().cast()) } == 0 {
            return;
        }
        // SAFETY: the caller's promise.
        unsafe { object::detach(mapping) };
    }

    unsafe fn blank(&self, mapping: Mapping, owner: RangeOwner) {
        // SAFETY: the caller's promise.
        unsafe { object::blank(mapping, owner, &self.blanks) };
    }

    unsafe fn release_blanks(&self, owner: RangeOwner) {
        for mapping in object::take_blanks(&self.blanks, owner) {
            // SAFETY: the caller's promise.
            unsafe { self.detach(mapping) };
        }
    }

    fn destroy(&self, handle: SegmentHandle, id: ObjectId) -> Result<(), Error> {
        let segment = match self.find(handle, id) {
            Ok(segment) => segment,
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(()),
            Err(e) => return Err(e),
        };
        self.options.accept_owner(segment.owner, &|| self.label(handle))?;
        match mark_destroyed(segment.shmid) {
            // Somebody else was faster.
            Ok(()) | Err(Errno(libc::EINVAL | libc::EIDRM)) => Ok(()),
            Err(e) => Err(self.fail(e, "shmctl", handle)),
        }
    }

    fn stat(&self, handle: SegmentHandle) -> Result<ObjectInfo, Error> {
        let segment = self.find(handle, ObjectId::default())?;
        Ok(ObjectInfo {
            handle: Some(handle),
            size: segment.size as u64,
            reserved: resident(segment.shmid).unwrap_or(0),
            owner: segment.owner,
            mode: segment.mode,
            id: segment.id,
        })
    }
}

/// Bytes of a segment that are backed: columns `rss` and `swap` of Linux's list.
fn resident(shmid: libc::c_int) -> Option<u64> {
    let list = std::fs::read_to_string("/proc/sysvipc/shm").ok()?;
    let mut lines = list.lines().map(|line| line.split_ascii_whitespace().collect::<Vec<_>>());
    let titles = lines.next()?;
    let column = |title| titles.iter().position(|&t| t == title);
    let (key, rss, swap) = (column("shmid")?, column("rss")?, column("swap")?);
    let line = lines.find(|fields| fields.get(key).is_some_and(|&id| id == shmid.to_string()))?;
    Some(line.get(rss)?.parse::<u64>().ok()? + line.get(swap)?.parse::<u64>().ok()?)
}

// SAFETY: the control object is a file, of which the same is true as of `File`: see `provide`.
unsafe impl Root for SysV {
    type Error = Error;
    type Election<'a> = PosixElection<'a>;

    fn elect(&self, patience: Duration) -> Result<PosixElection<'_>, Error> {
        self.control.elect(patience)
    }

    fn elect_existing(&self, patience: Duration) -> Result<PosixElection<'_>, Error> {
        self.control.elect_existing(patience)
    }

    fn peek(&self) -> Result<Mapping, Error> {
        self.control.peek()
    }

    unsafe fn unmap(&self, mapping: Mapping) {
        // SAFETY: the caller's promise.
        unsafe { object::detach(mapping) };
    }

    fn enumerate(&self, _found: &mut dyn FnMut(&ObjectInfo)) -> Result<(), Error> {
        let why = "System V segments can't be listed by namespace; ask the control object, or \
                   `ipcs -m`";
        Err(Error::new(ErrorKind::Unsupported, "listing", why))
    }
}

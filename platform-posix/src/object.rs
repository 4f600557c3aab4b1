//! Named objects that are opened, sized and mapped through a descriptor: what `Shm` and `File`
//! have in common.
//!
//! A [`Place`] says how a name is opened, removed and listed (`shm_open`, or a directory); all
//! else is here, once.
//!
//! # Creation
//!
//! open (exclusive) → mode → size → map → hints → backing → close
//!
//! The descriptor is needed no longer once the object is mapped. Until creation has succeeded the
//! object is [`Unfinished`], whose drop removes it; a creator that is *killed* in between
//! leaves an object whose handle was recorded in the control segment beforehand, so that the
//! reaper finds and destroys it. Hints precede the backing because that is when pages are chosen.
//!
//! Backing goes in pieces, with signals held off during each ([`sys::back`]). A new object gives
//! back what it got if a later piece fails; a range of one that is in use can't, as nobody knows
//! what was there before, and is refused beforehand if it can't fit.
//!
//! # Removal
//!
//! Nothing is unlinked by name without a look at what the name means: device and inode are
//! compared, without following links. That takes no descriptor where the system can do without
//! (`fstatat`), as things are removed when nothing else can be done: by who leaves, or has failed
//! for want of one. No system offers to unlink "if it is this inode"; what protects the remaining
//! moment is that a handle's name is not given out again while its slot is being freed.
//!
//! In a directory like `/dev/shm` (sticky) a name is its owner's to remove. Whoever finds that of a
//! segment gives the object's memory back, which takes the right to write only: nobody has it
//! mapped who would miss it. An empty object stays until its owner comes by, and the error says so.
//!
//! # Backing later
//!
//! `reserve` has a mapping and no descriptor. It opens the object again by name and compares the
//! inode with the one kept in the mapping's token. Where the name is gone (somebody cleaned up
//! behind our back), or may not be opened any more (the process has become another user), the
//! mapping itself is populated instead.
//!
//! Who has a long range in memory backed is about to fill it. So one as long as [`AHEAD`] says is
//! entered in this process's page tables at once, which takes half of what a page fault each would
//! take later. Where the system does not know that, the page faults come. They also do for shorter
//! ranges: those are backed ahead for many small objects, by and by, and a page that is cleared
//! when its first object is written is in the cache then.

use std::ffi::c_int;
use std::fmt;
use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
#[cfg(target_os = "linux")]
use std::ptr::NonNull;
use std::sync::Arc;

use dsm_core::error::{ErrorKind, Reason};
use dsm_core::handle::{ObjectId, SegmentHandle};
use dsm_core::planted::{Bug, planted};
use dsm_core::provider::{Mapping, ObjectInfo, ProviderError, RangeOwner};
use platform_common::blanks::Blanks;
use platform_common::refusal;

use crate::error::{CREATE, Error, OPEN};
use crate::fork;
use crate::limits;
use crate::name::{NamespaceName, ObjectName, Role, Style};
use crate::options::Options;
use crate::root::{ControlObject, Spare, addressable, enough_memory, set_mode};
use crate::sys::{self, Errno, Stat};

/// Ranges that are entered in the page tables when they are backed: few fill a longer one at once.
#[cfg(target_os = "linux")]
const AHEAD: Range<usize> = (64 << 10) + 1..(1 << 20) + 1;

/// Where named objects live.
pub(crate) trait Place: Send + Sync + fmt::Debug {
    fn open(&self, name: &ObjectName, flags: c_int, mode: u32) -> Result<OwnedFd, Errno>;
    /// What a name means, without following a link. By a descriptor only where there is no other
    /// way: whoever has none left must be able to remove what is its own.
    fn look(&self, name: &ObjectName) -> Result<Stat, Errno>;
    fn unlink(&self, name: &ObjectName) -> Result<(), Errno>;
    fn list(&self, found: &mut dyn FnMut(&str)) -> Result<(), Errno>;
    /// The directory, for messages.
    fn label(&self) -> &str;
    fn style(&self) -> Style;
    /// Whether objects may be files on a disk.
    fn on_disk(&self) -> bool;
    /// What is full if nothing can be created, and how many bytes it has free, of how many.
    fn space(&self) -> (Reason, u64, u64);
    /// Which place it is, however it is called; all zero if there is but one.
    fn id(&self) -> ObjectId;
}

/// Opens for a look only, which not even a device or a pipe notices.
#[cfg(target_os = "linux")]
pub(crate) const LOOK: c_int = libc::O_PATH | libc::O_NOFOLLOW | libc::O_CLOEXEC;
#[cfg(not(target_os = "linux"))]
pub(crate) const LOOK: c_int =
    libc::O_RDONLY | libc::O_NOFOLLOW | libc::O_CLOEXEC | libc::O_NONBLOCK;

/// Never blocks on a pipe that somebody put in the object's place.
pub(crate) const USE: c_int = libc::O_RDWR | libc::O_NOFOLLOW | libc::O_CLOEXEC | libc::O_NONBLOCK;

/// The objects of one namespace in one place.
#[derive(Clone, Debug)]
pub struct Named {
    pub(crate) place: Arc<dyn Place>,
    pub(crate) namespace: NamespaceName,
    pub(crate) options: Options,
    pub(crate) blanks: Arc<Blanks>,
    control: ObjectName,
    spare: Arc<Spare>,
}

/// An object that is removed unless its creation succeeds.
pub(crate) struct Unfinished<'a> {
    pub(crate) owner: &'a Named,
    pub(crate) name: &'a ObjectName,
    pub(crate) id: ObjectId,
}

impl Drop for Unfinished<'_> {
    fn drop(&mut self) {
        // There is an error to be reported already; what else can fail here leaves a name whose
        // handle is recorded.
        let _ = self.owner.remove(self.name, self.id);
    }
}

impl Named {
    pub(crate) fn new(
        place: Arc<dyn Place>,
        namespace: &str,
        options: Options,
    ) -> Result<Self, Error> {
        let namespace = NamespaceName::new(namespace)?;
        let control = ObjectName::of(&namespace, place.style(), Role::Control);
        let (blanks, spare) = Default::default();
        Ok(Self { place, namespace, options, blanks, control, spare })
    }

    /// The same with another name for the control object.
    pub(crate) fn with_control(self, control: ObjectName) -> Self {
        Self { control, ..self }
    }

    pub(crate) fn place_id(&self) -> ObjectId {
        self.place.id()
    }

    pub(crate) fn into_control(self) -> Arc<dyn ControlObject> {
        Arc::new(self)
    }

    pub(crate) fn segment_name(&self, handle: SegmentHandle) -> ObjectName {
        ObjectName::of(&self.namespace, self.place.style(), Role::Segment(handle))
    }

    pub(crate) fn path(&self, name: &ObjectName) -> String {
        format!("{}/{name}", self.place.label())
    }

    pub(crate) fn open(&self, name: &ObjectName, flags: c_int) -> Result<(OwnedFd, Stat), Error> {
        let fail = |e, step| Error::os(e, step, self.path(name));
        let fd = self.place.open(name, flags, 0).map_err(|e| {
            let error = fail(e, OPEN);
            match self.place.look(name).ok().filter(|_| e.is_denied()) {
                Some(Stat { owner, mode, .. }) => {
                    error.because(Reason::AccessDenied { owner, mode: (mode & 0o777) as u16 })
                }
                None => error,
            }
        })?;
        let stat = sys::stat(fd.as_fd()).map_err(|e| fail(e, "fstat"))?;
        Ok((fd, stat))
    }

    /// Looks at what a name means; `None` if nothing.
    pub(crate) fn look(&self, name: &ObjectName) -> Result<Option<Stat>, Error> {
        match self.place.look(name) {
            Ok(stat) => Ok(Some(stat)),
            Err(Errno(libc::ENOENT)) => Ok(None),
            Err(e) => Err(Error::os(e, "stat", self.path(name))),
        }
    }

    /// Gives the memory of a segment back whose name is somebody else's to remove.
    pub(crate) fn hollow(&self, name: &ObjectName, id: ObjectId) {
        #[cfg(target_os = "linux")]
        if let Ok((fd, stat)) = self.open(name, USE) {
            let meant = id == ObjectId::default() || stat.id == id;
            if meant && self.options.accept(&stat, &String::new).is_ok() {
                let pages = stat.size.next_multiple_of(sys::page_size() as u64);
                // What can't be given back stays until its owner comes by.
                let _ = sys::punch(fd.as_fd(), 0, pages);
            }
        }
        #[cfg(not(target_os = "linux"))]
        let _ = (name, id);
    }

    /// Removes a name if it means `id` (all zero: whatever is there) and its owner is trusted.
    pub(crate) fn remove(&self, name: &ObjectName, id: ObjectId) -> Result<(), Error> {
        let Some(stat) = self.look(name)? else { return Ok(()) };
        let path = || self.path(name);
        let checked = !planted(Bug::UnlinkByName);
        if !stat.regular || (checked && id != ObjectId::default() && stat.id != id) {
            return Err(Error::refused(Reason::Replaced, "removal", path()));
        }
        self.options.accept_owner(stat.owner, &path)?;
        match self.place.unlink(name) {
            Ok(()) | Err(Errno(libc::ENOENT)) => Ok(()),
            Err(e) => {
                let error = Error::os(e, "unlink", path());
                Err(match e {
                    // The directory is sticky.
                    Errno(libc::EPERM) => {
                        error.because(Reason::RemovalDenied { owner: stat.owner })
                    }
                    Errno(libc::EACCES) => error.because(Reason::DirectoryDenied),
                    _ => error,
                })
            }
        }
    }

    /// Creates an object that must not exist; `asked` bytes are wanted for it.
    pub(crate) fn create_new(
        &self,
        name: &ObjectName,
        mode: u32,
        asked: usize,
    ) -> Result<OwnedFd, Error> {
        let flags = USE | libc::O_CREAT | libc::O_EXCL;
        self.place.open(name, flags, mode).map_err(|e| {
            let error = Error::os(e, CREATE, self.path(name));
            error.with_space(asked as u64, self.place.label(), || self.place.space())
        })
    }
}

impl ControlObject for Named {
    fn open(&self, create: bool) -> Result<OwnedFd, Error> {
        let path = self.path(&self.control);
        loop {
            // Not simply O_CREAT: that is refused for somebody else's object in a sticky
            // directory (fs.protected_regular), and would not say who made it.
            match Named::open(self, &self.control, USE) {
                Ok((fd, stat)) => {
                    self.options.accept(&stat, &|| path.clone())?;
                    return Ok(fd);
                }
                Err(e) if e.kind() == ErrorKind::NotFound && create => {}
                Err(e) => return Err(e),
            }
            match self.create_new(&self.control, self.options.mode | 0o600, sys::page_size()) {
                Ok(fd) => {
                    let fail = |e, step| Error::os(e, step, &*path);
                    let stat = sys::stat(fd.as_fd()).map_err(|e| fail(e, "fstat"))?;
                    if stat.mode != self.options.mode {
                        set_mode(fd.as_fd(), self.options.mode).map_err(|e| fail(e, "fchmod"))?;
                    }
                    return Ok(fd);
                }
                Err(e) if e.kind() == ErrorKind::AlreadyExists => {}
                Err(e) => return Err(e),
            }
        }
    }

    fn open_to_read(&self) -> Result<OwnedFd, Error> {
        let flags = libc::O_RDONLY | libc::O_NOFOLLOW | libc::O_CLOEXEC | libc::O_NONBLOCK;
        let (fd, stat) = Named::open(self, &self.control, flags)?;
        self.options.accept(&stat, &|| self.path(&self.control))?;
        Ok(fd)
    }

    fn current(&self) -> Result<Option<ObjectId>, Error> {
        Ok(self.look(&self.control)?.map(|stat| stat.id))
    }

    fn remove(&self, id: ObjectId) -> Result<(), Error> {
        Named::remove(self, &self.control, id)
    }

    fn spare(&self) -> Option<&Spare> {
        Some(&self.spare)
    }

    fn options(&self) -> &Options {
        &self.options
    }

    fn label(&self) -> String {
        self.path(&self.control)
    }

    fn place(&self) -> &str {
        self.place.label()
    }

    fn on_disk(&self) -> bool {
        self.place.on_disk()
    }

    #[cfg(not(target_os = "linux"))]
    fn lock_files(&self) -> String {
        format!("{}/dsm.{}.lock.", self.options.lock_directory.display(), self.namespace)
    }
}

/// An open object, and how to speak of it.
pub(crate) struct Subject<'a> {
    pub(crate) fd: BorrowedFd<'a>,
    pub(crate) stat: &'a Stat,
    pub(crate) name: &'a dyn Fn() -> String,
    pub(crate) place: &'a dyn Place,
}

impl Subject<'_> {
    fn fail(&self, errno: Errno, step: &'static str, asked: usize) -> Error {
        let error = Error::os(errno, step, (self.name)());
        let error = error.with_space(asked as u64, self.place.label(), || limits::space(self.fd));
        error.with_addresses(asked as u64, || limits::why_unmappable(asked))
    }
}

/// Gives a new object its mode and size, maps it, and backs the first `reserved` bytes.
pub(crate) fn furnish(
    subject: &Subject<'_>,
    size: usize,
    reserved: usize,
    options: &Options,
) -> Result<Mapping, Error> {
    let fd = subject.fd;
    if !subject.place.on_disk() {
        enough_memory(reserved)?;
    }
    if subject.stat.mode != options.mode {
        set_mode(fd, options.mode).map_err(|e| subject.fail(e, "fchmod", 0))?;
    }
    sys::set_len(fd, size as u64).map_err(|e| subject.fail(e, "ftruncate", size))?;
    #[cfg(not(target_os = "linux"))]
    if subject.place.on_disk() {
        sys::write_zeros(fd, size as u64).map_err(|e| subject.fail(e, "write", size))?;
    }
    let base = sys::map(fd, size, true).map_err(|e| subject.fail(e, "mmap", size))?;
    options.advise(base, size);
    #[cfg(target_os = "linux")]
    if let Err(e) = sys::back_new(fd, reserved as u64) {
        // SAFETY: mapped above, and nobody has seen it.
        unsafe { sys::unmap(base, size) };
        return Err(subject.fail(e, "posix_fallocate", reserved));
    }
    #[cfg(not(target_os = "linux"))]
    let _ = reserved;
    Ok(Mapping { base, len: size, token: token(subject.stat.id) })
}

/// Maps an object at its present size, provided it is `id`.
pub(crate) fn map_existing(
    subject: &Subject<'_>,
    id: ObjectId,
    options: &Options,
) -> Result<Mapping, Error> {
    let stat = subject.stat;
    if id != ObjectId::default() && stat.id != id {
        return Err(Error::refused(Reason::Replaced, "attaching", (subject.name)()));
    }
    let len = addressable(stat.size, subject.name)?;
    if len == 0 {
        return Err(refusal::never_completed((subject.name)()));
    }
    let base = sys::map(subject.fd, len, true).map_err(|e| subject.fail(e, "mmap", len))?;
    options.advise(base, len);
    Ok(Mapping { base, len, token: token(stat.id) })
}

/// Backs a range of a mapped object through a descriptor of it.
pub(crate) fn back_mapped(
    subject: &Subject<'_>,
    mapping: &Mapping,
    range: Range<usize>,
) -> Result<(), Error> {
    if token(subject.stat.id) != mapping.token {
        return Err(Error::refused(Reason::Replaced, "reserving", (subject.name)()));
    }
    if !subject.place.on_disk() {
        enough_memory(range.len())?;
    }
    #[cfg(target_os = "linux")]
    {
        room_for(subject, range.len())?;
        sys::back(subject.fd, range.start as u64, range.len() as u64)
            .map_err(|e| subject.fail(e, "posix_fallocate", range.len()))?;
        if AHEAD.contains(&range.len()) && !subject.place.on_disk() {
            let (base, len) = pages(mapping, &range);
            // The range is backed, whatever becomes of this.
            let _ = sys::populate_at_once(base, len);
        }
    }
    // Elsewhere an object was backed as a whole when it was created.
    Ok(())
}

/// Refuses what does not fit even if all that is backed of the object lies in the range: otherwise
/// it would be backed, piece by piece, as far as there is memory, which nobody else would have
/// then.
#[cfg(target_os = "linux")]
fn room_for(subject: &Subject<'_>, len: usize) -> Result<(), Error> {
    if len as u64 <= sys::PIECE || subject.place.on_disk() {
        return Ok(());
    }
    let (_, available, total) = limits::space(subject.fd);
    let missing = (len as u64).saturating_sub(subject.stat.backed);
    if total == 0 || missing <= available {
        return Ok(());
    }
    Err(subject.fail(Errno(libc::ENOSPC), "posix_fallocate", len))
}

/// What a mapping remembers of its object's identity.
fn token(id: ObjectId) -> usize {
    id.object as usize
}

pub(crate) fn info(handle: Option<SegmentHandle>, stat: &Stat) -> ObjectInfo {
    ObjectInfo {
        handle,
        size: stat.size,
        reserved: stat.backed,
        owner: stat.owner,
        mode: stat.mode & 0o777,
        id: stat.id,
    }
}

/// The pages that a range of a mapping, held against its length by [`refusal::check_range`], lies
/// in.
#[cfg(target_os = "linux")]
fn pages(mapping: &Mapping, range: &Range<usize>) -> (NonNull<u8>, usize) {
    let page = sys::page_size();
    let start = range.start & !(page - 1);
    let end = range.end.next_multiple_of(page).min(mapping.len.next_multiple_of(page));
    // SAFETY: in the mapping, or at its end.
    (unsafe { mapping.base.add(start) }, end.saturating_sub(start))
}

/// Backs a range through its mapping; see the module's essay.
#[cfg(target_os = "linux")]
pub(crate) fn populate(mapping: &Mapping, range: Range<usize>) -> Result<(), Error> {
    let (base, len) = pages(mapping, &range);
    if len == 0 {
        return Ok(());
    }
    sys::populate(base, len).map_err(|e| {
        let full = e == Errno(libc::EFAULT);
        let error = Error::os(if full { Errno(libc::ENOSPC) } else { e }, "populating", "");
        error.with_space(len as u64, "", Default::default)
    })
}

#[cfg(not(target_os = "linux"))]
pub(crate) fn populate(_mapping: &Mapping, _range: Range<usize>) -> Result<(), Error> {
    Ok(())
}

/// Unmaps; see [`SegmentProvider::detach`](dsm_core::provider::SegmentProvider::detach).
///
/// # Safety
///
/// Nothing may use the mapping any more.
pub(crate) unsafe fn detach(mapping: Mapping) {
    // SAFETY: the caller's promise.
    unsafe { sys::unmap(mapping.base, mapping.len) };
}

/// Puts private zeros in place of a mapping and keeps the range; see
/// [`SegmentProvider::blank`](dsm_core::provider::SegmentProvider::blank).
///
/// # Safety
///
/// Nothing may rely on the contents any more.
pub(crate) unsafe fn blank(mapping: Mapping, owner: RangeOwner, blanks: &Blanks) {
    // SAFETY: the caller's promise; the mapping is one of ours, so the range is its to replace.
    unsafe { sys::map_blank(mapping.base, mapping.len) };
    let _no_fork = fork::lock();
    blanks.keep(mapping, owner);
}

/// Takes out the ranges that an owner has. Under the lock that holds off forks, as everything is
/// that a child may find locked by a thread it doesn't have.
pub(crate) fn take_blanks(blanks: &Blanks, owner: RangeOwner) -> Vec<Mapping> {
    let _no_fork = fork::lock();
    blanks.take(owner)
}

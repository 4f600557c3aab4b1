//! [`Memfd`]: anonymous memory behind descriptors that processes pass to each other (Linux).
//!
//! Nothing here has a name. What a name does elsewhere, a table in this process does: handle →
//! descriptor, filled by `create` and by descriptors that were inherited or received from another
//! process ([`insert`](Memfd::insert)). Attaching a segment whose descriptor never came is
//! [`NotFound`](ErrorKind::NotFound).
//!
//! The control object is such a descriptor too. Its lock bytes need an open description of one's
//! own, since locks taken through an inherited one would belong to all heirs: it is opened again
//! through `/proc/self/fd`. Having no name, it is *removed* by a mark, the sticky bit of its mode:
//! whoever is elected next finds it as good as new. It is not truncated, as that would fault in
//! processes which still have it mapped.
//!
//! Segments are sealed against resizing once they have their size.

use std::collections::HashMap;
use std::ffi::CString;
use std::ops::Range;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use dsm_core::error::{ErrorKind, Reason};
use dsm_core::handle::{ObjectId, SegmentHandle};
use dsm_core::provider::{Mapping, ObjectInfo, ProviderError, RangeOwner, Root, SegmentProvider};
use platform_common::blanks::Blanks;
use platform_common::refusal::check_range;

use crate::descriptor::Kept;
use crate::error::Error;
use crate::fork;
use crate::liveness::Posix;
use crate::name::{ObjectName, Style};
use crate::object::{self, Place, Subject, back_mapped, furnish, info, map_existing};
use crate::options::Options;
use crate::root::{self, ControlObject, PosixElection, check_size, set_mode};
use crate::sys::{self, Errno, Stat};

/// The bit of the mode that says "removed".
const REMOVED: u32 = 0o1000;

/// Segments in anonymous memory, found by descriptors that were passed beforehand.
///
/// Whoever holds a descriptor may use the memory: owner and mode are not checked. A segment's
/// memory lives while any process maps it or has its descriptor in a table; [`destroy`] takes it
/// out of the table of the process that calls, and [`forget`](Self::forget) does so for one that
/// keeps a descriptor of a segment destroyed by somebody else. A segment created on demand is found
/// only by processes to which its descriptor was sent, so growing areas shared by processes ask for
/// a provider with names.
///
/// [`destroy`]: SegmentProvider::destroy
#[doc(alias = "memfd_create")]
#[derive(Debug)]
pub struct Memfd {
    control: Arc<Control>,
    /// Locked under [`fork::lock`] only, and for no longer than it takes to look something up: a
    /// child goes on with what it inherits.
    segments: Mutex<HashMap<SegmentHandle, Arc<Kept>>>,
    blanks: Blanks,
}

#[derive(Debug)]
struct Control {
    descriptor: Kept,
    options: Options,
}

/// Where memory without names lives, for messages.
#[derive(Debug)]
struct Nameless;

impl Place for Nameless {
    fn open(&self, _name: &ObjectName, _flags: i32, _mode: u32) -> Result<OwnedFd, Errno> {
        Err(Errno(libc::EOPNOTSUPP))
    }
    fn look(&self, _name: &ObjectName) -> Result<Stat, Errno> {
        Err(Errno(libc::EOPNOTSUPP))
    }
    fn unlink(&self, _name: &ObjectName) -> Result<(), Errno> {
        Err(Errno(libc::EOPNOTSUPP))
    }
    fn list(&self, _found: &mut dyn FnMut(&str)) -> Result<(), Errno> {
        Err(Errno(libc::EOPNOTSUPP))
    }
    fn label(&self) -> &str {
        "memory"
    }
    fn style(&self) -> Style {
        Style::Full
    }
    fn on_disk(&self) -> bool {
        false
    }
    fn space(&self) -> (Reason, u64, u64) {
        Default::default()
    }
    fn id(&self) -> ObjectId {
        ObjectId::default()
    }
}

fn label(handle: SegmentHandle) -> String {
    format!("memfd segment {handle}")
}

impl Memfd {
    /// A namespace whose control object is behind `control`: made by
    /// [`new_control`](Self::new_control) in one process, and passed to the others.
    #[must_use]
    pub fn new(control: OwnedFd) -> Self {
        Self::with_options(control, Options::new())
    }

    /// As [`new`](Self::new). Of the options, the mode, and hints on pages are used.
    #[must_use]
    pub fn with_options(control: OwnedFd, options: Options) -> Self {
        let control = Arc::new(Control { descriptor: Kept::shared(control), options });
        Self { control, segments: Mutex::default(), blanks: Blanks::default() }
    }

    /// Makes the memory for a control object, empty so far. It is close-on-exec.
    ///
    /// # Errors
    ///
    /// [`TooMany`](ErrorKind::TooMany) descriptors, or what the system says.
    pub fn new_control() -> Result<OwnedFd, Error> {
        let control = create("dsm.ctl", 0)?;
        set_mode(control.as_fd(), Options::new().mode)
            .map_err(|e| Error::os(e, "fchmod", "memfd control object"))?;
        Ok(control)
    }

    /// Waits, liveness, time and entropy for the processes of this namespace.
    #[must_use]
    pub fn environment(&self) -> Posix {
        Posix::new(self.control.clone())
    }

    /// The control object, to be passed on.
    #[must_use]
    pub fn control(&self) -> BorrowedFd<'_> {
        self.control.descriptor.unverified()
    }

    /// Adds a segment's descriptor that another process passed. Returns the one it replaces.
    pub fn insert(&self, handle: SegmentHandle, descriptor: OwnedFd) -> Option<OwnedFd> {
        let kept = Arc::new(Kept::shared(descriptor));
        Self::taken(self.segments(|segments| segments.insert(handle, kept))?)
    }

    /// A copy of a segment's descriptor, to be passed on; `None` if this process has none.
    ///
    /// # Errors
    ///
    /// [`TooMany`](ErrorKind::TooMany) descriptors.
    pub fn descriptor(&self, handle: SegmentHandle) -> Result<Option<OwnedFd>, Error> {
        let Some(kept) = self.find(handle) else { return Ok(None) };
        let fail = |e, step| Error::os(e, step, label(handle));
        let fd = kept.get().map_err(|e| fail(e, "lookup of a descriptor"))?;
        let copy = fd.try_clone_to_owned();
        let copy = copy.map_err(|e| fail(Errno(e.raw_os_error().unwrap_or(libc::EMFILE)), "dup"));
        copy.map(Some)
    }

    /// Takes a segment's descriptor out of the table.
    pub fn forget(&self, handle: SegmentHandle) -> Option<OwnedFd> {
        Self::taken(self.segments(|segments| segments.remove(&handle))?)
    }

    fn segments<T>(&self, work: impl FnOnce(&mut HashMap<SegmentHandle, Arc<Kept>>) -> T) -> T {
        let _no_fork = fork::lock();
        work(&mut self.segments.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn find(&self, handle: SegmentHandle) -> Option<Arc<Kept>> {
        self.segments(|segments| segments.get(&handle).cloned())
    }

    /// What is given back of something that was taken out of the table: a copy, should another
    /// thread be using it.
    fn taken(kept: Arc<Kept>) -> Option<OwnedFd> {
        match Arc::try_unwrap(kept) {
            Ok(kept) => kept.into_owned(),
            Err(used) => used.get().ok()?.try_clone_to_owned().ok(),
        }
    }

    /// Runs `work` on a segment's descriptor.
    fn with<T>(
        &self,
        handle: SegmentHandle,
        work: impl FnOnce(&Subject<'_>) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let Some(kept) = self.find(handle) else {
            let step = "lookup of a descriptor";
            return Err(Error::refused(Reason::DescriptorNotPassed, step, label(handle)));
        };
        let fail = |e| Error::os(e, "fstat", label(handle));
        let fd = kept.get().map_err(fail)?;
        let stat = sys::stat(fd).map_err(fail)?;
        work(&Subject { fd, stat: &stat, name: &|| label(handle), place: &Nameless })
    }
}

fn create(name: &str, flags: libc::c_uint) -> Result<OwnedFd, Error> {
    let fail = |e| Error::os(e, "memfd_create", name);
    let text = CString::new(name).map_err(|_| fail(Errno(libc::EINVAL)))?;
    // SAFETY: a C string; the call keeps no pointer to it.
    let fd = unsafe { libc::memfd_create(text.as_ptr(), libc::MFD_CLOEXEC | flags) };
    if fd < 0 {
        return Err(fail(Errno::last()));
    }
    // SAFETY: just created, known to nobody else.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

// SAFETY: mappings come from mmap with MAP_SHARED, are unmapped by `detach` alone, and the first
// `reserved` bytes are backed by posix_fallocate.
unsafe impl SegmentProvider for Memfd {
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
        if self.find(handle).is_some() {
            return Err(Error::os(Errno(libc::EEXIST), "memfd_create", label(handle)));
        }
        let fd = create(&format!("dsm.{handle}"), libc::MFD_ALLOW_SEALING)?;
        let stat = sys::stat(fd.as_fd()).map_err(|e| Error::os(e, "fstat", label(handle)))?;
        let name = &|| label(handle);
        let subject = Subject { fd: fd.as_fd(), stat: &stat, name, place: &Nameless };
        let mapping = furnish(&subject, size, reserved, &self.control.options)?;
        let seals = libc::F_SEAL_SHRINK | libc::F_SEAL_GROW | libc::F_SEAL_SEAL;
        // A system that doesn't know one of the seals is no worse off without them.
        // SAFETY: the descriptor is open.
        unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_ADD_SEALS, seals) };
        self.insert(handle, fd);
        Ok((mapping, stat.id))
    }

    fn attach(&self, handle: SegmentHandle, id: ObjectId) -> Result<Mapping, Error> {
        self.with(handle, |subject| map_existing(subject, id, &self.control.options))
    }

    fn reserve(
        &self,
        handle: SegmentHandle,
        mapping: &Mapping,
        range: Range<usize>,
    ) -> Result<(), Error> {
        check_range(mapping, &range)?;
        self.with(handle, |subject| back_mapped(subject, mapping, range))
    }

    unsafe fn detach(&self, mapping: Mapping) {
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
            unsafe { object::detach(mapping) };
        }
    }

    fn destroy(&self, handle: SegmentHandle, id: ObjectId) -> Result<(), Error> {
        let found = self.with(handle, |subject| Ok(subject.stat.id));
        let Ok(found) = found else { return Ok(()) };
        if id != ObjectId::default() && found != id {
            let why = format!("{} is another object by now; it was left alone", label(handle));
            return Err(Error::new(ErrorKind::Foreign, "removal", why));
        }
        self.forget(handle);
        Ok(())
    }

    fn stat(&self, handle: SegmentHandle) -> Result<ObjectInfo, Error> {
        self.with(handle, |subject| Ok(info(Some(handle), subject.stat)))
    }
}

// SAFETY: as in `provide`, by descriptor.
unsafe impl Root for Memfd {
    type Error = Error;
    type Election<'a> = PosixElection<'a>;

    fn elect(&self, patience: Duration) -> Result<PosixElection<'_>, Error> {
        root::elect(&*self.control, true, patience)
    }

    fn elect_existing(&self, patience: Duration) -> Result<PosixElection<'_>, Error> {
        root::elect(&*self.control, false, patience)
    }

    fn peek(&self) -> Result<Mapping, Error> {
        // An empty one is what there is before anybody opens the namespace: nothing.
        root::peek(&*self.control).map_err(|e| match e.kind() {
            ErrorKind::Unfinished => e.with_kind(ErrorKind::NotFound),
            _ => e,
        })
    }

    unsafe fn unmap(&self, mapping: Mapping) {
        // SAFETY: the caller's promise.
        unsafe { object::detach(mapping) };
    }

    /// The control object, unless removed, and the segments whose descriptors this process has.
    fn enumerate(&self, found: &mut dyn FnMut(&ObjectInfo)) -> Result<(), Error> {
        let control = self.control.stat()?;
        if control.size != 0 && !self.control.was_removed(&control) {
            found(&info(None, &control));
        }
        let segments: Vec<_> = self.segments(|segments| segments.keys().copied().collect());
        for handle in segments {
            if let Ok(info) = SegmentProvider::stat(self, handle) {
                found(&info);
            }
        }
        Ok(())
    }
}

impl Control {
    fn stat(&self) -> Result<Stat, Error> {
        sys::stat(self.fd()?).map_err(|e| Error::os(e, "fstat", self.label()))
    }

    fn fd(&self) -> Result<BorrowedFd<'_>, Error> {
        self.descriptor.get().map_err(|e| Error::os(e, "lookup of a descriptor", self.label()))
    }
}

impl ControlObject for Control {
    fn open(&self, create: bool) -> Result<OwnedFd, Error> {
        let stat = self.stat()?;
        if !create && (stat.size == 0 || self.was_removed(&stat)) {
            let why = "the memfd control object has not been set up";
            return Err(Error::new(ErrorKind::NotFound, "opening", why));
        }
        self.open_to_read()
    }

    fn open_to_read(&self) -> Result<OwnedFd, Error> {
        let path = format!("/proc/self/fd/{}", self.fd()?.as_raw_fd());
        let fail = |e| Error::os(e, "open", format!("{path} (which needs /proc)"));
        let name = CString::new(&*path).map_err(|_| fail(Errno(libc::EINVAL)))?;
        sys::open_at(None, &name, libc::O_RDWR, 0).map_err(fail)
    }

    fn current(&self) -> Result<Option<ObjectId>, Error> {
        Ok(Some(self.stat()?.id))
    }

    fn remove(&self, _id: ObjectId) -> Result<(), Error> {
        set_mode(self.fd()?, self.options.mode | REMOVED)
            .map_err(|e| Error::os(e, "fchmod", self.label()))
    }

    fn was_removed(&self, stat: &Stat) -> bool {
        stat.mode & REMOVED != 0
    }

    fn options(&self) -> &Options {
        &self.options
    }

    fn label(&self) -> String {
        "memfd control object".to_owned()
    }

    fn place(&self) -> &str {
        Nameless.label()
    }

    fn on_disk(&self) -> bool {
        false
    }
}

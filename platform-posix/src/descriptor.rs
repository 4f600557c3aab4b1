//! Descriptors that are kept: numbers that may mean something else by now.
//!
//! A program may close descriptors that it did not open (`close_range(3, ..)`, as daemons do), and
//! the system gives a closed one's number to whatever is opened next. Who goes on to use it locks,
//! writes to, or closes, what belongs to somebody else. So a descriptor that is kept for longer
//! than a call is known by what it means, which is looked up before each use and before it is
//! closed; one that means something else was closed by others already, and is forgotten.
//!
//! What it means is device and inode, and the *mark* of its open file description, which tells it
//! from others of the same file: a user's, or one of ours under another lock. The mark is the
//! position, which nothing here makes use of: it is set far behind the end, at a place that differs
//! each time. What has no position (a socket, a process) is marked on Linux by the signal that it
//! would send if it were asked to send any, one of thirty that nobody sets: not as good, but files
//! without a position are not opened twice like those with a name. (Before Linux 6.9 it is all
//! there is of a process: there such descriptors share one inode.) A description that is shared
//! with other processes goes without a mark.
//!
//! Nothing keeps a program from closing a number, and giving it out, between the look and the use.
//!
//! # Not for children
//!
//! A [`PrivateFd`] is closed in the child of a fork: see [`fork`](crate::fork). The fork handler
//! finds them in a list whose entries are never freed, and used again.

#[cfg(target_os = "linux")]
use std::os::fd::FromRawFd;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, IntoRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicI32, AtomicPtr, AtomicU64, Ordering};

use dsm_core::handle::ObjectId;

use crate::error::Error;
use crate::fork::{self, NoFork};
use crate::sys::{self, Errno};

/// What a descriptor means.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Meaning {
    id: ObjectId,
    /// The position, or the signal, which is less than any such position; 0 for none.
    mark: u64,
}

/// Signals are numbers up to this.
#[cfg(target_os = "linux")]
const MOST_SIGNALS: u64 = 64;

impl Meaning {
    /// Of a description that nobody else has, which is given a mark, if it takes one.
    fn marked(fd: BorrowedFd<'_>) -> Result<Self, Errno> {
        let id = sys::stat(fd)?.id;
        // As far as all file systems of this time go, and as those of old.
        let marks = [fresh_mark(41), fresh_mark(30)];
        // Some files say that they took it, and have no position.
        let takes = |mark: &u64| sys::set_position(fd, *mark) == Ok(*mark);
        let mark = marks.into_iter().find(takes);
        Ok(Self { id, mark: mark.or_else(|| Self::mark_by_signal(fd)).unwrap_or(0) })
    }

    #[cfg(target_os = "linux")]
    fn mark_by_signal(fd: BorrowedFd<'_>) -> Option<u64> {
        let signals = libc::SIGRTMIN()..=libc::SIGRTMAX();
        let count = u64::try_from(signals.clone().count()).ok()?.max(1);
        let signal = signals.start() + (fresh_mark(30) % count) as i32;
        sys::set_signal(fd, signal).is_ok().then_some(signal as u64)
    }

    #[cfg(not(target_os = "linux"))]
    fn mark_by_signal(_: BorrowedFd<'_>) -> Option<u64> {
        None
    }

    fn has_mark(self, fd: BorrowedFd<'_>) -> bool {
        #[cfg(target_os = "linux")]
        if (1..=MOST_SIGNALS).contains(&self.mark) {
            return sys::signal(fd).is_ok_and(|signal| signal as u64 == self.mark);
        }
        self.mark == 0 || sys::position(fd) == Ok(self.mark)
    }

    /// Whether a descriptor means this. Async-signal-safe.
    fn is_that_of(self, fd: BorrowedFd<'_>) -> bool {
        sys::stat(fd).is_ok_and(|stat| stat.id == self.id) && self.has_mark(fd)
    }
}

/// A position between 2^bits and twice that, that no other description of this process has.
fn fresh_mark(bits: u32) -> u64 {
    static COUNTER: AtomicU64 = AtomicU64::new(1);
    let time = crate::clock::monotonic().as_nanos() as u64;
    let count = COUNTER.fetch_add(1, Ordering::Relaxed);
    let random =
        crate::name::hash(&(time ^ count << 40 ^ u64::from(sys::process_id())).to_ne_bytes());
    1 << bits | random & ((1 << bits) - 1)
}

/// The descriptor of that number, if it still means this.
///
/// # Safety
///
/// For as long as the result is used, nothing here may close what the caller says it has.
unsafe fn verified<'a>(fd: RawFd, meaning: Meaning) -> Option<BorrowedFd<'a>> {
    if fd < 0 {
        return None;
    }
    // SAFETY: not -1. Should it be closed, or another's, then nothing but questions is asked of it.
    let fd = unsafe { BorrowedFd::borrow_raw(fd) };
    meaning.is_that_of(fd).then_some(fd)
}

/// A descriptor that is kept; see the module's essay. Closed when dropped.
#[derive(Debug)]
pub(crate) struct Kept {
    fd: RawFd,
    meaning: Meaning,
}

impl Kept {
    /// Of a description that nobody else has.
    pub(crate) fn new(fd: OwnedFd) -> Result<Self, Errno> {
        let meaning = Meaning::marked(fd.as_fd())?;
        Ok(Self { fd: fd.into_raw_fd(), meaning })
    }

    /// Of a description that others may share, who have not set its position.
    #[cfg(target_os = "linux")]
    pub(crate) fn shared(fd: OwnedFd) -> Self {
        let id = sys::stat(fd.as_fd()).map_or(ObjectId::default(), |stat| stat.id);
        Self { fd: fd.into_raw_fd(), meaning: Meaning { id, mark: 0 } }
    }

    /// The descriptor, whatever it means by now.
    #[cfg(target_os = "linux")]
    pub(crate) fn unverified(&self) -> BorrowedFd<'_> {
        // SAFETY: not -1; this value closes it when it is dropped, which the borrow precludes.
        unsafe { BorrowedFd::borrow_raw(self.fd) }
    }

    /// The descriptor, closed by others no more than by this value from now on.
    #[cfg(target_os = "linux")]
    pub(crate) fn into_owned(self) -> Option<OwnedFd> {
        let fd = self.get().ok()?.as_raw_fd();
        std::mem::forget(self);
        // SAFETY: it was this value's, which is not dropped.
        Some(unsafe { OwnedFd::from_raw_fd(fd) })
    }

    /// The descriptor; "bad file descriptor" if somebody has closed it behind our back.
    pub(crate) fn get(&self) -> Result<BorrowedFd<'_>, Errno> {
        // SAFETY: this value closes it when it is dropped, which the borrow precludes.
        unsafe { verified(self.fd, self.meaning) }.ok_or(Errno(libc::EBADF))
    }

    /// What it means.
    pub(crate) fn id(&self) -> ObjectId {
        self.meaning.id
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        if self.get().is_ok() {
            // SAFETY: it is the one that was given to this value.
            unsafe { libc::close(self.fd) };
        }
    }
}

/// The list the child's handler walks: entries are pushed, never freed, and used again.
static DESCRIPTORS: AtomicPtr<Entry> = AtomicPtr::new(std::ptr::null_mut());

struct Entry {
    /// The descriptor, -1 for a free entry.
    fd: AtomicI32,
    /// Counts tenants: a `PrivateFd` that a child inherited from its parent's memory must not
    /// touch what the child opened into the same entry.
    tenant: AtomicU64,
    device: AtomicU64,
    object: AtomicU64,
    mark: AtomicU64,
    next: *const Entry,
}

impl Entry {
    fn forget_in_child(&self) {
        let fd = self.fd.swap(-1, Ordering::AcqRel);
        self.tenant.fetch_add(1, Ordering::AcqRel);
        let id = ObjectId {
            device: self.device.load(Ordering::Relaxed),
            object: self.object.load(Ordering::Relaxed),
        };
        let meaning = Meaning { id, mark: self.mark.load(Ordering::Relaxed) };
        // SAFETY: the child has one thread, which is in here.
        if unsafe { verified(fd, meaning) }.is_some() {
            // SAFETY: it is the descriptor that this entry owns, in a process that has no use for
            // it.
            unsafe { libc::close(fd) };
        }
    }
}

/// What a fork handler does in the child: closes what is not for it.
pub(crate) fn forget_in_child() {
    let mut at = DESCRIPTORS.load(Ordering::Acquire).cast_const();
    // SAFETY: entries are never freed, and complete before they are linked.
    while let Some(entry) = unsafe { at.as_ref() } {
        entry.forget_in_child();
        at = entry.next;
    }
}

/// A descriptor that is closed in the child of a fork, of a description that nobody else has; see
/// the module's essay.
pub(crate) struct PrivateFd {
    entry: &'static Entry,
    tenant: u64,
    meaning: Meaning,
}

// SAFETY: the entry it refers to consists of atomics and a pointer that never changes.
unsafe impl Send for PrivateFd {}
// SAFETY: as above.
unsafe impl Sync for PrivateFd {}

impl PrivateFd {
    /// Opens a descriptor for a caller who holds the lock; `open` must not call back here.
    pub(crate) fn open_under(
        _lock: &NoFork,
        open: impl FnOnce() -> Result<OwnedFd, Error>,
    ) -> Result<Self, Error> {
        let fd = open()?;
        let meaning = Meaning::marked(fd.as_fd()).map_err(|e| Error::os(e, "fstat", ""))?;
        let entry = free_entry();
        entry.device.store(meaning.id.device, Ordering::Relaxed);
        entry.object.store(meaning.id.object, Ordering::Relaxed);
        entry.mark.store(meaning.mark, Ordering::Relaxed);
        let tenant = entry.tenant.fetch_add(1, Ordering::AcqRel) + 1;
        entry.fd.store(fd.into_raw_fd(), Ordering::Release);
        Ok(Self { entry, tenant, meaning })
    }

    /// The descriptor; `None` in a fork child, and if somebody has closed it behind our back.
    ///
    /// Whether the number still means what was opened is asked of the system each time: locks
    /// asked of another file would look free, and everybody dead.
    pub(crate) fn get(&self) -> Option<BorrowedFd<'_>> {
        let fd: RawFd = self.entry.fd.load(Ordering::Acquire);
        if self.entry.tenant.load(Ordering::Acquire) != self.tenant {
            return None;
        }
        // SAFETY: the entry is ours (its tenant count is), so this crate leaves the descriptor
        // open until this value is dropped, which the borrow precludes.
        unsafe { verified(fd, self.meaning) }
    }

    /// What the descriptor means.
    pub(crate) fn id(&self) -> ObjectId {
        self.meaning.id
    }

    /// Closes the descriptor, for a caller who holds the lock.
    pub(crate) fn close_under(self, _lock: &NoFork) {
        self.close();
        std::mem::forget(self);
    }

    fn close(&self) {
        let fd = self.get().map(|fd| fd.as_raw_fd());
        if self.entry.tenant.load(Ordering::Acquire) == self.tenant {
            self.entry.fd.store(-1, Ordering::Release);
        }
        if let Some(fd) = fd {
            // SAFETY: was owned by the entry, which has just let go of it.
            unsafe { libc::close(fd) };
        }
    }
}

impl Drop for PrivateFd {
    fn drop(&mut self) {
        let _lock = fork::lock();
        self.close();
    }
}

/// A free entry of the list, a new one if there is none. Under the lock.
fn free_entry() -> &'static Entry {
    let head = DESCRIPTORS.load(Ordering::Acquire);
    let mut at = head.cast_const();
    // SAFETY: entries are never freed, and complete before they are linked.
    while let Some(entry) = unsafe { at.as_ref() } {
        if entry.fd.load(Ordering::Acquire) < 0 {
            return entry;
        }
        at = entry.next;
    }
    let entry = Box::leak(Box::new(Entry {
        fd: AtomicI32::new(-1),
        tenant: AtomicU64::new(0),
        device: AtomicU64::new(0),
        object: AtomicU64::new(0),
        mark: AtomicU64::new(0),
        next: head,
    }));
    DESCRIPTORS.store(entry, Ordering::Release);
    entry
}

#[cfg(test)]
mod tests {
    use std::os::fd::FromRawFd;

    use super::*;

    fn open(path: &std::path::Path) -> OwnedFd {
        std::fs::OpenOptions::new().read(true).write(true).open(path).unwrap().into()
    }

    fn is_open(fd: RawFd) -> bool {
        // SAFETY: asks for flags only.
        unsafe { libc::fcntl(fd, libc::F_GETFD) >= 0 }
    }

    /// The number of a descriptor that was closed by others belongs to whoever opens next, even the
    /// same file.
    #[test]
    fn what_was_closed_by_others_is_neither_used_nor_closed() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let kept = Kept::new(open(file.path())).unwrap();
        assert!(kept.get().is_ok());
        let fd = kept.get().unwrap().as_raw_fd();
        // SAFETY: replaces it by another description of the same file, under the same number.
        assert_eq!(unsafe { libc::dup2(open(file.path()).as_raw_fd(), fd) }, fd);
        assert_eq!(kept.get().err(), Some(Errno(libc::EBADF)));
        drop(kept);
        assert!(is_open(fd), "closed a stranger's descriptor");
        // SAFETY: the copy made above, which nobody else knows.
        drop(unsafe { OwnedFd::from_raw_fd(fd) });

        let private = PrivateFd::open_under(&fork::lock(), || Ok(open(file.path()))).unwrap();
        let other = PrivateFd::open_under(&fork::lock(), || Ok(open(file.path()))).unwrap();
        let (fd, theirs) = (private.get().unwrap(), other.get().unwrap().as_raw_fd());
        let fd = fd.as_raw_fd();
        // SAFETY: as above; by one of ours.
        assert_eq!(unsafe { libc::dup2(theirs, fd) }, fd);
        assert!(private.get().is_none());
        drop(private);
        assert!(is_open(fd), "closed a stranger's descriptor");
        assert!(other.get().is_some());
        // SAFETY: as above.
        drop(unsafe { OwnedFd::from_raw_fd(fd) });
    }

    #[test]
    fn marks_differ_and_a_directory_takes_one() {
        let directory = tempfile::tempdir().unwrap();
        let open = || OwnedFd::from(std::fs::File::open(directory.path()).unwrap());
        let (one, other) = (Kept::new(open()).unwrap(), Kept::new(open()).unwrap());
        assert_eq!(one.id(), other.id());
        assert_ne!(one.meaning, other.meaning);
        assert!(one.get().is_ok() && other.get().is_ok());
    }
}

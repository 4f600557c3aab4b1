//! The control object: election, creation, removal.
//!
//! # Protocol
//!
//! Whoever wants to set up, enter, or remove a namespace opens the control object (creating an
//! empty one if there is none), locks byte 0 of it, and then compares what was locked with what
//! the name means *now*. If they differ, somebody removed the object between the opening and the
//! locking, and one starts over; if they agree they stay so, since only the holder of byte 0
//! removes. The lock goes with its holder, at whatever instruction:
//!
//! | killed | leaves | and then |
//! |---|---|---|
//! | after creating | an object of size 0, perhaps with too few permissions | the next holder sees size 0: it initialises, and its `create` sets the permissions |
//! | while backing it | size 0 still: the size is set by the last call that backs it, at its end | as above |
//! | after backing, before it is initialised | zeros | the cores see no magic number, and initialise again |
//! | after removing the name | nothing | |
//!
//! On Linux an existing object never shrinks while anybody may look at it ([`peek`]): a tool must
//! not fault because a namespace is set up again.
//!
//! Who has opened a namespace keeps the descriptor of that election for the one by which it leaves
//! ([`Spare`]). Otherwise a process that has no descriptor left could not leave, and what only it
//! used would stay if it was the last.
//!
//! Waiting for the election is polling with growing pauses, as the lock has no timed form that a
//! signal could not disturb.
//!
//! [`peek`]: dsm_core::provider::Root::peek

use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use dsm_core::error::{ErrorKind, Reason};
use dsm_core::handle::ObjectId;
use dsm_core::provider::{Election, Mapping};
use platform_common::refusal;

use crate::clock::monotonic;
use crate::error::{Error, OPEN};
use crate::fork;
use crate::limits;
use crate::lock::{ELECTION, Locks};
use crate::options::Options;
use crate::sys::{self, Errno, Stat};

/// What the election and liveness need to know of a provider's control object.
pub(crate) trait ControlObject: Send + Sync {
    /// Opens it for reading and writing through a description of its own, after a check of owner
    /// and mode; creates it empty if there is none and `create` is set.
    fn open(&self, create: bool) -> Result<OwnedFd, Error>;

    /// Opens it for reading only, after the same check.
    fn open_to_read(&self) -> Result<OwnedFd, Error>;

    /// What the name means now.
    fn current(&self) -> Result<Option<ObjectId>, Error>;

    /// Removes the name, if it still means that object. Under the election.
    fn remove(&self, id: ObjectId) -> Result<(), Error>;

    /// Whether the object was removed, where it has no name that could go.
    fn was_removed(&self, _stat: &Stat) -> bool {
        false
    }

    /// Where a descriptor is kept for the next election, if one is kept.
    fn spare(&self) -> Option<&Spare> {
        None
    }

    fn options(&self) -> &Options;

    /// How to call it in messages.
    fn label(&self) -> String;

    /// The file system it lies on.
    fn place(&self) -> &str;

    /// Whether it may be a file on a disk: memory doesn't limit it, and where there is no
    /// `posix_fallocate` it must be written to be backed.
    fn on_disk(&self) -> bool;

    /// Path of the lock files but for the number at the end.
    #[cfg(not(target_os = "linux"))]
    fn lock_files(&self) -> String;
}

/// A descriptor for the next election: that of the one before. Locked under [`fork::lock`] only.
#[derive(Default)]
pub(crate) struct Spare(Mutex<Option<Locks>>);

impl Spare {
    fn slot(&self, _no_fork: &fork::NoFork) -> MutexGuard<'_, Option<Locks>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `None` also if it was the parent's of this process, or was closed by others.
    fn take(&self, no_fork: &fork::NoFork) -> Option<Locks> {
        let locks = self.slot(no_fork).take()?;
        if locks.control().is_some() {
            return Some(locks);
        }
        locks.close_under(no_fork);
        None
    }

    fn put(&self, locks: Locks, no_fork: &fork::NoFork) {
        if let Some(other) = self.slot(no_fork).replace(locks) {
            other.close_under(no_fork);
        }
    }
}

impl std::fmt::Debug for Spare {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Spare").finish_non_exhaustive()
    }
}

/// The right to set up or remove a control object; see
/// [`Root::elect`](dsm_core::provider::Root::elect). Ends when dropped.
pub struct PosixElection<'a> {
    control: &'a dyn ControlObject,
    /// `None` only while being dropped.
    locks: Option<Locks>,
    size: usize,
    /// Where its descriptor is kept afterwards.
    spare: Option<&'a Spare>,
}

/// Wins the election, waiting at most `patience`.
pub(crate) fn elect(
    control: &dyn ControlObject,
    create: bool,
    patience: Duration,
) -> Result<PosixElection<'_>, Error> {
    let start = monotonic();
    loop {
        let mut locks = open_locks(control, create, &fork::lock())?;
        if !await_lock(control, &locks, start, patience)? {
            continue;
        }
        let no_fork = fork::lock();
        match locks.settle(control, create, &no_fork) {
            Ok(true) => drop(no_fork),
            Ok(false) => {
                release(locks, &no_fork);
                continue;
            }
            Err(e) => {
                release(locks, &no_fork);
                return Err(e);
            }
        }
        // Who doesn't create is looking, or leaving.
        let spare = control.spare().filter(|_| create);
        let mut election = PosixElection { control, locks: Some(locks), size: 0, spare };
        let stat = sys::stat(election.descriptor()?).map_err(|e| election.fail(e, "fstat"))?;
        if !control.was_removed(&stat) {
            election.size = usize::try_from(stat.size).unwrap_or(usize::MAX);
        }
        return Ok(election);
    }
}

fn open_locks(
    control: &dyn ControlObject,
    create: bool,
    no_fork: &fork::NoFork,
) -> Result<Locks, Error> {
    let Some(locks) = control.spare().and_then(|spare| spare.take(no_fork)) else {
        return Locks::open(control, create, no_fork);
    };
    // What was accepted when it was opened may have changed.
    let accepted = match locks.control().map(sys::stat) {
        Some(Ok(stat)) => control.options().accept(&stat, &|| control.label()),
        Some(Err(e)) => Err(Error::os(e, "fstat", control.label())),
        None => Ok(()),
    };
    match accepted {
        Ok(()) => Ok(locks),
        Err(error) => {
            locks.close_under(no_fork);
            Err(error)
        }
    }
}

/// Locks byte 0. False if the name means another object by now, or none: then the old object's
/// lock is worth nothing, and its holder is not to be waited for.
fn await_lock(
    control: &dyn ControlObject,
    locks: &Locks,
    start: Duration,
    patience: Duration,
) -> Result<bool, Error> {
    let mut pause = Duration::from_micros(50);
    loop {
        if locks.try_lock(ELECTION, &fork::lock())? {
            return Ok(true);
        }
        let left = patience.saturating_sub(monotonic().saturating_sub(start));
        if left.is_zero() {
            return Err(refusal::elected_late(control.label()));
        }
        std::thread::sleep(pause.min(left));
        pause = (pause * 2).min(Duration::from_millis(5));
        if control.current()? != Some(locks.id()) {
            return Ok(false);
        }
    }
}

fn release(locks: Locks, no_fork: &fork::NoFork) {
    locks.unlock(ELECTION, no_fork);
    locks.close_under(no_fork);
}

impl PosixElection<'_> {
    fn descriptor(&self) -> Result<BorrowedFd<'_>, Error> {
        self.locks.as_ref().and_then(Locks::control).ok_or_else(|| {
            let why = "this is a fork child: the election is its parent's";
            Error::new(ErrorKind::Other, "election", why)
        })
    }

    fn fail(&self, errno: Errno, step: &'static str) -> Error {
        Error::os(errno, step, self.control.label())
    }

    fn map_len(&self, len: usize) -> Result<Mapping, Error> {
        let base = sys::map(self.descriptor()?, len, true)
            .map_err(|e| self.fail(e, "mmap"))
            .map_err(|e| e.with_addresses(len as u64, || limits::why_unmappable(len)))?;
        Ok(Mapping { base, len, token: 0 })
    }

    /// Zeros, of at least `size` bytes, all of them backed.
    #[cfg(target_os = "linux")]
    fn renew(&self, size: usize) -> Result<(), Error> {
        if !self.control.on_disk() {
            enough_memory(size)?;
        }
        let fd = self.descriptor()?;
        let old = sys::stat(fd).map_err(|e| self.fail(e, "fstat"))?.size;
        if old != 0 {
            sys::punch(fd, 0, old).map_err(|e| self.fail(e, "fallocate"))?;
        }
        sys::back_new(fd, size as u64).map_err(|e| {
            let error = self.fail(e, "posix_fallocate");
            let error = error.with_space(size as u64, self.control.place(), || limits::space(fd));
            // Of size 0 again, should the file system have extended it first.
            let _ = sys::set_len(fd, 0);
            error
        })
    }

    #[cfg(not(target_os = "linux"))]
    fn renew(&self, size: usize) -> Result<(), Error> {
        let fd = self.descriptor()?;
        let space = |error: Error| {
            error.with_space(size as u64, self.control.place(), || limits::space(fd))
        };
        if self.control.on_disk() {
            let zeros = sys::set_len(fd, 0).and_then(|()| sys::write_zeros(fd, size as u64));
            return zeros.map_err(|e| {
                let _ = sys::set_len(fd, 0);
                space(self.fail(e, "write"))
            });
        }
        // Shared memory can be sized once on macOS.
        if self.size < size {
            sys::set_len(fd, size as u64).map_err(|e| space(self.fail(e, "ftruncate")))?;
        }
        if self.size != 0 {
            let old = self.map_len(self.size.min(size))?;
            // SAFETY: mapped for writing just now; the election says that nobody else uses it.
            unsafe { old.base.as_ptr().write_bytes(0, old.len) };
            // SAFETY: mapped above, used by nobody.
            unsafe { sys::unmap(old.base, old.len) };
        }
        Ok(())
    }
}

// SAFETY: `mmap` says so of the mappings; `create` has the object backed with zeros before it maps
// it, under the lock that makes its holder the only one to look at it for writing; the identity is
// that of the locked descriptor, through which all of this happens.
unsafe impl Election for PosixElection<'_> {
    type Error = Error;

    fn size(&self) -> usize {
        self.size
    }

    fn id(&self) -> ObjectId {
        self.locks.as_ref().map_or(ObjectId::default(), Locks::id)
    }

    fn create(&mut self, size: usize) -> Result<Mapping, Error> {
        check_size(size, size)?;
        let fd = self.descriptor()?;
        let stat = sys::stat(fd).map_err(|e| self.fail(e, "fstat"))?;
        let mode = self.control.options().mode;
        if stat.owner == sys::effective_user() && stat.mode != mode {
            set_mode(fd, mode).map_err(|e| self.fail(e, "fchmod"))?;
        }
        let renewed = self.renew(size);
        let stat = sys::stat(self.descriptor()?).map_err(|e| self.fail(e, "fstat"))?;
        self.size = usize::try_from(stat.size).unwrap_or(usize::MAX);
        renewed?;
        self.map_len(size)
    }

    fn map(&mut self) -> Result<Mapping, Error> {
        if self.size == 0 {
            return Err(refusal::never_set_up(self.control.label()));
        }
        self.map_len(addressable(self.size as u64, &|| self.control.label())?)
    }

    fn remove(&mut self) -> Result<(), Error> {
        // A fork child has inherited the value but not the right.
        self.descriptor()?;
        self.spare = None;
        self.control.remove(self.id())
    }
}

impl Drop for PosixElection<'_> {
    fn drop(&mut self) {
        let Some(locks) = self.locks.take() else { return };
        let no_fork = fork::lock();
        match self.spare.filter(|_| locks.control().is_some()) {
            Some(spare) => {
                locks.unlock(ELECTION, &no_fork);
                spare.put(locks, &no_fork);
            }
            None => release(locks, &no_fork),
        }
    }
}

/// Maps the control object for reading.
pub(crate) fn peek(control: &dyn ControlObject) -> Result<Mapping, Error> {
    use std::os::fd::AsFd;

    let fd = control.open_to_read()?;
    let fail = |e, step| Error::os(e, step, control.label());
    let stat = sys::stat(fd.as_fd()).map_err(|e| fail(e, "fstat"))?;
    if control.was_removed(&stat) {
        return Err(fail(Errno(libc::ENOENT), OPEN));
    }
    let len = addressable(stat.size, &|| control.label())?;
    if len == 0 {
        return Err(refusal::being_set_up(control.label()));
    }
    let base = sys::map(fd.as_fd(), len, false)
        .map_err(|e| fail(e, "mmap").with_addresses(len as u64, || limits::why_unmappable(len)))?;
    Ok(Mapping { base, len, token: 0 })
}

/// The size of an object as a length in memory, if there can be such a mapping: a program with
/// 32-bit addresses may meet an object that has no room in them.
pub(crate) fn addressable(size: u64, label: &dyn Fn() -> String) -> Result<usize, Error> {
    isize::try_from(size).map(isize::unsigned_abs).map_err(|_| {
        let error = Error::refused(Reason::Unaddressable, "mapping", label());
        error.with_limit(size, isize::MAX as u64)
    })
}

/// Refuses sizes that no object can have.
pub(crate) fn check_size(size: usize, reserved: usize) -> Result<(), Error> {
    refusal::check_size(size, reserved, isize::MAX as usize)?;
    let most = limits::file_size_limit();
    if size as u64 > most {
        let error = Error::refused(Reason::FileSizeLimit, "check of the size", "");
        return Err(error.with_limit(size as u64, most));
    }
    Ok(())
}

/// Refuses to ask for more memory than the machine has left.
///
/// Shared memory without a limit of its own (memfd, System V, a tmpfs that is larger than the
/// machine) doesn't say no: it would be backed page by page until the system kills somebody. Small
/// requests are not held up by the question.
pub(crate) fn enough_memory(asked: usize) -> Result<(), Error> {
    if asked < 64 << 20 {
        return Ok(());
    }
    match limits::memory() {
        Some((available, total)) if asked as u64 > available => {
            let error = Error::refused(Reason::MachineFull, "reserving", "");
            Err(error.with_space(asked as u64, "", || (Reason::MachineFull, available, total)))
        }
        _ => Ok(()),
    }
}

/// `fchmod`, where the system has it for this kind of object.
pub(crate) fn set_mode(fd: BorrowedFd<'_>, mode: u32) -> Result<(), Errno> {
    match sys::set_mode(fd, mode) {
        // macOS has no fchmod for shared memory.
        Err(Errno(libc::EINVAL)) if cfg!(target_os = "macos") => Ok(()),
        other => other,
    }
}

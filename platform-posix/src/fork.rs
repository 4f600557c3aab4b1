//! What a fork must not copy: memory that is wiped in the child, descriptors that are closed in it.
//!
//! A child of `fork` without `exec` is a second process with a copy of everything. Two things
//! must not survive that copy. Tokens by which a thread or a process knows that it is registered:
//! the child would act in its parent's name; they lie in [`Wiped`] memory, which reads as zero in
//! a child, and zero means "not registered". And descriptors that hold a lock on behalf of the
//! living process: a child that never calls us would keep its dead parent alive for everybody
//! else; they are `PrivateFd`s.
//!
//! # How
//!
//! Wiping is the kernel's work where it can be (`MADV_WIPEONFORK` on Linux since 4.14,
//! `INHERIT_ZERO` on the BSDs), and therefore also happens when somebody forks behind the C
//! library's back (`_Fork`, `clone`). Elsewhere, emulators that agree to any `madvise` included, a
//! `pthread_atfork` handler writes the zeros.
//!
//! Closing needs the handler everywhere: no system can close a descriptor on fork. It is
//! registered with `pthread_atfork`, once, when the first such descriptor is opened, stays for the
//! rest of the process, and does only what is allowed in the child of a process with threads:
//! it reads atomics and calls `fstat` and `close`. `vfork` and `posix_spawn` run no handlers and need
//! none: the child executes another program at once and all descriptors are close-on-exec. A
//! child of `_Fork` or of a bare `clone` runs none either: it keeps the lock until it ends, and
//! its parent's death is noticed by pid and start time instead (module `liveness`).
//!
//! # One lock
//!
//! `lock` is held by whoever opens, records or closes such a descriptor, and, through the
//! `prepare` handler, by a thread that forks. Thus a fork never falls between the opening of a
//! descriptor and its entry in the list, and the child finds the lock, and everything that is
//! only changed under it, in a settled state. It is a plain pthread mutex because the thread that
//! forks must release it twice, once in each process.

use std::cell::UnsafeCell;
use std::marker::PhantomData;
use std::ops::Deref;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, IntoRawFd, OwnedFd, RawFd};
use std::ptr::NonNull;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicI32, AtomicPtr, AtomicU64, AtomicUsize, Ordering};

use dsm_core::handle::ObjectId;
use dsm_core::participant::ParticipantLocal;

use crate::error::Error;
use crate::sys::{self, Errno};

// ---------------------------------------------------------------------------------------------
// The lock and the handlers

struct ForkLock(UnsafeCell<libc::pthread_mutex_t>);

// SAFETY: a pthread mutex is made to be used by many threads.
unsafe impl Sync for ForkLock {}

static LOCK: ForkLock = ForkLock(UnsafeCell::new(libc::PTHREAD_MUTEX_INITIALIZER));

/// Holds off forks until dropped.
pub(crate) struct NoFork {
    /// A pthread mutex is unlocked by the thread that locked it.
    _one_thread: PhantomData<*mut ()>,
}

/// Waits for a fork in progress, and for others that hold this, then holds off the next one.
pub(crate) fn lock() -> NoFork {
    static REGISTERED: OnceLock<()> = OnceLock::new();
    REGISTERED.get_or_init(|| {
        // SAFETY: the handlers are functions of this crate that live as long as it is loaded; they
        // touch nothing but statics.
        unsafe { libc::pthread_atfork(Some(prepare), Some(in_parent), Some(in_child)) };
    });
    prepare();
    NoFork { _one_thread: PhantomData }
}

impl Drop for NoFork {
    fn drop(&mut self) {
        in_parent();
    }
}

extern "C" fn prepare() {
    // SAFETY: a mutex in a static, initialised by its constant.
    unsafe { libc::pthread_mutex_lock(LOCK.0.get()) };
}

extern "C" fn in_parent() {
    // SAFETY: locked by this thread in `prepare`.
    unsafe { libc::pthread_mutex_unlock(LOCK.0.get()) };
}

extern "C" fn in_child() {
    let mut at = DESCRIPTORS.load(Ordering::Acquire).cast_const();
    // SAFETY: entries are never freed, and complete before they are linked.
    while let Some(entry) = unsafe { at.as_ref() } {
        entry.forget_in_child();
        at = entry.next;
    }
    wipe_by_hand();
    in_parent();
}

// ---------------------------------------------------------------------------------------------
// Descriptors that a child does not keep

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
    next: *const Entry,
}

impl Entry {
    fn forget_in_child(&self) {
        let fd = self.fd.swap(-1, Ordering::AcqRel);
        self.tenant.fetch_add(1, Ordering::AcqRel);
        if fd < 0 {
            return;
        }
        // SAFETY: the process may have closed all its descriptors (as daemons do) and reused the
        // number; whether it is still ours is compared next, and nothing else is done with it.
        let borrowed = unsafe { BorrowedFd::borrow_raw(fd) };
        let id = ObjectId {
            device: self.device.load(Ordering::Relaxed),
            object: self.object.load(Ordering::Relaxed),
        };
        if sys::stat(borrowed).is_ok_and(|stat| stat.id == id) {
            // SAFETY: it is the descriptor that this entry owns, in a process that has no use for it.
            unsafe { libc::close(fd) };
        }
    }
}

/// A descriptor that is closed in the child of a fork; see the module's essay.
pub(crate) struct PrivateFd {
    entry: &'static Entry,
    tenant: u64,
    id: ObjectId,
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
        let id = sys::stat(fd.as_fd()).map_err(|e| Error::os(e, "fstat", ""))?.id;
        let entry = free_entry();
        entry.device.store(id.device, Ordering::Relaxed);
        entry.object.store(id.object, Ordering::Relaxed);
        let tenant = entry.tenant.fetch_add(1, Ordering::AcqRel) + 1;
        entry.fd.store(fd.into_raw_fd(), Ordering::Release);
        Ok(Self { entry, tenant, id })
    }

    /// The descriptor; `None` in a fork child, and if somebody has closed it behind our back.
    ///
    /// Whether the number still means what was opened is asked of the system each time: locks
    /// asked of another file would look free, and everybody dead.
    pub(crate) fn get(&self) -> Option<BorrowedFd<'_>> {
        let fd: RawFd = self.entry.fd.load(Ordering::Acquire);
        if self.entry.tenant.load(Ordering::Acquire) != self.tenant || fd < 0 {
            return None;
        }
        // SAFETY: the entry is ours (its tenant count is), so this crate leaves the descriptor
        // open until this value is dropped, which the borrow precludes.
        let fd = unsafe { BorrowedFd::borrow_raw(fd) };
        sys::stat(fd).is_ok_and(|stat| stat.id == self.id).then_some(fd)
    }

    /// What the descriptor means.
    pub(crate) fn id(&self) -> ObjectId {
        self.id
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
        let _lock = lock();
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
        next: head,
    }));
    DESCRIPTORS.store(entry, Ordering::Release);
    entry
}

// ---------------------------------------------------------------------------------------------
// Memory that is zero in a child

/// Types of which all-zero bytes are a valid value that means "not registered".
///
/// # Safety
///
/// All-zero bytes must be a valid value of the type; it must need no drop, and it must stay sound
/// when a fork replaces it by zeros at a moment when the forking thread isn't inside one of its methods.
pub unsafe trait ZeroIsUnregistered {}

// SAFETY: "All zero bytes are a valid, unregistered value", says its documentation.
unsafe impl ZeroIsUnregistered for ParticipantLocal {}
// SAFETY: an integer.
unsafe impl ZeroIsUnregistered for AtomicU64 {}
// SAFETY: an integer.
unsafe impl ZeroIsUnregistered for u64 {}

/// A value in pages of its own that read as zero in the child of a fork.
///
/// Starts as zero too. Costs at least one page and two system calls: meant for a few tokens of a
/// process or a thread.
pub struct Wiped<T: ZeroIsUnregistered> {
    value: NonNull<T>,
    len: usize,
    by_hand: bool,
    _owns: PhantomData<T>,
}

// SAFETY: owns a `T` like a box does.
unsafe impl<T: ZeroIsUnregistered + Send> Send for Wiped<T> {}
// SAFETY: gives out `&T` only.
unsafe impl<T: ZeroIsUnregistered + Sync> Sync for Wiped<T> {}

impl<T: ZeroIsUnregistered> Wiped<T> {
    /// Allocates a zero value.
    ///
    /// # Errors
    ///
    /// [`NoMemory`](dsm_core::error::ErrorKind::NoMemory) if the process can't map any more,
    /// [`TooMany`](dsm_core::error::ErrorKind::TooMany) on systems without wiping by the kernel
    /// when [`MAX_BY_HAND`] such values exist.
    pub fn new() -> Result<Self, Error> {
        const {
            assert!(align_of::<T>() <= 4096 && size_of::<T>() > 0 && !std::mem::needs_drop::<T>());
        }
        let len = size_of::<T>().next_multiple_of(sys::page_size());
        let base = sys::map_private(len).map_err(|e| Error::os(e, "mmap", ""))?;
        let by_hand = !wipe_on_fork(base, len);
        if by_hand && !enlist(base, len) {
            // SAFETY: mapped above, and nobody has seen it.
            unsafe { sys::unmap(base, len) };
            return Err(Error::os(Errno(libc::EMFILE), "list of pages to wipe on fork", ""));
        }
        Ok(Self { value: base.cast(), len, by_hand, _owns: PhantomData })
    }
}

impl<T: ZeroIsUnregistered> Deref for Wiped<T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: mapped until drop, aligned to a page, and valid as zeros or as written by `T`.
        unsafe { self.value.as_ref() }
    }
}

impl<T: ZeroIsUnregistered> Drop for Wiped<T> {
    fn drop(&mut self) {
        if self.by_hand {
            delist(self.value.cast());
        }
        // SAFETY: mapped by `new`; nothing borrows from a value that is being dropped.
        unsafe { sys::unmap(self.value.cast(), self.len) };
    }
}

/// Asks the kernel to wipe the pages on fork; whether it will.
fn wipe_on_fork(base: NonNull<u8>, len: usize) -> bool {
    #[cfg(target_os = "linux")]
    // SAFETY: concerns only fresh pages of our own.
    return unsafe { libc::madvise(base.as_ptr().cast(), len, libc::MADV_WIPEONFORK) } == 0
        && sys::advice_is_heeded();
    #[cfg(target_os = "freebsd")]
    // SAFETY: concerns only fresh pages of our own.
    return unsafe { libc::minherit(base.as_ptr().cast(), len, libc::INHERIT_ZERO) } == 0;
    #[cfg(not(any(target_os = "linux", target_os = "freebsd")))]
    {
        let _ = (base, len);
        false
    }
}

/// How many [`Wiped`] values can exist at once on systems whose kernel doesn't wipe.
pub const MAX_BY_HAND: usize = 4096;

/// (address, length) of pages that the handler wipes; address 0 for a free entry. A fixed table,
/// since a handler may neither allocate nor take the locks of an allocator.
static BY_HAND: [(AtomicUsize, AtomicUsize); MAX_BY_HAND] =
    [const { (AtomicUsize::new(0), AtomicUsize::new(0)) }; MAX_BY_HAND];

fn enlist(base: NonNull<u8>, len: usize) -> bool {
    let _lock = lock();
    let Some((address, length)) = BY_HAND.iter().find(|e| e.0.load(Ordering::Acquire) == 0) else {
        return false;
    };
    length.store(len, Ordering::Relaxed);
    address.store(base.as_ptr().expose_provenance(), Ordering::Release);
    true
}

fn delist(base: NonNull<u8>) {
    let _lock = lock();
    for (address, _) in &BY_HAND {
        if address.load(Ordering::Acquire) == base.addr().get() {
            address.store(0, Ordering::Release);
        }
    }
}

fn wipe_by_hand() {
    for (address, length) in &BY_HAND {
        let base = address.load(Ordering::Acquire);
        if base != 0 {
            let base = std::ptr::with_exposed_provenance_mut::<u8>(base);
            // SAFETY: listed pages are mapped and ours; the child has no other thread.
            unsafe { base.write_bytes(0, length.load(Ordering::Relaxed)) };
        }
    }
}

/// A number that differs between a process and the child it forks, however it was forked; never 0.
pub(crate) fn epoch() -> u64 {
    static WORD: OnceLock<Option<Wiped<AtomicU64>>> = OnceLock::new();
    // Without a page to be wiped the pid has to do.
    let Some(word) = WORD.get_or_init(|| Wiped::new().ok()) else {
        return u64::from(sys::process_id());
    };
    let epoch = word.load(Ordering::Acquire);
    if epoch != 0 {
        return epoch;
    }
    // The parent is alive or its pid is gone with it; with the time added no descendant repeats it.
    let time = crate::clock::monotonic().as_micros() as u64;
    let fresh = (u64::from(sys::process_id()) << 40) ^ time | 1;
    match word.compare_exchange(0, fresh, Ordering::AcqRel, Ordering::Acquire) {
        Ok(_) => fresh,
        Err(other) => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Where the kernel doesn't wipe, the handler does.
    #[test]
    fn pages_are_wiped_by_hand() {
        let len = sys::page_size();
        let base = sys::map_private(len).unwrap();
        let word = base.cast::<AtomicU64>();
        // SAFETY: a fresh page of zeros, aligned, mapped to the end of the test.
        let word = unsafe { word.as_ref() };
        assert!(enlist(base, len));
        word.store(7, Ordering::Relaxed);
        // SAFETY: the child only reads an atomic and exits.
        let child = unsafe { libc::fork() };
        if child == 0 {
            let value = word.load(Ordering::Relaxed);
            // SAFETY: ends the child without running anything of the harness.
            unsafe { libc::_exit(i32::from(value != 0)) };
        }
        let mut status = -1;
        // SAFETY: `status` is writable.
        assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
        assert_eq!(status, 0, "the child found the parent's value");
        assert_eq!(word.load(Ordering::Relaxed), 7);
        delist(base);
        // SAFETY: not used any more.
        unsafe { sys::unmap(base, len) };
    }
}

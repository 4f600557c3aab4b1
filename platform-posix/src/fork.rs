//! What a fork must not copy: memory that is wiped in the child, descriptors that are closed in it.
//!
//! A child of `fork` without `exec` is a second process with a copy of everything. Two things
//! must not survive that copy. Tokens by which a thread or a process knows that it is registered:
//! the child would act in its parent's name; they lie in [`Wiped`] memory, which reads as zero in
//! a child, and zero means "not registered". And descriptors that hold a lock on behalf of the
//! living process: a child that never calls us would keep its dead parent alive for everybody
//! else; they are `PrivateFd`s (module `descriptor`).
//!
//! # How
//!
//! Wiping is the kernel's work where it can be (`MADV_WIPEONFORK` on Linux since 4.14,
//! `INHERIT_ZERO` on the BSDs), and therefore also happens when somebody forks behind the C
//! library's back (`_Fork`, `clone`). Elsewhere, emulators that agree to any `madvise` included, a
//! `pthread_atfork` handler writes the zeros.
//!
//! Closing needs the handler everywhere: no system can close a descriptor on fork. It is registered
//! with `pthread_atfork` when the first such descriptor is opened, stays for the rest of the
//! process, and does only what is allowed in the child of a process with threads: it reads atomics
//! and calls `fstat`, `lseek` and `close`. `vfork` and `posix_spawn` run no handlers and need none:
//! the child executes another program at once and all descriptors are close-on-exec. A child of
//! `_Fork` or of a bare `clone` runs none either: it keeps the lock until it ends, and its parent's
//! death is noticed by pid and start time instead (module `liveness`).
//!
//! # One lock
//!
//! `lock` is held by whoever opens, records or closes such a descriptor, and, through the
//! `prepare` handler, by a thread that forks. Thus a fork never falls between the opening of a
//! descriptor and its entry in the list, and the child finds the lock, and everything that is
//! only changed under it, in a settled state. It is a plain pthread mutex because the thread that
//! forks must release it twice, once in each process.
//!
//! The process-wide state of this crate is changed under this lock, or by single atomic accesses
//! (`Once`). There is no other mutex in a static, and no `OnceLock`: a child that is forked while
//! another thread is in one waits for ever.

use std::cell::UnsafeCell;
use std::marker::PhantomData;
use std::ops::Deref;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, AtomicUsize, Ordering};

use dsm_core::error::ErrorKind;
use dsm_core::participant::ParticipantLocal;

use crate::descriptor;
use crate::error::Error;
use crate::limits;
use crate::sys;

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
    static REGISTERED: AtomicBool = AtomicBool::new(false);
    if !REGISTERED.load(Ordering::Acquire) {
        // SAFETY: the handlers are functions of this crate that live as long as it is loaded; they
        // touch nothing but statics. They bear being registered more than once.
        unsafe { libc::pthread_atfork(Some(prepare), Some(in_parent), Some(in_child)) };
        REGISTERED.store(true, Ordering::Release);
    }
    // SAFETY: a mutex in a static, initialised by its constant.
    unsafe { libc::pthread_mutex_lock(LOCK.0.get()) };
    NoFork { _one_thread: PhantomData }
}

impl Drop for NoFork {
    fn drop(&mut self) {
        // SAFETY: locked by this thread in `lock`.
        unsafe { libc::pthread_mutex_unlock(LOCK.0.get()) };
    }
}

/// The thread that forks, as `pthread_self` says it; 0 for none. Changed under the lock.
static FORKING: AtomicUsize = AtomicUsize::new(0);
/// How many handlers have run for that fork.
static HANDLERS: AtomicUsize = AtomicUsize::new(0);

fn this_thread() -> usize {
    // SAFETY: no preconditions; the same in the child.
    unsafe { libc::pthread_self() as usize }
}

extern "C" fn prepare() {
    if FORKING.load(Ordering::Relaxed) != this_thread() {
        // SAFETY: a mutex in a static, initialised by its constant.
        unsafe { libc::pthread_mutex_lock(LOCK.0.get()) };
        FORKING.store(this_thread(), Ordering::Relaxed);
    }
    HANDLERS.fetch_add(1, Ordering::Relaxed);
}

extern "C" fn in_parent() {
    if HANDLERS.fetch_sub(1, Ordering::Relaxed) == 1 {
        FORKING.store(0, Ordering::Relaxed);
        // SAFETY: locked by this thread in `prepare`.
        unsafe { libc::pthread_mutex_unlock(LOCK.0.get()) };
    }
}

extern "C" fn in_child() {
    descriptor::forget_in_child();
    wipe_by_hand();
    in_parent();
}

/// A value that is made when it is first asked for, in a static, and stays.
///
/// Whoever makes it first wins, and nobody waits for anybody: a child can be forked while another
/// thread is at it, and would wait for a thread that it does not have.
pub(crate) struct Once<T: 'static>(AtomicPtr<T>);

impl<T: Send + Sync> Once<T> {
    pub(crate) const fn new() -> Self {
        Self(AtomicPtr::new(std::ptr::null_mut()))
    }

    /// The value; of several that `make` it at once, one's is kept.
    pub(crate) fn get_or_make(&self, make: impl FnOnce() -> T) -> &'static T {
        // SAFETY: null, or leaked below, and never changed again.
        if let Some(made) = unsafe { self.0.load(Ordering::Acquire).as_ref() } {
            return made;
        }
        let fresh = Box::into_raw(Box::new(make()));
        let null = std::ptr::null_mut();
        match self.0.compare_exchange(null, fresh, Ordering::AcqRel, Ordering::Acquire) {
            // SAFETY: leaked above.
            Ok(_) => unsafe { &*fresh },
            Err(other) => {
                // SAFETY: made above, and nobody has seen it.
                drop(unsafe { Box::from_raw(fresh) });
                // SAFETY: leaked by who was first.
                unsafe { &*other }
            }
        }
    }
}

// ---------------------------------------------------------------------------------------------
// Memory that is zero in a child

/// Types of which all-zero bytes are a valid value that means "not registered".
///
/// # Safety
///
/// All-zero bytes must be a valid value of the type; it must need no drop, and it must stay sound
/// when a fork replaces it by zeros at a moment when the forking thread isn't inside one of its
/// methods.
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
        let base = sys::map_private(len).map_err(|e| {
            let error = Error::os(e, "mmap", "");
            error.with_addresses(len as u64, || limits::why_unmappable(len))
        })?;
        let by_hand = !wipe_on_fork(base, len);
        if by_hand && !enlist(base, len) {
            // SAFETY: mapped above, and nobody has seen it.
            unsafe { sys::unmap(base, len) };
            let why = "the list is full";
            return Err(Error::new(ErrorKind::TooMany, "list of pages to wipe on fork", why));
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
    static WORD: Once<Option<Wiped<AtomicU64>>> = Once::new();
    // Without a page to be wiped the pid has to do.
    let Some(word) = WORD.get_or_make(|| Wiped::new().ok()) else {
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

    /// Forks; whether the child, which ends after `work` or is ended when it hangs, found it good.
    fn in_a_child(work: impl FnOnce() -> bool) -> bool {
        // SAFETY: the child runs what a child may run, and exits.
        let child = unsafe { libc::fork() };
        if child == 0 {
            // SAFETY: ends the child, should it hang.
            unsafe { libc::alarm(20) };
            let good = work();
            // SAFETY: ends the child without running anything of the harness.
            unsafe { libc::_exit(i32::from(!good)) };
        }
        let mut status = -1;
        // SAFETY: `status` is writable.
        assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
        status == 0
    }

    #[test]
    fn a_child_does_not_wait_for_a_thread_of_its_parents() {
        static VALUE: Once<u32> = Once::new();
        let (begun, waiting) = std::sync::mpsc::channel();
        let (go, wait) = std::sync::mpsc::channel::<()>();
        let slow = std::thread::spawn(move || {
            *VALUE.get_or_make(|| {
                begun.send(()).unwrap();
                wait.recv().unwrap();
                1
            })
        });
        waiting.recv().unwrap();
        assert!(in_a_child(|| *VALUE.get_or_make(|| 2) == 2));
        assert_eq!(*VALUE.get_or_make(|| 3), 3);
        go.send(()).unwrap();
        assert_eq!(slow.join().unwrap(), 3, "who is late takes what is there");
    }

    /// As when two threads do it at once.
    #[test]
    fn the_handlers_bear_being_registered_twice() {
        drop(lock());
        // SAFETY: as in `lock`.
        unsafe { libc::pthread_atfork(Some(prepare), Some(in_parent), Some(in_child)) };
        for _ in 0..3 {
            assert!(in_a_child(|| {
                drop(lock());
                true
            }));
            drop(lock());
        }
    }

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
        let zero = in_a_child(|| word.load(Ordering::Relaxed) == 0);
        assert!(zero, "the child found the parent's value");
        assert_eq!(word.load(Ordering::Relaxed), 7);
        delist(base);
        // SAFETY: not used any more.
        unsafe { sys::unmap(base, len) };
    }
}

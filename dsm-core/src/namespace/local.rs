//! What a process keeps of a namespace in its own memory, supplied by the caller.
//!
//! One record a segment slot, because a process maps a segment once however many handles it has:
//! where it is mapped, how many handles there are, and what is to be called before it goes. Each
//! record has a mutex of its own, held while that segment is mapped or unmapped, so that threads
//! wait for each other's system calls only when they want the same segment.
//!
//! Lock order within the process: a record, then the process's participant (and with it the
//! control lock). Nothing waits for a record while it holds the participant.
//!
//! These mutexes are spin locks, as there is nothing else without a platform; but who has spun for
//! a while sleeps between its tries, because the owner may have lost its processor, or wait for
//! another process itself.
//!
//! The token word says that all of this is this process's: it is zero before the namespace is
//! opened and after it is left, and in between it says by which claim the namespace has the rest,
//! which is remembered beside it. The platform puts it into memory that is wiped on fork. A
//! child therefore finds zero, and touches neither records (whose mutexes may have been held by
//! threads it does not have) nor shared memory.

use core::ptr;
use core::time::Duration;

use crate::detach::DetachCallback;
use crate::env::Environment;
use crate::lock::kind::Kinds;
use crate::lock::{LockKind, RawLock};
use crate::sync::{AtomicU32, AtomicU64, Ordering, spin_loop};

/// Stands in the token word while a namespace is being opened.
const OPENING: u64 = u64::MAX;

/// Tries before the first sleep: about as long as the control lock is held.
const SPINS: u32 = 100;
/// Sleep between two tries.
const PAUSE: Duration = Duration::from_micros(100);

/// Acquires a mutex of this process.
#[inline]
pub(crate) fn acquire<'m, T>(
    mutex: &'m spin::Mutex<T>,
    env: &dyn Environment,
) -> spin::MutexGuard<'m, T> {
    match mutex.try_lock() {
        Some(guard) => guard,
        None => acquire_contended(mutex, env),
    }
}

#[cold]
fn acquire_contended<'m, T>(
    mutex: &'m spin::Mutex<T>,
    env: &dyn Environment,
) -> spin::MutexGuard<'m, T> {
    for _ in 0..SPINS {
        spin_loop();
        if let Some(guard) = mutex.try_lock() {
            return guard;
        }
    }
    // Nobody wakes a word of our own: the wait is a sleep.
    let word = AtomicU32::new(0);
    loop {
        env.wait(&word, 0, PAUSE);
        if let Some(guard) = mutex.try_lock() {
            return guard;
        }
    }
}

/// A process's record of one segment slot.
pub struct LocalSegment {
    pub(crate) mapped: spin::Mutex<Mapped>,
    /// Whether this process has asked for the address of a lock in any segment of the slot: only
    /// then can a thread of its own hold one.
    locks: core::sync::atomic::AtomicBool,
}

/// A mapping; all zero if there is none.
pub(crate) struct Mapped {
    /// The segment's handle; 0 if it is not mapped here.
    pub(crate) handle: u64,
    pub(crate) base: *mut u8,
    /// Length of the segment.
    pub(crate) len: usize,
    /// Length and token of the provider's mapping; both 0 in the main region.
    pub(crate) mapped_len: usize,
    pub(crate) token: usize,
    /// Handles of this process.
    pub(crate) handles: u32,
    /// Whether the mapping stays without a handle.
    pub(crate) pinned: bool,
    /// The latest callback; each knows the one before.
    pub(crate) callbacks: *const DetachCallback,
}

// SAFETY: the pointers are to mapped shared memory and to callbacks that `on_detach` made its
// caller promise to be usable from any thread; both are used under the record's mutex.
unsafe impl Send for Mapped {}

impl Mapped {
    pub(crate) const NONE: Self = Self {
        handle: 0,
        base: ptr::null_mut(),
        len: 0,
        mapped_len: 0,
        token: 0,
        handles: 0,
        pinned: false,
        callbacks: ptr::null(),
    };
}

impl LocalSegment {
    /// An empty record.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            mapped: spin::Mutex::new(Mapped::NONE),
            locks: core::sync::atomic::AtomicBool::new(false),
        }
    }

    /// Whether there may be locks that threads of this process use.
    #[inline]
    pub(crate) fn has_locks(&self) -> bool {
        self.locks.load(Ordering::Relaxed)
    }

    /// Notes that there may be.
    #[inline]
    pub(crate) fn note_locks(&self) {
        if !self.has_locks() {
            self.locks.store(true, Ordering::Relaxed);
        }
    }
}

impl Default for LocalSegment {
    fn default() -> Self {
        Self::new()
    }
}

/// Process-local memory of a namespace, supplied by the caller (no `alloc` here). For one namespace
/// at a time.
pub struct ProcessLocal<'a> {
    token: &'a AtomicU64,
    /// How often this was claimed: what the token says while a namespace has it open. The token is
    /// a word of the caller's, who may store whatever he likes; this number never comes again.
    claims: core::sync::atomic::AtomicU64,
    pub(crate) segments: &'a [LocalSegment],
    /// Records from here on were never used.
    high: core::sync::atomic::AtomicUsize,
    kinds: Kinds,
}

impl<'a> ProcessLocal<'a> {
    /// Process-local memory made of a token word and one record a segment slot of the namespace
    /// (`max_segments`, of the namespace as it exists). The records are borrowed alone: two
    /// namespaces that shared some would take each other's segments for their own.
    ///
    /// The token must be zero, and should lie in memory that is wiped on fork: otherwise a child
    /// that uses its parent's namespace is not told [`Error::Forked`](super::Error::Forked), and
    /// harms its parent's state. To store zero there makes the process a stranger at any time, as
    /// [`reset_after_fork`](super::Namespace::reset_after_fork) does.
    #[must_use]
    pub const fn new(token: &'a AtomicU64, segments: &'a mut [LocalSegment]) -> Self {
        let claims = core::sync::atomic::AtomicU64::new(0);
        let high = core::sync::atomic::AtomicUsize::new(0);
        Self { token, claims, segments, high, kinds: Kinds::new() }
    }

    /// Notes that the record of a slot is about to be used.
    #[inline]
    pub(crate) fn note_use(&self, slot: u32) {
        let count = slot as usize + 1;
        if self.high.load(Ordering::Relaxed) < count {
            self.high.fetch_max(count, Ordering::Relaxed);
        }
    }

    /// The records that were ever used.
    pub(crate) fn used(&self) -> &[LocalSegment] {
        &self.segments[..self.high.load(Ordering::Relaxed).min(self.segments.len())]
    }

    /// Tells the process of a kind of lock that is not ours, so that it can clear dead readers of
    /// such locks. It learns of each kind that a thread of its own holds shared; but what others
    /// left is swept in opening already, so a program that uses such locks says so before. False if
    /// it knows eight others.
    ///
    /// Participants that died with such a lock held shared keep their slots until somebody sweeps
    /// who knows their kind.
    pub fn know<L: RawLock>(&self) -> bool {
        self.know_kind(LockKind::of::<L>())
    }

    pub(crate) fn know_kind(&self, kind: LockKind) -> bool {
        self.kinds.know(kind)
    }

    /// The kind of lock of that identity, if it is ours or the process was told of it.
    pub(crate) fn kind(&self, identity: u64) -> Option<LockKind> {
        self.kinds.find(identity)
    }

    /// Whether the namespace that made this claim has it open, and the process has not forked
    /// since.
    #[inline]
    pub(crate) fn is_open(&self, claim: u64) -> bool {
        self.token.load(Ordering::Relaxed) == claim && self.claims.load(Ordering::Relaxed) == claim
    }

    /// Claims the memory for one `open`; `None` if it is in use.
    pub(crate) fn begin(&self) -> Option<u64> {
        let won =
            self.token.compare_exchange(0, OPENING, Ordering::Acquire, Ordering::Relaxed).is_ok();
        let unused = || {
            self.kinds.is_unlocked()
                && self
                    .segments
                    .iter()
                    .all(|record| record.mapped.try_lock().is_some_and(|mapped| mapped.handle == 0))
        };
        if !won {
            return None;
        }
        if !unused() {
            self.reset();
            return None;
        }
        Some(self.claims.fetch_add(1, Ordering::Relaxed) + 1)
    }

    pub(crate) fn commit(&self, claim: u64) {
        self.token.store(claim, Ordering::Release);
    }

    pub(crate) fn reset(&self) {
        self.token.store(0, Ordering::Release);
    }
}

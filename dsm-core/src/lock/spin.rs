//! The lock for bare metal and for programs that keep everything in one process: it spins.
//!
//! # Layout
//!
//! One word, in a line of its own: 0 free; `1 << 63 | ParticipantId::pack()` held exclusively by
//! that participant; else the number of participants that hold it shared.
//!
//! # What it does not do
//!
//! Nobody dies alone where this lock is meant for, so it does not recover: readers are a count,
//! from which a dead one could not be subtracted. A participant that ends without letting go
//! keeps the lock, and who waits for it waits until its patience ends. Where processes share
//! memory use [`RwLock`](super::rw::RwLock).
//!
//! Waiting means relaxing as [`spin`]'s strategies do: [`Spin`] for bare metal; a strategy that
//! yields to the scheduler where there is one. Readers do not queue behind waiting writers, so
//! nested readers never deadlock, and a stream of readers can starve a writer, as with
//! [`spin`'s own lock](https://docs.rs/spin/0.12/spin/rwlock/struct.RwLock.html). Timed forms
//! look at the clock between spins.
//!
//! With the feature `lock_api`, `LockApiSpin` offers the same word to `lock_api::RwLock`, for
//! code that knows no participants. (The recoverable lock has no such adapter: `lock_api` has
//! neither a participant to pass nor an outcome to return.)

use core::marker::PhantomData;
use core::mem::size_of;
use core::ptr::NonNull;

use ::spin::relax::{RelaxStrategy, Spin};

use super::{Acquired, HeldMode, LockError, Patience, RawLock, SharedOutcome, Token};
use crate::env::Environment;
use crate::handle::{LockAddress, ParticipantId};
use crate::participant::Participant;
use crate::sync::AtomicU64;
use crate::sync::Ordering::{Acquire, Relaxed, Release};

const EXCLUSIVE: u64 = 1 << 63;

/// [`RawLock::IDENTITY`] of the spin lock, however it passes the time.
pub(crate) const SPIN_LOCK: u64 = u64::from_le_bytes(*b"spinlk\0\x01");

/// Looks at the word between two looks at the clock.
const SPINS_PER_CLOCK: u32 = if cfg!(any(loom, shuttle)) { 1 } else { 64 };

/// The word of a spin lock.
struct Word(AtomicU64);

impl Word {
    #[inline]
    fn try_exclusive(&self, owner: u64) -> bool {
        self.0.compare_exchange(0, EXCLUSIVE | owner, Acquire, Relaxed).is_ok()
    }

    #[inline]
    fn try_shared(&self) -> bool {
        let mut readers = self.0.load(Relaxed);
        // The count cannot reach the flag: there are fewer participants.
        while readers & EXCLUSIVE == 0 {
            match self.0.compare_exchange_weak(readers, readers + 1, Acquire, Relaxed) {
                Ok(_) => return true,
                Err(changed) => readers = changed,
            }
        }
        false
    }

    #[inline]
    fn release_exclusive(&self) {
        self.0.store(0, Release);
    }

    #[inline]
    fn release_shared(&self) {
        self.0.fetch_sub(1, Release);
    }

    fn owner(&self) -> Option<u64> {
        let word = self.0.load(Relaxed);
        if word & EXCLUSIVE == 0 { None } else { Some(word & !EXCLUSIVE) }
    }
}

#[inline]
fn relax<R: RelaxStrategy>() {
    if cfg!(any(loom, shuttle)) {
        crate::sync::yield_now();
    } else {
        R::relax();
    }
}

/// The spinning reader-writer lock; see the module's essay. `R` says how to pass the time.
#[repr(C, align(64))]
pub struct SpinLock<R = Spin> {
    word: Word,
    _relax: PhantomData<fn() -> R>,
}

#[cfg(not(loom))]
const _: () = assert!(size_of::<SpinLock>() == 64);

impl<R: RelaxStrategy> SpinLock<R> {
    /// Tries until it succeeds or `patience` ends.
    #[cold]
    fn spin(
        participant: &Participant<'_>,
        patience: Patience,
        mut attempt: impl FnMut() -> bool,
    ) -> Result<(), LockError> {
        if patience == Patience::Try {
            return Err(LockError::WouldBlock);
        }
        loop {
            for _ in 0..SPINS_PER_CLOCK {
                if attempt() {
                    return Ok(());
                }
                relax::<R>();
            }
            // Who was declared dead must not be seen in a lock any more.
            participant.confirm()?;
            if let Patience::Until(deadline) = patience {
                if participant.peers().env().now() >= deadline {
                    return Err(LockError::TimedOut);
                }
            }
        }
    }
}

// SAFETY: a writer changes the word from 0, a reader from a count, each by an acquiring
// compare-and-swap, and both undo exactly that with release semantics. So a writer is alone.
unsafe impl<R: RelaxStrategy> RawLock for SpinLock<R> {
    const IDENTITY: u64 = SPIN_LOCK;

    fn size_for(_: u32) -> usize {
        size_of::<Self>().next_multiple_of(64)
    }

    unsafe fn init(at: NonNull<Self>, _: u32) {
        let lock = Self { word: Word(AtomicU64::new(0)), _relax: PhantomData };
        // SAFETY: the caller promises room for the lock, aligned and unused.
        unsafe { at.write(lock) };
    }

    #[inline]
    unsafe fn acquire_exclusive(
        at: NonNull<Self>,
        address: LockAddress,
        participant: &Participant<'_>,
        patience: Patience,
    ) -> Result<(Token, Acquired), LockError> {
        // SAFETY: kept below if the lock is acquired.
        let record = unsafe { participant.hold::<Self>(address, HeldMode::Exclusive) }?;
        let owner = participant.packed();
        // SAFETY: the caller promises an initialised lock that stays mapped.
        let lock = unsafe { at.as_ref() };
        if !lock.word.try_exclusive(owner) {
            Self::spin(participant, patience, || lock.word.try_exclusive(owner))?;
        }
        Ok((Token::new(record.keep(), owner), Acquired::Clean))
    }

    #[inline]
    unsafe fn release_exclusive(at: NonNull<Self>, participant: &Participant<'_>, token: Token) {
        if !participant.owns(token) {
            return; // a fork child with its parent's guard, say
        }
        // SAFETY: the caller holds the lock, so it is initialised and mapped.
        unsafe { at.as_ref() }.word.release_exclusive();
        // SAFETY: the caller promises a token of this lock, which is released once.
        drop(unsafe { participant.release_alone(token.held()) });
    }

    unsafe fn mark_recovered(_: NonNull<Self>, _: &Participant<'_>, _: Token) {}

    #[inline]
    unsafe fn acquire_shared(
        at: NonNull<Self>,
        address: LockAddress,
        participant: &Participant<'_>,
        patience: Patience,
    ) -> Result<SharedOutcome, LockError> {
        // SAFETY: kept below if the lock is acquired.
        let record = unsafe { participant.hold::<Self>(address, HeldMode::Shared) }?;
        // SAFETY: the caller promises an initialised lock that stays mapped.
        let lock = unsafe { at.as_ref() };
        if !record.is_again() && !lock.word.try_shared() {
            Self::spin(participant, patience, || lock.word.try_shared())?;
        }
        Ok(SharedOutcome::Held(Token::new(record.keep(), participant.packed())))
    }

    #[inline]
    unsafe fn release_shared(at: NonNull<Self>, participant: &Participant<'_>, token: Token) {
        if !participant.owns(token) {
            return; // a fork child with its parent's guard, say
        }
        // SAFETY: the caller promises a token of this lock, which is released once.
        let Some(record) = (unsafe { participant.release(token.held()) }) else { return };
        // SAFETY: the caller holds the lock, so it is initialised and mapped.
        unsafe { at.as_ref() }.word.release_shared();
        drop(record);
    }

    unsafe fn owner(at: NonNull<Self>) -> Option<ParticipantId> {
        // SAFETY: the caller promises an initialised lock.
        unsafe { at.as_ref() }.word.owner().and_then(ParticipantId::unpack)
    }

    unsafe fn clear_reader(_: NonNull<Self>, _: u32, _: u16, _: &dyn Environment) {
        // Readers are a count.
    }
}

/// The spin lock as a `lock_api::RawRwLock`: `lock_api::RwLock<LockApiSpin, T>`.
///
/// Knows no participants: it records nothing in `held[]`, so asking for it twice on one thread
/// hangs, as it does with every `lock_api` lock.
#[cfg(all(feature = "lock_api", not(loom)))]
pub struct LockApiSpin<R = Spin> {
    word: Word,
    _relax: PhantomData<fn() -> R>,
}

#[cfg(all(feature = "lock_api", not(loom)))]
// SAFETY: as for `SpinLock`.
unsafe impl<R: RelaxStrategy> lock_api::RawRwLock for LockApiSpin<R> {
    const INIT: Self = Self { word: Word(AtomicU64::new(0)), _relax: PhantomData };

    type GuardMarker = lock_api::GuardSend;

    #[inline]
    fn lock_shared(&self) {
        while !self.word.try_shared() {
            R::relax();
        }
    }

    #[inline]
    fn try_lock_shared(&self) -> bool {
        self.word.try_shared()
    }

    #[inline]
    unsafe fn unlock_shared(&self) {
        self.word.release_shared();
    }

    #[inline]
    fn lock_exclusive(&self) {
        while !self.word.try_exclusive(0) {
            R::relax();
        }
    }

    #[inline]
    fn try_lock_exclusive(&self) -> bool {
        self.word.try_exclusive(0)
    }

    #[inline]
    unsafe fn unlock_exclusive(&self) {
        self.word.release_exclusive();
    }

    fn is_locked(&self) -> bool {
        self.word.0.load(Relaxed) != 0
    }
}

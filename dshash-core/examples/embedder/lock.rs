//! A lock of the embedder's own: fair, by tickets, one at a time.
//!
//! Two counters: the next ticket to be drawn, and the one whose turn it is. Readers draw tickets
//! like everybody else: where few threads share little, that is all it takes. What the contract of
//! [`RawLock`] asks beyond mutual exclusion:
//!
//! - a name of its own for this kind of lock, by which an area whose locks are of another kind is
//!   refused;
//! - the participant's list of held locks is told *before* the lock is touched, and after it was
//!   let go. That also finds out a lock that the same participant asks for twice, which here means
//!   error or, shared beside shared, a count;
//! - who gives up waiting must not have drawn a ticket, or its turn would never pass: the try and
//!   timed forms draw one only if it would be their turn at once.
//!
//! Nobody dies alone on this machine, so the lock does not recover.

use std::ptr::NonNull;

use dsm_core::env::Environment;
use dsm_core::handle::{LockAddress, ParticipantId};
use dsm_core::lock::{Acquired, HeldMode, LockError, Patience, RawLock, SharedOutcome, Token};
use dsm_core::participant::Participant;
use dsm_core::sync::{AtomicU32, AtomicU64, Ordering, yield_now};

/// The lock.
#[repr(C, align(64))]
pub(crate) struct TicketLock {
    next: AtomicU32,
    turn: AtomicU32,
    /// Who has it, for tools; 0: nobody.
    owner: AtomicU64,
}

impl TicketLock {
    /// Draws a ticket if it would be its turn.
    fn try_lock(&self) -> bool {
        let turn = self.turn.load(Ordering::Acquire);
        let next = turn.wrapping_add(1);
        self.next.compare_exchange(turn, next, Ordering::Acquire, Ordering::Relaxed).is_ok()
    }

    fn lock(&self, me: &Participant<'_>, patience: Patience) -> Result<(), LockError> {
        match patience {
            Patience::Try if self.try_lock() => {}
            Patience::Try => return Err(LockError::WouldBlock),
            Patience::Until(deadline) => {
                while !self.try_lock() {
                    if me.peers().env().now() >= deadline {
                        return Err(LockError::TimedOut);
                    }
                    yield_now();
                }
            }
            Patience::Forever => {
                let ticket = self.next.fetch_add(1, Ordering::Relaxed);
                while self.turn.load(Ordering::Acquire) != ticket {
                    yield_now();
                }
            }
        }
        self.owner.store(me.packed(), Ordering::Relaxed);
        Ok(())
    }

    fn unlock(&self) {
        self.owner.store(0, Ordering::Relaxed);
        self.turn.fetch_add(1, Ordering::Release);
    }

    /// Acquires for the first time, or counts.
    fn acquire(
        &self,
        address: LockAddress,
        me: &Participant<'_>,
        mode: HeldMode,
        patience: Patience,
    ) -> Result<Token, LockError> {
        // SAFETY: told before the lock is touched, and kept if it is acquired. Otherwise it goes by
        // itself, also if something below panics.
        let record = unsafe { me.hold::<Self>(address, mode) }?;
        if !record.is_again() {
            self.lock(me, patience)?;
        }
        Ok(Token::new(record.keep(), me.packed()))
    }

    /// # Safety
    ///
    /// `token` must come from an acquisition of this lock, and not have been released.
    unsafe fn release(&self, me: &Participant<'_>, token: Token) {
        if !me.owns(token) {
            return; // a fork child with its parent's guard, say
        }
        // SAFETY: the caller's promise.
        if let Some(record) = unsafe { me.release(token.held()) } {
            self.unlock();
            drop(record);
        }
    }
}

// SAFETY: tickets are drawn by a read-modify-write, each once (until 2^32 wait at the same time),
// and a turn begins with an acquiring load of what the one before released.
unsafe impl RawLock for TicketLock {
    const IDENTITY: u64 = u64::from_le_bytes(*b"ticket\0\x01");

    fn size_for(_max_participants: u32) -> usize {
        size_of::<Self>()
    }

    unsafe fn init(at: NonNull<Self>, _max_participants: u32) {
        let free =
            Self { next: AtomicU32::new(0), turn: AtomicU32::new(0), owner: AtomicU64::new(0) };
        // SAFETY: the caller promises room that nobody uses.
        unsafe { at.write(free) };
    }

    unsafe fn acquire_exclusive(
        at: NonNull<Self>,
        address: LockAddress,
        participant: &Participant<'_>,
        patience: Patience,
    ) -> Result<(Token, Acquired), LockError> {
        // SAFETY: the caller promises an initialised lock that stays mapped.
        let lock = unsafe { at.as_ref() };
        let token = lock.acquire(address, participant, HeldMode::Exclusive, patience)?;
        Ok((token, Acquired::Clean))
    }

    unsafe fn release_exclusive(at: NonNull<Self>, participant: &Participant<'_>, token: Token) {
        // SAFETY: the caller holds the lock.
        let lock = unsafe { at.as_ref() };
        // SAFETY: by this token.
        unsafe { lock.release(participant, token) };
    }

    unsafe fn mark_recovered(_at: NonNull<Self>, _participant: &Participant<'_>, _token: Token) {}

    unsafe fn acquire_shared(
        at: NonNull<Self>,
        address: LockAddress,
        participant: &Participant<'_>,
        patience: Patience,
    ) -> Result<SharedOutcome, LockError> {
        // SAFETY: the caller promises an initialised lock that stays mapped.
        let lock = unsafe { at.as_ref() };
        let token = lock.acquire(address, participant, HeldMode::Shared, patience)?;
        Ok(SharedOutcome::Held(token))
    }

    unsafe fn release_shared(at: NonNull<Self>, participant: &Participant<'_>, token: Token) {
        // SAFETY: the caller holds the lock.
        let lock = unsafe { at.as_ref() };
        // SAFETY: by this token.
        unsafe { lock.release(participant, token) };
    }

    unsafe fn owner(at: NonNull<Self>) -> Option<ParticipantId> {
        // SAFETY: the caller promises an initialised lock.
        ParticipantId::unpack(unsafe { at.as_ref() }.owner.load(Ordering::Relaxed))
    }

    unsafe fn clear_reader(_: NonNull<Self>, _: u32, _: u16, _: &dyn Environment) {
        // A ticket says nothing of who drew it.
    }
}

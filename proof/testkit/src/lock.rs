//! A reader-writer lock that is not the library's, as an embedder might write one: with a bit for
//! each reader. It has the library's length, too, so that nothing but its name tells it from
//! others.
//!
//! # Layout
//!
//! 64 bytes: 0 mark u64, the kind's identity; 8 owner u64: the packed id of who has it or waits for
//! readers, and above it `DIRTY`; 16 wake u32; 24 five u64 of reader bits, for 320 participants.
//!
//! # Protocol
//!
//! A reader sets its bit, then looks at the owner; a writer takes the owner word, then looks at the
//! bits; both sequentially consistent. Who finds the owner dead takes the word over and calls the
//! data dirty, whether they are or not. Dead readers are evicted by who waits for them, and by the
//! sweep. There is no fairness, and waits are short sleeps: it is for tests.

use std::ptr::NonNull;
use std::time::Duration;

use dsm_core::env::Environment;
use dsm_core::handle::{LockAddress, ParticipantId};
use dsm_core::lock::{Acquired, HeldMode, LockError, Patience, RawLock, SharedOutcome, Token};
use dsm_core::participant::Participant;
use dsm_core::sync::{AtomicU32, AtomicU64, Ordering::SeqCst};

const DIRTY: u64 = 1 << 63;
const ID: u64 = (1 << 48) - 1;
const WORDS: usize = 5;
const NAP: Duration = Duration::from_millis(2);

/// The lock; each `KIND` is a kind of its own.
#[repr(C, align(64))]
pub struct BitLock<const KIND: u8> {
    mark: AtomicU64,
    owner: AtomicU64,
    wake: AtomicU32,
    readers: [AtomicU64; WORDS],
}

#[cfg(not(loom))]
const _: () = assert!(size_of::<BitLock<0>>() == 64);

impl<const KIND: u8> BitLock<KIND> {
    fn reader(&self, index: u16) -> Option<(&AtomicU64, u64)> {
        Some((self.readers.get(usize::from(index / 64))?, 1 << (index % 64)))
    }

    /// Readers' bits, as tests look at them.
    pub fn readers(&self) -> u32 {
        self.readers.iter().map(|word| word.load(SeqCst).count_ones()).sum()
    }

    /// Waits a little; an error at the end of all patience.
    fn nap(
        &self,
        me: &Participant<'_>,
        patience: Patience,
        last: &mut bool,
    ) -> Result<(), LockError> {
        let env = me.peers().env();
        match patience {
            _ if !*last => {}
            Patience::Try => return Err(LockError::WouldBlock),
            Patience::Until(deadline) if env.now() >= deadline => return Err(LockError::TimedOut),
            _ => {}
        }
        *last = true;
        if patience != Patience::Try {
            env.wait(&self.wake, self.wake.load(SeqCst), NAP);
        }
        Ok(())
    }

    fn wake(&self, env: &dyn Environment) {
        self.wake.fetch_add(1, SeqCst);
        env.wake_all(&self.wake);
    }

    fn is_dead(word: u64, me: &Participant<'_>) -> bool {
        ParticipantId::unpack(word & ID).is_some_and(|owner| me.peers().is_dead(owner))
    }

    /// Evicts dead readers; whether none is left.
    fn drained(&self, me: &Participant<'_>) -> bool {
        for (base, word) in (0..).step_by(64).zip(&self.readers) {
            let mut bits = word.load(SeqCst);
            while bits != 0 {
                let (index, bit) =
                    (base + bits.trailing_zeros() as u16, bits & bits.wrapping_neg());
                if !me.peers().evict_reader(me, index, word, bit) {
                    return false;
                }
                bits &= !bit;
            }
        }
        true
    }

    fn exclusive(&self, me: &Participant<'_>, patience: Patience) -> Result<Acquired, LockError> {
        let mut last = false;
        loop {
            let word = self.owner.load(SeqCst);
            let mine = match word & ID {
                0 => me.packed() | word & DIRTY,
                _ if Self::is_dead(word, me) => me.packed() | DIRTY,
                _ => {
                    self.nap(me, patience, &mut last)?;
                    continue;
                }
            };
            if self.owner.compare_exchange(word, mine, SeqCst, SeqCst).is_ok() {
                break;
            }
        }
        last = false;
        while !self.drained(me) {
            if let Err(error) = self.nap(me, patience, &mut last) {
                self.give_back(me);
                return Err(error);
            }
        }
        let dirty = self.owner.load(SeqCst) & DIRTY != 0;
        Ok(if dirty { Acquired::FromDead } else { Acquired::Clean })
    }

    fn give_back(&self, me: &Participant<'_>) {
        self.owner.fetch_and(DIRTY, SeqCst);
        self.wake(me.peers().env());
    }

    fn leave(&self, me: &Participant<'_>, (word, bit): (&AtomicU64, u64)) {
        word.fetch_and(!bit, SeqCst);
        self.wake(me.peers().env());
    }

    /// Whether it is held; false if a dead owner's data needs recovery.
    fn shared(&self, me: &Participant<'_>, patience: Patience) -> Result<bool, LockError> {
        let index = me.id().ok_or(LockError::NotRegistered)?.index;
        let reader = self.reader(index).ok_or(LockError::NotRegistered)?;
        let mut last = false;
        loop {
            reader.0.fetch_or(reader.1, SeqCst);
            let word = self.owner.load(SeqCst);
            if word == 0 {
                return Ok(true);
            }
            self.leave(me, reader);
            if word & ID == 0 || Self::is_dead(word, me) {
                return Ok(false);
            }
            self.nap(me, patience, &mut last)?;
        }
    }
}

// SAFETY: the module's essay: of a writer that has the word and then sees no bit, and a reader that
// has its bit and then sees no owner, one is second, and backs out. Records come first, and go
// last, by themselves. The mark tells such a lock from anything else.
unsafe impl<const KIND: u8> RawLock for BitLock<KIND> {
    const IDENTITY: u64 = u64::from_le_bytes([b'b', b'i', b't', b's', 0, KIND, 0, 1]);

    fn size_for(_: u32) -> usize {
        size_of::<Self>().next_multiple_of(64)
    }

    unsafe fn init(at: NonNull<Self>, _: u32) {
        let lock = Self {
            mark: AtomicU64::new(Self::IDENTITY),
            owner: AtomicU64::new(0),
            wake: AtomicU32::new(0),
            readers: std::array::from_fn(|_| AtomicU64::new(0)),
        };
        // SAFETY: the caller promises room that nobody uses.
        unsafe { at.write(lock) };
    }

    unsafe fn acquire_exclusive(
        at: NonNull<Self>,
        address: LockAddress,
        participant: &Participant<'_>,
        patience: Patience,
    ) -> Result<(Token, Acquired), LockError> {
        // SAFETY: kept if the lock is acquired.
        let record = unsafe { participant.hold::<Self>(address, HeldMode::Exclusive) }?;
        // SAFETY: the caller promises an initialised lock that stays mapped.
        let acquired = unsafe { at.as_ref() }.exclusive(participant, patience)?;
        Ok((Token::new(record.keep(), participant.packed()), acquired))
    }

    unsafe fn release_exclusive(at: NonNull<Self>, participant: &Participant<'_>, token: Token) {
        if participant.owns(token) {
            // SAFETY: the caller's token.
            let record = unsafe { participant.release_alone(token.held()) };
            // SAFETY: the caller holds the lock.
            unsafe { at.as_ref() }.give_back(participant);
            drop(record);
        }
    }

    unsafe fn mark_recovered(at: NonNull<Self>, _: &Participant<'_>, _: Token) {
        // SAFETY: the caller holds the lock.
        unsafe { at.as_ref() }.owner.fetch_and(!DIRTY, SeqCst);
    }

    unsafe fn acquire_shared(
        at: NonNull<Self>,
        address: LockAddress,
        participant: &Participant<'_>,
        patience: Patience,
    ) -> Result<SharedOutcome, LockError> {
        // SAFETY: kept if the lock is acquired.
        let record = unsafe { participant.hold::<Self>(address, HeldMode::Shared) }?;
        // SAFETY: the caller promises an initialised lock that stays mapped.
        let lock = unsafe { at.as_ref() };
        if record.is_again() || lock.shared(participant, patience)? {
            return Ok(SharedOutcome::Held(Token::new(record.keep(), participant.packed())));
        }
        Ok(SharedOutcome::NeedsRecovery)
    }

    unsafe fn release_shared(at: NonNull<Self>, participant: &Participant<'_>, token: Token) {
        if !participant.owns(token) {
            return;
        }
        // SAFETY: the caller's token.
        let Some(record) = (unsafe { participant.release(token.held()) }) else { return };
        // SAFETY: the caller holds the lock.
        let lock = unsafe { at.as_ref() };
        if let Some(reader) = lock.reader(token.owner() as u16) {
            lock.leave(participant, reader);
        }
        drop(record);
    }

    unsafe fn owner(at: NonNull<Self>) -> Option<ParticipantId> {
        // SAFETY: the caller promises an initialised lock.
        ParticipantId::unpack(unsafe { at.as_ref() }.owner.load(SeqCst) & ID)
    }

    unsafe fn clear_reader(at: NonNull<Self>, _: u32, index: u16, env: &dyn Environment) {
        // SAFETY: the caller promises as many bytes, and any bytes are atomics.
        let lock = unsafe { at.as_ref() };
        if lock.mark.load(SeqCst) == Self::IDENTITY {
            if let Some((word, bit)) = lock.reader(index) {
                word.fetch_and(!bit, SeqCst);
                lock.wake(env);
            }
        }
    }
}

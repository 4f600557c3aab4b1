//! Making and clearing the entries of a participant's list of held locks: for those who implement
//! locks. What an entry means, and why none stays by mistake, is in the essay of the parent module.

use super::{MAX_HELD, Participant, ParticipantSlot};
use crate::handle::LockAddress;
use crate::lock::kind::{ADDRESS, EXCLUSIVE, RW_SHARED, SPIN_SHARED, foreign_shared};
use crate::lock::rw::RwLock;
use crate::lock::spin::SPIN_LOCK;
use crate::lock::{HeldMode, LockError, LockKind, RawLock, Token};
use crate::sync::{AtomicU64, Ordering};

/// A record in a participant's list of held locks: cleared when dropped, unless it is kept. (One
/// that only counted takes back its count.)
#[must_use = "dropping it says that the lock was not acquired"]
pub struct Record<'p> {
    participant: &'p Participant<'p>,
    /// Index in the list, and `AGAIN`. One number, so that the record is two words in registers.
    place: u16,
}

/// Added to the index of a record of which only the count rose.
const AGAIN: u16 = 1 << 8;

impl Record<'_> {
    #[inline(always)]
    fn index(&self) -> u8 {
        self.place as u8
    }

    /// Whether the participant held the lock shared before: then it holds it now, and the lock's
    /// word must not be touched.
    #[inline]
    #[must_use]
    pub fn is_again(&self) -> bool {
        self.place & AGAIN != 0
    }

    /// Whether the participant holds, or is about to hold, another lock as well.
    #[inline]
    #[must_use]
    pub fn is_beside_others(&self) -> bool {
        self.participant.local.used.get() & !(1 << self.index()) != 0
    }

    /// Whose list it is in.
    #[inline]
    pub(crate) fn participant(&self) -> &Participant<'_> {
        self.participant
    }

    /// As dropping it, for who knows that the participant is registered.
    ///
    /// # Safety
    ///
    /// It must be, and the record not be one of a mere count.
    #[inline(always)]
    pub(crate) unsafe fn clear(self) {
        debug_assert!(!self.is_again());
        let local = self.participant.local;
        // SAFETY: the caller's promise.
        self.clear_in(unsafe { local.own_slot() });
        core::mem::forget(self);
    }

    /// After the lock's word was let go.
    #[inline(always)]
    fn clear_in(&self, slot: &ParticipantSlot) {
        let local = self.participant.local;
        crate::sync::compiler_fence();
        slot.held[self.index() as usize % MAX_HELD].store(0, Ordering::Relaxed);
        local.used.set(local.used.get() & !(1 << self.index()));
    }

    /// Keeps the record, because the lock was acquired. Returns its index, for the token.
    #[inline]
    #[must_use]
    pub fn keep(self) -> u8 {
        let index = self.index();
        core::mem::forget(self);
        index
    }
}

impl Drop for Record<'_> {
    #[inline(always)]
    fn drop(&mut self) {
        let local = self.participant.local;
        if self.is_again() {
            let again = &local.again[self.index() as usize % MAX_HELD];
            again.set(again.get().saturating_sub(1));
        } else if let Some(slot) = local.slot() {
            self.clear_in(slot);
        }
    }
}

impl Participant<'_> {
    /// Records that the lock `L` at `address` is about to be taken, before its word is touched.
    /// If it is held shared already, and shared is asked for, then [only the count
    /// rose](Record::is_again), and the word must not be touched.
    ///
    /// # Errors
    ///
    /// [`LockError::WouldDeadlock`] if the lock is held already and not shared beside shared,
    /// [`LockError::TooManyLocks`] (of which the control lock may be one more),
    /// [`LockError::NotRegistered`], [`LockError::DeclaredDead`], [`LockError::TooManyKinds`].
    /// Nothing has changed then.
    ///
    /// # Safety
    ///
    /// For implementors of locks: a record that says *shared* makes the next shared acquisition of
    /// the lock a mere count. So a record is kept exactly if the lock was acquired, in that mode.
    #[inline(always)]
    pub unsafe fn hold<L: RawLock>(
        &self,
        address: LockAddress,
        mode: HeldMode,
    ) -> Result<Record<'_>, LockError> {
        Ok(Record { participant: self, place: self.enter::<L>(address, mode)? })
    }

    /// Makes a record. Returns its place alone, in a register, where this is not inlined.
    #[inline]
    fn enter<L: RawLock>(&self, address: LockAddress, mode: HeldMode) -> Result<u16, LockError> {
        // By far the most frequent case, and small enough to be inlined into every caller.
        if self.is_current() && self.local.used.get() == 0 {
            // SAFETY: it is current, so registered.
            let slot = unsafe { self.local.own_slot() };
            let mode = self.mode_of::<L>(slot, mode)?;
            self.record(slot, 0, address, mode);
            return Ok(0);
        }
        self.enter_late::<L>(address, mode)
    }

    /// As `enter`, for who holds locks already, is not registered, or has to look whether it was
    /// declared dead.
    #[inline(never)]
    fn enter_late<L: RawLock>(
        &self,
        address: LockAddress,
        mode: HeldMode,
    ) -> Result<u16, LockError> {
        self.confirm()?;
        // SAFETY: confirmed.
        let slot = unsafe { self.local.own_slot() };
        self.hold_another(slot, address, self.mode_of::<L>(slot, mode)?)
    }

    /// As [`hold`](Self::hold) for a participant that holds no lock so far: record 0 is the one.
    /// `None`, with nothing changed, if it holds one, is not registered, or has to look first
    /// whether it was declared dead.
    ///
    /// # Safety
    ///
    /// As there.
    #[inline(always)]
    #[must_use]
    pub unsafe fn hold_first<L: RawLock>(
        &self,
        address: LockAddress,
        mode: HeldMode,
    ) -> Option<Record<'_>> {
        if self.local.used.get() != 0 || !self.is_current() {
            return None;
        }
        // SAFETY: it is current, so registered.
        let slot = unsafe { self.local.own_slot() };
        let mode = self.mode_of::<L>(slot, mode).ok()?;
        self.record(slot, 0, address, mode);
        Some(Record { participant: self, place: 0 })
    }

    /// What a record says of how a lock `L` is held: a constant, but for other kinds than ours.
    #[inline(always)]
    fn mode_of<L: RawLock>(
        &self,
        slot: &ParticipantSlot,
        mode: HeldMode,
    ) -> Result<u64, LockError> {
        match (mode, L::IDENTITY) {
            (HeldMode::Exclusive, _) => Ok(EXCLUSIVE),
            (HeldMode::Shared, RwLock::IDENTITY) => Ok(RW_SHARED),
            (HeldMode::Shared, SPIN_LOCK) => Ok(SPIN_SHARED),
            (HeldMode::Shared, identity) => {
                let known = |kind: &AtomicU64| kind.load(Ordering::Relaxed) == identity;
                match slot.kinds.iter().position(known) {
                    Some(place) => Ok(foreign_shared(place)),
                    None => self.enter_kind(slot, LockKind::of::<L>()),
                }
            }
        }
    }

    /// Writes a kind of lock down in the slot, before the first record that refers to it.
    #[cold]
    fn enter_kind(&self, slot: &ParticipantSlot, kind: LockKind) -> Result<u64, LockError> {
        let free = |kind: &AtomicU64| kind.load(Ordering::Relaxed) == 0;
        let place = slot.kinds.iter().position(free).ok_or(LockError::TooManyKinds)?;
        if !self.peers.admits(kind) {
            return Err(LockError::TooManyKinds);
        }
        slot.kinds[place].store(kind.identity(), Ordering::Relaxed);
        crate::sync::compiler_fence();
        Ok(foreign_shared(place))
    }

    fn hold_another(
        &self,
        slot: &ParticipantSlot,
        address: LockAddress,
        mode: u64,
    ) -> Result<u16, LockError> {
        let used = self.local.used.get();
        if let Some(index) = self.held_already(slot, used, address, mode)? {
            return Ok(index | AGAIN);
        }
        let index = (!used).trailing_zeros() as usize;
        if index >= MAX_HELD - 1 && (index >= MAX_HELD || address.slot() != LockAddress::CONTROL) {
            return Err(LockError::TooManyLocks);
        }
        self.record(slot, index, address, mode);
        Ok(index as u16)
    }

    #[inline(always)]
    fn record(&self, slot: &ParticipantSlot, index: usize, address: LockAddress, mode: u64) {
        self.local.used.set(self.local.used.get() | 1 << index);
        slot.held[index].store(mode | address.get(), Ordering::Relaxed);
        crate::sync::compiler_fence();
    }

    fn held_already(
        &self,
        slot: &ParticipantSlot,
        used: u32,
        address: LockAddress,
        mode: u64,
    ) -> Result<Option<u16>, LockError> {
        let mut left = used;
        while left != 0 {
            let index = left.trailing_zeros() as usize;
            left &= left - 1;
            let entry = slot.held[index].load(Ordering::Relaxed);
            if entry & ADDRESS != address.get() {
                continue;
            }
            if mode == EXCLUSIVE || entry & !ADDRESS != mode {
                return Err(LockError::WouldDeadlock);
            }
            let again = &self.local.again[index];
            let Some(more) = again.get().checked_add(1) else {
                return Err(LockError::TooManyLocks);
            };
            again.set(more);
            return Ok(Some(index as u16));
        }
        Ok(None)
    }

    /// Takes back one count of a record that was kept. If that was the last one, returns the
    /// record: the caller lets go of the lock's word, and drops it after that.
    ///
    /// # Safety
    ///
    /// `index` must come from [`Record::keep`], of this registration, once for each.
    #[inline]
    #[must_use]
    pub unsafe fn release(&self, index: u8) -> Option<Record<'_>> {
        let again = &self.local.again[index as usize % MAX_HELD];
        match again.get().checked_sub(1) {
            None => Some(Record { participant: self, place: index.into() }),
            Some(less) => {
                again.set(less);
                None
            }
        }
    }

    /// Whether it [owns](Self::owns_as_of_now) the token, and that is of the first record of its
    /// list, which is that of who holds no other lock: one comparison for both.
    #[inline(always)]
    pub(crate) fn owns_first(&self, token: Token) -> bool {
        token == Token::new(0, self.packed()) && self.is_current()
    }

    /// The same, and it holds the lock once.
    #[inline(always)]
    pub(crate) fn owns_first_once(&self, token: Token) -> bool {
        self.owns_first(token) && self.local.again[0].get() == 0
    }

    /// As [`release`](Self::release), of a lock that is held alone, which is not counted.
    ///
    /// # Safety
    ///
    /// As there.
    #[inline]
    pub unsafe fn release_alone(&self, index: u8) -> Record<'_> {
        Record { participant: self, place: index.into() }
    }
}

//! A participant: one thread attached to a namespace, as the locks see it.
//!
//! Two halves. The *shared* half, [`ParticipantSlot`], lies in the control segment; only its
//! tenant writes it while alive: which locks it holds, and nothing that would need an atomic
//! read-modify-write. The *local* half, [`ParticipantLocal`], is the tenant's own memory; the
//! platform puts it into pages that are wiped on fork, and all zero means "not registered", so
//! that a fork child (however it was made) finds itself a stranger instead of a second self.
//!
//! The list of held locks, `held[]`, is the intent record of every lock: an entry is stored
//! before the lock's word is touched and cleared after it was let go, so that at any moment each
//! word that carries the participant's mark is named by an entry. (Not the reverse: an entry may
//! name a lock that has no mark yet, or none any more; sweeping it is harmless.) Whoever sweeps a
//! dead participant clears its bits in the locks that the entries name, before the slot is given
//! out anew. Entries that say *exclusive* are not swept: the owner's word names its owner, and
//! the next to want the lock takes over.
//!
//! The last entry is kept for the control lock. It is the innermost lock of all and is needed to
//! evict a dead reader from any other, so a participant that holds as many locks as it may can
//! still wait for one to drain.
//!
//! An embedder that wants the locks without a namespace implements [`Peers`] over slots made by
//! [`ParticipantSlot::new`] and gives each thread a [`ParticipantLocal`] with a number of its
//! own; models do the same.

use core::cell::Cell;
use core::marker::PhantomData;

use crate::env::Environment;
use crate::handle::{LockAddress, ParticipantId};
use crate::lock::{HeldMode, LockError};
use crate::sync::{AtomicU32, AtomicU64, Ordering};

/// How many different locks a participant can hold at once, one of them the control lock.
pub const MAX_HELD: usize = 16;

/// The shared half of a participant; see the module's essay.
#[repr(C, align(64))]
pub struct ParticipantSlot {
    /// Truth of the slot: generation in the upper half, state in the lower (see the `control`
    /// module). Changed under the control lock only.
    pub(crate) state: AtomicU64,
    /// Process slot of the tenant in the lower half, that slot's generation in the upper.
    pub(crate) process: AtomicU64,
    /// [`ThreadProof`](crate::env::ThreadProof) of the tenant.
    pub(crate) tid: AtomicU64,
    pub(crate) thread_start: AtomicU64,
    /// What the tenant waits for, in terms of the crate that set it; 0 for nothing. Read by
    /// others to find cycles.
    pub waits_for: AtomicU64,
    pub(crate) _reserved: [AtomicU32; 6],
    /// The locks the tenant holds or is about to hold: `mode << 60 | address`, 0 for none. An
    /// entry is stored before the lock's word is touched and cleared after it was let go.
    pub(crate) held: [AtomicU64; MAX_HELD],
}

impl ParticipantSlot {
    /// A slot without a tenant, for building one in place.
    #[must_use]
    pub fn new() -> Self {
        Self {
            state: AtomicU64::new(0),
            process: AtomicU64::new(0),
            tid: AtomicU64::new(0),
            thread_start: AtomicU64::new(0),
            waits_for: AtomicU64::new(0),
            _reserved: core::array::from_fn(|_| AtomicU32::new(0)),
            held: core::array::from_fn(|_| AtomicU64::new(0)),
        }
    }

    /// The locks that the tenant holds or may have a mark in, for the sweep and for tools.
    pub fn held(&self) -> impl Iterator<Item = (LockAddress, HeldMode)> + '_ {
        self.held.iter().filter_map(|entry| HeldMode::parse(entry.load(Ordering::Acquire)))
    }
}

impl Default for ParticipantSlot {
    fn default() -> Self {
        Self::new()
    }
}

/// The process-local half of a participant; see the module's essay.
///
/// All zero bytes are a valid, unregistered value.
pub struct ParticipantLocal {
    /// `ParticipantId::pack()` of the registration; 0 if there is none in this process.
    packed: Cell<u64>,
    slot: Cell<*const ParticipantSlot>,
    /// Bit i: `held[i]` is in use.
    used: Cell<u32>,
    /// How often more than once the lock in `held[i]` is held by this participant; 0 for entries
    /// not in use, so that taking and releasing a lock once need not store it.
    again: [Cell<u16>; MAX_HELD],
}

impl ParticipantLocal {
    /// An unregistered participant.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            packed: Cell::new(0),
            slot: Cell::new(core::ptr::null()),
            used: Cell::new(0),
            again: [const { Cell::new(0) }; MAX_HELD],
        }
    }

    /// Whether the participant is registered in this process (false in a fork child).
    #[inline]
    #[must_use]
    pub fn is_registered(&self) -> bool {
        self.packed.get() != 0
    }

    /// Whether it holds any lock.
    #[inline]
    #[must_use]
    pub fn holds_any(&self) -> bool {
        self.used.get() != 0
    }

    /// Enters a registration.
    ///
    /// # Safety
    ///
    /// `slot` must stay mapped until [`clear`](Self::clear), and this participant must be its
    /// only writer until then.
    pub unsafe fn register(&self, id: ParticipantId, slot: *const ParticipantSlot) {
        self.forget_locks();
        self.slot.set(slot);
        self.packed.set(id.pack());
    }

    /// Forgets the registration without touching shared memory.
    pub fn clear(&self) {
        self.packed.set(0);
        self.forget_locks();
        self.slot.set(core::ptr::null());
    }

    fn forget_locks(&self) {
        self.used.set(0);
        self.again.iter().for_each(|again| again.set(0));
    }
}

impl Default for ParticipantLocal {
    fn default() -> Self {
        Self::new()
    }
}

/// What a lock needs to know of the others: implemented by the namespace, and by models.
///
/// All of it is called while waiting only, about every 8 ms, never by an acquisition that finds
/// the lock free.
pub trait Peers: Sync {
    /// Whether that tenant of the slot is proven dead (the slot has a new tenant, or the process
    /// or thread is gone). Once true it must stay true for this id.
    ///
    /// Called by waiters for any lock, the control lock included: must not take a lock.
    fn is_dead(&self, who: ParticipantId) -> bool;

    /// Whether that tenant is known to be dead already: `is_dead` without a question to the
    /// system, asked before every sleep. False is always a safe answer.
    fn is_known_dead(&self, who: ParticipantId) -> bool {
        let _ = who;
        false
    }

    /// Clears `bit` of a lock's reader `word` if the present tenant of participant slot `index`
    /// is dead, keeping the slot from being given out anew meanwhile (else the bit of its next
    /// tenant might be cleared). Returns whether the bit is clear now.
    ///
    /// Called by a claimant for every bit that keeps it waiting, most of which belong to the
    /// living: look first whether the tenant is dead, and only then keep the slot and look
    /// again. The change must be an atomic read-modify-write, sequentially consistent. If the
    /// slot is kept by a lock, that lock must be of an address in the control segment
    /// ([`LockAddress::CONTROL`]), must never be held shared (its own dead readers could not be
    /// evicted), and be acquired with bounded patience; false is always a safe answer, upon which
    /// the claimant asks again later.
    fn evict_reader(&self, me: &Participant<'_>, index: u16, word: &AtomicU64, bit: u64) -> bool;

    /// Participant slots of the namespace; sets the length of every lock's reader bitmap.
    fn max_participants(&self) -> u32;

    /// Waits, clock, liveness.
    fn env(&self) -> &dyn Environment;
}

/// The right to act as a participant. Cheap to copy by reference; neither `Send` nor `Sync`.
pub struct Participant<'n> {
    peers: &'n dyn Peers,
    local: &'n ParticipantLocal,
    _one_thread: PhantomData<*mut ()>,
}

impl<'n> Participant<'n> {
    /// A participant of `peers` whose local half is `local`, registered or not.
    #[must_use]
    pub fn new(peers: &'n dyn Peers, local: &'n ParticipantLocal) -> Self {
        Self { peers, local, _one_thread: PhantomData }
    }

    /// The other participants.
    #[inline]
    #[must_use]
    pub fn peers(&self) -> &'n dyn Peers {
        self.peers
    }

    /// The local half.
    #[inline]
    #[must_use]
    pub fn local(&self) -> &'n ParticipantLocal {
        self.local
    }

    /// Who this is; `None` if it is not registered in this process (as in a fork child).
    #[inline]
    #[must_use]
    pub fn id(&self) -> Option<ParticipantId> {
        ParticipantId::unpack(self.local.packed.get())
    }

    /// [`ParticipantId::pack`] of [`id`](Self::id), 0 if unregistered.
    #[inline]
    #[must_use]
    pub fn packed(&self) -> u64 {
        self.local.packed.get()
    }

    /// The shared half; `None` if unregistered.
    #[inline]
    #[must_use]
    pub fn slot(&self) -> Option<&'n ParticipantSlot> {
        if self.local.packed.get() == 0 {
            return None;
        }
        // SAFETY: `register` promised that the slot stays mapped while registered.
        Some(unsafe { &*self.local.slot.get() })
    }

    /// Records that the lock at `address` is about to be taken, before its word is touched.
    /// Returns the index of the record, and whether the lock was held shared already (then only
    /// its count rose, and the word must not be touched).
    ///
    /// # Errors
    ///
    /// [`LockError::WouldDeadlock`] if the lock is held already and not shared beside shared,
    /// [`LockError::TooManyLocks`] (of which the control lock may be one more),
    /// [`LockError::NotRegistered`]. Nothing has changed then.
    #[inline]
    pub fn hold(&self, address: LockAddress, mode: HeldMode) -> Result<(u8, bool), LockError> {
        match self.slot() {
            // By far the most frequent case, and small enough to be inlined into every caller.
            Some(slot) if self.local.used.get() == 0 => {
                self.record(slot, 0, address, mode);
                Ok((0, false))
            }
            slot => self.hold_another(slot, address, mode),
        }
    }

    /// As [`hold`](Self::hold) for a participant that holds no lock so far: record 0 is the one.
    /// Returns [`packed`](Self::packed). `None`, with nothing changed, if it holds one, or is not
    /// registered.
    #[inline(always)]
    #[must_use]
    pub fn hold_first(&self, address: LockAddress, mode: HeldMode) -> Option<u64> {
        if self.local.used.get() != 0 {
            return None;
        }
        let slot = self.slot()?;
        self.record(slot, 0, address, mode);
        Some(self.packed())
    }

    #[inline(never)]
    fn hold_another(
        &self,
        slot: Option<&ParticipantSlot>,
        address: LockAddress,
        mode: HeldMode,
    ) -> Result<(u8, bool), LockError> {
        let Some(slot) = slot else { return Err(LockError::NotRegistered) };
        let used = self.local.used.get();
        if let Some(again) = self.held_already(slot, used, address, mode)? {
            return Ok((again, true));
        }
        let index = (!used).trailing_zeros() as usize;
        if index >= MAX_HELD - 1 && (index >= MAX_HELD || address.slot() != LockAddress::CONTROL) {
            return Err(LockError::TooManyLocks);
        }
        self.record(slot, index, address, mode);
        Ok((index as u8, false))
    }

    #[inline(always)]
    fn record(&self, slot: &ParticipantSlot, index: usize, address: LockAddress, mode: HeldMode) {
        self.local.used.set(self.local.used.get() | 1 << index);
        slot.held[index].store(mode.tag() | address.get(), Ordering::Relaxed);
        crate::sync::compiler_fence();
    }

    fn held_already(
        &self,
        slot: &ParticipantSlot,
        used: u32,
        address: LockAddress,
        mode: HeldMode,
    ) -> Result<Option<u8>, LockError> {
        let mut left = used;
        while left != 0 {
            let index = left.trailing_zeros() as usize;
            left &= left - 1;
            let entry = slot.held[index].load(Ordering::Relaxed);
            if entry & HeldMode::ADDRESS_MASK != address.get() {
                continue;
            }
            if mode != HeldMode::Shared || entry & !HeldMode::ADDRESS_MASK != mode.tag() {
                return Err(LockError::WouldDeadlock);
            }
            let again = &self.local.again[index];
            let Some(more) = again.get().checked_add(1) else {
                return Err(LockError::TooManyLocks);
            };
            again.set(more);
            return Ok(Some(index as u8));
        }
        Ok(None)
    }

    /// Takes back one count of a record. Returns true if that was the last one: the caller then
    /// lets go of the lock's word and calls [`unhold`](Self::unhold) after it.
    #[inline]
    #[must_use]
    pub fn release_count(&self, index: u8) -> bool {
        let again = &self.local.again[index as usize % MAX_HELD];
        match again.get().checked_sub(1) {
            None => true,
            Some(less) => {
                again.set(less);
                false
            }
        }
    }

    /// Clears a record, after the lock's word was let go.
    #[inline]
    pub fn unhold(&self, index: u8) {
        let Some(slot) = self.slot() else { return };
        crate::sync::compiler_fence();
        slot.held[index as usize % MAX_HELD].store(0, Ordering::Relaxed);
        self.local.used.set(self.local.used.get() & !(1 << index));
    }

    /// The strongest mode in which it holds any of the locks in `len` bytes from `first` on;
    /// `None` if it holds none of them. One load when it holds no lock at all.
    ///
    /// A structure with many locks side by side asks this before it takes one of them, so that a
    /// second call under a guard of the first is refused whichever two locks are concerned.
    #[inline]
    #[must_use]
    pub fn held_within(&self, first: LockAddress, len: u64) -> Option<HeldMode> {
        let used = self.local.used.get();
        if used == 0 { None } else { self.search_within(used, first, len) }
    }

    #[cold]
    fn search_within(&self, used: u32, first: LockAddress, len: u64) -> Option<HeldMode> {
        let slot = self.slot()?;
        let mut found = None;
        for index in (0..MAX_HELD).filter(|i| used & 1 << i != 0) {
            let entry = slot.held[index].load(Ordering::Relaxed);
            let address = entry & HeldMode::ADDRESS_MASK;
            if address.wrapping_sub(first.get()) >= len {
                continue;
            }
            if entry & !HeldMode::ADDRESS_MASK != HeldMode::Shared.tag() {
                return Some(HeldMode::Exclusive);
            }
            found = Some(HeldMode::Shared);
        }
        found
    }

    /// Whether it holds any lock other than record `index`.
    #[inline]
    #[must_use]
    pub fn holds_others(&self, index: u8) -> bool {
        self.local.used.get() & !(1 << index) != 0
    }
}

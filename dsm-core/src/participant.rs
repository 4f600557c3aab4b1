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
//! A shared entry says as well which kind of lock it is, since only the lock knows how to clear a
//! reader: see [`lock::kind`](crate::lock::LockKind). Our own kinds have a mode each; of others the
//! participant writes down the identity once, in `kinds[]`, and its entries say which of these.
//!
//! The last entry is kept for the control lock. It is the innermost lock of all and is needed to
//! evict a dead reader from any other, so a participant that holds as many locks as it may can
//! still wait for one to drain.
//!
//! An entry is made, and cleared, through a [`Record`]: whatever happens while a lock is being
//! acquired, a panic included, no entry stays that says *shared* where the lock has no mark. With
//! such an entry the participant's next shared acquisition would only count.
//!
//! A participant that was declared dead while it lives learns of it by the death count: see
//! [`deaths`](crate::deaths).
//!
//! # Whose local half
//!
//! A lock trusts its participant's identity: with another's, it would be taken from the living. So
//! a local half is for one namespace, the first that it is used with ([`ParticipantLocal`] says
//! how), and a namespace treats all others' as unregistered.
//!
//! An embedder that wants the locks without a namespace implements [`Peers`] over slots made by
//! [`ParticipantSlot::new`] and gives each thread a [`ParticipantLocal`] with a number of its
//! own; models do the same.

use core::cell::Cell;
use core::marker::PhantomData;

use crate::deaths::DeathCount;
use crate::env::Environment;
use crate::handle::{LockAddress, ParticipantId};
use crate::lock::kind::{ADDRESS, EXCLUSIVE, Hold};
use crate::lock::{HeldMode, LockError, LockKind, Token};
use crate::planted::{Bug, planted};
use crate::sync::{AtomicU64, Ordering};

mod record;

pub use record::Record;

/// How many different locks a participant can hold at once, one of them the control lock.
pub const MAX_HELD: usize = 16;

/// How many kinds of locks that are not ours a participant can hold shared, in all its life.
pub const MAX_KINDS: usize = 3;

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
    /// Identities of the kinds of locks, ours aside, that the tenant has held shared; 0 for none.
    /// Each is stored before the first entry that refers to it, and stays.
    pub(crate) kinds: [AtomicU64; MAX_KINDS],
    /// The locks the tenant holds or is about to hold: `mode << 60 | address`, 0 for none (the
    /// modes: module [`lock::kind`](crate::lock::LockKind)). An entry is stored before the lock's
    /// word is touched and cleared after it was let go.
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
            kinds: core::array::from_fn(|_| AtomicU64::new(0)),
            held: core::array::from_fn(|_| AtomicU64::new(0)),
        }
    }

    /// The locks that the tenant holds or may have a mark in, for the sweep and for tools.
    pub fn held(&self) -> impl Iterator<Item = (LockAddress, HeldMode)> + '_ {
        self.held.iter().filter_map(|entry| HeldMode::parse(entry.load(Ordering::Acquire)))
    }

    /// The same, with the kinds of locks that are held shared.
    pub(crate) fn holds(&self) -> impl Iterator<Item = (LockAddress, Hold)> + '_ {
        self.held.iter().filter_map(|entry| Hold::parse(entry.load(Ordering::Acquire), &self.kinds))
    }
}

impl Default for ParticipantSlot {
    fn default() -> Self {
        Self::new()
    }
}

/// The process-local half of a participant; see the module's essay.
///
/// It is for one namespace: the first that it is registered with, or that makes a [`Participant`]
/// of it. Another one refuses to register it, and takes it for unregistered.
///
/// All zero bytes are a valid, unregistered value, for no namespace yet. (Memory that is wiped on
/// fork makes such a one of it in the child, where it may be used again once no `Participant` of
/// before is used any more.)
pub struct ParticipantLocal {
    /// `ParticipantId::pack()` of the registration; 0 if there is none in this process.
    packed: Cell<u64>,
    slot: Cell<*const ParticipantSlot>,
    /// The death count at which this participant was last seen to live. Not 0 only while it is
    /// registered.
    seen: Cell<u64>,
    /// Whether it is unregistered because it was declared dead.
    declared_dead: Cell<bool>,
    /// Bit i: `held[i]` is in use.
    used: Cell<u32>,
    /// How often more than once the lock in `held[i]` is held by this participant; 0 for entries
    /// not in use, so that taking and releasing a lock once need not store it.
    again: [Cell<u16>; MAX_HELD],
    /// The first participant slot of the namespace that this is for, as mapped in this process
    /// (where nothing else is as long as it is registered, or the namespace borrowed); null for
    /// none. Of embedders' peers: some slot of theirs.
    home: Cell<*const ParticipantSlot>,
}

/// The local half of a participant that is nobody: of no namespace, and never registered.
struct Stranger(ParticipantLocal);

// SAFETY: its cells are only ever read. `register` is never called on it, and whatever else stores
// to a local half does so only if it is registered, or was once.
unsafe impl Sync for Stranger {}

static STRANGER: Stranger = Stranger(ParticipantLocal {
    home: Cell::new(core::ptr::dangling()),
    ..ParticipantLocal::new()
});

impl ParticipantLocal {
    /// An unregistered participant.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            packed: Cell::new(0),
            slot: Cell::new(core::ptr::null()),
            seen: Cell::new(0),
            declared_dead: Cell::new(false),
            used: Cell::new(0),
            again: [const { Cell::new(0) }; MAX_HELD],
            home: Cell::new(core::ptr::null()),
        }
    }

    /// Whether the participant is registered in this process. False in a fork child, and once it
    /// has found out that it was declared dead.
    #[inline]
    #[must_use]
    pub fn is_registered(&self) -> bool {
        self.packed.get() != 0
    }

    /// The shared half; `None` if unregistered.
    #[inline(always)]
    fn slot(&self) -> Option<&ParticipantSlot> {
        if self.packed.get() == 0 {
            return None;
        }
        // SAFETY: `register` promised that the slot stays mapped while registered.
        Some(unsafe { &*self.slot.get() })
    }

    /// The shared half of a participant that is known to be registered.
    ///
    /// # Safety
    ///
    /// It must be registered, as one is that [is current](Participant::is_current).
    #[inline(always)]
    unsafe fn own_slot(&self) -> &ParticipantSlot {
        debug_assert!(self.is_registered());
        // SAFETY: `register` promised that the slot stays mapped while registered.
        unsafe { &*self.slot.get() }
    }

    /// Who is registered; `None` if nobody is.
    pub(crate) fn id(&self) -> Option<ParticipantId> {
        ParticipantId::unpack(self.packed.get())
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
    /// `id` must be that of the slot's present tenant, and be given out to this local half alone.
    /// `slot` must stay mapped until [`clear`](Self::clear), and this participant must be its
    /// only writer until then. Each [`Participant`] of this local half must be of the peers that
    /// the slot belongs to.
    pub unsafe fn register(&self, id: ParticipantId, slot: *const ParticipantSlot) {
        self.clear();
        if self.home.get().is_null() {
            self.home.set(slot);
        }
        self.slot.set(slot);
        self.packed.set(id.pack());
    }

    /// Forgets the registration without touching shared memory: the slot stays its process's until
    /// that is dead, and what is held stays held.
    pub fn clear(&self) {
        if !self.is_registered() && !self.declared_dead.get() {
            return;
        }
        self.seen.set(0);
        self.packed.set(0);
        self.declared_dead.set(false);
        self.forget_locks();
        self.slot.set(core::ptr::null());
    }

    /// Forgets the registration because others have ended it.
    fn bury(&self) {
        self.clear();
        self.declared_dead.set(true);
    }

    fn forget_locks(&self) {
        self.used.set(0);
        self.again.iter().for_each(|again| again.set(0));
    }

    /// Whether this is, or can become, one for the namespace whose first slot is `home`.
    pub(crate) fn is_for(&self, home: *const ParticipantSlot) -> bool {
        self.home.get().is_null() || core::ptr::eq(self.home.get(), home)
    }

    /// Makes it one for that namespace; false if it is another one's.
    pub(crate) fn belong_to(&self, home: *const ParticipantSlot) -> bool {
        let is_for = self.is_for(home);
        if is_for {
            self.home.set(home);
        }
        is_for
    }

    /// One that is for no namespace at all.
    pub(crate) fn stranger() -> &'static Self {
        &STRANGER.0
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
///
/// # Safety
///
/// Locks exclude nobody whom their peers call dead, and what locks protect is handed out as `&mut`:
///
/// - [`is_dead`](Self::is_dead) and [`is_known_dead`](Self::is_known_dead) may be true only of a
///   participant that never again uses what it holds, nor anything that a lock of these peers
///   protects; and once true they must stay true for this id;
/// - [`evict_reader`](Self::evict_reader) may clear no bit but that of a tenant of whom the same
///   is true;
/// - [`max_participants`](Self::max_participants) must always be the same number, which the locks
///   were made for, and no participant's index may be as large.
pub unsafe trait Peers: Sync {
    /// Whether that tenant of the slot is proven dead (the slot has a new tenant, or the process
    /// or thread is gone). Who is dead is marked as such, and [`deaths`](Self::deaths) was raised
    /// after that.
    ///
    /// Called by waiters for any lock, the control lock included: must not take a lock.
    fn is_dead(&self, who: ParticipantId) -> bool;

    /// Whether that tenant is known to be dead already: `is_dead` without a question to the
    /// system, asked before every sleep, and by a participant about itself. False is always a safe
    /// answer. Changes nothing: who acts upon it raises [`deaths`](Self::deaths) first.
    fn is_known_dead(&self, who: ParticipantId) -> bool {
        let _ = who;
        false
    }

    /// The count that moves with every death that is declared, in the order that the module
    /// [`deaths`](crate::deaths) gives. One that never moves does where the living are never
    /// declared dead.
    fn deaths(&self) -> &DeathCount {
        DeathCount::never()
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

    /// Whether a lock of this kind, which is not ours, may be held shared here: asked once by each
    /// participant before its first one. Whoever sweeps the dead of this process then has to know
    /// how to clear such a lock's readers, or leave the slot of the dead alone. Peers that give no
    /// slot out anew can admit all.
    fn admits(&self, kind: LockKind) -> bool;

    /// Participant slots of the namespace; sets the length of every lock's reader bitmap.
    fn max_participants(&self) -> u32;

    /// Waits, clock, liveness.
    fn env(&self) -> &dyn Environment;
}

/// The right to act as a participant. Cheap to copy by reference; neither `Send` nor `Sync`.
pub struct Participant<'n> {
    peers: &'n dyn Peers,
    deaths: &'n DeathCount,
    local: &'n ParticipantLocal,
    _one_thread: PhantomData<*mut ()>,
}

impl<'n> Participant<'n> {
    /// A participant of `peers` whose local half is `local`, registered or not. In a namespace,
    /// [`Namespace::participant`](crate::namespace::Namespace::participant) makes one, and sees to
    /// what is asked here.
    ///
    /// # Safety
    ///
    /// As long as this is used, `local` may be registered with `peers` alone.
    #[must_use]
    pub unsafe fn new(peers: &'n dyn Peers, local: &'n ParticipantLocal) -> Self {
        Self { peers, deaths: peers.deaths(), local, _one_thread: PhantomData }
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

    /// Whether nobody was declared dead since this participant was last seen to live: then it is
    /// registered, and its slot its own. If not, [`confirm`](Self::confirm) tells.
    #[inline(always)]
    #[must_use]
    pub fn is_current(&self) -> bool {
        self.local.seen.get() == self.deaths.get(Ordering::Relaxed)
            || planted(Bug::DeathUncompared) && self.local.is_registered()
    }

    /// Makes sure that this participant is registered in this process and was not declared dead;
    /// returns [`packed`](Self::packed). Once it fails it fails for ever, and the guards of this
    /// participant give nothing back.
    ///
    /// # Errors
    ///
    /// [`LockError::NotRegistered`], [`LockError::DeclaredDead`].
    #[inline]
    pub fn confirm(&self) -> Result<u64, LockError> {
        if self.is_current() { Ok(self.packed()) } else { self.look_up_own_slot() }
    }

    #[cold]
    #[inline(never)]
    fn look_up_own_slot(&self) -> Result<u64, LockError> {
        let Some(id) = self.id() else {
            let dead = self.local.declared_dead.get();
            return Err(if dead { LockError::DeclaredDead } else { LockError::NotRegistered });
        };
        // Before the slots: a mark that comes later moves it again.
        let deaths = self.deaths.get(Ordering::Acquire);
        if self.peers.is_known_dead(id) {
            self.local.bury();
            return Err(LockError::DeclaredDead);
        }
        self.local.seen.set(deaths);
        Ok(id.pack())
    }

    /// Whether it was this participant, in this process, that acquired by `token`, and still
    /// holds what it acquired: in a fork child, and of somebody who was declared dead, a token is
    /// nobody's.
    #[inline]
    #[must_use]
    pub fn owns(&self, token: Token) -> bool {
        token.owner() == self.packed() && self.confirm().is_ok()
    }

    /// The same, as far as can be told without a look at its slot: two comparisons. If false,
    /// [`owns`](Self::owns) tells.
    #[inline(always)]
    #[must_use]
    pub fn owns_as_of_now(&self, token: Token) -> bool {
        token.owner() == self.packed() && self.is_current()
    }

    /// Who this is; `None` if it is not registered in this process (as in a fork child).
    #[inline]
    #[must_use]
    pub fn id(&self) -> Option<ParticipantId> {
        self.local.id()
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
        self.local.slot()
    }

    /// Whether it is registered in this process.
    #[inline]
    #[must_use]
    pub fn is_registered(&self) -> bool {
        self.local.is_registered()
    }

    /// Whether it holds any lock.
    #[inline]
    #[must_use]
    pub fn holds_any(&self) -> bool {
        self.local.holds_any()
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
            if (entry & ADDRESS).wrapping_sub(first.get()) >= len {
                continue;
            }
            if entry & !ADDRESS == EXCLUSIVE {
                return Some(HeldMode::Exclusive);
            }
            found = Some(HeldMode::Shared);
        }
        found
    }
}

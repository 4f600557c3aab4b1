//! A namespace, as one process sees it.
//!
//! # Structure
//!
//! A [`Namespace`] is a process's mapping of the control segment (module `control`),
//! its records of the segments it has mapped ([`ProcessLocal`]), and a participant of its own, by
//! which it takes the control lock for the process as a whole: creating and dropping segments
//! happens wherever handles go out of scope, and must not ask for the calling thread's
//! participant. That participant is behind a mutex of the process, held no longer than the control
//! lock itself.
//!
//! # What happens where
//!
//! - [`open`](Namespace::open) and [`leave`](Namespace::leave): the election and the process slot.
//! - [`discard`](Namespace::discard): the removal of a control object that can't be entered.
//! - [`segments`](self): create, attach, detach, pin; the truth about a segment.
//! - module `reap`: sweeping what the dead left.

use core::time::Duration;

use crate::control::header::Layout;
use crate::control::process;
use crate::control::{Control, participant_state};
use crate::deaths::DeathCount;
use crate::env::{Environment, ThreadProof};
use crate::error::ErrorKind::{NoMemory, NoSpace};
use crate::error::ProviderFailure;
use crate::handle::ParticipantId;
use crate::lock::{LockError, LockKind, Patience};
use crate::participant::{Participant, ParticipantLocal, Peers};
use crate::planted::{Bug, planted};
use crate::provider::{ErasedProvider, Mapping, Unmapper};
use crate::reap::{self, Actor};
use crate::sync::{AtomicU64, Ordering};

mod discard;
mod error;
mod local;
mod look;
mod open;
mod release;
mod segments;

pub use crate::control::header::ROOTS;
pub use discard::Discard;
pub use error::Error;
pub use local::{LocalSegment, ProcessLocal};
pub(crate) use local::{Mapped, acquire};
pub(crate) use release::LeaveBehind;

/// The platform a namespace lives on, both halves erased.
#[derive(Clone, Copy)]
pub struct Platform<'a> {
    /// Memory.
    pub provider: &'a dyn ErasedProvider,
    /// Waits, liveness, time, entropy.
    pub env: &'a dyn Environment,
}

/// What a namespace is created with; ignored (but for checks) when it exists already.
#[derive(Clone, Debug)]
pub struct NamespaceConfig {
    /// Processes that can be attached at once, at most 4096.
    pub max_processes: u32,
    /// Participants that can be attached at once: one a thread, one more a process, and one for
    /// the namespace itself; up to 384 a lock is one cache line. At least 3, at most 65535.
    pub max_participants: u32,
    /// Segments that can exist at once; at most 4096.
    pub max_segments: u32,
    /// Bytes of the preallocated main region, 0 for none. Segments are made there while it has
    /// room, without a system call.
    #[doc(alias = "min_dynamic_shared_memory")]
    pub main_region: usize,
    /// Whether it outlives the last process that leaves.
    pub persistent: bool,
    /// How long `open` and `leave` wait for another process that is opening or leaving.
    pub patience: Duration,
}

impl Default for NamespaceConfig {
    fn default() -> Self {
        Self {
            max_processes: 128,
            max_participants: 384,
            max_segments: 1024,
            main_region: 0,
            persistent: false,
            patience: Duration::from_secs(10),
        }
    }
}

impl NamespaceConfig {
    /// Whether a namespace can be created with these numbers; [`Namespace::open`] asks by itself.
    /// For who has something to allocate before.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidConfig`].
    pub fn check(&self) -> Result<(), Error> {
        Layout::of(self).map(|_| ()).map_err(Error::InvalidConfig)
    }
}

/// What `open` found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Opened {
    /// A fresh namespace.
    Created,
    /// An existing one with living processes.
    Joined,
    /// A persistent one with no living process in it.
    Resumed,
    /// What a crash of all its processes left was removed first. Where some of it is another user's
    /// to remove, the control object was emptied instead, and has the sizes that it was created
    /// with.
    Recreated,
}

/// The process's own participant, and its supply of handles for the main region.
struct Me {
    participant: ParticipantLocal,
    random: u64,
}

// SAFETY: the participant is used by whoever has the mutex, one thread at a time; its slot is
// shared memory, which has no thread.
unsafe impl Send for Me {}

/// One process's view of a namespace. `Send + Sync`: shared by its threads.
///
/// Dropping it does nothing: the process stays in the namespace, as far as others can tell, until
/// it ends. [`leave`](Self::leave) is the way out.
pub struct Namespace<'a> {
    platform: Platform<'a>,
    pub(crate) control: Control<'a>,
    /// Who has mapped it.
    root: &'a dyn Unmapper,
    mapping: Mapping,
    pub(crate) local: &'a ProcessLocal<'a>,
    /// By which it has the local memory.
    claim: u64,
    /// Process slot and its generation.
    pub(crate) process: (u32, u32),
    me: spin::Mutex<Me>,
    /// Threads of this process have only ever had participant slots below this. Not part of what a
    /// model explores.
    threads_below: core::sync::atomic::AtomicU32,
    patience: Duration,
}

// SAFETY: the mapping is shared memory, and everything else is `Send + Sync` by itself.
unsafe impl Send for Namespace<'_> {}
// SAFETY: as above.
unsafe impl Sync for Namespace<'_> {}

static_assertions::assert_impl_all!(Namespace<'static>: Send, Sync);
static_assertions::assert_impl_all!(crate::segment::Segment<'static>: Send, Sync);
static_assertions::assert_not_impl_any!(Participant<'static>: Send, Sync);

impl<'a> Namespace<'a> {
    /// Registers the calling thread. At most once for each `local`, which must be unregistered
    /// again before [`leave`](Self::leave), and is for this namespace alone from here on.
    ///
    /// # Errors
    ///
    /// [`Error::TooManyParticipants`] when all slots are taken, also after reaping the dead;
    /// [`Error::AlreadyRegistered`], [`Error::ForeignLocal`], [`Error::Forked`].
    pub fn register(&self, local: &ParticipantLocal) -> Result<ParticipantId, Error> {
        if !self.is_home_for(local) {
            return Err(Error::ForeignLocal);
        }
        if local.is_registered() {
            return Err(Error::AlreadyRegistered);
        }
        let thread = self.platform.env.thread_proof();
        if let Some(id) = self.try_register(local, thread)? {
            return Ok(id);
        }
        reap::make_room(self)?;
        let most = self.control.layout.max_participants;
        self.try_register(local, thread)?.ok_or(Error::TooManyParticipants(most))
    }

    fn try_register(
        &self,
        local: &ParticipantLocal,
        thread: ThreadProof,
    ) -> Result<Option<ParticipantId>, Error> {
        let claimed = self.with_control(|| self.control.claim_participant(self.process, thread))?;
        Ok(claimed.map(|(id, slot)| {
            self.control.enter(local, id, slot);
            self.threads_below.fetch_max(u32::from(id.index) + 1, Ordering::Relaxed);
            id
        }))
    }

    /// Whether `local` is for this namespace, or none yet.
    fn is_home_for(&self, local: &ParticipantLocal) -> bool {
        local.is_for(self.control.participants.as_ptr())
    }

    /// Unregisters. Returns false, and keeps the slot until the process leaves or dies, if a guard
    /// of the thread was leaked: the lock it holds must stay held. Returns false as well, with
    /// nothing changed, if `local` is another namespace's.
    pub fn unregister(&self, local: &ParticipantLocal) -> bool {
        if !self.is_home_for(local) {
            return false;
        }
        let (Some(id), true) = (local.id(), self.is_open()) else {
            local.clear();
            return true;
        };
        let state =
            if local.holds_any() { participant_state::ORPHANED } else { participant_state::FREE };
        // A control lock that cannot be had leaves the slot to the end of the process.
        let done = self.with_control(|| {
            let slot = &self.control.participants[id.index as usize];
            // Otherwise it was declared dead, and is swept, or somebody else's by now.
            let live = process::pack(id.generation, participant_state::LIVE);
            if slot.state.load(Ordering::Acquire) == live {
                slot.state.store(process::pack(id.generation, state), Ordering::Release);
            }
        });
        local.clear();
        done.is_ok() && state == participant_state::FREE
    }

    /// A participant value for a registered local. If it is another namespace's it is nobody here,
    /// and every lock says [`NotRegistered`](crate::lock::LockError::NotRegistered).
    pub fn participant<'p>(&'p self, local: &'p ParticipantLocal) -> Participant<'p> {
        self.control.participant(self, local)
    }

    /// Sweeps what dead processes and threads left; returns how many participants were freed.
    /// Linear in the number of slots.
    ///
    /// # Errors
    ///
    /// [`Error::Lock`], [`Error::Forked`]; [`Error::Provider`] if an object could not be removed,
    /// which is left for later. One that is another user's to remove is left to that user, and is
    /// no error.
    pub fn reap(&self) -> Result<u32, Error> {
        // The proofs of a fork child, or of the dead, are worth nothing: they mark nobody.
        self.confirm()?;
        reap::reap(self)
    }

    /// Whether others have declared this process dead, which happens to one that loses its token of
    /// life: see [`deaths`](crate::deaths). It can only [`leave`](Self::leave), and open the
    /// namespace anew.
    #[must_use]
    pub fn is_declared_dead(&self) -> bool {
        let (slot, generation) = self.process;
        self.control.processes[slot as usize].get() != (generation, process::LIVE)
    }

    /// Makes sure that this process may act in the namespace.
    ///
    /// # Errors
    ///
    /// [`Error::Forked`]; [`Error::Lock`] ([`DeclaredDead`](LockError::DeclaredDead)).
    pub fn confirm(&self) -> Result<(), Error> {
        if !self.is_open() {
            Err(Error::Forked)
        } else if self.is_declared_dead() {
            Err(Error::Lock(LockError::DeclaredDead))
        } else {
            Ok(())
        }
    }

    /// Words for embedders' root pointers (handles of areas, tables); zero at creation. There
    /// are [`ROOTS`].
    ///
    /// # Panics
    ///
    /// If `index` is not below [`ROOTS`].
    pub fn root(&self, index: usize) -> &AtomicU64 {
        &self.control.header.roots[index]
    }

    /// The platform.
    pub fn platform(&self) -> Platform<'a> {
        self.platform
    }

    /// Whether the namespace outlives its last process.
    #[must_use]
    pub fn is_persistent(&self) -> bool {
        self.control.header.is_persistent()
    }

    /// Decides anew whether the namespace outlives its last process: one that is persistent is
    /// removed by taking that back and leaving.
    ///
    /// # Errors
    ///
    /// [`Error::Forked`]; [`Error::Lock`] if this process was declared dead.
    pub fn set_persistent(&self, persistent: bool) -> Result<(), Error> {
        self.confirm()?;
        self.control.header.set_persistent(persistent);
        Ok(())
    }

    /// Index of this process's slot.
    #[must_use]
    pub fn process_slot(&self) -> u32 {
        self.process.0
    }

    /// Makes a fork child a stranger at once, where the platform has no memory that is wiped on
    /// fork: all operations fail with [`Error::Forked`], drops change nothing, callbacks are
    /// forgotten. The parent's counts are left alone.
    #[doc(alias = "reset_on_dsm_detach")]
    pub fn reset_after_fork(&self) {
        self.local.reset();
    }

    /// Has the provider do what takes shared memory; if that is short, once more after what the
    /// dead left was swept. Segments are created and backed through this alone.
    ///
    /// The sweep takes the control lock, which is the last in the order of locks: callers may hold
    /// any other.
    pub(crate) fn taking_memory<T>(
        &self,
        work: impl Fn() -> Result<T, ProviderFailure>,
    ) -> Result<T, ProviderFailure> {
        let is_short = |failure: &ProviderFailure| [NoSpace, NoMemory].contains(&failure.kind);
        match work() {
            Err(failure) if is_short(&failure) && self.sweep_for_memory() => work(),
            done => done,
        }
    }

    /// Whether the dead could be swept.
    #[cold]
    fn sweep_for_memory(&self) -> bool {
        !planted(Bug::DeadKeepMemory) && reap::make_room(self).is_ok()
    }

    #[inline]
    pub(crate) fn is_open(&self) -> bool {
        self.local.is_open(self.claim)
    }

    /// Does `work` under the control lock, as the process's participant.
    #[inline]
    pub(crate) fn with_control<T>(&self, work: impl FnOnce() -> T) -> Result<T, Error> {
        self.with_random(|_| work())
    }

    /// As `with_control`, with the state of the process's random numbers.
    #[inline]
    pub(crate) fn with_random<T>(&self, work: impl FnOnce(&mut u64) -> T) -> Result<T, Error> {
        if !self.is_open() {
            return Err(Error::Forked);
        }
        let mut me = acquire(&self.me, self.platform.env);
        let Me { participant, random } = &mut *me;
        // SAFETY: the process's own, which `open` entered, and nobody else knows.
        let participant = unsafe { Participant::new(&self.control, participant) };
        self.control.locked(&participant, Patience::Forever, || work(random))
    }
}

impl Actor for Namespace<'_> {
    fn control(&self) -> &Control<'_> {
        &self.control
    }
    fn provider(&self) -> &dyn ErasedProvider {
        self.platform.provider
    }
    fn local(&self) -> &ProcessLocal<'_> {
        self.local
    }
    fn locked<T>(&self, work: impl FnOnce() -> T) -> Result<T, Error> {
        self.with_control(work)
    }
}

// SAFETY: the control segment's answers, which see.
unsafe impl Peers for Namespace<'_> {
    fn is_dead(&self, who: ParticipantId) -> bool {
        self.control.is_dead(who)
    }
    fn is_known_dead(&self, who: ParticipantId) -> bool {
        self.control.is_known_dead(who)
    }
    fn deaths(&self) -> &DeathCount {
        self.control.deaths()
    }
    fn evict_reader(&self, me: &Participant<'_>, index: u16, word: &AtomicU64, bit: u64) -> bool {
        self.control.evict_reader(me, index, word, bit)
    }
    fn admits(&self, kind: LockKind) -> bool {
        self.local.know_kind(kind)
    }
    fn max_participants(&self) -> u32 {
        self.control.max_participants()
    }
    fn env(&self) -> &dyn Environment {
        self.platform.env
    }
}

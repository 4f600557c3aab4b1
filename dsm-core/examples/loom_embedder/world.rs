//! What an embedder brings along: peers, an environment, memory; and the same in a model.
//!
//! The peers here are threads, each with a slot of its own, that are dead when somebody says so.
//! The environment waits by giving way. An embedder on bare metal would look the same, with its
//! own way to wait and to find out who is gone.

use std::marker::PhantomData;
use std::ptr::NonNull;
use std::time::Duration;

use dsm_core::env::{Clock, Entropy, Environment, Liveness, ProcessProof, ThreadProof, Wait};
use dsm_core::error::ProviderFailure;
use dsm_core::handle::{LockAddress, ParticipantId};
use dsm_core::lock::{LockKind, LockRef, RawLock};
use dsm_core::participant::{Participant, ParticipantLocal, ParticipantSlot, Peers};
use dsm_core::sync::{AtomicBool, AtomicU32, AtomicU64, Ordering};

#[cfg(loom)]
pub(crate) use loom::sync::Arc as Shared;
#[cfg(not(loom))]
pub(crate) use std::sync::Arc as Shared;

#[cfg(loom)]
use loom::thread;
#[cfg(not(loom))]
use std::thread;

/// Threads of a scenario, the main one included.
const PARTICIPANTS: usize = 2;
/// No slot is ever reused here.
const GENERATION: u32 = 1;

/// Runs a scenario: once, or in a model in every possible order.
pub(crate) fn run(scenario: impl Fn() + Send + Sync + 'static) {
    #[cfg(loom)]
    {
        let mut model = loom::model::Builder::new();
        model.preemption_bound = Some(3);
        model.check(scenario);
    }
    #[cfg(not(loom))]
    scenario();
}

/// Starts a thread of the scenario.
pub(crate) fn spawn<T: Send + Sync + 'static>(
    shared: &Shared<T>,
    body: impl FnOnce(&T) + Send + 'static,
) -> thread::JoinHandle<()> {
    let shared = shared.clone();
    thread::spawn(move || body(&shared))
}

/// A word that only who holds the lock may touch; loom reports whoever does not.
pub(crate) struct Cell(CellOf<u64>);

#[cfg(loom)]
type CellOf<T> = loom::cell::UnsafeCell<T>;
#[cfg(not(loom))]
type CellOf<T> = std::cell::UnsafeCell<T>;

// SAFETY: the scenarios touch a cell with the ledger's lock held; that they do is what loom checks.
unsafe impl Sync for Cell {}

impl Cell {
    pub(crate) fn new(value: u64) -> Self {
        Self(CellOf::new(value))
    }

    pub(crate) fn get(&self) -> u64 {
        #[cfg(loom)]
        // SAFETY: read under the lock; see above.
        return self.0.with(|value| unsafe { *value });
        #[cfg(not(loom))]
        // SAFETY: read under the lock; see above.
        return unsafe { *self.0.get() };
    }

    pub(crate) fn set(&self, new: u64) {
        #[cfg(loom)]
        // SAFETY: written under the exclusive lock; see above.
        self.0.with_mut(|value| unsafe { *value = new });
        #[cfg(not(loom))]
        // SAFETY: written under the exclusive lock; see above.
        unsafe {
            *self.0.get() = new;
        }
    }
}

/// A line of memory for locks.
#[repr(C, align(64))]
struct Line(std::cell::UnsafeCell<[u8; 64]>);

/// A lock, built in place.
pub(crate) struct LockMemory<L> {
    lines: Box<[Line]>,
    _lock: PhantomData<L>,
}

// SAFETY: the lines are touched through the lock's own atomics only.
unsafe impl<L> Sync for LockMemory<L> {}
// SAFETY: as above; a lock does not care which thread it was built by.
unsafe impl<L> Send for LockMemory<L> {}

impl<L: RawLock> LockMemory<L> {
    pub(crate) fn new() -> Self {
        let count = L::size_for(PARTICIPANTS as u32) / size_of::<Line>();
        let line = || Line(std::cell::UnsafeCell::new([0; 64]));
        let this =
            Self { lines: std::iter::repeat_with(line).take(count).collect(), _lock: PhantomData };
        // SAFETY: `size_for` bytes, aligned to 64, and nobody else knows them yet.
        unsafe { L::init(this.at(), PARTICIPANTS as u32) };
        this
    }

    fn at(&self) -> NonNull<L> {
        NonNull::from(&self.lines[..]).cast()
    }

    /// The lock. There is one in this world, so any address names it.
    pub(crate) fn as_ref(&self) -> LockRef<'_, L> {
        // SAFETY: `new` built it, it lives as long as `self`, and no other lock has this address.
        unsafe { LockRef::new(self.at(), LockAddress::new(1, 64)) }
    }
}

/// The peers.
pub(crate) struct World {
    slots: [ParticipantSlot; PARTICIPANTS],
    dead: [AtomicBool; PARTICIPANTS],
    environment: GiveWay,
}

impl World {
    pub(crate) fn new() -> Self {
        Self {
            slots: std::array::from_fn(|_| ParticipantSlot::new()),
            dead: std::array::from_fn(|_| AtomicBool::new(false)),
            environment: GiveWay,
        }
    }

    /// Makes the calling thread a participant: one thread an index, once.
    pub(crate) fn join<'w>(&'w self, local: &'w ParticipantLocal, index: u16) -> Participant<'w> {
        let id = ParticipantId { index, generation: GENERATION };
        // SAFETY: the slot lives as long as the world, and no other thread has the index.
        unsafe { local.register(id, &self.slots[usize::from(index)]) };
        // SAFETY: registered with these peers just now, and nobody else registers it.
        unsafe { Participant::new(self, local) }
    }

    /// From here on the thread counts as dead; it must do nothing any more.
    pub(crate) fn declare_dead(&self, index: u16) {
        self.dead[usize::from(index)].store(true, Ordering::SeqCst);
    }
}

// SAFETY: who is declared dead does nothing any more; bits of the dead alone are cleared; and there
// are as many slots as it says.
unsafe impl Peers for World {
    fn is_dead(&self, who: ParticipantId) -> bool {
        self.dead[usize::from(who.index)].load(Ordering::SeqCst)
    }

    fn evict_reader(&self, _: &Participant<'_>, index: u16, word: &AtomicU64, bit: u64) -> bool {
        let dead = self.is_dead(ParticipantId { index, generation: GENERATION });
        if dead {
            word.fetch_and(!bit, Ordering::SeqCst);
        }
        dead
    }

    fn admits(&self, _: LockKind) -> bool {
        // No slot has a second tenant, who could find a dead one's mark.
        true
    }

    fn max_participants(&self) -> u32 {
        PARTICIPANTS as u32
    }

    fn env(&self) -> &dyn Environment {
        &self.environment
    }
}

/// An environment that waits by giving way, knows no processes, and in which time stands still
/// (the scenarios use no timed forms).
struct GiveWay;

impl Wait for GiveWay {
    fn wait(&self, _: &AtomicU32, _: u32, _: Duration) {
        thread::yield_now();
    }
    fn wake_all(&self, _: &AtomicU32) {}
}

// SAFETY: calls nobody dead. There are no processes, so that there is nothing to claim.
unsafe impl Liveness for GiveWay {
    fn claim(&self, _: u32) -> Result<(), ProviderFailure> {
        Ok(())
    }
    fn release(&self, _: u32) {}
    fn process_proof(&self) -> ProcessProof {
        ProcessProof::default()
    }
    fn thread_proof(&self) -> ThreadProof {
        ThreadProof::default()
    }
    fn process_is_dead(&self, _: u32, _: &ProcessProof) -> bool {
        false
    }
    fn thread_is_dead(&self, _: &ProcessProof, _: &ThreadProof) -> bool {
        false
    }
}

impl Clock for GiveWay {
    fn now(&self) -> Duration {
        Duration::ZERO
    }
}

impl Entropy for GiveWay {
    fn next_u64(&self) -> u64 {
        0x9e37_79b9_7f4a_7c15
    }
}

//! What the models run on: a few participants, one lock, two words that it protects.

use std::mem::MaybeUninit;
use std::ptr::NonNull;
use std::time::Duration;

use dsm_core::env::{Clock, Entropy, Environment, Liveness, ProcessProof, ThreadProof, Wait};
use dsm_core::error::ProviderFailure;
use dsm_core::handle::{LockAddress, ParticipantId};
use dsm_core::lock::{LockKind, LockRef, RawLock};
use dsm_core::participant::{Participant, ParticipantLocal, ParticipantSlot, Peers};
use dsm_core::sync::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use loom::cell::UnsafeCell;
use loom::sync::{Condvar, Mutex};
use loom::thread::{ThreadId, current};

/// How often a thread's waits end by themselves after each death. More than any acquisition of
/// the models needs, and few, because loom knows no fairness among threads that merely yield.
const TIMEOUTS: usize = 4;

/// Waits end by a wake, or by themselves once somebody has died: among the living a lost wake is
/// a deadlock, which loom reports.
struct ModelEnv {
    /// `None` until the first death; then who had a timeout since the last.
    timeouts: Mutex<Option<Vec<ThreadId>>>,
    bell: Condvar,
}

impl Wait for ModelEnv {
    fn wait(&self, word: &AtomicU32, expected: u32, _: Duration) {
        let mut timeouts = self.timeouts.lock().unwrap();
        if word.load(Ordering::SeqCst) != expected {
            return;
        }
        if let Some(timeouts) = &mut *timeouts {
            let me = current().id();
            let had = timeouts.iter().filter(|one| **one == me).count();
            if had < TIMEOUTS {
                timeouts.push(me);
                return;
            }
        }
        drop(self.bell.wait(timeouts).unwrap());
    }

    fn wake_all(&self, _: &AtomicU32) {
        drop(self.timeouts.lock().unwrap());
        self.bell.notify_all();
    }
}

// SAFETY: calls nobody dead. There are no processes, so that there is nothing to claim.
unsafe impl Liveness for ModelEnv {
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

impl Clock for ModelEnv {
    fn now(&self) -> Duration {
        Duration::ZERO
    }
}

impl Entropy for ModelEnv {
    fn next_u64(&self) -> u64 {
        4
    }
}

/// A lock in memory of its own.
pub(crate) struct Place<L> {
    memory: Box<MaybeUninit<L>>,
    address: LockAddress,
}

impl<L: RawLock> Place<L> {
    fn new(offset: u64) -> Self {
        let mut memory = Box::new(MaybeUninit::uninit());
        // SAFETY: a model's participants fit into the lock's own words.
        unsafe { L::init(NonNull::from(&mut *memory).cast(), 4) };
        Self { memory, address: LockAddress::new(1, offset) }
    }

    pub(crate) fn pointer(&self) -> NonNull<L> {
        NonNull::from(&*self.memory).cast()
    }

    pub(crate) fn lock(&self) -> LockRef<'_, L> {
        // SAFETY: `new` built the lock, and its memory lives as long as `self`.
        unsafe { LockRef::new(self.pointer(), self.address) }
    }
}

/// Up to three participants, numbered from 0, and what they share.
pub(crate) struct World<L> {
    env: ModelEnv,
    slots: [ParticipantSlot; 3],
    dead: [AtomicBool; 3],
    pub(crate) main: Place<L>,
    /// Held by a reader that thereby becomes a nested one in `main`.
    pub(crate) side: Place<L>,
    /// Equal whenever nobody is at work.
    words: [AtomicU64; 2],
    /// Touched along with them. Loom fails a model in which two accesses are not ordered, even if
    /// they never meet.
    guarded: UnsafeCell<()>,
}

// SAFETY: the locks consist of atomics.
unsafe impl<L> Sync for World<L> {}
// SAFETY: as above.
unsafe impl<L> Send for World<L> {}

impl<L: RawLock> World<L> {
    pub(crate) fn new() -> Self {
        #[cfg(dsm_planted)]
        sim::select_planted_bug();
        Self {
            env: ModelEnv { timeouts: Mutex::new(None), bell: Condvar::new() },
            slots: [(); 3].map(|()| ParticipantSlot::new()),
            dead: [(); 3].map(|()| AtomicBool::new(false)),
            main: Place::new(64),
            side: Place::new(128),
            words: [(); 2].map(|()| AtomicU64::new(0)),
            guarded: UnsafeCell::new(()),
        }
    }

    pub(crate) fn id(index: u16) -> ParticipantId {
        ParticipantId { index, generation: 7 }
    }

    pub(crate) fn slot(&self, index: u16) -> &ParticipantSlot {
        &self.slots[index as usize]
    }

    /// Runs `code` as participant `index`.
    pub(crate) fn act<R>(&self, index: u16, code: impl FnOnce(&Participant<'_>) -> R) -> R {
        let local = ParticipantLocal::new();
        // SAFETY: the slot lives as long as `self`, and only one thread acts as its tenant.
        unsafe { local.register(Self::id(index), self.slot(index)) };
        // SAFETY: registered with these peers just now, and nobody else registers it.
        code(&unsafe { Participant::new(self, &local) })
    }

    /// Declares a participant dead. What it stored before is seen by who finds it dead.
    pub(crate) fn bury(&self, index: u16) {
        self.dead[index as usize].store(true, Ordering::SeqCst);
        *self.env.timeouts.lock().unwrap() = Some(Vec::new());
        self.env.bell.notify_all();
    }

    /// What a writer does to the words: one after the other.
    pub(crate) fn write(&self) {
        self.guarded.with_mut(|_| ());
        for word in &self.words {
            word.store(word.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
        }
    }

    /// What a recoverer does to them: the first was written first.
    pub(crate) fn repair(&self) {
        self.guarded.with_mut(|_| ());
        self.words[1].store(self.words[0].load(Ordering::Relaxed), Ordering::Relaxed);
    }

    /// What a reader sees: how often the words were written.
    pub(crate) fn read(&self) -> u64 {
        self.guarded.with(|_| ());
        let [one, two] = [0, 1].map(|i| self.words[i].load(Ordering::Relaxed));
        assert_eq!(one, two, "seen half-written");
        one
    }
}

// SAFETY: who is declared dead does nothing any more; bits of the dead alone are cleared; and there
// are as many slots as it says.
unsafe impl<L: RawLock> Peers for World<L> {
    fn is_dead(&self, who: ParticipantId) -> bool {
        self.dead[who.index as usize].load(Ordering::SeqCst)
    }

    fn evict_reader(&self, _: &Participant<'_>, index: u16, word: &AtomicU64, bit: u64) -> bool {
        let dead = self.is_dead(Self::id(index));
        if dead {
            word.fetch_and(!bit, Ordering::SeqCst);
        }
        dead
    }

    fn admits(&self, _: LockKind) -> bool {
        true
    }

    fn max_participants(&self) -> u32 {
        3
    }

    fn env(&self) -> &dyn Environment {
        &self.env
    }
}

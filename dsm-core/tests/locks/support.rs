//! Peers and an environment made of threads, for tests of the locks without a namespace.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Condvar, Mutex};
use std::time::{Duration, Instant};

use dsm_core::env::{Clock, Entropy, Environment, Liveness, ProcessProof, ThreadProof, Wait};
use dsm_core::error::ProviderFailure;
use dsm_core::handle::{LockAddress, ParticipantId};
use dsm_core::lock::{LockKind, LockRef, RawLock};
use dsm_core::participant::{Participant, ParticipantLocal, ParticipantSlot, Peers};

/// Waits on a condition variable; nobody's life or death is known to it.
pub(crate) struct ThreadEnv {
    started: Instant,
    queue: Mutex<()>,
    bell: Condvar,
    /// How often somebody slept.
    pub(crate) sleeps: AtomicU32,
    /// Which of its functions panics.
    pub(crate) broken: Mutex<&'static str>,
}

impl ThreadEnv {
    fn may_panic(&self, what: &str) {
        let broken = *self.broken.lock().unwrap();
        assert!(broken != what, "a broken environment: {what}");
    }
}

impl Wait for ThreadEnv {
    fn wait(&self, word: &AtomicU32, expected: u32, timeout: Duration) {
        self.may_panic("wait");
        let queue = self.queue.lock().unwrap();
        if word.load(Ordering::SeqCst) == expected {
            self.sleeps.fetch_add(1, Ordering::SeqCst);
            drop(self.bell.wait_timeout(queue, timeout).unwrap());
        }
    }

    fn wake_all(&self, _: &AtomicU32) {
        self.may_panic("wake");
        drop(self.queue.lock().unwrap());
        self.bell.notify_all();
    }
}

// SAFETY: calls nobody dead. There are no processes, so that there is nothing to claim.
unsafe impl Liveness for ThreadEnv {
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

impl Clock for ThreadEnv {
    fn now(&self) -> Duration {
        self.may_panic("now");
        self.started.elapsed()
    }
}

impl Entropy for ThreadEnv {
    fn next_u64(&self) -> u64 {
        4
    }
}

/// A crowd of participants, each of which can be declared dead.
pub(crate) struct Crowd {
    pub(crate) env: ThreadEnv,
    slots: Vec<ParticipantSlot>,
    dead: Vec<AtomicBool>,
    /// Whether everybody knows of a death without asking.
    pub(crate) known: AtomicBool,
    /// How often a peer's life was asked for.
    pub(crate) probes: AtomicU32,
    /// The identity of a kind of lock that may not be held shared here.
    pub(crate) refused: AtomicU64,
}

impl Crowd {
    pub(crate) fn new(max: u32) -> Self {
        let env = ThreadEnv {
            started: Instant::now(),
            queue: Mutex::new(()),
            bell: Condvar::new(),
            sleeps: AtomicU32::new(0),
            broken: Mutex::new(""),
        };
        Self {
            env,
            slots: (0..max).map(|_| ParticipantSlot::new()).collect(),
            dead: (0..max).map(|_| AtomicBool::new(false)).collect(),
            known: AtomicBool::new(false),
            probes: AtomicU32::new(0),
            refused: AtomicU64::new(0),
        }
    }

    pub(crate) fn id(index: u16) -> ParticipantId {
        ParticipantId { index, generation: 7 }
    }

    /// Enters `local` as participant `index`.
    pub(crate) fn join<'c>(&'c self, local: &'c ParticipantLocal, index: u16) -> Participant<'c> {
        // SAFETY: the slot lives as long as the crowd; each index is used by one thread.
        unsafe { local.register(Self::id(index), &self.slots[index as usize]) };
        // SAFETY: registered with these peers just now, and nobody else registers it.
        unsafe { Participant::new(self, local) }
    }

    pub(crate) fn slot(&self, index: u16) -> &ParticipantSlot {
        &self.slots[index as usize]
    }

    pub(crate) fn kill(&self, index: u16) {
        self.dead[index as usize].store(true, Ordering::SeqCst);
    }
}

// SAFETY: who is declared dead does nothing any more; bits of the dead alone are cleared; and there
// are as many slots as it says.
unsafe impl Peers for Crowd {
    fn is_dead(&self, who: ParticipantId) -> bool {
        self.probes.fetch_add(1, Ordering::SeqCst);
        who.generation != 7 || self.dead[who.index as usize].load(Ordering::SeqCst)
    }

    fn is_known_dead(&self, who: ParticipantId) -> bool {
        self.known.load(Ordering::SeqCst) && self.dead[who.index as usize].load(Ordering::SeqCst)
    }

    fn evict_reader(&self, _: &Participant<'_>, index: u16, word: &AtomicU64, bit: u64) -> bool {
        let dead = self.is_dead(Self::id(index));
        if dead {
            word.fetch_and(!bit, Ordering::SeqCst);
        }
        dead
    }

    fn admits(&self, kind: LockKind) -> bool {
        kind.identity() != self.refused.load(Ordering::SeqCst)
    }

    fn max_participants(&self) -> u32 {
        self.slots.len() as u32
    }

    fn env(&self) -> &dyn Environment {
        &self.env
    }
}

/// One line of lock memory.
#[repr(C, align(64))]
struct Line(std::cell::UnsafeCell<[u8; 64]>);

/// A lock on the heap.
pub(crate) struct Boxed<L> {
    memory: Box<[Line]>,
    address: LockAddress,
    _lock: std::marker::PhantomData<L>,
}

// SAFETY: the lock in the memory is made of atomics and used through shared access only.
unsafe impl<L> Sync for Boxed<L> {}

impl<L: RawLock> Boxed<L> {
    pub(crate) fn new(max: u32, offset: u64) -> Self {
        Self::at(max, LockAddress::new(1, offset))
    }

    pub(crate) fn at(max: u32, address: LockAddress) -> Self {
        let line = || Line(std::cell::UnsafeCell::new([0xee; 64]));
        let memory = std::iter::repeat_with(line).take(L::size_for(max) / 64).collect();
        let this = Self { memory, address, _lock: std::marker::PhantomData };
        // SAFETY: this many bytes were allocated, aligned to 64, and nobody uses them yet.
        unsafe { L::init(this.pointer(), max) };
        this
    }

    pub(crate) fn pointer(&self) -> std::ptr::NonNull<L> {
        std::ptr::NonNull::from(&self.memory[..]).cast()
    }

    pub(crate) fn lock(&self) -> LockRef<'_, L> {
        // SAFETY: `new` built the lock, and its memory lives as long as `self`.
        unsafe { LockRef::new(self.pointer(), self.address) }
    }
}

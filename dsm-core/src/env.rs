//! What the cores need of the outside world besides memory: waiting, liveness, time, entropy.
//!
//! [`Liveness`] is trusted: who is called dead is robbed of his locks. The others are safe to
//! implement: whatever they do, and be it that they panic, costs time at most, or an error.

use core::time::Duration;

use crate::error::ProviderFailure;
use crate::sync::AtomicU32;

/// Blocks on, and wakes from, a word in shared memory.
///
/// Safe to implement: who returns from a wait looks for himself, and a wake changes nothing. The
/// words that it gets references to mean nothing but that they move.
pub trait Wait: Send + Sync {
    /// Returns when `word` may differ from `expected`, when woken, or after `timeout` at the
    /// latest. May return at any time without a reason. Must work between processes.
    fn wait(&self, word: &AtomicU32, expected: u32, timeout: Duration);
    /// Wakes all that wait on `word`. A lost wake only costs its waiter the rest of its timeout.
    fn wake_all(&self, word: &AtomicU32);
}

/// What identifies a process beyond doubt, kept in its process slot.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(C)]
pub struct ProcessProof {
    /// Process id, as seen in `pid_namespace`.
    pub pid: u64,
    /// When the process started, in the platform's units; 0 if unknown.
    pub start_time: u64,
    /// Identity of the pid namespace (and of the boot); 0 where there is none.
    pub pid_namespace: u64,
    /// User id of the process.
    pub user: u64,
}

/// What identifies a thread of a process, kept in its participant slot.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(C)]
pub struct ThreadProof {
    /// Thread id; 0 if unknown, in which case the thread is never found dead by itself.
    pub tid: u64,
    /// When the thread started, in the platform's units.
    pub start_time: u64,
}

/// Proofs of death. No answer is ever a guess: what cannot be proven dead lives, and where proofs
/// contradict each other, the living win. A proof by pid and start time counts only where both
/// sides see the same processes under the same numbers and times.
///
/// # Safety
///
/// The locks of the dead are taken from them, and what those protect is handed out as `&mut`; their
/// process slots are given to others. So whoever is called dead must never again touch the shared
/// memory of the namespace:
///
/// - [`process_is_dead`](Self::process_is_dead) may be true only if the process that left the proof
///   in this slot has ended (or has let go of the slot, by [`release`](Self::release)), and
///   [`thread_is_dead`](Self::thread_is_dead) only if the thread has.
/// - While one process holds a slot's token, [`claim`](Self::claim) of the same slot of the same
///   namespace may succeed in no process.
/// - [`process_proof`](Self::process_proof) and [`thread_proof`](Self::thread_proof) must be true
///   of the caller, and of nobody else for whom a proof of death could be taken.
pub unsafe trait Liveness: Send + Sync {
    /// Takes out the calling process's token of life for process slot `slot`, before the slot is
    /// claimed; held until [`release`](Self::release) or death.
    ///
    /// # Errors
    ///
    /// [`AlreadyExists`](crate::error::ErrorKind::AlreadyExists) if a living process (this one
    /// included) holds the slot's token.
    fn claim(&self, slot: u32) -> Result<(), ProviderFailure>;
    /// Gives the token back.
    fn release(&self, slot: u32);
    /// Describes the calling process.
    fn process_proof(&self) -> ProcessProof;
    /// Describes the calling thread.
    fn thread_proof(&self) -> ThreadProof;
    /// Whether the process that claimed `slot` and left `proof` is proven dead. A zombie is dead,
    /// a stopped process lives, a process that merely cannot be seen lives.
    fn process_is_dead(&self, slot: u32, proof: &ProcessProof) -> bool;
    /// Whether a thread of a *living* process is proven gone.
    fn thread_is_dead(&self, process: &ProcessProof, thread: &ThreadProof) -> bool;
}

/// Time that only goes forward.
///
/// Safe to implement: a clock that jumps makes waits shorter or longer.
pub trait Clock: Send + Sync {
    /// Time since some fixed moment; need not agree between processes.
    fn now(&self) -> Duration;
}

/// Random bits for handles and seeds. Need not be cryptographic, but must differ between
/// processes and between starts.
///
/// Safe to implement: of bits that repeat, names are refused that exist already, tables get slow,
/// and a handle that was kept for too long may name a later segment.
pub trait Entropy: Send + Sync {
    /// 64 fresh bits.
    fn next_u64(&self) -> u64;
}

/// All of the above in one object. Implemented for whatever implements the four, of which
/// [`Liveness`] is the unsafe one.
pub trait Environment: Wait + Liveness + Clock + Entropy {}

impl<T: Wait + Liveness + Clock + Entropy> Environment for T {}

//! An environment around another one: what a test wants to see, or to change, of what the cores ask
//! of it.

use std::ops::Deref;
use std::time::Duration;

use dsm_core::env::{Clock, Entropy, Environment, Liveness, ProcessProof, ThreadProof, Wait};
use dsm_core::error::ProviderFailure;
use dsm_core::sync::AtomicU32;

/// What is different. Each method gets the environment within, and by itself hands the question on.
pub trait Hooks: Send + Sync {
    /// See [`Wait::wait`].
    fn wait(&self, within: &dyn Environment, word: &AtomicU32, expected: u32, timeout: Duration) {
        within.wait(word, expected, timeout);
    }
    /// See [`Wait::wake_all`].
    fn wake_all(&self, within: &dyn Environment, word: &AtomicU32) {
        within.wake_all(word);
    }
    /// See [`Liveness::process_is_dead`].
    fn process_is_dead(&self, within: &dyn Environment, slot: u32, proof: &ProcessProof) -> bool {
        within.process_is_dead(slot, proof)
    }
}

/// Nothing is different.
impl Hooks for () {}

/// The environment that `P` leads to, but for what the hooks do.
#[derive(Debug)]
pub struct Wrapped<P, H = ()> {
    within: P,
    /// What is different.
    pub hooks: H,
}

impl<P, H> Wrapped<P, H> {
    /// Wraps an environment.
    pub fn new(within: P, hooks: H) -> Self {
        Self { within, hooks }
    }
}

impl<P, H> Wait for Wrapped<P, H>
where
    P: Deref<Target: Environment + Sized> + Send + Sync,
    H: Hooks,
{
    fn wait(&self, word: &AtomicU32, expected: u32, timeout: Duration) {
        self.hooks.wait(&*self.within, word, expected, timeout);
    }
    fn wake_all(&self, word: &AtomicU32) {
        self.hooks.wake_all(&*self.within, word);
    }
}

// SAFETY: forwards to what upholds the contract. Hooks are tests' own: they look, or call dead whom
// they have killed.
unsafe impl<P, H> Liveness for Wrapped<P, H>
where
    P: Deref<Target: Environment + Sized> + Send + Sync,
    H: Hooks,
{
    fn claim(&self, slot: u32) -> Result<(), ProviderFailure> {
        self.within.claim(slot)
    }
    fn release(&self, slot: u32) {
        self.within.release(slot);
    }
    fn process_proof(&self) -> ProcessProof {
        self.within.process_proof()
    }
    fn thread_proof(&self) -> ThreadProof {
        self.within.thread_proof()
    }
    fn process_is_dead(&self, slot: u32, proof: &ProcessProof) -> bool {
        self.hooks.process_is_dead(&*self.within, slot, proof)
    }
    fn thread_is_dead(&self, process: &ProcessProof, thread: &ThreadProof) -> bool {
        self.within.thread_is_dead(process, thread)
    }
}

impl<P, H> Clock for Wrapped<P, H>
where
    P: Deref<Target: Environment + Sized> + Send + Sync,
    H: Hooks,
{
    fn now(&self) -> Duration {
        self.within.now()
    }
}

impl<P, H> Entropy for Wrapped<P, H>
where
    P: Deref<Target: Environment + Sized> + Send + Sync,
    H: Hooks,
{
    fn next_u64(&self) -> u64 {
        self.within.next_u64()
    }
}

//! Shared memory whose random numbers are the same in every run.
//!
//! A table draws the seed of its hash from its namespace's source of entropy, so where keys lie,
//! and which of them meet, would differ from run to run. Everything else is the system's: the
//! source is asked when segments and tables are made, and never by the operations that are
//! measured.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use dsm_core::env::{Clock, Entropy, Liveness, ProcessProof, ThreadProof, Wait};
use dsm_core::provider::ProviderError;
use dsm_core::sync::AtomicU32;
use dsm_registry::system::SharedMemory;
use dsm_registry::{Connection, Platform, ProviderFailure};
use platform_posix::{Options, Posix, Shm};

/// The system's environment, but for its entropy.
pub struct Unchanging {
    system: Posix,
    drawn: AtomicU64,
}

impl Unchanging {
    /// Draws the same numbers as every other one.
    #[must_use]
    pub fn new(system: Posix) -> Self {
        Self { system, drawn: AtomicU64::new(0) }
    }
}

impl Entropy for Unchanging {
    /// The next number of splitmix64.
    fn next_u64(&self) -> u64 {
        let drawn = self.drawn.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed);
        let mut mixed = drawn.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }
}

impl Wait for Unchanging {
    fn wait(&self, word: &AtomicU32, expected: u32, timeout: Duration) {
        self.system.wait(word, expected, timeout);
    }
    fn wake_all(&self, word: &AtomicU32) {
        self.system.wake_all(word);
    }
}

// SAFETY: forwards to what upholds the contract.
unsafe impl Liveness for Unchanging {
    fn claim(&self, slot: u32) -> Result<(), ProviderFailure> {
        self.system.claim(slot)
    }
    fn release(&self, slot: u32) {
        self.system.release(slot);
    }
    fn process_proof(&self) -> ProcessProof {
        self.system.process_proof()
    }
    fn thread_proof(&self) -> ThreadProof {
        self.system.thread_proof()
    }
    fn process_is_dead(&self, slot: u32, proof: &ProcessProof) -> bool {
        self.system.process_is_dead(slot, proof)
    }
    fn thread_is_dead(&self, process: &ProcessProof, thread: &ThreadProof) -> bool {
        self.system.thread_is_dead(process, thread)
    }
}

impl Clock for Unchanging {
    fn now(&self) -> Duration {
        self.system.now()
    }
}

/// The registry's default backend with that environment.
pub struct UnchangingMemory;

impl Platform for UnchangingMemory {
    fn place(&self) -> String {
        SharedMemory::default().place()
    }

    fn connect(&self, namespace: &str, mode: u32) -> Result<Connection, ProviderFailure> {
        let shm = Shm::with_options(namespace, Options::new().mode(mode));
        let shm = shm.map_err(|e| e.failure())?;
        let environment = Unchanging::new(shm.environment());
        Ok(Connection::new(shm, environment))
    }

    fn namespaces(&self) -> Result<Vec<String>, ProviderFailure> {
        SharedMemory::default().namespaces()
    }
}

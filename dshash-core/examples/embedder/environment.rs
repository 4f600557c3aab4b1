//! The rest of the machine: waits, lives, time, chance.

use std::hash::{BuildHasher, Hasher};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use dsm_core::env::{Clock, Entropy, Liveness, ProcessProof, ThreadProof, Wait};
use dsm_core::error::{ErrorKind, ProviderFailure};

/// A machine that runs one program, which lives as long as the machine does.
pub(crate) struct Machine {
    started: Instant,
    /// The one process slot's token: whether it was taken.
    claimed: AtomicU32,
}

impl Machine {
    pub(crate) fn new() -> Self {
        Self { started: Instant::now(), claimed: AtomicU32::new(0) }
    }
}

impl Wait for Machine {
    fn wait(&self, word: &dsm_core::sync::AtomicU32, expected: u32, timeout: Duration) {
        let start = Instant::now();
        while word.load(dsm_core::sync::Ordering::Acquire) == expected && start.elapsed() < timeout
        {
            std::thread::yield_now();
        }
    }
    fn wake_all(&self, _: &dsm_core::sync::AtomicU32) {}
}

// SAFETY: the one process is alive as long as it holds the token; nobody else is there to take it.
unsafe impl Liveness for Machine {
    fn claim(&self, slot: u32) -> Result<(), ProviderFailure> {
        let taken = self.claimed.compare_exchange(0, slot + 1, Ordering::AcqRel, Ordering::Relaxed);
        match taken {
            Ok(_) => Ok(()),
            Err(_) => Err(ProviderFailure::new(ErrorKind::AlreadyExists, "claim")),
        }
    }
    fn release(&self, _slot: u32) {
        self.claimed.store(0, Ordering::Release);
    }
    fn process_proof(&self) -> ProcessProof {
        ProcessProof { pid: 1, ..ProcessProof::default() }
    }
    fn thread_proof(&self) -> ThreadProof {
        // Zero: threads are never found dead by themselves.
        ThreadProof::default()
    }
    fn process_is_dead(&self, slot: u32, _: &ProcessProof) -> bool {
        self.claimed.load(Ordering::Acquire) != slot + 1
    }
    fn thread_is_dead(&self, _: &ProcessProof, _: &ThreadProof) -> bool {
        false
    }
}

impl Clock for Machine {
    fn now(&self) -> Duration {
        self.started.elapsed()
    }
}

impl Entropy for Machine {
    fn next_u64(&self) -> u64 {
        // The standard library draws a new seed for each of these.
        std::collections::hash_map::RandomState::new().build_hasher().finish()
    }
}

//! A simulated process, as an environment: waits, liveness, time, entropy.

use core::time::Duration;
#[cfg(not(shuttle))]
use std::sync::PoisonError;
#[cfg(not(any(loom, shuttle)))]
use std::sync::atomic::AtomicU64 as StdU64;
use std::sync::atomic::Ordering as StdOrdering;

use crate::HeapProcess;
use dsm_core::env::{Clock, Entropy, Liveness, ProcessProof, ThreadProof, Wait};
use dsm_core::error::{ErrorKind, ProviderFailure};
use dsm_core::sync::AtomicU32;
#[cfg(not(shuttle))]
use dsm_core::sync::Ordering;

#[cfg(not(shuttle))]
impl Wait for HeapProcess {
    fn wait(&self, word: &AtomicU32, expected: u32, timeout: Duration) {
        if cfg!(loom) {
            dsm_core::sync::yield_now();
            return;
        }
        let guard = self.machine.inner.waiters.lock().unwrap_or_else(PoisonError::into_inner);
        if word.load(Ordering::Acquire) != expected {
            return;
        }
        // A wake comes under the same mutex, so that it cannot fall between the load and the wait.
        let waited = self.machine.inner.wakes.wait_timeout(guard, timeout);
        drop(waited);
    }

    fn wake_all(&self, _word: &AtomicU32) {
        if cfg!(loom) {
            return;
        }
        drop(self.machine.inner.waiters.lock().unwrap_or_else(PoisonError::into_inner));
        self.machine.inner.wakes.notify_all();
    }
}

#[cfg(shuttle)]
impl Wait for HeapProcess {
    fn wait(&self, word: &AtomicU32, expected: u32, timeout: Duration) {
        dsm_core::sync::shuttle::sleep(word, expected, timeout);
    }

    fn wake_all(&self, word: &AtomicU32) {
        dsm_core::sync::shuttle::wake(word);
    }
}

// SAFETY: who was killed, or has ended, is on the machine's list; the code that simulates it does
// nothing more with what it had: that is for each test to see to. Each token is one process's.
unsafe impl Liveness for HeapProcess {
    fn claim(&self, slot: u32) -> Result<(), ProviderFailure> {
        self.call("claim").map_err(|error| error.0)?;
        let mut state = self.machine.state();
        match state.tokens.get(&slot) {
            Some(_) => Err(ProviderFailure::new(ErrorKind::AlreadyExists, "claim")),
            None => {
                state.tokens.insert(slot, self.pid);
                Ok(())
            }
        }
    }

    fn release(&self, slot: u32) {
        if self.call("release").is_err() {
            return;
        }
        let mut state = self.machine.state();
        if state.tokens.get(&slot) == Some(&self.pid) {
            state.tokens.remove(&slot);
        }
    }

    fn process_proof(&self) -> ProcessProof {
        ProcessProof { pid: self.pid, start_time: self.pid, pid_namespace: 1, user: 0 }
    }

    fn thread_proof(&self) -> ThreadProof {
        // In models all threads run on one real thread: unknown, never found dead.
        #[cfg(any(loom, shuttle))]
        let tid = 0;
        #[cfg(not(any(loom, shuttle)))]
        let tid = thread_number();
        ThreadProof { tid, start_time: tid }
    }

    fn process_is_dead(&self, slot: u32, proof: &ProcessProof) -> bool {
        let state = self.machine.state();
        !state.living.contains(&proof.pid) || state.tokens.get(&slot) != Some(&proof.pid)
    }

    fn thread_is_dead(&self, _process: &ProcessProof, thread: &ThreadProof) -> bool {
        self.machine.state().ended_threads.contains(&thread.tid)
    }
}

/// A number for the calling thread, never reused.
#[cfg(not(any(loom, shuttle)))]
fn thread_number() -> u64 {
    static NEXT: StdU64 = StdU64::new(1);
    std::thread_local! {
        static NUMBER: u64 = NEXT.fetch_add(1, StdOrdering::Relaxed);
    }
    NUMBER.with(|number| *number)
}

impl Clock for HeapProcess {
    #[cfg(shuttle)]
    fn now(&self) -> Duration {
        dsm_core::sync::shuttle::now()
    }

    #[cfg(not(shuttle))]
    fn now(&self) -> Duration {
        static START: std::sync::OnceLock<std::time::Instant> = std::sync::OnceLock::new();
        START.get_or_init(std::time::Instant::now).elapsed()
    }
}

impl Entropy for HeapProcess {
    fn next_u64(&self) -> u64 {
        let mut state = self.machine.state();
        if let Some(forced) = state.entropy.pop_front() {
            return forced;
        }
        let drawn = self.drawn.fetch_add(1, StdOrdering::Relaxed);
        mix(state.seed ^ mix(self.pid) ^ mix(drawn.wrapping_add(0x1234_5678)))
    }
}

/// The finalizer of SplitMix64 (Steele, Lea, Flood: "Fast splittable pseudorandom number
/// generators", OOPSLA 2014).
fn mix(seed: u64) -> u64 {
    let mut z = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

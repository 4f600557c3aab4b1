//! The suite against the simulated machine, on which all other tests of the cores build.

use std::sync::Arc;
use std::time::Duration;

use conformance::Backend;
use dsm_core::env::{Clock, Entropy, Liveness, ProcessProof, ThreadProof, Wait};
use dsm_core::error::ProviderFailure;
use dsm_core::handle::SegmentHandle;
use dsm_core::heap::{HeapMachine, HeapProcess};
use dsm_core::sync::AtomicU32;

struct OnHeap(Arc<HeapProcess>);

impl Backend for OnHeap {
    type Provider = HeapProcess;
    type Root = HeapProcess;
    type Environment = Shared;

    const PROCESSES: bool = false;
    const LISTS: bool = true;
    const THREADS: bool = false;
    const PROOFS: bool = true;
    const BLANKS: bool = false;
    const TOO_LARGE: usize = conformance::bytes_of(34);

    fn create(_namespace: &str) -> Self {
        let machine = HeapMachine::new();
        machine.set_capacity(Some(64 << 20));
        Self(Arc::new(machine.process()))
    }

    fn join(namespace: &str) -> Self {
        Self::create(namespace)
    }

    fn provider(&self) -> &HeapProcess {
        &self.0
    }

    fn root(&self) -> &HeapProcess {
        &self.0
    }

    fn environment(&self) -> Shared {
        Shared(self.0.clone())
    }

    fn unlink(&self, handle: SegmentHandle) -> bool {
        self.0.machine().unlink(handle)
    }
}

/// The environment of one simulated process, in several hands.
struct Shared(Arc<HeapProcess>);

impl Wait for Shared {
    fn wait(&self, word: &AtomicU32, expected: u32, timeout: Duration) {
        self.0.wait(word, expected, timeout);
    }
    fn wake_all(&self, word: &AtomicU32) {
        self.0.wake_all(word);
    }
}

impl Liveness for Shared {
    fn claim(&self, slot: u32) -> Result<(), ProviderFailure> {
        self.0.claim(slot)
    }
    fn release(&self, slot: u32) {
        self.0.release(slot);
    }
    fn process_proof(&self) -> ProcessProof {
        self.0.process_proof()
    }
    fn thread_proof(&self) -> ThreadProof {
        self.0.thread_proof()
    }
    fn process_is_dead(&self, slot: u32, proof: &ProcessProof) -> bool {
        self.0.process_is_dead(slot, proof)
    }
    fn thread_is_dead(&self, process: &ProcessProof, thread: &ThreadProof) -> bool {
        self.0.thread_is_dead(process, thread)
    }
}

impl Clock for Shared {
    fn now(&self) -> Duration {
        self.0.now()
    }
}

impl Entropy for Shared {
    fn next_u64(&self) -> u64 {
        self.0.next_u64()
    }
}

conformance::suite!(OnHeap);

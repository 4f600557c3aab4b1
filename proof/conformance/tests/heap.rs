//! The suite against the simulated machine, on which all other tests of the cores build.

use std::sync::Arc;

use conformance::Backend;
use dsm_core::handle::SegmentHandle;
use sim::{HeapMachine, HeapProcess};
use testkit::environment::Wrapped;

struct OnHeap(Arc<HeapProcess>);

impl Backend for OnHeap {
    type Provider = HeapProcess;
    type Root = HeapProcess;
    /// In several hands.
    type Environment = Wrapped<Arc<HeapProcess>>;

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

    fn environment(&self) -> Wrapped<Arc<HeapProcess>> {
        Wrapped::new(self.0.clone(), ())
    }

    fn unlink(&self, handle: SegmentHandle) -> bool {
        self.0.machine().unlink(handle)
    }
}

conformance::suite!(OnHeap);

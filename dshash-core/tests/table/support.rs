//! Simulated processes with an area, and a heap in it. They are leaked: a killed process's memory
//! must stay where it is, and a test is short.

use dsa_core::{Area, AreaLocal, Heap, HeapLocal, Options};
use dshash_core::MAX_SEGMENT_SIZE;
use dsm_core::handle::SegmentHandle;
use dsm_core::lock::rw::RwLock;
use dsm_core::namespace::{Namespace, NamespaceConfig};
use dsm_core::participant::ParticipantLocal;
use sim::{HeapMachine, HeapProcess};

pub(crate) type A = Area<'static, RwLock>;
pub(crate) type H = Heap<'static, RwLock>;

pub(crate) fn leak<T>(value: T) -> &'static T {
    Box::leak(Box::new(value))
}

pub(crate) struct Proc {
    pub(crate) process: &'static HeapProcess,
    pub(crate) ns: &'static Namespace<'static>,
    thread: &'static ParticipantLocal,
}

pub(crate) fn start(machine: &HeapMachine) -> Proc {
    start_as(machine, &NamespaceConfig { max_processes: 32, ..NamespaceConfig::default() })
}

/// As `start`, with a configuration.
pub(crate) fn start_as(machine: &HeapMachine, config: &NamespaceConfig) -> Proc {
    let process = leak(machine.process());
    let local = leak(process.local());
    let (ns, _) = Namespace::open(process, process.platform(), config, local).unwrap();
    let ns = leak(ns);
    let thread = leak(ParticipantLocal::new());
    ns.register(thread).unwrap();
    Proc { process, ns, thread }
}

pub(crate) fn options() -> Options {
    Options { maximum: MAX_SEGMENT_SIZE, ..Options::default() }
}

impl Proc {
    pub(crate) fn create(&self) -> (&'static A, &'static H) {
        let area = leak(A::create(self.ns, &options(), leak(AreaLocal::new())).unwrap());
        (area, heap(self.ns, area, self.thread))
    }

    pub(crate) fn attach(&self, handle: SegmentHandle) -> (&'static A, &'static H) {
        let area = leak(A::attach(self.ns, handle, leak(AreaLocal::new())).unwrap());
        (area, heap(self.ns, area, self.thread))
    }

    pub(crate) fn kill(&self) {
        self.process.kill();
        self.thread.clear();
    }
}

fn heap(
    ns: &'static Namespace<'static>,
    area: &'static A,
    thread: &'static ParticipantLocal,
) -> &'static H {
    let participant = leak(ns.participant(thread));
    leak(area.heap(participant, leak(HeapLocal::new())).unwrap())
}

/// The calling thread's own heap in an area of its process.
pub(crate) fn new_thread(ns: &'static Namespace<'static>, area: &'static A) -> &'static H {
    let thread = leak(ParticipantLocal::new());
    ns.register(thread).unwrap();
    heap(ns, area, thread)
}

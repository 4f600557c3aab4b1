//! Simulated processes with everything an area needs. They are leaked: a killed process's memory
//! must stay where it is, and a test is short.

use dsa_core::{Area, AreaLocal, DsaPointer, Error, Heap, HeapLocal, Options};
use dsm_core::handle::SegmentHandle;
use dsm_core::lock::rw::RwLock;
use dsm_core::namespace::{Namespace, NamespaceConfig};
use dsm_core::participant::{Participant, ParticipantLocal};
use sim::{HeapMachine, HeapProcess};

pub(crate) type A = Area<'static, RwLock>;
pub(crate) type H = Heap<'static, RwLock>;

pub(crate) fn leak<T>(value: T) -> &'static T {
    Box::leak(Box::new(value))
}

#[derive(Clone, Copy)]
pub(crate) struct Proc {
    pub(crate) process: &'static HeapProcess,
    pub(crate) ns: &'static Namespace<'static>,
    pub(crate) thread: &'static ParticipantLocal,
    pub(crate) participant: &'static Participant<'static>,
}

/// Of a namespace for a few processes.
pub(crate) fn config() -> NamespaceConfig {
    NamespaceConfig {
        max_processes: 32,
        max_participants: 96,
        max_segments: 512,
        ..NamespaceConfig::default()
    }
}

pub(crate) fn start(machine: &HeapMachine) -> Proc {
    let process = leak(machine.process());
    let local = leak(process.local());
    let config = config();
    let (ns, _) = Namespace::open(process, process.platform(), &config, local).unwrap();
    let ns = leak(ns);
    let thread = leak(ParticipantLocal::new());
    ns.register(thread).unwrap();
    let participant = leak(ns.participant(thread));
    Proc { process, ns, thread, participant }
}

impl Proc {
    /// An area of its own, and a heap in it.
    pub(crate) fn create(&self, options: &Options) -> (&'static A, H) {
        let area = leak(A::create(self.ns, options, leak(AreaLocal::new())).unwrap());
        (area, area.heap(self.participant, leak(HeapLocal::new())).unwrap())
    }

    pub(crate) fn attach(&self, handle: SegmentHandle) -> Result<(&'static A, H), Error> {
        let area = leak(A::attach(self.ns, handle, leak(AreaLocal::new()))?);
        Ok((area, area.heap(self.participant, leak(HeapLocal::new()))?))
    }

    pub(crate) fn kill(&self) {
        self.process.kill();
    }
}

/// Copies into an object.
pub(crate) fn copy_in(
    area: &Area<'_, RwLock>,
    pointer: DsaPointer,
    offset: usize,
    from: &[u8],
) -> Result<(), Error> {
    // SAFETY: the tests use objects through checked copies only.
    unsafe { area.copy_in(pointer, offset, from) }
}

/// Copies out of an object.
pub(crate) fn copy_out(
    area: &Area<'_, RwLock>,
    pointer: DsaPointer,
    offset: usize,
    to: &mut [u8],
) -> Result<(), Error> {
    // SAFETY: the tests use objects through checked copies only.
    unsafe { area.copy_out(pointer, offset, to) }
}

/// Fills an object with a pattern made of its own pointer, or checks it.
pub(crate) fn fill(area: &Area<'_, RwLock>, pointer: DsaPointer, bytes: usize) {
    let pattern = pointer.raw().wrapping_mul(0x9E37_79B9_7F4A_7C15).to_ne_bytes();
    let data: Vec<u8> = (0..bytes).map(|i| pattern[i % 8]).collect();
    copy_in(area, pointer, 0, &data).unwrap();
}

pub(crate) fn check_fill(area: &Area<'_, RwLock>, pointer: DsaPointer, bytes: usize) {
    let pattern = pointer.raw().wrapping_mul(0x9E37_79B9_7F4A_7C15).to_ne_bytes();
    let mut data = vec![0; bytes];
    copy_out(area, pointer, 0, &mut data).unwrap();
    assert!(data.iter().enumerate().all(|(i, b)| *b == pattern[i % 8]), "{pointer:?} was changed");
}

pub(crate) fn free(heap: &Heap<'_, RwLock>, pointer: DsaPointer) {
    // SAFETY: the tests use objects through checked copies only.
    unsafe { heap.free(pointer) }.unwrap();
}

/// A small deterministic generator.
pub(crate) struct Rng(pub(crate) u64);

impl Rng {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
    pub(crate) fn below(&mut self, n: usize) -> usize {
        (self.next() >> 11) as usize % n
    }
}

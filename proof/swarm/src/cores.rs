//! The part of the swarm that uses the cores as an embedder does: a namespace with locks, segments
//! and an area, without names.
//!
//! Its root words: the segment with the locks, the area, the object with the cells.

use std::ptr::NonNull;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{Acquire, Release};

use dsa_core::{Area, AreaLocal, AtomicDsaPointer, DsaPointer, Flags, Heap, HeapLocal, Options};
use dsm_core::handle::SegmentHandle;
use dsm_core::lock::rw::RwLock;
use dsm_core::lock::{LockRef, RawLock};
use dsm_core::namespace::{
    LocalSegment, Namespace, NamespaceConfig, Opened, Platform, ProcessLocal,
};
use dsm_core::participant::{Participant, ParticipantLocal, Peers};
use dsm_core::segment::Segment;
use platform_posix::Shm;
use platform_posix::fork::Wiped;

use crate::board::{LOCKS, PROCESSES, SEATS};
use testkit::system::forever as leak;
use testkit::tool::{ensure, text};

/// Cells of each seat in the area.
pub(crate) const CELLS: usize = 8;

const ROOT_LOCKS: usize = 0;
const ROOT_AREA: usize = 1;
const ROOT_CELLS: usize = 2;
/// Those that everybody takes, and a private one of each process.
const ALL_LOCKS: usize = LOCKS + 2 * PROCESSES;
const LOCK_STRIDE: usize = 64;
const RECORDS_AT: usize = 4096;
const LOCKS_SIZE: usize = RECORDS_AT + LOCKS * size_of::<Record>();

/// What a lock protects: a sum and its parts, changed one after the other.
#[repr(C, align(64))]
pub(crate) struct Record {
    /// Who has the lock alone; 0 for nobody.
    pub(crate) holder: AtomicU64,
    pub(crate) total: AtomicU64,
    pub(crate) by: [AtomicU64; SEATS],
}

/// A process's view of the namespace, as long as the process lives.
pub(crate) struct Core {
    shm: &'static Shm,
    pub(crate) namespace: &'static Namespace<'static>,
    locks: &'static Segment<'static>,
    pub(crate) area: &'static Area<'static, RwLock>,
    cells: DsaPointer,
}

/// A thread in it.
#[derive(Clone, Copy)]
pub(crate) struct CoreThread {
    pub(crate) core: &'static Core,
    local: &'static ParticipantLocal,
    pub(crate) participant: &'static Participant<'static>,
    pub(crate) heap: &'static Heap<'static, RwLock>,
}

impl Core {
    /// Opens the namespace; whoever creates it, the supervisor, makes everything.
    pub(crate) fn open(name: &str) -> Result<(&'static Self, Opened), String> {
        let shm = leak(Shm::new(name).map_err(text)?);
        let config = NamespaceConfig { persistent: true, ..NamespaceConfig::default() };
        let records: Vec<_> = (0..config.max_segments).map(|_| LocalSegment::new()).collect();
        let token = leak(Wiped::<dsm_core::sync::AtomicU64>::new().map_err(text)?);
        let local = leak(ProcessLocal::new(token, records.leak()));
        let platform = Platform { provider: shm, env: leak(shm.environment()) };
        let (namespace, opened) = Namespace::open(shm, platform, &config, local).map_err(text)?;
        let namespace = leak(namespace);
        let root = |index| SegmentHandle::from_raw(namespace.root(index).load(Acquire));
        let core = match (root(ROOT_LOCKS), root(ROOT_AREA)) {
            (Some(locks), Some(area)) => {
                let locks = namespace.attach_segment(locks).map_err(text)?.ok_or("no locks")?;
                let area = Area::attach(namespace, area, leak(AreaLocal::new())).map_err(text)?;
                let cells = DsaPointer::from_raw(namespace.root(ROOT_CELLS).load(Acquire));
                Self { shm, namespace, locks: leak(locks), area: leak(area), cells }
            }
            _ => Self::create(shm, namespace)?,
        };
        Ok((leak(core), opened))
    }

    fn create(shm: &'static Shm, namespace: &'static Namespace<'static>) -> Result<Self, String> {
        let locks = namespace.create_object(LOCKS_SIZE, LOCKS_SIZE).map_err(text)?;
        ensure(RwLock::size_for(namespace.max_participants()) == LOCK_STRIDE, || "long".into())?;
        for index in 0..ALL_LOCKS {
            // SAFETY: within the segment, as many as there is room for before the records.
            let at = unsafe { locks.base().add(index * LOCK_STRIDE) };
            // SAFETY: aligned to a cache line, and nobody has the segment yet.
            unsafe { RwLock::init(at.cast(), namespace.max_participants()) };
        }
        namespace.pin_segment(locks.handle()).map_err(text)?;
        let area = Area::create(namespace, &Options::default(), leak(AreaLocal::new()));
        let area = leak(area.map_err(text)?);
        area.pin().map_err(text)?;
        let locks = leak(locks);
        let mut core = Self { shm, namespace, locks, area, cells: DsaPointer::INVALID };
        let local = leak(ParticipantLocal::new());
        namespace.register(local).map_err(text)?;
        let participant = namespace.participant(local);
        let hints = leak(HeapLocal::new());
        let heap = area.heap(leak(participant), hints).map_err(text)?;
        core.cells = heap.allocate_extended(SEATS * CELLS * 8, Flags::ZERO).map_err(text)?;
        heap.release().map_err(text)?;
        ensure(namespace.unregister(local), || "a lock is held".into())?;
        let handle = area.handle().ok_or("an area without a handle")?;
        for (root, value) in [
            (ROOT_CELLS, core.cells.raw()),
            (ROOT_AREA, handle.get()),
            (ROOT_LOCKS, core.locks.handle().get()),
        ] {
            namespace.root(root).store(value, Release);
        }
        Ok(core)
    }

    /// Makes the calling thread a participant.
    pub(crate) fn join(&'static self) -> Result<CoreThread, String> {
        let local: &'static Wiped<ParticipantLocal> = leak(Wiped::new().map_err(text)?);
        self.namespace.register(local).map_err(text)?;
        let participant = leak(self.namespace.participant(local));
        let heap = self.area.heap(participant, leak(HeapLocal::new())).map_err(text)?;
        Ok(CoreThread { core: self, local, participant, heap: leak(heap) })
    }

    fn lock_at(&self, index: usize) -> NonNull<RwLock> {
        // SAFETY: callers pass an index below `ALL_LOCKS`, so that it lies within the segment.
        unsafe { self.locks.base().add(index * LOCK_STRIDE) }.cast()
    }

    /// One of the locks that everybody takes.
    pub(crate) fn lock(&self, index: usize) -> LockRef<'static, RwLock> {
        let address = self.locks.lock_address((index * LOCK_STRIDE) as u64);
        // SAFETY: built by `create`, and mapped as long as the process is in the namespace.
        unsafe { LockRef::new(self.lock_at(index), address) }
    }

    /// The lock that only one process takes, so that nobody waits for it.
    pub(crate) fn private_lock(&self, process: usize) -> LockRef<'static, RwLock> {
        self.lock(LOCKS + process)
    }

    pub(crate) fn record(&self, index: usize) -> &'static Record {
        let at = RECORDS_AT + index * size_of::<Record>();
        // SAFETY: within the segment, for an index below `LOCKS`.
        let at = unsafe { self.locks.base().add(at) };
        // SAFETY: mapped as long as the process is in the namespace, and any bytes are atomics.
        unsafe { at.cast::<Record>().as_ref() }
    }

    /// A word in the area that a seat may allocate into, and anybody may free from.
    pub(crate) fn cell(&self, index: usize) -> Result<&'static AtomicDsaPointer, String> {
        let at = self.cells.add(index as u64 * 8).cast();
        // SAFETY: within the object with the cells, which is freed when nobody is left.
        unsafe { self.area.as_ref(at) }.ok_or_else(|| "the cells are gone".into())
    }

    pub(crate) fn cells(&self) -> DsaPointer {
        self.cells
    }

    /// Leaves; nothing of this may be used any more.
    pub(crate) fn leave(&self) -> Result<(), String> {
        // SAFETY: leaked, and its copy is not used any more.
        let namespace = unsafe { std::ptr::read(self.namespace) };
        namespace.leave(self.shm).map_err(text)
    }
}

impl CoreThread {
    /// Ends the participant.
    pub(crate) fn part(self) -> Result<(), String> {
        ensure(self.core.namespace.unregister(self.local), || "a guard was leaked".into())
    }
}

//! What this crate's own tests run on: simulated processes whose tables lie in one segment of a
//! namespace, handed out by an allocator that knows of every allocation, can fail on demand, and
//! fills new memory with rubbish; and simulated death at a chosen step.
//!
//! The segment stands for an area: its first eighth is the beginning of the area's first segment,
//! the rest is the end of the last one that an area can have.

use core::cell::{Cell, RefCell};
use core::ptr::NonNull;
use std::boxed::Box;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind, panic_any};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::vec::Vec;

use dsa_core::{AtomicDsaPointer, DsaPointer};
use dsm_core::handle::{LockAddress, ParticipantId, SegmentHandle};
use dsm_core::lock::rw::RwLock;
use dsm_core::namespace::{Namespace, NamespaceConfig};
use dsm_core::participant::{Participant, ParticipantLocal};
use dsm_core::segment::Segment;
use dsm_core::sync::Ordering;
use sim::{HeapMachine, HeapProcess};

use crate::error::MemoryError;
use crate::store::{Allocator, Store, Unresolved};
use crate::words::MAX_SEGMENT_SIZE;

/// Where the pretended area's first segment begins, and its last one: with generations.
const FIRST: u64 = 5 << 50;
const LAST: u64 = 7 << 50 | 1023 << 40;

/// Bytes at the beginning in which nothing lies, as those of an area's control block.
pub(crate) const RESERVED: usize = 4096;

/// The pointer to an offset in memory of `size` bytes.
fn pointer_to(offset: usize, size: usize) -> DsaPointer {
    DsaPointer::from_raw(if offset < size / 8 {
        FIRST | offset as u64
    } else {
        LAST | (MAX_SEGMENT_SIZE - (size - offset) as u64)
    })
}

/// The offset of `len` bytes that a pointer leads to; `None` if they are not all there.
fn offset_of(pointer: DsaPointer, len: usize, size: usize) -> Option<usize> {
    let (begin, end, at) = match pointer.raw() - pointer.offset() {
        FIRST => (0, size / 8, pointer.offset()),
        LAST => (size / 8, size, (pointer.offset() + size as u64).checked_sub(MAX_SEGMENT_SIZE)?),
        _ => return None,
    };
    let at = usize::try_from(at).ok()?;
    (at >= begin && at.checked_add(len)? <= end).then_some(at)
}

#[derive(Default)]
struct Allocations {
    used: usize,
    live: BTreeMap<usize, usize>,
    /// Offsets, and who allocated there.
    unpublished: Vec<(usize, u64)>,
    free: BTreeMap<usize, Vec<usize>>,
    fail_after: Option<usize>,
}

/// What all stores of a pool share.
#[derive(Clone, Default)]
pub(crate) struct Pool(Arc<Mutex<Allocations>>);

impl Pool {
    fn lock(&self) -> MutexGuard<'_, Allocations> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Number of allocations.
    pub(crate) fn live(&self) -> usize {
        self.lock().live.len()
    }

    /// Bytes allocated.
    pub(crate) fn bytes(&self) -> usize {
        self.lock().live.values().sum()
    }

    /// The next new memory is `bytes` bytes before the end of the last segment.
    pub(crate) fn go_to_the_end(&self, size: usize, bytes: usize) {
        self.lock().used = size - bytes;
    }

    /// Lets `n` more allocations succeed; all of them for `None`.
    pub(crate) fn fail_after(&self, n: Option<usize>) {
        self.lock().fail_after = n;
    }
}

/// A [`Store`] over one segment.
pub(crate) struct TestStore<'n> {
    segment: Segment<'n>,
}

/// The right of a simulated thread to allocate in a pool.
pub(crate) struct TestHeap {
    participant: &'static Participant<'static>,
    base: NonNull<u8>,
    size: usize,
    pool: Pool,
}

impl TestHeap {
    fn take(&self, size: usize, align: usize) -> Result<DsaPointer, MemoryError> {
        let mut pool = self.pool.lock();
        let full = MemoryError::Area(dsa_core::Error::TooManySegments);
        match &mut pool.fail_after {
            Some(0) => return Err(full),
            Some(n) => *n -= 1,
            None => {}
        }
        assert!(align <= 128, "more than any table asks for");
        let room = size.next_multiple_of(128);
        let again = pool.free.get_mut(&room).and_then(Vec::pop);
        let offset = match again {
            Some(offset) => offset,
            None => pool.used.max(RESERVED),
        };
        let end = self.size / 8;
        let offset = if offset < end && offset + room > end { end } else { offset };
        if offset + room > self.size {
            return Err(full);
        }
        pool.used = pool.used.max(offset + room);
        pool.live.insert(offset, size);
        // SAFETY: inside the segment.
        let at = unsafe { self.base.add(offset) };
        // SAFETY: just allocated.
        unsafe { at.write_bytes(0xaa, size) };
        Ok(pointer_to(offset, self.size))
    }

    /// The offset of what was allocated at `pointer`.
    fn offset(&self, pointer: DsaPointer) -> usize {
        offset_of(pointer, 1, self.size).expect("memory of the pool")
    }

    fn put(&self, offset: usize) {
        let mut pool = self.pool.lock();
        let size = pool.live.remove(&offset).expect("freed what was not allocated");
        pool.unpublished.retain(|(unpublished, _)| *unpublished != offset);
        // SAFETY: inside the segment.
        let at = unsafe { self.base.add(offset) };
        // SAFETY: just freed: whoever still looks finds rubbish.
        unsafe { at.write_bytes(0x55, size) };
        pool.free.entry(size.next_multiple_of(128)).or_default().push(offset);
    }

    /// Frees what the dead had not published, as an area does by itself.
    pub(crate) fn maintain(&self) {
        let peers = self.participant.peers();
        let dead = |packed| ParticipantId::unpack(packed).is_some_and(|id| peers.is_dead(id));
        let unpublished = self.pool.lock().unpublished.clone();
        for (offset, _) in unpublished.into_iter().filter(|(_, owner)| dead(*owner)) {
            self.put(offset);
        }
    }
}

// SAFETY: offsets are inside the segment, and the pool's map sees to it that allocations do not
// overlap.
unsafe impl Allocator for TestHeap {
    fn participant(&self) -> &Participant<'_> {
        self.participant
    }

    fn store_id(&self) -> usize {
        self.base.addr().get()
    }

    fn allocate_into(
        &self,
        destination: &AtomicDsaPointer,
        size: usize,
        align: usize,
    ) -> Result<(), MemoryError> {
        passed_step();
        destination.store(self.take(size, align)?, Ordering::Relaxed);
        passed_step();
        Ok(())
    }

    unsafe fn free_from(&self, destination: &AtomicDsaPointer) -> Result<(), MemoryError> {
        passed_step();
        let pointer = destination.swap(DsaPointer::INVALID, Ordering::Relaxed);
        // SAFETY: the caller's promise.
        unsafe { self.free(pointer) };
        passed_step();
        Ok(())
    }

    fn allocate_unpublished(&self, size: usize, align: usize) -> Result<DsaPointer, MemoryError> {
        passed_step();
        let pointer = self.take(size, align)?;
        self.pool.lock().unpublished.push((self.offset(pointer), self.participant.packed()));
        passed_step();
        Ok(pointer)
    }

    fn publish(
        &self,
        pointer: DsaPointer,
        destination: &AtomicDsaPointer,
    ) -> Result<(), MemoryError> {
        passed_step();
        destination.store(pointer, Ordering::Relaxed);
        self.settle(pointer);
        Ok(())
    }

    fn settle(&self, pointer: DsaPointer) {
        let offset = self.offset(pointer);
        self.pool.lock().unpublished.retain(|(unpublished, _)| *unpublished != offset);
        passed_step();
    }

    unsafe fn free(&self, pointer: DsaPointer) {
        self.put(self.offset(pointer));
    }
}

// SAFETY: the segment stays mapped as long as the store, and offsets are inside it.
unsafe impl Store for TestStore<'_> {
    type Lock = RwLock;

    #[inline]
    fn resolve(&self, pointer: DsaPointer, len: usize) -> Result<NonNull<u8>, Unresolved> {
        let offset = offset_of(pointer, len, self.segment.len()).ok_or(Unresolved::Nowhere)?;
        // SAFETY: inside the segment.
        Ok(unsafe { self.segment.base().add(offset) })
    }

    fn lock_address(&self, pointer: DsaPointer) -> Option<LockAddress> {
        let offset = offset_of(pointer, 1, self.segment.len())?;
        Some(self.segment.lock_address(offset as u64))
    }

    fn id(&self) -> usize {
        self.segment.base().addr().get()
    }
}

/// A simulated process with one thread, and what it needs to open a store. Whatever borrows of it
/// must be gone when it is dropped: that is for each test to see to.
pub(crate) struct Process {
    process: &'static HeapProcess,
    namespace: &'static Namespace<'static>,
    segment: &'static Segment<'static>,
    local: &'static ParticipantLocal,
    pub(crate) heap: &'static TestHeap,
    pool: Pool,
    /// Frees what the references above mean, the last one first.
    owned: RefCell<Vec<Box<dyn FnOnce()>>>,
}

/// A simulated machine and its pool.
pub(crate) struct World {
    machine: HeapMachine,
    segment: Cell<Option<SegmentHandle>>,
    pub(crate) pool: Pool,
    size: usize,
}

/// Lends out a value until the process is dropped.
fn lend<T: 'static>(owned: &mut Vec<Box<dyn FnOnce()>>, value: T) -> &'static T {
    let raw = Box::into_raw(Box::new(value));
    owned.push(Box::new(move || {
        // SAFETY: made above, dropped once, when nothing borrows it any more.
        drop(unsafe { Box::from_raw(raw) });
    }));
    // SAFETY: made above; outlives everything that the test borrows of its process.
    unsafe { &*raw }
}

impl World {
    /// A machine with a pool of 2 MiB.
    pub(crate) fn new() -> Self {
        Self::with_pool(2 << 20)
    }

    pub(crate) fn with_pool(size: usize) -> Self {
        let machine = HeapMachine::new();
        machine.fill_new(0xaa);
        Self { machine, segment: Cell::new(None), pool: Pool::default(), size }
    }

    pub(crate) fn process(&self) -> Process {
        let mut owned = Vec::new();
        let process = lend(&mut owned, self.machine.process());
        let local = lend(&mut owned, process.local());
        let config = NamespaceConfig::default();
        let opened = Namespace::open(process, process.platform(), &config, local);
        let namespace = lend(&mut owned, opened.expect("open").0);
        if self.segment.get().is_none() {
            let segment = namespace.create_segment(self.size, self.size).expect("segment");
            namespace.pin_segment(segment.handle()).expect("pin");
            self.segment.set(Some(segment.handle()));
        }
        let segment =
            self.segment.get().and_then(|handle| namespace.attach_segment(handle).ok()?);
        let segment: &'static Segment<'static> = lend(&mut owned, segment.expect("attach"));
        let (local, heap) = thread_of(namespace, segment, &self.pool, &mut owned);
        let pool = self.pool.clone();
        Process { process, namespace, segment, local, heap, pool, owned: RefCell::new(owned) }
    }

    /// The bytes in which nothing lies.
    pub(crate) fn reserved(&self, process: &Process) -> Vec<u8> {
        let base = process.segment.base();
        // SAFETY: mapped; whatever writes there does so in this thread.
        unsafe { core::slice::from_raw_parts(base.as_ptr(), RESERVED) }.to_vec()
    }

    pub(crate) fn store(&self, process: &Process) -> TestStore<'static> {
        let handle = self.segment.get().expect("a segment");
        let segment = process.namespace.attach_segment(handle).expect("attach").expect("there");
        TestStore { segment }
    }
}

fn thread_of(
    namespace: &'static Namespace<'static>,
    segment: &'static Segment<'static>,
    pool: &Pool,
    owned: &mut Vec<Box<dyn FnOnce()>>,
) -> (&'static ParticipantLocal, &'static TestHeap) {
    let local = lend(owned, ParticipantLocal::new());
    namespace.register(local).expect("register");
    let participant = lend(owned, namespace.participant(local));
    let (base, size, pool) = (segment.base(), segment.len(), pool.clone());
    (local, lend(owned, TestHeap { participant, base, size, pool }))
}

impl Drop for Process {
    fn drop(&mut self) {
        while let Some(free) = self.owned.get_mut().pop() {
            free();
        }
    }
}

impl Process {
    /// Kills it: whatever it still holds does nothing when dropped.
    pub(crate) fn kill(&self) {
        self.process.kill();
        self.local.clear();
    }

    /// Another thread of the process, to be used by the caller.
    pub(crate) fn thread(&self) -> &'static TestHeap {
        let owned = &mut self.owned.borrow_mut();
        thread_of(self.namespace, self.segment, &self.pool, owned).1
    }

    /// Runs `work` until it has passed `steps` steps, and kills the process there. Returns
    /// whether it died; if not, `work` came to its end.
    pub(crate) fn run_until(&self, steps: usize, work: impl FnOnce()) -> bool {
        struct Died;
        LEFT.set(Some(steps));
        let (process, local) = (self.process, self.local);
        DEATH.set(Some(Box::new(move || {
            process.kill();
            local.clear();
            panic_any(Died);
        })));
        let hook = std::panic::take_hook();
        std::panic::set_hook(Box::new(|_| {}));
        let result = catch_unwind(AssertUnwindSafe(work));
        std::panic::set_hook(hook);
        LEFT.set(None);
        match result {
            Ok(()) => false,
            Err(payload) if payload.is::<Died>() => true,
            Err(payload) => std::panic::resume_unwind(payload),
        }
    }
}

std::thread_local! {
    static LEFT: Cell<Option<usize>> = const { Cell::new(None) };
    static DEATH: RefCell<Option<Box<dyn Fn()>>> = const { RefCell::new(None) };
}

/// Counts a step of this thread, which may be its last.
pub(crate) fn passed_step() {
    match LEFT.get() {
        None => {}
        Some(0) => {
            LEFT.set(None);
            if let Some(die) = DEATH.take() {
                die();
            }
        }
        Some(n) => LEFT.set(Some(n - 1)),
    }
}

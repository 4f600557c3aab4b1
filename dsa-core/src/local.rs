//! What a process knows of an area: which segments it has mapped where.
//!
//! [`AreaLocal`] is process memory that the caller supplies (there is no `alloc` here), shared by
//! the threads of the process. Resolving a pointer reads one entry: how far the pointer lies behind
//! the segment's first one must be less than the length. That one compare checks the key too: a
//! pointer of another generation of the same index is at least 2^50 away.
//!
//! An entry changes under a small lock of the process, and readers take none. Of an entry that
//! leaves, the length is cleared first, then the first pointer; of one that comes, the length is
//! written last. A reader looks at the first pointer before the rest and again after it
//! ([`LocalEntry::steadily`], through which all of them go). So it never combines halves of two
//! mappings: if what it read of the base, the handle or the length was stored after the old first
//! pointer had gone, its second look finds that gone (each of them is released and acquired); and
//! behind the new first pointer there are the new base and handle, and a length of zero or the new
//! one. Where no segment is, the length is zero.
//!
//! When a segment is given back, its mapping is replaced in place by private zeros. An optimistic
//! reader, or a checked copy, may be in there for as long as its thread sleeps, so the provider
//! keeps the address range in the name of this table until the area is dropped: readers borrow it.
//!
//! After a fork the child has a copy of this, whose mappings it does not own: it opens the
//! namespace anew, with a new `AreaLocal`.

use core::mem::MaybeUninit;
use core::ptr::NonNull;
use core::time::Duration;

use dsm_core::env::Environment;
use dsm_core::handle::SegmentHandle;
use dsm_core::planted::{Bug, planted};
use dsm_core::provider::RangeOwner;
use dsm_core::segment::RawSegment;
use dsm_core::sync::{AtomicU32, AtomicU64, AtomicUsize, Ordering};

use crate::error::Error;
use crate::memory::Memory;
use crate::pointer::DsaPointer;

/// Rounds of a millisecond that a thread waits for another one that is attaching a segment.
const PATIENCE: u32 = 10_000;

pub(crate) struct LocalEntry {
    /// The pointer to the segment's first byte, which is its key and offset 0; 0 for none.
    first: AtomicU64,
    base: AtomicUsize,
    len: AtomicU64,
    /// 0 for memory in place, which is not ours to detach.
    handle: AtomicU64,
}

impl LocalEntry {
    #[cfg(not(loom))]
    pub(crate) const fn new() -> Self {
        Self {
            first: AtomicU64::new(0),
            base: AtomicUsize::new(0),
            len: AtomicU64::new(0),
            handle: AtomicU64::new(0),
        }
    }

    #[cfg(loom)]
    pub(crate) fn new() -> Self {
        Self {
            first: AtomicU64::new(0),
            base: AtomicUsize::new(0),
            len: AtomicU64::new(0),
            handle: AtomicU64::new(0),
        }
    }

    /// What `read` makes of the entry, whose first pointer it is told; `None` if that was another
    /// one afterwards.
    #[inline(always)]
    fn steadily<T>(&self, read: impl FnOnce(u64) -> Option<T>) -> Option<T> {
        let first = self.first.load(Ordering::Acquire);
        let read = read(first)?;
        let still = self.first.load(Ordering::Relaxed) == first || planted(Bug::EntryUnlooked);
        still.then_some(read)
    }

    /// Where the segment is mapped whose first pointer is `first`: (first byte, length).
    #[inline(always)]
    pub(crate) fn find(&self, first: u64) -> Option<(usize, u64)> {
        self.steadily(|now| {
            if now != first {
                return None;
            }
            let base = self.base.load(Ordering::Acquire);
            let len = self.len.load(Ordering::Acquire);
            (len != 0).then_some((base, len))
        })
    }

    /// The pointer to an address, if it lies in the segment.
    pub(crate) fn reverse(&self, address: usize) -> Option<DsaPointer> {
        self.steadily(|first| {
            let base = self.base.load(Ordering::Acquire);
            let len = self.len.load(Ordering::Acquire);
            let offset = address.checked_sub(base)? as u64;
            let first = DsaPointer::from_raw(first);
            (first.is_valid() && offset < len).then(|| DsaPointer::compose(first.key(), offset))
        })
    }

    /// The handle of the segment whose first pointer is `first`.
    pub(crate) fn handle(&self, first: u64) -> Option<u64> {
        self.steadily(|now| (now == first).then(|| self.handle.load(Ordering::Acquire)))
    }

    /// Enters a mapping. The table is locked, and the entry empty.
    pub(crate) fn fill(&self, first: DsaPointer, base: usize, len: u64, handle: u64) {
        self.base.store(base, Ordering::Release);
        self.handle.store(handle, Ordering::Release);
        self.first.store(first.raw(), Ordering::Release);
        self.len.store(len, Ordering::Release);
    }

    /// Takes the mapping out: its length, and whether there was one. The table is locked.
    pub(crate) fn empty(&self) -> (u64, bool) {
        let len = self.len.swap(0, Ordering::AcqRel);
        (len, self.first.swap(0, Ordering::AcqRel) != 0)
    }
}

/// A process's table of an area's segments; see the module's essay. About 36 KiB, zero at first.
pub struct AreaLocal {
    entries: [LocalEntry; DsaPointer::MAX_SEGMENTS],
    /// 1 while a thread changes entries.
    lock: AtomicU32,
    /// Moves when it has. What others sleep on: the environment, which is not trusted with the
    /// lock, gets a reference to it.
    changes: AtomicU32,
    /// Entries below this may be in use.
    pub(crate) high: AtomicUsize,
    /// The area's `retired` when the table was last compared with the directory.
    pub(crate) seen: AtomicU64,
    /// When the process may look again for what others left, by its clock, in nanoseconds; 0 for at
    /// once. See `area::runs`.
    pub(crate) next_look: AtomicU64,
    /// 1 while an `Area` uses this.
    taken: AtomicU32,
}

impl AreaLocal {
    /// An empty table.
    #[must_use]
    #[cfg(not(loom))]
    pub const fn new() -> Self {
        Self {
            entries: [const { LocalEntry::new() }; DsaPointer::MAX_SEGMENTS],
            lock: AtomicU32::new(0),
            changes: AtomicU32::new(0),
            high: AtomicUsize::new(0),
            seen: AtomicU64::new(0),
            next_look: AtomicU64::new(0),
            taken: AtomicU32::new(0),
        }
    }

    /// An empty table.
    #[must_use]
    #[cfg(loom)]
    pub fn new() -> Self {
        Self {
            entries: core::array::from_fn(|_| LocalEntry::new()),
            lock: AtomicU32::new(0),
            changes: AtomicU32::new(0),
            high: AtomicUsize::new(0),
            seen: AtomicU64::new(0),
            next_look: AtomicU64::new(0),
            taken: AtomicU32::new(0),
        }
    }

    /// Builds an empty table in place: for tables too large for a stack.
    pub fn init(place: &mut MaybeUninit<Self>) -> &mut Self {
        place.write(Self::new())
    }

    /// In whose name address ranges of retired segments are kept.
    pub(crate) fn owner(&self) -> RangeOwner {
        RangeOwner::of(self)
    }

    /// Reserves the table for one `Area`; false if it has one.
    pub(crate) fn take(&self) -> bool {
        self.taken.compare_exchange(0, 1, Ordering::AcqRel, Ordering::Relaxed).is_ok()
    }

    pub(crate) fn give_back(&self) {
        self.high.store(0, Ordering::Relaxed);
        self.seen.store(0, Ordering::Relaxed);
        self.next_look.store(0, Ordering::Relaxed);
        self.taken.store(0, Ordering::Release);
    }

    /// Where the segment of `pointer` is mapped: (first byte, length).
    #[inline(always)]
    pub(crate) fn find(&self, pointer: DsaPointer) -> Option<(NonNull<u8>, u64)> {
        let (base, len) = self.entries[pointer.segment()].find(pointer.first().raw())?;
        NonNull::new(core::ptr::with_exposed_provenance_mut(base)).map(|base| (base, len))
    }

    /// The address of `bytes` bytes (at least one) at `pointer`, if their segment is mapped and has
    /// so many.
    #[inline(always)]
    pub(crate) fn address(&self, pointer: DsaPointer, bytes: usize) -> Option<NonNull<u8>> {
        let entry = &self.entries[pointer.segment()];
        let at = entry.steadily(|first| {
            // 2^50 and more for another key: their difference is a multiple of that, for the index
            // is the same.
            let offset = pointer.raw().wrapping_sub(first);
            let len = entry.len.load(Ordering::Acquire);
            // Not zero bytes: those would be found where nothing is. The last one's offset is past
            // 2^64 only where nothing is, in whose length of zero no offset lies.
            let more = (bytes as u64).wrapping_sub(1);
            if more >= DsaPointer::MAX_OFFSET || offset.wrapping_add(more) >= len {
                return None;
            }
            Some((entry.base.load(Ordering::Acquire), offset))
        });
        let (base, offset) = at?;
        let at = core::ptr::with_exposed_provenance_mut::<u8>(base + offset as usize);
        // SAFETY: there is a segment, for its length is not zero, and this is inside its mapping.
        unsafe { core::hint::assert_unchecked(!at.is_null()) };
        NonNull::new(at)
    }

    /// The mapping of a key, as memory.
    #[inline]
    pub(crate) fn memory(&self, key: u32) -> Option<Memory<'_>> {
        let (base, len) = self.find(DsaPointer::compose(key, 0))?;
        // SAFETY: an entry is filled in with a mapping that stays (if only as zeros) until the
        // area that borrows this table is dropped.
        Some(unsafe { Memory::new(base, len) })
    }

    /// Handle of the segment of `pointer`, if it is mapped; 0 for memory in place.
    pub(crate) fn handle(&self, pointer: DsaPointer) -> Option<u64> {
        self.entries[pointer.segment()].handle(pointer.first().raw())
    }

    /// The pointer to an address, if it lies in a mapped segment.
    pub(crate) fn reverse(&self, address: usize) -> Option<DsaPointer> {
        let used = &self.entries[..self.high.load(Ordering::Acquire)];
        used.iter().find_map(|entry| entry.reverse(address))
    }

    /// The key that is mapped for a segment index; 0 for none.
    pub(crate) fn key(&self, index: usize) -> u32 {
        DsaPointer::from_raw(self.entries[index].first.load(Ordering::Acquire)).key()
    }

    /// Locks the table against other threads of the process.
    pub(crate) fn lock<'l>(&'l self, env: &'l dyn Environment) -> Result<LocalGuard<'l>, Error> {
        for _ in 0..PATIENCE {
            let seen = self.changes.load(Ordering::Acquire);
            if let Some(guard) = self.try_lock(env) {
                return Ok(guard);
            }
            env.wait(&self.changes, seen, Duration::from_millis(1));
        }
        self.try_lock(env).ok_or(Error::Busy)
    }

    /// The same, if nobody has it.
    pub(crate) fn try_lock<'l>(&'l self, env: &'l dyn Environment) -> Option<LocalGuard<'l>> {
        let won = self.lock.compare_exchange(0, 1, Ordering::Acquire, Ordering::Relaxed).is_ok();
        won.then(|| LocalGuard { local: self, env })
    }
}

impl Default for AreaLocal {
    fn default() -> Self {
        Self::new()
    }
}

/// The right to change the table.
pub(crate) struct LocalGuard<'l> {
    local: &'l AreaLocal,
    env: &'l dyn Environment,
}

impl LocalGuard<'_> {
    /// Enters a mapping; `handle` is 0 for memory in place. The index's entry must be empty.
    pub(crate) fn insert(&self, key: u32, base: NonNull<u8>, len: u64, handle: u64) {
        let index = key as usize & (DsaPointer::MAX_SEGMENTS - 1);
        let base = base.as_ptr().expose_provenance();
        self.local.entries[index].fill(DsaPointer::compose(key, 0), base, len, handle);
        let high = self.local.high.load(Ordering::Relaxed).max(index + 1);
        self.local.high.store(high, Ordering::Release);
    }

    /// Takes a mapping out; `None` if there is none, or it is not ours to detach.
    pub(crate) fn remove(&self, index: usize) -> Option<RawSegment> {
        let entry = &self.local.entries[index];
        let (len, true) = entry.empty() else { return None };
        let base = core::ptr::with_exposed_provenance_mut(entry.base.load(Ordering::Relaxed));
        Some(RawSegment {
            handle: SegmentHandle::from_raw(entry.handle.load(Ordering::Relaxed))?,
            base: NonNull::new(base)?,
            len: len as usize,
        })
    }
}

impl Drop for LocalGuard<'_> {
    fn drop(&mut self) {
        self.local.lock.store(0, Ordering::Release);
        self.local.changes.fetch_add(1, Ordering::Release);
        self.env.wake_all(&self.local.changes);
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    #[cfg(any(unix, windows))]
    fn a_wait_cannot_unlock() {
        use testkit::environment::{Hooks, Wrapped};

        /// Stores into whatever it is given to wait on.
        struct Scribbler;

        impl Hooks for Scribbler {
            fn wait(&self, _: &dyn Environment, word: &AtomicU32, _: u32, _: Duration) {
                word.store(0, Ordering::SeqCst);
            }
        }

        let machine = sim::HeapMachine::new();
        let process = machine.process();
        let env = Wrapped::new(&process, Scribbler);
        let local = AreaLocal::new();
        let guard = local.lock(&env).expect("nobody has it");
        assert!(matches!(local.lock(&env), Err(Error::Busy)));
        drop(guard);
        drop(local.lock(&env).expect("it was given back"));
    }

    #[test]
    fn keys_are_compared_whole() {
        let local = AreaLocal::new();
        let memory = [0u64; 8];
        let base = NonNull::from(&memory).cast::<u8>();
        let entry = &local.entries[5];
        entry.base.store(base.as_ptr() as *const u8 as usize, Ordering::Relaxed);
        entry.len.store(64, Ordering::Relaxed);
        let at =
            |generation, offset| DsaPointer::compose(DsaPointer::key_of(5, generation), offset);
        entry.first.store(at(9, 0).raw(), Ordering::Relaxed);
        local.high.store(6, Ordering::Relaxed);
        assert_eq!(local.find(at(9, 8)), Some((base, 64)));
        for other in [0, 1, 8, 10, DsaPointer::MAX_GENERATION] {
            for offset in [0, 8, 63, DsaPointer::MAX_OFFSET - 1] {
                assert_eq!(local.find(at(other, offset)), None);
                for bytes in [0usize, 1, 64, DsaPointer::MAX_OFFSET as usize, usize::MAX] {
                    assert_eq!(local.address(at(other, offset), bytes), None);
                }
            }
        }
        // Where nothing is, at the end of what a pointer can say.
        for raw in [u64::MAX, u64::MAX - 7] {
            for bytes in [0usize, 1, 8, 9, DsaPointer::MAX_OFFSET as usize, usize::MAX] {
                assert_eq!(local.address(DsaPointer::from_raw(raw), bytes), None);
            }
        }
        assert_eq!(local.find(DsaPointer::INVALID), None);
        assert_eq!(local.address(DsaPointer::INVALID, 8), None);
        assert_eq!(local.reverse(base.as_ptr() as usize + 8), Some(at(9, 8)));
        assert_eq!(local.reverse(base.as_ptr() as usize + 64), None);
    }

    #[test]
    fn addresses_are_of_whole_ranges() {
        let local = AreaLocal::new();
        let memory = [0u64; 8];
        let base = NonNull::from(&memory).cast::<u8>();
        let entry = &local.entries[0];
        entry.base.store(base.as_ptr() as *const u8 as usize, Ordering::Relaxed);
        entry.len.store(64, Ordering::Relaxed);
        let at = |offset| DsaPointer::compose(DsaPointer::key_of(0, 1), offset);
        entry.first.store(at(0).raw(), Ordering::Relaxed);
        // SAFETY: all in the array, or at its end.
        let there = |offset| Some(unsafe { base.add(offset) });
        assert_eq!(local.address(at(0), 64), there(0));
        assert_eq!(local.address(at(8), 56), there(8));
        assert_eq!(local.address(at(8), 57), None);
        assert_eq!(local.address(at(63), 1), there(63));
        assert_eq!(local.address(at(64), 1), None);
        assert_eq!(local.address(at(64), 0), None);
        assert_eq!(local.address(DsaPointer::INVALID, 0), None);
        assert_eq!(local.address(at(8), usize::MAX), None);
        assert_eq!(local.address(at(8), usize::MAX - 7), None);
        assert_eq!(local.address(at(DsaPointer::MAX_OFFSET), 1), None);
    }
}

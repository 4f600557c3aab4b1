//! Memory for entries.
//!
//! The first entries of a partition are part of the table: 16, or as many as fit into 1.5 KiB. A
//! small table gets along with them, without any allocation. Further entries lie in chunks that
//! belong to the partition, the newest first in a list. Each doubles what the partition has, up to
//! 64 KiB: small tables stay small, and an allocation of the area is rare in large ones. First
//! entries and chunks are cut up as needed (`fresh`), so that adding a chunk touches only its head,
//! and creating a table none of its entries; entries that were deleted come back through the free
//! list, the last one first, while it is still cached.
//!
//! Free list, `fresh` and the entry's `LIVE` bit are an index: the truth about an entry is whether
//! a bucket refers to it. They agree whenever no operation is under way, since recovery completes
//! the one that was.
//!
//! Entries never move, so a chunk is given back when all its entries are free. When a partition's
//! last entry goes, that holds for all of them and they are freed at once, but for the oldest one
//! of a partition without first entries: somebody who inserts one entry and deletes it, over and
//! over, should not allocate each time. In between only [`Partition::sweep`], which looks at every
//! entry, finds out. Counting by chunk instead would touch a line more in every insertion and
//! deletion, to return memory in the rare case that a whole chunk is free though the partition is
//! not.

use core::mem::size_of;

use dsm_core::sync::Ordering;

use crate::error::Error;
use crate::follow::{Anywhere, Astray, Follow};
use crate::layout::{Chunk, LIVE, OP_REBUILD, UNIT, op_word};
use crate::partition::Partition;
use crate::store::Store;
use crate::view::{Core, Entry};
use crate::words::{Fresh, reference};

/// Bytes of the first chunk of a partition without first entries.
const FIRST_CHUNK: usize = 512;
/// Bytes of the largest: a multiple of pages, and small beside any table that has several.
const LARGEST_CHUNK: usize = 64 << 10;

impl<S: Store> Core<S> {
    /// The head of the chunk at a pointer.
    pub(crate) fn chunk(&self, pointer: u64) -> Result<&Chunk, Error> {
        let at = Anywhere::resolve(&self.store, pointer, size_of::<Chunk>(), Astray::Chunk)?;
        // SAFETY: readable, aligned to 16, all atomics.
        Ok(unsafe { at.cast().as_ref() })
    }

    /// The head of the chunk that a reference means.
    pub(crate) fn chunk_at(&self, chunk: u32) -> Result<&Chunk, Error> {
        self.chunk(self.header().pointer(chunk))
    }

    /// Bytes of a chunk of that many entries.
    pub(crate) fn chunk_bytes(&self, capacity: usize) -> usize {
        size_of::<Chunk>() + capacity * self.stride()
    }
}

impl<S: Store> Partition<'_, S> {
    /// Whether an entry can be taken.
    #[inline(always)]
    pub(crate) fn has_entry(&self) -> bool {
        let line = self.line();
        line.free.load(Ordering::Relaxed) != 0 || Fresh::load(&line.fresh).count() != 0
    }

    /// Makes sure that an entry can be taken.
    pub(crate) fn reserve_entry(&self) -> Result<(), Error> {
        if self.has_entry() { Ok(()) } else { self.grow_entries() }
    }

    fn grow_entries(&self) -> Result<(), Error> {
        let newest = self.line().chunks.load(Ordering::Relaxed);
        let bytes = if newest == 0 {
            (self.core.shape.entries_stride + 1).next_power_of_two().max(FIRST_CHUNK)
        } else {
            let chunk = self.core.chunk(self.core.header().pointer(newest))?;
            let capacity = chunk.capacity.load(Ordering::Relaxed) as usize;
            let bytes = self.core.chunk_bytes(capacity).next_power_of_two();
            (2 * bytes).min(LARGEST_CHUNK)
        };
        let capacity = ((bytes - size_of::<Chunk>()) / self.core.stride()).max(1);
        let pointer = self.make(0, self.core.chunk_bytes(capacity), UNIT)?;
        let chunk = self.core.chunk(pointer)?;
        chunk.next.store(newest, Ordering::Relaxed);
        chunk.capacity.store(capacity as u32, Ordering::Relaxed);
        let first = reference(pointer + size_of::<Chunk>() as u64);
        self.add_chunk(reference(pointer), Fresh::new(first, capacity as u32))
    }

    /// Calls `visit` with each entry of a chunk.
    pub(crate) fn each_entry(
        &self,
        chunk: u32,
        mut visit: impl FnMut(u32, Entry<'_>),
    ) -> Result<(), Error> {
        let capacity = self.core.chunk_at(chunk)?.capacity.load(Ordering::Relaxed);
        self.each_of(chunk + (size_of::<Chunk>() / UNIT) as u32, capacity, &mut visit)
    }

    /// Calls `visit` with each entry of the partition.
    pub(crate) fn every_entry(&self, mut visit: impl FnMut(u32, Entry<'_>)) -> Result<(), Error> {
        let shape = &self.core.shape;
        let first = self.core.pointer + shape.first_entry(self.partition()) as u64;
        self.each_of(reference(first), shape.first_entries as u32, &mut visit)?;
        let mut chunk = self.line().chunks.load(Ordering::Relaxed);
        while chunk != 0 {
            self.each_entry(chunk, &mut visit)?;
            chunk = self.core.chunk_at(chunk)?.next.load(Ordering::Relaxed);
        }
        Ok(())
    }

    /// Calls `visit` with each of `count` entries that lie side by side.
    fn each_of(
        &self,
        first: u32,
        count: u32,
        visit: &mut impl FnMut(u32, Entry<'_>),
    ) -> Result<(), Error> {
        let units = (self.core.stride() / UNIT) as u32;
        for i in 0..count {
            let reference = first + i * units;
            visit(reference, self.core.entry(reference)?);
        }
        Ok(())
    }

    /// Frees all chunks, or all but the oldest of a partition without first entries, once no entry
    /// is left.
    pub(crate) fn drain(&self) -> Result<(), Error> {
        let is_last = |chunk: u32| -> Result<bool, Error> {
            Ok(chunk == 0
                || self.core.shape.first_entries == 0
                    && self.core.chunk_at(chunk)?.next.load(Ordering::Relaxed) == 0)
        };
        let mut chunk = self.line().chunks.load(Ordering::Relaxed);
        if is_last(chunk)? {
            return Ok(());
        }
        self.begin_rebuild()?;
        while !is_last(chunk)? {
            let next = self.core.chunk_at(chunk)?.next.load(Ordering::Relaxed);
            self.drop_chunk(0, self.core.header().pointer(chunk), next)?;
            chunk = next;
        }
        self.rebuild()
    }

    /// Frees the chunk that `drain` left, if any. No entry may be live.
    pub(crate) fn release_last_chunk(&self) -> Result<(), Error> {
        let chunk = self.line().chunks.load(Ordering::Relaxed);
        if chunk == 0 {
            return Ok(());
        }
        self.begin_rebuild()?;
        self.drop_chunk(0, self.core.header().pointer(chunk), 0)?;
        self.rebuild()
    }

    /// Frees every chunk without a live entry.
    pub(crate) fn sweep(&self) -> Result<(), Error> {
        self.begin_rebuild()?;
        let (mut before, mut chunk) = (0, self.line().chunks.load(Ordering::Relaxed));
        while chunk != 0 {
            let pointer = self.core.header().pointer(chunk);
            let next = self.core.chunk(pointer)?.next.load(Ordering::Relaxed);
            let mut live = false;
            self.each_entry(chunk, |_, entry| {
                live |= entry.word().load(Ordering::Relaxed) & LIVE != 0;
            })?;
            if live {
                before = pointer;
            } else {
                self.drop_chunk(before, pointer, next)?;
            }
            chunk = next;
        }
        self.rebuild()
    }

    /// Records that the free list is about to be rebuilt: from here on only `LIVE` counts.
    fn begin_rebuild(&self) -> Result<(), Error> {
        // Entries that were never used hold arbitrary bytes.
        let fresh = Fresh::load(&self.line().fresh);
        self.each_of(fresh.first(), fresh.count(), &mut |_, entry| {
            entry.word().store(0, Ordering::Relaxed);
        })?;
        self.set_op(op_word(OP_REBUILD, 0));
        Ok(())
    }

    /// Rebuilds the free list of all entries that are not live, and ends what `begin_rebuild`
    /// began.
    pub(crate) fn rebuild(&self) -> Result<(), Error> {
        Fresh::NONE.store(&self.line().fresh);
        self.line().free.store(0, Ordering::Relaxed);
        self.every_entry(|reference, entry| {
            if entry.word().load(Ordering::Relaxed) & LIVE == 0 {
                self.push_free(reference, entry);
            }
        })?;
        self.set_op(0);
        Ok(())
    }
}

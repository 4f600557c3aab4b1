//! Creating and destroying a table.
//!
//! A new table is one allocation: header, partitions, their records, first segments and first
//! entries. So there is no second allocation that could fail and leave the first behind; everything
//! else is allocated by insertions that need more. The memory is arbitrary when it is handed out,
//! so every word is written, but for the entries: those are written when they are first used. While
//! that is done the allocation is *unpublished*: it goes with a creator who is killed. Then it is
//! stored in the word that the creator gave (`create_into`), with no gap between; without such a
//! word it is settled, and the caller's until he has stored the handle.
//!
//! Destruction empties partition by partition, each under its lock and each step recorded, and
//! frees the table itself last, together with the word that names it (`destroy_from`). Killed in
//! between it leaves that word and a table with fewer entries, or one that is marked as destroyed
//! and is an allocation to be freed from its word, no more.

use core::mem::size_of;
use core::ptr::NonNull;

use dsa_core::{AtomicDsaPointer, DsaPointer};
use dsm_core::lock::RawLock;
use dsm_core::sync::{AtomicU16, AtomicU32, AtomicU64, Ordering};

use crate::error::{Error, MemoryError};
use crate::kind::Kind;
use crate::layout::{
    Bucket, FIRST_BUCKETS, Header, INLINE_DIRECTORY, LAYOUT_VERSION, Line, MAGIC, MAX_PARTITIONS,
    Record, SLOTS, STATE_GONE, STATE_READY, Shape,
};
use crate::partition::Caller;
use crate::step::step;
use crate::store::Store;
use crate::view::Core;
use crate::words::{Fresh, directory_word, expressible, reference, segment_word};

// Not constants: a model's atomics are made at run time.
fn words32<const N: usize>() -> [AtomicU32; N] {
    core::array::from_fn(|_| AtomicU32::new(0))
}

fn words64<const N: usize>() -> [AtomicU64; N] {
    core::array::from_fn(|_| AtomicU64::new(0))
}

/// Writes `value` at `offset`.
///
/// # Safety
///
/// Room for an aligned `T` there, that nobody else uses.
unsafe fn put<T>(base: NonNull<u8>, offset: usize, value: T) {
    // SAFETY: inside the allocation, by the caller's promise.
    let at = unsafe { base.add(offset) };
    // SAFETY: as above, aligned.
    unsafe { at.cast::<T>().write(value) };
}

impl<S: Store> Core<S> {
    /// Creates a table with `partitions` partitions, and stores its pointer in `destination`.
    pub(crate) fn create(
        store: S,
        caller: Caller<'_>,
        kind: Kind,
        partitions: u32,
        destination: Option<&AtomicDsaPointer>,
    ) -> Result<Self, Error> {
        kind.check()?;
        if !partitions.is_power_of_two() || partitions > MAX_PARTITIONS {
            return Err(Error::Partitions(partitions));
        }
        let heap = caller.heap;
        let lock_size = S::Lock::size_for(caller.participant.peers().max_participants());
        let shape = Shape::new(partitions, lock_size, kind.stride());
        let allocated = heap.allocate_unpublished(shape.total, align_of::<Record>())?;
        let built = Self::build(store, caller, kind, &shape, allocated).and_then(|core| {
            match destination {
                Some(destination) => heap.publish(allocated, destination)?,
                None => heap.settle(allocated),
            }
            Ok(core)
        });
        if built.is_err() {
            // SAFETY: just allocated, known to nobody.
            unsafe { heap.free(allocated) };
        }
        built
    }

    /// Builds a table in new memory.
    fn build(
        store: S,
        caller: Caller<'_>,
        kind: Kind,
        shape: &Shape,
        allocated: DsaPointer,
    ) -> Result<Self, Error> {
        let peers = caller.participant.peers();
        let participants = peers.max_participants();
        let pointer = allocated.raw();
        let lost = Error::Corrupt("memory that was allocated just now");
        let base = store
            .resolve(allocated, shape.total)
            .map_err(|unresolved| unresolved.instead_of(lost))?;
        if !expressible(pointer, shape.total) {
            return Err(MemoryError::SegmentTooLarge.into());
        }
        let header = Header {
            magic: AtomicU64::new(MAGIC),
            state: AtomicU32::new(STATE_READY),
            version: AtomicU32::new(LAYOUT_VERSION),
            key_size: AtomicU32::new(kind.key_size as u32),
            entry_size: AtomicU32::new(kind.entry_size as u32),
            align: AtomicU32::new(kind.align as u32),
            partitions: AtomicU32::new(shape.partitions as u32),
            hash_identity: AtomicU64::new(kind.hash_identity),
            type_tag: AtomicU64::new(kind.type_tag),
            seed: AtomicU64::new(peers.env().next_u64()),
            lock_kind: AtomicU64::new(S::Lock::IDENTITY),
            lock_size: AtomicU32::new(S::Lock::size_for(participants) as u32),
            _reserved: words32(),
            generations: core::array::from_fn(|_| AtomicU16::new(0)),
        };
        // SAFETY: the first part of the allocation.
        unsafe { put(base, 0, header) };
        for partition in 0..shape.partitions {
            // SAFETY: an offset inside the allocation.
            let lock = unsafe { base.add(shape.lock(partition)) };
            // SAFETY: room for a lock of that many participants, unused, aligned to a line.
            unsafe { S::Lock::init(lock.cast(), participants) };
            let segment = pointer + shape.first_segment(partition) as u64;
            let inline = pointer + (shape.line(partition) + INLINE_DIRECTORY) as u64;
            let word = segment_word(segment, FIRST_BUCKETS, 0);
            let entries = reference(pointer + shape.first_entry(partition) as u64);
            let line = Line {
                seq: crate::sequence::Sequence::new(),
                directory: AtomicU64::new(directory_word(inline, 0)),
                count: AtomicU32::new(0),
                slots: AtomicU32::new((FIRST_BUCKETS * SLOTS) as u32),
                fresh: AtomicU64::new(Fresh::new(entries, shape.first_entries as u32).word()),
                free: AtomicU32::new(0),
                overflow: AtomicU32::new(0),
                chunks: AtomicU32::new(0),
                _reserved: AtomicU32::new(0),
                inline: [AtomicU64::new(word), AtomicU64::new(word)],
            };
            // SAFETY: the partition's line.
            unsafe { put(base, shape.line(partition), line) };
            let record = Record {
                op: AtomicU64::new(0),
                place: AtomicU64::new(0),
                count: AtomicU64::new(0),
                _reserved: words64(),
                change: AtomicU64::new(0),
                made: [AtomicDsaPointer::default(), AtomicDsaPointer::default()],
                old: [AtomicDsaPointer::default(), AtomicDsaPointer::default()],
                target: AtomicU64::new(0),
                words: words64(),
            };
            // SAFETY: the partition's record.
            unsafe { put(base, shape.record(partition), record) };
            for i in 0..FIRST_BUCKETS {
                let bucket = Bucket { tags: words64(), refs: words32() };
                let offset = shape.first_segment(partition) + i * size_of::<Bucket>();
                // SAFETY: one of the partition's first buckets.
                unsafe { put(base, offset, bucket) };
            }
        }
        // SAFETY: a table was just built there.
        let core = unsafe { Self::attach(store, pointer, kind) }?;
        core.header().note_generation(pointer);
        Ok(core)
    }

    /// Makes zeros of a lock, which are none of any kind. The record of a participant that was
    /// killed between letting go of the lock and clearing the record outlives it, and whoever
    /// sweeps him must not take what this memory is used for next for the lock.
    fn wipe_lock(&self, partition: usize) {
        let lock = self.lock_at(partition).cast::<core::sync::atomic::AtomicU64>();
        for word in 0..self.shape.lock_size / 8 {
            // SAFETY: inside the lock's part of the table, whose length is a multiple of 64.
            let at = unsafe { lock.add(word) };
            // SAFETY: as above, and aligned; atomics all of it, which only a sweep may look at now.
            unsafe { at.as_ref() }.store(0, Ordering::Relaxed);
        }
    }

    /// Frees the table and everything in it, and clears `destination`, if there is one, which
    /// names it.
    ///
    /// # Safety
    ///
    /// Nobody may use the table any more, in any process, nor `destination` for something else.
    pub(crate) unsafe fn destroy(
        self,
        caller: Caller<'_>,
        destination: Option<&AtomicDsaPointer>,
    ) -> Result<(), Error> {
        if destination.is_some_and(|word| word.load(Ordering::Acquire).raw() != self.pointer) {
            return Err(Error::NotATable);
        }
        for partition in 0..self.shape.partitions {
            let mut locked = self.exclusive(caller, partition)?;
            locked.clear()?;
            locked.release_last_chunk()?;
            locked.end();
        }
        self.header().state.store(STATE_GONE, Ordering::Release);
        step();
        for partition in 0..self.shape.partitions {
            self.wipe_lock(partition);
        }
        match destination {
            // SAFETY: the caller's promise; nothing but the table's own memory is left.
            Some(destination) => unsafe { caller.heap.free_from(destination) }?,
            // SAFETY: as above.
            None => unsafe { caller.heap.free(DsaPointer::from_raw(self.pointer)) },
        }
        Ok(())
    }
}

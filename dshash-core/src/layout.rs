//! What a table looks like in shared memory.
//!
//! ```text
//! one allocation of the area, made by `create`:
//!   Header                     parameters, checked by everybody who attaches; generations of
//!                              the area's segments that hold memory of this table
//!   [ lock | Line ] x n        partition i: its lock, and its hot words
//!   [ Record ] x n             what the lock's holder is doing: read after its death only
//!   [ Bucket x 4 ] x n         the first index segment of each partition
//!   [ entry x m ] x n          the first entries of each partition, at a fixed stride
//! further allocations:
//!   index segment              4 to 64 buckets, a power of two
//!   directory                  2^depth words, each an index segment
//!   overflow bucket            one line, for entries that find no room in their segment
//!   chunk                      Chunk, then entries at a fixed stride
//! ```
//!
//! A *hash* is 64 bits. Its upper half is kept in the entry and decides everything that moves:
//! the top bits pick the partition, the next `depth` bits the directory word, the low six of the
//! half the bucket in the segment. The lowest byte of the lower half is the tag, which moves along
//! with its reference. So a split needs neither the key nor the hash function, and the four
//! choices are independent.
//!
//! # Ground truth
//!
//! An entry is in the table if and only if a bucket holds its *reference*: one 32-bit store
//! publishes it, one removes it. Everything else is an index: tags, `passed` counts, entry counts
//! and free lists are put right by whoever takes a lock over from the dead, from the record of
//! what the dead was doing (see `recover`). Structural memory is reached through single words
//! too: a directory word, the partition's directory, its overflow and chunk heads.
//!
//! # Who may write
//!
//! Everything of a partition is written under its exclusive lock, with `seq` odd while a reader
//! that takes no lock could be misled. Readers that take no lock read words with relaxed loads,
//! check every offset they follow, and believe nothing until `seq` has the value it had before.

use core::mem::size_of;

use dsa_core::{AtomicDsaPointer, DsaPointer};
use dsm_core::sync::{AtomicU16, AtomicU32, AtomicU64, Ordering};

use crate::sequence::Sequence;
use crate::words::{GENERATION_SHIFT, OFFSET_BITS, SEGMENT_SHIFT, SEGMENTS};

/// `"dshash\0\x01"`, little-endian.
pub(crate) const MAGIC: u64 = u64::from_le_bytes(*b"dshash\0\x01");
/// Of everything here and in `words`.
pub(crate) const LAYOUT_VERSION: u32 = 3;
/// What the word after the magic says while the table exists.
pub(crate) const STATE_READY: u32 = 0x7265_6164;
/// And after `destroy`.
pub(crate) const STATE_GONE: u32 = 0x676f_6e65;

/// Buckets in a partition's first segment.
pub(crate) const FIRST_BUCKETS: usize = 4;
/// Buckets in the largest segment: 4 KiB, the most that an insert ever moves. Longer ones would
/// fill better and split slower.
///
/// Fewer with `--cfg dsm_small_segments`: then there are few enough images of two deaths amid a
/// split to try them all.
pub(crate) const MAX_BUCKETS: usize = if cfg!(dsm_small_segments) { 8 } else { 64 };
/// Entries of a bucket.
pub(crate) const SLOTS: usize = 12;
/// Buckets in which an entry may lie, from its home on. Longer would fill segments better, but a
/// lookup may have to visit all of them.
pub(crate) const WINDOW: usize = 4;
/// Entries of a partition that are part of the table, as long as they fit into [`FIRST_BYTES`]: a
/// table of a thousand entries needs hardly any others.
pub(crate) const FIRST_ENTRIES: usize = 16;
/// Most bytes of a partition's first entries, all of which an empty table has.
pub(crate) const FIRST_BYTES: usize = 1536;
/// Most partitions of a table.
pub const MAX_PARTITIONS: u32 = 1024;
/// Most bits of the hash that pick a directory word: with 6 for the bucket and up to 10 for the
/// partition they exhaust the 32 bits that an entry keeps.
pub(crate) const MAX_DEPTH: u32 = 16;
/// Bytes of an entry before its key: hash and state.
pub(crate) const ENTRY_HEADER: usize = 8;
/// Largest alignment of an entry, and the unit of references.
pub(crate) const UNIT: usize = 16;

/// State bits of an entry, in the upper half of its header.
pub(crate) const LIVE: u64 = 1 << 63;
/// Its value was being changed by somebody who died.
pub(crate) const POISON: u64 = 1 << 62;
/// Seen by a walk in progress.
pub(crate) const MARK: u64 = 1 << 61;

/// Parameters of a table and what its references need. Written by the creator before anybody
/// knows the table, read-only afterwards but for `state` and `generations`.
#[repr(C, align(64))]
pub(crate) struct Header {
    pub(crate) magic: AtomicU64,
    pub(crate) state: AtomicU32,
    pub(crate) version: AtomicU32,
    pub(crate) key_size: AtomicU32,
    pub(crate) entry_size: AtomicU32,
    pub(crate) align: AtomicU32,
    pub(crate) partitions: AtomicU32,
    pub(crate) hash_identity: AtomicU64,
    pub(crate) type_tag: AtomicU64,
    pub(crate) seed: AtomicU64,
    /// `RawLock::IDENTITY` of the locks.
    pub(crate) lock_kind: AtomicU64,
    /// Bytes of a lock in this namespace.
    pub(crate) lock_size: AtomicU32,
    pub(crate) _reserved: [AtomicU32; 15],
    /// Generation of each segment of the area that this table has memory in.
    pub(crate) generations: [AtomicU16; SEGMENTS],
}

impl Header {
    /// The full pointer of a reference. Any reference gives a pointer; whether it leads anywhere
    /// is for the area to say.
    #[inline]
    pub(crate) fn pointer(&self, reference: u32) -> u64 {
        let segment = (reference >> (OFFSET_BITS - 4)) as usize;
        let generation = self.generations[segment & (SEGMENTS - 1)].load(Ordering::Relaxed);
        u64::from(generation) << GENERATION_SHIFT
            | (segment as u64) << SEGMENT_SHIFT
            | u64::from(reference & ((1 << (OFFSET_BITS - 4)) - 1)) << 4
    }

    /// Notes the generation of the segment that new memory lies in, before the first reference
    /// to it is stored.
    pub(crate) fn note_generation(&self, pointer: u64) {
        let segment = (pointer >> SEGMENT_SHIFT) as usize & (SEGMENTS - 1);
        self.generations[segment].store((pointer >> GENERATION_SHIFT) as u16, Ordering::Relaxed);
    }
}

/// The hot words of a partition.
#[repr(C, align(64))]
pub(crate) struct Line {
    /// Odd while a holder of the exclusive lock changes what lock-free readers look at.
    pub(crate) seq: Sequence,
    /// [`directory_word`]; at first it leads to `inline` below.
    pub(crate) directory: AtomicU64,
    /// Entries.
    pub(crate) count: AtomicU32,
    /// Slots of all index segments.
    pub(crate) slots: AtomicU32,
    /// [`Fresh`] entries of the newest chunk (before there is one, of the first entries).
    pub(crate) fresh: AtomicU64,
    /// First free entry; the free ones are linked through the lower half of their headers.
    pub(crate) free: AtomicU32,
    /// First overflow bucket.
    pub(crate) overflow: AtomicU32,
    /// Newest chunk, 0 while the first entries are all there are.
    pub(crate) chunks: AtomicU32,
    pub(crate) _reserved: AtomicU32,
    /// The directory while its depth is 0 or 1.
    pub(crate) inline: [AtomicU64; 2],
}

/// Offset of [`Line::inline`].
pub(crate) const INLINE_DIRECTORY: usize = 48;

/// What the holder of a partition's exclusive lock is doing. Only it writes; only whoever takes
/// the lock over from it reads. See `recover` for what each state means.
#[repr(C, align(128))]
pub(crate) struct Record {
    /// An operation on an entry: [`op_word`], 0 for none.
    pub(crate) op: AtomicU64,
    /// Where its reference is stored, or to be stored: bucket pointer plus slot.
    pub(crate) place: AtomicU64,
    /// Entries before it.
    pub(crate) count: AtomicU64,
    pub(crate) _reserved: [AtomicU64; 5],
    /// A change of structure: one of the `CHANGE_` values.
    pub(crate) change: AtomicU64,
    /// Memory allocated for it and not linked yet.
    pub(crate) made: [AtomicDsaPointer; 2],
    /// Memory to be freed once it is done.
    pub(crate) old: [AtomicDsaPointer; 2],
    /// What it stores, and where; see `change`.
    pub(crate) target: AtomicU64,
    pub(crate) words: [AtomicU64; 2],
}

/// Operations on an entry.
pub(crate) const OP_INSERT: u64 = 1;
/// As insert, but whoever inserts has yet to fill in the value.
pub(crate) const OP_INSERT_UNFILLED: u64 = 2;
pub(crate) const OP_DELETE: u64 = 3;
/// Somebody may be changing the value.
pub(crate) const OP_GUARD: u64 = 4;
/// The free list is being rebuilt.
pub(crate) const OP_REBUILD: u64 = 5;

#[inline]
pub(crate) fn op_word(op: u64, reference: u32) -> u64 {
    op << 32 | u64::from(reference)
}

/// One line of the index.
#[repr(C, align(64))]
pub(crate) struct Bucket {
    /// Bytes 0 to 11: the tags, 0 for a free slot. Byte 12: how many entries went past this bucket
    /// because it was full (255: many). Byte 13: set if an entry that belongs here lies in the
    /// overflow. In an overflow bucket bytes 12 to 15 are the next overflow bucket instead.
    ///
    /// Words and not bytes, so that all accesses have one width.
    pub(crate) tags: [AtomicU64; 2],
    /// The entries. Zero is no reference: it would lie in the area's own header.
    pub(crate) refs: [AtomicU32; SLOTS],
}

impl Bucket {
    #[inline]
    pub(crate) fn tag(&self, slot: usize) -> u8 {
        (self.tags[slot >> 3].load(Ordering::Relaxed) >> ((slot & 7) * 8)) as u8
    }

    #[inline]
    pub(crate) fn set_tag(&self, slot: usize, tag: u8) {
        let word = &self.tags[slot >> 3];
        let shift = (slot & 7) * 8;
        let others = word.load(Ordering::Relaxed) & !(0xff << shift);
        word.store(others | u64::from(tag) << shift, Ordering::Relaxed);
    }

    #[inline]
    pub(crate) fn passed(&self) -> u8 {
        (self.tags[1].load(Ordering::Relaxed) >> 32) as u8
    }

    pub(crate) fn set_passed(&self, passed: u8) {
        let others = self.tags[1].load(Ordering::Relaxed) & !(0xff << 32);
        self.tags[1].store(others | u64::from(passed) << 32, Ordering::Relaxed);
    }

    #[inline]
    pub(crate) fn is_chained(&self) -> bool {
        self.tags[1].load(Ordering::Relaxed) >> 40 & 0xff != 0
    }

    pub(crate) fn set_chained(&self) {
        let others = self.tags[1].load(Ordering::Relaxed);
        self.tags[1].store(others | 1 << 40, Ordering::Relaxed);
    }

    /// Of an overflow bucket: the next one.
    #[inline]
    pub(crate) fn next(&self) -> u32 {
        (self.tags[1].load(Ordering::Relaxed) >> 32) as u32
    }

    pub(crate) fn set_next(&self, next: u32) {
        let others = self.tags[1].load(Ordering::Relaxed) & 0xffff_ffff;
        self.tags[1].store(others | u64::from(next) << 32, Ordering::Relaxed);
    }

    /// Empties a bucket in memory that nobody else knows.
    pub(crate) fn clear(&self) {
        self.tags[0].store(0, Ordering::Relaxed);
        self.tags[1].store(0, Ordering::Relaxed);
        for reference in &self.refs {
            reference.store(0, Ordering::Relaxed);
        }
    }
}

/// Head of a chunk of entries.
#[repr(C, align(16))]
pub(crate) struct Chunk {
    /// The chunk made before this one.
    pub(crate) next: AtomicU32,
    /// Entries that fit.
    pub(crate) capacity: AtomicU32,
    pub(crate) _reserved: [AtomicU32; 2],
}

/// Sizes and offsets of a table's parts, all derived from the header's parameters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Shape {
    pub(crate) partitions: usize,
    pub(crate) lock_size: usize,
    /// From one partition's lock to the next.
    pub(crate) stride: usize,
    pub(crate) records: usize,
    pub(crate) segments: usize,
    pub(crate) entries: usize,
    /// First entries of each partition, and from one partition's to the next one's.
    pub(crate) first_entries: usize,
    pub(crate) entries_stride: usize,
    pub(crate) total: usize,
}

impl Shape {
    pub(crate) fn new(partitions: u32, lock_size: usize, entry_stride: usize) -> Self {
        let partitions = partitions as usize;
        let stride = lock_size + size_of::<Line>();
        let end = size_of::<Header>() + partitions * stride;
        let records = end.next_multiple_of(align_of::<Record>());
        let segments = records + partitions * size_of::<Record>();
        let entries = segments + partitions * FIRST_BUCKETS * size_of::<Bucket>();
        let first_entries = FIRST_ENTRIES.min(FIRST_BYTES / entry_stride);
        // Partitions share no lines.
        let entries_stride = (first_entries * entry_stride).next_multiple_of(64);
        let total = entries + partitions * entries_stride;
        Self {
            partitions,
            lock_size,
            stride,
            records,
            segments,
            entries,
            first_entries,
            entries_stride,
            total,
        }
    }

    #[inline(always)]
    pub(crate) fn lock(&self, partition: usize) -> usize {
        size_of::<Header>() + partition * self.stride
    }

    #[inline]
    pub(crate) fn line(&self, partition: usize) -> usize {
        size_of::<Header>() + partition * self.stride + self.lock_size
    }

    #[inline]
    pub(crate) fn record(&self, partition: usize) -> usize {
        self.records + partition * size_of::<Record>()
    }

    pub(crate) fn first_segment(&self, partition: usize) -> usize {
        self.segments + partition * FIRST_BUCKETS * size_of::<Bucket>()
    }

    pub(crate) fn first_entry(&self, partition: usize) -> usize {
        self.entries + partition * self.entries_stride
    }
}

// What is packed has room for the most there can be.
const _: () = {
    // The kept half of a hash: partition, directory word, bucket.
    assert!(MAX_PARTITIONS.ilog2() + MAX_DEPTH + MAX_BUCKETS.ilog2() <= u32::BITS);
    // Buckets less one, and slots, below a pointer aligned to 64.
    assert!(MAX_BUCKETS <= 64 && SLOTS <= 64);
    assert!((1 << MAX_DEPTH) * MAX_BUCKETS as u64 * SLOTS as u64 <= u32::MAX as u64);
    assert!(DsaPointer::MAX_GENERATION <= u16::MAX as u32);
};

#[cfg(not(loom))]
const _: () = {
    assert!(size_of::<Header>() == 128 + 2 * SEGMENTS);
    assert!(core::mem::offset_of!(Header, lock_kind) == 56);
    assert!(core::mem::offset_of!(Header, generations) == 128);
    assert!(size_of::<Line>() == 64);
    assert!(core::mem::offset_of!(Line, inline) == INLINE_DIRECTORY);
    assert!(size_of::<Record>() == 128);
    assert!(core::mem::offset_of!(Record, change) == 64);
    assert!(size_of::<Bucket>() == 64);
    assert!(core::mem::offset_of!(Bucket, refs) == 16);
    assert!(size_of::<Chunk>() == 16);
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_and_counters_share_words_without_touching_each_other() {
        let bucket = Bucket {
            tags: [AtomicU64::new(0), AtomicU64::new(0)],
            refs: core::array::from_fn(|_| AtomicU32::new(0)),
        };
        for slot in 0..SLOTS {
            bucket.set_tag(slot, slot as u8 + 1);
        }
        bucket.set_passed(200);
        bucket.set_chained();
        for slot in 0..SLOTS {
            assert_eq!(bucket.tag(slot), slot as u8 + 1);
        }
        assert_eq!(bucket.passed(), 200);
        assert!(bucket.is_chained());
        bucket.set_tag(11, 0);
        assert_eq!((bucket.passed(), bucket.tag(10), bucket.tag(11)), (200, 11, 0));
        bucket.set_next(0xdead_beef);
        assert_eq!((bucket.next(), bucket.tag(10)), (0xdead_beef, 11));
    }
}

//! References and packed words: a pointer, and small numbers in the bits that it leaves free.
//!
//! A reference is 32 bits: the area's segment index above the offset in 16-byte units. That fits
//! memory in the first 64 MiB of a segment only, so an area that holds tables must be created
//! with segments of at most 64 MiB; anything above is refused when it is allocated. The
//! generation that a full pointer has besides is kept once per segment, in the header: as long as
//! an allocation of this table lives in a segment, its index means the same segment.

use dsa_core::DsaPointer;
use dsm_core::sync::{AtomicU64, Ordering};

use crate::layout::{MAX_BUCKETS, MAX_DEPTH, UNIT};

/// Memory of a table lies below this offset in its segment.
pub const MAX_SEGMENT_SIZE: u64 = 1 << OFFSET_BITS;
pub(crate) const OFFSET_BITS: u32 = 26;
pub(crate) const SEGMENT_SHIFT: u32 = 40;
pub(crate) const GENERATION_SHIFT: u32 = 50;
pub(crate) const SEGMENTS: usize = 1 << (GENERATION_SHIFT - SEGMENT_SHIFT);

/// The words below are pointers with small numbers in the bits that a pointer into the first
/// 64 MiB of a segment leaves free.
const POINTER: u64 = !((1 << SEGMENT_SHIFT) - 1) | ((1 << OFFSET_BITS) - 1) & !(UNIT as u64 - 1);
const DEPTH_SHIFT: u32 = 32;
const DEPTH_MASK: u64 = 0x1f;

/// Whether a fresh pointer can be expressed in this file's words.
pub(crate) fn expressible(pointer: u64, len: usize) -> bool {
    let offset = pointer & ((1 << SEGMENT_SHIFT) - 1);
    pointer & !POINTER == 0
        && len as u64 <= MAX_SEGMENT_SIZE
        && offset <= MAX_SEGMENT_SIZE - len as u64
}

/// The 32-bit reference of a pointer.
#[inline]
pub(crate) fn reference(pointer: u64) -> u32 {
    let segment = (pointer >> SEGMENT_SHIFT) as u32 & (SEGMENTS as u32 - 1);
    let offset = (pointer & ((1 << OFFSET_BITS) - 1)) as u32;
    segment << (OFFSET_BITS - 4) | offset >> 4
}

/// The directory word of an index segment: where it is, its buckets less one, its depth.
#[inline]
pub(crate) fn segment_word(pointer: u64, buckets: usize, depth: u32) -> u64 {
    pointer | (buckets as u64 - 1) | u64::from(depth) << DEPTH_SHIFT
}

/// The partition's directory: where it is and its depth.
#[inline]
pub(crate) fn directory_word(pointer: u64, depth: u32) -> u64 {
    pointer | u64::from(depth) << DEPTH_SHIFT
}

/// Pointer of a directory or of a directory's word.
#[inline]
pub(crate) fn pointer_of(word: u64) -> u64 {
    word & POINTER
}

/// Pointer of an index segment: aligned to a line, for the low bits hold its mask.
#[inline]
pub(crate) fn segment_pointer(word: u64) -> u64 {
    word & POINTER & !63
}

/// Buckets of a segment, less one. Any word gives a mask below [`MAX_BUCKETS`].
#[inline]
pub(crate) fn segment_mask(word: u64) -> usize {
    (word & (MAX_BUCKETS as u64 - 1)) as usize
}

/// Depth of a directory, or of a segment.
#[inline]
pub(crate) fn depth_of(word: u64) -> u32 {
    (word >> DEPTH_SHIFT & DEPTH_MASK) as u32
}

/// Entries that lie side by side and were never used, in one word, so that they change together:
/// the reference of the first one above, how many there are below. Behind the last one the
/// reference may be none, and after the end of the last segment of all it is 0: nothing is carried
/// from it into the number.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Fresh(u64);

impl Fresh {
    pub(crate) const NONE: Self = Self(0);

    #[inline]
    pub(crate) fn new(first: u32, count: u32) -> Self {
        Self(u64::from(first) << 32 | u64::from(count))
    }

    #[inline(always)]
    pub(crate) fn load(word: &AtomicU64) -> Self {
        Self(word.load(Ordering::Relaxed))
    }

    #[inline(always)]
    pub(crate) fn store(self, word: &AtomicU64) {
        word.store(self.0, Ordering::Relaxed);
    }

    #[inline(always)]
    pub(crate) fn word(self) -> u64 {
        self.0
    }

    /// What such a word means.
    pub(crate) fn from_word(word: u64) -> Self {
        Self(word)
    }

    /// The first one, if there is any.
    #[inline(always)]
    pub(crate) fn first(self) -> u32 {
        (self.0 >> 32) as u32
    }

    /// How many there are.
    #[inline(always)]
    pub(crate) fn count(self) -> u32 {
        self.0 as u32
    }

    /// Without the first one; they are `bytes` bytes apart. There must be one.
    #[inline(always)]
    pub(crate) fn without_first(self, bytes: usize) -> Self {
        // That many units, in the upper half.
        let units = (bytes as u64) << (32 - UNIT.trailing_zeros());
        Self(self.0.wrapping_add(units).wrapping_sub(1))
    }

    /// Whether an entry is among them; they are `bytes` bytes apart.
    pub(crate) fn has(self, reference: u32, bytes: usize) -> bool {
        let distance = u64::from(reference.wrapping_sub(self.first()));
        distance < u64::from(self.count()) * (bytes / UNIT) as u64
    }
}

const _: () = {
    assert!(MAX_DEPTH as u64 <= DEPTH_MASK);
    // A reference: segment, and offset in units.
    assert!(SEGMENTS == DsaPointer::MAX_SEGMENTS && SEGMENT_SHIFT == DsaPointer::OFFSET_BITS);
    assert!(SEGMENTS.ilog2() + OFFSET_BITS - UNIT.ilog2() == u32::BITS);
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fresh_entries_end_where_the_last_segment_does() {
        for bytes in [16, 48, 65_520] {
            let units = (bytes / UNIT) as u32;
            let first = u32::MAX - 3 * units + 1;
            let mut fresh = Fresh::new(first, 3);
            for i in 0..3 {
                assert_eq!((fresh.first(), fresh.count()), (first + i * units, 3 - i));
                assert!(fresh.has(fresh.first(), bytes) && fresh.has(u32::MAX, bytes));
                assert!(!fresh.has(fresh.first() - 1, bytes) && !fresh.has(0, bytes));
                fresh = fresh.without_first(bytes);
            }
            assert_eq!(fresh.count(), 0);
            assert!(!fresh.has(0, bytes));
        }
        assert_eq!(Fresh::new(u32::MAX, u32::MAX).first(), u32::MAX);
        assert_eq!(Fresh::new(u32::MAX, u32::MAX).count(), u32::MAX);
        assert_eq!(Fresh::from_word(Fresh::new(1, 2).word()), Fresh::new(1, 2));
    }

    #[test]
    fn words_keep_their_parts_apart() {
        let pointer = 0x3fff << 50 | 0x3ff << 40 | (MAX_SEGMENT_SIZE - 64);
        assert!(expressible(pointer, 64));
        assert!(!expressible(pointer, 65));
        assert!(!expressible(pointer | 8, 1));
        let word = segment_word(pointer, 64, 16);
        assert_eq!(segment_pointer(word), pointer);
        assert_eq!(segment_mask(word), 63);
        assert_eq!(depth_of(word), 16);
        let word = directory_word(pointer | 48, 7);
        assert_eq!(pointer_of(word), pointer | 48);
        assert_eq!(depth_of(word), 7);
    }
}

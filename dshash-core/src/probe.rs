//! Finding tags in a bucket.
//!
//! The twelve tags are read as two words and compared at once: with SSE2 where the target has it
//! (kernels often do without), by word arithmetic elsewhere. Both answer with one bit a slot; word
//! arithmetic may report a slot too many, never one too few, and the key decides anyway.

use crate::layout::{Bucket, SLOTS};
use dsm_core::sync::Ordering;

const ALL: u32 = (1 << SLOTS) - 1;

/// A bucket's tags as read at one moment.
#[derive(Clone, Copy)]
pub(crate) struct Tags(u64, u64);

impl Tags {
    #[inline(always)]
    pub(crate) fn of(bucket: &Bucket) -> Self {
        Self(bucket.tags[0].load(Ordering::Relaxed), bucket.tags[1].load(Ordering::Relaxed))
    }

    /// Slots whose tag is `tag`.
    #[inline(always)]
    pub(crate) fn matching(self, tag: u8) -> Slots {
        Slots(compare(self.0, self.1, tag) & ALL)
    }

    /// Slots in use.
    #[inline(always)]
    pub(crate) fn used(self) -> Slots {
        Slots(!exact_zeros(self.0, self.1) & ALL)
    }

    /// Free slots.
    #[inline(always)]
    pub(crate) fn free(self) -> Slots {
        Slots(exact_zeros(self.0, self.1) & ALL)
    }

    /// Whether an entry that belongs here may lie elsewhere.
    #[inline(always)]
    pub(crate) fn may_continue(self) -> bool {
        self.1 >> 32 & 0xffff != 0
    }
}

/// A set of slots; iterates over their numbers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Slots(u32);

impl Slots {
    pub(crate) fn len(self) -> usize {
        self.0.count_ones() as usize
    }

    pub(crate) fn is_empty(self) -> bool {
        self.0 == 0
    }

    #[inline(always)]
    pub(crate) fn first(self) -> Option<usize> {
        if self.0 == 0 { None } else { Some(self.0.trailing_zeros() as usize) }
    }
}

impl Iterator for Slots {
    type Item = usize;

    #[inline(always)]
    fn next(&mut self) -> Option<usize> {
        let first = self.first()?;
        self.0 &= self.0 - 1;
        Some(first)
    }
}

#[cfg(all(target_arch = "x86_64", target_feature = "sse2"))]
#[inline(always)]
fn compare(low: u64, high: u64, tag: u8) -> u32 {
    use core::arch::x86_64::{_mm_cmpeq_epi8, _mm_movemask_epi8, _mm_set_epi64x, _mm_set1_epi8};
    // SAFETY: the target has SSE2.
    let tags = unsafe { _mm_set_epi64x(high as i64, low as i64) };
    // SAFETY: as above.
    let pattern = unsafe { _mm_set1_epi8(tag as i8) };
    // SAFETY: as above.
    let equal = unsafe { _mm_cmpeq_epi8(tags, pattern) };
    // SAFETY: as above.
    let mask = unsafe { _mm_movemask_epi8(equal) };
    mask as u32
}

#[cfg(all(target_arch = "x86_64", target_feature = "sse2"))]
#[inline(always)]
fn exact_zeros(low: u64, high: u64) -> u32 {
    compare(low, high, 0)
}

#[cfg(not(all(target_arch = "x86_64", target_feature = "sse2")))]
#[inline(always)]
fn compare(low: u64, high: u64, tag: u8) -> u32 {
    let pattern = u64::from(tag) * words::ONES;
    words::zeros(low ^ pattern) | words::zeros(high ^ pattern) << 8
}

#[cfg(not(all(target_arch = "x86_64", target_feature = "sse2")))]
#[inline(always)]
fn exact_zeros(low: u64, high: u64) -> u32 {
    words::zeros(low) | words::zeros(high) << 8
}

#[cfg(any(test, not(all(target_arch = "x86_64", target_feature = "sse2"))))]
mod words {
    pub(super) const ONES: u64 = 0x0101_0101_0101_0101;
    const LOW: u64 = 0x7f * ONES;

    /// One bit for each byte of `word` that is zero.
    #[inline(always)]
    pub(super) fn zeros(word: u64) -> u32 {
        // The sum carries into a byte's top bit if any of its low seven bits is set, and never
        // beyond: exact, unlike the shorter test that borrows across bytes.
        let nonzero = ((word & LOW) + LOW) | word;
        let zero = !nonzero & (0x80 * ONES);
        // Gathers the eight top bits: each lands in a place of its own of the top byte.
        ((zero >> 7).wrapping_mul(0x0102_0408_1020_4080) >> 56) as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn word_arithmetic_agrees_with_a_loop() {
        let mut state = 1u64;
        for _ in 0..20_000 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let word = state & (state >> 17 | 0xff00_00ff_ff00_ff00);
            let slow = word
                .to_le_bytes()
                .iter()
                .enumerate()
                .fold(0, |mask, (i, b)| mask | u32::from(*b == 0) << i);
            assert_eq!(words::zeros(word), slow, "{word:016x}");
        }
        assert_eq!(words::zeros(0), 0xff);
        assert_eq!(words::zeros(0x0001_0000_0100_0001), 0b1011_0110);
    }

    #[test]
    fn slots_by_tag() {
        let tags = Tags(0x0003_0000_0700_0007, 0x0001_0102_0000_0700);
        assert_eq!(tags.matching(7).collect::<std::vec::Vec<_>>(), [0, 3, 9]);
        assert_eq!(tags.used().len(), 4);
        assert_eq!(tags.free().first(), Some(1));
        assert!(tags.may_continue());
        assert!(!Tags(1, 0xffff_ffff).may_continue());
    }
}

//! A bitmap over words of shared memory: which slots or pages are taken.
//!
//! An index: rebuilt from the slots by whoever takes the control lock over from a dead owner.
//! Written under the control lock only, and read under it but for a count in passing, hence relaxed
//! and without read-modify-writes.

use crate::sync::{AtomicU64, Ordering};

/// `bits` bits in `words`; a set bit is taken.
#[derive(Clone, Copy)]
pub(crate) struct Bitmap<'a> {
    words: &'a [AtomicU64],
    bits: usize,
}

impl<'a> Bitmap<'a> {
    pub(crate) fn new(words: &'a [AtomicU64], bits: usize) -> Self {
        debug_assert!(bits <= words.len() * 64);
        Self { words, bits }
    }

    pub(crate) fn clear_all(&self) {
        self.words.iter().for_each(|word| word.store(0, Ordering::Relaxed));
    }

    /// First bit at or after `from` that is set (or clear); `end` if there is none before it.
    fn next(&self, set: bool, from: usize, end: usize) -> usize {
        let mut at = from;
        while at < end {
            let word = self.words[at / 64].load(Ordering::Relaxed);
            let wanted = (if set { word } else { !word }) >> (at % 64);
            if wanted != 0 {
                return (at + wanted.trailing_zeros() as usize).min(end);
            }
            at = (at / 64 + 1) * 64;
        }
        end
    }

    /// First run of `count` clear bits at or after `from`.
    pub(crate) fn find_run(&self, count: usize, from: usize) -> Option<usize> {
        let mut start = self.next(false, from, self.bits);
        while self.bits - start >= count {
            let end = self.next(true, start, start + count);
            if end - start == count {
                return Some(start);
            }
            start = self.next(false, end, self.bits);
        }
        None
    }

    /// Sets or clears `count` bits from `start`; what lies beyond the end is ignored.
    pub(crate) fn fill(&self, start: usize, count: usize, set: bool) {
        let end = start.saturating_add(count).min(self.bits);
        let mut at = start;
        while at < end {
            let upto = end.min((at / 64 + 1) * 64);
            let mask = (u64::MAX >> (64 - (upto - at))) << (at % 64);
            let word = &self.words[at / 64];
            let old = word.load(Ordering::Relaxed);
            word.store(if set { old | mask } else { old & !mask }, Ordering::Relaxed);
            at = upto;
        }
    }

    /// How many bits are set.
    pub(crate) fn count(&self) -> usize {
        self.words.iter().map(|word| word.load(Ordering::Relaxed).count_ones() as usize).sum()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn runs_are_found_where_a_plain_model_finds_them() {
        let words: [AtomicU64; 4] = [const { AtomicU64::new(0) }; 4];
        let map = Bitmap::new(&words, 200);
        let mut model = [false; 200];
        let mut random = 1_u64;
        for _ in 0..20_000 {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let start = (random >> 33) as usize % 200;
            let count = 1 + (random >> 50) as usize % 90;
            let set = random >> 63 == 1;
            map.fill(start, count, set);
            model[start..(start + count).min(200)].fill(set);
            let from = (random >> 20) as usize % 200;
            let expected =
                (from..200).find(|at| at + count <= 200 && !model[*at..at + count].contains(&true));
            assert_eq!(map.find_run(count, from), expected);
            assert_eq!(map.count(), model.iter().filter(|taken| **taken).count());
        }
    }
}

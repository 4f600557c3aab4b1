//! How readers that take no lock learn that they may have read nonsense.
//!
//! A partition's sequence word is odd while the holder of its lock changes what such readers look
//! at. The writer stores the odd number, then changes, then stores the next even one; the reader
//! loads the word, reads, and loads it again: an even number that is still the same says that no
//! change was under way meanwhile.
//!
//! Two fences make that so, which is what the models below are about (`cfg(loom)`): nothing that
//! the writer changes is seen before the odd number could be, and nothing that the reader reads
//! is read after its second look. The even number is stored with release semantics, so that who
//! loads it sees the whole change. A writer that dies leaves an odd number: readers take the lock
//! then, and with it recover the partition.

use dsm_core::planted::{Bug, planted};
use dsm_core::sync::{AtomicU64, Ordering, fence};

/// A partition's sequence word; see the module's essay.
#[repr(transparent)]
pub(crate) struct Sequence(AtomicU64);

impl Sequence {
    /// Of a partition that nobody changes.
    pub(crate) fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    /// A change begins. By the holder of the exclusive lock, as [`close`](Self::close).
    #[inline(always)]
    pub(crate) fn open(&self) {
        let seq = self.0.load(Ordering::Relaxed);
        if planted(Bug::SequenceStaysEven) {
            return;
        }
        self.0.store(seq | 1, Ordering::Relaxed);
        // What follows is not seen before the odd number is.
        fence(Ordering::Release);
    }

    /// The change is complete.
    #[inline(always)]
    pub(crate) fn close(&self) {
        let seq = self.0.load(Ordering::Relaxed);
        self.0.store((seq | 1).wrapping_add(1), Ordering::Release);
    }

    /// Whether a change is under way, or was when its writer died. For holders of the lock.
    #[inline(always)]
    pub(crate) fn is_open(&self) -> bool {
        self.0.load(Ordering::Relaxed) & 1 != 0
    }

    /// What to compare with after reading.
    #[inline(always)]
    pub(crate) fn look(&self) -> Look {
        Look(self.0.load(Ordering::Acquire))
    }

    /// Whether nothing was changed since that look. Comes after all that was read.
    #[inline(always)]
    pub(crate) fn is_still(&self, look: Look) -> bool {
        fence(Ordering::Acquire);
        look.is_settled() && self.0.load(Ordering::Relaxed) == look.0
    }
}

/// A reader's first look at a sequence word.
#[derive(Clone, Copy)]
pub(crate) struct Look(u64);

impl Look {
    /// Whether nothing was being changed at that moment: else there is no point in reading.
    #[inline(always)]
    pub(crate) fn is_settled(self) -> bool {
        self.0 & 1 == 0
    }
}

#[cfg(all(test, loom))]
mod model {
    use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
    use std::sync::{Arc, Mutex};

    use loom::thread;

    use super::*;

    /// An entry of two words that must agree, and the word that leads to it.
    struct Partition {
        seq: Sequence,
        reference: AtomicU64,
        entry: [AtomicU64; 2],
    }

    impl Partition {
        fn new() -> Arc<Self> {
            Arc::new(Self {
                seq: Sequence::new(),
                reference: AtomicU64::new(1),
                entry: [AtomicU64::new(0), AtomicU64::new(0)],
            })
        }

        fn write(&self, value: u64) {
            for word in &self.entry {
                word.store(value, Ordering::Relaxed);
            }
        }

        /// As `get` does: what leads to the entry, the entry, and whether to believe it.
        fn read(&self) -> Option<Option<u64>> {
            let look = self.seq.look();
            if !look.is_settled() {
                return None;
            }
            let reference = self.reference.load(Ordering::Relaxed);
            let words = self.entry.each_ref().map(|word| word.load(Ordering::Relaxed));
            if !self.seq.is_still(look) {
                return None;
            }
            if reference == 0 {
                return Some(None);
            }
            assert_eq!(words[0], words[1], "a torn value");
            assert_eq!(words[0] % 2, reference - 1, "another entry's value");
            Some(Some(words[0]))
        }
    }

    /// Explores a writer beside a reader that reads twice; what it believed must be all of `ends`.
    fn explore(ends: usize, write: impl Fn(&Partition) + Copy + Send + Sync + 'static) {
        let seen = Arc::new(Mutex::new(std::collections::BTreeSet::new()));
        let refused = Arc::new(AtomicUsize::new(0));
        let mut builder = loom::model::Builder::new();
        builder.preemption_bound = Some(3);
        let (all, count) = (seen.clone(), refused.clone());
        builder.check(move || {
            let partition = Partition::new();
            let writer = thread::spawn({
                let partition = partition.clone();
                move || write(&partition)
            });
            let mut newest = None;
            for _ in 0..2 {
                match partition.read() {
                    Some(value) => {
                        assert!(value.is_none() || newest <= value, "an older value than before");
                        newest = value.or(newest);
                        all.lock().unwrap().insert(value);
                    }
                    None => {
                        count.fetch_add(1, Relaxed);
                    }
                }
            }
            writer.join().unwrap();
            assert!(partition.read().is_some(), "nobody changes it any more");
        });
        assert_eq!(seen.lock().unwrap().len(), ends);
        assert!(refused.load(Relaxed) > 0, "no reader ever met a writer");
    }

    #[test]
    fn a_value_is_never_torn() {
        explore(3, |partition| {
            for value in [2, 4] {
                partition.seq.open();
                partition.write(value);
                partition.seq.close();
            }
        });
    }

    /// The entry's memory is used for another key: what leads there goes before, and comes after.
    #[test]
    fn an_entry_is_never_taken_for_its_successor() {
        explore(3, |partition| {
            partition.seq.open();
            partition.reference.store(0, Ordering::Release);
            partition.seq.close();
            partition.seq.open();
            partition.write(3);
            partition.reference.store(2, Ordering::Release);
            partition.seq.close();
        });
    }
}

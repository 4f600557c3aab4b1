//! A partition as one participant uses it: where its parts are, and the small steps that operations
//! under its lock are made of. The order of the steps is in `locked`.

use core::ptr::NonNull;
use core::time::Duration;

use dsm_core::lock::Patience;
use dsm_core::participant::Participant;
use dsm_core::sync::Ordering;

use crate::error::Error;
use crate::follow::{Anywhere, AtHand, Follow};
use crate::hash;
use crate::layout::{Bucket, Line, POISON, Record, WINDOW};
use crate::step::step;
use crate::store::{Allocator, Store};
use crate::view::{Core, Entry, Found};
use crate::words::{Fresh, segment_mask, segment_pointer};

/// Who calls, and with what patience.
#[derive(Clone, Copy)]
pub(crate) struct Caller<'s> {
    pub(crate) participant: &'s Participant<'s>,
    pub(crate) heap: &'s dyn Allocator,
    pub(crate) wait: Wait,
}

/// A [`Patience`] in one word: nothing that moves along with every call should be less. Nanoseconds
/// of the environment's clock, 0 for none at all, the largest number for all there is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Wait(u64);

impl Wait {
    pub(crate) const NONE: Self = Self(0);
    pub(crate) const FOREVER: Self = Self(u64::MAX);

    pub(crate) fn until(deadline: Duration) -> Self {
        Self(u64::try_from(deadline.as_nanos()).unwrap_or(u64::MAX - 1).clamp(1, u64::MAX - 1))
    }

    #[inline(always)]
    pub(crate) fn patience(self) -> Patience {
        match self {
            Self::FOREVER => Patience::Forever,
            Self::NONE => Patience::Try,
            Self(nanoseconds) => Patience::Until(Duration::from_nanos(nanoseconds)),
        }
    }
}

impl<'s> Caller<'s> {
    /// Whoever `heap` belongs to, without hurry; refused if it cannot allocate in `store`.
    #[inline]
    pub(crate) fn new<S: Store>(store: &S, heap: &'s dyn Allocator) -> Result<Self, Error> {
        if heap.store_id() != store.id() {
            return Err(Error::ForeignHeap);
        }
        Ok(Self::unchecked(heap))
    }

    /// As `new`, for a heap that is known to allocate in the table's store.
    #[inline(always)]
    pub(crate) fn unchecked(heap: &'s dyn Allocator) -> Self {
        Self { participant: heap.participant(), heap, wait: Wait::FOREVER }
    }

    /// The same, waiting for so long from now, if that is given.
    pub(crate) fn within(self, limit: Option<Duration>) -> Self {
        let Some(limit) = limit else { return self };
        let now = self.participant.peers().env().now();
        Self { wait: Wait::until(now.saturating_add(limit)), ..self }
    }
}

/// An entry that is not in the table and can be taken.
#[derive(Clone, Copy)]
pub(crate) struct NewEntry<'t> {
    pub(crate) reference: u32,
    pub(crate) entry: Entry<'t>,
    /// The first of the free ones, or else of those that were never used, at which `fresh` stands.
    pub(crate) is_free: bool,
    pub(crate) fresh: Fresh,
}

/// A free slot for a certain hash.
#[derive(Clone, Copy)]
pub(crate) struct Place<'t> {
    pub(crate) bucket: &'t Bucket,
    pub(crate) pointer: u64,
    pub(crate) slot: usize,
    /// Buckets from the home on; [`WINDOW`] for the overflow.
    pub(crate) distance: usize,
}

/// Pointer of the `i`th bucket from the home on.
#[inline]
pub(crate) fn in_window(word: u64, kept: u32, i: usize) -> u64 {
    let mask = segment_mask(word);
    segment_pointer(word) + 64 * ((hash::home(kept, mask) + i) & mask) as u64
}

/// A partition as one participant uses it. Plain data, to be passed by value: what is seldom done
/// to a partition is done out of line on a copy, so that the compiler can keep the one in a
/// [`Locked`](crate::locked::Locked) in registers, for whose address nobody ever asks.
pub(crate) struct Partition<'s, S: Store> {
    pub(crate) core: &'s Core<S>,
    pub(crate) heap: &'s dyn Allocator,
    pub(crate) participant: &'s Participant<'s>,
    pub(crate) number: usize,
    /// Where its parts are: computed once.
    line: &'s Line,
    record: &'s Record,
    pub(crate) lock: NonNull<S::Lock>,
}

impl<S: Store> Clone for Partition<'_, S> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<S: Store> Copy for Partition<'_, S> {}

impl<S: Store> Core<S> {
    #[inline(always)]
    pub(crate) fn partition<'s>(&'s self, caller: Caller<'s>, number: usize) -> Partition<'s, S> {
        let Caller { participant, heap, .. } = caller;
        let (line, record) = (self.line(number), self.record(number));
        Partition {
            core: self,
            heap,
            participant,
            number,
            line,
            record,
            lock: self.lock_at(number),
        }
    }
}

impl<'s, S: Store> Partition<'s, S> {
    #[inline(always)]
    pub(crate) fn partition(&self) -> usize {
        self.number
    }

    #[inline(always)]
    pub(crate) fn line(&self) -> &'s Line {
        self.line
    }

    #[inline(always)]
    pub(crate) fn record(&self) -> &'s Record {
        self.record
    }

    #[inline(always)]
    pub(crate) fn settle_sequence(&self) {
        self.line().seq.close();
    }

    #[inline(always)]
    pub(crate) fn set_op(&self, word: u64) {
        step();
        self.record().op.store(word, Ordering::Relaxed);
        step();
    }

    /// Links an entry into the free list: first its header, then the list's head.
    #[inline(always)]
    pub(crate) fn push_free(&self, reference: u32, entry: Entry<'_>) {
        let next = self.line().free.load(Ordering::Relaxed);
        entry.word().store(u64::from(next), Ordering::Relaxed);
        step();
        self.line().free.store(reference, Ordering::Relaxed);
        step();
    }

    /// Marks, or clears, the poison of an entry.
    pub(crate) fn set_poison(&self, entry: Entry<'_>, poisoned: bool) {
        let word = entry.word().load(Ordering::Relaxed);
        let word = if poisoned { word | POISON } else { word & !POISON };
        entry.word().store(word, Ordering::Relaxed);
    }

    /// Notes that an entry went past the buckets before the one it got.
    pub(crate) fn pass(&self, kept: u32, distance: usize) -> Result<(), Error> {
        let word =
            self.core.directory_entry::<Anywhere>(self.line(), kept)?.load(Ordering::Relaxed);
        let home = self.core.bucket(Core::<S>::home_of(word, kept))?;
        if distance >= WINDOW {
            home.set_chained();
            return Ok(());
        }
        for i in 0..distance {
            let bucket = self.core.bucket(in_window(word, kept, i))?;
            bucket.set_passed(bucket.passed().saturating_add(1));
        }
        Ok(())
    }

    /// Whether an entry lies in its home bucket, as far as one can see at once.
    #[inline(always)]
    pub(crate) fn lies_at_home(&self, found: &Found<'_>) -> bool {
        let kept = found.entry.word().load(Ordering::Relaxed) as u32;
        match self.core.directory_entry::<AtHand>(self.line(), kept) {
            Ok(word) => Core::<S>::home_of(word.load(Ordering::Relaxed), kept) == found.place & !63,
            Err(_) => false,
        }
    }

    /// Takes `pass` back for an entry that lay in the bucket at `pointer`. A count that once
    /// reached its maximum stays there: too many only costs a look at one bucket more.
    pub(crate) fn unpass(&self, kept: u32, pointer: u64) -> Result<(), Error> {
        let word =
            self.core.directory_entry::<Anywhere>(self.line(), kept)?.load(Ordering::Relaxed);
        let window = WINDOW.min(segment_mask(word) + 1);
        let Some(distance) = (0..window).find(|i| in_window(word, kept, *i) == pointer) else {
            return Ok(());
        };
        for i in 0..distance {
            let bucket = self.core.bucket(in_window(word, kept, i))?;
            let passed = bucket.passed();
            if passed != u8::MAX {
                bucket.set_passed(passed.saturating_sub(1));
            }
        }
        Ok(())
    }

    /// The next entry to take; there must be one.
    #[inline(always)]
    pub(crate) fn next_entry<F: Follow>(&self) -> Result<NewEntry<'s>, F::Failure> {
        let free = self.line().free.load(Ordering::Relaxed);
        let fresh = Fresh::load(&self.line().fresh);
        let reference = if free != 0 { free } else { fresh.first() };
        let entry = self.core.entry_by::<F>(reference)?;
        Ok(NewEntry { reference, entry, is_free: free != 0, fresh })
    }
}

//! A lock's words: the line that every lock has, and the lines behind it.

use core::ptr::NonNull;

use super::{
    BASE_WORDS, DRAINING, ENTERED, LINE_WORDS, LOADS_PASS_STORES, RwLock, SHAPE_MARK, SHAPE_WORDS,
    SLEEPERS,
};
use crate::participant::Participant;
use crate::planted::{Bug, planted};
use crate::sync::{
    AtomicU64,
    Ordering::{Relaxed, Release, SeqCst},
    compiler_fence, dekker_fence, dekker_load,
};

/// A lock together with the extension lines behind it.
#[derive(Clone, Copy)]
pub(super) struct Lines<'l> {
    pub(super) base: &'l RwLock,
    pub(super) at: NonNull<RwLock>,
}

impl<'l> Lines<'l> {
    /// # Safety
    ///
    /// `at` must be an initialised lock, mapped for `'l`.
    #[inline]
    pub(super) unsafe fn new(at: NonNull<RwLock>) -> Self {
        // SAFETY: the caller promises an initialised lock, which consists of atomics.
        Self { base: unsafe { at.as_ref() }, at }
    }

    /// Reader words behind the first line, as the lock itself says.
    pub(super) fn extension_words(self) -> usize {
        (self.base.shape.load(Relaxed) & SHAPE_WORDS) as usize
    }

    /// The same; but no more than the participant's namespace needs, whatever a peer has made of
    /// their number in shared memory.
    pub(super) fn words_for(self, participant: &Participant<'_>) -> usize {
        self.extension_words().min(extension_words(participant.peers().max_participants()))
    }

    /// The word that has participant `index`'s bit, and the bit; `None` if the lock was made for
    /// fewer participants.
    #[inline]
    pub(super) fn reader(self, index: u16) -> Option<(&'l AtomicU64, u64)> {
        self.reader_in_base(index).or_else(|| {
            let word = self.extension_word(index as usize / 64 - BASE_WORDS)?;
            Some((word, 1 << (index % 64)))
        })
    }

    /// The same, if it is in the first line.
    #[inline(always)]
    pub(super) fn reader_in_base(self, index: u16) -> Option<(&'l AtomicU64, u64)> {
        let word = self.base.readers.get(index as usize / 64)?;
        Some((word, 1 << (index % 64)))
    }

    #[cold]
    pub(super) fn extension_word(self, word: usize) -> Option<&'l AtomicU64> {
        let at =
            (word < self.extension_words()).then(|| extension_of(self.at).wrapping_add(word))?;
        // SAFETY: the lock is of as many words as its namespace needs, and callers ask for that of
        // a participant, or for those that the namespace needs.
        Some(unsafe { &*at })
    }

    /// All reader words, of which `behind` are behind the first line.
    pub(super) fn words(self, behind: usize) -> impl Iterator<Item = &'l AtomicU64> {
        self.base
            .readers
            .iter()
            .chain((0..behind).filter_map(move |word| self.extension_word(word)))
    }

    /// Enters as owner if nobody is and the data is clean; whether that was so. Look at the readers
    /// next.
    #[inline(always)]
    pub(super) fn enter_free(self, me: u64) -> bool {
        let mine = if planted(Bug::OwnerAfterSwap) { ENTERED } else { me | ENTERED };
        let entered = self.base.owner.compare_exchange(0, mine, SeqCst, SeqCst).is_ok();
        if planted(Bug::OwnerAfterSwap) && entered {
            self.base.owner.fetch_or(me, SeqCst);
        }
        dekker_fence();
        entered
    }

    /// Sets a reader's bit; whether there is no owner, so that the lock is held.
    #[inline(always)]
    pub(super) fn join(self, (word, bit): (&AtomicU64, u64)) -> bool {
        word.fetch_or(bit, SeqCst);
        if !planted(Bug::MissingFence) {
            dekker_fence();
        }
        self.base.owner.load(SeqCst) == 0
    }

    /// Whether anybody's bit is set. Sequentially consistent.
    #[inline]
    pub(super) fn any_reader(self, participant: &Participant<'_>) -> bool {
        let mut bits = 0;
        for word in &self.base.readers {
            bits |= word.load(SeqCst);
        }
        bits != 0 || self.extension_words() != 0 && self.any_reader_in_extension(participant)
    }

    #[cold]
    pub(super) fn any_reader_in_extension(self, participant: &Participant<'_>) -> bool {
        let words = self.words(self.words_for(participant));
        words.fold(0, |bits, word| bits | word.load(SeqCst)) != 0
    }
}

/// Lets go of an owner word that says nothing but its owner inside; whether somebody sleeps until
/// then, and is to be woken.
#[inline(always)]
pub(super) fn leave_alone(base: &RwLock) -> bool {
    let order = if LOADS_PASS_STORES { Release } else { SeqCst };
    base.owner.store(0, if planted(Bug::MissingRelease) { Relaxed } else { order });
    // The processor may let the load pass; the compiler must not, who knows how far.
    compiler_fence();
    dekker_load(&base.wake) & SLEEPERS != 0
}

/// Takes the reader's bit back; whether a claimant sleeps until the last one is, and is to be
/// woken.
#[inline(always)]
pub(super) fn leave(lines: Lines<'_>, (word, bit): (&AtomicU64, u64)) -> bool {
    word.fetch_and(!bit, SeqCst);
    dekker_fence();
    lines.base.owner.load(SeqCst) & DRAINING != 0
}

/// The shape of a lock for so many participants.
pub(super) const fn shape(max_participants: u32) -> u32 {
    SHAPE_MARK | extension_words(max_participants) as u32
}

/// Where the extension of the lock at `at` begins.
#[inline]
pub(super) const fn extension_of(at: NonNull<RwLock>) -> *mut AtomicU64 {
    at.as_ptr().wrapping_add(1).cast()
}

/// Reader words needed behind the first line, in whole lines. An embedder may say any number of
/// participants, but no index names more than 2^16, for whom 1,024 words are enough: far fewer than
/// the shape can say.
pub(super) const fn extension_words(max_participants: u32) -> usize {
    let most = 1 << u16::BITS;
    let most = if max_participants < most { max_participants } else { most };
    let words = most.div_ceil(64) as usize;
    words.saturating_sub(BASE_WORDS).div_ceil(LINE_WORDS) * LINE_WORDS
}

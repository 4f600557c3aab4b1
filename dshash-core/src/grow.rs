//! How the index grows and shrinks.
//!
//! An index segment starts with four buckets and doubles up to 64 (4 KiB); after that it splits
//! in two, by the next bit of the hash, and the directory, which may double for it, says which
//! half a hash belongs to. Nothing else ever moves: an insert rebuilds one segment at most. Old
//! segments are left alone while their successors are built beside them, so a reader without the
//! lock finds either.
//!
//! A segment is full for a certain entry when the four buckets from its home on are. With a
//! good hash that happens at 70 to 90 % load. With a bad one, or a hostile set of keys, splitting
//! would not help: when it did not, or the directory is already four times what the number of
//! entries justifies, or there is no memory for it, the entry goes into the partition's
//! *overflow*, a chain of buckets that is searched for homes that are marked. Entries there never
//! move; a split copies the mark to both heirs.
//!
//! A deletion that finds the partition less than an eighth full merges the segment with its
//! neighbour, or shrinks the only one, every eighth time: each such step gives back a segment or
//! more, so it keeps up, and none moves more than two segments. Growing at 70 % and shrinking at
//! 12 % keeps a table that hovers around one size from doing both.

use core::mem::size_of;

use dsm_core::planted::{Bug, planted};
use dsm_core::sync::Ordering;

use crate::error::Error;
use crate::follow::{Anywhere, AtHand};
use crate::hash;
use crate::layout::{
    Bucket, FIRST_BUCKETS, INLINE_DIRECTORY, MAX_BUCKETS, MAX_DEPTH, SLOTS, WINDOW,
};
use crate::partition::{NewEntry, Partition, Place, in_window};
use crate::probe::Tags;
use crate::step::step;
use crate::store::Store;
use crate::view::{Core, Entry};
use crate::words::{
    depth_of, directory_word, pointer_of, reference, segment_mask, segment_pointer, segment_word,
};

/// Overflow buckets that an insert looks through for a free slot before it hangs in another.
const OVERFLOW_LOOK: usize = 4;

/// What an index segment is, and which directory words lead to it.
#[derive(Clone, Copy)]
struct Reach {
    word: u64,
    first: usize,
    span: usize,
    /// Depth of the directory.
    depth: u32,
}

impl Reach {
    fn buckets(&self) -> usize {
        segment_mask(self.word) + 1
    }

    fn local(&self) -> u32 {
        depth_of(self.word)
    }
}

impl<'s, S: Store> Partition<'s, S> {
    /// A slot for an entry in its home bucket, and an entry to take, if they can be seen at once.
    #[inline(always)]
    pub(crate) fn free_place(&self, kept: u32) -> Option<(Place<'s>, NewEntry<'s>)> {
        if !self.has_entry() {
            return None;
        }
        let word = self.core.directory_entry::<AtHand>(self.line(), kept).ok()?;
        let pointer = Core::<S>::home_of(word.load(Ordering::Relaxed), kept);
        let bucket = self.core.bucket_by::<AtHand>(pointer).ok()?;
        let slot = Tags::of(bucket).free().first()?;
        let new = self.next_entry::<AtHand>().ok()?;
        Some((Place { bucket, pointer, slot, distance: 0 }, new))
    }

    /// Finds, or makes, a free slot for an entry.
    pub(crate) fn reserve_slot(&self, kept: u32) -> Result<Place<'s>, Error> {
        if let Some(place) = self.search_window(kept)? {
            return Ok(place);
        }
        if self.grow(kept)? {
            if let Some(place) = self.search_window(kept)? {
                return Ok(place);
            }
        }
        self.reserve_overflow()
    }

    fn search_window(&self, kept: u32) -> Result<Option<Place<'s>>, Error> {
        let word =
            self.core.directory_entry::<Anywhere>(self.line(), kept)?.load(Ordering::Relaxed);
        for distance in 0..WINDOW.min(segment_mask(word) + 1) {
            let pointer = in_window(word, kept, distance);
            let bucket = self.core.bucket(pointer)?;
            if let Some(slot) = Tags::of(bucket).free().first() {
                return Ok(Some(Place { bucket, pointer, slot, distance }));
            }
        }
        Ok(None)
    }

    fn reserve_overflow(&self) -> Result<Place<'s>, Error> {
        let first = self.line().overflow.load(Ordering::Relaxed);
        let mut next = first;
        for _ in 0..OVERFLOW_LOOK {
            if next == 0 {
                break;
            }
            let pointer = self.core.header().pointer(next);
            let bucket = self.core.bucket(pointer)?;
            if let Some(slot) = Tags::of(bucket).free().first() {
                return Ok(Place { bucket, pointer, slot, distance: WINDOW });
            }
            next = bucket.next();
        }
        let pointer = self.make(0, size_of::<Bucket>(), 64)?;
        let bucket = self.core.bucket(pointer)?;
        bucket.clear();
        bucket.set_next(first);
        self.hang(reference(pointer), 0)?;
        Ok(Place { bucket, pointer, slot: 0, distance: WINDOW })
    }

    fn reach(&self, kept: u32) -> Result<Reach, Error> {
        let directory = self.line().directory.load(Ordering::Relaxed);
        let depth = depth_of(directory);
        let index = hash::directory_index(kept, self.core.bits, depth);
        let word = self.core.word(pointer_of(directory) + 8 * index as u64)?;
        let word = word.load(Ordering::Relaxed);
        let Some(above) = depth.checked_sub(depth_of(word)) else {
            return Err(Error::Corrupt("depth of an index segment"));
        };
        let span = 1 << above;
        Ok(Reach { word, first: index & !(span - 1), span, depth })
    }

    #[inline(always)]
    fn slots(&self) -> usize {
        self.line().slots.load(Ordering::Relaxed) as usize
    }

    /// Pointer of the partition's first segment, which is part of the table.
    fn first_segment(&self) -> u64 {
        self.core.pointer + self.core.shape.first_segment(self.partition()) as u64
    }

    /// What to free when `word`'s segment is replaced.
    fn freeable(&self, word: u64) -> u64 {
        let pointer = segment_pointer(word);
        if pointer == self.first_segment() { 0 } else { pointer }
    }

    /// Doubles or splits the segment of a hash. Returns false if that is not possible or does not
    /// help.
    fn grow(&self, kept: u32) -> Result<bool, Error> {
        let reach = self.reach(kept)?;
        if reach.buckets() < MAX_BUCKETS {
            return self.resize(reach, reach.buckets() * 2);
        }
        if reach.local() < reach.depth {
            return self.split(reach);
        }
        let slots = self.slots();
        let directory = 2 << reach.depth;
        let justified = slots / (MAX_BUCKETS * SLOTS) * 4;
        if reach.depth >= MAX_DEPTH || directory > justified.max(4) || !self.deepen()? {
            return Ok(false);
        }
        self.split(self.reach(kept)?)
    }

    /// Rebuilds a segment with another number of buckets.
    fn resize(&self, reach: Reach, buckets: usize) -> Result<bool, Error> {
        let local = reach.local();
        let pointer = if buckets == FIRST_BUCKETS {
            // Not in use: no partition with a smaller or the only other segment has it.
            self.first_segment()
        } else {
            match self.try_make(0, buckets * 64)? {
                Some(pointer) => pointer,
                None => return Ok(false),
            }
        };
        let word = segment_word(pointer, buckets, local);
        self.empty(word)?;
        if planted(Bug::DirectoryBeforeCopy) {
            self.store_words(reach.first as u64 | (reach.span as u64) << 32, [word; 2])?;
        }
        if !self.refill(reach.word, [word; 2], 0)? {
            return self.give_up();
        }
        let slots = self.slots() + buckets * SLOTS - reach.buckets() * SLOTS;
        let old = [self.freeable(reach.word), 0];
        self.switch(reach.first, reach.span, [word; 2], old, slots)?;
        Ok(true)
    }

    fn split(&self, reach: Reach) -> Result<bool, Error> {
        let local = reach.local();
        let size = MAX_BUCKETS * 64;
        let Some(left) = self.try_make(0, size)? else { return Ok(false) };
        let Some(right) = self.try_make(1, size)? else { return self.give_up() };
        let words = [left, right].map(|pointer| segment_word(pointer, MAX_BUCKETS, local + 1));
        self.empty(words[0])?;
        self.empty(words[1])?;
        let bit = 31 - self.core.bits - local;
        if !self.refill(reach.word, words, 1 << bit)? {
            return self.give_up();
        }
        let slots = self.slots() + MAX_BUCKETS * SLOTS;
        let old = [self.freeable(reach.word), 0];
        self.switch(reach.first, reach.span, words, old, slots)?;
        Ok(true)
    }

    /// Doubles the directory.
    fn deepen(&self) -> Result<bool, Error> {
        let directory = self.line().directory.load(Ordering::Relaxed);
        let depth = depth_of(directory);
        if depth == 0 {
            let word = self.line().inline[0].load(Ordering::Relaxed);
            self.line().inline[1].store(word, Ordering::Relaxed);
            self.redirect(directory_word(pointer_of(directory), 1), 0)?;
            return Ok(true);
        }
        let Some(pointer) = self.try_make(0, 16 << depth)? else { return Ok(false) };
        for i in 0..1 << depth {
            let word = self.core.word(pointer_of(directory) + 8 * i)?.load(Ordering::Relaxed);
            self.core.word(pointer + 16 * i)?.store(word, Ordering::Relaxed);
            self.core.word(pointer + 16 * i + 8)?.store(word, Ordering::Relaxed);
        }
        self.redirect(directory_word(pointer, depth + 1), self.freeable_directory())?;
        Ok(true)
    }

    fn inline_directory(&self) -> u64 {
        self.core.pointer + (self.core.shape.line(self.partition()) + INLINE_DIRECTORY) as u64
    }

    fn freeable_directory(&self) -> u64 {
        let pointer = pointer_of(self.line().directory.load(Ordering::Relaxed));
        if pointer == self.inline_directory() { 0 } else { pointer }
    }

    /// Allocates for growth: when there is no memory the table goes on without growing.
    fn try_make(&self, index: usize, size: usize) -> Result<Option<u64>, Error> {
        match self.make(index, size, 64) {
            Ok(pointer) => Ok(Some(pointer)),
            Err(Error::Memory(_)) => {
                self.abandon()?;
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    fn give_up(&self) -> Result<bool, Error> {
        self.abandon()?;
        Ok(false)
    }

    fn empty(&self, word: u64) -> Result<(), Error> {
        for i in 0..=segment_mask(word) as u64 {
            self.core.bucket(segment_pointer(word) + 64 * i)?.clear();
        }
        Ok(())
    }

    /// Copies the entries of a segment to new ones: those whose hash has `bit` set to the second.
    /// Returns false if one finds no room.
    fn refill(&self, from: u64, to: [u64; 2], bit: u32) -> Result<bool, Error> {
        let overflow = self.line().overflow.load(Ordering::Relaxed) != 0;
        // All entries of a bucket are fetched at once, and those of the next one before: they are
        // what a split waits for.
        let mut entries = [[None; SLOTS]; 2];
        let mut bucket = self.fetch(from, 0, &mut entries[0])?;
        for index in 0..=segment_mask(from) {
            let next = if index < segment_mask(from) {
                self.fetch(from, index + 1, &mut entries[(index + 1) & 1])?
            } else {
                bucket
            };
            for (slot, entry) in entries[index & 1].iter().enumerate() {
                let Some((entry, reference)) = entry else { continue };
                let kept = entry.word().load(Ordering::Relaxed) as u32;
                let target = to[usize::from(kept & bit != 0)];
                if !self.put(target, kept, bucket.tag(slot), *reference)? {
                    return Ok(false);
                }
            }
            if overflow && bucket.is_chained() {
                self.mark_heirs(index, segment_mask(from), to)?;
            }
            bucket = next;
        }
        step();
        Ok(true)
    }

    /// A bucket of a segment, whose entries are noted by their slots, and on their way.
    #[inline(always)]
    fn fetch(
        &self,
        word: u64,
        index: usize,
        entries: &mut [Option<(Entry<'s>, u32)>; SLOTS],
    ) -> Result<&'s Bucket, Error> {
        let bucket = self.core.bucket(segment_pointer(word) + 64 * index as u64)?;
        *entries = [None; SLOTS];
        for slot in Tags::of(bucket).used() {
            let reference = bucket.refs[slot].load(Ordering::Relaxed);
            let entry = self.core.entry(reference)?;
            prefetch(entry.base().as_ptr());
            entries[slot] = Some((entry, reference));
        }
        Ok(bucket)
    }

    /// Stores a reference in a segment that nobody else knows yet.
    fn put(&self, word: u64, kept: u32, tag: u8, reference: u32) -> Result<bool, Error> {
        for distance in 0..WINDOW.min(segment_mask(word) + 1) {
            let bucket = self.core.bucket(in_window(word, kept, distance))?;
            if let Some(slot) = Tags::of(bucket).free().first() {
                bucket.set_tag(slot, tag);
                bucket.refs[slot].store(reference, Ordering::Relaxed);
                return Ok(true);
            }
            bucket.set_passed(bucket.passed().saturating_add(1));
        }
        Ok(false)
    }

    /// Marks all buckets that an entry with home `index` may have for home now.
    fn mark_heirs(&self, index: usize, mask: usize, to: [u64; 2]) -> Result<(), Error> {
        for word in to {
            let common = mask & segment_mask(word);
            for heir in (0..=segment_mask(word)).filter(|heir| (heir ^ index) & common == 0) {
                self.core.bucket(segment_pointer(word) + 64 * heir as u64)?.set_chained();
            }
        }
        Ok(())
    }

    /// After a deletion: whether little enough is left to give memory back. See the module.
    #[inline(always)]
    pub(crate) fn may_shrink(&self) -> bool {
        let count = self.line().count.load(Ordering::Relaxed) as usize;
        let overflows = self.line().overflow.load(Ordering::Relaxed) != 0;
        count == 0 || overflows || (self.is_sparse(count) && count % 8 == 0)
    }

    #[inline(always)]
    fn is_sparse(&self, count: usize) -> bool {
        let slots = self.slots();
        slots > FIRST_BUCKETS * SLOTS && count * 8 < slots
    }

    /// After a deletion that [left little](Self::may_shrink): gives memory back.
    pub(crate) fn shrink(&self, kept: u32) -> Result<(), Error> {
        let count = self.line().count.load(Ordering::Relaxed) as usize;
        let sparse = self.is_sparse(count);
        // Two at most: a deletion empties one, and another one may have been waiting behind it.
        let _ = self.shrink_overflow()? && self.shrink_overflow()?;
        if sparse {
            self.shrink_index(kept)?;
        }
        if count == 0 { self.drain() } else { Ok(()) }
    }

    /// Frees the first overflow bucket if it is empty. Returns whether it was.
    pub(crate) fn shrink_overflow(&self) -> Result<bool, Error> {
        let first = self.line().overflow.load(Ordering::Relaxed);
        if first == 0 {
            return Ok(false);
        }
        let pointer = self.core.header().pointer(first);
        let bucket = self.core.bucket(pointer)?;
        if !Tags::of(bucket).used().is_empty() {
            return Ok(false);
        }
        self.hang(bucket.next(), pointer)?;
        Ok(true)
    }

    /// Merges or shrinks the segment of a hash. Returns whether something was given back.
    pub(crate) fn shrink_index(&self, kept: u32) -> Result<bool, Error> {
        let reach = self.reach(kept)?;
        if reach.local() == 0 {
            let entries = self.entries_in(reach.word)?;
            let mut buckets = FIRST_BUCKETS;
            while buckets * SLOTS < entries * 2 {
                buckets *= 2;
            }
            return if buckets * 2 <= reach.buckets() {
                self.resize(reach, buckets)
            } else {
                Ok(false)
            };
        }
        // The neighbour differs in the last bit that the directory looked at for this segment.
        let other = self.reach(kept ^ 1 << (32 - self.core.bits - reach.local()))?;
        if other.local() != reach.local()
            || self.entries_in(reach.word)? + self.entries_in(other.word)? > MAX_BUCKETS * SLOTS / 2
        {
            return Ok(false);
        }
        let Some(pointer) = self.try_make(0, MAX_BUCKETS * 64)? else { return Ok(false) };
        let word = segment_word(pointer, MAX_BUCKETS, reach.local() - 1);
        self.empty(word)?;
        if !self.refill(reach.word, [word; 2], 0)? || !self.refill(other.word, [word; 2], 0)? {
            return self.give_up();
        }
        let slots = self.slots() - MAX_BUCKETS * SLOTS;
        let old = [segment_pointer(reach.word), segment_pointer(other.word)];
        self.switch(reach.first.min(other.first), reach.span * 2, [word; 2], old, slots)?;
        self.flatten()?;
        Ok(true)
    }

    fn entries_in(&self, word: u64) -> Result<usize, Error> {
        let mut sum = 0;
        for i in 0..=segment_mask(word) as u64 {
            sum += Tags::of(self.core.bucket(segment_pointer(word) + 64 * i)?).used().len();
        }
        Ok(sum)
    }

    /// Halves the directory if no segment needs all of it.
    fn flatten(&self) -> Result<(), Error> {
        let directory = self.line().directory.load(Ordering::Relaxed);
        let (pointer, depth) = (pointer_of(directory), depth_of(directory));
        let words = 1u64 << depth;
        for i in 0..words {
            let word = self.core.word(pointer + 8 * i)?.load(Ordering::Relaxed);
            if depth_of(word) == depth {
                return Ok(());
            }
        }
        let inline = self.inline_directory();
        if pointer == inline {
            // From two words to one: they are the same.
            return self.redirect(directory_word(inline, 0), 0);
        }
        let smaller = if depth == 2 {
            inline
        } else {
            match self.try_make(0, 4 << depth)? {
                Some(pointer) => pointer,
                None => return Ok(()),
            }
        };
        for i in 0..words / 2 {
            let word = self.core.word(pointer + 16 * i)?.load(Ordering::Relaxed);
            self.core.word(smaller + 8 * i)?.store(word, Ordering::Relaxed);
        }
        self.redirect(directory_word(smaller, depth - 1), pointer)
    }
}

/// Asks for a line of memory ahead of its use.
#[inline(always)]
pub(crate) fn prefetch(at: *const u8) {
    #[cfg(all(target_arch = "x86_64", target_feature = "sse"))]
    {
        use core::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: a hint, for any address.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(at.cast()) };
    }
    #[cfg(not(all(target_arch = "x86_64", target_feature = "sse")))]
    let _ = at;
}

//! Walking through a partition.
//!
//! A [`Cursor`] says where in the index a walk is: directory word, bucket, slot, and after the
//! last segment the overflow. It holds no pointer, and is good as long as the partition stays
//! locked and its index is not rebuilt; so deletions during a walk leave the index alone.

use core::time::Duration;

use dsm_core::lock::SharedGuard;
use dsm_core::sync::Ordering;

use crate::error::Error;
use crate::follow::Astray;
use crate::layout::{Line, SLOTS};
use crate::locked::Locked;
use crate::partition::{Caller, Partition};
use crate::store::Store;
use crate::view::{Core, Entry, Found};
use crate::words::{depth_of, pointer_of, segment_mask, segment_pointer};

/// A position in a partition's index.
#[derive(Clone, Copy, Default)]
pub(crate) struct Cursor {
    /// Directory word; beyond the last one the walk is in the overflow.
    directory: usize,
    bucket: usize,
    slot: usize,
    /// In the overflow: the bucket; 0 for the first.
    overflow: u32,
}

impl<S: Store> Core<S> {
    /// The entry at or after the cursor, which moves behind it. The partition must be locked.
    pub(crate) fn advance<'t>(
        &'t self,
        line: &Line,
        cursor: &mut Cursor,
    ) -> Result<Option<Found<'t>>, Error> {
        let directory = line.directory.load(Ordering::Relaxed);
        let depth = depth_of(directory);
        while cursor.directory < 1 << depth {
            let word = self.word(pointer_of(directory) + 8 * cursor.directory as u64)?;
            let word = word.load(Ordering::Relaxed);
            while cursor.bucket <= segment_mask(word) {
                let pointer = segment_pointer(word) + 64 * cursor.bucket as u64;
                if let Some(found) = self.in_bucket(pointer, &mut cursor.slot)? {
                    return Ok(Some(found));
                }
                cursor.slot = 0;
                cursor.bucket += 1;
            }
            let above = depth.checked_sub(depth_of(word)).ok_or(Astray::DirectoryWord)?;
            cursor.bucket = 0;
            cursor.directory += 1 << above;
            cursor.overflow = 0;
        }
        if cursor.overflow == 0 {
            cursor.overflow = line.overflow.load(Ordering::Relaxed);
        }
        while cursor.overflow != 0 && cursor.overflow != u32::MAX {
            let pointer = self.header().pointer(cursor.overflow);
            if pointer % 64 != 0 {
                return Err(Astray::OverflowBucket.into());
            }
            if let Some(found) = self.in_bucket(pointer, &mut cursor.slot)? {
                return Ok(Some(found));
            }
            cursor.slot = 0;
            cursor.overflow = match self.bucket(pointer)?.next() {
                // Not zero, which would start over.
                0 => u32::MAX,
                next => next,
            };
        }
        Ok(None)
    }

    fn in_bucket<'t>(&'t self, pointer: u64, slot: &mut usize) -> Result<Option<Found<'t>>, Error> {
        let bucket = self.bucket(pointer)?;
        while *slot < SLOTS {
            let at = *slot;
            *slot += 1;
            let reference = bucket.refs[at].load(Ordering::Relaxed);
            if bucket.tag(at) != 0 && reference != 0 {
                let entry = self.entry(reference)?;
                return Ok(Some(Found { place: pointer | at as u64, bucket, reference, entry }));
            }
        }
        Ok(None)
    }
}

/// A walk through a table, one partition locked shared at a time.
pub(crate) struct Reading<'s, S: Store> {
    core: &'s Core<S>,
    caller: Caller<'s>,
    partition: usize,
    cursor: Cursor,
    lock: Option<SharedGuard<'s, S::Lock>>,
    /// How long each partition's lock is waited for, if not as the caller says.
    limit: Option<Duration>,
}

impl<'s, S: Store> Reading<'s, S> {
    pub(crate) fn new(core: &'s Core<S>, caller: Caller<'s>) -> Self {
        Self { core, caller, partition: 0, cursor: Cursor::default(), lock: None, limit: None }
    }

    pub(crate) fn each_within(&mut self, limit: Duration) {
        self.limit = Some(limit);
    }

    /// The next entry: there, and unchanged, until the next call.
    pub(crate) fn next(&mut self) -> Result<Option<Entry<'_>>, Error> {
        while self.partition < self.core.shape.partitions {
            if self.lock.is_none() {
                let caller = self.caller.within(self.limit);
                self.lock = Some(self.core.shared(caller, self.partition)?);
            }
            let line = self.core.line(self.partition);
            if let Some(Found { entry, .. }) = self.core.advance(line, &mut self.cursor)? {
                return Ok(Some(entry));
            }
            self.lock = None;
            self.partition += 1;
            self.cursor = Cursor::default();
        }
        Ok(None)
    }
}

/// A walk through a table, one partition locked exclusively at a time.
pub(crate) struct Changing<'s, S: Store> {
    core: &'s Core<S>,
    caller: Caller<'s>,
    partition: usize,
    cursor: Cursor,
    locked: Option<Locked<'s, S>>,
    /// As of [`Reading`].
    limit: Option<Duration>,
}

impl<'s, S: Store> Changing<'s, S> {
    pub(crate) fn new(core: &'s Core<S>, caller: Caller<'s>) -> Self {
        Self { core, caller, partition: 0, cursor: Cursor::default(), locked: None, limit: None }
    }

    pub(crate) fn each_within(&mut self, limit: Duration) {
        self.limit = Some(limit);
    }

    /// The next entry, guarded.
    pub(crate) fn next(&mut self) -> Result<Option<Current<'_, 's, S>>, Error> {
        while self.partition < self.core.shape.partitions {
            let locked = match self.locked.take() {
                Some(locked) => {
                    locked.confirm()?;
                    locked
                }
                None => self.core.exclusive(self.caller.within(self.limit), self.partition)?,
            };
            let line = self.core.line(self.partition);
            if let Some(found) = self.core.advance(line, &mut self.cursor)? {
                let locked = self.locked.insert(locked);
                locked.guard(&found);
                return Ok(Some(Current { locked, found }));
            }
            drop(locked);
            self.partition += 1;
            self.cursor = Cursor::default();
        }
        Ok(None)
    }
}

/// The entry at which a [`Changing`] walk stands; guarded until dropped.
pub(crate) struct Current<'a, 's, S: Store> {
    locked: &'a mut Locked<'s, S>,
    found: Found<'s>,
}

impl<S: Store> Current<'_, '_, S> {
    pub(crate) fn entry(&self) -> Entry<'_> {
        self.found.entry
    }

    pub(crate) fn set_poison(&mut self, poisoned: bool) {
        self.locked.set_poison(self.found.entry, poisoned);
    }

    pub(crate) fn delete(self) -> Result<(), Error> {
        self.locked.confirm()?;
        self.locked.delete_in_place(&self.found).map(drop)
    }
}

impl<S: Store> Drop for Current<'_, '_, S> {
    fn drop(&mut self) {
        self.locked.end();
    }
}

impl<S: Store> Locked<'_, S> {
    /// Deletes all entries and gives back what they needed, but for the first chunk.
    pub(crate) fn clear(&mut self) -> Result<(), Error> {
        let mut cursor = Cursor::default();
        while let Some(found) = self.core.advance(self.line(), &mut cursor)? {
            self.delete_in_place(&found)?;
        }
        self.compact()
    }

    /// Gives back the parts of the index that this partition does not need, and its empty chunks.
    pub(crate) fn compact(&mut self) -> Result<(), Error> {
        self.begin();
        self.shrink_all()?;
        if self.line().count.load(Ordering::Relaxed) == 0 { self.drain() } else { self.sweep() }
    }
}

impl<S: Store> Partition<'_, S> {
    fn shrink_all(&self) -> Result<(), Error> {
        while self.shrink_overflow()? {}
        let mut index = 0usize;
        loop {
            let depth = depth_of(self.line().directory.load(Ordering::Relaxed));
            if index >= 1 << depth {
                return Ok(());
            }
            let kept = ((index as u64) << 32 >> depth) as u32 >> self.core.bits;
            if self.shrink_index(kept)? {
                // The merged segment may find another neighbour that fits: look at it again, in a
                // directory that may have become smaller.
                index >>= depth - depth_of(self.line().directory.load(Ordering::Relaxed));
            } else {
                index += 1;
            }
        }
    }
}

//! Which entry of the directory a new segment gets. The area lock is held.
//!
//! An entry that is used again has another generation. There are 16,383 of them; then they start
//! over, provided that no process can take the new segment for one of those before. What a process
//! knows of an entry is in its table: a key, and a mapping, and as long as it has the mapping it
//! has the segment attached. So the namespace knows: if nobody has any segment attached that was
//! kept under this area and is not any more, no table has a key of a segment that was given back,
//! and none gets one, since what nobody has attached can't be attached any more. A process lets go
//! of what was given back when it allocates a run of pages (`sync_table`), and of all it has when
//! it ends. Until the last one has, the entry stays retired and others are used.
//!
//! What users keep of a segment that is gone are pointers to freed memory, which are good for
//! nothing at any time. One that is 16,383 generations old may mean an object of the new segment.
//!
//! The second part of the directory lies in a segment of the first part. So the last entry there
//! that can be had gets a segment for it, as short as can be, and whoever asked for a segment gets
//! the next entry. (It stays as long as the area: a segment that was made for something else, too,
//! would stay with all its length.) Killed in between, recovery finds an entry that is `CREATING`,
//! or the directory.

use dsm_core::lock::RawLock;
use dsm_core::sync::Ordering;

use super::Area;
use crate::error::Error;
use crate::header::{INLINE_ENTRIES, state};
use crate::pointer::DsaPointer;

impl<L: RawLock> Area<'_, L> {
    /// A directory entry to use, which is `FREE`.
    pub(super) fn free_entry(&self) -> Result<usize, Error> {
        let used = self.entries();
        let mut retired = None;
        for index in 1..used {
            match self.entry(index)?.load().1 {
                state::FREE => return Ok(index),
                state::RETIRED => retired = retired.or(Some(index)),
                _ => {}
            }
        }
        if let Some(index) = self.start_over(retired)? {
            return Ok(index);
        }
        let has_rest = self.header.directory.load(Ordering::Relaxed) != 0;
        if used >= DsaPointer::MAX_SEGMENTS || (used >= INLINE_ENTRIES && !has_rest) {
            // The dead may have what was given back.
            self.namespace.reap()?;
            return self.start_over(retired)?.ok_or(Error::TooManySegments);
        }
        self.entry(used)?.clear();
        self.entry(used)?.store(0, state::FREE);
        self.header.entries.store(used as u32 + 1, Ordering::Release);
        Ok(used)
    }

    /// Makes a retired entry one that was never used, if nobody can know its generations.
    fn start_over(&self, retired: Option<usize>) -> Result<Option<usize>, Error> {
        let Some(index) = retired else { return Ok(None) };
        if self.namespace.is_released_in_use(self.parent)? {
            return Ok(None);
        }
        self.entry(index)?.store(0, state::FREE);
        Ok(Some(index))
    }

    /// Whether the segment that is made for this entry brings the rest of the directory.
    pub(super) fn brings_directory(&self, index: usize) -> Result<bool, Error> {
        if index >= INLINE_ENTRIES || self.header.directory.load(Ordering::Relaxed) != 0 {
            return Ok(false);
        }
        for other in (1..INLINE_ENTRIES).filter(|other| *other != index) {
            if other >= self.entries() || self.entry(other)?.load().1 == state::FREE {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

#[cfg(all(test, not(loom)))]
mod tests;

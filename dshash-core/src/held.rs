//! Guards without types: a found entry and the lock that keeps it there.
//!
//! The typed and the untyped table wrap these two. While the exclusive one lives, the sequence
//! word is odd and the record says `GUARD`: if its holder dies, the entry is poisoned.

use dsm_core::lock::SharedGuard;
use dsm_core::sync::Ordering;

use crate::error::Error;
use crate::layout::POISON;
use crate::locked::{Caller, Fill, Locked};
use crate::store::Store;
use crate::view::{Core, Entry, Found};

/// An entry that nobody else can see.
pub(crate) struct Exclusive<'s, S: Store> {
    locked: Locked<'s, S>,
    found: Found<'s>,
}

impl<'s, S: Store> Exclusive<'s, S> {
    /// Guards an entry of a locked partition.
    #[inline(always)]
    pub(crate) fn new(mut locked: Locked<'s, S>, found: Found<'s>) -> Self {
        locked.guard(&found);
        Self { locked, found }
    }

    /// Inserts an entry that is known not to be there.
    #[inline]
    pub(crate) fn insert(
        mut locked: Locked<'s, S>,
        hash: u64,
        fill: Fill,
        write: impl FnOnce(Entry<'s>),
    ) -> Result<Self, Error> {
        let found = locked.insert(hash, fill, write)?;
        Ok(Self::new(locked, found))
    }

    #[inline]
    pub(crate) fn entry(&self) -> Entry<'_> {
        self.found.entry
    }

    #[inline]
    pub(crate) fn is_poisoned(&self) -> bool {
        self.found.entry.is_poisoned()
    }

    pub(crate) fn set_poison(&mut self, poisoned: bool) {
        self.locked.set_poison(self.found.entry, poisoned);
    }

    pub(crate) fn delete(mut self) -> Result<(), Error> {
        self.locked.delete(&self.found)
    }
}

impl<S: Store> Drop for Exclusive<'_, S> {
    #[inline(always)]
    fn drop(&mut self) {
        self.locked.end();
    }
}

impl Entry<'_> {
    #[inline]
    pub(crate) fn is_poisoned(self) -> bool {
        self.word().load(Ordering::Relaxed) & POISON != 0
    }
}

/// An entry that others may see, and nobody changes.
pub(crate) struct Shared<'s, S: Store> {
    _lock: SharedGuard<'s, S::Lock>,
    entry: Entry<'s>,
}

impl<'s, S: Store> Shared<'s, S> {
    #[inline]
    pub(crate) fn entry(&self) -> Entry<'_> {
        self.entry
    }
}

impl<S: Store> Core<S> {
    /// Finds an entry and keeps its partition from being changed.
    #[inline(always)]
    pub(crate) fn find_shared<'s>(
        &'s self,
        caller: Caller<'s>,
        hash: u64,
        is_it: impl FnMut(Entry<'_>) -> bool,
    ) -> Result<Option<Shared<'s, S>>, Error> {
        let partition = self.partition_of(hash);
        let line = self.line(partition);
        let ahead = self.home_ahead(line, hash);
        let lock = self.shared(caller, partition)?;
        let home = self.home_now(ahead, line, hash)?;
        let found = self.find_from(home, line, hash, usize::MAX, is_it)?;
        let Some(Found { entry, .. }) = found else { return Ok(None) };
        if entry.is_poisoned() {
            return Err(Error::Poisoned);
        }
        Ok(Some(Shared { _lock: lock, entry }))
    }

    /// Deletes the entry of a key, poisoned or not. Returns whether there was one.
    #[inline(always)]
    pub(crate) fn delete<'s>(
        &'s self,
        caller: Caller<'s>,
        hash: u64,
        is_it: impl FnMut(Entry<'_>) -> bool,
    ) -> Result<bool, Error> {
        let mut locked = self.idle(caller, self.partition_of(hash));
        let Some(found) = locked.acquire_and_find(caller.patience, hash, is_it)? else {
            return Ok(false);
        };
        locked.delete(&found)?;
        locked.end();
        Ok(true)
    }
}

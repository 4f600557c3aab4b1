//! Guards without types: a found entry and the lock that keeps it there.
//!
//! The typed and the untyped table wrap these two. While the exclusive one lives, the sequence
//! word is odd and the record says `GUARD`: if its holder dies, the entry is poisoned.

use core::mem::ManuallyDrop;

use dsm_core::lock::SharedGuard;
use dsm_core::sync::Ordering;

use crate::error::Error;
use crate::follow::{Anywhere, AtHand};
use crate::layout::POISON;
use crate::locked::{Fill, Locked};
use crate::partition::{Caller, Wait};
use crate::store::{Allocator, Store};
use crate::view::{Core, Entry, Found};

/// An entry that nobody else can see.
pub(crate) struct Exclusive<'s, S: Store> {
    /// Dropped by this one's `drop`: as a field that drops itself it would be dropped in a second
    /// place as well, for unwinding, and then nothing of it is inlined.
    locked: ManuallyDrop<Locked<'s, S>>,
    found: Found<'s>,
}

impl<'s, S: Store> Exclusive<'s, S> {
    /// Guards an entry of a locked partition.
    #[inline(always)]
    pub(crate) fn new(mut locked: Locked<'s, S>, found: Found<'s>) -> Self {
        locked.guard(&found);
        Self { locked: ManuallyDrop::new(locked), found }
    }

    /// Inserts an entry that is known not to be there.
    #[inline(always)]
    pub(crate) fn insert(
        locked: Locked<'s, S>,
        hash: u64,
        fill: Fill,
        write: impl FnOnce(Entry<'s>),
    ) -> Result<Self, Error> {
        let (locked, found) = locked.insert(hash, fill, write)?;
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

    #[inline(always)]
    pub(crate) fn set_poison(&mut self, poisoned: bool) {
        self.locked.set_poison(self.found.entry, poisoned);
    }

    pub(crate) fn delete(self) -> Result<(), Error> {
        self.locked.confirm()?;
        let mut this = ManuallyDrop::new(self);
        // SAFETY: taken out once, for what it was in is not dropped.
        let locked = unsafe { ManuallyDrop::take(&mut this.locked) };
        locked.delete(&this.found)
    }
}

impl<S: Store> Exclusive<'_, S> {
    /// Lets go of entry and lock: what dropping does, for those who want it inlined.
    #[inline(always)]
    pub(crate) fn release(self) {
        let mut this = ManuallyDrop::new(self);
        // SAFETY: it is not dropped.
        unsafe { this.end() };
    }

    /// # Safety
    ///
    /// Once, and nothing else is done with this afterwards.
    #[inline(always)]
    unsafe fn end(&mut self) {
        self.locked.end();
        // SAFETY: nothing else is done with it, as the caller promises.
        unsafe { self.locked.release() };
    }
}

impl<S: Store> Drop for Exclusive<'_, S> {
    #[inline(always)]
    fn drop(&mut self) {
        // SAFETY: this is the end.
        unsafe { self.end() };
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
        mut is_it: impl FnMut(Entry<'_>) -> bool,
    ) -> Result<Option<Shared<'s, S>>, Error> {
        match self.find_shared_at_once(caller, hash, &mut is_it) {
            Some(found) => Ok(found),
            None => {
                // Written through a reference, so that the result above need not be in memory.
                let mut found = None;
                let Caller { heap, wait, .. } = caller;
                self.find_shared_slowly(heap, wait, hash, &mut is_it, &mut found)?;
                Ok(found)
            }
        }
    }

    /// As [`find_shared`](Self::find_shared), if nothing is in the way: otherwise holds nothing and
    /// knows no reason.
    #[inline(always)]
    fn find_shared_at_once<'s>(
        &'s self,
        caller: Caller<'s>,
        hash: u64,
        is_it: &mut impl FnMut(Entry<'_>) -> bool,
    ) -> Option<Option<Shared<'s, S>>> {
        let partition = self.partition_of(hash);
        let line = self.line(partition);
        let home = self.home_ahead(line, hash).ok()?;
        let lock = self.lock(partition).shared_at_once(caller.participant)?;
        if line.seq.is_open() || !home.is_current(line) {
            return None;
        }
        match self.find_from::<AtHand>(home, line, hash, usize::MAX, is_it) {
            Ok(Some(Found { entry, .. })) if !entry.is_poisoned() => {
                Some(Some(Shared { _lock: lock, entry }))
            }
            Ok(None) => Some(None),
            _ => None,
        }
    }

    /// As [`find_shared`](Self::find_shared), whatever it takes.
    #[cold]
    #[inline(never)]
    fn find_shared_slowly<'s>(
        &'s self,
        heap: &'s dyn Allocator,
        wait: Wait,
        hash: u64,
        is_it: &mut impl FnMut(Entry<'_>) -> bool,
        result: &mut Option<Shared<'s, S>>,
    ) -> Result<(), Error> {
        let caller = Caller { participant: heap.participant(), heap, wait };
        let partition = self.partition_of(hash);
        let lock = self.shared(caller, partition)?;
        let line = self.line(partition);
        let home = self.home::<Anywhere>(line, hash)?;
        let found = self.find_from::<Anywhere>(home, line, hash, usize::MAX, is_it)?;
        let Some(Found { entry, .. }) = found else { return Ok(()) };
        if entry.is_poisoned() {
            return Err(Error::Poisoned);
        }
        *result = Some(Shared { _lock: lock, entry });
        Ok(())
    }

    /// Deletes the entry of a key, poisoned or not. Returns whether there was one.
    #[inline(always)]
    pub(crate) fn delete<'s>(
        &'s self,
        caller: Caller<'s>,
        hash: u64,
        is_it: impl FnMut(Entry<'_>) -> bool,
    ) -> Result<bool, Error> {
        let (locked, found) = self.take(caller, hash, false, is_it)?;
        let Some(found) = found else {
            locked.finish();
            return Ok(false);
        };
        locked.delete(&found)?;
        Ok(true)
    }
}

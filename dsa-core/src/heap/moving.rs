//! Taking objects out of words, and moving them: see `area::moving`.

use dsm_core::lock::RawLock;

use super::Heap;
use crate::error::Error;
use crate::pointer::{AtomicDsaPointer, DsaPointer};

impl<L: RawLock> Heap<'_, L> {
    /// Takes out of `word` what it names, which is the caller's from then on, and leaves the
    /// invalid pointer there; returns the invalid pointer if it finds that. Of several who take
    /// from a word one gets the object. Takes a lock.
    ///
    /// This, [`move_between`](Self::move_between) and [`free_from`](Self::free_from) are how a word
    /// into which others publish is emptied. To swap the pointer out by hand is an error that shows
    /// after a kill: if the producer died before it could say that the object is published, the
    /// object is freed and given out anew, for its word names it no longer.
    ///
    /// A process that is killed before it has stored the pointer anywhere loses the object.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidPointer`] if the word names no allocated object of this area;
    /// [`Error::Lock`]; [`Error::Namespace`] if a dead process was moving, freeing or publishing
    /// something to do with a segment that can't be mapped now. Nothing is changed then.
    pub fn take(&self, word: &AtomicDsaPointer) -> Result<DsaPointer, Error> {
        self.identify()?;
        self.area.take_named(self.participant, word)
    }

    /// Moves what `from` names to `to`, and returns it; the invalid pointer if `from` names
    /// nothing. Whenever this process is killed, exactly one of the two names the object, once
    /// somebody has used [`take`](Self::take), this or [`free_from`](Self::free_from) on the area
    /// again. The words may lie in the area, or in any segment of the namespace that this process
    /// has attached. Takes a lock.
    ///
    /// # Errors
    ///
    /// [`Error::Occupied`] if `to` names something; [`Error::ForeignDestination`] if one of the
    /// words is in no segment that this process has attached; else as [`take`](Self::take). Nothing
    /// is changed then.
    ///
    /// # Safety
    ///
    /// If this process is killed, somebody else may store 0 over the object's pointer in `from` up
    /// to the time that the area's page lock was taken after that, which each of these functions
    /// does: as long the memory of `from` must be used for nothing else, and nobody may have it
    /// exclusively, unless it no longer holds that pointer. That is so of memory that is never used
    /// for anything else; it is not of an object that is freed, or of an entry of a table.
    pub unsafe fn move_between(
        &self,
        from: &AtomicDsaPointer,
        to: &AtomicDsaPointer,
    ) -> Result<DsaPointer, Error> {
        self.identify()?;
        self.area.move_named(self.participant, from, to)
    }
}

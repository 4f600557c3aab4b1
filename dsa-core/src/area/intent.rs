//! One object, the words that name it, and what is being done to both: the intent.
//!
//! Some changes are of an object *and* of words that name it, and must be whole or absent. Whoever
//! makes one holds the page lock, and writes into the control block before: the object, the word
//! that is to name it no longer (`from`), the word that is to name it (`to`). One of the two may be
//! missing, which says what is being done:
//!
//! | from | to | what | file | what tells recovery how far it got |
//! |---|---|---|---|---|
//! | a word | | the object is freed | `free_from` | the object's truth |
//! | a word | a word | the object is moved | `moving` | whether `to` names it |
//! | | a word | the object is published | `heap::publish` | whether `to` names it |
//!
//! The word `object` is stored last and cleared first, so that what it names is described whole.
//! All three kinds complete the same way whoever does it, and as often as is liked.
//!
//! **Where words lie.** A word may be in any segment of the namespace: of this area, of another one (a
//! value of a table is in one), or in a segment of the application's. So a place is a segment's handle,
//! which says by its random bits which tenant of its slot is meant, and an offset. Whoever recovers
//! looks there whether it has the segment mapped or not (`Namespace::visit_segment`). If the segment is
//! gone, so is the word: nobody can find the object there any more. If it is there and can't be mapped
//! *now*, nothing is decided: the intent stays, and so does what it is about. The area can be used
//! meanwhile, but that nobody else can have an intent: who wants one tries again to complete the old
//! one, and is refused if that fails.
//!
//! **What recovery stores into words**: 0, over the name of the object that the intent is about, in
//! `from`. Nothing else, and nothing in `to`. Whatever became of the memory of a word, recovery never
//! puts anything there that was not asked for by who has it.

use dsm_core::handle::SegmentHandle;
use dsm_core::lock::{ExclusiveGuard, RawLock};
use dsm_core::participant::Participant;
use dsm_core::planted::{Bug, planted};
use dsm_core::sync::{AtomicU64, Ordering, compiler_fence};

use super::Area;
use super::runs::Located;
use crate::error::Error;
use crate::header::PlaceWords;
use crate::memory::Memory;
use crate::pointer::{AtomicDsaPointer, DsaPointer};
use crate::slab::{UNPUBLISHED, USED};

/// Where a word lies.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Place {
    segment: SegmentHandle,
    offset: u64,
}

impl PlaceWords {
    fn store(&self, place: Option<Place>) {
        self.segment.store(place.map_or(0, |p| p.segment.get()), Ordering::Relaxed);
        self.offset.store(place.map_or(0, |p| p.offset), Ordering::Relaxed);
    }

    fn load(&self) -> Option<Place> {
        let segment = SegmentHandle::from_raw(self.segment.load(Ordering::Relaxed))?;
        Some(Place { segment, offset: self.offset.load(Ordering::Relaxed) })
    }
}

impl<L: RawLock> Area<'_, L> {
    /// Where `word` lies.
    ///
    /// # Errors
    ///
    /// [`Error::ForeignDestination`] if it lies in no segment that this process has attached.
    pub(crate) fn place_of(&self, word: &AtomicDsaPointer) -> Result<Place, Error> {
        let address = core::ptr::from_ref(word).cast();
        let own = self.pointer_to(address).and_then(|pointer| {
            let handle = self.local.handle(pointer)?;
            Some(match SegmentHandle::from_raw(handle) {
                Some(segment) => Place { segment, offset: pointer.offset() },
                None => Place { segment: self.parent, offset: self.place + pointer.offset() },
            })
        });
        let any = || {
            let (segment, offset) = self.namespace.place_of(address)?;
            Some(Place { segment, offset })
        };
        own.or_else(any).ok_or(Error::ForeignDestination)
    }

    /// Takes the page lock, to look at words and objects: whatever a dead holder was doing to some
    /// is done.
    ///
    /// # Errors
    ///
    /// [`Error::Lock`]; [`Error::Namespace`] if what a dead holder was doing can't be completed
    /// now.
    pub(crate) fn lock_words<'p>(
        &'p self,
        participant: &'p Participant<'p>,
    ) -> Result<ExclusiveGuard<'p, L>, Error> {
        let guard = self.lock_pages(participant)?;
        if self.header.intent.object.load(Ordering::Relaxed) != 0 {
            self.complete_intent()?;
            // A run that was freed by it only now is in no index.
            self.recover_pages()?;
        }
        Ok(guard)
    }

    /// Writes down what is about to be done. The lock of [`lock_words`](Self::lock_words) is held.
    pub(crate) fn intend(&self, object: DsaPointer, from: Option<Place>, to: Option<Place>) {
        let intent = &self.header.intent;
        intent.from.store(from);
        intent.to.store(to);
        // Released: see `forget_intent`, after which this may follow at once.
        compiler_fence();
        intent.object.store(object.raw(), Ordering::Release);
        compiler_fence();
    }

    /// Says that it is done.
    pub(crate) fn forget_intent(&self) {
        compiler_fence();
        // Released: who finds it forgotten, and holds no lock, sees what was done to the object.
        self.header.intent.object.store(0, Ordering::Release);
        compiler_fence();
    }

    /// Whether a dead holder of the page lock was doing something to an object that could not be
    /// completed yet: it must be left as it is.
    pub(super) fn is_undecided(&self, object: DsaPointer) -> bool {
        self.header.intent.object.load(Ordering::Acquire) == object.raw()
    }

    /// As [`complete_intent`](Self::complete_intent), in a dead holder's stead: where a word's
    /// segment can't be mapped now the intent stays.
    pub(super) fn recover_intent(&self) -> Result<(), Error> {
        match self.complete_intent() {
            Err(Error::Namespace(_)) => Ok(()),
            done => done,
        }
    }

    /// Completes what a dead holder of the page lock was doing, if anything; repeatable. The page
    /// lock is held.
    fn complete_intent(&self) -> Result<(), Error> {
        let intent = &self.header.intent;
        let object = DsaPointer::from_raw(intent.object.load(Ordering::Relaxed));
        if !object.is_valid() {
            return Ok(());
        }
        match (intent.from.load(), intent.to.load()) {
            (Some(from), Some(to)) => self.complete_move(object, from, to)?,
            (Some(from), None) => self.complete_free(object, from)?,
            (None, Some(to)) => {
                if self.is_named_at(to, object)? && !planted(Bug::PublicationElsewhereIgnored) {
                    match self.settle_named(object) {
                        // Who found it there has freed it already.
                        Ok(()) | Err(Error::InvalidPointer(_)) => {}
                        Err(e) => return Err(e),
                    }
                }
            }
            (None, None) => {}
        }
        self.forget_intent();
        Ok(())
    }

    /// What `look` makes of the word at `place`; `None` if it is gone.
    ///
    /// # Errors
    ///
    /// [`Error::Namespace`] if it can't be mapped now.
    fn visit<T>(
        &self,
        place: Place,
        look: impl FnOnce(&AtomicU64) -> T,
    ) -> Result<Option<T>, Error> {
        let visited = self.namespace.visit_segment(place.segment, |base, len| {
            // SAFETY: mapped as long as this function runs; one word of it is used, as an atomic.
            let memory = unsafe { Memory::new(base, len as u64) };
            // Where no word can be there is none.
            memory.at(place.offset).ok().map(look)
        })?;
        Ok(visited.flatten())
    }

    /// Whether the word at `place` names `object`.
    pub(super) fn is_named_at(&self, place: Place, object: DsaPointer) -> Result<bool, Error> {
        let named = self.visit(place, |word| word.load(Ordering::Acquire) == object.raw())?;
        Ok(named.unwrap_or(false))
    }

    /// Clears the word at `place` if it names `object`.
    pub(super) fn clear_at(&self, place: Place, object: DsaPointer) -> Result<(), Error> {
        self.visit(place, |word| {
            let _ = word.compare_exchange(object.raw(), 0, Ordering::AcqRel, Ordering::Relaxed);
        })?;
        compiler_fence();
        Ok(())
    }

    /// Makes an object that a word was found to name an ordinary one, if it is not published yet.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidPointer`] if no allocated object starts there.
    pub(crate) fn settle_named(&self, object: DsaPointer) -> Result<(), Error> {
        let wild = Error::InvalidPointer(object);
        let located = self.locate(object).map_err(|e| match e {
            // It may name the segment alone, which is gone.
            Error::InvalidPointer(_) => wild,
            e => e,
        })?;
        match located {
            Located::Slab(slab) => {
                let truth = slab.truth(slab.index_of(object).ok_or(wild)?)?;
                let settled =
                    truth.compare_exchange(UNPUBLISHED, USED, Ordering::AcqRel, Ordering::Relaxed);
                if settled.is_ok() || settled == Err(USED) { Ok(()) } else { Err(wild) }
            }
            Located::Large { published: true, .. } => Ok(()),
            Located::Large { pages, tables, page, .. } => {
                tables.publish_run(page, pages)?;
                Ok(())
            }
            Located::Unknown => Err(wild),
        }
    }
}

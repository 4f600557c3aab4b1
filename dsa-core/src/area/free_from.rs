//! Freeing what one word names, so that a kill leaks nothing: the dual of publishing.
//!
//! A structure that gives memory back has one word (a field of its record, say) that still names
//! it. Two things have to happen: the word is cleared, the object's truth says "free". Either order
//! of two stores has a gap: clear first, and a kill in between leaves an object that nobody names;
//! free first, and whoever recovers finds a word that names what may be somebody else's by then. So
//! both are one change, carried by an intent (see `intent`), which is written, and carried out,
//! under the page lock:
//!
//! ```text
//!   object of a slab                   run of pages
//!   intent: the object, from the word  the same          <- commits a run
//!   truth byte 1 or 2 -> 3   <- commits
//!   the word = 0                       the word = 0
//!   truth byte 3 -> 0                  page word = 0, bitmap, tree
//!   no intent                          no intent
//! ```
//!
//! **Recovery** is part of the page lock's (`recover_pages`), so that it comes before anything else
//! that is done under that lock. A run can't be allocated anew without the page lock: whatever the
//! intent names is still that run, or free, and all steps are repeated. An object of a slab can: its
//! slab's owner takes no lock. That is what 3, *being freed*, is for: only the holder of the page lock
//! stores it, for one object at a time, and nobody else ever changes it. So a 3 where the intent
//! points is that very change, to be completed, and anything else means that it had not begun or that
//! only the last store was missing: then the object is left alone, whosesoever it is.
//!
//! **What the structure sees** after a kill: its word names the object (nothing has happened, or it
//! has but for what the page lock's next owner completes), or is 0 (the object is free, or will be
//! with the next use of the page lock). It calls `free_from` again in the first case and forgets
//! the word in the second; the call takes the page lock, and looks at the word only then.
//!
//! A dead allocator's unpublished object can be freed like this, too. Who looks for the property of
//! the dead decides about a 2 by a compare-and-swap of it, which a 3 makes fail; about an
//! unpublished run under the page lock.

use dsm_core::lock::RawLock;
use dsm_core::participant::Participant;
use dsm_core::planted::{Bug, planted};
use dsm_core::sync::{AtomicU8, Ordering, compiler_fence};

use super::Area;
use super::intent::Place;
use super::runs::Located;
use crate::error::{Error, FreeError};
use crate::heap::{Due, count};
use crate::layout::PAGE;
use crate::pages::Pages;
use crate::pointer::{AtomicDsaPointer, DsaPointer};
use crate::slab::{FREE, FREEING, Slab, is_allocated};

/// What was freed.
pub(crate) enum Freed<'m> {
    /// Nothing: the word named nothing.
    Nothing,
    /// An object of a slab, with its truth byte, and what is due now.
    Object { pointer: DsaPointer, slab: Slab<'m>, truth: &'m AtomicU8, due: Due },
    /// A run of pages.
    Run,
}

impl<L: RawLock> Area<'_, L> {
    /// Frees what `dest` names, and clears it.
    pub(crate) fn free_named(
        &self,
        participant: &Participant<'_>,
        dest: &AtomicDsaPointer,
    ) -> Result<Freed<'_>, FreeError> {
        let at = self.place_of(dest)?;
        let pointer = {
            let _pages = self.lock_words(participant)?;
            // Not earlier: the lock's recovery may have cleared it.
            let pointer = dest.load(Ordering::Acquire);
            if !pointer.is_valid() {
                return Ok(Freed::Nothing);
            }
            let wild = FreeError::InvalidPointer(pointer);
            let located = self.locate(pointer).map_err(|e| match e {
                Error::InvalidPointer(_) => wild,
                e => FreeError::Refused(e),
            })?;
            match located {
                Located::Slab(slab) => {
                    let index = slab.index_of(pointer).ok_or(wild)?;
                    let truth = slab.truth(index)?;
                    self.intend(pointer, Some(at), None);
                    let began = begin(truth);
                    let mut due = Due::Nothing;
                    if began {
                        dest.store(DsaPointer::INVALID, Ordering::Release);
                        compiler_fence();
                        if planted(Bug::IntentForgottenEarly) {
                            self.forget_intent();
                        }
                        due = complete(&slab, truth);
                    }
                    self.forget_intent();
                    if !began {
                        return Err(FreeError::DoubleFree(pointer));
                    }
                    return Ok(Freed::Object { pointer, slab, truth, due });
                }
                Located::Large { pages, tables, page, .. } => {
                    let entry = self.entry(pointer.segment())?;
                    self.intend(pointer, Some(at), None);
                    dest.store(DsaPointer::INVALID, Ordering::Release);
                    compiler_fence();
                    let released = self.release_pages(entry, &tables, page, pages);
                    if !planted(Bug::IntentKept) {
                        self.forget_intent();
                    }
                    released?;
                    pointer
                }
                Located::Unknown => return Err(self.why_unknown(pointer)?),
            }
        };
        self.give_back_surplus(participant, pointer.segment());
        Ok(Freed::Run)
    }

    /// Completes what a dead holder of the page lock was freeing; repeatable. The page lock is
    /// held, and the tables of pages are made anew if a run was freed.
    pub(super) fn complete_free(&self, pointer: DsaPointer, from: Place) -> Result<(), Error> {
        match self.locate(pointer) {
            Ok(Located::Slab(slab)) => {
                if let Some(index) = slab.index_of(pointer) {
                    let truth = slab.truth(index)?;
                    if planted(Bug::TruthUnlooked) && truth.load(Ordering::Acquire) != FREE {
                        truth.store(FREEING, Ordering::Release);
                    }
                    if truth.load(Ordering::Acquire) == FREEING {
                        self.clear_at(from, pointer)?;
                        complete(&slab, truth);
                    }
                }
            }
            Ok(Located::Large { tables, page, .. }) => {
                if !planted(Bug::WordKept) {
                    self.clear_at(from, pointer)?;
                }
                tables.clear_run(page)?;
            }
            // The page word was cleared: the last steps were missing.
            Ok(Located::Unknown) | Err(Error::InvalidPointer(_)) => {}
            Err(e) => return Err(e),
        }
        Ok(())
    }

    /// What is wrong with a pointer to a page that starts no run. The page lock is held.
    fn why_unknown(&self, pointer: DsaPointer) -> Result<FreeError, Error> {
        let memory = self.map(pointer.key())?;
        let tables = Pages::new(memory, self.geometry_of(pointer.segment(), memory.len())?);
        Ok(if tables.is_free((pointer.offset() / PAGE) as u32)? {
            FreeError::DoubleFree(pointer)
        } else {
            FreeError::InvalidPointer(pointer)
        })
    }
}

/// Commits: the object is being freed. False if somebody else has freed it at this moment.
pub(crate) fn begin(truth: &AtomicU8) -> bool {
    let mut value = truth.load(Ordering::Relaxed);
    while is_allocated(value) {
        match truth.compare_exchange(value, FREEING, Ordering::AcqRel, Ordering::Relaxed) {
            Ok(_) => {
                compiler_fence();
                return true;
            }
            Err(now) => value = now,
        }
    }
    false
}

/// The object is free: counts it, then one compare-and-swap as the last store, like any free by
/// others than the slab's owner.
pub(crate) fn complete(slab: &Slab<'_>, truth: &AtomicU8) -> Due {
    let counted = count(slab.header, true);
    let _ = truth.compare_exchange(FREEING, FREE, Ordering::AcqRel, Ordering::Relaxed);
    counted.freed(slab.header)
}

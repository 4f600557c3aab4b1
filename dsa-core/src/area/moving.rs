//! Taking an object out of a word, and moving it from one word to another: what those owe who find
//! an object where somebody else has published it.
//!
//! A producer that publishes stores the pointer first and says in the object's truth after that
//! that it is published (see `heap::publish`). Killed in between, it leaves an unpublished object
//! that a word names: whoever looks for the property of the dead settles the object *because the
//! word names it*, and would free it otherwise. So who takes the pointer out of the word settles
//! the object before the word is cleared, never after; by hand (`swap`) nobody can, and the object
//! would have a second owner as soon as it is given out again. All that change words (these two,
//! and `free_from`) hold the page lock meanwhile, so that no two of them get one object.
//!
//! ```text
//!   take                      move                                    killed after it
//!   truth 2 -> 1              truth 2 -> 1                            the word names the object
//!   the word = 0  <- commits                                          the taker alone knows it
//!                             intent: the object, from, to            `from` names the object
//!                             to = the object, if it was 0 <- commits both do; `from` is about to be cleared
//!                             from = 0                                `to` names the object
//!                             no intent
//! ```
//!
//! (For a run of pages "truth 2 -> 1" is its page word, from unpublished to published.)
//!
//! **Recovery** of a move (part of the page lock's, see `intent`): if `to` names the object, `from` is
//! cleared. If it does not, nothing has happened. Who takes the page lock after a death never sees an
//! object that two words name. Who reads words without it may; so nothing but a look may be done to words
//! by those who don't take the lock.
//!
//! What a taker has in hand when it is killed is lost: it had not been stored anywhere. Moving, and
//! `free_from`, have no such moment.

use dsm_core::lock::RawLock;
use dsm_core::participant::Participant;
use dsm_core::planted::{Bug, planted};
use dsm_core::sync::{Ordering, compiler_fence};

use super::Area;
use super::intent::Place;
use crate::error::Error;
use crate::pointer::{AtomicDsaPointer, DsaPointer};

impl<L: RawLock> Area<'_, L> {
    /// Takes out of `word` what it names.
    pub(crate) fn take_named(
        &self,
        participant: &Participant<'_>,
        word: &AtomicDsaPointer,
    ) -> Result<DsaPointer, Error> {
        let _pages = self.lock_words(participant)?;
        loop {
            let object = word.load(Ordering::Acquire);
            if !object.is_valid() {
                return Ok(object);
            }
            if !planted(Bug::TakenUnsettled) {
                self.settle_named(object)?;
            }
            compiler_fence();
            if clear(word, object) {
                return Ok(object);
            }
            // A producer has just stored another one over it.
        }
    }

    /// Moves what `from` names to `to`.
    pub(crate) fn move_named(
        &self,
        participant: &Participant<'_>,
        from: &AtomicDsaPointer,
        to: &AtomicDsaPointer,
    ) -> Result<DsaPointer, Error> {
        let places = (Some(self.place_of(from)?), Some(self.place_of(to)?));
        let _pages = self.lock_words(participant)?;
        let object = from.load(Ordering::Acquire);
        if !object.is_valid() {
            return Ok(object);
        }
        let there = to.load(Ordering::Acquire);
        if there.is_valid() {
            return Err(Error::Occupied(there));
        }
        self.settle_named(object)?;
        self.intend(object, places.0, places.1);
        let stored =
            to.compare_exchange(DsaPointer::INVALID, object, Ordering::AcqRel, Ordering::Acquire);
        compiler_fence();
        if stored.is_ok() {
            if planted(Bug::MoveIntentForgotten) {
                self.forget_intent();
            }
            clear(from, object);
        }
        self.forget_intent();
        // A producer was faster than this one.
        stored.map(|_| object).map_err(Error::Occupied)
    }

    /// Completes a dead holder's move; repeatable. The page lock is held.
    pub(super) fn complete_move(
        &self,
        object: DsaPointer,
        from: Place,
        to: Place,
    ) -> Result<(), Error> {
        if self.is_named_at(to, object)? { self.clear_at(from, object) } else { Ok(()) }
    }
}

/// Clears a word that names `object`; false if it names something else by now.
fn clear(word: &AtomicDsaPointer, object: DsaPointer) -> bool {
    let none = DsaPointer::INVALID;
    word.compare_exchange(object, none, Ordering::AcqRel, Ordering::Relaxed).is_ok()
}

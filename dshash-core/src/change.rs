//! Changes of structure, each carried by one word of the record.
//!
//! Whatever replaces memory by other memory goes the same way:
//!
//! ```text
//! BUILD      allocate into `made`, fill it; nobody knows it yet       undone: free `made`
//! <what>     note in `old`, `target`, `words` what to store and free,
//!            then what in `change`                                    from here on: redone
//!            the stores; `made` = 0: it belongs to the table now
//! FREE       free `old`
//! ```
//!
//! `change` is written last of a phase and all steps of a phase can be repeated, so that one
//! function, [`Partition::carry_out`], is both the second half of every change and its recovery.
//! Nothing is lost on the way: memory and the word of the record that names it come
//! (`allocate_into`) and go (`free_from`) together. Between changes `made` and `old` are zero.

use dsa_core::{AtomicDsaPointer, DsaPointer};
use dsm_core::planted::{Bug, planted};
use dsm_core::sync::Ordering;

use crate::error::{Error, MemoryError};
use crate::partition::Partition;
use crate::step::step;
use crate::store::Store;
use crate::words::{Fresh, depth_of, expressible, pointer_of};

const NONE: u64 = 0;
const BUILD: u64 = 1;
/// Stores `words[0]` in the first half and `words[1]` in the second half of the directory words
/// from `target`'s lower half on, as many as its upper half says. Upper half of `change`: slots of
/// the index then.
const SWITCH: u64 = 2;
/// Stores `words[0]` as the partition's directory.
const REDIRECT: u64 = 3;
/// Stores `words[0]` as the first overflow bucket.
const HANG: u64 = 4;
/// Stores `words[0]` as the newest chunk and `words[1]` as its fresh entries.
const ADD_CHUNK: u64 = 5;
/// Stores `words[1]` as what follows the chunk at `words[0]`; 0 there for the head of the list.
const DROP_CHUNK: u64 = 6;
const FREE: u64 = 7;

impl<S: Store> Partition<'_, S> {
    /// Opens a change and allocates its `index`th piece, whose pointer is returned.
    pub(crate) fn make(&self, index: usize, size: usize, align: usize) -> Result<u64, Error> {
        self.set_change(BUILD);
        let destination = &self.record().made[index];
        self.heap.allocate_into(destination, size, align)?;
        let pointer = destination.load(Ordering::Relaxed).raw();
        if !expressible(pointer, size) {
            return Err(MemoryError::SegmentTooLarge.into());
        }
        self.core.header().note_generation(pointer);
        Ok(pointer)
    }

    /// Gives up what was made.
    pub(crate) fn abandon(&self) -> Result<(), Error> {
        self.carry_out()
    }

    /// Replaces index segments; see [`SWITCH`].
    pub(crate) fn switch(
        &self,
        first: usize,
        span: usize,
        words: [u64; 2],
        old: [u64; 2],
        slots: usize,
    ) -> Result<(), Error> {
        self.set_old(old);
        self.record().target.store(first as u64 | (span as u64) << 32, Ordering::Relaxed);
        self.commit(SWITCH | (slots as u64) << 32, words)
    }

    /// Replaces the directory.
    pub(crate) fn redirect(&self, word: u64, old: u64) -> Result<(), Error> {
        self.set_old([old, 0]);
        self.commit(REDIRECT, [word, 0])
    }

    /// Replaces the first overflow bucket.
    pub(crate) fn hang(&self, first: u32, old: u64) -> Result<(), Error> {
        self.set_old([old, 0]);
        self.commit(HANG, [u64::from(first), 0])
    }

    /// Enters a new chunk.
    pub(crate) fn add_chunk(&self, chunk: u32, fresh: Fresh) -> Result<(), Error> {
        self.commit(ADD_CHUNK, [u64::from(chunk), fresh.word()])
    }

    /// Takes a chunk out of the list and frees it.
    pub(crate) fn drop_chunk(&self, before: u64, chunk: u64, next: u32) -> Result<(), Error> {
        self.set_old([chunk, 0]);
        self.commit(DROP_CHUNK, [before, u64::from(next)])
    }

    fn set_old(&self, old: [u64; 2]) {
        for (word, old) in self.record().old.iter().zip(old) {
            word.store(DsaPointer::from_raw(old), Ordering::Relaxed);
        }
    }

    fn commit(&self, change: u64, words: [u64; 2]) -> Result<(), Error> {
        self.record().words[0].store(words[0], Ordering::Relaxed);
        self.record().words[1].store(words[1], Ordering::Relaxed);
        if planted(Bug::OldFreedFirst) {
            self.free_all(&self.record().old)?;
        }
        self.set_change(change);
        self.carry_out()
    }

    fn set_change(&self, change: u64) {
        step();
        self.record().change.store(change, Ordering::Relaxed);
        step();
    }

    /// Brings whatever change is under way to its end, or undoes it if it is still `BUILD`.
    pub(crate) fn carry_out(&self) -> Result<(), Error> {
        let record = self.record();
        let change = record.change.load(Ordering::Relaxed);
        let words = [0, 1].map(|i| record.words[i].load(Ordering::Relaxed));
        match change & 0xffff_ffff {
            // Whatever `old` names was not committed: it is still in use.
            NONE => {
                self.set_old([0, 0]);
                return Ok(());
            }
            BUILD => {
                self.set_old([0, 0]);
                self.free_all(&record.made)?;
                self.set_change(NONE);
                return Ok(());
            }
            SWITCH => {
                self.store_words(record.target.load(Ordering::Relaxed), words)?;
                self.line().slots.store((change >> 32) as u32, Ordering::Relaxed);
            }
            REDIRECT => self.line().directory.store(words[0], Ordering::Release),
            HANG => self.line().overflow.store(words[0] as u32, Ordering::Release),
            ADD_CHUNK => {
                Fresh::from_word(words[1]).store(&self.line().fresh);
                self.line().chunks.store(words[0] as u32, Ordering::Relaxed);
            }
            DROP_CHUNK if words[0] == 0 => {
                self.line().chunks.store(words[1] as u32, Ordering::Relaxed);
            }
            DROP_CHUNK => self.core.chunk(words[0])?.next.store(words[1] as u32, Ordering::Relaxed),
            FREE => {}
            _ => return Err(Error::Corrupt("a partition's record")),
        }
        if change != FREE {
            step();
            record.made.iter().for_each(|made| made.store(DsaPointer::INVALID, Ordering::Relaxed));
            self.set_change(FREE);
        }
        self.free_all(&record.old)?;
        self.set_change(NONE);
        Ok(())
    }

    pub(crate) fn store_words(&self, target: u64, words: [u64; 2]) -> Result<(), Error> {
        let directory = self.line().directory.load(Ordering::Relaxed);
        let (first, span) = ((target & 0xffff_ffff) as usize, (target >> 32) as usize);
        if first + span > 1 << depth_of(directory) {
            return Err(Error::Corrupt("a partition's record"));
        }
        for i in 0..span {
            let word = words[usize::from(i >= span.div_ceil(2))];
            let at = self.core.word(pointer_of(directory) + 8 * (first + i) as u64)?;
            at.store(word, Ordering::Release);
        }
        Ok(())
    }

    fn free_all(&self, words: &[AtomicDsaPointer; 2]) -> Result<(), Error> {
        for word in words {
            if word.load(Ordering::Relaxed).is_valid() {
                // SAFETY: memory of this partition that nothing leads to any more: new and not
                // linked, or replaced. Late readers without the lock only read.
                unsafe { self.heap.free_from(word) }?;
            }
        }
        Ok(())
    }
}

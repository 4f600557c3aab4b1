//! What a partition's next owner does when the last one died inside.
//!
//! The record says what was under way; everything before the death was written in program order,
//! since only processor and compiler of the dead could have reordered it for others, and they are
//! done. A change of structure is carried out or undone first (`change`): it never overlaps an
//! operation on an entry. Then the operation:
//!
//! - `INSERT`: if the bucket's slot holds the reference, the entry is in: only the count may be
//!   missing. Otherwise the tag goes, and so does the entry, back to the free list, unless it had
//!   not left it yet. Such as were raised, `passed` counts stay: too high costs a look, no more.
//! - `INSERT_UNFILLED`: likewise, but an entry that is in has a value that nobody completed: it is
//!   poisoned.
//! - `DELETE`: if the slot still holds the reference nothing has happened. Otherwise the entry is
//!   out: the tag goes, the entry is pushed on the free list if that had not happened.
//! - `GUARD`: the value may be half-written: the entry is poisoned.
//! - `REBUILD`: the free list is rebuilt from the entries' `LIVE` bits.
//!
//! Entry counts are restored from the record, so that they are exact. All steps can be repeated,
//! should the recoverer die too. It all takes a handful of stores, except for `REBUILD`, which
//! takes as long as what it completes, and a switch of directory words or the freeing of chunks
//! that were under way. No function of the user is called.

use dsm_core::planted::{Bug, planted};
use dsm_core::sync::Ordering;

use crate::error::Error;
use crate::layout::{OP_DELETE, OP_GUARD, OP_INSERT, OP_INSERT_UNFILLED, OP_REBUILD, SLOTS};
use crate::partition::Partition;
use crate::step::step;
use crate::store::Store;
use crate::words::Fresh;

impl<S: Store> Partition<'_, S> {
    /// Completes or undoes what the record says, and makes the sequence word even again.
    pub(crate) fn replay(&self) -> Result<(), Error> {
        self.carry_out()?;
        let op = self.record().op.load(Ordering::Relaxed);
        let reference = op as u32;
        match op >> 32 {
            0 => {}
            op @ (OP_INSERT | OP_INSERT_UNFILLED) => {
                if self.settle_insert(reference)? && op == OP_INSERT_UNFILLED {
                    self.set_poison(self.core.entry(reference)?, true);
                }
            }
            OP_DELETE => self.settle_delete(reference)?,
            OP_GUARD if planted(Bug::PoisonForgotten) => {}
            OP_GUARD => self.set_poison(self.core.entry(reference)?, true),
            OP_REBUILD => self.rebuild()?,
            _ => return Err(Error::Corrupt("a partition's record")),
        }
        self.set_op(0);
        self.settle_sequence();
        Ok(())
    }

    /// Returns whether the entry is in.
    fn settle_insert(&self, reference: u32) -> Result<bool, Error> {
        let (is_in, count) = self.look(reference)?;
        if !is_in {
            let line = self.line();
            let free = line.free.load(Ordering::Relaxed);
            let fresh = Fresh::load(&line.fresh);
            // Still where it was to be taken from.
            let untaken = free == reference || (fresh.count() != 0 && fresh.first() == reference);
            if !untaken {
                self.push_free(reference, self.core.entry(reference)?);
            }
        }
        if !planted(Bug::CountTrusted) {
            self.line().count.store(count + u32::from(is_in), Ordering::Relaxed);
        }
        Ok(is_in)
    }

    fn settle_delete(&self, reference: u32) -> Result<(), Error> {
        let (is_in, count) = self.look(reference)?;
        if is_in {
            self.line().count.store(count, Ordering::Relaxed);
            return Ok(());
        }
        if self.line().free.load(Ordering::Relaxed) != reference {
            self.push_free(reference, self.core.entry(reference)?);
        }
        self.line().count.store(count.wrapping_sub(1), Ordering::Relaxed);
        Ok(())
    }

    /// Whether the recorded slot holds the reference; if not, its tag is cleared. And the
    /// recorded count.
    fn look(&self, reference: u32) -> Result<(bool, u32), Error> {
        let place = self.record().place.load(Ordering::Relaxed);
        let count = self.record().count.load(Ordering::Relaxed) as u32;
        let slot = (place & 63) as usize;
        if slot >= SLOTS {
            return Err(Error::Corrupt("a partition's record"));
        }
        let bucket = self.core.bucket(place & !63)?;
        let is_in = bucket.refs[slot].load(Ordering::Relaxed) == reference;
        if !is_in {
            bucket.set_tag(slot, 0);
            step();
        }
        Ok((is_in, count))
    }
}

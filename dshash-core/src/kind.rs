//! What a table is made for.

use core::num::NonZeroU32;

use crate::error::{Error, Parameter};
use crate::layout::{ENTRY_HEADER, UNIT};

/// What a table is made for: compared with what the header says on every attach.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Kind {
    pub(crate) key_size: usize,
    pub(crate) entry_size: usize,
    pub(crate) align: usize,
    pub(crate) hash_identity: u64,
    pub(crate) type_tag: u64,
}

/// Longest entry in bytes, header included.
const MAX_ENTRY: usize = 1 << 20;

impl Kind {
    /// Where an entry's key begins: after the header, aligned.
    pub(crate) const fn data_offset(&self) -> usize {
        if self.align > ENTRY_HEADER { self.align } else { ENTRY_HEADER }
    }

    /// From one entry to the next.
    pub(crate) const fn stride(&self) -> usize {
        (self.data_offset() + self.entry_size).next_multiple_of(UNIT)
    }

    /// [`stride`](Self::stride) as tables keep it.
    pub(crate) fn stride_word(&self) -> Result<NonZeroU32, Error> {
        let (size, most) = (self.entry_size as u64, (MAX_ENTRY - UNIT) as u64);
        let word = u32::try_from(self.stride()).ok().and_then(NonZeroU32::new);
        word.ok_or(Error::Parameter(Parameter::EntrySize, size, most))
    }

    pub(crate) fn check(&self) -> Result<(), Error> {
        let wrong = |what, got: usize, allowed: usize| {
            Err(Error::Parameter(what, got as u64, allowed as u64))
        };
        if !self.align.is_power_of_two() || self.align > UNIT {
            return wrong(Parameter::Alignment, self.align, UNIT);
        }
        if self.entry_size > MAX_ENTRY - UNIT {
            return wrong(Parameter::EntrySize, self.entry_size, MAX_ENTRY - UNIT);
        }
        if self.key_size == 0 || self.key_size > self.entry_size {
            return wrong(Parameter::KeySize, self.key_size, self.entry_size);
        }
        Ok(())
    }
}

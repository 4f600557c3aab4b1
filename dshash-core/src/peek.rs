//! Looking at a table from outside: for tools.
//!
//! Who looks from outside has no participant, and so takes no lock and recovers nothing: an entry
//! that its holder died with is to be seen as it is. Entries are copied as lock-free reads copy
//! them (see [`racy_copy`]), each by itself. One that was not being changed meanwhile is *settled*;
//! one that is still being changed after a few attempts, or that nobody will ever finish changing,
//! is shown all the same, and said not to be. Entries that move from one index segment to another
//! while the walk is under way may be seen twice, or not at all.
//!
//! The number of steps is bounded by the partition's entry count, in case the index is damaged
//! and leads in a circle.

use dsm_core::sync::{Ordering, spin_loop};
use zerocopy::IntoBytes;

use crate::error::Error;
use crate::layout::POISON;
use crate::racy_copy;
use crate::store::Store;
use crate::table::{Key, Table, Value};
use crate::walk::Cursor;

/// Attempts to see an entry while nobody changes its partition.
const ATTEMPTS: usize = 1000;
/// Entries beyond the partition's count that may be seen because of moves.
const SLACK: u32 = 1000;

/// An entry seen from outside.
#[derive(Clone, Copy, Debug)]
pub struct Peeked<K, V> {
    /// A copy of the key.
    pub key: K,
    /// A copy of the value.
    pub value: V,
    /// Whether it is poisoned.
    pub poisoned: bool,
    /// Whether nobody was changing the entry's partition; otherwise value and key may be
    /// half-changed.
    pub settled: bool,
}

// Values without padding: bytes of it would be taken for what was stored there.
impl<K: Key, V: Value + IntoBytes, S: Store> Table<K, V, S> {
    /// Shows copies of all entries, without lock or participant; see the module's essay.
    ///
    /// # Errors
    ///
    /// [`Error::Corrupt`] if the index leads nowhere though nobody changes it.
    pub fn peek(&self, show: &mut dyn FnMut(Peeked<K, V>)) -> Result<(), Error> {
        for partition in 0..self.core.shape.partitions {
            let line = self.core.line(partition);
            let mut left = line.count.load(Ordering::Relaxed).saturating_add(SLACK);
            let mut cursor = Cursor::default();
            while left != 0 {
                match self.peek_one(partition, &mut cursor)? {
                    Some(entry) => show(entry),
                    None => break,
                }
                left -= 1;
            }
        }
        Ok(())
    }

    fn peek_one(
        &self,
        partition: usize,
        cursor: &mut Cursor,
    ) -> Result<Option<Peeked<K, V>>, Error> {
        let line = self.core.line(partition);
        for attempt in 1.. {
            let look = line.seq.look();
            let mut next = *cursor;
            let seen = self.core.advance(line, &mut next).map(|found| {
                let entry = found?.entry;
                let poisoned = entry.word().load(Ordering::Relaxed) & POISON != 0;
                // SAFETY: an entry's memory, aligned to 16, is readable for its whole stride; any
                // bytes are a key.
                let key = unsafe { racy_copy::copy_out::<K>(entry.base(), Self::KEY_OFFSET) };
                // SAFETY: as above; any bytes are a value.
                let value = unsafe { racy_copy::copy_out::<V>(entry.base(), Self::VALUE_OFFSET) };
                Some(Peeked { key, value, poisoned, settled: true })
            });
            let settled = line.seq.is_still(look);
            if settled || attempt == ATTEMPTS {
                *cursor = next;
                return match seen {
                    Ok(entry) => Ok(entry.map(|entry| Peeked { settled, ..entry })),
                    Err(error) if settled => Err(error),
                    Err(_) => Ok(None),
                };
            }
            spin_loop();
        }
        Ok(None)
    }
}

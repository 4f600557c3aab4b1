//! Reading without a lock.
//!
//! A reader notes the partition's sequence word, looks for the entry and copies it, and then asks
//! whether the word still is what it was, and even: if so, nothing was changed meanwhile, and the
//! copy is what a reader with the lock would have seen. It writes nothing, so readers do not slow
//! each other down. After a few failures it takes the lock: a writer may be at work for long, or
//! have died, which only the lock finds out.
//!
//! The loads in between are atomic and every offset is checked before it is followed, whatever
//! it is; [`racy_copy`](crate::racy_copy) has the argument about the copy itself.

use dsm_core::lock::HeldMode;

use crate::error::Error;
use crate::store::Store;
use crate::table::{Key, Session, Snapshot};

#[cfg(not(feature = "locked-reads"))]
use {
    crate::follow::AtHand,
    crate::layout::POISON,
    crate::racy_copy,
    crate::table::Table,
    crate::view::{Core, Found},
    dsm_core::sync::{Ordering, spin_loop},
};

/// Keys that `get_many` looks up together: enough to hide a memory access behind the others, few
/// enough for the cache to take them all.
const BATCH: usize = 16;

/// Attempts before the lock is taken.
#[cfg(not(feature = "locked-reads"))]
const ATTEMPTS: usize = 16;

/// Overflow buckets that a reader without the lock visits.
#[cfg(not(feature = "locked-reads"))]
const OVERFLOW_LOOK: usize = 64;

impl<K: Key, V: Snapshot, S: Store> Session<'_, K, V, S> {
    /// Copies the value of a key, without writing to shared memory where possible.
    ///
    /// # Errors
    ///
    /// [`Error::Poisoned`], [`Error::WouldDeadlock`], [`Error::Lock`].
    #[inline(always)]
    pub fn get(&self, key: &K) -> Result<Option<V>, Error> {
        #[cfg(not(feature = "locked-reads"))]
        if !self.caller.participant.holds_any() {
            if let Some(seen) = self.glance(key, self.hash(key)) {
                return Ok(seen);
            }
        }
        // Written through a reference, so that the value that is returned need not be in memory.
        let mut value = None;
        self.look(key, &mut value)?;
        Ok(value)
    }

    #[cold]
    #[inline(never)]
    fn look(&self, key: &K, value: &mut Option<V>) -> Result<(), Error> {
        if self.table.core.held_by(self.caller.participant) == Some(HeldMode::Exclusive) {
            return Err(Error::WouldDeadlock);
        }
        *value = self.get_hashed(key, self.hash(key))?;
        Ok(())
    }

    /// Whether there is an entry, poisoned or not.
    ///
    /// # Errors
    ///
    /// [`Error::WouldDeadlock`], [`Error::Lock`].
    pub fn contains(&self, key: &K) -> Result<bool, Error> {
        match self.get(key) {
            Ok(value) => Ok(value.is_some()),
            Err(Error::Poisoned) => Ok(true),
            Err(error) => Err(error),
        }
    }

    /// Looks up many keys, so that their accesses to memory overlap; calls `found` with the
    /// number of each key and what [`get`](Self::get) would have returned.
    ///
    /// # Errors
    ///
    /// [`Error::WouldDeadlock`] before any key is looked up.
    pub fn get_many(
        &self,
        keys: &[K],
        mut found: impl FnMut(usize, Result<Option<V>, Error>),
    ) -> Result<(), Error> {
        if self.table.core.held_by(self.caller.participant) == Some(HeldMode::Exclusive) {
            return Err(Error::WouldDeadlock);
        }
        for (group, keys) in keys.chunks(BATCH).enumerate() {
            let mut hashes = [0; BATCH];
            for (hash, key) in hashes.iter_mut().zip(keys) {
                *hash = self.hash(key);
            }
            #[cfg(not(feature = "locked-reads"))]
            self.table.core.prefetch_all(&hashes[..keys.len()]);
            for (i, key) in keys.iter().enumerate() {
                found(group * BATCH + i, self.get_hashed(key, hashes[i]));
            }
        }
        Ok(())
    }

    #[cfg(feature = "locked-reads")]
    fn get_hashed(&self, key: &K, _: u64) -> Result<Option<V>, Error> {
        self.get_locked(key)
    }

    #[cfg(not(feature = "locked-reads"))]
    fn get_hashed(&self, key: &K, hash: u64) -> Result<Option<V>, Error> {
        for _ in 0..ATTEMPTS {
            if let Some(seen) = self.glance(key, hash) {
                return Ok(seen);
            }
            spin_loop();
        }
        self.get_locked(key)
    }

    /// Looks once: what was there, or `None` if somebody was at work, or what was seen must be
    /// reported by somebody who holds the lock: poison and damage.
    #[cfg(not(feature = "locked-reads"))]
    #[inline(always)]
    fn glance(&self, key: &K, hash: u64) -> Option<Option<V>> {
        let core = &self.table.core;
        let line = core.line(core.partition_of(hash));
        let look = line.seq.look();
        if !look.is_settled() {
            return None;
        }
        let mut is_it = |entry: crate::view::Entry<'_>| {
            let offset = Table::<K, V, S>::KEY_OFFSET;
            // SAFETY: an entry's memory, aligned to 16, is readable for its whole stride.
            unsafe { racy_copy::equal(entry.base(), offset, key.as_bytes()) }
        };
        let home = core.home::<AtHand>(line, hash).ok()?;
        let found = core.find_from::<AtHand>(home, line, hash, OVERFLOW_LOOK, &mut is_it).ok()?;
        let Some(Found { entry, .. }) = found else {
            return line.seq.is_still(look).then_some(None);
        };
        let word = entry.word().load(Ordering::Relaxed);
        let offset = Table::<K, V, S>::VALUE_OFFSET;
        // SAFETY: as above; any bytes are a `V`.
        let value = unsafe { racy_copy::copy_out::<V>(entry.base(), offset) };
        (line.seq.is_still(look) && word & POISON == 0).then_some(Some(value))
    }

    #[cold]
    fn get_locked(&self, key: &K) -> Result<Option<V>, Error> {
        Ok(self.find(key)?.map(|guard| *guard))
    }
}

#[cfg(not(feature = "locked-reads"))]
impl<S: Store> Core<S> {
    /// Asks for the home buckets of all hashes, then for the entries they seem to lead to.
    fn prefetch_all(&self, hashes: &[u64]) {
        let mut buckets = [None; BATCH];
        for (bucket, hash) in buckets.iter_mut().zip(hashes) {
            *bucket = self.home_bucket(*hash);
            if let Some(bucket) = bucket {
                crate::grow::prefetch(core::ptr::from_ref(*bucket).cast::<u8>());
            }
        }
        for (bucket, hash) in buckets.iter().zip(hashes) {
            let Some(bucket) = bucket else { continue };
            let tags = crate::probe::Tags::of(bucket);
            if let Some(slot) = tags.matching(crate::hash::tag(*hash)).first() {
                let reference = bucket.refs[slot].load(Ordering::Relaxed);
                if let Ok(entry) = self.entry_by::<AtHand>(reference) {
                    crate::grow::prefetch(entry.base().as_ptr());
                }
            }
        }
    }

    fn home_bucket(&self, hash: u64) -> Option<&crate::layout::Bucket> {
        let line = self.line(self.partition_of(hash));
        let kept = crate::hash::kept(hash);
        let word = self.directory_entry::<AtHand>(line, kept).ok()?.load(Ordering::Acquire);
        self.bucket_by::<AtHand>(Self::home_of(word, kept)).ok()
    }
}

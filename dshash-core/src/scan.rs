//! Scans: walking through all entries of a table.
//!
//! One partition is locked at a time, and stays locked between two calls of `next`. Dropping the
//! scan, or coming to the end, unlocks. A scan that fails can be continued: `next` tries the same
//! partition again.

use core::marker::PhantomData;
use core::time::Duration;

use crate::error::Error;
use crate::store::Store;
use crate::table::{Key, Session, Table, Value};
use crate::view::Entry as Memory;
use crate::walk::{Changing, Current, Reading};

/// A scan that looks; see [`Session::scan`].
pub struct Scan<'s, K, V, S: Store> {
    walk: Reading<'s, S>,
    _types: PhantomData<fn(K) -> V>,
}

/// An entry seen by a [`Scan`].
pub struct ScanEntry<'a, K, V, S: Store> {
    entry: Memory<'a>,
    _types: PhantomData<fn(K, S) -> V>,
}

impl<'s, K: Key, V: Value, S: Store> Scan<'s, K, V, S> {
    pub(crate) fn new(session: Session<'s, K, V, S>) -> Self {
        Self { walk: Reading::new(&session.table.core, session.caller), _types: PhantomData }
    }

    /// The same, but each call of [`next`](Self::next) waits for each lock for at most `timeout`,
    /// and fails with [`LockError::TimedOut`] then; however long the scan as a whole takes.
    ///
    /// [`LockError::TimedOut`]: dsm_core::lock::LockError::TimedOut
    #[must_use]
    pub fn each_within(mut self, timeout: Duration) -> Self {
        self.walk.each_within(timeout);
        self
    }

    /// The next entry, in no particular order.
    ///
    /// # Errors
    ///
    /// [`Error::WouldDeadlock`] if this thread holds an exclusive guard of the table,
    /// [`Error::Lock`].
    #[doc(alias = "dshash_seq_next")]
    #[expect(clippy::should_implement_trait, reason = "the items borrow the scan")]
    pub fn next(&mut self) -> Result<Option<ScanEntry<'_, K, V, S>>, Error> {
        Ok(self.walk.next()?.map(|entry| ScanEntry { entry, _types: PhantomData }))
    }

    /// Ends the scan; what dropping does too.
    #[doc(alias = "dshash_seq_term")]
    pub fn end(self) {}
}

impl<'a, K: Key, V: Value, S: Store> ScanEntry<'a, K, V, S> {
    /// The key.
    #[must_use]
    pub fn key(&self) -> &'a K {
        // SAFETY: the scan holds the partition's lock for 'a, so the entry stays.
        unsafe { Table::<K, V, S>::key_of(self.entry) }
    }

    /// The value.
    ///
    /// # Errors
    ///
    /// [`Error::Poisoned`].
    pub fn value(&self) -> Result<&'a V, Error> {
        if self.entry.is_poisoned() {
            return Err(Error::Poisoned);
        }
        // SAFETY: as for the key; any bytes are a `V`, and nobody changes them.
        Ok(unsafe { self.entry.data(Table::<K, V, S>::VALUE_OFFSET).cast().as_ref() })
    }
}

/// A scan that changes and deletes; see [`Session::scan_mut`].
pub struct ScanMut<'s, K, V, S: Store> {
    walk: Changing<'s, S>,
    _types: PhantomData<fn(K) -> V>,
}

/// An entry seen by a [`ScanMut`]: guarded, poisoned if its holder dies.
pub struct ScanEntryMut<'a, 's, K, V, S: Store> {
    current: Current<'a, 's, S>,
    _types: PhantomData<fn(K) -> V>,
}

impl<'s, K: Key, V: Value, S: Store> ScanMut<'s, K, V, S> {
    pub(crate) fn new(session: Session<'s, K, V, S>) -> Self {
        Self { walk: Changing::new(&session.table.core, session.caller), _types: PhantomData }
    }

    /// See [`Scan::each_within`].
    #[must_use]
    pub fn each_within(mut self, timeout: Duration) -> Self {
        self.walk.each_within(timeout);
        self
    }

    /// The next entry, in no particular order. Poisoned ones are seen too: ask the entry.
    ///
    /// # Errors
    ///
    /// [`Error::WouldDeadlock`] if this thread holds a guard of the table, [`Error::Lock`].
    #[doc(alias = "dshash_seq_next")]
    #[expect(clippy::should_implement_trait, reason = "the items borrow the scan")]
    pub fn next(&mut self) -> Result<Option<ScanEntryMut<'_, 's, K, V, S>>, Error> {
        Ok(self.walk.next()?.map(|current| ScanEntryMut { current, _types: PhantomData }))
    }

    /// Ends the scan; what dropping does too.
    #[doc(alias = "dshash_seq_term")]
    pub fn end(self) {}
}

impl<K: Key, V: Value, S: Store> ScanEntryMut<'_, '_, K, V, S> {
    /// The key.
    #[must_use]
    pub fn key(&self) -> &K {
        // SAFETY: the scan holds the partition's lock, so the entry stays.
        unsafe { Table::<K, V, S>::key_of(self.current.entry()) }
    }

    /// Whether the value may be half-changed.
    #[must_use]
    pub fn is_poisoned(&self) -> bool {
        self.current.entry().is_poisoned()
    }

    /// Declares the value good.
    pub fn clear_poison(&mut self) {
        self.current.set_poison(false);
    }

    /// Declares the value bad; see [`ExclusiveGuard::poison`](crate::ExclusiveGuard::poison).
    pub fn poison(&mut self) {
        self.current.set_poison(true);
    }

    /// The value.
    ///
    /// # Errors
    ///
    /// [`Error::Poisoned`].
    pub fn value(&self) -> Result<&V, Error> {
        if self.is_poisoned() {
            return Err(Error::Poisoned);
        }
        let at = self.current.entry().data(Table::<K, V, S>::VALUE_OFFSET);
        // SAFETY: as for the key; any bytes are a `V`; only this entry leads to it.
        Ok(unsafe { at.cast().as_ref() })
    }

    /// The value, to change it, poisoned or not: a poisoned one to repair it.
    pub fn value_mut(&mut self) -> &mut V {
        let at = self.current.entry().data(Table::<K, V, S>::VALUE_OFFSET);
        // SAFETY: as for `value`; borrowed exclusively.
        unsafe { at.cast().as_mut() }
    }

    /// Deletes the entry and goes on.
    ///
    /// # Errors
    ///
    /// [`Error::Corrupt`].
    #[doc(alias = "dshash_delete_current")]
    pub fn delete(self) -> Result<(), Error> {
        self.current.delete()
    }
}

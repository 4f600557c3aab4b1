//! Walking through all entries of a table.
//!
//! One partition is locked at a time, and stays locked between two entries; while a scan lives, the
//! thread can use the same table for looking only (a reading scan) or not at all (a changing
//! one). Entries come in no particular order; those inserted meanwhile in partitions that are not
//! reached yet are seen.

use std::iter::FusedIterator;

use crate::error::Error;
use crate::error::context::Context;
use crate::plain::{Key, Plain, Snapshot};
use crate::process::Attachment;
use crate::table::{Store, TABLE};
use crate::thread::Keep;

/// An entry met by a [`Scan`]: its key, and its value or
/// [`ErrorKind::Poisoned`](crate::ErrorKind::Poisoned).
pub type Scanned<'a, K, V> = (&'a K, Result<&'a V, Error>);

/// A scan that looks; see [`HashTable::scan`](crate::HashTable::scan).
pub struct Scan<'t, K: Key, V: Plain> {
    inner: dshash_core::Scan<'t, K, V, Store>,
    home: &'t Attachment,
    _keep: Keep,
}

impl<'t, K: Key, V: Plain> Scan<'t, K, V> {
    pub(crate) fn new(
        inner: dshash_core::Scan<'t, K, V, Store>,
        home: &'t Attachment,
        keep: Keep,
    ) -> Self {
        Self { inner, home, _keep: keep }
    }

    /// The next entry: its key, and its value or that it is poisoned. `None` at the end.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Lock`](crate::ErrorKind::Lock), [`ErrorKind::Table`](crate::ErrorKind::Table);
    /// the next call tries again.
    #[doc(alias = "dshash_seq_next")]
    #[expect(clippy::should_implement_trait, reason = "the items borrow the scan")]
    pub fn next(&mut self) -> Result<Option<Scanned<'_, K, V>>, Error> {
        let home = self.home;
        let entry = self.inner.next().of(home, TABLE)?;
        Ok(entry.map(|entry| (entry.key(), entry.value().of(home, TABLE))))
    }
}

/// A scan that changes and removes; see [`HashTable::scan_mut`](crate::HashTable::scan_mut).
pub struct ScanMut<'t, K: Key, V: Plain> {
    inner: dshash_core::ScanMut<'t, K, V, Store>,
    home: &'t Attachment,
    _keep: Keep,
}

impl<'t, K: Key, V: Plain> ScanMut<'t, K, V> {
    pub(crate) fn new(
        inner: dshash_core::ScanMut<'t, K, V, Store>,
        home: &'t Attachment,
        keep: Keep,
    ) -> Self {
        Self { inner, home, _keep: keep }
    }

    /// The next entry, poisoned or not. `None` at the end.
    ///
    /// # Errors
    ///
    /// As [`Scan::next`].
    #[doc(alias = "dshash_seq_next")]
    #[expect(clippy::should_implement_trait, reason = "the items borrow the scan")]
    pub fn next(&mut self) -> Result<Option<ScanEntry<'_, 't, K, V>>, Error> {
        let home = self.home;
        let entry = self.inner.next().of(home, TABLE)?;
        let panicking = std::thread::panicking();
        Ok(entry.map(|inner| ScanEntry { inner: Some(inner), home, panicking }))
    }
}

/// An entry met by a [`ScanMut`], locked for changing.
pub struct ScanEntry<'a, 't, K: Key, V: Plain> {
    /// `None` only while the entry is removed.
    inner: Option<dshash_core::ScanEntryMut<'a, 't, K, V, Store>>,
    home: &'t Attachment,
    panicking: bool,
}

impl<'a, 't, K: Key, V: Plain> ScanEntry<'a, 't, K, V> {
    fn inner(&self) -> &dshash_core::ScanEntryMut<'a, 't, K, V, Store> {
        self.inner.as_ref().expect("an entry that is not being removed")
    }

    /// The key.
    #[must_use]
    pub fn key(&self) -> &K {
        self.inner().key()
    }

    /// Whether the value may be half-changed.
    #[must_use]
    pub fn is_poisoned(&self) -> bool {
        self.inner().is_poisoned()
    }

    /// The value.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Poisoned`](crate::ErrorKind::Poisoned).
    pub fn value(&self) -> Result<&V, Error> {
        self.inner().value().of(self.home, TABLE)
    }

    /// The value, to change it, poisoned or not: a poisoned one to repair it.
    pub fn value_mut(&mut self) -> &mut V {
        self.inner.as_mut().expect("an entry that is not being removed").value_mut()
    }

    /// Declares a poisoned value good.
    pub fn repaired(&mut self) {
        if let Some(inner) = &mut self.inner {
            inner.clear_poison();
        }
    }

    /// Removes the entry and goes on.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Table`](crate::ErrorKind::Table) if the table is damaged.
    #[doc(alias = "dshash_delete_current")]
    pub fn remove(mut self) -> Result<(), Error> {
        let home = self.home;
        match self.inner.take() {
            Some(inner) => inner.delete().of(home, TABLE),
            None => Ok(()),
        }
    }
}

impl<K: Key, V: Plain> Drop for ScanEntry<'_, '_, K, V> {
    fn drop(&mut self) {
        if !self.panicking && std::thread::panicking() && self.home.is_ours() {
            if let Some(inner) = &mut self.inner {
                inner.poison();
            }
        }
    }
}

/// Copies of all entries, in no particular order; see [`HashTable::iter`](crate::HashTable::iter).
///
/// A poisoned entry is an [`ErrorKind::Poisoned`](crate::ErrorKind::Poisoned) in its place, after
/// which the others follow. Any other error is the last item: what keeps the walk from going on
/// would do so for ever.
pub struct Iter<'t, K: Key, V: Plain> {
    /// `None` after the end, or an error.
    scan: Option<Scan<'t, K, V>>,
}

impl<'t, K: Key, V: Plain> Iter<'t, K, V> {
    pub(crate) fn new(scan: Scan<'t, K, V>) -> Self {
        Self { scan: Some(scan) }
    }
}

impl<K: Key + Copy, V: Snapshot> Iterator for Iter<'_, K, V> {
    type Item = Result<(K, V), Error>;

    fn next(&mut self) -> Option<Self::Item> {
        let last = match self.scan.as_mut()?.next() {
            Ok(Some((key, value))) => return Some(value.map(|value| (*key, *value))),
            Ok(None) => None,
            Err(error) => Some(Err(error)),
        };
        // Gives the lock back, too.
        self.scan = None;
        last
    }
}

impl<K: Key + Copy, V: Snapshot> FusedIterator for Iter<'_, K, V> {}

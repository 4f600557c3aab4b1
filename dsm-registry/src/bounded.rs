//! [`Bounded`]: a table whose operations don't wait for ever.

use std::fmt;
use std::time::Duration;

use crate::error::Error;
use crate::error::context::Context;
use crate::guard::{Entry, Poisoned, ReadGuard, WriteGuard};
use crate::plain::{Key, Plain, Snapshot};
use crate::scan::{Iter, Scan, ScanMut};
use crate::table::{self, HashTable, Session, TABLE};
use crate::thread;

/// A table whose operations wait for locks only so long, and then fail with
/// [`LockError::WouldBlock`](dsm_core::lock::LockError::WouldBlock) or
/// [`LockError::TimedOut`](dsm_core::lock::LockError::TimedOut).
///
/// The limit is on waiting, not on work: it counts from the call, and what is free is had at any
/// time. It has all operations of [`HashTable`] that wait.
pub struct Bounded<'t, K, V> {
    table: &'t HashTable<K, V>,
    /// `None`: not at all.
    wait: Option<Duration>,
}

impl<'t, K: Key, V: Plain> Bounded<'t, K, V> {
    pub(crate) fn new(table: &'t HashTable<K, V>, wait: Option<Duration>) -> Self {
        Self { table, wait }
    }

    fn session(&self) -> Result<Session<'t, K, V>, Error> {
        let session = self.table.session()?;
        Ok(match self.wait {
            None => session.without_waiting(),
            Some(timeout) => session.within(timeout),
        })
    }

    /// See [`HashTable::find`].
    ///
    /// # Errors
    ///
    /// As there, and [`ErrorKind::Lock`](crate::ErrorKind::Lock).
    pub fn find(&self, key: &K) -> Result<Option<ReadGuard<'t, K, V>>, Error> {
        table::find(self.table.home(), self.session()?, key)
    }

    /// See [`HashTable::find_mut`].
    ///
    /// # Errors
    ///
    /// As there, and [`ErrorKind::Lock`](crate::ErrorKind::Lock).
    pub fn find_mut(&self, key: &K) -> Result<Option<WriteGuard<'t, K, V>>, Error> {
        table::find_mut(self.table.home(), self.session()?, key)
    }

    /// See [`HashTable::get`].
    ///
    /// # Errors
    ///
    /// As there, and [`ErrorKind::Lock`](crate::ErrorKind::Lock).
    pub fn get(&self, key: &K) -> Result<Option<V>, Error>
    where
        V: Snapshot,
    {
        self.session()?.get(key).of(self.table.home(), TABLE)
    }

    /// See [`HashTable::get_many`].
    ///
    /// # Errors
    ///
    /// As there, and [`ErrorKind::Lock`](crate::ErrorKind::Lock).
    pub fn get_many(
        &self,
        keys: &[K],
        found: impl FnMut(usize, Result<Option<V>, Error>),
    ) -> Result<(), Error>
    where
        V: Snapshot,
    {
        table::get_many(self.table.home(), self.session()?, keys, found)
    }

    /// See [`HashTable::entry`].
    ///
    /// # Errors
    ///
    /// As there, and [`ErrorKind::Lock`](crate::ErrorKind::Lock).
    pub fn entry(&self, key: &K) -> Result<Entry<'t, K, V>, Error> {
        table::entry(self.table.home(), self.session()?, key)
    }

    /// See [`HashTable::entry_or_repair`].
    ///
    /// # Errors
    ///
    /// As there, and [`ErrorKind::Lock`](crate::ErrorKind::Lock).
    pub fn entry_or_repair(
        &self,
        key: &K,
        repair: impl FnOnce(&mut V),
    ) -> Result<Entry<'t, K, V>, Error> {
        table::entry_or_repair(self.table.home(), self.session()?, key, repair)
    }

    /// See [`HashTable::poisoned`].
    ///
    /// # Errors
    ///
    /// As there, and [`ErrorKind::Lock`](crate::ErrorKind::Lock).
    pub fn poisoned(&self, key: &K) -> Result<Option<Poisoned<'t, K, V>>, Error> {
        table::poisoned(self.table.home(), self.session()?, key)
    }

    /// See [`HashTable::insert`].
    ///
    /// # Errors
    ///
    /// As there, and [`ErrorKind::Lock`](crate::ErrorKind::Lock).
    pub fn insert(&self, key: &K, value: V) -> Result<Option<V>, Error> {
        self.session()?.insert(key, value).of(self.table.home(), TABLE)
    }

    /// See [`HashTable::remove`].
    ///
    /// # Errors
    ///
    /// As there, and [`ErrorKind::Lock`](crate::ErrorKind::Lock).
    pub fn remove(&self, key: &K) -> Result<bool, Error> {
        self.session()?.delete(key).of(self.table.home(), TABLE)
    }

    /// See [`HashTable::scan`]. The limit is that of each
    /// partition that the walk comes to.
    ///
    /// # Errors
    ///
    /// As there, and [`ErrorKind::Lock`](crate::ErrorKind::Lock).
    pub fn scan(&self) -> Result<Scan<'t, K, V>, Error> {
        let home = self.table.home();
        let keep = thread::keep(home)?;
        let session = self.table.session()?;
        let scan = match self.wait {
            None => session.without_waiting().scan(),
            Some(timeout) => session.scan().each_within(timeout),
        };
        Ok(Scan::new(scan, home, keep))
    }

    /// See [`HashTable::scan_mut`]. The limit is that of each
    /// partition that the walk comes to.
    ///
    /// # Errors
    ///
    /// As there, and [`ErrorKind::Lock`](crate::ErrorKind::Lock).
    pub fn scan_mut(&self) -> Result<ScanMut<'t, K, V>, Error> {
        let home = self.table.home();
        let keep = thread::keep(home)?;
        let session = self.table.session()?;
        let scan = match self.wait {
            None => session.without_waiting().scan_mut(),
            Some(timeout) => session.scan_mut().each_within(timeout),
        };
        Ok(ScanMut::new(scan, home, keep))
    }

    /// See [`HashTable::iter`]. The limit is that of each
    /// partition that the walk comes to.
    ///
    /// # Errors
    ///
    /// As there, and [`ErrorKind::Lock`](crate::ErrorKind::Lock).
    pub fn iter(&self) -> Result<Iter<'t, K, V>, Error>
    where
        K: Copy,
        V: Snapshot,
    {
        Ok(Iter::new(self.scan()?))
    }

    /// See [`HashTable::clear`]. What came before the partition
    /// that was not to be had is done.
    ///
    /// # Errors
    ///
    /// As there, and [`ErrorKind::Lock`](crate::ErrorKind::Lock).
    pub fn clear(&self) -> Result<(), Error> {
        self.session()?.clear().of(self.table.home(), TABLE)
    }

    /// See [`HashTable::trim`]. What came before the partition
    /// that was not to be had is done.
    ///
    /// # Errors
    ///
    /// As there, and [`ErrorKind::Lock`](crate::ErrorKind::Lock).
    pub fn trim(&self) -> Result<(), Error> {
        self.table.inner().trim(self.session()?)
    }

    /// See [`HashTable::stats`].
    ///
    /// # Errors
    ///
    /// As there, and [`ErrorKind::Lock`](crate::ErrorKind::Lock).
    pub fn stats(&self) -> Result<dshash_core::Stats, Error> {
        self.session()?.stats().of(self.table.home(), TABLE)
    }

    /// See [`HashTable::check`].
    ///
    /// # Errors
    ///
    /// As there, and [`ErrorKind::Lock`](crate::ErrorKind::Lock).
    pub fn check(&self) -> Result<dshash_core::Report, Error> {
        self.session()?.check().of(self.table.home(), TABLE)
    }
}

impl<K, V> fmt::Debug for Bounded<'_, K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bounded").field("wait", &self.wait).finish_non_exhaustive()
    }
}

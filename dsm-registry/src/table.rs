//! Named hash tables.
//!
//! A table lives in an area of its own. What this process knows of it is a [`TypedTable`], which
//! borrows from the area that it keeps attached. Each operation finds the calling thread's
//! participant and heap first, binds the core's table to them, and wraps the guards that come out.

use std::fmt;
use std::mem::ManuallyDrop;
use std::sync::Arc;
use std::time::Duration;

use dsa_core::DsaPointer;
use dshash_core::{Params, Table, TableHandle};
use dsm_core::lock::rw::RwLock;

use crate::area::AreaObject;
use crate::bounded::Bounded;
use crate::error::Error;
use crate::error::context::{Context, Refusal};
use crate::guard::{Entry, Poisoned, ReadGuard, WriteGuard};
use crate::options::HashOptions;
use crate::plain::{Key, Plain, Snapshot};
use crate::process::Attachment;
use crate::scan::{Iter, Scan, ScanMut};
use crate::thread;

/// What errors call a table.
pub(crate) const TABLE: &str = "a hash table";
/// Where tables live.
pub(crate) type Store = &'static dsa_core::Area<'static, RwLock>;
pub(crate) type Session<'t, K, V> = dshash_core::Session<'t, K, V, Store>;

/// A table as this process knows it.
pub(crate) struct TypedTable<K, V> {
    /// Borrows from `area`, and is dropped before it.
    table: ManuallyDrop<Table<K, V, Store>>,
    area: Arc<AreaObject>,
}

impl<K: Key, V: Plain> TypedTable<K, V> {
    pub(crate) fn create(area: Arc<AreaObject>, options: &HashOptions) -> Result<Self, Error> {
        let home = area.home();
        let heap = thread::heap(home, area.raw())?;
        let mut params = Params::default();
        if let Some(partitions) = options.partitions {
            params.partitions = partitions;
        }
        let table = Table::create(area.raw().core_static(), heap, &params).of(home, TABLE)?;
        Ok(Self { table: ManuallyDrop::new(table), area })
    }

    /// # Safety
    ///
    /// `handle` must be of a table of these types in the area.
    pub(crate) unsafe fn attach(area: Arc<AreaObject>, handle: u64) -> Result<Self, Error> {
        let handle = TableHandle(DsaPointer::from_raw(handle));
        let store = area.raw().core_static();
        // SAFETY: the caller's promise; a table goes with its area only.
        let table =
            unsafe { Table::attach(store, handle, &Params::default()) }.of(area.home(), TABLE)?;
        Ok(Self { table: ManuallyDrop::new(table), area })
    }

    pub(crate) fn handle(&self) -> u64 {
        self.table.handle().0.raw()
    }

    pub(crate) fn home(&self) -> &Attachment {
        self.area.home()
    }

    /// The table as the calling thread uses it.
    #[inline(always)]
    pub(crate) fn session(&self) -> Result<Session<'_, K, V>, Error> {
        let heap = thread::heap(self.home(), self.area.raw())?;
        // SAFETY: a heap of the table's area.
        Ok(unsafe { self.table.bind_unchecked(heap) })
    }

    /// See [`HashTable::trim`].
    pub(crate) fn trim(&self, session: Session<'_, K, V>) -> Result<(), Error> {
        let (home, area) = (self.home(), self.area.raw());
        session.trim().of(home, TABLE)?;
        // What the table gave back goes to the system, and what the dead had for the table, too.
        let heap = thread::heap(home, area)?;
        heap.trim().map(drop).of(home, area.label())
    }
}

impl<K, V> Drop for TypedTable<K, V> {
    fn drop(&mut self) {
        if self.area.home().is_ours() {
            // SAFETY: dropped here only, before the area that it borrows from.
            unsafe { ManuallyDrop::drop(&mut self.table) };
        }
    }
}

/// A named hash table from `K` to `V`, shared with all processes that ask for the name. Cheap to
/// clone.
///
/// An entry is locked by locking its partition, one of 128 by default. A thread that holds a
/// guard must drop it before it uses the same table again, except for looking beside a
/// [`ReadGuard`]: anything else is an error, whichever keys are concerned.
#[doc(alias = "dshash_table")]
pub struct HashTable<K, V> {
    inner: Arc<TypedTable<K, V>>,
}

impl<K, V> Clone for HashTable<K, V> {
    fn clone(&self) -> Self {
        Self { inner: Arc::clone(&self.inner) }
    }
}

impl<K: Key, V: Plain> HashTable<K, V> {
    pub(crate) fn new(inner: Arc<TypedTable<K, V>>) -> Self {
        Self { inner }
    }

    /// The same table, with operations that don't wait for locks.
    pub fn without_waiting(&self) -> Bounded<'_, K, V> {
        Bounded::new(self, None)
    }

    /// The same table, with operations that wait for locks no longer than this.
    pub fn within(&self, timeout: Duration) -> Bounded<'_, K, V> {
        Bounded::new(self, Some(timeout))
    }

    #[inline]
    pub(crate) fn home(&self) -> &Attachment {
        self.inner.home()
    }

    #[inline(always)]
    pub(crate) fn session(&self) -> Result<Session<'_, K, V>, Error> {
        self.inner.session()
    }

    pub(crate) fn inner(&self) -> &TypedTable<K, V> {
        &self.inner
    }

    /// Finds an entry to look at.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Poisoned`](crate::ErrorKind::Poisoned);
    /// [`ErrorKind::Lock`](crate::ErrorKind::Lock) if this thread is changing an entry of this
    /// table.
    #[doc(alias = "dshash_find")]
    #[inline]
    pub fn find(&self, key: &K) -> Result<Option<ReadGuard<'_, K, V>>, Error> {
        find(self.home(), self.session()?, key)
    }

    /// Finds an entry to change.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Poisoned`](crate::ErrorKind::Poisoned);
    /// [`ErrorKind::Lock`](crate::ErrorKind::Lock) if this thread holds a guard of this table.
    #[doc(alias = "dshash_find")]
    #[inline]
    pub fn find_mut(&self, key: &K) -> Result<Option<WriteGuard<'_, K, V>>, Error> {
        find_mut(self.home(), self.session()?, key)
    }

    /// Copies a value out, without a lock and without writing to shared memory where possible.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Poisoned`](crate::ErrorKind::Poisoned);
    /// [`ErrorKind::Lock`](crate::ErrorKind::Lock) if this thread is changing an entry of this
    /// table.
    #[inline]
    pub fn get(&self, key: &K) -> Result<Option<V>, Error>
    where
        V: Snapshot,
    {
        self.session()?.get(key).of(self.home(), TABLE)
    }

    /// Copies many values out, so that their accesses to memory overlap; calls `found` with the
    /// number of each key and what [`get`](Self::get) would have returned.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Lock`](crate::ErrorKind::Lock) if this thread is changing an entry of this
    /// table.
    pub fn get_many(
        &self,
        keys: &[K],
        found: impl FnMut(usize, Result<Option<V>, Error>),
    ) -> Result<(), Error>
    where
        V: Snapshot,
    {
        get_many(self.home(), self.session()?, keys, found)
    }

    /// Locks the place of a key, whether there is an entry or not. The key is copied, so that the
    /// place may outlive it.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Poisoned`](crate::ErrorKind::Poisoned);
    /// [`ErrorKind::Lock`](crate::ErrorKind::Lock) if this thread holds a guard of this table.
    #[doc(alias = "dshash_find_or_insert")]
    #[inline]
    pub fn entry(&self, key: &K) -> Result<Entry<'_, K, V>, Error> {
        entry(self.home(), self.session()?, key)
    }

    /// Inserts an entry, or replaces the value of the one there is, which is returned. A poisoned
    /// value is replaced like any other, after which the entry is good, and is not returned: it is
    /// as if there had been none.
    ///
    /// Killed at any moment of it, a process leaves a new entry whole or not at all. One whose
    /// value it was replacing is poisoned ([`ErrorKind::Poisoned`](crate::ErrorKind::Poisoned) for
    /// who looks next), and its value the old one, the new one, or part of each. To insert again
    /// puts it right, and so do [`poisoned`](Self::poisoned) and
    /// [`entry_or_repair`](Self::entry_or_repair).
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Lock`](crate::ErrorKind::Lock) if this thread holds a guard of this table, and
    /// as [`Entry::or_insert`].
    #[inline]
    pub fn insert(&self, key: &K, value: V) -> Result<Option<V>, Error> {
        self.session()?.insert(key, value).of(self.home(), TABLE)
    }

    /// Removes the entry of a key, poisoned or not. Returns whether there was one.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Lock`](crate::ErrorKind::Lock) if this thread holds a guard of this table.
    #[doc(alias = "dshash_delete_key")]
    #[inline]
    pub fn remove(&self, key: &K) -> Result<bool, Error> {
        self.session()?.delete(key).of(self.home(), TABLE)
    }

    /// A poisoned entry, locked for its repair; `None` if there is no entry of the key, or it is
    /// not poisoned.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Lock`](crate::ErrorKind::Lock) if this thread holds a guard of this table.
    pub fn poisoned(&self, key: &K) -> Result<Option<Poisoned<'_, K, V>>, Error> {
        poisoned(self.home(), self.session()?, key)
    }

    /// As [`entry`](Self::entry), but a poisoned entry is repaired first: `repair` puts its value
    /// right. If that panics or is killed, the entry stays poisoned.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Lock`](crate::ErrorKind::Lock) if this thread holds a guard of this table.
    pub fn entry_or_repair(
        &self,
        key: &K,
        repair: impl FnOnce(&mut V),
    ) -> Result<Entry<'_, K, V>, Error> {
        entry_or_repair(self.home(), self.session()?, key, repair)
    }

    /// Walks through all entries, to look at them.
    ///
    /// # Errors
    ///
    /// As any call: [`ErrorKind::Forked`](crate::ErrorKind::Forked), for example.
    #[doc(alias = "dshash_seq_init")]
    pub fn scan(&self) -> Result<Scan<'_, K, V>, Error> {
        let keep = thread::keep(self.home())?;
        Ok(Scan::new(self.session()?.scan(), self.home(), keep))
    }

    /// Walks through all entries, to change or remove them.
    ///
    /// # Errors
    ///
    /// As [`scan`](Self::scan).
    #[doc(alias = "dshash_seq_init")]
    pub fn scan_mut(&self) -> Result<ScanMut<'_, K, V>, Error> {
        let keep = thread::keep(self.home())?;
        Ok(ScanMut::new(self.session()?.scan_mut(), self.home(), keep))
    }

    /// Copies of all entries, as [`scan`](Self::scan) meets them. A poisoned one is
    /// [`ErrorKind::Poisoned`](crate::ErrorKind::Poisoned) in its place; any other error is the
    /// last item.
    ///
    /// # Errors
    ///
    /// As [`scan`](Self::scan).
    pub fn iter(&self) -> Result<Iter<'_, K, V>, Error>
    where
        K: Copy,
        V: Snapshot,
    {
        Ok(Iter::new(self.scan()?))
    }

    /// Removes all entries, and frees their memory for later ones, but for a first small chunk a
    /// partition; [`trim`](Self::trim) then gives to the system what it can. Each partition is
    /// locked in turn, so that what others insert meanwhile may stay. The tidier way than removing
    /// by a scan.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Lock`](crate::ErrorKind::Lock) if this thread holds a guard of this table.
    pub fn clear(&self) -> Result<(), Error> {
        self.session()?.clear().of(self.home(), TABLE)
    }

    /// Gives memory back that the table does not need at its present size: frees parts of the
    /// index, and chunks of entries that are empty; then gives segments of the table's area in
    /// which nothing is left to the system. Looks at every entry; each partition is locked
    /// exclusively in turn.
    ///
    /// Entries are not moved: a chunk, and the segment that it lies in, stay as long as one entry
    /// does. So do the first segment, and what other living threads keep for insertions of their
    /// own.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Lock`](crate::ErrorKind::Lock) if this thread holds a guard of this table.
    pub fn trim(&self) -> Result<(), Error> {
        self.inner.trim(self.session()?)
    }

    /// Number of entries, poisoned ones included, as far as one can say while others work: the
    /// sum of one counter a partition, without locks.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Forked`](crate::ErrorKind::Forked).
    pub fn len(&self) -> Result<u64, Error> {
        self.home().check_fork()?;
        Ok(self.inner.table.len())
    }

    /// Whether there were no entries; see [`len`](Self::len).
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Forked`](crate::ErrorKind::Forked).
    pub fn is_empty(&self) -> Result<bool, Error> {
        Ok(self.len()? == 0)
    }

    /// Figures of the table: entries, capacity, memory. Each partition is locked shared in turn.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Lock`](crate::ErrorKind::Lock) if this thread is changing an entry of this
    /// table.
    pub fn stats(&self) -> Result<dshash_core::Stats, Error> {
        self.session()?.stats().of(self.home(), TABLE)
    }

    /// Walks the whole table and compares everything with everything else: a test of its health,
    /// after which the figures are exact. Each partition is locked exclusively in turn.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Table`](crate::ErrorKind::Table) says what is damaged;
    /// [`ErrorKind::Lock`](crate::ErrorKind::Lock) if this thread holds a guard of this table.
    pub fn check(&self) -> Result<dshash_core::Report, Error> {
        self.session()?.check().of(self.home(), TABLE)
    }
}

impl<K: Key, V: Plain> fmt::Debug for HashTable<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HashTable").finish_non_exhaustive()
    }
}

#[inline(always)]
pub(crate) fn find<'t, K: Key, V: Plain>(
    home: &'t Attachment,
    session: Session<'t, K, V>,
    key: &K,
) -> Result<Option<ReadGuard<'t, K, V>>, Error> {
    match session.find(key) {
        Ok(found) => Ok(found.map(ReadGuard::new)),
        Err(error) => Err(error.of(home, TABLE)),
    }
}

#[inline(always)]
pub(crate) fn find_mut<'t, K: Key, V: Plain>(
    home: &'t Attachment,
    session: Session<'t, K, V>,
    key: &K,
) -> Result<Option<WriteGuard<'t, K, V>>, Error> {
    match session.find_exclusive(key) {
        Ok(found) => Ok(found.map(|guard| WriteGuard::new(guard, home))),
        Err(error) => Err(error.of(home, TABLE)),
    }
}

#[inline(always)]
pub(crate) fn entry<'t, K: Key, V: Plain>(
    home: &'t Attachment,
    session: Session<'t, K, V>,
    key: &K,
) -> Result<Entry<'t, K, V>, Error> {
    match session.entry(key) {
        Ok(entry) => Ok(Entry::new(entry, home)),
        Err(error) => Err(error.of(home, TABLE)),
    }
}

pub(crate) fn get_many<K: Key, V: Snapshot>(
    home: &Attachment,
    session: Session<'_, K, V>,
    keys: &[K],
    mut found: impl FnMut(usize, Result<Option<V>, Error>),
) -> Result<(), Error> {
    session.get_many(keys, |i, value| found(i, value.of(home, TABLE))).of(home, TABLE)
}

pub(crate) fn poisoned<'t, K: Key, V: Plain>(
    home: &'t Attachment,
    session: Session<'t, K, V>,
    key: &K,
) -> Result<Option<Poisoned<'t, K, V>>, Error> {
    let found = session.find_poisoned(key).of(home, TABLE)?;
    Ok(found.filter(|guard| guard.is_poisoned()).map(|guard| Poisoned::new(guard, home)))
}

pub(crate) fn entry_or_repair<'t, K: Key, V: Plain>(
    home: &'t Attachment,
    session: Session<'t, K, V>,
    key: &K,
    repair: impl FnOnce(&mut V),
) -> Result<Entry<'t, K, V>, Error> {
    match entry(home, session, key) {
        Err(error) if error.is_poisoned() => {}
        outcome => return outcome,
    }
    match poisoned(home, session, key)? {
        Some(mut poisoned) => {
            repair(&mut poisoned);
            Ok(Entry::Occupied(poisoned.repaired()))
        }
        // Somebody else repaired or removed it meanwhile.
        None => entry(home, session, key),
    }
}

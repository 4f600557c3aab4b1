//! The typed table.
//!
//! [`Table`] is what a process knows of a table, shared by its threads. [`Session`] is the table
//! together with who calls: a participant, its heap, and how long to wait for locks; it is cheap
//! to make and has the operations.
//!
//! Keys are compared and hashed by their bytes, so they are types whose bytes are all initialised
//! and mean nothing but themselves (`IntoBytes`, no padding). Values are plain data: any bytes are
//! a value, so whatever a peer left there can be looked at.

use core::marker::PhantomData;
use core::mem::{align_of, needs_drop, size_of};
use core::time::Duration;

use dsa_core::{AtomicDsaPointer, DsaPointer};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::entry::Entry;
use crate::error::Error;
use crate::guard::{ExclusiveGuard, SharedGuard};
use crate::hash::RAPIDHASH_V3;
use crate::held::{Exclusive, Shared};
use crate::kind::Kind;
use crate::locked::{Fill, Locked};
use crate::partition::{Caller, Wait};
use crate::scan::{Scan, ScanMut};
use crate::store::{Allocator, Store};
use crate::view::{Core, Entry as Memory};

/// What can be a key: plain data without padding. Implemented for all such types.
pub trait Key: FromBytes + IntoBytes + Immutable + KnownLayout + Send + Sync + 'static {}
impl<T: FromBytes + IntoBytes + Immutable + KnownLayout + Send + Sync + 'static> Key for T {}

/// What can be a value: plain data, integer atomics included. Implemented for all such types.
pub trait Value: FromBytes + KnownLayout + Send + Sync + 'static {}
impl<T: FromBytes + KnownLayout + Send + Sync + 'static> Value for T {}

/// What can be copied out of a table without a lock: a value without padding that only `&mut`
/// changes. Implemented for all such types.
pub trait Snapshot: Value + Copy + IntoBytes + Immutable {}
impl<T: Value + Copy + IntoBytes + Immutable> Snapshot for T {}

/// Partitions of a table if its creator does not say otherwise: enough for a few dozen processes
/// to seldom meet, and 66 KiB.
pub const DEFAULT_PARTITIONS: u32 = 128;

/// How a table is created, and what must fit when attaching.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Params {
    /// Locks of the table: a power of two up to 1024. More let more writers work at once; each
    /// takes half a kilobyte. Used at creation only.
    pub partitions: u32,
    /// What the types are, in terms of the creator; compared when attaching.
    pub type_tag: u64,
}

impl Default for Params {
    fn default() -> Self {
        Self { partitions: DEFAULT_PARTITIONS, type_tag: 0 }
    }
}

/// Names a table in its area: plain data, to be stored where others find it.
#[doc(alias = "dshash_table_handle")]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct TableHandle(pub DsaPointer);

/// A hash table of `K` and `V` in the memory of `S`.
#[doc(alias = "dshash_table")]
pub struct Table<K, V, S: Store> {
    pub(crate) core: Core<S>,
    _types: PhantomData<fn(K) -> V>,
}

impl<K: Key, V: Value, S: Store> Table<K, V, S> {
    const ALIGN: usize =
        if align_of::<K>() > align_of::<V>() { align_of::<K>() } else { align_of::<V>() };
    const VALUE: usize = size_of::<K>().next_multiple_of(align_of::<V>());
    pub(crate) const KEY_OFFSET: usize = Self::kind(0).data_offset();
    pub(crate) const VALUE_OFFSET: usize = Self::KEY_OFFSET + Self::VALUE;

    const fn kind(type_tag: u64) -> Kind {
        const { assert!(size_of::<K>() > 0, "a key has at least one byte") };
        const { assert!(!needs_drop::<K>(), "a key in shared memory is never dropped") };
        const { assert!(!needs_drop::<V>(), "a value in shared memory is never dropped") };
        const { assert!(Self::ALIGN <= 16, "entries are aligned to at most 16 bytes") };
        Kind {
            key_size: size_of::<K>(),
            entry_size: Self::VALUE + size_of::<V>(),
            align: Self::ALIGN,
            hash_identity: RAPIDHASH_V3,
            type_tag,
        }
    }

    /// Creates a table: one allocation. Nothing is left behind on error. A creator who is killed
    /// before he has stored the [`handle`](Self::handle) anywhere leaves a table that nobody knows:
    /// use [`create_into`](Self::create_into), or an area that goes with its creator until then.
    ///
    /// # Errors
    ///
    /// [`Error::Memory`], [`Error::Partitions`], [`Error::Parameter`] for an entry above 1 MiB.
    #[doc(alias = "dshash_create")]
    pub fn create(store: S, heap: &dyn Allocator, params: &Params) -> Result<Self, Error> {
        Self::create_named(store, heap, params, None)
    }

    /// Creates a table and stores the pointer of its handle in `destination`, a word in any segment
    /// of the namespace that this process has attached: whenever the creator is killed, either
    /// `destination` names a complete table or nothing is left. Nothing is left behind on error
    /// either.
    ///
    /// # Errors
    ///
    /// As [`create`](Self::create), and [`Error::Memory`] for a `destination` elsewhere.
    #[doc(alias = "dshash_create")]
    pub fn create_into(
        store: S,
        heap: &dyn Allocator,
        params: &Params,
        destination: &AtomicDsaPointer,
    ) -> Result<Self, Error> {
        Self::create_named(store, heap, params, Some(destination))
    }

    fn create_named(
        store: S,
        heap: &dyn Allocator,
        params: &Params,
        destination: Option<&AtomicDsaPointer>,
    ) -> Result<Self, Error> {
        let caller = Caller::new(&store, heap)?;
        let kind = Self::kind(params.type_tag);
        let core = Core::create(store, caller, kind, params.partitions, destination)?;
        Ok(Self { core, _types: PhantomData })
    }

    /// Attaches to a table that some process created.
    ///
    /// # Errors
    ///
    /// [`Error::Mismatch`] names the stored parameter that differs and both values;
    /// [`Error::NotATable`], [`Error::Destroyed`].
    ///
    /// # Safety
    ///
    /// `handle` must be what [`handle`](Self::handle) returned for a table in this store, created
    /// for `K` and `V`, that is not destroyed as long as the result is in use.
    #[doc(alias = "dshash_attach")]
    pub unsafe fn attach(store: S, handle: TableHandle, params: &Params) -> Result<Self, Error> {
        // SAFETY: the caller's promise.
        let core = unsafe { Core::attach(store, handle.0.raw(), Self::kind(params.type_tag)) }?;
        Ok(Self { core, _types: PhantomData })
    }

    /// Lets go of the table, which stays as it is; what dropping does too. Returns the store.
    #[doc(alias = "dshash_detach")]
    pub fn detach(self) -> S {
        self.core.store
    }

    /// Frees the table and all its entries.
    ///
    /// # Errors
    ///
    /// [`Error::WouldDeadlock`] if this thread holds a guard of the table, [`Error::Lock`]. The
    /// table may have lost entries then.
    ///
    /// # Safety
    ///
    /// Nobody else may use the table any more, in any process.
    #[doc(alias = "dshash_destroy")]
    pub unsafe fn destroy(self, heap: &dyn Allocator) -> Result<(), Error> {
        let caller = Caller::new(&self.core.store, heap)?;
        // SAFETY: the caller's promise.
        unsafe { self.core.destroy(caller, None) }
    }

    /// Frees the table and all its entries, and clears `destination`, which names it: whenever the
    /// caller is killed, either `destination` names a table that can be destroyed again, or
    /// nothing is left. Attaching to it may be [`Error::Destroyed`] then: `Heap::free_from` of
    /// `dsa-core` frees what is left of it, and clears the word.
    ///
    /// # Errors
    ///
    /// As [`destroy`](Self::destroy), and [`Error::NotATable`] if `destination` names something
    /// else, with nothing changed.
    ///
    /// # Safety
    ///
    /// As for [`destroy`](Self::destroy), and nobody else may use `destination` meanwhile.
    #[doc(alias = "dshash_destroy")]
    pub unsafe fn destroy_from(
        self,
        heap: &dyn Allocator,
        destination: &AtomicDsaPointer,
    ) -> Result<(), Error> {
        let caller = Caller::new(&self.core.store, heap)?;
        // SAFETY: the caller's promise.
        unsafe { self.core.destroy(caller, Some(destination)) }
    }

    /// Names the table, for others to attach to it.
    #[doc(alias = "dshash_get_hash_table_handle")]
    pub fn handle(&self) -> TableHandle {
        TableHandle(DsaPointer::from_raw(self.core.pointer))
    }

    /// Where the table's memory comes from.
    pub fn store(&self) -> &S {
        &self.core.store
    }

    /// The table as used by one participant, which waits for locks as long as it takes.
    ///
    /// # Errors
    ///
    /// [`Error::ForeignHeap`] for a heap of another area.
    #[inline]
    pub fn bind<'s>(&'s self, heap: &'s dyn Allocator) -> Result<Session<'s, K, V, S>, Error> {
        Ok(Session { table: self, caller: Caller::new(&self.core.store, heap)? })
    }

    /// As [`bind`](Self::bind), for those who know where their heap comes from.
    ///
    /// # Safety
    ///
    /// `heap` must be of the table's area.
    #[inline(always)]
    pub unsafe fn bind_unchecked<'s>(&'s self, heap: &'s dyn Allocator) -> Session<'s, K, V, S> {
        debug_assert!(heap.store_id() == self.core.store.id());
        Session { table: self, caller: Caller::unchecked(heap) }
    }

    /// The kept key of an entry.
    ///
    /// # Safety
    ///
    /// `entry` must be live, and stay so for `'t`.
    #[inline(always)]
    pub(crate) unsafe fn key_of<'t>(entry: Memory<'t>) -> &'t K {
        // SAFETY: a live entry of this table: a `K`, aligned, that nobody changes.
        unsafe { entry.data(Self::KEY_OFFSET).cast::<K>().as_ref() }
    }

    /// Writes key and value of a new entry.
    #[inline(always)]
    fn write(entry: Memory<'_>, key: &K, value: V) {
        let (from, to) = (core::ptr::from_ref(key), entry.data(Self::KEY_OFFSET).cast::<K>());
        // SAFETY: room for a `K` in an entry that nobody refers to; its bytes are plain data.
        unsafe { core::ptr::copy_nonoverlapping(from, to.as_ptr(), 1) };
        // SAFETY: likewise for a `V`, which needs no drop.
        unsafe { entry.data(Self::VALUE_OFFSET).cast::<V>().write(value) };
    }
}

/// A table as used by one participant. Copy it freely; not `Send`.
pub struct Session<'s, K, V, S: Store> {
    pub(crate) table: &'s Table<K, V, S>,
    pub(crate) caller: Caller<'s>,
}

impl<K, V, S: Store> Clone for Session<'_, K, V, S> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<K, V, S: Store> Copy for Session<'_, K, V, S> {}

impl<'s, K: Key, V: Value, S: Store> Session<'s, K, V, S> {
    /// The same, but operations fail with [`LockError::WouldBlock`] instead of waiting.
    ///
    /// [`LockError::WouldBlock`]: dsm_core::lock::LockError::WouldBlock
    #[must_use]
    pub fn without_waiting(mut self) -> Self {
        self.caller.wait = Wait::NONE;
        self
    }

    /// The same, but operations fail with [`LockError::TimedOut`] when a lock is not free within
    /// `timeout` from now.
    ///
    /// [`LockError::TimedOut`]: dsm_core::lock::LockError::TimedOut
    #[must_use]
    pub fn within(mut self, timeout: Duration) -> Self {
        self.caller = self.caller.within(Some(timeout));
        self
    }

    /// The table.
    #[must_use]
    pub fn table(&self) -> &'s Table<K, V, S> {
        self.table
    }

    #[inline(always)]
    pub(crate) fn hash(&self, key: &K) -> u64 {
        self.table.core.secrets.hash_bytes(key.as_bytes())
    }

    /// Compares keys under a lock.
    #[inline(always)]
    fn is<'k>(key: &'k K) -> impl FnMut(Memory<'_>) -> bool + 'k {
        move |entry| {
            // SAFETY: found through a bucket under the partition's lock, so live.
            let kept = unsafe { Table::<K, V, S>::key_of(entry) };
            kept.as_bytes() == key.as_bytes()
        }
    }

    /// Finds an entry to look at: others may look at it too, and nobody changes it, nor anything
    /// else in its partition, until the guard is dropped.
    ///
    /// # Errors
    ///
    /// [`Error::Poisoned`], [`Error::WouldDeadlock`], [`Error::Lock`].
    #[doc(alias = "dshash_find")]
    #[inline(always)]
    pub fn find(&self, key: &K) -> Result<Option<SharedGuard<'s, K, V, S>>, Error> {
        let core = &self.table.core;
        let found: Option<Shared<'s, S>> =
            core.find_shared(self.caller, self.hash(key), Self::is(key))?;
        Ok(found.map(SharedGuard::new))
    }

    /// Finds an entry to change: nobody else can look at its partition until the guard is
    /// dropped.
    ///
    /// # Errors
    ///
    /// [`Error::Poisoned`], [`Error::WouldDeadlock`], [`Error::Lock`].
    #[doc(alias = "dshash_find")]
    #[inline(always)]
    pub fn find_exclusive(&self, key: &K) -> Result<Option<ExclusiveGuard<'s, K, V, S>>, Error> {
        self.find_taken(key, true)
    }

    /// As [`find_exclusive`](Self::find_exclusive), but hands out a poisoned entry too: ask the
    /// guard, repair the value, and call [`ExclusiveGuard::clear_poison`].
    ///
    /// # Errors
    ///
    /// [`Error::WouldDeadlock`], [`Error::Lock`].
    #[inline(always)]
    pub fn find_poisoned(&self, key: &K) -> Result<Option<ExclusiveGuard<'s, K, V, S>>, Error> {
        self.find_taken(key, false)
    }

    #[inline(always)]
    fn find_taken(
        &self,
        key: &K,
        refuse_poison: bool,
    ) -> Result<Option<ExclusiveGuard<'s, K, V, S>>, Error> {
        let (core, hash) = (&self.table.core, self.hash(key));
        let (locked, found) = core.take(self.caller, hash, refuse_poison, Self::is(key))?;
        match found {
            Some(found) => Ok(Some(ExclusiveGuard::new(Exclusive::new(locked, found)))),
            None => {
                locked.finish();
                Ok(None)
            }
        }
    }

    /// Repairs a poisoned entry: if there is one of that key and it is poisoned, lets `repair` put
    /// its value right and clears the poison. Returns whether that was so. If `repair` does not
    /// return, the entry stays poisoned.
    ///
    /// # Errors
    ///
    /// [`Error::WouldDeadlock`], [`Error::Lock`].
    pub fn repair(&self, key: &K, repair: impl FnOnce(&mut V)) -> Result<bool, Error> {
        match self.find_poisoned(key)? {
            Some(mut guard) if guard.is_poisoned() => {
                repair(&mut guard);
                guard.clear_poison();
                Ok(true)
            }
            _ => Ok(false),
        }
    }

    /// Finds an entry to change, or inserts one whose value `initial` gives, atomically with
    /// regard to everybody else. Returns whether it was there.
    ///
    /// # Errors
    ///
    /// As [`find_exclusive`](Self::find_exclusive), and [`Error::Memory`].
    #[doc(alias = "dshash_find_or_insert")]
    #[inline]
    pub fn find_or_insert(
        &self,
        key: &K,
        initial: impl FnOnce() -> V,
    ) -> Result<(ExclusiveGuard<'s, K, V, S>, bool), Error> {
        let hash = self.hash(key);
        let core = &self.table.core;
        let (locked, found) = core.take(self.caller, hash, true, Self::is(key))?;
        match found {
            Some(found) => Ok((ExclusiveGuard::new(Exclusive::new(locked, found)), true)),
            None => Ok((insert_vacant(locked, hash, key, initial())?, false)),
        }
    }

    /// Locks the place of a key, whether there is an entry or not. The key is copied.
    ///
    /// # Errors
    ///
    /// [`Error::Poisoned`], [`Error::WouldDeadlock`], [`Error::Lock`].
    #[inline]
    pub fn entry(&self, key: &K) -> Result<Entry<'s, K, V, S>, Error> {
        let hash = self.hash(key);
        let core = &self.table.core;
        let (locked, found) = core.take(self.caller, hash, true, Self::is(key))?;
        match found {
            Some(found) => Ok(Entry::occupied(ExclusiveGuard::new(Exclusive::new(locked, found)))),
            None => Ok(Entry::vacant(locked, hash, key)),
        }
    }

    /// Inserts an entry, or replaces the value of the one there is, which is returned. A poisoned
    /// value is replaced like any other, after which the entry is good, and is not returned.
    ///
    /// Killed at any moment of it, a process leaves a new entry whole or not at all. One whose
    /// value it was replacing is poisoned, and its value the old one, the new one, or part of each:
    /// to insert again puts it right.
    ///
    /// # Errors
    ///
    /// [`Error::WouldDeadlock`], [`Error::Lock`], [`Error::Memory`].
    #[inline(always)]
    pub fn insert(&self, key: &K, value: V) -> Result<Option<V>, Error> {
        let hash = self.hash(key);
        let core = &self.table.core;
        let (locked, found) = match core.take(self.caller, hash, true, Self::is(key)) {
            Ok(taken) => taken,
            Err(Error::Poisoned) => return self.insert_over_poison(key, value),
            Err(error) => return Err(error),
        };
        match found {
            Some(found) => {
                let mut guard = ExclusiveGuard::<K, V, S>::new(Exclusive::new(locked, found));
                let old = core::mem::replace(&mut *guard, value);
                guard.release();
                Ok(Some(old))
            }
            None => Self::insert_absent(locked, hash, key, value),
        }
    }

    #[inline(always)]
    fn insert_absent(
        locked: Locked<'s, S>,
        hash: u64,
        key: &K,
        value: V,
    ) -> Result<Option<V>, Error> {
        let write = |entry: Memory<'s>| Table::<K, V, S>::write(entry, key, value);
        let (mut locked, _) = locked.insert(hash, Fill::Complete, write)?;
        locked.end();
        locked.finish();
        Ok(None)
    }

    /// [`insert`](Self::insert) where a poisoned entry was seen, which may be repaired, or gone,
    /// now. The poison is cleared when the value is whole, and under the guard: who dies before the
    /// guard is released leaves poison.
    #[cold]
    #[inline(never)]
    fn insert_over_poison(&self, key: &K, value: V) -> Result<Option<V>, Error> {
        let hash = self.hash(key);
        let (locked, found) = self.table.core.take(self.caller, hash, false, Self::is(key))?;
        let Some(found) = found else {
            return Self::insert_absent(locked, hash, key, value);
        };
        let mut guard = ExclusiveGuard::<K, V, S>::new(Exclusive::new(locked, found));
        let poisoned = guard.is_poisoned();
        let old = core::mem::replace(&mut *guard, value);
        guard.clear_poison();
        Ok((!poisoned).then_some(old))
    }

    /// Deletes the entry of a key, poisoned or not. Returns whether there was one.
    ///
    /// # Errors
    ///
    /// [`Error::WouldDeadlock`], [`Error::Lock`].
    #[doc(alias = "dshash_delete_key")]
    #[inline(always)]
    pub fn delete(&self, key: &K) -> Result<bool, Error> {
        self.table.core.delete(self.caller, self.hash(key), Self::is(key))
    }

    /// Walks through all entries, one partition locked shared at a time. Entries that are
    /// inserted meanwhile in partitions not reached yet are seen.
    #[doc(alias = "dshash_seq_init")]
    #[must_use]
    pub fn scan(&self) -> Scan<'s, K, V, S> {
        Scan::new(*self)
    }

    /// As [`scan`](Self::scan), one partition locked exclusively at a time: entries can be
    /// changed and deleted on the way.
    #[doc(alias = "dshash_seq_init")]
    #[must_use]
    pub fn scan_mut(&self) -> ScanMut<'s, K, V, S> {
        ScanMut::new(*self)
    }
}

/// Inserts into a locked partition where the key is known to be absent.
#[inline]
pub(crate) fn insert_vacant<'e, K: Key, V: Value, S: Store>(
    locked: Locked<'e, S>,
    hash: u64,
    key: &K,
    value: V,
) -> Result<ExclusiveGuard<'e, K, V, S>, Error> {
    let write = |entry: Memory<'e>| Table::<K, V, S>::write(entry, key, value);
    let held = Exclusive::insert(locked, hash, Fill::Complete, write)?;
    Ok(ExclusiveGuard::new(held))
}

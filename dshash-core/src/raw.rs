//! The untyped table: sizes and key functions chosen at run time, keys and values as bytes.
//!
//! For embedders whose types are not Rust's, and for bindings. An entry is the key's field
//! followed by the value, as in PostgreSQL; a new entry's value is zero, and is poisoned if the
//! one who inserted it dies before letting go of it.

use dsa_core::{AtomicDsaPointer, DsaPointer};

use crate::check::{Report, Stats};
use crate::error::Error;
use crate::held::Exclusive;
use crate::keys::KeyFunctions;
use crate::kind::Kind;
use crate::locked::Fill;
use crate::partition::Caller;
use crate::store::{Allocator, Store};
use crate::table::{DEFAULT_PARTITIONS, TableHandle};
use crate::view::{Core, Entry};
use crate::walk::{Changing, Reading};

mod guards;

use guards::field;
pub use guards::{RawExclusiveGuard, RawScan, RawScanEntry, RawScanMut, RawSharedGuard};

/// Sizes of an untyped table: stored with it, and compared on attach.
#[doc(alias = "dshash_parameters")]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RawParams {
    /// Bytes of the field that keeps a key.
    pub key_size: usize,
    /// Bytes of key and value together.
    pub entry_size: usize,
    /// Alignment of the entry in bytes, up to 16.
    pub align: usize,
    /// As [`Params::partitions`](crate::Params::partitions).
    pub partitions: u32,
    /// As [`Params::type_tag`](crate::Params::type_tag).
    pub type_tag: u64,
}

impl RawParams {
    /// Entries of these sizes, aligned to 8, in the usual number of partitions.
    #[must_use]
    pub const fn new(key_size: usize, entry_size: usize) -> Self {
        Self { key_size, entry_size, align: 8, partitions: DEFAULT_PARTITIONS, type_tag: 0 }
    }
}

/// A hash table of bytes; see the module's essay.
pub struct RawTable<F, S: Store> {
    core: Core<S>,
    functions: F,
}

impl<F: KeyFunctions, S: Store> RawTable<F, S> {
    fn kind(functions: &F, params: &RawParams) -> Kind {
        let RawParams { key_size, entry_size, align, type_tag, .. } = *params;
        Kind { key_size, entry_size, align, hash_identity: functions.identity(), type_tag }
    }

    /// As [`Table::create`](crate::Table::create).
    ///
    /// # Errors
    ///
    /// As there.
    #[doc(alias = "dshash_create")]
    pub fn create(
        store: S,
        heap: &dyn Allocator,
        functions: F,
        params: &RawParams,
    ) -> Result<Self, Error> {
        let caller = Caller::new(&store, heap)?;
        let kind = Self::kind(&functions, params);
        Ok(Self { core: Core::create(store, caller, kind, params.partitions, None)?, functions })
    }

    /// As [`Table::create_into`](crate::Table::create_into).
    ///
    /// # Errors
    ///
    /// As there.
    #[doc(alias = "dshash_create")]
    pub fn create_into(
        store: S,
        heap: &dyn Allocator,
        functions: F,
        params: &RawParams,
        destination: &AtomicDsaPointer,
    ) -> Result<Self, Error> {
        let caller = Caller::new(&store, heap)?;
        let kind = Self::kind(&functions, params);
        let core = Core::create(store, caller, kind, params.partitions, Some(destination))?;
        Ok(Self { core, functions })
    }

    /// As [`Table::attach`](crate::Table::attach).
    ///
    /// # Errors
    ///
    /// As there.
    ///
    /// # Safety
    ///
    /// As there.
    #[doc(alias = "dshash_attach")]
    pub unsafe fn attach(
        store: S,
        handle: TableHandle,
        functions: F,
        params: &RawParams,
    ) -> Result<Self, Error> {
        let kind = Self::kind(&functions, params);
        kind.check()?;
        // SAFETY: the caller's promise.
        let core = unsafe { Core::attach(store, handle.0.raw(), kind) }?;
        Ok(Self { core, functions })
    }

    /// Lets go of the table, which stays as it is. Returns the store.
    #[doc(alias = "dshash_detach")]
    pub fn detach(self) -> S {
        self.core.store
    }

    /// As [`Table::destroy`](crate::Table::destroy).
    ///
    /// # Errors
    ///
    /// As there.
    ///
    /// # Safety
    ///
    /// As there.
    #[doc(alias = "dshash_destroy")]
    pub unsafe fn destroy(self, heap: &dyn Allocator) -> Result<(), Error> {
        let caller = Caller::new(&self.core.store, heap)?;
        // SAFETY: the caller's promise.
        unsafe { self.core.destroy(caller, None) }
    }

    /// As [`Table::destroy_from`](crate::Table::destroy_from).
    ///
    /// # Errors
    ///
    /// As there.
    ///
    /// # Safety
    ///
    /// As there.
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

    /// Entries at this moment.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.core.len()
    }

    /// Whether there were no entries.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The table as used by one participant.
    ///
    /// # Errors
    ///
    /// [`Error::ForeignHeap`] for a heap of another area.
    pub fn bind<'s>(&'s self, heap: &'s dyn Allocator) -> Result<RawSession<'s, F, S>, Error> {
        Ok(RawSession { table: self, caller: Caller::new(&self.core.store, heap)? })
    }
}

/// An untyped table as used by one participant.
pub struct RawSession<'s, F, S: Store> {
    table: &'s RawTable<F, S>,
    caller: Caller<'s>,
}

impl<'s, F: KeyFunctions, S: Store> RawSession<'s, F, S> {
    fn hash(&self, key: &[u8]) -> Result<u64, Error> {
        let core = &self.table.core;
        self.table.functions.check(key, core.kind.key_size)?;
        Ok(core.secrets.spread(self.table.functions.hash(key, &core.secrets)))
    }

    fn is<'k>(&self, key: &'k [u8]) -> impl FnMut(Entry<'_>) -> bool + 'k
    where
        's: 'k,
    {
        let table = self.table;
        move |entry| {
            // SAFETY: found under the partition's lock.
            let field = unsafe { field(&table.core.kind, entry) };
            table.functions.equal(key, field)
        }
    }

    /// As [`Session::find`](crate::Session::find).
    ///
    /// # Errors
    ///
    /// As there, and [`Error::KeyTooLong`].
    #[doc(alias = "dshash_find")]
    pub fn find(&self, key: &[u8]) -> Result<Option<RawSharedGuard<'s, S>>, Error> {
        let (core, hash) = (&self.table.core, self.hash(key)?);
        let held = core.find_shared(self.caller, hash, self.is(key))?;
        Ok(held.map(|held| RawSharedGuard { held, kind: core.kind }))
    }

    /// As [`Session::find_exclusive`](crate::Session::find_exclusive).
    ///
    /// # Errors
    ///
    /// As there, and [`Error::KeyTooLong`].
    #[doc(alias = "dshash_find")]
    pub fn find_exclusive(&self, key: &[u8]) -> Result<Option<RawExclusiveGuard<'s, S>>, Error> {
        match self.find_poisoned(key)? {
            Some(guard) if guard.is_poisoned() => Err(Error::Poisoned),
            found => Ok(found),
        }
    }

    /// As [`Session::find_poisoned`](crate::Session::find_poisoned).
    ///
    /// # Errors
    ///
    /// As there, and [`Error::KeyTooLong`].
    pub fn find_poisoned(&self, key: &[u8]) -> Result<Option<RawExclusiveGuard<'s, S>>, Error> {
        let (core, hash) = (&self.table.core, self.hash(key)?);
        let (locked, found) = core.take(self.caller, hash, false, self.is(key))?;
        let held = found.map(|found| Exclusive::new(locked, found));
        Ok(held.map(|held| RawExclusiveGuard { held, kind: core.kind }))
    }

    /// Finds an entry to change, or inserts one whose value is zero. Returns whether it was
    /// there.
    ///
    /// # Errors
    ///
    /// As [`find_exclusive`](Self::find_exclusive), and [`Error::Memory`].
    #[doc(alias = "dshash_find_or_insert")]
    pub fn find_or_insert(&self, key: &[u8]) -> Result<(RawExclusiveGuard<'s, S>, bool), Error> {
        let (core, hash) = (&self.table.core, self.hash(key)?);
        let (locked, found) = core.take(self.caller, hash, true, self.is(key))?;
        let (held, found) = match found {
            Some(found) => (Exclusive::new(locked, found), true),
            None => {
                let write = |entry| self.write(entry, key);
                (Exclusive::insert(locked, hash, Fill::Later, write)?, false)
            }
        };
        Ok((RawExclusiveGuard { held, kind: core.kind }, found))
    }

    fn write(&self, entry: Entry<'_>, key: &[u8]) {
        let kind = &self.table.core.kind;
        let at = entry.data(kind.data_offset()).as_ptr();
        // SAFETY: that many bytes of an entry that nobody refers to.
        unsafe { at.write_bytes(0, kind.entry_size) };
        // SAFETY: as above, and initialised now.
        let field = unsafe { core::slice::from_raw_parts_mut(at, kind.key_size) };
        self.table.functions.copy(field, key);
    }

    /// As [`Session::delete`](crate::Session::delete).
    ///
    /// # Errors
    ///
    /// As there, and [`Error::KeyTooLong`].
    #[doc(alias = "dshash_delete_key")]
    pub fn delete(&self, key: &[u8]) -> Result<bool, Error> {
        self.table.core.delete(self.caller, self.hash(key)?, self.is(key))
    }

    /// As [`Session::scan`](crate::Session::scan).
    #[doc(alias = "dshash_seq_init")]
    #[must_use]
    pub fn scan(&self) -> RawScan<'s, S> {
        let core = &self.table.core;
        RawScan { walk: Reading::new(core, self.caller), kind: core.kind }
    }

    /// As [`Session::scan_mut`](crate::Session::scan_mut).
    #[doc(alias = "dshash_seq_init")]
    #[must_use]
    pub fn scan_mut(&self) -> RawScanMut<'s, S> {
        let core = &self.table.core;
        RawScanMut { walk: Changing::new(core, self.caller), kind: core.kind }
    }

    /// As [`Session::stats`](crate::Session::stats).
    ///
    /// # Errors
    ///
    /// As there.
    pub fn stats(&self) -> Result<Stats, Error> {
        self.table.core.stats(self.caller)
    }

    /// As [`Session::dump`](crate::Session::dump).
    ///
    /// # Errors
    ///
    /// As there.
    #[doc(alias = "dshash_dump")]
    pub fn dump(&self, out: &mut dyn core::fmt::Write) -> core::fmt::Result {
        self.table.core.dump(self.caller, out)
    }

    /// As [`Session::check`](crate::Session::check).
    ///
    /// # Errors
    ///
    /// As there.
    pub fn check(&self) -> Result<Report, Error> {
        self.table.core.check(self.caller)
    }

    /// As [`Session::trim`](crate::Session::trim).
    ///
    /// # Errors
    ///
    /// As there.
    pub fn trim(&self) -> Result<(), Error> {
        self.table.core.trim(self.caller)
    }

    /// As [`Session::clear`](crate::Session::clear).
    ///
    /// # Errors
    ///
    /// As there.
    pub fn clear(&self) -> Result<(), Error> {
        self.table.core.clear(self.caller)
    }
}

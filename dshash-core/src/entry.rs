//! The place of a key in a table: occupied or vacant, and locked either way.

use crate::error::Error;
use crate::guard::ExclusiveGuard;
use crate::locked::Locked;
use crate::store::Store;
use crate::table::{Key, Value, insert_vacant};

/// The place of a key; see [`Session::entry`](crate::Session::entry).
#[must_use = "dropping the entry unlocks the partition"]
pub enum Entry<'e, K, V, S: Store> {
    /// There is an entry.
    Occupied(OccupiedEntry<'e, K, V, S>),
    /// There is none.
    Vacant(VacantEntry<'e, K, V, S>),
}

/// The place of a key that is in the table.
pub struct OccupiedEntry<'e, K, V, S: Store> {
    guard: ExclusiveGuard<'e, K, V, S>,
}

/// The place of a key that is not in the table.
pub struct VacantEntry<'e, K, V, S: Store> {
    locked: Locked<'e, S>,
    hash: u64,
    /// A copy, so that a place may outlive the key that it was asked for by.
    key: K,
    _value: core::marker::PhantomData<fn() -> V>,
}

impl<'e, K: Key, V: Value, S: Store> Entry<'e, K, V, S> {
    #[inline]
    pub(crate) fn occupied(guard: ExclusiveGuard<'e, K, V, S>) -> Self {
        Self::Occupied(OccupiedEntry { guard })
    }

    #[inline]
    pub(crate) fn vacant(locked: Locked<'e, S>, hash: u64, key: &K) -> Self {
        // SAFETY: a key is plain data, any bytes of which are one, and is never dropped.
        let key = unsafe { core::ptr::read(key) };
        Self::Vacant(VacantEntry { locked, hash, key, _value: core::marker::PhantomData })
    }

    /// The entry's guard; inserts `value` if there is no entry.
    ///
    /// # Errors
    ///
    /// [`Error::Memory`].
    #[inline]
    pub fn or_insert(self, value: V) -> Result<ExclusiveGuard<'e, K, V, S>, Error> {
        self.or_insert_with(|| value)
    }

    /// The entry's guard; inserts what `value` returns if there is no entry.
    ///
    /// # Errors
    ///
    /// [`Error::Memory`].
    #[inline]
    pub fn or_insert_with(
        self,
        value: impl FnOnce() -> V,
    ) -> Result<ExclusiveGuard<'e, K, V, S>, Error> {
        match self {
            Self::Occupied(entry) => Ok(entry.into_guard()),
            Self::Vacant(entry) => entry.insert(value()),
        }
    }

    /// Changes the value if there is an entry.
    #[inline]
    pub fn and_modify(mut self, modify: impl FnOnce(&mut V)) -> Self {
        if let Self::Occupied(entry) = &mut self {
            modify(&mut entry.guard);
        }
        self
    }
}

impl<'e, K: Key, V: Value, S: Store> OccupiedEntry<'e, K, V, S> {
    /// The entry's guard.
    #[inline]
    pub fn into_guard(self) -> ExclusiveGuard<'e, K, V, S> {
        self.guard
    }

    /// Deletes the entry.
    ///
    /// # Errors
    ///
    /// As [`ExclusiveGuard::delete`].
    pub fn delete(self) -> Result<(), Error> {
        self.guard.delete()
    }
}

impl<'e, K: Key, V: Value, S: Store> VacantEntry<'e, K, V, S> {
    /// Inserts an entry.
    ///
    /// # Errors
    ///
    /// [`Error::Memory`]; [`Error::Lock`] if this process has forked since, or was declared dead.
    #[inline]
    pub fn insert(self, value: V) -> Result<ExclusiveGuard<'e, K, V, S>, Error> {
        self.locked.confirm()?;
        insert_vacant(self.locked, self.hash, &self.key, value)
    }
}

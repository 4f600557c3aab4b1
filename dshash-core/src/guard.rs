//! Typed guards.

use core::marker::PhantomData;
use core::ops::{Deref, DerefMut};

use crate::error::Error;
use crate::held::{Exclusive, Shared};
use crate::store::Store;
use crate::table::{Key, Table, Value};

/// An entry that nobody else can look at; dereferences to the value. Dropping it unlocks.
///
/// If its holder dies meanwhile the entry is poisoned. If it is leaked the partition stays locked
/// until the process ends.
#[must_use = "dropping the guard unlocks the partition"]
pub struct ExclusiveGuard<'s, K, V, S: Store> {
    held: Exclusive<'s, S>,
    _key: PhantomData<fn(K)>,
    _value: PhantomData<&'s mut V>,
}

impl<'s, K: Key, V: Value, S: Store> ExclusiveGuard<'s, K, V, S> {
    /// `held` must be of a `Table<K, V, S>`.
    #[inline(always)]
    pub(crate) fn new(held: Exclusive<'s, S>) -> Self {
        Self { held, _key: PhantomData, _value: PhantomData }
    }

    /// The key.
    #[must_use]
    pub fn key(&self) -> &K {
        // SAFETY: the entry of a table of `K`s, live while the guard is.
        unsafe { self.held.entry().data(Table::<K, V, S>::KEY_OFFSET).cast().as_ref() }
    }

    /// Deletes the entry.
    ///
    /// # Errors
    ///
    /// [`Error::Corrupt`] or [`Error::Memory`] from tidying up; the entry is gone all the same.
    /// [`Error::Lock`] if this process has forked since the guard was had, or was declared dead:
    /// then nothing is changed.
    #[doc(alias = "dshash_delete_entry")]
    pub fn delete(self) -> Result<(), Error> {
        self.held.delete()
    }

    /// Whether the value may be half-changed.
    #[inline]
    #[must_use]
    pub fn is_poisoned(&self) -> bool {
        self.held.is_poisoned()
    }

    /// Declares the value good.
    pub fn clear_poison(&mut self) {
        self.held.set_poison(false);
    }

    /// Declares the value bad: from now on looking at it is [`Error::Poisoned`], until somebody
    /// repairs it. What an embedder calls when a panic unwinds through a guard.
    #[inline]
    pub fn poison(&mut self) {
        self.held.set_poison(true);
    }

    /// Unlocks.
    #[doc(alias = "dshash_release_lock")]
    #[inline(always)]
    pub fn release(self) {
        self.held.release();
    }
}

impl<K: Key, V: Value, S: Store> Deref for ExclusiveGuard<'_, K, V, S> {
    type Target = V;

    #[inline]
    fn deref(&self) -> &V {
        // SAFETY: the entry of a table of `V`s, for which any bytes are a value; only this guard
        // leads to it.
        unsafe { self.held.entry().data(Table::<K, V, S>::VALUE_OFFSET).cast().as_ref() }
    }
}

impl<K: Key, V: Value, S: Store> DerefMut for ExclusiveGuard<'_, K, V, S> {
    #[inline]
    fn deref_mut(&mut self) -> &mut V {
        // SAFETY: as for `deref`; the guard is borrowed exclusively.
        unsafe { self.held.entry().data(Table::<K, V, S>::VALUE_OFFSET).cast().as_mut() }
    }
}

/// An entry that nobody changes; dereferences to the value. Dropping it unlocks.
#[must_use = "dropping the guard unlocks the partition"]
pub struct SharedGuard<'s, K, V, S: Store> {
    held: Shared<'s, S>,
    _key: PhantomData<fn(K)>,
    _value: PhantomData<&'s V>,
}

impl<'s, K: Key, V: Value, S: Store> SharedGuard<'s, K, V, S> {
    /// `held` must be of a `Table<K, V, S>`.
    #[inline(always)]
    pub(crate) fn new(held: Shared<'s, S>) -> Self {
        Self { held, _key: PhantomData, _value: PhantomData }
    }

    /// The key.
    #[must_use]
    pub fn key(&self) -> &K {
        // SAFETY: the entry of a table of `K`s, live while the guard is.
        unsafe { self.held.entry().data(Table::<K, V, S>::KEY_OFFSET).cast().as_ref() }
    }

    /// Unlocks.
    #[doc(alias = "dshash_release_lock")]
    pub fn release(self) {}
}

impl<K: Key, V: Value, S: Store> Deref for SharedGuard<'_, K, V, S> {
    type Target = V;

    #[inline]
    fn deref(&self) -> &V {
        // SAFETY: the entry of a table of `V`s, for which any bytes are a value; nobody changes
        // it but through interior mutability.
        unsafe { self.held.entry().data(Table::<K, V, S>::VALUE_OFFSET).cast().as_ref() }
    }
}

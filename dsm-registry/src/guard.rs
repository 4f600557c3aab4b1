//! Guards of a table's entries: who holds one holds the lock of the entry's partition.
//!
//! Beside what the core's guards do, a [`WriteGuard`] poisons its entry when a panic unwinds
//! through it: the value may be half-changed, just as if the process had been killed. As with
//! `std`'s mutex it is the panic that *begins* while the guard lives that counts: a destructor that
//! runs during another panic, and takes and gives back a guard, poisons nothing.
//!
//! A lock is given back by the thread that took it, so guards are not `Send`:
//!
//! ```compile_fail,E0277
//! let registry = dsm_registry::Registry::open("demo").unwrap();
//! let table = registry.hash::<u64, u64>("table").unwrap();
//! let guard = table.find(&1).unwrap();
//! std::thread::scope(|scope| {
//!     scope.spawn(move || drop(guard));
//! });
//! ```

use std::fmt;
use std::mem::ManuallyDrop;
use std::ops::{Deref, DerefMut};

use crate::error::Error;
use crate::error::context::Context;
use crate::plain::{Key, Plain};
use crate::process::Attachment;
use crate::table::{Store, TABLE};

/// An entry that nobody changes while this lives; dereferences to the value.
///
/// Others can look at the entry too. Dropping the guard unlocks; forgetting it keeps the lock
/// until the process ends.
#[must_use = "dropping the guard unlocks"]
pub struct ReadGuard<'t, K: Key, V: Plain> {
    inner: dshash_core::SharedGuard<'t, K, V, Store>,
}

impl<'t, K: Key, V: Plain> ReadGuard<'t, K, V> {
    #[inline]
    pub(crate) fn new(inner: dshash_core::SharedGuard<'t, K, V, Store>) -> Self {
        Self { inner }
    }

    /// The key.
    #[must_use]
    pub fn key(&self) -> &K {
        self.inner.key()
    }
}

impl<K: Key, V: Plain> Deref for ReadGuard<'_, K, V> {
    type Target = V;

    #[inline]
    fn deref(&self) -> &V {
        &self.inner
    }
}

impl<K: Key + fmt::Debug, V: Plain + fmt::Debug> fmt::Debug for ReadGuard<'_, K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReadGuard").field("key", self.key()).field("value", &**self).finish()
    }
}

/// An entry that nobody else can look at while this lives; dereferences to the value.
///
/// If the process dies, or a panic unwinds, while the guard lives, the entry is poisoned. Dropping
/// the guard unlocks; forgetting it keeps the lock until the process ends.
#[must_use = "dropping the guard unlocks"]
pub struct WriteGuard<'t, K: Key, V: Plain> {
    /// Dropped, or taken out, with the whole.
    inner: ManuallyDrop<dshash_core::ExclusiveGuard<'t, K, V, Store>>,
    home: &'t Attachment,
    /// Whether the thread was panicking (1) when the guard was made. A whole word, like every part
    /// of a guard: a narrow one would make each move of it wait for the stores before.
    panicking: usize,
}

impl<'t, K: Key, V: Plain> WriteGuard<'t, K, V> {
    #[inline]
    pub(crate) fn new(
        inner: dshash_core::ExclusiveGuard<'t, K, V, Store>,
        home: &'t Attachment,
    ) -> Self {
        Self {
            inner: ManuallyDrop::new(inner),
            home,
            panicking: usize::from(std::thread::panicking()),
        }
    }

    /// The key.
    #[must_use]
    pub fn key(&self) -> &K {
        self.inner.key()
    }

    /// Removes the entry.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Table`](crate::ErrorKind::Table) from tidying up, or if the table is damaged.
    #[doc(alias = "dshash_delete_entry")]
    pub fn remove(self) -> Result<(), Error> {
        let mut this = ManuallyDrop::new(self);
        // SAFETY: taken out once, for what it was in is not dropped.
        let inner = unsafe { ManuallyDrop::take(&mut this.inner) };
        inner.delete().of(this.home, TABLE)
    }
}

impl<K: Key, V: Plain> Deref for WriteGuard<'_, K, V> {
    type Target = V;

    #[inline]
    fn deref(&self) -> &V {
        &self.inner
    }
}

impl<K: Key, V: Plain> DerefMut for WriteGuard<'_, K, V> {
    #[inline]
    fn deref_mut(&mut self) -> &mut V {
        &mut self.inner
    }
}

impl<K: Key, V: Plain> Drop for WriteGuard<'_, K, V> {
    #[inline(always)]
    fn drop(&mut self) {
        // Before it is taken out, so that there is nothing to drop if this should panic.
        if self.panicking == 0 && std::thread::panicking() && self.home.is_ours() {
            self.inner.poison();
        }
        // SAFETY: taken out once: this is the end.
        unsafe { ManuallyDrop::take(&mut self.inner) }.release();
    }
}

impl<K: Key + fmt::Debug, V: Plain + fmt::Debug> fmt::Debug for WriteGuard<'_, K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WriteGuard").field("key", self.key()).field("value", &**self).finish()
    }
}

/// A poisoned entry, locked for its repair; dereferences to the value as its last holder left it.
///
/// Dropped without [`repaired`](Self::repaired) it stays poisoned.
#[must_use = "dropping this leaves the entry poisoned"]
pub struct Poisoned<'t, K: Key, V: Plain> {
    inner: dshash_core::ExclusiveGuard<'t, K, V, Store>,
    home: &'t Attachment,
}

impl<'t, K: Key, V: Plain> Poisoned<'t, K, V> {
    pub(crate) fn new(
        inner: dshash_core::ExclusiveGuard<'t, K, V, Store>,
        home: &'t Attachment,
    ) -> Self {
        Self { inner, home }
    }

    /// The key.
    #[must_use]
    pub fn key(&self) -> &K {
        self.inner.key()
    }

    /// Declares the value good, and goes on holding it.
    pub fn repaired(mut self) -> WriteGuard<'t, K, V> {
        self.inner.clear_poison();
        WriteGuard::new(self.inner, self.home)
    }

    /// Removes the entry.
    ///
    /// # Errors
    ///
    /// As [`WriteGuard::remove`].
    pub fn remove(self) -> Result<(), Error> {
        let home = self.home;
        self.inner.delete().of(home, TABLE)
    }
}

impl<K: Key, V: Plain> Deref for Poisoned<'_, K, V> {
    type Target = V;

    fn deref(&self) -> &V {
        &self.inner
    }
}

impl<K: Key, V: Plain> DerefMut for Poisoned<'_, K, V> {
    fn deref_mut(&mut self) -> &mut V {
        &mut self.inner
    }
}

/// The place of a key, locked whether there is an entry or not.
#[must_use = "dropping the place unlocks"]
pub enum Entry<'t, K: Key, V: Plain> {
    /// There is an entry.
    Occupied(WriteGuard<'t, K, V>),
    /// There is none.
    Vacant(Vacant<'t, K, V>),
}

/// The place of a key that has no entry.
#[must_use = "dropping the place unlocks"]
pub struct Vacant<'t, K: Key, V: Plain> {
    inner: dshash_core::VacantEntry<'t, K, V, Store>,
    home: &'t Attachment,
}

impl<'t, K: Key, V: Plain> Entry<'t, K, V> {
    #[inline]
    pub(crate) fn new(inner: dshash_core::Entry<'t, K, V, Store>, home: &'t Attachment) -> Self {
        match inner {
            dshash_core::Entry::Occupied(entry) => {
                Self::Occupied(WriteGuard::new(entry.into_guard(), home))
            }
            dshash_core::Entry::Vacant(inner) => Self::Vacant(Vacant { inner, home }),
        }
    }

    /// The entry, locked; inserts `value` if there is none.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::OutOfMemory`](crate::ErrorKind::OutOfMemory) if the system has no memory for
    /// it; [`ErrorKind::Table`](crate::ErrorKind::Table) at the table's limit;
    /// [`ErrorKind::Namespace`](crate::ErrorKind::Namespace) when all segment slots are taken.
    #[inline]
    pub fn or_insert(self, value: V) -> Result<WriteGuard<'t, K, V>, Error> {
        self.or_insert_with(|| value)
    }

    /// The entry, locked; inserts what `value` returns if there is none.
    ///
    /// # Errors
    ///
    /// As [`or_insert`](Self::or_insert).
    #[inline]
    pub fn or_insert_with(self, value: impl FnOnce() -> V) -> Result<WriteGuard<'t, K, V>, Error> {
        match self {
            Self::Occupied(guard) => Ok(guard),
            Self::Vacant(place) => place.insert(value()),
        }
    }

    /// Changes the value if there is an entry.
    #[inline]
    pub fn and_modify(mut self, modify: impl FnOnce(&mut V)) -> Self {
        if let Self::Occupied(guard) = &mut self {
            modify(guard);
        }
        self
    }
}

impl<'t, K: Key, V: Plain> Vacant<'t, K, V> {
    /// Inserts an entry.
    ///
    /// # Errors
    ///
    /// As [`Entry::or_insert`].
    #[inline]
    pub fn insert(self, value: V) -> Result<WriteGuard<'t, K, V>, Error> {
        let home = self.home;
        let inner = self.inner.insert(value).of(home, TABLE)?;
        Ok(WriteGuard::new(inner, home))
    }
}

#[cfg(test)]
mod tests {
    use static_assertions::{assert_impl_all, assert_not_impl_any};

    use super::*;

    assert_not_impl_any!(ReadGuard<'static, u64, u64>: Send, Sync);
    assert_not_impl_any!(WriteGuard<'static, u64, u64>: Send, Sync);
    assert_not_impl_any!(Entry<'static, u64, u64>: Send, Sync);
    assert_not_impl_any!(Poisoned<'static, u64, u64>: Send, Sync);
    assert_not_impl_any!(crate::Scan<'static, u64, u64>: Send, Sync);
    assert_not_impl_any!(crate::ScanMut<'static, u64, u64>: Send, Sync);
    assert_impl_all!(crate::Registry: Send, Sync);
    assert_impl_all!(crate::HashTable<u64, u64>: Send, Sync);
    assert_impl_all!(crate::Segment<u64>: Send, Sync);
    assert_impl_all!(crate::Bytes: Send, Sync);
    assert_impl_all!(crate::Area: Send, Sync);
    assert_impl_all!(crate::Error: Send, Sync);
}

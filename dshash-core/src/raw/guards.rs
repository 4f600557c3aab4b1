//! Guards and scans of untyped tables: the parts of an entry as slices.
//!
//! What a guard shows is what its partition's lock keeps in place: see `held` and `walk`, which it
//! wraps.

use core::ptr::NonNull;

use crate::error::Error;
use crate::held::{Exclusive, Shared};
use crate::kind::Kind;
use crate::store::Store;
use crate::view::Entry;
use crate::walk::{Changing, Current, Reading};

/// The key's field of an entry.
///
/// # Safety
///
/// `entry` must be an entry of a table of that kind whose key nobody changes for `'t`.
pub(super) unsafe fn field<'t>(kind: &Kind, entry: Entry<'t>) -> &'t [u8] {
    let at = entry.data(kind.data_offset()).as_ptr();
    // SAFETY: that many bytes, all initialised when the entry was.
    unsafe { core::slice::from_raw_parts(at, kind.key_size) }
}

fn value_at(kind: &Kind, entry: Entry<'_>) -> NonNull<u8> {
    entry.data(kind.data_offset() + kind.key_size)
}

/// Bytes of an entry's value.
fn value_len(kind: &Kind) -> usize {
    kind.entry_size - kind.key_size
}

/// An untyped entry that others may look at.
#[must_use = "dropping the guard unlocks the partition"]
pub struct RawSharedGuard<'s, S: Store> {
    pub(super) held: Shared<'s, S>,
    pub(super) kind: Kind,
}

impl<S: Store> RawSharedGuard<'_, S> {
    /// The key's field.
    #[must_use]
    pub fn key(&self) -> &[u8] {
        // SAFETY: guarded.
        unsafe { field(&self.kind, self.held.entry()) }
    }

    /// The value.
    #[must_use]
    pub fn value(&self) -> &[u8] {
        let at = value_at(&self.kind, self.held.entry()).as_ptr();
        // SAFETY: that many bytes, initialised, and nobody changes them while the guard lives.
        unsafe { core::slice::from_raw_parts(at, value_len(&self.kind)) }
    }
}

/// An untyped entry that nobody else can look at.
#[must_use = "dropping the guard unlocks the partition"]
pub struct RawExclusiveGuard<'s, S: Store> {
    pub(super) held: Exclusive<'s, S>,
    pub(super) kind: Kind,
}

impl<S: Store> RawExclusiveGuard<'_, S> {
    /// The key's field.
    #[must_use]
    pub fn key(&self) -> &[u8] {
        // SAFETY: guarded.
        unsafe { field(&self.kind, self.held.entry()) }
    }

    /// The value.
    #[must_use]
    pub fn value(&self) -> &[u8] {
        let at = value_at(&self.kind, self.held.entry()).as_ptr();
        // SAFETY: that many bytes, initialised; only this guard leads to them.
        unsafe { core::slice::from_raw_parts(at, value_len(&self.kind)) }
    }

    /// The value, to change it.
    pub fn value_mut(&mut self) -> &mut [u8] {
        let at = value_at(&self.kind, self.held.entry()).as_ptr();
        // SAFETY: as for `value`; borrowed exclusively.
        unsafe { core::slice::from_raw_parts_mut(at, value_len(&self.kind)) }
    }

    /// Deletes the entry.
    ///
    /// # Errors
    ///
    /// As [`ExclusiveGuard::delete`](crate::ExclusiveGuard::delete).
    #[doc(alias = "dshash_delete_entry")]
    pub fn delete(self) -> Result<(), Error> {
        self.held.delete()
    }

    /// Whether the value may be half-changed.
    #[must_use]
    pub fn is_poisoned(&self) -> bool {
        self.held.is_poisoned()
    }

    /// Declares the value good.
    pub fn clear_poison(&mut self) {
        self.held.set_poison(false);
    }

    /// Declares the value bad.
    pub fn poison(&mut self) {
        self.held.set_poison(true);
    }

    /// Unlocks.
    #[doc(alias = "dshash_release_lock")]
    pub fn release(self) {}
}

/// A scan of an untyped table that looks.
pub struct RawScan<'s, S: Store> {
    pub(super) walk: Reading<'s, S>,
    pub(super) kind: Kind,
}

impl<S: Store> RawScan<'_, S> {
    /// The next entry: key's field and value.
    ///
    /// # Errors
    ///
    /// As [`Scan::next`](crate::Scan::next); the value's is [`Error::Poisoned`].
    #[doc(alias = "dshash_seq_next")]
    #[expect(clippy::should_implement_trait, clippy::type_complexity, reason = "items borrow")]
    pub fn next(&mut self) -> Result<Option<(&[u8], Result<&[u8], Error>)>, Error> {
        let Some(entry) = self.walk.next()? else { return Ok(None) };
        // SAFETY: the scan holds the partition's lock until `next` is called again.
        let key = unsafe { field(&self.kind, entry) };
        if entry.is_poisoned() {
            return Ok(Some((key, Err(Error::Poisoned))));
        }
        let at = value_at(&self.kind, entry).as_ptr();
        // SAFETY: as above; that many bytes, initialised.
        let value = unsafe { core::slice::from_raw_parts(at, value_len(&self.kind)) };
        Ok(Some((key, Ok(value))))
    }
}

/// A scan of an untyped table that changes and deletes.
pub struct RawScanMut<'s, S: Store> {
    pub(super) walk: Changing<'s, S>,
    pub(super) kind: Kind,
}

/// An entry seen by a [`RawScanMut`].
pub struct RawScanEntry<'a, 's, S: Store> {
    current: Current<'a, 's, S>,
    pub(super) kind: Kind,
}

impl<'s, S: Store> RawScanMut<'s, S> {
    /// The next entry.
    ///
    /// # Errors
    ///
    /// As [`ScanMut::next`](crate::ScanMut::next).
    #[doc(alias = "dshash_seq_next")]
    #[expect(clippy::should_implement_trait, reason = "the items borrow the scan")]
    pub fn next(&mut self) -> Result<Option<RawScanEntry<'_, 's, S>>, Error> {
        let kind = self.kind;
        Ok(self.walk.next()?.map(|current| RawScanEntry { current, kind }))
    }
}

impl<S: Store> RawScanEntry<'_, '_, S> {
    /// The key's field.
    #[must_use]
    pub fn key(&self) -> &[u8] {
        // SAFETY: guarded.
        unsafe { field(&self.kind, self.current.entry()) }
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

    /// The value, to look at it or change it.
    pub fn value_mut(&mut self) -> &mut [u8] {
        let at = value_at(&self.kind, self.current.entry()).as_ptr();
        // SAFETY: that many bytes, initialised, of an entry that only this leads to.
        unsafe { core::slice::from_raw_parts_mut(at, value_len(&self.kind)) }
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

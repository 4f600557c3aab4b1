//! [`DsaBox`]: an object of an area that has one owner.

use std::fmt;
use std::mem::ManuallyDrop;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;

use dsa_core::DsaPtr;

use crate::area::Area;
use crate::plain::Plain;

/// A value in an area that has one owner, like a `Box`: dereferences to it, and frees it when
/// dropped.
///
/// Killed with its owner's process, it stays allocated as long as the area exists.
pub struct DsaBox<T: Plain> {
    area: Area,
    pointer: DsaPtr<T>,
    at: NonNull<T>,
}

// SAFETY: it owns a `T`, which is `Send`, in memory that any thread may use.
unsafe impl<T: Plain> Send for DsaBox<T> {}
// SAFETY: it gives out `&T` only, and `T` is `Sync`.
unsafe impl<T: Plain> Sync for DsaBox<T> {}

impl<T: Plain> DsaBox<T> {
    /// # Safety
    ///
    /// A `T` must be at `pointer`, which is `at` in this process, in an object that nobody else
    /// uses or frees.
    pub(crate) unsafe fn new(area: Area, pointer: DsaPtr<T>, at: NonNull<T>) -> Self {
        Self { area, pointer, at }
    }

    /// Gives the object away: whoever has the pointer is to free it.
    #[must_use = "nobody else frees it"]
    pub fn into_ptr(self) -> DsaPtr<T> {
        let this = ManuallyDrop::new(self);
        // SAFETY: `this` is not used or dropped any more.
        drop(unsafe { std::ptr::read(&this.area) });
        this.pointer
    }
}

impl<T: Plain> Deref for DsaBox<T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: allocated for a `T` and filled in; mapped while `area` is; only this box leads
        // to it.
        unsafe { self.at.as_ref() }
    }
}

impl<T: Plain> DerefMut for DsaBox<T> {
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: as for `deref`; borrowed exclusively.
        unsafe { self.at.as_mut() }
    }
}

impl<T: Plain> Drop for DsaBox<T> {
    fn drop(&mut self) {
        // In a forked child the object is the parent's: an error, and nothing happens.
        // SAFETY: only this box leads to the object.
        let _ = unsafe { self.area.free(self.pointer) };
    }
}

impl<T: Plain + fmt::Debug> fmt::Debug for DsaBox<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

//! A value on the heap that others refer to while its owner moves.
//!
//! A `Box` would do, if moving one did not say, by the rules of the language, that nobody else
//! refers to what is in it: references from before are not good any more, though the value is where
//! it was.

use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;

/// Owns a value, as a `Box` does, and may be moved while others refer to it.
pub(crate) struct Stable<T: ?Sized>(NonNull<T>);

// SAFETY: it owns the value, and gives out shared references only.
unsafe impl<T: ?Sized + Send> Send for Stable<T> {}
// SAFETY: as above.
unsafe impl<T: ?Sized + Sync> Sync for Stable<T> {}

impl<T> Stable<T> {
    pub(crate) fn new(value: T) -> Self {
        Self::from(Box::new(value))
    }

    /// The value itself; nobody may refer to it any more.
    pub(crate) fn into_inner(self) -> T {
        let this = std::mem::ManuallyDrop::new(self);
        // SAFETY: made from a box, and owned by `this`, which is not dropped.
        *unsafe { Box::from_raw(this.0.as_ptr()) }
    }
}

impl<T: ?Sized> Stable<T> {
    /// The value, for as long as the program says.
    ///
    /// # Safety
    ///
    /// This must be kept, wherever it is moved, and not be borrowed exclusively, as long as the
    /// result is used.
    pub(crate) unsafe fn forever(&self) -> &'static T {
        // SAFETY: it owns the value; the caller keeps it.
        unsafe { self.0.as_ref() }
    }

    /// As [`forever`](Self::forever), to one who may change the value.
    ///
    /// # Safety
    ///
    /// As there; and nobody else may refer to the value, by way of this or not, as long as the
    /// result is used.
    pub(crate) unsafe fn lend(&self) -> &'static mut T {
        let mut value = self.0;
        // SAFETY: it owns the value; the caller keeps it, and lets nobody else refer to it.
        unsafe { value.as_mut() }
    }
}

impl<T: ?Sized> From<Box<T>> for Stable<T> {
    fn from(value: Box<T>) -> Self {
        Self(NonNull::from(Box::leak(value)))
    }
}

impl<T: ?Sized> Deref for Stable<T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: it owns the value.
        unsafe { self.0.as_ref() }
    }
}

impl<T: ?Sized> DerefMut for Stable<T> {
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: it owns the value, to which nobody else refers by the promise to `forever`.
        unsafe { self.0.as_mut() }
    }
}

impl<T: ?Sized> Drop for Stable<T> {
    fn drop(&mut self) {
        // SAFETY: made from a box, and dropped once.
        drop(unsafe { Box::from_raw(self.0.as_ptr()) });
    }
}

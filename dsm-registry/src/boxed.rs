//! [`DsaBox`]: an object of an area that has one owner.
//!
//! The object is unpublished as long as the box has it: a killed process's boxes are freed by
//! whoever cleans up after it. That is bound to the thread that allocated, whose slab the object
//! lies in, so a box stays on its thread. It hands out copies and no references: a [`DsaPtr`] to
//! the same object can be made from bytes by anybody, and `Area::write` is safe.

use std::fmt;
use std::marker::PhantomData;
use std::mem::ManuallyDrop;

use dsa_core::DsaPtr;

use crate::area::Area;
use crate::error::Error;
use crate::plain::Snapshot;

/// A value in an area that has one owner, like a `Box`: it is freed when the box is dropped, and
/// when the process is killed, unless [`into_ptr`](Self::into_ptr) gave it away before.
///
/// ```
/// # let registry = dsm_registry::Registry::open(&format!("doc-box-{}", std::process::id()))?;
/// let area = registry.area("work")?;
/// let mut boxed = area.allocate_box([1_u64, 2, 3])?;
/// boxed.set(&[4, 5, 6])?;
/// assert_eq!(boxed.get()?, [4, 5, 6]);
/// let pointer = boxed.into_ptr()?; // from here on it stays until somebody frees it
/// assert_eq!(area.read(pointer)?, [4, 5, 6]);
/// # Ok::<(), dsm_registry::Error>(())
/// ```
pub struct DsaBox<T: Snapshot> {
    area: Area,
    pointer: DsaPtr<T>,
    /// Not `Send`: see the module.
    _thread: PhantomData<*const ()>,
}

impl<T: Snapshot> DsaBox<T> {
    /// Owns an object that was allocated just now, unpublished, by this thread.
    pub(crate) fn own(area: Area, pointer: DsaPtr<T>) -> Self {
        Self { area, pointer, _thread: PhantomData }
    }

    /// A copy of the value.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Area`](crate::ErrorKind::Area) if somebody else has freed the object,
    /// [`ErrorKind::Forked`](crate::ErrorKind::Forked) in a forked child.
    pub fn get(&self) -> Result<T, Error> {
        self.area.read(self.pointer)
    }

    /// Changes the value.
    ///
    /// # Errors
    ///
    /// As [`get`](Self::get).
    pub fn set(&mut self, value: &T) -> Result<(), Error> {
        self.area.write(self.pointer, value)
    }

    /// Where it is; still owned by the box.
    #[must_use]
    pub fn as_ptr(&self) -> DsaPtr<T> {
        self.pointer
    }

    /// Gives the object away: it lives until somebody frees it.
    ///
    /// # Errors
    ///
    /// As [`get`](Self::get); the object is freed then, if it still was the box's.
    pub fn into_ptr(self) -> Result<DsaPtr<T>, Error> {
        self.area.settle(self.pointer)?;
        let this = ManuallyDrop::new(self);
        // SAFETY: `this` is not used or dropped any more.
        drop(unsafe { std::ptr::read(&this.area) });
        Ok(this.pointer)
    }
}

impl<T: Snapshot> Drop for DsaBox<T> {
    fn drop(&mut self) {
        // In a forked child the object is the parent's: an error, and nothing happens.
        // SAFETY: the box owns the object, and hands out no references to it.
        let _ = unsafe { self.area.free(self.pointer) };
    }
}

impl<T: Snapshot + fmt::Debug> fmt::Debug for DsaBox<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.get() {
            Ok(value) => value.fmt(f),
            Err(error) => write!(f, "<{error}>"),
        }
    }
}

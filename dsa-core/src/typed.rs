//! Values of plain types in an area: checked copies, and a box that owns its object.
//!
//! Anybody can make a [`DsaPtr`] from bytes, so that owning one proves nothing; the functions here
//! check that an allocated object starts there and is long enough, and move bytes by atomic
//! accesses (see the `copy` module). The bounds make any bytes a value (`FromBytes`) and keep
//! padding and interior mutability out (`IntoBytes + Immutable`). A [`DsaBox`] hands out copies,
//! never references: a copy through some other pointer to its object is then a copy beside a copy.

use core::mem::MaybeUninit;

use dsm_core::lock::RawLock;
use zerocopy::{FromBytes, Immutable, IntoBytes};

use crate::area::Area;
use crate::error::Error;
use crate::heap::{Flags, Heap};
use crate::pointer::DsaPtr;

impl<L: RawLock> Area<'_, L> {
    /// Copies the value out.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidPointer`] unless an allocated object starts there,
    /// [`Error::OutOfObject`] if it is shorter than a `T`.
    ///
    /// # Safety
    ///
    /// As for [`copy_out`](Self::copy_out).
    pub unsafe fn read<T: FromBytes>(&self, pointer: DsaPtr<T>) -> Result<T, Error> {
        let mut value = MaybeUninit::<T>::uninit();
        // Here and not by `zeroed`: padding need not survive that the value is moved.
        // SAFETY: the value's own bytes.
        unsafe { value.as_mut_ptr().cast::<u8>().write_bytes(0, size_of::<T>()) };
        // SAFETY: the value's own bytes, all of them initialised (zero).
        let bytes = unsafe {
            core::slice::from_raw_parts_mut(value.as_mut_ptr().cast::<u8>(), size_of::<T>())
        };
        // SAFETY: the caller's promise.
        unsafe { self.copy_out(pointer.pointer(), 0, bytes) }?;
        // SAFETY: any initialised bytes are a `T` (`FromBytes`).
        Ok(unsafe { value.assume_init() })
    }

    /// Copies a value in.
    ///
    /// # Errors
    ///
    /// As [`read`](Self::read).
    ///
    /// # Safety
    ///
    /// As for [`copy_in`](Self::copy_in).
    pub unsafe fn write<T: IntoBytes + Immutable>(
        &self,
        pointer: DsaPtr<T>,
        value: &T,
    ) -> Result<(), Error> {
        // SAFETY: the caller's promise.
        unsafe { self.copy_in(pointer.pointer(), 0, value.as_bytes()) }
    }
}

/// A value in an area that goes with this box, unless [`into_ptr`](Self::into_ptr) gives it away.
pub struct DsaBox<'b, T, L: RawLock> {
    heap: &'b Heap<'b, L>,
    pointer: DsaPtr<T>,
}

impl<'b, T: FromBytes + IntoBytes + Immutable, L: RawLock> DsaBox<'b, T, L> {
    /// Allocates room for a value, and copies it there. Until it is given away the object is
    /// unpublished: it goes with its process, too.
    ///
    /// # Errors
    ///
    /// As [`Heap::allocate_aligned`].
    pub fn new(heap: &'b Heap<'b, L>, value: &T) -> Result<Self, Error> {
        let (size, align) = (size_of::<T>(), align_of::<T>());
        let pointer = heap.allocate_unpublished(size, align, Flags::empty())?.cast();
        let mut owned = Self { heap, pointer };
        owned.set(value)?;
        Ok(owned)
    }

    /// A copy of the value.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidPointer`] if somebody else has freed the object.
    pub fn get(&self) -> Result<T, Error> {
        // SAFETY: the box owns the object, and hands out no references to it.
        unsafe { self.heap.area().read(self.pointer) }
    }

    /// Changes the value.
    ///
    /// # Errors
    ///
    /// As [`get`](Self::get).
    pub fn set(&mut self, value: &T) -> Result<(), Error> {
        // SAFETY: as for `get`.
        unsafe { self.heap.area().write(self.pointer, value) }
    }

    /// Where it is; still owned by the box.
    #[must_use]
    pub fn as_ptr(&self) -> DsaPtr<T> {
        self.pointer
    }

    /// Gives the object away, as one that lives until it is freed.
    ///
    /// # Errors
    ///
    /// As [`get`](Self::get).
    pub fn into_ptr(self) -> Result<DsaPtr<T>, Error> {
        let pointer = self.pointer;
        self.heap.settle(pointer.pointer())?;
        core::mem::forget(self);
        Ok(pointer)
    }
}

impl<T, L: RawLock> Drop for DsaBox<'_, T, L> {
    fn drop(&mut self) {
        // SAFETY: the box owns the object, and hands out no references to it.
        let _ = unsafe { self.heap.free(self.pointer.pointer()) };
    }
}

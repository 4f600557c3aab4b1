//! Named segments: one value, or a run of bytes, that all processes see.

use std::fmt;
use std::marker::PhantomData;
use std::mem::ManuallyDrop;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::sync::atomic::AtomicU8;

use dsm_core::segment::Segment as CoreSegment;

use crate::error::kind::ErrorKind;
use crate::error::{BoxError, Error};
use crate::plain::Plain;
use crate::process::Attachment;
use crate::used::{Asked, Used};

/// A segment that this process has attached; detached when the last handle is dropped.
pub(crate) struct SegmentObject {
    /// Borrows from the namespace of `home`, and is dropped before it.
    segment: ManuallyDrop<CoreSegment<'static>>,
    used: Used,
    home: Arc<Attachment>,
}

impl SegmentObject {
    pub(crate) fn new(segment: CoreSegment<'static>, home: Arc<Attachment>) -> Self {
        Self { segment: ManuallyDrop::new(segment), used: Used::default(), home }
    }

    /// Uses it as what its name is asked for as; see [`Used::use_as`].
    pub(crate) fn use_as(&self, name: &str, asked: &Asked) -> Result<(), Error> {
        self.used.use_as(&self.home, name, asked)
    }

    pub(crate) fn core(&self) -> &CoreSegment<'static> {
        &self.segment
    }

    pub(crate) fn handle(&self) -> u64 {
        self.segment.handle().get()
    }

    /// Whether an address of this process lies in it.
    pub(crate) fn contains(&self, address: usize) -> bool {
        address.wrapping_sub(self.segment.base().addr().get()) < self.segment.len()
    }
}

impl Drop for SegmentObject {
    fn drop(&mut self) {
        if self.home.is_ours() {
            // SAFETY: dropped here only, and not used afterwards.
            unsafe { ManuallyDrop::drop(&mut self.segment) };
        }
    }
}

/// What an initialiser works on: the value to be, all zero bytes at first.
///
/// Dereferences to the value, which no other process can see before the initialiser returns `Ok`.
pub struct Init<'a, T> {
    value: &'a mut T,
}

impl<'a, T: Plain> Init<'a, T> {
    pub(crate) fn new(value: &'a mut T) -> Self {
        Self { value }
    }

    /// Stores the whole value. Always `Ok`, so that it can be the last expression of an
    /// initialiser.
    ///
    /// # Errors
    ///
    /// None.
    pub fn write(&mut self, value: T) -> Result<(), BoxError> {
        *self.value = value;
        Ok(())
    }
}

impl<T> Deref for Init<'_, T> {
    type Target = T;
    fn deref(&self) -> &T {
        self.value
    }
}

impl<T> DerefMut for Init<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        self.value
    }
}

/// A value in a named segment, shared with all processes that ask for the name.
///
/// Dereferences to `&T`: what changes while it is shared must be atomic. The segment stays
/// attached as long as a clone of this handle or a [`Registry`](crate::Registry) that looked it
/// up lives.
pub struct Segment<T> {
    object: Arc<SegmentObject>,
    _value: PhantomData<fn() -> T>,
}

impl<T: Plain> Segment<T> {
    const FITS: () = assert!(align_of::<T>() <= 4096, "segments are aligned to a page");

    /// `None` if the segment is too short to hold a `T`.
    pub(crate) fn new(object: Arc<SegmentObject>) -> Option<Self> {
        let () = Self::FITS;
        (object.core().len() >= size_of::<T>()).then_some(Self { object, _value: PhantomData })
    }

    /// The handle by which the cores know it.
    #[must_use]
    pub fn handle(&self) -> u64 {
        self.object.handle()
    }
}

impl<T> Clone for Segment<T> {
    fn clone(&self) -> Self {
        Self { object: Arc::clone(&self.object), _value: PhantomData }
    }
}

impl<T: Plain> Deref for Segment<T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: the segment is mapped while `object` lives, at least `size_of::<T>()` long
        // (checked by `new`), aligned to a page and thus for T. T is `FromBytes`, so that any
        // bytes are a value, and `Sync`, so that what peers do to it through the same
        // `&T` is what other threads of this process might do.
        unsafe { self.object.core().base().cast::<T>().as_ref() }
    }
}

impl<T> fmt::Debug for Segment<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Segment<{}>({:016x})", std::any::type_name::<T>(), self.object.handle())
    }
}

/// A named segment of raw bytes, as atomics, since others may change them at any time.
#[derive(Clone)]
pub struct Bytes {
    object: Arc<SegmentObject>,
    len: usize,
}

impl Bytes {
    /// `None` if the segment is shorter than `len` bytes.
    pub(crate) fn new(object: Arc<SegmentObject>, len: usize) -> Option<Self> {
        (object.core().len() >= len).then_some(Self { object, len })
    }

    /// First byte; for those who lay the memory out themselves, which takes `unsafe`.
    #[must_use]
    pub fn as_ptr(&self) -> *mut u8 {
        self.object.core().base().as_ptr()
    }

    /// Copies bytes out, one by one: another process may change them meanwhile.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidOption`] if the range does not lie within the segment.
    pub fn read(&self, offset: usize, into: &mut [u8]) -> Result<(), Error> {
        let range = self.range(offset, into.len())?;
        for (to, from) in into.iter_mut().zip(range) {
            *to = from.load(std::sync::atomic::Ordering::Relaxed);
        }
        Ok(())
    }

    /// Copies bytes in, one by one.
    ///
    /// # Errors
    ///
    /// As for [`read`](Self::read).
    pub fn write(&self, offset: usize, from: &[u8]) -> Result<(), Error> {
        for (from, to) in from.iter().zip(self.range(offset, from.len())?) {
            to.store(*from, std::sync::atomic::Ordering::Relaxed);
        }
        Ok(())
    }

    fn range(&self, offset: usize, len: usize) -> Result<&[AtomicU8], Error> {
        let range = offset.checked_add(len).and_then(|end| self.get(offset..end));
        let range = range.ok_or_else(|| ErrorKind::InvalidOption {
            what: "range",
            reason: format!("{len} bytes at {offset} in a segment of {} bytes", self.len),
        })?;
        Ok(range)
    }
}

impl Deref for Bytes {
    type Target = [AtomicU8];

    fn deref(&self) -> &[AtomicU8] {
        let base = self.object.core().base().cast::<AtomicU8>();
        // SAFETY: the segment is mapped while `object` lives and `len` bytes long (checked by
        // `new`); everybody uses its bytes as atomics.
        unsafe { std::slice::from_raw_parts(base.as_ptr(), self.len) }
    }
}

impl fmt::Debug for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bytes").field("len", &self.len).finish_non_exhaustive()
    }
}

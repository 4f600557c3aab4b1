//! A segment attached by this process.

use core::ops::Range;
use core::pin::Pin;
use core::ptr::NonNull;

use crate::detach::DetachCallback;
use crate::handle::{LockAddress, SegmentHandle};
use crate::namespace::{Error, LeaveBehind, Namespace};
use crate::provider::{Mapping, RangeOwner};
use crate::sync::Ordering;

/// A handle to a mapped segment: detaches when dropped (the mapping goes with the last handle of
/// the process, the segment with the last process). `Send + Sync`.
///
/// Detaching never fails, and does nothing in a fork child.
#[doc(alias = "dsm_segment")]
#[doc(alias = "dsm_detach")]
pub struct Segment<'n> {
    namespace: &'n Namespace<'n>,
    handle: SegmentHandle,
    base: NonNull<u8>,
    len: usize,
}

// SAFETY: the pointer is to shared memory, whose accesses its users order; the table that the
// handle is counted in has a mutex.
unsafe impl Send for Segment<'_> {}
// SAFETY: as above.
unsafe impl Sync for Segment<'_> {}

impl<'n> Segment<'n> {
    pub(crate) fn new(
        namespace: &'n Namespace<'_>,
        handle: SegmentHandle,
        base: NonNull<u8>,
        len: usize,
    ) -> Self {
        Self { namespace, handle, base, len }
    }

    /// The handle, to be given to other processes.
    #[doc(alias = "dsm_segment_handle")]
    #[must_use]
    pub fn handle(&self) -> SegmentHandle {
        self.handle
    }

    /// First byte; aligned to a page.
    #[doc(alias = "dsm_segment_address")]
    #[must_use]
    pub fn base(&self) -> NonNull<u8> {
        self.base
    }

    /// Length in bytes: what was asked for at its creation.
    #[doc(alias = "dsm_segment_map_length")]
    #[expect(clippy::len_without_is_empty, reason = "a segment is never empty")]
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// The address of a lock at `offset`, for [`LockRef::new`](crate::lock::LockRef::new).
    #[must_use]
    pub fn lock_address(&self, offset: u64) -> LockAddress {
        self.namespace.lock_address(self.handle, offset)
    }

    /// Backs a range with memory, and raises the recorded watermark to its end.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidSize`] if the range is not within the segment; [`Error::Provider`] if
    /// memory is short, also after reaping the dead; [`Error::Forked`].
    pub fn reserve(&self, range: Range<usize>) -> Result<(), Error> {
        if range.start > range.end || range.end > self.len {
            return Err(Error::InvalidSize(range.end as u64));
        }
        let end = range.end as u64;
        if !self.handle.is_main_region() {
            let mapping = {
                let record = self.namespace.record_of(self.handle).ok_or(Error::Forked)?;
                Mapping { base: self.base, len: record.mapped_len, token: record.token }
            };
            let provider = self.namespace.platform().provider;
            self.namespace
                .taking_memory(|| provider.reserve(self.handle, &mapping, range.clone()))?;
        }
        if let Some(slot) = self.namespace.control.segment(self.handle.slot()) {
            slot.record.reserved.fetch_max(end, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Bytes from the start that are recorded as backed by memory.
    #[must_use]
    pub fn reserved(&self) -> usize {
        let slot = self.namespace.control.segment(self.handle.slot());
        slot.map_or(0, |slot| slot.record.reserved.load(Ordering::Relaxed) as usize)
    }

    /// Keeps this process's mapping, also without a handle, until the process leaves the
    /// namespace or [`Namespace::unpin_mapping`].
    #[doc(alias = "dsm_pin_mapping")]
    pub fn pin_mapping(&self) {
        self.namespace.set_mapping_pinned(self.handle, true);
    }

    /// Calls `callback` before this process unmaps the segment: when its last handle goes, the
    /// latest callback first. Returns false if the callback is registered already, with whatever
    /// segment, or the process has forked.
    ///
    /// # Safety
    ///
    /// The callback must stay where it is until it began to run, was cancelled, or the namespace
    /// was left; and it must be fit to be run by any thread of the process.
    #[doc(alias = "on_dsm_detach")]
    pub unsafe fn on_detach(&self, callback: Pin<&DetachCallback>) -> bool {
        self.namespace.record_of(self.handle).is_some_and(|mut mapped| mapped.push(callback))
    }

    /// Takes a callback back. Returns false if it was not registered with this segment (any
    /// more).
    #[doc(alias = "cancel_on_dsm_detach")]
    pub fn cancel_on_detach(&self, callback: Pin<&DetachCallback>) -> bool {
        self.namespace.cancel(self.handle, callback)
    }

    /// Gives up the handle without detaching: plain data for tables of mappings.
    #[must_use]
    pub fn into_raw(self) -> RawSegment {
        let raw = RawSegment { handle: self.handle, base: self.base, len: self.len };
        core::mem::forget(self);
        raw
    }

    /// Takes back what `into_raw` gave.
    ///
    /// # Safety
    ///
    /// Once for each `into_raw`, with the same namespace.
    #[must_use]
    pub unsafe fn from_raw(namespace: &'n Namespace<'n>, raw: RawSegment) -> Self {
        Self { namespace, handle: raw.handle, base: raw.base, len: raw.len }
    }

    /// Detaches but leaves private zeros mapped in place, so that late optimistic readers find
    /// zeros instead of a fault. The provider keeps the address range in the name of `owner` until
    /// [`Namespace::release_blanks`].
    ///
    /// The range stays mapped as it is if another handle of this process or a pinned mapping needs
    /// it, if it lies in the main region, or if the process has forked.
    ///
    /// # Safety
    ///
    /// Nothing may rely on the contents any more.
    pub unsafe fn detach_to_blank(self, owner: RangeOwner) {
        let (namespace, handle) = (self.namespace, self.handle);
        core::mem::forget(self);
        namespace.let_go(handle, LeaveBehind::Zeros(owner));
    }

    /// The namespace.
    #[must_use]
    pub fn namespace(&self) -> &'n Namespace<'n> {
        self.namespace
    }
}

impl Drop for Segment<'_> {
    fn drop(&mut self) {
        self.namespace.let_go(self.handle, LeaveBehind::Nothing);
    }
}

/// A segment handle as plain data.
#[derive(Clone, Copy, Debug)]
pub struct RawSegment {
    /// Which segment.
    pub handle: SegmentHandle,
    /// First byte of the mapping.
    pub base: NonNull<u8>,
    /// Length in bytes.
    pub len: usize,
}

// SAFETY: plain data; whoever uses the pointer says why that is sound.
unsafe impl Send for RawSegment {}
// SAFETY: as above.
unsafe impl Sync for RawSegment {}

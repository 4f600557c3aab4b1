//! The provider traits for [`Named`] objects, to which [`Shm`](crate::Shm) and
//! [`File`](crate::File) forward.

use std::ops::Range;
use std::time::Duration;

use dsm_core::handle::{ObjectId, SegmentHandle};
use dsm_core::provider::{Mapping, ObjectInfo, RangeOwner, Root, SegmentProvider};
use platform_common::refusal::{self, check_range};

use crate::error::Error;
use crate::name::Role;
use crate::object::{Named, Purpose};
use crate::root::{self, WindowsElection};
use crate::sys;

// SAFETY: mappings are views of sections that all processes share, and are unmapped by
// `detach` alone; the first `reserved` bytes are allocated in the file, or committed.
unsafe impl SegmentProvider for Named {
    type Error = Error;

    fn page_size(&self) -> usize {
        sys::page_size()
    }

    fn create(
        &self,
        handle: SegmentHandle,
        size: usize,
        reserved: usize,
    ) -> Result<(Mapping, ObjectId), Error> {
        self.store.create(Role::Segment(handle), size, reserved)
    }

    fn attach(&self, handle: SegmentHandle, id: ObjectId) -> Result<Mapping, Error> {
        self.store.attach(Role::Segment(handle), id, Purpose::Use)
    }

    fn reserve(
        &self,
        _handle: SegmentHandle,
        mapping: &Mapping,
        range: Range<usize>,
    ) -> Result<(), Error> {
        check_range(mapping, &range)?;
        self.store.reserve(mapping, range)
    }

    unsafe fn detach(&self, mapping: Mapping) {
        // SAFETY: the caller's promise.
        unsafe { self.store.detach(mapping) };
    }

    /// Leaves the view as it is: Windows can't put other memory in its place without a moment in
    /// which there is none. Who is late finds what was there last; the memory is given back when
    /// the owner of the range says so.
    unsafe fn blank(&self, mapping: Mapping, owner: RangeOwner) {
        self.blanks.keep(mapping, owner);
    }

    unsafe fn release_blanks(&self, owner: RangeOwner) {
        for mapping in self.blanks.take(owner) {
            // SAFETY: the caller's promise.
            unsafe { self.store.detach(mapping) };
        }
    }

    fn destroy(&self, handle: SegmentHandle, id: ObjectId) -> Result<(), Error> {
        self.store.destroy(Role::Segment(handle), id)
    }

    fn stat(&self, handle: SegmentHandle) -> Result<ObjectInfo, Error> {
        self.store.stat(Role::Segment(handle))
    }
}

// SAFETY: `MapViewOfFile` says so of the mappings, which are of whole pages and stay until they are
// unmapped; the election is a mutex.
unsafe impl Root for Named {
    type Error = Error;
    type Election<'a> = WindowsElection<'a>;

    fn elect(&self, patience: Duration) -> Result<WindowsElection<'_>, Error> {
        root::elect(self, true, patience)
    }

    fn elect_existing(&self, patience: Duration) -> Result<WindowsElection<'_>, Error> {
        root::elect(self, false, patience)
    }

    fn peek(&self) -> Result<Mapping, Error> {
        if self.store.stat(Role::Control)?.size == 0 {
            return Err(refusal::being_set_up(self.store.label(Role::Control)));
        }
        self.store.attach(Role::Control, ObjectId::default(), Purpose::Look)
    }

    unsafe fn unmap(&self, mapping: Mapping) {
        // SAFETY: the caller's promise.
        unsafe { self.store.detach(mapping) };
    }

    fn enumerate(&self, found: &mut dyn FnMut(&ObjectInfo)) -> Result<(), Error> {
        self.store.list(found)
    }
}

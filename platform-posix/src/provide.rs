//! The provider traits for [`Named`] objects, to which [`Shm`](crate::Shm) and
//! [`File`](crate::File) forward.

use std::ops::Range;
use std::os::fd::AsFd;
use std::time::Duration;

use dsm_core::error::ErrorKind;
use dsm_core::handle::{ObjectId, SegmentHandle};
use dsm_core::provider::{Mapping, ObjectInfo, ProviderError, RangeOwner, Root, SegmentProvider};
use platform_common::refusal::check_range;

use crate::error::{Error, LIST};
use crate::name::{ObjectName, split};
use crate::object::{
    self, LOOK, Named, Subject, USE, Unfinished, back_mapped, furnish, info, map_existing, populate,
};
use crate::root::{self, PosixElection, check_size};
use crate::sys;

// SAFETY: mappings come from mmap with MAP_SHARED, are unmapped by `detach` alone, and the
// first `reserved` bytes are backed by posix_fallocate (or as a whole, off Linux).
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
        check_size(size, reserved)?;
        let name = &self.segment_name(handle);
        let fail = |e, step| Error::os(e, step, self.path(name));
        let fd = self.create_new(name, self.options.mode | 0o600, size)?;
        let stat = sys::stat(fd.as_fd()).map_err(|e| fail(e, "fstat"))?;
        let unfinished = Unfinished { owner: self, name, id: stat.id };
        let mapping = furnish(
            &Subject {
                fd: fd.as_fd(),
                stat: &stat,
                name: &|| self.path(name),
                place: &*self.place,
            },
            size,
            reserved,
            &self.options,
        )?;
        std::mem::forget(unfinished);
        Ok((mapping, stat.id))
    }

    fn attach(&self, handle: SegmentHandle, id: ObjectId) -> Result<Mapping, Error> {
        let name = self.segment_name(handle);
        let (fd, stat) = self.open(&name, USE)?;
        let path = &|| self.path(&name);
        self.options.accept(&stat, path)?;
        let subject = Subject { fd: fd.as_fd(), stat: &stat, name: path, place: &*self.place };
        map_existing(&subject, id, &self.options)
    }

    fn reserve(
        &self,
        handle: SegmentHandle,
        mapping: &Mapping,
        range: Range<usize>,
    ) -> Result<(), Error> {
        check_range(mapping, &range)?;
        let name = self.segment_name(handle);
        let (fd, stat) = match self.open(&name, USE) {
            Ok(opened) => opened,
            Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::PermissionDenied) => {
                return populate(mapping, range);
            }
            Err(e) => return Err(e),
        };
        let path = &|| self.path(&name);
        let subject = Subject { fd: fd.as_fd(), stat: &stat, name: path, place: &*self.place };
        back_mapped(&subject, mapping, range)
    }

    unsafe fn detach(&self, mapping: Mapping) {
        // SAFETY: the caller's promise.
        unsafe { object::detach(mapping) };
    }

    unsafe fn blank(&self, mapping: Mapping, owner: RangeOwner) {
        // SAFETY: the caller's promise.
        unsafe { object::blank(mapping, owner, &self.blanks) };
    }

    unsafe fn release_blanks(&self, owner: RangeOwner) {
        for mapping in object::take_blanks(&self.blanks, owner) {
            // SAFETY: the caller's promise.
            unsafe { object::detach(mapping) };
        }
    }

    fn destroy(&self, handle: SegmentHandle, id: ObjectId) -> Result<(), Error> {
        let name = self.segment_name(handle);
        let removed = self.remove(&name, id);
        if removed.as_ref().is_err_and(|e| e.kind() == ErrorKind::PermissionDenied) {
            self.hollow(&name, id);
        }
        removed
    }

    fn stat(&self, handle: SegmentHandle) -> Result<ObjectInfo, Error> {
        let (_, stat) = self.open(&self.segment_name(handle), LOOK)?;
        Ok(info(Some(handle), &stat))
    }
}

// SAFETY: `mmap` says so of the mappings, which are of whole pages and stay until they are
// unmapped; the election is a lock that the system gives to one process at a time.
unsafe impl Root for Named {
    type Error = Error;
    type Election<'a> = PosixElection<'a>;

    fn elect(&self, patience: Duration) -> Result<PosixElection<'_>, Error> {
        root::elect(self, true, patience)
    }

    fn elect_existing(&self, patience: Duration) -> Result<PosixElection<'_>, Error> {
        root::elect(self, false, patience)
    }

    fn peek(&self) -> Result<Mapping, Error> {
        root::peek(self)
    }

    unsafe fn unmap(&self, mapping: Mapping) {
        // SAFETY: the caller's promise.
        unsafe { object::detach(mapping) };
    }

    fn enumerate(&self, found: &mut dyn FnMut(&ObjectInfo)) -> Result<(), Error> {
        let mut names = Vec::new();
        let listed = self.place.list(&mut |name| {
            if let Some((namespace, role)) = split(name) {
                if namespace == self.namespace.as_str() {
                    names.push((ObjectName::of(&self.namespace, self.place.style(), role), role));
                }
            }
        });
        listed.map_err(|e| Error::os(e, LIST, self.place.label()))?;
        for (name, role) in names {
            // What went meanwhile is not there.
            let Ok(Some(stat)) = self.look(&name) else { continue };
            found(&info(role.handle(), &stat));
        }
        Ok(())
    }
}

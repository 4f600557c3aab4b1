//! The provider traits for the types that are [`Named`](crate::object::Named) objects in one place
//! or another: the same forwarding for each, written once.

/// Implements `SegmentProvider` and `Root` for a tuple struct around [`Named`].
macro_rules! provide_named {
    ($provider:ident) => {
        // SAFETY: mappings come from mmap with MAP_SHARED, are unmapped by `detach` alone, and the
        // first `reserved` bytes are backed by posix_fallocate (or as a whole, off Linux).
        unsafe impl dsm_core::provider::SegmentProvider for $provider {
            type Error = $crate::error::Error;

            fn page_size(&self) -> usize {
                $crate::sys::page_size()
            }

            fn create(
                &self,
                handle: dsm_core::handle::SegmentHandle,
                size: usize,
                reserved: usize,
            ) -> Result<
                (dsm_core::provider::Mapping, dsm_core::handle::ObjectId),
                $crate::error::Error,
            > {
                self.0.create(handle, size, reserved)
            }

            fn attach(
                &self,
                handle: dsm_core::handle::SegmentHandle,
                id: dsm_core::handle::ObjectId,
            ) -> Result<dsm_core::provider::Mapping, $crate::error::Error> {
                self.0.attach(handle, id)
            }

            fn reserve(
                &self,
                handle: dsm_core::handle::SegmentHandle,
                mapping: &dsm_core::provider::Mapping,
                range: core::ops::Range<usize>,
            ) -> Result<(), $crate::error::Error> {
                self.0.reserve(handle, mapping, range)
            }

            unsafe fn detach(&self, mapping: dsm_core::provider::Mapping) {
                // SAFETY: the caller's promise.
                unsafe { $crate::object::detach(mapping) };
            }

            unsafe fn blank(&self, mapping: &dsm_core::provider::Mapping) {
                // SAFETY: the caller's promise.
                unsafe { $crate::object::blank(mapping) };
            }

            fn destroy(
                &self,
                handle: dsm_core::handle::SegmentHandle,
                id: dsm_core::handle::ObjectId,
            ) -> Result<(), $crate::error::Error> {
                self.0.destroy(handle, id)
            }

            fn stat(
                &self,
                handle: dsm_core::handle::SegmentHandle,
            ) -> Result<dsm_core::provider::ObjectInfo, $crate::error::Error> {
                self.0.stat(handle)
            }
        }

        impl dsm_core::provider::Root for $provider {
            type Error = $crate::error::Error;
            type Election<'a> = $crate::root::PosixElection<'a>;

            fn elect(
                &self,
                patience: core::time::Duration,
            ) -> Result<$crate::root::PosixElection<'_>, $crate::error::Error> {
                self.0.elect(true, patience)
            }

            fn elect_existing(
                &self,
                patience: core::time::Duration,
            ) -> Result<$crate::root::PosixElection<'_>, $crate::error::Error> {
                self.0.elect(false, patience)
            }

            fn peek(&self) -> Result<dsm_core::provider::Mapping, $crate::error::Error> {
                self.0.peek()
            }

            unsafe fn unmap(&self, mapping: dsm_core::provider::Mapping) {
                // SAFETY: the caller's promise.
                unsafe { $crate::object::detach(mapping) };
            }

            fn enumerate(
                &self,
                found: &mut dyn FnMut(&dsm_core::provider::ObjectInfo),
            ) -> Result<(), $crate::error::Error> {
                self.0.enumerate(found)
            }
        }
    };
}
pub(crate) use provide_named;

//! The provider traits for the types that are [`Named`](crate::object::Named) objects of one kind
//! or another: the same forwarding for each, written once.

/// Implements `SegmentProvider` and `Root` for a tuple struct around [`Named`].
macro_rules! provide_named {
    ($provider:ident) => {
        // SAFETY: mappings are views of sections that all processes share, and are unmapped by
        // `detach` alone; the first `reserved` bytes are allocated in the file, or committed.
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
                self.0.store.create($crate::name::Role::Segment(handle), size, reserved)
            }

            fn attach(
                &self,
                handle: dsm_core::handle::SegmentHandle,
                id: dsm_core::handle::ObjectId,
            ) -> Result<dsm_core::provider::Mapping, $crate::error::Error> {
                let role = $crate::name::Role::Segment(handle);
                self.0.store.attach(role, id, $crate::object::Purpose::Use)
            }

            fn reserve(
                &self,
                _handle: dsm_core::handle::SegmentHandle,
                mapping: &dsm_core::provider::Mapping,
                range: core::ops::Range<usize>,
            ) -> Result<(), $crate::error::Error> {
                self.0.reserve(mapping, range)
            }

            unsafe fn detach(&self, mapping: dsm_core::provider::Mapping) {
                // SAFETY: the caller's promise.
                unsafe { self.0.store.detach(mapping) };
            }

            /// Does nothing: Windows can't put other memory in a view's place without a moment in
            /// which there is none. Late readers find what was there last; the memory is given back
            /// when the mapping is detached.
            unsafe fn blank(&self, _mapping: &dsm_core::provider::Mapping) {}

            fn destroy(
                &self,
                handle: dsm_core::handle::SegmentHandle,
                id: dsm_core::handle::ObjectId,
            ) -> Result<(), $crate::error::Error> {
                self.0.store.destroy($crate::name::Role::Segment(handle), id)
            }

            fn stat(
                &self,
                handle: dsm_core::handle::SegmentHandle,
            ) -> Result<dsm_core::provider::ObjectInfo, $crate::error::Error> {
                self.0.store.stat($crate::name::Role::Segment(handle))
            }
        }

        impl dsm_core::provider::Root for $provider {
            type Error = $crate::error::Error;
            type Election<'a> = $crate::root::WindowsElection<'a>;

            fn elect(
                &self,
                patience: core::time::Duration,
            ) -> Result<$crate::root::WindowsElection<'_>, $crate::error::Error> {
                $crate::root::elect(&self.0, true, patience)
            }

            fn elect_existing(
                &self,
                patience: core::time::Duration,
            ) -> Result<$crate::root::WindowsElection<'_>, $crate::error::Error> {
                $crate::root::elect(&self.0, false, patience)
            }

            fn peek(&self) -> Result<dsm_core::provider::Mapping, $crate::error::Error> {
                self.0.peek()
            }

            unsafe fn unmap(&self, mapping: dsm_core::provider::Mapping) {
                // SAFETY: the caller's promise.
                unsafe { self.0.store.detach(mapping) };
            }

            fn enumerate(
                &self,
                found: &mut dyn FnMut(&dsm_core::provider::ObjectInfo),
            ) -> Result<(), $crate::error::Error> {
                self.0.store.list(found)
            }
        }
    };
}
pub(crate) use provide_named;

//! A process of the simulated machine as a platform of the registry's.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use dsm_core::error::{ErrorKind, ProviderFailure};
use dsm_core::handle::{ObjectId, SegmentHandle};
use dsm_core::provider::{Mapping, ObjectInfo, Root, SegmentProvider};
use dsm_registry::{Connected, Connection, Platform};
use sim::{HeapElection, HeapError, HeapProcess};
use testkit::environment::Wrapped;

/// The platform of one process. Handles of a registry that is open in a place are shared: so each
/// process has a place of its own, which no other ever had.
pub(crate) struct Machine {
    process: &'static HeapProcess,
    place: u64,
}

impl Machine {
    pub(crate) fn of(process: &'static HeapProcess) -> Self {
        static PLACES: AtomicU64 = AtomicU64::new(0);
        Self { process, place: PLACES.fetch_add(1, Ordering::Relaxed) }
    }
}

impl Platform for Machine {
    type Provider = Lent;
    type Root = Lent;
    type Environment = Wrapped<&'static HeapProcess>;

    fn place(&self) -> String {
        format!("process {}", self.place)
    }

    fn connect(&self, _: &str, _: u32) -> Result<Connected<Self>, ProviderFailure> {
        let lent = || Lent(self.process);
        let environment = Wrapped::new(self.process, ());
        Ok(Connection { provider: lent(), root: lent(), environment })
    }

    fn namespaces(&self) -> Result<Vec<String>, ProviderFailure> {
        Err(ProviderFailure::new(ErrorKind::Unsupported, "list"))
    }
}

/// A process that somebody else owns.
pub(crate) struct Lent(&'static HeapProcess);

// SAFETY: forwards to a provider that upholds the contract.
unsafe impl SegmentProvider for Lent {
    type Error = HeapError;

    fn page_size(&self) -> usize {
        SegmentProvider::page_size(self.0)
    }
    fn create(
        &self,
        handle: SegmentHandle,
        size: usize,
        reserved: usize,
    ) -> Result<(Mapping, ObjectId), HeapError> {
        SegmentProvider::create(self.0, handle, size, reserved)
    }
    fn attach(&self, handle: SegmentHandle, id: ObjectId) -> Result<Mapping, HeapError> {
        SegmentProvider::attach(self.0, handle, id)
    }
    fn reserve(
        &self,
        handle: SegmentHandle,
        mapping: &Mapping,
        range: Range<usize>,
    ) -> Result<(), HeapError> {
        SegmentProvider::reserve(self.0, handle, mapping, range)
    }
    unsafe fn detach(&self, mapping: Mapping) {
        // SAFETY: the caller's promise.
        unsafe { SegmentProvider::detach(self.0, mapping) }
    }
    unsafe fn blank(&self, mapping: &Mapping) {
        // SAFETY: the caller's promise.
        unsafe { SegmentProvider::blank(self.0, mapping) }
    }
    fn destroy(&self, handle: SegmentHandle, id: ObjectId) -> Result<(), HeapError> {
        SegmentProvider::destroy(self.0, handle, id)
    }
    fn stat(&self, handle: SegmentHandle) -> Result<ObjectInfo, HeapError> {
        SegmentProvider::stat(self.0, handle)
    }
}

impl Root for Lent {
    type Error = HeapError;
    type Election<'a> = HeapElection<'a>;

    fn elect(&self, patience: Duration) -> Result<HeapElection<'_>, HeapError> {
        self.0.elect(patience)
    }
    fn elect_existing(&self, patience: Duration) -> Result<HeapElection<'_>, HeapError> {
        self.0.elect_existing(patience)
    }
    fn peek(&self) -> Result<Mapping, HeapError> {
        self.0.peek()
    }
    unsafe fn unmap(&self, mapping: Mapping) {
        // SAFETY: the caller's promise.
        unsafe { self.0.unmap(mapping) }
    }
    fn enumerate(&self, found: &mut dyn FnMut(&ObjectInfo)) -> Result<(), HeapError> {
        self.0.enumerate(found)
    }
}

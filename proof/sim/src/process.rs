//! A simulated process, as a provider of segments.

use core::ops::Range;
use core::ptr::NonNull;
use std::boxed::Box;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::vec::Vec;

use super::memory::Memory;
use crate::{HeapError, HeapMachine, Object, PAGE};
use dsm_core::error::ErrorKind;
use dsm_core::handle::{ObjectId, SegmentHandle};
use dsm_core::namespace::{LocalSegment, Platform, ProcessLocal};
use dsm_core::provider::{Mapping, ObjectInfo, RangeOwner, SegmentProvider};
use dsm_core::sync::{AtomicU64, Ordering};

/// A process's records of segments, owned.
struct Records(NonNull<[LocalSegment]>);

// SAFETY: records are `Send`, and whoever has them shares them as `ProcessLocal` says.
unsafe impl Send for Records {}

impl Drop for Records {
    fn drop(&mut self) {
        // SAFETY: from a box, and dropped once, with the process that they were lent out by.
        drop(unsafe { Box::from_raw(self.0.as_ptr()) });
    }
}

/// One simulated process: everything a namespace asks of its platform.
///
/// Implements [`SegmentProvider`], [`Root`](dsm_core::provider::Root) and the four traits of
/// [`Environment`](dsm_core::env::Environment).
pub struct HeapProcess {
    pub(super) machine: HeapMachine,
    pub(super) pid: u64,
    /// Mappings by address; each holds its memory.
    mappings: Mutex<BTreeMap<usize, Vec<Arc<Memory>>>>,
    /// Mappings kept of segments that are gone.
    blanks: Mutex<HashMap<RangeOwner, Vec<Mapping>>>,
    /// The word that a platform keeps in memory that is wiped on fork.
    token: AtomicU64,
    /// How many records of segments each [`local`](Self::local) has.
    records: usize,
    /// Records of segments that were given out, one for each [`local`](Self::local).
    segments: Mutex<Vec<Records>>,
    /// Values drawn from this process's entropy.
    pub(super) drawn: std::sync::atomic::AtomicU64,
}

impl HeapProcess {
    pub(super) fn new(machine: HeapMachine, pid: u64, records: usize) -> Self {
        Self {
            machine,
            pid,
            mappings: Mutex::default(),
            blanks: Mutex::default(),
            token: AtomicU64::new(0),
            records,
            segments: Mutex::default(),
            drawn: std::sync::atomic::AtomicU64::new(0),
        }
    }

    /// Its id: small, never reused.
    #[must_use]
    pub fn pid(&self) -> u64 {
        self.pid
    }

    /// The machine it runs on.
    #[must_use]
    pub fn machine(&self) -> &HeapMachine {
        &self.machine
    }

    /// Whether it has not been killed.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        self.machine.state().living.contains(&self.pid)
    }

    /// The process as a platform, for [`Namespace::open`](dsm_core::namespace::Namespace::open).
    #[must_use]
    pub fn platform(&self) -> Platform<'_> {
        Platform { provider: self, env: self }
    }

    /// The process's own memory for one namespace of at most as many segments as
    /// [`set_most_segments`](HeapMachine::set_most_segments) says; its token is zero again after a
    /// kill.
    #[must_use]
    pub fn local(&self) -> ProcessLocal<'_> {
        let records: Box<[_]> = (0..self.records).map(|_| LocalSegment::new()).collect();
        let records = Records(NonNull::from(Box::leak(records)));
        let mut given = self.segments.lock().unwrap_or_else(PoisonError::into_inner);
        let mut place = records.0;
        given.push(records);
        // SAFETY: leaked just now, given out here alone, and freed with the process.
        ProcessLocal::new(&self.token, unsafe { place.as_mut() })
    }

    /// Kills it: its tokens of life and its election are let go of, nothing is cleaned. What the
    /// test still holds of it (segments, a namespace) does nothing any more when dropped.
    pub fn kill(&self) {
        self.machine.kill_pid(self.pid);
        self.token.store(0, Ordering::Relaxed);
    }

    /// Number of mappings it has.
    #[must_use]
    pub fn mapped(&self) -> usize {
        self.maps().values().map(Vec::len).sum()
    }

    fn maps(&self) -> MutexGuard<'_, BTreeMap<usize, Vec<Arc<Memory>>>> {
        self.mappings.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn blanks(&self) -> MutexGuard<'_, HashMap<RangeOwner, Vec<Mapping>>> {
        self.blanks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Maps an object's bytes; zero reserved token.
    pub(super) fn map(&self, memory: &Arc<Memory>) -> Mapping {
        let base = memory.base();
        self.maps().entry(base.as_ptr() as usize).or_default().push(memory.clone());
        Mapping { base, len: memory.len(), token: 0 }
    }

    pub(super) fn unmap_at(&self, base: NonNull<u8>) {
        let mut maps = self.maps();
        let key = base.as_ptr() as usize;
        let memory = maps.get_mut(&key).and_then(Vec::pop);
        if maps.get(&key).is_some_and(Vec::is_empty) {
            maps.remove(&key);
        }
        drop(maps);
        drop(memory);
    }

    /// Announces a call to the machine's hook, and refuses it to the dead.
    pub(super) fn call(&self, what: &'static str) -> Result<(), HeapError> {
        if !self.is_alive() {
            return Err(HeapError::new(ErrorKind::Other, "the simulated process was killed"));
        }
        self.machine.called(what);
        Ok(())
    }

    fn same(object: &Object, id: ObjectId, step: &'static str) -> Result<(), HeapError> {
        if id == ObjectId::default() || id == object.id {
            return Ok(());
        }
        Err(HeapError::new(ErrorKind::Foreign, step))
    }
}

// SAFETY: a mapping is the object's one allocation, which lives as long as any mapping of it.
unsafe impl SegmentProvider for HeapProcess {
    type Error = HeapError;

    fn page_size(&self) -> usize {
        PAGE
    }

    fn create(
        &self,
        handle: SegmentHandle,
        size: usize,
        reserved: usize,
    ) -> Result<(Mapping, ObjectId), HeapError> {
        self.call("create")?;
        if size == 0 || size > isize::MAX as usize - PAGE || reserved > size {
            return Err(HeapError::new(ErrorKind::InvalidSize, "create"));
        }
        let fill = {
            let state = self.machine.state();
            if state.objects.contains_key(&handle.get()) {
                return Err(HeapError::new(ErrorKind::AlreadyExists, "create"));
            }
            if state.longest.is_some_and(|longest| size > longest) {
                return Err(HeapError::new(ErrorKind::InvalidSize, "create"));
            }
            state.fill
        };
        let memory = self.machine.allocate(size, reserved, fill)?;
        let mapping = self.map(&memory);
        let mut state = self.machine.state();
        let id = state.fresh_id();
        state.objects.insert(handle.get(), Object { memory, id });
        Ok((mapping, id))
    }

    fn attach(&self, handle: SegmentHandle, id: ObjectId) -> Result<Mapping, HeapError> {
        self.call("attach")?;
        if core::mem::take(&mut self.machine.state().fail_attach) {
            return Err(HeapError::new(ErrorKind::NoMemory, "attach"));
        }
        let object = self.machine.state().objects.get(&handle.get()).cloned();
        let Some(object) = object else {
            return Err(HeapError::new(ErrorKind::NotFound, "attach"));
        };
        Self::same(&object, id, "attach")?;
        Ok(self.map(&object.memory))
    }

    fn reserve(
        &self,
        _handle: SegmentHandle,
        mapping: &Mapping,
        range: Range<usize>,
    ) -> Result<(), HeapError> {
        self.call("reserve")?;
        let key = mapping.base.as_ptr() as usize;
        let memory = self.maps().get(&key).and_then(|list| list.last().cloned());
        let Some(memory) = memory else {
            return Err(HeapError::new(ErrorKind::NotFound, "reserve"));
        };
        if range.end > memory.len() || range.start > range.end {
            return Err(HeapError::new(ErrorKind::InvalidSize, "reserve"));
        }
        self.machine.admit(memory.missing(&range))?;
        memory.reserve(&range);
        Ok(())
    }

    unsafe fn detach(&self, mapping: Mapping) {
        if self.call("detach").is_ok() {
            self.unmap_at(mapping.base);
        }
    }

    unsafe fn blank(&self, mapping: Mapping, owner: RangeOwner) {
        self.machine.called("blank");
        self.blanks().entry(owner).or_default().push(mapping);
    }

    unsafe fn release_blanks(&self, owner: RangeOwner) {
        self.machine.called("release_blanks");
        for mapping in self.blanks().remove(&owner).unwrap_or_default() {
            self.unmap_at(mapping.base);
        }
    }

    fn destroy(&self, handle: SegmentHandle, id: ObjectId) -> Result<(), HeapError> {
        self.call("destroy")?;
        let mut state = self.machine.state();
        if core::mem::take(&mut state.fail_destroy) {
            return Err(HeapError::new(ErrorKind::PermissionDenied, "destroy"));
        }
        let Some(object) = state.objects.get(&handle.get()) else { return Ok(()) };
        Self::same(object, id, "destroy")?;
        let object = state.objects.remove(&handle.get());
        drop(state);
        drop(object);
        Ok(())
    }

    fn stat(&self, handle: SegmentHandle) -> Result<ObjectInfo, HeapError> {
        self.call("stat")?;
        let object = self.machine.state().objects.get(&handle.get()).cloned();
        match object {
            Some(object) => Ok(object.memory.info(Some(handle), object.id)),
            None => Err(HeapError::new(ErrorKind::NotFound, "stat")),
        }
    }
}

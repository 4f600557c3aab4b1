//! A machine's memory, as a provider: one block of RAM, cut into pages.
//!
//! What an embedder writes for its platform: [`SegmentProvider`] hands out segments, [`Root`] the
//! one control object. Here a segment is a run of pages of a fixed block, first fit; there is one
//! address space, so that mapping one is to hand out its address. A page table of one word a page
//! says who has it: a segment that was destroyed keeps its pages until nobody has it mapped.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::ops::Range;
use std::ptr::NonNull;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use dsm_core::error::ErrorKind;
use dsm_core::handle::{ObjectId, SegmentHandle};
use dsm_core::provider::{
    Election, Mapping, ObjectInfo, ProviderError, RangeOwner, Root, SegmentProvider,
};

const PAGE: usize = 4096;
/// The name of the control object among those of segments, which are never zero.
const CONTROL: u64 = 0;

/// The machine's memory.
pub(crate) struct Ram {
    base: NonNull<u8>,
    pages: usize,
    objects: Mutex<Objects>,
}

#[derive(Default)]
struct Objects {
    /// By position in the block.
    all: Vec<Object>,
    /// Objects made so far: gives each an identity.
    made: u64,
    /// Mappings kept for those who are late in them.
    late: Vec<(RangeOwner, Mapping)>,
    /// Whether somebody holds the election.
    elected: bool,
}

#[derive(Clone, Copy)]
struct Object {
    first: usize,
    pages: usize,
    bytes: usize,
    /// `None` once destroyed: the pages are kept for who has them mapped.
    name: Option<u64>,
    id: u64,
    mapped: usize,
}

// SAFETY: the block is shared memory: what its users do to its bytes is theirs to order. Who has
// which page is said by the table, under its mutex.
unsafe impl Send for Ram {}
// SAFETY: as above.
unsafe impl Sync for Ram {}

/// What can go wrong with RAM.
pub(crate) struct RamError(ErrorKind);

impl std::fmt::Display for RamError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

dsm_core::debug_is_display!(RamError);
impl std::error::Error for RamError {}

impl ProviderError for RamError {
    fn kind(&self) -> ErrorKind {
        self.0
    }
}

impl Ram {
    /// A machine with that many bytes of memory, rounded up to whole pages.
    pub(crate) fn new(bytes: usize) -> Self {
        let pages = bytes.div_ceil(PAGE).max(1);
        let layout = Self::layout(pages);
        // SAFETY: there is at least one page.
        let raw = unsafe { alloc_zeroed(layout) };
        let Some(base) = NonNull::new(raw) else { handle_alloc_error(layout) };
        Self { base, pages, objects: Mutex::default() }
    }

    /// Bytes that are in use by objects.
    pub(crate) fn used(&self) -> usize {
        self.objects().all.iter().map(|object| object.pages * PAGE).sum()
    }

    fn layout(pages: usize) -> Layout {
        Layout::from_size_align(pages * PAGE, PAGE).expect("a machine's memory can be addressed")
    }

    fn objects(&self) -> MutexGuard<'_, Objects> {
        self.objects.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes an object, mapped once.
    fn make(&self, name: u64, bytes: usize) -> Result<(Mapping, ObjectId), RamError> {
        if bytes == 0 || bytes > self.pages * PAGE {
            return Err(RamError(if bytes == 0 {
                ErrorKind::InvalidSize
            } else {
                ErrorKind::NoSpace
            }));
        }
        let mut objects = self.objects();
        if objects.all.iter().any(|object| object.name == Some(name)) {
            return Err(RamError(ErrorKind::AlreadyExists));
        }
        let pages = bytes.div_ceil(PAGE);
        let mut first = 0;
        let mut place = 0;
        while place < objects.all.len() && objects.all[place].first - first < pages {
            first = objects.all[place].first + objects.all[place].pages;
            place += 1;
        }
        if place == objects.all.len() && self.pages - first < pages {
            return Err(RamError(ErrorKind::NoSpace));
        }
        objects.made += 1;
        let id = objects.made;
        let object = Object { first, pages, bytes, name: Some(name), id, mapped: 1 };
        objects.all.insert(place, object);
        let mapping = self.mapping(&object);
        // SAFETY: these pages were nobody's until the line above.
        unsafe { mapping.base.write_bytes(0, pages * PAGE) };
        Ok((mapping, object_id(id)))
    }

    fn map(&self, name: u64, id: ObjectId) -> Result<Mapping, RamError> {
        let mut objects = self.objects();
        let object = objects.named(name).ok_or(RamError(ErrorKind::NotFound))?;
        object.check(id)?;
        object.mapped += 1;
        Ok(self.mapping(object))
    }

    fn mapping(&self, object: &Object) -> Mapping {
        // SAFETY: an object lies within the block.
        let base = unsafe { self.base.add(object.first * PAGE) };
        Mapping { base, len: object.bytes, token: object.id as usize }
    }

    fn unmap(&self, mapping: &Mapping) {
        let mut objects = self.objects();
        if let Some(object) = objects.all.iter_mut().find(|o| o.id == mapping.token as u64) {
            object.mapped -= 1;
        }
        objects.sweep();
    }

    fn remove(&self, name: u64, id: ObjectId) -> Result<(), RamError> {
        let mut objects = self.objects();
        let Some(object) = objects.named(name) else { return Ok(()) };
        object.check(id)?;
        object.name = None;
        objects.sweep();
        Ok(())
    }
}

impl Objects {
    fn named(&mut self, name: u64) -> Option<&mut Object> {
        self.all.iter_mut().find(|object| object.name == Some(name))
    }

    /// Gives back the pages that nobody can reach any more.
    fn sweep(&mut self) {
        self.all.retain(|object| object.name.is_some() || object.mapped > 0);
    }
}

impl Object {
    /// An identity of zeros stands for whatever is there.
    fn check(&self, id: ObjectId) -> Result<(), RamError> {
        if id == ObjectId::default() || id == object_id(self.id) {
            Ok(())
        } else {
            Err(RamError(ErrorKind::Foreign))
        }
    }

    fn info(&self) -> ObjectInfo {
        ObjectInfo {
            handle: self.name.and_then(SegmentHandle::from_raw),
            size: self.bytes as u64,
            reserved: (self.pages * PAGE) as u64,
            id: object_id(self.id),
            ..ObjectInfo::default()
        }
    }
}

fn object_id(id: u64) -> ObjectId {
    ObjectId { device: 1, object: id }
}

impl Drop for Ram {
    fn drop(&mut self) {
        // SAFETY: allocated by `new` with this layout; mappings borrow from `self`.
        unsafe { dealloc(self.base.as_ptr(), Self::layout(self.pages)) };
    }
}

// SAFETY: a mapping is the address of the object's pages, which stay the object's until it is
// both destroyed and unmapped. All memory is there from the beginning.
unsafe impl SegmentProvider for Ram {
    type Error = RamError;

    fn page_size(&self) -> usize {
        PAGE
    }

    fn create(
        &self,
        handle: SegmentHandle,
        size: usize,
        _reserved: usize,
    ) -> Result<(Mapping, ObjectId), RamError> {
        self.make(handle.get(), size)
    }

    fn attach(&self, handle: SegmentHandle, id: ObjectId) -> Result<Mapping, RamError> {
        self.map(handle.get(), id)
    }

    fn reserve(
        &self,
        _handle: SegmentHandle,
        _mapping: &Mapping,
        _range: Range<usize>,
    ) -> Result<(), RamError> {
        Ok(())
    }

    unsafe fn detach(&self, mapping: Mapping) {
        self.unmap(&mapping);
    }

    unsafe fn blank(&self, mapping: Mapping, owner: RangeOwner) {
        // Pages that are still mapped are given to nobody else: who is late finds what was there.
        self.objects().late.push((owner, mapping));
    }

    unsafe fn release_blanks(&self, owner: RangeOwner) {
        let late = std::mem::take(&mut self.objects().late);
        let (mine, others): (Vec<_>, _) = late.into_iter().partition(|(of, _)| *of == owner);
        self.objects().late = others;
        mine.iter().for_each(|(_, mapping)| self.unmap(mapping));
    }

    fn destroy(&self, handle: SegmentHandle, id: ObjectId) -> Result<(), RamError> {
        self.remove(handle.get(), id)
    }

    fn stat(&self, handle: SegmentHandle) -> Result<ObjectInfo, RamError> {
        let mut objects = self.objects();
        let object = objects.named(handle.get()).ok_or(RamError(ErrorKind::NotFound))?;
        Ok(object.info())
    }
}

// SAFETY: as for segments; the election is a flag under the mutex.
unsafe impl Root for Ram {
    type Error = RamError;
    type Election<'a> = Elected<'a>;

    fn elect(&self, patience: Duration) -> Result<Elected<'_>, RamError> {
        let deadline = std::time::Instant::now() + patience;
        loop {
            let mut objects = self.objects();
            if !std::mem::replace(&mut objects.elected, true) {
                let id = objects.named(CONTROL).map_or(0, |control| control.id);
                return Ok(Elected { ram: self, id });
            }
            drop(objects);
            if std::time::Instant::now() >= deadline {
                return Err(RamError(ErrorKind::TimedOut));
            }
            std::thread::yield_now();
        }
    }

    fn elect_existing(&self, patience: Duration) -> Result<Elected<'_>, RamError> {
        let election = self.elect(patience)?;
        if election.id == 0 { Err(RamError(ErrorKind::NotFound)) } else { Ok(election) }
    }

    fn peek(&self) -> Result<Mapping, RamError> {
        self.map(CONTROL, ObjectId::default())
    }

    unsafe fn unmap(&self, mapping: Mapping) {
        Ram::unmap(self, &mapping);
    }

    fn enumerate(&self, found: &mut dyn FnMut(&ObjectInfo)) -> Result<(), RamError> {
        let named: Vec<Object> =
            self.objects().all.iter().filter(|object| object.name.is_some()).copied().collect();
        named.iter().for_each(|object| found(&object.info()));
        Ok(())
    }
}

/// The election, held.
pub(crate) struct Elected<'a> {
    ram: &'a Ram,
    /// The control object; 0 while there is none.
    id: u64,
}

// SAFETY: as above; an object is made of pages that nobody has, zeroed, with a number of its own.
unsafe impl Election for Elected<'_> {
    type Error = RamError;

    fn size(&self) -> usize {
        self.ram.objects().named(CONTROL).map_or(0, |control| control.bytes)
    }

    fn id(&self) -> ObjectId {
        object_id(self.id)
    }

    fn create(&mut self, size: usize) -> Result<Mapping, RamError> {
        self.ram.remove(CONTROL, ObjectId::default())?;
        let (mapping, id) = self.ram.make(CONTROL, size)?;
        self.id = id.object;
        Ok(mapping)
    }

    fn map(&mut self) -> Result<Mapping, RamError> {
        self.ram.map(CONTROL, object_id(self.id))
    }

    fn remove(&mut self) -> Result<(), RamError> {
        self.ram.remove(CONTROL, object_id(self.id))
    }
}

impl Drop for Elected<'_> {
    fn drop(&mut self) {
        self.ram.objects().elected = false;
    }
}

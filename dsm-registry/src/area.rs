//! Named areas: memory to allocate from, with pointers that mean the same in every process.
//!
//! A [`DsaPtr`] is plain data: it can be stored in shared structures and tables, and anybody can
//! make one from bytes. So following it is either `unsafe`, with a promise that something is
//! there and that nobody changes it, or a checked copy: the pointer must be the first byte of an
//! allocated object, the value must fit into it, and the bytes move by relaxed atomic accesses. A
//! [`DsaBox`] owns its object, and gives out copies.
//!
//! A copy may be of another type than the one that was allocated, and takes each byte for what it
//! is. So every byte of an object must mean something: what is allocated has no padding and nothing
//! uninitialised ([`Object`]).
//!
//! **Nothing in a named area is ever behind a reference that safe code got**: the areas of tables
//! have no handle that leads to an [`Area`], and [`Area::as_ref`] and [`Area::as_mut`] are `unsafe`.
//! That is what makes checked copies safe here (see [`Area::copy_out`](dsa_core::Area::copy_out)).

use std::fmt;
use std::marker::PhantomData;
use std::mem::ManuallyDrop;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use dsa_core::{AreaLocal, DsaPointer, DsaPtr, Flags, Heap, Report, Stats};
use dsm_core::handle::SegmentHandle;
use dsm_core::lock::rw::RwLock;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::boxed::DsaBox;
use crate::error::Error;
use crate::error::context::{Context, Refusal};
use crate::plain::{Object, Snapshot};
use crate::process::Attachment;
use crate::stable::Stable;
use crate::thread;
use crate::used::{Asked, Used};

mod words;

type CoreArea = dsa_core::Area<'static, RwLock>;

/// The core's area, and what it borrows; without what keeps the namespace.
pub(crate) struct RawArea {
    /// Borrows from `local` and from the namespace, and is dropped before them.
    area: ManuallyDrop<CoreArea>,
    local: ManuallyDrop<Stable<AreaLocal>>,
    /// What errors call it.
    label: Box<str>,
    /// Index of its heaps in each thread's list.
    index: usize,
    /// Differs from that of every other one that this process has had attached.
    serial: u64,
}

impl RawArea {
    pub(crate) fn create(
        home: &Attachment,
        label: &str,
        options: &dsa_core::Options,
    ) -> Result<Self, Error> {
        let local = Stable::from(Box::<AreaLocal>::default());
        // SAFETY: kept beside the area, and dropped after it.
        let table = unsafe { local.forever() };
        let area = CoreArea::create(home.namespace_static(), options, table).of(home, label)?;
        Ok(Self::new(home, label, area, local))
    }

    /// `None` if there is no such area any more.
    pub(crate) fn attach(
        home: &Attachment,
        label: &str,
        handle: u64,
    ) -> Result<Option<Self>, Error> {
        let Some(handle) = SegmentHandle::from_raw(handle) else { return Ok(None) };
        let local = Stable::from(Box::<AreaLocal>::default());
        // SAFETY: kept beside the area, and dropped after it.
        let table = unsafe { local.forever() };
        match CoreArea::attach(home.namespace_static(), handle, table) {
            Ok(area) => Ok(Some(Self::new(home, label, area, local))),
            Err(dsa_core::Error::CouldNotAttach) => Ok(None),
            Err(e) => Err(e.of(home, label)),
        }
    }

    fn new(home: &Attachment, label: &str, area: CoreArea, local: Stable<AreaLocal>) -> Self {
        static SERIALS: AtomicU64 = AtomicU64::new(1);
        let (area, local) = (ManuallyDrop::new(area), ManuallyDrop::new(local));
        let serial = SERIALS.fetch_add(1, Ordering::Relaxed);
        Self { area, local, label: label.into(), index: home.area_indexes().take(), serial }
    }

    #[inline]
    pub(crate) fn core(&self) -> &CoreArea {
        &self.area
    }

    /// For what is kept beside this, which is not moved, and dropped before it.
    pub(crate) fn core_static(&self) -> &'static CoreArea {
        // SAFETY: as said above.
        unsafe { &*std::ptr::from_ref(self.core()) }
    }

    /// What errors call it.
    pub(crate) fn label(&self) -> &str {
        &self.label
    }

    pub(crate) fn index(&self) -> usize {
        self.index
    }

    #[inline]
    pub(crate) fn serial(&self) -> u64 {
        self.serial
    }

    pub(crate) fn handle(&self) -> u64 {
        self.area.handle().map_or(0, SegmentHandle::get)
    }

    /// Detaches; in a forked child, does nothing.
    pub(crate) fn release(&mut self, home: &Attachment) {
        if !home.is_ours() {
            return;
        }
        // SAFETY: called once, by the drop of what holds this; before what it borrows from.
        unsafe { ManuallyDrop::drop(&mut self.area) };
        // SAFETY: as above.
        unsafe { ManuallyDrop::drop(&mut self.local) };
        home.area_indexes().give_back(self.index);
    }
}

/// An area that this process has attached; detached when the last handle is dropped.
pub(crate) struct AreaObject {
    raw: RawArea,
    used: Used,
    home: Arc<Attachment>,
}

impl AreaObject {
    pub(crate) fn create(
        home: &Arc<Attachment>,
        label: &str,
        options: &dsa_core::Options,
    ) -> Result<Self, Error> {
        let raw = RawArea::create(home, label, options)?;
        Ok(Self::new(raw, home))
    }

    pub(crate) fn attach(
        home: &Arc<Attachment>,
        label: &str,
        handle: u64,
    ) -> Result<Option<Self>, Error> {
        let raw = RawArea::attach(home, label, handle)?;
        Ok(raw.map(|raw| Self::new(raw, home)))
    }

    fn new(raw: RawArea, home: &Arc<Attachment>) -> Self {
        Self { raw, used: Used::default(), home: Arc::clone(home) }
    }

    /// Uses it as what its name is asked for as; see [`Used::use_as`].
    pub(crate) fn use_as(&self, name: &str, asked: &Asked) -> Result<(), Error> {
        self.used.use_as(&self.home, name, asked)
    }

    /// Whether an address of this process lies in it, and it is no table's.
    fn is_named_and_has(&self, address: *const u8) -> bool {
        self.used.is::<Area>() && self.core().pointer_to(address).is_some()
    }

    #[inline]
    pub(crate) fn home(&self) -> &Attachment {
        &self.home
    }

    pub(crate) fn core(&self) -> &CoreArea {
        self.raw.core()
    }

    #[inline]
    pub(crate) fn raw(&self) -> &RawArea {
        &self.raw
    }

    pub(crate) fn handle(&self) -> u64 {
        self.raw.handle()
    }

    #[inline]
    fn heap(&self) -> Result<&Heap<'static, RwLock>, Error> {
        thread::heap(&self.home, &self.raw)
    }
}

impl Drop for AreaObject {
    fn drop(&mut self) {
        self.raw.release(&self.home);
    }
}

/// A named area, shared with all processes that ask for the name. Cheap to clone.
#[doc(alias = "dsa_area")]
#[derive(Clone)]
pub struct Area {
    object: Arc<AreaObject>,
}

/// Many values one after the other in an area. Plain data, like [`DsaPtr`].
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(transparent)]
pub struct DsaSlice<T> {
    /// Pointer to the first one, and how many there are.
    parts: [u64; 2],
    _of: PhantomData<fn() -> T>,
}

impl<T> DsaSlice<T> {
    /// No values.
    pub const EMPTY: Self = Self { parts: [0; 2], _of: PhantomData };

    fn new(first: DsaPtr<T>, len: usize) -> Self {
        Self { parts: [first.raw(), len as u64], _of: PhantomData }
    }

    /// The first value.
    #[must_use]
    pub fn first(self) -> DsaPtr<T> {
        DsaPointer::from_raw(self.parts[0]).cast()
    }

    /// How many there are.
    #[must_use]
    pub fn len(self) -> u64 {
        self.parts[1]
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.len() == 0
    }
}

impl<T> Clone for DsaSlice<T> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<T> Copy for DsaSlice<T> {}

impl<T> fmt::Debug for DsaSlice<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} x {}", self.first(), self.len())
    }
}

impl Area {
    pub(crate) fn new(object: Arc<AreaObject>) -> Self {
        Self { object }
    }

    /// What the area returned, with an error that names it.
    #[inline]
    fn say<T>(&self, result: Result<T, impl Refusal>) -> Result<T, Error> {
        result.of(&self.object.home, &self.object.raw.label)
    }

    /// Where an object that was allocated just now lies.
    fn fresh(&self, pointer: DsaPointer) -> Result<NonNull<u8>, Error> {
        self.say(self.object.core().try_resolve_range(pointer, 1))
    }

    /// Allocates memory for a value and stores it there. Until its pointer is stored somewhere
    /// that others find, it is this process's to free: if it is killed before, the memory stays
    /// allocated as long as the area exists. [`allocate_into`](Self::allocate_into) closes that
    /// gap.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::OutOfMemory`](crate::ErrorKind::OutOfMemory) if the system has no memory for
    /// another segment; [`ErrorKind::Area`](crate::ErrorKind::Area) at the area's limit, and for
    /// what is longer than an allocation can be;
    /// [`ErrorKind::Namespace`](crate::ErrorKind::Namespace) when all segment slots are taken.
    #[doc(alias = "dsa_allocate")]
    pub fn allocate<T: Object>(&self, value: T) -> Result<DsaPtr<T>, Error> {
        let pointer = self.allocate_unwritten()?;
        // SAFETY: allocated just now for a `T`, and nobody else knows it.
        unsafe { self.fresh(pointer.pointer())?.cast::<T>().write(value) };
        Ok(pointer)
    }

    /// As [`allocate`](Self::allocate), without a value: it is whatever the bytes say that were
    /// left there, and [`write`](Self::write) is to follow.
    ///
    /// # Errors
    ///
    /// As [`allocate`](Self::allocate).
    pub fn allocate_unwritten<T: Object>(&self) -> Result<DsaPtr<T>, Error> {
        let heap = self.object.heap()?;
        // What every object is aligned to needs no more than the short way.
        let pointer = if align_of::<T>() <= 8 {
            heap.allocate(size_of::<T>())
        } else {
            heap.allocate_layout(std::alloc::Layout::new::<T>())
        };
        self.say(pointer.map(DsaPointer::cast))
    }

    /// As [`allocate`](Self::allocate), for many values one after the other.
    ///
    /// # Errors
    ///
    /// As [`allocate`](Self::allocate).
    pub fn allocate_slice<T: Object + Copy>(&self, values: &[T]) -> Result<DsaSlice<T>, Error> {
        let layout = std::alloc::Layout::for_value(values);
        let pointer = self.say(self.object.heap()?.allocate_layout(layout))?;
        let to = self.fresh(pointer)?.cast::<T>();
        // SAFETY: allocated just now for this many, and nobody else knows it.
        unsafe { to.as_ptr().copy_from_nonoverlapping(values.as_ptr(), values.len()) };
        Ok(DsaSlice::new(pointer.cast(), values.len()))
    }

    /// Allocates memory for a value that a box owns: it is freed with the box, and when this
    /// process is killed.
    ///
    /// # Errors
    ///
    /// As [`allocate`](Self::allocate).
    pub fn allocate_box<T: Snapshot>(&self, value: T) -> Result<DsaBox<T>, Error> {
        let (size, align) = (size_of::<T>(), align_of::<T>());
        let heap = self.object.heap()?;
        let pointer = self.say(heap.allocate_unpublished(size, align, Flags::empty()))?;
        let mut owned = DsaBox::own(self.clone(), pointer.cast());
        owned.set(&value)?;
        Ok(owned)
    }

    /// Makes an unpublished object one that lives until it is freed.
    pub(crate) fn settle<T>(&self, pointer: DsaPtr<T>) -> Result<(), Error> {
        self.say(self.object.heap()?.settle(pointer.pointer()))
    }

    /// Frees an object, whoever allocated it.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Free`](crate::ErrorKind::Free) for what is no allocated object, with nothing
    /// changed.
    ///
    /// # Safety
    ///
    /// Nobody may use the object any more, in any process.
    #[doc(alias = "dsa_free")]
    pub unsafe fn free<T>(&self, pointer: DsaPtr<T>) -> Result<(), Error> {
        let heap = self.object.heap()?;
        // SAFETY: the caller's promise.
        self.say(unsafe { heap.free(pointer.pointer()) })
    }

    /// Copies a value out. Safe whatever the pointer is; what others write meanwhile may be seen
    /// in part.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Area`](crate::ErrorKind::Area) unless an allocated object of at least that size
    /// is there.
    pub fn read<T: Snapshot>(&self, pointer: DsaPtr<T>) -> Result<T, Error> {
        let mut value = T::new_zeroed();
        self.copy_out(pointer.pointer(), value.as_mut_bytes())?;
        Ok(value)
    }

    /// Copies a value in. Safe whatever the pointer is; others may see it in part.
    ///
    /// # Errors
    ///
    /// As [`read`](Self::read).
    pub fn write<T: Snapshot>(&self, pointer: DsaPtr<T>, value: &T) -> Result<(), Error> {
        self.copy_in(pointer.pointer(), value.as_bytes())
    }

    fn copy_out(&self, pointer: DsaPointer, to: &mut [u8]) -> Result<(), Error> {
        self.object.home.check_fork()?;
        // SAFETY: nothing in a named area is behind a reference of safe code's; whoever made one
        // by `as_mut` promised that nobody else uses the object in any way.
        self.say(unsafe { self.object.core().copy_out(pointer, 0, to) })
    }

    fn copy_in(&self, pointer: DsaPointer, from: &[u8]) -> Result<(), Error> {
        self.object.home.check_fork()?;
        // SAFETY: as above; whoever made a reference by `as_ref` promised that nobody changes the
        // object but by atomics.
        self.say(unsafe { self.object.core().copy_in(pointer, 0, from) })
    }

    /// Copies many values out.
    ///
    /// # Errors
    ///
    /// As [`read`](Self::read).
    pub fn read_slice<T: Snapshot>(&self, slice: DsaSlice<T>) -> Result<Vec<T>, Error> {
        self.object.home.check_fork()?;
        let pointer = slice.first().pointer();
        let bytes = slice.len().saturating_mul(size_of::<T>() as u64);
        let there = self.say(self.object.core().size_of_object(pointer))?;
        if bytes > there {
            return Err(dsa_core::Error::OutOfObject(bytes, there).into());
        }
        let mut values = vec![T::new_zeroed(); slice.len() as usize];
        self.copy_out(pointer, values.as_mut_bytes())?;
        Ok(values)
    }

    /// Copies many values in, from the first on.
    ///
    /// # Errors
    ///
    /// As [`read`](Self::read), and if there are more values than the slice has.
    pub fn write_slice<T: Snapshot>(&self, slice: DsaSlice<T>, values: &[T]) -> Result<(), Error> {
        self.object.home.check_fork()?;
        if values.len() as u64 > slice.len() {
            let (asked, there) = (values.len() as u64, slice.len());
            return Err(dsa_core::Error::OutOfObject(asked, there).into());
        }
        self.copy_in(slice.first().pointer(), values.as_bytes())
    }

    /// A reference to what a pointer means; `None` as for [`resolve`](Self::resolve), and if a `T`
    /// can't be there: it would be misaligned, or leave the segment.
    ///
    /// # Safety
    ///
    /// An allocated `T` must be there, which nobody frees, or changes but by atomics, as long as
    /// the reference is used.
    #[doc(alias = "dsa_get_address")]
    #[inline]
    #[must_use]
    pub unsafe fn as_ref<T>(&self, pointer: DsaPtr<T>) -> Option<&T> {
        // SAFETY: the caller's promise.
        unsafe { self.object.core().as_ref(pointer) }
    }

    /// A unique reference to what a pointer means; `None` as for [`as_ref`](Self::as_ref).
    ///
    /// # Safety
    ///
    /// An allocated `T` must be there, which nobody else uses in any way as long as the reference
    /// is used.
    #[expect(clippy::mut_from_ref, reason = "the memory is not the handle's: the caller vouches")]
    #[inline]
    #[must_use]
    pub unsafe fn as_mut<T>(&self, pointer: DsaPtr<T>) -> Option<&mut T> {
        // SAFETY: the caller's promise.
        unsafe { self.object.core().as_mut(pointer) }
    }

    /// Where a pointer's memory is in this process. `None` if the pointer is invalid, and if this
    /// process has not attached its segment and can't: the segment is gone, or the system refuses
    /// to map it.
    ///
    /// That there is an address proves nothing about what is there: the object may be freed, and a
    /// segment that others have given back stays mapped here until this process next allocates in
    /// the area.
    #[doc(alias = "dsa_get_address")]
    #[inline]
    #[must_use]
    pub fn resolve(&self, pointer: DsaPointer) -> Option<NonNull<u8>> {
        self.object.core().resolve(pointer)
    }

    /// What the area takes and what of it is used, in bytes.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Area`](crate::ErrorKind::Area) if it is damaged.
    pub fn stats(&self) -> Result<Stats, Error> {
        self.say(self.object.core().stats())
    }

    /// Walks through everything and compares it with everything else. Linear in the area's size.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Area`](crate::ErrorKind::Area) says what contradicts what.
    pub fn check(&self) -> Result<Report, Error> {
        let participant = self.object.home.participant()?;
        self.say(self.object.core().check(participant))
    }

    /// Gives memory back: to the area what this thread keeps for its next allocations, and what the
    /// dead kept; to the system the segments in which nothing is allocated then.
    ///
    /// What stays: the first segment; a segment as a whole as long as one object lies in it, or
    /// another living thread keeps room there for allocations of its own. Objects are not moved.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Area`](crate::ErrorKind::Area).
    #[doc(alias = "dsa_trim")]
    pub fn trim(&self) -> Result<(), Error> {
        self.say(self.object.heap()?.trim().map(drop))
    }

    /// Limits the bytes that the area may take. What exists stays.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Forked`](crate::ErrorKind::Forked),
    /// [`ErrorKind::DeclaredDead`](crate::ErrorKind::DeclaredDead).
    #[doc(alias = "dsa_set_size_limit")]
    pub fn set_size_limit(&self, bytes: u64) -> Result<(), Error> {
        self.say(self.object.core().set_size_limit(bytes))
    }
}

impl fmt::Debug for Area {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Area({:016x})", self.object.handle())
    }
}

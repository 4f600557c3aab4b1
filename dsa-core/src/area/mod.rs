//! An area as one process has it: creating, attaching, resolving pointers.
//!
//! The first segment holds the control block; the others are kept *under* it in the namespace
//! (`pin_segment_under`), so that the namespace's own bookkeeping answers all questions of life
//! and death: an area is attached by a process exactly if its first segment is, the last process
//! to leave (or to be found dead) takes all segments with it, and attaching afterwards finds
//! nothing. There is no count of our own that a killed process could leave wrong.
//!
//! An area in place lies in a segment of the caller's: that segment is the one its other segments
//! are kept under.

mod copy;
mod grow;
mod recover;
mod report;
mod runs;

use core::marker::PhantomData;
use core::ops::Range;
use core::ptr::NonNull;

use dsm_core::handle::{LockAddress, SegmentHandle};
use dsm_core::lock::{Acquired, ExclusiveGuard, LockRef, Patience, RawLock};
use dsm_core::namespace::Namespace;
use dsm_core::participant::{Participant, Peers};
use dsm_core::segment::Segment;
use dsm_core::sync::Ordering;

use crate::error::Error;
use crate::header::{AreaHeader, Entry, INLINE_ENTRIES, MAGIC, SegmentHeader, VERSION, state};
use crate::heap::Heap;
use crate::hints::HeapLocal;
use crate::layout::{Geometry, MAX_SEGMENT, PAGE, UNIT};
use crate::local::AreaLocal;
use crate::memory::Memory;
use crate::pages::Pages;
use crate::pointer::{DsaPointer, DsaPtr};

pub use report::{Report, Stats};
pub(crate) use runs::{Located, Purpose};

/// How an area is made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Options {
    /// Bytes of the first segment and of the next ones: two of each size, then twice that. At
    /// least 64 KiB, a multiple of it. PostgreSQL starts with 1 MiB; small areas are the rule here.
    #[doc(alias = "init_segment_size")]
    pub initial: u64,
    /// Growth stops doubling at this many bytes. A larger request still gets a segment of its own.
    #[doc(alias = "max_segment_size")]
    pub maximum: u64,
    /// Bytes that all segments together may take.
    pub limit: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self { initial: 64 << 10, maximum: MAX_SEGMENT, limit: u64::MAX }
    }
}

impl Options {
    fn check(&self) -> Result<(), Error> {
        if self.initial < UNIT || self.initial % UNIT != 0 || self.initial > MAX_SEGMENT {
            return Err(Error::InvalidOptions(
                "`initial` must be a multiple of 64 KiB, at most 1 TiB",
            ));
        }
        if self.maximum < self.initial || self.maximum > MAX_SEGMENT {
            return Err(Error::InvalidOptions("`maximum` must be between `initial` and 1 TiB"));
        }
        if self.limit < self.initial {
            return Err(Error::InvalidOptions("`limit` is below `initial`"));
        }
        Ok(())
    }
}

/// A dynamic shared area: an allocator over segments of a namespace. `Send + Sync`; dropping it
/// detaches the process.
#[doc(alias = "dsa_area")]
pub struct Area<'n, L> {
    namespace: &'n Namespace<'n>,
    local: &'n AreaLocal,
    /// The first segment.
    memory: Memory<'n>,
    header: &'n AreaHeader,
    /// The segment in which the control block lies, and where it starts there.
    parent: SegmentHandle,
    parent_slot: u32,
    place: u64,
    /// Tells this attachment from others of the same area.
    instance: u64,
    _lock: PhantomData<fn() -> L>,
}

/// The key of an area's first segment.
const FIRST_KEY: u32 = DsaPointer::key_of(0, 1);

impl<'n, L: RawLock> Area<'n, L> {
    /// Creates an area with a first segment of its own.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidOptions`]; [`Error::Namespace`] if there is no memory or no slot;
    /// [`Error::Busy`] if `local` has an area already. Nothing is left behind.
    #[doc(alias = "dsa_create")]
    #[doc(alias = "dsa_create_ext")]
    pub fn create(
        namespace: &'n Namespace<'n>,
        options: &Options,
        local: &'n AreaLocal,
    ) -> Result<Self, Error> {
        options.check()?;
        let geometry = Self::geometry(namespace, 0, options.initial)?;
        let segment =
            namespace.create_segment(options.initial as usize, geometry.fixed() as usize)?;
        let handle = segment.handle();
        let slot = segment.lock_address(0).slot();
        // SAFETY: the segment stays mapped until the area that this becomes is dropped (or, on an
        // error, until the end of this function); its metadata is accessed through this alone.
        let memory = unsafe { Memory::new(segment.base(), options.initial) };
        Self::init(namespace, memory, &geometry, options, None)?;
        Self::adopt_first(namespace, local, memory, Some(segment), handle, slot, 0)
    }

    /// Attaches an existing area.
    ///
    /// # Errors
    ///
    /// [`Error::CouldNotAttach`] once the last process has left it; [`Error::NotAnArea`],
    /// [`Error::Version`], [`Error::Fingerprint`] for something else; [`Error::Busy`].
    #[doc(alias = "dsa_attach")]
    pub fn attach(
        namespace: &'n Namespace<'n>,
        handle: SegmentHandle,
        local: &'n AreaLocal,
    ) -> Result<Self, Error> {
        let segment = namespace.attach_segment(handle)?.ok_or(Error::CouldNotAttach)?;
        let slot = segment.lock_address(0).slot();
        // SAFETY: as in `create`.
        let memory = unsafe { Memory::new(segment.base(), segment.len() as u64) };
        Self::adopt_first(namespace, local, memory, Some(segment), handle, slot, 0)
    }

    /// Bytes that an area in place needs at least.
    ///
    /// # Errors
    ///
    /// None in practice: locks of a namespace always fit.
    #[doc(alias = "dsa_minimum_size")]
    pub fn minimum_size(namespace: &Namespace<'_>) -> Result<u64, Error> {
        let locks = 2 * L::size_for(namespace.max_participants()) as u64;
        let mut size = 2 * PAGE;
        while Geometry::new(size, locks).is_none() {
            size += PAGE;
        }
        Ok(size)
    }

    /// Creates an area in a range of a segment of the caller's: it has no handle, and grows by
    /// segments that live as long as that one. The range must be backed by memory.
    ///
    /// # Errors
    ///
    /// [`Error::PlaceTooSmall`] for less than [`minimum_size`](Self::minimum_size) or a range that
    /// does not start at a multiple of 4,096; else as [`create`](Self::create).
    ///
    /// # Safety
    ///
    /// The range must be used for nothing else, by any process, as long as the area exists.
    #[doc(alias = "dsa_create_in_place")]
    pub unsafe fn create_in_place(
        segment: &'n Segment<'n>,
        range: Range<usize>,
        options: &Options,
        local: &'n AreaLocal,
    ) -> Result<Self, Error> {
        options.check()?;
        let memory = Self::place(segment, &range)?;
        let geometry = Self::geometry(segment.namespace(), 0, memory.len())?;
        Self::init(segment.namespace(), memory, &geometry, options, Some(range.start))?;
        // SAFETY: passed on.
        unsafe { Self::attach_in_place(segment, range, local) }
    }

    /// Attaches an area that was created in place.
    ///
    /// # Errors
    ///
    /// As [`attach`](Self::attach).
    ///
    /// # Safety
    ///
    /// As for [`create_in_place`](Self::create_in_place), with the same range.
    #[doc(alias = "dsa_attach_in_place")]
    pub unsafe fn attach_in_place(
        segment: &'n Segment<'n>,
        range: Range<usize>,
        local: &'n AreaLocal,
    ) -> Result<Self, Error> {
        let memory = Self::place(segment, &range)?;
        let slot = segment.lock_address(0).slot();
        let (namespace, handle) = (segment.namespace(), segment.handle());
        Self::adopt_first(namespace, local, memory, None, handle, slot, range.start as u64)
    }

    fn place(segment: &'n Segment<'n>, range: &Range<usize>) -> Result<Memory<'n>, Error> {
        let needs = Self::minimum_size(segment.namespace())?;
        let has = range.end.saturating_sub(range.start) as u64;
        if range.end > segment.len() || has < needs || range.start as u64 % PAGE != 0 {
            return Err(Error::PlaceTooSmall(has, needs));
        }
        // SAFETY: the range was just checked to lie inside the segment.
        let base = unsafe { segment.base().add(range.start) };
        // SAFETY: the segment is mapped for 'n; the caller of the in-place function keeps others
        // away from the range.
        Ok(unsafe { Memory::new(base, has / PAGE * PAGE) })
    }

    fn geometry(namespace: &Namespace<'_>, index: usize, size: u64) -> Result<Geometry, Error> {
        let locks = 2 * L::size_for(namespace.max_participants()) as u64;
        Geometry::new(size, if index == 0 { locks } else { 0 }).ok_or(Error::InvalidOptions(
            "the first segment is too small for the locks of this many participants",
        ))
    }

    /// Builds the control block in memory that may hold anything.
    fn init(
        namespace: &Namespace<'_>,
        memory: Memory<'_>,
        geometry: &Geometry,
        options: &Options,
        in_place: Option<usize>,
    ) -> Result<(), Error> {
        let lock_bytes = L::size_for(namespace.max_participants()) as u64;
        let header: &AreaHeader = memory.at(0)?;
        header.segment.magic.store(0, Ordering::Release);
        memory.zero(0, size_of::<AreaHeader>() as u64)?;
        let area = namespace.platform().env.next_u64();
        for lock in 0..2 {
            let at = memory.range(geometry.locks_at + lock * lock_bytes, lock_bytes)?;
            // SAFETY: room for two locks was laid out there, aligned to 64; nobody knows it yet.
            unsafe { L::init(at.cast(), namespace.max_participants()) };
        }
        header.lock_bytes.store(lock_bytes, Ordering::Relaxed);
        header.initial.store(options.initial, Ordering::Relaxed);
        header.maximum.store(options.maximum, Ordering::Relaxed);
        header.limit.store(options.limit, Ordering::Relaxed);
        header.total.store(memory.len(), Ordering::Relaxed);
        header.in_place.store(u32::from(in_place.is_some()), Ordering::Relaxed);
        header.entries.store(1, Ordering::Relaxed);
        header.nonce.store(1, Ordering::Relaxed);
        let entry = &header.inline[0];
        entry.size.store(memory.len(), Ordering::Relaxed);
        let backed = if in_place.is_some() { geometry.pages } else { geometry.meta_pages };
        entry.watermark.store(backed, Ordering::Relaxed);
        header.peak.store(report::reserved(geometry, backed), Ordering::Relaxed);
        Self::init_segment(memory, geometry, FIRST_KEY, area)?;
        let summary = Pages::new(memory, *geometry).summary()?;
        entry.longest.store(summary.longest, Ordering::Relaxed);
        entry.units.store(summary.units, Ordering::Relaxed);
        entry.free.store(geometry.pages - geometry.meta_pages, Ordering::Relaxed);
        entry.store(1, state::LIVE);
        let fingerprint = AreaHeader::fingerprint(lock_bytes);
        header.segment.fingerprint.store(fingerprint, Ordering::Relaxed);
        header.segment.magic.store(MAGIC, Ordering::Release);
        Ok(())
    }

    /// Builds what every segment has: its own header, the unit table, the page tables.
    fn init_segment(
        memory: Memory<'_>,
        geometry: &Geometry,
        key: u32,
        area: u64,
    ) -> Result<(), Error> {
        for unit in 0..geometry.units {
            memory.zero(Geometry::unit_header(unit), 64)?;
            let header: &crate::slab::SlabHeader = memory.at(Geometry::unit_header(unit))?;
            header.set_mixed(geometry, unit);
        }
        Pages::new(memory, *geometry).init()?;
        let header: &SegmentHeader = memory.at(0)?;
        header.version.store(VERSION, Ordering::Relaxed);
        header.key.store(key, Ordering::Relaxed);
        header.area.store(area, Ordering::Relaxed);
        header.size.store(memory.len(), Ordering::Relaxed);
        Ok(())
    }

    /// Checks a control block and makes an area of it.
    fn adopt_first(
        namespace: &'n Namespace<'n>,
        local: &'n AreaLocal,
        memory: Memory<'n>,
        segment: Option<Segment<'n>>,
        parent: SegmentHandle,
        parent_slot: u32,
        place: u64,
    ) -> Result<Self, Error> {
        if memory.len() < 2 * PAGE {
            return Err(Error::NotAnArea);
        }
        let header: &AreaHeader = memory.at(0)?;
        if header.segment.magic.load(Ordering::Acquire) != MAGIC {
            return Err(Error::NotAnArea);
        }
        let version = header.segment.version.load(Ordering::Relaxed);
        if version != VERSION {
            return Err(Error::Version(version, VERSION));
        }
        let ours = AreaHeader::fingerprint(L::size_for(namespace.max_participants()) as u64);
        let its = header.segment.fingerprint.load(Ordering::Relaxed);
        if its != ours {
            return Err(Error::Fingerprint(its, ours));
        }
        if header.segment.key.load(Ordering::Relaxed) != FIRST_KEY
            || header.segment.size.load(Ordering::Relaxed) != memory.len()
        {
            return Err(Error::NotAnArea);
        }
        if !local.take() {
            return Err(Error::Busy);
        }
        let guard = match local.lock(namespace.platform().env) {
            Ok(guard) => guard,
            Err(e) => {
                local.give_back();
                return Err(e);
            }
        };
        guard.insert(
            FIRST_KEY,
            memory.base(),
            memory.len(),
            segment.as_ref().map_or(0, |s| s.handle().get()),
        );
        drop(guard);
        if let Some(segment) = segment {
            let _kept_by_the_table = segment.into_raw();
        }
        let instance = u64::from(header.nonce.fetch_add(1, Ordering::Relaxed)) << 32
            ^ header.segment.area.load(Ordering::Relaxed);
        Ok(Self {
            namespace,
            local,
            memory,
            header,
            parent,
            parent_slot,
            place,
            instance,
            _lock: PhantomData,
        })
    }

    /// The handle by which others attach; `None` for an area in place.
    #[doc(alias = "dsa_get_handle")]
    #[must_use]
    pub fn handle(&self) -> Option<SegmentHandle> {
        (self.header.in_place.load(Ordering::Relaxed) == 0).then_some(self.parent)
    }

    /// Whether this process has the area with that handle attached.
    #[doc(alias = "dsa_is_attached")]
    #[must_use]
    pub fn is_attached(namespace: &Namespace<'_>, handle: SegmentHandle) -> bool {
        namespace.find_mapping(handle).is_some()
    }

    /// Keeps the area after the last process has left it, until [`unpin`](Self::unpin).
    ///
    /// # Errors
    ///
    /// [`Error::Namespace`] if it is pinned already; [`Error::NotAnArea`] in place, where it lives
    /// as long as its place.
    #[doc(alias = "dsa_pin")]
    pub fn pin(&self) -> Result<(), Error> {
        Ok(self.namespace.pin_segment(self.handle().ok_or(Error::NotAnArea)?)?)
    }

    /// Undoes [`pin`](Self::pin).
    ///
    /// # Errors
    ///
    /// [`Error::Namespace`] if it is not pinned; [`Error::NotAnArea`] in place.
    #[doc(alias = "dsa_unpin")]
    pub fn unpin(&self) -> Result<(), Error> {
        Ok(self.namespace.unpin_segment(self.handle().ok_or(Error::NotAnArea)?)?)
    }

    /// Limits the bytes of all segments together. What exists stays.
    #[doc(alias = "dsa_set_size_limit")]
    pub fn set_size_limit(&self, bytes: u64) {
        self.header.limit.store(bytes, Ordering::Relaxed);
    }

    /// The namespace.
    #[must_use]
    pub fn namespace(&self) -> &'n Namespace<'n> {
        self.namespace
    }

    /// A heap: the right of one thread to allocate and free here. `local` belongs to this area
    /// and thread; what it knows from before is kept if it was for this participant.
    ///
    /// # Errors
    ///
    /// [`Error::Lock`] (`NotRegistered`) if the participant is not registered in this process.
    pub fn heap<'h>(
        &'h self,
        participant: &'h Participant<'h>,
        local: &'h HeapLocal,
    ) -> Result<Heap<'h, L>, Error> {
        Heap::new(self, participant, local)
    }

    /// The address of `pointer` in this process; `None` if it is invalid or its segment is gone.
    /// Attaches the segment when needed. Constant time otherwise: one entry of a table.
    ///
    /// The memory behind it may be freed, or handed out anew, by anyone at any time unless the
    /// caller knows better: using it is `unsafe`.
    #[doc(alias = "dsa_get_address")]
    #[inline]
    #[must_use]
    pub fn resolve(&self, pointer: DsaPointer) -> Option<NonNull<u8>> {
        match self.local.find(pointer) {
            Some((base, len)) if pointer.offset() < len => {
                // SAFETY: the offset is inside the mapping.
                Some(unsafe { base.add(pointer.offset() as usize) })
            }
            Some(_) => None,
            None => self.resolve_unmapped(pointer),
        }
    }

    /// As [`resolve`](Self::resolve), of a range: `None` also if `bytes` bytes from `pointer` on
    /// leave the segment. What it returns can be read without a fault as long as the area is
    /// attached, whatever became of the object (zeros, if its segment is gone).
    #[inline]
    #[must_use]
    pub fn resolve_range(&self, pointer: DsaPointer, bytes: usize) -> Option<NonNull<u8>> {
        match self.local.find(pointer) {
            Some((base, len)) if bytes as u64 <= len && pointer.offset() <= len - bytes as u64 => {
                // SAFETY: the offset is inside the mapping.
                Some(unsafe { base.add(pointer.offset() as usize) })
            }
            Some(_) => None,
            None => {
                self.resolve_unmapped(pointer)?;
                let (_, len) = self.local.find(pointer)?;
                if bytes as u64 > len || pointer.offset() > len - bytes as u64 {
                    return None;
                }
                self.resolve(pointer)
            }
        }
    }

    #[cold]
    #[inline(never)]
    fn resolve_unmapped(&self, pointer: DsaPointer) -> Option<NonNull<u8>> {
        if !pointer.is_valid() {
            return None;
        }
        let memory = self.map(pointer.key()).ok()?;
        (pointer.offset() < memory.len()).then(|| {
            // SAFETY: the offset is inside the mapping.
            unsafe { memory.base().add(pointer.offset() as usize) }
        })
    }

    /// How a lock at `pointer` is named in the namespace; `None` if its segment is gone.
    #[must_use]
    pub fn lock_address(&self, pointer: DsaPointer) -> Option<LockAddress> {
        self.resolve(pointer)?;
        match SegmentHandle::from_raw(self.local.handle(pointer)?) {
            Some(handle) => Some(LockAddress::new(handle.slot(), pointer.offset())),
            None => Some(LockAddress::new(self.parent_slot, self.place + pointer.offset())),
        }
    }

    /// A reference to what `pointer` points to; `None` if it is invalid, misaligned, leaves its
    /// segment, or the segment is gone.
    ///
    /// # Safety
    ///
    /// There must be an allocated, initialised `T`, which nobody frees or changes (but through
    /// atomics and the like) for the reference's life.
    #[inline]
    #[must_use]
    pub unsafe fn as_ref<T>(&self, pointer: DsaPtr<T>) -> Option<&T> {
        let at = self.resolve_range(pointer.pointer(), size_of::<T>())?.cast::<T>();
        // SAFETY: the caller vouches for the object; bounds and alignment are checked.
        at.is_aligned().then_some(unsafe { at.as_ref() })
    }

    /// A unique reference to what `pointer` points to; `None` as for [`as_ref`](Self::as_ref).
    ///
    /// # Safety
    ///
    /// As for [`as_ref`](Self::as_ref), and nobody else may use the object at all meanwhile.
    #[expect(clippy::mut_from_ref, reason = "the memory is not the area's own: the caller vouches")]
    #[inline]
    #[must_use]
    pub unsafe fn as_mut<T>(&self, pointer: DsaPtr<T>) -> Option<&mut T> {
        let mut at = self.resolve_range(pointer.pointer(), size_of::<T>())?.cast::<T>();
        // SAFETY: the caller vouches for the object; bounds and alignment are checked.
        at.is_aligned().then_some(unsafe { at.as_mut() })
    }

    /// Where an address of this process lies in the area, if it does. Linear in the number of
    /// segments.
    #[must_use]
    pub fn pointer_to(&self, address: *const u8) -> Option<DsaPointer> {
        self.local.reverse(address as usize)
    }

    pub(crate) fn local(&self) -> &'n AreaLocal {
        self.local
    }

    pub(crate) fn header(&self) -> &'n AreaHeader {
        self.header
    }

    pub(crate) fn instance(&self) -> u64 {
        self.instance
    }

    /// The directory entry of a segment.
    pub(crate) fn entry(&self, index: usize) -> Result<&Entry, Error> {
        if index < INLINE_ENTRIES {
            return Ok(&self.header.inline[index]);
        }
        let rest = DsaPointer::from_raw(self.header.directory.load(Ordering::Acquire));
        if index >= DsaPointer::MAX_SEGMENTS || rest.segment() >= INLINE_ENTRIES {
            return Err(crate::error::Corruption::new("a directory entry", index as u64).into());
        }
        let memory = self.map(rest.key())?;
        Ok(memory.at(rest.offset() + ((index - INLINE_ENTRIES) * 64) as u64)?)
    }

    /// Entries that have ever been used.
    pub(crate) fn entries(&self) -> usize {
        (self.header.entries.load(Ordering::Acquire) as usize).min(DsaPointer::MAX_SEGMENTS)
    }

    fn lock(&self, which: u64) -> Result<LockRef<'_, L>, Error> {
        let geometry = self.geometry_of(0, self.memory.len())?;
        let bytes = L::size_for(self.namespace.max_participants()) as u64;
        let offset = geometry.locks_at + which * bytes;
        let at = self.memory.range(offset, bytes)?.cast();
        let address = LockAddress::new(self.parent_slot, self.place + offset);
        // SAFETY: `init` built the locks there (the control block's fingerprint and size agree),
        // and the first segment is mapped as long as the area is attached.
        Ok(unsafe { LockRef::new(at, address) })
    }

    /// Takes the lock over segments, and repairs what a dead holder left.
    pub(crate) fn lock_area<'p>(
        &'p self,
        participant: &'p Participant<'p>,
    ) -> Result<ExclusiveGuard<'p, L>, Error> {
        let mut guard = self.lock(0)?.exclusive(participant, Patience::Forever)?;
        if guard.acquired() == Acquired::FromDead {
            self.recover_directory()?;
            guard.mark_recovered();
        }
        Ok(guard)
    }

    /// Takes the lock over pages, and repairs what a dead holder left.
    pub(crate) fn lock_pages<'p>(
        &'p self,
        participant: &'p Participant<'p>,
    ) -> Result<ExclusiveGuard<'p, L>, Error> {
        let mut guard = self.lock(1)?.exclusive(participant, Patience::Forever)?;
        if guard.acquired() == Acquired::FromDead {
            self.recover_pages()?;
            guard.mark_recovered();
        }
        Ok(guard)
    }

    /// The geometry of a segment of this area.
    pub(crate) fn geometry_of(&self, index: usize, size: u64) -> Result<Geometry, Error> {
        let locks = if index == 0 { 2 * self.header.lock_bytes.load(Ordering::Relaxed) } else { 0 };
        Ok(Geometry::new(size, locks)
            .ok_or(crate::error::Corruption::new("a segment of impossible size", size))?)
    }
}

impl<L> Drop for Area<'_, L> {
    fn drop(&mut self) {
        // The table is locked by nobody: threads that used it borrowed the area.
        if let Ok(mut guard) = self.local.lock(self.namespace.platform().env) {
            let high = self.local.high.load(Ordering::Relaxed);
            // The first segment last: with it the process has left.
            for index in (0..high).rev() {
                if let Some(raw) = guard.remove(index) {
                    // SAFETY: the table holds what `into_raw` gave, once.
                    drop(unsafe { Segment::from_raw(self.namespace, raw) });
                }
            }
            for index in 0..crate::local::BLANKS {
                if let Some(blank) = guard.take_blank(index) {
                    // SAFETY: readers of the range borrowed the area.
                    unsafe { self.namespace.release_blank(blank) };
                }
            }
        }
        self.local.give_back();
    }
}

//! Making an area, and attaching one: in a segment of its own or in place.
//!
//! The control block is built before anybody else can know of it; its magic is stored last. Who
//! attaches checks magic, version, fingerprint, kind of locks, key and size before anything else is
//! believed.

use core::marker::PhantomData;
use core::ops::Range;

use dsm_core::error::OutOfRange;
use dsm_core::handle::SegmentHandle;
use dsm_core::lock::RawLock;
use dsm_core::namespace::Namespace;
use dsm_core::participant::{Participant, Peers};
use dsm_core::segment::Segment;
use dsm_core::sync::Ordering;

use super::{Area, FIRST_KEY, report};
use crate::error::Error;
use crate::header::{AreaHeader, MAGIC, SegmentHeader, VERSION, state};
use crate::layout::{Geometry, MAX_SEGMENT, PAGE, UNIT};
use crate::local::AreaLocal;
use crate::memory::Memory;
use crate::pages::Pages;
use crate::slab::FIRST_OWNER;

/// Numbers the attachments of this process, from 1 on. Hints of a heap point into the mappings of
/// one attachment: no other may have its number, whatever a source of randomness says. Not part of
/// what a model explores.
static INSTANCES: core::sync::atomic::AtomicU64 = core::sync::atomic::AtomicU64::new(1);

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
    /// Whether an area can be created with these; [`Area::create`] asks by itself.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidOptions`].
    pub fn check(&self) -> Result<(), Error> {
        let Self { initial, maximum, limit } = *self;
        OutOfRange::check_multiple("initial", initial, UNIT, MAX_SEGMENT, UNIT)
            .and_then(|()| OutOfRange::check("maximum", maximum, initial, MAX_SEGMENT))
            .and_then(|()| OutOfRange::check("limit", limit, initial, u64::MAX))
            .map_err(Error::InvalidOptions)
    }
}

impl<'n, L: RawLock> Area<'n, L> {
    /// Creates an area with a first segment of its own.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidOptions`]; [`Error::Namespace`] if there is no memory or no slot;
    /// [`Error::LocalInUse`]. Nothing is left behind.
    #[doc(alias = "dsa_create")]
    #[doc(alias = "dsa_create_ext")]
    pub fn create(
        namespace: &'n Namespace<'n>,
        options: &Options,
        local: &'n AreaLocal,
    ) -> Result<Self, Error> {
        options.check()?;
        let geometry = Self::geometry(namespace, 0, options.initial)?;
        let (whole, fixed) = super::grow::addressable(options.initial, &geometry)?;
        let segment = namespace.create_segment(whole, fixed)?;
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
    /// [`Error::Version`], [`Error::Fingerprint`], [`Error::LockKind`] for something else;
    /// [`Error::LocalInUse`].
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

    /// Ends an area in place while its place lives on: the segments it has grown by go, and nobody
    /// can attach it any more. The caller, who laid out the place, knows who is the last; others
    /// just drop theirs, which detaches this process alone. Without this the segments go with the
    /// place.
    ///
    /// A process that is killed in the midst of it leaves segments that go with the place, and an
    /// area that can't be attached.
    ///
    /// # Errors
    ///
    /// [`Error::NotAnArea`] if it has a handle: such an area goes with the last process that drops
    /// it. [`Error::Lock`], with nothing changed.
    ///
    /// # Safety
    ///
    /// Nobody may use the area any more, or anything that was allocated in it, in any process;
    /// who still has it attached may only drop it.
    #[doc(alias = "dsa_release_in_place")]
    pub unsafe fn destroy_in_place(self, participant: &Participant<'_>) -> Result<(), Error> {
        if self.handle().is_some() {
            return Err(Error::NotAnArea);
        }
        let guard = self.lock_area(participant)?;
        self.header.segment.magic.store(0, Ordering::Release);
        // From the end, because the directory of the later ones lies in one of the first.
        for index in (1..self.entries()).rev() {
            let entry = self.entry(index)?;
            if let Some(generation) = entry.live() {
                entry.store(generation, state::DOOMED);
                self.finish_doomed(index, entry, generation)?;
            }
        }
        drop(guard);
        // Zeros are no locks: who died before it cleared its record of one, and is swept when the
        // place has another use, must not seem to be a reader in that.
        let geometry = self.geometry_of(0, self.memory.len())?;
        let bytes = self.header.lock_bytes.load(Ordering::Relaxed);
        self.memory.zero(geometry.locks_at, 2 * bytes)?;
        Ok(())
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
        let locks = if index == 0 { locks } else { 0 };
        Geometry::new(size, locks).ok_or_else(|| {
            // Too short for the locks of this many participants.
            let fits = |size: &u64| Geometry::new(*size, locks).is_some();
            let least = (1..=MAX_SEGMENT / UNIT).map(|units| units * UNIT).find(fits);
            Error::InvalidOptions(OutOfRange {
                option: "initial",
                value: size,
                least: least.unwrap_or(MAX_SEGMENT),
                most: MAX_SEGMENT,
                multiple: UNIT,
            })
        })
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
        header.lock_kind.store(L::IDENTITY, Ordering::Relaxed);
        header.initial.store(options.initial, Ordering::Relaxed);
        header.maximum.store(options.maximum, Ordering::Relaxed);
        header.limit.store(options.limit, Ordering::Relaxed);
        header.total.store(memory.len(), Ordering::Relaxed);
        header.in_place.store(u32::from(in_place.is_some()), Ordering::Relaxed);
        header.entries.store(1, Ordering::Relaxed);
        header.numbers.store(FIRST_OWNER, Ordering::Relaxed);
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
    pub(super) fn init_segment(
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
        let kind = header.lock_kind.load(Ordering::Relaxed);
        if kind != L::IDENTITY {
            return Err(Error::LockKind(kind, L::IDENTITY));
        }
        if header.segment.key.load(Ordering::Relaxed) != FIRST_KEY
            || header.segment.size.load(Ordering::Relaxed) != memory.len()
        {
            return Err(Error::NotAnArea);
        }
        if !local.take() {
            return Err(Error::LocalInUse);
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
        let instance = INSTANCES.fetch_add(1, core::sync::atomic::Ordering::Relaxed);
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
}

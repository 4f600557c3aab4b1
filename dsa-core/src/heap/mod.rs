//! Allocating and freeing: the fast path and the doors to the slow ones.
//!
//! A [`Heap`] is one thread's right to allocate in one area. In the common case allocating is:
//! class of the size, newest entry of the magazine (or lowest bit of the mask), look at the
//! object's truth byte, store 1; freeing is: entry of the segment table, header of the slab, owner
//! is this heap, which object, look at its byte, store 0, push it onto the magazine. No lock, no
//! read-modify-write, no shared line that anybody else writes. The store into the byte is the
//! commit: a process killed before it has done nothing, after it everything.
//!
//! What a process allocated bare and had not linked anywhere when it was killed is the
//! application's to find. [`Heap::allocate_into`] closes that gap: the object is born with truth 2
//! (unpublished), is stored where it is to be found, and becomes 1. Who finds it there and
//! [`take`](Heap::take)s it, moves it or frees it turns a 2 that a killed process left.
//!
//! A thread takes slabs of one page first and whole units once a class is in use in earnest, so
//! that a small area stays within its first 64 KiB.
//!
//! **What a heap keeps.** Of each class the slab that it allocates from, and those with room in
//! which it has freed itself (a bounded number: see `refill`). A slab that is full it lets go of,
//! so that its pages become free when its last object does, whoever frees that (`area::nobodys`).
//! One of its own that it frees the last object of it gives up at once, but for the one that it
//! allocates from; what it has missed (the last objects were in the magazine, or others freed them)
//! it gives up before the area grows or refuses it memory, and on `trim`.

mod free;
mod moving;
mod publish;
mod refill;

pub(crate) use free::{Due, count, free_remotely};

use core::alloc::Layout;
use core::ptr::NonNull;

use dsm_core::lock::RawLock;
use dsm_core::participant::Participant;
use dsm_core::sync::{AtomicU8, AtomicU32, Ordering};

use crate::area::{Area, Purpose};
use crate::class::{SIZES, class_for, class_of};
use crate::error::{Corruption, Error, FreeError};
use crate::hints::HeapLocal;
use crate::layout::{PAGE, SIDE, UNITS_AT};
use crate::pages::Run;
use crate::pointer::DsaPointer;
use crate::slab::{
    FIRST_OWNER, FREE, MIXED, ORPHAN, Owner, SlabHeader, USED, index_in, is_allocated,
};

bitflags::bitflags! {
    /// What an allocation may do.
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
    pub struct Flags: u32 {
        /// Allow more than [`MAX_REQUEST`] bytes.
        #[doc(alias = "DSA_ALLOC_HUGE")]
        const HUGE = 1;
        /// Return the invalid pointer instead of any error.
        #[doc(alias = "DSA_ALLOC_NO_OOM")]
        const NO_OOM = 2;
        /// Zero the object.
        #[doc(alias = "DSA_ALLOC_ZERO")]
        const ZERO = 4;
    }
}

/// The largest request without [`Flags::HUGE`], in bytes: 1 GiB - 1.
#[doc(alias = "MaxAllocSize")]
pub const MAX_REQUEST: usize = (1 << 30) - 1;
/// The largest request with [`Flags::HUGE`], in bytes.
#[doc(alias = "MaxAllocHugeSize")]
pub const MAX_HUGE_REQUEST: usize = usize::MAX / 2;

/// One thread's right to allocate and free in an area; see the module's essay. Neither `Send` nor
/// `Sync`.
pub struct Heap<'h, L> {
    pub(crate) area: &'h Area<'h, L>,
    pub(crate) participant: &'h Participant<'h>,
    pub(crate) local: &'h HeapLocal,
}

impl<'h, L: RawLock> Heap<'h, L> {
    pub(crate) fn new(
        area: &'h Area<'h, L>,
        participant: &'h Participant<'h>,
        local: &'h HeapLocal,
    ) -> Result<Self, Error> {
        area.admit(participant)?;
        let heap = Self { area, participant, local };
        heap.identify()?;
        Ok(heap)
    }

    /// Makes sure that the hints are this participant's, of this attachment. Returns the heap's
    /// number.
    pub(crate) fn identify(&self) -> Result<u64, Error> {
        self.participant.confirm().inspect_err(|_| self.local.wipe())?;
        // Whoever was declared dead since then: it was not this participant.
        if self.has_its_hints() {
            return Ok(self.local.me.get());
        }
        self.local.wipe();
        let me = self.area.header().numbers.fetch_add(1, Ordering::Relaxed);
        if me < FIRST_OWNER {
            return Err(Corruption::new("the number of a heap", me).into());
        }
        self.local.participant.set(self.participant.packed());
        self.local.instance.set(self.area.instance());
        self.local.me.set(me);
        Ok(me)
    }

    /// What owner words say of this heap, whose number is `me`.
    pub(crate) fn as_owner(&self, me: u64) -> Owner {
        Owner { heap: me, participant: self.participant.packed() }
    }

    /// Whether the hints are this participant's and of this attachment: another heap may have been
    /// given the same `HeapLocal` since, and its area, to whose memory they point, may be gone.
    #[inline(always)]
    fn has_its_hints(&self) -> bool {
        self.local.participant.get() == self.participant.packed()
            && self.local.instance.get() == self.area.instance()
    }

    /// Whether it has, and may use them: who isn't registered may not, nor who has to look whether
    /// it was declared dead.
    #[inline(always)]
    fn knows_its_hints(&self) -> bool {
        self.has_its_hints() && self.participant.is_current()
    }

    /// The area.
    #[must_use]
    pub fn area(&self) -> &'h Area<'h, L> {
        self.area
    }

    /// The participant.
    #[must_use]
    pub fn participant(&self) -> &'h Participant<'h> {
        self.participant
    }

    /// Allocates `size` bytes, aligned to 8, or to 16 if the size is a multiple of 16, or to a
    /// page above 8,192 bytes. The contents are anything. Constant time, but for every so many
    /// calls that look for free objects; a zero size is treated as 1.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidRequestSize`] above [`MAX_REQUEST`]; [`Error::SizeLimit`], which says what
    /// would succeed; [`Error::TooManySegments`], [`Error::SegmentShare`], [`Error::Namespace`]
    /// when there is no memory. No lock is held and nothing is lost then.
    #[doc(alias = "dsa_allocate")]
    #[inline(always)]
    pub fn allocate(&self, size: usize) -> Result<DsaPointer, Error> {
        if let Some(class) = class_of(size) {
            if let Some(hints) = self.local.classes.get(class) {
                if self.knows_its_hints() {
                    if let Some(pointer) = hints.take(USED) {
                        return Ok(pointer);
                    }
                }
            }
        }
        self.allocate_slow(size, 1, Flags::empty(), USED)
    }

    /// As [`allocate`](Self::allocate), with flags.
    ///
    /// # Errors
    ///
    /// As [`allocate`](Self::allocate); none with [`Flags::NO_OOM`], which turns every one into
    /// the invalid pointer.
    #[doc(alias = "dsa_allocate_extended")]
    #[doc(alias = "dsa_allocate0")]
    pub fn allocate_extended(&self, size: usize, flags: Flags) -> Result<DsaPointer, Error> {
        self.allocate_aligned(size, 1, flags)
    }

    /// Allocates for a layout: an alignment up to 4,096 is possible.
    ///
    /// # Errors
    ///
    /// As [`allocate`](Self::allocate), and [`Error::InvalidAlignment`].
    pub fn allocate_layout(&self, layout: Layout) -> Result<DsaPointer, Error> {
        self.allocate_aligned(layout.size(), layout.align(), Flags::empty())
    }

    /// Allocates with an alignment and flags.
    ///
    /// # Errors
    ///
    /// As [`allocate_extended`](Self::allocate_extended), and [`Error::InvalidAlignment`].
    pub fn allocate_aligned(
        &self,
        size: usize,
        align: usize,
        flags: Flags,
    ) -> Result<DsaPointer, Error> {
        let result = self.allocate_slow(size, align, flags, USED);
        let result = result.and_then(|pointer| {
            if flags.contains(Flags::ZERO) {
                self.zero(pointer, size)?;
            }
            Ok(pointer)
        });
        match result {
            Err(_) if flags.contains(Flags::NO_OOM) => Ok(DsaPointer::INVALID),
            result => result,
        }
    }

    fn zero(&self, pointer: DsaPointer, size: usize) -> Result<(), Error> {
        let memory = self.area.map(pointer.key())?;
        // Objects are aligned to 8 and as long as their class, which is a multiple of 8.
        Ok(memory.zero(pointer.offset(), (size as u64).next_multiple_of(8))?)
    }

    #[cold]
    #[inline(never)]
    pub(crate) fn allocate_slow(
        &self,
        size: usize,
        align: usize,
        flags: Flags,
        value: u8,
    ) -> Result<DsaPointer, Error> {
        let most = if flags.contains(Flags::HUGE) { MAX_HUGE_REQUEST } else { MAX_REQUEST };
        if size > most {
            return Err(Error::InvalidRequestSize(size as u64));
        }
        if !align.is_power_of_two() || align as u64 > PAGE {
            return Err(Error::InvalidAlignment(align));
        }
        let me = self.identify()?;
        let Some(class) = class_for(size, align) else {
            return self.allocate_pages(size, me, value);
        };
        if self.is_cold(class) {
            return self.allocate_pages(size, me, value);
        }
        let hints = &self.local.classes[class];
        loop {
            if let Some(pointer) = hints.take(value) {
                return Ok(pointer);
            }
            match self.refill(class, me) {
                Ok(()) => {}
                // Where there is no room for a slab of sixteen pages there may be for two.
                Err(e) if e.is_shortage() && u64::from(SIZES[class]) > PAGE => {
                    return self.allocate_pages(size, me, value);
                }
                Err(e) => return Err(e),
            }
        }
    }

    /// Allocates a run of pages.
    fn allocate_pages(&self, size: usize, me: u64, value: u8) -> Result<DsaPointer, Error> {
        let pages = (size as u64).div_ceil(PAGE).max(1);
        let Ok(pages) = u32::try_from(pages) else {
            return Err(Error::InvalidRequestSize(size as u64));
        };
        let purpose = match value {
            USED => Purpose::Large,
            _ => Purpose::Unpublished(self.as_owner(me)),
        };
        let allocated = self.area.allocate_run(self.participant, pages, purpose, &mut || {
            let emptied = self.give_up_empty()?;
            Ok(self.area.adopt(self.participant)? > 0 || emptied)
        })?;
        Ok(allocated)
    }

    /// Frees an object. Any participant may free what any other one allocated.
    ///
    /// # Errors
    ///
    /// [`FreeError::DoubleFree`] (until the object is allocated again);
    /// [`FreeError::InvalidPointer`] for what is no object, which may be said of one that is free
    /// already, too, when its slab has become free pages since. Nothing is changed then.
    ///
    /// # Safety
    ///
    /// Nobody may use the object any more, in any process.
    #[doc(alias = "dsa_free")]
    #[inline(always)]
    pub unsafe fn free(&self, pointer: DsaPointer) -> Result<(), FreeError> {
        let Some((base, len)) = self.area.local().find(pointer) else {
            return self.free_slow(pointer);
        };
        let offset = pointer.offset();
        if offset >= len {
            return self.free_slow(pointer);
        }
        // SAFETY: the unit table starts there in every segment, and has a header for every unit
        // of the mapping.
        let header = unsafe { base.add((UNITS_AT + (offset >> 16) * 64) as usize) };
        // SAFETY: as above; atomics only, aligned to 64 as is the base.
        let header = unsafe { header.cast::<SlabHeader>().as_ref() };
        let me = self.local.me.get();
        if header.owner.load(Ordering::Acquire) != me || !self.knows_its_hints() {
            return self.free_elsewhere(pointer, base, len, header);
        }
        match self.free_own(pointer, base, len, header, (offset & 0xffff) as u32) {
            Some(result) => result,
            None => self.free_slow(pointer),
        }
    }

    /// Frees an object of a slab of this heap; `None` if it is none, or something is odd.
    #[inline(always)]
    fn free_own(
        &self,
        pointer: DsaPointer,
        base: NonNull<u8>,
        len: u64,
        header: &SlabHeader,
        distance: u32,
    ) -> Option<Result<(), FreeError>> {
        let index = index_in(header, distance)?;
        let place = header.truth.load(Ordering::Relaxed);
        let truth = (place & ((1 << 40) - 1)) + u64::from(index);
        let class = (place >> 56) as usize;
        let hints = self.local.classes.get(class)?;
        if truth >= len {
            return None;
        }
        // SAFETY: inside the mapping.
        let truth = unsafe { base.add(truth as usize) };
        // SAFETY: a truth byte: the header is of a slab that this heap owns.
        let truth = unsafe { truth.cast::<AtomicU8>().as_ref() };
        if !is_allocated(truth.load(Ordering::Relaxed)) {
            return Some(Err(FreeError::DoubleFree(pointer)));
        }
        truth.store(FREE, Ordering::Release);
        if hints.push(pointer, truth) {
            self.tidy(pointer);
        }
        Some(Ok(()))
    }

    /// Frees what is not in a unit of this heap's: perhaps in a slab of one page of it.
    #[inline(never)]
    fn free_elsewhere(
        &self,
        pointer: DsaPointer,
        base: NonNull<u8>,
        len: u64,
        unit: &SlabHeader,
    ) -> Result<(), FreeError> {
        let (me, offset) = (self.local.me.get(), pointer.offset());
        if unit.owner.load(Ordering::Acquire) == MIXED {
            if let Some(header) = mini_header(base, len, offset, unit) {
                if header.owner.load(Ordering::Acquire) == me && self.knows_its_hints() {
                    let distance = (offset & 0xfff) as u32;
                    return match self.free_own(pointer, base, len, header, distance) {
                        Some(done) => done,
                        None => self.free_slow(pointer),
                    };
                }
            }
        }
        self.free_others(pointer, base, len, unit)
    }

    /// Frees what is not this heap's: perhaps in a slab of nobody.
    #[inline(never)]
    fn free_others(
        &self,
        pointer: DsaPointer,
        base: NonNull<u8>,
        len: u64,
        unit: &SlabHeader,
    ) -> Result<(), FreeError> {
        let offset = pointer.offset();
        let (header, distance) = match unit.owner.load(Ordering::Acquire) {
            MIXED => (mini_header(base, len, offset, unit), offset & 0xfff),
            _ => (Some(unit), offset & 0xffff),
        };
        if let Some(header) = header {
            if header.owner.load(Ordering::Acquire) == ORPHAN && self.knows_its_hints() {
                if let Some(done) = self.free_nobodys(pointer, base, len, header, distance as u32) {
                    return done;
                }
            }
        }
        self.free_slow(pointer)
    }

    /// Frees an object of a slab of nobody; `None` if it is none.
    #[inline(always)]
    fn free_nobodys(
        &self,
        pointer: DsaPointer,
        base: NonNull<u8>,
        len: u64,
        header: &SlabHeader,
        distance: u32,
    ) -> Option<Result<(), FreeError>> {
        let index = index_in(header, distance)?;
        let place = header.truth.load(Ordering::Relaxed) & ((1 << 40) - 1);
        let truth = place + u64::from(index);
        if truth >= len {
            return None;
        }
        // SAFETY: inside the mapping.
        let truth = unsafe { base.add(truth as usize) };
        // SAFETY: a truth byte: the object, which is allocated, keeps its slab where it is.
        let truth = unsafe { truth.cast::<AtomicU8>().as_ref() };
        Some(free_remotely(pointer, header, truth).map(|due| self.tend(pointer, due)))
    }
}

/// The header of the slab of one page in which `offset` lies; `None` if it lies in none.
#[inline(always)]
fn mini_header(base: NonNull<u8>, len: u64, offset: u64, unit: &SlabHeader) -> Option<&SlabHeader> {
    // The unit table comes first, with an entry for every begun unit; the page words follow it.
    let word = UNITS_AT + len.div_ceil(1 << 16) * 64 + (offset >> 12) * 4;
    // SAFETY: every page of the mapping has its word there.
    let word = unsafe { base.add(word as usize) };
    // SAFETY: as above; aligned to 4, and only ever accessed as an atomic.
    let word = unsafe { word.cast::<AtomicU32>().as_ref() };
    if word.load(Ordering::Acquire) != Run::MINI {
        return None;
    }
    let side = unit.truth.load(Ordering::Relaxed);
    if side % 64 != 0 || side.checked_add(SIDE)? > len {
        return None;
    }
    // SAFETY: the side area was just checked to lie inside the mapping.
    let header = unsafe { base.add((side + ((offset >> 12) & 15) * 64) as usize) };
    // SAFETY: as above; aligned to 64, atomics only.
    Some(unsafe { header.cast::<SlabHeader>().as_ref() })
}

//! The area's control block and directory, in shared memory.
//!
//! The block lies at the start of the area's first segment (or of its place), two locks after the
//! tables (see `layout`). Every segment starts with a [`SegmentHeader`]; in the first one it is
//! followed by the area's fields and the first sixteen entries of the directory. The other 1,008
//! entries are a run of pages in a short segment of their own, which takes the last of those that
//! can be had, before any other segment does: processes find it through an entry of the control
//! block. That segment is never empty, so that it stays, with 128 KiB.
//!
//! **Truth**: an entry's `state` word (generation and state), and while it is `LIVE` its `handle`,
//! `size` and `watermark`. **Derived**: `longest`, `units`, `free` (copied from the segment's page
//! tree, under the page lock), `total`, `open`.
//!
//! **Locks**: the area lock guards entries, `total`, `directory`, adoption; the page lock guards
//! page words and trees of all segments, watermarks, the derived fields of entries, and slabs of
//! nobody with their lists (`open`). Area before pages.
//!
//! **States of an entry**, each change one store; what a killed holder of the area lock leaves:
//!
//! ```text
//!   FREE(g) -> CREATING(g + 1) -> LIVE(g + 1) -> DOOMED(g + 1) -> FREE(g + 1)
//!   CREATING(g + 1) -> FREE(g)              if it comes to nothing
//!   DOOMED(16,383) -> RETIRED(16,383) -> FREE(0)
//! ```
//!
//! * `CREATING`: there may be a segment, known to the namespace as attached by its creator alone:
//!   it goes with the dead creator. If `handle` is set it may be pinned already: unpin it. Back to
//!   `FREE`, of the generation before: nobody has seen the key, since a segment is entered in its
//!   maker's table when it is `LIVE`.
//! * `DOOMED`: no page of it is allocated and none will be. Unpin it (again), on to `FREE`.
//! * `RETIRED`: the last generation has been. They start over when no process has any segment of
//!   the area attached that was given back: see `area::directory`.

use core::ptr::NonNull;

use dsm_core::sync::{AtomicU32, AtomicU64, Ordering};

use crate::class::CLASSES;
use crate::memory::{Memory, Shared};
use crate::pointer::DsaPointer;

/// First word of every segment of an area: "DSAREA" and two digits.
pub(crate) const MAGIC: u64 = u64::from_le_bytes(*b"DSAREA01");
/// Changed with every change of the layout.
pub(crate) const VERSION: u32 = 4;
/// Directory entries in the control block.
pub(crate) const INLINE_ENTRIES: usize = 16;

/// States of a directory entry.
pub(crate) mod state {
    pub(crate) const FREE: u8 = 0;
    pub(crate) const CREATING: u8 = 1;
    pub(crate) const LIVE: u8 = 2;
    pub(crate) const DOOMED: u8 = 3;
    pub(crate) const RETIRED: u8 = 4;
}

/// A segment of the area.
#[repr(C, align(64))]
pub(crate) struct Entry {
    /// Generation in the upper half, state in the low byte.
    pub(crate) state: AtomicU64,
    /// The namespace's handle; 0 in place, or none.
    pub(crate) handle: AtomicU64,
    /// Bytes.
    pub(crate) size: AtomicU64,
    /// Pages from the start that are backed by memory (or metadata).
    pub(crate) watermark: AtomicU32,
    /// The longest free run, in pages.
    pub(crate) longest: AtomicU32,
    /// Free units.
    pub(crate) units: AtomicU32,
    /// Free pages.
    pub(crate) free: AtomicU32,
    _reserved: [AtomicU32; 6],
}

#[cfg(not(loom))]
const _: () = assert!(size_of::<Entry>() == 64);

// SAFETY: repr(C), atomics only.
unsafe impl Shared for Entry {}

impl Entry {
    pub(crate) fn pack(generation: u32, state: u8) -> u64 {
        u64::from(generation) << 32 | u64::from(state)
    }

    /// (generation, state).
    #[inline]
    pub(crate) fn load(&self) -> (u32, u8) {
        let word = self.state.load(Ordering::Acquire);
        ((word >> 32) as u32, word as u8)
    }

    pub(crate) fn store(&self, generation: u32, state: u8) {
        self.state.store(Self::pack(generation, state), Ordering::Release);
    }

    /// The generation, if the entry is live.
    #[inline]
    pub(crate) fn live(&self) -> Option<u32> {
        let (generation, state) = self.load();
        (state == state::LIVE).then_some(generation)
    }

    /// The state of an entry that has no segment any more, after this generation.
    pub(crate) fn unused(generation: u32) -> u8 {
        if generation >= DsaPointer::MAX_GENERATION { state::RETIRED } else { state::FREE }
    }

    /// Ends the making of a segment that came to nothing: nobody has seen its key, which the next
    /// one has.
    pub(crate) fn unmake(&self, generation: u32) {
        self.clear();
        self.store(generation.saturating_sub(1), state::FREE);
    }

    pub(crate) fn clear(&self) {
        for field in [&self.watermark, &self.longest, &self.units, &self.free] {
            field.store(0, Ordering::Relaxed);
        }
        self.handle.store(0, Ordering::Relaxed);
        self.size.store(0, Ordering::Relaxed);
    }
}

/// What every segment starts with: which one it is.
#[repr(C)]
pub(crate) struct SegmentHeader {
    pub(crate) magic: AtomicU64,
    pub(crate) version: AtomicU32,
    /// Index and generation, as in pointers.
    pub(crate) key: AtomicU32,
    pub(crate) fingerprint: AtomicU64,
    /// Random; the same in all segments of an area.
    pub(crate) area: AtomicU64,
    pub(crate) size: AtomicU64,
}

// SAFETY: repr(C), atomics only.
unsafe impl Shared for SegmentHeader {}

/// The key ([`DsaPointer::key`]) by which pointers name a mapped segment of an area; `None` if it
/// is no such segment. For tools that look at an area from outside, and resolve pointers by
/// themselves.
///
/// [`DsaPointer::key`]: crate::DsaPointer::key
///
/// # Safety
///
/// `len` bytes from `base`, which is aligned to 64, must be mapped for reads.
#[must_use]
pub unsafe fn segment_key(base: NonNull<u8>, len: u64) -> Option<u32> {
    // SAFETY: passed on; nothing is written.
    let memory = unsafe { Memory::new(base, len) };
    let header: &SegmentHeader = memory.at(0).ok()?;
    let known = header.magic.load(Ordering::Acquire) == MAGIC
        && header.version.load(Ordering::Relaxed) == VERSION;
    known.then(|| header.key.load(Ordering::Relaxed))
}

/// Where a word lies: in which segment of the namespace, and how far from its start. See
/// `area::intent`.
#[repr(C)]
pub(crate) struct PlaceWords {
    /// The segment's handle; 0 for no word.
    pub(crate) segment: AtomicU64,
    pub(crate) offset: AtomicU64,
}

/// What the page lock's holder is about to do; see `area::intent`.
#[repr(C)]
pub(crate) struct Intent {
    /// Raw pointer to the object; 0 for nothing.
    pub(crate) object: AtomicU64,
    /// The word that names the object, and no longer is to.
    pub(crate) from: PlaceWords,
    /// The word that is to name it.
    pub(crate) to: PlaceWords,
}

/// The area's control block.
#[repr(C, align(64))]
pub(crate) struct AreaHeader {
    pub(crate) segment: SegmentHeader,
    /// Bytes of one lock.
    pub(crate) lock_bytes: AtomicU64,
    /// Size of the first segments that are made for growth.
    pub(crate) initial: AtomicU64,
    /// Growth stops doubling here.
    pub(crate) maximum: AtomicU64,
    /// No more than this in all; `u64::MAX` for no limit.
    pub(crate) limit: AtomicU64,
    /// Bytes of all segments.
    pub(crate) total: AtomicU64,
    /// The most bytes that were ever backed by memory.
    pub(crate) peak: AtomicU64,
    /// Raw pointer to the rest of the directory; 0 as long as there is none.
    pub(crate) directory: AtomicU64,
    /// Counts segments given back: who has seen fewer looks through its table.
    pub(crate) retired: AtomicU64,
    /// Entries below this have been used.
    pub(crate) entries: AtomicU32,
    /// 1 if the area lies in memory of the caller's.
    pub(crate) in_place: AtomicU32,
    /// The number of the next heap. It doesn't wrap: a billion a second would take
    /// three centuries.
    pub(crate) numbers: AtomicU64,
    _reserved: [AtomicU64; 9],
    pub(crate) inline: [Entry; INLINE_ENTRIES],
    /// What the page lock's holder is doing to an object and to words that name it.
    pub(crate) intent: Intent,
    /// `RawLock::IDENTITY` of the two locks: who used them as another kind would exclude nobody.
    pub(crate) lock_kind: AtomicU64,
    /// Raw pointers to the first of nobody's slabs with room, of each class; 0 for none. See
    /// `area::nobodys`.
    pub(crate) open: [AtomicU64; CLASSES],
}

// What docs/LAYOUT.md says.
#[cfg(not(loom))]
const _: () = assert!(
    size_of::<AreaHeader>() <= crate::layout::UNITS_AT as usize
        && core::mem::offset_of!(AreaHeader, lock_bytes) == 40
        && core::mem::offset_of!(AreaHeader, inline) == 192
        && core::mem::offset_of!(AreaHeader, intent) == 1216
        && size_of::<Intent>() == 40
        && core::mem::offset_of!(AreaHeader, lock_kind) == 1256
        && core::mem::offset_of!(AreaHeader, open) == 1264
);

// SAFETY: repr(C), atomics only.
unsafe impl Shared for AreaHeader {}

impl AreaHeader {
    /// Pointer width, byte order and the length of a lock: what must be equal in all processes.
    pub(crate) fn fingerprint(lock_bytes: u64) -> u64 {
        let order = u64::from(u32::from_ne_bytes([1, 2, 3, 4]));
        let shape = (size_of::<usize>() as u64) << 8 | crate::layout::SIDE << 16;
        // A multiplication by an odd constant mixes without losing a bit.
        (order << 32 ^ shape ^ lock_bytes).wrapping_mul(0x9E37_79B9_7F4A_7C15)
    }
}

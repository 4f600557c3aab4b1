//! Slabs: objects of one size side by side.
//!
//! A *full* slab is a unit of 64 KiB, a *mini* slab one page. Both have a [`SlabHeader`], the full
//! one in the unit table, the mini one in its unit's side area.
//!
//! **Truth**: one byte an object: 0 free, 1 allocated, 2 allocated but not yet published, 3 being
//! freed (see `area::free_from`). And the header's owner word:
//!
//! | owner word | |
//! |---|---|
//! | 0 | no slab here |
//! | `ORPHAN` | a slab that nobody owns (see `area::nobodys`) |
//! | `MIXED` | a unit used page by page |
//! | else | number of the heap that owns the slab |
//!
//! The area numbers its heaps, and no number is given out twice: two heaps of one participant (one
//! that was forgotten, and its successor) never take each other's slab for their own. `participant`
//! says whose heap it is. It is stored before the owner word names the heap, while that names none,
//! so that it is right whenever the owner word names one. It stays when the heap lets the slab go:
//! it says whose the objects are that are not published.
//!
//! **Who writes**: the owner allocates by storing 1 (or 2) over a 0 and frees by storing 0; nobody
//! else ever turns a 0 into anything. Others free by a compare-and-swap of 1 (or 2) to 0, which is
//! their last store to the slab; what they have to count there they count before. The page lock's
//! holder alone turns a 1 or 2 into a 3, and a 3 into a 0. An owner word changes from a heap's
//! number to `ORPHAN` when the owner lets go (or the area lock's holder does so for the dead), and
//! else under the page lock alone: as a slab is made or unmade, or taken by a heap. The memory of a
//! header has other uses while its pages are no slab (another run's header, another slab's truth
//! bytes), so that it says something only under a page word that says slab: who is neither the
//! owner nor holds the page lock reads that word first, and what it makes of the header is a guess
//! until the page lock's holder has looked.
//!
//! **Derived or private**: `next`, `prev`, `list`, `cursor` belong to the owner and mean nothing to
//! the next one; of a slab of nobody, to the page lock's holder. `left` is a hint. The rest is
//! constant while the slab lives, and follows from its class.
//!
//! **Publishing**: `dest` and `publishing` say which object is being published where, so that who
//! recovers a dead owner's slab can tell a 2 that nobody can reach from one that is published but
//! for its byte. A run's head uses the same header for the same purpose.
//!
//! Where the truth bytes are: full slabs of objects of 64 bytes and more: in the side area; mini
//! slabs of objects of 1,024 and more (at most four): four bytes at the side area's end; all
//! others: at the slab's start, before the objects.

use dsm_core::planted::{Bug, planted};
use dsm_core::sync::{AtomicU8, AtomicU16, AtomicU32, AtomicU64, Ordering};

use crate::class::{CLASSES, SIZES, natural_align, reciprocal};
use crate::error::{Corruption, Error};
use crate::layout::{Geometry, MAX_SEGMENT, PAGE, SIDE_MINI_TRUTH, UNIT, UNIT_PAGES};
use crate::memory::{Memory, Shared};
use crate::pages::Run;
use crate::pointer::DsaPointer;
use crate::racy_scan;

/// Owner word of a unit that is used page by page.
pub(crate) const MIXED: u64 = 2;
/// Owner word of a slab whose owner has left.
pub(crate) const ORPHAN: u64 = 1;
/// Owner words from here on name a heap.
pub(crate) const FIRST_OWNER: u64 = 16;

/// Truth byte: free.
pub(crate) const FREE: u8 = 0;
/// Truth byte: allocated.
pub(crate) const USED: u8 = 1;
/// Truth byte: allocated, not yet published.
pub(crate) const UNPUBLISHED: u8 = 2;

/// `list` value: in no list.
pub(crate) const LIST_NONE: u8 = 0;
/// `list` value: among its owner's with room.
pub(crate) const LIST_PARTIAL: u8 = 1;
/// `list` value: among nobody's with room.
pub(crate) const LIST_OPEN: u8 = 2;

/// Truth byte: allocated as yet, and being freed by the holder of the page lock.
pub(crate) const FREEING: u8 = 3;

/// Whether a truth byte is that of an object that can be freed: [`USED`] or [`UNPUBLISHED`].
#[inline(always)]
pub(crate) fn is_allocated(truth: u8) -> bool {
    truth.wrapping_sub(USED) < UNPUBLISHED
}

/// The header of a slab, or of a run's head; see the module's essay.
#[repr(C, align(64))]
pub(crate) struct SlabHeader {
    pub(crate) owner: AtomicU64,
    /// Offset of the first truth byte in the low 40 bits, the class in the top 8. In the header
    /// of a unit that is used page by page: offset of its side area.
    pub(crate) truth: AtomicU64,
    pub(crate) recip: AtomicU32,
    /// Objects.
    pub(crate) count: AtomicU16,
    /// Bytes before the first object.
    pub(crate) start: AtomicU16,
    /// Neighbours in the list: raw pointers to slabs' first bytes.
    pub(crate) next: AtomicU64,
    pub(crate) prev: AtomicU64,
    /// Where the object `publishing - 1` is being published; raw pointer.
    pub(crate) dest: AtomicU64,
    pub(crate) publishing: AtomicU16,
    /// Window of 64 objects where the last scan ended.
    pub(crate) cursor: AtomicU16,
    /// Of a slab of nobody: objects that are allocated, or fewer.
    pub(crate) left: AtomicU16,
    pub(crate) list: AtomicU8,
    pub(crate) _reserved: AtomicU8,
    /// Packed id of the participant whose heap the owner word names, or did last.
    pub(crate) participant: AtomicU64,
}

/// Who has a slab, or an unpublished run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Owner {
    /// An owner word.
    pub(crate) heap: u64,
    /// Packed id of the participant whose heap that is, if it names one.
    pub(crate) participant: u64,
}

impl Owner {
    /// Whether it is a heap: not nobody, and not the pages of a slab that is being made.
    pub(crate) fn is_heap(self) -> bool {
        self.heap >= FIRST_OWNER
    }
}

#[cfg(not(loom))]
const _: () = assert!(size_of::<SlabHeader>() == 64);

// SAFETY: repr(C), atomics only.
unsafe impl Shared for SlabHeader {}

/// What follows from a slab's class and kind.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Shape {
    pub(crate) count: u32,
    pub(crate) start: u32,
    truth: TruthPlace,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum TruthPlace {
    Start,
    Side,
    SideMini,
}

impl Shape {
    const fn compute(class: usize, mini: bool) -> Self {
        let size = SIZES[class] as u32;
        let bytes = if mini { PAGE as u32 } else { UNIT as u32 };
        if mini && size >= 1024 {
            return Self { count: bytes / size, start: 0, truth: TruthPlace::SideMini };
        }
        if !mini && size >= 64 {
            return Self { count: bytes / size, start: 0, truth: TruthPlace::Side };
        }
        // Truth bytes first, padded for scans of sixteen; then the objects, aligned.
        let mut count = bytes / (size + 1);
        loop {
            let start = count.next_multiple_of(16).next_multiple_of(natural_align(class) as u32);
            if start + count * size <= bytes {
                return Self { count, start, truth: TruthPlace::Start };
            }
            count -= 1;
        }
    }

    /// The shape of a slab.
    pub(crate) fn of(class: usize, mini: bool) -> Self {
        static SHAPES: [[Shape; CLASSES]; 2] = {
            let mut shapes = [[Shape { count: 0, start: 0, truth: TruthPlace::Side }; CLASSES]; 2];
            let mut class = 0;
            while class < CLASSES {
                shapes[0][class] = Shape::compute(class, false);
                shapes[1][class] = Shape::compute(class, true);
                class += 1;
            }
            shapes
        };
        SHAPES[usize::from(mini)][class]
    }
}

// What a header says of a slab has room in its fields.
const _: () = {
    assert!(CLASSES <= 1 << 8 && MAX_SEGMENT <= 1 << 40);
    let mut class = 0;
    while class < CLASSES {
        // `publishing` counts objects from 1, `left` may fall below 0. A slab of one page has
        // fewer.
        let shape = Shape::compute(class, false);
        assert!(shape.count < i16::MAX as u32 && shape.start <= u16::MAX as u32);
        class += 1;
    }
};

/// A slab of a mapped segment.
#[derive(Clone, Copy)]
pub(crate) struct Slab<'m> {
    pub(crate) header: &'m SlabHeader,
    memory: Memory<'m>,
    /// The slab's first byte.
    pub(crate) pointer: DsaPointer,
    pub(crate) mini: bool,
}

impl SlabHeader {
    /// Gives the slab, or the run, to a heap; so far it is no heap's.
    pub(crate) fn give_to(&self, owner: Owner) {
        self.participant.store(owner.participant, Ordering::Release);
        self.owner.store(owner.heap, Ordering::Release);
    }

    /// Who has it. A guess, unless the page lock is held.
    pub(crate) fn owner(&self) -> Owner {
        Owner {
            heap: self.owner.load(Ordering::Acquire),
            participant: self.participant.load(Ordering::Acquire),
        }
    }

    /// Whether somebody owns the slab, or it is whole and nobody's: it is neither being made nor
    /// being unmade.
    pub(crate) fn has_owner(&self) -> bool {
        let owner = self.owner();
        owner.heap == ORPHAN || owner.is_heap()
    }

    /// Counts an object of a slab of nobody that is about to be freed. True if the slab is to be
    /// looked at then: there is room, or nothing else.
    #[inline(always)]
    pub(crate) fn count_down(&self) -> bool {
        let count = self.count.load(Ordering::Relaxed);
        let room = count.wrapping_sub(worth_offering(count.into()) as u16);
        let left = self.left.fetch_sub(1, Ordering::Relaxed).wrapping_sub(1);
        left == room || left as i16 <= 0
    }

    /// Makes this (the header of a unit) that of a unit used page by page.
    pub(crate) fn set_mixed(&self, geometry: &Geometry, unit: u32) {
        // The owner first: a slab that still has one must have its class, too. No page of the unit
        // is a slab of its own before both are stored.
        self.owner.store(MIXED, Ordering::Release);
        dsm_core::sync::compiler_fence();
        self.truth.store(geometry.side(unit), Ordering::Release);
    }
}

impl<'m> Slab<'m> {
    /// The slab that starts at `page` of the segment `key`; its header may not be filled in.
    pub(crate) fn new(
        memory: Memory<'m>,
        geometry: &Geometry,
        key: u32,
        page: u32,
        mini: bool,
    ) -> Result<Self, Corruption> {
        let at = if mini {
            geometry.page_header(page)
        } else {
            Geometry::unit_header(page / UNIT_PAGES)
        };
        let pointer = DsaPointer::compose(key, u64::from(page) * PAGE);
        Ok(Self { header: memory.at(at)?, memory, pointer, mini })
    }

    /// A header alone.
    #[cfg(all(test, loom))]
    pub(crate) fn without_memory(header: &'m SlabHeader) -> Self {
        // SAFETY: no bytes.
        let memory = unsafe { Memory::new(core::ptr::NonNull::dangling(), 0) };
        Self { header, memory, pointer: DsaPointer::INVALID, mini: true }
    }

    /// Makes a slab of `run`, at the page of `word`: it belongs to nobody, is found by its word, is
    /// filled in by `build`, and belongs to its owner. The page lock is held. Killed in between it
    /// leaves a slab without an owner.
    pub(crate) fn make(
        &self,
        run: Run,
        word: &AtomicU32,
        owner: Owner,
        build: impl FnOnce() -> Result<(), Corruption>,
    ) -> Result<(), Corruption> {
        // A unit's header says MIXED so far. That of a page may have been of another run.
        if self.mini && !planted(Bug::OwnerUncleared) {
            self.header.owner.store(0, Ordering::Release);
        }
        run.store(word);
        build()?;
        self.header.give_to(owner);
        Ok(())
    }

    /// Whether what was seen of a slab, without the page lock, is so: it is `run`, at the page of
    /// `word`, and has that owner. Then it stays so as long as the page lock is held, which `lock`
    /// takes, and this returns.
    pub(crate) fn really<G>(
        &self,
        run: Run,
        word: &AtomicU32,
        owner: Owner,
        lock: impl FnOnce() -> Result<G, Error>,
    ) -> Result<Option<G>, Error> {
        let pages = lock()?;
        let really = run.is_still(word, self.header, owner) || planted(Bug::AdoptedUnlooked);
        Ok(really.then_some(pages))
    }

    /// The owner lets go of the slab, in which so many objects are allocated, and of which it knows
    /// no free one any more.
    pub(crate) fn let_go(&self, allocated: u32) {
        self.header.left.store(allocated as u16, Ordering::Relaxed);
        self.header.list.store(LIST_NONE, Ordering::Relaxed);
        self.header.owner.store(ORPHAN, Ordering::Release);
    }

    /// Fills in the header and clears the truth bytes, everything but the owner.
    pub(crate) fn init(&self, geometry: &Geometry, class: usize) -> Result<(), Corruption> {
        let shape = Shape::of(class, self.mini);
        let page = (self.pointer.offset() / PAGE) as u32;
        let side = geometry.side(page / UNIT_PAGES);
        let truth = match shape.truth {
            TruthPlace::Start => self.pointer.offset(),
            TruthPlace::Side => side,
            TruthPlace::SideMini => side + SIDE_MINI_TRUTH + u64::from(page % UNIT_PAGES) * 4,
        };
        // Nobody looks at the bytes yet, so that their width does not matter. FREE is 0.
        match shape.truth {
            TruthPlace::SideMini => self.memory.at::<AtomicU32>(truth)?.store(0, Ordering::Relaxed),
            _ => self.memory.zero(truth, u64::from(shape.count).next_multiple_of(16))?,
        }
        let h = self.header;
        h.truth.store(truth | (class as u64) << 56, Ordering::Relaxed);
        h.recip.store(reciprocal(class), Ordering::Relaxed);
        h.count.store(shape.count as u16, Ordering::Relaxed);
        h.start.store(shape.start as u16, Ordering::Relaxed);
        h.next.store(0, Ordering::Relaxed);
        h.prev.store(0, Ordering::Relaxed);
        h.dest.store(0, Ordering::Relaxed);
        h.publishing.store(0, Ordering::Relaxed);
        h.cursor.store(0, Ordering::Relaxed);
        h.left.store(0, Ordering::Relaxed);
        h.list.store(LIST_NONE, Ordering::Relaxed);
        Ok(())
    }

    /// The class; an error if the header is not one that `init` wrote.
    pub(crate) fn class(&self) -> Result<usize, Corruption> {
        let class = (self.header.truth.load(Ordering::Relaxed) >> 56) as usize;
        if class >= CLASSES {
            return Err(Corruption::new("a slab of no class", self.pointer.raw()));
        }
        let shape = Shape::of(class, self.mini);
        if u32::from(self.header.count.load(Ordering::Relaxed)) != shape.count
            || u32::from(self.header.start.load(Ordering::Relaxed)) != shape.start
            || self.header.recip.load(Ordering::Relaxed) != reciprocal(class)
        {
            return Err(Corruption::new(
                "a slab's header contradicts its class",
                self.pointer.raw(),
            ));
        }
        Ok(class)
    }

    pub(crate) fn count(&self) -> u32 {
        u32::from(self.header.count.load(Ordering::Relaxed))
    }

    /// Bytes of the slab.
    pub(crate) fn bytes(&self) -> u64 {
        if self.mini { PAGE } else { UNIT }
    }

    /// Pages of the slab.
    pub(crate) fn pages(&self) -> u32 {
        if self.mini { 1 } else { UNIT_PAGES }
    }

    /// The truth byte of object `index`.
    pub(crate) fn truth(&self, index: u32) -> Result<&'m AtomicU8, Corruption> {
        let truth = self.header.truth.load(Ordering::Relaxed) & ((1 << 40) - 1);
        self.memory.at(truth + u64::from(index))
    }

    /// The pointer to object `index`.
    pub(crate) fn object(&self, index: u32) -> DsaPointer {
        let size = (self.header.truth.load(Ordering::Relaxed) >> 56) as usize;
        let size = SIZES.get(size).copied().map_or(0, u64::from);
        let start = u64::from(self.header.start.load(Ordering::Relaxed));
        self.pointer.add(start + u64::from(index) * size)
    }

    /// The index of the object that starts at `pointer`; `None` if none does.
    #[inline]
    pub(crate) fn index_of(&self, pointer: DsaPointer) -> Option<u32> {
        let distance = (pointer.raw() & (self.bytes() - 1)) as u32;
        index_in(self.header, distance)
    }

    /// Free objects among the 64 of window `window`: a hint.
    pub(crate) fn window(&self, window: u32) -> Result<u64, Corruption> {
        let count = self.count();
        let first = window * 64;
        if first >= count {
            return Ok(0);
        }
        let here = (count - first).min(64);
        let at = self.header.truth.load(Ordering::Relaxed) & ((1 << 40) - 1);
        let bytes = if here < 16 { here } else { here.next_multiple_of(16) };
        let at = self.memory.range(at + u64::from(first), u64::from(bytes))?;
        // SAFETY: the range was just checked to be mapped; truth bytes are padded to sixteen (or
        // fewer than sixteen, and looked at singly).
        Ok(unsafe { racy_scan::zeros(at.as_ptr().cast(), here) })
    }

    /// How many windows there are.
    pub(crate) fn windows(&self) -> u32 {
        self.count().div_ceil(64)
    }

    /// How many objects are free; exact for the owner while nobody else frees.
    pub(crate) fn free_objects(&self) -> Result<u32, Corruption> {
        let mut free = 0;
        for window in 0..self.windows() {
            free += self.window(window)?.count_ones();
        }
        Ok(free)
    }

    /// Whether no object is allocated, at first sight. Looks first where `index` is.
    pub(crate) fn looks_empty(&self, index: u32) -> Result<bool, Corruption> {
        let windows = self.windows();
        for step in 0..windows {
            let window = (index / 64 + step) % windows;
            let here = (self.count() - window * 64).min(64);
            if self.window(window)?.count_ones() != here {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Whether no object is allocated, by the bytes themselves. Final for the owner, and in a slab
    /// of nobody: nobody else allocates here. Happens after the last free.
    pub(crate) fn is_empty(&self) -> Result<bool, Corruption> {
        let at = self.header.truth.load(Ordering::Relaxed) & ((1 << 40) - 1);
        let at = self.memory.range(at, u64::from(self.count()))?;
        // SAFETY: as many truth bytes were just checked to be mapped.
        if !unsafe { racy_scan::are_zero(at.as_ptr().cast(), self.count()) } {
            return Ok(false);
        }
        dsm_core::sync::fence(Ordering::Acquire);
        Ok(true)
    }

    /// Whether a slab of nobody seems to be in a state that whoever freed there last should have
    /// changed: it is empty, or has room and is in no list.
    pub(crate) fn is_worth_a_look(&self) -> Result<bool, Corruption> {
        let free = self.free_objects()?;
        let listed = self.header.list.load(Ordering::Relaxed) == LIST_OPEN;
        Ok(free == self.count() || free >= self.hysteresis() && !listed)
    }

    /// Whether an object is allocated and not published; exact for the owner, and final in a slab
    /// of nobody.
    pub(crate) fn has_unpublished(&self) -> Result<bool, Corruption> {
        for index in 0..self.count() {
            if self.truth(index)?.load(Ordering::Relaxed) == UNPUBLISHED {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Free objects that are worth a look at the slab: to offer it with one would cost a scan each
    /// (five times the time in bursts).
    pub(crate) fn hysteresis(&self) -> u32 {
        worth_offering(self.count())
    }
}

/// See [`Slab::hysteresis`].
#[inline(always)]
fn worth_offering(count: u32) -> u32 {
    count / 8 + 1
}

/// The index of the object that starts `distance` bytes into the slab of `header`.
#[inline(always)]
pub(crate) fn index_in(header: &SlabHeader, distance: u32) -> Option<u32> {
    let distance = distance.wrapping_sub(u32::from(header.start.load(Ordering::Relaxed)));
    let recip = header.recip.load(Ordering::Relaxed);
    let product = u64::from(distance).wrapping_mul(u64::from(recip));
    let index = (product >> 32) as u32;
    let exact = (product as u32) < recip;
    // A distance before the first object wraps to a huge index.
    (exact && index < u32::from(header.count.load(Ordering::Relaxed))).then_some(index)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes_fit_and_waste_little() {
        for (class, size) in SIZES.iter().enumerate() {
            let size = u32::from(*size);
            for mini in [false, true] {
                if mini && size > 4096 {
                    continue;
                }
                let bytes = if mini { PAGE as u32 } else { UNIT as u32 };
                let shape = Shape::of(class, mini);
                assert!(shape.count > 0 && shape.start + shape.count * size <= bytes);
                assert_eq!(shape.start % natural_align(class) as u32, 0);
                match shape.truth {
                    TruthPlace::Start => assert!(shape.start >= shape.count.next_multiple_of(16)),
                    TruthPlace::Side => assert!(shape.count <= SIDE_MINI_TRUTH as u32),
                    TruthPlace::SideMini => assert!(shape.count <= 4),
                }
                assert!(
                    (shape.count + 2) * (size + 1) + natural_align(class) as u32 > bytes
                        || shape.count * size * 100 >= bytes * 75,
                    "class {size} mini {mini}: {} objects",
                    shape.count
                );
            }
        }
    }

    #[test]
    fn a_class_of_64_fills_its_slab() {
        assert_eq!(Shape::of(7, false).count, 1024);
        assert_eq!(Shape::of(7, true), Shape { count: 63, start: 64, truth: TruthPlace::Start });
    }
}

//! A member with an area and a heap in it, and what is known of the objects.

use std::ptr::NonNull;

use dsa_core::{Area, AreaLocal, AtomicDsaPointer, DsaPointer, Flags, Heap, HeapLocal, Options};
use dsm_core::handle::SegmentHandle;
use dsm_core::lock::rw::RwLock;

use crate::case::{Heir, Place, What};
use crate::member::{Member, RESCUER, VICTIM, WITNESS, ensure, inherit, leak, text};

pub(super) type A = Area<'static, RwLock>;
pub(super) type H = Heap<'static, RwLock>;

/// Segments stay small, as an image is copied as often as there are points.
pub(super) fn options() -> Options {
    Options { maximum: 128 << 10, ..Options::default() }
}

/// Offsets of metadata in an area's first segment: the locks lie there, objects do not.
const METADATA: u64 = 8192;

#[derive(Clone, Copy)]
pub(super) struct Kit {
    pub(super) member: Member,
    pub(super) area: &'static A,
    pub(super) heap: &'static H,
}

impl Kit {
    pub(super) fn create(member: Member) -> Self {
        let area = A::create(member.ns, &options(), leak(AreaLocal::new())).expect("creates");
        Self::of(member, leak(area))
    }

    pub(super) fn attach(member: Member, handle: SegmentHandle) -> Result<Self, String> {
        let area = A::attach(member.ns, handle, leak(AreaLocal::new())).map_err(text)?;
        Ok(Self::of(member, leak(area)))
    }

    pub(super) fn of(member: Member, area: &'static A) -> Self {
        let heap = area.heap(member.participant, leak(HeapLocal::new())).expect("is registered");
        Self { member, area, heap: leak(heap) }
    }

    pub(super) fn start(pid: u64, first: &Kit) -> Self {
        Self::attach(Member::start(pid), first.handle()).expect("attaches")
    }

    pub(super) fn handle(&self) -> SegmentHandle {
        self.area.handle().expect("has a segment of its own")
    }

    pub(super) fn allocate(&self, size: usize) -> DsaPointer {
        self.heap.allocate(size).expect("there is memory")
    }

    pub(super) fn free(&self, pointer: DsaPointer) -> Result<(), String> {
        // SAFETY: objects are used through checked copies only.
        unsafe { self.heap.free(pointer) }.map_err(text)
    }

    /// An object with a pattern in all of it, and its size.
    pub(super) fn allocate_filled(&self, size: usize) -> (DsaPointer, usize) {
        let pointer = self.allocate(size);
        // SAFETY: cases use objects through checked copies only.
        unsafe { self.area.copy_in(pointer, 0, &pattern(size)) }.expect("is an object");
        (pointer, size)
    }

    /// Whether an object still has its pattern, in as many bytes as were filled.
    pub(super) fn is_whole(&self, (pointer, filled): (DsaPointer, usize)) -> Result<(), String> {
        let mut bytes = vec![0; filled];
        // SAFETY: cases use objects through checked copies only.
        unsafe { self.area.copy_out(pointer, 0, &mut bytes) }.map_err(text)?;
        ensure(bytes == pattern(filled), || format!("{pointer:?} was changed"))
    }

    /// Allocates an object and writes over all of it, so that what is used though it is free shows.
    fn scribble(&self, size: usize) -> Result<DsaPointer, String> {
        let pointer = self.heap.allocate(size).map_err(text)?;
        // SAFETY: as above.
        unsafe { self.area.copy_in(pointer, 0, &vec![0xa5; size]) }.map_err(text)?;
        Ok(pointer)
    }

    /// A word in an object that can hold a pointer.
    pub(super) fn cell(&self, cells: DsaPointer, index: u64) -> &'static AtomicDsaPointer {
        // SAFETY: inside an object of cells that is freed when nobody uses them any more.
        unsafe { self.area.as_ref(cells.add(index * 8).cast()) }.expect("is mapped")
    }

    pub(super) fn cells(&self, count: usize) -> DsaPointer {
        self.heap.allocate_extended(count * 8, Flags::ZERO).expect("there is memory")
    }

    /// Everything works: all sizes can be had, and the area grows and shrinks.
    pub(super) fn works(&self) -> Result<(), String> {
        let sizes = [8, 64, 200, 3000, 8192, 20_000, 150_000];
        let mine = sizes.iter().flat_map(|size| [*size; 2]).map(|size| self.scribble(size));
        let mine = mine.collect::<Result<Vec<_>, _>>()?;
        mine.into_iter().try_for_each(|pointer| self.free(pointer))?;
        self.heap.trim().map_err(text)?;
        self.area.check(self.member.participant).map(|_| ()).map_err(text)
    }

    /// Writes over some of the memory that is free, of the sizes that tables are made of; returns
    /// the objects.
    pub(super) fn overwrite_free_memory(&self) -> Result<Vec<DsaPointer>, String> {
        let sizes = [256, 512, 4096];
        sizes.iter().flat_map(|size| [*size; 2]).map(|size| self.scribble(size)).collect()
    }

    /// When all that is known was freed: nothing is used but what is known to be lost, and what is
    /// not needed went back to the system.
    pub(super) fn is_empty(&self, lost: u64) -> Result<(), String> {
        self.heap.trim().map_err(text)?;
        let report = self.area.check(self.member.participant).map_err(text)?;
        ensure(report.objects == lost && (lost > 0 || report.used == 0), || {
            format!("{} objects, {} bytes are left, {lost} lost", report.objects, report.used)
        })?;
        ensure(report.slabs <= lost, || format!("{} slabs of nothing are left", report.slabs))?;
        ensure(report.unpublished == 0, || "an unpublished object is left".into())?;
        // If there were so many segments, one has the rest of the directory: sixteen pages.
        let pages = self.area.stats().map_err(text)?.total / 4096;
        let others = pages - report.free_pages - report.metadata_pages - report.used / 4096;
        let directory = u64::from(others == 16);
        ensure(u64::from(report.segments) <= 1 + lost + directory, || {
            let mut dump = String::new();
            let _ = self.area.dump(&mut dump);
            format!("{} segments are left of an empty area:\n{dump}", report.segments)
        })?;
        // Nor does the system have one that the area doesn't know any more.
        self.member.reap()?;
        self.member.expect_objects(report.segments as usize)
    }

    /// Lets go of the area; it must not be used any more.
    pub(super) fn detach(&self) {
        // SAFETY: the area was leaked, and its copy is not used any more.
        drop(unsafe { std::ptr::read(self.area) });
    }

    /// A second thread of the process.
    pub(super) fn second_thread(&self) -> Self {
        Self::of(self.member.second_thread(), self.area)
    }

    /// At the end: nothing is used any more, and with the last process nothing is left.
    pub(super) fn end(&self) -> Result<(), String> {
        // What the victim was about may have unpinned it.
        let _ = self.area.unpin();
        self.detach();
        self.member.only_survivor();
        self.member.reap()?;
        self.member.expect_objects(0)?;
        self.member.end()
    }

    /// How the area is left to an heir, and what he makes of it.
    pub(super) fn heir(
        &self,
        judge: impl Fn(Kit) -> Result<&'static str, String> + 'static,
    ) -> Option<Heir> {
        let (ns, handle) = (self.member.ns, self.handle());
        Some(Heir {
            persist: Box::new(|| ns.set_persistent(true).expect("is ours")),
            judge: Box::new(move |process| judge(Kit::attach(inherit(process)?, handle)?)),
        })
    }

    pub(super) fn place(&self) -> Place {
        Place { slot: self.handle().slot(), offsets: 0..METADATA, what: What::Area }
    }
}

fn pattern(bytes: usize) -> Vec<u8> {
    (0..bytes).map(|i| (i * 7 + bytes) as u8).collect()
}

/// Bytes that a victim fills of an object of that size: few, since each is a point of its own.
pub(super) fn filled(size: usize) -> usize {
    size.min(64)
}

/// Writes the pattern of an object of that size, as far as a victim does.
pub(super) fn fill(at: NonNull<u8>, size: usize) {
    let bytes = pattern(filled(size));
    // SAFETY: a new object of that size, which is no less.
    unsafe { at.copy_from_nonoverlapping(NonNull::from(&bytes[..]).cast(), bytes.len()) };
}

/// A witness that created an area, a victim, and rescuers that attached it.
pub(super) struct Scene {
    /// The witness, then the rescuers.
    pub(super) kits: Vec<Kit>,
    pub(super) victim: Kit,
}

pub(super) fn scene(rescuers: usize) -> Scene {
    let witness = Kit::create(Member::start(WITNESS));
    // It outlives everybody where the namespace does.
    witness.area.pin().expect("pins");
    let victim = Kit::start(VICTIM, &witness);
    let rescuers = (0..rescuers).map(|n| Kit::start(RESCUER + n as u64, &witness));
    Scene { kits: std::iter::once(witness).chain(rescuers).collect(), victim }
}

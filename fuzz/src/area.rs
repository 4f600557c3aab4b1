//! The allocator: any sequence of calls by two processes, one of which is killed and replaced
//! whenever the case says so, against a plain list of what is allocated.
//!
//! What must hold: a pointer that was handed out is unlike all others, its object keeps the bytes
//! that were put into it until it is freed, what is not allocated can't be freed. An object that
//! its process had not published when it was killed is gone; all others stay. The area's own check
//! finds nothing wrong, and counts as many objects as the list: it looks at everything, so that it
//! is made after some calls and not after each.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::atomic::Ordering;

use arbitrary::{Arbitrary, Unstructured};
use dsa_core::{Area, AreaLocal, AtomicDsaPointer, DsaPointer, Error, Flags, Heap, Options};
use dsm_core::error::ErrorKind;
use dsm_core::handle::SegmentHandle;
use dsm_core::lock::rw::RwLock;
use dsm_core::namespace::{Namespace, NamespaceConfig};
use dsm_core::participant::{Participant, ParticipantLocal};
use sim::{HeapMachine, HeapProcess};

use crate::tables::{hints, with_tables};

/// Places in the area into which objects are published.
const ROOTS: usize = 8;
/// Steps of a case at most.
const STEPS: usize = 400;
/// Steps after which all is checked.
const CHECKED: usize = 8;

/// One call. `by` says which process makes it.
#[derive(Arbitrary, Debug)]
enum Step {
    Allocate { by: bool, size: Size, align: u8, zero: bool },
    Unpublished { by: bool, size: Size },
    Settle { by: bool, which: u8 },
    Into { by: bool, size: Size, root: u8 },
    From { by: bool, root: u8 },
    Take { by: bool, root: u8 },
    Move { by: bool, from: u8, to: u8 },
    Free { by: bool, which: u8 },
    FreeMany { by: bool, count: u8 },
    FreeAgain { by: bool },
    FreeWild { by: bool, which: u8, distance: i32 },
    FreeRandom { by: bool, raw: u64 },
    Look { by: bool, which: u8 },
    Trim { by: bool },
    Maintain { by: bool },
    Limit { kilobytes: u16 },
    Refuse { after: u8 },
    Kill,
    Leave,
}

/// A size: mostly small, some that fill pages, some that need segments of their own.
#[derive(Arbitrary, Clone, Copy, Debug)]
enum Size {
    Small(u8),
    Medium(u16),
    Large(u8),
}

impl Size {
    fn bytes(self) -> usize {
        match self {
            Self::Small(size) => usize::from(size),
            Self::Medium(size) => usize::from(size) % 9000,
            Self::Large(size) => usize::from(size) * 1700,
        }
    }
}

/// What is allocated.
#[derive(Default)]
struct Model {
    /// Objects by raw pointer, and how many bytes of them have a pattern.
    objects: BTreeMap<u64, usize>,
    /// Those that are not published yet, and by which process.
    unpublished: BTreeMap<u64, bool>,
    /// What was published where.
    roots: [u64; ROOTS],
    freed_last: u64,
}

impl Model {
    fn pick(&self, which: u8) -> Option<u64> {
        let count = self.objects.len();
        if count == 0 {
            return None;
        }
        self.objects.keys().nth(usize::from(which) % count).copied()
    }

    fn forget(&mut self, raw: u64) -> usize {
        self.unpublished.remove(&raw);
        for root in &mut self.roots {
            if *root == raw {
                *root = 0;
            }
        }
        self.freed_last = raw;
        self.objects.remove(&raw).unwrap_or(0)
    }
}

/// One process's way into the area.
struct Side<'s> {
    area: &'s Area<'s, RwLock>,
    heap: &'s Heap<'s, RwLock>,
    participant: &'s Participant<'s>,
}

fn config() -> NamespaceConfig {
    NamespaceConfig {
        max_processes: 4,
        max_participants: 12,
        max_segments: 24,
        ..NamespaceConfig::default()
    }
}

/// Runs one case.
pub fn run(bytes: &[u8]) {
    with_tables(|tables| run_in(tables, bytes));
}

fn run_in(tables: &[AreaLocal; 2], bytes: &[u8]) {
    let mut input = Unstructured::new(bytes);
    let machine = HeapMachine::new();
    machine.set_most_segments(config().max_segments as usize);
    machine.set_capacity(Some(6 << 20));
    machine.fill_new(0xaa);
    let process = machine.process();
    let local = process.local();
    let (namespace, _) = Namespace::open(&process, process.platform(), &config(), &local)
        .expect("a fresh namespace opens");
    let thread = ParticipantLocal::new();
    namespace.register(&thread).expect("there is a slot");
    {
        let participant = namespace.participant(&thread);
        let area: Area<'_, RwLock> =
            Area::create(&namespace, &Options::default(), &tables[0]).expect("there is room");
        let hints = hints();
        let heap = area.heap(&participant, &hints).expect("the thread is registered");
        // In pages of its own: of a slab for it alone, each place would be looked at in each check.
        let home = heap.allocate_extended(10_000, Flags::ZERO).expect("there is room");
        let survivor = Side { area: &area, heap: &heap, participant: &participant };
        let mut model = Model::default();
        let mut steps = 0;
        while steps < STEPS && !input.is_empty() {
            let handle = area.handle().expect("not in place");
            session(
                &machine,
                (&tables[1], handle),
                home,
                &survivor,
                &mut model,
                &mut input,
                &mut steps,
            );
            let _ = namespace.reap();
            machine.fail_allocation(u32::MAX, ErrorKind::NoSpace);
            heap.maintain().expect("nothing keeps the survivor from adopting");
            model.unpublished.retain(|raw, by_second| {
                if *by_second {
                    model.objects.remove(raw);
                }
                !*by_second
            });
            survivor.verify(&model);
        }
        // Everything can be freed, and then everything goes.
        let left: Vec<u64> = model.objects.keys().copied().collect();
        left.into_iter().for_each(|raw| survivor.free(&mut model, raw));
        // SAFETY: nobody publishes any more.
        unsafe { heap.free(home) }.expect("it is allocated");
        heap.trim().expect("nothing is in the way");
        let report = area.check(&participant).expect("the area is in order");
        assert_eq!((report.objects, report.used), (0, 0));
        heap.release().expect("nothing is in the way");
    }
    assert!(namespace.unregister(&thread));
    namespace.leave(&process).expect("it is the last");
    assert_eq!(machine.objects().len(), 0);
    assert_eq!((machine.used(), process.mapped()), (0, 0));
}

/// The life of a second process, until it is killed, leaves, or the case ends.
fn session(
    machine: &HeapMachine,
    (table, handle): (&AreaLocal, SegmentHandle),
    home: DsaPointer,
    survivor: &Side<'_>,
    model: &mut Model,
    input: &mut Unstructured<'_>,
    steps: &mut usize,
) {
    let process: HeapProcess = machine.process();
    let local = process.local();
    let (namespace, _) = Namespace::open(&process, process.platform(), &config(), &local)
        .expect("there is a slot for one at a time");
    let thread = ParticipantLocal::new();
    namespace.register(&thread).expect("there is a slot");
    let killed = {
        let participant = namespace.participant(&thread);
        let area: Area<'_, RwLock> =
            Area::attach(&namespace, handle, table).expect("the survivor has it");
        let hints = hints();
        let heap = area.heap(&participant, &hints).expect("the thread is registered");
        let second = Side { area: &area, heap: &heap, participant: &participant };
        let killed = loop {
            let Ok(step) = Step::arbitrary(input) else { break false };
            *steps += 1;
            match step {
                Step::Kill => break true,
                Step::Leave => break false,
                step => {
                    take(&step, machine, home, [survivor, &second], model);
                    if steps.is_multiple_of(CHECKED) {
                        second.verify(model);
                    }
                }
            }
            if *steps >= STEPS || input.is_empty() {
                break false;
            }
        };
        if killed {
            process.kill();
        } else {
            machine.fail_allocation(u32::MAX, ErrorKind::NoSpace);
            heap.release().expect("nothing is in the way");
        }
        killed
    };
    if !killed {
        assert!(namespace.unregister(&thread));
        namespace.leave(&process).expect("the survivor is there");
    }
}

/// Makes one call and compares.
fn take(
    step: &Step,
    machine: &HeapMachine,
    home: DsaPointer,
    sides: [&Side<'_>; 2],
    model: &mut Model,
) {
    let side = |by: bool| sides[usize::from(by)];
    match *step {
        Step::Allocate { by, size, align, zero } => {
            let flags = if zero { Flags::ZERO } else { Flags::empty() };
            let align = 1 << (align % 13);
            let made = side(by).heap.allocate_aligned(size.bytes(), align, flags);
            let Some(pointer) = expect_memory(made) else { return };
            assert_eq!(pointer.offset() % align as u64, 0);
            if zero {
                let mut bytes = vec![1; size.bytes()];
                side(!by).copy_out(pointer, 0, &mut bytes);
                assert!(bytes == vec![0; size.bytes()]);
            }
            side(by).fill(model, pointer, size.bytes());
        }
        Step::Unpublished { by, size } => {
            let made = side(by).heap.allocate_unpublished(size.bytes(), 8, Flags::empty());
            let Some(pointer) = expect_memory(made) else { return };
            side(by).fill(model, pointer, size.bytes());
            model.unpublished.insert(pointer.raw(), by);
        }
        Step::Settle { by, which } => {
            let Some(raw) = model.pick(which) else { return };
            side(by).heap.settle(DsaPointer::from_raw(raw)).expect("it is allocated");
            model.unpublished.remove(&raw);
        }
        Step::Into { by, size, root } => {
            let root = usize::from(root) % ROOTS;
            if model.roots[root] != 0 {
                side(!by).free(model, model.roots[root]);
            }
            let dest = side(by).root(home, root);
            let made = side(by).heap.allocate_into(size.bytes(), 8, Flags::empty(), dest, |_| ());
            let Some(pointer) = expect_memory(made) else { return };
            assert_eq!(dest.load(Ordering::Relaxed), pointer);
            side(by).fill(model, pointer, size.bytes());
            model.roots[root] = pointer.raw();
        }
        Step::From { by, root } => {
            let root = usize::from(root) % ROOTS;
            let (dest, raw) = (side(by).root(home, root), model.roots[root]);
            if raw == 0 {
                // What was freed by its pointer may still be named there.
                dest.store(DsaPointer::INVALID, Ordering::Relaxed);
            } else {
                side(by).look(model, raw);
                model.forget(raw);
            }
            // SAFETY: what it names, if anything, was in the model, and is not used after.
            unsafe { side(by).heap.free_from(dest) }.expect("it is allocated");
            assert!(!dest.load(Ordering::Relaxed).is_valid());
        }
        Step::Take { by, root } => {
            let root = usize::from(root) % ROOTS;
            let word = side(by).root(home, root);
            let raw = std::mem::take(&mut model.roots[root]);
            if raw == 0 {
                // As above.
                word.store(DsaPointer::INVALID, Ordering::Relaxed);
            }
            assert_eq!(side(by).heap.take(word), Ok(DsaPointer::from_raw(raw)));
            assert!(!word.load(Ordering::Relaxed).is_valid());
        }
        Step::Move { by, from, to } => {
            let (from, to) = (usize::from(from) % ROOTS, usize::from(to) % ROOTS);
            for root in [from, to].into_iter().filter(|root| model.roots[*root] == 0) {
                // As above.
                side(!by).root(home, root).store(DsaPointer::INVALID, Ordering::Relaxed);
            }
            let words = [from, to].map(|root| side(by).root(home, root));
            let [object, there] = [from, to].map(|root| DsaPointer::from_raw(model.roots[root]));
            // SAFETY: roots are used for nothing else.
            let moved = unsafe { side(by).heap.move_between(words[0], words[1]) };
            if object.is_valid() && there.is_valid() {
                assert_eq!(moved, Err(Error::Occupied(there)));
            } else {
                assert_eq!(moved, Ok(object));
                if object.is_valid() {
                    (model.roots[from], model.roots[to]) = (0, object.raw());
                }
            }
            for (word, root) in words.into_iter().zip([from, to]) {
                assert_eq!(word.load(Ordering::Relaxed).raw(), model.roots[root]);
            }
        }
        Step::Free { by, which } => {
            if let Some(raw) = model.pick(which) {
                side(by).free(model, raw);
            }
        }
        Step::FreeMany { by, count } => {
            for which in 0..count {
                if let Some(raw) = model.pick(which.wrapping_mul(37)) {
                    side(by).free(model, raw);
                }
            }
        }
        Step::FreeAgain { by } => side(by).refuse(model, home, model.freed_last),
        Step::FreeWild { by, which, distance } => {
            if let Some(raw) = model.pick(which) {
                side(by).refuse(model, home, raw.wrapping_add_signed(i64::from(distance)));
            }
        }
        Step::FreeRandom { by, raw } => side(by).refuse(model, home, raw),
        Step::Look { by, which } => {
            if let Some(raw) = model.pick(which) {
                side(by).look(model, raw);
            }
        }
        Step::Trim { by } => drop(side(by).heap.trim()),
        Step::Maintain { by } => drop(side(by).heap.maintain()),
        Step::Limit { kilobytes } => {
            sides[0].area.set_size_limit(u64::from(kilobytes) << 10).expect("lives")
        }
        Step::Refuse { after } => machine.fail_allocation(u32::from(after), ErrorKind::NoSpace),
        Step::Kill | Step::Leave => {}
    }
}

/// The pointer, unless memory or segments ran out; every other error is wrong.
fn expect_memory(made: Result<DsaPointer, Error>) -> Option<DsaPointer> {
    match made {
        Ok(pointer) => {
            assert!(pointer.is_valid());
            Some(pointer)
        }
        Err(
            Error::Namespace(_)
            | Error::SizeLimit { .. }
            | Error::TooManySegments
            | Error::SegmentShare { .. },
        ) => None,
        Err(error) => panic!("{error}"),
    }
}

impl<'s> Side<'s> {
    /// A place into which objects are published.
    fn root(&self, home: DsaPointer, root: usize) -> &'s AtomicDsaPointer {
        let at = self.area.resolve(home.add(root as u64 * 8)).expect("it is mapped");
        // SAFETY: eight words were allocated there, and are used as atomics only.
        unsafe { at.cast::<AtomicDsaPointer>().as_ref() }
    }

    /// Which parts of an object of that length have a pattern: all of a short one; of a long one,
    /// in which time would go mostly by copying, its ends and what may be others' starts.
    fn parts(bytes: usize) -> impl Iterator<Item = Range<usize>> {
        const PAGE: usize = 4096;
        let whole = if bytes <= 4 * PAGE { bytes } else { PAGE };
        let inner = (PAGE..bytes.saturating_sub(PAGE)).step_by(PAGE).map(|at| at..at + 64);
        let inner = inner.take_while(move |_| whole < bytes);
        // At a multiple of the pattern's period, for it may overlap the part before.
        let last = (bytes.saturating_sub(PAGE) / 8 * 8).max(whole);
        std::iter::once(0..whole).chain(inner).chain(std::iter::once(last..bytes))
    }

    /// The bytes that a part of an object is expected to hold.
    fn pattern(raw: u64, bytes: usize) -> Vec<u8> {
        let word = raw.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes();
        let mut pattern = Vec::with_capacity(bytes.max(8));
        pattern.extend(word);
        while pattern.len() < bytes {
            pattern.extend_from_within(..pattern.len().min(bytes - pattern.len()));
        }
        pattern.truncate(bytes);
        pattern
    }

    fn copy_out(&self, pointer: DsaPointer, offset: usize, to: &mut [u8]) {
        // SAFETY: the sides use objects through checked copies only.
        unsafe { self.area.copy_out(pointer, offset, to) }.expect("it is allocated and that long");
    }

    /// Enters a new object and fills it.
    fn fill(&self, model: &mut Model, pointer: DsaPointer, bytes: usize) {
        let raw = pointer.raw();
        assert!(self.area.size_of_object(pointer).expect("it is allocated") >= bytes as u64);
        for part in Self::parts(bytes) {
            let pattern = Self::pattern(raw, part.len());
            // SAFETY: the sides use objects through checked copies only.
            unsafe { self.area.copy_in(pointer, part.start, &pattern) }.expect("it is that long");
        }
        assert!(model.objects.insert(raw, bytes).is_none(), "handed out twice: {raw:x}");
    }

    fn look(&self, model: &Model, raw: u64) {
        for part in Self::parts(model.objects[&raw]) {
            let mut found = vec![0; part.len()];
            self.copy_out(DsaPointer::from_raw(raw), part.start, &mut found);
            assert!(found == Self::pattern(raw, part.len()), "the object at {raw:x} was changed");
        }
    }

    fn free(&self, model: &mut Model, raw: u64) {
        self.look(model, raw);
        model.forget(raw);
        // SAFETY: in the model, and not used after.
        unsafe { self.heap.free(DsaPointer::from_raw(raw)) }.expect("it is allocated");
    }

    /// Frees what is not allocated, which must be refused.
    fn refuse(&self, model: &Model, home: DsaPointer, raw: u64) {
        if model.objects.contains_key(&raw) || raw == home.raw() {
            return;
        }
        // SAFETY: it is not allocated, so that there is nothing to lose.
        let freed = unsafe { self.heap.free(DsaPointer::from_raw(raw)) };
        assert!(freed.is_err(), "freed {raw:x}, which is not allocated");
    }

    fn verify(&self, model: &Model) {
        let report = self.area.check(self.participant).expect("the area is in order");
        assert_eq!(report.objects, 1 + model.objects.len() as u64);
        assert_eq!(report.unpublished, model.unpublished.len() as u64);
    }
}

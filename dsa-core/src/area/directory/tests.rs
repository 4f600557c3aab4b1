//! Generations: what costs one, and how they start over.

use std::boxed::Box;

use dsm_core::error::ErrorKind;
use dsm_core::lock::rw::RwLock;
use dsm_core::namespace::{Namespace, NamespaceConfig};
use dsm_core::participant::ParticipantLocal;
use sim::{HeapMachine, HeapProcess};

use crate::error::Error;
use crate::header::{INLINE_ENTRIES, state};
use crate::{Area, AreaLocal, DsaPointer, Heap, HeapLocal, Options};

type A = Area<'static, RwLock>;
type H = Heap<'static, RwLock>;

/// More than usual segments have at first: a request that gets a segment of its own.
const LARGE: usize = 300_000;
const LAST: u32 = DsaPointer::MAX_GENERATION;

fn leak<T>(value: T) -> &'static T {
    Box::leak(Box::new(value))
}

/// A process with an area: a new one, or another's.
fn start(machine: &HeapMachine, other: Option<&A>) -> (&'static HeapProcess, &'static A, H) {
    let process = leak(machine.process());
    let local = leak(process.local());
    let config = NamespaceConfig::default();
    let (ns, _) = Namespace::open(process, process.platform(), &config, local).unwrap();
    let (ns, thread) = (leak(ns), leak(ParticipantLocal::new()));
    ns.register(thread).unwrap();
    let table = leak(AreaLocal::new());
    let area = match other {
        None => A::create(ns, &Options::default(), table).unwrap(),
        Some(other) => A::attach(ns, other.handle().unwrap(), table).unwrap(),
    };
    let area = leak(area);
    (process, area, area.heap(leak(ns.participant(thread)), leak(HeapLocal::new())).unwrap())
}

/// Allocates what needs a segment of its own: index and generation of that.
fn allocate(heap: &H) -> (DsaPointer, (usize, u32)) {
    let pointer = heap.allocate(LARGE).unwrap();
    (pointer, (pointer.segment(), pointer.generation()))
}

/// Frees an object, and gives its segment back.
fn free(heap: &H, pointer: DsaPointer) {
    // SAFETY: the tests use objects by their pointers alone.
    unsafe { heap.free(pointer) }.unwrap();
    heap.trim().unwrap();
}

/// Each failed request failed twice, at the usual size and at the size that it needs.
#[test]
fn a_segment_that_could_not_be_made_costs_no_generation() {
    let machine = HeapMachine::new();
    let (_, _, heap) = start(&machine, None);
    machine.set_capacity(Some(machine.used() + 4096));
    for _ in 0..100 {
        let refused = heap.allocate(LARGE).unwrap_err();
        assert!(matches!(refused, Error::Namespace(_)), "{refused:?}");
    }
    machine.set_capacity(None);
    assert_eq!(allocate(&heap).1, (1, 1));
}

/// At each call of the platform that the making of a segment takes, once.
#[test]
fn neither_does_one_that_failed_at_any_step() {
    for step in 0..5 {
        let machine = HeapMachine::new();
        let (_, _, heap) = start(&machine, None);
        machine.fail_allocation(step, ErrorKind::NoSpace);
        let first = heap.allocate(LARGE);
        machine.fail_allocation(u32::MAX, ErrorKind::NoSpace);
        // The first one that was made, whether or not the request it was made for failed.
        let made = match first {
            Ok(pointer) => {
                free(&heap, pointer);
                2
            }
            Err(_) => 1,
        };
        assert_eq!(allocate(&heap).1, (1, made), "step {step}");
    }
}

/// What its creator, killed, leaves in the directory.
#[test]
fn a_segment_whose_creator_died_costs_no_generation() {
    let machine = HeapMachine::new();
    let (_, area, heap) = start(&machine, None);
    let (pointer, _) = allocate(&heap);
    free(&heap, pointer);
    area.entry(1).unwrap().store(2, state::CREATING);
    area.recover_directory().unwrap();
    assert_eq!(allocate(&heap).1, (1, 2));
}

/// The same entry for ever, unless somebody may take its segments for those it had before.
#[test]
fn generations_start_over_when_nobody_has_the_old_ones() {
    let machine = HeapMachine::new();
    let (_, area, heap) = start(&machine, None);
    let (idle, other, theirs) = start(&machine, Some(area));
    let entry = area.entry(1);
    let (pointer, _) = allocate(&heap);
    free(&heap, pointer);
    entry.unwrap().store(LAST - 1, state::FREE);
    let (last, made) = allocate(&heap);
    assert_eq!(made, (1, LAST));
    assert!(other.resolve(last).is_some());
    free(&heap, last);
    // The other process may still look there.
    assert_eq!(entry.unwrap().load(), (LAST, state::RETIRED));
    let (second, made) = allocate(&heap);
    assert_eq!(made, (2, 1));
    // It has let go of what was given back.
    free(&theirs, theirs.allocate(5000).unwrap());
    let (first, made) = allocate(&heap);
    assert_eq!(made, (1, 1), "the entry starts over");
    assert_eq!(other.resolve(last), None);
    assert!(other.resolve(first).is_some());
    // Whoever died in one is no hindrance for long.
    free(&heap, first);
    entry.unwrap().store(LAST - 1, state::FREE);
    let (last, _) = allocate(&heap);
    assert!(other.resolve(last).is_some());
    idle.kill();
    free(&heap, last);
    free(&heap, second);
    area.namespace().reap().unwrap();
    area.entry(2).unwrap().store(1, state::RETIRED);
    assert_eq!(allocate(&heap).1, (1, 1));
}

/// The entry that used to bring the rest of the directory is used up, or all are.
#[test]
fn any_entry_brings_the_rest_of_the_directory() {
    for left in [Some(3), Some(15), None] {
        let machine = HeapMachine::new();
        let (_, area, heap) = start(&machine, None);
        let (idle, other, _) = start(&machine, Some(area));
        let (stale, _) = allocate(&heap);
        assert!(other.resolve(stale).is_some());
        free(&heap, stale);
        area.header.entries.store(INLINE_ENTRIES as u32, super::Ordering::Release);
        for index in 1..INLINE_ENTRIES {
            let state = if Some(index) == left { state::FREE } else { state::RETIRED };
            area.entry(index).unwrap().store(LAST - 1, state);
        }
        if let Some(left) = left {
            // It gets the directory alone, and the object what comes next.
            assert_eq!(allocate(&heap).1, (INLINE_ENTRIES, 1));
            assert_eq!(area.entry(left).unwrap().live(), Some(LAST));
            let mut index = 0;
            while index < INLINE_ENTRIES + 2 {
                index = allocate(&heap).1.0;
                assert!(index >= INLINE_ENTRIES, "segment {index}");
            }
            continue;
        }
        // As long as somebody has what was given back.
        assert_eq!(heap.allocate(LARGE), Err(Error::TooManySegments));
        idle.kill();
        assert_eq!(allocate(&heap).1, (2, 1), "the dead are swept for it");
        assert_eq!(area.entry(1).unwrap().live(), Some(1), "the directory");
    }
}

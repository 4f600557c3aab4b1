//! What is freed is everybody's again: slabs go back to the pages with their last object, whoever
//! frees that, and whatever the one who allocated it does meanwhile.

use dsa_core::{DsaPointer, Error, HeapLocal, Options};
use dsm_core::participant::ParticipantLocal;
use sim::HeapMachine;

use crate::support::{A, H, Proc, Rng, free, leak, start};

/// Of each class that a heap has used: the slab that it allocates from, and a few whose last
/// objects are in its magazine.
const KEPT: u64 = 8;

fn slabs(p: &Proc, area: &A) -> u64 {
    area.check(p.participant).unwrap().slabs
}

fn many(heap: &H, size: usize, count: usize) -> Vec<DsaPointer> {
    (0..count).map(|_| heap.allocate(size).unwrap()).collect()
}

fn shuffled(mut objects: Vec<DsaPointer>) -> Vec<DsaPointer> {
    let mut rng = Rng(11);
    for last in (1..objects.len()).rev() {
        objects.swap(last, rng.below(last + 1));
    }
    objects
}

#[test]
fn what_a_heap_frees_it_gives_up() {
    let orders: [fn(Vec<DsaPointer>) -> Vec<DsaPointer>; 3] =
        [|objects| objects, |objects| objects.into_iter().rev().collect(), shuffled];
    for order in orders {
        let machine = HeapMachine::new();
        let p = start(&machine);
        let (area, heap) = p.create(&Options::default());
        for object in order(many(&heap, 4096, 20_000)) {
            free(&heap, object);
        }
        let report = area.check(p.participant).unwrap();
        assert_eq!(report.objects, 0);
        assert!(report.slabs <= KEPT, "{} slabs of 80 MiB stay", report.slabs);
    }
}

#[test]
fn one_class_after_the_other_takes_the_memory_of_one() {
    let machine = HeapMachine::new();
    let p = start(&machine);
    let (area, heap) = p.create(&Options::default());
    for size in [64, 256, 1024, 4096, 8192] {
        for object in many(&heap, size, (8 << 20) / size) {
            free(&heap, object);
        }
    }
    let slabs = slabs(&p, area);
    assert!(slabs <= 5 * KEPT, "{slabs} slabs without an object");
}

#[test]
fn idle_threads_keep_next_to_nothing() {
    let machine = HeapMachine::new();
    let p = start(&machine);
    let (area, _keeper) = p.create(&Options::default());
    for _ in 0..8 {
        let thread = leak(ParticipantLocal::new());
        p.ns.register(thread).unwrap();
        let heap = area.heap(leak(p.ns.participant(thread)), leak(HeapLocal::new())).unwrap();
        for object in shuffled(many(&heap, 1024, 8000)) {
            free(&heap, object);
        }
    }
    let slabs = slabs(&p, area);
    assert!(slabs <= 8 * KEPT, "{slabs} slabs of 8 idle threads");
}

#[test]
fn what_one_process_allocates_and_another_frees_is_nobodys() {
    for order in [|objects| objects, shuffled] as [fn(Vec<_>) -> Vec<_>; 2] {
        let machine = HeapMachine::new();
        let (p, q) = (start(&machine), start(&machine));
        let (area, heap) = p.create(&Options::default());
        let (_, theirs) = q.attach(area.handle().unwrap()).unwrap();
        for object in order(many(&heap, 64, 600_000)) {
            free(&theirs, object);
        }
        let report = area.check(p.participant).unwrap();
        assert_eq!(report.objects, 0);
        assert!(report.slabs <= 1, "{} slabs of 37 MiB stay", report.slabs);
    }
}

/// Each of them frees a part of every slab.
#[test]
fn what_two_processes_free_together_stays_with_neither() {
    let machine = HeapMachine::new();
    let (p, q) = (start(&machine), start(&machine));
    let (area, heap) = p.create(&Options::default());
    let (_, theirs) = q.attach(area.handle().unwrap()).unwrap();
    for (at, object) in many(&heap, 1000, 60_000).into_iter().enumerate() {
        free(if at % 3 == 0 { &heap } else { &theirs }, object);
    }
    // What others empty of a slab that the heap has taken back, it notices when it needs room.
    let slabs = slabs(&p, area);
    assert!(slabs <= KEPT + 16, "{slabs} slabs of 60 MiB stay");
}

/// A third of each slab is free: whoever needs the class takes them, and no page more.
#[test]
fn room_in_slabs_of_nobody_is_found_by_all() {
    let machine = HeapMachine::new();
    let (p, q) = (start(&machine), start(&machine));
    let (area, heap) = p.create(&Options::default());
    let (_, theirs) = q.attach(area.handle().unwrap()).unwrap();
    let objects = many(&heap, 200, 30_000);
    for object in objects.iter().step_by(3) {
        free(&theirs, *object);
    }
    let before = slabs(&p, area);
    let idle = many(&theirs, 200, 9_000);
    assert_eq!(slabs(&p, area), before);
    for object in objects.iter().enumerate().filter(|(at, _)| at % 3 != 0).map(|(_, o)| o) {
        free(&heap, *object);
    }
    for object in idle {
        free(&heap, object);
    }
    assert_eq!(area.check(p.participant).unwrap().objects, 0);
    heap.trim().unwrap();
    let slabs = slabs(&p, area);
    assert!(slabs <= 2, "{slabs} slabs stay");
}

/// Nothing is allocated, and the limit leaves no room for another segment.
#[test]
fn empty_slabs_of_any_class_make_room_before_a_refusal() {
    let machine = HeapMachine::new();
    let p = start(&machine);
    let (area, heap) = p.create(&Options { limit: 1 << 20, ..Options::default() });
    for size in [64, 200, 500, 1000, 2000, 4000, 8000, 5000, 3000, 6000] {
        let mut objects = Vec::new();
        loop {
            match heap.allocate(size) {
                Ok(object) => objects.push(object),
                Err(Error::SizeLimit { .. }) => break,
                Err(e) => panic!("{e}"),
            }
        }
        assert!(objects.len() * size > 500_000, "{} objects of {size}", objects.len());
        for object in shuffled(objects) {
            free(&heap, object);
        }
        let large = heap.allocate(20_000).unwrap();
        free(&heap, large);
    }
    assert_eq!(area.check(p.participant).unwrap().objects, 0);
}

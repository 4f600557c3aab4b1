//! Misuse that must not cost more than an error: local state given to the wrong owner, a heap
//! released with something unfinished.

use dsa_core::{Area, AreaLocal, Flags, HeapLocal, Options};
use sim::HeapMachine;

use crate::support::{A, free, leak, start};

#[test]
fn hints_made_for_another_area_are_not_followed() {
    let machine = HeapMachine::new();
    let p = start(&machine);
    let (mine, _) = p.create(&Options::default());
    let local = HeapLocal::new();
    let heap = mine.heap(p.participant, &local).unwrap();
    let first = heap.allocate(64).unwrap();
    {
        let other: A = Area::create(p.ns, &Options::default(), leak(AreaLocal::new())).unwrap();
        let theirs = other.heap(p.participant, &local).unwrap();
        theirs.allocate(64).unwrap();
        // The other area goes, and with it the memory that the hints point to.
    }
    let second = heap.allocate(64).unwrap();
    assert_ne!(first, second);
    assert_eq!(mine.size_of_object(second).unwrap(), 64);
    mine.check(p.participant).unwrap();
}

/// One heap stays; others of its participant come and go, more than 2^15 and 2^16 of them.
#[test]
fn no_heap_has_the_number_of_another_one() {
    let machine = HeapMachine::new();
    let p = start(&machine);
    let (area, heap) = p.create(&Options::default());
    let local = HeapLocal::new();
    for number in 0..(1 << 16) + 100 {
        local.wipe();
        let other = area.heap(p.participant, &local).unwrap();
        if number % (1 << 15) < (1 << 15) - 100 && number % (1 << 15) > 100 {
            continue;
        }
        let object = heap.allocate(64).unwrap();
        free(&other, object);
        // To the heap that has its slab, the object would be the next one to give out.
        assert_ne!(other.allocate(64).unwrap(), object, "from a slab of another heap");
        other.release().unwrap();
    }
    let report = area.check(p.participant).unwrap();
    assert_eq!(report.abandoned_slabs, report.slabs - 1);
}

#[test]
fn what_a_released_heap_had_not_published_goes_with_its_participant() {
    let machine = HeapMachine::new();
    let (p, q) = (start(&machine), start(&machine));
    let (area, heap) = p.create(&Options::default());
    let (_, theirs) = q.attach(area.handle().unwrap()).unwrap();
    for size in [64, 3000, 20_000] {
        theirs.allocate_unpublished(size, 8, Flags::empty()).unwrap();
        theirs.allocate(size).unwrap();
    }
    theirs.release().unwrap();
    assert!(q.ns.unregister(q.thread));
    heap.maintain().unwrap();
    let report = area.check(p.participant).unwrap();
    assert_eq!((report.objects, report.unpublished), (3, 0));
}

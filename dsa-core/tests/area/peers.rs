//! Several processes: sharing, attaching, leaving, being killed.

use dsa_core::{Area, AreaLocal, DsaPointer, Error, HeapLocal, Options};
use sim::HeapMachine;

use crate::support::{A, check_fill, fill, free, leak, start};

#[test]
fn what_one_allocates_another_reads_and_frees() {
    let machine = HeapMachine::new();
    let (p, q) = (start(&machine), start(&machine));
    let (area, heap) = p.create(&Options::default());
    let (theirs, their_heap) = q.attach(area.handle().unwrap()).unwrap();
    let mut objects = Vec::new();
    for i in 0..5000 {
        let size = [24, 64, 500, 3000, 20_000][i % 5];
        let object = heap.allocate(size).unwrap();
        fill(area, object, size);
        objects.push((object, size));
    }
    for (object, size) in &objects {
        check_fill(theirs, *object, *size);
        free(&their_heap, *object);
        // SAFETY: it must not be freed at all.
        assert!(unsafe { their_heap.free(*object) }.is_err());
        // SAFETY: as above.
        assert!(unsafe { heap.free(*object) }.is_err());
    }
    assert_eq!(area.check(p.participant).unwrap().objects, 0);
    let before = area.stats().unwrap().total;
    for round in 0..20_000 {
        let object = heap.allocate(64).unwrap();
        free(if round % 2 == 0 { &heap } else { &their_heap }, object);
    }
    assert!(area.stats().unwrap().total <= before, "others' frees are reused");
    heap.trim().unwrap();
    // The sixteenth segment holds the rest of the directory and stays.
    assert_eq!(area.stats().unwrap().segments, 2);
}

#[test]
fn a_producer_and_a_consumer_use_bounded_memory() {
    let machine = HeapMachine::new();
    let (p, q) = (start(&machine), start(&machine));
    let (area, heap) = p.create(&Options::default());
    let (_, their_heap) = q.attach(area.handle().unwrap()).unwrap();
    for _ in 0..60 {
        let objects: Vec<_> = (0..2000).map(|_| heap.allocate(100).unwrap()).collect();
        for object in objects {
            free(&their_heap, object);
        }
    }
    let total = area.stats().unwrap().total;
    assert!(total <= 2 << 20, "{total} bytes for 224,000 at a time");
}

#[test]
fn attaching_after_the_last_has_left_fails() {
    let machine = HeapMachine::new();
    let (p, q) = (start(&machine), start(&machine));
    let area = A::create(p.ns, &Options::default(), leak(AreaLocal::new())).unwrap();
    let handle = area.handle().unwrap();
    assert!(A::is_attached(p.ns, handle) && !A::is_attached(q.ns, handle));
    {
        let leaked: &'static A = leak(area);
        let heap = leaked.heap(p.participant, leak(HeapLocal::new())).unwrap();
        for _ in 0..200 {
            heap.allocate(100_000).unwrap();
        }
        assert!(leaked.stats().unwrap().segments > 4);
        assert_eq!(A::total_size_of(q.ns, handle), Ok(Some(leaked.stats().unwrap().total)));
    }
    p.kill();
    q.ns.reap().unwrap();
    assert!(matches!(q.attach(handle), Err(Error::CouldNotAttach)));
    assert_eq!(machine.objects().len(), 1, "only the control segment is left");
}

#[test]
fn a_dropped_area_goes_with_all_its_segments() {
    let machine = HeapMachine::new();
    let p = start(&machine);
    let handle = {
        let local: &'static AreaLocal = leak(AreaLocal::new());
        let area: Area<'static, dsm_core::lock::rw::RwLock> =
            Area::create(p.ns, &Options::default(), local).unwrap();
        let hints = Box::leak(Box::new(HeapLocal::new()));
        // The heap borrows the area for 'static through a leaked box that is dropped by hand.
        let area = Box::into_raw(Box::new(area));
        // SAFETY: a live box; the heap is gone before it is dropped.
        let heap = unsafe { &*area }.heap(p.participant, hints).unwrap();
        for _ in 0..30 {
            heap.allocate(200_000).unwrap();
        }
        heap.release().unwrap();
        // SAFETY: from `into_raw`, once.
        let area = unsafe { Box::from_raw(area) };
        area.handle().unwrap()
    };
    assert_eq!(machine.objects().len(), 1);
    assert!(matches!(p.attach(handle), Err(Error::CouldNotAttach)));
}

#[test]
fn a_pinned_area_outlives_its_processes() {
    let machine = HeapMachine::new();
    let (p, q) = (start(&machine), start(&machine));
    let (area, heap) = p.create(&Options::default());
    let handle = area.handle().unwrap();
    area.pin().unwrap();
    assert!(area.pin().is_err());
    let objects: Vec<_> = (0..50).map(|_| heap.allocate(50_000).unwrap()).collect();
    for object in &objects {
        fill(area, *object, 50_000);
    }
    p.kill();
    q.ns.reap().unwrap();
    let (area, heap) = q.attach(handle).unwrap();
    for object in &objects {
        check_fill(area, *object, 50_000);
        free(&heap, *object);
    }
    area.unpin().unwrap();
    assert!(area.unpin().is_err());
    q.kill();
    let r = start(&machine);
    r.ns.reap().unwrap();
    assert_eq!(machine.objects().len(), 1);
}

#[test]
fn the_slabs_of_the_dead_are_adopted() {
    let machine = HeapMachine::new();
    let q = start(&machine);
    let (area, heap) = q.create(&Options::default());
    let handle = area.handle().unwrap();
    let mut all = Vec::new();
    let mut total = 0;
    for round in 0..20 {
        let p = start(&machine);
        let (theirs, their_heap) = p.attach(handle).unwrap();
        let mine: Vec<DsaPointer> = (0..2000).map(|_| their_heap.allocate(64).unwrap()).collect();
        for object in &mine {
            fill(theirs, *object, 64);
        }
        for object in &mine[10..] {
            free(&their_heap, *object);
        }
        all.extend(&mine[..10]);
        p.kill();
        if round == 3 {
            total = area.stats().unwrap().total;
        }
    }
    assert!(area.stats().unwrap().total <= total.max(1 << 20), "each adopts the one before");
    for object in &all {
        check_fill(area, *object, 64);
    }
    assert_eq!(area.check(q.participant).unwrap().objects, 200);
    for object in all {
        free(&heap, object);
    }
    heap.maintain().unwrap();
    let report = area.check(q.participant).unwrap();
    assert_eq!((report.objects, report.slabs), (0, 0));
    heap.trim().unwrap();
    assert_eq!(area.stats().unwrap().segments, 1);
}

#[test]
fn those_who_leave_hand_over_their_slabs() {
    let machine = HeapMachine::new();
    let (p, q) = (start(&machine), start(&machine));
    let (area, heap) = q.create(&Options::default());
    let (_, their_heap) = p.attach(area.handle().unwrap()).unwrap();
    let kept: Vec<_> = (0..3000).map(|_| their_heap.allocate(64).unwrap()).collect();
    for object in &kept[100..] {
        free(&their_heap, *object);
    }
    their_heap.release().unwrap();
    let report = area.check(q.participant).unwrap();
    assert!(report.abandoned_slabs > 0 && report.objects == 100);
    let segments = area.stats().unwrap().segments;
    let mine: Vec<_> = (0..200).map(|_| heap.allocate(64).unwrap()).collect();
    let page = |object: &DsaPointer| object.raw() >> 12;
    let together =
        mine.iter().filter(|mine| kept[..100].iter().any(|kept| page(kept) == page(mine)));
    assert!(together.count() > 20, "the slab that was left is not used");
    assert_eq!(area.stats().unwrap().segments, segments);
    for object in kept[..100].iter().chain(&mine) {
        free(&heap, *object);
    }
    assert_eq!(area.check(q.participant).unwrap().objects, 0);
}

#[test]
fn others_notice_a_segment_that_was_given_back_and_used_anew() {
    let machine = HeapMachine::new();
    let (p, q) = (start(&machine), start(&machine));
    let (area, heap) = p.create(&Options::default());
    let (theirs, their_heap) = q.attach(area.handle().unwrap()).unwrap();
    let mut last = DsaPointer::INVALID;
    for round in 0..50 {
        let object = heap.allocate(1 << 20).unwrap();
        fill(area, object, 1000);
        check_fill(theirs, object, 1000);
        assert_ne!(object, last, "another generation");
        assert!(theirs.resolve(object).is_some());
        let freed_by = if round % 2 == 0 { &heap } else { &their_heap };
        free(freed_by, object);
        // It is kept for the next need until then.
        assert_eq!(freed_by.trim(), Ok(1));
        if last.is_valid() {
            // SAFETY: it must not be freed at all.
            assert!(unsafe { heap.free(last) }.is_err());
            assert!(area.resolve(last).is_none());
        }
        last = object;
    }
    their_heap.maintain().unwrap();
    heap.maintain().unwrap();
    assert_eq!(area.stats().unwrap().segments, 1);
    assert_eq!(machine.objects().len(), 2);
}

#[test]
fn a_slab_that_nobody_owns_is_taken_by_the_next_heap() {
    let machine = HeapMachine::new();
    let p = start(&machine);
    let (area, heap) = p.create(&Options::default());
    let object = heap.allocate(64).unwrap();
    heap.release().unwrap();
    let next = area.heap(p.participant, leak(HeapLocal::new())).unwrap();
    let other = next.allocate(64).unwrap();
    assert_eq!(other.raw() >> 12, object.raw() >> 12, "not in the page that was left");
}

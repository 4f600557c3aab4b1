//! Memory that runs out, at every step; limits; areas in place.

use dsa_core::{AreaLocal, DsaPointer, Error, Flags, HeapLocal, Options};
use dsm_core::error::ErrorKind;
use sim::HeapMachine;

use crate::support::{A, Proc, check_fill, fill, free, leak, start};

/// A life of an area; stops at the first error, and returns it.
fn live(p: &Proc, q: &Proc) -> Result<(), Error> {
    let area = leak(A::create(p.ns, &Options::default(), leak(AreaLocal::new()))?);
    let heap = area.heap(p.participant, leak(HeapLocal::new()))?;
    let result = (|| {
        let mut objects = Vec::new();
        for size in [100, 64, 5000, 70_000, 300_000, 2000, 1_000_000] {
            for _ in 0..if size < 4000 { 40 } else { 2 } {
                let object = heap.allocate(size)?;
                fill(area, object, size.min(100));
                objects.push((object, size.min(100)));
            }
        }
        let (theirs, their_heap) = q.attach(area.handle().ok_or(Error::NotAnArea)?)?;
        for (object, size) in &objects {
            check_fill(theirs, *object, *size);
            free(&their_heap, *object);
        }
        Ok(())
    })();
    assert!(!p.thread.holds_any() && !q.thread.holds_any(), "an error left a lock behind");
    let report = area.check(p.participant).unwrap();
    if result.is_ok() {
        assert_eq!(report.used, 0);
        heap.trim().unwrap();
        assert_eq!(area.stats().unwrap().segments, 1);
    }
    result
}

#[test]
fn a_failure_at_each_step_leaves_nothing() {
    let mut failures = 0;
    for step in 0..100 {
        let machine = HeapMachine::new();
        machine.fill_new(0xAA);
        let (p, q) = (start(&machine), start(&machine));
        machine.fail_allocation(step, ErrorKind::NoSpace);
        let result = live(&p, &q);
        machine.fail_allocation(u32::MAX, ErrorKind::NoSpace);
        p.kill();
        q.kill();
        let r = start(&machine);
        r.ns.reap().unwrap();
        assert_eq!(machine.objects().len(), 1, "step {step} left an object");
        if let Err(e) = result {
            assert!(matches!(e, Error::Namespace(_)), "step {step}: {e:?}");
            assert!(e.is_full() && !e.is_timeout(), "step {step}: {e:?}");
            failures += 1;
        }
    }
    // A step that fails is tried again with less, and once more after giving back what lies empty,
    // so that not every failure shows.
    assert!(failures >= 7, "{failures}");
}

#[test]
fn a_full_machine_is_an_error_and_nothing_is_lost() {
    let machine = HeapMachine::new();
    let p = start(&machine);
    let (area, heap) = p.create(&Options::default());
    for size in [64usize, 1000, 8000, 30_000, 500_000] {
        // Segments given back stay mapped as zeros, which the simulated machine counts.
        machine.set_capacity(Some(machine.used() + (2 << 20)));
        let mut objects = Vec::new();
        loop {
            match heap.allocate(size) {
                Ok(object) => objects.push(object),
                Err(Error::Namespace(_)) => break,
                Err(e) => panic!("{e}"),
            }
        }
        assert_eq!(heap.allocate_extended(size, Flags::NO_OOM), Ok(DsaPointer::INVALID));
        assert!(objects.len() * size > 1 << 20, "{} of {size}", objects.len());
        for object in &objects {
            fill(area, *object, size);
        }
        area.check(p.participant).unwrap();
        for object in objects {
            check_fill(area, object, size);
            free(&heap, object);
        }
        heap.trim().unwrap();
        let stats = area.stats().unwrap();
        assert_eq!((stats.segments, stats.used), (1, 0));
    }
}

#[test]
fn the_size_limit_holds() {
    let machine = HeapMachine::new();
    let p = start(&machine);
    let options = Options { limit: 1 << 20, ..Options::default() };
    let (area, heap) = p.create(&options);
    let mut objects = Vec::new();
    let refused = loop {
        match heap.allocate(10_000) {
            Ok(object) => objects.push(object),
            Err(e) => break e,
        }
    };
    assert!(matches!(refused, Error::SizeLimit { limit: 1_048_576, .. }), "{refused:?}");
    assert!(refused.is_full());
    assert!(objects.len() > 75, "{} of 87 that fit", objects.len());
    assert!(area.stats().unwrap().total <= 1 << 20);
    for flags in [Flags::NO_OOM, Flags::NO_OOM | Flags::HUGE, Flags::NO_OOM | Flags::ZERO] {
        assert_eq!(heap.allocate_extended(4 << 20, flags), Ok(DsaPointer::INVALID));
        assert_eq!(heap.allocate_extended(1 << 30, flags), Ok(DsaPointer::INVALID));
    }
    assert!(matches!(heap.allocate_extended(1 << 30, Flags::HUGE), Err(Error::SizeLimit { .. })));
    area.set_size_limit(u64::MAX).unwrap();
    heap.allocate(4 << 20).unwrap();
    assert!(matches!(
        A::create(p.ns, &Options { limit: 1, ..options }, leak(AreaLocal::new())),
        Err(Error::InvalidOptions(range)) if range.option == "limit" && range.least == 65_536
    ));
    for options in [
        Options { initial: 1 << 40, maximum: 1 << 40, limit: 1 << 40 },
        Options { initial: 65_536, maximum: 65_536, limit: 65_536 },
    ] {
        assert_eq!(options.check(), Ok(()));
        let beyond =
            Options { maximum: options.maximum * 2, initial: options.initial * 2, ..options };
        assert!(beyond.check().is_err(), "{beyond:?}");
    }
}

#[test]
fn an_area_in_place() {
    let machine = HeapMachine::new();
    machine.fill_new(0xAA);
    let (p, q) = (start(&machine), start(&machine));
    let size = A::minimum_size(p.ns).unwrap() as usize;
    assert!(size <= 16 << 10);
    let place = leak(p.ns.create_segment(200_000, 200_000).unwrap());
    let range = 8192..8192 + size + 5000;
    // SAFETY: the range is used for nothing else.
    let area = unsafe {
        A::create_in_place(place, range.clone(), &Options::default(), leak(AreaLocal::new()))
    };
    let area: &'static A = leak(area.unwrap());
    assert_eq!(area.handle(), None);
    assert!(area.pin().is_err());
    let heap = area.heap(p.participant, leak(HeapLocal::new())).unwrap();
    let theirs = leak(q.ns.attach_segment(place.handle()).unwrap().unwrap());
    // SAFETY: as above.
    let other = unsafe { A::attach_in_place(theirs, range.clone(), leak(AreaLocal::new())) };
    let other: &'static A = leak(other.unwrap());
    let their_heap = other.heap(q.participant, leak(HeapLocal::new())).unwrap();
    let objects: Vec<_> = (0..500).map(|i| (heap.allocate(i * 20).unwrap(), i * 20)).collect();
    for (object, size) in &objects {
        fill(area, *object, *size);
    }
    assert!(area.stats().unwrap().segments > 1);
    for (object, size) in &objects {
        check_fill(other, *object, *size);
        free(&their_heap, *object);
    }
    area.check(p.participant).unwrap();
    heap.trim().unwrap();
    assert_eq!(area.stats().unwrap().segments, 1);
    heap.allocate(1 << 20).unwrap();
    // SAFETY: refused before anything is touched.
    let refused = unsafe {
        A::create_in_place(place, 0..size - 4096, &Options::default(), leak(AreaLocal::new()))
    };
    assert!(matches!(refused, Err(Error::PlaceTooSmall(..))));
    // SAFETY: nothing of ours is there: refused by its magic.
    let refused = unsafe { A::attach_in_place(theirs, 102_400..150_000, leak(AreaLocal::new())) };
    assert!(matches!(refused, Err(Error::NotAnArea)));
    p.kill();
    q.kill();
    let r = start(&machine);
    r.ns.reap().unwrap();
    assert_eq!(machine.objects().len(), 1, "its segments go with its place");
}

#[test]
fn an_area_in_place_ends_before_its_place() {
    let machine = HeapMachine::new();
    let (p, q) = (start(&machine), start(&machine));
    let place = leak(p.ns.create_segment(200_000, 200_000).unwrap());
    let theirs = leak(q.ns.attach_segment(place.handle()).unwrap().unwrap());
    let options = Options { initial: 64 << 10, maximum: 64 << 10, ..Options::default() };
    // So few segments that the directory fits into the control block, then more.
    for objects in [3, 60] {
        let local = leak(AreaLocal::new());
        // SAFETY: the range is used for nothing else.
        let area = unsafe { A::create_in_place(place, 0..100_000, &options, local) }.unwrap();
        // SAFETY: as above.
        let other = unsafe { A::attach_in_place(theirs, 0..100_000, leak(AreaLocal::new())) };
        let other: A = other.unwrap();
        for n in 0..objects {
            let heap_local = HeapLocal::new();
            let heap = area.heap(p.participant, &heap_local).unwrap();
            let object = heap.allocate(40_000).unwrap();
            fill(&area, object, 40_000);
            if n % 2 == 0 {
                check_fill(&other, object, 40_000);
            }
        }
        assert!(machine.objects().len() > objects / 2);
        // SAFETY: nothing that was allocated is used any more; `other` is only dropped.
        unsafe { area.destroy_in_place(p.participant) }.unwrap();
        // SAFETY: refused, since there is no area any more.
        let refused = unsafe { A::attach_in_place(theirs, 0..100_000, leak(AreaLocal::new())) };
        assert!(matches!(refused, Err(Error::NotAnArea)));
        drop(other);
        assert_eq!(machine.objects().len(), 2, "the control object and the place");
    }
    // SAFETY: an area with a handle is refused.
    let refused = unsafe {
        A::create(p.ns, &options, leak(AreaLocal::new())).unwrap().destroy_in_place(p.participant)
    };
    assert!(matches!(refused, Err(Error::NotAnArea)));
    assert_eq!(machine.objects().len(), 2);
}

#[test]
fn attaching_something_else_is_refused() {
    let machine = HeapMachine::new();
    let p = start(&machine);
    let raw = p.ns.create_segment(100_000, 100_000).unwrap();
    assert!(matches!(p.attach(raw.handle()), Err(Error::NotAnArea)));
    let (area, _) = p.create(&Options::default());
    let header = area.resolve(DsaPointer::from_raw(1 << 50)).unwrap();
    // SAFETY: inside the control block.
    let version = unsafe { header.add(8) }.cast::<u32>();
    // SAFETY: as above.
    let fingerprint = unsafe { header.add(16) }.cast::<u64>();
    // SAFETY: nobody else looks at it now.
    let ours = unsafe { version.read() };
    // SAFETY: as above.
    unsafe { version.write(77) };
    let q = start(&machine);
    assert!(matches!(q.attach(area.handle().unwrap()), Err(Error::Version(77, _))));
    // SAFETY: as above.
    unsafe { version.write(ours) };
    // SAFETY: as above.
    unsafe { fingerprint.write(5) };
    assert!(matches!(q.attach(area.handle().unwrap()), Err(Error::Fingerprint(5, _))));
}

#[test]
fn a_damaged_area_gives_errors() {
    // The two locks (64 bytes each) are left alone: waiting for a made-up owner is waiting for a
    // live one.
    let locks = 2048 + 64 + 64 + 16 + 8;
    damage(64 << 10, (64..locks).step_by(8).chain((locks / 64 * 64 + 192..3400).step_by(8)));
}

#[test]
fn a_damaged_page_tree_gives_errors() {
    // Four leaves, and three nodes above them: behind 16 units and as many page words.
    let tree = 2048 + 16 * (64 + 64);
    damage(1 << 20, (tree..tree + 7 * 16 + 4 * 8).step_by(4));
}

/// Overwrites one word after the other: errors or odd answers, but no crash and no hang.
fn damage(initial: u64, words: impl Iterator<Item = usize>) {
    let machine = HeapMachine::new();
    let p = start(&machine);
    let (area, heap) = p.create(&Options { initial, ..Options::default() });
    let small = heap.allocate(64).unwrap();
    let large = heap.allocate(10_000).unwrap();
    let base = area.resolve(DsaPointer::from_raw(1 << 50)).unwrap();
    for word in words {
        // SAFETY: inside the tables of the area.
        let at = unsafe { base.add(word) }.cast::<u64>();
        // SAFETY: as above.
        let old = unsafe { at.read_unaligned() };
        for damage in [u64::MAX, 0xAAAA_AAAA_AAAA_AAAA, old ^ 1 << 40, 0x6000_0001_6000_0001] {
            // SAFETY: as above.
            unsafe { at.write_unaligned(damage) };
            let _ = heap.allocate(200);
            if let Ok(run) = heap.allocate(50_000) {
                // SAFETY: used by nobody.
                let _ = unsafe { heap.free(run) };
            }
            let _ = area.check(p.participant);
            let _ = area.stats();
            let mut text = String::new();
            area.dump(&mut text).unwrap();
            let _ = area.size_of_object(small);
            let _ = area.size_of_object(large);
            let _ = heap.settle(small);
            // SAFETY: as above.
            unsafe { at.write_unaligned(old) };
            assert!(!p.thread.holds_any());
        }
    }
}

#[test]
fn a_dump_at_every_state() {
    let machine = HeapMachine::new();
    let p = start(&machine);
    let (area, heap) = p.create(&Options { limit: 64 << 20, ..Options::default() });
    let mut text = String::new();
    area.dump(&mut text).unwrap();
    assert!(text.contains("65536 bytes in 1 segments") && text.contains("limited to 67108864"));
    let object = heap.allocate(64).unwrap();
    let large = heap.allocate(1 << 20).unwrap();
    text.clear();
    area.dump(&mut text).unwrap();
    assert!(text.contains("class 64: 1 slabs, 1 of 63 objects used"), "{text}");
    free(&heap, object);
    free(&heap, large);
    heap.trim().unwrap();
    text.clear();
    area.dump(&mut text).unwrap();
    assert!(text.contains("1 segments") && !text.contains("class"), "{text}");
}

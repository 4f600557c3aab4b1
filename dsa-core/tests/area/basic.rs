//! One process: every size, alignments, flags, refusals, growing and giving back.

use std::collections::BTreeMap;

use dsa_core::{DsaPointer, Error, Flags, FreeError, MAX_REQUEST, Options};
use dsm_core::namespace;
use sim::HeapMachine;

use crate::support::{Rng, check_fill, copy_in, copy_out, fill, free, start};

#[test]
fn every_size_comes_and_goes() {
    let machine = HeapMachine::new();
    machine.fill_new(0xAA);
    let p = start(&machine);
    let (area, heap) = p.create(&Options::default());
    let mut live = Vec::new();
    for size in (0..300).chain((300..9000).step_by(61)).chain([20_000, 100_000, 1 << 20]) {
        for _ in 0..3 {
            let object = heap.allocate(size).unwrap();
            let at = area.resolve(object).unwrap().as_ptr() as usize;
            let align = if size > 8192 {
                4096
            } else if size % 16 == 0 && size > 0 {
                16
            } else {
                8
            };
            assert_eq!(at % align, 0, "size {size}");
            assert!(area.size_of_object(object).unwrap() >= size as u64);
            fill(area, object, size);
            live.push((object, size));
        }
    }
    let report = area.check(p.participant).unwrap();
    assert_eq!(report.objects, live.len() as u64);
    for (object, size) in live {
        check_fill(area, object, size);
        free(&heap, object);
    }
    let report = area.check(p.participant).unwrap();
    assert_eq!((report.objects, report.used), (0, 0));
    heap.trim().unwrap();
    let stats = area.stats().unwrap();
    assert_eq!((stats.segments, stats.total, stats.used), (1, 64 << 10, 0));
    assert!(stats.peak > 3 << 20 && stats.reserved <= 64 << 10);
    assert_eq!(area.check(p.participant).unwrap().slabs, 0);
    assert_eq!(machine.objects().len(), 2, "control segment and first segment");
}

#[test]
fn a_few_objects_stay_in_the_first_segment() {
    let machine = HeapMachine::new();
    let p = start(&machine);
    let (area, heap) = p.create(&Options::default());
    for size in [24, 64, 100, 256, 1000, 2000, 4000, 8000] {
        heap.allocate(size).unwrap();
    }
    let stats = area.stats().unwrap();
    assert_eq!(stats.segments, 1);
    assert!(stats.reserved <= 64 << 10);
    assert_eq!(area.check(p.participant).unwrap().slabs, 7, "8000 bytes are a run while rare");
}

#[test]
fn alignments_up_to_a_page() {
    let machine = HeapMachine::new();
    let p = start(&machine);
    let (area, heap) = p.create(&Options::default());
    for shift in 0..=12 {
        for size in [1, 8, 40, 100, 1000, 1560, 5000, 10_000] {
            for _ in 0..20 {
                let object = heap.allocate_aligned(size, 1 << shift, Flags::empty()).unwrap();
                assert_eq!(area.resolve(object).unwrap().as_ptr() as usize % (1 << shift), 0);
            }
        }
    }
    assert_eq!(heap.allocate_aligned(8, 8192, Flags::empty()), Err(Error::InvalidAlignment(8192)));
    assert_eq!(heap.allocate_aligned(8, 3, Flags::NO_OOM), Ok(DsaPointer::INVALID));
    area.check(p.participant).unwrap();
}

#[test]
fn zeroed_objects_are_zero() {
    let machine = HeapMachine::new();
    machine.fill_new(0xAA);
    let p = start(&machine);
    let (area, heap) = p.create(&Options::default());
    for size in [1, 7, 8, 63, 1000, 5000, 9000, 100_001] {
        for _ in 0..3 {
            let object = heap.allocate_extended(size, Flags::ZERO).unwrap();
            let mut data = vec![1; size];
            copy_out(area, object, 0, &mut data).unwrap();
            assert!(data.iter().all(|b| *b == 0));
            fill(area, object, size);
            free(&heap, object);
        }
    }
}

#[test]
fn sizes_beyond_the_limit_are_refused() {
    let machine = HeapMachine::new();
    let p = start(&machine);
    let (area, heap) = p.create(&Options::default());
    for size in [MAX_REQUEST + 1, usize::MAX / 2, usize::MAX] {
        assert_eq!(heap.allocate(size), Err(Error::InvalidRequestSize(size as u64)));
        assert_eq!(heap.allocate_extended(size, Flags::NO_OOM), Ok(DsaPointer::INVALID));
    }
    let far = usize::MAX >> if usize::BITS > 50 { usize::BITS - 50 } else { 1 };
    for size in [usize::MAX, usize::MAX / 2 + 1, usize::MAX / 2, far] {
        // Where addresses are short, the segment for it may be what has no room in them.
        assert!(matches!(
            heap.allocate_extended(size, Flags::HUGE),
            Err(Error::InvalidRequestSize(_) | Error::Namespace(namespace::Error::InvalidSize(_)))
        ));
        let flags = Flags::HUGE | Flags::NO_OOM;
        assert_eq!(heap.allocate_extended(size, flags), Ok(DsaPointer::INVALID));
    }
    assert!(!p.thread.holds_any());
    area.check(p.participant).unwrap();
}

#[test]
fn double_frees_and_wild_pointers_are_refused() {
    let machine = HeapMachine::new();
    let p = start(&machine);
    let (area, heap) = p.create(&Options::default());
    let full: Vec<_> = (0..3000).map(|_| heap.allocate(64).unwrap()).collect();
    let kinds =
        [full[0], full[2999], heap.allocate(2000).unwrap(), heap.allocate(100_000).unwrap()];
    for object in kinds {
        for wrong in [1, 8, 16, 32] {
            // SAFETY: it must not be freed at all.
            let result = unsafe { heap.free(object.add(wrong)) };
            assert_eq!(result, Err(FreeError::InvalidPointer(object.add(wrong))));
        }
        free(&heap, object);
        // SAFETY: as above.
        assert_eq!(unsafe { heap.free(object) }, Err(FreeError::DoubleFree(object)));
    }
    let mut rng = Rng(7);
    for round in 0..20_000u64 {
        let raw = match round % 4 {
            0 => rng.next(),
            1 => full[1].raw() ^ 1 << (rng.next() % 64),
            2 => (full[1].raw() & !0xff_ffff) | rng.next() & 0xff_ffff,
            _ => rng.next() & 0xffff,
        };
        let wild = DsaPointer::from_raw(raw);
        if full.contains(&wild) {
            continue;
        }
        // SAFETY: as above.
        assert!(unsafe { heap.free(wild) }.is_err(), "{wild:?}");
        assert!(area.size_of_object(wild).is_err());
        assert!(copy_in(area, wild, 0, &[1]).is_err());
    }
    let report = area.check(p.participant).unwrap();
    assert_eq!(report.objects, 2998);
}

#[test]
fn copies_stay_inside_their_object() {
    let machine = HeapMachine::new();
    let p = start(&machine);
    let (area, heap) = p.create(&Options::default());
    let object = heap.allocate(100).unwrap();
    let data: Vec<u8> = (0..112).collect();
    copy_in(area, object, 0, &data).unwrap();
    for from in 0..112 {
        for to in from..=112 {
            let mut out = vec![0; to - from];
            copy_out(area, object, from, &mut out).unwrap();
            assert_eq!(out, data[from..to]);
        }
    }
    assert_eq!(copy_in(area, object, 100, &[0; 13]), Err(Error::OutOfObject(113, 112)));
    // The end of the range, as far as it can be told.
    let end = (usize::MAX as u64).saturating_add(2);
    assert_eq!(copy_in(area, object, usize::MAX, &[0; 2]), Err(Error::OutOfObject(end, 112)));
    // The header and the tables at the start of the segment are no object.
    let start = DsaPointer::from_raw(object.raw() >> 40 << 40);
    assert!(copy_in(area, start, 0, &[0]).is_err());
}

#[test]
fn random_traffic_of_one_process() {
    let machine = HeapMachine::new();
    let p = start(&machine);
    let (area, heap) = p.create(&Options::default());
    let mut rng = Rng(42);
    let mut live: BTreeMap<u64, usize> = BTreeMap::new();
    for round in 0..60_000 {
        let grow = (round / 10_000) % 2 == 0;
        if rng.below(100) < if grow { 70 } else { 30 } || live.is_empty() {
            let size = match rng.below(20) {
                0..=12 => rng.below(200),
                13..=17 => rng.below(3000),
                18 => rng.below(9000),
                _ => rng.below(40_000),
            };
            let object = heap.allocate(size).unwrap();
            fill(area, object, size);
            assert_eq!(live.insert(object.raw(), size), None, "handed out twice");
        } else {
            let from = rng.next();
            let (raw, size) = live.range(from..).next().or_else(|| live.iter().next()).unwrap();
            let (raw, size) = (*raw, *size);
            check_fill(area, DsaPointer::from_raw(raw), size);
            free(&heap, DsaPointer::from_raw(raw));
            live.remove(&raw);
        }
        if round % 5000 == 0 {
            assert_eq!(area.check(p.participant).unwrap().objects, live.len() as u64);
        }
    }
    for (raw, size) in live {
        check_fill(area, DsaPointer::from_raw(raw), size);
        free(&heap, DsaPointer::from_raw(raw));
    }
    assert_eq!(area.check(p.participant).unwrap().used, 0);
    heap.trim().unwrap();
    assert_eq!(area.stats().unwrap().segments, 1);
}

#[test]
fn hundreds_of_segments() {
    let machine = HeapMachine::new();
    let p = start(&machine);
    let options = Options { maximum: 128 << 10, ..Options::default() };
    let (area, heap) = p.create(&options);
    let q = start(&machine);
    let (theirs, their_heap) = q.attach(area.handle().unwrap()).unwrap();
    let mut objects = Vec::new();
    while area.stats().unwrap().segments < 300 {
        let object = heap.allocate(50_000).unwrap();
        fill(area, object, 50_000);
        objects.push(object);
    }
    area.check(p.participant).unwrap();
    for object in &objects {
        check_fill(theirs, *object, 50_000);
        free(&their_heap, *object);
    }
    heap.trim().unwrap();
    let stats = area.stats().unwrap();
    // The sixteenth segment holds the rest of the directory, and nothing else, and stays.
    assert_eq!((stats.segments, stats.used), (2, 0));
    area.check(p.participant).unwrap();
    theirs.check(q.participant).unwrap();
    for _ in 0..40 {
        their_heap.allocate(60_000).unwrap();
    }
    theirs.check(q.participant).unwrap();
}

#[test]
fn a_full_directory_is_an_error() {
    let machine = HeapMachine::new();
    let p = start(&machine);
    let options = Options { maximum: 64 << 10, ..Options::default() };
    let (area, heap) = p.create(&options);
    let mut last = Ok(DsaPointer::INVALID);
    while last.is_ok() {
        last = heap.allocate(40_000);
    }
    assert!(matches!(last, Err(Error::SegmentShare { slots: 512, .. })), "{last:?}");
    assert_eq!(heap.allocate_extended(40_000, Flags::NO_OOM), Ok(DsaPointer::INVALID));
    area.check(p.participant).unwrap();
}

//! Areas that are full: what can be had all the same, what is said, how long that takes; and how
//! large segments are where something limits them.

use std::time::{Duration, Instant};

use dsa_core::{DsaPointer, Error, Flags, Options};
use sim::HeapMachine;

use crate::support::{Proc, Rng, fill, free, start};

/// Allocates objects of that size until it is refused; returns them and the refusal.
fn fill_up(heap: &crate::support::H, size: usize) -> (Vec<DsaPointer>, Error) {
    let mut objects = Vec::new();
    loop {
        match heap.allocate(size) {
            Ok(object) => objects.push(object),
            Err(refused) => return (objects, refused),
        }
    }
}

/// No size is refused where a larger one would be had.
#[test]
fn at_the_limit_a_smaller_request_is_not_refused_where_a_larger_one_is_not() {
    for size in [4097, 5000, 5456, 6000, 7000, 8000, 8192] {
        let machine = HeapMachine::new();
        let p = start(&machine);
        let options = Options { limit: 64 << 10, ..Options::default() };
        let (area, heap) = p.create(&options);
        // The class is in use in earnest: its objects come from slabs now.
        for _ in 0..10 {
            free(&heap, heap.allocate(size).unwrap());
        }
        let mut objects = Vec::new();
        for _ in 0..3 {
            let object = heap.allocate(size).unwrap_or_else(|e| panic!("{size}: {e}"));
            fill(area, object, size);
            objects.push(object);
            objects.push(heap.allocate(8193).unwrap());
        }
        let object = heap.allocate_unpublished(size, 8, Flags::empty());
        assert!(object.is_err(), "nothing is left");
        for object in objects {
            free(&heap, object);
        }
        assert_eq!(area.check(p.participant).unwrap().objects, 0);
    }
}

#[test]
fn a_refusal_says_what_would_succeed() {
    let mut rng = Rng(11);
    let mut said = [0; 2];
    for round in 0..60 {
        let machine = HeapMachine::new();
        let p = start(&machine);
        let limit = (1 + rng.below(60) as u64) * 40_000 + (64 << 10);
        let options = Options { limit, maximum: 512 << 10, ..Options::default() };
        let (area, heap) = p.create(&options);
        let mut objects = Vec::new();
        for _ in 0..200 {
            if rng.below(3) != 0 {
                objects.extend(heap.allocate(1 + rng.below(100_000)));
            } else if !objects.is_empty() {
                free(&heap, objects.swap_remove(rng.below(objects.len())));
            }
        }
        let Err(Error::SizeLimit { largest, .. }) = heap.allocate(3 << 20) else {
            panic!("{round}: 3 MiB where there are {limit} bytes")
        };
        let largest = largest as usize;
        said[usize::from(largest > 0)] += 1;
        let more = heap.allocate(largest + 1);
        assert!(matches!(more, Err(Error::SizeLimit { .. })) || largest == 0, "{round}: {more:?}");
        if largest > 0 {
            let object = heap.allocate(largest).unwrap_or_else(|e| panic!("{round}: {e}"));
            fill(area, object, largest);
        } else {
            assert!(heap.allocate(8193).is_err());
        }
        area.check(p.participant).unwrap();
    }
    assert!(said[1] > 20, "{said:?}");
}

/// How long a refusal takes in an area that is full of objects.
fn refusal(limit: u64) -> Duration {
    let machine = HeapMachine::new();
    let p = start(&machine);
    let (_, heap) = p.create(&Options { limit, ..Options::default() });
    let (objects, _) = fill_up(&heap, 512);
    assert!(objects.len() as u64 * 512 > limit * 9 / 10, "{} of {limit}", objects.len() * 512);
    let mut times: Vec<Duration> = (0..101)
        .map(|_| {
            let started = Instant::now();
            assert!(heap.allocate(512).is_err());
            started.elapsed()
        })
        .collect();
    times.sort();
    times[50]
}

#[test]
fn a_refusal_takes_no_longer_in_a_large_area() {
    let small = refusal(1 << 20);
    let large = refusal(64 << 20);
    assert!(large < small * 8, "{large:?} in 64 MiB, {small:?} in one");
}

/// What others freed is found by the next but few who ask.
#[test]
fn after_a_refusal_what_others_free_is_found() {
    let machine = HeapMachine::new();
    let (p, q) = (start(&machine), start(&machine));
    let (area, heap) = p.create(&Options { limit: 8 << 20, ..Options::default() });
    let (_, theirs) = q.attach(area.handle().unwrap()).unwrap();
    let (objects, _) = fill_up(&heap, 512);
    for _ in 0..10 {
        assert!(heap.allocate(512).is_err());
    }
    for object in &objects[objects.len() - 20..] {
        free(&theirs, *object);
    }
    let until = Instant::now() + Duration::from_secs(20);
    while heap.allocate(512).is_err() {
        assert!(Instant::now() < until, "20 of {} objects are free", objects.len());
    }
}

fn segments(p: &Proc, options: Options, size: usize) -> (u32, u64, Error) {
    let (area, heap) = p.create(&options);
    let (_, refused) = fill_up(&heap, size);
    let stats = area.stats().unwrap();
    area.check(p.participant).unwrap();
    (stats.segments, stats.used, refused)
}

/// The limit lies between what two segments would have and what three would.
#[test]
fn a_limit_between_two_sizes_is_used_up_by_few_segments() {
    let machine = HeapMachine::new();
    let p = start(&machine);
    let limit = 7 << 20;
    let (segments, used, refused) = segments(&p, Options { limit, ..Options::default() }, 60_000);
    assert!(matches!(refused, Error::SizeLimit { .. }), "{refused}");
    assert!(segments <= 13, "{segments} segments");
    assert!(used > limit * 9 / 10, "{used} of {limit} bytes");
}

/// As where a process may write no longer files.
#[test]
fn where_objects_have_a_longest_size_segments_come_near_to_it() {
    let machine = HeapMachine::new();
    let p = start(&machine);
    machine.set_longest(Some(3 << 20));
    let limit = 40 << 20;
    let (segments, used, refused) = segments(&p, Options { limit, ..Options::default() }, 60_000);
    assert!(matches!(refused, Error::SizeLimit { .. }), "{refused}");
    assert!(segments <= 25, "{segments} segments");
    assert!(used > limit * 9 / 10, "{used} of {limit} bytes");
}

/// However small its segments are, an area leaves slots of the namespace to others.
#[test]
fn an_area_leaves_segments_to_others() {
    let machine = HeapMachine::new();
    let p = start(&machine);
    let options = Options { maximum: 64 << 10, ..Options::default() };
    let (of_one, _, refused) = segments(&p, options, 40_000);
    assert!(matches!(refused, Error::SegmentShare { slots: 512, .. }), "{refused}");
    assert!(refused.to_string().contains("512 segment slots"), "{refused}");
    assert!(of_one > 400, "{of_one}");
    let (of_other, _, _) = segments(&p, options, 40_000);
    assert!(of_other > 70, "{of_other}");
    p.create(&options);
}

/// What remains of a peak is the first segment and what the directory takes.
#[test]
fn a_peak_of_many_segments_leaves_a_short_one() {
    let machine = HeapMachine::new();
    let p = start(&machine);
    let options = Options { initial: 1 << 20, maximum: 4 << 20, ..Options::default() };
    let (area, heap) = p.create(&options);
    let objects: Vec<_> = (0..40).map(|_| heap.allocate(2 << 20).unwrap()).collect();
    assert!(area.stats().unwrap().segments > 17);
    for object in objects {
        free(&heap, object);
    }
    heap.trim().unwrap();
    let stats = area.stats().unwrap();
    assert!(stats.total <= (1 << 20) + (128 << 10), "{stats:?}");
    assert_eq!(stats.segments, 2);
    area.check(p.participant).unwrap();
}

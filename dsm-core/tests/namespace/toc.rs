//! The table of contents of a segment.

use std::ptr::NonNull;

use dsm_core::toc::{ALIGNMENT, Toc, TocEstimator};

#[repr(C, align(64))]
struct Area([u8; 8192]);

fn area() -> (Box<Area>, NonNull<u8>) {
    // Recycled memory is not zero.
    let mut area = Box::new(Area([0xaa; 8192]));
    let base = NonNull::from(&mut area.0).cast();
    (area, base)
}

#[test]
fn what_is_inserted_is_found_by_who_attaches() {
    let (_area, base) = area();
    // SAFETY: the area lives to the end of the test; likewise below.
    let toc = unsafe { Toc::create(0x600d, base, 8192) }.unwrap();
    let parts: Vec<_> = [100, 1, 640].map(|bytes| toc.allocate(bytes).unwrap()).into();
    for (key, part) in (7..).zip(&parts) {
        assert!(toc.insert(key, *part));
    }
    // SAFETY: see above.
    let other = unsafe { Toc::attach(0x600d, base, 8192) }.unwrap();
    for (key, part) in (7..).zip(&parts) {
        assert_eq!(other.lookup(key), Some(*part));
    }
    assert_eq!(other.lookup(10), None);
    assert!(!other.insert(8, parts[0]), "a key is entered once");
    assert_eq!(other.lookup(8), Some(parts[1]));
    // SAFETY: see above.
    assert!(unsafe { Toc::attach(0xbad, base, 8192) }.is_none(), "another's magic");
    // SAFETY: see above.
    assert!(unsafe { Toc::attach(0x600d, base, 4096) }.is_none(), "longer than what is mapped");
    // SAFETY: see above.
    assert!(unsafe { Toc::create(1, base, 16) }.is_none(), "no room for a header");
}

#[test]
fn an_offset_of_zero_is_an_address_like_any_other() {
    let (_area, base) = area();
    // SAFETY: the area lives to the end of the test.
    let toc = unsafe { Toc::create(1, base, 8192) }.unwrap();
    assert!(toc.insert(0, base));
    assert_eq!(toc.lookup(0), Some(base));
    let outside = NonNull::new(base.as_ptr().wrapping_sub(1)).unwrap();
    assert!(!toc.insert(1, outside));
}

#[test]
fn odd_sizes_stay_aligned_and_nothing_overlaps() {
    let (_area, base) = area();
    // An odd length: the end is rounded down.
    // SAFETY: the area lives to the end of the test.
    let toc = unsafe { Toc::create(1, base, 8000 + 13) }.unwrap();
    let mut lowest = base.as_ptr() as usize + 8013;
    let mut keys = 0;
    for bytes in [1, 63, 64, 65, 127, 3, 1000, 17] {
        let part = toc.allocate(bytes).unwrap().as_ptr() as usize;
        assert_eq!(part % ALIGNMENT, 0);
        assert!(part + bytes <= lowest);
        lowest = part;
        assert!(toc.insert(keys, NonNull::new(part as *mut u8).unwrap()));
        keys += 1;
    }
    while toc.insert(keys, base) {
        keys += 1;
    }
    assert!(toc.free_space() < 16);
    assert!(toc.allocate(1).is_none());
    assert!(toc.allocate(usize::MAX).is_none());
    for key in 0..keys {
        assert!(toc.lookup(key).is_some(), "entries and chunks share no byte");
    }
}

#[test]
fn an_estimate_is_enough_and_not_more() {
    let mut estimate = TocEstimator::new();
    let sizes = [1, 64, 65, 4000];
    sizes.iter().for_each(|bytes| {
        estimate.chunk(*bytes);
    });
    let bytes = estimate.keys(sizes.len()).bytes().unwrap();
    let (_area, base) = area();
    // SAFETY: the area lives to the end of the test.
    let toc = unsafe { Toc::create(1, base, bytes) }.unwrap();
    for (key, size) in (0..).zip(sizes) {
        let part = toc.allocate(size).unwrap();
        assert!(toc.insert(key, part));
    }
    assert!(toc.free_space() < ALIGNMENT);
    assert_eq!(TocEstimator::new().keys(usize::MAX).bytes(), None);
}

#[test]
fn threads_insert_while_others_look() {
    let (_area, base) = area();
    // SAFETY: the area lives to the end of the test, and the threads end before.
    let toc = unsafe { Toc::create(1, base, 8192) }.unwrap();
    std::thread::scope(|scope| {
        for thread in 0..4_u64 {
            scope.spawn(move || {
                for round in 0..20 {
                    let key = thread * 100 + round;
                    let part = toc.allocate(8).unwrap().cast::<u64>();
                    // SAFETY: given out to this thread alone.
                    unsafe { part.write(key) };
                    assert!(toc.insert(key, part.cast()));
                    for other in 0..400 {
                        if let Some(found) = toc.lookup(other) {
                            // SAFETY: written before it was inserted, never again.
                            assert_eq!(unsafe { found.cast::<u64>().read() }, other);
                        }
                    }
                }
            });
        }
    });
    assert!((0..4).all(|thread| (0..20).all(|round| toc.lookup(thread * 100 + round).is_some())));
}

#[test]
fn of_two_that_enter_a_key_at_once_one_is_told() {
    for _ in 0..200 {
        let (_area, base) = area();
        // SAFETY: the area lives to the end of the test, and the threads end before.
        let toc = unsafe { Toc::create(1, base, 8192) }.unwrap();
        let parts = [toc.allocate(1).unwrap(), toc.allocate(1).unwrap()];
        let places = parts.map(|part| part.as_ptr() as usize);
        let won: Vec<bool> = std::thread::scope(|scope| {
            let insert = |at: usize| toc.insert(5, NonNull::new(at as *mut u8).unwrap());
            let threads = places.map(|at| scope.spawn(move || insert(at)));
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert_eq!(won.iter().filter(|won| **won).count(), 1);
        let winner = won.iter().position(|won| *won).unwrap();
        assert_eq!(toc.lookup(5), Some(parts[winner]));
    }
}

//! Objects that change words; words that lie anywhere in the namespace.

use dsa_core::{AtomicDsaPointer, DsaPointer, Error, Flags, FreeError, Options};
use dsm_core::segment::Segment;
use sim::HeapMachine;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::atomic::{AtomicU64, AtomicUsize};

use crate::support::{A, H, Proc, free, start};

/// Zeroed words in the area.
fn cells(area: &'static A, heap: &H, count: usize) -> &'static [AtomicDsaPointer] {
    let at = heap.allocate_extended(8 * count, Flags::ZERO).unwrap();
    let at = area.resolve(at).unwrap().cast::<AtomicDsaPointer>();
    // SAFETY: zeroed, allocated for good.
    unsafe { std::slice::from_raw_parts(at.as_ptr(), count) }
}

/// Zeroed words at the end of a segment.
fn words<'s>(segment: &'s Segment<'_>, count: usize) -> &'s [AtomicDsaPointer] {
    let last = segment.len() - count * 8;
    // SAFETY: inside the segment.
    let at = unsafe { segment.base().add(last) }.cast::<AtomicDsaPointer>();
    // SAFETY: as above; only ever used as words, of which any bytes are a value.
    let words = unsafe { std::slice::from_raw_parts(at.as_ptr(), count) };
    words.iter().for_each(|word| word.store(DsaPointer::INVALID, SeqCst));
    words
}

fn move_between(
    heap: &H,
    from: &AtomicDsaPointer,
    to: &AtomicDsaPointer,
) -> Result<DsaPointer, Error> {
    // SAFETY: the tests use words for nothing else.
    unsafe { heap.move_between(from, to) }
}

fn free_from(heap: &H, word: &AtomicDsaPointer) -> Result<(), FreeError> {
    // SAFETY: the tests don't use the objects.
    unsafe { heap.free_from(word) }
}

const NONE: DsaPointer = DsaPointer::INVALID;

#[test]
fn what_a_word_names_is_taken_or_moved() {
    let machine = HeapMachine::new();
    let p = start(&machine);
    let (area, heap) = p.create(&Options::default());
    let cells = cells(area, &heap, 3);
    let outside = AtomicDsaPointer::default();
    for size in [8, 40, 3000, 20_000, 300_000] {
        for unpublished in [false, true] {
            let [from, to, other] = [&cells[0], &cells[1], &cells[2]];
            assert_eq!((heap.take(from), move_between(&heap, from, to)), (Ok(NONE), Ok(NONE)));
            let object = if unpublished {
                let object = heap.allocate_unpublished(size, 8, Flags::empty()).unwrap();
                from.store(object, SeqCst);
                object
            } else {
                heap.allocate_into(size, 8, Flags::empty(), from, |_| ()).unwrap()
            };
            heap.allocate_into(8, 8, Flags::empty(), other, |_| ()).unwrap();
            let there = other.load(SeqCst);
            assert_eq!(move_between(&heap, from, other), Err(Error::Occupied(there)));
            assert_eq!(move_between(&heap, from, from), Err(Error::Occupied(object)));
            assert_eq!(move_between(&heap, from, &outside), Err(Error::ForeignDestination));
            assert_eq!((from.load(SeqCst), other.load(SeqCst)), (object, there));
            assert_eq!(area.check(p.participant).unwrap().unpublished, u64::from(unpublished));
            assert_eq!(move_between(&heap, from, to), Ok(object));
            assert_eq!((from.load(SeqCst), to.load(SeqCst)), (NONE, object));
            assert_eq!(area.check(p.participant).unwrap().unpublished, 0);
            assert_eq!((heap.take(to), to.load(SeqCst)), (Ok(object), NONE));
            // A word of one's own may hold what is in hand.
            outside.store(object, SeqCst);
            assert_eq!(move_between(&heap, &outside, to), Err(Error::ForeignDestination));
            assert_eq!(heap.take(&outside), Ok(object));
            free(&heap, object);
            // What is no object can't be had, and stays where it is.
            from.store(object, SeqCst);
            assert_eq!(heap.take(from), Err(Error::InvalidPointer(object)));
            assert_eq!(move_between(&heap, from, to), Err(Error::InvalidPointer(object)));
            assert_eq!((from.swap(NONE, SeqCst), to.load(SeqCst)), (object, NONE));
            free_from(&heap, other).unwrap();
        }
    }
    assert_eq!(area.check(p.participant).unwrap().objects, 1);
}

/// Of this area's own, of another area's, of a segment's in the main region and of one that is an
/// object.
#[test]
fn words_lie_in_any_segment_of_the_namespace() {
    let machine = HeapMachine::new();
    let p = start(&machine);
    let (area, heap) = p.create(&Options::default());
    let (other, other_heap) = p.create(&Options::default());
    let (object, main) =
        (p.ns.create_object(4096, 4096).unwrap(), p.ns.create_segment(4096, 4096).unwrap());
    let all =
        [cells(area, &heap, 2), cells(other, &other_heap, 2), words(&object, 2), words(&main, 2)];
    for size in [40, 3000, 20_000, 300_000] {
        for (first, second) in all.iter().flat_map(|first| all.iter().map(move |s| (first, s))) {
            let (from, to) = (&first[0], &second[1]);
            let made = heap.allocate_into(size, 8, Flags::empty(), from, |_| ()).unwrap();
            assert_eq!(area.check(p.participant).unwrap().unpublished, 0);
            assert_eq!(heap.publish(made, from), Err(Error::InvalidPointer(made)));
            assert_eq!(move_between(&heap, from, to), Ok(made));
            assert_eq!((from.load(SeqCst), to.load(SeqCst)), (NONE, made));
            free_from(&heap, to).unwrap();
            assert_eq!((to.load(SeqCst), area.check(p.participant).unwrap().objects), (NONE, 1));
        }
    }
    // A segment that this process has let go of is none of its words' any more.
    let gone = words(&object, 1)[0].as_atomic() as *const AtomicU64;
    assert!(p.ns.place_of(gone.cast()).is_some());
    drop(object);
    assert!(p.ns.place_of(gone.cast()).is_none());
}

/// Offsets of the intent in the control block, as docs/LAYOUT.md has them.
const INTENT: [usize; 5] = [1216, 1224, 1232, 1240, 1248];

/// What a process leaves that dies as it publishes in `word`, at the end of a segment, after it has
/// stored the pointer there.
fn half_published(p: &Proc, area: &A, heap: &H, size: usize, segment: &Segment<'_>) -> DsaPointer {
    let object = heap.allocate_unpublished(size, 8, Flags::empty()).unwrap();
    words(segment, 1)[0].store(object, SeqCst);
    let base = area.resolve(DsaPointer::from_raw(1 << 50)).unwrap();
    let offset = segment.len() as u64 - 8;
    let intent = [object.raw(), 0, 0, segment.handle().get(), offset];
    for (at, word) in INTENT.into_iter().zip(intent).rev() {
        // SAFETY: inside the control block.
        let at = unsafe { base.add(at) };
        // SAFETY: a word of it.
        unsafe { at.cast::<AtomicU64>().as_ref() }.store(word, SeqCst);
    }
    p.kill();
    object
}

#[test]
fn what_cannot_be_decided_now_is_left_for_later() {
    for size in [40, 3000, 20_000] {
        let machine = HeapMachine::new();
        let (p, q) = (start(&machine), start(&machine));
        let (area, heap) = p.create(&Options::default());
        let (theirs, their_heap) = q.attach(area.handle().unwrap()).unwrap();
        let own = cells(theirs, &their_heap, 1);
        let segment = p.ns.create_object(4096, 4096).unwrap();
        p.ns.pin_segment(segment.handle()).unwrap();
        let object = half_published(&p, area, &heap, size, &segment);
        let unpublished = || theirs.check(q.participant).unwrap().unpublished;
        // Nobody has decided, and nothing that is done meanwhile does.
        for _ in 0..3 {
            machine.fail_next_attach();
            assert!(matches!(their_heap.take(&own[0]), Err(Error::Namespace(_))));
            their_heap.maintain().unwrap();
            let others: Vec<_> = (0..50).map(|_| their_heap.allocate(size).unwrap()).collect();
            assert!(!others.contains(&object), "it was given to somebody else");
            others.into_iter().for_each(|other| free(&their_heap, other));
            assert_eq!(unpublished(), 1);
        }
        // Now the segment can be mapped.
        assert_eq!(their_heap.take(&own[0]), Ok(NONE));
        assert_eq!(unpublished(), 0);
        their_heap.maintain().unwrap();
        free(&their_heap, object);
        assert_eq!(theirs.check(q.participant).unwrap().objects, 1);
    }
}

#[test]
fn what_is_published_in_a_segment_that_is_gone_is_free() {
    for size in [40, 3000, 20_000] {
        let machine = HeapMachine::new();
        let (p, q) = (start(&machine), start(&machine));
        let (area, heap) = p.create(&Options::default());
        let (theirs, their_heap) = q.attach(area.handle().unwrap()).unwrap();
        let own = cells(theirs, &their_heap, 1);
        let segment = p.ns.create_object(4096, 4096).unwrap();
        let object = half_published(&p, area, &heap, size, &segment);
        q.ns.reap().unwrap();
        assert_eq!(their_heap.take(&own[0]), Ok(NONE));
        their_heap.maintain().unwrap();
        let report = theirs.check(q.participant).unwrap();
        assert_eq!((report.unpublished, report.objects), (0, 1), "{object:?} of {size}");
    }
}

#[test]
fn each_object_goes_to_one_of_those_who_want_it() {
    const ROUNDS: usize = 2000;
    let machine = HeapMachine::new();
    let p = start(&machine);
    let (area, heap) = p.create(&Options::default());
    let cells = cells(area, &heap, 4);
    let first = area.pointer_to(cells.as_ptr().cast()).unwrap();
    let (taken, done) = (AtomicUsize::new(0), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for who in 0..3 {
            let (machine, taken, done) = (&machine, &taken, &done);
            scope.spawn(move || {
                let q = start(machine);
                let (area, heap) = q.attach(area.handle().unwrap()).unwrap();
                let at = |index: usize| {
                    // SAFETY: the cells, as this process has them.
                    let cell = unsafe { area.as_ref(first.add(index as u64 * 8).cast()) };
                    let cell: &AtomicDsaPointer = cell.unwrap();
                    cell
                };
                while done.load(SeqCst) == 0 || (0..4).any(|i| at(i).load(SeqCst).is_valid()) {
                    // One passes on, the others take.
                    let object = if who == 0 {
                        let _ = move_between(&heap, at(0), at(2));
                        let _ = move_between(&heap, at(1), at(3));
                        NONE
                    } else {
                        heap.take(at(who + 1)).unwrap()
                    };
                    let either = if who == 0 { NONE } else { heap.take(at(who - 1)).unwrap() };
                    for object in [object, either].into_iter().filter(|object| object.is_valid()) {
                        // A second owner's would be a double free.
                        free(&heap, object);
                        taken.fetch_add(1, SeqCst);
                    }
                }
            });
        }
        for round in 0..ROUNDS {
            let cell = &cells[round % 2];
            while cell.load(SeqCst).is_valid() {
                std::thread::yield_now();
            }
            heap.allocate_into(8 + round % 100, 8, Flags::empty(), cell, |_| ()).unwrap();
        }
        done.store(1, SeqCst);
    });
    assert_eq!(taken.load(SeqCst), ROUNDS);
    assert_eq!(area.check(p.participant).unwrap().objects, 1);
}

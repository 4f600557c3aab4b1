//! Objects that a kill can't leak.

use dsa_core::{AtomicDsaPointer, DsaPointer, Error, Flags, FreeError, Options};
use sim::HeapMachine;
use std::sync::atomic::Ordering::SeqCst;

use crate::support::{A, H, copy_out, free, start};

/// A cell in the area to publish into.
fn cell(area: &'static A, heap: &H) -> &'static AtomicDsaPointer {
    let at = heap.allocate_extended(8, Flags::ZERO).unwrap();
    // SAFETY: zeroed, allocated for good.
    unsafe { area.as_ref(at.cast::<AtomicDsaPointer>()) }.unwrap()
}

#[test]
fn an_object_is_born_published_or_not_at_all() {
    let machine = HeapMachine::new();
    let p = start(&machine);
    let (area, heap) = p.create(&Options::default());
    let dest = cell(area, &heap);
    for size in [40, 3000, 8000, 100_000] {
        let object = heap
            .allocate_into(size, 8, Flags::ZERO, dest, |memory| {
                // SAFETY: `size` bytes of a new object.
                unsafe { memory.cast::<u64>().write(size as u64) };
            })
            .unwrap();
        assert_eq!(dest.load(SeqCst), object);
        let mut data = [0; 16];
        copy_out(area, object, 0, &mut data).unwrap();
        assert_eq!(data[..8], (size as u64).to_ne_bytes());
        assert_eq!(data[8..], [0; 8]);
        assert_eq!(area.check(p.participant).unwrap().unpublished, 0);
        assert_eq!(heap.publish(object, dest), Err(Error::InvalidPointer(object)));
        free(&heap, object);
    }
    let outside = AtomicDsaPointer::default();
    assert_eq!(
        heap.allocate_into(8, 8, Flags::empty(), &outside, |_| {}),
        Err(Error::ForeignDestination)
    );
    assert_eq!(heap.allocate_into(8, 8, Flags::NO_OOM, &outside, |_| {}), Ok(DsaPointer::INVALID));
    assert_eq!(area.check(p.participant).unwrap().objects, 1);
}

#[test]
fn an_initialiser_that_panics_leaks_nothing() {
    let machine = HeapMachine::new();
    let p = start(&machine);
    let (area, heap) = p.create(&Options::default());
    let dest = cell(area, &heap);
    let unwound = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let _ = heap.allocate_into(100, 8, Flags::empty(), dest, |_| panic!("no"));
    }));
    assert!(unwound.is_err());
    assert_eq!(area.check(p.participant).unwrap().objects, 1);
    assert!(!dest.load(SeqCst).is_valid());
}

#[test]
fn recovery_frees_what_was_not_published() {
    for size in [40, 3000, 8000, 100_000] {
        let machine = HeapMachine::new();
        let (p, q) = (start(&machine), start(&machine));
        let (area, heap) = p.create(&Options::default());
        let (theirs, their_heap) = q.attach(area.handle().unwrap()).unwrap();
        let dest = cell(area, &heap);
        let lost: Vec<_> =
            (0..5).map(|_| heap.allocate_unpublished(size, 8, Flags::empty()).unwrap()).collect();
        let kept = heap.allocate_into(size, 8, Flags::empty(), dest, |_| {}).unwrap();
        let settled = heap.allocate_unpublished(size, 8, Flags::empty()).unwrap();
        their_heap.settle(settled).unwrap();
        assert_eq!(theirs.check(q.participant).unwrap().unpublished, 5);
        their_heap.maintain().unwrap();
        assert_eq!(theirs.check(q.participant).unwrap().unpublished, 5, "it lives");
        p.kill();
        their_heap.maintain().unwrap();
        let report = theirs.check(q.participant).unwrap();
        assert_eq!((report.unpublished, report.objects), (0, 3), "size {size}");
        for object in lost {
            // SAFETY: it must not be freed at all.
            assert!(unsafe { their_heap.free(object) }.is_err());
        }
        free(&their_heap, kept);
        free(&their_heap, settled);
        assert_eq!(theirs.check(q.participant).unwrap().objects, 1);
    }
}

#[test]
fn a_kill_between_the_pointer_and_the_byte_is_completed() {
    // The victim of a kill right after the store into the destination is what is left when the
    // destination holds the pointer and the header names it, but the object is unpublished: made
    // here by publishing into a cell whose object is then put back to unpublished by hand.
    for (size, truth) in [(40, 2u8), (3000, 2)] {
        let machine = HeapMachine::new();
        let (p, q) = (start(&machine), start(&machine));
        let (area, heap) = p.create(&Options::default());
        let (theirs, their_heap) = q.attach(area.handle().unwrap()).unwrap();
        let dest = cell(area, &heap);
        let object = heap.allocate_into(size, 8, Flags::empty(), dest, |_| {}).unwrap();
        // Find the truth byte: the one that turns to 0 by freeing.
        let base = area.resolve(DsaPointer::from_raw(1 << 50)).unwrap();
        // SAFETY: the first segment's 64 KiB.
        let bytes = || unsafe { std::slice::from_raw_parts(base.as_ptr(), 65536) }.to_vec();
        let before = bytes();
        free(&heap, object);
        let after = bytes();
        let at = (0..65536).find(|i| before[*i] == 1 && after[*i] == 0).unwrap();
        // SAFETY: inside the first segment.
        let byte = unsafe { base.add(at) };
        // SAFETY: the object's truth byte.
        unsafe { byte.write(truth) };
        p.kill();
        their_heap.maintain().unwrap();
        let report = theirs.check(q.participant).unwrap();
        assert_eq!((report.objects, report.unpublished), (2, 0), "size {size}");
        free(&their_heap, object);
        // SAFETY: it must not be freed at all.
        let again = unsafe { their_heap.free(object) };
        // Its slab may be gone, too.
        let refused = [FreeError::DoubleFree(object), FreeError::InvalidPointer(object)];
        assert!(again.is_err_and(|e| refused.contains(&e)), "{again:?}");
    }
}

/// Frees what `dest` names.
fn free_from(heap: &H, dest: &AtomicDsaPointer) -> Result<(), FreeError> {
    // SAFETY: the tests don't use the objects.
    unsafe { heap.free_from(dest) }
}

#[test]
fn what_a_word_names_is_freed_with_the_word() {
    let machine = HeapMachine::new();
    let (p, q) = (start(&machine), start(&machine));
    let (area, heap) = p.create(&Options::default());
    let (theirs, their_heap) = q.attach(area.handle().unwrap()).unwrap();
    let dest = cell(area, &heap);
    let there = theirs
        .pointer_to(
            theirs
                .resolve(area.pointer_to(std::ptr::from_ref(dest).cast()).unwrap())
                .unwrap()
                .as_ptr(),
        )
        .unwrap();
    // SAFETY: the cell.
    let their_dest = unsafe { theirs.as_ref(there.cast::<AtomicDsaPointer>()) }.unwrap();
    for size in [8, 40, 3000, 8000, 100_000, 1 << 20] {
        for remote in [false, true] {
            let object = heap.allocate_into(size, 8, Flags::empty(), dest, |_| {}).unwrap();
            let freed =
                if remote { free_from(&their_heap, their_dest) } else { free_from(&heap, dest) };
            assert_eq!((freed, dest.load(SeqCst)), (Ok(()), DsaPointer::INVALID), "{size}");
            assert_eq!(area.check(p.participant).unwrap().objects, 1);
            assert_eq!(free_from(&heap, dest), Ok(()));
            dest.store(object, SeqCst);
            let twice = free_from(&heap, dest);
            // A segment of its own is gone.
            let gone = Err(FreeError::InvalidPointer(object));
            assert!(twice == Err(FreeError::DoubleFree(object)) || size > 1000 && twice == gone);
            assert_eq!(dest.load(SeqCst), object, "a refusal changes nothing");
            dest.store(DsaPointer::INVALID, SeqCst);
        }
        // Unpublished, by a word of one's own.
        let object = heap.allocate_unpublished(size, 8, Flags::empty()).unwrap();
        dest.store(object, SeqCst);
        assert_eq!(free_from(&their_heap, their_dest), Ok(()));
        assert_eq!(area.check(p.participant).unwrap().objects, 1);
    }
    let object = heap.allocate(100).unwrap();
    dest.store(object.add(8), SeqCst);
    assert_eq!(free_from(&heap, dest), Err(FreeError::InvalidPointer(object.add(8))));
    let outside = AtomicDsaPointer::new(object);
    assert_eq!(free_from(&heap, &outside), Err(FreeError::Refused(Error::ForeignDestination)));
    free(&heap, object);
    // The slab's memory is found again.
    dest.store(heap.allocate(100).unwrap(), SeqCst);
    let first = dest.load(SeqCst);
    assert_eq!(free_from(&heap, dest), Ok(()));
    assert_eq!(heap.allocate(100), Ok(first));
}

//! Misuse that must not cost more than an error: local state given to the wrong owner, a heap
//! released with something unfinished.

use dsa_core::{Area, AreaLocal, Error, Flags, HeapLocal, Options};
use dsm_core::lock::RawLock;
use dsm_core::lock::rw::RwLock;
use dsm_core::lock::spin::SpinLock;
use sim::HeapMachine;
use testkit::lock::BitLock;

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

#[test]
fn hints_are_of_one_attachment_even_if_chance_repeats_itself() {
    let machine = HeapMachine::new();
    let p = start(&machine);
    let local = HeapLocal::new();
    let pointers = [0, 1].map(|round| {
        // What an area draws when it is made: a handle, then its number.
        machine.force_entropy(&[(round + 1) << 20, 77]);
        let area: A = Area::create(p.ns, &Options::default(), leak(AreaLocal::new())).unwrap();
        let heap = area.heap(p.participant, &local).unwrap();
        let first = heap.allocate(64).unwrap();
        assert_eq!(area.size_of_object(first).unwrap(), 64, "round {round}");
        area.check(p.participant).unwrap();
        first
        // The area goes, and with it the memory that the hints point to.
    });
    assert_eq!(pointers[0], pointers[1], "the two are alike, or this proves nothing");
}

#[test]
fn participants_of_another_namespace_are_refused() {
    let (here, there) = (HeapMachine::new(), HeapMachine::new());
    let (p, q) = (start(&here), start(&there));
    let (area, heap) = p.create(&Options::default());
    let stranger = q.participant;
    assert_eq!(stranger.id(), p.participant.id(), "by its number it could be ours");
    let refused = |error: Error| assert_eq!(error, Error::ForeignParticipant);
    refused(area.heap(stranger, leak(HeapLocal::new())).err().unwrap());
    refused(area.check(stranger).err().unwrap());
    let place = p.ns.create_segment(200_000, 200_000).unwrap();
    let local = AreaLocal::new();
    // SAFETY: a new segment, used for nothing else.
    let placed =
        unsafe { A::create_in_place(leak(place), 0..200_000, &Options::default(), leak(local)) };
    // SAFETY: nobody uses the area.
    refused(unsafe { placed.unwrap().destroy_in_place(stranger) }.err().unwrap());
    assert_eq!(area.size_of_object(heap.allocate(64).unwrap()).unwrap(), 64);
}

#[test]
fn an_area_with_locks_of_another_kind_is_refused() {
    // All of them correct, and of one length: of two on one area neither would exclude the other.
    let machine = HeapMachine::new();
    let (p, q) = (start(&machine), start(&machine));
    let (area, _) = p.create(&Options::default());
    let handle = area.handle().unwrap();
    let refused = Area::<SpinLock>::attach(q.ns, handle, leak(AreaLocal::new())).err().unwrap();
    assert_eq!(refused, Error::LockKind(RwLock::IDENTITY, <SpinLock as RawLock>::IDENTITY));
    let text = refused.to_string();
    assert!(text.contains("`rwlock`") && text.contains("`spinlk`"), "{text}");
    q.attach(handle).unwrap();

    let place = p.ns.create_segment(200_000, 200_000).unwrap();
    let seen = q.ns.attach_segment(place.handle()).unwrap().unwrap();
    let (place, seen) = (leak(place), leak(seen));
    // SAFETY: a new segment, used for nothing else.
    let placed = unsafe {
        Area::<BitLock<1>>::create_in_place(
            place,
            0..200_000,
            &Options::default(),
            leak(AreaLocal::new()),
        )
    };
    let _placed = placed.unwrap();
    // SAFETY: the same place.
    let refused =
        unsafe { Area::<BitLock<2>>::attach_in_place(seen, 0..200_000, leak(AreaLocal::new())) };
    let kinds = Error::LockKind(BitLock::<1>::IDENTITY, BitLock::<2>::IDENTITY);
    assert_eq!(refused.err(), Some(kinds));
    // SAFETY: the same place.
    let attached =
        unsafe { Area::<BitLock<1>>::attach_in_place(seen, 0..200_000, leak(AreaLocal::new())) };
    attached.unwrap();
}

//! Segments: PostgreSQL's regressions of dsm, and what is ours besides.

use super::{assert_empty, config, join, join_as};
use dsm_core::error::ErrorKind;
use dsm_core::handle::SegmentHandle;
use dsm_core::namespace::{Error, NamespaceConfig};
use dsm_core::provider::RangeOwner;
use dsm_core::segment::Segment;
use sim::HeapMachine;

#[test]
fn a_dead_slot_does_not_hide_those_behind_it() {
    // Attach A while an unrelated slot is moribund.
    let machine = HeapMachine::new();
    let (one, two) = (machine.process(), machine.process());
    let (a, b) = (one.local(), two.local());
    let (ns, other) = (join(&one, &a), join(&two, &b));
    let early = ns.create_segment(100, 0).unwrap();
    let late = ns.create_segment(200, 0).unwrap();
    let handle = late.handle();
    // The object can't be removed: the slot stays retired.
    machine.fail_next_destroy();
    let gone = early.handle();
    drop(early);
    assert!(other.attach_segment(gone).unwrap().is_none());
    let found = other.attach_segment(handle).unwrap().unwrap();
    assert_eq!(found.len(), 200);
    drop((found, late));
    // The next reaper removes what could not be removed then.
    assert_eq!(machine.objects().len(), 2);
    other.reap().unwrap();
    assert_eq!(machine.objects().len(), 1);
    ns.leave(&one).unwrap();
    other.leave(&two).unwrap();
    assert_empty(&machine);
}

#[test]
fn a_stale_handle_never_names_the_slots_next_tenant() {
    let machine = HeapMachine::new();
    let process = machine.process();
    let local = process.local();
    let ns = join(&process, &local);
    let first = ns.create_segment(100, 0).unwrap();
    let stale = first.handle();
    drop(first);
    let second = ns.create_segment(100, 0).unwrap();
    assert_eq!(second.handle().slot(), stale.slot(), "the slot is used again");
    assert_ne!(second.handle(), stale);
    assert!(ns.attach_segment(stale).unwrap().is_none());
    assert!(ns.find_mapping(stale).is_none());
    assert_eq!(ns.pin_segment(stale), Err(Error::NoSuchSegment(stale)));
    assert_eq!(ns.unpin_segment(stale), Err(Error::NoSuchSegment(stale)));
    assert_eq!(ns.attached_processes(stale), None);
    assert_eq!(ns.attached_processes(second.handle()), Some(1));
    // A slot beyond the last, a main region that is not there.
    for raw in [u64::MAX, (1 << 20) + 1, (1 << 20) + 2 * 4095] {
        let made_up = SegmentHandle::from_raw(raw).unwrap();
        assert!(ns.attach_segment(made_up).unwrap().is_none());
        assert!(ns.find_mapping(made_up).is_none());
    }
}

#[test]
fn at_the_limit_is_an_error_that_leaks_nothing_and_passes() {
    for main_region in [0, 1 << 20] {
        let machine = HeapMachine::new();
        let process = machine.process();
        let local = process.local();
        let config = NamespaceConfig { main_region, ..config() };
        let (ns, _) = join_as(&process, &local, &config);
        for _ in 0..3 {
            let all: Vec<Segment<'_>> =
                (0..16).map(|_| ns.create_segment(5000, 5000).unwrap()).collect();
            let objects = machine.objects().len();
            for _ in 0..3 {
                let error = ns.create_segment(1, 1).err();
                assert_eq!(error, Some(Error::TooManySegments(16)));
                assert!(error.unwrap().to_string().contains("`max_segments`"));
            }
            assert_eq!(machine.objects().len(), objects);
            // The lock was let go of, and freed slots are found again, in any order.
            let mut all = all;
            all.swap(3, 11);
            drop(all.remove(3));
            all.push(ns.create_segment(7, 7).unwrap());
            drop(all);
            assert_eq!(machine.objects().len(), 1);
        }
        ns.leave(&process).unwrap();
        assert_empty(&machine);
    }
}

#[test]
fn names_that_exist_already_are_drawn_again() {
    let machine = HeapMachine::new();
    let process = machine.process();
    let local = process.local();
    let ns = join(&process, &local);
    let first = ns.create_segment(10, 0).unwrap();
    // An object of the next slot's name, which no slot knows of.
    let raw = 0xabcd_ef01_2345_0000_u64;
    let taken = SegmentHandle::compose(raw, 1, false).unwrap();
    let stray = machine.process();
    let (mapping, _) = dsm_core::provider::SegmentProvider::create(&stray, taken, 64, 0).unwrap();
    machine.force_entropy(&[raw, raw, raw]);
    let second = ns.create_segment(10, 0).unwrap();
    assert_eq!(second.handle().slot(), 1);
    assert_ne!(second.handle(), taken);
    drop((first, second));
    assert_eq!(machine.objects().len(), 2, "the stray is not ours to remove");
    // SAFETY: mapped above, used by nobody.
    unsafe { dsm_core::provider::SegmentProvider::detach(&stray, mapping) };
}

#[test]
fn a_generator_of_zeros_is_an_error_and_one_zero_is_skipped() {
    let machine = HeapMachine::new();
    let process = machine.process();
    let local = process.local();
    let ns = join(&process, &local);
    machine.force_entropy(&[0]);
    let segment = ns.create_segment(10, 0).unwrap();
    assert_ne!(segment.handle().get() >> 13, 0);
    machine.force_entropy(&[0; 16]);
    assert_eq!(ns.create_segment(10, 0).err(), Some(Error::Entropy));
    drop(segment);
    ns.leave(&process).unwrap();
    assert_empty(&machine);
}

#[test]
fn two_starts_draw_different_handles() {
    let mut seen = std::collections::BTreeSet::new();
    let machine = HeapMachine::new();
    for _ in 0..20 {
        let process = machine.process();
        let local = process.local();
        let config = NamespaceConfig { main_region: 1 << 16, ..config() };
        let (ns, _) = join_as(&process, &local, &config);
        let (small, object) = (ns.create_segment(10, 0), ns.create_object(10, 0));
        assert!(seen.insert(small.unwrap().handle().get() >> 13));
        assert!(seen.insert(object.unwrap().handle().get() >> 13));
        ns.leave(&process).unwrap();
    }
    assert_empty(&machine);
}

#[test]
fn the_second_handle_of_a_process_is_to_the_same_mapping() {
    let machine = HeapMachine::new();
    let process = machine.process();
    let local = process.local();
    let ns = join(&process, &local);
    let first = ns.create_segment(3 * 4096, 4096).unwrap();
    let handle = first.handle();
    let mappings = process.mapped();
    let second = ns.attach_segment(handle).unwrap().unwrap();
    let third = ns.find_mapping(handle).unwrap();
    assert_eq!((first.base(), first.len()), (third.base(), third.len()));
    assert_eq!(second.base(), third.base());
    assert_eq!(process.mapped(), mappings);
    assert_eq!(ns.attached_processes(handle), Some(1));
    let raw = first.into_raw();
    drop((second, third));
    assert!(ns.find_mapping(handle).is_some());
    // SAFETY: taken back once.
    drop(unsafe { Segment::from_raw(&ns, raw) });
    assert!(ns.find_mapping(handle).is_none());
    assert!(ns.attach_segment(handle).unwrap().is_none());
    assert_eq!(process.mapped(), mappings - 1);
}

#[test]
fn pins_are_counted_once_and_last() {
    let machine = HeapMachine::new();
    let (one, two) = (machine.process(), machine.process());
    let (a, b) = (one.local(), two.local());
    let (ns, other) = (join(&one, &a), join(&two, &b));
    let segment = ns.create_segment(100, 0).unwrap();
    let handle = segment.handle();
    assert_eq!(ns.unpin_segment(handle), Err(Error::Pinned(false)));
    ns.pin_segment(handle).unwrap();
    assert_eq!(other.pin_segment(handle), Err(Error::Pinned(true)));
    drop(segment);
    assert_eq!(other.attached_processes(handle), Some(0));
    drop(other.attach_segment(handle).unwrap().unwrap());
    // By handle, from a process that never mapped it.
    other.unpin_segment(handle).unwrap();
    assert_eq!(ns.attached_processes(handle), None);
    assert_eq!(machine.objects().len(), 1);
}

#[test]
fn a_pinned_mapping_stays_until_the_process_leaves() {
    let machine = HeapMachine::new();
    let (one, two) = (machine.process(), machine.process());
    let (a, b) = (one.local(), two.local());
    let (ns, other) = (join(&one, &a), join(&two, &b));
    let segment = ns.create_segment(100, 0).unwrap();
    let handle = segment.handle();
    segment.pin_mapping();
    drop(segment);
    assert!(ns.find_mapping(handle).is_some());
    assert_eq!(other.attached_processes(handle), Some(1));
    // SAFETY: no handle is in use.
    assert!(unsafe { ns.unpin_mapping(handle) });
    assert_eq!(other.attached_processes(handle), None);
    let segment = ns.create_segment(100, 0).unwrap();
    let handle = segment.handle();
    segment.pin_mapping();
    drop(segment);
    ns.leave(&one).unwrap();
    assert_eq!(other.attached_processes(handle), None);
    other.leave(&two).unwrap();
    assert_empty(&machine);
}

#[test]
fn children_go_with_the_segment_they_are_pinned_under() {
    let machine = HeapMachine::new();
    let (one, two) = (machine.process(), machine.process());
    let (a, b) = (one.local(), two.local());
    let (ns, other) = (join(&one, &a), join(&two, &b));
    let parent = ns.create_segment(100, 0).unwrap();
    let child = ns.create_segment(100, 0).unwrap();
    let grandchild = ns.create_segment(100, 0).unwrap();
    let used = ns.create_segment(100, 0).unwrap();
    let ended_early = ns.create_segment(100, 0).unwrap();
    let [p, c, g, u, e] =
        [&parent, &child, &grandchild, &used, &ended_early].map(|segment| segment.handle());
    ns.pin_segment_under(c, p).unwrap();
    ns.pin_segment_under(g, c).unwrap();
    ns.pin_segment_under(u, p).unwrap();
    ns.pin_segment_under(e, p).unwrap();
    assert_eq!(ns.pin_segment_under(c, p), Err(Error::Pinned(true)));
    drop((child, grandchild, ended_early));
    ns.unpin_segment(e).unwrap();
    assert_eq!(ns.attached_processes(e), None);
    assert_eq!(machine.objects().len(), 5);
    assert_eq!(other.attached_processes(g), Some(0));
    drop(parent);
    assert_eq!(machine.objects().len(), 2, "the one in use stays to its last detach");
    assert_eq!(ns.pin_segment_under(u, p), Err(Error::NoSuchSegment(p)));
    drop(used);
    assert_eq!(machine.objects().len(), 1);

    // The same when the last process that has the parent is killed.
    let parent = ns.create_segment(100, 0).unwrap();
    let child = ns.create_segment(100, 0).unwrap();
    ns.pin_segment_under(child.handle(), parent.handle()).unwrap();
    drop(child);
    one.kill();
    drop(parent);
    other.reap().unwrap();
    assert_eq!(machine.objects().len(), 1);
    other.leave(&two).unwrap();
    assert_eq!(machine.objects().len(), 0);
}

#[test]
fn a_name_removed_from_outside_is_no_obstacle_to_detaching() {
    let machine = HeapMachine::new();
    let (one, two) = (machine.process(), machine.process());
    let (a, b) = (one.local(), two.local());
    let (ns, other) = (join(&one, &a), join(&two, &b));
    let segment = ns.create_segment(100, 0).unwrap();
    let handle = segment.handle();
    assert!(machine.unlink(handle));
    let error = other.attach_segment(handle).err();
    assert!(matches!(error, Some(Error::Provider(f)) if f.kind == ErrorKind::NotFound));
    assert_eq!(other.attached_processes(handle), Some(1), "the failed attach took its bit back");
    drop(segment);
    assert_eq!(other.attached_processes(handle), None);
}

#[test]
fn another_object_under_the_name_is_neither_mapped_nor_removed() {
    let machine = HeapMachine::new();
    let (one, two) = (machine.process(), machine.process());
    let (a, b) = (one.local(), two.local());
    let (ns, other) = (join(&one, &a), join(&two, &b));
    let segment = ns.create_segment(100, 0).unwrap();
    let handle = segment.handle();
    machine.unlink(handle);
    let thief = machine.process();
    dsm_core::provider::SegmentProvider::create(&thief, handle, 100, 0).unwrap();
    let error = other.attach_segment(handle).err();
    assert!(matches!(error, Some(Error::Provider(f)) if f.kind == ErrorKind::Foreign));
    drop(segment);
    assert_eq!(ns.attached_processes(handle), None);
    assert_eq!(machine.objects().len(), 2, "the thief's object is not ours to remove");
}

#[test]
fn failed_allocations_are_errors_that_leave_nothing() {
    let machine = HeapMachine::new();
    let process = machine.process();
    let local = process.local();
    let ns = join(&process, &local);
    let (objects, used) = (machine.objects().len(), machine.used());
    machine.set_capacity(Some(used + 8192));
    let error = ns.create_segment(1 << 20, 1 << 20).err();
    let Some(Error::Provider(failure)) = error else { panic!("{error:?}") };
    assert_eq!((failure.kind, failure.available), (ErrorKind::NoSpace, 8192));
    assert_eq!((machine.objects().len(), machine.used()), (objects, used));
    // Reserved step by step, to the end of what there is.
    let segment = ns.create_segment(1 << 20, 4096).unwrap();
    assert_eq!(segment.reserved(), 4096);
    segment.reserve(4096..8192).unwrap();
    segment.reserve(0..8192).unwrap();
    assert!(segment.reserve(8192..8193).is_err());
    assert_eq!(segment.reserved(), 8192);
    assert_eq!(segment.reserve(0..(1 << 20) + 1), Err(Error::InvalidSize((1 << 20) + 1)));
    drop(segment);
    machine.fail_allocation(0, ErrorKind::NoMemory);
    assert!(ns.create_segment(10, 10).is_err());
    assert_eq!(ns.create_segment(0, 0).err(), Some(Error::InvalidSize(0)));
    assert!(matches!(ns.create_segment(usize::MAX, 0).err(), Some(Error::InvalidSize(_))));
    ns.leave(&process).unwrap();
    assert_empty(&machine);
}

#[test]
fn recycled_memory_is_not_zero_and_that_is_fine() {
    let machine = HeapMachine::new();
    machine.fill_new(0xaa);
    let process = machine.process();
    let local = process.local();
    let config = NamespaceConfig { main_region: 1 << 16, ..config() };
    let (ns, _) = join_as(&process, &local, &config);
    let object = ns.create_object(100, 100).unwrap();
    // SAFETY: mapped, used by nobody else.
    assert_eq!(unsafe { object.base().read() }, 0xaa);
    for _ in 0..40 {
        let segment = ns.create_segment(5000, 5000).unwrap();
        assert!(segment.handle().is_main_region());
        // SAFETY: mapped, 5000 bytes, used by nobody else.
        unsafe { segment.base().write_bytes(0xaa, 5000) };
    }
    assert_eq!(ns.main_region(), (1 << 16, 0));
    drop(object);
    ns.leave(&process).unwrap();
    assert_empty(&machine);
}

#[test]
fn the_main_region_is_shared_fills_up_and_is_found_again() {
    let machine = HeapMachine::new();
    let (one, two) = (machine.process(), machine.process());
    let (a, b) = (one.local(), two.local());
    let config = NamespaceConfig { main_region: 8 * 4096, ..config() };
    let (ns, _) = join_as(&one, &a, &config);
    let (other, _) = join_as(&two, &b, &config);
    let first = ns.create_segment(3 * 4096, 0).unwrap();
    let second = ns.create_segment(3 * 4096, 0).unwrap();
    let third = ns.create_segment(3 * 4096, 0).unwrap();
    assert_eq!(
        [&first, &second, &third].map(|segment| segment.handle().is_main_region()),
        [true, true, false]
    );
    let seen = other.attach_segment(second.handle()).unwrap().unwrap();
    // SAFETY: mapped by both, at the same bytes of one object.
    unsafe { second.base().cast::<u64>().write(42) };
    // SAFETY: written above.
    assert_eq!(unsafe { seen.base().cast::<u64>().read() }, 42);
    let kept = second.handle();
    drop(second);
    assert_eq!(ns.main_region().1, 6 * 4096);
    assert!(ns.attach_segment(kept).unwrap().is_some());
    drop(seen);
    assert!(ns.attach_segment(kept).unwrap().is_none());
    drop((first, third));
    let all = ns.create_segment(8 * 4096, 0).unwrap();
    assert!(all.handle().is_main_region());
    // A killed process's pages come back.
    two.kill();
    one.kill();
    drop(all);
    let next = machine.process();
    let local = next.local();
    let (ns, _) = join_as(&next, &local, &config);
    assert_eq!(ns.main_region(), (8 * 4096, 0));
}

#[test]
fn a_blank_leaves_the_range_until_it_is_released() {
    let machine = HeapMachine::new();
    let process = machine.process();
    let local = process.local();
    let ns = join(&process, &local);
    let before = process.mapped();
    let segment = ns.create_segment(100, 100).unwrap();
    let handle = segment.handle();
    let second = ns.find_mapping(handle).unwrap();
    let (owner, another) = (RangeOwner::of(&before), RangeOwner::of(&handle));
    // SAFETY: nothing relies on the contents.
    unsafe { segment.detach_to_blank(owner) };
    assert_eq!(ns.attached_processes(handle), Some(1), "the other handle needs it");
    // SAFETY: as above.
    unsafe { second.detach_to_blank(owner) };
    assert_eq!(ns.attached_processes(handle), None, "the segment itself is gone");
    assert_eq!(process.mapped(), before + 1);
    // SAFETY: nothing uses what it has, which is nothing.
    unsafe { ns.release_blanks(another) };
    assert_eq!(process.mapped(), before + 1);
    // SAFETY: nothing uses the range.
    unsafe { ns.release_blanks(owner) };
    assert_eq!(process.mapped(), before);
}

#[test]
fn after_a_fork_nothing_shared_is_touched() {
    let machine = HeapMachine::new();
    let (one, two) = (machine.process(), machine.process());
    let (a, b) = (one.local(), two.local());
    let (ns, other) = (join(&one, &a), join(&two, &b));
    let segment = ns.create_segment(100, 100).unwrap();
    let handle = segment.handle();
    let seen = other.attach_segment(handle).unwrap().unwrap();
    // What the child of `one` finds: a wiped token.
    ns.reset_after_fork();
    assert_eq!(ns.create_segment(1, 1).err(), Some(Error::Forked));
    assert_eq!(ns.attach_segment(handle).err(), Some(Error::Forked));
    assert!(ns.find_mapping(handle).is_none());
    assert_eq!(ns.pin_segment(handle), Err(Error::Forked));
    assert_eq!(segment.reserve(0..10), Err(Error::Forked));
    assert_eq!(ns.reap(), Err(Error::Forked));
    drop(segment);
    assert_eq!(ns.leave(&one), Err(Error::Forked));
    assert_eq!(other.attached_processes(handle), Some(2), "the parent still has it");
    drop(seen);
}

/// In the main region, and as objects.
#[test]
fn who_has_not_attached_a_segment_can_look_into_it() {
    let config = NamespaceConfig { main_region: 64 << 10, ..config() };
    let machine = HeapMachine::new();
    let (one, two) = (machine.process(), machine.process());
    let (a, b) = (one.local(), two.local());
    let (ns, other) = (join_as(&one, &a, &config).0, join_as(&two, &b, &config).0);
    let segments = [ns.create_segment(5000, 5000).unwrap(), ns.create_object(5000, 5000).unwrap()];
    for segment in segments {
        let handle = segment.handle();
        // SAFETY: inside the segment.
        let last = unsafe { segment.base().add(4999) };
        // SAFETY: as above; nobody else uses the byte at this moment.
        unsafe { last.write(7) };
        assert_eq!(ns.place_of(last.as_ptr()), Some((handle, 4999)));
        let beyond = segment.base().as_ptr().wrapping_add(5000);
        assert_ne!(ns.place_of(beyond).map(|(found, _)| found), Some(handle));
        let look = |base: std::ptr::NonNull<u8>, len: usize| {
            // SAFETY: the last byte, which is mapped.
            let at = unsafe { base.add(len - 1) };
            // SAFETY: as above.
            unsafe { at.read() }
        };
        assert_eq!(ns.visit_segment(handle, look), Ok(Some(7)));
        assert_eq!(other.visit_segment(handle, look), Ok(Some(7)));
        assert_eq!(ns.attached_processes(handle), Some(1));
        assert!(other.find_mapping(handle).is_none());
        if !handle.is_main_region() {
            machine.fail_next_attach();
            assert!(matches!(other.visit_segment(handle, look), Err(Error::Provider(_))));
        }
        let at = last.as_ptr();
        drop(segment);
        assert_eq!(other.visit_segment(handle, look), Ok(None));
        assert_eq!(ns.place_of(at), None);
    }
    ns.reset_after_fork();
    let made_up = SegmentHandle::from_raw(1 << 20).unwrap();
    assert_eq!(ns.visit_segment(made_up, |_, _| ()), Err(Error::Forked));
    other.leave(&two).unwrap();
}

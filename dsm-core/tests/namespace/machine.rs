//! The simulated machine itself, on which everything else here relies.

use std::time::Duration;

use dsm_core::env::{Entropy, Liveness};
use dsm_core::error::ErrorKind;
use dsm_core::handle::{ObjectId, SegmentHandle};
use dsm_core::provider::{Election, ProviderError, Root, SegmentProvider};
use sim::HeapMachine;

fn handle(raw: u64) -> SegmentHandle {
    SegmentHandle::from_raw(raw).unwrap()
}

#[test]
fn memory_lives_as_long_as_its_name_or_a_mapping() {
    let machine = HeapMachine::new();
    let (one, two) = (machine.process(), machine.process());
    let (mapping, id) = SegmentProvider::create(&one, handle(8), 5000, 5000).unwrap();
    let other = SegmentProvider::attach(&two, handle(8), id).unwrap();
    assert_eq!(machine.used(), 8192);
    let stranger = ObjectId { object: id.object + 1, ..id };
    assert!(SegmentProvider::attach(&two, handle(8), stranger).is_err());
    assert!(SegmentProvider::destroy(&two, handle(8), stranger).is_err());
    SegmentProvider::destroy(&two, handle(8), id).unwrap();
    SegmentProvider::destroy(&two, handle(8), id).unwrap();
    // SAFETY: not used any more, here and below.
    unsafe { SegmentProvider::detach(&one, mapping) };
    assert_eq!(machine.used(), 8192);
    // SAFETY: as above.
    unsafe { SegmentProvider::detach(&two, other) };
    assert_eq!(machine.used(), 0);
}

#[test]
fn allocations_fail_when_told_to() {
    let machine = HeapMachine::new();
    let process = machine.process();
    machine.fail_allocation(1, ErrorKind::NoSpace);
    let (mapping, _) = SegmentProvider::create(&process, handle(2), 9000, 0).unwrap();
    let failed = SegmentProvider::reserve(&process, handle(2), &mapping, 0..9000);
    assert_eq!(failed.unwrap_err().kind(), ErrorKind::NoSpace);
    machine.set_capacity(Some(8192));
    SegmentProvider::reserve(&process, handle(2), &mapping, 4096..5000).unwrap();
    SegmentProvider::reserve(&process, handle(2), &mapping, 4000..8192).unwrap();
    let full = SegmentProvider::reserve(&process, handle(2), &mapping, 0..9000).unwrap_err();
    assert_eq!((full.0.requested, full.0.available, full.0.total), (4096, 0, 8192));
}

#[test]
fn the_dead_let_go_of_tokens_and_elections_and_can_do_nothing() {
    let machine = HeapMachine::new();
    let (one, two) = (machine.process(), machine.process());
    one.claim(3).unwrap();
    assert_eq!(two.claim(3).unwrap_err().kind, ErrorKind::AlreadyExists);
    assert!(!two.process_is_dead(3, &one.process_proof()));
    let election = one.elect(Duration::ZERO).unwrap();
    assert!(two.elect(Duration::ZERO).is_err());
    one.kill();
    assert!(two.process_is_dead(3, &one.process_proof()));
    two.claim(3).unwrap();
    let next = two.elect(Duration::ZERO).unwrap();
    // What the dead drops is not the next one's.
    drop(election);
    assert!(machine.process().elect(Duration::ZERO).is_err());
    drop(next);
    assert!(SegmentProvider::create(&one, handle(2), 1, 1).is_err());
    assert_eq!(machine.objects().len(), 1, "the control object, of size zero");
}

#[test]
fn a_copy_is_a_machine_of_its_own() {
    let machine = HeapMachine::new();
    let process = machine.process();
    let (mapping, id) = SegmentProvider::create(&process, handle(6), 4096, 4096).unwrap();
    let mut election = process.elect(Duration::ZERO).unwrap();
    election.create(4096).unwrap();
    // SAFETY: mapped, used by nobody else, here and below.
    unsafe { mapping.base.write(1) };
    let copy = machine.snapshot();
    // SAFETY: as above.
    unsafe { mapping.base.write(2) };
    let other = copy.process();
    assert!(other.elect(Duration::ZERO).is_err(), "the election is held in the copy, too");
    copy.kill_pid(process.pid());
    let election = other.elect(Duration::ZERO).unwrap();
    assert_eq!(election.size(), 4096);
    let seen = SegmentProvider::attach(&other, handle(6), id).unwrap();
    // SAFETY: as above.
    assert_eq!(unsafe { seen.base.read() }, 1);
    assert_eq!((copy.used(), machine.used()), (8192, 8192));
    assert!(process.is_alive());
}

#[test]
fn entropy_is_a_function_of_the_seed_and_differs_between_processes() {
    let draw = |seed| {
        let machine = HeapMachine::with_seed(seed);
        let (one, two) = (machine.process(), machine.process());
        [one.next_u64(), one.next_u64(), two.next_u64()]
    };
    assert_eq!(draw(1), draw(1));
    let all: std::collections::BTreeSet<u64> = (0..100).flat_map(draw).collect();
    assert_eq!(all.len(), 300);
}

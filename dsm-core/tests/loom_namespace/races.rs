//! Two processes at once.

use dsm_core::handle::SegmentHandle;
use dsm_core::namespace::Opened;
use dsm_core::segment::Segment;
use loom::thread;
use sim::HeapMachine;

use crate::{Member, join, start};

/// Explores `model` with at most `preemptions` a run. The model returns how its race ended: both
/// ends must come about, or the interleavings that matter were not among those explored.
fn explore(preemptions: usize, model: impl Fn() -> bool + Sync + Send + 'static) {
    use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
    let ends: &'static [AtomicUsize; 2] = Box::leak(Box::default());
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(preemptions);
    builder.max_branches = 50_000;
    builder.check(move || {
        ends[usize::from(model())].fetch_add(1, Relaxed);
    });
    let [lost, won] = [ends[0].load(Relaxed), ends[1].load(Relaxed)];
    assert!(lost > 0 && won > 0, "{lost} runs ended one way, {won} the other");
}

/// The last detach of a segment against the attaching of another process.
fn attach(member: Member, handle: SegmentHandle) -> bool {
    let Some(segment) = member.namespace.attach_segment(handle).unwrap() else { return false };
    assert_eq!(segment.len(), 100);
    assert!(member.namespace.attached_processes(handle).is_some_and(|count| count >= 1));
    drop(segment);
    true
}

fn assert_gone(machine: &HeapMachine, member: Member, handle: SegmentHandle) {
    assert_eq!(member.namespace.attached_processes(handle), None);
    assert_eq!(machine.objects().len(), 1, "the control object alone");
    // Its slot is free again, as all are.
    let all = [0; 3].map(|_| member.namespace.create_segment(1, 1).unwrap());
    drop(all);
}

#[test]
fn of_two_that_open_at_once_one_creates() {
    explore(6, || {
        let machine = HeapMachine::new();
        let [first, second] = [start(&machine), start(&machine)];
        let other = thread::spawn(move || join(second));
        let mine = join(first);
        let theirs = other.join().unwrap();
        let created = [mine, theirs].map(|member| member.opened == Opened::Created);
        assert_eq!(created.iter().filter(|created| **created).count(), 1);
        assert_ne!(mine.namespace.process_slot(), theirs.namespace.process_slot());
        // One namespace, not two.
        mine.namespace.root(0).store(7, core::sync::atomic::Ordering::Relaxed);
        assert_eq!(theirs.namespace.root(0).load(core::sync::atomic::Ordering::Acquire), 7);
        mine.leave();
        theirs.leave();
        assert_eq!(machine.objects().len(), 0);
        created[0]
    });
}

#[test]
fn who_opens_while_the_last_one_leaves_joins_it_or_begins_anew() {
    explore(6, || {
        let machine = HeapMachine::new();
        let leaver = join(start(&machine));
        let process = start(&machine);
        let other = thread::spawn(move || join(process));
        leaver.leave();
        let member = other.join().unwrap();
        assert!(matches!(member.opened, Opened::Created | Opened::Joined));
        let joined = member.opened == Opened::Joined;
        drop(member.namespace.create_segment(100, 100).unwrap());
        member.leave();
        assert_eq!(machine.objects().len(), 0);
        joined
    });
}

#[test]
fn an_attach_meets_the_last_detach() {
    explore(6, || {
        let machine = HeapMachine::new();
        let [mine, theirs] = [join(start(&machine)), join(start(&machine))];
        let segment: Segment<'static> = mine.namespace.create_segment(100, 100).unwrap();
        let handle = segment.handle();
        let other = thread::spawn(move || attach(theirs, handle));
        drop(segment);
        let attached = other.join().unwrap();
        assert_gone(&machine, mine, handle);
        attached
    });
}

#[test]
fn an_attach_meets_an_unpin() {
    explore(6, || {
        let machine = HeapMachine::new();
        let [mine, theirs] = [join(start(&machine)), join(start(&machine))];
        let segment = mine.namespace.create_segment(100, 100).unwrap();
        let handle = segment.handle();
        mine.namespace.pin_segment(handle).unwrap();
        drop(segment);
        let other = thread::spawn(move || attach(theirs, handle));
        mine.namespace.unpin_segment(handle).unwrap();
        let attached = other.join().unwrap();
        assert_gone(&machine, mine, handle);
        attached
    });
}

#[test]
fn two_reapers_and_a_newcomer_meet_over_a_dead_processs_segment() {
    explore(3, || {
        let machine = HeapMachine::new();
        let victim = join(start(&machine));
        let [mine, theirs] = [join(start(&machine)), join(start(&machine))];
        // All slots are taken by the dead, so that the newcomer's segment is in one of those.
        let left = [0; 3].map(|_| victim.namespace.create_segment(100, 100).unwrap());
        let handles = left.each_ref().map(|segment| segment.handle());
        victim.process.kill();
        drop(left);
        let other = thread::spawn(move || {
            let attached = attach(theirs, handles[0]);
            theirs.namespace.reap().unwrap();
            (attached, theirs.namespace.create_segment(50, 50).unwrap())
        });
        mine.namespace.reap().unwrap();
        let (attached, newcomer) = other.join().unwrap();
        assert_eq!(mine.namespace.attached_processes(newcomer.handle()), Some(1));
        assert_eq!(machine.objects().len(), 2, "the control object and the newcomer");
        drop(newcomer);
        assert_gone(&machine, mine, handles[0]);
        attached
    });
}

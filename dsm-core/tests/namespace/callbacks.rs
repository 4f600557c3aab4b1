//! Callbacks at detach: order, cancellation, panics.

use std::pin::{Pin, pin};
use std::sync::Mutex;

use super::{config, join, join_as};
use dsm_core::detach::{DetachCallback, Detaching};
use sim::HeapMachine;

/// What ran in this thread's test.
static RAN: Mutex<Vec<(std::thread::ThreadId, u64)>> = Mutex::new(Vec::new());

fn note(_mapping: Detaching, argument: u64) {
    RAN.lock().unwrap().push((std::thread::current().id(), argument));
}

fn ran() -> Vec<u64> {
    let me = std::thread::current().id();
    let mut all = RAN.lock().unwrap();
    let mine = all.iter().filter(|(thread, _)| *thread == me).map(|(_, note)| *note).collect();
    all.retain(|(thread, _)| *thread != me);
    mine
}

fn panics(mapping: Detaching, argument: u64) {
    note(mapping, argument);
    std::panic::resume_unwind(Box::new("on purpose"));
}

#[test]
fn the_latest_runs_first_each_once_and_only_at_the_last_handle() {
    let machine = HeapMachine::new();
    let process = machine.process();
    let local = process.local();
    let ns = join(&process, &local);
    let nodes: [DetachCallback; 3] = std::array::from_fn(|i| DetachCallback::new(note, i as u64));
    let nodes = pin!(nodes);
    // SAFETY: the nodes stay pinned as long as the array, here and below.
    let node = |i: usize| unsafe { nodes.as_ref().map_unchecked(|all| &all[i]) };
    let segment = ns.create_segment(10, 0).unwrap();
    let second = ns.find_mapping(segment.handle()).unwrap();
    for i in 0..3 {
        // SAFETY: run or cancelled before the test ends; plain functions.
        assert!(unsafe { segment.on_detach(node(i)) });
    }
    // SAFETY: as above.
    assert!(!unsafe { second.on_detach(node(1)) }, "registered already");
    drop(segment);
    assert_eq!(ran(), []);
    drop(second);
    assert_eq!(ran(), [2, 1, 0]);
    assert!((0..3).all(|i| !node(i).is_registered()));

    // Cancelled in the middle; used again.
    let segment = ns.create_segment(10, 0).unwrap();
    for i in 0..3 {
        // SAFETY: as above.
        assert!(unsafe { segment.on_detach(node(i)) });
    }
    assert!(segment.cancel_on_detach(node(1)));
    assert!(!segment.cancel_on_detach(node(1)));
    drop(segment);
    assert_eq!(ran(), [2, 0]);
}

#[test]
fn a_panic_in_the_second_of_three_runs_the_third_and_detaches() {
    let machine = HeapMachine::new();
    let process = machine.process();
    let local = process.local();
    let ns = join(&process, &local);
    let first = pin!(DetachCallback::new(note, 3));
    let second = pin!(DetachCallback::new(panics, 2));
    let third = pin!(DetachCallback::new(note, 1));
    let segment = ns.create_segment(10, 0).unwrap();
    let handle = segment.handle();
    let nodes: [Pin<&DetachCallback>; 3] = [first.as_ref(), second.as_ref(), third.as_ref()];
    for node in nodes {
        // SAFETY: run before the test ends; plain functions.
        assert!(unsafe { segment.on_detach(node) });
    }
    let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| drop(segment)));
    assert!(caught.is_err());
    assert_eq!(ran(), [1, 2, 3]);
    assert_eq!(ns.attached_processes(handle), None);
    assert_eq!(machine.objects().len(), 1);
    ns.leave(&process).unwrap();
    assert_eq!(ran(), []);
}

#[test]
fn a_callback_sees_the_memory_and_may_keep_it() {
    fn check(mapping: Detaching, expected: u64) {
        // SAFETY: the callback runs before the memory is unmapped.
        assert_eq!(unsafe { mapping.base.cast::<u64>().read() }, expected);
        note(mapping, mapping.len as u64);
    }
    let machine = HeapMachine::new();
    for main_region in [0, 1 << 16] {
        let process = machine.process();
        let local = process.local();
        let config = dsm_core::namespace::NamespaceConfig { main_region, ..config() };
        let (ns, _) = join_as(&process, &local, &config);
        let node = pin!(DetachCallback::new(check, 4711));
        let segment = ns.create_segment(64, 64).unwrap();
        // SAFETY: mapped, used by nobody else.
        unsafe { segment.base().cast::<u64>().write(4711) };
        // SAFETY: run before the test ends; a plain function.
        assert!(unsafe { segment.on_detach(node.as_ref()) });
        segment.pin_mapping();
        drop(segment);
        assert_eq!(ran(), []);
        // Leaving the namespace detaches what is still attached.
        ns.leave(&process).unwrap();
        assert_eq!(ran(), [64]);
    }
}

#[test]
fn a_fork_child_runs_no_callbacks() {
    let machine = HeapMachine::new();
    let process = machine.process();
    let local = process.local();
    let ns = join(&process, &local);
    let segment = ns.create_segment(10, 0).unwrap();
    let node = pin!(DetachCallback::new(note, 1));
    // SAFETY: the child never runs it.
    assert!(unsafe { segment.on_detach(node.as_ref()) });
    ns.reset_after_fork();
    assert!(!segment.cancel_on_detach(node.as_ref()));
    drop(segment);
    assert_eq!(ran(), []);
}

#[test]
fn a_panic_while_leaving_ends_neither_the_callbacks_nor_the_leaving() {
    let machine = HeapMachine::new();
    let process = machine.process();
    let local = process.local();
    let ns = join(&process, &local);
    let nodes = [panics, note, note].map(|function| Box::pin(DetachCallback::new(function, 8)));
    for node in &nodes {
        let segment = ns.create_segment(10, 0).unwrap();
        // SAFETY: run before the test ends; plain functions.
        assert!(unsafe { segment.on_detach(node.as_ref()) });
        segment.pin_mapping();
    }
    let leave = std::panic::AssertUnwindSafe(|| ns.leave(&process));
    assert!(std::panic::catch_unwind(leave).is_err());
    assert_eq!(ran(), [8, 8, 8]);
    assert_eq!(process.mapped(), 0);
    super::assert_empty(&machine);
    // And one may come back.
    join(&process, &local).leave(&process).unwrap();
}

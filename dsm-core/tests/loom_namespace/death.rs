//! A process killed before its first, second, .. last store, and what others make of it.
//!
//! Nothing runs beside the victim, so that a model is one run; what it is about is the state that
//! a kill leaves, not interleavings.

use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

use dsm_core::handle::SegmentHandle;
use dsm_core::inspect::Inspector;
use dsm_core::lock::rw::{RwLock, RwLockState};
use dsm_core::lock::{LockRef, Patience, RawLock};
use dsm_core::namespace::{NamespaceConfig, Opened};
use dsm_core::participant::ParticipantLocal;
use dsm_core::provider::Root;
use dsm_core::segment::Segment;
use dsm_core::sync::model::die_after;
use sim::{HeapMachine, HeapProcess};

use crate::{Member, config, join, join_as, start};

/// Runs `model` once for each point of death, from 0 on in steps of `step`, until its victim
/// survives; it gets the number of stores the victim may perform, and says whether it died.
fn for_each_death(
    step: usize,
    at_least: u32,
    model: impl Fn(u32) -> bool + Copy + Send + Sync + 'static,
) {
    for stores in (0..).step_by(step) {
        let died = std::sync::Arc::new(AtomicBool::new(false));
        let noted = died.clone();
        let mut builder = loom::model::Builder::new();
        builder.max_branches = 50_000;
        builder.check(move || noted.store(model(stores), SeqCst));
        if !died.load(SeqCst) {
            assert!(stores >= at_least, "only {stores} points of death");
            return;
        }
    }
}

/// Runs `code` as the process, killed after so many stores. Whether it died.
fn kill(process: &HeapProcess, stores: u32, code: impl FnOnce()) -> bool {
    let died = die_after(stores, code).is_ok();
    process.kill();
    died
}

/// A lock at the start of a segment.
fn lock_of<'s>(segment: &'s Segment<'_>) -> LockRef<'s, RwLock> {
    // SAFETY: `build_lock` built one there.
    unsafe { LockRef::new(segment.base().cast(), segment.lock_address(0)) }
}

fn build_lock(segment: &Segment<'_>) {
    // SAFETY: fresh memory, long enough for a lock, used by nobody.
    unsafe { RwLock::init(segment.base().cast(), config().max_participants) };
}

fn lock_state(segment: &Segment<'_>) -> RwLockState {
    // SAFETY: a lock was built there.
    unsafe { RwLock::state(segment.base().cast()) }
}

/// Everything a process does in a namespace, but for opening and leaving it. `shared` is a
/// segment of somebody else with a lock in it.
fn work(member: Member, shared: Option<SegmentHandle>) {
    let ns = member.namespace;
    let local = ParticipantLocal::new();
    ns.register(&local).unwrap();
    let first = ns.create_segment(100, 50).unwrap();
    let second = ns.create_segment(100, 50).unwrap();
    first.reserve(0..100).unwrap();
    ns.pin_segment(first.handle()).unwrap();
    ns.pin_segment_under(second.handle(), first.handle()).unwrap();
    let handle = first.handle();
    drop((first, second));
    drop(ns.attach_segment(handle).unwrap().unwrap());
    if let Some(shared) = shared {
        let segment = ns.attach_segment(shared).unwrap().unwrap();
        let me = ns.participant(&local);
        drop(lock_of(&segment).shared(&me, Patience::Try).unwrap().unwrap());
        drop(lock_of(&segment).exclusive(&me, Patience::Try).unwrap());
    }
    // Takes its child with it.
    ns.unpin_segment(handle).unwrap();
    ns.reap().unwrap();
    ns.unregister(&local);
}

/// Opens what a process that was alone left, finds all of it usable, and leaves nothing.
fn inherit(machine: &HeapMachine, segments: usize) -> Opened {
    let heir = join(start(machine));
    let all: Vec<_> = (0..segments).map(|_| heir.namespace.create_segment(1, 1).unwrap()).collect();
    let local = ParticipantLocal::new();
    heir.namespace.register(&local).unwrap();
    heir.namespace.unregister(&local);
    drop(all);
    let opened = heir.opened;
    heir.leave();
    assert_eq!(machine.objects().len(), 0);
    opened
}

const SLOTS: usize = 3;

#[test]
fn a_process_that_was_alone_leaves_what_the_next_to_open_removes() {
    for_each_death(1, 150, |stores| {
        let machine = HeapMachine::new();
        let victim = start(&machine);
        let died = kill(victim, stores, || {
            let member = join(victim);
            work(member, None);
            member.leave();
        });
        let opened = inherit(&machine, SLOTS);
        assert!(matches!(opened, Opened::Created | Opened::Recreated));
        died
    });
}

/// What a process that is sound with itself and others looks like after the victim's death.
fn sound(machine: &HeapMachine, member: Member, shared: &Segment<'_>) {
    let ns = member.namespace;
    ns.reap().unwrap();
    assert_eq!(ns.attached_processes(shared.handle()), Some(1));
    assert_eq!(lock_state(shared).readers, 0);
    let local = ParticipantLocal::new();
    ns.register(&local).unwrap();
    let me = ns.participant(&local);
    drop(lock_of(shared).exclusive(&me, Patience::Forever).unwrap());
    ns.unregister(&local);
    // Of what the victim made it may have left what was pinned, and nothing else.
    let mapping = member.process.peek().unwrap();
    // SAFETY: mapped until the end of this function.
    let inspector = unsafe { Inspector::new(&mapping, member.process) }.unwrap().unwrap();
    let others = || inspector.segments().filter(|segment| segment.handle != shared.handle());
    assert!(others().all(|segment| segment.settled && segment.pinned && segment.attached == 0));
    // A pin that depends on a segment goes with it.
    let there = |handle| others().any(|segment| segment.handle == handle);
    assert!(others().all(|segment| segment.under.is_none_or(there)));
    assert_eq!((inspector.processes().count(), inspector.participants().count()), (1, 1));
    let left = others().count();
    assert_eq!(machine.objects().len(), 2 + left);
    // SAFETY: nothing refers to it any more.
    unsafe { member.process.unmap(mapping) };
    let free: Vec<_> = (0..SLOTS - 1 - left).map(|_| ns.create_segment(1, 1).unwrap()).collect();
    drop(free);
}

#[test]
fn a_process_among_others_is_swept_from_slots_and_locks() {
    for_each_death(1, 150, |stores| {
        let machine = HeapMachine::new();
        let peer = join(start(&machine));
        let shared = peer.namespace.create_segment(4096, 4096).unwrap();
        build_lock(&shared);
        let handle = shared.handle();
        let victim = start(&machine);
        let died = kill(victim, stores, || {
            let member = join(victim);
            work(member, Some(handle));
            member.leave();
        });
        sound(&machine, peer, &shared);
        // Somebody new gets on as well.
        let third = join(start(&machine));
        assert_eq!(third.opened, Opened::Joined);
        third.leave();
        drop(shared);
        peer.leave();
        assert_eq!(machine.objects().len(), 0);
        died
    });
}

/// A victim killed at `stores`, then a reaper killed at every one of its stores.
fn reaper_dies(stores: u32, step: usize, at_least: u32) {
    for_each_death(step, at_least, move |reapers| {
        let machine = HeapMachine::new();
        let peer = join(start(&machine));
        let shared = peer.namespace.create_segment(4096, 4096).unwrap();
        build_lock(&shared);
        let handle = shared.handle();
        let victim = start(&machine);
        kill(victim, stores, || {
            let member = join(victim);
            work(member, Some(handle));
            member.leave();
        });
        let reaper = start(&machine);
        let died = kill(reaper, reapers, || {
            let member = join(reaper);
            member.namespace.reap().unwrap();
            member.leave();
        });
        sound(&machine, peer, &shared);
        drop(shared);
        peer.leave();
        assert_eq!(machine.objects().len(), 0);
        died
    });
}

#[test]
fn a_reaper_killed_in_its_turn_is_followed_by_another() {
    for stores in (0..160).step_by(9) {
        reaper_dies(stores, 1, 1);
    }
}

const PAGE: usize = 4096;

#[test]
fn pages_of_the_main_region_come_back() {
    for_each_death(1, 100, |stores| {
        let machine = HeapMachine::new();
        let config = NamespaceConfig { main_region: 4 * PAGE, ..config() };
        let peer = join_as(start(&machine), &config);
        let kept = peer.namespace.create_segment(PAGE, 0).unwrap();
        let victim = start(&machine);
        let died = kill(victim, stores, || {
            let member = join_as(victim, &config);
            let ns = member.namespace;
            let first = ns.create_segment(PAGE, 0).unwrap();
            let second = ns.create_segment(2 * PAGE, 0).unwrap();
            let handle = second.handle();
            ns.pin_segment_under(handle, first.handle()).unwrap();
            drop(second);
            drop(ns.attach_segment(handle).unwrap().unwrap());
            drop(first);
            drop(ns.create_segment(3 * PAGE, 0).unwrap());
            member.leave();
        });
        peer.namespace.reap().unwrap();
        assert_eq!(peer.namespace.main_region(), (4 * PAGE, PAGE));
        let rest = peer.namespace.create_segment(3 * PAGE, 0).unwrap();
        assert!(rest.handle().is_main_region());
        // Neither lies in the other.
        let (a, b) = (kept.base().as_ptr() as usize, rest.base().as_ptr() as usize);
        assert!(a + PAGE <= b || b + 3 * PAGE <= a);
        drop((kept, rest));
        assert_eq!(peer.namespace.main_region().1, 0);
        peer.leave();
        assert_eq!(machine.objects().len(), 0);
        died
    });
}

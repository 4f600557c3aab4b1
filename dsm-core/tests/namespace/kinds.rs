//! Locks of an embedder's own kind, and what is swept by those who know them or not.

use std::mem::forget;

use dsm_core::lock::rw::RwLock;
use dsm_core::lock::spin::SpinLock;
use dsm_core::lock::{Acquired, LockError, LockRef, Patience, RawLock};
use dsm_core::namespace::{Namespace, NamespaceConfig, Opened, ProcessLocal};
use dsm_core::participant::ParticipantLocal;
use dsm_core::segment::Segment;
use sim::{HeapMachine, HeapProcess};
use testkit::lock::BitLock;

use super::{config, join, join_as};

type Foreign = BitLock<1>;

fn built<'n, L: RawLock>(ns: &'n Namespace<'n>) -> Segment<'n> {
    let segment = ns.create_segment(4096, 4096).unwrap();
    // SAFETY: fresh memory of one page, used by nobody.
    unsafe { L::init(segment.base().cast(), config().max_participants) };
    segment
}

fn lock_of<'s, L: RawLock>(segment: &'s Segment<'_>) -> LockRef<'s, L> {
    // SAFETY: `built` built a lock there.
    unsafe { LockRef::new(segment.base().cast(), segment.lock_address(0)) }
}

fn readers(segment: &Segment<'_>) -> u32 {
    // SAFETY: as above.
    unsafe { segment.base().cast::<Foreign>().as_ref() }.readers()
}

/// Joins, takes the lock shared, and dies. Returns the participant slot.
fn die_holding<'p>(
    victim: &'p HeapProcess,
    local: &'p ProcessLocal<'p>,
    segment: &Segment<'_>,
) -> u16 {
    let (ns, _) = join_as(victim, local, &config());
    let seen = ns.attach_segment(segment.handle()).unwrap().unwrap();
    let thread = ParticipantLocal::new();
    let slot = ns.register(&thread).unwrap().index;
    let me = ns.participant(&thread);
    forget(lock_of::<Foreign>(&seen).shared(&me, Patience::Try).unwrap().unwrap());
    victim.kill();
    slot
}

/// Registers all there are; the slots that they got.
fn fill(ns: &Namespace<'_>, threads: &[ParticipantLocal]) -> Vec<u16> {
    threads.iter().map_while(|thread| ns.register(thread).ok()).map(|id| id.index).collect()
}

#[test]
fn a_dead_reader_is_cleared_by_whoever_knows_the_kind() {
    let machine = HeapMachine::new();
    let (one, victim) = (machine.process(), machine.process());
    let (a, b) = (one.local(), victim.local());
    assert!(a.know::<Foreign>());
    let ns = join(&one, &a);
    let segment = built::<Foreign>(&ns);
    die_holding(&victim, &b, &segment);
    assert_eq!(readers(&segment), 1);
    assert_eq!(ns.reap(), Ok(2), "the thread, and the process");
    assert_eq!(readers(&segment), 0);
    let thread = ParticipantLocal::new();
    ns.register(&thread).unwrap();
    let me = ns.participant(&thread);
    drop(lock_of::<Foreign>(&segment).exclusive(&me, Patience::Try).unwrap());
}

#[test]
fn a_dead_reader_keeps_its_slot_as_long_as_nobody_knows_the_kind() {
    let machine = HeapMachine::new();
    let (one, victim, third) = (machine.process(), machine.process(), machine.process());
    let (a, b, c) = (one.local(), victim.local(), third.local());
    let ns = join(&one, &a);
    let segment = built::<Foreign>(&ns);
    let slot = die_holding(&victim, &b, &segment);
    assert_eq!(ns.reap(), Ok(1), "the process's own participant");
    assert_eq!(readers(&segment), 1);
    // What keeps the lock is there, too, and nobody is given the slot.
    assert_eq!(ns.attached_processes(segment.handle()), Some(2));
    let threads: Vec<_> = (0..24).map(|_| ParticipantLocal::new()).collect();
    assert!(!fill(&ns, &threads).contains(&slot));
    threads.iter().for_each(|thread| assert!(ns.unregister(thread)));
    // Who knows the kind has it swept by joining.
    assert!(c.know::<Foreign>());
    let (other, opened) = join_as(&third, &c, &config());
    assert_eq!(opened, Opened::Joined);
    assert_eq!(readers(&segment), 0);
    assert_eq!(ns.attached_processes(segment.handle()), Some(1));
    assert!(fill(&other, &threads).contains(&slot));
    threads.iter().for_each(|thread| assert!(other.unregister(thread)));
}

#[test]
fn who_holds_a_lock_shared_learns_its_kind() {
    let machine = HeapMachine::new();
    let (one, victim) = (machine.process(), machine.process());
    let (a, b) = (one.local(), victim.local());
    let ns = join(&one, &a);
    let segment = built::<Foreign>(&ns);
    die_holding(&victim, &b, &segment);
    assert_eq!((ns.reap(), readers(&segment)), (Ok(1), 1));
    let thread = ParticipantLocal::new();
    ns.register(&thread).unwrap();
    let me = ns.participant(&thread);
    drop(lock_of::<Foreign>(&segment).shared(&me, Patience::Try).unwrap().unwrap());
    assert_eq!((ns.reap(), readers(&segment)), (Ok(1), 0));
}

#[test]
fn a_writer_need_not_wait_for_the_sweep() {
    let machine = HeapMachine::new();
    let (one, victim) = (machine.process(), machine.process());
    let (a, b) = (one.local(), victim.local());
    let ns = join(&one, &a);
    let segment = built::<Foreign>(&ns);
    die_holding(&victim, &b, &segment);
    let thread = ParticipantLocal::new();
    ns.register(&thread).unwrap();
    let me = ns.participant(&thread);
    let guard = lock_of::<Foreign>(&segment).exclusive(&me, Patience::Try).unwrap();
    assert_eq!((guard.acquired(), readers(&segment)), (Acquired::Clean, 0));
}

#[test]
fn a_process_that_leaves_sweeps_what_its_threads_have_forgotten() {
    let machine = HeapMachine::new();
    let (one, two) = (machine.process(), machine.process());
    let (a, b) = (one.local(), two.local());
    let (ns, theirs) = (join(&one, &a), join(&two, &b));
    let segment = built::<Foreign>(&ns);
    let seen = theirs.attach_segment(segment.handle()).unwrap().unwrap();
    let thread = ParticipantLocal::new();
    theirs.register(&thread).unwrap();
    let me = theirs.participant(&thread);
    forget(lock_of::<Foreign>(&seen).shared(&me, Patience::Try).unwrap().unwrap());
    drop(seen);
    assert!(!theirs.unregister(&thread));
    theirs.leave(&two).unwrap();
    assert_eq!((readers(&segment), ns.attached_processes(segment.handle())), (0, Some(1)));
}

#[test]
fn an_heir_that_knows_the_kind_sweeps_in_opening() {
    for knows in [false, true] {
        let machine = HeapMachine::new();
        let config = NamespaceConfig { persistent: true, ..config() };
        let victim = machine.process();
        let local = victim.local();
        let (ns, _) = join_as(&victim, &local, &config);
        let segment = built::<Foreign>(&ns);
        let handle = segment.handle();
        ns.pin_segment(handle).unwrap();
        let thread = ParticipantLocal::new();
        ns.register(&thread).unwrap();
        let me = ns.participant(&thread);
        forget(lock_of::<Foreign>(&segment).shared(&me, Patience::Try).unwrap().unwrap());
        victim.kill();
        let heir = machine.process();
        let local = heir.local();
        assert!(!knows || local.know::<Foreign>());
        let (ns, opened) = join_as(&heir, &local, &config);
        assert_eq!(opened, Opened::Resumed);
        let segment = ns.attach_segment(handle).unwrap().unwrap();
        assert_eq!(readers(&segment), u32::from(!knows));
        assert_eq!(ns.attached_processes(handle), Some(if knows { 1 } else { 2 }));
    }
}

#[test]
fn what_a_lock_of_another_kind_has_become_is_left_alone() {
    let machine = HeapMachine::new();
    let (one, victim) = (machine.process(), machine.process());
    let (a, b) = (one.local(), victim.local());
    assert!(a.know::<Foreign>());
    let ns = join(&one, &a);
    let segment = built::<Foreign>(&ns);
    die_holding(&victim, &b, &segment);
    // Ours lies there by now, with bits of its own.
    // SAFETY: nobody living holds what was there.
    unsafe { RwLock::init(segment.base().cast(), config().max_participants) };
    let thread = ParticipantLocal::new();
    ns.register(&thread).unwrap();
    let me = ns.participant(&thread);
    let _guard = lock_of::<RwLock>(&segment).shared(&me, Patience::Try).unwrap().unwrap();
    assert_eq!(ns.reap(), Ok(2));
    // SAFETY: a lock of ours.
    assert_eq!(unsafe { RwLock::state(segment.base().cast()) }.readers, 1);
}

#[test]
fn locks_without_marks_hold_nothing_up() {
    let machine = HeapMachine::new();
    let (one, two) = (machine.process(), machine.process());
    let (a, b) = (one.local(), two.local());
    let (ns, theirs) = (join(&one, &a), join(&two, &b));
    let segment = built::<SpinLock>(&ns);
    let seen = theirs.attach_segment(segment.handle()).unwrap().unwrap();
    let thread = ParticipantLocal::new();
    theirs.register(&thread).unwrap();
    let me = theirs.participant(&thread);
    forget(lock_of::<SpinLock>(&seen).shared(&me, Patience::Try).unwrap().unwrap());
    two.kill();
    assert_eq!(ns.reap(), Ok(2));
}

#[test]
fn a_process_knows_a_few_other_kinds_only() {
    let machine = HeapMachine::new();
    let process = machine.process();
    let local = process.local();
    let ns = join(&process, &local);
    assert!(local.know::<RwLock>() && local.know::<SpinLock>(), "ours need no room");
    let knew = [
        local.know::<BitLock<1>>(),
        local.know::<BitLock<2>>(),
        local.know::<BitLock<3>>(),
        local.know::<BitLock<4>>(),
        local.know::<BitLock<5>>(),
        local.know::<BitLock<6>>(),
        local.know::<BitLock<7>>(),
        local.know::<BitLock<8>>(),
    ];
    assert_eq!(knew, [true; 8]);
    assert!(!local.know::<BitLock<9>>());
    assert!(local.know::<BitLock<8>>(), "known already");
    // Of a kind that it could not clear, nothing is held shared.
    let segment = built::<BitLock<9>>(&ns);
    let thread = ParticipantLocal::new();
    ns.register(&thread).unwrap();
    let me = ns.participant(&thread);
    let lock = lock_of::<BitLock<9>>(&segment);
    assert_eq!(lock.shared(&me, Patience::Forever).err(), Some(LockError::TooManyKinds));
    drop(lock.exclusive(&me, Patience::Try).unwrap());
    assert!(!me.holds_any());
}

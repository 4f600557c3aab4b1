//! Guards that are never dropped, of locks in segments that are let go of.

use std::mem::forget;

use dsm_core::handle::SegmentHandle;
use dsm_core::lock::rw::RwLock;
use dsm_core::lock::{LockError, LockRef, Patience, RawLock};
use dsm_core::namespace::{Namespace, NamespaceConfig};
use dsm_core::participant::ParticipantLocal;
use dsm_core::segment::Segment;
use sim::HeapMachine;

use super::{assert_empty, config, join_as};

/// A segment that begins with a lock, in the main region if there is one.
fn with_lock<'n>(ns: &'n Namespace<'n>) -> Segment<'n> {
    let segment = ns.create_segment(4096, 4096).unwrap();
    // SAFETY: fresh memory of one page, used by nobody.
    unsafe { RwLock::init(segment.base().cast(), config().max_participants) };
    segment
}

fn lock_of<'s>(segment: &'s Segment<'_>) -> LockRef<'s, RwLock> {
    // SAFETY: `with_lock` built a lock there.
    unsafe { LockRef::new(segment.base().cast(), segment.lock_address(0)) }
}

fn readers(segment: &Segment<'_>) -> u32 {
    // SAFETY: as above.
    unsafe { RwLock::state(segment.base().cast()) }.readers
}

fn configs() -> [NamespaceConfig; 2] {
    [config(), NamespaceConfig { main_region: 1 << 16, ..config() }]
}

/// Takes the lock shared and forgets the guard.
fn forget_a_guard(ns: &Namespace<'_>, thread: &ParticipantLocal, handle: SegmentHandle) {
    let segment = ns.attach_segment(handle).unwrap().unwrap();
    let participant = ns.participant(thread);
    forget(lock_of(&segment).shared(&participant, Patience::Try).unwrap().unwrap());
}

#[test]
fn a_forgotten_readers_bit_goes_with_its_process() {
    for (config, unregisters) in
        configs().iter().flat_map(|config| [(config, false), (config, true)])
    {
        let machine = HeapMachine::new();
        let (one, two) = (machine.process(), machine.process());
        let (a, b) = (one.local(), two.local());
        let ((ns, _), (theirs, _)) = (join_as(&one, &a, config), join_as(&two, &b, config));
        let segment = with_lock(&ns);
        let thread = ParticipantLocal::new();
        let slot = theirs.register(&thread).unwrap().index;
        // The last handle of the process goes, but not what it says about itself.
        forget_a_guard(&theirs, &thread, segment.handle());
        assert_eq!(ns.attached_processes(segment.handle()), Some(2), "it still holds a lock there");
        assert_eq!(readers(&segment), 1);
        if unregisters {
            assert!(!theirs.unregister(&thread));
        }
        two.kill();
        ns.reap().unwrap();
        assert_eq!(readers(&segment), 0);
        // Whoever has the slot next is no reader.
        let threads: Vec<_> = (0..4).map(|_| ParticipantLocal::new()).collect();
        let next = threads.iter().find(|thread| ns.register(thread).unwrap().index == slot);
        let me = ns.participant(next.expect("the slot was freed"));
        drop(lock_of(&segment).exclusive(&me, Patience::Try).unwrap());
        drop(segment);
        threads.iter().for_each(|thread| assert!(ns.unregister(thread)));
        ns.leave(&one).unwrap();
        assert_eq!(machine.objects().len(), 0);
    }
}

#[test]
fn a_segment_with_a_forgotten_guard_stays_mapped_until_its_process_leaves() {
    for config in configs() {
        let machine = HeapMachine::new();
        let (one, two) = (machine.process(), machine.process());
        let (a, b) = (one.local(), two.local());
        let ((ns, _), (theirs, _)) = (join_as(&one, &a, &config), join_as(&two, &b, &config));
        let segment = with_lock(&ns);
        let handle = segment.handle();
        let thread = ParticipantLocal::new();
        theirs.register(&thread).unwrap();
        let mapped = two.mapped();
        drop(theirs.attach_segment(handle).unwrap().unwrap());
        assert_eq!(two.mapped(), mapped, "a segment in which nothing is held");
        forget_a_guard(&theirs, &thread, handle);
        drop(segment);
        // A handle more is a handle to the same mapping, and makes no difference.
        let again = theirs.find_mapping(handle).expect("still mapped");
        drop(again);
        assert!(theirs.find_mapping(handle).is_some());
        // SAFETY: nothing uses the memory.
        assert!(unsafe { theirs.unpin_mapping(handle) });
        assert!(theirs.find_mapping(handle).is_some(), "a pin is not what keeps it");
        assert!(!theirs.unregister(&thread));
        ns.leave(&one).unwrap();
        theirs.leave(&two).unwrap();
        assert_empty(&machine);
    }
}

#[test]
fn a_record_never_means_a_lock_in_another_segment() {
    for config in configs() {
        let machine = HeapMachine::new();
        let process = machine.process();
        let local = process.local();
        let (ns, _) = join_as(&process, &local, &config);
        let thread = ParticipantLocal::new();
        ns.register(&thread).unwrap();
        let me = ns.participant(&thread);
        let first = with_lock(&ns);
        let old = first.handle();
        forget(lock_of(&first).shared(&me, Patience::Try).unwrap().unwrap());
        drop(first);
        // A lock at the same place of a segment that might have the same slot: to hold it is more
        // than a count in a record of something else.
        let second = with_lock(&ns);
        assert_ne!(second.handle().slot(), old.slot());
        let guard = lock_of(&second).shared(&me, Patience::Try).unwrap().unwrap();
        assert_eq!(readers(&second), 1);
        drop(guard);
        drop(lock_of(&second).exclusive(&me, Patience::Try).unwrap());
        drop(second);
        ns.unregister(&thread);
        ns.leave(&process).unwrap();
        assert_empty(&machine);
    }
}

#[test]
fn a_thread_that_ended_with_a_guard_keeps_nothing() {
    use dsm_core::env::Liveness;
    for config in configs() {
        let machine = HeapMachine::new();
        let (one, two) = (machine.process(), machine.process());
        let (a, b) = (one.local(), two.local());
        let ((ns, _), (other, _)) = (join_as(&one, &a, &config), join_as(&two, &b, &config));
        let segment = with_lock(&ns);
        let theirs = other.attach_segment(segment.handle()).unwrap().unwrap();
        let tid = std::thread::scope(|scope| {
            let ended = scope.spawn(|| {
                let thread = ParticipantLocal::new();
                ns.register(&thread).unwrap();
                forget_a_guard(&ns, &thread, segment.handle());
                one.thread_proof().tid
            });
            ended.join().unwrap()
        });
        machine.end_thread(tid);
        let handle = segment.handle();
        drop(segment);
        assert!(ns.find_mapping(handle).is_none(), "swept first, then let go of");
        assert_eq!((readers(&theirs), other.attached_processes(handle)), (0, Some(1)));
        drop(theirs);
        ns.leave(&one).unwrap();
        other.leave(&two).unwrap();
        assert_empty(&machine);
    }
}

#[test]
fn a_forgotten_writer_keeps_its_lock_and_its_segment() {
    let machine = HeapMachine::new();
    let (one, two) = (machine.process(), machine.process());
    let (a, b) = (one.local(), two.local());
    let ((ns, _), (theirs, _)) = (join_as(&one, &a, &config()), join_as(&two, &b, &config()));
    let segment = with_lock(&ns);
    let (mine, thread) = (ParticipantLocal::new(), ParticipantLocal::new());
    ns.register(&mine).unwrap();
    theirs.register(&thread).unwrap();
    {
        let seen = theirs.attach_segment(segment.handle()).unwrap().unwrap();
        let participant = theirs.participant(&thread);
        forget(lock_of(&seen).exclusive(&participant, Patience::Try).unwrap());
    }
    assert_eq!(ns.attached_processes(segment.handle()), Some(2));
    let me = ns.participant(&mine);
    let refused = lock_of(&segment).exclusive(&me, Patience::Try).err();
    assert_eq!(refused, Some(LockError::WouldBlock));
    two.kill();
    drop(lock_of(&segment).exclusive(&me, Patience::Try).unwrap());
    ns.reap().unwrap();
    assert_eq!(ns.attached_processes(segment.handle()), Some(1));
}

//! Opening, joining and leaving a namespace, and what is left behind.

use super::{assert_empty, config, join, join_as};
use dsm_core::error::ErrorKind;
use dsm_core::lock::rw::RwLock;
use dsm_core::lock::{Acquired, LockRef, Patience, RawLock};
use dsm_core::namespace::{Error, LocalSegment, Namespace, NamespaceConfig, Opened, ProcessLocal};
use dsm_core::participant::ParticipantLocal;
use sim::HeapMachine;

use std::sync::atomic::{AtomicU64, Ordering};

#[test]
fn the_last_to_leave_removes_everything() {
    let machine = HeapMachine::new();
    let (first, second) = (machine.process(), machine.process());
    let (a, b) = (first.local(), second.local());
    let (one, opened) = Namespace::open(&first, first.platform(), &config(), &a).unwrap();
    assert_eq!(opened, Opened::Created);
    let (two, opened) = Namespace::open(&second, second.platform(), &config(), &b).unwrap();
    assert_eq!(opened, Opened::Joined);
    let segment = one.create_segment(10_000, 10_000).unwrap();
    let handle = segment.handle();
    let other = two.attach_segment(handle).unwrap().unwrap();
    assert_eq!(other.len(), 10_000);
    one.pin_segment(handle).unwrap();
    drop(segment);
    drop(other);
    assert_eq!(machine.objects().len(), 2);
    one.leave(&first).unwrap();
    assert_eq!(two.attached_processes(handle), Some(0));
    two.leave(&second).unwrap();
    assert_eq!(machine.objects().len(), 0);
    assert_eq!((machine.used(), first.mapped(), second.mapped()), (0, 0, 0));
}

#[test]
fn a_killed_namespace_is_recreated_and_a_persistent_one_resumed() {
    for persistent in [false, true] {
        let machine = HeapMachine::new();
        let victim = machine.process();
        let local = victim.local();
        let config = NamespaceConfig { persistent, ..config() };
        let (ns, _) = Namespace::open(&victim, victim.platform(), &config, &local).unwrap();
        let thread = ParticipantLocal::new();
        ns.register(&thread).unwrap();
        let kept = ns.create_segment(5000, 0).unwrap();
        let lost = ns.create_segment(5000, 0).unwrap();
        ns.pin_segment(kept.handle()).unwrap();
        ns.root(3).store(77, Ordering::Relaxed);
        let (kept_handle, lost_handle) = (kept.handle(), lost.handle());
        victim.kill();
        assert_eq!(ns.create_segment(1, 1).err(), Some(Error::Forked));
        drop((kept, lost));
        assert_eq!(machine.objects().len(), 3);

        let next = machine.process();
        let local = next.local();
        let (ns, opened) = Namespace::open(&next, next.platform(), &config, &local).unwrap();
        assert!(ns.attach_segment(lost_handle).unwrap().is_none());
        let found = ns.attach_segment(kept_handle).unwrap().map(|segment| segment.len());
        if persistent {
            assert_eq!(opened, Opened::Resumed);
            assert_eq!(found, Some(5000));
            assert_eq!(ns.root(3).load(Ordering::Relaxed), 77);
            ns.unpin_segment(kept_handle).unwrap();
        } else {
            assert_eq!(opened, Opened::Recreated);
            assert!(found.is_none());
        }
        ns.leave(&next).unwrap();
        assert_eq!(machine.objects().len(), usize::from(persistent));
    }
}

#[test]
fn the_slots_of_the_dead_are_given_out_again() {
    let machine = HeapMachine::new();
    let survivor = machine.process();
    let local = survivor.local();
    let (ns, _) = Namespace::open(&survivor, survivor.platform(), &config(), &local).unwrap();
    for _ in 0..100 {
        let victim = machine.process();
        let local = victim.local();
        let (theirs, _) = Namespace::open(&victim, victim.platform(), &config(), &local).unwrap();
        let threads: Vec<_> = (0..5).map(|_| ParticipantLocal::new()).collect();
        for thread in &threads {
            theirs.register(thread).unwrap();
        }
        victim.kill();
    }
    assert!(ns.reap().unwrap() > 0);
    let me = ParticipantLocal::new();
    let id = ns.register(&me).unwrap();
    assert!(id.index > 0);
    assert_eq!(ns.participant(&me).id(), Some(id));
    assert!(ns.unregister(&me));
    ns.leave(&survivor).unwrap();
    assert_eq!(machine.used(), 0);
}

#[test]
fn two_that_open_at_once_are_one_creator_and_one_guest() {
    for _ in 0..200 {
        let machine = HeapMachine::new();
        let openings: Vec<_> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..2)
                .map(|_| {
                    scope.spawn(|| {
                        let process = machine.process();
                        let local = process.local();
                        let (ns, opened) = join_as(&process, &local, &config());
                        let root = ns.root(0).fetch_add(1, Ordering::Relaxed);
                        let slot = ns.process_slot();
                        // Neither leaves before the other has come.
                        while ns.root(0).load(Ordering::Relaxed) < 2 {
                            std::thread::yield_now();
                        }
                        ns.leave(&process).unwrap();
                        (opened, root, slot)
                    })
                })
                .collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        let created = openings.iter().filter(|o| o.0 == Opened::Created).count();
        let joined = openings.iter().filter(|o| o.0 == Opened::Joined).count();
        assert_eq!((created, joined), (1, 1));
        assert_ne!(openings[0].2, openings[1].2, "a slot each");
        assert_empty(&machine);
    }
}

#[test]
fn slots_run_out_with_an_error_that_names_the_call_and_come_back() {
    let machine = HeapMachine::new();
    let config = NamespaceConfig { max_processes: 2, max_participants: 6, ..config() };
    let processes: Vec<_> = (0..3).map(|_| machine.process()).collect();
    let locals: Vec<_> = processes.iter().map(|process| process.local()).collect();
    let (ns, _) = join_as(&processes[0], &locals[0], &config);
    let (other, _) = join_as(&processes[1], &locals[1], &config);
    let third = Namespace::open(&processes[2], processes[2].platform(), &config, &locals[2]);
    let error = third.err().unwrap();
    assert_eq!(error, Error::TooManyProcesses(2));
    assert!(error.to_string().contains("`max_processes`"));
    // Six: the elector, two processes, three threads.
    let threads: Vec<_> = (0..4).map(|_| ParticipantLocal::new()).collect();
    for thread in &threads[..3] {
        other.register(thread).unwrap();
    }
    let error = ns.register(&threads[3]).unwrap_err();
    assert_eq!(error, Error::TooManyParticipants(6));
    assert!(error.to_string().contains("`max_participants`"));
    assert_eq!(other.register(&threads[0]), Err(Error::AlreadyRegistered));
    processes[1].kill();
    // Registering reaps when slots run out, and so does opening.
    let id = ns.register(&threads[3]).unwrap();
    assert!(id.generation > 0);
    let (third, _) = join_as(&processes[2], &locals[2], &config);
    third.leave(&processes[2]).unwrap();
    assert!(ns.unregister(&threads[3]));
    ns.leave(&processes[0]).unwrap();
    assert_eq!(machine.objects().len(), 0);
}

#[test]
fn local_memory_is_for_one_namespace_at_a_time_and_long_enough() {
    let machine = HeapMachine::new();
    let process = machine.process();
    let local = process.local();
    let ns = join(&process, &local);
    let again = Namespace::open(&process, process.platform(), &config(), &local);
    assert_eq!(again.err(), Some(Error::LocalInUse));
    ns.leave(&process).unwrap();
    let ns = join(&process, &local);
    ns.leave(&process).unwrap();
    let large = NamespaceConfig { max_segments: 1025, ..config() };
    let refused = Namespace::open(&process, process.platform(), &large, &local);
    assert_eq!(refused.err(), Some(Error::LocalTooSmall(1024, 1025)));
    assert_empty(&machine);
}

#[test]
fn an_election_that_is_not_let_go_of_times_out() {
    use dsm_core::provider::Root;
    let machine = HeapMachine::new();
    let (holder, process) = (machine.process(), machine.process());
    let election = holder.elect(std::time::Duration::ZERO).unwrap();
    let config = NamespaceConfig { patience: std::time::Duration::from_millis(5), ..config() };
    let local = process.local();
    let refused = Namespace::open(&process, process.platform(), &config, &local).err();
    assert!(matches!(refused, Some(Error::Provider(f)) if f.kind == ErrorKind::TimedOut));
    drop(election);
    join_as(&process, &local, &config).0.leave(&process).unwrap();
    assert_empty(&machine);
}

#[test]
fn out_of_memory_at_creation_leaves_nothing() {
    let machine = HeapMachine::new();
    let process = machine.process();
    let local = process.local();
    machine.set_capacity(Some(4096));
    let refused = Namespace::open(&process, process.platform(), &config(), &local).err();
    assert!(matches!(refused, Some(Error::Provider(f)) if f.kind == ErrorKind::NoSpace));
    assert_empty(&machine);
    assert_eq!(process.mapped(), 0);
    machine.set_capacity(None);
    join(&process, &local).leave(&process).unwrap();
    assert_empty(&machine);
}

#[test]
fn the_largest_namespace_can_be_used() {
    let machine = HeapMachine::new();
    let (process, other) = (machine.process(), machine.process());
    let tokens = [const { AtomicU64::new(0) }; 2];
    let records = || Vec::from_iter((0..4096).map(|_| LocalSegment::new()));
    let (mut mine, mut others) = (records(), records());
    let local = ProcessLocal::new(&tokens[0], &mut mine);
    let other_local = ProcessLocal::new(&tokens[1], &mut others);
    let config = NamespaceConfig {
        max_processes: 4096,
        max_participants: 65_535,
        max_segments: 4096,
        main_region: 1 << 20,
        ..config()
    };
    let (namespace, _) = join_as(&process, &local, &config);
    let (theirs, _) = join_as(&other, &other_local, &config);
    // Each segment slot, the last page of the main region, and the lock at its very end.
    let size = RwLock::size_for(config.max_participants);
    let pages = size.next_multiple_of(4096);
    let first = namespace.create_segment((1 << 20) - pages, 1).unwrap();
    let segments: Vec<_> = (1..4095).map(|_| namespace.create_object(1, 1).unwrap()).collect();
    let last = namespace.create_segment(size, size).unwrap();
    let refused = namespace.create_segment(1, 1).err();
    assert_eq!(refused, Some(Error::TooManySegments(4096)));
    assert_eq!(last.handle().slot(), 4095);
    assert!(last.handle().is_main_region());
    let here = last.base().cast::<RwLock>();
    // SAFETY: the segment is as long as the lock, aligned to pages, and not used otherwise.
    unsafe { RwLock::init(here, config.max_participants) };
    let attached = theirs.attach_segment(last.handle()).unwrap().unwrap();
    let (me, you) = (ParticipantLocal::new(), ParticipantLocal::new());
    namespace.register(&me).unwrap();
    theirs.register(&you).unwrap();
    // SAFETY: built above, and mapped until the end.
    let lock = unsafe { LockRef::new(here, last.lock_address(0)) };
    // SAFETY: the same one.
    let again = unsafe { LockRef::new(attached.base().cast::<RwLock>(), attached.lock_address(0)) };
    let (me, you) = (namespace.participant(&me), theirs.participant(&you));
    std::mem::forget(again.shared(&you, Patience::Try).unwrap().unwrap());
    assert!(lock.exclusive(&me, Patience::Try).is_err());
    other.kill();
    // What it has does nothing any more.
    tokens[1].store(0, Ordering::Relaxed);
    let guard = lock.exclusive(&me, Patience::Forever).unwrap();
    assert_eq!(guard.acquired(), Acquired::Clean);
    drop(guard);
    drop((first, segments));
}

#[test]
fn configurations_out_of_range_are_refused_by_name() {
    let machine = HeapMachine::new();
    let process = machine.process();
    let local = process.local();
    let wrong = [
        (NamespaceConfig { max_processes: 0, ..config() }, "max_processes"),
        (NamespaceConfig { max_participants: 2, ..config() }, "max_participants"),
        (NamespaceConfig { max_participants: 65_536, ..config() }, "max_participants"),
        (NamespaceConfig { max_segments: 4097, ..config() }, "max_segments"),
        (NamespaceConfig { main_region: usize::MAX, ..config() }, "main_region"),
    ];
    for (config, call) in wrong {
        let refused = Namespace::open(&process, process.platform(), &config, &local).err();
        let Some(Error::InvalidConfig(range)) = refused else { panic!("{call}: {refused:?}") };
        assert_eq!(range.option, call);
        assert!(!(range.least..=range.most).contains(&range.value), "{range}");
        assert_eq!(config.check(), Err(Error::InvalidConfig(range)));
    }
    assert_empty(&machine);
}

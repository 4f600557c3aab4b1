//! Opening, joining and leaving a namespace, and what is left behind.
#![cfg(not(loom))]

use dsm_core::heap::HeapMachine;
use dsm_core::namespace::{Error, Namespace, NamespaceConfig, Opened};
use dsm_core::participant::ParticipantLocal;

fn config() -> NamespaceConfig {
    NamespaceConfig {
        max_processes: 8,
        max_participants: 24,
        max_segments: 16,
        ..NamespaceConfig::default()
    }
}

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
        ns.root(3).store(77, std::sync::atomic::Ordering::Relaxed);
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
            assert_eq!(ns.root(3).load(std::sync::atomic::Ordering::Relaxed), 77);
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

//! A namespace among things that go wrong around it: damage, hands from outside, other users.
#![cfg(not(loom))]

use std::sync::Arc;

use dsm_core::lock::HeldMode;
use dsm_core::lock::rw::RwLock;
use dsm_core::namespace::{Error, Namespace, NamespaceConfig, Opened};
use dsm_core::participant::ParticipantLocal;
use sim::HeapMachine;

fn config() -> NamespaceConfig {
    NamespaceConfig {
        max_processes: 4,
        max_participants: 16,
        max_segments: 8,
        ..NamespaceConfig::default()
    }
}

#[test]
fn a_damaged_length_of_the_control_lock_is_refused() {
    let machine = HeapMachine::new();
    let first = machine.process();
    let local = first.local();
    Namespace::open(&first, first.platform(), &config(), &local).unwrap();
    first.kill();
    let (base, _) = machine.control_bytes().unwrap();
    // Behind the header's 320 bytes: owner word, wake word, shape, whose lower half is the number of
    // further reader words. A lock that trusts it reads beyond the object.
    // SAFETY: the control object is longer than that.
    let length = unsafe { base.cast::<u32>().add((320 + 12) / 4) };
    // SAFETY: as above, and nobody else uses it.
    let shape = unsafe { length.read() };
    assert_eq!(shape & 0xffff, 0);
    // SAFETY: as above.
    unsafe { length.write(shape | 0x7fff) };
    let next = machine.process();
    let local = next.local();
    let opened = Namespace::open(&next, next.platform(), &config(), &local);
    assert!(matches!(opened.err(), Some(Error::Corrupt("length of the control lock"))));
}

#[test]
fn the_last_to_leave_a_namespace_without_a_name_removes_its_segments() {
    let machine = HeapMachine::new();
    let (first, second) = (machine.process(), machine.process());
    let (a, b) = (first.local(), second.local());
    let (one, _) = Namespace::open(&first, first.platform(), &config(), &a).unwrap();
    let (two, _) = Namespace::open(&second, second.platform(), &config(), &b).unwrap();
    let pinned = one.create_segment(5000, 5000).unwrap();
    one.pin_segment(pinned.handle()).unwrap();
    drop(pinned);
    machine.unlink_control();
    one.leave(&first).unwrap();
    assert_eq!(machine.objects().len(), 1, "the other process is still in it");
    two.leave(&second).unwrap();
    assert_eq!(machine.objects().len(), 0);
    assert_eq!(machine.used(), 0);
}

#[test]
fn a_dead_users_segments_keep_nobody_out() {
    let machine = HeapMachine::new();
    let (owner, victim, other) = (machine.process(), machine.process(), machine.process());
    let (a, b, c) = (owner.local(), victim.local(), other.local());
    let (namespace, _) = Namespace::open(&owner, owner.platform(), &config(), &a).unwrap();
    let (theirs, _) = Namespace::open(&victim, victim.platform(), &config(), &b).unwrap();
    let left = theirs.create_segment(5000, 5000).unwrap().into_raw();
    victim.kill();

    // The other one is another user's, who may not remove objects: a directory with the sticky bit.
    machine.on_call(Some(Arc::new(|machine, call| {
        if call == "destroy" {
            machine.fail_next_destroy();
        }
    })));
    let (joined, opened) = Namespace::open(&other, other.platform(), &config(), &c).unwrap();
    assert_eq!(opened, Opened::Joined);
    assert!(joined.attach_segment(left.handle).unwrap().is_none());
    // Asking for more participants than there are sweeps as well.
    let threads: Vec<_> = (0..16).map(|_| ParticipantLocal::new()).collect();
    let full = threads.iter().find_map(|thread| joined.register(thread).err());
    assert_eq!(full, Some(Error::TooManyParticipants(16)));
    threads.iter().for_each(|thread| assert!(joined.unregister(thread)));
    assert_eq!(machine.objects().len(), 2);
    // Whoever may remove it does.
    machine.on_call(None);
    namespace.reap().unwrap();
    assert_eq!(machine.objects().len(), 1);
    namespace.leave(&owner).unwrap();
    assert!(joined.leave(&other).is_ok());
    assert_eq!(machine.objects().len(), 0);
}

#[test]
fn a_sweep_does_not_touch_what_a_lock_has_become() {
    let machine = HeapMachine::new();
    let (first, victim) = (machine.process(), machine.process());
    let (a, b) = (first.local(), victim.local());
    let (namespace, _) = Namespace::open(&first, first.platform(), &config(), &a).unwrap();
    let (theirs, _) = Namespace::open(&victim, victim.platform(), &config(), &b).unwrap();
    let segment = namespace.create_segment(4096, 4096).unwrap();
    let attached = theirs.attach_segment(segment.handle()).unwrap().unwrap();
    let thread = ParticipantLocal::new();
    theirs.register(&thread).unwrap();
    // Killed between letting go of a lock and taking back the record of it.
    let (dead, address) = (theirs.participant(&thread), attached.lock_address(64));
    // SAFETY: the lock is never acquired again by this participant, who is about to die.
    let record = unsafe { dead.hold::<RwLock>(address, HeldMode::Shared) };
    let _index = record.unwrap().keep();
    victim.kill();
    // Meanwhile the lock went with its structure, and the memory is somebody's data: all bits set
    // but for zeros where a lock has its wake word and its shape.
    let pattern = |word: usize| if word % 8 == 1 { 0 } else { u64::MAX };
    let words = segment.base().cast::<u64>().as_ptr();
    for word in 0..512 {
        // SAFETY: within the segment, which nobody else uses.
        unsafe { words.wrapping_add(word).write(pattern(word)) };
    }
    assert!(namespace.reap().unwrap() > 0);
    for word in 0..512 {
        // SAFETY: as above.
        assert_eq!(unsafe { words.wrapping_add(word).read() }, pattern(word), "word {word}");
    }
    drop(segment);
    namespace.leave(&first).unwrap();
}

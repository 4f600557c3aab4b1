//! What belongs to one namespace, given to another. It must cost no more than an error.

use dsm_core::lock::rw::RwLock;
use dsm_core::lock::{LockError, LockRef, Patience, RawLock};
use dsm_core::namespace::{Error, LocalSegment, Namespace, ProcessLocal};
use dsm_core::participant::ParticipantLocal;
use dsm_core::sync::{AtomicU64, Ordering};
use sim::HeapMachine;

use super::{assert_empty, config, join};

#[test]
fn a_stranger_frees_nobodys_slot() {
    let (here, there) = (HeapMachine::new(), HeapMachine::new());
    let (one, two) = (here.process(), there.process());
    let (a, b) = (one.local(), two.local());
    let (ns, other) = (join(&one, &a), join(&two, &b));
    let [mine, theirs, next] = [const { ParticipantLocal::new() }; 3];
    // The same slot of two namespaces.
    let slot = ns.register(&mine).unwrap();
    assert_eq!(other.register(&theirs), Ok(slot));
    assert!(!ns.unregister(&theirs), "another namespace's");
    assert!(theirs.is_registered() && mine.is_registered());
    assert_ne!(ns.register(&next).unwrap().index, slot.index, "its tenant is still there");
    assert!(ns.unregister(&next));
    assert!(ns.unregister(&mine));
    assert!(other.unregister(&theirs));
    ns.leave(&one).unwrap();
    other.leave(&two).unwrap();
}

#[test]
fn a_stranger_is_nobody() {
    let (here, there) = (HeapMachine::new(), HeapMachine::new());
    let (one, two) = (here.process(), there.process());
    let (a, b) = (one.local(), two.local());
    let (ns, other) = (join(&one, &a), join(&two, &b));
    let theirs = ParticipantLocal::new();
    other.register(&theirs).unwrap();
    let stranger = ns.participant(&theirs);
    assert!(stranger.id().is_none() && !stranger.is_registered());
    let segment = ns.create_segment(4096, 4096).unwrap();
    // SAFETY: fresh memory of one page, used by nobody.
    unsafe { RwLock::init(segment.base().cast(), config().max_participants) };
    let lock: LockRef<'_, RwLock> =
        // SAFETY: built just now.
        unsafe { LockRef::new(segment.base().cast(), segment.lock_address(0)) };
    let refused = Some(LockError::NotRegistered);
    assert_eq!(lock.exclusive(&stranger, Patience::Forever).err(), refused);
    assert_eq!(lock.shared(&stranger, Patience::Forever).err(), refused);
    assert!(lock.shared_at_once(&stranger).is_none());
    assert!(other.participant(&theirs).is_registered(), "at home it is who it was");
}

#[test]
fn a_local_half_is_for_one_namespace() {
    let (here, there) = (HeapMachine::new(), HeapMachine::new());
    let (one, two) = (here.process(), there.process());
    let (a, b) = (one.local(), two.local());
    let (ns, other) = (join(&one, &a), join(&two, &b));
    let local = ParticipantLocal::new();
    // There may be a participant of it, which would be somebody else all of a sudden.
    let me = ns.participant(&local);
    assert_eq!(other.register(&local), Err(Error::ForeignLocal));
    let first = ns.register(&local).unwrap();
    assert_eq!(me.id(), Some(first));
    assert_eq!(other.register(&local), Err(Error::ForeignLocal));
    assert!(ns.unregister(&local));
    assert_eq!(other.register(&local), Err(Error::ForeignLocal));
    let second = ns.register(&local).unwrap();
    assert_eq!((second.index, second.generation), (first.index, first.generation + 1));
    assert_eq!(me.id(), Some(second));
}

#[test]
fn leaving_unmaps_where_opening_has_mapped() {
    let (here, there) = (HeapMachine::new(), HeapMachine::new());
    let (one, two) = (here.process(), there.process());
    let (a, b) = (one.local(), two.local());
    let (ns, other) = (join(&one, &a), join(&two, &b));
    // By the root of another namespace: as far as this one knows, its own has lost its name.
    ns.leave(&two).unwrap();
    assert_eq!((one.mapped(), two.mapped()), (0, 1));
    other.leave(&two).unwrap();
    assert_empty(&there);
}

#[test]
fn a_namespace_that_lost_its_local_memory_never_has_it_again() {
    let machine = HeapMachine::new();
    let process = machine.process();
    let token = AtomicU64::new(0);
    let mut records: Vec<_> = (0..16).map(|_| LocalSegment::new()).collect();
    let local = ProcessLocal::new(&token, &mut records);
    let open = || Namespace::open(&process, process.platform(), &config(), &local);
    let (first, _) = open().unwrap();
    let said = token.swap(0, Ordering::SeqCst);
    let (second, _) = open().unwrap();
    let now = token.load(Ordering::SeqCst);
    // Whatever the word says now, the records are the second one's.
    for word in [0, said, now] {
        token.store(word, Ordering::SeqCst);
        assert_eq!(first.create_segment(100, 100).err(), Some(Error::Forked), "{word:#x}");
    }
    drop(second.create_segment(100, 100).unwrap());
    second.leave(&process).unwrap();
}

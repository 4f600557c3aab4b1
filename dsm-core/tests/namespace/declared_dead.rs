//! A living process that others declared dead: it finds out in its next call, which changes
//! nothing, and its guards give nothing back.

use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use super::{assert_empty, config, join};
use dsm_core::inspect::Inspector;
use dsm_core::lock::rw::{RwLock, RwLockState};
use dsm_core::lock::spin::SpinLock;
use dsm_core::lock::{Acquired, LockError, LockRef, Patience, RawLock};
use dsm_core::namespace::{Error, Namespace};
use dsm_core::participant::{ParticipantLocal, Peers};
use dsm_core::provider::Root;
use dsm_core::segment::Segment;
use sim::{HeapMachine, HeapProcess};

const DEAD: LockError = LockError::DeclaredDead;

/// A segment with two locks in it.
fn with_locks<'n>(ns: &'n Namespace<'_>) -> Segment<'n> {
    let segment = ns.create_segment(4096, 4096).unwrap();
    for place in [0, 64] {
        // SAFETY: within the segment, which nobody uses yet.
        let at = unsafe { segment.base().add(place) };
        // SAFETY: as above; aligned, and long enough for the namespace's participants.
        unsafe { RwLock::init(at.cast(), config().max_participants) };
    }
    segment
}

fn lock<'n>(segment: &Segment<'n>, place: usize) -> LockRef<'n, RwLock> {
    // SAFETY: built by `with_locks`; tests keep the segment mapped as long as they use it.
    unsafe { LockRef::new(at(segment, place), segment.lock_address(place as u64)) }
}

fn at(segment: &Segment<'_>, place: usize) -> NonNull<RwLock> {
    assert!(place < segment.len());
    // SAFETY: within the segment.
    unsafe { segment.base().add(place) }.cast()
}

fn state(segment: &Segment<'_>, place: usize) -> RwLockState {
    // SAFETY: built by `with_locks`.
    unsafe { RwLock::state(at(segment, place)) }
}

/// All bytes of shared memory: the control object's and the segment's.
fn bytes(machine: &HeapMachine, segment: &Segment<'_>) -> Vec<u8> {
    let (base, len) = machine.control_bytes().unwrap();
    let parts = [(base, len), (segment.base(), segment.len())];
    let mut all = Vec::new();
    for (base, len) in parts {
        // SAFETY: that many bytes, which nobody changes meanwhile.
        all.extend_from_slice(unsafe { std::slice::from_raw_parts(base.as_ptr(), len) });
    }
    all
}

/// Does something that must leave shared memory as it is.
fn untouched<T>(
    machine: &HeapMachine,
    segment: &Segment<'_>,
    what: &str,
    work: impl FnOnce() -> T,
) -> T {
    let before = bytes(machine, segment);
    let result = work();
    let after = bytes(machine, segment);
    let first = before.iter().zip(&after).position(|(a, b)| a != b);
    assert_eq!((first, after.len()), (None, before.len()), "{what} changed shared memory");
    result
}

/// A survivor with a thread, and others who sweep it.
struct Scene {
    machine: HeapMachine,
    survivor: HeapProcess,
    other: HeapProcess,
}

impl Scene {
    fn new() -> Self {
        let machine = HeapMachine::new();
        let (survivor, other) = (machine.process(), machine.process());
        Self { machine, survivor, other }
    }

    /// The survivor loses its tokens.
    fn lose(&self) {
        self.machine.lose_tokens(self.survivor.pid());
    }
}

#[test]
fn every_call_of_a_process_that_was_swept_fails_and_changes_nothing() {
    let scene = Scene::new();
    let (mine, theirs) = (scene.survivor.local(), scene.other.local());
    let ns = join(&scene.survivor, &mine);
    let peers = join(&scene.other, &theirs);
    let shared = with_locks(&peers);
    let seen = ns.attach_segment(shared.handle()).unwrap().unwrap();
    let own = ns.create_segment(4096, 4096).unwrap();
    ns.pin_segment(own.handle()).unwrap();
    let local = ParticipantLocal::new();
    ns.register(&local).unwrap();
    let spare = ParticipantLocal::new();
    ns.register(&spare).unwrap();

    scene.lose();
    assert!(!ns.is_declared_dead());
    // Both threads, and the one of the process.
    assert_eq!(peers.reap().unwrap(), 3);
    assert!(ns.is_declared_dead());

    let untouched = |what: &str, work: &dyn Fn()| untouched(&scene.machine, &shared, what, work);
    let thread = ns.participant(&local);
    assert!(local.is_registered(), "it has not looked yet");
    let later = Patience::Until(Duration::MAX);
    for patience in [Patience::Try, Patience::Forever, later] {
        untouched("an exclusive acquisition", &|| {
            assert_eq!(lock(&seen, 0).exclusive(&thread, patience).err(), Some(DEAD));
        });
        untouched("a shared acquisition", &|| {
            assert_eq!(lock(&seen, 0).shared(&thread, patience).err(), Some(DEAD));
        });
        untouched("an acquisition at once", &|| {
            assert!(lock(&seen, 0).shared_at_once(&thread).is_none());
        });
    }
    assert!(!local.is_registered());
    assert_eq!(thread.confirm(), Err(DEAD));
    assert_eq!(thread.id(), None);
    let refused = Error::Lock(DEAD);
    untouched("a segment's creation", &|| {
        assert_eq!(ns.create_segment(100, 100).err(), Some(refused));
        assert_eq!(ns.create_object(100, 100).err(), Some(refused));
    });
    untouched("a pin", &|| assert_eq!(ns.pin_segment(shared.handle()), Err(refused)));
    untouched("an unpin", &|| assert_eq!(ns.unpin_segment(own.handle()), Err(refused)));
    untouched("a pin under another", &|| {
        assert_eq!(ns.pin_segment_under(own.handle(), shared.handle()), Err(refused));
    });
    let fresh = ParticipantLocal::new();
    untouched("a registration", &|| assert_eq!(ns.register(&fresh), Err(refused)));
    untouched("the end of a registration", &|| {
        assert!(!ns.unregister(&spare), "its slot is not its own");
    });
    untouched("reaping", &|| assert_eq!(ns.reap(), Err(refused)));
    untouched("persistence", &|| assert_eq!(ns.set_persistent(true), Err(refused)));
    untouched("a reservation", &|| assert!(own.reserve(0..4096).is_ok(), "backed already"));
    let before = bytes(&scene.machine, &shared);
    drop((seen, own));
    assert_eq!(ns.leave(&scene.survivor), Err(refused));
    assert!(before == bytes(&scene.machine, &shared), "leaving changed shared memory");

    // The way out.
    let ns = join(&scene.survivor, &mine);
    ns.register(&local).unwrap();
    let seen = ns.attach_segment(shared.handle()).unwrap().unwrap();
    let thread = ns.participant(&local);
    drop(lock(&seen, 0).exclusive(&thread, Patience::Try).unwrap());
    drop(seen);
    assert!(ns.unregister(&local));
    ns.leave(&scene.survivor).unwrap();
    drop(shared);
    peers.leave(&scene.other).unwrap();
}

/// What it holds is the next tenant's business: of its slot, of its lock.
#[test]
fn guards_of_the_swept_give_nothing_back() {
    for looks_first in [false, true] {
        let scene = Scene::new();
        let (mine, theirs) = (scene.survivor.local(), scene.other.local());
        let ns = join(&scene.survivor, &mine);
        let peers = join(&scene.other, &theirs);
        let shared = with_locks(&peers);
        let seen = ns.attach_segment(shared.handle()).unwrap().unwrap();
        let local = ParticipantLocal::new();
        let slot = ns.register(&local).unwrap().index;
        let thread = ns.participant(&local);
        let reading = lock(&seen, 0).shared(&thread, Patience::Try).unwrap().unwrap();
        let nested = lock(&seen, 0).shared(&thread, Patience::Try).unwrap().unwrap();
        let writing = lock(&seen, 64).exclusive(&thread, Patience::Try).unwrap();

        scene.lose();
        assert_eq!(peers.reap().unwrap(), 2);
        assert_eq!(state(&shared, 0).readers, 0, "swept");
        // The same slots again, and in them holders of the same locks.
        let locals: Vec<_> = (0..3).map(|_| ParticipantLocal::new()).collect();
        let heirs: Vec<_> = locals.iter().map(|local| peers.register(local).unwrap()).collect();
        let heir = heirs.iter().position(|heir| heir.index == slot).expect("the slot is used anew");
        let heir = peers.participant(&locals[heir]);
        let theirs = lock(&shared, 0).shared(&heir, Patience::Try).unwrap().unwrap();
        let mut taken = lock(&shared, 64).exclusive(&heir, Patience::Forever).unwrap();
        assert_eq!(taken.acquired(), Acquired::FromDead);
        taken.mark_recovered();

        if looks_first {
            assert_eq!(thread.confirm(), Err(DEAD));
        }
        let work = || drop((nested, writing, reading));
        untouched(&scene.machine, &shared, "dropping guards", work);
        assert_eq!(state(&shared, 0).readers, 1);
        assert_eq!(state(&shared, 64).owner, heir.id());
        let mapping = scene.other.peek().unwrap();
        // SAFETY: mapped until the process is dropped.
        let inspector = unsafe { Inspector::new(&mapping, &scene.other) }.unwrap().unwrap();
        let held = inspector.participants().find(|p| Some(p.id) == heir.id()).unwrap().held;
        assert_eq!(held.iter().flatten().count(), 2, "the next tenant's records");
        drop((taken, theirs));
        drop(lock(&shared, 0).exclusive(&heir, Patience::Try).unwrap());
    }
}

/// Whoever waits for a lock of the dead takes it over and sweeps nothing.
#[test]
fn a_take_over_is_found_out_as_a_sweep_is() {
    for known in [false, true] {
        let scene = Scene::new();
        let (mine, theirs) = (scene.survivor.local(), scene.other.local());
        let ns = join(&scene.survivor, &mine);
        let peers = join(&scene.other, &theirs);
        let shared = with_locks(&peers);
        let seen = ns.attach_segment(shared.handle()).unwrap().unwrap();
        let (local, other) = (ParticipantLocal::new(), ParticipantLocal::new());
        ns.register(&local).unwrap();
        peers.register(&other).unwrap();
        let (thread, waiter) = (ns.participant(&local), peers.participant(&other));
        let first = lock(&seen, 0).exclusive(&thread, Patience::Try).unwrap();
        let second = lock(&seen, 64).exclusive(&thread, Patience::Try).unwrap();
        scene.lose();
        let mut taken = Vec::new();
        // The second one is had without a question to the system.
        for place in if known { &[0, 64][..] } else { &[0] } {
            let mut guard = lock(&shared, *place).exclusive(&waiter, Patience::Forever).unwrap();
            assert_eq!(guard.acquired(), Acquired::FromDead);
            guard.mark_recovered();
            taken.push(guard);
        }
        untouched(&scene.machine, &shared, "a release", || drop((second, first)));
        assert_eq!(thread.confirm(), Err(DEAD));
        assert_eq!(state(&shared, 0).owner, waiter.id());
    }
}

/// Who is swept while it sleeps at a lock doesn't get it: neither its bit nor its id is its own.
#[test]
fn a_waiter_that_is_swept_gives_up() {
    for exclusive in [false, true] {
        let scene = Scene::new();
        let (mine, theirs) = (scene.survivor.local(), scene.other.local());
        let ns = join(&scene.survivor, &mine);
        let peers = join(&scene.other, &theirs);
        let shared = with_locks(&peers);
        let other = ParticipantLocal::new();
        peers.register(&other).unwrap();
        let holder = peers.participant(&other);
        let held = lock(&shared, 0).exclusive(&holder, Patience::Try).unwrap();
        let asleep = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| {
                let seen = ns.attach_segment(shared.handle()).unwrap().unwrap();
                let local = ParticipantLocal::new();
                ns.register(&local).unwrap();
                let thread = ns.participant(&local);
                let end = ns.env().now() + Duration::from_secs(10);
                asleep.store(true, Ordering::Release);
                if exclusive {
                    lock(&seen, 0).exclusive(&thread, Patience::Until(end)).err()
                } else {
                    lock(&seen, 0).shared(&thread, Patience::Until(end)).err()
                }
            });
            while !(asleep.load(Ordering::Acquire) && state(&shared, 0).waiters) {
                std::thread::yield_now();
            }
            scene.lose();
            assert_eq!(peers.reap().unwrap(), 2);
            // It gives up while the lock is held: it is not the holder who sends it away.
            assert_eq!(waiting.join().unwrap(), Some(DEAD));
        });
        assert_eq!(state(&shared, 0).readers, 0);
        drop(held);
        drop(lock(&shared, 0).exclusive(&holder, Patience::Try).unwrap());
    }
}

/// The same where a waiter doesn't sleep.
#[test]
fn a_waiter_that_spins_and_is_swept_gives_up() {
    for exclusive in [false, true] {
        let scene = Scene::new();
        let (mine, theirs) = (scene.survivor.local(), scene.other.local());
        let ns = join(&scene.survivor, &mine);
        let peers = join(&scene.other, &theirs);
        let shared = with_locks(&peers);
        let place = 128;
        let spin = |segment: &Segment<'_>| at(segment, place).cast::<SpinLock>();
        // SAFETY: within the segment, aligned, and used by nobody yet.
        unsafe { SpinLock::init(spin(&shared), config().max_participants) };
        let other = ParticipantLocal::new();
        peers.register(&other).unwrap();
        let holder = peers.participant(&other);
        let address = shared.lock_address(place as u64);
        // SAFETY: built above, and mapped to the end.
        let lock = unsafe { LockRef::new(spin(&shared), address) };
        let held = lock.exclusive(&holder, Patience::Try).unwrap();
        let waits = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| {
                let seen = ns.attach_segment(shared.handle()).unwrap().unwrap();
                let local = ParticipantLocal::new();
                ns.register(&local).unwrap();
                let thread = ns.participant(&local);
                let end = Patience::Until(ns.env().now() + Duration::from_secs(10));
                // SAFETY: built by the holder, and mapped to the end.
                let lock = unsafe { LockRef::new(spin(&seen), seen.lock_address(place as u64)) };
                waits.store(true, Ordering::Release);
                let exclusively = || lock.exclusive(&thread, end).err();
                if exclusive { exclusively() } else { lock.shared(&thread, end).err() }
            });
            while !waits.load(Ordering::Acquire) {
                std::thread::yield_now();
            }
            std::thread::sleep(Duration::from_millis(5));
            scene.lose();
            assert_eq!(peers.reap().unwrap(), 2);
            assert_eq!(waiting.join().unwrap(), Some(DEAD));
        });
        drop(held);
        drop(lock.exclusive(&holder, Patience::Try).unwrap());
    }
}

/// Threads that are still registered when their process leaves are swept, and may go on.
#[test]
fn threads_of_a_process_that_left_find_out() {
    let scene = Scene::new();
    let (mine, theirs) = (scene.survivor.local(), scene.other.local());
    let ns = join(&scene.survivor, &mine);
    let peers = join(&scene.other, &theirs);
    let shared = with_locks(&peers);
    let other = ParticipantLocal::new();
    peers.register(&other).unwrap();
    let local = ParticipantLocal::new();
    ns.register(&local).unwrap();
    // As a thread has it that the leaving one doesn't wait for.
    let view = peers.participant(&local);
    drop(lock(&shared, 0).shared(&view, Patience::Try).unwrap());
    ns.leave(&scene.survivor).unwrap();
    untouched(&scene.machine, &shared, "an acquisition", || {
        assert_eq!(lock(&shared, 0).shared(&view, Patience::Try).err(), Some(DEAD));
    });
}

/// A process that loses the election in the midst of it must not take the id of who has it by now.
#[test]
fn an_elector_that_was_superseded_leaves_its_successors_state_alone() {
    let scene = Scene::new();
    let (mine, theirs) = (scene.survivor.local(), scene.other.local());
    let ns = join(&scene.survivor, &mine);
    let _peers = join(&scene.other, &theirs);
    // What a dead one leaves goes when the next one leaves: under the election.
    let dead = scene.machine.process();
    let last = dead.local();
    std::mem::forget(join(&dead, &last).create_segment(100, 100).unwrap());
    dead.kill();
    // The generation of participant 0, in the control object.
    let generation = |machine: &HeapMachine| {
        let (base, _) = machine.control_bytes().unwrap();
        let word = |at: u64| {
            // SAFETY: within the control object.
            let word = unsafe { base.add(at as usize) }.cast::<AtomicU64>();
            // SAFETY: as above; aligned, and mapped as long as the machine is.
            unsafe { word.as_ref() }.load(Ordering::Relaxed)
        };
        // The header's word that says where participant slots lie; each begins with its state.
        word(word(80)) >> 32
    };
    let successors = Arc::new(AtomicU64::new(0));
    let (loser, seen) = (scene.survivor.pid(), successors.clone());
    scene.machine.on_call(Some(Arc::new(move |machine: &HeapMachine, what| {
        if what != "destroy" || machine.elector() != Some(loser) {
            return;
        }
        machine.on_call(None);
        machine.lose_tokens(loser);
        let third = machine.process();
        let local = third.local();
        join(&third, &local).leave(&third).unwrap();
        seen.store(generation(machine), Ordering::Relaxed);
    })));
    let _ = ns.leave(&scene.survivor);
    let last = successors.load(Ordering::Relaxed);
    assert!(last != 0, "nothing was destroyed under the election");
    assert!(generation(&scene.machine) >= last, "an id would be given out twice");
}

#[test]
fn the_end_is_as_ever() {
    let scene = Scene::new();
    let (mine, theirs) = (scene.survivor.local(), scene.other.local());
    let ns = join(&scene.survivor, &mine);
    let peers = join(&scene.other, &theirs);
    drop(ns.create_segment(100, 100).unwrap());
    scene.lose();
    peers.reap().unwrap();
    assert!(ns.leave(&scene.survivor).is_err());
    peers.leave(&scene.other).unwrap();
    // The survivor keeps its mapping of what was the control object, as threads might use it.
    assert_eq!(scene.survivor.mapped(), 1);
    drop(scene.survivor);
    assert_empty(&scene.machine);
}

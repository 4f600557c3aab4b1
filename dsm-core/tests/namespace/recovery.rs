//! What the dead leave, and who cleans it.
//!
//! *Images*: while a victim works, a copy of the whole machine is taken before each of its calls of
//! the platform; in the copy it is killed there, and others must find nothing amiss.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use super::{assert_empty, config, join, join_as};
use dsm_core::error::ErrorKind;
use dsm_core::inspect::Inspector;
use dsm_core::lock::rw::RwLock;
use dsm_core::lock::{Acquired, LockError, LockRef, Patience, RawLock};
use dsm_core::namespace::{Error, Namespace, NamespaceConfig, Opened};
use dsm_core::participant::ParticipantLocal;
use dsm_core::provider::Root;
use dsm_core::segment::Segment;
use sim::{HeapMachine, HeapProcess};

/// Takes an image before each call of the platform while `work` runs, and one after it.
fn images(machine: &HeapMachine, work: impl FnOnce()) -> Vec<(String, HeapMachine)> {
    let taken: Arc<Mutex<Vec<(String, HeapMachine)>>> = Arc::default();
    let album = taken.clone();
    machine.on_call(Some(Arc::new(move |machine: &HeapMachine, what| {
        album.lock().unwrap().push((what.to_owned(), machine.snapshot()));
    })));
    work();
    machine.on_call(None);
    let mut taken = std::mem::take(&mut *taken.lock().unwrap());
    taken.push(("end".to_owned(), machine.snapshot()));
    taken
}

/// Opens the image's namespace, uses it and leaves it; nothing may remain.
fn clean_up(when: &str, image: &HeapMachine) -> Opened {
    let process = image.process();
    let local = process.local();
    let (ns, opened) = join_as(&process, &local, &config());
    let thread = ParticipantLocal::new();
    ns.register(&thread).unwrap();
    for _ in 0..16 {
        drop(ns.create_segment(100, 100).unwrap());
    }
    assert!(ns.unregister(&thread));
    ns.leave(&process).unwrap();
    assert_eq!(image.objects().len(), 0, "killed before {when}");
    assert_eq!(image.used(), 0, "killed before {when}");
    opened
}

/// What a process does from its first to its last day, each kind of call once.
fn life(process: &HeapProcess) {
    let local = process.local();
    let ns = join(process, &local);
    let thread = ParticipantLocal::new();
    ns.register(&thread).unwrap();
    let first = ns.create_segment(5000, 100).unwrap();
    let second = ns.create_segment(5000, 100).unwrap();
    let child = ns.create_segment(100, 100).unwrap();
    first.reserve(0..5000).unwrap();
    ns.pin_segment(first.handle()).unwrap();
    ns.pin_segment_under(child.handle(), second.handle()).unwrap();
    let handle = first.handle();
    drop((first, child));
    let again = ns.attach_segment(handle).unwrap().unwrap();
    ns.unpin_segment(handle).unwrap();
    drop((again, second));
    let left = ns.create_segment(100, 100).unwrap();
    ns.pin_segment(left.handle()).unwrap();
    drop(left);
    ns.unregister(&thread);
    ns.leave(process).unwrap();
}

#[test]
fn whoever_is_killed_alone_leaves_what_the_next_open_cleans() {
    let machine = HeapMachine::new();
    let victim = machine.process();
    let taken = images(&machine, || life(&victim));
    assert_empty(&machine);
    let calls: std::collections::BTreeSet<_> = taken.iter().map(|(what, _)| &**what).collect();
    for what in ["create", "create control", "destroy", "attach", "reserve", "remove control"] {
        assert!(calls.contains(what), "no image was taken before {what}");
    }
    for (when, image) in &taken {
        image.kill_pid(victim.pid());
        clean_up(when, image);
    }
}

#[test]
fn whoever_is_killed_among_others_is_swept_and_the_others_are_left_alone() {
    let machine = HeapMachine::new();
    let (peer, victim) = (machine.process(), machine.process());
    let local = peer.local();
    let ns = join(&peer, &local);
    let theirs = ns.create_segment(777, 777).unwrap();
    let handle = theirs.handle();
    let taken = images(&machine, || life(&victim));
    for (when, image) in &taken {
        image.kill_pid(victim.pid());
        let process = image.process();
        let local = process.local();
        let (ns, opened) = join_as(&process, &local, &config());
        assert_eq!(opened, Opened::Joined, "{when}");
        // The control object, and the peer's segment, and what the victim had pinned for good.
        let kept = image.objects().len();
        assert!(kept == 2 || kept == 3, "killed before {when}: {kept} objects");
        let found = ns.attach_segment(handle).unwrap().unwrap();
        assert_eq!((found.len(), ns.attached_processes(handle)), (777, Some(2)));
        drop(found);
        let mapping = process.peek().unwrap();
        // SAFETY: mapped until the process is dropped.
        let inspector = unsafe { Inspector::new(&mapping, &process) }.unwrap().unwrap();
        assert_eq!(inspector.processes().filter(|p| p.dead).count(), 0, "{when}");
        assert_eq!(inspector.processes().count(), 2, "{when}");
        assert_eq!(inspector.participants().count(), 2, "{when}");
        assert!(inspector.segments().all(|segment| segment.settled), "{when}");
        // SAFETY: nothing refers to it any more.
        unsafe { process.unmap(mapping) };
        ns.leave(&process).unwrap();
        image.kill_pid(peer.pid());
        assert_eq!(clean_up(when, image), Opened::Recreated);
    }
    drop(theirs);
    ns.leave(&peer).unwrap();
    assert_empty(&machine);
}

/// A segment that begins with a lock, and how to use it.
fn lock_of<'s>(segment: &'s Segment<'_>) -> LockRef<'s, RwLock> {
    // SAFETY: `with_lock` built a lock there.
    unsafe { LockRef::new(segment.base().cast(), segment.lock_address(0)) }
}

fn with_lock<'n>(ns: &'n Namespace<'n>, main_region: bool) -> Segment<'n> {
    let segment = if main_region {
        ns.create_segment(4096, 4096).unwrap()
    } else {
        ns.create_object(4096, 4096).unwrap()
    };
    assert_eq!(segment.handle().is_main_region(), main_region);
    // SAFETY: fresh memory of one page, used by nobody.
    unsafe { RwLock::init(segment.base().cast(), config().max_participants) };
    segment
}

#[test]
fn readers_that_died_are_swept_from_locks_wherever_they_lie() {
    for (main_region, mapped) in [(false, false), (false, true), (true, false), (true, true)] {
        let machine = HeapMachine::new();
        let config =
            NamespaceConfig { main_region: if main_region { 1 << 16 } else { 0 }, ..config() };
        let (one, two) = (machine.process(), machine.process());
        let (a, b) = (one.local(), two.local());
        let (ns, _) = join_as(&one, &a, &config);
        let (other, _) = join_as(&two, &b, &config);
        let segment = with_lock(&ns, main_region);
        let handle = segment.handle();
        ns.pin_segment(handle).unwrap();
        let seen = mapped.then(|| other.attach_segment(handle).unwrap().unwrap());
        let threads = [ParticipantLocal::new(), ParticipantLocal::new()];
        for thread in &threads {
            ns.register(thread).unwrap();
        }
        let participants = threads.each_ref().map(|thread| ns.participant(thread));
        for participant in &participants {
            let guard = lock_of(&segment).shared(participant, Patience::Try).unwrap().unwrap();
            std::mem::forget(guard);
        }
        one.kill();
        let before = two.mapped();
        // The process's own participant, and two threads.
        assert_eq!(other.reap(), Ok(3));
        assert_eq!(two.mapped(), before, "what was mapped for the sweep was unmapped");
        let seen = seen.unwrap_or_else(|| other.attach_segment(handle).unwrap().unwrap());
        let me = ParticipantLocal::new();
        other.register(&me).unwrap();
        let participant = other.participant(&me);
        // SAFETY: a lock.
        let state = unsafe { RwLock::state(seen.base().cast()) };
        assert_eq!((state.readers, state.owner), (0, None));
        let guard = lock_of(&seen).exclusive(&participant, Patience::Try).unwrap();
        assert_eq!(guard.acquired(), Acquired::Clean);
    }
}

#[test]
fn a_waiting_writer_evicts_a_dead_reader_and_recovers_from_a_dead_writer() {
    let machine = HeapMachine::new();
    let (one, two) = (machine.process(), machine.process());
    let (a, b) = (one.local(), two.local());
    let (ns, other) = (join(&one, &a), join(&two, &b));
    let segment = with_lock(&ns, false);
    let seen = other.attach_segment(segment.handle()).unwrap().unwrap();
    let (mine, theirs) = (ParticipantLocal::new(), ParticipantLocal::new());
    ns.register(&theirs).unwrap();
    other.register(&mine).unwrap();
    let (victim, me) = (ns.participant(&theirs), other.participant(&mine));
    std::mem::forget(lock_of(&segment).shared(&victim, Patience::Try).unwrap());
    assert_eq!(
        lock_of(&seen).exclusive(&me, Patience::Try).err(),
        Some(LockError::WouldBlock),
        "a reader that lives is waited for"
    );
    one.kill();
    drop(lock_of(&seen).exclusive(&me, Patience::Forever).unwrap());

    let third = machine.process();
    let local = third.local();
    let ns = join(&third, &local);
    let segment = ns.attach_segment(seen.handle()).unwrap().unwrap();
    let theirs = ParticipantLocal::new();
    ns.register(&theirs).unwrap();
    let victim = ns.participant(&theirs);
    std::mem::forget(lock_of(&segment).exclusive(&victim, Patience::Try).unwrap());
    third.kill();
    // Also after the slot was swept, and given out again.
    other.reap().unwrap();
    let newcomer = machine.process();
    let local = newcomer.local();
    let _ns = join(&newcomer, &local);
    let mut guard = lock_of(&seen).exclusive(&me, Patience::Forever).unwrap();
    assert_eq!(guard.acquired(), Acquired::FromDead);
    guard.mark_recovered();
}

#[test]
fn a_thread_that_ends_without_a_word_is_swept_while_its_process_lives() {
    let machine = HeapMachine::new();
    let process = machine.process();
    let local = process.local();
    let ns = join(&process, &local);
    let segment = with_lock(&ns, false);
    let tid = AtomicU64::new(0);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            use dsm_core::env::Liveness;
            let thread = ParticipantLocal::new();
            ns.register(&thread).unwrap();
            let participant = ns.participant(&thread);
            std::mem::forget(lock_of(&segment).shared(&participant, Patience::Try).unwrap());
            tid.store(process.thread_proof().tid, Ordering::Relaxed);
        });
    });
    assert_eq!(ns.reap(), Ok(0), "nothing proves it dead yet");
    machine.end_thread(tid.load(Ordering::Relaxed));
    assert_eq!(ns.reap(), Ok(1));
    let me = ParticipantLocal::new();
    ns.register(&me).unwrap();
    let participant = ns.participant(&me);
    drop(lock_of(&segment).exclusive(&participant, Patience::Try).unwrap());
    assert_eq!(ns.attached_processes(segment.handle()), Some(1));
}

#[test]
fn a_leaked_guard_keeps_its_lock_until_the_process_ends() {
    let machine = HeapMachine::new();
    let (one, two) = (machine.process(), machine.process());
    let (a, b) = (one.local(), two.local());
    let (ns, other) = (join(&one, &a), join(&two, &b));
    let segment = with_lock(&ns, false);
    let seen = other.attach_segment(segment.handle()).unwrap().unwrap();
    let tid = AtomicU64::new(0);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            use dsm_core::env::Liveness;
            let thread = ParticipantLocal::new();
            ns.register(&thread).unwrap();
            let participant = ns.participant(&thread);
            std::mem::forget(lock_of(&segment).exclusive(&participant, Patience::Try).unwrap());
            assert!(!ns.unregister(&thread), "the slot stays taken");
            tid.store(one.thread_proof().tid, Ordering::Relaxed);
        });
    });
    machine.end_thread(tid.load(Ordering::Relaxed));
    assert_eq!(other.reap(), Ok(0), "an orphan is not reaped while its process lives");
    let me = ParticipantLocal::new();
    other.register(&me).unwrap();
    let participant = other.participant(&me);
    let soon = Patience::Until(std::time::Duration::ZERO);
    assert_eq!(lock_of(&seen).exclusive(&participant, soon).err(), Some(LockError::TimedOut));
    // Leaving in good order ends the process as far as its locks are concerned.
    drop(segment);
    ns.leave(&one).unwrap();
    let guard = lock_of(&seen).exclusive(&participant, Patience::Forever).unwrap();
    assert_eq!(guard.acquired(), Acquired::FromDead);
}

#[test]
fn a_reaper_killed_at_any_call_is_followed_by_another() {
    // The victim leaves something of every kind; the reaper's images include those in which it
    // holds the control lock, as it maps a segment to clear a reader's bit.
    let machine = HeapMachine::new();
    let (peer, victim, reaper) = (machine.process(), machine.process(), machine.process());
    let (a, b, c) = (peer.local(), victim.local(), reaper.local());
    let (ns, theirs) = (join(&peer, &a), join(&victim, &b));
    let reapers = join(&reaper, &c);
    let shared = with_lock(&ns, false);
    let also = theirs.attach_segment(shared.handle()).unwrap().unwrap();
    let own: Vec<_> = (0..3).map(|_| theirs.create_segment(100, 100).unwrap()).collect();
    theirs.pin_segment_under(own[1].handle(), own[0].handle()).unwrap();
    let thread = ParticipantLocal::new();
    theirs.register(&thread).unwrap();
    let participant = theirs.participant(&thread);
    std::mem::forget(lock_of(&also).shared(&participant, Patience::Try).unwrap());
    victim.kill();
    drop(own);
    let taken = images(&machine, || assert_eq!(reapers.reap(), Ok(2)));
    assert!(taken.iter().any(|(what, _)| what == "attach"), "no image under the control lock");
    for (when, image) in &taken {
        image.kill_pid(reaper.pid());
        let process = image.process();
        let local = process.local();
        let (ns, opened) = join_as(&process, &local, &config());
        assert_eq!(opened, Opened::Joined);
        assert_eq!(image.objects().len(), 2, "killed before {when}");
        let found = ns.attach_segment(shared.handle()).unwrap().unwrap();
        // SAFETY: a lock.
        let state = unsafe { RwLock::state(found.base().cast()) };
        assert_eq!(state.readers, 0, "killed before {when}");
        assert_eq!(ns.attached_processes(shared.handle()), Some(2));
        drop(found);
        ns.leave(&process).unwrap();
        image.kill_pid(peer.pid());
        clean_up(when, image);
    }
}

#[test]
fn a_segment_that_cannot_be_mapped_keeps_its_dead_for_later() {
    let machine = HeapMachine::new();
    let (one, two) = (machine.process(), machine.process());
    let (a, b) = (one.local(), two.local());
    let (ns, other) = (join(&one, &a), join(&two, &b));
    let segment = with_lock(&ns, false);
    let thread = ParticipantLocal::new();
    ns.register(&thread).unwrap();
    let participant = ns.participant(&thread);
    std::mem::forget(lock_of(&segment).shared(&participant, Patience::Try).unwrap());
    one.kill();
    machine.fail_next_attach();
    assert_eq!(other.reap(), Ok(1), "the process's own participant, not the thread's");
    assert_eq!(
        other.attached_processes(segment.handle()),
        Some(1),
        "kept, so that it can be found"
    );
    assert_eq!(other.reap(), Ok(1));
    assert_eq!(other.attached_processes(segment.handle()), None);
    assert_eq!(machine.objects().len(), 1);
}

#[test]
fn segments_pinned_by_the_dead_stay_and_unattached_ones_go() {
    let machine = HeapMachine::new();
    let (one, two) = (machine.process(), machine.process());
    let (a, b) = (one.local(), two.local());
    let (ns, other) = (join(&one, &a), join(&two, &b));
    let (pinned, loose, seen) =
        (ns.create_segment(1, 1), ns.create_segment(1, 1), ns.create_segment(1, 1));
    let [pinned, loose, seen] = [pinned, loose, seen].map(|segment| segment.unwrap());
    let held = other.attach_segment(seen.handle()).unwrap().unwrap();
    ns.pin_segment(pinned.handle()).unwrap();
    one.kill();
    assert_eq!(other.reap(), Ok(1));
    assert_eq!(other.attached_processes(pinned.handle()), Some(0));
    assert_eq!(other.attached_processes(loose.handle()), None);
    assert_eq!(other.attached_processes(seen.handle()), Some(1));
    drop(held);
    assert_eq!(other.attached_processes(seen.handle()), None);
    other.leave(&two).unwrap();
    assert_eq!(machine.objects().len(), 0);
}

#[test]
fn who_leaves_with_a_guard_in_a_segment_lets_go_of_the_lock_before_the_memory() {
    let machine = HeapMachine::new();
    let (one, two) = (machine.process(), machine.process());
    let (a, b) = (one.local(), two.local());
    let (ns, other) = (join(&one, &a), join(&two, &b));
    let segment = with_lock(&ns, false);
    let seen = other.attach_segment(segment.handle()).unwrap().unwrap();
    let thread = ParticipantLocal::new();
    ns.register(&thread).unwrap();
    let participant = ns.participant(&thread);
    std::mem::forget(lock_of(&segment).shared(&participant, Patience::Try).unwrap());
    assert!(!ns.unregister(&thread));
    let (mapped, raw) = (one.mapped(), segment.into_raw());
    ns.leave(&one).unwrap();
    assert_eq!((mapped, one.mapped()), (2, 0), "the segment and the control object are unmapped");
    // SAFETY: a lock, still mapped by the other process.
    let state = unsafe { RwLock::state(seen.base().cast()) };
    assert_eq!(state.readers, 0);
    assert_eq!(other.attached_processes(raw.handle), Some(1));
}

#[test]
fn a_thread_that_is_still_registered_keeps_the_control_segment_mapped() {
    let machine = HeapMachine::new();
    let process = machine.process();
    let local = process.local();
    let ns = join(&process, &local);
    let thread = ParticipantLocal::new();
    ns.register(&thread).unwrap();
    ns.leave(&process).unwrap();
    assert_eq!(machine.objects().len(), 0);
    assert_eq!(process.mapped(), 1, "the thread's half still points into it");
    thread.clear();
}

#[test]
fn slots_retire_before_a_generation_comes_again() {
    let machine = HeapMachine::new();
    let process = machine.process();
    let local = process.local();
    let ns = join(&process, &local);
    let (base, _) = machine.control_bytes().unwrap();
    // Behind the header, one line of lock and eight process slots; the process has slot 1.
    let third = 320 + 64 + 8 * 64 + 2 * 192;
    // SAFETY: the state word of a free participant slot.
    let state = unsafe { base.add(third) }.cast::<u64>();
    let set = |generation: u32| {
        // SAFETY: as above, and nobody else is there.
        unsafe { state.write(u64::from(generation) << 32) };
    };
    let thread = ParticipantLocal::new();
    set(u32::MAX - 1);
    let last = ns.register(&thread).unwrap();
    assert_eq!((last.index, last.generation), (2, u32::MAX));
    assert!(ns.unregister(&thread));
    let next = ns.register(&thread).unwrap();
    assert_eq!((next.index, next.generation), (3, 1), "the slot is retired");
    assert!(ns.unregister(&thread));
    ns.leave(&process).unwrap();
    assert_empty(&machine);
}

/// A dead process has most of the memory: in a segment that is whole, in one that it was making,
/// and in its backing. Who creates, or backs more of what it has, gets it.
#[test]
fn the_dead_give_memory_to_who_needs_it() {
    for backing in [false, true] {
        let machine = HeapMachine::new();
        let process = machine.process();
        let local = process.local();
        let ours = join(&process, &local);
        let small = ours.create_object(40 << 20, 4096).unwrap();
        let attempt = || match backing {
            true => small.reserve(0..40 << 20),
            false => ours.create_object(40 << 20, 40 << 20).map(drop),
        };
        {
            let victim = machine.process();
            let local = victim.local();
            let theirs = join(&victim, &local);
            let whole = theirs.create_object(20 << 20, 20 << 20).unwrap();
            let grown = theirs.create_object(40 << 20, 4096).unwrap();
            grown.reserve(0..20 << 20).unwrap();
            machine.set_capacity(Some(machine.used() + (1 << 20)));
            let full = attempt().unwrap_err();
            assert!(matches!(full, Error::Provider(f) if f.kind == ErrorKind::NoSpace), "{full:?}");
            std::mem::forget((whole, grown));
            // Its mappings go with it, at the end of the block.
            victim.kill();
        }
        assert_eq!(attempt(), Ok(()), "memory that a dead process has");
        drop(small);
        ours.leave(&process).unwrap();
        assert_empty(&machine);
    }
}

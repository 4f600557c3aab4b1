//! The recoverable reader-writer lock among threads, some of which are declared dead.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use crate::support::{Boxed, Crowd};
use dsm_core::env::Clock;
use dsm_core::handle::LockAddress;
use dsm_core::lock::rw::RwLock;
use dsm_core::lock::{Acquired, HeldMode, LockError, Patience, RawLock};
use dsm_core::participant::{MAX_HELD, ParticipantLocal};

const FOREVER: Patience = Patience::Forever;

/// What the lock looks like, as (owner's index, entered, dirty, readers).
fn state(lock: &Boxed<RwLock>) -> (Option<u16>, bool, bool, u32) {
    // SAFETY: the lock is initialised.
    let state = unsafe { RwLock::state(lock.pointer()) };
    (state.owner.map(|id| id.index), state.entered, state.dirty, state.readers)
}

const FREE: (Option<u16>, bool, bool, u32) = (None, false, false, 0);

fn soon(crowd: &Crowd) -> Patience {
    Patience::Until(crowd.env.now() + Duration::from_millis(5))
}

/// Waits until `reached`; gives up loudly.
fn until(what: &str, mut reached: impl FnMut() -> bool) {
    for _ in 0..20_000 {
        if reached() {
            return;
        }
        thread::sleep(Duration::from_millis(1));
    }
    panic!("never happened: {what}");
}

#[test]
fn exclusive_excludes_everybody_and_restores_the_word() {
    let crowd = Crowd::new(3);
    let lock = Boxed::<RwLock>::new(3, 64);
    let locals = [const { ParticipantLocal::new() }; 2];
    let [a, b] = [crowd.join(&locals[0], 0), crowd.join(&locals[1], 1)];

    let guard = lock.lock().exclusive(&a, FOREVER).unwrap();
    assert_eq!(guard.acquired(), Acquired::Clean);
    assert_eq!(state(&lock), (Some(0), true, false, 0));
    assert_eq!(lock.lock().owner(), Some(Crowd::id(0)));

    assert_eq!(lock.lock().exclusive(&b, Patience::Try).err(), Some(LockError::WouldBlock));
    assert_eq!(lock.lock().shared(&b, Patience::Try).err(), Some(LockError::WouldBlock));
    assert_eq!(lock.lock().exclusive(&b, soon(&crowd)).err(), Some(LockError::TimedOut));
    assert_eq!(lock.lock().shared(&b, soon(&crowd)).err(), Some(LockError::TimedOut));
    for patience in [Patience::Try, soon(&crowd)] {
        assert!(lock.lock().shared(&b, patience).err().unwrap().is_timeout());
    }
    assert!(!b.holds_any());
    assert_eq!(crowd.slot(1).held().count(), 0);
    assert_eq!(state(&lock), (Some(0), true, false, 0));

    drop(guard);
    assert_eq!(state(&lock), FREE);
    assert_eq!(lock.lock().owner(), None);
    assert!(!a.holds_any());
    drop(lock.lock().exclusive(&b, Patience::Try).unwrap());
    assert_eq!(state(&lock), FREE);
}

#[test]
fn a_failed_claim_leaves_the_readers_alone() {
    let crowd = Crowd::new(3);
    let lock = Boxed::<RwLock>::new(3, 64);
    let locals = [const { ParticipantLocal::new() }; 3];
    let [a, b, c] = [0, 1, 2].map(|i| crowd.join(&locals[i], i as u16));

    let one = lock.lock().shared(&a, FOREVER).unwrap().unwrap();
    let two = lock.lock().shared(&b, Patience::Try).unwrap().unwrap();
    assert_eq!(state(&lock), (None, false, false, 2));
    assert_eq!(lock.lock().exclusive(&c, Patience::Try).err(), Some(LockError::WouldBlock));
    assert_eq!(state(&lock), (None, false, false, 2));
    assert_eq!(lock.lock().exclusive(&c, soon(&crowd)).err(), Some(LockError::TimedOut));
    assert_eq!(state(&lock), (None, false, false, 2));
    assert_eq!(crowd.slot(2).held().count(), 0);
    drop(one);
    assert_eq!(lock.lock().exclusive(&c, Patience::Try).err(), Some(LockError::WouldBlock));
    drop(two);
    drop(lock.lock().exclusive(&c, Patience::Try).unwrap());
    assert_eq!(state(&lock), FREE);
}

#[test]
fn shared_beside_shared_is_counted_and_all_else_would_deadlock() {
    let crowd = Crowd::new(2);
    let lock = Boxed::<RwLock>::new(2, 64);
    let local = ParticipantLocal::new();
    let me = crowd.join(&local, 1);

    let one = lock.lock().shared(&me, FOREVER).unwrap().unwrap();
    let two = lock.lock().shared(&me, FOREVER).unwrap().unwrap();
    assert_eq!(state(&lock).3, 1);
    assert_eq!(lock.lock().exclusive(&me, FOREVER).err(), Some(LockError::WouldDeadlock));
    drop(one);
    assert_eq!(state(&lock).3, 1);
    assert_eq!(
        crowd.slot(1).held().collect::<Vec<_>>(),
        [(LockAddress::new(1, 64), HeldMode::Shared)]
    );
    drop(two);
    assert_eq!(state(&lock), FREE);

    let alone = lock.lock().exclusive(&me, FOREVER).unwrap();
    assert_eq!(lock.lock().exclusive(&me, Patience::Try).err(), Some(LockError::WouldDeadlock));
    assert_eq!(lock.lock().shared(&me, soon(&crowd)).err(), Some(LockError::WouldDeadlock));
    let own = lock.lock().shared(&me, FOREVER).err().unwrap();
    assert!(own.is_would_deadlock() && !own.is_timeout());
    assert_eq!(
        crowd.slot(1).held().collect::<Vec<_>>(),
        [(LockAddress::new(1, 64), HeldMode::Exclusive)]
    );
    drop(alone);
    assert_eq!(crowd.slot(1).held().count(), 0);
}

#[test]
fn too_many_locks_fail_before_any_word_is_touched() {
    let crowd = Crowd::new(1);
    let locks: Vec<_> = (0..MAX_HELD as u64).map(|i| Boxed::<RwLock>::new(1, 64 * i)).collect();
    let control = Boxed::<RwLock>::at(1, LockAddress::new(LockAddress::CONTROL, 0));
    let local = ParticipantLocal::new();
    let me = crowd.join(&local, 0);

    let mut guards: Vec<_> = locks[1..].iter().map(|l| l.lock().exclusive(&me, FOREVER)).collect();
    assert!(guards.iter().all(Result::is_ok));
    assert_eq!(locks[0].lock().exclusive(&me, FOREVER).err(), Some(LockError::TooManyLocks));
    assert_eq!(locks[0].lock().shared(&me, FOREVER).err(), Some(LockError::TooManyLocks));
    assert_eq!(state(&locks[0]), FREE);

    // The control lock has a place of its own.
    let last = control.lock().exclusive(&me, FOREVER).unwrap();
    assert_eq!(crowd.slot(0).held().count(), MAX_HELD);
    drop(last);
    guards.swap_remove(3).unwrap();
    drop(locks[0].lock().exclusive(&me, FOREVER).unwrap());
    drop(guards);
    assert_eq!(crowd.slot(0).held().count(), 0);
}

#[test]
fn strangers_get_an_error_and_a_fork_childs_release_does_nothing() {
    let crowd = Crowd::new(2);
    let lock = Boxed::<RwLock>::new(2, 64);
    let other = Boxed::<RwLock>::new(2, 128);
    let local = ParticipantLocal::new();
    let me = crowd.join(&local, 0);

    let alone = lock.lock().exclusive(&me, FOREVER).unwrap();
    let beside = other.lock().shared(&me, FOREVER).unwrap().unwrap();
    local.clear(); // what a fork does to the page that `local` lies in
    assert_eq!(lock.lock().exclusive(&me, FOREVER).err(), Some(LockError::NotRegistered));
    assert_eq!(lock.lock().shared(&me, FOREVER).err(), Some(LockError::NotRegistered));
    let child = crowd.join(&local, 1);
    let of_child = lock.lock().shared(&child, Patience::Try);
    assert_eq!(of_child.err(), Some(LockError::WouldBlock));
    drop(alone);
    drop(beside);
    assert_eq!(state(&lock), (Some(0), true, false, 0));
    assert_eq!(state(&other).3, 1);
    assert_eq!(crowd.slot(0).held().count(), 2);
}

#[test]
fn a_dead_owner_is_taken_over_and_the_damage_is_remembered() {
    let crowd = Crowd::new(4);
    let lock = Boxed::<RwLock>::new(4, 64);
    let locals = [const { ParticipantLocal::new() }; 4];
    let [a, b, c, d] = [0, 1, 2, 3].map(|i| crowd.join(&locals[i], i as u16));

    std::mem::forget(lock.lock().exclusive(&a, FOREVER).unwrap());
    assert_eq!(lock.lock().shared(&b, Patience::Try).err(), Some(LockError::WouldBlock));
    crowd.kill(0);
    // All forms of a reader are told, and hold nothing.
    for patience in [Patience::Try, soon(&crowd), FOREVER] {
        assert!(lock.lock().shared(&b, patience).unwrap().is_none());
        assert_eq!(crowd.slot(1).held().count(), 0);
        assert_eq!(state(&lock), (Some(0), true, false, 0));
    }
    // The recoverer dies too.
    let guard = lock.lock().exclusive(&b, FOREVER).unwrap();
    assert_eq!(guard.acquired(), Acquired::FromDead);
    assert_eq!(state(&lock), (Some(1), true, true, 0));
    std::mem::forget(guard);
    crowd.kill(1);
    // The next lets go without having recovered.
    let guard = lock.lock().exclusive(&c, Patience::Try).unwrap();
    assert_eq!(guard.acquired(), Acquired::FromDead);
    drop(guard);
    assert_eq!(state(&lock), (None, false, true, 0));
    assert!(lock.lock().shared(&d, FOREVER).unwrap().is_none());
    assert_eq!(state(&lock), (None, false, true, 0));
    // The last one recovers.
    let mut guard = lock.lock().exclusive(&d, FOREVER).unwrap();
    assert_eq!(guard.acquired(), Acquired::FromDead);
    guard.mark_recovered();
    assert_eq!(guard.acquired(), Acquired::Clean);
    assert_eq!(state(&lock), (Some(3), true, false, 0));
    drop(guard);
    assert_eq!(state(&lock), FREE);
    drop(lock.lock().shared(&c, Patience::Try).unwrap().unwrap());
    assert_eq!(lock.lock().exclusive(&c, FOREVER).unwrap().acquired(), Acquired::Clean);
}

#[test]
fn dead_readers_are_evicted_by_every_form_of_claim() {
    for form in 0..3 {
        let crowd = Crowd::new(3);
        let lock = Boxed::<RwLock>::new(3, 64);
        let locals = [const { ParticipantLocal::new() }; 3];
        let [a, b, c] = [0, 1, 2].map(|i| crowd.join(&locals[i], i as u16));
        std::mem::forget(lock.lock().shared(&a, FOREVER).unwrap().unwrap());
        let alive = lock.lock().shared(&b, FOREVER).unwrap().unwrap();
        crowd.kill(0);
        let patience = |form| [Patience::Try, soon(&crowd), FOREVER][form];
        assert!(lock.lock().exclusive(&c, patience(form % 2)).is_err());
        assert_eq!(state(&lock), (None, false, false, 1), "only the dead one's bit is gone");
        drop(alive);
        std::mem::forget(lock.lock().shared(&a, FOREVER).unwrap());
        let guard = lock.lock().exclusive(&c, patience(form)).unwrap();
        assert_eq!(guard.acquired(), Acquired::Clean);
    }
}

/// As many as there can be: the reader words end behind what an index can say.
#[test]
fn dead_readers_are_evicted_among_as_many_as_there_can_be() {
    const MOST: u32 = 65_535;
    let crowd = Crowd::new(MOST);
    let lock = Boxed::<RwLock>::new(MOST, 64);
    let locals = [const { ParticipantLocal::new() }; 4];
    let [a, b, c, d] = [0, 1, 2, 3].map(|i| &locals[i]);
    let (first, last) = (crowd.join(a, 0), crowd.join(b, 65_534));
    for reader in [&first, &last] {
        std::mem::forget(lock.lock().shared(reader, FOREVER).unwrap().unwrap());
    }
    crowd.kill(0);
    crowd.kill(65_534);
    let writer = crowd.join(c, 65_533);
    let guard = lock.lock().exclusive(&writer, FOREVER).unwrap();
    assert_eq!(guard.acquired(), Acquired::Clean);
    assert_eq!(state(&lock), (Some(65_533), true, false, 0));
    drop(guard);
    crowd.kill(65_533);
    std::mem::forget(lock.lock().exclusive(&writer, FOREVER).unwrap());
    let heir = crowd.join(d, 65_532);
    assert_eq!(lock.lock().exclusive(&heir, FOREVER).unwrap().acquired(), Acquired::FromDead);
}

#[test]
fn a_lock_is_no_longer_than_indexes_go() {
    let longest = RwLock::size_for(1 << 16);
    assert_eq!(longest, 64 + 8 * 1024);
    for most in [u32::MAX, u32::MAX - 63, (1 << 16) + 1, 65_535] {
        assert_eq!(RwLock::size_for(most), longest);
        let lock = Boxed::<RwLock>::new(most, 64);
        // SAFETY: the lock is initialised.
        assert!(unsafe { RwLock::has_length_for(lock.pointer(), most) });
    }
}

#[test]
fn the_sweep_clears_a_bit_once() {
    let crowd = Crowd::new(500);
    let lock = Boxed::<RwLock>::new(500, 64);
    let local = ParticipantLocal::new();
    for index in [0, 383, 384, 499] {
        let me = crowd.join(&local, index);
        std::mem::forget(lock.lock().shared(&me, FOREVER).unwrap().unwrap());
        assert_eq!(state(&lock).3, 1);
        for _ in 0..2 {
            // SAFETY: the lock is initialised, and the participant does nothing any more.
            unsafe { RwLock::clear_reader(lock.pointer(), 500, index, &crowd.env) };
            assert_eq!(state(&lock), FREE);
        }
    }
    // SAFETY: as above; no such participant.
    unsafe { RwLock::clear_reader(lock.pointer(), 500, u16::MAX, &crowd.env) };
    assert_eq!(state(&lock), FREE);
    // A lock of another length is no lock of this namespace.
    let me = crowd.join(&local, 3);
    std::mem::forget(lock.lock().shared(&me, FOREVER).unwrap().unwrap());
    // SAFETY: as above.
    unsafe { RwLock::clear_reader(lock.pointer(), 300, 3, &crowd.env) };
    assert_eq!(state(&lock).3, 1);
}

#[test]
fn a_dead_claimant_leaves_clean_data() {
    for form in 0..2 {
        let crowd = Crowd::new(4);
        let lock = Boxed::<RwLock>::new(4, 64);
        let given_up = AtomicBool::new(false);
        thread::scope(|scope| {
            let locals = [const { ParticipantLocal::new() }; 2];
            let reader = crowd.join(&locals[0], 0);
            let held = lock.lock().shared(&reader, FOREVER).unwrap().unwrap();
            // A claimant that is declared dead while it drains. (It lives on as a thread, and
            // must not be believed any more; what it does after that is its own problem here.)
            scope.spawn(|| {
                let local = ParticipantLocal::new();
                let claimant = crowd.join(&local, 1);
                let patience = Patience::Until(crowd.env.now() + Duration::from_millis(300));
                drop(lock.lock().exclusive(&claimant, patience));
                given_up.store(true, Ordering::SeqCst);
            });
            until("a claim", || state(&lock) == (Some(1), false, false, 1));
            crowd.kill(1);
            let other = crowd.join(&locals[1], 2);
            if form == 0 {
                // A reader clears the claim away.
                drop(lock.lock().shared(&other, FOREVER).unwrap().unwrap());
                assert_eq!(state(&lock), (None, false, false, 1));
            } else {
                // A writer takes it over; it drains the reader itself.
                let patience = Patience::Until(crowd.env.now() + Duration::from_millis(30));
                assert!(lock.lock().exclusive(&other, patience).is_err());
                assert_eq!(state(&lock), (None, false, false, 1));
            }
            until("the end of the undead", || given_up.load(Ordering::SeqCst));
            drop(held);
            let guard = lock.lock().exclusive(&other, FOREVER).unwrap();
            assert_eq!(guard.acquired(), Acquired::Clean);
        });
    }
}

#[test]
fn a_reader_with_another_lock_passes_a_claimant() {
    let crowd = Crowd::new(4);
    let lock = Boxed::<RwLock>::new(4, 64);
    let other = Boxed::<RwLock>::new(4, 128);
    thread::scope(|scope| {
        let locals = [const { ParticipantLocal::new() }; 3];
        let [a, b, c] = [0, 1, 2].map(|i| crowd.join(&locals[i], i as u16));
        let held = lock.lock().shared(&a, FOREVER).unwrap().unwrap();
        let claim = scope.spawn(|| {
            let local = ParticipantLocal::new();
            let claimant = crowd.join(&local, 3);
            lock.lock().exclusive(&claimant, FOREVER).unwrap().acquired()
        });
        until("a claim", || state(&lock) == (Some(3), false, false, 1));
        assert_eq!(lock.lock().shared(&b, Patience::Try).err(), Some(LockError::WouldBlock));
        assert_eq!(lock.lock().shared(&b, soon(&crowd)).err(), Some(LockError::TimedOut));
        let nested = other.lock().shared(&c, FOREVER).unwrap().unwrap();
        let passed = lock.lock().shared(&c, Patience::Try).unwrap().unwrap();
        drop(held);
        assert_eq!(state(&lock), (Some(3), false, false, 1));
        assert!(lock.lock().owner().is_none(), "a claimant is not inside");
        drop(passed);
        drop(nested);
        assert_eq!(claim.join().unwrap(), Acquired::Clean);
    });
    assert_eq!(state(&lock), FREE);
}

#[test]
fn a_stopped_owner_is_waited_for() {
    let crowd = Crowd::new(3);
    let lock = Boxed::<RwLock>::new(3, 64);
    let local = ParticipantLocal::new();
    let owner = crowd.join(&local, 0);
    let guard = lock.lock().exclusive(&owner, FOREVER).unwrap();
    let let_go = AtomicBool::new(false);
    thread::scope(|scope| {
        for index in 1..3 {
            let (crowd, lock, let_go) = (&crowd, &lock, &let_go);
            scope.spawn(move || {
                let local = ParticipantLocal::new();
                let me = crowd.join(&local, index);
                if index == 1 {
                    drop(lock.lock().exclusive(&me, FOREVER).unwrap());
                } else {
                    drop(lock.lock().shared(&me, FOREVER).unwrap().unwrap());
                }
                assert!(let_go.load(Ordering::SeqCst), "robbed a living owner");
            });
        }
        until("many doubts", || crowd.probes.load(Ordering::SeqCst) > 20);
        let_go.store(true, Ordering::SeqCst);
        drop(guard);
    });
    assert_eq!(state(&lock), FREE);
}

#[test]
fn sizes_are_whole_lines_and_locks_behind_are_not_touched() {
    for (max, lines) in [(1, 1), (384, 1), (385, 2), (896, 2), (897, 3), (65_536, 129)] {
        assert_eq!(RwLock::size_for(max), 64 * lines, "{max} participants");
    }
}

#[test]
fn more_than_a_line_of_participants() {
    let crowd = Crowd::new(1000);
    let lock = Boxed::<RwLock>::new(1000, 64);
    let locals: Vec<_> = (0..1000).map(|_| ParticipantLocal::new()).collect();
    let all: Vec<_> = locals.iter().zip(0..).map(|(local, i)| crowd.join(local, i)).collect();
    let mut guards: Vec<_> =
        all[1..].iter().map(|p| lock.lock().shared(p, FOREVER).unwrap().unwrap()).collect();
    assert_eq!(state(&lock).3, 999);
    while let Some(guard) = guards.pop() {
        assert_eq!(
            lock.lock().exclusive(&all[0], Patience::Try).err(),
            Some(LockError::WouldBlock)
        );
        drop(guard);
    }
    let alone = lock.lock().exclusive(&all[0], Patience::Try).unwrap();
    assert_eq!(lock.lock().shared(&all[999], Patience::Try).err(), Some(LockError::WouldBlock));
    drop(alone);
    let alone = lock.lock().exclusive(&all[999], Patience::Try).unwrap();
    assert_eq!(lock.lock().owner(), Some(Crowd::id(999)));
    drop(alone);
    assert_eq!(state(&lock), FREE);
}

/// Every form at once over two words that must always be equal, with more participants than fit
/// into one line. A quarter of the readers hold a second lock.
#[test]
fn stress() {
    const THREADS: u16 = 6;
    const ROUNDS: u64 = 20_000;
    let crowd = Crowd::new(512);
    let lock = Boxed::<RwLock>::new(512, 64);
    let side = Boxed::<RwLock>::new(512, 128);
    let words = [AtomicU64::new(0), AtomicU64::new(0)];
    let written = AtomicU64::new(0);
    thread::scope(|scope| {
        for thread in 0..THREADS {
            let (crowd, lock, side, words, written) = (&crowd, &lock, &side, &words, &written);
            scope.spawn(move || {
                let local = ParticipantLocal::new();
                let me = crowd.join(&local, thread * 80);
                let mut random = u64::from(thread) * 2 + 1;
                for _ in 0..ROUNDS {
                    random ^= random << 13;
                    random ^= random >> 7;
                    random ^= random << 17;
                    let patience =
                        [FOREVER, Patience::Try, soon(crowd)][(random >> 8) as usize % 3];
                    if random % 4 == 0 {
                        let Ok(guard) = lock.lock().exclusive(&me, patience) else { continue };
                        assert_eq!(guard.acquired(), Acquired::Clean);
                        for word in words {
                            let value = word.load(Ordering::Relaxed);
                            word.store(value + 1, Ordering::Relaxed);
                        }
                        written.fetch_add(1, Ordering::Relaxed);
                    } else {
                        let outer = (random % 4 == 1)
                            .then(|| side.lock().shared(&me, FOREVER).unwrap().unwrap());
                        if let Ok(guard) = lock.lock().shared(&me, patience) {
                            let _guard = guard.expect("nobody died");
                            let [one, two] =
                                [&words[0], &words[1]].map(|w| w.load(Ordering::Relaxed));
                            assert_eq!(one, two, "a reader saw a writer at work");
                        }
                        drop(outer);
                    }
                }
                assert!(!local.holds_any());
            });
        }
    });
    let written = written.into_inner();
    assert!(written > 0);
    assert_eq!(words.map(AtomicU64::into_inner), [written; 2]);
    assert_eq!(state(&lock), FREE);
}

#[test]
fn who_waits_for_somebody_known_to_be_dead_neither_sleeps_nor_asks() {
    let crowd = Crowd::new(3);
    let lock = Boxed::<RwLock>::new(3, 64);
    let locals = [const { ParticipantLocal::new() }; 3];
    let [a, b, c] = [0, 1, 2].map(|i| crowd.join(&locals[i], i as u16));
    let asked = || {
        let sleeps = crowd.env.sleeps.load(Ordering::SeqCst);
        (sleeps, crowd.probes.load(Ordering::SeqCst))
    };

    std::mem::forget(lock.lock().exclusive(&a, FOREVER).unwrap());
    crowd.kill(0);
    crowd.known.store(true, Ordering::SeqCst);
    assert!(lock.lock().shared(&b, FOREVER).unwrap().is_none());
    let mut guard = lock.lock().exclusive(&b, FOREVER).unwrap();
    assert_eq!(guard.acquired(), Acquired::FromDead);
    assert_eq!(asked(), (0, 0));
    guard.mark_recovered();
    std::mem::forget(guard);
    // Of another death nobody knows.
    crowd.known.store(false, Ordering::SeqCst);
    crowd.kill(1);
    assert_eq!(lock.lock().exclusive(&c, FOREVER).unwrap().acquired(), Acquired::FromDead);
    let (sleeps, probes) = asked();
    assert!(sleeps > 0 && probes > 0);
}

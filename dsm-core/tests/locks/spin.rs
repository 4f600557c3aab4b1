//! The spin lock, and its face for `lock_api`.

use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use crate::support::{Boxed, Crowd};
use dsm_core::env::Clock;
use dsm_core::lock::spin::SpinLock;
use dsm_core::lock::{Acquired, LockError, Patience, RawLock};
use dsm_core::participant::{MAX_HELD, ParticipantLocal};

/// Yields: the machine that runs the tests may have fewer cores than they have threads.
struct Yield;

impl ::spin::relax::RelaxStrategy for Yield {
    fn relax() {
        thread::yield_now();
    }
}

type Lock = SpinLock<Yield>;
const FOREVER: Patience = Patience::Forever;

fn soon(crowd: &Crowd) -> Patience {
    Patience::Until(crowd.env.now() + Duration::from_millis(2))
}

#[test]
fn forms_and_errors() {
    let crowd = Crowd::new(2);
    let lock = Boxed::<Lock>::new(2, 64);
    let locals = [const { ParticipantLocal::new() }; 2];
    let [a, b] = [crowd.join(&locals[0], 0), crowd.join(&locals[1], 1)];

    let alone = lock.lock().exclusive(&a, FOREVER).unwrap();
    assert_eq!(alone.acquired(), Acquired::Clean);
    assert_eq!(lock.lock().owner(), Some(Crowd::id(0)));
    assert_eq!(lock.lock().exclusive(&a, FOREVER).err(), Some(LockError::WouldDeadlock));
    assert_eq!(lock.lock().shared(&a, FOREVER).err(), Some(LockError::WouldDeadlock));
    assert_eq!(lock.lock().exclusive(&b, Patience::Try).err(), Some(LockError::WouldBlock));
    assert_eq!(lock.lock().shared(&b, Patience::Try).err(), Some(LockError::WouldBlock));
    assert_eq!(lock.lock().exclusive(&b, soon(&crowd)).err(), Some(LockError::TimedOut));
    assert_eq!(lock.lock().shared(&b, soon(&crowd)).err(), Some(LockError::TimedOut));
    assert!(!b.holds_any());
    drop(alone);

    let one = lock.lock().shared(&a, FOREVER).unwrap().unwrap();
    let two = lock.lock().shared(&a, FOREVER).unwrap().unwrap();
    let three = lock.lock().shared(&b, Patience::Try).unwrap().unwrap();
    assert_eq!(lock.lock().owner(), None);
    assert_eq!(lock.lock().exclusive(&a, FOREVER).err(), Some(LockError::WouldDeadlock));
    drop(two);
    drop(three);
    assert_eq!(lock.lock().exclusive(&b, Patience::Try).err(), Some(LockError::WouldBlock));
    drop(one);
    drop(lock.lock().exclusive(&b, Patience::Try).unwrap());

    let inherited = lock.lock().exclusive(&a, FOREVER).unwrap();
    locals[0].clear(); // what a fork does
    drop(inherited);
    assert_eq!(lock.lock().owner(), Some(Crowd::id(0)));
    assert_eq!(lock.lock().shared(&a, FOREVER).err(), Some(LockError::NotRegistered));
}

#[test]
fn too_many_locks() {
    let crowd = Crowd::new(1);
    let locks: Vec<_> = (0..MAX_HELD as u64).map(|i| Boxed::<Lock>::new(1, 64 * i)).collect();
    let local = ParticipantLocal::new();
    let me = crowd.join(&local, 0);
    let guards: Vec<_> =
        locks[1..].iter().map(|l| l.lock().exclusive(&me, FOREVER).unwrap()).collect();
    assert_eq!(locks[0].lock().exclusive(&me, FOREVER).err(), Some(LockError::TooManyLocks));
    assert_eq!(locks[0].lock().owner(), None);
    drop(guards);
    drop(locks[0].lock().exclusive(&me, FOREVER).unwrap());
}

#[test]
fn it_is_one_line_however_many_participants() {
    assert_eq!(Lock::size_for(1), 64);
    assert_eq!(Lock::size_for(65_536), 64);
}

#[test]
fn stress() {
    let crowd = Crowd::new(4);
    let lock = Boxed::<Lock>::new(4, 64);
    let words = [AtomicU64::new(0), AtomicU64::new(0)];
    thread::scope(|scope| {
        for index in 0..4 {
            let (crowd, lock, words) = (&crowd, &lock, &words);
            scope.spawn(move || {
                let local = ParticipantLocal::new();
                let me = crowd.join(&local, index);
                for round in 0..5_000 {
                    if round % 2 == 0 {
                        let _guard = lock.lock().exclusive(&me, FOREVER).unwrap();
                        for word in words {
                            word.store(word.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
                        }
                    } else {
                        let _guard = lock.lock().shared(&me, FOREVER).unwrap().unwrap();
                        let [one, two] = [0, 1].map(|i| words[i].load(Ordering::Relaxed));
                        assert_eq!(one, two, "a reader saw a writer at work");
                    }
                }
            });
        }
    });
    assert_eq!(words.map(AtomicU64::into_inner), [10_000; 2]);
}

#[cfg(feature = "lock_api")]
#[test]
fn lock_api_face() {
    use dsm_core::lock::spin::LockApiSpin;
    static TOTAL: lock_api::RwLock<LockApiSpin, u64> = lock_api::RwLock::new(0);
    thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                for _ in 0..1_000 {
                    *TOTAL.write() += 1;
                }
            });
        }
    });
    let one = TOTAL.read();
    let two = TOTAL.try_read().unwrap();
    assert_eq!((*one, *two), (3_000, 3_000));
    assert!(TOTAL.is_locked() && TOTAL.try_write().is_none());
    drop((one, two));
    let alone = TOTAL.try_write().unwrap();
    assert!(TOTAL.try_read().is_none());
    drop(alone);
    assert!(!TOTAL.is_locked());
}

//! An environment that panics. Waits and clocks are safe to implement, so that whatever they do, no
//! participant may seem to hold what it does not: a record that says *shared* makes the next shared
//! acquisition a mere count.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use dsm_core::env::Clock;
use dsm_core::lock::rw::RwLock;
use dsm_core::lock::spin::SpinLock;
use dsm_core::lock::{Patience, RawLock};
use dsm_core::participant::ParticipantLocal;
use testkit::lock::BitLock;

use crate::support::{Boxed, Crowd};

/// Runs `work` while a function of the environment panics; whether it was called.
fn broken(crowd: &Crowd, what: &'static str, work: impl FnOnce()) -> bool {
    *crowd.env.broken.lock().unwrap() = what;
    let panicked = catch_unwind(AssertUnwindSafe(work)).is_err();
    *crowd.env.broken.lock().unwrap() = "";
    panicked
}

/// After an acquisition that panicked nothing is held, and everything can be had.
fn acquisitions_leave_nothing<L: RawLock>(breaks: &[&'static str]) {
    for what in breaks {
        for shared in [true, false] {
            let crowd = Crowd::new(3);
            let lock = Boxed::<L>::new(3, 64);
            let locals = [const { ParticipantLocal::new() }; 2];
            let [a, b] = [crowd.join(&locals[0], 0), crowd.join(&locals[1], 1)];
            let soon = Patience::Until(crowd.env.now() + Duration::from_secs(20));
            let owner = lock.lock().exclusive(&b, Patience::Try).unwrap();
            let panicked = broken(&crowd, what, || {
                if shared {
                    let _ = lock.lock().shared(&a, soon);
                } else {
                    let _ = lock.lock().exclusive(&a, soon);
                }
            });
            assert!(panicked && !a.holds_any(), "{what}, shared: {shared}");
            assert_eq!(crowd.slot(0).held().count(), 0);
            drop(owner);
            // Truly held, so that a writer has to wait.
            let reader = lock.lock().shared(&a, Patience::Try).unwrap().unwrap();
            assert!(lock.lock().exclusive(&b, Patience::Try).is_err(), "{what}, shared: {shared}");
            drop(reader);
            drop(lock.lock().exclusive(&b, Patience::Try).unwrap());
            drop(lock.lock().exclusive(&a, Patience::Try).unwrap());
        }
    }
}

#[test]
fn an_acquisition_that_panics_leaves_no_record() {
    acquisitions_leave_nothing::<RwLock>(&["now", "wait"]);
    acquisitions_leave_nothing::<BitLock<1>>(&["now", "wait"]);
    acquisitions_leave_nothing::<SpinLock>(&["now"]);
}

#[test]
fn a_claimant_that_panics_lets_go() {
    for what in ["now", "wait", "wake"] {
        let crowd = Crowd::new(3);
        let lock = Boxed::<RwLock>::new(3, 64);
        let locals = [const { ParticipantLocal::new() }; 2];
        let [a, b] = [crowd.join(&locals[0], 0), crowd.join(&locals[1], 1)];
        let soon = Patience::Until(crowd.env.now() + Duration::from_millis(5));
        let reader = lock.lock().shared(&b, Patience::Try).unwrap().unwrap();
        let panicked = broken(&crowd, what, || drop(lock.lock().exclusive(&a, soon)));
        // A wake is asked for only if somebody sleeps, which nobody does here.
        assert_eq!(panicked, what != "wake");
        assert!(!a.holds_any(), "{what}");
        drop(reader);
        drop(lock.lock().exclusive(&b, Patience::Try).unwrap());
    }
}

#[test]
fn a_release_that_panics_leaves_no_record() {
    std::thread::scope(|scope| {
        for shared in [true, false] {
            let (crowd, lock) = (&*Box::leak(Box::new(Crowd::new(3))), Boxed::<RwLock>::new(3, 64));
            let lock: &'static Boxed<RwLock> = Box::leak(Box::new(lock));
            let local = ParticipantLocal::new();
            let a = crowd.join(&local, 0);
            let reader = shared.then(|| lock.lock().shared(&a, Patience::Try).unwrap().unwrap());
            let owner = (!shared).then(|| lock.lock().exclusive(&a, Patience::Try).unwrap());
            let waiter = scope.spawn(move || {
                let local = ParticipantLocal::new();
                let b = crowd.join(&local, 1);
                drop(lock.lock().exclusive(&b, Patience::Forever).unwrap());
            });
            while crowd.env.sleeps.load(std::sync::atomic::Ordering::SeqCst) == 0 {
                std::thread::yield_now();
            }
            assert!(broken(crowd, "wake", || drop((reader, owner))), "somebody sleeps");
            assert!(!a.holds_any() && crowd.slot(0).held().count() == 0);
            waiter.join().unwrap();
            // SAFETY: the lock is initialised.
            let readers = || unsafe { RwLock::state(lock.pointer()) }.readers;
            assert_eq!(readers(), 0);
            let reader = lock.lock().shared(&a, Patience::Try).unwrap().unwrap();
            assert_eq!(readers(), 1);
            drop(reader);
        }
    });
}

//! Backing memory goes on under a storm of signals, and the caller's mask is what it was.
//!
//! The storm shows a missing mask on kernels whose tmpfs gives up at any signal; recent ones give up at
//! deadly signals only.

use std::mem::MaybeUninit;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use dsm_core::provider::SegmentProvider;
use platform_posix::Shm;

use crate::support::{handle, name, unmap};

static HANDLED: AtomicU64 = AtomicU64::new(0);

extern "C" fn count(_signal: i32) {
    HANDLED.fetch_add(1, Ordering::Relaxed);
}

fn mask() -> Vec<bool> {
    let mut set = MaybeUninit::<libc::sigset_t>::zeroed();
    // SAFETY: asks for the mask only; `set` is writable.
    unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, std::ptr::null(), set.as_mut_ptr()) };
    // SAFETY: `set` was filled, and the signals exist.
    (1..=64).map(|signal| unsafe { libc::sigismember(set.as_ptr(), signal) } == 1).collect()
}

fn block(signals: &[i32]) {
    let mut set = MaybeUninit::<libc::sigset_t>::zeroed();
    // SAFETY: `set` is writable.
    unsafe { libc::sigemptyset(set.as_mut_ptr()) };
    for &signal in signals {
        // SAFETY: `set` is a set, the signal exists.
        unsafe { libc::sigaddset(set.as_mut_ptr(), signal) };
    }
    // SAFETY: `set` is a set.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, set.as_ptr(), std::ptr::null_mut()) };
}

#[test]
fn a_large_segment_is_created_under_a_storm_of_signals() {
    let shm = Shm::new(&name("storm")).unwrap();
    let mut action = MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: zeros are a valid sigaction.
    let action = unsafe { action.assume_init_mut() };
    action.sa_sigaction = count as *const () as usize;
    // SAFETY: a handler that only adds to an atomic, without SA_RESTART.
    unsafe { libc::sigaction(libc::SIGALRM, &raw const *action, std::ptr::null_mut()) };

    // SAFETY: no preconditions.
    let target = unsafe { libc::pthread_self() } as usize;
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let storm = scope.spawn(|| {
            let begin = Instant::now();
            while !done.load(Ordering::Relaxed) {
                if begin.elapsed() > Duration::from_secs(20) {
                    return false;
                }
                // SAFETY: the thread outlives this scope.
                unsafe { libc::pthread_kill(target as libc::pthread_t, libc::SIGALRM) };
                std::thread::sleep(Duration::from_micros(50));
            }
            true
        });
        let size = 96 << 20;
        let (mapping, id) = shm.create(handle(1), size, size).unwrap();
        shm.reserve(handle(1), &mapping, 0..size).unwrap();
        done.store(true, Ordering::Relaxed);
        shm.destroy(handle(1), id).unwrap();
        unmap(&shm, mapping);
        assert!(storm.join().unwrap(), "the creation ended only because the storm did");
    });
    assert!(HANDLED.load(Ordering::Relaxed) > 0, "signals arrived");
}

#[test]
fn a_custom_signal_mask_is_kept() {
    let shm = Shm::new(&name("mask")).unwrap();
    for signals in [&[][..], &[libc::SIGUSR1, libc::SIGSEGV], &[libc::SIGINT, 40]] {
        block(signals);
        let before = mask();
        for (n, &signal) in signals.iter().enumerate() {
            assert!(before[signal as usize - 1], "{n}");
        }
        let (mapping, id) = shm.create(handle(2), 1 << 20, 1 << 20).unwrap();
        assert_eq!(mask(), before);
        assert!(shm.create(handle(2), 4096, 4096).is_err());
        let huge = usize::try_from(1u64 << 45).unwrap_or(usize::MAX);
        assert!(shm.create(handle(3), huge, huge).is_err());
        assert_eq!(mask(), before);
        shm.destroy(handle(2), id).unwrap();
        unmap(&shm, mapping);
    }
}

//! Backing memory goes on under a storm of signals, and the caller's mask is what it was.
//!
//! The storm shows a missing mask on kernels whose tmpfs gives up at any signal; recent ones give
//! up at deadly signals only.

use std::mem::MaybeUninit;
#[cfg(target_os = "linux")]
use std::sync::atomic::AtomicPtr;
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

/// The object that [`look`] looks at, how long it is to be, and how often it was found half backed.
#[cfg(target_os = "linux")]
static PATH: AtomicPtr<libc::c_char> = AtomicPtr::new(std::ptr::null_mut());
#[cfg(target_os = "linux")]
static SIZE: AtomicU64 = AtomicU64::new(0);
#[cfg(target_os = "linux")]
static HALF_BACKED: AtomicU64 = AtomicU64::new(0);

#[cfg(target_os = "linux")]
extern "C" fn look(_signal: i32) {
    let mut stat = MaybeUninit::<libc::stat64>::zeroed();
    // SAFETY: a C string, for the test has set it before it asked for signals; `stat` is writable.
    if unsafe { libc::stat64(PATH.load(Ordering::Relaxed), stat.as_mut_ptr()) } != 0 {
        return;
    }
    // SAFETY: filled by the call.
    let backed = unsafe { stat.assume_init() }.st_blocks as u64 * 512;
    // A page or so is backed before.
    if (1 << 20..SIZE.load(Ordering::Relaxed)).contains(&backed) {
        HALF_BACKED.fetch_add(1, Ordering::Relaxed);
    }
}

/// Sends the calling thread a signal for each millisecond, or tick of the system, that it has run,
/// until dropped.
#[cfg(target_os = "linux")]
struct Ticks(libc::timer_t);

#[cfg(target_os = "linux")]
impl Ticks {
    fn start(signal: i32) -> Self {
        let mut event = MaybeUninit::<libc::sigevent>::zeroed();
        // SAFETY: zeros are a valid sigevent.
        let event = unsafe { event.assume_init_mut() };
        event.sigev_notify = libc::SIGEV_THREAD_ID;
        event.sigev_signo = signal;
        // SAFETY: no preconditions.
        event.sigev_notify_thread_id = unsafe { libc::syscall(libc::SYS_gettid) } as i32;
        let mut timer = MaybeUninit::<libc::timer_t>::zeroed();
        let clock = libc::CLOCK_THREAD_CPUTIME_ID;
        // SAFETY: `event` is valid and `timer` writable.
        let made = unsafe { libc::timer_create(clock, &raw mut *event, timer.as_mut_ptr()) };
        assert_eq!(made, 0);
        // SAFETY: filled by the call.
        let timer = unsafe { timer.assume_init() };
        let tick = libc::timespec { tv_sec: 0, tv_nsec: 1_000_000 };
        let ticks = libc::itimerspec { it_interval: tick, it_value: tick };
        // SAFETY: the timer made above.
        let set = unsafe { libc::timer_settime(timer, 0, &raw const ticks, std::ptr::null_mut()) };
        assert_eq!(set, 0);
        Self(timer)
    }
}

#[cfg(target_os = "linux")]
impl Drop for Ticks {
    fn drop(&mut self) {
        // SAFETY: made by `start`, deleted once.
        unsafe { libc::timer_delete(self.0) };
    }
}

/// A signal is handled while a large object is half backed, not only when it is whole.
#[cfg(target_os = "linux")]
#[test]
fn signals_are_let_through_while_a_large_segment_is_backed() {
    const LARGE: usize = 96 << 20;
    let shm = Shm::new(&name("pieces")).unwrap();
    let path = format!("/dev/shm/dsm.{}.{}", shm.namespace(), handle(1));
    let path = std::ffi::CString::new(path).unwrap();
    PATH.store(path.as_ptr().cast_mut(), Ordering::Relaxed);
    SIZE.store(LARGE as u64, Ordering::Relaxed);
    let mut action = MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: zeros are a valid sigaction.
    let action = unsafe { action.assume_init_mut() };
    action.sa_sigaction = look as *const () as usize;
    action.sa_flags = libc::SA_RESTART;
    // SAFETY: a handler that calls `stat` and adds to an atomic.
    unsafe { libc::sigaction(libc::SIGUSR2, &raw const *action, std::ptr::null_mut()) };

    // At the creation, and later.
    for reserved in [LARGE, 4096] {
        HALF_BACKED.store(0, Ordering::Relaxed);
        // A quick machine may be done within a tick.
        for _ in 0..50 {
            let ticks = Ticks::start(libc::SIGUSR2);
            let (mapping, id) = shm.create(handle(1), LARGE, reserved).unwrap();
            shm.reserve(handle(1), &mapping, 0..LARGE).unwrap();
            drop(ticks);
            assert_eq!(shm.stat(handle(1)).unwrap().reserved, LARGE as u64);
            shm.destroy(handle(1), id).unwrap();
            unmap(&shm, mapping);
            if HALF_BACKED.load(Ordering::Relaxed) > 0 {
                break;
            }
        }
        assert!(HALF_BACKED.load(Ordering::Relaxed) > 0, "{reserved} bytes at first");
    }
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

//! Waiting on a word in shared memory: a pool of named events.
//!
//! The system's own wait for an address (`WaitOnAddress`) works within one process. So words are
//! mapped to events with names, which waiters of all processes share:
//!
//! - **Which event** follows from the word's address modulo 64 KiB, which is the same in all
//!   processes since views are aligned so, and from the lowest bit of the value that is waited
//!   away.
//! - **Waiting**: look at the word; reset the event, look at the word again, and wait for the
//!   event. Who finds the word changed after its reset signals the event, since what it has reset
//!   may have been the wake of somebody else.
//! - **Waking**, after the word was changed: signal the word's two events. They stay signalled
//!   until somebody resets them, so that a waiter between its look and its wait is not missed.
//!
//! Words that share an event disturb each other's sleep and little more. A wake is *lost* when
//! somebody resets the event between a waiter's look and its wait, after the wake, and goes on to
//! wait: for another word, or for this one at a value of the same parity, which in a word that
//! counts its wakes comes two wakes later; all in the moment between two calls. It then costs
//! [`SLICE`], the longest that is waited at a stretch; so does the death of a process between its
//! change of a word and its wake.
//!
//! No count of waiters is kept anywhere, so none is wrong after a death. Events are made when
//! they are first needed and kept by each process that used them.

use std::os::windows::io::{AsHandle, OwnedHandle};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use dsm_core::env::Wait;
use dsm_core::sync::{AtomicU32, Ordering};

use crate::liveness::Windows;
use crate::object::Domain;
use crate::sys::{self, Waited};

/// What a lost wake costs at most.
const SLICE: Duration = Duration::from_millis(50);
/// Addresses that are told apart.
const ADDRESSES: usize = 64;

/// The events of a namespace, as this process has opened them.
pub(crate) struct Pool {
    domain: Arc<Domain>,
    /// `None` if the system refuses one.
    events: [[OnceLock<Option<OwnedHandle>>; 2]; ADDRESSES],
}

impl Pool {
    pub(crate) fn new(domain: Arc<Domain>) -> Self {
        Self { domain, events: [const { [const { OnceLock::new() }; 2] }; ADDRESSES] }
    }

    fn event(&self, word: &AtomicU32, parity: usize) -> Option<&OwnedHandle> {
        let index = slot(std::ptr::from_ref(word).addr());
        let event = self.events[index][parity].get_or_init(|| {
            let name = self.domain.kernel_name(&format!("wake.{index}.{parity}"));
            sys::event(&name, &self.domain.security).ok().map(|(event, _)| event)
        });
        event.as_ref()
    }

    /// Waits for a wake; `None` if the word differs.
    fn wait(&self, word: &AtomicU32, expected: u32, timeout: Duration) -> Option<Waited> {
        if word.load(Ordering::SeqCst) != expected {
            return None;
        }
        let Some(event) = self.event(word, (expected & 1) as usize) else {
            std::thread::sleep(timeout.min(Duration::from_millis(1)));
            return Some(Waited::TimedOut);
        };
        sys::reset_event(event.as_handle());
        if word.load(Ordering::SeqCst) != expected {
            sys::set_event(event.as_handle());
            return None;
        }
        sys::wait(event.as_handle(), timeout).ok()
    }

    fn wake(&self, word: &AtomicU32) {
        for parity in 0..2 {
            if let Some(event) = self.event(word, parity) {
                sys::set_event(event.as_handle());
            }
        }
    }
}

/// Spreads the words of a page, and the lines of locks that lie next to each other.
fn slot(address: usize) -> usize {
    let word = (address & 0xffff) >> 2;
    (word ^ (word >> 4) ^ (word >> 9)) % ADDRESSES
}

impl Wait for Windows {
    #[doc(alias = "WaitOnAddress")]
    fn wait(&self, word: &AtomicU32, expected: u32, timeout: Duration) {
        // Whatever comes of it, the caller looks at the word.
        let _ = self.pool.wait(word, expected, timeout.min(SLICE));
    }

    #[doc(alias = "WakeByAddressAll")]
    fn wake_all(&self, word: &AtomicU32) {
        self.pool.wake(word);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::Options;

    fn pool() -> Pool {
        let name = format!("test-windows-pool-{}", std::process::id());
        Pool::new(Arc::new(Domain::new(&name, Options::new(), 7).unwrap()))
    }

    /// Each wait ends by a wake, through whichever pool, and none by itself: the bound hides lost
    /// wakes from every other test.
    #[test]
    fn wakes_arrive() {
        const LONG: Duration = Duration::from_secs(30);
        let word = AtomicU32::new(0);
        let pools = [pool(), pool()];
        let waiting = AtomicU32::new(0);
        for round in 0..200 {
            std::thread::scope(|scope| {
                for pool in &pools {
                    let (word, waiting) = (&word, &waiting);
                    scope.spawn(move || {
                        waiting.fetch_add(1, Ordering::SeqCst);
                        while word.load(Ordering::SeqCst) == round {
                            let waited = pool.wait(word, round, LONG);
                            assert_ne!(waited, Some(Waited::TimedOut), "round {round}");
                        }
                    });
                }
                while waiting.load(Ordering::SeqCst) < 2 {
                    std::thread::yield_now();
                }
                // Now and then both are asleep by then, mostly they are about to look.
                if round % 10 == 0 {
                    std::thread::sleep(Duration::from_millis(5));
                }
                word.store(round + 1, Ordering::SeqCst);
                pools[round as usize % 2].wake(&word);
            });
            waiting.store(0, Ordering::SeqCst);
        }
    }

    /// A wake before the look is not waited for, and an old one wakes nobody.
    #[test]
    fn old_wakes_are_over() {
        let (word, pool) = (AtomicU32::new(4), pool());
        pool.wake(&word);
        assert_eq!(pool.wait(&word, 3, Duration::from_secs(30)), None);
        assert_eq!(pool.wait(&word, 4, Duration::from_millis(1)), Some(Waited::TimedOut));
    }

    #[test]
    fn neighbours_wait_apart() {
        for stride in [4, 8, 64, 128, 256, 1024] {
            let mut slots: Vec<usize> = (0..16).map(|n| slot(0x10_0000 + n * stride)).collect();
            slots.sort_unstable();
            slots.dedup();
            assert!(slots.len() >= 8, "at a distance of {stride}: {slots:?}");
        }
        assert_eq!(slot(0x7fff_0001_2340), slot(0x1_2340), "where a view lies doesn't matter");
    }
}

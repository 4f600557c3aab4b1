//! What [`Wait`], [`Clock`] and [`Entropy`] promise.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::Duration;

use dsm_core::env::{Clock, Entropy, Wait};
use dsm_core::handle::ObjectId;
use dsm_core::provider::SegmentProvider;
use dsm_core::sync::{AtomicU32, Ordering};

use crate::segments::detach;
use crate::{Backend, Context};
use testkit::memory::{handle, word};
use testkit::process::Part;

/// So long that a test which waits for its end has failed.
const FOR_EVER: Duration = Duration::from_secs(100_000);
/// How long such an end is waited for.
const PATIENCE: Duration = Duration::from_secs(20);
const PAUSE: Duration = Duration::from_millis(100);

/// A word that differs already is not waited for.
pub fn a_changed_word_is_not_waited_for<B: Backend>(context: &Context<B>) {
    let environment = context.backend.environment();
    let word = AtomicU32::new(7);
    environment.wait(&word, 6, FOR_EVER);
    environment.wait(&word, 8, FOR_EVER);
    environment.wake_all(&word);
}

/// Without a wake a wait ends when its time is over.
pub fn a_wait_ends_by_itself<B: Backend>(context: &Context<B>) {
    let environment = context.backend.environment();
    let word = AtomicU32::new(7);
    for timeout in [Duration::ZERO, Duration::from_nanos(1), Duration::from_millis(5)] {
        environment.wait(&word, 7, timeout);
    }
}

/// Threads that wait are woken.
pub fn a_wake_reaches_a_thread<B: Backend>(context: &Context<B>) {
    let environment = Arc::new(context.backend.environment());
    let word = Arc::new(AtomicU32::new(0));
    let (sender, woken) = channel();
    for _ in 0..4 {
        let (environment, word, sender) = (environment.clone(), word.clone(), sender.clone());
        std::thread::spawn(move || {
            while word.load(Ordering::Acquire) == 0 {
                environment.wait(&word, 0, FOR_EVER);
            }
            let _ = sender.send(());
        });
    }
    std::thread::sleep(Duration::from_millis(20));
    word.store(1, Ordering::Release);
    environment.wake_all(&word);
    for _ in 0..4 {
        woken.recv_timeout(PATIENCE).expect("a thread was not woken");
    }
}

/// A process that waits on a word in a segment is woken by another that maps it elsewhere.
pub fn a_wake_reaches_a_process<B: Backend>(context: &Context<B>) {
    if !B::PROCESSES {
        return;
    }
    let environment = context.backend.environment();
    let provider = context.backend.provider();
    let (mapping, id) = provider.create(handle(1), 8192, 8192).unwrap();
    let (there, back) = (word(&mapping, 4096), word(&mapping, 4100));
    let mut children = [context.spawn("waiter"), context.spawn("waiter")];
    for child in &mut children {
        assert_eq!(child.hear(), "waiting");
    }
    for round in 1..=50 {
        there.store(round, Ordering::Release);
        environment.wake_all(there);
        let answered = (0..PATIENCE.as_millis() / PAUSE.as_millis()).any(|_| {
            let seen = back.load(Ordering::Acquire);
            if seen != 2 * round {
                environment.wait(back, seen, PAUSE);
            }
            back.load(Ordering::Acquire) == 2 * round
        });
        assert!(answered, "a process was not woken in round {round}");
    }
    for child in &mut children {
        assert_eq!(child.hear(), "done");
    }
    provider.destroy(handle(1), id).unwrap();
    detach(context, mapping);
}

/// Time never goes back; random bits differ between draws and between environments.
pub fn time_goes_forward_and_random_bits_differ<B: Backend>(context: &Context<B>) {
    let (one, two) = (context.backend.environment(), context.backend.environment());
    let mut before = one.now();
    for _ in 0..1000 {
        let now = one.now();
        assert!(now >= before);
        before = now;
    }
    std::thread::sleep(Duration::from_millis(2));
    assert!(one.now() > before);
    let drawn: HashSet<u64> = (0..500).flat_map(|_| [one.next_u64(), two.next_u64()]).collect();
    assert_eq!(drawn.len(), 1000);
}

/// Waits for each round and answers it.
pub(crate) fn waiter<B: Backend>(backend: &B, parent: &Part) {
    let environment = backend.environment();
    let mapping = backend.provider().attach(handle(1), ObjectId::default()).unwrap();
    let (there, back) = (word(&mapping, 4096), word(&mapping, 4100));
    parent.say("waiting");
    for round in 1..=50 {
        loop {
            let seen = there.load(Ordering::Acquire);
            if seen >= round {
                break;
            }
            environment.wait(there, seen, FOR_EVER);
        }
        back.fetch_add(1, Ordering::AcqRel);
        environment.wake_all(back);
    }
    parent.say("done");
    // Stay until killed, so that the last wake is not lost with us.
    std::thread::sleep(Duration::from_secs(60));
}

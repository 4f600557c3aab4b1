//! Waits between processes, some of which are terminated in the midst of them.

use std::time::Duration;

use dsm_core::env::Wait;
use dsm_core::handle::ObjectId;
use dsm_core::provider::SegmentProvider;
use dsm_core::sync::{AtomicU32, Ordering};
use testkit::process::Part;

use crate::support::{BOTH, handle, open, spawn, told, unmap, word};

/// So long that a test which waits for its end has failed.
const FOR_EVER: Duration = Duration::from_secs(100_000);
const ROUNDS: u32 = 300;

/// Role: waits for a word that nobody changes, until it is killed.
pub(crate) fn sleeper(part: &Part) {
    let shm = told(part);
    let environment = shm.environment();
    let mapping = shm.attach(handle(1), ObjectId::default()).unwrap();
    part.say("waiting");
    loop {
        environment.wait(word(&mapping, 64), 0, FOR_EVER);
    }
}

/// Role: answers each round.
pub(crate) fn answerer(part: &Part) {
    let shm = told(part);
    let environment = shm.environment();
    // Something in the way, so that it is not mapped where the test has it.
    let _other = shm.attach(handle(1), ObjectId::default()).unwrap();
    let mapping = shm.attach(handle(1), ObjectId::default()).unwrap();
    let (there, back) = (word(&mapping, 128), word(&mapping, 70_000));
    part.say("waiting");
    for round in 1..=ROUNDS {
        while there.load(Ordering::Acquire) < round {
            environment.wait(there, round - 1, FOR_EVER);
        }
        back.store(round, Ordering::Release);
        environment.wake_all(back);
    }
    part.say("done");
    part.hang();
}

/// Rounds there and back, while others that waited for the same events are killed.
#[test]
fn the_killed_disturb_no_waits() {
    for backing in BOTH {
        let shm = open("waits", backing);
        let environment = shm.environment();
        let (mapping, id) = shm.create(handle(1), 100_000, 100_000).unwrap();
        let mut sleepers: Vec<_> = (0..3).map(|_| spawn("sleeper", &shm)).collect();
        let mut answerer = spawn("answerer", &shm);
        for child in sleepers.iter_mut().chain([&mut answerer]) {
            child.expect("waiting");
        }
        let (there, back) = (word(&mapping, 128), word(&mapping, 70_000));
        for round in 1..=ROUNDS {
            if round % 100 == 50 {
                environment.wake_all(word(&mapping, 64));
                sleepers.pop().unwrap().kill_and_collect();
            }
            there.store(round, Ordering::Release);
            environment.wake_all(there);
            while back.load(Ordering::Acquire) < round {
                environment.wait(back, round - 1, FOR_EVER);
            }
        }
        answerer.expect("done");
        answerer.end();
        shm.destroy(handle(1), id).unwrap();
        unmap(&shm, mapping);
    }
}

/// Many words, which share events: a wake of one ends waits for others and loses none.
#[test]
fn words_that_share_an_event_do_not_stop_each_other() {
    let shm = open("share", crate::support::BOTH[0]);
    let environment = shm.environment();
    let words: Vec<AtomicU32> = (0..4096).map(|_| AtomicU32::new(0)).collect();
    std::thread::scope(|scope| {
        for offset in 0..4 {
            let (environment, words) = (&environment, &words);
            scope.spawn(move || {
                for word in words.iter().skip(offset).step_by(4) {
                    while word.load(Ordering::Acquire) == 0 {
                        environment.wait(word, 0, FOR_EVER);
                    }
                }
            });
        }
        for word in &words {
            word.store(1, Ordering::Release);
            environment.wake_all(word);
        }
    });
}

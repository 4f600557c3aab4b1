//! Who sleeps at a lock of the dead is woken by whoever sweeps them: real processes, on real shared
//! memory.
//!
//! Nobody depends on that wake, since sleeps are bounded and end in a look around; which hides
//! whether it comes. So the sleepers of these tests have waits without an end: only a wake lets
//! them go on. And since a wake that comes before the sleep is lost (the sweep changes nothing in
//! the lock, which may be somebody's data by now), the wake that the sweep asks for is repeated
//! until the sleeper has gone on: what is tested is that it is asked for, at the right place, and
//! not before the sleeper can go on. No time is measured.
#![cfg(all(any(unix, windows), not(any(loom, shuttle))))]

use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, Ordering::SeqCst};
use std::time::{Duration, Instant};

use dsm_core::env::Environment;
use dsm_core::handle::SegmentHandle;
use dsm_core::lock::rw::RwLock;
use dsm_core::lock::{LockRef, Patience, RawLock};
use dsm_core::namespace::{Namespace, NamespaceConfig};
use dsm_core::participant::{Participant, ParticipantLocal};
use dsm_core::segment::Segment;
use testkit::BOUND;
use testkit::environment::{Hooks, Wrapped};
use testkit::process::{Part, Peer};
use testkit::system::{System, connect, forever};

/// Where in the segment it says that the sleeper has gone on; the lock is at its begin.
const WENT_ON: usize = 2048;

type World<H> = (&'static System, &'static Namespace<'static>, &'static H);

fn join<H: Hooks + 'static>(name: &str, hooks: H) -> World<H> {
    let system = forever(connect(name));
    let env = forever(Wrapped::new(forever(system.environment()), hooks));
    let config = NamespaceConfig { max_participants: 16, ..NamespaceConfig::default() };
    (system, forever(testkit::system::join_in(system, &config, env)), &env.hooks)
}

fn participant(namespace: &'static Namespace<'static>) -> Participant<'static> {
    let thread = forever(ParticipantLocal::new());
    namespace.register(thread).unwrap();
    namespace.participant(thread)
}

fn lock_of<'s>(segment: &'s Segment<'_>) -> LockRef<'s, RwLock> {
    // SAFETY: the test built a lock there.
    unsafe { LockRef::new(segment.base().cast(), segment.lock_address(0)) }
}

fn went_on<'s>(segment: &'s Segment<'_>) -> &'s AtomicU32 {
    // SAFETY: within the segment's one page.
    let at = unsafe { segment.base().add(WENT_ON) };
    // SAFETY: aligned, zero at first, and used as an atomic only.
    unsafe { at.cast().as_ref() }
}

/// Whether a word is part of the lock at `lock`, which may not be known yet.
fn is_of(lock: &AtomicPtr<u8>, word: &AtomicU32) -> bool {
    let lock = lock.load(SeqCst).addr();
    lock != 0 && (lock..lock + size_of::<RwLock>()).contains(&std::ptr::from_ref(word).addr())
}

/// Sleeps at the lock until it is woken.
#[derive(Default)]
struct Deaf {
    lock: AtomicPtr<u8>,
    announced: AtomicBool,
}

impl Hooks for Deaf {
    fn wait(&self, within: &dyn Environment, word: &AtomicU32, expected: u32, timeout: Duration) {
        if !is_of(&self.lock, word) {
            return within.wait(word, expected, timeout);
        }
        if !self.announced.swap(true, SeqCst) {
            testkit::process::say("asleep");
        }
        within.wait(word, expected, 10 * BOUND);
    }
}

/// Repeats what would be lost otherwise: see the head of the file.
#[derive(Default)]
struct Insistent {
    lock: AtomicPtr<u8>,
    went_on: AtomicPtr<AtomicU32>,
    woke: AtomicBool,
}

impl Hooks for Insistent {
    fn wake_all(&self, within: &dyn Environment, word: &AtomicU32) {
        within.wake_all(word);
        if !is_of(&self.lock, word) {
            return;
        }
        // SAFETY: set before the lock was, and mapped until the test ends.
        let went_on = unsafe { &*self.went_on.load(SeqCst) };
        let begun = Instant::now();
        while went_on.load(SeqCst) == 0 {
            assert!(begun.elapsed() < BOUND, "woken, the sleeper doesn't go on");
            std::thread::sleep(Duration::from_millis(1));
            within.wake_all(word);
        }
        self.woke.store(true, SeqCst);
    }
}

fn attach<H: Hooks + 'static>(part: &Part, hooks: H) -> (World<H>, Segment<'static>) {
    let world = join(part.argument(0), hooks);
    let handle = SegmentHandle::from_raw(part.number(1)).unwrap();
    (world, world.1.attach_segment(handle).unwrap().unwrap())
}

/// Takes the lock, alone or beside others, and waits to be killed, holding it or wanting it.
fn hold(part: &Part) {
    let ((_, namespace, ()), segment) = attach(part, ());
    let me = participant(namespace);
    match part.argument(2) {
        "alone" => std::mem::forget(lock_of(&segment).exclusive(&me, Patience::Forever).unwrap()),
        _ => std::mem::forget(lock_of(&segment).shared(&me, Patience::Forever).unwrap()),
    }
    part.say("holding");
    part.hang();
}

/// Sleeps until it has the lock, and says how it got it.
fn sleep(part: &Part) {
    let ((_, namespace, deaf), segment) = attach(part, Deaf::default());
    let me = participant(namespace);
    deaf.lock.store(segment.base().as_ptr(), SeqCst);
    let outcome = match part.argument(2) {
        "alone" => {
            let mut guard = lock_of(&segment).exclusive(&me, Patience::Forever).unwrap();
            let acquired = guard.acquired();
            guard.mark_recovered();
            format!("{acquired:?}")
        }
        _ => match lock_of(&segment).shared(&me, Patience::Forever).unwrap() {
            Some(_guard) => "Shared".into(),
            None => "NeedsRecovery".into(),
        },
    };
    went_on(&segment).store(1, SeqCst);
    part.say(&outcome);
    part.hang();
}

/// Plays the roles.
#[test]
fn peer() {
    let Some(part) = testkit::process::part() else { return };
    match &*part.role {
        "hold" => hold(&part),
        _ => sleep(&part),
    }
}

/// A process that holds the lock in mode `held` is killed while another sleeps until it can have it
/// in mode `wanted`; with a `reader`, this process holds it shared meanwhile, and the killed one
/// waits.
fn killed(held: &str, reader: bool, wanted: &str, outcome: &str) {
    #[cfg(dsm_planted)]
    sim::select_planted_bug();
    let name = testkit::name("wakes");
    let (system, namespace, insistent) = join(&name, Insistent::default());
    let segment = namespace.create_object(4096, 4096).unwrap();
    // SAFETY: a fresh page that nobody else knows.
    unsafe { RwLock::init(segment.base().cast(), 16) };
    let me = participant(namespace);
    let shared = reader.then(|| lock_of(&segment).shared(&me, Patience::Try).unwrap().unwrap());

    let handle = segment.handle().get().to_string();
    let mut holder = Peer::start("peer", "hold", &[&name, &handle, held]);
    if reader {
        let begun = Instant::now();
        // SAFETY: built above.
        while unsafe { RwLock::state(segment.base().cast()) }.owner.is_none() {
            assert!(begun.elapsed() < BOUND, "nobody claims the lock");
            std::thread::sleep(Duration::from_millis(1));
        }
    } else {
        holder.expect("holding");
    }
    let mut sleeper = Peer::start("peer", "sleep", &[&name, &handle, wanted]);
    sleeper.expect("asleep");
    holder.kill_and_collect();

    insistent.went_on.store(std::ptr::from_ref(went_on(&segment)).cast_mut(), SeqCst);
    insistent.lock.store(segment.base().as_ptr(), SeqCst);
    // The process's own participant, and its thread's.
    assert_eq!(namespace.reap(), Ok(2));
    insistent.lock.store(std::ptr::null_mut(), SeqCst);
    assert!(insistent.woke.load(SeqCst), "the sweep wakes nobody at the lock of the dead");
    sleeper.expect(outcome);

    sleeper.end();
    drop(shared);
    drop(segment);
    assert!(namespace.unregister(me.local()));
    // SAFETY: not used any more: the references to it are not either.
    unsafe { std::ptr::read(namespace) }.leave(system).unwrap();
    assert_eq!(testkit::system::objects_of(&name), [] as [std::path::PathBuf; 0]);
}

#[test]
fn a_writer_that_waits_for_a_writer_is_woken() {
    killed("alone", false, "alone", "FromDead");
}

#[test]
fn a_reader_that_waits_for_a_writer_is_woken() {
    killed("alone", false, "beside", "NeedsRecovery");
}

#[test]
fn a_writer_that_waits_for_a_reader_is_woken() {
    killed("beside", false, "alone", "Clean");
}

#[test]
fn a_reader_that_waits_for_a_waiting_writer_is_woken() {
    killed("alone", true, "beside", "Shared");
}

//! Runs for shuttle: real atomics with a scheduling point before each access, threads that die, and
//! time that passes when nothing else happens.
//!
//! Shuttle runs the threads of a model one at a time and lets a scheduler choose who goes on. It
//! knows sequential consistency only, so it is not for fences (those are loom's); in return a model
//! may be as large as whole operations of an area or a table. The atomics here are as large as the
//! machine's and lie in the same memory, so that what is explored is what ships, layout included.
//!
//! # One execution
//!
//! [`run`] performs one execution of a model, which is a function of its seed alone:
//!
//! - **Points.** Before each access to an atomic, and at each [`point`], another thread may go on;
//!   but the main thread has none: its preparations, and its judgement afterwards, are no part of
//!   what is explored. Waits in them take their time at once.
//! - **Death.** A thread that [`die_before`] has doomed stops right before that store
//!   (read-modify-writes included) and never goes on: all its later stores are suppressed. Nothing
//!   is unwound and nothing dropped, as after `kill -9`; its stack is forgotten when the execution
//!   is over. Since only stores change what others see, every moment of death is one before a
//!   store.
//! - **Time.** Who [`sleep`]s goes on when it is woken, or when nobody else can do anything but
//!   wait: only then does time pass, up to the end of the earliest sleep. In an execution in which
//!   nobody dies no time passes, so that a lost wake shows, bounded waits or not. In one execution
//!   of four, waits return at once instead and without a reason, which they may at any time.
//! - **Patience.** More than [`PATIENCE`] of waiting, or more points than the run may have, is
//!   somebody who waits for ever: the run fails.
//!
//! The main thread of a model prepares, lets others [`perform`], and judges.

mod atomics;
mod scheduler;

use core::cell::{Cell, RefCell};
use core::sync::atomic::Ordering;
use core::time::Duration;
use std::any::Any;
use std::boxed::Box;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::vec::Vec;

pub use atomics::{
    AtomicBool, AtomicU8, AtomicU16, AtomicU32, AtomicU64, AtomicUsize, fence, spin_loop, yield_now,
};
use scheduler::Strategy;

/// The longest that all waits of one execution may take together, in its own time.
pub const PATIENCE: Duration = Duration::from_secs(2);

/// Times that code without scheduling points may ask others to go first: nobody can.
const QUIET_YIELDS: u32 = 1_000_000;

/// What becomes of a thread.
#[derive(Default)]
enum Fate {
    #[default]
    Lives,
    /// It dies before its store but so many, after the function.
    Doomed(u64, Box<dyn FnOnce()>),
    Dead,
}

/// A thread that waits for a word.
struct Sleep {
    word: usize,
    until: Duration,
}

#[derive(Default)]
struct Thread {
    fate: Fate,
    stores: u64,
    sleep: Option<Sleep>,
    /// Goes on when all others are finished, dead, or in the same state.
    waits_for_all: bool,
}

/// An execution's state besides shuttle's own.
#[derive(Default)]
struct State {
    threads: Vec<Thread>,
    now: Duration,
    restless: bool,
    random: u64,
    points: u64,
    /// Times that somebody gave way since somebody went to sleep or was woken.
    gave_way: u32,
}

impl State {
    fn thread(&mut self, index: usize) -> &mut Thread {
        if self.threads.len() <= index {
            self.threads.resize_with(index + 1, Thread::default);
        }
        &mut self.threads[index]
    }
}

/// The next value of a generator (SplitMix64).
fn next(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

std::thread_local! {
    // The threads of an execution share the system thread that runs it.
    static STATE: RefCell<State> = RefCell::default();
    /// No scheduling points now; so it is outside of executions.
    static QUIET: Cell<bool> = const { Cell::new(true) };
    static QUIET_YIELDED: Cell<u32> = const { Cell::new(0) };
    /// An access to an atomic of shuttle's is how to ask it for a scheduling point.
    static POINT: ::shuttle::sync::atomic::AtomicBool =
        const { ::shuttle::sync::atomic::AtomicBool::new(false) };
}

fn with<R>(look: impl FnOnce(&mut State) -> R) -> R {
    STATE.with_borrow_mut(look)
}

/// Shuttle's number of the running thread; its main thread is 0.
fn me() -> usize {
    usize::from(::shuttle::current::me())
}

/// How one execution is to be.
#[derive(Clone, Copy, Debug)]
pub struct Run {
    /// Decides everything.
    pub seed: u64,
    /// About how many points it will have (from an earlier run): where threads are made to change
    /// places depends on it.
    pub length: u64,
    /// How many points it may have.
    pub bound: usize,
}

/// What an execution was.
#[derive(Clone, Copy, Debug, Default)]
pub struct Done {
    /// Scheduling points.
    pub points: u64,
    /// Time that passed in waits, before and after the threads were joined.
    pub waited: Duration,
}

/// Performs one execution of `model`.
///
/// # Errors
///
/// The payload of the panic, if it panics, hangs, or waits too long.
pub fn run(
    run: Run,
    model: impl Fn() + Send + Sync + 'static,
) -> Result<Done, Box<dyn Any + Send>> {
    let mut random = run.seed;
    let restless = next(&mut random) % 4 == 0;
    let strategy = Strategy::new(next(&mut random), run.length);
    with(|state| *state = State { restless, random, ..State::default() });
    let mut config = ::shuttle::Config::new();
    config.stack_size = 1 << 20;
    config.failure_persistence = ::shuttle::FailurePersistence::None;
    config.max_steps = ::shuttle::MaxSteps::FailAfter(run.bound);
    config.silence_warnings = true;
    let runner = ::shuttle::Runner::new(strategy, config);
    let end = catch_unwind(AssertUnwindSafe(|| runner.run(model)));
    QUIET.set(true);
    let state = with(core::mem::take);
    end.map(|_| Done { points: state.points, waited: state.now })
}

/// A scheduling point for a change of memory that is no atomic's.
pub fn point() {
    if !QUIET.get() {
        POINT.with(|point| point.load(Ordering::SeqCst));
    }
}

/// Comes before every store.
fn store_comes() {
    if QUIET.get() {
        return;
    }
    point();
    let me = me();
    let last = with(|state| {
        let thread = state.thread(me);
        thread.stores += 1;
        match core::mem::take(&mut thread.fate) {
            Fate::Doomed(0, last) => {
                thread.fate = Fate::Dead;
                Some(last)
            }
            Fate::Doomed(left, last) => {
                thread.fate = Fate::Doomed(left - 1, last);
                None
            }
            fate => {
                thread.fate = fate;
                None
            }
        }
    });
    if let Some(last) = last {
        quietly(last);
        loop {
            ::shuttle::thread::yield_now();
        }
    }
}

/// Lets others go first.
fn give_way() {
    if !QUIET.get() {
        ::shuttle::thread::yield_now();
        return;
    }
    QUIET_YIELDED.set(QUIET_YIELDED.get() + 1);
    assert!(QUIET_YIELDED.get() < QUIET_YIELDS, "waits for somebody who cannot run now");
}

/// Runs `code` without scheduling points: nobody else runs meanwhile.
pub fn quietly<R>(code: impl FnOnce() -> R) -> R {
    let before = QUIET.replace(true);
    QUIET_YIELDED.set(0);
    let result = code();
    QUIET.set(before);
    result
}

/// Dooms thread number `thread`: before its next store but `stores`, `last` runs, quietly, and it
/// stops for good. Has no effect on the dead.
pub fn die_before(thread: usize, stores: u64, last: impl FnOnce() + 'static) {
    with(|state| {
        let fate = &mut state.thread(thread + 1).fate;
        if !matches!(fate, Fate::Dead) {
            *fate = Fate::Doomed(stores, Box::new(last));
        }
    });
}

/// Stores that a thread has performed, or was about to.
#[must_use]
pub fn stores_of(thread: usize) -> u64 {
    with(|state| state.thread(thread + 1).stores)
}

/// Whether a thread has died.
#[must_use]
pub fn is_dead(thread: usize) -> bool {
    with(|state| matches!(state.thread(thread + 1).fate, Fate::Dead))
}

/// What one thread of a model hands to another.
struct Handed<T>(T);

// SAFETY: all threads of an execution run on one system thread, one at a time.
unsafe impl<T> Send for Handed<T> {}

impl<T: FnOnce()> Handed<T> {
    fn call(self) {
        (self.0)();
    }
}

/// Runs `threads`, numbered from 0 in this order, until each has finished or is dead. At most once
/// in an execution, by its main thread.
pub fn perform(threads: Vec<Box<dyn FnOnce()>>) {
    QUIET.set(false);
    for code in threads {
        let code = Handed(code);
        // Without a handle a dead thread would be unwound at the end.
        core::mem::forget(::shuttle::thread::spawn(move || code.call()));
    }
    let me = me();
    with(|state| state.thread(me).waits_for_all = true);
    ::shuttle::thread::yield_now();
    with(|state| state.thread(me).waits_for_all = false);
    QUIET.set(true);
}

/// A random number below `below`, which must not be 0.
#[must_use]
pub fn random(below: u64) -> u64 {
    with(|state| (next(&mut state.random) >> 11) % below)
}

/// The execution's time.
#[must_use]
pub fn now() -> Duration {
    with(|state| state.now)
}

/// Waits while nobody wakes the word, at most `timeout`; not at all if it isn't as `expected`.
pub fn sleep(word: &AtomicU32, expected: u32, timeout: Duration) {
    point();
    if quietly(|| word.load(Ordering::SeqCst)) != expected {
        return;
    }
    if QUIET.get() {
        return with(|state| pass(state, timeout));
    }
    let me = me();
    with(|state| {
        if !state.restless {
            let until = state.now + timeout;
            state.gave_way = 0;
            state.thread(me).sleep = Some(Sleep { word: address(word), until });
        }
    });
    ::shuttle::thread::yield_now();
}

/// Lets time pass.
fn pass(state: &mut State, time: Duration) {
    state.now += time;
    assert!(state.now < PATIENCE, "somebody waits for ever");
}

/// Wakes who sleeps on the word.
pub fn wake(word: &AtomicU32) {
    point();
    with(|state| {
        state.gave_way = 0;
        for thread in &mut state.threads {
            if thread.sleep.as_ref().is_some_and(|sleep| sleep.word == address(word)) {
                thread.sleep = None;
            }
        }
    });
}

fn address(word: &AtomicU32) -> usize {
    core::ptr::from_ref(word).addr()
}

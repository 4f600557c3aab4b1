//! What one execution of a model has found, noted by whoever comes across it.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::time::Duration;

/// What one execution has found.
#[derive(Default)]
pub(crate) struct Found {
    /// Kinds of points, and how often each was passed.
    pub(crate) kinds: BTreeMap<&'static str, u64>,
    pub(crate) deaths: u64,
    /// Stores of each actor.
    pub(crate) stores: Vec<u64>,
    /// [`work_done`] when all had finished or were dead.
    pub(crate) judged: Option<Duration>,
}

/// The processor's time that this thread has used: other programs make no difference.
pub(crate) fn work_done() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is a place for the answer.
    let told = unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    assert_eq!(told, 0, "a thread has a clock");
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

thread_local! {
    static FOUND: RefCell<Found> = RefCell::default();
}

/// Notes that a kind of point, or an outcome, has come about.
pub(crate) fn mark(kind: &'static str) {
    note(|found| *found.kinds.entry(kind).or_default() += 1);
}

/// Notes something else.
pub(crate) fn note(what: impl FnOnce(&mut Found)) {
    FOUND.with_borrow_mut(what);
}

/// What was found since the last call.
pub(crate) fn found() -> Found {
    FOUND.take()
}

//! How a work is timed: samples, and what is done against noise.
//!
//! Four things make single timings lie, and each has its remedy here.
//!
//! - *Others want the processor too*: what is measured is the thread's own time, its system calls
//!   included. None of the works ever waits, so on an idle machine that is the time on the wall.
//! - *The machine is slower for a while* (another tenant, a clock that drops): contestants take
//!   turns, sample by sample, so that a slow moment hits all of them; the median of the samples
//!   is kept.
//! - *Placement*: where code and data happen to lie moves results by nanoseconds and stays so for
//!   the life of a process: a work is measured in several processes, one after the other, and the
//!   median of their medians is kept.
//! - *The first time*: page faults, lazy attachments and cold branch predictors: the calibration,
//!   which finds out how many operations fill a sample, doubles as a warm-up.

use std::time::Duration;

use crate::valgrind;

/// Measures the time that the calling thread runs. Where valgrind runs the program, the
/// instructions between start and end are what it counts.
pub struct Stopwatch {
    start: Duration,
}

impl Stopwatch {
    /// Starts.
    #[must_use]
    pub fn start() -> Self {
        let start = thread_time();
        valgrind::start();
        Self { start }
    }

    /// The time since the start: the end.
    #[must_use]
    pub fn elapsed(self) -> Duration {
        valgrind::stop();
        thread_time().saturating_sub(self.start)
    }
}

fn thread_time() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is to a live timespec.
    let status = unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut time) };
    assert_eq!(status, 0, "the clock of the thread's own time");
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// What a contestant did in one go.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    /// Operations done.
    pub operations: u64,
    /// Time they took.
    pub elapsed: Duration,
}

impl Sample {
    /// Nanoseconds an operation.
    #[must_use]
    pub fn nanoseconds(&self) -> f64 {
        self.elapsed.as_nanos() as f64 / self.operations as f64
    }

    /// The time that exactly `operations` would have taken.
    #[must_use]
    pub fn scaled_to(&self, operations: u64) -> Duration {
        self.elapsed.mul_f64(operations as f64 / self.operations as f64)
    }
}

/// Times `operations` calls of `body`.
#[inline]
pub fn repeat(operations: u64, mut body: impl FnMut()) -> Sample {
    let stopwatch = Stopwatch::start();
    for _ in 0..operations {
        body();
    }
    Sample { operations, elapsed: stopwatch.elapsed() }
}

/// Does rounds of `round` operations each until there are at least `operations`; `body` does one
/// round and returns the time of its timed part.
pub fn rounds(operations: u64, round: u64, mut body: impl FnMut() -> Duration) -> Sample {
    let count = operations.div_ceil(round).max(1);
    let elapsed = (0..count).map(|_| body()).sum();
    Sample { operations: count * round, elapsed }
}

/// The median of some figures; the mean of the middle two if their number is even.
///
/// # Panics
///
/// If there are none.
#[must_use]
pub fn median(figures: &mut [f64]) -> f64 {
    figures.sort_by(f64::total_cmp);
    let middle = figures.len() / 2;
    if figures.len() % 2 == 1 {
        figures[middle]
    } else {
        (figures[middle - 1] + figures[middle]) / 2.0
    }
}

/// Uniform random numbers at the cost of a multiplication; the same sequence for every contestant.
pub struct Random(u64);

impl Random {
    /// Starts a sequence.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number below `bound` (at most 2^32).
    #[inline(always)]
    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 32) * bound) >> 32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounds_are_whole() {
        let sample = rounds(25, 10, || Duration::from_nanos(50));
        assert_eq!(sample.operations, 30);
        assert_eq!(sample.nanoseconds(), 5.0);
        assert_eq!(sample.scaled_to(3), Duration::from_nanos(15));
    }

    #[test]
    fn the_median_is_in_the_middle() {
        assert_eq!(median(&mut [9.0, 1.0, 5.0]), 5.0);
        assert_eq!(median(&mut [9.0, 1.0, 5.0, 7.0]), 6.0);
    }
}

//! How a work is measured: samples, contestants, and what is done against noise.
//!
//! A *work* is something to be timed ("allocate and free 64 bytes"); a *contestant* is one way of
//! doing it, ours or a peer's. A contestant is a closure that does at least the operations it is
//! asked for and reports how many it did and how long they took: works that come in rounds
//! (10,000 objects, a table of a million) do whole rounds, and what a round needs before and
//! after itself is not timed.
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

/// Measures the time that the calling thread runs.
pub struct Stopwatch {
    start: Duration,
}

impl Stopwatch {
    /// Starts.
    #[must_use]
    pub fn start() -> Self {
        Self { start: thread_time() }
    }

    /// The time since the start.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
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

/// One way of doing a work.
pub struct Contestant {
    /// Whose way it is: [`OURS`], or the peer's name.
    pub name: &'static str,
    run: Box<dyn FnMut(u64) -> Sample>,
}

/// The name of our own contestant.
pub const OURS: &str = "ours";

impl Contestant {
    /// A contestant; `run(n)` does `n` operations or somewhat more.
    pub fn new(name: &'static str, run: impl FnMut(u64) -> Sample + 'static) -> Self {
        Self { name, run: Box::new(run) }
    }

    /// Does at least `operations`.
    pub fn run(&mut self, operations: u64) -> Sample {
        (self.run)(operations.max(1))
    }

    /// How many operations fill `target`; warms up on the way.
    pub fn calibrate(&mut self, target: Duration) -> u64 {
        let mut operations = 1;
        loop {
            let sample = self.run(operations);
            if sample.elapsed * 4 >= target {
                return (target.as_nanos() as f64 / sample.nanoseconds()).max(1.0) as u64;
            }
            operations = sample.operations * 2;
        }
    }
}

/// Something to be timed, and all who can do it.
pub struct Work {
    /// Name, as `ratios` takes and prints it.
    pub name: String,
    build: Box<dyn Fn() -> Vec<Contestant>>,
}

impl Work {
    /// A work; `build` sets the contestants up, ours first.
    pub fn new(name: impl Into<String>, build: impl Fn() -> Vec<Contestant> + 'static) -> Self {
        Self { name: name.into(), build: Box::new(build) }
    }

    /// Sets the contestants up, ours first.
    #[must_use]
    pub fn contestants(&self) -> Vec<Contestant> {
        (self.build)()
    }

    /// Measures all contestants in this process, `samples` times each in turns: name and median
    /// in nanoseconds an operation, ours first.
    #[must_use]
    pub fn measure(&self, samples: usize, target: Duration) -> Vec<(&'static str, f64)> {
        let mut contestants = self.contestants();
        let operations: Vec<u64> = contestants.iter_mut().map(|c| c.calibrate(target)).collect();
        let mut results = vec![Vec::with_capacity(samples); contestants.len()];
        for turn in 0..samples {
            for position in 0..contestants.len() {
                // Who comes first changes with every turn: nobody always inherits the caches
                // that the same neighbour left.
                let who = (turn + position) % contestants.len();
                results[who].push(contestants[who].run(operations[who]).nanoseconds());
            }
        }
        contestants.iter().zip(results).map(|(c, mut r)| (c.name, median(&mut r))).collect()
    }
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

    #[test]
    fn every_contestant_gets_its_turns() {
        let work = Work::new("w", || {
            vec![
                Contestant::new(OURS, |n| Sample {
                    operations: n,
                    elapsed: Duration::from_nanos(2 * n),
                }),
                Contestant::new("peer", |n| Sample {
                    operations: n,
                    elapsed: Duration::from_nanos(4 * n),
                }),
            ]
        });
        let measured = work.measure(3, Duration::from_micros(1));
        assert_eq!(measured, vec![(OURS, 2.0), ("peer", 4.0)]);
    }
}

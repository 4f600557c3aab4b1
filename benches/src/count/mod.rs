//! Instructions of an operation, counted by valgrind's tool callgrind.
//!
//! A figure takes two processes, which do the same work in two lengths: what the longer one
//! executed more, divided by the operations it did more. What happens but once is the same in both
//! and cancels; moreover valgrind counts only what a stopwatch of [`measure`](crate::measure)
//! times. The processor is one that valgrind simulates, so that a figure does not depend on what
//! else the machine does, or how fast it is. What the kernel does in a system call is not seen.
//!
//! Figures are comparable where the compiler, the libraries and the features of the simulated
//! processor are the same: [`Environment`]. [`record`] has those that are kept in the repository.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::thread;

use crate::work::{Lengths, Who, Work};
use environment::Environment;

pub mod callgrind;
pub mod environment;
pub mod record;

/// A contestant's work that is to be counted.
#[derive(Clone, Debug)]
pub struct Job {
    /// The work's name.
    pub work: String,
    /// Who does it.
    pub who: Who,
    lengths: Lengths,
}

/// A job that was counted.
#[derive(Clone, Debug)]
pub struct Figure {
    /// The work's name.
    pub work: String,
    /// Who did it.
    pub who: Who,
    /// Instructions an operation.
    pub instructions: f64,
    /// What they depend on.
    pub environment: Environment,
}

/// What there is to count of some works.
#[must_use]
pub fn jobs(works: &[Work]) -> Vec<Job> {
    let counted = works.iter().filter_map(|work| Some((work, work.counted?)));
    counted
        .flat_map(|(work, lengths)| {
            let job = move |who| Job { work: work.name.clone(), who, lengths };
            work.contestants.iter().map(move |contestant| job(contestant.who))
        })
        .collect()
}

/// Counts jobs, on every processor of the machine, and calls `done` with each, in their order.
/// `arguments` make this program do so many operations of a job.
pub fn count(
    jobs: &[Job],
    arguments: impl Fn(&Job, u64) -> Vec<String> + Sync,
    mut done: impl FnMut(&Job, Result<Figure, String>),
) {
    let next = AtomicUsize::new(0);
    let (sender, receiver) = mpsc::channel();
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, usize::from) {
            let (sender, next, arguments) = (sender.clone(), &next, &arguments);
            scope.spawn(move || {
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    let Some(job) = jobs.get(index) else { return };
                    // Fails only if `done` panicked, and nobody wants to know any more.
                    let _ = sender.send((index, figure(job, arguments)));
                }
            });
        }
        drop(sender);
        let mut waiting = BTreeMap::new();
        let mut reported = 0;
        for (index, result) in receiver {
            waiting.insert(index, result);
            while let Some(result) = waiting.remove(&reported) {
                done(&jobs[reported], result);
                reported += 1;
            }
        }
    });
}

fn figure(job: &Job, arguments: impl Fn(&Job, u64) -> Vec<String>) -> Result<Figure, String> {
    let run = |length| callgrind::count(&arguments(job, length));
    let Job { work, who, lengths } = job;
    let count = || {
        let (short, _) = run(lengths.short)?;
        let (long, environment) = run(lengths.long)?;
        let instructions = callgrind::an_operation(&short, &long)?;
        Ok(Figure { work: work.clone(), who: *who, instructions, environment })
    };
    count().map_err(|message: String| format!("{work}, {}: {message}", who.name()))
}

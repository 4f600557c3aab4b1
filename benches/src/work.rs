//! A work is something to be measured ("allocate and free 64 bytes"), and knows who can do it.
//!
//! Who does it is a *contestant*: our library in one of two ways, or a peer. A contestant is set up
//! to a [`Runner`], which does at least the operations it is asked for and reports how many it did
//! and how long they took: works that come in rounds (10,000 objects, a table of a million) do
//! whole rounds, and what a round needs before and after itself is not measured.
//!
//! Each work is described once, in [`works`](crate::works). `ratios` and criterion time it,
//! `instructions` counts what the processor executes in what they time.

use std::time::Duration;

use crate::measure::{Sample, median};

/// Who does a work.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Who {
    /// Ours, through `dsm-registry`, which finds the thread's participant in each call.
    Registry,
    /// Ours, through the cores alone: the caller has its participant, heap or session at hand.
    Cores,
    /// Somebody else, by this name.
    Peer(&'static str),
}

impl Who {
    /// Its name, as it is printed and stored.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Registry => "registry",
            Self::Cores => "cores",
            Self::Peer(name) => name,
        }
    }

    /// Whether it is our library.
    #[must_use]
    pub fn is_ours(self) -> bool {
        !matches!(self, Self::Peer(_))
    }
}

/// One way of doing a work.
pub struct Contestant {
    /// Whose way it is.
    pub who: Who,
    build: Box<dyn Fn() -> Runner>,
}

impl Contestant {
    /// A contestant; `build` sets it up.
    pub fn new(who: Who, build: impl Fn() -> Runner + 'static) -> Self {
        Self { who, build: Box::new(build) }
    }

    /// Sets it up.
    #[must_use]
    pub fn set_up(&self) -> Runner {
        (self.build)()
    }
}

/// A contestant that is set up.
pub struct Runner(Box<dyn FnMut(u64) -> Sample>);

impl Runner {
    /// `run(n)` does `n` operations or somewhat more.
    pub fn new(run: impl FnMut(u64) -> Sample + 'static) -> Self {
        Self(Box::new(run))
    }

    /// Does at least `operations`.
    pub fn run(&mut self, operations: u64) -> Sample {
        (self.0)(operations.max(1))
    }

    /// How many operations fill `target`; warms up on the way.
    fn calibrate(&mut self, target: Duration) -> u64 {
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

/// Two numbers of operations, whose difference is counted: set-up, first times and the end are the
/// same in both, and cancel.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Lengths {
    /// Enough for everything that happens but once.
    pub short: u64,
    /// That, and what is counted.
    pub long: u64,
}

impl Lengths {
    /// For a work whose operations are all alike: the first thousand, and 20,000 more.
    pub const ALIKE: Self = Self { short: 1000, long: 21_000 };

    /// For a work that comes in rounds of so many operations: the first one, and `more`.
    #[must_use]
    pub const fn rounds(round: u64, more: u64) -> Self {
        Self { short: round, long: round * (1 + more) }
    }
}

/// Something to be measured, and all who can do it.
pub struct Work {
    /// Name, as the programs take and print it.
    pub name: String,
    /// Ours first.
    pub contestants: Vec<Contestant>,
    /// How much of it is run to count instructions; `None` where they say little, since the system
    /// does most of it, or where it takes too long.
    pub counted: Option<Lengths>,
}

impl Work {
    /// A work whose instructions are not counted.
    pub fn new(name: impl Into<String>, contestants: Vec<Contestant>) -> Self {
        Self { name: name.into(), contestants, counted: None }
    }

    /// The same, counted.
    #[must_use]
    pub fn counted(mut self, lengths: Lengths) -> Self {
        self.counted = Some(lengths);
        self
    }

    /// Those who are timed, ours first: where we have two ways, the one that is named first.
    pub fn timed(&self) -> impl Iterator<Item = &Contestant> {
        let ours = self.contestants.iter().find(|contestant| contestant.who.is_ours());
        ours.into_iter().chain(self.contestants.iter().filter(|c| !c.who.is_ours()))
    }

    /// Times contestants in this process, `samples` times each in turns: who, and the median in
    /// nanoseconds an operation, ours first.
    #[must_use]
    pub fn measure(&self, samples: usize, target: Duration) -> Vec<(Who, f64)> {
        let who: Vec<Who> = self.timed().map(|contestant| contestant.who).collect();
        let mut runners: Vec<Runner> = self.timed().map(Contestant::set_up).collect();
        let operations: Vec<u64> = runners.iter_mut().map(|r| r.calibrate(target)).collect();
        let mut results = vec![Vec::with_capacity(samples); runners.len()];
        for turn in 0..samples {
            for position in 0..runners.len() {
                // Who comes first changes with every turn: nobody always inherits the caches
                // that the same neighbour left.
                let next = (turn + position) % runners.len();
                results[next].push(runners[next].run(operations[next]).nanoseconds());
            }
        }
        who.into_iter().zip(results.iter_mut().map(|results| median(results))).collect()
    }
}

/// The works that patterns choose, each once and in their own order, all if there is no pattern;
/// and a complaint of each pattern that chooses none. A pattern is a name, or ends in `*` and
/// stands for all names that begin like it.
pub fn choose(works: Vec<Work>, patterns: &[String]) -> (Vec<Work>, Vec<String>) {
    let matches = |pattern: &String, work: &Work| match pattern.strip_suffix('*') {
        Some(prefix) => work.name.starts_with(prefix),
        None => work.name == *pattern,
    };
    let unknown = patterns
        .iter()
        .filter(|pattern| !works.iter().any(|work| matches(pattern, work)))
        .map(|pattern| format!("there is no work {pattern:?}; --list prints all names"))
        .collect();
    let wanted =
        |work: &Work| patterns.is_empty() || patterns.iter().any(|pattern| matches(pattern, work));
    (works.into_iter().filter(wanted).collect(), unknown)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn takes(nanoseconds: u64) -> impl Fn() -> Runner {
        move || {
            Runner::new(move |operations| Sample {
                operations,
                elapsed: Duration::from_nanos(nanoseconds * operations),
            })
        }
    }

    #[test]
    fn every_timed_contestant_gets_its_turns() {
        let work = Work::new(
            "w",
            vec![
                Contestant::new(Who::Registry, takes(2)),
                Contestant::new(Who::Cores, takes(3)),
                Contestant::new(Who::Peer("peer"), takes(4)),
            ],
        );
        let measured = work.measure(3, Duration::from_micros(1));
        assert_eq!(measured, vec![(Who::Registry, 2.0), (Who::Peer("peer"), 4.0)]);
    }

    fn chosen(patterns: &[&str]) -> (Vec<String>, Vec<String>) {
        let works = ["map_hit", "map_miss", "resolve"].map(|name| Work::new(name, Vec::new()));
        let patterns: Vec<String> = patterns.iter().map(|&pattern| pattern.to_owned()).collect();
        let (works, unknown) = choose(works.into(), &patterns);
        (works.into_iter().map(|work| work.name).collect(), unknown)
    }

    #[test]
    fn patterns_choose_works_once_and_in_their_order() {
        assert_eq!(chosen(&[]).0, ["map_hit", "map_miss", "resolve"]);
        assert_eq!(chosen(&["resolve", "map_*", "map_hit"]).0, ["map_hit", "map_miss", "resolve"]);
        assert_eq!(chosen(&["map_hit"]), (vec!["map_hit".to_owned()], Vec::new()));
    }

    #[test]
    fn an_unknown_name_is_named_and_hides_no_other() {
        let (works, unknown) = chosen(&["map_hot", "resolve", "lock*"]);
        assert_eq!(works, ["resolve"]);
        assert_eq!(unknown.len(), 2);
        assert!(unknown[0].contains("\"map_hot\""), "{unknown:?}");
        assert!(unknown[1].contains("\"lock*\""), "{unknown:?}");
    }
}

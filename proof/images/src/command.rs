//! The command `images`: which operations are explored, and what is reported.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Instant;

use clap::Args;
use serde::Serialize;

use crate::case::Operation;
use crate::explore::{Plan, Point, explore};
use crate::tally::Tally;
use crate::{arena, operations};
use testkit::tool::say;

/// What can be asked of the command.
#[derive(Args)]
pub struct Options {
    /// Only operations whose name starts with one of these; `all` for all.
    #[arg(long, default_value = "all", value_delimiter = ',')]
    op: Vec<String>,
    /// Deaths in a row: 2 also kills whoever recovers, 3 whoever recovers from that.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=3))]
    depth: u8,
    /// At most so many images of each operation, and of each recovery, evenly spread.
    #[arg(long)]
    sample: Option<u64>,
    /// Only this step of the victim (and, after a comma, of the one who recovers; `5@1`: the fifth
    /// of a recovery in order 1).
    #[arg(long, value_delimiter = ',')]
    step: Vec<Point>,
    /// Also of more than one death each image is judged by every survivor, in every order.
    #[arg(long)]
    thorough: bool,
    /// New segments are full of rubbish and not of zeros: a provider may hand out such.
    #[arg(long)]
    rubbish: bool,
    /// Images that are judged at the same time.
    #[arg(long)]
    jobs: Option<usize>,
    /// Prints JSON.
    #[arg(long)]
    json: bool,
    /// Lists the operations.
    #[arg(long)]
    list: bool,
}

#[derive(Serialize)]
struct Found {
    operation: &'static str,
    /// Instructions that stored to shared memory.
    stores: u64,
    /// Changes of shared memory, by the victim, by who recovers from its death, and so on: stores
    /// that changed something, calls of the system.
    points: [u64; 3],
    /// Different images taken there.
    images: [u64; 3],
    /// Points that left an image that had been taken before.
    equal: [u64; 3],
    /// Recoveries judged after one death, two, three, and after that of everybody.
    judged: [u64; 3],
    newcomers: u64,
    failures: u64,
    /// Of the longest recovery, in points and in time.
    most_steps: u64,
    longest_recovery_us: f64,
    /// In virtual time, which passes only by waiting.
    longest_wait_ms: f64,
    passed: Vec<&'static str>,
    /// What should have been passed.
    missed: Vec<&'static str>,
    failed: Vec<String>,
}

#[derive(Serialize)]
struct Summary {
    operations: usize,
    points: [u64; 3],
    images: [u64; 3],
    equal: [u64; 3],
    judged: [u64; 3],
    newcomers: u64,
    failures: u64,
    kinds_missed: usize,
    most_steps: u64,
    longest_recovery_us: f64,
    longest_wait_ms: f64,
    seconds: f64,
}

#[derive(Serialize)]
struct Report {
    summary: Summary,
    operations: Vec<Found>,
}

/// Runs the command; whether all is well.
pub fn run(options: &Options) -> Result<bool, String> {
    let chosen: Vec<_> = operations::all()
        .into_iter()
        .filter(|o| options.op.iter().any(|op| op == "all" || o.name.starts_with(op.as_str())))
        .collect();
    if options.list {
        chosen.iter().for_each(|operation| say(operation.name));
        return Ok(true);
    }
    if chosen.is_empty() {
        return Err(format!("no operation is called {}; see --list", options.op.join(", ")));
    }
    let depth = usize::from(options.depth);
    if options.step.len() > depth {
        return Err("more steps than deaths: raise --depth".into());
    }
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let plan = Plan {
        depth,
        sample: options.sample,
        only: options.step.clone(),
        thorough: options.thorough,
        rubbish: options.rubbish,
        jobs: options.jobs.unwrap_or(cores),
    };
    let started = Instant::now();
    arena::map();
    let mut found = Vec::new();
    for operation in chosen {
        let one = try_one(operation, &plan);
        if !options.json {
            print(&one);
        }
        found.push(one);
    }
    let summary = summarise(&found, started);
    let well = summary.failures == 0 && summary.kinds_missed == 0;
    if options.json {
        let report = Report { summary, operations: found };
        say(&serde_json::to_string_pretty(&report).map_err(|e| e.to_string())?);
    } else {
        say(&format!(
            "{} operations: {} points, {} distinct images ({} equal to one before), {} recoveries \
             judged and {} by newcomers; {} failures, {} kinds missed; longest recovery {} steps, \
             {:.0} us; longest wait {:.1} ms; {:.1} s",
            summary.operations,
            by_deaths(&summary.points),
            by_deaths(&summary.images),
            by_deaths(&summary.equal),
            by_deaths(&summary.judged),
            summary.newcomers,
            summary.failures,
            summary.kinds_missed,
            summary.most_steps,
            summary.longest_recovery_us,
            summary.longest_wait_ms,
            summary.seconds,
        ));
    }
    Ok(well)
}

fn try_one(operation: &Operation, plan: &Plan) -> Found {
    let tally = Tally::shared();
    explore(operation.make, operation.name, plan, tally);
    let passed = tally.kinds();
    // A sample, or a single step, may miss something.
    let whole = plan.sample.is_none() && plan.only.is_empty();
    let missed = operation.must.iter().filter(|kind| whole && !passed.contains(kind));
    Found {
        operation: operation.name,
        stores: tally.stores.load(Relaxed),
        points: read(&tally.points),
        images: read(&tally.images),
        equal: read(&tally.equal),
        judged: read(&tally.judged),
        newcomers: tally.newcomers.load(Relaxed),
        failures: tally.failures.load(Relaxed),
        most_steps: tally.most_steps(),
        longest_recovery_us: tally.longest_recovery().as_nanos() as f64 / 1e3,
        longest_wait_ms: tally.longest_wait().as_nanos() as f64 / 1e6,
        missed: missed.copied().collect(),
        passed,
        failed: tally.texts(),
    }
}

fn read(counts: &[AtomicU64; 3]) -> [u64; 3] {
    [0, 1, 2].map(|deaths| counts[deaths].load(Relaxed))
}

/// Of each number of deaths that was tried, one after the other.
fn by_deaths(counts: &[u64; 3]) -> String {
    let tried = counts.iter().rposition(|count| *count > 0).map_or(1, |last| last + 1);
    counts[..tried].iter().map(u64::to_string).collect::<Vec<_>>().join(" + ")
}

fn print(found: &Found) {
    let Found { operation, failures, most_steps, .. } = found;
    say(&format!(
        "{operation:32} {:>14} points {:>14} images {:>14} judged {failures:4} failures \
         {most_steps:5} steps {:6.0} us {:6.1} ms",
        by_deaths(&found.points),
        by_deaths(&found.images),
        by_deaths(&found.judged),
        found.longest_recovery_us,
        found.longest_wait_ms
    ));
    found.failed.iter().for_each(|text| say(&format!("    {text}")));
    if !found.missed.is_empty() {
        say(&format!("    never passed: {}", found.missed.join(", ")));
    }
}

fn summarise(found: &[Found], started: Instant) -> Summary {
    let sum = |of: fn(&Found) -> u64| found.iter().map(of).sum();
    let sums = |of: fn(&Found) -> &[u64; 3]| {
        [0, 1, 2].map(|deaths| found.iter().map(|one| of(one)[deaths]).sum())
    };
    let most = |of: fn(&Found) -> f64| found.iter().map(of).fold(0.0, f64::max);
    Summary {
        operations: found.len(),
        points: sums(|f| &f.points),
        images: sums(|f| &f.images),
        equal: sums(|f| &f.equal),
        judged: sums(|f| &f.judged),
        newcomers: sum(|f| f.newcomers),
        failures: sum(|f| f.failures),
        kinds_missed: found.iter().map(|f| f.missed.len()).sum(),
        most_steps: found.iter().map(|f| f.most_steps).max().unwrap_or_default(),
        longest_recovery_us: most(|f| f.longest_recovery_us),
        longest_wait_ms: most(|f| f.longest_wait_ms),
        seconds: started.elapsed().as_secs_f64(),
    }
}

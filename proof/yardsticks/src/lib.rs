//! The command `yardsticks`: plants bugs, one at a time, and shows that the tools catch each.
//!
//! A test that survives a planted bug is no test. The bugs lie in the sources behind
//! `--cfg dsm_planted` (`dsm_core::planted`), so this command needs a build with that cfg; any
//! other build says how to get one. For each bug there is a *probe* (`list`): operations of
//! `images`, a short swarm, or a test of some crate. A probe is run twice, in processes of its
//! own: without a bug it must succeed, or its failure would mean nothing; with the bug selected it
//! must fail, in the way that is expected of it. Coming to no end is a failure as well, but only
//! of a probe that ends by itself, in a tenth of the time, without the bug.

#![cfg(all(target_os = "linux", target_arch = "x86_64", not(shuttle)))]

mod list;
mod probe;

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Instant;

use clap::Args;
use dsm_core::planted::Bug;
use serde::Serialize;

use list::Yardstick;
use probe::{Builder, Outcome};
use testkit::tool::say;

/// How to get a build with the bugs in it.
const COMMAND: &str = "RUSTFLAGS='--cfg dsm_planted' cargo run --profile yardsticks -p crash \
                       --target-dir target/planted -- yardsticks";

/// What can be asked of the command.
#[derive(Args)]
pub struct Options {
    /// Only these bugs.
    #[arg(long, value_delimiter = ',')]
    bug: Vec<String>,
    /// Prints JSON.
    #[arg(long)]
    json: bool,
    /// Lists the bugs, and what is to catch each.
    #[arg(long)]
    list: bool,
    /// Probes at a time.
    #[arg(long)]
    jobs: Option<usize>,
}

#[derive(Serialize)]
struct Verdict {
    bug: &'static str,
    what: &'static str,
    place: &'static str,
    tool: String,
    caught: bool,
    /// Points or recoveries that the tool went through, where it counts them.
    points: Option<u64>,
    seconds: f64,
    /// Seconds of the same without the bug.
    seconds_without: f64,
    /// What the tool said, or why this shows nothing.
    said: String,
}

#[derive(Serialize)]
struct Report {
    bugs: usize,
    caught: usize,
    seconds: f64,
    verdicts: Vec<Verdict>,
}

/// Selects the bug that the environment names.
///
/// # Errors
///
/// If there is no such bug.
#[cfg(dsm_planted)]
pub fn obey_environment() -> Result<(), String> {
    use dsm_core::planted::{VARIABLE, select};
    let name = std::env::var(VARIABLE).unwrap_or_default();
    if select(&name) { Ok(()) } else { Err(format!("there is no planted bug {name}")) }
}

/// Runs the command; whether all is well.
pub fn run(options: &Options) -> Result<bool, String> {
    let known = |name: &String| Bug::ALL.iter().any(|bug| bug.name() == name);
    if let Some(unknown) = options.bug.iter().find(|name| !known(name)) {
        return Err(format!("there is no planted bug {unknown}; see --list"));
    }
    let chosen: Vec<_> = list::all()
        .into_iter()
        .filter(|y| options.bug.is_empty() || options.bug.iter().any(|n| n == y.bug.name()))
        .collect();
    if options.list {
        for Yardstick { bug, probe, .. } in &chosen {
            say(&format!("{:26} {:38} {probe}", bug.name(), bug.place()));
        }
        return Ok(true);
    }
    if !cfg!(dsm_planted) {
        return Err(format!("no bugs are planted in this build; this one has them:\n  {COMMAND}"));
    }
    let started = Instant::now();
    let builder = Builder::new()?;
    // Before anything runs, so that no compiler competes with what has its time measured.
    for yardstick in &chosen {
        builder.build(&yardstick.probe)?;
    }
    let jobs = options.jobs.unwrap_or_else(probe::cores).max(1);
    let verdicts = weigh_all(&chosen, &builder, jobs, !options.json);
    let count = |of: &dyn Fn(&Verdict) -> bool| {
        let named: HashSet<_> = verdicts.iter().filter(|v| of(v)).map(|v| v.bug).collect();
        named.len()
    };
    // A bug that one of its tools does not catch is not caught.
    let bugs = count(&|_| true);
    let caught = bugs - count(&|verdict| !verdict.caught);
    let seconds = started.elapsed().as_secs_f64();
    if options.json {
        let report = Report { bugs, caught, seconds, verdicts };
        say(&serde_json::to_string_pretty(&report).map_err(|e| e.to_string())?);
    } else {
        say(&format!("{caught} of {bugs} planted bugs caught; {seconds:.0} s"));
    }
    Ok(caught == bugs)
}

/// What probes do without a bug: each is asked once, whoever asks first.
type Controls = HashMap<String, Arc<OnceLock<Outcome>>>;

fn weigh_all(chosen: &[Yardstick], builder: &Builder, jobs: usize, print: bool) -> Vec<Verdict> {
    let controls: Controls =
        chosen.iter().map(|yardstick| (yardstick.probe.to_string(), Arc::default())).collect();
    let next = AtomicUsize::new(0);
    let verdicts = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..jobs {
            scope.spawn(|| {
                while let Some(yardstick) = chosen.get(next.fetch_add(1, Relaxed)) {
                    let verdict = weigh(yardstick, builder, &controls);
                    if print {
                        show(&verdict);
                    }
                    verdicts.lock().expect("no panic under it").push(verdict);
                }
            });
        }
    });
    verdicts.into_inner().expect("no panic under it")
}

fn weigh(yardstick: &Yardstick, builder: &Builder, controls: &Controls) -> Verdict {
    let Yardstick { bug, probe, says } = yardstick;
    let control = controls[&probe.to_string()].get_or_init(|| builder.run(probe, None, None));
    let mut verdict = Verdict {
        bug: bug.name(),
        what: bug.what(),
        place: bug.place(),
        tool: probe.to_string(),
        caught: false,
        points: None,
        seconds: 0.0,
        seconds_without: control.seconds,
        said: String::new(),
    };
    if !control.passed {
        verdict.said = format!("fails without a bug, too: {}", control.said);
        return verdict;
    }
    let found = builder.run(probe, Some(*bug), Some(control.seconds));
    verdict.points = found.points;
    verdict.seconds = found.seconds;
    verdict.caught = !found.passed && (found.endless || found.all.contains(says));
    verdict.said = match (found.passed, verdict.caught) {
        (true, _) => "SURVIVES".into(),
        (false, true) => found.said,
        (false, false) => format!("fails, but not with \"{says}\": {}", found.said),
    };
    verdict
}

fn show(verdict: &Verdict) {
    let points = verdict.points.map_or(String::new(), |points| format!("{points} points, "));
    let mark = if verdict.caught { "caught" } else { "NOT CAUGHT" };
    say(&format!(
        "{:26} {mark} by {}: {points}{:.1} s ({:.1} without)\n    {}",
        verdict.bug, verdict.tool, verdict.seconds, verdict.seconds_without, verdict.said
    ));
}

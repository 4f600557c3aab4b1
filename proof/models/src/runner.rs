//! Runs models, counts, and says what failed and how to see it again.
//!
//! An execution is a function of the model and its seed: two executions without deaths and of fixed
//! seeds come first, from which the others know how long they are and where deaths may be. A model
//! that fails is not run on; a model that never passed a kind of point that it is for has failed,
//! too, unless it was run too few times to tell.

use std::any::Any;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use dsm_core::sync::shuttle::{Done, Run, run as execute};
use serde::Serialize;

use crate::found::{Found, found, work_done};
use crate::model::Model;
use crate::play::Play;
use crate::world::forget_all;
use models::Options;
use testkit::tool::say;

/// Points that one execution may have: some times what the longest one has.
const BOUND: usize = 400_000;
/// With fewer executions, kinds may be missed.
const ENOUGH: u64 = 500;

fn models() -> Vec<&'static Model> {
    let parts = [
        crate::lock::MODELS,
        crate::declared::MODELS,
        crate::namespace::MODELS,
        crate::area::MODELS,
        crate::table::MODELS,
        crate::registry::MODELS,
    ];
    parts.into_iter().flatten().collect()
}

#[derive(Default, Serialize)]
struct Report {
    model: &'static str,
    executions: u64,
    deaths: u64,
    /// Scheduling points, of all executions.
    points: u64,
    kinds: BTreeMap<&'static str, u64>,
    never: Vec<&'static str>,
    failure: Option<String>,
    /// In the time of the models: all waits of an execution together.
    longest_wait_ms: f64,
    /// Of the survivor that recovers and checks everything; of the processor's time.
    longest_recovery_ms: f64,
    seconds: f64,
}

#[derive(Serialize)]
struct Total {
    executions: u64,
    deaths: u64,
    points: u64,
    kinds: usize,
    failures: usize,
    longest_wait_ms: f64,
    longest_recovery_ms: f64,
    models: Vec<Report>,
}

thread_local! {
    /// Where and why the last panic was.
    static PANIC: RefCell<String> = RefCell::default();
}

/// Shuttle puts a hook of its own before the one it finds, so this one comes after the first run.
fn note_panics() {
    let _ = execute(Run { seed: 0, length: 1, bound: 10 }, || ());
    std::panic::set_hook(Box::new(|info| {
        let at =
            info.location().map_or(String::new(), |at| format!("{}:{}: ", at.file(), at.line()));
        let text = info.payload_as_str().unwrap_or("a panic without a text");
        PANIC.replace(format!("{at}{text}"));
    }));
}

fn text_of(payload: &dyn Any) -> String {
    let noted = PANIC.take();
    if !noted.is_empty() {
        return noted;
    }
    let text = payload.downcast_ref::<String>().cloned();
    text.or_else(|| payload.downcast_ref::<&str>().map(|text| (*text).into())).unwrap_or_default()
}

struct Execution {
    done: Done,
    found: Found,
    recovery: Duration,
}

fn once(
    model: &'static Model,
    seed: u64,
    length: u64,
    bounds: &Arc<Vec<u64>>,
) -> Result<Execution, String> {
    let bounds = bounds.clone();
    let run = Run { seed, length, bound: BOUND };
    let done = execute(run, move || {
        let mut play = Play::new(bounds.clone(), model.mortals);
        (model.act)(&mut play);
    });
    let ended = work_done();
    let found = found();
    forget_all();
    let recovery = found.judged.map_or(Duration::ZERO, |began| ended - began);
    match done {
        Ok(done) => Ok(Execution { done, found, recovery }),
        Err(payload) => Err(text_of(&*payload)),
    }
}

/// Seed of an execution.
fn seed_of(seed: u64, number: u64) -> u64 {
    let mixed =
        (seed ^ number.wrapping_mul(0x9e37_79b9_7f4a_7c15)).wrapping_mul(0xd6e8_feb8_6659_fd93);
    (mixed ^ (mixed >> 32)) & 0xffff_ffff
}

fn explore(model: &'static Model, options: &Options) -> Report {
    let mut report = Report { model: model.name, ..Report::default() };
    let began = Instant::now();
    let none = Arc::default();
    let mut length = 1;
    let mut bounds: Vec<u64> = Vec::new();
    for seed in 0..2 {
        match once(model, seed, length, &none) {
            Ok(execution) => {
                length = length.max(execution.done.points);
                bounds.resize(execution.found.stores.len(), 0);
                let most = |(bound, stores): (&mut u64, &u64)| *bound = (*bound).max(*stores);
                bounds.iter_mut().zip(&execution.found.stores).for_each(most);
            }
            Err(text) => {
                report.failure = Some(format!("without deaths, seed {seed}: {text}"));
                return report;
            }
        }
    }
    let bounds = Arc::new(bounds);
    let count = match options.again {
        Some(_) => 1,
        None => (options.iterations * model.share).div_ceil(100),
    };
    for number in 0..count {
        let seed = options.again.unwrap_or_else(|| seed_of(options.seed, number));
        report.executions += 1;
        match once(model, seed, length, &bounds) {
            Ok(execution) => {
                report.deaths += execution.found.deaths;
                report.points += execution.done.points;
                for (kind, times) in execution.found.kinds {
                    *report.kinds.entry(kind).or_default() += times;
                }
                let wait = execution.done.waited.as_secs_f64() * 1e3;
                report.longest_wait_ms = report.longest_wait_ms.max(wait);
                let recovery = execution.recovery.as_secs_f64() * 1e3;
                report.longest_recovery_ms = report.longest_recovery_ms.max(recovery);
            }
            Err(text) => {
                report.failure = Some(format!(
                    "{text}\n    again: cargo run --release -p crash -- models --model {} --again {seed}",
                    model.name
                ));
                break;
            }
        }
    }
    let passed = |kind: &&&'static str| !report.kinds.contains_key(**kind);
    report.never = model.kinds.iter().filter(passed).copied().collect();
    if report.failure.is_none()
        && count >= ENOUGH * model.share / 100
        && !report.never.is_empty()
        && options.again.is_none()
    {
        report.failure = Some(format!("never passed: {}", report.never.join(", ")));
    }
    report.seconds = began.elapsed().as_secs_f64();
    report
}

/// Runs the command; whether all is well.
pub(crate) fn run(options: &Options) -> Result<bool, String> {
    let all = models();
    let wanted = |model: &&&'static Model| {
        let is = |name: &String| model.name.starts_with(name.as_str());
        options.model.is_empty() || options.model.iter().any(is)
    };
    let chosen: Vec<_> = all.iter().filter(wanted).copied().collect();
    if chosen.is_empty() {
        return Err("there is no model of that name; --list names them".into());
    }
    if options.list {
        chosen.iter().for_each(|model| say(&format!("{:<16} {}", model.name, model.about)));
        return Ok(true);
    }
    note_panics();
    let mut reports = Vec::new();
    for model in chosen {
        let report = explore(model, options);
        if !options.json {
            say(&line(&report));
        }
        reports.push(report);
    }
    let total = total(reports);
    if options.json {
        say(&serde_json::to_string_pretty(&total).map_err(|error| error.to_string())?);
    } else {
        say(&format!(
            "{} executions, {} deaths, {} points, {} kinds of points, {} failures; longest wait {:.0} \
             ms, longest recovery with all checks {:.1} ms",
            total.executions,
            total.deaths,
            total.points,
            total.kinds,
            total.failures,
            total.longest_wait_ms,
            total.longest_recovery_ms
        ));
    }
    Ok(total.failures == 0)
}

fn line(report: &Report) -> String {
    let mut line = format!(
        "{:<16} {:>6} executions {:>6} deaths {:>9} points {:>3} kinds {:>6.1} s",
        report.model,
        report.executions,
        report.deaths,
        report.points,
        report.kinds.len(),
        report.seconds
    );
    if let Some(failure) = &report.failure {
        line.push_str("\n  FAILED ");
        line.push_str(failure);
    }
    line
}

fn total(models: Vec<Report>) -> Total {
    let longest = |of: fn(&Report) -> f64| models.iter().map(of).fold(0.0, f64::max);
    Total {
        executions: models.iter().map(|report| report.executions).sum(),
        deaths: models.iter().map(|report| report.deaths).sum(),
        points: models.iter().map(|report| report.points).sum(),
        kinds: models.iter().map(|report| report.kinds.len()).sum(),
        failures: models.iter().filter(|report| report.failure.is_some()).count(),
        longest_wait_ms: longest(|report| report.longest_wait_ms),
        longest_recovery_ms: longest(|report| report.longest_recovery_ms),
        models,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each model is a test: `RUSTFLAGS="--cfg shuttle" cargo test -p models`.
    #[test]
    fn each_model_passes() {
        let options = Options {
            model: vec![],
            iterations: 100,
            seed: 1,
            again: None,
            json: false,
            list: false,
        };
        for model in models() {
            let report = explore(model, &options);
            assert_eq!(report.failure, None, "{}", model.name);
            assert!(report.deaths > 0, "nobody dies in {}", model.name);
        }
    }
}

//! The command `swarm`: real processes on real shared memory, killed and stopped at random.
//!
//! Each worker does random work on what all share, and writes down, in a part of a shared segment that
//! is its own, what it is about to do, so that its next life finishes exactly that. The supervisor
//! kills workers, and stops and continues them; at the end it kills all, and accounts for
//! everything: each increment is there once, each entry is whole, each object is found in a
//! cell or was in the hands of somebody who was killed, and with all removed nothing is left.

mod worker;

use std::process::{Child, Command, Stdio};
use std::sync::atomic::Ordering::{AcqRel, Relaxed};
use std::time::{Duration, Instant};

use clap::Args;
use dsm_registry::{DsaPointer, Registry};
use serde::Serialize;

use crate::member::{ensure, text};
use crate::say;
pub(crate) use worker::Orders;
pub(crate) use worker::work;
use worker::{CELLS, Shared, Word};

#[derive(Args)]
pub(crate) struct Options {
    /// How long.
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// How many workers at a time.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u64).range(1..=32))]
    processes: u64,
    /// Decides what is done to whom, and what workers do; not in which order they run.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Prints JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Default, Serialize)]
struct Report {
    seconds: f64,
    kills: u64,
    stops: u64,
    operations: u64,
    increments: u64,
    /// Objects that a killed worker had taken out of their cell, and not yet freed.
    objects_in_hand: u64,
    poisoned: u64,
    /// Of any operation of a survivor while nobody was stopped.
    longest_wait_ms: f64,
}

/// A small deterministic generator (xorshift).
pub(crate) fn random(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state >> 11
}

struct Swarm {
    namespace: String,
    workers: Vec<Child>,
    seed: u64,
}

impl Swarm {
    fn spawn(&mut self, who: u64) -> Result<Child, String> {
        let program = std::env::current_exe().map_err(text)?;
        let seed = random(&mut self.seed).to_string();
        Command::new(program)
            .args(["worker", &self.namespace, &who.to_string(), &seed])
            .stdin(Stdio::null())
            .spawn()
            .map_err(text)
    }

    fn signal(&self, who: usize, signal: i32) {
        // SAFETY: a child of ours that was not waited for, so that the number is still its.
        unsafe { libc::kill(self.workers[who].id() as i32, signal) };
    }

    /// Kills a worker, which must not have ended by itself.
    fn kill(&mut self, who: usize) -> Result<(), String> {
        let worker = &mut self.workers[who];
        if let Some(status) = worker.try_wait().map_err(text)? {
            return Err(format!("worker {who} ended by itself: {status}"));
        }
        worker.kill().map_err(text)?;
        worker.wait().map(|_| ()).map_err(text)
    }
}

impl Drop for Swarm {
    fn drop(&mut self) {
        for worker in &mut self.workers {
            let _ = worker.kill();
            let _ = worker.wait();
        }
    }
}

/// Runs the command; whether all is well.
pub(crate) fn run(options: &Options) -> Result<bool, String> {
    let namespace = format!("crash-swarm-{}", std::process::id());
    let started = Instant::now();
    let registry = Registry::open(&namespace).map_err(text)?;
    let shared = Shared::open(&registry).map_err(text)?;
    let seed = options.seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut swarm = Swarm { namespace, workers: Vec::new(), seed };
    for who in 0..options.processes {
        let worker = swarm.spawn(who)?;
        swarm.workers.push(worker);
    }
    let (mut kills, mut stops) = (0, 0);
    let end = started + Duration::from_secs(options.seconds);
    while Instant::now() < end {
        std::thread::sleep(Duration::from_millis(5 + random(&mut swarm.seed) % 60));
        let who = random(&mut swarm.seed) % options.processes;
        if random(&mut swarm.seed).is_multiple_of(4) {
            stops += 1;
            shared.board.stop(true);
            swarm.signal(who as usize, libc::SIGSTOP);
            std::thread::sleep(Duration::from_millis(random(&mut swarm.seed) % 100));
            swarm.signal(who as usize, libc::SIGCONT);
            shared.board.stop(false);
        } else {
            kills += 1;
            swarm.kill(who as usize)?;
            swarm.workers[who as usize] = swarm.spawn(who)?;
        }
    }
    for who in 0..swarm.workers.len() {
        kills += 1;
        swarm.kill(who)?;
    }
    swarm.workers.clear();
    let mut report = account(&registry, &shared, options.processes, kills)?;
    report.stops = stops;
    report.seconds = started.elapsed().as_secs_f64();
    let name = swarm.namespace.clone();
    drop((shared, registry));
    ensure(left(&name).is_empty(), || format!("left in the system: {:?}", left(&name)))?;
    if options.json {
        say(&serde_json::to_string_pretty(&report).map_err(text)?);
    } else {
        say(&format!(
            "{:.0} s: {} kills, {} stops, {} operations, {} increments all there, {} poisoned, {} \
             objects in the hands of the killed; longest wait {:.1} ms",
            report.seconds,
            report.kills,
            report.stops,
            report.operations,
            report.increments,
            report.poisoned,
            report.objects_in_hand,
            report.longest_wait_ms
        ));
    }
    Ok(true)
}

/// What there is in the system of a namespace.
fn left(namespace: &str) -> Vec<String> {
    let entries = std::fs::read_dir("/dev/shm").into_iter().flatten().flatten();
    let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
    names.filter(|name| name.contains(namespace)).collect()
}

/// Everything is there, when nobody works any more; uses it up.
fn account(
    registry: &Registry,
    shared: &Shared,
    workers: u64,
    kills: u64,
) -> Result<Report, String> {
    registry.reap().map_err(text)?;
    let mut report = Report { kills, ..Report::default() };
    for who in 0..workers {
        shared.settle(who)?;
        let word = |word| shared.board.of(who, word).load(Relaxed);
        let (sum, done) = (shared.sum(who)?, word(Word::Done));
        ensure(sum == done, || format!("worker {who} did {done} increments, {sum} are there"))?;
        report.increments += done;
        report.operations += word(Word::Operations);
        report.poisoned += word(Word::Poisoned);
        report.longest_wait_ms = report.longest_wait_ms.max(word(Word::Longest) as f64 / 1e6);
    }
    shared.accounts.check().map_err(text)?;
    shared.entries.check().map_err(text)?;
    report.poisoned += shared.verify_entries()?;
    shared.area.trim().map_err(text)?;
    for index in 0..CELLS as u64 {
        let object = shared.cell(index)?.swap(DsaPointer::INVALID, AcqRel);
        if object.is_valid() {
            shared.free(object)?;
        }
    }
    // The object with the cells is left.
    let found = shared.area.check().map_err(text)?;
    ensure(found.unpublished == 0, || "an unpublished object is left".into())?;
    report.objects_in_hand = found.objects - 1;
    ensure(report.objects_in_hand <= kills, || {
        format!("{} objects were lost by {kills} kills", report.objects_in_hand)
    })?;
    // The names of the swarm's own things can go; with them, all their memory.
    for thing in registry.list().map_err(text)? {
        let ours = ["area", "accounts", "entries", "board", "cells"].contains(&thing.name.as_str());
        if !ours {
            registry.remove(&thing.name).map_err(text)?;
        }
    }
    Ok(report)
}

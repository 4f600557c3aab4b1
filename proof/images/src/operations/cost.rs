//! The command `cost`: what recovery costs, and what of it depends on how much there is.
//!
//! Somebody dies with a guard of an entry, or as the owner of a slab, in tables and areas of many
//! sizes; the next one to come across it is timed, and the instructions by which he changed shared
//! memory are counted. Beside it the same without a death. In one simulated system, so that neither
//! waits nor other processes are part of the figures.

use std::time::Instant;

use clap::Args;
use dsa_core::{AreaLocal, Flags, Options as AreaOptions};
use serde::Serialize;

use super::area_kit::{A, Kit};
use super::table_kit::{Typed, User, fill};
use crate::explore::rehearse;
use crate::member::{ANCESTOR, Member, VICTIM, WITNESS, leak};
use crate::{arena, stepper, system};
use testkit::tool::say;

/// Deaths of which the median is told.
const DEATHS: usize = 31;

/// What can be asked of the command.
#[derive(Args)]
pub struct Options {
    /// Prints JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Cost {
    what: &'static str,
    /// Entries of the table, or objects of the area.
    size: u64,
    after_death_us: f64,
    without_us: f64,
    /// Instructions that store to shared memory.
    stores_after_death: u64,
    stores_without: u64,
}

/// Runs the command. Each figure is found in a copy of this process that has no system yet.
pub fn run(options: &Options) -> Result<bool, String> {
    arena::map();
    stepper::install();
    for size in [100, 1_000, 10_000, 100_000] {
        for measure in [partition, slab] {
            rehearse(|| {
                print(&measure(size), options.json);
                0
            });
        }
    }
    Ok(true)
}

fn print(cost: &Cost, json: bool) {
    if json {
        say(&serde_json::to_string(cost).unwrap_or_default());
        return;
    }
    say(&format!(
        "{:9} of {:7}: {:8.1} us and {:3} stores after a death, {:8.1} us and {:3} without",
        cost.what,
        cost.size,
        cost.after_death_us,
        cost.stores_after_death,
        cost.without_us,
        cost.stores_without
    ));
}

/// Time and stores of some work, in that many rounds, each of which is prepared and cleared up.
fn measure(mut prepare: impl FnMut(), work: impl Fn(), mut clear: impl FnMut()) -> (f64, u64) {
    let mut times = Vec::new();
    for _ in 0..DEATHS {
        prepare();
        let started = Instant::now();
        work();
        times.push(started.elapsed().as_nanos() as f64 / 1e3);
        clear();
    }
    prepare();
    stepper::step(&work);
    clear();
    times.sort_by(f64::total_cmp);
    (times[DEATHS / 2], stepper::stores())
}

/// A witness whose area grows to any size.
fn witness() -> Kit {
    let member = Member::start(WITNESS);
    // In few segments: the simulated namespace has few slots, and an area leaves some to others.
    let (initial, maximum) = (1 << 20, 16 << 20);
    let options = AreaOptions { initial, maximum, ..AreaOptions::default() };
    let area = A::create(member.ns, &options, leak(AreaLocal::new())).expect("creates");
    Kit::of(member, leak(area))
}

fn sweep(kit: &Kit) {
    kit.member.reap().expect("reaps");
}

/// A table of so many entries, in one partition of which somebody died with a guard.
fn partition(entries: u64) -> Cost {
    const KEY: u64 = 7;
    let user = Typed::create(witness());
    fill(&user, 0..entries);
    let die = || {
        let dead = Typed::attach(Kit::start(ANCESTOR, &user.kit), user.handle());
        std::mem::forget(dead.expect("attaches").session.find_exclusive(&KEY).expect("finds"));
        system::kill(ANCESTOR);
    };
    let clear = || {
        assert!(user.repair(KEY).expect("repairs"));
        sweep(&user.kit);
    };
    let meet = || drop(user.session.find_exclusive(&KEY));
    let (after_death_us, stores_after_death) = measure(die, meet, clear);
    let (without_us, stores_without) = measure(|| {}, meet, || {});
    let what = "partition";
    Cost { what, size: entries, after_death_us, without_us, stores_after_death, stores_without }
}

/// An area of so many objects of a kilobyte, in one slab of which somebody died who had an object
/// that was not published.
fn slab(objects: u64) -> Cost {
    let kit = witness();
    (0..objects).for_each(|_| {
        kit.allocate(1024);
    });
    let die = || {
        let dead = Kit::start(VICTIM, &kit);
        dead.heap.allocate_unpublished(64, 8, Flags::empty()).expect("allocates");
        system::kill(VICTIM);
    };
    let meet = || kit.heap.maintain().expect("maintains");
    let (after_death_us, stores_after_death) = measure(die, meet, || sweep(&kit));
    let (without_us, stores_without) = measure(|| {}, meet, || {});
    let what = "slab";
    Cost { what, size: objects, after_death_us, without_us, stores_after_death, stores_without }
}

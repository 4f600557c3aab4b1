//! The command `swarm`: real processes on real shared memory, killed, stopped and forked at random.
//!
//! ```console
//! cargo run --release -p crash -- swarm --seconds 60
//! ```
//!
//! | module | what |
//! |---|---|
//! | `plan` | what there is to do, and the generator that decides |
//! | `board` | the books: what everybody is about to do, in memory that is not under test |
//! | `world`, `cores` | what is shared, as a process has it open |
//! | `life`, `thread` | a process and a thread, as operations know them; ends without destructors |
//! | `work` | the operations, and how the successor of the killed settles their books |
//! | `worker`, `nursery` | what processes and threads do all their lives; forks |
//! | `herd` | the processes as the supervisor sees them |
//! | `account`, `report` | everything is there; what there is to tell |
//!
//! A run consists of rounds. In a round workers are killed one by one, stopped and continued; at
//! its end all are killed at once, the supervisor included as far as shared memory is concerned: it
//! has nothing open meanwhile. Then it opens what is left, takes over, settles the books of each
//! seat and compares everything with them; and the next round goes on with what is there.

#![cfg(all(target_os = "linux", target_arch = "x86_64", not(shuttle)))]

mod account;
mod board;
mod cores;
mod herd;
mod life;
mod nursery;
mod plan;
mod report;
mod thread;
mod work;
mod worker;
mod world;

use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use clap::Args;

use account::{account, finish, prepare};
use board::{Board, PROCESSES, now};
use herd::Herd;
use plan::{Event, Random};
use testkit::tool::say;
pub use worker::{Orders, obey};

/// What can be asked of the command.
#[derive(Args)]
pub struct Options {
    /// How long.
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// How many workers at a time; each may have another one forked off beside it.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u64).range(1..=PROCESSES as u64))]
    processes: u64,
    /// Decides what is done to whom, and what workers do; not in which order they run.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Seconds after which all are killed at once, and everything is accounted for.
    #[arg(long, default_value_t = 15)]
    round: u64,
    /// Lets each worker run a reaper.
    #[arg(long)]
    reaper: bool,
    /// Only operations whose names contain one of these, separated by commas.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Prints JSON.
    #[arg(long)]
    json: bool,
}

/// Runs the command; whether all is well.
pub fn run(options: &Options) -> Result<bool, String> {
    let name = format!("crash-swarm-{}", std::process::id());
    let started = Instant::now();
    let (board, path) = Board::create(options.seed)?;
    board.choose(&options.only)?;
    board.reapers.store(u64::from(options.reaper), Relaxed);
    let base = prepare(&name)?;
    let mut random = Random::new(options.seed, 0);
    let mut herd = Herd::new(&name, board, path, options.processes as usize)?;
    let end = started + Duration::from_secs(options.seconds);
    let mut report = report::Report::default();
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| watch_scheduling(board, &over));
        let done = rounds(options, &mut herd, &mut random, end, &name, &mut report);
        over.store(true, Relaxed);
        done
    })?;
    finish(&name, board, base)?;
    report.complete(board, started.elapsed());
    let missing = report.missing(options.seconds, options.only.is_empty());
    say(&if options.json { report.json()? } else { report.table() });
    if !missing.is_empty() {
        testkit::tool::complain("crash", &format!("never happened: {}", missing.join("; ")));
    }
    Ok(missing.is_empty())
}

fn rounds(
    options: &Options,
    herd: &mut Herd,
    random: &mut Random,
    end: Instant,
    name: &str,
    report: &mut report::Report,
) -> Result<(), String> {
    while Instant::now() < end {
        let round = end.min(Instant::now() + Duration::from_secs(options.round));
        herd.start()?;
        while Instant::now() < round {
            herd.graze(Duration::from_millis(5 + random.below(60)))?;
            let who = random.below(options.processes) as usize;
            match random.below(6) {
                0 => herd.stop(who, Duration::from_millis(random.below(100)))?,
                1 => herd.kill_forked(who),
                _ => herd.kill(who)?,
            }
        }
        herd.massacre()?;
        herd.board.count(Event::Massacres);
        let took = now();
        report.objects_lost = account(name, herd.board)?;
        report.longest_takeover = report.longest_takeover.max((now() - took) as f64 / 1e6);
    }
    Ok(())
}

/// Finds out what the machine is busy with besides: how late a sleeper gets a processor.
fn watch_scheduling(board: &Board, over: &AtomicBool) {
    while !over.load(Relaxed) {
        let asked = now();
        std::thread::sleep(Duration::from_millis(2));
        board.scheduling.add((now() - asked).saturating_sub(2_000_000));
    }
}

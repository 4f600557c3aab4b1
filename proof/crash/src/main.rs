//! `crash`: kills a process at every store to shared memory, and judges what survivors make of it.
//!
//! ```console
//! cargo run --release -p crash -- images
//! cargo run --release -p crash -- images --op table-insert --depth 2 --sample 200
//! ```
//!
//! | room | what |
//! |---|---|
//! | `images` | stops after each store, takes an image, and judges it |
//! | `swarm` | real processes, really killed |
//! | `models` | several processes at once, in many orders |
//! | `yardsticks` | planted bugs, each of which must be caught by the others |
//!
//! Only for Linux on x86-64: the processor's trap flag and the layout of signal contexts.
#![cfg(all(target_os = "linux", target_arch = "x86_64", not(shuttle)))]

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use testkit::tool::complain;

#[derive(Parser)]
#[command(about = "Kills processes at every store to shared memory and judges what is left")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Takes an image of all shared memory after each store of each operation, and recovers it.
    Images(images::Options),
    /// Measures what recovery costs, by the size of what is recovered.
    Cost(images::cost::Options),
    /// Lets real processes work on real shared memory, kills them, and accounts for everything.
    Swarm(swarm::Options),
    /// Runs processes over simulated memory in many orders, some of which die.
    Models(models::Options),
    /// Plants bugs, one at a time, and shows that each is caught.
    Yardsticks(yardsticks::Options),
    /// A process of the swarm.
    #[command(hide = true)]
    Worker(swarm::Orders),
}

fn main() -> ExitCode {
    #[cfg(dsm_planted)]
    if let Err(error) = yardsticks::obey_environment() {
        complain("crash", &error);
        return ExitCode::from(2);
    }
    let done = match Arguments::parse().command {
        Command::Images(options) => images::run(&options),
        Command::Cost(options) => images::cost::run(&options),
        Command::Swarm(options) => swarm::run(&options),
        Command::Models(options) => models::run(&options),
        Command::Yardsticks(options) => yardsticks::run(&options),
        Command::Worker(orders) => swarm::obey(&orders),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            complain("crash", &error);
            ExitCode::from(2)
        }
    }
}

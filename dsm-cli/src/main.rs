//! The `dsm` command: look at namespaces of shared memory, remove what is left of them, and show
//! what they are for.
//!
//! Exit status: 0 if all is well, 1 if the command found something wrong or could not be carried
//! out, 2 if it was called wrongly.

mod commands;
mod demo;
mod output;
mod text;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Shared memory of processes: named segments, areas and hash tables.
#[derive(Parser)]
#[command(name = "dsm", version, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Ls(commands::ls::Arguments),
    Show(commands::show::Arguments),
    Rm(commands::rm::Arguments),
    Reap(commands::reap::Arguments),
    Demo(demo::Arguments),
    /// A worker of the demo.
    #[command(hide = true)]
    DemoWorker {
        namespace: String,
        worker: usize,
        generation: u64,
    },
}

fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Ls(arguments) => commands::ls::run(&arguments),
        Command::Show(arguments) => commands::show::run(&arguments),
        Command::Rm(arguments) => commands::rm::run(&arguments),
        Command::Reap(arguments) => commands::reap::run(&arguments),
        Command::Demo(arguments) => demo::run(&arguments),
        Command::DemoWorker { namespace, worker, generation } => {
            demo::worker::run(&namespace, worker, generation).map(|()| true)
        }
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(message) => {
            output::complain(&message);
            ExitCode::FAILURE
        }
    }
}

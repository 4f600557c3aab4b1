//! `models`: several processes at once, in many orders, some of which die.
//!
//! ```console
//! cargo run --release -p crash -- models
//! ```
//!
//! `crash images` kills one process at each of its stores while nobody else runs. Here others run
//! at the same time, whole operations of them, under a scheduler that decides before each access to
//! shared memory who goes on; one or two die at some store. The processes are threads over the heap
//! provider, and the cores are compiled with shuttle's atomics (`dsm_core::sync::shuttle`).
//!
//! | module | what |
//! |---|---|
//! | `runner` | running models and counting |
//! | `model` | what a model is |
//! | `play`, `found` | the actors of one execution, and who of them dies when; what was found |
//! | `world`, `look` | processes, areas and tables; what a victim was about |
//! | `platform` | the same for the registry |
//! | `lock`, `namespace`, `area`, `table`, `registry` | the models |

#[cfg(shuttle)]
mod area;
#[cfg(shuttle)]
mod declared;
#[cfg(shuttle)]
mod found;
#[cfg(shuttle)]
mod lock;
#[cfg(shuttle)]
mod look;
#[cfg(shuttle)]
mod model;
#[cfg(shuttle)]
mod namespace;
#[cfg(shuttle)]
mod platform;
#[cfg(shuttle)]
mod play;
#[cfg(shuttle)]
mod registry;
#[cfg(shuttle)]
mod runner;
#[cfg(shuttle)]
mod table;
#[cfg(shuttle)]
mod world;

use std::process::ExitCode;

use clap::Parser;
use models::Options;
use testkit::tool::complain;

#[derive(Parser)]
#[command(about = "Runs processes in many orders, kills some, and judges what is left")]
struct Arguments {
    #[command(flatten)]
    options: Options,
}

#[cfg(shuttle)]
fn main() -> ExitCode {
    match runner::run(&Arguments::parse().options) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            complain("models", &error);
            ExitCode::from(2)
        }
    }
}

#[cfg(not(shuttle))]
fn main() -> ExitCode {
    let options = Arguments::parse().options;
    complain(
        "models",
        &format!(
            "built without the atomics of models; `cargo run --release -p crash -- models \
         --iterations {} --seed {}` builds and runs them",
            options.iterations, options.seed
        ),
    );
    ExitCode::from(2)
}

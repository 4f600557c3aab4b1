//! Kills a simulated process at each of its stores to shared memory, and judges what survivors make
//! of it.
//!
//! ```console
//! cargo run --release -p crash -- images
//! cargo run --release -p crash -- images --op table-insert --depth 2 --sample 200
//! ```
//!
//! | module | what |
//! |---|---|
//! | `arena`, `system`, `process`, `member` | shared memory, a system and processes, simulated in one process |
//! | `stepper`, `explore` | stopping after each store; taking images and judging them |
//! | `case`, `look`, `seen`, `tally` | what is explored and asked, and what was found |
//! | `operations` | the operations and their oracles |
//! | `command` | which operations are explored, and what is reported |
//!
//! Only for Linux on x86-64: the processor's trap flag and the layout of signal contexts.
#![cfg(all(target_os = "linux", target_arch = "x86_64", not(shuttle)))]

mod arena;
mod case;
mod command;
mod explore;
mod look;
mod member;
mod operations;
mod process;
mod seen;
mod stepper;
mod system;
mod tally;

pub use command::{Options, run};
pub use operations::cost;

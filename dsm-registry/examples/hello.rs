//! Run it in two terminals: `cargo run -p dsm-registry --example hello`.
//!
//! Each press of Enter counts a hit in a table that both processes share. Kill one with `kill -9`:
//! the other goes on. When the last one ends, by the end of its input (Ctrl-D; on Windows
//! Ctrl-Z), the namespace is gone, and the next run starts at 1 again.
#![expect(clippy::print_stdout, reason = "a program for a terminal")]

use std::error::Error;
use std::io::BufRead;

use dsm_registry::Registry;

fn main() -> Result<(), Box<dyn Error>> {
    let registry = Registry::open("demo")?;
    let hits = registry.hash::<u64, u64>("hits")?;
    println!("process {}: press Enter to count, Ctrl-D to leave", std::process::id());
    for line in std::io::stdin().lock().lines() {
        line?;
        // One partition of the table is locked while the statement runs.
        *hits.entry(&1)?.or_insert(0)? += 1;
        println!("hit {}", hits.get(&1)?.unwrap_or(0));
    }
    Ok(())
}

//! Prints how we compare with our peers: a row per work and peer, measured in one run.
//!
//! Every work is measured by several processes in turn (see [`benches::measure`] for the reason);
//! each is this program again, told by a hidden option to measure one work and print the medians.

use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

use benches::measure::median;
use benches::work::{Work, choose};
use benches::works;
use clap::Parser;
use serde::{Deserialize, Serialize};

/// Prints how long we and our peers take for the same work, and the ratio.
#[derive(Parser)]
#[command(name = "ratios")]
struct Arguments {
    /// Print one JSON object per line instead of a table.
    #[arg(long)]
    json: bool,
    /// Print a table in Markdown, with PostgreSQL's recorded figures beside.
    #[arg(long, conflicts_with = "json")]
    markdown: bool,
    /// Print the names of all works and do nothing.
    #[arg(long)]
    list: bool,
    /// Processes that measure each work, one after the other.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=101))]
    processes: u32,
    /// Samples that each process takes of each contestant.
    #[arg(long, default_value_t = 7, value_parser = clap::value_parser!(u32).range(1..=1001))]
    samples: u32,
    /// Milliseconds that a sample lasts (at least: a work that comes in rounds does whole ones).
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    milliseconds: u32,
    /// Measure the work in this process and print the medians.
    #[arg(long, hide = true)]
    measure: bool,
    /// Works to measure; a name that ends in `*` stands for all that begin like it. All if none
    /// is given.
    works: Vec<String>,
}

/// What a measuring process prints: a contestant and its median in nanoseconds.
#[derive(Serialize, Deserialize)]
struct Median {
    contestant: String,
    nanoseconds: f64,
}

/// What this program prints.
#[derive(Serialize)]
struct Row<'a> {
    work: &'a str,
    ours_ns: f64,
    peer: &'a str,
    peer_ns: f64,
    ratio: f64,
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            say_error(&message);
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<(), String> {
    let all = works::all();
    if arguments.list {
        all.iter().for_each(|work| say(&work.name));
        return Ok(());
    }
    let (chosen, unknown) = choose(all, &arguments.works);
    if arguments.measure {
        return measure(arguments, &chosen);
    }
    unknown.iter().for_each(|complaint| say_error(complaint));
    if !chosen.is_empty() {
        print_heading(arguments);
    }
    let mut failed = unknown.len();
    for work in &chosen {
        // One work that can't be measured is no reason to withhold the others.
        if let Err(message) = compare(arguments, work) {
            say_error(&message);
            failed += 1;
        }
    }
    match failed {
        0 => Ok(()),
        failed => Err(format!("works that could not be measured: {failed}")),
    }
}

/// Measures a work and prints its rows.
fn compare(arguments: &Arguments, work: &Work) -> Result<(), String> {
    let medians = measure_in_processes(arguments, work)?;
    let Some((ours, peers)) = medians.split_first() else {
        return Err(format!("{}: nothing was measured", work.name));
    };
    for peer in peers {
        print_row(arguments, &work.name, ours, peer)?;
    }
    Ok(())
}

fn measure(arguments: &Arguments, works: &[Work]) -> Result<(), String> {
    for work in works {
        let target = Duration::from_millis(u64::from(arguments.milliseconds));
        let medians: Vec<Median> = work
            .measure(arguments.samples as usize, target)
            .into_iter()
            .map(|(who, nanoseconds)| Median { contestant: who.name().to_owned(), nanoseconds })
            .collect();
        say(&serde_json::to_string(&medians).map_err(|e| e.to_string())?);
    }
    Ok(())
}

fn measure_in_processes(arguments: &Arguments, work: &Work) -> Result<Vec<Median>, String> {
    let program = std::env::current_exe().map_err(|e| format!("cannot find myself: {e}"))?;
    let mut contestants: Vec<(String, Vec<f64>)> = Vec::new();
    for _ in 0..arguments.processes {
        let output = Command::new(&program)
            .arg("--measure")
            .args(["--samples", &arguments.samples.to_string()])
            .args(["--milliseconds", &arguments.milliseconds.to_string()])
            .arg(&work.name)
            .stdin(Stdio::null())
            .stderr(Stdio::inherit())
            .output()
            .map_err(|e| format!("cannot start a measuring process: {e}"))?;
        if !output.status.success() {
            return Err(format!("{}: the measuring process failed: {}", work.name, output.status));
        }
        let medians: Vec<Median> = serde_json::from_slice(&output.stdout).map_err(|e| {
            format!("{}: a measuring process printed something else: {e}", work.name)
        })?;
        contestants.resize_with(medians.len(), Default::default);
        for (slot, median) in contestants.iter_mut().zip(medians) {
            slot.0 = median.contestant;
            slot.1.push(median.nanoseconds);
        }
    }
    Ok(contestants
        .into_iter()
        .map(|(contestant, mut figures)| Median { contestant, nanoseconds: median(&mut figures) })
        .collect())
}

fn print_heading(arguments: &Arguments) {
    if arguments.markdown {
        say("| work | ours, ns | peer | peer, ns | ratio | PostgreSQL, ns |");
        say("|---|---:|---|---:|---:|---:|");
    } else if !arguments.json {
        say(&format!(
            "{:<22} {:>12}  {:<28} {:>12} {:>7}",
            "work", "ours ns", "peer", "peer ns", "ratio"
        ));
    }
}

fn print_row(
    arguments: &Arguments,
    work: &str,
    ours: &Median,
    peer: &Median,
) -> Result<(), String> {
    let round = |x: f64, unit: f64| (x * unit).round() / unit;
    let row = Row {
        work,
        ours_ns: round(ours.nanoseconds, 100.0),
        peer: &peer.contestant,
        peer_ns: round(peer.nanoseconds, 100.0),
        ratio: round(ours.nanoseconds / peer.nanoseconds, 1000.0),
    };
    let Row { ours_ns, peer, peer_ns, ratio, .. } = row;
    say(&if arguments.json {
        serde_json::to_string(&row).map_err(|e| e.to_string())?
    } else if arguments.markdown {
        let postgresql =
            benches::reference::postgresql(work).map_or(String::new(), |ns| ns.to_string());
        format!("| {work} | {ours_ns:.1} | {peer} | {peer_ns:.1} | {ratio:.2} | {postgresql} |")
    } else {
        format!("{work:<22} {ours_ns:>12.2}  {peer:<28} {peer_ns:>12.2} {ratio:>7.3}")
    });
    Ok(())
}

#[expect(clippy::print_stdout, reason = "a program's output")]
fn say(line: &str) {
    println!("{line}");
}

#[expect(clippy::print_stderr, reason = "a program's complaint")]
fn say_error(message: &str) {
    eprintln!("ratios: {message}");
}

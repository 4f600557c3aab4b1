//! `dsm demo`: processes that share a table, die, and are replaced, and a count that is right.
//!
//! | module | its idea |
//! |---|---|
//! | [`text`] | what a word is, and how a text is cut into pieces |
//! | [`board`] | the shared segment that says who counts what and how far it is |
//! | [`exactly_once`] | how a word is counted once, whenever its process is killed |
//! | [`shared`] | the namespace and what is in it |
//! | [`worker`] | a process that counts |
//! | [`supervisor`] | starts, kills and replaces workers |
//! | [`verify`] | the count by a single process |
//! | [`summary`] | the result, for people and for programs |

mod board;
mod exactly_once;
mod shared;
mod summary;
mod supervisor;
mod text;
mod verify;
pub(crate) mod worker;

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::Ordering;

use indicatif::{ProgressBar, ProgressStyle};

use self::board::MAX_WORKERS;
use self::shared::Shared;
use self::summary::Report;

/// Words that a run counts if it is not told how often to go through the text: enough to last a
/// few seconds.
const WORTHWHILE: u64 = 10_000_000;

/// Count the words of a text by several processes, kill some of them, and check the result.
#[derive(clap::Args, Debug)]
pub(crate) struct Arguments {
    /// Worker processes at a time.
    #[arg(long, value_name = "N", default_value_t = 4,
          value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(1..=MAX_WORKERS as u64))]
    workers: usize,
    /// How many workers are killed (SIGKILL, on Windows TerminateProcess) and replaced.
    #[arg(long, value_name = "K", default_value_t = 6,
          value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(0..=10_000))]
    kills: usize,
    /// How often the text is counted; as often as it takes for a run of some seconds if not given.
    #[arg(long, value_name = "P", value_parser = clap::value_parser!(u64).range(1..=1_000_000_000))]
    passes: Option<u64>,
    /// Decides when and whom to kill; drawn anew for each run if not given.
    #[arg(long, value_name = "S")]
    seed: Option<u64>,
    /// Print the result as JSON, and no progress.
    #[arg(long)]
    json: bool,
    /// Text files; the project's own documents if none is given.
    #[arg(value_name = "FILE")]
    files: Vec<PathBuf>,
}

/// Runs the demo and prints what came of it; whether all was as it should be.
pub(crate) fn run(arguments: &Arguments) -> Result<bool, String> {
    let text = text::read(&arguments.files)?;
    let once = verify::count_alone(&text.content, 1);
    let words: u64 = once.values().sum();
    let passes = arguments.passes.unwrap_or_else(|| WORTHWHILE.div_ceil(words));
    if words.checked_mul(passes).is_none_or(|total| total > 1 << 48) {
        return Err(format!("{words} words counted {passes} times are too many; lower --passes"));
    }
    let expected = verify::count_alone(&text.content, passes);
    let seed = arguments.seed.unwrap_or_else(draw_seed);
    let namespace = format!("dsm-demo-{}", std::process::id());

    let shared = Shared::create(&namespace, &text.content, passes).map_err(|e| e.to_string())?;
    let outcome = count(&shared, &namespace, arguments, seed)?;
    let counted = shared.counts().map_err(|e| e.to_string())?;
    let usage = shared.usage().map_err(|e| e.to_string())?;
    let board = &shared.board;
    let mut report = Report {
        workers: arguments.workers,
        kills: arguments.kills,
        killed: outcome.killed,
        killed_midway: outcome.killed_midway,
        recoveries: outcome.deaths.len(),
        words: counted.values().sum(),
        distinct: counted.len() as u64,
        verified: counted == expected,
        leaked_bytes: 0,
        leaked: Vec::new(),
        files: text.files,
        text_bytes: text.content.len() as u64,
        passes,
        pieces: board.pieces().len(),
        seconds: outcome.elapsed.as_secs_f64(),
        words_per_second: board.done() as f64 / outcome.elapsed.as_secs_f64(),
        shared_bytes: usage.reserved,
        table_bytes: usage.table,
        repairs_completed: board.completed.load(Ordering::Relaxed),
        repairs_undone: board.undone.load(Ordering::Relaxed),
        repairs_untouched: board.untouched.load(Ordering::Relaxed),
        seed,
        deaths: outcome.deaths,
        differences: verify::differences(&expected, &counted),
    };
    (report.leaked_bytes, report.leaked) = shared.leave()?;
    let good = report.is_good();
    crate::output::say(&if arguments.json {
        serde_json::to_string(&report).map_err(|e| e.to_string())?
    } else {
        report.to_text()
    });
    Ok(good)
}

fn draw_seed() -> u64 {
    use std::hash::{BuildHasher, Hasher};
    // The standard library seeds its maps at random; there is nothing else to hash.
    std::collections::hash_map::RandomState::new().build_hasher().finish()
}

fn count(
    shared: &Shared,
    namespace: &str,
    arguments: &Arguments,
    seed: u64,
) -> Result<supervisor::Outcome, String> {
    let total = shared.board.total();
    let bar = if arguments.json { ProgressBar::hidden() } else { ProgressBar::new(total) };
    let style = "{bar:40} {human_pos}/{human_len} words, {per_sec}, {eta} left";
    bar.set_style(ProgressStyle::with_template(style).map_err(|e| e.to_string())?);
    let plan = supervisor::plan(total, arguments.kills, seed);
    let program = std::env::current_exe().map_err(|e| format!("cannot find myself: {e}"))?;
    let spawn = |worker: usize, generation: u64| -> Result<Child, String> {
        Command::new(&program)
            .args(["demo-worker", namespace, &worker.to_string(), &generation.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .map_err(|e| format!("cannot start a worker: {e}"))
    };
    let outcome = supervisor::run(&shared.board, arguments.workers, &plan, &spawn, &mut |done| {
        bar.set_position(done);
    });
    bar.finish_and_clear();
    outcome
}

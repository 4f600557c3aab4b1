//! Counts the instructions of an operation, ours and our peers', and holds ours to those on record.
//!
//! Every figure is that of two processes (see [`benches::count`]); each is this program again, run
//! by valgrind and told by hidden options to do one contestant's work so many times.

use std::path::PathBuf;
use std::process::ExitCode;

use benches::count::callgrind::{self, Ran};
use benches::count::environment::Environment;
use benches::count::record::{self, Judgement, Record};
use benches::count::{Figure, Job, count, jobs};
use benches::work::{Work, choose};
use benches::{valgrind, works};
use clap::Parser;
use serde::Serialize;

/// Counts the instructions that we and our peers take for an operation, by valgrind.
#[derive(Parser)]
#[command(name = "instructions")]
struct Arguments {
    /// Print one JSON object per line instead of a table.
    #[arg(long)]
    json: bool,
    /// Print what is recorded as a table in Markdown and do nothing.
    #[arg(long, conflicts_with_all = ["json", "check", "save"])]
    markdown: bool,
    /// Print the names of all works that can be counted and do nothing.
    #[arg(long)]
    list: bool,
    /// Count ours alone, and fail where they take over 3 % more than is recorded, if compiler,
    /// libraries and processor are those of the record.
    #[arg(long)]
    check: bool,
    /// Record what was counted.
    #[arg(long, conflicts_with = "check")]
    save: bool,
    /// The file with the recorded figures.
    #[arg(long, value_name = "FILE", default_value = record::PATH)]
    record: PathBuf,
    /// Do so many operations of a work in this process, and say what was done.
    #[arg(long, hide = true, requires = "contestant")]
    run: Option<u64>,
    /// Who does them.
    #[arg(long, hide = true)]
    contestant: Option<String>,
    /// Works to count; a name that ends in `*` stands for all that begin like it. All if none is
    /// given.
    works: Vec<String>,
}

/// What this program prints.
#[derive(Serialize)]
struct Row<'a> {
    work: &'a str,
    contestant: &'a str,
    instructions: f64,
    recorded: Option<f64>,
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
    let all: Vec<Work> = works::all().into_iter().filter(|work| work.counted.is_some()).collect();
    if arguments.list {
        all.iter().for_each(|work| say(&work.name));
        return Ok(());
    }
    let (chosen, unknown) = choose(all, &arguments.works);
    if let (Some(operations), Some(contestant)) = (arguments.run, &arguments.contestant) {
        return do_here(operations, contestant, &chosen);
    }
    unknown.iter().for_each(|complaint| say_error(complaint));
    let record = Record::read(&arguments.record)?;
    let mut jobs = jobs(&chosen);
    if arguments.markdown {
        say(existing(arguments, record.as_ref())?.markdown(&jobs).trim_end());
        return uncounted(unknown.len());
    }
    if !valgrind::SUPPORTED {
        return Err("how valgrind is told when to count is not known for this processor".into());
    }
    callgrind::find()?;
    jobs.retain(|job| job.who.is_ours() || !arguments.check);
    let mut figures = Vec::new();
    let mut failed = unknown.len();
    if !jobs.is_empty() {
        print_heading(arguments);
    }
    count(&jobs, child, |_, result| match result {
        Ok(figure) => {
            print_row(arguments, record.as_ref(), &figure);
            figures.push(figure);
        }
        // One work that can't be counted is no reason to withhold the others.
        Err(message) => {
            say_error(&message);
            failed += 1;
        }
    });
    let judged = if arguments.check { judge(arguments, record.as_ref(), &figures) } else { Ok(()) };
    if failed > 0 && arguments.save {
        say_error("nothing is recorded, since something could not be counted");
    }
    uncounted(failed)?;
    if arguments.save {
        save(arguments, record, &figures)?;
    }
    judged
}

fn uncounted(works: usize) -> Result<(), String> {
    match works {
        0 => Ok(()),
        works => Err(format!("works that could not be counted: {works}")),
    }
}

/// Does a work, and says what was done.
fn do_here(operations: u64, contestant: &str, works: &[Work]) -> Result<(), String> {
    let [work] = works else { return Err("one work is done at a time".into()) };
    let found = work.contestants.iter().find(|c| c.who.name() == contestant);
    let found = found.ok_or_else(|| format!("nobody is called {contestant:?}"))?;
    let operations = found.set_up().run(operations).operations;
    let ran = Ran { operations, environment: Environment::here() };
    say(&serde_json::to_string(&ran).map_err(|e| e.to_string())?);
    Ok(())
}

/// The arguments that make this program do so many operations.
fn child(job: &Job, operations: u64) -> Vec<String> {
    let operations = operations.to_string();
    ["--run", &operations, "--contestant", job.who.name(), &job.work].map(String::from).into()
}

fn existing<'a>(arguments: &Arguments, record: Option<&'a Record>) -> Result<&'a Record, String> {
    record.ok_or_else(|| format!("there is no {}; --save makes it", arguments.record.display()))
}

/// Holds figures to the record.
fn judge(arguments: &Arguments, record: Option<&Record>, figures: &[Figure]) -> Result<(), String> {
    let record = existing(arguments, record)?;
    let here = figures.first().map(|figure| &figure.environment);
    let differences = here.map_or(Vec::new(), |here| here.differences(&record.environment));
    if !differences.is_empty() {
        say_error("nothing is judged, as the recorded figures are from elsewhere (here, there):");
        differences.iter().for_each(|difference| say_error(&format!("  {difference}")));
    }
    let mut failed = 0;
    for figure in figures {
        match record.judge(figure) {
            Judgement::Passed => {}
            Judgement::Noted(message) => say_error(&message),
            Judgement::Failed(message) => {
                say_error(&message);
                failed += 1;
            }
        }
    }
    match failed {
        0 => Ok(()),
        failed => Err(format!("works that take too many instructions: {failed}")),
    }
}

/// Records figures: all anew, or some among others of the same environment.
fn save(arguments: &Arguments, old: Option<Record>, figures: &[Figure]) -> Result<(), String> {
    let Some(first) = figures.first() else { return Ok(()) };
    let new = Record::new(first.environment.clone());
    let mut record = match old {
        Some(old) if !arguments.works.is_empty() => old,
        _ => new.clone(),
    };
    let differences = new.environment.differences(&record.environment);
    if !differences.is_empty() {
        return Err(format!(
            "the recorded figures of other works are from elsewhere, --save without names replaces \
             them all (here, there): {}",
            differences.join("; ")
        ));
    }
    figures.iter().for_each(|figure| record.put(figure));
    record.write(&arguments.record)
}

fn print_heading(arguments: &Arguments) {
    if !arguments.json {
        say(&format!(
            "{:<22} {:<28} {:>12} {:>10} {:>8}",
            "work", "contestant", "instructions", "recorded", "change"
        ));
    }
}

fn print_row(arguments: &Arguments, record: Option<&Record>, figure: &Figure) {
    let Figure { work, who, instructions, .. } = figure;
    let recorded = record.and_then(|record| record.get(work, who.name()));
    let instructions = (instructions * 100.0).round() / 100.0;
    let row = Row { work, contestant: who.name(), instructions, recorded };
    if arguments.json {
        return say(&serde_json::to_string(&row).expect("words and numbers"));
    }
    let beside = recorded.map_or(String::new(), |recorded| {
        let change = 100.0 * (figure.instructions / recorded - 1.0);
        format!(" {recorded:>10.1} {change:>+7.1}%")
    });
    say(&format!("{work:<22} {:<28} {instructions:>12.1}{beside}", row.contestant));
}

#[expect(clippy::print_stdout, reason = "a program's output")]
fn say(line: &str) {
    println!("{line}");
}

#[expect(clippy::print_stderr, reason = "a program's complaint")]
fn say_error(message: &str) {
    eprintln!("instructions: {message}");
}

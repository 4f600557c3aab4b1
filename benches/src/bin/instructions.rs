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
    /// Print a table in Markdown, a row per work.
    #[arg(long, conflicts_with = "json")]
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
    if !valgrind::SUPPORTED {
        return Err("how valgrind is told when to count is not known for this processor".into());
    }
    callgrind::find()?;
    let record = Record::read(&arguments.record)?;
    let mut jobs = jobs(&chosen);
    jobs.retain(|job| job.who.is_ours() || !arguments.check);
    let mut figures = Vec::new();
    let mut failed = unknown.len();
    let mut table = Table::new(arguments, record.as_ref());
    count(&jobs, child, |_, result| match result {
        Ok(figure) => {
            table.print(&figure);
            figures.push(figure);
        }
        // One work that can't be counted is no reason to withhold the others.
        Err(message) => {
            say_error(&message);
            failed += 1;
        }
    });
    table.end();
    let judged = if arguments.check { judge(arguments, record.as_ref(), &figures) } else { Ok(()) };
    if failed > 0 {
        let unsaved = if arguments.save { "; nothing was recorded" } else { "" };
        return Err(format!("works that could not be counted: {failed}{unsaved}"));
    }
    if arguments.save {
        save(arguments, record, &figures)?;
    }
    judged
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

/// Holds figures to the record.
fn judge(arguments: &Arguments, record: Option<&Record>, figures: &[Figure]) -> Result<(), String> {
    let path = arguments.record.display();
    let record = record.ok_or_else(|| format!("there is no {path}; --save makes it"))?;
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

/// Prints figures as they come.
struct Table<'a> {
    arguments: &'a Arguments,
    record: Option<&'a Record>,
    begun: bool,
    /// In Markdown, a row's work and figures so far: a work is a row.
    row: Option<(String, Vec<Figure>)>,
}

impl<'a> Table<'a> {
    fn new(arguments: &'a Arguments, record: Option<&'a Record>) -> Self {
        Self { arguments, record, begun: false, row: None }
    }

    fn print(&mut self, figure: &Figure) {
        if self.arguments.markdown {
            return self.print_markdown(figure);
        }
        let contestant = figure.who.name();
        let recorded = self.record.and_then(|record| record.get(&figure.work, contestant));
        let instructions = (figure.instructions * 100.0).round() / 100.0;
        let row = Row { work: &figure.work, contestant, instructions, recorded };
        if self.arguments.json {
            return say(&serde_json::to_string(&row).expect("words and numbers"));
        }
        if !std::mem::replace(&mut self.begun, true) {
            say(&format!(
                "{:<22} {:<28} {:>12} {:>10} {:>8}",
                "work", "contestant", "instructions", "recorded", "change"
            ));
        }
        let beside = recorded.map_or(String::new(), |recorded| {
            let change = 100.0 * (figure.instructions / recorded - 1.0);
            format!(" {recorded:>10.1} {change:>+7.1}%")
        });
        say(&format!("{:<22} {contestant:<28} {instructions:>12.1}{beside}", row.work));
    }

    fn print_markdown(&mut self, figure: &Figure) {
        match &mut self.row {
            Some((work, figures)) if *work == figure.work => figures.push(figure.clone()),
            _ => {
                self.end();
                self.row = Some((figure.work.clone(), vec![figure.clone()]));
            }
        }
    }

    /// Prints what is left.
    fn end(&mut self) {
        let Some((work, figures)) = self.row.take() else { return };
        if !std::mem::replace(&mut self.begun, true) {
            say("| work | registry | cores | peers |");
            say("|---|---:|---:|---|");
        }
        let ours = |name| {
            let found = figures.iter().find(|figure| figure.who.name() == name);
            found.map_or(String::new(), |figure| format!("{:.1}", figure.instructions))
        };
        let peers = figures.iter().filter(|figure| !figure.who.is_ours());
        let peers: Vec<String> = peers
            .map(|figure| format!("{} {:.1}", figure.who.name(), figure.instructions))
            .collect();
        say(&format!(
            "| {work} | {} | {} | {} |",
            ours("registry"),
            ours("cores"),
            peers.join(", ")
        ));
    }
}

#[expect(clippy::print_stdout, reason = "a program's output")]
fn say(line: &str) {
    println!("{line}");
}

#[expect(clippy::print_stderr, reason = "a program's complaint")]
fn say_error(message: &str) {
    eprintln!("instructions: {message}");
}

//! The figures that are kept in the repository, and how new ones are judged by them.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::environment::Environment;
use super::{Figure, Job};
use crate::work::Who;

/// Where the figures are kept.
pub const PATH: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/instructions.json");

/// What an operation of ours may take more than is recorded, as a part of that.
pub const TOLERATED: f64 = 0.03;

/// Figures of one environment.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Record {
    /// What they depend on.
    pub environment: Environment,
    /// Instructions by work and contestant.
    pub figures: BTreeMap<String, BTreeMap<String, f64>>,
}

/// How a figure compares with what is recorded.
#[derive(Clone, PartialEq, Debug)]
pub enum Judgement {
    /// As recorded.
    Passed,
    /// Worth to be told.
    Noted(String),
    /// Not to be accepted.
    Failed(String),
}

impl Record {
    /// An empty one.
    #[must_use]
    pub fn new(environment: Environment) -> Self {
        Self { environment, figures: BTreeMap::new() }
    }

    /// Reads a file; `None` if there is none.
    ///
    /// # Errors
    ///
    /// If it can't be read, or holds something else.
    pub fn read(path: &Path) -> Result<Option<Self>, String> {
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(format!("cannot read {}: {e}", path.display())),
        };
        serde_json::from_str(&text)
            .map(Some)
            .map_err(|e| format!("{} is no record of instructions: {e}", path.display()))
    }

    /// Writes a file.
    ///
    /// # Errors
    ///
    /// If the system refuses.
    pub fn write(&self, path: &Path) -> Result<(), String> {
        let text = serde_json::to_string_pretty(self).map_err(|e| e.to_string())? + "\n";
        std::fs::write(path, text).map_err(|e| format!("cannot write {}: {e}", path.display()))
    }

    /// What is recorded.
    #[must_use]
    pub fn get(&self, work: &str, contestant: &str) -> Option<f64> {
        self.figures.get(work)?.get(contestant).copied()
    }

    /// Records a figure, to a tenth of an instruction.
    pub fn put(&mut self, figure: &Figure) {
        let tenths = (figure.instructions * 10.0).round() / 10.0;
        let contestants = self.figures.entry(figure.work.clone()).or_default();
        contestants.insert(figure.who.name().to_owned(), tenths);
    }

    /// The figures as a table in Markdown, a row for each work.
    #[must_use]
    pub fn markdown(&self, jobs: &[Job]) -> String {
        let mut table = "| work | registry | cores | peers |\n|---|---:|---:|---|\n".to_owned();
        for work in jobs.chunk_by(|one, other| one.work == other.work) {
            let figure = |job: &Job| self.get(&job.work, job.who.name()).unwrap_or(f64::NAN);
            let ours = |who| {
                let job = work.iter().find(|job| job.who == who);
                job.map_or(String::new(), |job| format!("{:.1}", figure(job)))
            };
            let peers = work.iter().filter(|job| !job.who.is_ours());
            let peers: Vec<String> =
                peers.map(|job| format!("{} {:.1}", job.who.name(), figure(job))).collect();
            let (registry, cores) = (ours(Who::Registry), ours(Who::Cores));
            table +=
                &format!("| {} | {registry} | {cores} | {} |\n", work[0].work, peers.join(", "));
        }
        table
    }

    /// Compares a figure with what is recorded. Peers pass: nobody here can make them quicker. In
    /// another environment, more instructions are noted and no failure.
    #[must_use]
    pub fn judge(&self, figure: &Figure) -> Judgement {
        let Figure { work, who, instructions, environment } = figure;
        if !who.is_ours() {
            return Judgement::Passed;
        }
        let contestant = who.name();
        let Some(recorded) = self.get(work, contestant) else {
            return Judgement::Failed(format!("{work}, {contestant}: not recorded; see --save"));
        };
        let change = instructions / recorded - 1.0;
        let says = |word| {
            format!(
                "{work}, {contestant}: {instructions:.1} instructions are {:.1} % {word} than the \
                 recorded {recorded:.1}",
                100.0 * change.abs()
            )
        };
        let tolerated = TOLERATED * recorded;
        if *instructions > recorded + tolerated && *environment == self.environment {
            Judgement::Failed(says("more"))
        } else if *instructions > recorded + tolerated {
            Judgement::Noted(says("more"))
        } else if *instructions < recorded - tolerated {
            Judgement::Noted(says("less"))
        } else {
            Judgement::Passed
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::count::jobs;
    use crate::works;

    fn environment(rustc: &str) -> Environment {
        Environment { rustc: rustc.to_owned(), ..Environment::here() }
    }

    fn figure(who: Who, instructions: f64, rustc: &str) -> Figure {
        let environment = environment(rustc);
        Figure { work: "map_hit".to_owned(), who, instructions, environment }
    }

    /// A record of 200 instructions for everybody.
    fn record() -> Record {
        let mut record = Record::new(environment("1.95.0"));
        for who in [Who::Registry, Who::Cores, Who::Peer("dashmap")] {
            record.put(&figure(who, 200.04, "1.95.0"));
        }
        record
    }

    fn is_failure(judgement: &Judgement) -> bool {
        matches!(judgement, Judgement::Failed(_))
    }

    #[test]
    fn three_per_cent_are_tolerated_and_no_more() {
        let judge = |instructions| record().judge(&figure(Who::Registry, instructions, "1.95.0"));
        assert_eq!(judge(200.0), Judgement::Passed);
        assert_eq!(judge(206.0), Judgement::Passed);
        assert_eq!(judge(194.0), Judgement::Passed);
        let Judgement::Failed(message) = judge(206.1) else { panic!("{:?}", judge(206.1)) };
        assert!(message.starts_with("map_hit, registry: 206.1"), "{message}");
        assert!(message.ends_with("3.0 % more than the recorded 200.0"), "{message}");
        assert!(is_failure(&record().judge(&figure(Who::Cores, 206.1, "1.95.0"))));
    }

    #[test]
    fn fewer_instructions_are_told_and_no_failure() {
        let judgement = record().judge(&figure(Who::Cores, 150.0, "1.95.0"));
        let Judgement::Noted(message) = judgement else { panic!("{judgement:?}") };
        assert!(message.contains("25.0 % less"), "{message}");
    }

    #[test]
    fn another_compiler_is_told_and_not_judged() {
        let judgement = record().judge(&figure(Who::Registry, 300.0, "1.96.0"));
        let Judgement::Noted(message) = judgement else { panic!("{judgement:?}") };
        assert!(message.contains("50.0 % more"), "{message}");
        assert_eq!(record().judge(&figure(Who::Registry, 201.0, "1.96.0")), Judgement::Passed);
    }

    #[test]
    fn another_processor_is_told_and_not_judged() {
        let mut elsewhere = figure(Who::Registry, 300.0, "1.95.0");
        elsewhere.environment.cpu = "sse3".to_owned();
        assert!(matches!(record().judge(&elsewhere), Judgement::Noted(_)));
    }

    #[test]
    fn peers_are_not_judged() {
        let peer = figure(Who::Peer("dashmap"), 900.0, "1.95.0");
        assert_eq!(record().judge(&peer), Judgement::Passed);
    }

    #[test]
    fn what_is_not_recorded_is_a_failure_anywhere() {
        let empty = Record::new(environment("1.95.0"));
        for rustc in ["1.95.0", "1.96.0"] {
            assert!(is_failure(&empty.judge(&figure(Who::Registry, 1.0, rustc))));
        }
    }

    #[test]
    fn a_record_is_read_as_it_was_written() {
        let path = std::env::temp_dir().join(format!("instructions-{}", std::process::id()));
        record().write(&path).expect("a folder for temporary files");
        let read = Record::read(&path);
        std::fs::write(&path, "{}").expect("as above");
        let other = Record::read(&path);
        std::fs::remove_file(&path).expect("written above");
        assert_eq!(read, Ok(Some(record())));
        assert_eq!(record().get("map_hit", "cores"), Some(200.0));
        assert!(other.expect_err("not a record").contains("is no record"));
        assert_eq!(Record::read(&path), Ok(None));
    }

    #[test]
    fn the_documents_have_the_recorded_figures() {
        let recorded = Record::read(Path::new(PATH)).expect("a record").expect("a file");
        let table = recorded.markdown(&jobs(&works::all()));
        let document = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/BENCHMARKS.md");
        let document = std::fs::read_to_string(document).expect("part of the repository");
        assert!(
            document.contains(&table),
            "docs/BENCHMARKS.md has other figures than `instructions --markdown` prints:\n{table}"
        );
    }

    /// A work that is new or renamed needs a figure, or nothing holds its successors to it.
    #[test]
    fn the_repository_has_a_figure_of_every_counted_contestant_and_no_other() {
        let recorded = Record::read(Path::new(PATH)).expect("a record").expect("a file");
        let recorded: Vec<(&str, &str)> = recorded
            .figures
            .iter()
            .flat_map(|(work, figures)| figures.keys().map(|who| (work.as_str(), who.as_str())))
            .collect();
        let jobs = jobs(&works::all());
        let mut counted: Vec<(&str, &str)> =
            jobs.iter().map(|job| (job.work.as_str(), job.who.name())).collect();
        counted.sort_unstable();
        assert_eq!(recorded, counted);
    }
}

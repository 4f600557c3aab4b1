//! What the demo says at its end, to people and to programs.

use std::fmt::Write as _;
use std::time::Duration;

use serde::Serialize;

use crate::text::{bytes, count, plural, time};

/// What [`Child::kill`](std::process::Child::kill) is: nothing of the victim runs any more.
const KILL: &str = if cfg!(windows) { "TerminateProcess" } else { "SIGKILL" };

/// One worker's death and what became of it.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Recovery {
    /// The worker's slot.
    pub(crate) worker: usize,
    /// Whether it was killed between the two stores of an update.
    pub(crate) midway: bool,
    /// The piece that its replacement began with; `None` if there was nothing left to do.
    pub(crate) piece: Option<u64>,
    /// The word of that piece that its replacement began with.
    pub(crate) word: u64,
    /// From the kill until its replacement counted again, in milliseconds.
    pub(crate) milliseconds: f64,
}

/// A word whose count is wrong.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Difference {
    /// The word.
    pub(crate) word: String,
    /// Its count in the table.
    pub(crate) counted: u64,
    /// The count of a single process.
    pub(crate) expected: u64,
}

/// What a run found out.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Report {
    /// Worker processes at a time.
    pub(crate) workers: usize,
    /// How many workers were to be killed.
    pub(crate) kills: usize,
    /// Workers killed.
    pub(crate) killed: usize,
    /// Of these, killed between the two stores of an update.
    pub(crate) killed_midway: usize,
    /// Replacements that took over.
    pub(crate) recoveries: usize,
    /// Words counted, in all passes.
    pub(crate) words: u64,
    /// Different words.
    pub(crate) distinct: u64,
    /// Whether every count equals that of a single process.
    pub(crate) verified: bool,
    /// Bytes in shared memory that nobody gave back.
    pub(crate) leaked_bytes: u64,
    /// What these bytes are.
    pub(crate) leaked: Vec<String>,
    /// Files of the text.
    pub(crate) files: usize,
    /// Bytes of the text.
    pub(crate) text_bytes: u64,
    /// How often it was counted.
    pub(crate) passes: u64,
    /// Pieces it was cut into.
    pub(crate) pieces: usize,
    /// From the first worker's start to the last one's end.
    pub(crate) seconds: f64,
    /// Throughput.
    pub(crate) words_per_second: f64,
    /// Most bytes of shared memory that the run had at once, as far as it looked.
    pub(crate) shared_bytes: u64,
    /// Of these, in use by the table.
    pub(crate) table_bytes: u64,
    /// Updates of the killed that were found committed.
    pub(crate) repairs_completed: u64,
    /// Updates of the killed that were taken back.
    pub(crate) repairs_undone: u64,
    /// Poisoned words that were found right.
    pub(crate) repairs_untouched: u64,
    /// What decided when and whom to kill.
    pub(crate) seed: u64,
    /// Each death.
    pub(crate) deaths: Vec<Recovery>,
    /// The first words whose counts are wrong.
    pub(crate) differences: Vec<Difference>,
}

impl Report {
    /// Whether all is as it should be.
    pub(crate) fn is_good(&self) -> bool {
        let complete = self.killed == self.kills && self.recoveries == self.killed;
        self.verified && complete && self.leaked_bytes == 0 && self.leaked.is_empty()
    }

    /// The summary for people.
    pub(crate) fn to_text(&self) -> String {
        let mut out = String::new();
        let mut line = |label: &str, text: String| {
            // Writing to a string can't fail.
            let _ = writeln!(out, "  {label:<12}{text}");
        };
        line(
            "text",
            format!(
                "{}, {}, counted {} in {}",
                plural(self.files as u64, "file"),
                bytes(self.text_bytes),
                plural(self.passes, "time"),
                plural(self.pieces as u64, "piece"),
            ),
        );
        line("words", format!("{}, {} of them different", count(self.words), count(self.distinct)));
        line(
            "speed",
            format!(
                "{} words a second, by {} at a time",
                count(self.words_per_second as u64),
                plural(self.workers as u64, "process"),
            ),
        );
        line("killed", self.kills());
        line("recovered", self.recovery());
        if self.killed > 0 {
            line(
                "repairs",
                format!(
                    "{}: {} taken back and done again, {} found complete",
                    plural(self.repairs_undone + self.repairs_completed, "half-done update"),
                    count(self.repairs_undone),
                    count(self.repairs_completed),
                ),
            );
        }
        line(
            "memory",
            format!(
                "{} of shared memory, {} of it in use by the table",
                bytes(self.shared_bytes),
                bytes(self.table_bytes)
            ),
        );
        line("check", self.check());
        line(
            "left behind",
            if self.leaked_bytes == 0 && self.leaked.is_empty() {
                "nothing".to_owned()
            } else {
                format!("{} in {}", bytes(self.leaked_bytes), self.leaked.join(", "))
            },
        );
        let seconds = time(Duration::from_secs_f64(self.seconds));
        let _ = writeln!(out, "\n{} after {seconds}", self.verdict(),);
        out
    }

    fn verdict(&self) -> &'static str {
        match (self.is_good(), self.verified && self.leaked.is_empty()) {
            (true, _) => "Exact",
            (false, true) => "Right, but not put to the test that was asked for,",
            (false, false) => "WRONG",
        }
    }

    fn kills(&self) -> String {
        match (self.killed, self.killed_midway) {
            (0, _) if self.kills == 0 => "nobody".to_owned(),
            (killed, _) if killed != self.kills => {
                format!("{killed} of {} workers: the text was too short", self.kills)
            }
            (killed, midway) => format!(
                "{} by {KILL}, {midway} of them between the two stores of an update",
                plural(killed as u64, "worker"),
            ),
        }
    }

    fn recovery(&self) -> String {
        let mut times: Vec<f64> = self.deaths.iter().map(|death| death.milliseconds).collect();
        times.sort_by(f64::total_cmp);
        let Some(longest) = times.last() else { return "nobody had to be replaced".to_owned() };
        let as_time = |milliseconds: f64| time(Duration::from_secs_f64(milliseconds / 1e3));
        let mut out = format!(
            "{}, each from the exact word; from kill to counting again {} (median), {} (longest)",
            plural(self.recoveries as u64, "time"),
            as_time(times[times.len() / 2]),
            as_time(*longest),
        );
        for death in &self.deaths {
            let place = match death.piece {
                Some(piece) => format!("word {} of piece {piece}", count(death.word)),
                None => "nothing left to do".to_owned(),
            };
            let midway = if death.midway { ", killed in the midst of an update" } else { "" };
            let _ = write!(
                out,
                "\n{:14}worker {}: {place}{midway}, {}",
                "",
                death.worker,
                as_time(death.milliseconds)
            );
        }
        out
    }

    fn check(&self) -> String {
        if self.verified {
            return "every count equals that of a single process".to_owned();
        }
        let mut out = "the counts differ from those of a single process:".to_owned();
        for difference in &self.differences {
            let Difference { word, counted, expected } = difference;
            let _ = write!(out, "\n{:14}{word:?}: {counted} instead of {expected}", "");
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        Report {
            workers: 4,
            kills: 2,
            killed: 2,
            killed_midway: 1,
            recoveries: 2,
            words: 4_000_000,
            distinct: 3911,
            verified: true,
            leaked_bytes: 0,
            leaked: Vec::new(),
            files: 12,
            text_bytes: 105_000,
            passes: 250,
            pieces: 64,
            seconds: 2.5,
            words_per_second: 1_600_000.0,
            shared_bytes: 3 << 20,
            table_bytes: 600 << 10,
            repairs_completed: 0,
            repairs_undone: 1,
            repairs_untouched: 1,
            seed: 1,
            deaths: vec![
                Recovery {
                    worker: 2,
                    midway: true,
                    piece: Some(7),
                    word: 10_233,
                    milliseconds: 5.04,
                },
                Recovery { worker: 0, midway: false, piece: None, word: 0, milliseconds: 3.0 },
            ],
            differences: Vec::new(),
        }
    }

    #[test]
    fn a_good_run() {
        let expected = format!("  \
  text        12 files, 102.5 KiB, counted 250 times in 64 pieces
  words       4,000,000, 3,911 of them different
  speed       1,600,000 words a second, by 4 processes at a time
  killed      2 workers by {KILL}, 1 of them between the two stores of an update
  recovered   2 times, each from the exact word; from kill to counting again 5.0 ms (median), 5.0 ms (longest)
              worker 2: word 10,233 of piece 7, killed in the midst of an update, 5.0 ms
              worker 0: nothing left to do, 3.0 ms
  repairs     1 half-done update: 1 taken back and done again, 0 found complete
  memory      3.0 MiB of shared memory, 600.0 KiB of it in use by the table
  check       every count equals that of a single process
  left behind nothing

Exact after 2.5 s
");
        assert_eq!(report().to_text(), expected);
    }

    #[test]
    fn a_bad_run_says_what_is_wrong() {
        let report = Report {
            verified: false,
            leaked_bytes: 4096,
            leaked: vec!["dsm.x.1".to_owned()],
            differences: vec![Difference { word: "the".to_owned(), counted: 1, expected: 2 }],
            ..report()
        };
        assert!(!report.is_good());
        let text = report.to_text();
        assert!(text.contains("\"the\": 1 instead of 2"), "{text}");
        assert!(text.contains("left behind 4.0 KiB in dsm.x.1"), "{text}");
        assert!(text.contains("WRONG"), "{text}");
    }

    #[test]
    fn kills_that_did_not_happen_are_told() {
        let report = Report { kills: 3, ..report() };
        assert!(!report.is_good());
        let text = report.to_text();
        assert!(text.contains("killed      2 of 3 workers: the text was too short"), "{text}");
        assert!(text.ends_with("Right, but not put to the test that was asked for, after 2.5 s\n"));
    }

    #[test]
    fn programs_get_the_promised_fields() {
        let json = serde_json::to_value(report()).unwrap();
        for field in ["workers", "killed", "recoveries", "words", "distinct", "leaked_bytes"] {
            assert!(json[field].is_u64(), "{field}");
        }
        assert_eq!(json["verified"], true);
    }
}

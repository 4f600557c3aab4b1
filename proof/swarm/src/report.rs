//! What there is to tell of a run.

use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use serde::Serialize;

use crate::board::{Board, Histogram};
use crate::plan::{Child, Event, Kind, Raw};
use testkit::tool::text;

/// Deaths, for each kind of operation, from which on it is no accident if nobody died amid one of
/// them.
const DEATHS: u64 = 40;
/// Seconds after which everything that is planned has happened.
const LONG: u64 = 60;

/// Milliseconds.
#[derive(Default, Serialize)]
struct Times {
    count: u64,
    median: f64,
    p99: f64,
    longest: f64,
}

impl Times {
    fn of(times: &Histogram) -> Self {
        let (median, p99) = (times.quantile(500), times.quantile(990));
        Self { count: times.count(), median, p99, longest: times.longest() }
    }

    fn line(&self, what: &str) -> String {
        let Self { count, median, p99, longest } = self;
        format!(
            "{what:<54}{count:>9}   median {median:8.3}   99 % {p99:8.3}   longest {longest:8.3} ms\n"
        )
    }
}

#[derive(Serialize)]
struct Row {
    kind: &'static str,
    done: u64,
    /// Times that somebody died in the midst of it.
    died: u64,
    longest_ms: f64,
}

#[derive(Default, Serialize)]
pub(crate) struct Report {
    seconds: f64,
    kills: u64,
    stops: u64,
    forks: u64,
    raw_exits: u64,
    recoveries: u64,
    operations: u64,
    /// Objects that a killed worker had in hand.
    pub(crate) objects_lost: u64,
    /// Of the supervisor, after the death of all: recovery, and the check of everything.
    pub(crate) longest_takeover: f64,
    /// From the death of a holder, or the wish for what it held, until a survivor had it.
    wait_for_locks: Times,
    /// The same for entries and names, where reapers run if they were asked for.
    wait_for_names: Times,
    reapers: bool,
    /// Whole operations of survivors, while nobody was stopped.
    operation: Times,
    /// From the signal to the end of the process.
    death: Times,
    /// How late a sleeper got a processor.
    scheduling: Times,
    kinds: Vec<Row>,
    events: Vec<(&'static str, u64)>,
    raw: Vec<(&'static str, u64)>,
    children: Vec<(&'static str, u64)>,
}

impl Report {
    pub(crate) fn complete(&mut self, board: &Board, took: Duration) {
        self.seconds = took.as_secs_f64();
        let row = |kind: &Kind| Row {
            kind: kind.text(),
            done: board.done(*kind),
            died: board.died(*kind),
            longest_ms: board.longest(*kind),
        };
        self.kinds = Kind::ALL.iter().map(row).collect();
        self.events = Event::ALL.iter().map(|e| (e.text(), board.event(*e))).collect();
        self.raw = Raw::ALL.iter().map(|raw| (raw.text(), board.raw(*raw))).collect();
        self.children = Child::ALL.iter().map(|c| (c.text(), board.child(*c))).collect();
        self.kills = board.event(Event::Kills) + board.event(Event::Suicides);
        self.stops = board.event(Event::Stops);
        self.forks = self.children.iter().map(|(_, count)| count).sum();
        self.raw_exits = self.raw.iter().map(|(_, count)| count).sum();
        self.operations = self.kinds.iter().map(|row| row.done).sum();
        self.recoveries = [Event::LocksFromDead, Event::Poisoned, Event::Initialised]
            .into_iter()
            .map(|event| board.event(event))
            .sum();
        self.wait_for_locks = Times::of(&board.lock_waits);
        self.wait_for_names = Times::of(&board.name_waits);
        self.reapers = board.reapers.load(Relaxed) != 0;
        self.operation = Times::of(&board.operations);
        self.death = Times::of(&board.deaths);
        self.scheduling = Times::of(&board.scheduling);
    }

    /// What was planned and never happened, in a run of all kinds that was long enough for it.
    pub(crate) fn missing(&self, seconds: u64, all: bool) -> Vec<String> {
        if seconds < LONG || !all {
            return Vec::new();
        }
        let lists =
            [("", &self.events), ("a thread ended ", &self.raw), ("a child ", &self.children)];
        let mut missing = Vec::new();
        for (what, list) in lists {
            let never = list.iter().filter(|(_, count)| *count == 0);
            missing.extend(never.map(|(text, _)| format!("{what}{text}")));
        }
        let enough =
            self.kinds.iter().map(|row| row.died).sum::<u64>() >= DEATHS * self.kinds.len() as u64;
        for row in &self.kinds {
            if row.done == 0 || enough && row.died == 0 {
                missing.push(format!("death amid: {}", row.kind));
            }
        }
        missing
    }

    pub(crate) fn json(&self) -> Result<String, String> {
        serde_json::to_string_pretty(self).map_err(text)
    }

    pub(crate) fn table(&self) -> String {
        let mut out = format!(
            "{:.0} s: {} kills, {} stops, {} forks, {} threads ended raw, {} recoveries, {} operations; \
             everything accounted for, {} objects in the hands of the killed\n\n",
            self.seconds,
            self.kills,
            self.stops,
            self.forks,
            self.raw_exits,
            self.recoveries,
            self.operations,
            self.objects_lost
        );
        let by = if self.reapers { "with reapers" } else { "without a reaper" };
        out += &self.wait_for_locks.line("waits for locks of the dead, without a reaper");
        out += &self.wait_for_names.line(&format!("waits for entries of the dead, {by}"));
        out += &self.operation.line("operations");
        out += &self.death.line("from a kill to the end of the process");
        out += &self.scheduling.line("how late a sleeper got a processor");
        out +=
            &format!("the longest takeover with all checks: {:.1} ms\n\n", self.longest_takeover);
        out += &format!(
            "{:<44}{:>10}{:>12}{:>14}\n",
            "operation", "done", "died in it", "longest, ms"
        );
        for row in &self.kinds {
            let Row { kind, done, died, longest_ms } = row;
            out += &format!("{kind:<44}{done:>10}{died:>12}{longest_ms:>14.1}\n");
        }
        for list in [&self.events, &self.raw, &self.children] {
            out.push('\n');
            for (text, count) in list {
                out += &format!("{text:<56}{count:>10}\n");
            }
        }
        out
    }
}

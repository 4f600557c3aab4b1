//! `dsm ls`: which namespaces there are.

use dsm_registry::{Error, Registry, RegistryInspector};
use serde::Serialize;

use super::{namespaces, say_json, table};
use crate::output::say;
use crate::text::bytes;

/// List the namespaces of this machine, without touching them.
#[derive(clap::Args, Debug)]
pub(crate) struct Arguments {
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// A namespace at a glance.
#[derive(Serialize)]
struct Row {
    namespace: String,
    /// Living processes.
    processes: usize,
    /// Dead ones that nobody has swept yet.
    dead: usize,
    segments: usize,
    /// Bytes of shared memory that it has, in use or not.
    reserved: u64,
    persistent: bool,
    /// Why it can't be looked at.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

impl Row {
    fn new(namespace: &str, seen: Result<RegistryInspector, Error>) -> Self {
        let mut row = Self {
            namespace: namespace.to_owned(),
            processes: 0,
            dead: 0,
            segments: 0,
            reserved: 0,
            persistent: false,
            error: None,
        };
        match seen {
            Ok(inspector) => row.fill(&inspector),
            Err(error) if error.is_not_found() => {
                row.error = Some("its control object is gone, some segments are not".to_owned());
            }
            Err(error) => row.error = Some(error.to_string()),
        }
        row
    }

    fn fill(&mut self, inspector: &RegistryInspector) {
        let Some(info) = inspector.info() else {
            self.error = Some("its creator has not finished it".to_owned());
            return;
        };
        self.dead = inspector.processes().filter(|process| process.dead).count();
        self.processes = inspector.processes().count() - self.dead;
        self.segments = inspector.segments().count();
        // Segments of the main region are part of the control object.
        self.reserved = info.size
            + inspector
                .segments()
                .filter(|segment| !segment.handle.is_main_region())
                .map(|segment| segment.reserved)
                .sum::<u64>();
        self.persistent = info.persistent;
    }

    fn state(&self) -> String {
        match (&self.error, self.processes, self.dead) {
            (Some(error), _, _) => error.clone(),
            (None, 0, 0) if self.persistent => "persistent, nobody in it".to_owned(),
            (None, 0, _) if self.persistent => {
                format!("persistent, all dead: `dsm reap {}` frees what they held", self.namespace)
            }
            (None, 0, _) => format!("all dead: `dsm reap {}` removes it", self.namespace),
            (None, _, 0) if self.persistent => "in use, persistent".to_owned(),
            (None, _, 0) => "in use".to_owned(),
            (None, _, dead) => {
                format!("in use, {dead} dead: `dsm reap {}` sweeps them", self.namespace)
            }
        }
    }
}

/// Runs the command.
pub(crate) fn run(arguments: &Arguments) -> Result<bool, String> {
    let rows: Vec<Row> = namespaces()?
        .into_iter()
        .map(|namespace| Row::new(&namespace, Registry::inspect(&namespace)))
        .collect();
    if arguments.json {
        say_json(&rows)?;
    } else if rows.is_empty() {
        say("no namespaces");
    } else {
        let cells = rows.iter().map(|row| {
            vec![
                row.namespace.clone(),
                row.processes.to_string(),
                row.segments.to_string(),
                bytes(row.reserved),
                row.state(),
            ]
        });
        let headings = ["namespace", "processes", "segments", "reserved", "state"];
        say(&table(&headings, &[1, 2, 3], cells.collect()));
    }
    Ok(true)
}

//! `dsm reap`: sweeps what the dead left.

use dsm_registry::Registry;
use serde::Serialize;

use super::{namespaces, say_json, table, wrap};
use crate::output::{columns, complain, say};
use crate::text::bytes;

/// Sweep what dead processes left; a namespace in which nobody lives is removed, unless it is
/// persistent. What lives is not touched.
#[derive(clap::Args, Debug)]
pub(crate) struct Arguments {
    /// The namespace; all of them if none is given.
    name: Option<String>,
    /// Only say what would be swept, and why that is safe.
    #[arg(long)]
    dry_run: bool,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// The column of process ids, of which there may be hundreds.
const PIDS: usize = 1;

/// What the dead left in a namespace.
#[derive(Serialize)]
struct Estate {
    namespace: String,
    /// Processes that are proven dead.
    dead: Vec<u64>,
    /// Processes that live.
    alive: usize,
    /// Locks that the dead hold.
    locks: usize,
    /// Whether the whole namespace goes.
    removes_namespace: bool,
    /// Bytes of shared memory that come back then.
    bytes: u64,
    /// Whether there are only segments, and no control object to find them by.
    orphaned: bool,
    /// Whether whoever was creating the namespace has not finished it.
    unfinished: bool,
    /// Whether it was swept.
    reaped: bool,
}

impl Estate {
    /// `None` if there is nothing to sweep.
    fn of(namespace: &str) -> Result<Option<Self>, String> {
        let inspector = match Registry::inspect(namespace) {
            Ok(inspector) => inspector,
            // No control object. Whatever else has the name was left by those who made it.
            Err(error) if error.is_not_found() && namespaces()?.iter().any(|n| n == namespace) => {
                return Ok(Some(Self { orphaned: true, ..Self::nobody(namespace) }));
            }
            Err(error) => return Err(error.to_string()),
        };
        let Some(info) = inspector.info() else {
            return Ok(Some(Self { unfinished: true, ..Self::nobody(namespace) }));
        };
        let dead: Vec<_> = inspector.processes().filter(|process| process.dead).collect();
        let alive = inspector.processes().count() - dead.len();
        let removes_namespace = alive == 0 && !info.persistent;
        if dead.is_empty() && !removes_namespace {
            return Ok(None);
        }
        let of_the_dead = |slot| dead.iter().any(|process| process.slot == slot);
        let locks = inspector
            .participants()
            .filter(|participant| of_the_dead(participant.process))
            .flat_map(|participant| participant.held)
            .flatten()
            .count();
        let segments: u64 = inspector
            .segments()
            .filter(|segment| !segment.handle.is_main_region())
            .map(|segment| segment.reserved)
            .sum();
        Ok(Some(Self {
            namespace: namespace.to_owned(),
            dead: dead.iter().map(|process| process.proof.pid).collect(),
            alive,
            locks,
            removes_namespace,
            bytes: if removes_namespace { info.size + segments } else { 0 },
            ..Self::nobody(namespace)
        }))
    }

    /// Of a namespace that lists no process.
    fn nobody(namespace: &str) -> Self {
        Self {
            namespace: namespace.to_owned(),
            dead: Vec::new(),
            alive: 0,
            locks: 0,
            removes_namespace: false,
            bytes: 0,
            orphaned: false,
            unfinished: false,
            reaped: false,
        }
    }

    fn row(&self) -> Vec<String> {
        let pids: Vec<String> = self.dead.iter().map(u64::to_string).collect();
        vec![
            self.namespace.clone(),
            if pids.is_empty() { "none".to_owned() } else { pids.join(" ") },
            self.locks.to_string(),
            bytes(self.bytes),
            self.reason(),
        ]
    }

    fn reason(&self) -> String {
        if self.unfinished {
            return match self.reaped {
                true => "its creator died before it was finished: removed".to_owned(),
                false => "not finished: removed unless its creator is at it now".to_owned(),
            };
        }
        // Whoever made its segments may still have them mapped, and nothing is left that would
        // tell.
        if self.orphaned {
            return format!(
                "not swept: its control object is gone, and with it who uses the rest; if nobody \
                 does, delete dsm.{}.*",
                self.namespace
            );
        }
        match (self.removes_namespace, self.alive) {
            (true, _) => "nobody lives in it: removed as a whole".to_owned(),
            (false, 0) => "persistent: its contents stay".to_owned(),
            (false, alive) => format!("{alive} still live in it: only what the dead held"),
        }
    }
}

/// Runs the command.
pub(crate) fn run(arguments: &Arguments) -> Result<bool, String> {
    let names = match &arguments.name {
        Some(name) => vec![name.clone()],
        None => namespaces()?,
    };
    let mut estates = Vec::new();
    let mut all_well = true;
    for name in names {
        match reap(&name, arguments.dry_run) {
            // One of many that has gone since they were listed.
            Err(_) if arguments.name.is_none() && !namespaces()?.contains(&name) => {}
            Ok(estate) => estates.extend(estate),
            // One that can't be looked at is no reason to leave the others unswept.
            Err(error) => {
                complain(&error);
                all_well = false;
            }
        }
    }
    if arguments.json {
        say_json(&estates)?;
    } else if estates.is_empty() {
        say("the dead left nothing");
    } else {
        let headings = ["namespace", "dead processes", "locks", "memory", "why it is safe"];
        let mut rows: Vec<_> = estates.iter().map(Estate::row).collect();
        wrap(&headings, &mut rows, PIDS, columns());
        say(&table(&headings, &[2, 3], rows));
    }
    Ok(all_well)
}

fn reap(namespace: &str, dry_run: bool) -> Result<Option<Estate>, String> {
    let estate = Estate::of(namespace)?;
    if dry_run {
        return Ok(estate);
    }
    let Some(mut estate) = estate else { return Ok(None) };
    if estate.orphaned {
        return Ok(Some(estate));
    }
    match Registry::builder(namespace).reap() {
        Err(error) if !error.is_not_found() => return Err(error.to_string()),
        // Swept, or somebody else has done it meanwhile.
        _ => {
            let there = Registry::inspect(namespace);
            estate.reaped = !estate.unfinished || matches!(there, Err(e) if e.is_not_found());
        }
    }
    Ok(Some(estate))
}

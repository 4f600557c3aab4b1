//! `dsm show`: what is in a namespace.

use std::fmt::Write as _;

use dsm_registry::RegistryInspector;
use serde::Serialize;

use super::{inspect, say_json, table};
use crate::output::say;
use crate::text::{bytes, count};

/// Show the names, processes and segments of a namespace, without touching it.
#[derive(clap::Args, Debug)]
pub(crate) struct Arguments {
    /// The namespace.
    name: String,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Namespace {
    namespace: String,
    persistent: bool,
    max_processes: u32,
    max_participants: u32,
    max_segments: u32,
    control_bytes: u64,
    main_region_bytes: u64,
    processes: Vec<Process>,
    segments: Vec<Segment>,
    names: Vec<Name>,
}

#[derive(Serialize)]
struct Process {
    pid: u64,
    user: u64,
    dead: bool,
    threads: usize,
    /// Locks that its threads hold, or are about to.
    locks: usize,
}

#[derive(Serialize)]
struct Segment {
    handle: String,
    bytes: u64,
    reserved: u64,
    attached: u32,
    pinned: bool,
    settled: bool,
    main_region: bool,
    /// The segment that it belongs to, as those of an area belong to its first.
    under: Option<String>,
}

#[derive(Serialize)]
struct Name {
    name: String,
    kind: String,
    created_as: String,
    bytes: u64,
    reserved: u64,
    attached: u32,
    initialising: Option<u64>,
}

impl Namespace {
    fn new(namespace: &str, inspector: &RegistryInspector) -> Result<Self, String> {
        let info = inspector
            .info()
            .ok_or_else(|| format!("the creator of namespace {namespace:?} has not finished it"))?;
        let processes = inspector.processes().map(|process| {
            let participants: Vec<_> =
                inspector.participants().filter(|p| p.process == process.slot).collect();
            Process {
                pid: process.proof.pid,
                user: process.proof.user,
                dead: process.dead,
                // One participant stands for the process as such.
                threads: participants.iter().filter(|p| p.thread.tid != 0).count(),
                locks: participants.iter().flat_map(|p| p.held).flatten().count(),
            }
        });
        let segments = inspector.segments().map(|segment| Segment {
            handle: segment.handle.to_string(),
            bytes: segment.size,
            reserved: segment.reserved,
            attached: segment.attached,
            pinned: segment.pinned,
            settled: segment.settled,
            main_region: segment.handle.is_main_region(),
            under: segment.under.map(|handle| handle.to_string()),
        });
        Ok(Self {
            namespace: namespace.to_owned(),
            persistent: info.persistent,
            max_processes: info.max_processes,
            max_participants: info.max_participants,
            max_segments: info.max_segments,
            control_bytes: info.size,
            main_region_bytes: info.main_region,
            processes: processes.collect(),
            segments: segments.collect(),
            names: names(inspector)?,
        })
    }

    fn to_text(&self) -> String {
        let mut out = format!(
            "namespace {}{}: {} of {} processes, {} of {} segments, control object {}\n",
            self.namespace,
            if self.persistent { ", persistent" } else { "" },
            self.processes.len(),
            self.max_processes,
            self.segments.len(),
            self.max_segments,
            bytes(self.control_bytes),
        );
        if !self.processes.is_empty() {
            let rows = self.processes.iter().map(|process| {
                vec![
                    process.pid.to_string(),
                    process.user.to_string(),
                    if process.dead { "dead" } else { "alive" }.to_owned(),
                    process.threads.to_string(),
                    process.locks.to_string(),
                ]
            });
            let headings = ["pid", "user", "state", "threads", "locks held"];
            let _ = write!(out, "\n{}\n", table(&headings, &[0, 1, 3, 4], rows.collect()));
        }
        if !self.segments.is_empty() {
            let rows = self.segments.iter().map(|segment| {
                vec![
                    segment.handle.clone(),
                    bytes(segment.bytes),
                    bytes(segment.reserved),
                    segment.attached.to_string(),
                    segment.notes(),
                ]
            });
            let headings = ["segment", "size", "reserved", "attached", "notes"];
            let _ = write!(out, "\n{}\n", table(&headings, &[1, 2, 3], rows.collect()));
        }
        if !self.names.is_empty() {
            let rows = self.names.iter().map(|name| {
                vec![
                    name.name.clone(),
                    bytes(name.bytes),
                    bytes(name.reserved),
                    count(u64::from(name.attached)),
                    match name.initialising {
                        Some(pid) => format!("{}, being initialised by {pid}", name.created_as),
                        None => name.created_as.clone(),
                    },
                ]
            });
            let headings = ["name", "size", "reserved", "attached", "what"];
            let _ = write!(out, "\n{}\n", table(&headings, &[1, 2, 3], rows.collect()));
        }
        out
    }
}

impl Segment {
    fn notes(&self) -> String {
        let under = self.under.as_ref().map(|under| format!("part of {under}"));
        [
            self.pinned.then(|| "pinned".to_owned()),
            (!self.settled).then(|| "coming or going".to_owned()),
            self.main_region.then(|| "main region".to_owned()),
            under,
        ]
        .into_iter()
        .flatten()
        .collect::<Vec<_>>()
        .join(", ")
    }
}

fn names(inspector: &RegistryInspector) -> Result<Vec<Name>, String> {
    let listed = inspector.names().map_err(|e| e.to_string())?;
    let names = listed.into_iter().map(|listing| Name {
        name: listing.name,
        kind: listing.kind.to_string(),
        created_as: listing.description.to_string(),
        bytes: listing.size,
        reserved: listing.used,
        attached: listing.attached,
        initialising: listing.initialising,
    });
    Ok(names.collect())
}

/// Runs the command.
pub(crate) fn run(arguments: &Arguments) -> Result<bool, String> {
    let seen = Namespace::new(&arguments.name, &inspect(&arguments.name)?)?;
    if arguments.json {
        say_json(&seen)?;
    } else {
        say(&seen.to_text());
    }
    Ok(true)
}

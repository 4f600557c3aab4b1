//! Namespaces on simulated machines.
#![cfg(not(loom))]

mod callbacks;
mod control_object;
mod declared_dead;
mod forgotten;
#[cfg(all(any(unix, windows), not(shuttle)))]
mod kinds;
mod machine;
mod model;
mod open;
mod recovery;
mod segments;
mod strangers;
mod threads;
mod toc;

use dsm_core::namespace::{Error, Namespace, NamespaceConfig, Opened, ProcessLocal};
use sim::{HeapMachine, HeapProcess};

/// A small namespace.
fn config() -> NamespaceConfig {
    NamespaceConfig {
        max_processes: 8,
        max_participants: 24,
        max_segments: 16,
        patience: std::time::Duration::from_secs(2),
        ..NamespaceConfig::default()
    }
}

/// Joins the namespace of the process's machine.
fn join<'a>(process: &'a HeapProcess, local: &'a ProcessLocal<'a>) -> Namespace<'a> {
    join_as(process, local, &config()).0
}

/// As `join`, with a configuration.
fn join_as<'a>(
    process: &'a HeapProcess,
    local: &'a ProcessLocal<'a>,
    config: &NamespaceConfig,
) -> (Namespace<'a>, Opened) {
    Namespace::open(process, process.platform(), config, local).unwrap()
}

/// The error of an attempt to join.
fn refusal(machine: &HeapMachine) -> Error {
    let process = machine.process();
    let local = process.local();
    match Namespace::open(&process, process.platform(), &config(), &local) {
        Ok((_, opened)) => panic!("opened: {opened:?}"),
        Err(error) => error,
    }
}

/// Nothing of anybody is left on the machine.
fn assert_empty(machine: &HeapMachine) {
    assert_eq!(machine.objects().len(), 0, "{:?}", machine.objects());
    assert_eq!(machine.used(), 0, "memory that nobody can reach");
}

//! The registry by the language's own rules, as far as Miri judges them: who refers to what, and
//! may still do so. As an ordinary test it says that the same works on the simulated machine.
//!
//! ```console
//! MIRIFLAGS="-Zmiri-permissive-provenance -Zmiri-disable-isolation -Zmiri-disable-data-race-detector \
//!   -Zmiri-disable-weak-memory-emulation" cargo +nightly miri test -p dsm-registry --test rules
//! ```
//!
//! Addresses of mappings are kept as numbers, and memory is used in words of more than one width,
//! which Miri's memory models don't know.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use dsm_core::error::ProviderFailure;
use dsm_core::provider::{Forward, Root};
use dsm_registry::{Connection, ErrorKind, HashOptions, Platform, ProviderErrorKind, Registry};
use sim::{HeapMachine, HeapProcess};
use testkit::environment::Wrapped;

/// A process of the simulated machine, which several own.
#[derive(Clone)]
struct Shared(Arc<HeapProcess>);

// SAFETY: the same process each time.
unsafe impl Forward for Shared {
    type Target = HeapProcess;

    fn target(&self) -> &HeapProcess {
        &self.0
    }
}

impl Platform for Shared {
    fn place(&self) -> String {
        // A process is where it is for as long as it is there.
        format!("process at {:p}", Arc::as_ptr(&self.0))
    }

    fn connect(&self, _: &str, _: u32) -> Result<Connection, ProviderFailure> {
        let environment = Wrapped::new(Arc::clone(&self.0), ());
        Ok(Connection::new(self.clone(), environment))
    }

    fn namespaces(&self) -> Result<Vec<String>, ProviderFailure> {
        Err(ProviderFailure::new(ProviderErrorKind::Unsupported, "list"))
    }
}

/// Keeps the control object in memory. Leaving unmaps it in a function that has references to it
/// among its arguments: a promise to Miri that it stays until the function returns, if it is on the
/// heap.
fn keep(machine: &HeapMachine) -> HeapProcess {
    let process = machine.process();
    let _mapping = process.peek().unwrap();
    process
}

fn open(machine: &HeapMachine) -> Registry {
    Registry::builder("rules")
        .provider(Shared(Arc::new(machine.process())))
        .max_processes(2)
        .max_participants(6)
        .max_segments(8)
        .open()
        .unwrap()
}

#[test]
fn two_processes_use_one_of_each_thing() {
    let machine = HeapMachine::new();
    machine.set_most_segments(8);
    let (first, second) = (open(&machine), open(&machine));
    let kept = keep(&machine);
    let options = HashOptions::new().partitions(2);

    let word = first.segment::<AtomicU64>("word", |at| at.write(AtomicU64::new(7))).unwrap();
    let same = second.segment::<AtomicU64>("word", |_| Ok(())).unwrap();
    word.fetch_add(1, Ordering::Relaxed);
    assert_eq!(same.load(Ordering::Relaxed), 8);
    let other = second.segment::<u64>("word", |_| Ok(())).unwrap_err();
    assert!(matches!(other.kind(), ErrorKind::Mismatch(_)), "{other}");

    let table = first.hash_with::<u64, u64>("table", options).unwrap();
    let there = second.hash_with::<u64, u64>("table", options).unwrap();
    for key in 0..8 {
        *table.entry(&key).unwrap().or_insert(0).unwrap() += key;
    }
    // A scan shares the ownership of its thread's participant.
    let mut scan = there.scan().unwrap();
    let mut sum = 0;
    while let Some((_, value)) = scan.next().unwrap() {
        sum += value.unwrap();
    }
    drop(scan);
    assert_eq!(sum, 28);
    assert_eq!(there.iter().unwrap().flatten().count(), 8);
    let mut scan = there.scan_mut().unwrap();
    while let Some(entry) = scan.next().unwrap() {
        entry.remove().unwrap();
    }
    drop(scan);
    assert_eq!(table.len().unwrap(), 0);

    let area = first.area("area").unwrap();
    let pointer = area.allocate(5_u64).unwrap();
    assert_eq!(second.area("area").unwrap().read(pointer).unwrap(), 5);
    let mut boxed = area.allocate_box([1_u32; 4]).unwrap();
    boxed.set(&[2; 4]).unwrap();
    assert_eq!(boxed.get().unwrap(), [2; 4]);
    drop(boxed);
    drop((first, second, word, same, table, there, area));
    drop(kept);
    assert_eq!((machine.objects().len(), machine.used()), (0, 0));
}

#[test]
fn a_scan_outlives_its_threads_list() {
    let machine = HeapMachine::new();
    machine.set_most_segments(8);
    let registry = open(&machine);
    let kept = keep(&machine);
    let table = registry.hash_with::<u64, u64>("t", HashOptions::new().partitions(2)).unwrap();
    table.insert(&1, 1).unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let scans = [table.scan().unwrap(), table.scan().unwrap()];
            drop(scans);
            assert_eq!(table.get(&1).unwrap(), Some(1));
        });
    });
    drop((registry, table));
    drop(kept);
    assert_eq!(machine.objects().len(), 0);
}

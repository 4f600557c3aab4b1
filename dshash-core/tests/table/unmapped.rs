//! Segments of a table that can't be mapped now: the platform's reason is told, and nobody is told
//! of damage.

use core::sync::atomic::{AtomicBool, Ordering};
use core::time::Duration;
use std::sync::Arc;

use dsa_core::AreaLocal;
use dshash_core::{Error, MemoryError, Params, Session, Table};
use dsm_core::env::Environment;
use dsm_core::error::{ErrorKind, ProviderFailure};
use dsm_core::namespace::{self, Namespace, NamespaceConfig, Platform};
use dsm_core::sync::AtomicU32;
use sim::HeapMachine;
use testkit::environment::{Hooks, Wrapped};

use crate::support::{A, H, leak, new_thread, start};

const KEYS: u64 = 8000;

type Value = [u64; 4];
type T = Table<u64, Value, &'static A>;
type Of<'t> = Session<'t, u64, Value, &'static A>;

fn params() -> Params {
    Params { partitions: 16, ..Params::default() }
}

/// A machine on which a process has made a table of many segments, and the table.
fn world() -> (HeapMachine, &'static A, T) {
    let machine = HeapMachine::new();
    machine.fill_new(0xaa);
    let (area, heap) = start(&machine).create();
    let table = T::create(area, heap, &params()).unwrap();
    let session = table.bind(heap).unwrap();
    for key in 0..KEYS {
        session.insert(&key, [key; 4]).unwrap();
    }
    assert!(area.stats().unwrap().segments > 4);
    (machine, area, table)
}

/// What an operation says, which found `found` things.
type Said = Result<u64, Error>;
type Operation = fn(Of<'_>) -> Said;

/// Every operation, by name, on as many entries as it takes.
const OPERATIONS: &[(&str, Operation)] = &[
    ("get", |table| each(|key| Ok(u64::from(table.get(&key)?.is_some())))),
    ("find", |table| each(|key| Ok(u64::from(table.find(&key)?.is_some())))),
    ("find_exclusive", |table| each(|key| Ok(u64::from(table.find_exclusive(&key)?.is_some())))),
    ("find_poisoned", |table| each(|key| Ok(u64::from(table.find_poisoned(&key)?.is_some())))),
    ("entry", |table| each(|key| table.entry(&key).map(|_| 1))),
    ("insert", |table| {
        each(|key| table.insert(&(KEYS + key), [0; 4]).map(|old| u64::from(old.is_none())))
    }),
    ("replace", |table| each(|key| Ok(u64::from(table.insert(&key, [key; 4])?.is_some())))),
    ("delete", |table| each(|key| table.delete(&key).map(u64::from))),
    ("get_many", |table| {
        let keys: Vec<u64> = (0..KEYS).collect();
        let (mut found, mut refused) = (0, None);
        table.get_many(&keys, |_, value| match value {
            Ok(value) => found += u64::from(value.is_some()),
            Err(error) => refused = Some(error),
        })?;
        refused.map_or(Ok(found), Err)
    }),
    ("scan", |table| {
        let (mut scan, mut found) = (table.scan(), 0);
        while scan.next()?.is_some() {
            found += 1;
        }
        Ok(found)
    }),
    ("scan_mut", |table| {
        let (mut scan, mut found) = (table.scan_mut(), 0);
        while scan.next()?.is_some() {
            found += 1;
        }
        Ok(found)
    }),
    ("clear", |table| table.clear().map(|()| KEYS)),
    ("trim", |table| table.trim().map(|()| KEYS)),
    ("check", |table| table.check().map(|report| report.stats.entries)),
    ("stats", |table| table.stats().map(|stats| stats.entries)),
];

fn each(operation: impl Fn(u64) -> Said) -> Said {
    (0..KEYS).map(operation).sum()
}

/// The platform's error, if that is what it is.
fn provider_failure(error: Error) -> Option<ProviderFailure> {
    match error {
        Error::Memory(MemoryError::Area(dsa_core::Error::Namespace(
            namespace::Error::Provider(failure),
        ))) => Some(failure),
        _ => None,
    }
}

/// A process that attaches the table, in which each mapping fails after the first `allowed`.
#[test]
fn what_cannot_be_mapped_is_not_called_damaged() {
    for (name, operation) in OPERATIONS {
        for allowed in [0, 1, 2, 4] {
            let (machine, area, table) = world();
            let process = start(&machine);
            let (other_area, heap) = process.attach(area.handle().unwrap());
            // SAFETY: the table outlives its users.
            let other = unsafe { T::attach(other_area, table.handle(), &params()) }.unwrap();
            let session = other.bind(heap).unwrap();
            let left = AtomicU32::new(allowed);
            machine.on_call(Some(Arc::new(move |machine: &HeapMachine, call| {
                let count = |n: u32| n.checked_sub(1);
                if call == "attach"
                    && left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, count).is_err()
                {
                    machine.fail_next_attach();
                }
            })));
            let said = operation(session);
            machine.on_call(None);
            match said {
                Err(error) => {
                    let failure = provider_failure(error);
                    let failure = failure.unwrap_or_else(|| panic!("{name}: {error}"));
                    assert_eq!(failure.kind, ErrorKind::NoMemory, "{name}");
                }
                // Figures are counted in what is looked at alone.
                Ok(_) => assert!(*name == "stats" || allowed > 2, "{name}"),
            }
            session.check().unwrap_or_else(|e| panic!("{name} left {e}"));
            assert!(operation(session).is_ok(), "{name}");
        }
    }
}

/// Waits for nothing, so that ten seconds of waiting pass at once.
struct Hasty;

impl Hooks for Hasty {
    fn wait(&self, _: &dyn Environment, _: &AtomicU32, _: u32, _: Duration) {
        std::thread::yield_now();
    }
}

#[test]
fn a_thread_that_attaches_for_long_is_not_damage() {
    let (machine, area, table) = world();
    let process = leak(machine.process());
    let env = leak(Wrapped::new(process, Hasty));
    let platform = Platform { provider: process, env };
    let config = NamespaceConfig { max_processes: 32, ..NamespaceConfig::default() };
    let ns = leak(Namespace::open(process, platform, &config, leak(process.local())).unwrap().0);
    let other_area = leak(A::attach(ns, area.handle().unwrap(), leak(AreaLocal::new())).unwrap());
    // SAFETY: the table outlives its users.
    let other = unsafe { T::attach(other_area, table.handle(), &params()) }.unwrap();
    let (inside, told) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let (now_inside, may_go) = (inside.clone(), told.clone());
    machine.on_call(Some(Arc::new(move |_: &HeapMachine, call| {
        if call == "attach" {
            now_inside.store(true, Ordering::SeqCst);
            while !may_go.load(Ordering::SeqCst) {
                std::thread::yield_now();
            }
        }
    })));
    let all = |heap: &'static H| {
        let session = other.bind(heap).unwrap();
        each(|key| Ok(u64::from(session.find(&key)?.is_some())))
    };
    std::thread::scope(|scope| {
        let slow = scope.spawn(|| all(new_thread(ns, other_area)));
        while !inside.load(Ordering::SeqCst) {
            std::thread::yield_now();
        }
        let said = all(new_thread(ns, other_area));
        told.store(true, Ordering::SeqCst);
        let busy = Error::Memory(MemoryError::Area(dsa_core::Error::Busy));
        assert_eq!(said, Err(busy), "{}", said.unwrap_err());
        assert_eq!(slow.join().unwrap(), Ok(KEYS));
    });
    machine.on_call(None);
    assert_eq!(all(new_thread(ns, other_area)), Ok(KEYS));
}

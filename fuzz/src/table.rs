//! The hash table: any sequence of calls by two processes, one of which is killed and replaced
//! whenever the case says so (with a guard in its hands, if it says that too), against a map of
//! the standard library.
//!
//! Keys come from a small range, so that they meet again. A value repeats one word, so that a
//! torn or stale one shows. An entry whose exclusive guard was live at its holder's death is
//! poisoned, and nothing else is; no entry is lost, none appears, and the table's own check
//! agrees.

use std::collections::HashMap;

use arbitrary::{Arbitrary, Unstructured};
use dsa_core::{Area, AreaLocal, Options};
use dshash_core::{Error, MAX_SEGMENT_SIZE, Params, Session, Table, TableHandle};
use dsm_core::error::ErrorKind;
use dsm_core::handle::SegmentHandle;
use dsm_core::lock::rw::RwLock;
use dsm_core::namespace::{Namespace, NamespaceConfig};
use dsm_core::participant::ParticipantLocal;
use sim::HeapMachine;

use crate::tables::{hints, with_tables};

type Value = [u64; 3];
type Store<'s> = &'s Area<'s, RwLock>;
type Use<'s> = Session<'s, u64, Value, Store<'s>>;

/// Steps of a case at most.
const STEPS: usize = 300;

#[derive(Arbitrary, Debug)]
enum Step {
    Insert { by: bool, key: u16, value: u32 },
    InsertMany { by: bool, first: u16, count: u8, value: u32 },
    OrInsert { by: bool, key: u16, value: u32 },
    Change { by: bool, key: u16, value: u32 },
    Delete { by: bool, key: u16 },
    DeleteMany { by: bool, first: u16, count: u8 },
    DeleteByGuard { by: bool, key: u16 },
    Get { by: bool, key: u16 },
    GetMany { by: bool, first: u16 },
    Scan { by: bool },
    ScanAndDelete { by: bool, modulus: u8 },
    Repair { by: bool, key: u16, value: u32 },
    Nest { by: bool, key: u16, other: u16 },
    Trim { by: bool },
    Clear { by: bool },
    Refuse { after: u8 },
    Kill,
    KillInside { key: u16, value: u32 },
    Leave,
}

#[derive(Default)]
struct Model {
    /// The word that each value repeats; `None` for a poisoned one.
    entries: HashMap<u64, Option<u64>>,
}

fn key_of(key: u16) -> u64 {
    u64::from(key % 2000)
}

fn value_of(value: u32) -> Value {
    [u64::from(value); 3]
}

fn config() -> NamespaceConfig {
    NamespaceConfig {
        max_processes: 4,
        max_participants: 12,
        max_segments: 24,
        ..NamespaceConfig::default()
    }
}

/// Runs one case.
pub fn run(bytes: &[u8]) {
    with_tables(|tables| run_in(tables, bytes));
}

fn run_in(tables: &[AreaLocal; 2], bytes: &[u8]) {
    let mut input = Unstructured::new(bytes);
    let Ok(partitions) = u8::arbitrary(&mut input) else { return };
    let machine = HeapMachine::new();
    machine.set_most_segments(config().max_segments as usize);
    machine.set_capacity(Some(4 << 20));
    machine.fill_new(0xaa);
    let process = machine.process();
    let local = process.local();
    let (namespace, _) = Namespace::open(&process, process.platform(), &config(), &local)
        .expect("a fresh namespace opens");
    let thread = ParticipantLocal::new();
    namespace.register(&thread).expect("there is a slot");
    {
        let participant = namespace.participant(&thread);
        let options = Options { maximum: MAX_SEGMENT_SIZE, ..Options::default() };
        let area: Area<'_, RwLock> =
            Area::create(&namespace, &options, &tables[0]).expect("there is room");
        let hints = hints();
        let heap = area.heap(&participant, &hints).expect("the thread is registered");
        let params = Params { partitions: 1 << (partitions % 4), ..Params::default() };
        let table: Table<u64, Value, Store<'_>> =
            Table::create(&area, &heap, &params).expect("there is room");
        let survivor = table.bind(&heap).expect("the heap is of this area");
        let handle = (area.handle().expect("not in place"), table.handle());
        let mut model = Model::default();
        let mut steps = 0;
        while steps < STEPS && !input.is_empty() {
            session(
                &machine,
                (&tables[1], handle),
                &params,
                survivor,
                &mut model,
                &mut input,
                &mut steps,
            );
            machine.fail_allocation(u32::MAX, ErrorKind::NoSpace);
            let _ = namespace.reap();
            verify(survivor, &model);
        }
        // SAFETY: nobody else is there.
        unsafe { table.destroy(&heap) }.expect("nobody holds a lock");
        heap.trim().expect("nothing is in the way");
        let report = area.check(&participant).expect("the area is in order");
        assert_eq!((report.objects, report.unpublished), (0, 0), "the table left something");
        heap.release().expect("nothing is in the way");
    }
    assert!(namespace.unregister(&thread));
    namespace.leave(&process).expect("it is the last");
    assert_eq!((machine.objects().len(), machine.used(), process.mapped()), (0, 0, 0));
}

/// The life of a second process, until it is killed, leaves, or the case ends.
fn session(
    machine: &HeapMachine,
    (places, (area, table)): (&AreaLocal, (SegmentHandle, TableHandle)),
    params: &Params,
    survivor: Use<'_>,
    model: &mut Model,
    input: &mut Unstructured<'_>,
    steps: &mut usize,
) {
    let process = machine.process();
    let local = process.local();
    let (namespace, _) = Namespace::open(&process, process.platform(), &config(), &local)
        .expect("there is a slot for one at a time");
    let thread = ParticipantLocal::new();
    namespace.register(&thread).expect("there is a slot");
    let kill = || {
        thread.clear();
        process.kill();
    };
    let killed = {
        let participant = namespace.participant(&thread);
        let area: Area<'_, RwLock> =
            Area::attach(&namespace, area, places).expect("the survivor has it");
        let hints = hints();
        let heap = area.heap(&participant, &hints).expect("the thread is registered");
        // SAFETY: the table's own handle, for the same types; it is destroyed after this.
        let table: Table<u64, Value, Store<'_>> =
            unsafe { Table::attach(&area, table, params) }.expect("it is there");
        let second = table.bind(&heap).expect("the heap is of this area");
        let killed = loop {
            let Ok(step) = Step::arbitrary(input) else { break false };
            *steps += 1;
            match step {
                Step::Kill => {
                    kill();
                    break true;
                }
                Step::KillInside { key, value } => {
                    let key = key_of(key);
                    if let Some(mut guard) = second.find_poisoned(&key).expect("it is free") {
                        // Half of a change.
                        guard[1] = u64::from(value);
                        kill();
                        model.entries.insert(key, None);
                    } else {
                        kill();
                    }
                    break true;
                }
                Step::Leave => break false,
                step => take(&step, machine, [survivor, second], model),
            }
            if *steps >= STEPS || input.is_empty() {
                break false;
            }
        };
        if !killed {
            machine.fail_allocation(u32::MAX, ErrorKind::NoSpace);
            heap.release().expect("nothing is in the way");
        }
        killed
    };
    if !killed {
        assert!(namespace.unregister(&thread));
        namespace.leave(&process).expect("the survivor is there");
    }
}

/// Makes one call and compares.
fn take(step: &Step, machine: &HeapMachine, sides: [Use<'_>; 2], model: &mut Model) {
    let side = |by: bool| sides[usize::from(by)];
    match *step {
        Step::Insert { by, key, value } => insert(side(by), model, key_of(key), value),
        Step::InsertMany { by, first, count, value } => {
            for key in 0..u16::from(count) {
                insert(side(by), model, key_of(first.wrapping_add(key)), value);
            }
        }
        Step::OrInsert { by, key, value } => {
            let key = key_of(key);
            match (side(by).entry(&key), model.entries.get(&key)) {
                (Err(Error::Poisoned), Some(None)) => {}
                (Ok(entry), expected) => match entry.or_insert(value_of(value)) {
                    Ok(guard) => {
                        let word = expected.copied().flatten().unwrap_or(u64::from(value));
                        assert_eq!(*guard, [word; 3]);
                        model.entries.insert(key, Some(word));
                    }
                    Err(Error::Memory(_)) => assert!(expected.is_none()),
                    Err(error) => panic!("{error}"),
                },
                (Err(error), _) => panic!("{error}"),
            }
        }
        Step::Change { by, key, value } => {
            let key = key_of(key);
            match (side(by).find_exclusive(&key), model.entries.get_mut(&key)) {
                (Ok(None), None) | (Err(Error::Poisoned), Some(None)) => {}
                (Ok(Some(mut guard)), Some(Some(word))) => {
                    assert_eq!(*guard, [*word; 3]);
                    *guard = value_of(value);
                    *word = u64::from(value);
                }
                (other, expected) => panic!("{:?}, not {expected:?}", other.map(|g| g.is_some())),
            }
        }
        Step::Delete { by, key } => delete(side(by), model, key_of(key)),
        Step::DeleteMany { by, first, count } => {
            for key in 0..u16::from(count) {
                delete(side(by), model, key_of(first.wrapping_add(key)));
            }
        }
        Step::DeleteByGuard { by, key } => {
            let key = key_of(key);
            if let Some(guard) = side(by).find_poisoned(&key).expect("it is free") {
                assert_eq!(*guard.key(), key);
                guard.delete().expect("it is there");
                assert!(model.entries.remove(&key).is_some());
            } else {
                assert!(!model.entries.contains_key(&key));
            }
        }
        Step::Get { by, key } => compare(&side(by).get(&key_of(key)), model, key_of(key)),
        Step::GetMany { by, first } => {
            let keys: Vec<u64> = (0..40).map(|key| key_of(first.wrapping_add(key))).collect();
            let mut seen = 0;
            let looked = side(by).get_many(&keys, |index, found| {
                compare(&found, model, keys[index]);
                seen += 1;
            });
            looked.expect("nothing is held");
            assert_eq!(seen, keys.len());
        }
        Step::Scan { by } => scan(side(by), model),
        Step::ScanAndDelete { by, modulus } => {
            let modulus = u64::from(modulus % 7) + 1;
            let mut walk = side(by).scan_mut();
            let mut seen = 0;
            let before = model.entries.len();
            while let Some(entry) = walk.next().expect("nothing is held") {
                seen += 1;
                let key = *entry.key();
                assert!(model.entries.contains_key(&key));
                if key % modulus == 0 {
                    entry.delete().expect("it is there");
                    model.entries.remove(&key);
                }
            }
            assert_eq!(seen, before);
        }
        Step::Repair { by, key, value } => {
            let key = key_of(key);
            let repaired = side(by).repair(&key, |old| *old = value_of(value));
            assert_eq!(repaired, Ok(model.entries.get(&key) == Some(&None)));
            if repaired == Ok(true) {
                model.entries.insert(key, Some(u64::from(value)));
            }
        }
        Step::Nest { by, key, other } => {
            let (table, key, other) = (side(by), key_of(key), key_of(other));
            if let Ok(Some(_shared)) = table.find(&key) {
                compare(&table.get(&other), model, other);
                assert_eq!(table.insert(&other, value_of(0)), Err(Error::WouldDeadlock));
                assert_eq!(table.delete(&other), Err(Error::WouldDeadlock));
            }
            if let Ok(Some(_alone)) = table.find_exclusive(&key) {
                assert_eq!(table.get(&other), Err(Error::WouldDeadlock));
                assert!(matches!(table.find(&other), Err(Error::WouldDeadlock)));
                assert_eq!(table.delete(&other), Err(Error::WouldDeadlock));
            }
        }
        Step::Trim { by } => side(by).trim().expect("nothing is held"),
        Step::Clear { by } => {
            side(by).clear().expect("nothing is held");
            model.entries.clear();
        }
        Step::Refuse { after } => machine.fail_allocation(u32::from(after), ErrorKind::NoSpace),
        Step::Kill | Step::KillInside { .. } | Step::Leave => {}
    }
    assert_eq!(sides[0].table().len(), model.entries.len() as u64);
}

fn insert(table: Use<'_>, model: &mut Model, key: u64, value: u32) {
    match (table.insert(&key, value_of(value)), model.entries.get(&key).copied()) {
        (Ok(None), None) => {}
        (Ok(Some(old)), Some(Some(word))) => assert_eq!(old, [word; 3]),
        // A whole value heals, and what was poisoned is not handed out.
        (Ok(None), Some(None)) => {}
        (Err(Error::Memory(_)), None) => return,
        (other, expected) => panic!("{other:?}, not {expected:?}"),
    }
    model.entries.insert(key, Some(u64::from(value)));
}

fn delete(table: Use<'_>, model: &mut Model, key: u64) {
    assert_eq!(table.delete(&key), Ok(model.entries.remove(&key).is_some()));
}

fn compare(found: &Result<Option<Value>, Error>, model: &Model, key: u64) {
    match (found, model.entries.get(&key)) {
        (Ok(None), None) | (Err(Error::Poisoned), Some(None)) => {}
        (Ok(Some(value)), Some(Some(word))) => assert_eq!(*value, [*word; 3]),
        (other, expected) => panic!("{other:?} at {key}, not {expected:?}"),
    }
}

fn scan(table: Use<'_>, model: &Model) {
    let mut walk = table.scan();
    let mut seen = HashMap::new();
    while let Some(entry) = walk.next().expect("nothing is held") {
        let value = match entry.value() {
            Ok(value) => Some(value[0]),
            Err(Error::Poisoned) => None,
            Err(error) => panic!("{error}"),
        };
        assert!(seen.insert(*entry.key(), value).is_none(), "seen twice: {}", entry.key());
    }
    assert_eq!(seen, model.entries);
}

fn verify(table: Use<'_>, model: &Model) {
    let report = table.check().expect("the table is in order");
    assert_eq!(report.stats.entries, model.entries.len() as u64);
    let poisoned = model.entries.values().filter(|value| value.is_none()).count();
    assert_eq!(report.poisoned, poisoned as u64);
    scan(table, model);
    for key in model.entries.keys() {
        compare(&table.get(key), model, *key);
    }
}

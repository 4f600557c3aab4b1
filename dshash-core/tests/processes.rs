//! Real processes that are killed while they change a table in the system's shared memory.
#![cfg(all(any(unix, windows), not(loom)))]

use std::time::Duration;

use dsa_core::{Area, AreaLocal, DsaPointer, Heap, HeapLocal, Options};
use dshash_core::{Error, MAX_SEGMENT_SIZE, Params, Table, TableHandle};
use dsm_core::handle::SegmentHandle;
use dsm_core::lock::rw::RwLock;
use dsm_core::namespace::{Namespace, NamespaceConfig};
use dsm_core::participant::ParticipantLocal;
use testkit::process::{Part, Peer};
use testkit::system::{System, forever};

const ROUNDS: u64 = 30;
const KEYS: u64 = 4000;

type Words = Table<u64, [u64; 3], &'static Area<'static, RwLock>>;

/// Joins the namespace; what it borrows lives as long as the process.
fn join(name: &str) -> (&'static System, &'static Namespace<'static>) {
    let (system, namespace) = testkit::system::join(name, &NamespaceConfig::default());
    (system, forever(namespace))
}

fn heap_in(
    namespace: &'static Namespace<'static>,
    area: &'static Area<'static, RwLock>,
) -> &'static Heap<'static, RwLock> {
    let thread = forever(ParticipantLocal::new());
    namespace.register(thread).unwrap();
    let participant = forever(namespace.participant(thread));
    forever(area.heap(participant, forever(HeapLocal::new())).unwrap())
}

fn value(key: u64, version: u64) -> [u64; 3] {
    [version, key ^ version, key.wrapping_mul(version | 1)]
}

/// What a victim does until it is killed: everything, at random.
fn work(part: &Part) -> ! {
    let (_, namespace) = join(part.argument(0));
    let area = SegmentHandle::from_raw(part.number(1)).unwrap();
    let area = Area::<RwLock>::attach(namespace, area, forever(AreaLocal::new())).unwrap();
    let area = forever(area);
    let heap = heap_in(namespace, area);
    let handle = TableHandle(DsaPointer::from_raw(part.number(2)));
    // SAFETY: the parent keeps the table.
    let table = unsafe { Words::attach(area, handle, &params()) }.unwrap();
    let session = table.bind(heap).unwrap();
    part.say("at work");
    let mut random = part.number(3) | 1;
    loop {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let (key, version) = ((random >> 33) % KEYS, random >> 20);
        let result = match random >> 60 {
            0..=5 => session.insert(&key, value(key, version)).map(drop),
            6..=9 => session.delete(&key).map(drop),
            10..=13 => session.find_exclusive(&key).map(|guard| {
                if let Some(mut guard) = guard {
                    *guard = value(key, version);
                }
            }),
            14 => session.get(&key).map(drop),
            _ => session.repair(&key, |v| *v = value(key, version)).map(drop),
        };
        match result {
            Ok(()) | Err(Error::Poisoned) => {}
            Err(error) => panic!("{error}"),
        }
    }
}

fn params() -> Params {
    Params { partitions: 4, ..Params::default() }
}

/// Does nothing unless started as a victim by the test below.
#[test]
fn victim() {
    if let Some(part) = testkit::process::part() {
        work(&part);
    }
}

#[test]
fn survives_kills_at_random_moments() {
    let name = testkit::name("dshash");
    let (system, namespace) = join(&name);
    let options = Options { maximum: MAX_SEGMENT_SIZE, ..Options::default() };
    let area = Area::<RwLock>::create(namespace, &options, forever(AreaLocal::new())).unwrap();
    let area = forever(area);
    let heap = heap_in(namespace, area);
    let table = Words::create(area, heap, &params()).unwrap();
    let session = table.bind(heap).unwrap();
    let spawn = |seed: u64| {
        let [area, table, seed] = [area.handle().unwrap().get(), table.handle().0.raw(), seed]
            .map(|number| number.to_string());
        Peer::start("victim", "victim", &[&name, &area, &table, &seed])
    };
    let rounds = testkit::rounds(ROUNDS);
    let mut changed = 0;
    for round in 0..rounds {
        let before = table.len();
        let mut victims = [spawn(round * 2 + 1), spawn(round * 7 + 3)];
        // Every fifth time they may be killed before they are at work.
        if round % 5 != 4 {
            victims.iter_mut().for_each(|victim| victim.expect("at work"));
        }
        std::thread::sleep(Duration::from_millis(40 + round * 7 % 50));
        for victim in &mut victims {
            victim.kill_and_collect();
        }
        let report = session.check().unwrap();
        assert_eq!(report.stats.entries, table.len());
        let mut found = 0;
        let mut scan = session.scan();
        while let Some(entry) = scan.next().unwrap() {
            match entry.value() {
                Ok(seen) => assert_eq!(*seen, value(*entry.key(), seen[0]), "half a value"),
                Err(Error::Poisoned) => found += 1,
                Err(error) => panic!("{error}"),
            }
        }
        assert_eq!(found, report.poisoned);
        drop(scan);
        heap.maintain().unwrap();
        let objects = area.check(heap.participant()).unwrap().objects;
        assert_eq!(objects, report.stats.allocations, "a leak in round {round}");
        changed += u64::from(table.len() != before);
    }
    assert!(changed > rounds / 2, "the victims had time to work in {changed} rounds only");
    // SAFETY: all others are dead.
    unsafe { table.destroy(heap) }.unwrap();
    assert_eq!(area.check(heap.participant()).unwrap().objects, 0);
    // SAFETY: not used any more: the references to it are not either.
    let namespace = unsafe { core::ptr::read(namespace) };
    namespace.leave(system).unwrap();
    let left = testkit::system::objects_of(&name);
    assert!(left.is_empty(), "{left:?}");
}

//! What a kill after *each store* of an operation leaves of a table in a real area.
//!
//! See `testkit::steps`. In the copy that each prefix of the stores leaves the victim is dead and a newcomer goes on: the
//! table must hold what it held before or after, and *every* object of the area must be one of the
//! table's: nothing is lost.
#![cfg(all(target_os = "linux", target_arch = "x86_64", not(loom)))]

#[path = "../../../dsa-core/tests/area/support.rs"]
#[expect(dead_code, reason = "shared with other tests, which use all of it")]
mod support;

use std::cell::Cell;
use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use dsa_core::{Area, AreaLocal, AtomicDsaPointer, DsaPointer, Flags, Heap, HeapLocal, Options};
use dshash_core::{Error, Params, Session, Table, TableHandle};
use dsm_core::lock::rw::RwLock;
use dsm_core::namespace::Namespace;
use dsm_core::participant::ParticipantLocal;
use sim::HeapMachine;

use testkit::steps::{Samples, at_every_store};

use support::{A, H, Proc, leak, start};

type Value = [u64; 6];
type Words<'a> = Table<u64, Value, &'a Area<'a, RwLock>>;
type Here<'a, 's> = Session<'s, u64, Value, &'a Area<'a, RwLock>>;
type Seen = BTreeMap<u64, u64>;

const PARAMS: Params = Params { partitions: 1, type_tag: 0 };

fn value(key: u64) -> Value {
    [key, !key, key * 3, 0, 1, key]
}

fn contents(session: &Here<'_, '_>) -> Seen {
    let mut seen = Seen::new();
    let mut scan = session.scan();
    while let Some(entry) = scan.next().unwrap() {
        assert_eq!(*entry.value().unwrap(), value(*entry.key()));
        seen.insert(*entry.key(), entry.value().unwrap()[0]);
    }
    seen
}

/// A victim, a bystander who keeps the area, and a word in it that names the table.
struct Scene {
    machine: HeapMachine,
    victim: Proc,
    area: &'static A,
    heap: &'static H,
    cell: DsaPointer,
}

impl Scene {
    fn new() -> Self {
        let machine = HeapMachine::new();
        machine.fill_new(0xAA);
        let bystander = start(&machine);
        let victim = start(&machine);
        // Room for all: what the operation stores is replayed, not what it asks of the platform.
        let options = Options { initial: 256 << 10, ..Options::default() };
        let (area, heap) = victim.create(&options);
        let heap = leak(heap);
        area.pin().unwrap();
        bystander.attach(area.handle().unwrap()).unwrap();
        let cell = heap.allocate_extended(8, Flags::ZERO).unwrap();
        Self { machine, victim, area, heap, cell }
    }

    fn create(&self) -> Words<'static> {
        Words::create_into(self.area, self.heap, &PARAMS, word(self.area, self.cell)).unwrap()
    }

    /// Kills at the stores of `operation`. `judge` is given the table that is there (`None`: none
    /// is named; an error if it can't be attached).
    fn kill_everywhere(
        &self,
        name: &str,
        operation: impl FnOnce(),
        judge: impl Fn(Option<Result<Here<'_, '_>, Error>>),
    ) {
        let samples = Samples { evenly: 60, first: 30, last: 100 };
        let stores = at_every_store(&self.machine, samples, operation, |copy, number| {
            self.judge_one(copy, name, number, &judge);
        });
        assert!(stores > 10, "{name}: only {stores} stores");
    }

    fn judge_one(
        &self,
        copy: &HeapMachine,
        name: &str,
        number: usize,
        judge: &impl Fn(Option<Result<Here<'_, '_>, Error>>),
    ) {
        let what = format!("{name}, killed after {number} stores");
        copy.kill_pid(self.victim.process.pid());
        let process = copy.process();
        let local = process.local();
        let (ns, _) =
            Namespace::open(&process, process.platform(), &support::config(), &local).unwrap();
        let thread = ParticipantLocal::new();
        ns.register(&thread).unwrap();
        let participant = ns.participant(&thread);
        {
            let (table, hints) = (Box::new(AreaLocal::new()), Box::new(HeapLocal::new()));
            let area = Area::attach(&ns, self.area.handle().unwrap(), &table).unwrap();
            let heap = area.heap(&participant, &hints).unwrap();
            let objects = |heap: &Heap<'_, RwLock>| {
                heap.maintain().unwrap();
                let report = area.check(&participant).unwrap_or_else(|e| panic!("{what}: {e}"));
                assert_eq!(report.unpublished, 0, "{what}");
                report.objects
            };
            let named = word(&area, self.cell);
            let handle = TableHandle(named.load(Ordering::Relaxed));
            if handle.0.is_valid() {
                // SAFETY: a word that names a table, if anything.
                match unsafe { Words::attach(&area, handle, &PARAMS) } {
                    Ok(table) => {
                        let session = table.bind(&heap).unwrap();
                        let report = session.check().unwrap_or_else(|e| panic!("{what}: {e}"));
                        assert_eq!(objects(&heap), report.stats.allocations + 1, "{what}");
                        judge(Some(Ok(session)));
                        for key in 1_000_000..1_000_010 {
                            assert_eq!(session.insert(&key, value(key)).unwrap(), None);
                        }
                        session.check().unwrap();
                        // SAFETY: nobody else uses it.
                        unsafe { table.destroy_from(&heap, named) }.unwrap();
                    }
                    Err(error) => {
                        judge(Some(Err(error)));
                        // SAFETY: an allocation that was a table.
                        unsafe { heap.free_from(named) }.unwrap();
                    }
                }
            } else {
                judge(None);
            }
            assert_eq!(objects(&heap), 1, "{what}");
        }
        assert!(ns.unregister(&thread));
        ns.leave(&process).unwrap();
    }

    /// Kills at the stores of an operation on a table that `prepare` filled.
    fn change(name: &str, prepare: impl Fn(&Here<'_, '_>), operate: impl Fn(&Here<'_, '_>)) {
        let after = {
            let scene = Self::new();
            let table = scene.create();
            let session = table.bind(scene.heap).unwrap();
            prepare(&session);
            operate(&session);
            contents(&session)
        };
        let scene = Self::new();
        let table = scene.create();
        let session = table.bind(scene.heap).unwrap();
        prepare(&session);
        let before = contents(&session);
        scene.kill_everywhere(
            name,
            || operate(&session),
            |there| {
                let now = contents(&there.unwrap().unwrap());
                // What deletes many may have got somewhere.
                let between = now.keys().all(|key| before.contains_key(key))
                    && after.keys().all(|key| now.contains_key(key));
                assert!(now == before || now == after || between, "{name}: {now:?}");
            },
        );
    }
}

fn word<'a>(area: &'a Area<'_, RwLock>, cell: DsaPointer) -> &'a AtomicDsaPointer {
    // SAFETY: an allocated cell, used as one by all.
    unsafe { area.as_ref(cell.cast::<AtomicDsaPointer>()) }.unwrap()
}

fn fill(session: &Here<'_, '_>, keys: core::ops::Range<u64>) {
    for key in keys {
        session.insert(&key, value(key)).unwrap();
    }
}

fn insert(session: &Here<'_, '_>, key: u64) {
    assert_eq!(session.insert(&key, value(key)).unwrap(), None);
}

#[test]
fn first_insertions() {
    Scene::change("the first", |_| {}, |s| insert(s, 5));
    Scene::change("from a chunk", |s| fill(s, 0..5), |s| insert(s, 5));
}

#[test]
fn growing() {
    // From eight buckets, which are freed, to sixteen: at the 12th entry of a window at least.
    let key = {
        let scene = Scene::new();
        let table = scene.create();
        let session = table.bind(scene.heap).unwrap();
        let slots = |s: &Here<'_, '_>| s.stats().unwrap().slots;
        fill(&session, 0..48);
        while slots(&session) < 16 * 12 {
            fill(&session, session.table().len()..session.table().len() + 1);
        }
        session.table().len() - 1
    };
    Scene::change("doubling", |s| fill(s, 0..key), |s| insert(s, key));
}

#[test]
fn shrinking() {
    Scene::change(
        "the last one",
        |s| {
            fill(s, 0..200);
            for key in 1..200 {
                assert!(s.delete(&key).unwrap());
            }
        },
        |s| assert!(s.delete(&0).unwrap()),
    );
}

#[test]
fn giving_back_chunks() {
    Scene::change(
        "sweeping",
        |s| {
            fill(s, 0..300);
            for key in 3..300 {
                assert!(s.delete(&key).unwrap());
            }
        },
        |s| s.trim().unwrap(),
    );
}

#[test]
fn creating_and_destroying() {
    let scene = Scene::new();
    let outcomes = [const { Cell::new(0) }; 3];
    let seen = |which: usize| outcomes[which].set(outcomes[which].get() + 1);
    scene.kill_everywhere(
        "creating",
        || {
            scene.create();
        },
        |there| match there {
            None => seen(0),
            Some(Ok(session)) => {
                seen(1);
                assert!(contents(&session).is_empty());
            }
            Some(Err(error)) => panic!("half a table: {error}"),
        },
    );
    assert!(outcomes[0].take() > 0 && outcomes[1].take() > 0);

    let scene = Scene::new();
    let table = scene.create();
    fill(&table.bind(scene.heap).unwrap(), 0..40);
    let named = word(scene.area, scene.cell);
    scene.kill_everywhere(
        "destroying",
        // SAFETY: nobody else uses the table.
        || unsafe { table.destroy_from(scene.heap, named) }.unwrap(),
        |there| match there {
            None => seen(0),
            Some(Ok(_)) => seen(1),
            Some(Err(error)) => {
                assert_eq!(error, Error::Destroyed);
                seen(2);
            }
        },
    );
    assert!(outcomes.iter().all(|outcome| outcome.get() > 0));
}

//! Names: get-or-create of segments, areas and tables; removal; opening the registry.
//!
//! These are whole registries on the simulated system, each its own process by its place. Whatever
//! the victim reached, the witness asks for the same name and gets it, initialised once, by the
//! victim or anew; what it removes then is gone, and with the last process everything is.

use std::any::Any;
use std::cell::Cell;

use dsm_core::error::ProviderFailure;
use dsm_registry::{Connection, Error, Platform, Registry};

use crate::case::{Case, Heir, Operation};
use crate::member::{GUEST, Member, RESCUER, VICTIM, WITNESS, ensure, leak, mortals, text};
use crate::process::Process;
use crate::system;

const CASES: [Operation; 14] = [
    Operation {
        name: "registry-open",
        must: &["the elector works", "an object is named"],
        make: open_first,
    },
    Operation {
        name: "registry-segment-create",
        must: &[
            "found by name",
            "initialised by another",
            "an object is named",
            "a segment is half made or half removed",
        ],
        make: segment_create,
    },
    Operation { name: "registry-segment-attach", must: &["found by name"], make: segment_attach },
    Operation {
        name: "registry-initialiser-fails",
        must: &["found by name", "initialised by another", "an object is removed"],
        make: segment_fails,
    },
    Operation {
        name: "registry-area-create",
        must: &["initialised by another", "an object is named"],
        make: area_create,
    },
    Operation {
        name: "registry-hash-create",
        must: &["found by name", "initialised by another", "an object is named"],
        make: hash_create,
    },
    Operation {
        name: "registry-remove",
        must: &["found by name", "initialised by another", "an object is removed"],
        make: remove,
    },
    Operation {
        name: "registry-remove-forced",
        must: &["found by name", "initialised by another"],
        make: remove_forced,
    },
    Operation {
        name: "registry-remove-area",
        must: &["initialised by another", "an object is removed"],
        make: remove_area,
    },
    Operation {
        name: "registry-remove-hash",
        must: &["found by name", "initialised by another", "an object is removed"],
        make: remove_hash,
    },
    Operation {
        name: "registry-remove-forced-segment",
        must: &["found by name", "initialised by another"],
        make: remove_forced_segment,
    },
    Operation {
        name: "registry-remove-forced-area",
        must: &["initialised by another"],
        make: remove_forced_area,
    },
    Operation {
        name: "registry-bytes-create",
        must: &["found by name", "initialised by another", "taken over"],
        make: bytes_create,
    },
    Operation {
        name: "registry-close",
        must: &["found by name", "the elector works", "a token is given back"],
        make: close,
    },
];

pub(super) const ALL: &[Operation] = &CASES;

/// What the victim's initialiser writes, and what everybody else's does.
const VICTIMS: u64 = 77;
const OTHERS: u64 = 88;

/// The simulated system, as seen by one of its processes.
struct Simulated(u64);

impl Platform for Simulated {
    fn place(&self) -> String {
        format!("process {}", self.0)
    }

    fn connect(&self, _: &str, _: u32) -> Result<Connection, ProviderFailure> {
        let process = || Process::again(self.0);
        Ok(Connection::new(process(), process()))
    }

    fn namespaces(&self) -> Result<Vec<String>, ProviderFailure> {
        Ok(vec!["crash".into()])
    }
}

/// Starts a process that opens the registry.
fn open(pid: u64) -> Result<Registry, String> {
    open_as(pid, false)
}

fn open_as(pid: u64, persistent: bool) -> Result<Registry, String> {
    system::start(pid);
    let builder = Registry::builder("crash").provider(Simulated(pid)).persistent(persistent);
    builder.max_processes(8).max_participants(20).max_segments(40).open().map_err(text)
}

fn start(pid: u64) -> Registry {
    open(pid).expect("opens")
}

/// Objects in the system beside the control object.
fn objects() -> usize {
    system::objects().1.len()
}

fn initialise(registry: &Registry, name: &str, first: u64) -> Result<u64, Error> {
    let segment = registry.segment::<[u64; 2]>(name, |init| init.write([first, !first]))?;
    let [one, two] = *segment;
    Ok(if two == !one { one } else { 0 })
}

/// Asks for the name "thing" as the victim did; returns whose it is.
type Ask = fn(&Registry, u64) -> Result<u64, Error>;

fn ask_segment(registry: &Registry, whose: u64) -> Result<u64, Error> {
    initialise(registry, "thing", whose)
}

fn ask_bytes(registry: &Registry, whose: u64) -> Result<u64, Error> {
    let segment = registry.segment_bytes("thing", 16, |bytes| {
        bytes[..8].copy_from_slice(&whose.to_le_bytes());
        bytes[8..].copy_from_slice(&(!whose).to_le_bytes());
        Ok(())
    })?;
    let (mut one, mut two) = ([0; 8], [0; 8]);
    segment.read(0, &mut one)?;
    segment.read(8, &mut two)?;
    let (one, two) = (u64::from_le_bytes(one), u64::from_le_bytes(two));
    Ok(if two == !one { one } else { 0 })
}

fn ask_area(registry: &Registry, whose: u64) -> Result<u64, Error> {
    let area = registry.area("thing")?;
    let pointer = area.allocate(whose)?;
    let found = area.read(pointer)?;
    area.check()?;
    Ok(found)
}

fn ask_hash(registry: &Registry, whose: u64) -> Result<u64, Error> {
    let table = registry.hash::<u64, u64>("thing")?;
    let insert = || -> Result<u64, Error> { Ok(*table.entry(&1)?.or_insert(whose)?) };
    match insert() {
        // Its guard was live.
        Err(error) if error.is_poisoned() => {
            table.remove(&1)?;
            insert()
        }
        inserted => inserted,
    }
}

struct Scene {
    registries: Vec<&'static Registry>,
    victim: &'static Registry,
    /// Objects when there is no name.
    idle: usize,
    /// What the witness has of the thing.
    kept: Cell<Option<Box<dyn Any>>>,
}

fn scene(rescuers: usize) -> Scene {
    let pids = std::iter::once(WITNESS).chain((0..rescuers).map(|n| RESCUER + n as u64));
    let registries: Vec<_> = pids.map(|pid| leak(start(pid))).collect();
    let victim = leak(start(VICTIM));
    // Everybody has a participant, and the registry's own table has its first memory.
    for registry in registries.iter().chain([&victim]) {
        initialise(registry, "warm", 1).map(|_| ()).expect("initialises");
        registry.remove("warm").expect("removes");
    }
    Scene { registries, victim, idle: objects(), kept: Cell::default() }
}

impl Scene {
    fn keeping(self, thing: impl Any) -> Self {
        self.kept.set(Some(Box::new(thing)));
        self
    }

    fn case(self, name: &'static str, ask: Ask, operate: impl Fn(&Registry) + 'static) -> Case {
        let Self { registries, victim, idle, kept } = self;
        let witness = registries[0];
        Case {
            name,
            mortals: mortals(registries.len() - 1),
            operate: Box::new(move || operate(victim)),
            recover: Box::new(move |who, order| {
                if order == 0 {
                    registries[who].reap().map_err(text)?;
                }
                if who > 0 {
                    ask(registries[who], OTHERS).map_err(text)?;
                }
                Ok(())
            }),
            orders: 2,
            judge: Box::new(move || judge(WITNESS, witness, ask, idle, kept.take())),
            newcomer: Box::new(|process| finds_no_name(process.pid)),
            places: Vec::new(),
            heir: Some(Heir {
                persist: Box::new(|| witness.set_persistent(true).expect("is ours")),
                judge: Box::new(move |process| {
                    let heir = leak(open_as(process.pid, true)?);
                    judge(process.pid, heir, ask, idle, None)
                }),
            }),
            between: false,
        }
    }
}

fn judge(
    pid: u64,
    witness: &'static Registry,
    ask: Ask,
    idle: usize,
    kept: Option<Box<dyn Any>>,
) -> Result<&'static str, String> {
    let listed = witness.list().map_err(text)?;
    let names: Vec<_> = listed.iter().map(|thing| thing.name.as_str()).collect();
    ensure(names.is_empty() || names == ["thing"], || format!("the names are {names:?}"))?;
    let whose = ask(witness, OTHERS).map_err(text)?;
    ensure(whose == VICTIMS || whose == OTHERS, || format!("found {whose}"))?;
    crate::explore::mark(if whose == VICTIMS { "found by name" } else { "initialised by another" });
    drop(kept);
    witness.set_persistent(false).map_err(text)?;
    // Beside a living user it is not removed, and without one it is.
    let others: Vec<_> = system::living().into_iter().filter(|other| *other != pid).collect();
    others.into_iter().for_each(system::kill);
    witness.remove("thing").map_err(text)?;
    witness.reap().map_err(text)?;
    let now = objects();
    ensure(now <= idle, || format!("{now} objects instead of {idle} when there is no name"))?;
    let again = initialise(witness, "another", 5).map_err(text)?;
    ensure(again == 5, || format!("a new segment has {again}"))?;
    witness.remove("another").map_err(text)?;
    ensure(witness.list().map_err(text)?.is_empty(), || "a name is left".into())?;
    let guest = open(GUEST)?;
    ensure(guest.list().map_err(text)?.is_empty(), || "a newcomer finds a name".into())?;
    drop(guest);
    // SAFETY: leaked, and the copy is not used any more.
    drop(unsafe { std::ptr::read(witness) });
    let left = system::objects();
    ensure(left == (false, Vec::new()), || format!("objects are left: {left:x?}"))?;
    Ok("after")
}

fn finds_no_name(pid: u64) -> Result<(), String> {
    let registry = open(pid)?;
    ensure(registry.list().map_err(text)?.is_empty(), || "a newcomer finds a name".into())?;
    initialise(&registry, "thing", 3).map(|_| ()).map_err(text)?;
    drop(registry);
    let left = system::objects();
    ensure(left == (false, Vec::new()), || format!("objects are left: {left:x?}"))
}

/// The first to open the registry in a namespace that is there.
fn open_first(rescuers: usize) -> Case {
    let witness = Member::start(WITNESS);
    (0..rescuers).for_each(|n| system::start(RESCUER + n as u64));
    system::start(VICTIM);
    Case {
        name: "registry-open",
        mortals: mortals(rescuers),
        operate: Box::new(|| {
            leak(start(VICTIM));
        }),
        recover: Box::new(move |who, order| {
            if who > 0 {
                leak(open(RESCUER + who as u64 - 1)?);
            } else if order == 0 {
                witness.reap()?;
            }
            Ok(())
        }),
        orders: 2,
        judge: Box::new(move || {
            let guest = open(GUEST)?;
            ensure(guest.list().map_err(text)?.is_empty(), || "a newcomer finds a name".into())?;
            let found = ask_segment(&guest, OTHERS).map_err(text)?;
            ensure(found == OTHERS, || format!("found {found}"))?;
            drop(guest);
            witness.end()?;
            Ok("after")
        }),
        newcomer: Box::new(|process| finds_no_name(process.pid)),
        places: Vec::new(),
        heir: None,
        between: false,
    }
}

fn segment_create(rescuers: usize) -> Case {
    scene(rescuers).case("registry-segment-create", ask_segment, |v| {
        ask_segment(v, VICTIMS).map(|_| ()).expect("creates");
    })
}

fn segment_attach(rescuers: usize) -> Case {
    let scene = scene(rescuers);
    let value = [VICTIMS, !VICTIMS];
    let segment = scene.registries[0].segment::<[u64; 2]>("thing", |init| init.write(value));
    let scene = scene.keeping(segment.expect("creates"));
    scene.case("registry-segment-attach", ask_segment, |v| {
        ask_segment(v, 1).map(|_| ()).expect("attaches");
    })
}

/// An initialiser that fails, and then one that doesn't.
fn segment_fails(rescuers: usize) -> Case {
    scene(rescuers).case("registry-initialiser-fails", ask_segment, |v| {
        let failed = v.segment::<[u64; 2]>("thing", |_| Err("no".into()));
        assert!(failed.unwrap_err().initialiser_error().is_some());
        ask_segment(v, VICTIMS).map(|_| ()).expect("creates");
    })
}

fn area_create(rescuers: usize) -> Case {
    scene(rescuers).case("registry-area-create", ask_area, |v| {
        v.area("thing").map(std::mem::forget).expect("creates");
    })
}

fn hash_create(rescuers: usize) -> Case {
    scene(rescuers).case("registry-hash-create", ask_hash, |v| {
        ask_hash(v, VICTIMS).map(|_| ()).expect("creates");
    })
}

fn remove(rescuers: usize) -> Case {
    let scene = scene(rescuers);
    ask_segment(scene.victim, VICTIMS).map(|_| ()).expect("creates");
    scene.case("registry-remove", ask_segment, |v| v.remove("thing").expect("removes"))
}

/// While others have it.
fn remove_forced(rescuers: usize) -> Case {
    let scene = scene(rescuers);
    ask_hash(scene.victim, VICTIMS).map(|_| ()).expect("creates");
    let table = scene.registries[0].hash::<u64, u64>("thing").expect("attaches");
    let scene = scene.keeping(table);
    scene.case("registry-remove-forced", ask_hash, |v| v.remove_forced("thing").expect("removes"))
}

fn remove_area(rescuers: usize) -> Case {
    let scene = scene(rescuers);
    ask_area(scene.victim, VICTIMS).map(|_| ()).expect("creates");
    scene.case("registry-remove-area", ask_area, |v| v.remove("thing").expect("removes"))
}

fn remove_hash(rescuers: usize) -> Case {
    let scene = scene(rescuers);
    ask_hash(scene.victim, VICTIMS).map(|_| ()).expect("creates");
    scene.case("registry-remove-hash", ask_hash, |v| v.remove("thing").expect("removes"))
}

fn remove_forced_segment(rescuers: usize) -> Case {
    let scene = scene(rescuers);
    ask_segment(scene.victim, VICTIMS).map(|_| ()).expect("creates");
    let segment = scene.registries[0].segment::<[u64; 2]>("thing", |init| init.write([1, !1]));
    let scene = scene.keeping(segment.expect("attaches"));
    let remove = |v: &Registry| v.remove_forced("thing").expect("removes");
    scene.case("registry-remove-forced-segment", ask_segment, remove)
}

fn remove_forced_area(rescuers: usize) -> Case {
    let scene = scene(rescuers);
    ask_area(scene.victim, VICTIMS).map(|_| ()).expect("creates");
    let area = scene.registries[0].area("thing").expect("attaches");
    let scene = scene.keeping(area);
    let remove = |v: &Registry| v.remove_forced("thing").expect("removes");
    scene.case("registry-remove-forced-area", ask_area, remove)
}

fn bytes_create(rescuers: usize) -> Case {
    scene(rescuers).case("registry-bytes-create", ask_bytes, |v| {
        ask_bytes(v, VICTIMS).map(|_| ()).expect("creates");
    })
}

fn close(rescuers: usize) -> Case {
    let scene = scene(rescuers);
    ask_hash(scene.victim, VICTIMS).map(|_| ()).expect("creates");
    scene.case("registry-close", ask_hash, |v| {
        // SAFETY: leaked, and the copy is not used any more.
        drop(unsafe { std::ptr::read(v) });
    })
}

//! Exactly one initialiser: two that start at once, one that fails, panics or is killed, and some
//! that want each other's names.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::support::{Part, Roles, Space};
use dsm_registry::{ErrorKind, Registry, Segment};
use zerocopy::{FromBytes, KnownLayout};

#[derive(FromBytes, KnownLayout)]
#[repr(C)]
pub(crate) struct Config {
    made_by: AtomicU64,
    times: AtomicU64,
}

pub(crate) fn config(registry: &Registry) -> Segment<Config> {
    registry
        .segment::<Config>("config", |c| {
            c.times.fetch_add(1, Ordering::SeqCst);
            *c.made_by.get_mut() = u64::from(std::process::id());
            Ok(())
        })
        .unwrap()
}

pub(crate) const ROLES: Roles = &[
    ("start", start),
    ("hang in initialiser", hang_in_initialiser),
    ("create and leave", create_and_leave),
    ("want b, then a", want_b_then_a),
];

/// Opens at the word of command, says who initialised, and waits before it leaves.
fn start(part: &Part) {
    loop {
        part.say("ready");
        let space = part.ask();
        let registry = Registry::open(&space).unwrap();
        let config = config(&registry);
        let table = registry.hash::<u64, u64>("hits").unwrap();
        *table.entry(&1).unwrap().or_insert(0).unwrap() += 1;
        let made_by = config.made_by.load(Ordering::SeqCst);
        part.say(&format!("{made_by} {}", config.times.load(Ordering::SeqCst)));
        part.ask();
        part.say(&format!("{}", *table.find(&1).unwrap().unwrap()));
        part.ask();
    }
}

#[test]
fn two_processes_that_start_at_once_initialise_once() {
    let first = Space::new("once");
    let mut peers = [first.peer("start"), first.peer("start")];
    peers.iter_mut().for_each(|p| p.expect("ready"));
    for _ in 0..testkit::rounds(300) {
        let space = Space::new("once");
        peers.iter_mut().for_each(|p| p.say(&space.name));
        let said: Vec<String> = peers.iter_mut().map(|p| p.hear()).collect();
        assert_eq!(said[0], said[1]);
        let (made_by, times) = said[0].split_once(' ').unwrap();
        assert!(peers.iter().any(|p| p.id().to_string() == made_by), "{made_by}");
        assert_eq!(times, "1");
        peers.iter_mut().for_each(|p| p.say("count"));
        peers.iter_mut().for_each(|p| p.expect("2"));
        peers.iter_mut().for_each(|p| p.say("leave"));
        peers.iter_mut().for_each(|p| p.expect("ready"));
    }
}

#[test]
fn two_threads_that_start_at_once_initialise_once() {
    let space = Space::new("threads");
    let registry = space.open();
    for round in 0..testkit::rounds(50) {
        let runs = AtomicU64::new(0);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    let value = registry
                        .segment::<AtomicU64>(&format!("value {round}"), |v| {
                            runs.fetch_add(1, Ordering::SeqCst);
                            std::thread::sleep(Duration::from_millis(1));
                            v.write(AtomicU64::new(7))
                        })
                        .unwrap();
                    assert_eq!(value.load(Ordering::SeqCst), 7);
                });
            }
        });
        assert_eq!(runs.into_inner(), 1);
    }
}

#[test]
fn after_a_failed_initialiser_the_next_caller_initialises() {
    let space = Space::new("fails");
    let registry = space.open();
    let error = registry.segment::<[u64; 100]>("config", |_| Err("no luck".into())).unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Initialiser { .. }), "{error:?}");
    assert!(error.to_string().contains("no luck"), "{error}");
    assert!(registry.list().unwrap().is_empty());
    // Size and type are free again.
    assert_eq!(config(&registry).times.load(Ordering::SeqCst), 1);
    assert_eq!(registry.list().unwrap().len(), 1);
}

#[test]
fn after_a_panicking_initialiser_the_next_caller_initialises() {
    let space = Space::new("panics");
    let registry = space.open();
    let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let _ = registry.segment::<u64>("config", |_| std::panic::panic_any("boom"));
    }));
    assert_eq!(caught.unwrap_err().downcast_ref(), Some(&"boom"));
    assert_eq!(config(&registry).times.load(Ordering::SeqCst), 1);
}

#[test]
fn values_are_zero_before_the_initialiser_also_in_recycled_memory() {
    let space = Space::new("zero");
    let registry = space.builder().main_region(1 << 20).open().unwrap();
    for round in 0..3 {
        let _ = registry.segment_bytes("bytes", 4096, |bytes| {
            assert!(bytes.iter().all(|b| *b == 0), "round {round}");
            bytes.fill(0xaa);
            Err("so that the memory is used again".into())
        });
    }
}

fn hang_in_initialiser(part: &Part) {
    let registry = part.open();
    let _ = registry.segment::<Config>("config", |c| {
        c.times.store(100, Ordering::SeqCst);
        part.say("inside");
        part.hang()
    });
}

#[test]
fn another_process_takes_over_from_a_killed_initialiser() {
    let space = Space::new("killed");
    let registry = space.open();
    let mut peer = space.peer("hang in initialiser");
    peer.expect("inside");
    std::thread::scope(|scope| {
        let waiter = scope.spawn(|| config(&registry));
        std::thread::sleep(Duration::from_millis(30));
        assert!(!waiter.is_finished(), "it must wait for a living initialiser");
        assert_eq!(registry.list().unwrap().len(), 1);
        peer.kill();
        let config = waiter.join().unwrap();
        assert_eq!(config.times.load(Ordering::SeqCst), 1);
        assert_eq!(config.made_by.load(Ordering::SeqCst), u64::from(std::process::id()));
    });
}

#[test]
fn another_size_can_take_over_from_a_killed_initialiser() {
    let space = Space::new("resized");
    let registry = space.open();
    let mut peer = space.peer("hang in initialiser");
    peer.expect("inside");
    peer.kill_and_collect();
    let value = registry.segment::<[u64; 4096]>("config", |_| Ok(())).unwrap();
    assert_eq!(value[4095], 0);
}

#[test]
fn the_time_to_wait_for_an_initialiser_can_be_bounded() {
    let space = Space::new("patience");
    let registry = space.builder().initialiser_patience(Duration::from_millis(40)).open().unwrap();
    let mut peer = space.peer("hang in initialiser");
    peer.expect("inside");
    let error = registry.segment::<Config>("config", |_| Ok(())).unwrap_err();
    let ErrorKind::InitialiserTimedOut { process, .. } = *error.kind() else { panic!("{error:?}") };
    assert_eq!(process, u64::from(peer.id()));
    peer.kill_and_collect();
}

fn create_and_leave(part: &Part) {
    let registry = part.open();
    let area = registry.area("work").unwrap();
    let value = area.allocate(0x1234_5678_9abc_def0_u64).unwrap();
    let root = registry.segment::<AtomicU64>("root", |r| r.write(AtomicU64::new(0))).unwrap();
    root.store(value.raw(), Ordering::SeqCst);
    config(&registry);
}

#[test]
fn what_a_process_created_is_used_after_it_is_gone() {
    let space = Space::new("gone");
    let registry = space.open();
    let peer = space.peer("create and leave");
    let pid = u64::from(peer.id());
    peer.finish();
    let root = registry
        .segment::<AtomicU64>("root", |_| panic!("it is there already"))
        .unwrap()
        .load(Ordering::SeqCst);
    let area = registry.area("work").unwrap();
    let value = dsm_registry::DsaPointer::from_raw(root).cast::<u64>();
    assert_eq!(area.read(value).unwrap(), 0x1234_5678_9abc_def0);
    let config = registry.segment::<Config>("config", |_| panic!("it is there already")).unwrap();
    assert_eq!(config.made_by.load(Ordering::SeqCst), pid);
}

#[test]
fn an_initialiser_may_use_the_registry_but_not_its_own_name() {
    let space = Space::new("own");
    let registry = space.open();
    let value = registry
        .segment::<AtomicU64>("outer", |outer| {
            let inner = registry.segment::<AtomicU64>("inner", |i| i.write(AtomicU64::new(41)))?;
            let error = registry.segment::<AtomicU64>("outer", |_| Ok(())).unwrap_err();
            assert!(matches!(error.kind(), ErrorKind::OwnInitialiser { .. }), "{error:?}");
            let table = registry.hash::<u64, u64>("table")?;
            *table.entry(&1)?.or_insert(0)? += 1;
            outer.write(AtomicU64::new(inner.load(Ordering::SeqCst) + *table.find(&1)?.unwrap()))
        })
        .unwrap();
    assert_eq!(value.load(Ordering::SeqCst), 42);
}

fn want_b_then_a(part: &Part) {
    let registry = part.open();
    let outcome = registry.segment::<u64>("b", |b| {
        part.say("in b");
        part.ask();
        let a = registry.segment::<u64>("a", |a| a.write(1))?;
        b.write(*a + 1)
    });
    part.say(if outcome.is_ok() { "well" } else { "failed" });
    part.ask();
}

#[test]
fn initialisers_that_want_each_others_names_fail_instead_of_waiting() {
    let space = Space::new("circle");
    let registry = space.open();
    for _ in 0..testkit::rounds(20) {
        let mut peer = space.peer("want b, then a");
        peer.expect("in b");
        let outcome = registry.segment::<u64>("a", |a| {
            peer.say("go on");
            let b = registry.segment::<u64>("b", |b| b.write(1))?;
            a.write(*b + 1)
        });
        let theirs = peer.hear();
        // One of the two gives up, which lets the other go on.
        match outcome {
            Ok(_) => assert_eq!(theirs, "failed"),
            Err(error) => {
                assert!(error.to_string().contains("would never end"), "{error}");
                assert_eq!(theirs, "well");
            }
        }
        peer.say("leave");
        peer.finish();
        for name in ["a", "b"] {
            let _ = registry.remove(name);
        }
    }
}

#[test]
fn three_initialisers_in_a_circle_fail_instead_of_waiting() {
    let space = Space::new("three");
    let registry = space.open();
    let all_inside = std::sync::Barrier::new(3);
    let names = ["a", "b", "c"];
    let failed = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for i in 0..3 {
            let (registry, all_inside, failed) = (&registry, &all_inside, &failed);
            scope.spawn(move || {
                let outcome = registry.segment::<u64>(names[i], |value| {
                    all_inside.wait();
                    let next = registry.segment::<u64>(names[(i + 1) % 3], |v| v.write(100))?;
                    value.write(*next + 1)
                });
                if let Err(error) = outcome {
                    assert!(error.to_string().contains("would never end"), "{error}");
                    failed.fetch_add(1, Ordering::SeqCst);
                }
            });
        }
    });
    assert_eq!(failed.into_inner(), 1);
}

#[test]
fn a_slow_initialiser_is_no_circle() {
    let space = Space::new("slow");
    let registry = space.open();
    // B waits for a, is woken, and initialises b, for which A waits then: never a circle.
    for round in 0..testkit::rounds(50) {
        let (a, b) = (format!("a{round}"), format!("b{round}"));
        std::thread::scope(|scope| {
            scope.spawn(|| {
                registry.segment::<u64>(&a, |v| v.write(1)).unwrap();
                registry.segment::<u64>(&b, |v| v.write(1)).unwrap();
            });
            scope.spawn(|| {
                registry
                    .segment::<u64>(&b, |v| {
                        registry.segment::<u64>(&a, |v| v.write(1))?;
                        v.write(1)
                    })
                    .unwrap();
            });
        });
    }
}

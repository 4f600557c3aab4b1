//! Threads, forks, forgotten guards; memory budgets; damaged and foreign control objects.

use std::io::{Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, symlink};
use std::sync::atomic::{AtomicU64, Ordering};

use crate::support::{Part, Roles, Space};
use dsm_registry::{Error, Registry};

pub(crate) const ROLES: Roles = &[("fork", fork), ("hold and stop", hold_and_stop)];

#[test]
fn a_forgotten_guard_of_a_thread_that_is_gone_keeps_its_lock() {
    let space = Space::new("forgotten");
    let registry = space.open();
    let table = registry.hash::<u64, u64>("table").unwrap();
    table.insert(&1, 1).unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| std::mem::forget(table.find(&1).unwrap()));
    });
    // A reader beside it is fine, a writer is told so instead of getting the lock.
    assert_eq!(*table.find(&1).unwrap().unwrap(), 1);
    assert!(matches!(table.without_waiting().find_mut(&1), Err(Error::Lock(_))));
    std::thread::scope(|scope| {
        scope.spawn(|| std::mem::forget(table.find_mut(&2000).unwrap()));
    });
    assert!(table.insert(&3, 3).is_ok() || table.without_waiting().find_mut(&3).is_err());
    // With the process's last handle everything goes.
}

#[test]
fn a_second_acquisition_by_the_same_thread_is_an_error() {
    let space = Space::new("second");
    let registry = space.open();
    let table = registry.hash::<u64, u64>("table").unwrap();
    table.insert(&1, 1).unwrap();
    table.insert(&2, 2).unwrap();
    let guard = table.find_mut(&1).unwrap().unwrap();
    for key in 0..50 {
        // Whether the partition is the same or not.
        assert!(table.find(&key).is_err());
        assert!(table.find_mut(&key).is_err());
        assert!(table.insert(&key, 1).is_err());
        assert!(table.remove(&key).is_err());
    }
    drop(guard);
    let guard = table.find(&1).unwrap().unwrap();
    assert_eq!(*table.find(&2).unwrap().unwrap(), 2, "shared beside shared works");
    assert!(table.find_mut(&2).is_err());
    drop(guard);
    *table.find_mut(&1).unwrap().unwrap() += 1;
    assert_eq!(table.get(&1).unwrap(), Some(2));
}

#[test]
fn a_panic_through_an_exclusive_guard_poisons_the_entry_alone() {
    let space = Space::new("poison");
    let registry = space.open();
    let table = registry.hash::<u64, u64>("table").unwrap();
    table.insert(&1, 1).unwrap();
    table.insert(&2, 2).unwrap();
    let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let mut guard = table.find_mut(&1).unwrap().unwrap();
        *guard = 100;
        std::panic::panic_any("in the midst of it");
    }));
    assert!(caught.is_err());
    assert!(matches!(table.find(&1), Err(Error::Poisoned)));
    assert_eq!(table.get(&2).unwrap(), Some(2));
    assert!(table.poisoned(&2).unwrap().is_none());
    let poisoned = table.poisoned(&1).unwrap().unwrap();
    assert_eq!(*poisoned, 100);
    poisoned.remove().unwrap();
    assert_eq!(table.get(&1).unwrap(), None);
    // A shared guard poisons nothing.
    let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let _guard = table.find(&2).unwrap().unwrap();
        std::panic::panic_any("while reading");
    }));
    assert!(caught.is_err());
    assert_eq!(*table.find(&2).unwrap().unwrap(), 2);
}

#[test]
fn threads_come_and_go() {
    let space = Space::new("threads");
    let registry = space.builder().max_participants(24).open().unwrap();
    let table = registry.hash::<u64, u64>("table").unwrap();
    let area = registry.area("area").unwrap();
    for round in 0..100_u64 {
        std::thread::scope(|scope| {
            for i in 0..4 {
                let (table, area) = (&table, &area);
                scope.spawn(move || {
                    *table.entry(&i).unwrap().or_insert(0).unwrap() += 1;
                    let pointer = area.allocate(round).unwrap();
                    assert_eq!(area.read(pointer).unwrap(), round);
                });
            }
        });
    }
    for i in 0..4 {
        assert_eq!(table.get(&i).unwrap(), Some(100));
    }
    area.check().unwrap();
}

#[test]
fn too_many_threads_are_an_error_that_names_the_way_out() {
    let space = Space::new("many");
    let registry = space.builder().max_participants(8).open().unwrap();
    let table = registry.hash::<u64, u64>("table").unwrap();
    let all_there = std::sync::Barrier::new(10);
    let errors: Vec<String> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..10)
            .map(|i| {
                let (table, all_there) = (&table, &all_there);
                scope.spawn(move || {
                    let outcome = table.insert(&i, i);
                    all_there.wait();
                    outcome.err().map(|e| e.to_string())
                })
            })
            .collect();
        threads.into_iter().filter_map(|t| t.join().unwrap()).collect()
    });
    assert!(!errors.is_empty());
    assert!(errors.iter().all(|e| e.contains("max_participants")), "{errors:?}");
    // The threads are gone, and so are their slots.
    std::thread::scope(|scope| {
        scope.spawn(|| table.insert(&100, 1).unwrap());
    });
}

/// Forks with guards alive; both sides go on with the API.
fn fork(part: &Part) {
    let registry = part.open();
    let table = registry.hash::<u64, u64>("table").unwrap();
    let area = registry.area("area").unwrap();
    let segment = registry.segment::<AtomicU64>("segment", |_| Ok(())).unwrap();
    table.insert(&1, 1).unwrap();
    let shared = table.find(&1).unwrap();
    let boxed = area.allocate_box(5_u64).unwrap();
    // SAFETY: this process has one more thread, the watchdog, which only sleeps.
    let child = unsafe { libc::fork() };
    if child != 0 {
        drop(shared);
        table.insert(&2, 2).unwrap();
        drop(boxed);
        part.say(&format!("parent {child}"));
        part.hang();
    }
    // Old handles say so, and dropping them harms nobody.
    assert!(matches!(table.find(&1), Err(Error::Forked)));
    assert!(matches!(area.allocate(1_u64), Err(Error::Forked)));
    assert!(matches!(registry.area("new"), Err(Error::Forked)));
    assert!(matches!(registry.hash::<u64, u64>("table"), Err(Error::Forked)));
    drop(shared);
    drop(boxed);
    segment.fetch_add(1, Ordering::SeqCst);
    drop((registry, table, area));
    // A registration of its own.
    let registry = part.open();
    let table = registry.hash::<u64, u64>("table").unwrap();
    part.say("child registered");
    let order = part.ask();
    assert_eq!(order, "parent is dead");
    *table.entry(&3).unwrap().or_insert(0).unwrap() += 3;
    assert_eq!(table.get(&1).unwrap(), Some(1));
    assert_eq!(table.get(&2).unwrap(), Some(2));
    let guard = table.find_mut(&3).unwrap().unwrap();
    part.say(&format!("child {}", *guard));
    part.ask();
    drop(guard);
    drop((registry, table));
    part.say("child left");
    // SAFETY: ends the process, without the parent's exit handlers.
    unsafe { libc::_exit(0) };
}

#[test]
fn both_sides_of_a_fork_go_on() {
    let space = Space::new("fork");
    let registry = space.open();
    let table = registry.hash::<u64, u64>("table").unwrap();
    let mut peer = space.peer("fork");
    let (mut parent, mut child) = (false, false);
    while !(parent && child) {
        let said = peer.hear();
        parent |= said.starts_with("parent ");
        child |= said == "child registered";
    }
    let attached = || registry.list().unwrap().iter().find(|e| e.name == "table").unwrap().attached;
    assert_eq!(attached(), 3);
    peer.kill();
    registry.reap().unwrap();
    assert_eq!(attached(), 2, "the child lives on its own");
    peer.tell("parent is dead");
    peer.expect("child 3");
    // The child's lock is honoured.
    assert!(matches!(table.without_waiting().find_mut(&3), Err(Error::Lock(_))));
    peer.tell("leave");
    peer.expect("child left");
    assert_eq!(attached(), 1);
    assert_eq!(table.get(&3).unwrap(), Some(3));
}

fn hold_and_stop(part: &Part) {
    let registry = part.open();
    let table = registry.hash::<u64, u64>("table").unwrap();
    let mut guard = table.entry(&1).unwrap().or_insert(0).unwrap();
    *guard = 1;
    part.say("holding");
    part.ask();
    *guard = 2;
    drop(guard);
    part.say("released");
    part.ask();
}

#[test]
fn a_stopped_process_is_not_dead() {
    let space = Space::new("stopped");
    let registry = space.open();
    let table = registry.hash::<u64, u64>("table").unwrap();
    let mut peer = space.peer("hold and stop");
    peer.expect("holding");
    let pid = peer.pid() as libc::pid_t;
    // SAFETY: a signal to a child of ours.
    assert_eq!(unsafe { libc::kill(pid, libc::SIGSTOP) }, 0);
    std::thread::sleep(std::time::Duration::from_millis(100));
    registry.reap().unwrap();
    assert!(matches!(table.without_waiting().find_mut(&1), Err(Error::Lock(_))));
    // SAFETY: as above.
    assert_eq!(unsafe { libc::kill(pid, libc::SIGCONT) }, 0);
    peer.tell("go on");
    peer.expect("released");
    assert_eq!(*table.find(&1).unwrap().unwrap(), 2);
}

#[test]
fn sixty_empty_tables_and_some_areas_fit_into_half_of_64_mib() {
    let space = Space::new("budget");
    let registry = space.open();
    for i in 0..60 {
        registry.hash::<u64, [u64; 4]>(&format!("table {i}")).unwrap();
    }
    for i in 0..4 {
        registry.area(&format!("area {i}")).unwrap();
    }
    // Blocks of 512 bytes that are backed by memory.
    let used: u64 = space
        .objects()
        .iter()
        .map(|name| {
            let meta = std::fs::metadata(format!("/dev/shm/{name}")).unwrap();
            std::os::unix::fs::MetadataExt::blocks(&meta) * 512
        })
        .sum();
    assert!(used < 32 << 20, "{used} bytes");
}

fn control(space: &Space) -> String {
    format!("/dev/shm/dsm.{}.ctl", space.name)
}

#[test]
fn a_control_object_that_is_not_ours_has_an_error_of_its_own() {
    let space = Space::new("foreign");
    std::fs::write(control(&space), [0x5a; 100_000]).unwrap();
    std::fs::set_permissions(control(&space), PermissionsExt::from_mode(0o600)).unwrap();
    let text = Registry::open(&space.name).err().unwrap().to_string();
    assert!(text.contains("not made by this library"), "{text}");
    assert_eq!(std::fs::read(control(&space)).unwrap(), [0x5a; 100_000], "left alone");
    std::fs::remove_file(control(&space)).unwrap();
}

#[test]
fn damaged_control_objects_have_errors_of_their_own() {
    let space = Space::new("damaged");
    let registry = space.builder().persistent(true).open().unwrap();
    drop(registry);
    let good = std::fs::read(control(&space)).unwrap();
    let open_error = |bytes: &[u8]| {
        let mut options = std::fs::OpenOptions::new();
        // The same object, with other contents.
        let mut file =
            options.write(true).truncate(true).mode(0o600).open(control(&space)).unwrap();
        file.write_all(bytes).unwrap();
        Registry::open(&space.name).err().map(|e| e.to_string())
    };
    // Truncated.
    let text = open_error(&good[..4096]).unwrap();
    assert!(text.contains("cut off"), "{text}");
    // An older and a newer layout: the version follows the magic.
    for (version, word) in [(0_u8, "older"), (200, "newer")] {
        let mut bytes = good.clone();
        bytes[8] = version;
        let text = open_error(&bytes).unwrap();
        assert!(text.contains(word), "{text}");
    }
    // Any word of the header damaged: an error or not, never a crash, and nothing destroyed.
    for at in (8..128).step_by(8) {
        let mut bytes = good.clone();
        bytes[at..at + 8].fill(0xff);
        let _ = open_error(&bytes);
    }
    // As it was.
    assert_eq!(open_error(&good), None);
    Registry::destroy(&space.name).unwrap();
}

#[test]
fn links_and_loose_modes_are_refused() {
    let space = Space::new("mode");
    let elsewhere = tempfile::NamedTempFile::new().unwrap();
    symlink(elsewhere.path(), control(&space)).unwrap();
    assert!(Registry::open(&space.name).is_err());
    let mut left = Vec::new();
    std::fs::File::open(elsewhere.path()).unwrap().read_to_end(&mut left).unwrap();
    assert!(left.is_empty(), "what the link names is left alone");
    std::fs::remove_file(control(&space)).unwrap();

    let registry = space.builder().mode(0o660).open().unwrap();
    let mode = std::fs::metadata(control(&space)).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o660);
    let peer = std::fs::metadata(control(&space)).unwrap();
    assert!(peer.len() > 0);
    drop(registry);
    let registry = space.open();
    let mode = std::fs::metadata(control(&space)).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    drop(registry);
    std::fs::write(control(&space), []).unwrap();
    std::fs::set_permissions(control(&space), PermissionsExt::from_mode(0o666)).unwrap();
    let text = Registry::open(&space.name).err().unwrap().to_string();
    assert!(text.contains("mode"), "{text}");
    std::fs::remove_file(control(&space)).unwrap();
}

#[cfg(target_os = "linux")]
#[test]
fn leaving_unmaps_everything() {
    let space = Space::new("unmaps");
    for _ in 0..3 {
        let registry = space.open();
        let table = registry.hash::<u64, u64>("table").unwrap();
        table.insert(&1, 1).unwrap();
        registry.area("area").unwrap().allocate([7u64; 1000]).unwrap();
        registry.segment::<u64>("segment", |value| value.write(1)).unwrap();
        drop((registry, table));
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        let left: Vec<_> = maps.lines().filter(|line| line.contains(&space.name)).collect();
        assert!(left.is_empty(), "{left:#?}");
    }
}

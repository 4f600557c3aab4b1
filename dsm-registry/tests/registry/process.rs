//! Threads and forgotten guards; damaged and foreign control objects.

use std::io::Write;

use crate::support::Space;
use dsm_registry::Registry;

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
    assert!(matches!(table.without_waiting().find_mut(&1), Err(e) if e.is_timeout()));
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
    assert!(matches!(table.find(&1), Err(e) if e.is_poisoned()));
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

#[test]
fn a_control_object_that_is_not_ours_has_an_error_of_its_own() {
    let space = Space::new("foreign");
    testkit::system::plant_control(&space.name, &[0x5a; 100_000]);
    let text = Registry::open(&space.name).err().unwrap().to_string();
    assert!(text.contains("not made by this library"), "{text}");
    assert_eq!(std::fs::read(space.control()).unwrap(), [0x5a; 100_000], "left alone");
    std::fs::remove_file(space.control()).unwrap();
}

#[test]
fn damaged_control_objects_have_errors_of_their_own() {
    let space = Space::new("damaged");
    let registry = space.builder().persistent(true).open().unwrap();
    drop(registry);
    let good = std::fs::read(space.control()).unwrap();
    let open_error = |bytes: &[u8]| {
        let mut options = std::fs::OpenOptions::new();
        // The same object, with other contents.
        let mut file = options.write(true).truncate(true).open(space.control()).unwrap();
        file.write_all(bytes).unwrap();
        drop(file);
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

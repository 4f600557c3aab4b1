//! What errors say: in the caller's words, and what to do next.

use dsm_registry::{ErrorKind, HashOptions, Registry, TableError};

use crate::support::Space;

/// A table's user has never heard of the area that it lives in.
#[test]
fn a_table_at_its_limit_speaks_of_itself() {
    let space = Space::new("limit");
    let registry = space.open();
    let options = HashOptions::new().partitions(1).limit(192 << 10);
    let table = registry.hash_with::<u64, [u64; 100]>("table", options).unwrap();
    let insert = |key: u64| match key % 2 {
        0 => table.insert(&key, [key; 100]).map(drop),
        _ => table.entry(&key).unwrap().or_insert([key; 100]).map(drop),
    };
    let full = (0..10_000).find_map(|key| insert(key).err().map(|error| (key, error)));
    let (key, error) = full.expect("a limit");
    for error in [error, insert(key + 1).unwrap_err()] {
        assert!(matches!(error.kind(), ErrorKind::Table(TableError::Memory(_))), "{error:?}");
        let text = error.to_string();
        assert!(text.contains("the table") && text.contains("HashOptions::limit"), "{text}");
        assert!(!text.contains("area"), "{text}");
    }
}

#[test]
fn a_name_that_is_being_initialised_is_not_in_use_by_others() {
    let space = Space::new("own");
    let registry = space.open();
    let own = std::process::id();
    registry
        .segment::<u64>("name", |_| {
            for removed in [registry.remove("name"), registry.remove_forced("name")] {
                let error = removed.unwrap_err();
                assert!(matches!(error.kind(), ErrorKind::OwnInitialiser { .. }), "{error:?}");
            }
            std::thread::scope(|scope| {
                let other = scope.spawn(|| registry.remove("name").unwrap_err());
                match other.join().unwrap().into_kind() {
                    ErrorKind::Initialising { process, .. } => assert_eq!(process, u64::from(own)),
                    error => panic!("{error:?}"),
                }
            });
            Ok(())
        })
        .unwrap();
    registry.remove("name").unwrap();
}

#[cfg(any(unix, windows))]
#[test]
fn a_directory_that_is_none_is_named() {
    use dsm_registry::system::Directory;

    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("file");
    std::fs::write(&file, "x").unwrap();
    let missing = directory.path().join("missing");
    for (path, what) in [(missing, "there is no such directory"), (file, "no directory")] {
        let opened = Registry::builder("demo").provider(Directory::new(&path)).open();
        let error = opened.err().expect("no place for a namespace");
        assert!(matches!(error.kind(), ErrorKind::Place { .. }), "{error:?}");
        let text = error.to_string();
        let name = path.file_name().unwrap().to_str().unwrap();
        assert!(text.contains(name) && text.contains(what), "{text}");
    }
}

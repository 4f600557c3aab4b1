//! A full `/dev/shm` is an error that names the sizes, never a bus error, and leaves nothing.

use dsm_core::error::ErrorKind;
use dsm_core::provider::{Election, ProviderError, Root, SegmentProvider};
use platform_posix::{Error, File, Shm};

use crate::support::{PATIENCE, get, handle, set, unmap, with_tiny_shm};

const MIB: usize = 1 << 20;

fn expect_full<T>(result: Result<T, Error>, asked: usize) {
    let Err(error) = result else { panic!("this can't fit") };
    let failure = error.failure();
    assert_eq!(failure.kind, ErrorKind::NoSpace, "{error}");
    assert_eq!(failure.requested, asked as u64);
    assert_eq!(failure.total, 4 * MIB as u64);
    assert!(failure.available <= failure.total);
    let text = error.to_string();
    assert!(text.contains("/dev/shm has") && text.contains("--shm-size="), "{text}");
}

fn names() -> usize {
    std::fs::read_dir("/dev/shm").unwrap().count()
}

#[test]
fn a_segment_that_does_not_fit_leaves_nothing() {
    with_tiny_shm("4m", || {
        let shm = Shm::new("full").unwrap();
        for size in [5 * MIB, 4 * MIB + 1, 64 * MIB] {
            expect_full(shm.create(handle(1), size, size), size);
            assert_eq!(names(), 0);
        }
        // Nor is any memory still taken.
        let (all, id) = shm.create(handle(1), 4 * MIB, 4 * MIB).unwrap();
        expect_full(shm.create(handle(2), 4096, 4096), 4096);
        set(&all, 4 * MIB - 1, 1);
        shm.destroy(handle(1), id).unwrap();
        unmap(&shm, all);
        assert_eq!(names(), 0);
    });
}

#[test]
fn a_reservation_that_does_not_fit_keeps_what_there_is() {
    with_tiny_shm("4m", || {
        let shm = Shm::new("full").unwrap();
        let (mapping, id) = shm.create(handle(1), 64 * MIB, 4096).unwrap();
        set(&mapping, 0, 42);
        expect_full(shm.reserve(handle(1), &mapping, 0..64 * MIB), 64 * MIB);
        shm.reserve(handle(1), &mapping, MIB..3 * MIB).unwrap();
        set(&mapping, 3 * MIB - 1, 43);
        expect_full(shm.reserve(handle(1), &mapping, 3 * MIB..6 * MIB), 3 * MIB);
        assert_eq!((get(&mapping, 0), get(&mapping, 3 * MIB - 1)), (42, 43));

        // The same with the name gone, where the mapping itself is populated.
        std::fs::remove_file(format!("/dev/shm/dsm.full.{}", handle(1))).unwrap();
        let error = shm.reserve(handle(1), &mapping, 0..64 * MIB).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NoSpace, "{error}");
        assert_eq!((get(&mapping, 0), get(&mapping, 3 * MIB - 1)), (42, 43));
        shm.destroy(handle(1), id).unwrap();
        unmap(&shm, mapping);
    });
}

#[test]
fn a_control_object_that_does_not_fit_is_of_size_zero_again() {
    with_tiny_shm("4m", || {
        let shm = Shm::new("full").unwrap();
        let mut election = shm.elect(PATIENCE).unwrap();
        expect_full(election.create(16 * MIB), 16 * MIB);
        assert_eq!(election.size(), 0);
        drop(election);
        let mut election = shm.elect(PATIENCE).unwrap();
        assert_eq!(election.size(), 0);
        let mapping = election.create(MIB).unwrap();
        set(&mapping, MIB - 1, 1);
        unmap(&shm, mapping);
        expect_full(election.create(16 * MIB), 16 * MIB);
        assert_eq!(election.size(), 0);
        election.remove().unwrap();
        assert_eq!(names(), 0);
    });
}

#[test]
fn files_on_a_full_file_system_are_no_different() {
    with_tiny_shm("4m", || {
        std::fs::create_dir("/dev/shm/below").unwrap();
        let file = File::new("/dev/shm/below", "full").unwrap();
        let error = file.create(handle(1), 8 * MIB, 8 * MIB).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NoSpace);
        assert_eq!(error.to_string(), "segment needs 8 MiB but /dev/shm/below has 4 MiB free of 4");
        assert_eq!(std::fs::read_dir("/dev/shm/below").unwrap().count(), 0);
    });
}

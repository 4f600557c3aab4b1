//! Large sizes, exact sizes, and sizes that can't be had.

use dsm_core::error::ErrorKind;
use dsm_core::handle::ObjectId;
use dsm_core::provider::{Election, ProviderError, Root, SegmentProvider};
use platform_windows::{Backing, Error, File};
use testkit::process::Part;

use crate::support::{BOTH, PATIENCE, byte, handle, names, open, set_byte, spawn, told, unmap};

const GIB: usize = 1 << 30;

/// Role: reaches beyond 4 GiB.
pub(crate) fn reacher(part: &Part) {
    let shm = told(part);
    let mapping = shm.attach(handle(1), ObjectId::default()).unwrap();
    let end = mapping.len;
    part.say(&format!("{end} {} {}", byte(&mapping, 0), byte(&mapping, end - 1)));
    let range = end - 3_000_000..end - 2_900_000;
    shm.reserve(handle(1), &mapping, range.clone()).unwrap();
    set_byte(&mapping, range.start, 3);
    set_byte(&mapping, range.end - 1, 4);
    part.say("reserved");
    part.hang();
}

/// Reserved, and committed here and there by either process: it costs what is committed.
#[test]
fn a_section_of_more_than_four_gibibytes() {
    let shm = open("large", Backing::PageFile);
    let size = 5 * GIB + 12_345;
    let (mapping, id) = shm.create(handle(1), size, 4096).unwrap();
    assert_eq!(mapping.len, size);
    set_byte(&mapping, 0, 1);
    shm.reserve(handle(1), &mapping, size - 1..size).unwrap();
    set_byte(&mapping, size - 1, 2);
    let mut child = spawn("reacher", &shm);
    assert_eq!(child.hear(), format!("{size} 1 2"));
    child.expect("reserved");
    assert_eq!(byte(&mapping, size - 3_000_000), 3, "committed by the other one");
    assert_eq!(byte(&mapping, size - 2_900_001), 4);
    assert_eq!(shm.stat(handle(1)).unwrap().size, size as u64);
    let again = shm.attach(handle(1), id).unwrap();
    assert_eq!((again.len, byte(&again, size - 1)), (size, 2));
    child.end();
    assert_eq!(byte(&mapping, size - 3_000_000), 3, "after its end too");
    shm.destroy(handle(1), id).unwrap();
    unmap(&shm, again);
    unmap(&shm, mapping);
}

#[test]
fn an_attached_segment_has_its_exact_size() {
    for backing in BOTH {
        let shm = open("exact", backing);
        for size in [1, 4095, 4096, 4097, 65_535, 65_536, 65_537, 1_000_001] {
            let (mapping, id) = shm.create(handle(1), size, 1).unwrap();
            let again = shm.attach(handle(1), id).unwrap();
            assert_eq!((mapping.len, again.len), (size, size), "{backing:?}");
            shm.destroy(handle(1), id).unwrap();
            unmap(&shm, again);
            unmap(&shm, mapping);
        }
    }
}

fn expect_full<T>(result: Result<T, Error>, asked: usize) {
    let Err(error) = result else { panic!("this can't fit") };
    let failure = error.failure();
    assert_eq!(failure.kind, ErrorKind::NoSpace, "{error}");
    assert_eq!(failure.requested, asked as u64);
    assert!(failure.available < asked as u64 && failure.available <= failure.total);
    assert!(error.to_string().contains("free of"), "{error}");
}

#[test]
fn exhaustion_is_an_error_at_creation() {
    let large = 1 << 44;
    for backing in BOTH {
        let shm = open("full", backing);
        expect_full(shm.create(handle(1), large, large), large);
        assert_eq!(shm.stat(handle(1)).unwrap_err().kind(), ErrorKind::NotFound);
        let mut election = shm.elect(PATIENCE).unwrap();
        expect_full(election.create(large), large);
        assert_eq!(election.size(), 0, "{backing:?}");
        let mapping = election.create(4096).unwrap();
        unmap(&shm, mapping);
        election.remove().unwrap();
    }
}

#[test]
fn a_reservation_that_does_not_fit_keeps_what_there_is() {
    let shm = open("reserve", Backing::PageFile);
    let size = 1 << 40;
    let (mapping, id) = shm.create(handle(1), size, 4096).unwrap();
    set_byte(&mapping, 0, 42);
    expect_full(shm.reserve(handle(1), &mapping, 0..size), size);
    shm.reserve(handle(1), &mapping, 0..1 << 20).unwrap();
    set_byte(&mapping, (1 << 20) - 1, 43);
    assert_eq!((byte(&mapping, 0), byte(&mapping, (1 << 20) - 1)), (42, 43));
    shm.destroy(handle(1), id).unwrap();
    unmap(&shm, mapping);
}

#[test]
fn a_file_that_does_not_fit_leaves_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let file = File::new(directory.path(), "full").unwrap();
    expect_full(file.create(handle(1), 1 << 50, 1 << 50), 1 << 50);
    assert_eq!(names(directory.path()), Vec::<String>::new());
}

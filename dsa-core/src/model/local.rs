//! An entry of the process's table whose segment is given back and whose index gets another one,
//! while others look.

use loom::sync::Arc;
use loom::thread;

use super::explore;
use crate::local::LocalEntry;
use crate::pointer::DsaPointer;

/// (First pointer, first address, length, handle.)
type Mapping = (DsaPointer, usize, u64, u64);

const OLD: Mapping = (at(1), 1000, 16, 31);
const NEW: Mapping = (at(2), 900, 400, 47);

const fn at(generation: u32) -> DsaPointer {
    DsaPointer::compose(DsaPointer::key_of(3, generation), 0)
}

fn enter(entry: &LocalEntry, (first, base, len, handle): Mapping) {
    entry.fill(first, base, len, handle);
}

/// Looks while the entry changes.
fn beside_a_change<T>(look: impl FnOnce(&LocalEntry) -> T) -> T {
    let entry = Arc::new(LocalEntry::new());
    enter(&entry, OLD);
    let other = thread::spawn({
        let entry = entry.clone();
        move || {
            assert_eq!(entry.empty(), (OLD.2, true));
            enter(&entry, NEW);
        }
    });
    let seen = look(&entry);
    other.join().unwrap();
    seen
}

#[test]
fn an_address_is_never_said_to_lie_where_it_doesnt() {
    // Behind the old mapping, and inside of one that would begin there and be as long as the new.
    explore(2, || match beside_a_change(|entry| entry.reverse(1020)) {
        None => 0,
        Some(pointer) => {
            assert_eq!(pointer, NEW.0.add(120), "halves of two mappings");
            1
        }
    });
    // In both.
    explore(3, || match beside_a_change(|entry| entry.reverse(1010)) {
        None => 0,
        Some(pointer) if pointer == OLD.0.add(10) => 1,
        Some(pointer) => {
            assert_eq!(pointer, NEW.0.add(110), "halves of two mappings");
            2
        }
    });
}

#[test]
fn a_segment_is_never_found_in_halves() {
    explore(2, || match beside_a_change(|entry| entry.find(OLD.0.raw())) {
        None => 0,
        Some(found) => {
            assert_eq!(found, (OLD.1, OLD.2), "halves of two mappings");
            1
        }
    });
}

#[test]
fn a_handle_is_never_of_another_segment() {
    explore(2, || match beside_a_change(|entry| entry.handle(OLD.0.raw())) {
        None => 0,
        Some(handle) => {
            assert_eq!(handle, OLD.3, "another segment's handle");
            1
        }
    });
}

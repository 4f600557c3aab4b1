//! What one process has filled and another one cleared is memory for both, though the first does
//! nothing any more.

use crate::support::{Part, Roles, Space};
use dsm_registry::{HashOptions, HashTable, Registry};

pub(crate) const ROLES: Roles = &[("fill and stay", fill_and_stay)];

const LIMIT: usize = 4 << 20;

fn table(registry: &Registry) -> HashTable<u64, u64> {
    registry.hash_with("table", HashOptions::new().limit(LIMIT)).unwrap()
}

/// Inserts until the table is full. Returns how many entries it had room for.
fn fill(table: &HashTable<u64, u64>) -> u64 {
    for key in 0.. {
        match table.insert(&key, key) {
            Ok(_) => {}
            Err(error) if error.is_full() => return key,
            Err(e) => panic!("{e}"),
        }
    }
    unreachable!("a table without a limit")
}

fn fill_and_stay(part: &Part) {
    let registry = part.open();
    let entries = fill(&table(&registry));
    part.say(&entries.to_string());
    part.hang();
}

#[test]
fn a_table_that_another_process_filled_takes_as_much_again() {
    let space = Space::new("refill");
    let registry = space.open();
    let mut peer = space.peer("fill and stay");
    let first: u64 = peer.hear().parse().unwrap();
    let table = table(&registry);
    table.clear().unwrap();
    let again = fill(&table);
    assert!(again >= first - first / 20, "{again} entries where there were {first}");
    peer.kill();
}

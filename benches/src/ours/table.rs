//! Our table, as the users of the registry see it.

use dsm_registry::{HashTable, Registry};

use super::home::unique_name;
use crate::measure::{Contestant, OURS, repeat};
use crate::table::{Map, Value};

/// Creates an empty table, and removes it.
pub fn our_creation() -> Contestant {
    let registry = Registry::open(&unique_name()).expect("open a namespace");
    Contestant::new(OURS, move |operations| {
        repeat(operations, || {
            drop(registry.hash::<u64, Value>("map").expect("create a table"));
            registry.remove("map").expect("remove it");
        })
    })
}

/// A table in a namespace of its own, which goes with it.
pub struct OurMap {
    table: HashTable<u64, Value>,
    _registry: Registry,
}

impl Map for OurMap {
    fn create() -> Self {
        let registry = Registry::open(&unique_name()).expect("open a namespace");
        let table = registry.hash("map").expect("create a table");
        Self { table, _registry: registry }
    }

    #[inline]
    fn insert(&self, key: u64, value: &Value) {
        self.table.insert(&key, *value).expect("memory for an entry");
    }

    #[inline]
    fn get(&self, key: u64) -> Option<u64> {
        self.table.get(&key).expect("no guard is held").map(|value| value[0])
    }

    #[inline]
    fn find(&self, key: u64) -> Option<u64> {
        self.table.find(&key).expect("no guard is held").map(|value| value[0])
    }

    #[inline]
    fn update(&self, key: u64, word: u64) -> bool {
        let found = self.table.find_mut(&key).expect("no guard is held");
        found.map(|mut value| value[0] = word).is_some()
    }

    #[inline]
    fn delete(&self, key: u64) -> bool {
        self.table.remove(&key).expect("no guard is held")
    }
}

//! Our table: as the users of the registry see it, and as those do who work on the cores.

use dsa_core::Options;
use dshash_core::{MAX_SEGMENT_SIZE, Params, Session, Table};
use dsm_registry::{HashTable, Registry};

use super::area::{CoreArea, CoreHeap};
use super::home::{forever, registry};
use crate::interface::{Map, Value};

/// A table in a namespace of its own, which goes with it.
pub struct RegistryMap {
    table: HashTable<u64, Value>,
    _registry: Registry,
}

impl RegistryMap {
    /// Whoever calls `get` has the whole value then.
    #[inline(never)]
    fn copy(&self, key: u64) -> Option<Value> {
        self.table.get(&key).expect("no guard is held")
    }
}

impl Map for RegistryMap {
    fn create() -> Self {
        let registry = registry();
        let table = registry.hash("map").expect("create a table");
        Self { table, _registry: registry }
    }

    #[inline(never)]
    fn insert(&self, key: u64, value: &Value) {
        self.table.insert(&key, *value).expect("memory for an entry");
    }

    #[inline(always)]
    fn get(&self, key: u64) -> Option<u64> {
        self.copy(key).map(|value| value[0])
    }

    #[inline(never)]
    fn find(&self, key: u64) -> Option<u64> {
        self.table.find(&key).expect("no guard is held").map(|value| value[0])
    }

    #[inline(never)]
    fn update(&self, key: u64, word: u64) -> bool {
        let found = self.table.find_mut(&key).expect("no guard is held");
        found.map(|mut value| value[0] = word).is_some()
    }

    #[inline(never)]
    fn delete(&self, key: u64) -> bool {
        self.table.remove(&key).expect("no guard is held")
    }
}

/// A table, and this thread's session of it. What borrows from the namespace is leaked, as in
/// [`CoreHeap`].
pub struct CoreMap {
    session: Session<'static, u64, Value, &'static CoreArea>,
    _heap: CoreHeap,
}

/// Bytes of the first segment of the area that the registry makes for such a table.
const FIRST_SEGMENT: u64 = 5 << 16;

impl CoreMap {
    /// Whoever calls `get` has the whole value then.
    #[inline(never)]
    fn copy(&self, key: u64) -> Option<Value> {
        self.session.get(&key).expect("no guard is held")
    }
}

impl Map for CoreMap {
    fn create() -> Self {
        let options =
            Options { initial: FIRST_SEGMENT, maximum: MAX_SEGMENT_SIZE, ..Options::default() };
        let heap = CoreHeap::new(&options);
        let table = Table::create(heap.area, heap.heap, &Params::default()).expect("memory");
        let session = forever(table).bind(heap.heap).expect("a heap of the table's area");
        Self { session, _heap: heap }
    }

    #[inline(never)]
    fn insert(&self, key: u64, value: &Value) {
        self.session.insert(&key, *value).expect("memory for an entry");
    }

    #[inline(always)]
    fn get(&self, key: u64) -> Option<u64> {
        self.copy(key).map(|value| value[0])
    }

    #[inline(never)]
    fn find(&self, key: u64) -> Option<u64> {
        self.session.find(&key).expect("no guard is held").map(|value| value[0])
    }

    #[inline(never)]
    fn update(&self, key: u64, word: u64) -> bool {
        let found = self.session.find_exclusive(&key).expect("no guard is held");
        let Some(mut value) = found else { return false };
        value[0] = word;
        // Quicker than dropping it.
        value.release();
        true
    }

    #[inline(never)]
    fn delete(&self, key: u64) -> bool {
        self.session.delete(&key).expect("no guard is held")
    }
}

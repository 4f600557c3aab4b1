//! dashmap 6, the usual concurrent map inside one process.

use dashmap::DashMap;
use rapidhash::fast::SeedableState;

use crate::interface::{Map, Value};

/// With a fast hash function, whose seed is fixed as that of ours is.
pub type Dashmap = DashMap<u64, Value, SeedableState<'static>>;

impl Map for Dashmap {
    fn create() -> Self {
        DashMap::with_hasher(SeedableState::fixed())
    }

    #[inline(never)]
    fn insert(&self, key: u64, value: &Value) {
        DashMap::insert(self, key, *value);
    }

    #[inline(never)]
    fn get(&self, key: u64) -> Option<u64> {
        DashMap::get(self, &key).map(|value| value[0])
    }

    #[inline(never)]
    fn find(&self, key: u64) -> Option<u64> {
        Map::get(self, key)
    }

    #[inline(never)]
    fn update(&self, key: u64, word: u64) -> bool {
        DashMap::get_mut(self, &key).map(|mut value| value[0] = word).is_some()
    }

    #[inline(never)]
    fn delete(&self, key: u64) -> bool {
        DashMap::remove(self, &key).is_some()
    }
}

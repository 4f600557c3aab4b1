//! What is read without a lock is copied by its bytes.
use std::sync::atomic::AtomicU64;

use dsm_registry::Registry;

fn main() {
    let registry = Registry::open("demo").unwrap();
    let table = registry.hash::<u64, AtomicU64>("table").unwrap();
    let _ = table.get(&1);
}

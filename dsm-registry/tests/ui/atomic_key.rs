//! A key that changes would be lost in its table.
use std::sync::atomic::AtomicU64;

use dsm_registry::Registry;

fn main() {
    let registry = Registry::open("demo").unwrap();
    let _ = registry.hash::<AtomicU64, u64>("table");
}

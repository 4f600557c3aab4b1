//! A `Cell` would be changed by two processes at once.
use std::cell::Cell;

use dsm_registry::Registry;

fn main() {
    let registry = Registry::open("demo").unwrap();
    let _ = registry.segment::<Cell<u64>>("config", |_| Ok(()));
}

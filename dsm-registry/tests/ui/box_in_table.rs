//! A `Box` points into one process's heap.
use dsm_registry::Registry;

fn main() {
    let registry = Registry::open("demo").unwrap();
    let _ = registry.hash::<u64, Box<u64>>("table");
}

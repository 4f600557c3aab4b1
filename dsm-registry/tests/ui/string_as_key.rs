//! A `String` points into one process's heap.
use dsm_registry::Registry;

fn main() {
    let registry = Registry::open("demo").unwrap();
    let _ = registry.hash::<String, u64>("table");
}

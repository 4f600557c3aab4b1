//! A `String` points into one process's heap.
use dsm_registry::Registry;

fn main() {
    let registry = Registry::open("demo").unwrap();
    let area = registry.area("work").unwrap();
    let _ = area.allocate(String::from("x"));
}

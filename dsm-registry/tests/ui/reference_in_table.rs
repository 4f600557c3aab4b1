//! A reference means nothing in another process.
use dsm_registry::Registry;

fn main() {
    let registry = Registry::open("demo").unwrap();
    let _ = registry.hash::<u64, &'static u64>("table");
}

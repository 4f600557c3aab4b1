//! A guard refers to the table it came from.
use dsm_registry::Registry;

fn main() {
    let registry = Registry::open("demo").unwrap();
    let guard = {
        let table = registry.hash::<u64, u64>("table").unwrap();
        table.find(&1).unwrap()
    };
    drop(guard);
}

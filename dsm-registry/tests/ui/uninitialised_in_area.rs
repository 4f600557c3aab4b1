//! What nobody has initialised could be read as an integer.
use std::mem::MaybeUninit;

use dsm_registry::Registry;

fn main() {
    let registry = Registry::open("demo").unwrap();
    let area = registry.area("work").unwrap();
    let pointer = area.allocate(MaybeUninit::<u64>::uninit()).unwrap();
    let _: u64 = area.read(pointer.cast()).unwrap();
}

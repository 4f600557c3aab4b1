//! The padding of a key would be hashed and compared.
use dsm_registry::Registry;
use zerocopy::{FromBytes, Immutable, KnownLayout};

#[derive(FromBytes, KnownLayout, Immutable)]
#[repr(C)]
struct Padded {
    a: u8,
    b: u32,
}

fn main() {
    let registry = Registry::open("demo").unwrap();
    let _ = registry.hash::<Padded, u64>("table");
}

//! A `DsaPtr` is plain data: nobody knows whether anything is there.
use dsm_registry::{Area, DsaPtr, Registry};

fn main() {
    let registry = Registry::open("demo").unwrap();
    let area: Area = registry.area("work").unwrap();
    let made_up: DsaPtr<u64> = DsaPtr::INVALID;
    let _: &u64 = area.as_ref(made_up).unwrap();
}

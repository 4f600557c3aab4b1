//! A box gives out copies: anybody can make a pointer to its object, and write there.
use dsm_registry::Registry;

fn main() {
    let boxed = Registry::open("demo").unwrap().area("area").unwrap().allocate_box(1_u64).unwrap();
    let _reference: &u64 = &*boxed;
}

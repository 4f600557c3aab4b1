//! The padding of an object could be read as integers, through a pointer of another type.
use dsm_registry::{AtomicDsaPointer, Registry};
use zerocopy::{FromBytes, KnownLayout};

#[derive(FromBytes, KnownLayout, Clone, Copy)]
#[repr(C)]
struct Padded {
    a: u8,
    b: u32,
}

fn main() {
    let registry = Registry::open("demo").unwrap();
    let area = registry.area("work").unwrap();
    let pointer = area.allocate(Padded { a: 1, b: 2 }).unwrap();
    let _: [u8; 8] = area.read(pointer.cast()).unwrap();
    let _ = area.allocate_slice(&[Padded { a: 1, b: 2 }]);
    let _ = area.allocate_box(Padded { a: 1, b: 2 });
    let _ = area.allocate_into(Padded { a: 1, b: 2 }, &AtomicDsaPointer::default());
}

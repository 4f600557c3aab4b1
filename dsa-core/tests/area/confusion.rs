//! Local state given to the wrong owner: errors or waste, never somebody else's memory.

use dsa_core::{Area, AreaLocal, HeapLocal, Options};
use dsm_core::heap::HeapMachine;

use crate::support::{A, leak, start};

#[test]
fn hints_made_for_another_area_are_not_followed() {
    let machine = HeapMachine::new();
    let p = start(&machine);
    let (mine, _) = p.create(&Options::default());
    let local = HeapLocal::new();
    let heap = mine.heap(p.participant, &local).unwrap();
    let first = heap.allocate(64).unwrap();
    {
        let other: A = Area::create(p.ns, &Options::default(), leak(AreaLocal::new())).unwrap();
        let theirs = other.heap(p.participant, &local).unwrap();
        theirs.allocate(64).unwrap();
        // The other area goes, and with it the memory that the hints point to.
    }
    let second = heap.allocate(64).unwrap();
    assert_ne!(first, second);
    assert_eq!(mine.size_of_object(second).unwrap(), 64);
    mine.check(p.participant).unwrap();
}

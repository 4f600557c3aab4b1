//! Typed copies and boxes.
#![cfg(all(feature = "zerocopy", not(loom)))]

use dsa_core::{Area, AreaLocal, DsaBox, DsaPtr, Error, HeapLocal, Options};
use dsm_core::lock::rw::RwLock;
use dsm_core::namespace::{Namespace, NamespaceConfig};
use dsm_core::participant::ParticipantLocal;
use sim::HeapMachine;

#[derive(
    zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable, Clone, Copy, PartialEq, Debug,
)]
#[repr(C)]
struct Node {
    next: DsaPtr<Node>,
    value: [u32; 3],
    small: [u8; 4],
}

#[test]
fn a_list_of_boxes() {
    let machine = HeapMachine::new();
    let process = machine.process();
    let local = process.local();
    let config = NamespaceConfig::default();
    let (ns, _) = Namespace::open(&process, process.platform(), &config, &local).unwrap();
    let thread = ParticipantLocal::new();
    ns.register(&thread).unwrap();
    {
        let table = Box::new(AreaLocal::new());
        let area: Area<'_, RwLock> = Area::create(&ns, &Options::default(), &table).unwrap();
        let (participant, hints) = (ns.participant(&thread), HeapLocal::new());
        let heap = area.heap(&participant, &hints).unwrap();
        let mut head = DsaPtr::<Node>::INVALID;
        for i in 0..100 {
            let node = Node { next: head, value: [i; 3], small: [i as u8; 4] };
            let mut owned = DsaBox::new(&heap, &node).unwrap();
            assert_eq!(owned.get(), Ok(node));
            owned.set(&Node { value: [i * 2; 3], ..node }).unwrap();
            head = owned.into_ptr().unwrap();
            // One more, which goes with its box.
            DsaBox::new(&heap, &node).unwrap();
        }
        assert_eq!(area.check(&participant).unwrap().objects, 100);
        // SAFETY: nobody has a reference into the area.
        let read = |at: DsaPtr<Node>| unsafe { area.read(at) };
        let (mut count, mut at) = (0, head);
        while at.is_valid() {
            let node = read(at).unwrap();
            assert_eq!(node.value, [(99 - count) * 2; 3]);
            (count, at) = (count + 1, node.next);
        }
        assert_eq!(count, 100);
        // SAFETY: as above.
        let long = unsafe { area.read(head.cast::<[u8; 33]>()) };
        assert!(matches!(long, Err(Error::OutOfObject(33, 32)) | Err(Error::OutOfObject(33, 24))));
        let wild: DsaPtr<Node> = head.pointer().add(8).cast();
        assert_eq!(read(wild), Err(Error::InvalidPointer(wild.pointer())));
        // SAFETY: as above.
        assert!(unsafe { area.write(wild, &read(head).unwrap()) }.is_err());
    }
    ns.unregister(&thread);
    ns.leave(&process).unwrap();
}

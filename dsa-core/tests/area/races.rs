//! What somebody does between being looked at and dying.

use std::cell::RefCell;

use dsa_core::Options;
use dsm_core::env::{Environment, ProcessProof};
use dsm_core::namespace::{Namespace, Platform};
use dsm_core::participant::ParticipantLocal;
use sim::HeapMachine;
use testkit::environment::{Hooks, Wrapped};

use crate::support::{Proc, config, free, leak, start};

thread_local! {
    /// What happens when the next question about a process's life is asked, before the answer.
    static MEANWHILE: RefCell<Option<Box<dyn FnOnce()>>> = const { RefCell::new(None) };
}

/// Lets others act while somebody asks whether they live.
struct Slow;

impl Hooks for Slow {
    fn process_is_dead(&self, within: &dyn Environment, slot: u32, proof: &ProcessProof) -> bool {
        if let Some(act) = MEANWHILE.take() {
            act();
        }
        within.process_is_dead(slot, proof)
    }
}

fn start_slow(machine: &HeapMachine) -> Proc {
    let process = leak(machine.process());
    let platform = Platform { provider: process, env: leak(Wrapped::new(process, Slow)) };
    let (ns, _) = Namespace::open(process, platform, &config(), leak(process.local())).unwrap();
    let (ns, thread) = (leak(ns), leak(ParticipantLocal::new()));
    ns.register(thread).unwrap();
    Proc { process, ns, thread, participant: leak(ns.participant(thread)) }
}

/// An adopter reads a slab's owner, then asks whether that one lives. In between, the owner gives
/// the slab back, and somebody else may be given its pages, and then the owner dies.
#[test]
fn a_slab_given_back_before_its_owner_died_is_not_given_back_again() {
    for (size, again) in [(64, false), (64, true), (6000, false), (6000, true)] {
        let machine = HeapMachine::new();
        let adopter = start_slow(&machine);
        let (area, heap) = adopter.create(&Options { initial: 1 << 20, ..Options::default() });
        let other = start(&machine);
        let (_, others) = other.attach(area.handle().unwrap()).unwrap();
        let victim = start(&machine);
        let (_, victims) = victim.attach(area.handle().unwrap()).unwrap();
        // The first objects of that size are runs of their own.
        let objects: Vec<_> = (0..10).map(|_| victims.allocate(size).unwrap()).collect();
        objects.into_iter().for_each(|object| free(&victims, object));
        let kept = leak(RefCell::new(Vec::new()));
        MEANWHILE.set(Some(Box::new(move || {
            victims.release().unwrap();
            if again {
                let mut kept = kept.borrow_mut();
                kept.extend((0..10).map(|_| others.allocate(size).unwrap()));
            }
            victim.kill();
        })));
        heap.maintain().unwrap();
        assert!(MEANWHILE.take().is_none(), "nobody was asked for");
        let report = area.check(adopter.participant).unwrap();
        assert_eq!(report.objects, kept.borrow().len() as u64);
        kept.borrow().iter().for_each(|object| free(&heap, *object));
        heap.trim().unwrap();
        assert_eq!(area.check(adopter.participant).unwrap().objects, 0);
    }
}

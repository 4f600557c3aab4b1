//! Models of the namespace: who creates it and who removes it, process slots, segments' slots.
//!
//! What every one of them demands: of processes that open at once one creates; no two that live
//! have the same process slot; who attaches a segment finds its bytes; after the dead were swept no
//! slot is half made, nothing that they had attached is counted, and what they pinned can be
//! unpinned; after the last has left, no object remains on the machine.

use std::cell::RefCell;
use std::collections::BTreeSet;

use dsm_core::handle::SegmentHandle;
use dsm_core::namespace::Opened;
use dsm_core::sync::{Ordering::Relaxed, shuttle};
use sim::HeapMachine;

use crate::found::mark;
use crate::look::inspect;
use crate::model::Model;
use crate::play::{Ended, Play};
use crate::world::{Member, Stranger, keep};

pub(crate) const MODELS: &[Model] = &[
    Model {
        name: "namespace-open",
        about: "four processes open, register, leave, and open again",
        mortals: 2,
        share: 100,
        kinds: &[
            "the elector works",
            "there is no finished control segment",
            "no process slot is taken",
            "holds the control lock",
            "somebody is dead already",
            "creates",
            "creates anew",
            "joins",
            "one dies",
            "two die",
        ],
        act: open,
    },
    Model {
        name: "namespace-segments",
        about: "three processes create, attach, pin, unpin and detach segments, and reap",
        mortals: 2,
        share: 100,
        kinds: &[
            "holds the control lock",
            "a segment is half made or half removed",
            "somebody is dead already",
            "attaches",
            "comes too late",
            "a pin of the dead is left",
            "two die",
        ],
        act: segments,
    },
];

/// Process slots of those who are in.
#[derive(Default)]
struct In(RefCell<BTreeSet<(usize, u32)>>);

impl In {
    fn enter(&self, who: usize, member: Member) {
        let slot = member.ns.process_slot();
        let mut all = self.0.borrow_mut();
        assert!(all.iter().all(|(_, taken)| *taken != slot), "a process slot has two tenants");
        all.insert((who, slot));
    }

    fn leave(&self, who: usize) {
        self.0.borrow_mut().retain(|(actor, _)| *actor != who);
    }
}

const OPENERS: usize = 4;
const OPENINGS: usize = 2;

fn come_and_go(who: usize, stranger: Stranger, all: &In) {
    for _ in 0..OPENINGS {
        let member = stranger.join();
        mark(match member.opened {
            Opened::Created => "creates",
            Opened::Recreated => "creates anew",
            Opened::Joined => "joins",
            Opened::Resumed => panic!("it is not persistent"),
        });
        all.enter(who, member);
        // Of a namespace that another one has created meanwhile this would not be seen.
        let before = member.ns.root(who).fetch_add(1, Relaxed);
        let me = member.thread();
        let segment = member.ns.create_segment(100, 100).expect("there is a slot");
        drop(segment);
        assert_eq!(member.ns.root(who).load(Relaxed), before + 1);
        member.ns.unregister(me.local());
        all.leave(who);
        member.leave();
    }
}

fn open(play: &mut Play) {
    let machine = HeapMachine::with_seed(shuttle::random(1 << 40));
    let all: &In = keep(In::default());
    let strangers: Vec<_> = (0..OPENERS).map(|_| Stranger::new(&machine)).collect();
    for (who, stranger) in strangers.into_iter().enumerate() {
        play.actor(stranger.0, move || come_and_go(who, stranger, all));
    }
    play.look(|who| all.leave(who));
    let _ = play.perform();
    let heir = Member::new(&machine);
    assert_ne!(heir.opened, Opened::Joined, "nobody was there");
    all_sound(&machine, heir, 1);
    heir.leave();
    assert_eq!(machine.objects().len(), 0, "objects are left in the system");
}

/// No slot is half made, and only so many processes are there.
fn all_sound(machine: &HeapMachine, member: Member, processes: usize) {
    member.ns.reap().expect("reaps");
    let look = inspect(machine, member.process, |inspector| {
        assert!(inspector.segments().all(|segment| segment.settled), "a slot is half made");
        assert_eq!(inspector.processes().count(), processes, "processes");
        assert_eq!(inspector.participants().count(), processes, "participants");
        for segment in inspector.segments() {
            assert_eq!(segment.attached, 0, "somebody is said to be attached");
            assert!(segment.pinned, "a segment that nobody has attached or pinned");
        }
    });
    assert!(look.is_some(), "the control segment is finished");
    let all: Vec<_> =
        (0..8).map(|_| member.ns.create_segment(1, 1).expect("slots are free")).collect();
    drop(all);
}

/// Handles that the actors tell each other.
type Told = RefCell<Vec<SegmentHandle>>;

const SIZE: usize = 100;

fn make(member: Member, told: &Told) -> SegmentHandle {
    let segment = member.ns.create_segment(SIZE, SIZE).expect("creates");
    // SAFETY: new memory of that size that nobody knows yet.
    unsafe { segment.base().write_bytes(segment.handle().get() as u8, SIZE) };
    let handle = segment.handle();
    told.borrow_mut().push(handle);
    shuttle::point();
    drop(segment);
    handle
}

fn try_attach(member: Member, handle: SegmentHandle) {
    match member.ns.attach_segment(handle).expect("attaches or not") {
        Some(segment) => {
            mark("attaches");
            assert_eq!(segment.len(), SIZE);
            // SAFETY: mapped, and nobody changes it any more.
            let first = unsafe { segment.base().read() };
            assert_eq!(first, handle.get() as u8, "somebody else's bytes");
            let attached = member.ns.attached_processes(handle).expect("is attached by us");
            assert!(attached >= 1);
        }
        None => mark("comes too late"),
    }
}

fn pin_and_unpin(member: Member, told: &Told) {
    let segment = member.ns.create_segment(SIZE, SIZE).expect("creates");
    // SAFETY: new memory of that size that nobody knows yet.
    unsafe { segment.base().write_bytes(segment.handle().get() as u8, SIZE) };
    let handle = segment.handle();
    member.ns.pin_segment(handle).expect("pins");
    told.borrow_mut().push(handle);
    drop(segment);
    shuttle::point();
    let again = member.ns.attach_segment(handle).expect("attaches");
    drop(again.expect("a pinned segment is there"));
    member.ns.unpin_segment(handle).expect("unpins");
}

fn segments(play: &mut Play) {
    let machine = HeapMachine::with_seed(shuttle::random(1 << 40));
    let told: &Told = keep(RefCell::default());
    let observer = Member::new(&machine);
    let members: Vec<_> = (0..3).map(|_| Member::new(&machine)).collect();
    for (who, member) in members.iter().copied().enumerate() {
        play.actor(member.process, move || {
            for round in 0..3 {
                match (who + round) % 3 {
                    0 => pin_and_unpin(member, told),
                    1 => {
                        make(member, told);
                        member.ns.reap().expect("reaps");
                    }
                    _ => {
                        let handles = told.borrow().clone();
                        handles
                            .into_iter()
                            .rev()
                            .take(2)
                            .for_each(|handle| try_attach(member, handle));
                    }
                }
            }
        });
    }
    let ended = play.perform();
    survive(&machine, observer, &members, &ended);
    observer.leave();
    assert_eq!(machine.objects().len(), 0, "objects are left in the system");
}

fn survive(machine: &HeapMachine, observer: Member, members: &[Member], ended: &Ended) {
    observer.ns.reap().expect("reaps");
    let handles = inspect(machine, observer.process, |inspector| {
        inspector.segments().map(|segment| segment.handle).collect::<Vec<_>>()
    });
    let handles = handles.expect("the control segment is finished");
    // What is left is pinned by somebody who died before it could unpin.
    assert!(handles.len() <= ended.deaths(), "{} segments are left", handles.len());
    for handle in handles {
        mark("a pin of the dead is left");
        observer.ns.unpin_segment(handle).expect("unpins");
        assert_eq!(observer.ns.attached_processes(handle), None);
    }
    assert_eq!(machine.objects().len(), 1, "objects are left in the system");
    for (member, dead) in members.iter().zip(&ended.dead) {
        if !dead {
            member.leave();
        }
    }
    all_sound(machine, observer, 1);
}

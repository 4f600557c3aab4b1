//! A damaged control segment in which processes live.
//!
//! The *survivor* has segments mapped, in the main region and of their own, with locks in them. A
//! *victim* had the same ones, and died: with locks held shared and alone, and with one that it was
//! about to take. Then bytes are damaged, and the survivor sweeps, makes and attaches and lets go of
//! segments, in any order; visitors come. What it has mapped stays mapped, and is as long as it was
//! when it was mapped, whatever the control segment says by now.
//!
//! As long as nothing is damaged, the sweep must be complete: every lock can be had.

use arbitrary::{Arbitrary, Unstructured};
use dsm_core::handle::LockAddress;
use dsm_core::lock::rw::RwLock;
use dsm_core::lock::{HeldMode, LockRef, Patience, RawLock};
use dsm_core::namespace::Namespace;
use dsm_core::participant::{Participant, ParticipantLocal};
use dsm_core::segment::Segment;
use sim::{HeapMachine, HeapProcess};

use super::{config, look, use_it, visit_once};
use crate::damage::{Patch, Target};

/// Steps of a case at most, and visitors among them, who are costly.
const STEPS: usize = 100;
const VISITS: usize = 3;
/// Locks at the start of each segment of the survivor's.
const LOCKS: usize = 4;

#[derive(Arbitrary, Debug)]
enum Step {
    Damage(Patch),
    Reap,
    Look,
    Use,
    Visit { persistent: bool },
    Make { size: u16, own_object: bool },
    Attach { which: u8 },
    Drop { which: u8 },
    Reserve { which: u8, to: u16 },
    Pin { which: u8 },
    PinUnder { which: u8, parent: u8 },
    Unpin { which: u8 },
    Try { which: u8, lock: u8 },
    Register,
}

/// The lock of that number in a segment.
fn lock<'s>(segment: &'s Segment<'_>, number: usize) -> LockRef<'s, RwLock> {
    assert!((number + 1) * 64 <= segment.len());
    // SAFETY: within the segment.
    let at = unsafe { segment.base().cast::<RwLock>().add(number) };
    // SAFETY: there are locks at the start of a segment, and this is the address of one.
    unsafe { LockRef::new(at, segment.lock_address(64 * number as u64)) }
}

fn lay_out(segment: &Segment<'_>) {
    for number in 0..LOCKS {
        // SAFETY: within the segment.
        let at = unsafe { segment.base().cast::<RwLock>().add(number) };
        // SAFETY: aligned, as the segment is to a page, and nobody uses it yet.
        unsafe { RwLock::init(at, config(false).max_participants) };
    }
}

pub(super) fn run(machine: &HeapMachine, input: &mut Unstructured<'_>) {
    let process = machine.process();
    let local = process.local();
    let (namespace, _) = Namespace::open(&process, process.platform(), &config(false), &local)
        .expect("a fresh namespace opens");
    let thread = ParticipantLocal::new();
    namespace.register(&thread).expect("there is a slot");
    {
        let mut mine = vec![
            namespace.create_object(9000, 9000).expect("there is room"),
            namespace.create_segment(5000, 5000).expect("the main region has room"),
            namespace.create_object(4096, 4096).expect("there is room"),
        ];
        mine.iter().for_each(lay_out);
        namespace.pin_segment(mine[0].handle()).expect("it is not pinned");
        namespace.pin_segment_under(mine[2].handle(), mine[0].handle()).expect("it is not pinned");
        die_with_locks(machine, &mine);
        let survivor = Survivor { machine, process: &process, namespace: &namespace };
        survivor.live(&thread, &mut mine, input);
    }
    namespace.unregister(&thread);
    let _ = namespace.leave(&process);
}

/// A process attaches the segments, takes locks in them, and is killed.
fn die_with_locks(machine: &HeapMachine, segments: &[Segment<'_>]) {
    let victim = machine.process();
    let local = victim.local();
    let (namespace, _) = Namespace::open(&victim, victim.platform(), &config(false), &local)
        .expect("there is a slot");
    let thread = ParticipantLocal::new();
    namespace.register(&thread).expect("there is a slot");
    let participant = namespace.participant(&thread);
    for segment in segments {
        let theirs = namespace.attach_segment(segment.handle()).expect("it is there");
        let theirs = theirs.expect("it is there");
        std::mem::forget(lock(&theirs, 0).shared(&participant, Patience::Try).expect("it is free"));
        let alone = lock(&theirs, 1).exclusive(&participant, Patience::Try).expect("it is free");
        std::mem::forget(alone);
        let address: LockAddress = theirs.lock_address(2 * 64);
        // SAFETY: it is killed before it acquires another lock.
        let held = unsafe { participant.hold::<RwLock>(address, HeldMode::Shared) };
        let _index = held.expect("there is room").keep();
        std::mem::forget(theirs);
    }
    victim.kill();
}

/// Who finds the damage.
struct Survivor<'s> {
    machine: &'s HeapMachine,
    process: &'s HeapProcess,
    namespace: &'s Namespace<'s>,
}

impl<'s> Survivor<'s> {
    fn live(
        &self,
        thread: &ParticipantLocal,
        mine: &mut Vec<Segment<'s>>,
        input: &mut Unstructured<'_>,
    ) {
        let target = Target::new(self.machine, true).expect("it is there");
        let participant = self.namespace.participant(thread);
        let more = ParticipantLocal::new();
        let handles: Vec<_> = mine.iter().map(Segment::handle).collect();
        let (mut damaged, mut visits) = (false, 0);
        for _ in 0..STEPS {
            let Ok(step) = Step::arbitrary(input) else { break };
            let at = |which: u8| mine.get(usize::from(which) % mine.len().max(1));
            match step {
                Step::Damage(patch) => {
                    target.apply(patch);
                    damaged = true;
                }
                Step::Reap => {
                    let swept = self.namespace.reap();
                    assert!(damaged || swept.is_ok());
                }
                Step::Look => look(self.process),
                Step::Use => use_it(self.process, self.namespace),
                Step::Visit { persistent } => {
                    if visits < VISITS {
                        visit_once(self.machine, persistent);
                    }
                    visits += 1;
                }
                Step::Make { size, own_object } => {
                    let size = usize::from(size) + LOCKS * 64;
                    let made = if own_object {
                        self.namespace.create_object(size, size)
                    } else {
                        self.namespace.create_segment(size, size)
                    };
                    if let Ok(segment) = made {
                        assert_eq!(segment.len(), size);
                        lay_out(&segment);
                        mine.push(segment);
                    }
                }
                Step::Attach { which } => {
                    let handle = handles[usize::from(which) % handles.len()];
                    if let Ok(Some(segment)) = self.namespace.attach_segment(handle) {
                        let kept = mine.iter().find(|kept| kept.handle() == handle);
                        assert!(kept.is_none_or(|kept| kept.len() == segment.len()));
                        mine.push(segment);
                    }
                }
                Step::Drop { which } => {
                    if !mine.is_empty() {
                        drop(mine.swap_remove(usize::from(which) % mine.len()));
                    }
                }
                Step::Reserve { which, to } => {
                    if let Some(segment) = at(which) {
                        let _ = segment.reserve(0..usize::from(to));
                        let _ = segment.reserved();
                    }
                }
                Step::Pin { which } => {
                    at(which).map(|segment| self.namespace.pin_segment(segment.handle()));
                }
                Step::PinUnder { which, parent } => {
                    if let (Some(segment), Some(parent)) = (at(which), at(parent)) {
                        let (handle, parent) = (segment.handle(), parent.handle());
                        let _ = self.namespace.pin_segment_under(handle, parent);
                    }
                }
                Step::Unpin { which } => {
                    let handle = handles[usize::from(which) % handles.len()];
                    let _ = self.namespace.unpin_segment(handle);
                }
                Step::Try { which, lock: number } => {
                    if let Some(segment) = at(which) {
                        Self::take(segment, usize::from(number) % LOCKS, &participant);
                    }
                }
                Step::Register => {
                    if self.namespace.register(&more).is_err() {
                        self.namespace.unregister(&more);
                    }
                }
            }
        }
        if !damaged {
            self.namespace.reap().expect("nothing is damaged");
            for segment in mine.iter() {
                for number in 0..LOCKS {
                    assert!(Self::take(segment, number, &participant), "a dead one's lock");
                }
            }
        }
        self.namespace.unregister(&more);
    }

    /// Takes a lock, if it can be had, and gives it back.
    fn take(segment: &Segment<'_>, number: usize, participant: &Participant<'_>) -> bool {
        if segment.len() < LOCKS * 64 {
            return false;
        }
        match lock(segment, number).exclusive(participant, Patience::Try) {
            Ok(mut guard) => {
                guard.mark_recovered();
                true
            }
            Err(_) => false,
        }
    }
}

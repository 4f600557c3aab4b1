//! Each form of taking and releasing the recoverable lock, alone and beside others.

use std::ptr::NonNull;
use std::time::Duration;

use dsm_core::lock::rw::RwLock;
use dsm_core::lock::{Acquired, LockError, LockRef, Patience, RawLock};
use dsm_core::segment::Segment;
use dsm_core::sync::{AtomicU64, Ordering, compiler_fence};

use crate::case::{Case, Operation, Place, What};
use crate::member::{
    ANCESTOR, Member, RESCUER, VICTIM, WITNESS, ensure, finds_nothing, leak, mortals, text,
};
use crate::system;

const CASES: [Operation; 14] = [
    Operation {
        name: "lock-exclusive",
        must: &[
            "before",
            "after",
            "holds a lock of the segment",
            "recovery found the lock of a dead owner",
            "recovery found the lock clean",
        ],
        make: exclusive,
    },
    Operation {
        name: "lock-shared",
        must: &["before", "holds a lock of the segment", "holds a lock shared"],
        make: shared,
    },
    Operation {
        name: "lock-shared-twice",
        must: &["holds a lock of the segment", "holds a lock shared"],
        make: shared_twice,
    },
    Operation {
        name: "lock-shared-forgotten",
        must: &["holds a lock of the segment", "holds a lock shared"],
        make: forgotten,
    },
    Operation {
        name: "lock-try-fails",
        must: &["holds a lock of the segment", "recovery found the lock clean"],
        make: try_fails,
    },
    Operation {
        name: "lock-exclusive-times-out",
        must: &["holds a lock of the segment", "recovery found the lock clean"],
        make: times_out,
    },
    Operation {
        name: "lock-after-dead-reader",
        must: &["holds the control lock and another", "recovery found the lock of a dead owner"],
        make: after_dead_reader,
    },
    Operation {
        name: "lock-after-dead-owner",
        must: &[
            "after",
            "recovery found the lock of a dead owner",
            "recovery found the lock clean",
        ],
        make: after_dead_owner,
    },
    Operation {
        name: "lock-shared-after-dead-owner",
        must: &["holds a lock shared", "recovery found the lock of a dead owner"],
        make: shared_after_dead_owner,
    },
    Operation {
        name: "lock-beside-owner",
        must: &["after", "recovery found the lock of a dead owner"],
        make: beside_owner,
    },
    Operation {
        name: "lock-shared-nested",
        must: &["holds a lock shared", "recovery found the lock clean"],
        make: nested,
    },
    Operation {
        name: "lock-try-after-dead-owner",
        must: &["recovery found the lock of a dead owner", "recovery found the lock clean"],
        make: try_after_dead_owner,
    },
    Operation {
        name: "lock-left-unrecovered",
        must: &["recovery found the lock of a dead owner"],
        make: left_unrecovered,
    },
    Operation { name: "lock-many", must: &["holds a lock shared", "after"], make: many },
];

pub(super) const ALL: &[Operation] = &CASES;

/// Where the two guarded words lie.
const WORDS: usize = 4096;

/// A process with the segment that has the lock and what it guards: two words that are equal.
#[derive(Clone, Copy)]
pub(super) struct Party {
    pub(super) member: Member,
    segment: &'static Segment<'static>,
}

impl Party {
    fn start(pid: u64, first: Option<&Party>) -> Self {
        let member = Member::start(pid);
        let segment = match first {
            None => {
                let segment = member.segment();
                // SAFETY: long enough, aligned to a page, and new.
                unsafe { RwLock::init(segment.base().cast(), 20) };
                segment
            }
            Some(first) => {
                let segment = member.ns.attach_segment(first.segment.handle());
                segment.expect("attaches").expect("is there")
            }
        };
        let party = Self { member, segment: leak(segment) };
        if first.is_none() {
            [0, 1].iter().for_each(|index| party.word(*index).store(0, Ordering::Relaxed));
        }
        party
    }

    pub(super) fn lock(&self) -> LockRef<'static, RwLock> {
        // SAFETY: built by the witness at the start of the segment, which stays mapped.
        unsafe { LockRef::new(self.segment.base().cast(), self.segment.lock_address(0)) }
    }

    pub(super) fn word(&self, index: usize) -> &'static AtomicU64 {
        // SAFETY: within the segment.
        let at: NonNull<u8> = unsafe { self.segment.base().add(WORDS + index * 8) };
        // SAFETY: aligned, zero at first, and only used as this.
        unsafe { at.cast::<AtomicU64>().as_ref() }
    }

    /// Changes both words under the lock; repairs what a dead owner left.
    pub(super) fn exclusive(&self, patience: Patience, value: u64) -> Result<Acquired, LockError> {
        let mut guard = self.lock().exclusive(self.member.participant, patience)?;
        let acquired = guard.acquired();
        if acquired == Acquired::FromDead {
            let first = self.word(0).load(Ordering::Relaxed);
            self.word(1).store(first, Ordering::Relaxed);
            guard.mark_recovered();
        } else {
            assert_eq!(self.word(0).load(Ordering::Relaxed), self.word(1).load(Ordering::Relaxed));
        }
        compiler_fence();
        self.word(0).store(value, Ordering::Relaxed);
        compiler_fence();
        self.word(1).store(value, Ordering::Relaxed);
        compiler_fence();
        drop(guard);
        Ok(acquired)
    }
}

/// Bounded by much less than a process would wait for a living owner.
const SOON: Duration = Duration::from_millis(100);

fn soon(member: &Member) -> Patience {
    Patience::Until(member.ns.platform().env.now() + SOON)
}

pub(super) struct Scene {
    parties: Vec<Party>,
    pub(super) victim: Party,
}

pub(super) fn scene(rescuers: usize) -> Scene {
    let mut parties = vec![Party::start(WITNESS, None)];
    let victim = Party::start(VICTIM, Some(&parties[0]));
    for number in 0..rescuers {
        parties.push(Party::start(RESCUER + number as u64, Some(&parties[0])));
    }
    Scene { parties, victim }
}

impl Scene {
    /// An operation that leaves no trace in the words.
    fn traceless(self, name: &'static str, operate: impl Fn(&Party) + 'static) -> Case {
        let case = self.case(name, operate);
        let judge = case.judge;
        Case { judge: Box::new(move || judge().map(|_| "after")), ..case }
    }

    pub(super) fn case(self, name: &'static str, operate: impl Fn(&Party) + 'static) -> Case {
        let Self { parties, victim } = self;
        let witness = parties[0];
        let places = vec![Place {
            slot: witness.segment.handle().slot(),
            offsets: 0..64,
            what: What::Segment,
        }];
        let rescuers = parties.len() - 1;
        Case {
            name,
            mortals: mortals(rescuers),
            operate: Box::new(move || operate(&victim)),
            recover: Box::new(move |who, order| {
                // Third parties have let go by now: they are dead, too.
                system::kill(ANCESTOR);
                // With and without a sweep first.
                if order == 0 {
                    parties[who].member.reap()?;
                    parties[who].member.succeed()?;
                }
                let party = &parties[who];
                if who > 0 {
                    let value = party.word(0).load(Ordering::Relaxed);
                    party.exclusive(soon(&party.member), value).map(|_| ()).map_err(text)?;
                }
                Ok(())
            }),
            orders: 2,
            judge: Box::new(move || judge(&witness)),
            newcomer: Box::new(finds_nothing),
            places,
            heir: None,
            between: false,
        }
    }
}

fn judge(witness: &Party) -> Result<&'static str, String> {
    let (first, second) =
        (witness.word(0).load(Ordering::Relaxed), witness.word(1).load(Ordering::Relaxed));
    let shared = witness.lock().shared(witness.member.participant, soon(&witness.member));
    let readable = shared.map_err(text)?.is_some();
    ensure(!readable || first == second, || "readers were let in to half-changed data".into())?;
    let acquired = witness.exclusive(soon(&witness.member), first).map_err(text)?;
    ensure(acquired == Acquired::FromDead || first == second, || {
        format!("half-changed data was called clean: {first} and {second}")
    })?;
    ensure((acquired == Acquired::Clean) == readable, || {
        format!("readable: {readable}, but acquired: {acquired:?}")
    })?;
    let kind = match acquired {
        Acquired::Clean => "recovery found the lock clean",
        Acquired::FromDead => "recovery found the lock of a dead owner",
    };
    crate::explore::mark(kind);
    let again = witness.exclusive(Patience::Try, 5).map_err(text)?;
    ensure(again == Acquired::Clean, || "still dirty after the recovery".into())?;
    let shared = witness.lock().shared(witness.member.participant, Patience::Try).map_err(text)?;
    ensure(shared.is_some(), || "not readable after the recovery".into())?;
    drop(shared);
    witness.member.only_survivor();
    witness.member.reap()?;
    // SAFETY: the witness's only handle, leaked; its copy is not used any more.
    drop(unsafe { std::ptr::read(witness.segment) });
    witness.member.expect_objects(0)?;
    witness.member.end()?;
    Ok(if first == 0 { "before" } else { "after" })
}

fn exclusive(rescuers: usize) -> Case {
    scene(rescuers).case("lock-exclusive", |victim| {
        victim.exclusive(Patience::Forever, 7).map(|_| ()).expect("acquires");
        victim.exclusive(Patience::Try, 8).map(|_| ()).expect("acquires");
    })
}

fn shared(rescuers: usize) -> Case {
    scene(rescuers).case("lock-shared", |victim| {
        for patience in [Patience::Forever, Patience::Try, soon(&victim.member)] {
            let guard = victim.lock().shared(victim.member.participant, patience);
            drop(guard.expect("acquires").expect("clean"));
        }
        finish(victim);
    })
}

/// The last thing an operation does that leaves no other trace.
fn finish(victim: &Party) {
    victim.exclusive(Patience::Forever, 9).map(|_| ()).expect("acquires");
}

fn shared_twice(rescuers: usize) -> Case {
    scene(rescuers).case("lock-shared-twice", |victim| {
        let take = || victim.lock().shared(victim.member.participant, Patience::Try);
        let first = take().expect("acquires").expect("clean");
        let second = take().expect("acquires").expect("clean");
        let both = victim.exclusive(Patience::Try, 1);
        assert!(matches!(both, Err(LockError::WouldDeadlock)));
        drop((first, second));
        finish(victim);
    })
}

/// The guard is never dropped, and the process's last handle is; then the thread ends in order.
fn forgotten(rescuers: usize) -> Case {
    scene(rescuers).traceless("lock-shared-forgotten", |victim| {
        let guard = victim.lock().shared(victim.member.participant, Patience::Forever);
        std::mem::forget(guard.expect("acquires").expect("clean"));
        // SAFETY: the process's only handle, leaked; its copy is not used any more.
        drop(unsafe { std::ptr::read(victim.segment) });
        assert!(!victim.member.ns.unregister(victim.member.thread));
    })
}

/// A third holds it shared while the victim tries; it dies later.
fn beside_a_reader(rescuers: usize) -> Scene {
    let scene = scene(rescuers);
    let third = Party::start(ANCESTOR, Some(&scene.parties[0]));
    let guard = third.lock().shared(third.member.participant, Patience::Try);
    std::mem::forget(guard.expect("acquires"));
    scene
}

fn try_fails(rescuers: usize) -> Case {
    beside_a_reader(rescuers).traceless("lock-try-fails", |victim| {
        assert!(victim.exclusive(Patience::Try, 1).is_err());
    })
}

fn times_out(rescuers: usize) -> Case {
    beside_a_reader(rescuers).traceless("lock-exclusive-times-out", |victim| {
        assert!(victim.exclusive(soon(&victim.member), 1).is_err());
    })
}

fn after_dead_reader(rescuers: usize) -> Case {
    let scene = beside_a_reader(rescuers);
    system::kill(ANCESTOR);
    scene.case("lock-after-dead-reader", |victim| {
        victim.exclusive(soon(&victim.member), 1).map(|_| ()).expect("acquires");
    })
}

/// Somebody died amid a change.
fn after_an_owner(rescuers: usize) -> Scene {
    let scene = scene(rescuers);
    let third = Party::start(ANCESTOR, Some(&scene.parties[0]));
    std::mem::forget(
        third.lock().exclusive(third.member.participant, Patience::Try).expect("acquires"),
    );
    third.word(0).store(3, Ordering::Relaxed);
    system::kill(ANCESTOR);
    scene
}

fn after_dead_owner(rescuers: usize) -> Case {
    after_an_owner(rescuers).case("lock-after-dead-owner", |victim| {
        let acquired = victim.exclusive(soon(&victim.member), 4).expect("acquires");
        assert_eq!(acquired, Acquired::FromDead);
    })
}

fn shared_after_dead_owner(rescuers: usize) -> Case {
    after_an_owner(rescuers).case("lock-shared-after-dead-owner", |victim| {
        let guard = victim.lock().shared(victim.member.participant, soon(&victim.member));
        assert!(guard.expect("is told").is_none());
    })
}

/// Somebody who lives has it: no form is patient enough. He is dead when it is judged.
fn beside_owner(rescuers: usize) -> Case {
    let scene = scene(rescuers);
    let third = Party::start(ANCESTOR, Some(&scene.parties[0]));
    let guard = third.lock().exclusive(third.member.participant, Patience::Try);
    std::mem::forget(guard.expect("acquires"));
    scene.traceless("lock-beside-owner", |victim| {
        let participant = victim.member.participant;
        for patience in [Patience::Try, soon(&victim.member)] {
            assert!(victim.lock().shared(participant, patience).is_err());
            assert!(victim.lock().exclusive(participant, patience).is_err());
        }
    })
}

/// A reader that was there before takes it once more, and lets go of both.
fn nested(rescuers: usize) -> Case {
    let scene = scene(rescuers);
    let victim = scene.victim;
    let held = victim.lock().shared(victim.member.participant, Patience::Try);
    let held = std::cell::Cell::new(Some(held.expect("acquires").expect("clean")));
    scene.traceless("lock-shared-nested", move |victim| {
        let participant = victim.member.participant;
        let again = victim.lock().shared(participant, Patience::Forever);
        drop(again.expect("acquires").expect("clean"));
        drop(held.take());
        let both = victim.lock().shared(participant, Patience::Forever);
        drop(both.expect("acquires"));
    })
}

fn try_after_dead_owner(rescuers: usize) -> Case {
    after_an_owner(rescuers).traceless("lock-try-after-dead-owner", |victim| {
        let acquired = victim.exclusive(Patience::Try, 4).expect("acquires");
        assert_eq!(acquired, Acquired::FromDead);
        let shared = victim.lock().shared(victim.member.participant, Patience::Try);
        assert!(shared.expect("acquires").is_some());
    })
}

/// Who gets it from the dead does not say that all is well again: the next one is told, too.
fn left_unrecovered(rescuers: usize) -> Case {
    after_an_owner(rescuers).traceless("lock-left-unrecovered", |victim| {
        let participant = victim.member.participant;
        let guard = victim.lock().exclusive(participant, Patience::Forever).expect("acquires");
        assert_eq!(guard.acquired(), Acquired::FromDead);
        drop(guard);
    })
}

/// Several at once, let go of in another order.
fn many(rescuers: usize) -> Case {
    scene(rescuers).case("lock-many", |victim| {
        let participant = victim.member.participant;
        let locks = [1, 2, 3].map(|number: usize| {
            let at = number * 1024;
            // SAFETY: within the segment, of which this part is nobody else's.
            let place = unsafe { victim.segment.base().add(at) }.cast();
            // SAFETY: long enough and aligned.
            unsafe { RwLock::init(place, 20) };
            // SAFETY: built just now; the segment stays mapped.
            unsafe { LockRef::<RwLock>::new(place, victim.segment.lock_address(at as u64)) }
        });
        let shared = locks[0].shared(participant, Patience::Try).expect("acquires");
        let alone = locks[1].exclusive(participant, Patience::Try).expect("acquires");
        let last = locks[2].shared(participant, Patience::Try).expect("acquires");
        drop(shared);
        drop(alone);
        finish(victim);
        drop(last);
    })
}

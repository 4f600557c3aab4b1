//! A lock of a kind that is not the library's, held shared by who dies: swept by somebody who knows
//! such locks, or left alone by somebody who does not.

use std::time::Duration;

use dsm_core::lock::{LockRef, Patience, RawLock};
use dsm_core::segment::Segment;
use testkit::lock::BitLock;

use crate::case::{Case, Operation, Place, What};
use crate::member::{Member, RESCUER, VICTIM, WITNESS, ensure, finds_nothing, leak, mortals, text};

const CASES: [Operation; 1] = [Operation {
    name: "lock-of-another-kind",
    must: &["holds a lock shared", "holds a lock of the segment", SWEPT, LEFT],
    make: another_kind,
}];

pub(super) const ALL: &[Operation] = &CASES;

/// The reader's bit was cleared by the sweep, or found by who waited for it.
const SWEPT: &str = "the sweep cleared a lock of another kind";
const LEFT: &str = "a lock of another kind was left to those who know it";

type Foreign = BitLock<1>;

/// A process with the segment that begins with the lock.
#[derive(Clone, Copy)]
struct Party {
    member: Member,
    segment: &'static Segment<'static>,
}

impl Party {
    fn start(pid: u64, first: Option<&Party>) -> Self {
        let member = Member::start(pid);
        let segment = match first {
            None => {
                let segment = member.segment();
                // SAFETY: long enough, aligned to a page, and new.
                unsafe { Foreign::init(segment.base().cast(), 20) };
                segment
            }
            Some(first) => {
                let segment = member.ns.attach_segment(first.segment.handle());
                segment.expect("attaches").expect("is there")
            }
        };
        Self { member, segment: leak(segment) }
    }

    fn lock(&self) -> LockRef<'static, Foreign> {
        // SAFETY: built by the witness at the start of the segment, which stays mapped.
        unsafe { LockRef::new(self.segment.base().cast(), self.segment.lock_address(0)) }
    }

    fn readers(&self) -> u32 {
        // SAFETY: as above.
        unsafe { self.segment.base().cast::<Foreign>().as_ref() }.readers()
    }

    /// Bounded by much less than a process would wait for somebody who lives.
    fn soon(&self) -> Patience {
        Patience::Until(self.member.ns.platform().env.now() + Duration::from_millis(100))
    }

    /// Learns of such locks, as whoever uses one does.
    fn learn(&self) -> Result<(), String> {
        self.lock().shared(self.member.participant, self.soon()).map(drop).map_err(text)
    }

    fn exclusive(&self) -> Result<(), String> {
        let mut guard =
            self.lock().exclusive(self.member.participant, self.soon()).map_err(text)?;
        guard.mark_recovered();
        Ok(())
    }
}

fn another_kind(rescuers: usize) -> Case {
    let witness = Party::start(WITNESS, None);
    let victim = Party::start(VICTIM, Some(&witness));
    let others = (0..rescuers).map(|n| Party::start(RESCUER + n as u64, Some(&witness)));
    let parties: Vec<_> = std::iter::once(witness).chain(others).collect();
    let segment = witness.segment.handle().slot();
    Case {
        name: "lock-of-another-kind",
        mortals: mortals(rescuers),
        operate: Box::new(move || {
            for patience in [Patience::Forever, Patience::Try] {
                let guard = victim.lock().shared(victim.member.participant, patience);
                let again = victim.lock().shared(victim.member.participant, patience);
                drop((guard.expect("acquires"), again.expect("counts")));
            }
            victim.exclusive().expect("acquires");
        }),
        recover: Box::new(move |who, order| {
            let party = &parties[who];
            let before = party.readers();
            if order == 0 {
                party.learn()?;
            }
            party.member.reap()?;
            let left = party.readers();
            if order == 0 && before != 0 {
                ensure(left == 0, || "the sweep left a dead reader's bit".into())?;
                crate::explore::mark(SWEPT);
            }
            if order == 1 && who == 0 && left != 0 {
                crate::explore::mark(LEFT);
            }
            party.member.succeed()?;
            if who > 0 { party.exclusive() } else { Ok(()) }
        }),
        orders: 2,
        judge: Box::new(move || judge(&witness)),
        newcomer: Box::new(finds_nothing),
        places: vec![Place { slot: segment, offsets: 0..64, what: What::Segment }],
        heir: None,
        between: false,
    }
}

fn judge(witness: &Party) -> Result<&'static str, String> {
    witness.exclusive()?;
    witness.learn()?;
    ensure(witness.readers() == 0, || "a reader's bit is left".into())?;
    witness.member.only_survivor();
    witness.member.reap()?;
    // SAFETY: the witness's only handle, leaked; its copy is not used any more.
    drop(unsafe { std::ptr::read(witness.segment) });
    witness.member.expect_objects(0)?;
    witness.member.end()?;
    Ok("after")
}

//! Areas in place: in a range of a segment that is somebody's own.
//!
//! Such an area has no handle; what it grows by lives as long as the segment that it lies in.

use std::ops::Range;

use dsa_core::{AreaLocal, DsaPointer, Error};
use dsm_core::segment::Segment;

use super::area_kit::{A, Kit, options};
use crate::case::{Case, Operation, Place, What};
use crate::member::{Member, RESCUER, VICTIM, WITNESS, ensure, finds_nothing, leak, mortals, text};

const CASES: [Operation; 5] = [
    Operation { name: "place-create", must: &["after"], make: create },
    Operation { name: "place-attach", must: &["after"], make: attach },
    Operation {
        name: "place-grow",
        must: &[
            "before",
            "after",
            "holds both locks of the area",
            "holds the control lock and another",
            "an object is sized",
        ],
        make: grow,
    },
    Operation {
        name: "place-destroy",
        must: &["before", "after", "an object is removed", "holds a lock of the area"],
        make: destroy,
    },
    Operation { name: "place-release", must: &["after", "holds the control lock"], make: release },
];

pub(super) const ALL: &[Operation] = &CASES;

/// Where the area lies: not at the start.
const PLACE: Range<usize> = 4096..64 << 10;

/// A process with the segment, and with the area if there is one.
#[derive(Clone, Copy)]
struct Party {
    member: Member,
    segment: &'static Segment<'static>,
    kit: Option<Kit>,
}

impl Party {
    fn start(pid: u64, first: Option<&Party>, area: bool) -> Self {
        let member = Member::start(pid);
        let segment = leak(match first {
            None => member.segment(),
            Some(first) => {
                let segment = member.ns.attach_segment(first.segment.handle());
                segment.expect("attaches").expect("is there")
            }
        });
        let mut party = Self { member, segment, kit: None };
        if area {
            party.kit = Some(if first.is_none() { party.create() } else { party.attach() });
        }
        party
    }

    fn create(&self) -> Kit {
        let local = leak(AreaLocal::new());
        // SAFETY: the range is used for nothing else.
        let area = unsafe { A::create_in_place(self.segment, PLACE, &options(), local) };
        Kit::of(self.member, leak(area.expect("creates")))
    }

    fn attach(&self) -> Kit {
        let local = leak(AreaLocal::new());
        // SAFETY: as above; created by somebody else.
        let area = unsafe { A::attach_in_place(self.segment, PLACE, local) };
        Kit::of(self.member, leak(area.expect("attaches")))
    }
}

/// Whether there is an area, and whether the victim has attached it.
fn parties(rescuers: usize, area: bool, victims: bool) -> (Vec<Party>, Party) {
    let witness = Party::start(WITNESS, None, area);
    let victim = Party::start(VICTIM, Some(&witness), victims);
    let rescuers = (0..rescuers).map(|n| Party::start(RESCUER + n as u64, Some(&witness), area));
    (std::iter::once(witness).chain(rescuers).collect(), victim)
}

/// `known` are objects of the area; the operation may add one that only its caller knows.
fn case(
    name: &'static str,
    (parties, victim): (Vec<Party>, Party),
    known: Vec<DsaPointer>,
    operate: impl Fn(&Party) + 'static,
) -> Case {
    let witness = parties[0];
    let slot = witness.segment.handle().slot();
    Case {
        name,
        mortals: mortals(parties.len() - 1),
        operate: Box::new(move || operate(&victim)),
        recover: Box::new(move |who, order| {
            if order == 0 {
                parties[who].member.reap()?;
                parties[who].member.succeed()?;
            }
            parties[who].kit.map_or(Ok(()), |kit| kit.heap.maintain().map_err(text))
        }),
        orders: 2,
        judge: Box::new(move || judge(&witness, &known)),
        newcomer: Box::new(finds_nothing),
        heir: None,
        between: false,
        places: vec![Place { slot, offsets: 4096..4096 + 8192, what: What::Area }],
    }
}

fn judge(witness: &Party, known: &[DsaPointer]) -> Result<&'static str, String> {
    // If nobody else had one there, one is made anew over whatever the victim left.
    let kit = witness.kit.unwrap_or_else(|| witness.create());
    let report = kit.area.check(witness.member.participant).map_err(text)?;
    ensure(report.unpublished == 0, || "an unpublished object is left".into())?;
    let lost = report.objects.checked_sub(known.len() as u64);
    let lost = lost.filter(|lost| *lost <= 1).ok_or(format!("{} objects", report.objects))?;
    for pointer in known {
        kit.free(*pointer)?;
    }
    kit.is_empty(lost)?;
    kit.works()?;
    kit.is_empty(lost)?;
    kit.detach();
    end(witness)?;
    Ok(if lost == 0 { "before" } else { "after" })
}

/// The place goes, and with it all.
fn end(witness: &Party) -> Result<(), String> {
    // SAFETY: the witness's only handle, leaked; its copy is not used any more.
    drop(unsafe { std::ptr::read(witness.segment) });
    witness.member.only_survivor();
    witness.member.reap()?;
    witness.member.expect_objects(0)?;
    witness.member.end()
}

/// What leaves nothing that could be told from nothing.
fn traceless(case: Case) -> Case {
    let judge = case.judge;
    Case { judge: Box::new(move || judge().map(|_| "after")), ..case }
}

fn create(rescuers: usize) -> Case {
    traceless(case("place-create", parties(rescuers, false, false), Vec::new(), |v| {
        v.create();
    }))
}

fn attach(rescuers: usize) -> Case {
    traceless(case("place-attach", parties(rescuers, true, false), Vec::new(), |v| {
        v.attach();
    }))
}

/// The area has no room left: it grows by a segment that is pinned under its own.
fn grow(rescuers: usize) -> Case {
    let (parties, victim) = parties(rescuers, true, true);
    let kit = parties[0].kit.expect("has the area");
    let known = vec![kit.allocate(20_000), kit.allocate(100_000)];
    case("place-grow", (parties, victim), known, |v| {
        v.kit.expect("has the area").allocate(120_000);
    })
}

fn release(rescuers: usize) -> Case {
    let (parties, victim) = parties(rescuers, true, true);
    let kit = parties[0].kit.expect("has the area");
    let known = vec![kit.allocate(100_000)];
    traceless(case("place-release", (parties, victim), known, |v| {
        let kit = v.kit.expect("has the area");
        kit.heap.maintain().expect("maintains");
        kit.detach();
        // SAFETY: leaked, and the copy is not used any more.
        drop(unsafe { std::ptr::read(v.segment) });
    }))
}

/// What the area has grown by goes, at the latest with its place.
fn destroy(rescuers: usize) -> Case {
    let (parties, mut victim) = parties(rescuers, false, false);
    let (witness, kit) = (parties[0], victim.create());
    victim.kit = Some(kit);
    for _ in 0..3 {
        kit.allocate(100_000);
    }
    let case = case("place-destroy", (parties, victim), Vec::new(), move |v| {
        // SAFETY: leaked, and the copy is not used any more.
        let area = unsafe { std::ptr::read(kit.area) };
        // SAFETY: nobody else has the area.
        unsafe { area.destroy_in_place(v.member.participant) }.expect("destroys");
    });
    let judge = move || {
        let local = leak(AreaLocal::new());
        // SAFETY: as above; created by the victim.
        let area = unsafe { A::attach_in_place(witness.segment, PLACE, local) };
        let outcome = match area {
            Ok(area) => {
                let report = area.check(witness.member.participant).map_err(text)?;
                ensure(report.objects == 3, || format!("{} objects", report.objects))?;
                "before"
            }
            Err(Error::NotAnArea) => "after",
            Err(error) => return Err(text(error)),
        };
        end(&witness)?;
        Ok(outcome)
    };
    Case { judge: Box::new(judge), ..case }
}

//! Objects that one word names after the other: published by one, taken or moved by another, freed
//! by a third; with words in the area, and in a segment that has nothing to do with it.
//!
//! The oracle: each object is named by one word, or by none and free; two words never name one; all
//! keep their bytes. In two of the orders of recovery the one who comes across the dead is a
//! consumer, who knows of no death: it takes (or moves) what it finds, has the property of the dead
//! looked for, and allocates. What a producer had not yet said to be published must not be given
//! out a second time.

use dsa_core::{AtomicDsaPointer, DsaPointer, Flags};
use dsm_core::handle::SegmentHandle;
use dsm_core::sync::Ordering;

use super::area_kit::{Kit, Scene, fill, filled};
use super::objects::{Objects, at_the_brink, more_slabs, objects};
use crate::case::{Case, Operation};
use crate::member::{ensure, finds_nothing, mortals, text};

const LOCKS: &[&str] = &["before", "after", "taken by another", "holds a lock of the area"];
const NO_LOCK: &[&str] = &["before", "after", "taken by another"];
const IN_HAND: &[&str] = &["before", "object lost", "after", "taken by another"];

const fn operation(
    name: &'static str,
    must: &'static [&'static str],
    make: fn(usize) -> Case,
) -> Operation {
    Operation { name, must, make }
}

const CASES: [Operation; 15] = [
    operation("allocate-into-and-taken", NO_LOCK, |n| {
        Words::new(n, 64, At::Area).warm().publishes("allocate-into-and-taken")
    }),
    operation("allocate-into-and-taken-refill", LOCKS, |n| {
        Words::new(n, 1024, At::Area).at_the_brink().publishes("allocate-into-and-taken-refill")
    }),
    operation("allocate-into-and-taken-large", LOCKS, |n| {
        Words::new(n, 20_000, At::Area).publishes("allocate-into-and-taken-large")
    }),
    operation("allocate-into-a-segment", LOCKS, |n| {
        Words::new(n, 64, At::Segment).warm().publishes("allocate-into-a-segment")
    }),
    operation("allocate-into-a-segment-large", LOCKS, |n| {
        Words::new(n, 20_000, At::Segment).publishes("allocate-into-a-segment-large")
    }),
    operation("take-small", IN_HAND, |n| Words::new(n, 64, At::Area).linked().takes("take-small")),
    operation("take-large", IN_HAND, |n| {
        Words::new(n, 20_000, At::Area).linked().takes("take-large")
    }),
    operation("take-from-a-segment", IN_HAND, |n| {
        Words::new(n, 64, At::Segment).linked().takes("take-from-a-segment")
    }),
    operation("move-small", LOCKS, |n| Words::new(n, 64, At::Area).linked().moves("move-small")),
    operation("move-large", LOCKS, |n| {
        Words::new(n, 20_000, At::Area).linked().moves("move-large")
    }),
    operation("move-in-a-segment", LOCKS, |n| {
        Words::new(n, 64, At::Segment).linked().moves("move-in-a-segment")
    }),
    operation("move-to-a-segment", LOCKS, |n| {
        Words::new(n, 64, At::ToSegment).linked().moves("move-to-a-segment")
    }),
    operation("move-to-a-segment-large", LOCKS, |n| {
        Words::new(n, 20_000, At::ToSegment).linked().moves("move-to-a-segment-large")
    }),
    operation("free-from-a-segment", LOCKS, |n| {
        Words::new(n, 64, At::Segment).linked().frees("free-from-a-segment")
    }),
    operation("free-from-a-segment-large", LOCKS, |n| {
        Words::new(n, 20_000, At::Segment).linked().frees("free-from-a-segment-large")
    }),
];

pub(super) const ALL: &[Operation] = &CASES;

/// Where the words lie. There are four: what the case is about, where it goes, where a consumer
/// puts it, and what that one allocates.
#[derive(Clone, Copy, PartialEq, Eq)]
enum At {
    Area,
    Segment,
    /// The first in the area, the others in a segment.
    ToSegment,
}

/// What a case does to the object that the first word names.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Effect {
    Publishes,
    Takes,
    Moves,
    Frees,
}

/// The words, as anybody finds them who has the area.
#[derive(Clone, Copy)]
struct Place {
    at: At,
    cells: DsaPointer,
    /// Kept by a pin alone: who recovers need not have it mapped.
    segment: SegmentHandle,
    size: usize,
}

impl Place {
    /// A word, mapped for good.
    fn word(&self, kit: &Kit, index: usize) -> &'static AtomicDsaPointer {
        if self.at == At::Area || self.at == At::ToSegment && index == 0 {
            return kit.cell(self.cells, index as u64);
        }
        let ns = kit.member.ns;
        let base = match ns.find_mapping(self.segment) {
            Some(mapped) => mapped.base(),
            None => {
                let raw = ns.attach_segment(self.segment).expect("attaches").expect("is there");
                raw.into_raw().base
            }
        };
        // SAFETY: inside the segment.
        let at = unsafe { base.cast::<AtomicDsaPointer>().add(index) };
        // SAFETY: words, which stay mapped as long as anybody looks at them.
        unsafe { at.as_ref() }
    }

    fn named(&self, kit: &Kit, index: usize) -> DsaPointer {
        self.word(kit, index).load(Ordering::Acquire)
    }

    fn allocate_into(&self, kit: &Kit, index: usize) -> DsaPointer {
        let (word, size) = (self.word(kit, index), self.size);
        let init = |at| fill(at, size);
        kit.heap.allocate_into(size, 8, Flags::empty(), word, init).expect("allocates")
    }

    fn move_between(&self, kit: &Kit, from: usize, to: usize) -> Result<DsaPointer, String> {
        // SAFETY: the words are used for nothing else.
        let moved = unsafe { kit.heap.move_between(self.word(kit, from), self.word(kit, to)) };
        moved.map_err(text)
    }

    fn free_from(&self, kit: &Kit, index: usize) -> Result<(), String> {
        // SAFETY: nobody uses the object, nor the word for something else.
        unsafe { kit.heap.free_from(self.word(kit, index)) }.map_err(text)
    }

    /// Lets go of the segment, which ends it.
    fn end(&self, kit: &Kit) -> Result<(), String> {
        if let Some(mapped) = kit.member.ns.find_mapping(self.segment) {
            let raw = mapped.into_raw();
            for _ in 0..2 {
                // SAFETY: the handle that `word` leaked, and the one just got.
                drop(unsafe { dsm_core::segment::Segment::from_raw(kit.member.ns, raw) });
            }
        }
        kit.member.ns.unpin_segment(self.segment).map_err(text)
    }
}

struct Words {
    objects: Objects,
    place: Place,
}

impl Words {
    fn new(rescuers: usize, size: usize, at: At) -> Self {
        let objects = objects(rescuers);
        let ns = objects.witness().member.ns;
        let segment = ns.create_object(4096, 4096).expect("creates");
        // SAFETY: new memory, which may hold anything.
        unsafe { segment.base().as_ptr().write_bytes(0, 4096) };
        ns.pin_segment(segment.handle()).expect("pins");
        let place = Place { at, cells: objects.cells, segment: segment.handle(), size };
        Self { objects, place }
    }

    fn warm(self) -> Self {
        Self { objects: self.objects.warm(self.place.size), ..self }
    }

    fn at_the_brink(self) -> Self {
        Self { objects: at_the_brink(self.objects, self.place.size, more_slabs), ..self }
    }

    /// The first word names an object of the witness's.
    fn linked(self) -> Self {
        let witness = self.objects.witness();
        self.place.allocate_into(&witness, 0);
        if self.place.at != At::Area {
            // It has the segment mapped no longer.
            let ns = witness.member.ns;
            let raw = ns.find_mapping(self.place.segment).map(|mapped| mapped.into_raw());
            for _ in 0..2 {
                // SAFETY: the handle that `word` leaked, and the one just got.
                let handle =
                    raw.map(|raw| unsafe { dsm_core::segment::Segment::from_raw(ns, raw) });
                drop(handle);
            }
        }
        self
    }

    fn publishes(self, name: &'static str) -> Case {
        self.case(name, Effect::Publishes, |v, place| {
            place.allocate_into(v, 0);
        })
    }

    /// Into a word of the victim's own, by a plain store.
    fn takes(self, name: &'static str) -> Case {
        self.case(name, Effect::Takes, |v, place| {
            let taken = v.heap.take(place.word(v, 0)).expect("takes");
            place.word(v, 1).store(taken, Ordering::Release);
        })
    }

    fn moves(self, name: &'static str) -> Case {
        self.case(name, Effect::Moves, |v, place| {
            place.move_between(v, 0, 1).expect("moves");
        })
    }

    fn frees(self, name: &'static str) -> Case {
        self.case(name, Effect::Frees, |v, place| place.free_from(v, 0).expect("frees"))
    }

    fn case(
        self,
        name: &'static str,
        effect: Effect,
        operate: impl Fn(&Kit, &Place) + 'static,
    ) -> Case {
        let (place, known) = (self.place, self.objects.known().to_vec());
        let Scene { kits, victim } = self.objects.scene;
        let witness = kits[0];
        let rescuers = kits.len() - 1;
        let inherited = known.clone();
        // The victim has the words mapped.
        place.word(&victim, 1);
        let heir = witness.heir(move |kit| {
            recover(&kit, 0, 0, &place)?;
            judge(&kit, &inherited, &place, effect)
        });
        Case {
            name,
            mortals: mortals(rescuers),
            operate: Box::new(move || operate(&victim, &place)),
            recover: Box::new(move |who, order| recover(&kits[who], who, order, &place)),
            orders: 4,
            judge: Box::new(move || judge(&witness, &known, &place, effect)),
            newcomer: Box::new(finds_nothing),
            places: vec![witness.place()],
            heir,
            between: false,
        }
    }
}

fn recover(kit: &Kit, who: usize, order: usize, place: &Place) -> Result<(), String> {
    match order {
        0 => {
            kit.member.reap()?;
            kit.member.succeed()?;
        }
        1 => {}
        _ => consume(kit, who, order, place)?,
    }
    kit.heap.maintain().map_err(text)?;
    if order >= 2 && who == 0 {
        // A newly found object, if there is room for one among those of the dead.
        let new = place.allocate_into(kit, 3);
        ensure(place.named(kit, 2) != new, || format!("{new:?} has two owners"))?;
    }
    Ok(())
}

/// Somebody who knows of no death gets what the words name. A rescuer, who may be killed, moves it.
fn consume(kit: &Kit, who: usize, order: usize, place: &Place) -> Result<(), String> {
    for index in 0..2 {
        let before = place.named(kit, 2);
        let got = if who == 0 && order == 2 {
            let taken = kit.heap.take(place.word(kit, index)).map_err(text)?;
            if taken.is_valid() {
                ensure(!before.is_valid(), || "two words name objects".into())?;
                place.word(kit, 2).store(taken, Ordering::Release);
            }
            taken
        } else {
            place.move_between(kit, index, 2)?
        };
        ensure(!got.is_valid() || !before.is_valid(), || "two words name objects".into())?;
    }
    Ok(())
}

fn judge(
    witness: &Kit,
    known: &[(DsaPointer, usize)],
    place: &Place,
    effect: Effect,
) -> Result<&'static str, String> {
    let report = witness.area.check(witness.member.participant).map_err(text)?;
    ensure(report.unpublished == 0, || "an unpublished object is left".into())?;
    let named: Vec<_> = (0..4).map(|index| place.named(witness, index)).collect();
    let valid: Vec<_> = named.iter().copied().filter(|object| object.is_valid()).collect();
    for (index, object) in valid.iter().enumerate() {
        ensure(!valid[..index].contains(object), || format!("two words name {object:?}"))?;
    }
    // The one that the case is about, wherever it is by now.
    let object = named[..3].iter().position(|object| object.is_valid());
    let accounted = known.len() as u64 + 1 + valid.len() as u64;
    let lost = u64::from(effect == Effect::Takes && object.is_none());
    ensure(report.objects == accounted + lost, || {
        format!("{} objects, {accounted} accounted for, {lost} in hand: {named:?}", report.objects)
    })?;
    let outcome = match (effect, object) {
        (_, Some(2)) => "taken by another",
        (Effect::Publishes, Some(_)) | (Effect::Frees, None) => "after",
        (Effect::Publishes, None) => "before",
        (Effect::Takes, None) => "object lost",
        (Effect::Moves, None) => return Err("what was to be moved is free".into()),
        (_, Some(0)) => "before",
        (_, Some(_)) => "after",
    };
    witness.works()?;
    let published = valid.iter().map(|object| (*object, filled(place.size)));
    for object in known.iter().copied().chain(published) {
        witness.is_whole(object)?;
    }
    for (pointer, _) in known {
        witness.free(*pointer)?;
    }
    (0..4).try_for_each(|index| place.free_from(witness, index))?;
    for index in 0..4 {
        ensure(!place.named(witness, index).is_valid(), || "a word names what was freed".into())?;
    }
    witness.free(place.cells)?;
    place.end(witness)?;
    witness.is_empty(lost)?;
    witness.works()?;
    witness.is_empty(lost)?;
    witness.end()?;
    Ok(outcome)
}

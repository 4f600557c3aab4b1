//! Models of the allocator: objects of slabs and runs of pages, allocated, freed, handed over and
//! published by several processes, some of which die.
//!
//! An observer that has nothing to do with shared memory knows who owns which object. No object is
//! given out twice; each keeps its bytes; whoever survives frees all that is known. Then nothing is
//! used, but for one object of each victim that had it in hand: allocated and not yet noted, or
//! taken from where it was known and not yet freed. What was allocated into a word is never lost.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;

use dsa_core::{AtomicDsaPointer, DsaPointer, Error, Flags};
use dsm_core::sync::{Ordering, shuttle};

use crate::found::mark;
use crate::look::held_by;
use crate::model::Model;
use crate::play::{Ended, Play};
use crate::world::{Kit, all_leave, keep};

pub(crate) const MODELS: &[Model] = &[
    Model {
        name: "area-slabs",
        about: "three processes allocate, free, and free what others allocated, few objects a slab",
        mortals: 2,
        share: 60,
        kinds: &[
            "frees its own",
            "frees another's",
            "holds a lock of the area",
            "holds no lock",
            "somebody is dead already",
            "slabs of the dead are adopted",
            "an object is in the hands of the dead",
            "two die",
        ],
        act: |play| churn(play, &[1000, 1000, 40, 600]),
    },
    Model {
        name: "area-runs",
        about: "three processes allocate and free runs of pages and segments, and trim",
        mortals: 2,
        share: 40,
        kinds: &[
            "frees another's",
            "holds both locks of the area",
            "holds the control lock",
            "a segment is half made or half removed",
            "somebody is dead already",
            "trims",
            "an object is in the hands of the dead",
            "two die",
        ],
        act: |play| churn(play, &[9000, 20_000, 40_000, 70_000]),
    },
    Model {
        name: "area-publish",
        about: "two processes allocate into words and move what these name, a third takes what it finds \
                there, who lives frees from the words of the dead",
        mortals: 2,
        share: 60,
        kinds: &[
            "moves",
            "finds the other word full",
            "has it when the dead are looked for",
            "an unpublished object is left",
            "a published object is left",
            "the word is empty",
            "takes",
            "frees from the word of the dead",
            "an object is in the hands of the dead",
            "holds a lock of the area",
            "somebody is dead already",
            "two die",
        ],
        act: |play| publish(play, [1000, 1000, 12_000]),
    },
    Model {
        name: "area-publish-runs",
        about: "as area-publish, but all objects are runs of pages, each of which fits where any other was",
        mortals: 2,
        share: 60,
        kinds: &[
            "an unpublished object is left",
            "a published object is left",
            "takes",
            "holds a lock of the area",
            "somebody is dead already",
            "two die",
        ],
        act: |play| publish(play, [12_000; 3]),
    },
];

/// Which objects there are, and who allocated them.
#[derive(Default)]
struct Known {
    objects: RefCell<BTreeMap<u64, usize>>,
}

impl Known {
    fn note(&self, who: usize, kit: &Kit, pointer: DsaPointer) {
        let bytes = pointer.raw().to_ne_bytes();
        // SAFETY: models use objects through checked copies only.
        unsafe { kit.area.copy_in(pointer, 0, &bytes) }.expect("is an object");
        let before = self.objects.borrow_mut().insert(pointer.raw(), who);
        assert_eq!(before, None, "an object is given out twice");
    }

    /// Takes some object, of `who` or of others: it is in the caller's hands.
    fn take(&self, who: usize, own: bool) -> Option<DsaPointer> {
        let mut objects = self.objects.borrow_mut();
        let fitting: Vec<_> = objects
            .iter()
            .filter(|(_, owner)| (**owner == who) == own)
            .map(|(raw, _)| *raw)
            .collect();
        let chosen = shuttle::random(fitting.len().max(1) as u64) as usize;
        let raw = fitting.get(chosen).copied()?;
        objects.remove(&raw);
        Some(DsaPointer::from_raw(raw))
    }
}

const STEPS: usize = 9;

fn free(kit: &Kit, pointer: DsaPointer) {
    let mut bytes = [0; 8];
    // SAFETY: as above.
    unsafe { kit.area.copy_out(pointer, 0, &mut bytes) }.expect("is an object");
    assert_eq!(bytes, pointer.raw().to_ne_bytes(), "an object was changed");
    kit.free(pointer);
}

fn allocate(who: usize, kit: &Kit, known: &Known, size: usize) {
    let pointer = kit.heap.allocate(size).expect("there is memory");
    known.note(who, kit, pointer);
}

fn free_one(who: usize, kit: &Kit, known: &Known, own: bool) {
    if let Some(pointer) = known.take(who, own) {
        free(kit, pointer);
        mark(if own { "frees its own" } else { "frees another's" });
    }
}

fn churn(play: &mut Play, sizes: &'static [usize]) {
    let kits = Kit::several(4);
    let known: &Known = keep(Known::default());
    // What all begin with: some objects of each, so that there is something to free.
    for (who, kit) in kits.iter().enumerate().take(3) {
        sizes.iter().for_each(|size| allocate(who, kit, known, *size));
    }
    for (who, kit) in kits.iter().copied().enumerate().take(3) {
        play.actor(kit.member.process, move || {
            for _ in 0..STEPS {
                match shuttle::random(8) {
                    0..=3 => {
                        let size = sizes[shuttle::random(sizes.len() as u64) as usize];
                        allocate(who, &kit, known, size);
                    }
                    4 | 5 => free_one(who, &kit, known, true),
                    6 => free_one(who, &kit, known, false),
                    _ => {
                        kit.heap.trim().expect("trims");
                        mark("trims");
                    }
                }
            }
        });
    }
    look_at_locks(play, &kits);
    let ended = play.perform();
    judge(&kits, known, &ended, ended.deaths() as u64, &[]);
}

fn look_at_locks(play: &mut Play, kits: &[Kit]) {
    let kits = kits.to_vec();
    play.look(move |who| {
        let slot = kits[who].handle().slot();
        let held = held_by(kits[who].member.process);
        match held.iter().filter(|(_, at, _)| at.slot() == slot).count() {
            0 => {}
            1 => mark("holds a lock of the area"),
            _ => mark("holds both locks of the area"),
        }
    });
}

/// The observer frees all that is known and finds the area empty.
fn judge(kits: &[Kit], known: &Known, ended: &Ended, may_be_lost: u64, extra: &[DsaPointer]) {
    let judge = kits.last().expect("an observer");
    let found = judge.area.check(judge.me).expect("is sound");
    let all: Vec<_> = known.objects.borrow().keys().copied().collect();
    // Those of the dead are adopted when somebody looks for room.
    judge.heap.maintain().expect("maintains");
    let swept = judge.area.check(judge.me).expect("is sound");
    assert_eq!(swept.unpublished, 0, "an unpublished object of the dead is left");
    if ended.deaths() > 0 && swept.abandoned_slabs < found.abandoned_slabs {
        mark("slabs of the dead are adopted");
    }
    for raw in all {
        free(judge, DsaPointer::from_raw(raw));
    }
    extra.iter().for_each(|pointer| judge.free(*pointer));
    if judge.is_empty(may_be_lost) > 0 {
        mark("an object is in the hands of the dead");
    }
    all_leave(kits, ended);
}

/// Words that name objects: two of each of two owners. What is in the first of them anybody may
/// take.
const WORDS: usize = 4;

struct Words {
    object: DsaPointer,
    /// Bit of each owner: somebody cleans up after it.
    heirs: Cell<u8>,
}

impl Words {
    fn word(&self, kit: &Kit, index: usize) -> &'static AtomicDsaPointer {
        let at = self.object.add(index as u64 * 8);
        // SAFETY: inside an object that is freed when all is over.
        unsafe { kit.area.as_ref(at.cast()) }.expect("is mapped")
    }
}

fn fill(kit: &Kit, word: &AtomicDsaPointer, size: usize) {
    // Zeroing a run would be most of an execution's points.
    let flags = if size > 8192 { Flags::empty() } else { Flags::ZERO };
    kit.heap.allocate_into(size, 8, flags, word, |_| shuttle::point()).expect("there is memory");
}

fn empty(kit: &Kit, word: &AtomicDsaPointer) {
    // SAFETY: whoever looks at the word while it is being emptied is a model that does not follow
    // it.
    unsafe { kit.heap.free_from(word) }.expect("names an object, or nothing");
}

fn own_words(who: usize, kit: &Kit, words: &Words, sizes: [usize; 3]) {
    let (open, own) = (words.word(kit, 2 * who), words.word(kit, 2 * who + 1));
    for round in 0..3 {
        let size = sizes[round % 3];
        if !open.load(Ordering::Acquire).is_valid() {
            fill(kit, open, size);
        }
        fill(kit, own, size);
        // SAFETY: the words are used for nothing else.
        match unsafe { kit.heap.move_between(own, open) } {
            Ok(_) => mark("moves"),
            Err(Error::Occupied(_)) => {
                mark("finds the other word full");
                empty(kit, own);
            }
            Err(error) => panic!("{error}"),
        }
    }
    fill(kit, own, sizes[0]);
}

fn take(who: usize, kit: &Kit, words: &Words) {
    for round in 0..8 {
        let word = words.word(kit, 2 * (round % 2));
        let pointer = kit.heap.take(word).expect("names an object, or nothing");
        if pointer.is_valid() {
            if (0..2).any(shuttle::is_dead) {
                mark("has it when the dead are looked for");
                kit.heap.maintain().expect("maintains");
            }
            kit.free(pointer);
            mark("takes");
        }
        for owner in (0..2).filter(|owner| *owner != who && shuttle::is_dead(*owner)) {
            let heirs = words.heirs.get();
            if heirs & 1 << owner == 0 {
                words.heirs.set(heirs | 1 << owner);
                mark("frees from the word of the dead");
                empty(kit, words.word(kit, 2 * owner + 1));
            }
        }
        shuttle::point();
    }
}

fn publish(play: &mut Play, sizes: [usize; 3]) {
    let kits = Kit::several(4);
    let object = kits[3].heap.allocate_extended(WORDS * 8, Flags::ZERO).expect("there is memory");
    let words: &Words = keep(Words { object, heirs: Cell::new(0) });
    for (who, kit) in kits.iter().copied().enumerate().take(3) {
        play.actor(kit.member.process, move || match who {
            2 => take(who, &kit, words),
            _ => own_words(who, &kit, words, sizes),
        });
    }
    look_at_locks(play, &kits);
    let ended = play.perform();
    let judge_kit = &kits[3];
    let found = judge_kit.area.check(judge_kit.me).expect("is sound");
    mark(match found.unpublished {
        0 => "all objects are published",
        _ => "an unpublished object is left",
    });
    judge_kit.heap.maintain().expect("maintains");
    for index in 0..WORDS {
        let word = words.word(judge_kit, index);
        let named = word.load(Ordering::Acquire).is_valid();
        mark(if named { "a published object is left" } else { "the word is empty" });
        empty(judge_kit, word);
        assert!(!word.load(Ordering::Acquire).is_valid(), "a word names what was freed");
    }
    // Who takes has the object in hand until it is freed.
    let may_be_lost = u64::from(ended.dead[2]);
    judge(&kits, keep(Known::default()), &ended, may_be_lost, &[object]);
}

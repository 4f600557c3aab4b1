//! Objects and the words that name them, wherever those lie; and processes that are killed as they
//! fill, empty and move.

use std::time::Duration;

use dsm_registry::{
    Area, AreaError, AtomicDsaPointer, DsaPtr, Error, ErrorKind, FreeError, Registry,
};
use zerocopy::{FromBytes, KnownLayout};

use crate::support::{Part, Roles, Space};

pub(crate) const ROLES: Roles = &[("produce", produce)];

#[derive(FromBytes, KnownLayout)]
struct Job {
    number: u64,
    input: AtomicDsaPointer,
}

fn named(word: &AtomicDsaPointer) -> DsaPtr<u64> {
    word.load(std::sync::atomic::Ordering::Acquire).cast()
}

fn none() -> DsaPtr<u64> {
    DsaPtr::INVALID
}

#[test]
fn words_lie_in_segments_areas_and_values() {
    let space = Space::new("words");
    let registry = space.open();
    let area = registry.area("area").unwrap();
    let other = registry.area("other").unwrap();
    let head = registry.segment::<[AtomicDsaPointer; 2]>("head", |_| Ok(())).unwrap();
    let jobs = registry.hash::<u64, Job>("jobs").unwrap();
    jobs.insert(&1, Job { number: 5, input: AtomicDsaPointer::default() }).unwrap();
    let cell = other.allocate(AtomicDsaPointer::default()).unwrap();
    // SAFETY: an object, which is freed at the end.
    let cell = unsafe { other.as_ref(cell) }.unwrap();
    // Through a guard alone, and one that others may have as well.
    for shared in [false, true] {
        let check = |word: &AtomicDsaPointer| {
            let small = area.allocate_into(7_u64, word).unwrap();
            assert_eq!((named(word), area.read(small).unwrap()), (small, 7));
            // SAFETY: nobody uses the object.
            unsafe { area.free_from(word) }.unwrap();
            assert_eq!(named(word), none());
            let large = area.allocate_slice_into(&[8_u64; 5000], word).unwrap();
            assert_eq!(
                (named(word), area.read_slice(large).unwrap()),
                (large.first(), vec![8; 5000])
            );
            // From a segment, and to it.
            let moved = area.move_between::<u64>(word, &head[0]);
            match moved.map_err(Error::into_kind) {
                Ok(moved) => assert_eq!((moved, named(word)), (large.first(), none())),
                Err(ErrorKind::InvalidOption { what: "from", .. }) => {
                    assert_eq!(named(word), large.first());
                    return Some(area.take::<u64>(word).unwrap());
                }
                Err(error) => panic!("{error}"),
            }
            assert_eq!(area.move_between::<u64>(&head[0], word).unwrap(), large.first());
            assert_eq!((named(&head[0]), named(word)), (none(), large.first()));
            assert_eq!(area.take::<u64>(word).unwrap(), large.first());
            // SAFETY: nobody uses the object.
            unsafe { area.free(large.first()) }.unwrap();
            None
        };
        assert_eq!((check(&head[1]), check(cell)), (None, None));
        let refused = if shared {
            check(&jobs.find(&1).unwrap().unwrap().input)
        } else {
            check(&jobs.find_mut(&1).unwrap().unwrap().input)
        };
        // What is in a value can be had by `take` alone, and put into it by a move.
        let object = refused.expect("a move from a value is refused");
        area.allocate_into(9_u64, &head[0]).unwrap();
        let mut job = jobs.find_mut(&1).unwrap().unwrap();
        let nine = area.move_between::<u64>(&head[0], &job.input).unwrap();
        assert_eq!((area.read(nine).unwrap(), named(&job.input)), (9, nine));
        job.number += 1;
        let occupied = area.move_between::<u64>(&head[0], &job.input);
        assert_eq!(occupied.unwrap(), none(), "there was nothing to move");
        // SAFETY: nobody uses the objects.
        unsafe { area.free_from(&job.input) }.unwrap();
        // SAFETY: as above.
        unsafe { area.free(object) }.unwrap();
    }
    assert_eq!(area.check().unwrap().objects, 0);
    assert_eq!(jobs.find(&1).unwrap().unwrap().number, 7);
    drop((registry, area, other, head, jobs));
}

#[test]
fn what_is_wrong_is_said_and_changes_nothing() {
    let space = Space::new("words-errors");
    let registry = space.open();
    let area = registry.area("area").unwrap();
    let other = registry.area("other").unwrap();
    let head = registry.segment::<[AtomicDsaPointer; 2]>("head", |_| Ok(())).unwrap();
    let outside = AtomicDsaPointer::default();
    let foreign = |result: Result<DsaPtr<u64>, Error>| {
        let error = result.unwrap_err();
        assert_eq!(*error.kind(), ErrorKind::Area(AreaError::ForeignDestination));
    };
    foreign(area.allocate_into(1_u64, &outside));
    let object = area.allocate_into(1_u64, &head[0]).unwrap();
    foreign(area.move_between(&head[0], &outside));
    // Another area's.
    let moved = other.move_between::<u64>(&head[0], &head[1]);
    assert!(matches!(moved.unwrap_err().kind(), ErrorKind::Area(AreaError::InvalidPointer(_))));
    let taken = other.take::<u64>(&head[0]);
    assert!(matches!(taken.unwrap_err().kind(), ErrorKind::Area(AreaError::InvalidPointer(_))));
    area.allocate_into(2_u64, &head[1]).unwrap();
    let moved = area.move_between::<u64>(&head[0], &head[1]);
    assert!(matches!(moved.unwrap_err().kind(), ErrorKind::Area(AreaError::Occupied(_))));
    assert_eq!(named(&head[0]), object);
    // Free, and still named.
    // SAFETY: nobody uses the object.
    unsafe { area.free(object) }.unwrap();
    // SAFETY: as above.
    let freed = unsafe { area.free_from(&head[0]) };
    assert!(matches!(freed.unwrap_err().kind(), ErrorKind::Free(FreeError::DoubleFree(_))));
    assert!(area.take::<u64>(&head[0]).is_err());
    assert_eq!(named(&head[0]), object);
    assert_eq!(area.check().unwrap().objects, 1);
}

const SLOTS: usize = 16;
const PRODUCERS: usize = 3;

struct Exchange {
    area: Area,
    own: dsm_registry::Segment<[AtomicDsaPointer; PRODUCERS]>,
    slots: dsm_registry::Segment<[AtomicDsaPointer; SLOTS]>,
}

impl Exchange {
    fn open(registry: &Registry) -> Self {
        Self {
            area: registry.area("area").unwrap(),
            own: registry.segment("own", |_| Ok(())).unwrap(),
            slots: registry.segment("slots", |_| Ok(())).unwrap(),
        }
    }

    /// Makes an object in a word, each part of it the same number.
    fn make(&self, number: u64, word: &AtomicDsaPointer) {
        match number % 20 {
            0 => drop(self.area.allocate_into([number; 1500], word).unwrap()),
            1..=4 => drop(self.area.allocate_into([number; 300], word).unwrap()),
            _ => drop(self.area.allocate_into([number; 12], word).unwrap()),
        }
    }

    fn is_whole(&self, object: DsaPtr<u64>) -> bool {
        let number = self.area.read(object).unwrap();
        match number % 20 {
            0 => self.area.read(cast::<1500>(object)).unwrap() == [number; 1500],
            1..=4 => self.area.read(cast::<300>(object)).unwrap() == [number; 300],
            _ => self.area.read(cast::<12>(object)).unwrap() == [number; 12],
        }
    }
}

fn cast<const N: usize>(object: DsaPtr<u64>) -> DsaPtr<[u64; N]> {
    object.cast()
}

/// Makes objects in a word of its own, and moves them to those that all have, or makes them there.
fn produce(part: &Part) {
    let registry = part.open();
    let exchange = Exchange::open(&registry);
    let (who, seed) = part.argument.split_once(' ').unwrap();
    let (who, mut number): (usize, u64) = (who.parse().unwrap(), seed.parse().unwrap());
    part.say("at work");
    loop {
        number =
            number.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let slot = &exchange.slots[(number >> 33) as usize % SLOTS];
        let own = &exchange.own[who];
        if !named(own).is_valid() {
            exchange.make(number >> 20, own);
        }
        match exchange.area.move_between::<u64>(own, slot).map_err(Error::into_kind) {
            Ok(_) | Err(ErrorKind::Area(AreaError::Occupied(_))) => {}
            Err(error) => panic!("{error}"),
        }
        if number >> 60 == 0 {
            exchange.area.trim().unwrap();
        }
    }
}

#[test]
fn nothing_is_lost_and_nothing_had_twice_when_producers_are_killed() {
    let space = Space::new("words-kill");
    let registry = space.open();
    let exchange = Exchange::open(&registry);
    let spawn = |who: usize, round: u64| {
        let seed = round.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let mut peer = space.peer_with("produce", &format!("{who} {seed}"));
        peer.expect("at work");
        peer
    };
    let mut peers: Vec<_> = (0..PRODUCERS).map(|who| spawn(who, who as u64)).collect();
    let mut had = 0;
    for round in 0..testkit::rounds(40) {
        let until = std::time::Instant::now() + Duration::from_millis(3 + round % 20);
        while std::time::Instant::now() < until {
            for slot in exchange.slots.iter() {
                let object: DsaPtr<u64> = exchange.area.take(slot).unwrap();
                if object.is_valid() {
                    // An object of two would be overwritten by the other, or free already.
                    exchange.area.allocate_box([u64::MAX; 12]).unwrap();
                    assert!(exchange.is_whole(object), "{object:?} was changed");
                    // SAFETY: taken: nobody else has it.
                    unsafe { exchange.area.free(object) }.unwrap();
                    had += 1;
                }
            }
        }
        let who = round as usize % PRODUCERS;
        peers[who].kill();
        peers[who] = spawn(who, 100 + round);
    }
    drop(peers);
    registry.reap().unwrap();
    exchange.area.trim().unwrap();
    let words: Vec<_> = exchange.own.iter().chain(exchange.slots.iter()).collect();
    // Completes what the dead were moving.
    let first: DsaPtr<u64> = exchange.area.take(words[0]).unwrap();
    let left = words.iter().filter(|word| named(word).is_valid()).count() as u64;
    let found = exchange.area.check().unwrap();
    assert_eq!(found.objects, left + u64::from(first.is_valid()), "{had} were had");
    assert_eq!(found.unpublished, 0);
    assert!(had > 0, "nothing was ever had");
    for word in words {
        if named(word).is_valid() {
            assert!(exchange.is_whole(named(word)));
        }
        // SAFETY: nobody else is left.
        unsafe { exchange.area.free_from(word) }.unwrap();
    }
    if first.is_valid() {
        // SAFETY: as above.
        unsafe { exchange.area.free(first) }.unwrap();
    }
    assert_eq!(exchange.area.check().unwrap().objects, 0);
}

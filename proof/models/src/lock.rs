//! Models of the recoverable lock: writers and readers of two words that must agree.
//!
//! A writer increases both, one after the other. Who acquires from the dead makes them agree again.
//! At any time either one writer is inside or some readers; when all is over each
//! increment that was finished is there, and of a victim's last one both words say the same.

use std::cell::{Cell, RefCell};
use std::time::Duration;

use dsm_core::handle::{LockAddress, SegmentHandle};
use dsm_core::lock::rw::RwLock;
use dsm_core::lock::{Acquired, HeldMode, LockError, LockRef, Patience, RawLock};
use dsm_core::participant::Participant;
use dsm_core::segment::Segment;
use dsm_core::sync::{AtomicU64, Ordering::Relaxed, shuttle};
use sim::HeapMachine;

use crate::found::mark;
use crate::look::held_by;
use crate::model::Model;
use crate::play::{Ended, Play};
use crate::world::{Member, config, keep};

pub(crate) const MODELS: &[Model] = &[
    Model {
        name: "lock-writers",
        about: "three writers of one lock",
        mortals: 2,
        share: 200,
        kinds: &[
            "dies inside",
            "dies inside what it repairs",
            "dies with a record alone",
            "repairs",
            "one dies",
            "two die",
        ],
        act: |play| act(play, &[Part::Writer; 3]),
    },
    Model {
        name: "lock-mixed",
        about: "two writers and two readers, timed and nested acquisitions among them",
        mortals: 2,
        share: 400,
        kinds: &[
            "dies inside",
            "dies inside what it repairs",
            "dies as a claimant",
            "dies with a record alone",
            "dies reading",
            "dies about to read",
            "holds two locks",
            "repairs",
            "a reader finds damage",
            "one dies",
            "two die",
        ],
        act: |play| act(play, &[Part::Writer, Part::Reader, Part::Nested, Part::Timed]),
    },
    Model {
        name: "lock-slots",
        about: "threads come and go, take the slots of the dead, and lock",
        mortals: 2,
        share: 100,
        kinds: &[
            "dies inside",
            "dies reading",
            "holds the control lock",
            "somebody is dead already",
            "repairs",
            "two die",
        ],
        act: |play| act(play, &[Part::Guest, Part::Guest, Part::Guest]),
    },
];

const ROUNDS: u64 = 3;
/// Offsets in the segment: the lock itself, one that is taken before it, the words.
const OUTER: u64 = 1024;
const WORDS: usize = 2048;

#[derive(Clone, Copy)]
enum Part {
    Writer,
    Reader,
    /// Holds the outer lock shared, or alone, meanwhile.
    Nested,
    /// Gives up after a while, which never comes to that while all live.
    Timed,
    /// Registers for each round, and reaps.
    Guest,
}

/// Who is inside, as an observer sees it who has nothing to do with shared memory.
#[derive(Default)]
struct Inside {
    writer: Option<usize>,
    readers: Vec<usize>,
}

impl Inside {
    fn leave(&mut self, who: usize) {
        self.writer.take_if(|writer| *writer == who);
        self.readers.retain(|reader| *reader != who);
    }
}

struct Scene {
    inside: RefCell<Inside>,
    /// Increments that each actor has finished.
    done: [Cell<u64>; 5],
}

#[derive(Clone, Copy)]
struct Actor {
    who: usize,
    member: Member,
    /// None for guests.
    me: Option<&'static Participant<'static>>,
    segment: &'static Segment<'static>,
    scene: &'static Scene,
}

impl Actor {
    fn lock_at(self, offset: u64) -> LockRef<'static, RwLock> {
        // SAFETY: inside the segment.
        let at = unsafe { self.segment.base().add(offset as usize) };
        // SAFETY: `build` built one there; the segment is mapped as long as the execution lasts.
        unsafe { LockRef::new(at.cast(), self.segment.lock_address(offset)) }
    }

    fn words(self) -> &'static [AtomicU64; 3] {
        words(self.segment)
    }

    fn write(self, me: &Participant<'_>, patience: Patience) {
        let mut guard = match self.lock_at(0).exclusive(me, patience) {
            Ok(guard) => guard,
            Err(LockError::TimedOut) => return mark("gives up"),
            Err(error) => panic!("{error:?}"),
        };
        {
            let mut inside = self.scene.inside.borrow_mut();
            assert_eq!((inside.writer, inside.readers.len()), (None, 0), "is not alone");
            inside.writer = Some(self.who);
        }
        let [first, second, _] = self.words();
        if guard.acquired() == Acquired::FromDead {
            mark("repairs");
            second.store(first.load(Relaxed), Relaxed);
            guard.mark_recovered();
        }
        let before = first.load(Relaxed);
        assert_eq!(before, second.load(Relaxed), "damage that nobody told");
        first.store(before + 1, Relaxed);
        second.store(before + 1, Relaxed);
        self.scene.done[self.who].set(self.scene.done[self.who].get() + 1);
        self.scene.inside.borrow_mut().leave(self.who);
        drop(guard);
    }

    fn read(self, me: &Participant<'_>, patience: Patience) {
        let guard = match self.lock_at(0).shared(me, patience) {
            Ok(Some(guard)) => guard,
            Ok(None) => {
                mark("a reader finds damage");
                return self.write(me, patience);
            }
            Err(LockError::TimedOut) => return mark("gives up"),
            Err(error) => panic!("{error:?}"),
        };
        {
            let mut inside = self.scene.inside.borrow_mut();
            assert_eq!(inside.writer, None, "a reader beside a writer");
            inside.readers.push(self.who);
        }
        let [first, second, read] = self.words();
        assert_eq!(first.load(Relaxed), second.load(Relaxed), "a reader sees half a change");
        // Not that it matters: readers die before stores as well.
        read.fetch_add(1, Relaxed);
        self.scene.inside.borrow_mut().leave(self.who);
        drop(guard);
    }

    fn nest(self, me: &Participant<'_>, round: u64) {
        let outer = self.lock_at(OUTER);
        if round == 1 {
            let mut guard = outer.exclusive(me, Patience::Forever).expect("is had");
            guard.mark_recovered();
            self.write(me, Patience::Forever);
        } else {
            match outer.shared(me, Patience::Forever).expect("is had") {
                Some(_guard) => self.read(me, Patience::Forever),
                None => outer.exclusive(me, Patience::Forever).expect("is had").mark_recovered(),
            }
        }
    }

    fn act(self, part: Part) {
        for round in 0..ROUNDS {
            let me = self.me.unwrap_or_else(|| self.member.thread());
            match part {
                Part::Writer => self.write(me, Patience::Forever),
                Part::Reader => self.read(me, Patience::Forever),
                Part::Nested => self.nest(me, round),
                Part::Timed => {
                    self.read(me, until(5));
                    self.write(me, until(20));
                }
                Part::Guest => {
                    self.read(me, Patience::Forever);
                    self.write(me, Patience::Forever);
                    self.read(me, Patience::Forever);
                }
            }
            if self.me.is_none() {
                self.member.ns.unregister(me.local());
            }
        }
        if self.me.is_none() {
            self.member.ns.reap().expect("reaps");
        }
    }

    /// What the actor was about when it died.
    fn look(self) {
        // SAFETY: a lock was built there.
        let state = unsafe { RwLock::state(self.segment.base().cast()) };
        let mode_of = |(_, at, mode): &(_, LockAddress, HeldMode)| {
            (*at == self.segment.lock_address(0)).then_some(*mode)
        };
        let held = held_by(self.member.process);
        let id = held.iter().find(|one| mode_of(one).is_some()).map(|(id, ..)| *id);
        let mut inside = self.scene.inside.borrow_mut();
        match held.iter().find_map(mode_of) {
            Some(HeldMode::Exclusive) if state.owner.is_none() || state.owner != id => {
                mark("dies with a record alone");
            }
            Some(HeldMode::Exclusive) if !state.entered => {
                mark("dies as a claimant");
                if held.iter().any(|(_, at, _)| at.slot() == LockAddress::CONTROL) {
                    mark("dies evicting a reader");
                }
            }
            Some(HeldMode::Exclusive) if state.dirty => mark("dies inside what it repairs"),
            Some(HeldMode::Exclusive) => mark("dies inside"),
            Some(HeldMode::Shared) if inside.readers.contains(&self.who) => mark("dies reading"),
            Some(HeldMode::Shared) => mark("dies about to read"),
            _ => {}
        }
        inside.leave(self.who);
    }
}

fn until(milliseconds: u64) -> Patience {
    Patience::Until(shuttle::now() + Duration::from_millis(milliseconds))
}

fn words(segment: &'static Segment<'static>) -> &'static [AtomicU64; 3] {
    // SAFETY: inside the segment, whose bytes there are zero at first and atomics ever after.
    let at = unsafe { segment.base().add(WORDS) };
    // SAFETY: as above; mapped as long as the execution lasts.
    unsafe { at.cast::<[AtomicU64; 3]>().as_ref() }
}

fn attach(member: Member, handle: SegmentHandle) -> &'static Segment<'static> {
    keep(member.ns.attach_segment(handle).expect("attaches").expect("is there"))
}

fn act(play: &mut Play, parts: &[Part]) {
    let machine = HeapMachine::with_seed(shuttle::random(1 << 40));
    let observer = Member::new(&machine);
    let segment = observer.ns.create_segment(4096, 4096).expect("creates");
    for offset in [0, OUTER] {
        // SAFETY: inside the segment.
        let at = unsafe { segment.base().add(offset as usize) };
        // SAFETY: fresh memory, long enough for a lock, used by nobody.
        unsafe { RwLock::init(at.cast(), config().max_participants) };
    }
    let handle = segment.handle();
    let scene = keep(Scene { inside: RefCell::default(), done: Default::default() });
    let mut actors: Vec<_> = (0..=parts.len())
        .map(|who| {
            let member = if who < parts.len() { Member::new(&machine) } else { observer };
            let is_guest = matches!(parts.get(who), Some(Part::Guest));
            let me = (!is_guest).then(|| member.thread());
            Actor { who, member, me, segment: attach(member, handle), scene }
        })
        .collect();
    drop(segment);
    let judge = actors.pop().expect("the observer");
    for (actor, part) in actors.iter().copied().zip(parts.iter().copied()) {
        play.actor(actor.member.process, move || actor.act(part));
    }
    let looking = actors.clone();
    play.look(move |who| looking[who].look());
    let ended = play.perform();
    judge.judge(&ended);
    let survivors = actors.iter().zip(&ended.dead).filter(|(_, dead)| !**dead);
    for actor in survivors.map(|(actor, _)| actor).chain([&judge]) {
        if let Some(me) = actor.me {
            actor.member.ns.unregister(me.local());
        }
        actor.member.leave();
    }
    assert_eq!(machine.objects().len(), 0, "objects are left in the system");
}

impl Actor {
    fn judge(self, ended: &Ended) {
        let me = self.me.expect("is registered");
        self.write(me, Patience::Forever);
        let done: u64 = self.scene.done.iter().map(Cell::get).sum();
        let there = self.words()[0].load(Relaxed);
        let lost_words = there < done || there > done + ended.deaths() as u64;
        assert!(!lost_words, "{there} increments, {done} were finished");
        self.member.ns.reap().expect("reaps");
        for offset in [0, OUTER] {
            // SAFETY: inside the segment.
            let at = unsafe { self.segment.base().add(offset as usize) };
            // SAFETY: a lock was built there.
            let state = unsafe { RwLock::state(at.cast::<RwLock>()) };
            assert_eq!(state.readers, 0, "a dead reader's bit is left");
        }
        self.lock_at(0).exclusive(me, Patience::Try).expect("is free");
        self.lock_at(OUTER).exclusive(me, Patience::Try).expect("is free");
    }
}

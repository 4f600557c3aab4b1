//! A model of who is declared dead while it lives, and goes on.
//!
//! One actor takes a lock, loses its tokens, and looks (past shared memory, as nothing of it could)
//! until others have made use of its death: its slot is not its own any more, or its lock isn't.
//! From that moment on each of its calls fails, and its guards give nothing back. Should one do so
//! all the same, it is the others who are not alone in the lock any more: they take its slots anew,
//! write, read, and reap, and one of them may die in the midst of sweeping it.
//!
//! A call that is under way when it is swept goes on to its end. No such call is made here.

use std::cell::RefCell;
use std::time::Duration;

use dsm_core::handle::ParticipantId;
use dsm_core::lock::rw::RwLock;
use dsm_core::lock::{Acquired, ExclusiveGuard, LockError, LockRef, Patience, RawLock};
use dsm_core::namespace::Error;
use dsm_core::participant::Participant;
use dsm_core::segment::Segment;
use dsm_core::sync::{AtomicU32, AtomicU64, Ordering::Relaxed, shuttle};
use sim::HeapMachine;

use crate::found::mark;
use crate::look::inspect;
use crate::model::Model;
use crate::play::Play;
use crate::world::{Member, config, keep};

pub(crate) const MODELS: &[Model] = &[Model {
    name: "lock-declared-dead",
    about: "one loses its tokens with a lock, is swept, and goes on; others lock, reap, take its slots",
    mortals: 1,
    share: 300,
    kinds: &[
        "is swept, and was reading",
        "is swept, and was writing",
        "its slot is somebody else's",
        "its lock is somebody else's",
        "repairs",
        "nobody dies",
        "one dies",
    ],
    act,
}];

const ROUNDS: usize = 3;
const WORDS: usize = 2048;
/// Looks of a millisecond each before it counts as never swept: the others may be dead or done.
const LOOKS: u32 = 60;

/// Who is in the lock, of those who are not declared dead.
#[derive(Default)]
struct Inside {
    writer: Option<usize>,
    readers: Vec<usize>,
}

type Scene = RefCell<Inside>;

#[derive(Clone, Copy)]
struct Actor {
    who: usize,
    member: Member,
    segment: &'static Segment<'static>,
    scene: &'static Scene,
}

impl Actor {
    fn lock(self) -> LockRef<'static, RwLock> {
        // SAFETY: `act` built one there; the segment is mapped as long as the execution lasts.
        unsafe { LockRef::new(self.segment.base().cast(), self.segment.lock_address(0)) }
    }

    fn words(self) -> &'static [AtomicU64; 2] {
        // SAFETY: inside the segment, whose bytes there are zero at first and atomics ever after.
        let at = unsafe { self.segment.base().add(WORDS) };
        // SAFETY: as above; mapped as long as the execution lasts.
        unsafe { at.cast::<[AtomicU64; 2]>().as_ref() }
    }

    fn leave(self) {
        let mut inside = self.scene.borrow_mut();
        inside.writer.take_if(|writer| *writer == self.who);
        inside.readers.retain(|reader| *reader != self.who);
    }

    fn repair(self, guard: &mut ExclusiveGuard<'_, RwLock>) {
        if guard.acquired() == Acquired::FromDead {
            mark("repairs");
            let [first, second] = self.words();
            second.store(first.load(Relaxed), Relaxed);
            guard.mark_recovered();
        }
    }

    fn write(self, me: &Participant<'_>) {
        let mut guard = self.lock().exclusive(me, Patience::Forever).expect("is had");
        {
            let mut inside = self.scene.borrow_mut();
            assert_eq!((inside.writer, inside.readers.len()), (None, 0), "is not alone");
            inside.writer = Some(self.who);
        }
        self.repair(&mut guard);
        let [first, second] = self.words();
        assert_eq!(first.load(Relaxed), second.load(Relaxed), "damage that nobody told");
        first.fetch_add(1, Relaxed);
        second.fetch_add(1, Relaxed);
        self.leave();
        drop(guard);
    }

    fn read(self, me: &Participant<'_>) {
        let Some(guard) = self.lock().shared(me, Patience::Forever).expect("is had") else {
            return self.write(me);
        };
        {
            let mut inside = self.scene.borrow_mut();
            assert_eq!(inside.writer, None, "a reader beside a writer");
            inside.readers.push(self.who);
        }
        let [first, second] = self.words();
        assert_eq!(first.load(Relaxed), second.load(Relaxed), "a reader sees half a change");
        self.leave();
        drop(guard);
    }

    /// Comes and goes, in whatever slots are free.
    fn work(self) {
        for round in 0..ROUNDS {
            let me = self.member.thread();
            if (self.who + round).is_multiple_of(2) {
                self.write(me);
                self.read(me);
            } else {
                self.read(me);
                self.write(me);
            }
            self.member.ns.reap().expect("reaps");
            self.member.ns.unregister(me.local());
        }
        self.member.ns.reap().expect("reaps");
    }

    /// Whether others have made use of the death of `me`, and how: looked at past all scheduling.
    fn is_made_use_of(self, me: ParticipantId, writes: bool) -> bool {
        shuttle::quietly(|| {
            let process = self.member.process;
            let tenant = inspect(process.machine(), process, |inspector| {
                inspector.participants().find(|p| p.id.index == me.index).map(|p| p.id)
            });
            if tenant.flatten().is_some_and(|tenant| tenant != me) {
                mark("its slot is somebody else's");
                return true;
            }
            // SAFETY: a lock was built there.
            let state = unsafe { RwLock::state(self.segment.base().cast()) };
            if writes && state.owner.is_some_and(|owner| owner != me) {
                mark("its lock is somebody else's");
                return true;
            }
            tenant.flatten().is_none()
        })
    }

    /// Loses its tokens with the lock, and goes on when it was swept.
    fn survive(self, writes: bool) {
        let me = self.member.thread();
        let id = me.id().expect("is registered");
        let (lock, patience) = (self.lock(), Patience::Forever);
        let writing = writes.then(|| {
            let mut guard = lock.exclusive(me, patience).expect("is had");
            self.repair(&mut guard);
            guard
        });
        let reading = (!writes).then(|| lock.shared(me, patience).expect("is had"));
        let process = self.member.process;
        process.machine().lose_tokens(process.pid());
        let nobody_wakes = AtomicU32::new(0);
        let used = (0..LOOKS).any(|_| {
            shuttle::sleep(&nobody_wakes, 0, Duration::from_millis(1));
            self.is_made_use_of(id, writes)
        });
        if !used {
            mark("is never swept");
            return;
        }
        mark(if writes { "is swept, and was writing" } else { "is swept, and was reading" });
        if shuttle::random(2) == 0 {
            // Its guards before it has made a call.
            drop((writing, reading));
            self.is_refused(me);
        } else {
            self.is_refused(me);
            drop((writing, reading));
        }
    }

    /// Each call fails.
    fn is_refused(self, me: &Participant<'_>) {
        const DEAD: LockError = LockError::DeclaredDead;
        for patience in [Patience::Try, Patience::Forever] {
            assert_eq!(self.lock().exclusive(me, patience).err(), Some(DEAD));
            assert_eq!(self.lock().shared(me, patience).err(), Some(DEAD));
        }
        let ns = self.member.ns;
        assert_eq!(ns.create_segment(100, 100).err(), Some(Error::Lock(DEAD)));
        assert_eq!(ns.reap(), Err(Error::Lock(DEAD)));
    }
}

fn act(play: &mut Play) {
    let machine = HeapMachine::with_seed(shuttle::random(1 << 40));
    let observer = Member::new(&machine);
    let segment = observer.ns.create_segment(4096, 4096).expect("creates");
    // SAFETY: fresh memory, long enough for a lock, used by nobody.
    unsafe { RwLock::init(segment.base().cast(), config().max_participants) };
    let handle = segment.handle();
    let scene = keep(Scene::default());
    let actor = |who, member: Member| {
        let segment = member.ns.attach_segment(handle).expect("attaches").expect("is there");
        Actor { who, member, segment: keep(segment), scene }
    };
    let actors: Vec<_> = (0..3).map(|who| actor(who, Member::new(&machine))).collect();
    let judge = actor(actors.len(), observer);
    drop(segment);
    let writes = shuttle::random(2) == 0;
    for one in actors.iter().copied() {
        play.actor(one.member.process, move || match one.who {
            0 => one.survive(writes),
            _ => one.work(),
        });
    }
    let looking = actors.clone();
    play.look(move |who| looking[who].leave());
    play.expect_waits();
    let ended = play.perform();
    // Who was never swept is now, and what it held is had.
    judge.member.ns.reap().expect("reaps");
    let me = judge.member.thread();
    judge.write(me);
    // SAFETY: a lock was built there.
    let state = unsafe { RwLock::state(judge.segment.base().cast()) };
    assert_eq!((state.readers, state.owner), (0, None), "a bit or an owner is left");
    judge.member.ns.unregister(me.local());
    let survivors = actors.iter().zip(&ended.dead).skip(1).filter(|(_, dead)| !**dead);
    for one in survivors.map(|(one, _)| one).chain([&judge]) {
        one.member.leave();
    }
    assert_eq!(machine.objects().len(), 0, "objects are left in the system");
}

//! One execution of a model: its actors, and who of them dies when.
//!
//! A model prepares a world, hands over what each actor does, lets them [`perform`](Play::perform),
//! and judges what is left. Who dies is drawn: nobody, one, or two; and before which store, up to
//! about as many as the actor performed when a first execution counted them. Of two the second is
//! half of the time doomed by the death of the first, to die soon after it: that is where it
//! recovers.

use std::rc::Rc;
use std::sync::Arc;

use dsm_core::sync::shuttle;
use sim::HeapProcess;

use crate::found::{mark, note, work_done};
use crate::look::mark_kinds;

/// Stores within which a death follows another one.
const SOON: u64 = 80;

/// What is looked at when an actor dies, before anybody knows.
type Look = Rc<dyn Fn(usize, &HeapProcess)>;

struct Actor {
    process: &'static HeapProcess,
    code: Box<dyn FnOnce()>,
}

/// The actors of one execution.
pub(crate) struct Play {
    actors: Vec<Actor>,
    look: Look,
    /// Stores that actors performed in the execution that counted them; of none, nobody dies.
    bounds: Arc<Vec<u64>>,
    /// At most so many die.
    mortals: u64,
    /// Whether waits may end by their timeouts although nobody dies.
    waits: bool,
}

/// What became of the actors.
pub(crate) struct Ended {
    /// Which of them are dead.
    pub(crate) dead: Vec<bool>,
}

impl Ended {
    pub(crate) fn deaths(&self) -> usize {
        self.dead.iter().filter(|dead| **dead).count()
    }

    /// The first who lives.
    pub(crate) fn survivor(&self) -> usize {
        self.dead.iter().position(|dead| !dead).expect("not all die")
    }
}

impl Play {
    pub(crate) fn new(bounds: Arc<Vec<u64>>, mortals: u64) -> Self {
        let look: Look = Rc::new(|_, process| mark_kinds(process));
        Self { actors: Vec::new(), look, bounds, mortals, waits: false }
    }

    /// What `process` does; one thread of it is an actor.
    pub(crate) fn actor(&mut self, process: &'static HeapProcess, code: impl FnOnce() + 'static) {
        self.actors.push(Actor { process, code: Box::new(code) });
    }

    /// Somebody counts as dead who isn't: to find that out takes time.
    pub(crate) fn expect_waits(&mut self) {
        self.waits = true;
    }

    /// Besides what is always looked at when somebody dies: the actor's number is given.
    pub(crate) fn look(&mut self, look: impl Fn(usize) + 'static) {
        let before = self.look.clone();
        self.look = Rc::new(move |who, process| {
            before(who, process);
            look(who);
        });
    }

    /// Lets all of them act at once, and returns when everybody has finished or is dead.
    pub(crate) fn perform(&mut self) -> Ended {
        let actors = std::mem::take(&mut self.actors);
        let processes: Vec<_> = actors.iter().map(|actor| actor.process).collect();
        let count = actors.len();
        self.doom(&processes);
        shuttle::perform(actors.into_iter().map(|actor| actor.code).collect());
        let dead: Vec<_> = (0..count).map(shuttle::is_dead).collect();
        let stores = (0..count).map(shuttle::stores_of).collect();
        note(|found| {
            found.stores = stores;
            found.judged = Some(work_done());
        });
        let ended = Ended { dead };
        mark(["nobody dies", "one dies", "two die"][ended.deaths()]);
        if ended.deaths() == 0 && !self.waits {
            assert!(shuttle::now().is_zero(), "a wait ended by its timeout although all live");
        }
        ended
    }

    fn doom(&self, processes: &[&'static HeapProcess]) {
        let count = processes.len() as u64;
        // Somebody has to be left.
        let mortals = self.mortals.min(count - 1);
        if self.bounds.is_empty() || mortals == 0 || shuttle::random(8) == 0 {
            return;
        }
        let first = shuttle::random(count) as usize;
        let second = (first + 1 + shuttle::random(count - 1) as usize) % processes.len();
        let both = mortals > 1 && shuttle::random(2) == 0;
        let at = |who: usize| shuttle::random(self.bounds[who] + 1);
        let die = |who: usize| {
            let (look, process) = (self.look.clone(), processes[who]);
            move || {
                note(|found| found.deaths += 1);
                look(who, process);
                process.kill();
            }
        };
        let follow = both && shuttle::random(2) == 0;
        let (soon, then) = (shuttle::random(SOON), die(second));
        let last = die(first);
        if both && !follow {
            shuttle::die_before(second, at(second), die(second));
        }
        shuttle::die_before(first, at(first), move || {
            last();
            if follow {
                shuttle::die_before(second, soon, then);
            }
        });
    }
}

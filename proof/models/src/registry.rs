//! A model of names: who initialises what a name stands for.
//!
//! What it demands: no two that live are in the initialiser at once; whoever gets what the name
//! stands for finds it complete, and the same as everybody else; an initialiser that fails or dies
//! is followed by another; nobody waits for the dead; and afterwards the name can be used, and
//! removed, and of what all the initialisers made nothing is left.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;

use dsm_core::sync::{AtomicU64, Ordering::Relaxed, shuttle};
use dsm_registry::{BoxError, Registry};
use sim::{HeapMachine, HeapProcess};

use crate::found::mark;
use crate::model::Model;
use crate::platform::Machine;
use crate::play::Play;
use crate::world::{Stranger, keep};

pub(crate) const MODELS: &[Model] = &[Model {
    name: "registry-initialise",
    about: "three processes want one name, whose initialisers fail now and then",
    mortals: 2,
    share: 40,
    kinds: &[
        "initialises",
        "fails to initialise",
        "finds it initialised",
        "wants what somebody initialises",
        "dies in the initialiser",
        "dies on its way out of the initialiser",
        "follows a dead initialiser",
        "one dies",
        "two die",
    ],
    act: initialise,
}];

const ACTORS: usize = 3;
const NAME: &str = "name";

/// All of it the same number, once it is complete.
type Value = [AtomicU64; WORDS];
const WORDS: usize = 6;

#[derive(Default)]
struct Books {
    /// Who is in the initialiser, or has left it and not come back with what it made; whether the
    /// former.
    initialising: RefCell<BTreeMap<usize, bool>>,
    /// What was found under the name.
    seen: Cell<Option<u64>>,
    /// How often an initialiser was run.
    initialised: Cell<u64>,
}

impl Books {
    fn see(&self, value: &Value) {
        let words = value.each_ref().map(|word| word.load(Relaxed));
        assert_eq!(words, [words[0]; WORDS], "it is half initialised");
        let seen = self.seen.get().unwrap_or(words[0]);
        assert_eq!(seen, words[0], "it was initialised twice");
        self.seen.set(Some(seen));
    }

    /// Initialises a value, or fails.
    fn make(&self, who: usize, value: &Value) -> Result<(), BoxError> {
        let before = self.initialising.borrow().clone();
        for (other, inside) in before {
            assert!(!inside || shuttle::is_dead(other), "two are in the initialiser");
            if other != who && shuttle::is_dead(other) {
                mark("follows a dead initialiser");
            }
        }
        assert!(self.seen.get().is_none(), "what is there is initialised again");
        self.initialising.borrow_mut().insert(who, true);
        self.initialised.set(self.initialised.get() + 1);
        let number = self.initialised.get();
        value.iter().for_each(|word| word.store(number, Relaxed));
        self.initialising.borrow_mut().insert(who, false);
        if shuttle::random(3) == 0 {
            mark("fails to initialise");
            return Err("it fails".into());
        }
        mark("initialises");
        Ok(())
    }

    /// Looks at somebody who dies.
    fn bury(&self, who: usize) {
        match self.initialising.borrow().get(&who) {
            Some(true) => mark("dies in the initialiser"),
            Some(false) => mark("dies on its way out of the initialiser"),
            None => {}
        }
    }
}

fn open(process: &'static HeapProcess) -> Registry {
    let builder = Registry::builder("model").provider(Machine::of(process));
    builder.max_processes(8).max_participants(20).max_segments(16).open().expect("opens")
}

/// Asks for the name until an initialiser succeeds.
fn want(who: usize, registry: &Registry, books: &Books) {
    loop {
        if books.initialising.borrow().values().any(|inside| *inside) {
            mark("wants what somebody initialises");
        }
        let mine = Cell::new(false);
        let got = registry.segment::<Value>(NAME, |place| {
            mine.set(true);
            books.make(who, place)
        });
        books.initialising.borrow_mut().remove(&who);
        match got {
            Ok(segment) => {
                if !mine.get() {
                    mark("finds it initialised");
                }
                return books.see(&segment);
            }
            Err(error) if error.initialiser_error().is_some() => {}
            Err(error) => panic!("{error}"),
        }
    }
}

fn initialise(play: &mut Play) {
    let machine = HeapMachine::with_seed(shuttle::random(1 << 40));
    let books: &Books = keep(Books::default());
    let observer = open(Stranger::new(&machine).0);
    let processes: Vec<_> = (0..ACTORS).map(|_| Stranger::new(&machine).0).collect();
    let registries: Vec<_> = processes.iter().map(|process| keep(open(process))).collect();
    for (who, process) in processes.into_iter().enumerate() {
        let registry: &'static Registry = registries[who];
        play.actor(process, move || want(who, registry, books));
    }
    play.look(|who| books.bury(who));
    let ended = play.perform();

    observer.reap().expect("reaps");
    want(ACTORS, &observer, books);
    let names = observer.list().expect("lists");
    assert_eq!(names.len(), 1, "names are left");
    observer.remove_forced(NAME).expect("removes");
    for (registry, dead) in registries.iter().zip(&ended.dead) {
        if !dead {
            // SAFETY: kept undropped, so that this is its one owner; it is not used any more.
            drop(unsafe { std::ptr::read(*registry) });
        }
    }
    assert!(observer.list().expect("lists").is_empty(), "a removed name is there");
    // The control object, and the registry's own area.
    assert_eq!(machine.objects().len(), 2, "objects are left in the system");
    drop(observer);
    assert_eq!(machine.objects().len(), 0, "objects are left in the system");
}

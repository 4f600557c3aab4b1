//! An embedder model-checks its own data structure over our lock.
//!
//! ```console
//! cargo run -p dsm-core --example loom_embedder
//! RUSTFLAGS="--cfg loom" cargo run --release -p dsm-core --example loom_embedder
//! ```
//!
//! The first command runs the two scenarios once, with real threads. The second runs the same
//! code in every order that the memory model allows (up to three pre-emptions a run), because all
//! atomics of the lock come from `dsm_core::sync`, which are loom's under `cfg(loom)`.
//!
//! The structure is a ledger: two accounts whose sum never changes, and an undo record, so that a
//! transfer whose thread dies in the middle can be taken back by whoever takes over the lock. What
//! the scenarios claim:
//!
//! 1. nobody who holds the lock sees a transfer half done;
//! 2. that stays so when a thread dies with the lock held, at either of the two places where it
//!    matters, and nobody waits for the dead.
//!
//! `world.rs` is what any embedder needs beside the cores: peers and an environment.

mod world;

use std::mem::ManuallyDrop;

use dsm_core::lock::rw::RwLock;
use dsm_core::lock::{Acquired, Patience};
use dsm_core::participant::{Participant, ParticipantLocal};

use world::{Cell, Shared, World, run, spawn};

/// What both accounts hold together, always.
const SUM: u64 = 100;

/// The embedder's structure: plain cells, protected by the lock alone.
struct Ledger {
    lock: world::LockMemory<RwLock>,
    accounts: [Cell; 2],
    /// What account 0 held before the transfer in flight, and 1; 0 if none is.
    undo: Cell,
}

/// Where a thread dies.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Death {
    /// Nowhere.
    Never,
    /// Between the two halves of the transfer.
    Midway,
    /// After the transfer, the lock still held.
    Inside,
}

impl Ledger {
    fn new() -> Self {
        Self {
            lock: world::LockMemory::new(),
            accounts: [Cell::new(SUM), Cell::new(0)],
            undo: Cell::new(0),
        }
    }

    /// Moves `amount` from account 0 to account 1.
    fn transfer(&self, me: &Participant<'_>, amount: u64, death: Death) {
        let lock = self.lock.as_ref();
        let mut guard =
            ManuallyDrop::new(lock.exclusive(me, Patience::Forever).expect("nothing else is held"));
        if guard.acquired() == Acquired::FromDead {
            self.undo_transfer();
            guard.mark_recovered();
        }
        let before = self.accounts[0].get();
        self.undo.set(before + 1);
        self.accounts[0].set(before - amount);
        if death == Death::Midway {
            return; // A killed thread runs no destructors: the guard is never dropped.
        }
        self.accounts[1].set(SUM - before + amount);
        self.undo.set(0);
        if death == Death::Inside {
            return;
        }
        drop(ManuallyDrop::into_inner(guard));
    }

    /// Takes back what a dead owner left half done; done twice it is the same.
    fn undo_transfer(&self) {
        if let Some(before) = self.undo.get().checked_sub(1) {
            self.accounts[0].set(before);
            self.accounts[1].set(SUM - before);
            self.undo.set(0);
        }
    }

    /// Both accounts, read beside other readers.
    fn read(&self, me: &Participant<'_>) -> (u64, u64) {
        let lock = self.lock.as_ref();
        loop {
            let shared = lock.shared(me, Patience::Forever).expect("nothing else is held");
            if shared.is_some() {
                return (self.accounts[0].get(), self.accounts[1].get());
            }
            // Who died inside left work: a writer has to do it, and that may as well be us.
            let mut guard = lock.exclusive(me, Patience::Forever).expect("nothing else is held");
            if guard.acquired() == Acquired::FromDead {
                self.undo_transfer();
                guard.mark_recovered();
            }
        }
    }
}

/// A writer and a reader, then a look at the result.
fn readers_see_whole_transfers() {
    let shared = Shared::new((World::new(), Ledger::new()));
    let writer = spawn(&shared, |(world, ledger)| {
        let local = ParticipantLocal::new();
        ledger.transfer(&world.join(&local, 0), 30, Death::Never);
    });
    let local = ParticipantLocal::new();
    let me = shared.0.join(&local, 1);
    let seen = shared.1.read(&me);
    assert!([(100, 0), (70, 30)].contains(&seen), "half a transfer: {seen:?}");
    writer.join().expect("the writer ends");
    assert_eq!(shared.1.read(&me), (70, 30));
}

/// A writer that dies, and a reader that finds it out.
fn the_dead_are_taken_over(death: Death) {
    let shared = Shared::new((World::new(), Ledger::new()));
    let victim = spawn(&shared, move |(world, ledger)| {
        let local = ParticipantLocal::new();
        ledger.transfer(&world.join(&local, 0), 30, death);
        world.declare_dead(0);
    });
    let local = ParticipantLocal::new();
    let me = shared.0.join(&local, 1);
    let (first, second) = shared.1.read(&me);
    assert_eq!(first + second, SUM, "died {death:?}");
    victim.join().expect("the victim ends");
    let expected = if death == Death::Midway { (100, 0) } else { (70, 30) };
    assert_eq!(shared.1.read(&me), expected, "died {death:?}");
    shared.1.transfer(&me, 20, Death::Never);
    assert_eq!(shared.1.read(&me), (expected.0 - 20, expected.1 + 20));
}

#[expect(clippy::print_stdout, reason = "a program's output")]
fn main() {
    run(readers_see_whole_transfers);
    println!("readers see whole transfers");
    for death in [Death::Midway, Death::Inside] {
        run(move || the_dead_are_taken_over(death));
        println!("a writer that dies ({death:?}) is taken over");
    }
}

//! Kills: one participant dies before its first, second, .. last store, the others go on.

use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

use dsm_core::lock::rw::RwLock;
use dsm_core::lock::{Acquired, HeldMode, Patience, RawLock};
use dsm_core::participant::{Participant, Peers};
use dsm_core::sync::model::die_after;
use loom::sync::Arc;
use loom::thread;

use crate::{FREE, World, explore, state};

const FOREVER: Patience = Patience::Forever;

type TheWorld = World<RwLock>;

/// Explores `model` once for each point of death: the model gets the number of stores that its
/// victim may perform, and returns whether the victim got to die.
fn for_each_death(
    at_least: u32,
    preemptions: usize,
    model: impl Fn(&Arc<TheWorld>, u32) -> bool + Copy + Send + Sync + 'static,
) {
    for stores in 0.. {
        let died = std::sync::Arc::new(AtomicBool::new(false));
        let noted = died.clone();
        explore(preemptions, move |world| {
            if model(&world, stores) {
                noted.store(true, SeqCst);
            }
        });
        if !died.load(SeqCst) {
            assert!(stores >= at_least, "only {stores} points of death");
            return;
        }
    }
}

/// Runs `code` as participant `index`, killed after so many stores. Whether it died.
fn kill(world: &TheWorld, index: u16, stores: u32, code: impl FnOnce(&Participant<'_>)) -> bool {
    let died = die_after(stores, || world.act(index, code)).is_ok();
    if died {
        world.bury(index);
    }
    died
}

fn write(world: &TheWorld, me: &Participant<'_>) {
    let _guard = world.main.lock().exclusive(me, FOREVER).unwrap();
    world.write();
}

/// Writes, after repairing if need be.
fn recover_and_write(world: &TheWorld, me: &Participant<'_>) -> Acquired {
    let mut guard = world.main.lock().exclusive(me, FOREVER).unwrap();
    let acquired = guard.acquired();
    if acquired == Acquired::FromDead {
        world.repair();
        guard.mark_recovered();
    }
    world.read();
    world.write();
    acquired
}

/// Reads, after recovering if need be.
fn read(world: &TheWorld, me: &Participant<'_>) -> u64 {
    loop {
        match world.main.lock().shared(me, FOREVER).unwrap() {
            Some(_guard) => return world.read(),
            None => drop(recover_and_write(world, me)),
        }
    }
}

/// What lies about after a death is named by the dead: whoever sweeps it finds everything.
#[test]
fn every_mark_is_recorded() {
    for_each_death(6, 0, |world, stores| {
        let died = kill(world, 0, stores, |me| write(world, me));
        let state = state(world);
        let modes: Vec<_> = world.slot(0).held().map(|(_, mode)| mode).collect();
        assert!(state.owner.is_none() || modes == [HeldMode::Exclusive]);
        died
    });
    for_each_death(4, 0, |world, stores| {
        let died = kill(world, 0, stores, |me| {
            read(world, me);
        });
        let modes: Vec<_> = world.slot(0).held().map(|(_, mode)| mode).collect();
        assert!(state(world).readers == 0 || modes == [HeldMode::Shared]);
        // SAFETY: the lock is initialised, and the participant dead.
        unsafe { RwLock::clear_reader(world.main.pointer(), 4, 0, world.env()) };
        assert_eq!(state(world), FREE);
        died
    });
}

#[test]
fn a_writer_dies_beside_a_writer() {
    for_each_death(6, 5, |world, stores| {
        let died = thread::spawn({
            let world = world.clone();
            move || kill(&world, 0, stores, |me| write(&world, me))
        });
        let _ = world.act(1, |me| recover_and_write(world, me));
        let died = died.join().unwrap();
        // Once more, in case the victim came second.
        let _ = world.act(1, |me| recover_and_write(world, me));
        assert_eq!(state(world), FREE);
        died
    });
}

#[test]
fn a_writer_dies_beside_a_reader() {
    for_each_death(6, 5, |world, stores| {
        let died = thread::spawn({
            let world = world.clone();
            move || kill(&world, 0, stores, |me| write(&world, me))
        });
        world.act(1, |me| read(world, me));
        let died = died.join().unwrap();
        world.act(1, |me| read(world, me));
        assert_eq!(state(world), FREE);
        died
    });
}

#[test]
fn of_two_recoverers_one_recovers() {
    for_each_death(6, 3, |world, stores| {
        let died = kill(world, 0, stores, |me| write(world, me));
        let left = state(world);
        let other = thread::spawn({
            let world = world.clone();
            move || world.act(1, |me| recover_and_write(&world, me))
        });
        let mine = world.act(2, |me| recover_and_write(world, me));
        let both = [mine, other.join().unwrap()];
        let recovered = both.iter().filter(|a| **a == Acquired::FromDead).count();
        assert_eq!(recovered, usize::from(left.entered), "{left:?}");
        assert_eq!(state(world), FREE);
        died
    });
}

/// The first victim dies inside; its recoverer dies everywhere.
#[test]
fn a_recoverer_dies_beside_a_recoverer() {
    for_each_death(9, 3, |world, stores| {
        // Record, owner word, first data word.
        assert!(kill(world, 0, 4, |me| write(world, me)));
        assert!(state(world).entered);
        let died = thread::spawn({
            let world = world.clone();
            move || {
                kill(&world, 1, stores, |me| {
                    let _ = recover_and_write(&world, me);
                })
            }
        });
        world.act(2, |me| read(world, me));
        let died = died.join().unwrap();
        world.act(2, |me| read(world, me));
        assert_eq!(state(world), FREE);
        died
    });
}

#[test]
fn a_reader_dies_beside_a_writer() {
    for_each_death(4, 5, |world, stores| {
        let died = thread::spawn({
            let world = world.clone();
            move || {
                kill(&world, 0, stores, |me| {
                    if let Ok(Some(_guard)) = world.main.lock().shared(me, FOREVER) {
                        world.read();
                    }
                })
            }
        });
        world.act(1, |me| write(world, me));
        let died = died.join().unwrap();
        // A writer evicts what the reader left after the first had gone.
        world.act(1, |me| write(world, me));
        assert_eq!(world.read(), 2);
        assert_eq!(state(world), FREE);
        died
    });
}

/// A claimant dies while a reader holds the lock; another reader and the claim itself must not
/// be in its way for ever.
#[test]
fn a_claimant_dies_beside_readers() {
    for_each_death(6, 3, |world, stores| {
        let died = thread::spawn({
            let world = world.clone();
            move || kill(&world, 0, stores, |me| write(&world, me))
        });
        world.act(1, |me| {
            let held = world.main.lock().shared(me, Patience::Try);
            let other = thread::spawn({
                let world = world.clone();
                move || world.act(2, |me| read(&world, me))
            });
            drop(held);
            other.join().unwrap();
        });
        let died = died.join().unwrap();
        world.act(1, |me| read(world, me));
        let _ = world.act(1, |me| recover_and_write(world, me));
        assert_eq!(state(world), FREE);
        died
    });
}

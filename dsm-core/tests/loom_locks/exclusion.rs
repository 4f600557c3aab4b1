//! Among the living: exclusion, order, and wakes that are never lost (waits have no bound here).

use dsm_core::lock::rw::RwLock;
use dsm_core::lock::spin::SpinLock;
use dsm_core::lock::{Acquired, Patience, RawLock};
use loom::sync::Arc;
use loom::thread;

use crate::{FREE, World, explore, state};

const FOREVER: Patience = Patience::Forever;

fn writer<L: RawLock>(world: &World<L>, index: u16) {
    world.act(index, |me| {
        let guard = world.main.lock().exclusive(me, FOREVER).unwrap();
        assert_eq!(guard.acquired(), Acquired::Clean);
        world.write();
    });
}

fn reader<L: RawLock>(world: &World<L>, index: u16) -> u64 {
    world.act(index, |me| {
        let _guard = world.main.lock().shared(me, FOREVER).unwrap().expect("nobody died");
        world.read()
    })
}

/// Starts `code` in a thread of its own.
fn spawn<L: Send + Sync + 'static, R: 'static>(
    world: &Arc<World<L>>,
    code: impl FnOnce(&World<L>) -> R + 'static,
) -> thread::JoinHandle<R> {
    let world = world.clone();
    thread::spawn(move || code(&world))
}

#[test]
fn two_writers() {
    explore(9, |world: Arc<World<RwLock>>| {
        let other = spawn(&world, |world| writer(world, 0));
        writer(&world, 1);
        other.join().unwrap();
        assert_eq!(world.read(), 2);
        assert_eq!(state(&world), FREE);
    });
}

#[test]
fn three_writers() {
    explore(4, |world: Arc<World<RwLock>>| {
        let others = [0, 1].map(|i| spawn(&world, move |world| writer(world, i)));
        writer(&world, 2);
        for other in others {
            other.join().unwrap();
        }
        assert_eq!(world.read(), 3);
        assert_eq!(state(&world), FREE);
    });
}

#[test]
fn writer_and_reader() {
    explore(6, |world: Arc<World<RwLock>>| {
        let other = spawn(&world, |world| reader(world, 0));
        writer(&world, 1);
        other.join().unwrap();
        assert_eq!(world.read(), 1);
        assert_eq!(state(&world), FREE);
    });
}

#[test]
fn writer_and_two_readers() {
    explore(3, |world: Arc<World<RwLock>>| {
        let others = [0, 1].map(|i| spawn(&world, move |world| reader(world, i)));
        writer(&world, 2);
        for other in others {
            other.join().unwrap();
        }
        assert_eq!(state(&world), FREE);
    });
}

#[test]
fn two_writers_and_a_reader() {
    explore(3, |world: Arc<World<RwLock>>| {
        let others = [0, 1].map(|i| spawn(&world, move |world| writer(world, i)));
        reader(&world, 2);
        for other in others {
            other.join().unwrap();
        }
        assert_eq!(world.read(), 2);
        assert_eq!(state(&world), FREE);
    });
}

/// The reader in `main` lets go only after the nested one has been in: if that one queued behind
/// the claimant, or missed the wake when the claimant steps back, all three would wait forever.
#[test]
fn a_nested_reader_passes_a_claimant() {
    explore(4, |world: Arc<World<RwLock>>| {
        world.clone().act(0, |me| {
            let held = world.main.lock().shared(me, FOREVER).unwrap().unwrap();
            let claimant = spawn(&world, |world| writer(world, 1));
            let nested = spawn(&world, |world| {
                world.act(2, |me| {
                    let _side = world.side.lock().shared(me, FOREVER).unwrap().unwrap();
                    let _main = world.main.lock().shared(me, FOREVER).unwrap().unwrap();
                    assert_eq!(world.read(), 0, "the claimant was kept out by the first reader");
                });
            });
            nested.join().unwrap();
            drop(held);
            claimant.join().unwrap();
        });
        assert_eq!(world.read(), 1);
        assert_eq!(state(&world), FREE);
    });
}

/// A nested reader may barge in between the claimant's last look at the bits and its entry.
#[test]
fn a_nested_reader_and_an_entering_claimant_exclude_each_other() {
    explore(3, |world: Arc<World<RwLock>>| {
        world.clone().act(0, |me| {
            let held = world.main.lock().shared(me, FOREVER).unwrap().unwrap();
            let claimant = spawn(&world, |world| writer(world, 1));
            let nested = spawn(&world, |world| {
                world.act(2, |me| {
                    let _side = world.side.lock().shared(me, FOREVER).unwrap().unwrap();
                    let _main = world.main.lock().shared(me, FOREVER).unwrap().unwrap();
                    world.read();
                });
            });
            drop(held);
            claimant.join().unwrap();
            nested.join().unwrap();
        });
        assert_eq!(world.read(), 1);
        assert_eq!(state(&world), FREE);
    });
}

#[test]
fn tries_leave_nothing() {
    explore(9, |world: Arc<World<RwLock>>| {
        let other = spawn(&world, |world| {
            world.act(0, |me| {
                let got = world.main.lock().shared(me, Patience::Try);
                got.map(|guard| guard.map(|_guard| world.read())).is_ok()
            })
        });
        let mine = world.act(1, |me| {
            let got = world.main.lock().exclusive(me, Patience::Try);
            got.map(|_guard| world.write()).is_ok()
        });
        other.join().unwrap();
        assert_eq!(world.read(), u64::from(mine));
        assert_eq!(state(&world), FREE);
    });
}

#[test]
fn spin_lock_two_writers() {
    explore(9, |world: Arc<World<SpinLock>>| {
        let other = spawn(&world, |world| writer(world, 0));
        writer(&world, 1);
        other.join().unwrap();
        assert_eq!(world.read(), 2);
        assert_eq!(world.main.lock().owner(), None);
    });
}

#[test]
fn spin_lock_writer_and_reader() {
    explore(9, |world: Arc<World<SpinLock>>| {
        let other = spawn(&world, |world| reader(world, 0));
        writer(&world, 1);
        other.join().unwrap();
        assert_eq!(world.read(), 1);
        assert_eq!(world.main.lock().owner(), None);
    });
}

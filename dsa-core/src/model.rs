//! Models in every interleaving and with every order that weak memory allows (`cfg(loom)`). Here:
//! of the truth byte, and what a slab's owner and others do to it without a lock. Below: looking
//! for the slabs of the dead, freeing in nobody's, and looking in the process's table.
//!
//! The functions are those that ship; the slab around them is a header without memory. Loom reports
//! two that use an object's memory without one being ordered after the other.

mod adoption;
mod local;
mod nobodys;

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

#[cfg(dsm_planted)]
use dsm_core::planted;
use dsm_core::sync::{AtomicU8, AtomicU16, AtomicU32, AtomicU64, Ordering};
use loom::cell::UnsafeCell;
use loom::sync::Arc;
use loom::thread;

use crate::area::{begin, complete};
use crate::heap::free_remotely;
use crate::hints::HeapLocal;
use crate::pointer::DsaPointer;
use crate::slab::{FREE, Owner, Slab, SlabHeader, UNPUBLISHED, USED};

const OBJECT: DsaPointer = DsaPointer::from_raw(1 << 50 | 64);

/// The header of a slab of one object.
fn header(owner: Owner) -> SlabHeader {
    SlabHeader {
        owner: AtomicU64::new(owner.heap),
        truth: AtomicU64::new(0),
        recip: AtomicU32::new(0),
        count: AtomicU16::new(1),
        start: AtomicU16::new(0),
        next: AtomicU64::new(0),
        prev: AtomicU64::new(0),
        dest: AtomicU64::new(0),
        publishing: AtomicU16::new(0),
        cursor: AtomicU16::new(0),
        left: AtomicU16::new(1),
        list: AtomicU8::new(0),
        _reserved: AtomicU8::new(0),
        participant: AtomicU64::new(owner.participant),
    }
}

/// A slab with one object, and what lies in the object.
struct World {
    header: SlabHeader,
    truth: AtomicU8,
    memory: UnsafeCell<u64>,
}

impl World {
    fn new(truth: u8) -> Arc<Self> {
        Arc::new(Self {
            header: header(Owner { heap: 16, participant: 1 << 16 }),
            truth: AtomicU8::new(truth),
            memory: UnsafeCell::new(0),
        })
    }

    fn slab(&self) -> Slab<'_> {
        Slab::without_memory(&self.header)
    }

    /// Uses the object: by whoever has it, alone.
    fn write(&self, value: u64) {
        // SAFETY: that nobody else has the object is what loom checks.
        self.memory.with_mut(|at| unsafe { *at = value });
    }

    /// As somebody who is not the slab's owner.
    fn free(&self) -> bool {
        free_remotely(OBJECT, &self.header, &self.truth).is_ok()
    }

    /// As the holder of the page lock.
    fn free_by_intent(&self) -> bool {
        let began = begin(&self.truth);
        if began {
            let _ = complete(&self.slab(), &self.truth);
        }
        began
    }
}

/// As the slab's owner, to whom a hint says that the object may be free.
fn take(world: &World) -> bool {
    let hints = HeapLocal::new();
    hints.classes[0].push(OBJECT, &world.truth);
    let taken = hints.classes[0].take(USED);
    assert!(taken.is_none_or(|pointer| pointer == OBJECT));
    taken.is_some()
}

/// Explores; the model says how it ended, and must end in `ends` ways.
fn explore(ends: usize, model: impl Fn() -> usize + Send + Sync + 'static) {
    #[cfg(dsm_planted)]
    assert!(planted::select(&std::env::var(planted::VARIABLE).unwrap_or_default()));
    let seen = std::sync::Arc::new(AtomicUsize::new(0));
    let all = seen.clone();
    loom::model(move || {
        let _ = all.fetch_or(1 << model(), Relaxed);
    });
    assert_eq!(seen.load(Relaxed).count_ones() as usize, ends, "ends that came about");
}

#[test]
fn who_takes_an_object_comes_after_who_freed_it() {
    for free in [World::free, World::free_by_intent] {
        explore(2, move || frees_beside_taker(free));
    }
}

fn frees_beside_taker(free: fn(&World) -> bool) -> usize {
    let world = World::new(USED);
    let other = thread::spawn({
        let world = world.clone();
        move || {
            world.write(1);
            assert!(free(&world));
        }
    });
    let owner = thread::spawn({
        let world = world.clone();
        move || {
            let taken = take(&world);
            if taken {
                world.write(2);
            }
            taken
        }
    });
    let taken = owner.join().unwrap();
    other.join().unwrap();
    usize::from(taken)
}

#[test]
fn of_two_that_free_an_object_one_does() {
    for truth in [USED, UNPUBLISHED] {
        explore(2, move || {
            let world = World::new(truth);
            let other = thread::spawn({
                let world = world.clone();
                move || world.free()
            });
            let mine = world.free_by_intent();
            let theirs = other.join().unwrap();
            assert_ne!(mine, theirs, "freed twice, or not at all");
            assert_eq!(world.truth.load(Ordering::Relaxed), FREE);
            usize::from(mine)
        });
    }
}

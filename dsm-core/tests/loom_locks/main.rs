//! Loom models of the locks: every interleaving (within a bound on preemptions) of two or three
//! participants, and every moment at which one of them can be killed.
//!
//! `RUSTFLAGS="--cfg loom" cargo test -p dsm-core --release --test loom_locks`
#![cfg(loom)]

mod death;
mod exclusion;
mod world;

use world::World;

use dsm_core::lock::rw::{RwLock, RwLockState};
use loom::sync::Arc;

/// Explores `model` over a fresh world, with at most `preemptions` a run.
///
/// Bounds are as high as lets each model end within a quarter of a minute: two participants bear
/// five or more, three bear three.
fn explore<L: dsm_core::lock::RawLock + 'static>(
    preemptions: usize,
    model: impl Fn(Arc<World<L>>) + Sync + Send + 'static,
) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(preemptions);
    builder.max_branches = 10_000;
    builder.check(move || model(Arc::new(World::new())));
}

/// What the lock looks like. Not whether somebody sleeps: who was about to, and then did not,
/// leaves that behind, which costs the next owner a wake that nobody needs.
fn state(world: &World<RwLock>) -> RwLockState {
    // SAFETY: the world's lock is initialised.
    RwLockState { waiters: false, ..unsafe { RwLock::state(world.main.pointer()) } }
}

const FREE: RwLockState =
    RwLockState { owner: None, entered: false, dirty: false, waiters: false, readers: 0 };

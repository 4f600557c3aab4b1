//! The one door to atomics: the real ones, loom's under `cfg(loom)`, or those of `cfg(shuttle)`.
//!
//! Every module of the three cores takes its atomics, fences and spin hints from here, so that a
//! model explores exactly the code that ships. Shared structures are built in place by
//! constructors (`ptr.write(AtomicU64::new(0))`): a loom atomic is an index into the model's
//! tables and has neither the size nor the zero value of an integer. In models a thread can also be
//! killed between any two of its stores: see `model::die_after` (built under `cfg(loom)` only).
//!
//! Under `cfg(shuttle)` they are the real ones with a scheduling point before each access, so that
//! the structures lie in memory as ever and whole operations can be explored; see `sync::shuttle`.

#[cfg(loom)]
pub mod model;
#[cfg(shuttle)]
pub mod shuttle;

#[cfg(loom)]
pub use model::{
    AtomicBool, AtomicU8, AtomicU16, AtomicU32, AtomicU64, AtomicUsize, fence, spin_loop, yield_now,
};

#[cfg(shuttle)]
pub use shuttle::{
    AtomicBool, AtomicU8, AtomicU16, AtomicU32, AtomicU64, AtomicUsize, fence, spin_loop, yield_now,
};

#[cfg(not(any(loom, shuttle)))]
pub use core::{
    hint::spin_loop,
    sync::atomic::{AtomicBool, AtomicU8, AtomicU16, AtomicU32, AtomicU64, AtomicUsize, fence},
};

/// Gives way to another thread where the model needs it; a spin hint elsewhere.
#[cfg(not(any(loom, shuttle)))]
#[inline]
pub fn yield_now() {
    core::hint::spin_loop();
}

pub use core::sync::atomic::Ordering;

/// Keeps the compiler from moving stores across this point.
///
/// Intents are read only after their writer's death, when the whole machine agrees on what was
/// written: program order is all that counts, and this costs no instruction. A no-op under loom,
/// which has no notion of a compiler fence (each of its atomics is an opaque call).
#[inline(always)]
pub fn compiler_fence() {
    #[cfg(not(loom))]
    core::sync::atomic::compiler_fence(Ordering::SeqCst);
}

/// Stands between a sequentially consistent read-modify-write and a sequentially consistent load
/// of *another* location that must not see an older moment (Dekker's pattern).
///
/// The language orders the two already, so this is nothing outside models; loom treats
/// sequentially consistent accesses as acquire and release only, and needs to be told.
#[inline(always)]
pub fn dekker_fence() {
    #[cfg(loom)]
    fence(Ordering::SeqCst);
}

/// A sequentially consistent load that must not see an older moment than a sequentially consistent
/// *store* before it, to another location.
///
/// For loom a read-modify-write, which it has read the newest value, and before which, unlike
/// before a fence, it lets others run.
#[inline(always)]
pub fn dekker_load(word: &AtomicU32) -> u32 {
    #[cfg(loom)]
    return word.fetch_or(0, Ordering::AcqRel);
    #[cfg(not(loom))]
    word.load(Ordering::SeqCst)
}

//! Atomics for models: loom's, with a switch that kills.
//!
//! A killed process stops between two stores. For the shared memory of a model that is the same
//! as a thread whose stores stop having an effect: [`die_after`] runs a piece of code and lets it
//! perform only its first so many stores and read-modify-writes. At the next one the code is
//! unwound to `die_after`; what destructors do on the way is done to nothing. Run for every
//! number of stores, under loom, it covers every moment at which the code can be killed together
//! with every interleaving of the others.

use core::fmt;
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use loom::thread::{ThreadId, current};

use super::Ordering;

#[derive(Clone, Copy)]
enum Fate {
    Lives,
    /// This thread dies at its next store but so many.
    Doomed(ThreadId, u32),
    /// It is unwinding. No other thread of the model runs meanwhile: only loom's operations
    /// switch threads, and a dead thread performs none.
    Dead,
}

std::thread_local! {
    // A model runs all its threads on the system thread that called it.
    static FATE: Cell<Fate> = const { Cell::new(Fate::Lives) };
}

struct Death;

/// Runs `code` until it is about to perform its store number `stores` (counted from 0, read-
/// modify-writes included). Returns whether it got that far, or else what `code` returned.
///
/// One thread of a model at a time. `code` must touch shared memory through the atomics of this
/// crate only, and everything that it owns must bear being dropped without effect.
///
/// # Errors
///
/// What `code` returned, if it performs fewer stores.
pub fn die_after<R>(stores: u32, code: impl FnOnce() -> R) -> Result<(), R> {
    FATE.set(Fate::Doomed(current().id(), stores));
    let end = catch_unwind(AssertUnwindSafe(code));
    FATE.set(Fate::Lives);
    match end {
        Ok(result) => Err(result),
        Err(payload) if payload.is::<Death>() => Ok(()),
        Err(payload) => resume_unwind(payload),
    }
}

fn is_dead() -> bool {
    matches!(FATE.get(), Fate::Dead)
}

/// Comes before every store. Returns whether it is to be performed.
fn store_comes() -> bool {
    match FATE.get() {
        Fate::Lives => true,
        Fate::Dead => false,
        Fate::Doomed(thread, _) if thread != current().id() => true,
        Fate::Doomed(_, 0) => {
            FATE.set(Fate::Dead);
            resume_unwind(std::boxed::Box::new(Death))
        }
        Fate::Doomed(thread, left) => {
            FATE.set(Fate::Doomed(thread, left - 1));
            true
        }
    }
}

/// `loom::sync::atomic::fence`, of a thread that can die.
#[track_caller]
pub fn fence(order: Ordering) {
    if !is_dead() {
        loom::sync::atomic::fence(order);
    }
}

/// `loom::thread::yield_now`, of a thread that can die.
pub fn yield_now() {
    if !is_dead() {
        loom::thread::yield_now();
    }
}

/// `loom::hint::spin_loop`, of a thread that can die.
pub fn spin_loop() {
    if !is_dead() {
        loom::hint::spin_loop();
    }
}

macro_rules! atomic {
    ($name:ident, $value:ty, [$($change:ident),*]) => {
        #[doc = concat!("`loom::sync::atomic::", stringify!($name), "`, of a thread that can die.")]
        pub struct $name(loom::sync::atomic::$name);

        impl $name {
            /// See `core::sync::atomic`.
            #[track_caller]
            #[must_use]
            pub fn new(value: $value) -> Self {
                Self(loom::sync::atomic::$name::new(value))
            }

            /// See `core::sync::atomic`.
            #[track_caller]
            pub fn load(&self, order: Ordering) -> $value {
                if is_dead() { Default::default() } else { self.0.load(order) }
            }

            /// See `core::sync::atomic`.
            #[track_caller]
            pub fn store(&self, value: $value, order: Ordering) {
                if store_comes() {
                    self.0.store(value, order);
                }
            }

            /// See `core::sync::atomic`.
            #[track_caller]
            #[expect(clippy::missing_errors_doc, reason = "as in core")]
            pub fn compare_exchange(
                &self,
                old: $value,
                new: $value,
                success: Ordering,
                failure: Ordering,
            ) -> Result<$value, $value> {
                if !store_comes() {
                    return Ok(old);
                }
                self.0.compare_exchange(old, new, success, failure)
            }

            /// See `core::sync::atomic`.
            #[track_caller]
            #[expect(clippy::missing_errors_doc, reason = "as in core")]
            pub fn compare_exchange_weak(
                &self,
                old: $value,
                new: $value,
                success: Ordering,
                failure: Ordering,
            ) -> Result<$value, $value> {
                self.compare_exchange(old, new, success, failure)
            }

            /// See `core::sync::atomic`.
            #[track_caller]
            #[expect(clippy::missing_errors_doc, reason = "as in core")]
            pub fn fetch_update(
                &self,
                set: Ordering,
                fetch: Ordering,
                mut change: impl FnMut($value) -> Option<$value>,
            ) -> Result<$value, $value> {
                let mut old = self.load(fetch);
                while let Some(new) = change(old) {
                    match self.compare_exchange(old, new, set, fetch) {
                        Ok(old) => return Ok(old),
                        Err(now) => old = now,
                    }
                }
                Err(old)
            }

            $(
                /// See `core::sync::atomic`.
                #[track_caller]
                pub fn $change(&self, value: $value, order: Ordering) -> $value {
                    if store_comes() { self.0.$change(value, order) } else { Default::default() }
                }
            )*
        }

        impl Default for $name {
            fn default() -> Self {
                Self::new(Default::default())
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
    ($($name:ident, $value:ty;)*) => {
        $(atomic!($name, $value, [
            swap, fetch_add, fetch_sub, fetch_and, fetch_or, fetch_xor, fetch_max, fetch_min
        ]);)*
    };
}

atomic! {
    AtomicU8, u8;
    AtomicU16, u16;
    AtomicU32, u32;
    AtomicU64, u64;
    AtomicUsize, usize;
}
atomic!(AtomicBool, bool, [swap, fetch_and, fetch_or, fetch_xor]);

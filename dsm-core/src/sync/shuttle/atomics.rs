//! The atomics: those of the machine, with a scheduling point before each access.

use core::fmt;
use core::sync::atomic::{self as machine, Ordering};

use zerocopy::{FromBytes, IntoBytes, KnownLayout};

use super::{give_way, point, store_comes};

/// Nothing but a scheduling point: all accesses are sequentially consistent.
pub fn fence(_order: Ordering) {
    point();
}

/// Lets other threads go first.
pub fn yield_now() {
    give_way();
}

/// Lets other threads go first.
pub fn spin_loop() {
    give_way();
}

macro_rules! atomic {
    ($(#[$plain:meta])* $name:ident, $value:ty, [$($change:ident),*]) => {
        $(#[$plain])*
        #[doc = concat!("`core::sync::atomic::", stringify!($name), "`, with scheduling points.")]
        #[repr(transparent)]
        #[derive(Default)]
        pub struct $name(machine::$name);

        impl $name {
            /// See `core::sync::atomic`.
            #[must_use]
            pub const fn new(value: $value) -> Self {
                Self(machine::$name::new(value))
            }

            /// See `core::sync::atomic`.
            pub fn load(&self, _order: Ordering) -> $value {
                point();
                self.0.load(Ordering::SeqCst)
            }

            /// See `core::sync::atomic`.
            pub fn store(&self, value: $value, _order: Ordering) {
                store_comes();
                self.0.store(value, Ordering::SeqCst);
            }

            /// See `core::sync::atomic`.
            #[expect(clippy::missing_errors_doc, reason = "as in core")]
            pub fn compare_exchange(
                &self,
                old: $value,
                new: $value,
                _success: Ordering,
                _failure: Ordering,
            ) -> Result<$value, $value> {
                store_comes();
                self.0.compare_exchange(old, new, Ordering::SeqCst, Ordering::SeqCst)
            }

            /// See `core::sync::atomic`.
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
                pub fn $change(&self, value: $value, _order: Ordering) -> $value {
                    store_comes();
                    self.0.$change(value, Ordering::SeqCst)
                }
            )*
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
    ($($name:ident, $value:ty;)*) => {
        // Plain data, as the machine's are: structures in shared memory are derived from bytes.
        $(atomic!(#[derive(FromBytes, IntoBytes, KnownLayout)] $name, $value, [
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

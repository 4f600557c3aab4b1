//! Bodies of the fuzz targets, as functions of bytes.
//!
//! Each module holds one target: `run(bytes)` turns bytes into a case and panics when a promise of
//! the library is broken. A body never waits without a bound and leaves nothing behind, so that
//! libFuzzer, the tests in `tests/` and a replay of a finding can all call it.

pub mod area;
pub mod control;
mod damage;
mod platform;
pub mod registry;
pub mod seeds;
pub mod table;
mod tables;

/// What the address sanitizer is to do where the environment says nothing else: what pays in a case
/// of a few hundred microseconds. Left to itself it keeps back 256 MiB of what was freed, so that
/// each allocation touches memory that is in no cache; and puts large frames of the stack on a heap
/// of its own, to find uses of them after their end, which the borrow checker does not let happen.
#[cfg(fuzzing)]
#[unsafe(no_mangle)]
pub extern "C" fn __asan_default_options() -> *const core::ffi::c_char {
    c"quarantine_size_mb=8:malloc_context_size=12:detect_stack_use_after_return=0".as_ptr()
}

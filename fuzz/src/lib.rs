//! Bodies of the fuzz targets, as functions of bytes.
//!
//! Each module holds one target: `run(bytes)` turns bytes into a case and panics when a promise of
//! the library is broken. A body never waits without a bound and leaves nothing behind, so that
//! libFuzzer, the tests in `tests/` and a replay of a finding can all call it.

pub mod area;
pub mod control;
pub mod registry;
pub mod seeds;
pub mod table;

//! What the types must refuse: see each file under `tests/ui` for the mistake it makes.
//!
//! This runs cargo, and what doesn't compile is the same on all systems: not done for Windows, for
//! which tests are mostly built elsewhere.
#![cfg(not(windows))]

#[test]
fn mistakes_do_not_compile() {
    trybuild::TestCases::new().compile_fail("tests/ui/*.rs");
}

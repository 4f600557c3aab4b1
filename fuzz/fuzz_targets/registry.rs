//! See `dsm_fuzz::registry`.
#![cfg_attr(fuzzing, no_main)]

#[cfg(fuzzing)]
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| dsm_fuzz::registry::run(bytes));

#[cfg(not(fuzzing))]
fn main() {
    dsm_fuzz::seeds::replay(dsm_fuzz::registry::run);
}

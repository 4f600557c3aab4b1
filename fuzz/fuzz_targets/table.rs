//! See `dsm_fuzz::table`.
#![cfg_attr(fuzzing, no_main)]

#[cfg(fuzzing)]
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| dsm_fuzz::table::run(bytes));

#[cfg(not(fuzzing))]
fn main() {
    dsm_fuzz::seeds::replay(dsm_fuzz::table::run);
}

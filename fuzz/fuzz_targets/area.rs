//! See `dsm_fuzz::area`.
#![cfg_attr(fuzzing, no_main)]

#[cfg(fuzzing)]
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| dsm_fuzz::area::run(bytes));

#[cfg(not(fuzzing))]
fn main() {
    dsm_fuzz::seeds::replay(dsm_fuzz::area::run);
}

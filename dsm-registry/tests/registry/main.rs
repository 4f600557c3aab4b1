//! The registry on real shared memory, with real processes; see `support`.

mod initialise;
mod kill;
mod names;
mod process;
mod support;
mod things;

#[test]
fn peer() {
    support::play(&[initialise::ROLES, kill::ROLES, names::ROLES, process::ROLES, things::ROLES]);
}

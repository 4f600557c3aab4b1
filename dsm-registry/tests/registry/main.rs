//! The registry on the system's shared memory, with real processes; see `support`.

mod comes_back;
mod initialise;
mod kill;
#[cfg(target_os = "linux")]
mod lost;
mod names;
mod options;
mod outside;
#[cfg(unix)]
mod places;
#[cfg(unix)]
mod posix;
mod process;
#[cfg(target_os = "linux")]
mod reaper;
#[cfg(target_os = "linux")]
mod refusals;
#[cfg(target_os = "linux")]
mod removed;
mod support;
mod texts;
mod things;
mod types;
#[cfg(target_os = "linux")]
mod users;
mod waits;
mod wakes;
mod words;

#[test]
fn peer() {
    support::play(&[
        comes_back::ROLES,
        initialise::ROLES,
        kill::ROLES,
        #[cfg(target_os = "linux")]
        lost::ROLES,
        names::ROLES,
        outside::ROLES,
        #[cfg(unix)]
        posix::ROLES,
        #[cfg(target_os = "linux")]
        reaper::ROLES,
        #[cfg(target_os = "linux")]
        removed::ROLES,
        types::ROLES,
        #[cfg(target_os = "linux")]
        users::ROLES,
        waits::ROLES,
        wakes::ROLES,
        words::ROLES,
    ]);
}

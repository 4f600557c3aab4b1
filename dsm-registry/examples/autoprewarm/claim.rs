//! A role that one process at a time plays: running the worker, writing the dump file.
//!
//! A claim is the lock of a table's vacant entry, held for as long as the role is played; the table
//! stays empty. A process that was killed holds nothing: who asks next gets the lock, and there is
//! no value that the death could have left half written. Beside it the holder notes its pid, for
//! people to read.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use dsm_registry::{Entry, Error, ErrorKind, HashOptions, HashTable, Registry};

/// The entry that is never made.
const SEAT: u32 = 0;

/// Longer than it takes to look whether somebody has the claim, which who takes it waits for.
const MOMENT: Duration = Duration::from_millis(200);

/// A claim.
pub(crate) struct Claim {
    seats: HashTable<u32, u32>,
}

impl Claim {
    /// Finds the claim of that name, or creates it.
    pub(crate) fn open(registry: &Registry, name: &str) -> Result<Self, Error> {
        let seats = registry.hash_with(name, HashOptions::new().partitions(1))?;
        Ok(Self { seats })
    }

    /// Takes the claim, until the result is dropped; notes the pid of this process. `None` if
    /// somebody else has it, whose pid is noted, at the latest in a moment.
    pub(crate) fn take<'c>(&'c self, pid: &'c AtomicU32) -> Result<Option<Held<'c>>, Error> {
        match self.seats.within(MOMENT).entry(&SEAT) {
            Ok(seat) => {
                pid.store(std::process::id(), Ordering::Release);
                Ok(Some(Held { _seat: seat, pid }))
            }
            Err(error) if matches!(error.kind(), ErrorKind::Lock(_)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The pid of who has it.
    pub(crate) fn holder(&self, pid: &AtomicU32) -> Result<Option<u32>, Error> {
        match self.seats.without_waiting().find(&SEAT) {
            Ok(_) => Ok(None),
            Err(error) if matches!(error.kind(), ErrorKind::Lock(_)) => {
                Ok(Some(pid.load(Ordering::Acquire)))
            }
            Err(error) => Err(error),
        }
    }
}

/// A claim of this process; given back when dropped.
pub(crate) struct Held<'c> {
    _seat: Entry<'c, u32, u32>,
    pid: &'c AtomicU32,
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        // Before the lock is given back, which is when the fields are dropped.
        self.pid.store(0, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_claim_is_held_once_and_given_back() {
        let name = testkit::name("claim");
        let registry = Registry::open(&name).unwrap();
        let (claim, pid) = (Claim::open(&registry, "claim").unwrap(), AtomicU32::new(0));
        let held = claim.take(&pid).unwrap().unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                assert!(claim.take(&pid).unwrap().is_none());
                assert_eq!(claim.holder(&pid).unwrap(), Some(std::process::id()));
            });
        });
        assert!(claim.take(&pid).unwrap().is_none());
        drop(held);
        assert_eq!(claim.holder(&pid).unwrap(), None);
        let other = Claim::open(&registry, "another").unwrap();
        assert!(claim.take(&pid).unwrap().is_some() && other.take(&pid).unwrap().is_some());
    }
}

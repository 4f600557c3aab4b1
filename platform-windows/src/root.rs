//! The control object: election, creation, removal.
//!
//! # Protocol
//!
//! The election is a named mutex. Its name follows from the namespace's, not from the object's
//! identity, so that whoever owns it is the only one to create, set up, and remove objects of that
//! name, and need not ask whether the object is still the one that the name means. The system takes
//! the mutex from an owner that ends, at whatever instruction, and tells the next one
//! ([`was_abandoned`](WindowsElection::was_abandoned)), which is good to know and changes nothing:
//! what is found is judged by what it is.
//!
//! | killed | leaves | and then |
//! |---|---|---|
//! | after creating | a file of size 0 | the next owner sees size 0: it initialises |
//! | while backing it | zeros | the cores see no magic number, and initialise again |
//! | after removing the name | a file that waits for its last view to go | it is deleted by whoever unmaps it, or is elected later |
//!
//! Sections of the page file come into being with their size and go with their processes; the
//! elected one holds the one it has found, so that its size doesn't change under its hands.
//!
//! # Threads
//!
//! A mutex belongs to a thread, which may own it several times over. So an election is not `Send`,
//! and the threads of a process first pass a gate, which lets one in at a time, and the one that
//! is in not again.

use std::marker::PhantomData;
use std::os::windows::io::{AsHandle, OwnedHandle};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

use dsm_core::error::ErrorKind;
use dsm_core::handle::ObjectId;
use dsm_core::provider::{Election, Mapping, ProviderError};
use platform_common::refusal;

use crate::clock::monotonic;
use crate::error::Error;
use crate::name::Role;
use crate::object::{Named, Purpose};
use crate::security::{self, Kind};
use crate::sys::{self, Waited};

/// The right to set up or remove a control object; see
/// [`Root::elect`](dsm_core::provider::Root::elect). Ends when dropped.
pub struct WindowsElection<'a> {
    named: &'a Named,
    mutex: OwnedHandle,
    abandoned: bool,
    size: usize,
    id: ObjectId,
    /// Of the object that was found.
    _hold: Option<OwnedHandle>,
    _gate: Gate,
    /// A mutex is released by the thread that acquired it.
    _one_thread: PhantomData<*mut ()>,
}

/// Elections that threads of this process hold, by the names of their mutexes.
static HELD: Mutex<Vec<String>> = Mutex::new(Vec::new());
static LEFT: Condvar = Condvar::new();

/// Keeps other threads of this process out.
struct Gate(String);

impl Gate {
    /// Waits for at most `patience`.
    fn enter(name: &str, patience: Duration) -> Option<Self> {
        let held = HELD.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut held, _) = LEFT
            .wait_timeout_while(held, patience, |held| held.iter().any(|held| held == name))
            .unwrap_or_else(PoisonError::into_inner);
        if held.iter().any(|held| held == name) {
            return None;
        }
        held.push(name.to_owned());
        Some(Self(name.to_owned()))
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        let mut held = HELD.lock().unwrap_or_else(PoisonError::into_inner);
        held.retain(|held| *held != self.0);
        LEFT.notify_all();
    }
}

/// Wins the election, waiting at most `patience`.
pub(crate) fn elect(
    named: &Named,
    create: bool,
    patience: Duration,
) -> Result<WindowsElection<'_>, Error> {
    const STEP: &str = "election";
    let label = || named.store.label(Role::Control);
    let late = || refusal::elected_late(label());
    let start = monotonic();
    let domain = named.domain();
    let gate = Gate::enter(&domain.prefix, patience).ok_or_else(late)?;
    let mutex = sys::mutex(&domain.kernel_name("elect"), &domain.security)
        .map_err(|code| Error::os(code, STEP, label()))?;
    security::accept(mutex.as_handle(), Kind::Kernel, &domain.options, &label)?;
    let left = patience.saturating_sub(monotonic().saturating_sub(start));
    let abandoned = match sys::wait(mutex.as_handle(), left) {
        Ok(Waited::Signalled) => false,
        Ok(Waited::Abandoned) => true,
        Ok(Waited::TimedOut) => return Err(late()),
        Err(code) => return Err(Error::os(code, STEP, label())),
    };
    let mut election = WindowsElection {
        named,
        mutex,
        abandoned,
        size: 0,
        id: ObjectId::default(),
        _hold: named.store.hold(),
        _gate: gate,
        _one_thread: PhantomData,
    };
    if create {
        named.store.found()?;
    }
    match named.store.stat(Role::Control) {
        Ok(info) => {
            election.size = usize::try_from(info.size).unwrap_or(usize::MAX);
            election.id = info.id;
        }
        Err(e) if e.kind() == ErrorKind::NotFound && create => {}
        Err(e) => return Err(e),
    }
    if election.size == 0 {
        named.store.sweep();
    }
    Ok(election)
}

impl WindowsElection<'_> {
    /// Whether the one who was elected before ended without giving the election back.
    #[must_use]
    pub fn was_abandoned(&self) -> bool {
        self.abandoned
    }
}

// SAFETY: `MapViewOfFile` says so of the mappings; `renew` makes an object of zeros that nobody
// else has, or empties the one that nobody has finished, under the mutex; the identity is that of
// the object that was found, or made.
unsafe impl Election for WindowsElection<'_> {
    type Error = Error;

    fn size(&self) -> usize {
        self.size
    }

    fn id(&self) -> ObjectId {
        self.id
    }

    fn create(&mut self, size: usize) -> Result<Mapping, Error> {
        let renewed = self.named.store.renew(size);
        let info = self.named.store.stat(Role::Control);
        self.size = info.map_or(0, |info| usize::try_from(info.size).unwrap_or(usize::MAX));
        let (mapping, id) = renewed?;
        self.id = id;
        Ok(mapping)
    }

    fn map(&mut self) -> Result<Mapping, Error> {
        if self.size == 0 {
            return Err(refusal::never_set_up(self.named.store.label(Role::Control)));
        }
        self.named.store.attach(Role::Control, self.id, Purpose::Use)
    }

    fn remove(&mut self) -> Result<(), Error> {
        self.named.store.destroy(Role::Control, self.id)?;
        self.named.store.sweep();
        Ok(())
    }
}

impl Drop for WindowsElection<'_> {
    fn drop(&mut self) {
        sys::release_mutex(self.mutex.as_handle());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::{Options, Owners};
    use crate::section::PageFile;
    use crate::security::Descriptor;

    /// Somebody was there first with a mutex that everybody may own, or with something that is no
    /// mutex.
    #[test]
    fn a_forged_mutex_is_refused() {
        let name = format!("test-windows-forged-{}", std::process::id());
        let named = Named::new(PageFile::new(&name, Options::new()).unwrap());
        let refused = || elect(&named, true, Duration::ZERO).map(drop).map_err(|e| e.kind());
        assert_eq!(refused(), Ok(()));
        let mutex_name = named.domain().kernel_name("elect");
        let everybody = Options::new().owners(Owners::Listed(vec!["S-1-1-0".into()]));
        let forged = sys::mutex(&mutex_name, &Descriptor::new(&everybody).unwrap()).unwrap();
        assert_eq!(refused(), Err(ErrorKind::PermissionDenied));
        drop(forged);
        assert_eq!(refused(), Ok(()));
        let _event = sys::event(&mutex_name, &named.domain().security).unwrap();
        assert_eq!(refused(), Err(ErrorKind::Foreign));
    }

    /// A refusal at any step leaves nobody elected.
    #[test]
    fn a_failed_election_is_over() {
        let name = format!("test-windows-failed-{}", std::process::id());
        let named = Named::new(PageFile::new(&name, Options::new()).unwrap());
        for _ in 0..3 {
            let absent = elect(&named, false, Duration::ZERO).map(drop).map_err(|e| e.kind());
            assert_eq!(absent, Err(ErrorKind::NotFound));
        }
        std::thread::scope(|scope| {
            scope.spawn(|| elect(&named, true, Duration::from_secs(30)).map(drop).unwrap());
        });
    }
}

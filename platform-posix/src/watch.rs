//! [`Watch`]: hearing of the death of other processes, instead of asking.
//!
//! Nobody needs it: whoever waits for somebody asks every few milliseconds whether that one lives.
//! It is for a thread that does nothing but wait for deaths, and then cleans up at once.
//!
//! On Linux a descriptor of a process (`pidfd_open`) becomes readable when all of its threads have
//! ended, after its token of life was let go. A descriptor is opened by a number, which may mean
//! somebody else by then; so the process is asked for *after* the descriptor was opened: if it is
//! the one that was meant, so is the descriptor, for good. Of processes in other pid namespaces the
//! number means nothing here, and elsewhere than on Linux there is no such descriptor: those are
//! [`Watched::Unseen`], and have to be asked.
//!
//! A program may close these descriptors as it may close all others: what they mean is looked up
//! before they are waited for, written to or closed (module `descriptor`), and those that were
//! closed are opened anew.

use dsm_core::env::ProcessProof;

use crate::error::Error;

/// What became of the wish to watch a process.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Watched {
    /// Its death will be told.
    Seen,
    /// It is dead already.
    Dead,
    /// Its death can't be heard of; ask for it now and then.
    Unseen,
}

#[cfg(target_os = "linux")]
mod system {
    use std::os::fd::{AsRawFd, RawFd};
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::sync::{Arc, Mutex, PoisonError, TryLockError};
    use std::time::Duration;

    use super::{Error, ProcessProof, Watched};
    use crate::descriptor::{Kept, PrivateFd};
    use crate::fork;
    use crate::process::{self, Fate};
    use crate::sys;

    /// How long to wait at a time where nothing can end the wait.
    const BLIND: Duration = Duration::from_millis(5);

    /// A set of processes, each under a key of the caller's, and a way to be interrupted.
    #[derive(Debug)]
    pub struct Watch {
        bell: Arc<Bell>,
        processes: Vec<Process>,
    }

    #[derive(Debug)]
    struct Process {
        key: u64,
        proof: ProcessProof,
        descriptor: Kept,
    }

    /// Ends a [`Watch::wait`] of another thread, or the next one.
    #[derive(Clone, Debug)]
    pub struct Interrupt(Arc<Bell>);

    /// What ends a wait. Not a descriptor of an event: while somebody waits for that, nothing tells
    /// that it was closed. Of a stream the other end does.
    struct Bell {
        /// Set by who rings: whatever becomes of the stream, the next wait sees it.
        rung: AtomicBool,
        /// To wait for, and to ring by; none while they cannot be had.
        ends: Mutex<Option<[PrivateFd; 2]>>,
    }

    impl std::fmt::Debug for Bell {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.debug_struct("Bell").finish_non_exhaustive()
        }
    }

    impl Bell {
        fn open() -> Result<[PrivateFd; 2], Error> {
            let no_fork = fork::lock();
            let [waits, rings] = sys::stream().map_err(|e| Error::os(e, "socketpair", ""))?;
            let waits = PrivateFd::open_under(&no_fork, || Ok(waits));
            // Opened before an error is given back: what is dropped takes the lock itself.
            let rings = PrivateFd::open_under(&no_fork, || Ok(rings));
            drop(no_fork);
            Ok([waits?, rings?])
        }

        fn new() -> Result<Self, Error> {
            Ok(Self { rung: AtomicBool::new(false), ends: Mutex::new(Some(Self::open()?)) })
        }

        /// The number to wait for, of a stream that is opened anew if others have closed an end of
        /// it.
        fn number(&self) -> Option<RawFd> {
            let mut ends = self.ends.lock().unwrap_or_else(PoisonError::into_inner);
            let lost = !matches!(&*ends, Some(ends) if ends.iter().all(|end| end.get().is_some()));
            if lost {
                *ends = None;
                *ends = Self::open().ok();
            }
            ends.as_ref().and_then(|[waits, _]| waits.get()).map(|end| end.as_raw_fd())
        }

        fn ring(&self) {
            self.rung.store(true, Ordering::SeqCst);
            // Who has it locked is about to look whether it was rung, or rings. (In a forked child
            // it may be locked by a thread that is not there.)
            let ends = match self.ends.try_lock() {
                Ok(ends) => ends,
                Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
                Err(TryLockError::WouldBlock) => return,
            };
            if let Some(rings) = ends.as_ref().and_then(|[_, rings]| rings.get()) {
                sys::send_byte(rings);
            }
        }

        /// After a wait that it ended.
        fn quiet(&self) {
            // In this order: who rings in between is heard by the next wait.
            self.rung.store(false, Ordering::SeqCst);
            let ends = self.ends.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(waits) = ends.as_ref().and_then(|[waits, _]| waits.get()) {
                sys::drain(waits);
            }
        }
    }

    fn readable(fd: RawFd) -> libc::pollfd {
        libc::pollfd { fd, events: libc::POLLIN, revents: 0 }
    }

    impl Process {
        /// `Err` if its death will not be told.
        fn open(key: u64, proof: &ProcessProof) -> Result<Self, Watched> {
            if !process::comparable(proof) {
                return Err(Watched::Unseen);
            }
            let opened = sys::process_fd(proof.pid).and_then(Kept::new);
            if process::fate(proof) == Fate::Dead {
                return Err(Watched::Dead);
            }
            let descriptor = opened.map_err(|_| Watched::Unseen)?;
            Ok(Self { key, proof: *proof, descriptor })
        }
    }

    impl Watch {
        /// An empty set.
        ///
        /// # Errors
        ///
        /// [`TooMany`](dsm_core::error::ErrorKind::TooMany) if the process has no descriptor left.
        pub fn new() -> Result<Self, Error> {
            Ok(Self { bell: Arc::new(Bell::new()?), processes: Vec::new() })
        }

        /// What ends a wait.
        #[must_use]
        pub fn interrupt(&self) -> Interrupt {
            Interrupt(Arc::clone(&self.bell))
        }

        /// Watches a process from now on, under a key that no other has.
        pub fn add(&mut self, key: u64, whom: &ProcessProof) -> Watched {
            match Process::open(key, whom) {
                Ok(process) => {
                    self.processes.push(process);
                    Watched::Seen
                }
                Err(outcome) => outcome,
            }
        }

        /// Watches it no longer.
        pub fn remove(&mut self, key: u64) {
            self.processes.retain(|process| process.key != key);
        }

        /// Waits until somebody of the set has died, it is interrupted, or the time is over.
        /// Returns the keys of the dead, who are not in the set any more.
        ///
        /// Descriptors that others have closed meanwhile are opened anew. Of a process for which
        /// that fails nothing is heard any more: it is returned, too, and has to be asked for.
        pub fn wait(&mut self, time: Duration) -> Vec<u64> {
            let lost = self.reopen();
            let bell = self.bell.number();
            let now = !lost.is_empty() || self.bell.rung.load(Ordering::SeqCst);
            let time = match bell {
                _ if now => Duration::ZERO,
                Some(_) => time,
                None => time.min(BLIND),
            };
            // A negative number is waited for by nobody.
            let number = |process: &Process| {
                readable(process.descriptor.get().map_or(-1, |fd| fd.as_raw_fd()))
            };
            let mut polled = vec![readable(bell.unwrap_or(-1))];
            polled.extend(self.processes.iter().map(number));
            sys::poll(&mut polled, time);
            if now || polled[0].revents != 0 {
                self.bell.quiet();
            }
            // What a number that was closed meanwhile says is of somebody else, or nothing.
            let ended = self.processes.iter().zip(&polled[1..]).filter(|(process, polled)| {
                polled.revents & libc::POLLIN != 0 && process.descriptor.get().is_ok()
            });
            let ended: Vec<u64> = ended.map(|(process, _)| process.key).chain(lost).collect();
            ended.iter().for_each(|key| self.remove(*key));
            ended
        }

        /// Opens anew what others have closed; returns whom that failed for.
        fn reopen(&mut self) -> Vec<u64> {
            let mut lost = Vec::new();
            self.processes.retain_mut(|process| {
                if process.descriptor.get().is_ok() {
                    return true;
                }
                match Process::open(process.key, &process.proof) {
                    Ok(fresh) => *process = fresh,
                    Err(_) => lost.push(process.key),
                }
                lost.last() != Some(&process.key)
            });
            lost
        }
    }

    impl Interrupt {
        /// Ends the wait.
        pub fn send(&self) {
            self.0.ring();
        }
    }
}

#[cfg(not(target_os = "linux"))]
mod system {
    use std::time::Duration;

    use dsm_core::error::ErrorKind;

    use super::{Error, ProcessProof, Watched};

    /// A set of processes; there is none on this system.
    #[derive(Debug)]
    pub struct Watch(std::convert::Infallible);

    /// Ends a [`Watch::wait`].
    #[derive(Clone, Debug)]
    pub struct Interrupt(std::convert::Infallible);

    impl Watch {
        /// Always an error here.
        ///
        /// # Errors
        ///
        /// [`Unsupported`](ErrorKind::Unsupported).
        pub fn new() -> Result<Self, Error> {
            let why = "this system has no descriptors of processes; deaths have to be asked for";
            Err(Error::new(ErrorKind::Unsupported, "watch", why))
        }

        /// What ends a wait.
        #[must_use]
        pub fn interrupt(&self) -> Interrupt {
            match self.0 {}
        }

        /// Watches a process.
        pub fn add(&mut self, _key: u64, _whom: &ProcessProof) -> Watched {
            match self.0 {}
        }

        /// Watches it no longer.
        pub fn remove(&mut self, _key: u64) {
            match self.0 {}
        }

        /// Waits for a death.
        pub fn wait(&mut self, _time: Duration) -> Vec<u64> {
            match self.0 {}
        }
    }

    impl Interrupt {
        /// Ends the wait.
        pub fn send(&self) {
            match self.0 {}
        }
    }
}

pub use system::{Interrupt, Watch};

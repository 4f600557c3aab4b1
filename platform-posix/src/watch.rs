//! [`Watch`]: hearing of the death of other processes, instead of asking.
//!
//! Nobody needs it: whoever waits for somebody asks every few milliseconds whether that one lives. It is
//! for a thread that does nothing but wait for deaths, and then cleans up at once.
//!
//! On Linux a descriptor of a process (`pidfd_open`) becomes readable when all of its threads have
//! ended, after its token of life was let go. A descriptor is opened by a number, which may mean
//! somebody else by then; so the process is asked for *after* the descriptor was opened: if it is
//! the one that was meant, so is the descriptor, for good. Of processes in other pid namespaces the number
//! means nothing here, and elsewhere than on Linux there is no such descriptor: those are
//! [`Watched::Unseen`], and have to be asked.

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
    use std::os::fd::{AsFd, AsRawFd, OwnedFd};
    use std::sync::Arc;
    use std::time::Duration;

    use super::{Error, ProcessProof, Watched};
    use crate::process::{self, Fate};
    use crate::sys;

    /// A set of processes, each under a key of the caller's, and a way to be interrupted.
    #[derive(Debug)]
    pub struct Watch {
        interrupt: Arc<OwnedFd>,
        keys: Vec<u64>,
        /// The interrupt, then one for each key.
        polled: Vec<libc::pollfd>,
        processes: Vec<OwnedFd>,
    }

    /// Ends a [`Watch::wait`] of another thread, or the next one.
    #[derive(Clone, Debug)]
    pub struct Interrupt(Arc<OwnedFd>);

    fn readable(fd: &impl AsRawFd) -> libc::pollfd {
        libc::pollfd { fd: fd.as_raw_fd(), events: libc::POLLIN, revents: 0 }
    }

    impl Watch {
        /// An empty set.
        ///
        /// # Errors
        ///
        /// [`TooMany`](dsm_core::error::ErrorKind::TooMany) if the process has no descriptor left.
        pub fn new() -> Result<Self, Error> {
            let interrupt = sys::event_fd().map_err(|e| Error::os(e, "eventfd", ""))?;
            Ok(Self {
                polled: vec![readable(&interrupt)],
                interrupt: Arc::new(interrupt),
                keys: Vec::new(),
                processes: Vec::new(),
            })
        }

        /// What ends a wait.
        #[must_use]
        pub fn interrupt(&self) -> Interrupt {
            Interrupt(Arc::clone(&self.interrupt))
        }

        /// Watches a process from now on, under a key that no other has.
        pub fn add(&mut self, key: u64, whom: &ProcessProof) -> Watched {
            if !process::comparable(whom) {
                return Watched::Unseen;
            }
            let opened = sys::process_fd(whom.pid);
            if process::fate(whom) == Fate::Dead {
                return Watched::Dead;
            }
            let Ok(opened) = opened else { return Watched::Unseen };
            self.keys.push(key);
            self.polled.push(readable(&opened));
            self.processes.push(opened);
            Watched::Seen
        }

        /// Watches it no longer.
        pub fn remove(&mut self, key: u64) {
            if let Some(at) = self.keys.iter().position(|other| *other == key) {
                self.keys.swap_remove(at);
                self.processes.swap_remove(at);
                self.polled.swap_remove(at + 1);
            }
        }

        /// Waits until somebody of the set has died, it is interrupted, or the time is over. Returns the
        /// keys of the dead, who are not in the set any more.
        pub fn wait(&mut self, time: Duration) -> Vec<u64> {
            sys::poll(&mut self.polled, time);
            if self.polled[0].revents != 0 {
                sys::drain_event(self.interrupt.as_fd());
            }
            let ended = self.keys.iter().zip(&self.polled[1..]);
            let ended = ended.filter(|(_, polled)| polled.revents != 0);
            let ended: Vec<u64> = ended.map(|(key, _)| *key).collect();
            ended.iter().for_each(|key| self.remove(*key));
            ended
        }
    }

    impl Interrupt {
        /// Ends the wait.
        pub fn send(&self) {
            sys::raise_event(self.0.as_fd());
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

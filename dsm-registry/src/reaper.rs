//! [`Reaper`]: a thread that hears of deaths, and cleans up at once.
//!
//! Nobody needs it. Who waits for something that a dead process held asks, after a few
//! milliseconds, whether its holder lives, and then helps itself. Where a few milliseconds are too
//! long, or where the dead should not take up memory until somebody needs what they held, one
//! process of a namespace (or several) runs a reaper: it sleeps until the system says that a
//! process has ended, sweeps what that one left, and wakes all who wait for it.
//!
//! Two threads. One waits for deaths ([`Watch`]): that can be interrupted, but knows nothing of
//! shared memory. The other one sleeps on the word of the control segment that moves when a process
//! joins, and interrupts the first, which looks at the process slots anew. Both end when the handle
//! is dropped. Neither is a participant of the namespace, and neither runs code of the user.
//!
//! A process that can't be watched (of another pid namespace) is asked for every few milliseconds;
//! so is one that was reported dead, until its slot is free: sweeping may have failed, or come too
//! early. Threads that end without their destructors in a process that lives on are no deaths that
//! a watch hears of; who waits for them finds out by asking, as ever.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::thread::JoinHandle;
use std::time::Duration;

use dsm_core::env::ProcessProof;
use dsm_core::error::{ErrorKind, ProviderFailure, Reason};
use dsm_core::participant::Peers;
use dsm_core::sync::Ordering::{Acquire, Release};

use crate::error::Error;
use crate::error::context::{Context, Refusal};
use crate::process::Attachment;
use crate::registry::Registry;

/// How long to sleep if nothing happens: both threads are woken when something does.
const LONG: Duration = Duration::from_secs(300);
/// How often those are asked for who aren't watched.
const ASK: Duration = Duration::from_millis(5);

/// Hears of the death of processes: what a [`Platform`](crate::Platform) has to offer for a
/// [`Reaper`]. On POSIX systems with descriptors of processes it is made of those; on Windows it
/// could be made of process handles.
pub trait Watch: Send {
    /// Watches a process from now on, under a key that no other has.
    fn add(&mut self, key: u64, whom: &ProcessProof) -> Watched;
    /// Watches it no longer.
    fn remove(&mut self, key: u64);
    /// Waits until somebody has died, it is interrupted, or the time is over. Returns the keys of
    /// the dead, who are not watched any more.
    fn wait(&mut self, time: Duration) -> Vec<u64>;
    /// What ends a wait, also the next one, from another thread.
    fn interrupt(&self) -> Box<dyn Fn() + Send + Sync>;
}

/// What became of the wish to watch a process.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Watched {
    /// Its death will be told.
    Seen,
    /// It is dead already.
    Dead,
    /// Its death can't be heard of: it has to be asked for.
    Unseen,
}

/// Makes a watch, or says why there is none.
pub(crate) type MakeWatch = fn() -> Result<Box<dyn Watch>, ProviderFailure>;

/// For platforms that have nothing to offer.
pub(crate) fn no_watch() -> Result<Box<dyn Watch>, ProviderFailure> {
    Err(ProviderFailure::new(ErrorKind::Unsupported, "watch"))
}

/// A reaper at work; see [`Registry::spawn_reaper`]. Dropping it ends its threads.
#[must_use = "dropping this ends the reaper"]
pub struct Reaper {
    shared: Arc<Shared>,
    /// Who waits for deaths, and who for processes that join.
    threads: [Option<JoinHandle<()>>; 2],
}

struct Shared {
    home: Arc<Attachment>,
    over: AtomicBool,
    interrupt: Box<dyn Fn() + Send + Sync>,
}

impl Registry {
    /// Starts a thread that hears of the death of other processes of the namespace, sweeps what
    /// they left at once, and wakes those who wait for it: what a killed process held can then be
    /// had within a millisecond or so, instead of several, and what only it used is given back.
    ///
    /// Without one nobody hangs, and nothing is lost: whoever meets something of the dead sweeps
    /// that, and what nobody meets takes memory until it is short (see [`reap`](Registry::reap)).
    /// One in a namespace is enough, as long as its process lives; more do no harm. It costs two
    /// threads that sleep, a file descriptor a process, and the work of sweeping. It keeps this
    /// process in the namespace, as any handle does.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Namespace`](crate::ErrorKind::Namespace)
    /// ([`Unsupported`](ErrorKind::Unsupported)) on a platform that can't tell of deaths: all but
    /// Linux. [`ErrorKind::OutOfMemory`](crate::ErrorKind::OutOfMemory) if there is no memory for
    /// its threads.
    pub fn spawn_reaper(&self) -> Result<Reaper, Error> {
        let home = &self.shared.home;
        home.check_fork()?;
        let watch = home.make_watch().of(home, "a reaper")?;
        let (home, over) = (Arc::clone(home), AtomicBool::new(false));
        let shared = Arc::new(Shared { home, over, interrupt: watch.interrupt() });
        let mut reaper = Reaper { shared: Arc::clone(&shared), threads: [None, None] };
        let (one, other) = (Arc::clone(&shared), Arc::clone(&shared));
        reaper.threads[0] = Some(start("dsm-reaper", &shared, move || reap(&one, watch))?);
        reaper.threads[1] = Some(start("dsm-reaper-ear", &shared, move || listen(&other))?);
        Ok(reaper)
    }
}

fn start(
    name: &str,
    shared: &Shared,
    work: impl FnOnce() + Send + 'static,
) -> Result<JoinHandle<()>, Error> {
    let builder = std::thread::Builder::new().name(name.into()).stack_size(128 << 10);
    builder.spawn(work).map_err(|e| {
        let os_code = e.raw_os_error().unwrap_or(0);
        let failure = ProviderFailure::because(Reason::NoThread, "spawning");
        ProviderFailure { os_code, ..failure }.of(&shared.home, "a thread")
    })
}

/// Waits for deaths, and reaps.
fn reap(shared: &Shared, mut watch: Box<dyn Watch>) {
    let namespace = shared.home.namespace();
    // Process slot: (its generation, whether it is watched).
    let mut known: HashMap<u32, (u32, bool)> = HashMap::new();
    while !shared.over.load(Acquire) {
        let present: Vec<_> =
            namespace.processes().filter(|(slot, ..)| *slot != namespace.process_slot()).collect();
        known.retain(|slot, (generation, seen)| {
            let there = present.iter().any(|(s, g, _)| (s, g) == (slot, &*generation));
            if !there && *seen {
                watch.remove(key(*slot, *generation));
            }
            there
        });
        let mut dead = false;
        for (slot, generation, proof) in present {
            if known.contains_key(&slot) {
                continue;
            }
            let watched = watch.add(key(slot, generation), &proof);
            dead |= watched == Watched::Dead;
            known.insert(slot, (generation, watched == Watched::Seen));
        }
        let blind = known.values().any(|(_, seen)| !seen);
        if !dead {
            let reported = watch.wait(if blind { ASK } else { LONG });
            dead = blind || !reported.is_empty();
            known
                .iter_mut()
                .filter(|(slot, (generation, _))| reported.contains(&key(**slot, *generation)))
                .for_each(|(_, (_, seen))| *seen = false);
        }
        if dead {
            // What can't be swept now is asked for again.
            let _ = shared.home.reap();
        }
    }
}

fn key(slot: u32, generation: u32) -> u64 {
    u64::from(generation) << 32 | u64::from(slot)
}

/// Waits for processes that join.
fn listen(shared: &Shared) {
    let namespace = shared.home.namespace();
    let mut seen = namespace.joined().load(Acquire);
    // Whoever joined before that, and after the other thread's first look, is seen now.
    (shared.interrupt)();
    while !shared.over.load(Acquire) {
        namespace.env().wait(namespace.joined(), seen, LONG);
        let now = namespace.joined().load(Acquire);
        if now != seen {
            (shared.interrupt)();
        }
        seen = now;
    }
}

impl Drop for Reaper {
    fn drop(&mut self) {
        if !self.shared.home.is_ours() {
            // The threads are the parent's.
            self.threads.iter_mut().for_each(|thread| std::mem::forget(thread.take()));
            return;
        }
        self.shared.over.store(true, Release);
        (self.shared.interrupt)();
        let namespace = self.shared.home.namespace();
        for thread in self.threads.iter_mut().filter_map(Option::take) {
            // Who is about to sleep misses a wake.
            while !thread.is_finished() {
                namespace.env().wake_all(namespace.joined());
                std::thread::sleep(Duration::from_micros(200));
            }
            let _ = thread.join();
        }
    }
}

impl fmt::Debug for Reaper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reaper")
            .field("namespace", &self.shared.home.name())
            .finish_non_exhaustive()
    }
}

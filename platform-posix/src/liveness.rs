//! [`Posix`]: the environment of a process, and its proofs of who is dead.
//!
//! # Proofs
//!
//! What cannot be proven dead lives, and where proofs contradict each other, the living win.
//!
//! 1. **Its pid means nobody, or somebody else**: no process of that pid, one that started at
//!    another time, or a zombie without living threads. Such a process is dead. Counts only if both
//!    processes live in the same pid and time namespaces, and the one who asks has a `/proc` of
//!    that pid namespace ([`process`](crate::process)). This is what finds the parent dead whose
//!    child, made by a bare `clone`, still has a copy of the token.
//! 2. **Nobody holds its token**, the lock on byte `1 + slot` of the control object
//!    ([`lock`](crate::lock)). It was taken before the slot was claimed, and the kernel lets go of
//!    it when the process ends: after its last access to memory, and before it is reaped, so that a
//!    zombie counts as dead. It works between pid namespaces. A stopped process holds on to it.
//!    Such a process is dead unless the third proof says that it lives.
//! 3. **It is seen to be in the namespace**: the process of its pid and start time has the control
//!    object mapped for writing. Pid and start time alone would not do, since they survive `exec`,
//!    which unmaps everything and closes the token. Of itself a process knows which slots it has
//!    claimed. Linux only, and of processes that one may look at.
//!
//! The token is held through a descriptor that nobody else has and that a fork child closes
//! ([`descriptor`](crate::descriptor)): it does not matter who else opens and closes the control
//! object. A process that closes descriptors which it didn't open (`close_range(3, ..)`) loses its
//! token: then only the third proof speaks for it, and for those to whom nothing does it is dead.
//! It will not take others for dead itself, and asks for their tokens through a new descriptor.
//!
//! A lock doesn't exclude threads that share its descriptor, and asking about it doesn't see the
//! asker's own. So the slots claimed by this process are listed here. The token of a slot that *we*
//! have claimed but whose recorded tenant is somebody else is one that its tenant had lost.
//!
//! Threads of a living process are known by their thread id and the time when they started, in the
//! same pid namespace; elsewhere than on Linux, and in other namespaces, a thread is never found
//! dead by itself.
//!
//! # After a fork
//!
//! All state carries the [`epoch`](crate::fork::epoch) of its process. The child finds another
//! epoch, forgets what it inherited and starts without a claim. The state is only locked under
//! [`fork::lock`], so that no fork finds it locked.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use dsm_core::env::{Liveness, ProcessProof, ThreadProof};
use dsm_core::error::ProviderFailure;
use dsm_core::handle::ObjectId;
use dsm_core::provider::ProviderError;
use platform_common::refusal;

use crate::error::Error;
use crate::fork;
use crate::lock::{Locks, slot_byte};
use crate::process::{self, Fate};
use crate::root::ControlObject;
use crate::sys;

/// Waits, liveness, time and entropy on POSIX systems, for the processes of one namespace.
///
/// Made by a provider, such as [`Shm::environment`](crate::Shm::environment). Implements
/// [`Environment`](dsm_core::env::Environment).
pub struct Posix {
    control: Arc<dyn ControlObject>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Of which process this is the state.
    epoch: u64,
    /// Open while a token is held.
    locks: Option<Locks>,
    claimed: Vec<u32>,
    proof: Option<ProcessProof>,
}

/// What this very process has claimed, through all its environments: (control object, slot). Of the
/// process whose epoch is said. Locked under [`fork::lock`] only.
static CLAIMED: Mutex<(u64, Vec<(ObjectId, u32)>)> = Mutex::new((0, Vec::new()));

/// Works on the list of this process.
fn with_claimed<T>(
    _no_fork: &fork::NoFork,
    work: impl FnOnce(&mut Vec<(ObjectId, u32)>) -> T,
) -> T {
    let (epoch, mut list) = (fork::epoch(), CLAIMED.lock().unwrap_or_else(PoisonError::into_inner));
    if list.0 != epoch {
        *list = (epoch, Vec::new());
    }
    work(&mut list.1)
}

impl State {
    /// Forgets a slot, and closes the descriptor of the tokens with the last one.
    fn forget(&mut self, slot: u32, no_fork: &fork::NoFork) {
        let Some(index) = self.claimed.iter().position(|&s| s == slot) else { return };
        self.claimed.swap_remove(index);
        let Some(locks) = &self.locks else { return };
        locks.unlock(slot_byte(slot), no_fork);
        let id = locks.id();
        with_claimed(no_fork, |all| all.retain(|claim| *claim != (id, slot)));
        if self.claimed.is_empty() {
            if let Some(locks) = self.locks.take() {
                locks.close_under(no_fork);
            }
        }
    }
}

impl Posix {
    pub(crate) fn new(control: Arc<dyn ControlObject>) -> Self {
        Self { control, state: Mutex::default() }
    }

    /// Runs `work` on the state of this very process, with forks held off.
    fn with_state<T>(&self, work: impl FnOnce(&mut State, &fork::NoFork) -> T) -> T {
        let epoch = fork::epoch();
        let no_fork = fork::lock();
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.epoch != epoch {
            // In a fork child. The descriptor is closed already, unless the child was made behind
            // the C library's back: then it is closed here.
            if let Some(locks) = state.locks.take() {
                locks.close_under(&no_fork);
            }
            *state = State { epoch, ..State::default() };
        }
        let result = work(&mut state, &no_fork);
        drop(state);
        result
    }

    fn try_claim(&self, slot: u32) -> Result<(), Error> {
        let taken = || Err(refusal::token_taken(slot, self.control.label()));
        self.with_state(|state, no_fork| {
            if state.claimed.contains(&slot) {
                return taken();
            }
            let current = self.control.current()?;
            if state.claimed.is_empty() {
                if let Some(stale) = state.locks.take() {
                    stale.close_under(no_fork);
                }
            }
            let locks = match &mut state.locks {
                Some(locks) if current == Some(locks.id()) => locks,
                Some(_) => return Err(refusal::control_replaced(self.control.label())),
                none => none.insert(Locks::open(&*self.control, false, no_fork)?),
            };
            if !locks.try_lock(slot_byte(slot), no_fork)? {
                return taken();
            }
            state.claimed.push(slot);
            let id = locks.id();
            with_claimed(no_fork, |all| all.push((id, slot)));
            Ok(())
        })
    }

    /// Whether nobody who could be the slot's tenant holds its token.
    fn token_is_free(&self, slot: u32, tenant: &ProcessProof) -> bool {
        let own = self.process_proof();
        self.with_state(|state, no_fork| {
            if state.claimed.contains(&slot) {
                return *tenant != own;
            }
            let known = state.locks.as_ref().map(Locks::id);
            if let Some(held) = state.locks.as_ref().and_then(|l| l.held_elsewhere(slot_byte(slot)))
            {
                return !held;
            }
            // Without a claim of one's own, or without its descriptor: asked by who holds the
            // election, or only looks, or has lost it.
            let Ok(locks) = Locks::open(&*self.control, false, no_fork) else { return false };
            let held = locks.held_elsewhere(slot_byte(slot));
            let same = known.is_none_or(|id| id == locks.id());
            locks.close_under(no_fork);
            same && held == Some(false)
        })
    }

    /// Whether a process of which pid and start time are there is seen to be in the namespace
    /// still.
    fn is_in(&self, slot: u32, proof: &ProcessProof) -> bool {
        let attached = self.with_state(|state, _| state.locks.as_ref().map(Locks::id));
        let id = attached.or_else(|| self.control.current().ok().flatten());
        let Some(id) = id else { return false };
        if proof.pid == u64::from(sys::process_id()) {
            return with_claimed(&fork::lock(), |all| all.contains(&(id, slot)));
        }
        let label = self.control.label();
        process::has_mapped(proof.pid, id, label.rsplit('/').next().unwrap_or_default())
    }
}

// SAFETY: the module's essay: each of the two proofs is sound by itself, and the token is a lock
// that the system gives to one process at a time.
unsafe impl Liveness for Posix {
    fn claim(&self, slot: u32) -> Result<(), ProviderFailure> {
        self.try_claim(slot).map_err(|e| e.failure())
    }

    fn release(&self, slot: u32) {
        self.with_state(|state, no_fork| state.forget(slot, no_fork));
    }

    fn process_proof(&self) -> ProcessProof {
        self.with_state(|state, _| *state.proof.get_or_insert_with(process::own_proof))
    }

    fn thread_proof(&self) -> ThreadProof {
        process::own_thread()
    }

    fn process_is_dead(&self, slot: u32, proof: &ProcessProof) -> bool {
        match process::fate(proof) {
            Fate::Dead => true,
            Fate::Unknown => self.token_is_free(slot, proof),
            Fate::There => self.token_is_free(slot, proof) && !self.is_in(slot, proof),
        }
    }

    fn thread_is_dead(&self, process: &ProcessProof, thread: &ThreadProof) -> bool {
        process::thread_is_dead(process, thread)
    }
}

impl Drop for Posix {
    fn drop(&mut self) {
        self.with_state(|state, no_fork| {
            while let Some(slot) = state.claimed.last().copied() {
                state.forget(slot, no_fork);
            }
        });
    }
}

impl fmt::Debug for Posix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Posix").field("control", &self.control.label()).finish_non_exhaustive()
    }
}

//! [`Posix`]: the environment of a process, and its proofs of who is dead.
//!
//! # Two proofs
//!
//! A process is dead if *either* proof holds; each is sound by itself, so what cannot be proven
//! dead lives.
//!
//! 1. **Nobody holds its token**, the lock on byte `1 + slot` of the control object
//!    ([`lock`](crate::lock)). It was taken before the slot was claimed, and the kernel lets go of
//!    it when the process ends: after its last access to memory, and before it is reaped, so that
//!    a zombie counts as dead. It works between pid namespaces. A stopped process holds on to it.
//! 2. **Its pid means nobody, or somebody else**: no process of that pid, one that started at
//!    another time, or a zombie without living threads. Counts only if both processes live in the
//!    same pid and time namespaces ([`process`](crate::process)). This is what finds the parent
//!    dead whose child, made by a bare `clone`, still has a copy of the token.
//!
//! The token is held through a descriptor that nobody else has and that a fork child closes
//! ([`fork`](crate::fork)): it does not matter who else opens and closes the control object. A process
//! must not close descriptors that it didn't open, or others will take it for dead; it will not take
//! others for dead itself.
//!
//! A lock doesn't exclude threads that share its descriptor, and asking about it doesn't see the
//! asker's own. So the slots claimed by this process are listed here. A slot that *we* have
//! claimed but whose recorded tenant is somebody else is the slot of a dead process that we are
//! about to reap: had its tenant lived, we would not have got the token.
//!
//! Threads of a living process are known by their thread id and the time when they started, in the
//! same pid namespace; elsewhere than on Linux, and in other namespaces, a thread is never found dead
//! by itself.
//!
//! # After a fork
//!
//! All state carries the [`epoch`](crate::fork::epoch) of its process. The child finds another epoch,
//! forgets what it inherited and starts without a claim. The state is only locked under
//! [`fork::lock`], so that no fork finds it locked.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use dsm_core::env::{Liveness, ProcessProof, ThreadProof};
use dsm_core::error::ProviderFailure;
use dsm_core::provider::ProviderError;
use platform_common::refusal;

use crate::error::Error;
use crate::fork;
use crate::lock::{Locks, slot_byte};
use crate::process;
use crate::root::ControlObject;

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
            Ok(())
        })
    }

    /// Whether the slot's token proves its tenant dead.
    fn token_is_free(&self, slot: u32, tenant: &ProcessProof) -> bool {
        let own = self.process_proof();
        self.with_state(|state, no_fork| {
            if state.claimed.contains(&slot) {
                return *tenant != own;
            }
            if let Some(locks) = &state.locks {
                return locks.held_elsewhere(slot_byte(slot)) == Some(false);
            }
            // Without a claim of one's own: asked by who holds the election, or only looks.
            let Ok(locks) = Locks::open(&*self.control, false, no_fork) else { return false };
            let held = locks.held_elsewhere(slot_byte(slot));
            locks.close_under(no_fork);
            held == Some(false)
        })
    }
}

impl Liveness for Posix {
    fn claim(&self, slot: u32) -> Result<(), ProviderFailure> {
        self.try_claim(slot).map_err(|e| e.failure())
    }

    fn release(&self, slot: u32) {
        self.with_state(|state, no_fork| {
            let Some(index) = state.claimed.iter().position(|&s| s == slot) else { return };
            state.claimed.swap_remove(index);
            if let Some(locks) = &state.locks {
                locks.unlock(slot_byte(slot), no_fork);
            }
            if state.claimed.is_empty() {
                if let Some(locks) = state.locks.take() {
                    locks.close_under(no_fork);
                }
            }
        });
    }

    fn process_proof(&self) -> ProcessProof {
        self.with_state(|state, _| *state.proof.get_or_insert_with(process::own_proof))
    }

    fn thread_proof(&self) -> ThreadProof {
        process::own_thread()
    }

    fn process_is_dead(&self, slot: u32, proof: &ProcessProof) -> bool {
        self.token_is_free(slot, proof) || process::is_dead(&self.process_proof(), proof)
    }

    fn thread_is_dead(&self, process: &ProcessProof, thread: &ThreadProof) -> bool {
        process::thread_is_dead(&self.process_proof(), process, thread)
    }
}

impl Drop for Posix {
    fn drop(&mut self) {
        self.with_state(|state, no_fork| {
            if let Some(locks) = state.locks.take() {
                locks.close_under(no_fork);
            }
        });
    }
}

impl fmt::Debug for Posix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Posix").field("control", &self.control.label()).finish_non_exhaustive()
    }
}

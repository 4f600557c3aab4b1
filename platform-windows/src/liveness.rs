//! [`Windows`]: the environment of a process, and its proofs of who is dead.
//!
//! # Two proofs
//!
//! A process is dead if *either* proof holds; each is sound by itself, so what cannot be proven
//! dead lives.
//!
//! 1. **Nobody holds its token**, a named event that exists as long as somebody has a handle to it.
//!    It is made before the slot is claimed, by a call that says whether the name was free, and the
//!    system closes the handle when the process ends, after its last thread has run its last
//!    instruction. A suspended process keeps its handles. The name has the control object's
//!    identity in it, so that a namespace that replaced a removed one has tokens of its own.
//! 2. **Its id means nobody, or somebody else**: no process of that id, one that started at another
//!    time, or one that has ended ([`process`](crate::process)). Counts only on the same machine.
//!
//! Locks on bytes of the control file would be no proof: the system releases those of a
//! terminated process at a time that it doesn't specify.
//!
//! Asking for a token opens it for a moment. Should its holder end in just that moment, it is
//! found alive once more, and somebody else's claim is refused once; both come back.
//!
//! Threads of a living process are known by their thread id and the time when they started.

use std::fmt;
use std::os::windows::io::OwnedHandle;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use dsm_core::env::{Liveness, ProcessProof, ThreadProof};
use dsm_core::error::ProviderFailure;
use dsm_core::handle::ObjectId;
use dsm_core::provider::ProviderError;
use platform_common::refusal;
use windows_sys::Win32::Foundation::ERROR_ACCESS_DENIED;

use crate::error::Error;
use crate::name::Role;
use crate::object::Named;
use crate::process;
use crate::sys::{self, Code};
use crate::wait::Pool;

/// Waits, liveness, time and entropy on Windows, for the processes of one namespace.
///
/// Made by a provider, such as [`Shm::environment`](crate::Shm::environment). Implements
/// [`Environment`](dsm_core::env::Environment).
pub struct Windows {
    named: Named,
    state: Mutex<State>,
    proof: OnceLock<ProcessProof>,
    pub(crate) pool: Pool,
}

#[derive(Default)]
struct State {
    /// Of which control object these are tokens.
    control: ObjectId,
    claimed: Vec<(u32, OwnedHandle)>,
}

impl State {
    fn holds(&self, slot: u32) -> bool {
        self.claimed.iter().any(|(claimed, _)| *claimed == slot)
    }
}

impl Windows {
    pub(crate) fn new(named: Named) -> Self {
        let pool = Pool::new(named.domain().clone());
        Self { named, state: Mutex::default(), proof: OnceLock::new(), pool }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn token(&self, control: ObjectId, slot: u32) -> Vec<u16> {
        let ObjectId { device, object } = control;
        self.named.domain().kernel_name(&format!("{device:x}-{object:x}.lives.{slot}"))
    }

    fn try_claim(&self, slot: u32) -> Result<(), Error> {
        let label = || self.named.store.label(Role::Control);
        let taken = || Err(refusal::token_taken(slot, label()));
        let mut state = self.state();
        if state.holds(slot) {
            return taken();
        }
        let current = self.named.store.stat(Role::Control)?.id;
        if state.claimed.is_empty() {
            state.control = current;
        } else if state.control != current {
            return Err(refusal::control_replaced(label()));
        }
        match sys::event(&self.token(current, slot), &self.named.domain().security) {
            Ok((token, false)) => {
                state.claimed.push((slot, token));
                Ok(())
            }
            // What we may not open exists all the same.
            Ok((_, true)) | Err(Code(ERROR_ACCESS_DENIED)) => taken(),
            Err(code) => Err(Error::os(code, "token of life", label())),
        }
    }

    /// Whether the slot's token proves its tenant dead.
    fn token_is_free(&self, slot: u32, tenant: &ProcessProof) -> bool {
        let own = self.process_proof();
        let state = self.state();
        if state.holds(slot) {
            // Had its tenant lived, we would not have got the token: we are about to reap it.
            return *tenant != own;
        }
        let control = if state.claimed.is_empty() {
            // Without a claim of one's own: asked by who holds the election, or only looks.
            let Ok(info) = self.named.store.stat(Role::Control) else { return false };
            info.id
        } else {
            state.control
        };
        sys::event_exists(&self.token(control, slot)) == Ok(false)
    }
}

// SAFETY: the module's essay: each of the two proofs is sound by itself, and a name can be taken by
// one process at a time.
unsafe impl Liveness for Windows {
    fn claim(&self, slot: u32) -> Result<(), ProviderFailure> {
        self.try_claim(slot).map_err(|e| e.failure())
    }

    fn release(&self, slot: u32) {
        self.state().claimed.retain(|(claimed, _)| *claimed != slot);
    }

    fn process_proof(&self) -> ProcessProof {
        *self.proof.get_or_init(process::own_proof)
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

impl fmt::Debug for Windows {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let control = self.named.store.label(Role::Control);
        f.debug_struct("Windows").field("control", &control).finish_non_exhaustive()
    }
}

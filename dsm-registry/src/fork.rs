//! Memory that a forked child finds wiped: what makes it a stranger instead of a second self.
//!
//! Where the operating system has no `fork`, in models, and in Miri, ordinary memory does.

use std::sync::atomic::{AtomicPtr, Ordering as LocalOrdering};

use dsm_core::error::ProviderFailure;
use dsm_core::participant::ParticipantLocal;
#[cfg(all(any(unix, windows), not(any(shuttle, miri))))]
use dsm_core::provider::ProviderError;
use dsm_core::sync::{AtomicU64, Ordering};

#[cfg(all(unix, not(any(shuttle, miri))))]
type Wiped<T> = platform_posix::fork::Wiped<T>;
#[cfg(all(windows, not(any(shuttle, miri))))]
type Wiped<T> = platform_windows::fork::Wiped<T>;
#[cfg(any(not(any(unix, windows)), shuttle, miri))]
type Wiped<T> = crate::stable::Stable<T>;

#[cfg(all(unix, not(any(shuttle, miri))))]
fn wiped<T: platform_posix::fork::ZeroIsUnregistered>() -> Result<Wiped<T>, ProviderFailure> {
    Wiped::new().map_err(|e| e.failure())
}

#[cfg(all(windows, not(any(shuttle, miri))))]
fn wiped<T: Default>() -> Result<Wiped<T>, ProviderFailure> {
    Wiped::new().map_err(|e| e.failure())
}

#[cfg(any(not(any(unix, windows)), shuttle, miri))]
fn wiped<T: Default>() -> Result<Wiped<T>, ProviderFailure> {
    Ok(Wiped::new(T::default()))
}

/// A thread's participant, unregistered in a forked child.
pub(crate) struct Local(Wiped<ParticipantLocal>);

impl Local {
    /// An unregistered participant; an error if the process can't map any more.
    pub(crate) fn new() -> Result<Self, ProviderFailure> {
        wiped().map(Self)
    }

    pub(crate) fn get(&self) -> &ParticipantLocal {
        &self.0
    }
}

/// A word that says whether this process is the one that made it: the namespace stores its token
/// there, and a forked child finds zero.
pub(crate) struct Token(Wiped<AtomicU64>);

impl Token {
    /// Zero; an error if the process can't map any more.
    pub(crate) fn new() -> Result<Self, ProviderFailure> {
        wiped().map(Self)
    }

    pub(crate) fn word(&self) -> &AtomicU64 {
        &self.0
    }

    /// False before the namespace is opened, after it is left, and in a forked child.
    #[inline]
    pub(crate) fn is_ours(&self) -> bool {
        self.0.load(Ordering::Relaxed) != 0
    }
}

/// A value that each process has one of, in a static: a forked child makes its own, whatever
/// threads of its parent, which it does not have, were doing to the parent's. That one is never
/// touched again.
pub(crate) struct PerProcess<T: 'static>(AtomicPtr<Made<T>>);

struct Made<T> {
    /// Says whether it is this process's.
    token: Token,
    value: T,
}

impl<T: Default + Send + Sync> PerProcess<T> {
    pub(crate) const fn new() -> Self {
        Self(AtomicPtr::new(std::ptr::null_mut()))
    }

    /// The value of this process; an error if it can't map any more. Nobody waits here: of several
    /// that make it at once, one's is kept.
    pub(crate) fn get(&self) -> Result<&'static T, ProviderFailure> {
        let mut seen = self.0.load(LocalOrdering::Acquire);
        loop {
            // SAFETY: null, or leaked below.
            if let Some(made) = unsafe { seen.as_ref() }.filter(|made| made.token.is_ours()) {
                return Ok(&made.value);
            }
            let fresh = Made { token: Token::new()?, value: T::default() };
            fresh.token.word().store(1, Ordering::Relaxed);
            let fresh = Box::into_raw(Box::new(fresh));
            let (won, lost) = (LocalOrdering::AcqRel, LocalOrdering::Acquire);
            match self.0.compare_exchange(seen, fresh, won, lost) {
                Ok(_) => seen = fresh,
                Err(other) => {
                    // SAFETY: made above, and nobody has seen it.
                    drop(unsafe { Box::from_raw(fresh) });
                    seen = other;
                }
            }
        }
    }
}

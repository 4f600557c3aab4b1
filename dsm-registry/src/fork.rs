//! Memory that a forked child finds wiped: what makes it a stranger instead of a second self.
//!
//! Where the operating system has no `fork`, and in models, ordinary memory does.

use dsm_core::participant::ParticipantLocal;
use dsm_core::sync::{AtomicU64, Ordering};

#[cfg(all(unix, not(shuttle)))]
type Wiped<T> = platform_posix::fork::Wiped<T>;
#[cfg(all(windows, not(shuttle)))]
type Wiped<T> = platform_windows::fork::Wiped<T>;
#[cfg(any(not(any(unix, windows)), shuttle))]
type Wiped<T> = Box<T>;

/// A thread's participant, unregistered in a forked child.
pub(crate) struct Local(Wiped<ParticipantLocal>);

impl Local {
    /// An unregistered participant; `None` if the process can't map any more.
    pub(crate) fn new() -> Option<Self> {
        #[cfg(all(any(unix, windows), not(shuttle)))]
        return Wiped::new().ok().map(Self);
        #[cfg(any(not(any(unix, windows)), shuttle))]
        Some(Self(Box::default()))
    }

    pub(crate) fn get(&self) -> &ParticipantLocal {
        &self.0
    }
}

/// A word that says whether this process is the one that made it: the namespace stores its token
/// there, and a forked child finds zero.
pub(crate) struct Token(Wiped<AtomicU64>);

impl Token {
    /// Zero; `None` if the process can't map any more.
    pub(crate) fn new() -> Option<Self> {
        #[cfg(all(any(unix, windows), not(shuttle)))]
        return Wiped::new().ok().map(Self);
        #[cfg(any(not(any(unix, windows)), shuttle))]
        Some(Self(Box::default()))
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

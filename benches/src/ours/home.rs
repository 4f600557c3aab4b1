//! A namespace of a contestant's own, on POSIX shared memory, removed when it is dropped.

use std::sync::atomic::{AtomicU32, Ordering};

use dsm_core::namespace::{LocalSegment, Namespace, NamespaceConfig, Platform, ProcessLocal};
use dsm_core::participant::{Participant, ParticipantLocal};
use dsm_core::sync::AtomicU64;
use dsm_registry::Registry;
use platform_posix::Shm;

use super::chance::{Unchanging, UnchangingMemory};

/// A namespace as those have it who work on the cores, and this thread's participant in it.
pub struct Home {
    /// `None` only while it is dropped.
    namespace: Option<Namespace<'static>>,
    participant: ParticipantLocal,
    shm: &'static Shm,
}

/// A name for a namespace that nobody else in the world has.
fn unique_name() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("bench-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

/// A namespace as the registry's users have it.
///
/// # Panics
///
/// If shared memory refuses.
#[must_use]
pub fn registry() -> Registry {
    Registry::builder(&unique_name()).provider(UnchangingMemory).open().expect("open a namespace")
}

/// What a namespace borrows lives to the end of the program: a measuring process makes few.
pub(super) fn forever<T>(value: T) -> &'static T {
    Box::leak(Box::new(value))
}

impl Home {
    /// A new namespace with a preallocated main region of that many bytes (0: none).
    ///
    /// # Panics
    ///
    /// If shared memory refuses.
    #[must_use]
    pub fn new(main_region: usize) -> Self {
        let config = NamespaceConfig { main_region, ..NamespaceConfig::default() };
        let shm = forever(Shm::new(&unique_name()).expect("a valid name"));
        let records: Vec<_> = (0..config.max_segments).map(|_| LocalSegment::new()).collect();
        let local = forever(ProcessLocal::new(forever(AtomicU64::new(0)), records.leak()));
        let env = forever(Unchanging::new(shm.environment()));
        let platform = Platform { provider: shm, env };
        let (namespace, _) =
            Namespace::open(shm, platform, &config, local).expect("open a namespace");
        let participant = ParticipantLocal::new();
        namespace.register(&participant).expect("register the thread");
        Self { namespace: Some(namespace), participant, shm }
    }

    /// The namespace.
    ///
    /// # Panics
    ///
    /// Never.
    #[must_use]
    pub fn namespace(&self) -> &Namespace<'static> {
        self.namespace.as_ref().expect("there until dropped")
    }

    /// This thread's participant.
    #[must_use]
    pub fn participant(&self) -> Participant<'_> {
        self.namespace().participant(&self.participant)
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        if let Some(namespace) = self.namespace.take() {
            namespace.unregister(&self.participant);
            namespace.leave(self.shm).expect("leave the namespace");
        }
    }
}

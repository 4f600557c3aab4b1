//! The platform a namespace lives on: [`Platform`] is what a backend implements, and [`Connection`]
//! what the rest of this crate works with, whatever the backend.

use std::fmt;
use std::time::Duration;

use dsm_core::env::Environment;
use dsm_core::error::ProviderFailure;
use dsm_core::namespace::{self, Discard, Error, Namespace, NamespaceConfig, Opened, ProcessLocal};
use dsm_core::provider::{ErasedProvider, Mapping, ProviderError, Root, SegmentProvider};

use crate::reaper::{MakeWatch, Watch, no_watch};

/// A backend: what `Builder::provider` takes.
///
/// Implemented for the backends of the platform crates. An own one needs memory and an environment,
/// which make a [`Connection`]; see `dsm_core` for what each must promise.
pub trait Platform: Send + Sync + 'static {
    /// Where the objects are, for example `/dev/shm`; for messages, and to tell places apart,
    /// unless the connection has an [`identity`](Connection::identity).
    fn place(&self) -> String;

    /// Connects to a namespace, without opening it: nothing is created yet.
    ///
    /// # Errors
    ///
    /// Whatever the platform says, for example of a name it can't express.
    fn connect(&self, namespace: &str, mode: u32) -> Result<Connection, ProviderFailure>;

    /// Names of the namespaces of which there are objects in this place, dead ones included.
    ///
    /// # Errors
    ///
    /// `Unsupported` where objects can't be listed.
    fn namespaces(&self) -> Result<Vec<String>, ProviderFailure>;
}

/// What a [`Platform`] connects to a namespace with.
pub struct Connection {
    pub(crate) memory: Box<dyn Memory>,
    pub(crate) environment: Box<dyn Environment>,
    pub(crate) identity: Option<String>,
    pub(crate) watch: MakeWatch,
}

impl Connection {
    /// Segments and the control object come from `memory`; waits, liveness, time and entropy are
    /// the environment's.
    pub fn new<M, E>(memory: M, environment: E) -> Self
    where
        M: SegmentProvider + Root + 'static,
        E: Environment + 'static,
    {
        let (memory, environment) = (Box::new(memory), Box::new(environment));
        Self { memory, environment, identity: None, watch: no_watch }
    }

    /// The same, with which place it has led to, however that is called: a process that opens a
    /// namespace twice attaches once, if the names are the same and this is. By itself it is what
    /// [`Platform::place`] says. A place that several names may lead to, or one name to several as
    /// time goes by, has something better: files of a directory have its device and inode. It must
    /// not change its meaning while the connection lives.
    #[must_use]
    pub fn identity(self, identity: String) -> Self {
        Self { identity: Some(identity), ..self }
    }

    /// The same, with what makes something that hears of the death of processes of this platform,
    /// for [`Registry::spawn_reaper`](crate::Registry::spawn_reaper), which is an error without.
    #[must_use]
    pub fn watched_by(self, watch: fn() -> Result<Box<dyn Watch>, ProviderFailure>) -> Self {
        Self { watch, ..self }
    }

    fn platform(&self) -> namespace::Platform<'_> {
        namespace::Platform { provider: self.memory.provider(), env: &*self.environment }
    }

    /// See [`Namespace::open`].
    pub(crate) fn open<'a>(
        &'a self,
        config: &NamespaceConfig,
        local: &'a ProcessLocal<'a>,
    ) -> Result<(Namespace<'a>, Opened), Error> {
        self.memory.open(self.platform(), config, local)
    }

    /// See [`Namespace::discard`].
    pub(crate) fn discard(&self, patience: Duration, which: Discard) -> Result<bool, Error> {
        self.memory.discard(self.platform(), patience, which)
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").field("identity", &self.identity).finish_non_exhaustive()
    }
}

/// A provider and its root as an object: what takes a [`Root`] elsewhere, whose elections are of a
/// type of their own, is a function here.
pub(crate) trait Memory: Send + Sync {
    fn provider(&self) -> &dyn ErasedProvider;
    /// See [`Namespace::open`].
    fn open<'a>(
        &'a self,
        platform: namespace::Platform<'a>,
        config: &NamespaceConfig,
        local: &'a ProcessLocal<'a>,
    ) -> Result<(Namespace<'a>, Opened), Error>;
    /// See [`Namespace::is_named`].
    fn is_named(&self, namespace: &Namespace<'_>) -> Result<bool, Error>;
    /// See [`Namespace::leave`].
    fn leave(&self, namespace: Namespace<'_>) -> Result<(), Error>;
    /// See [`Namespace::discard`].
    fn discard(
        &self,
        platform: namespace::Platform<'_>,
        patience: Duration,
        which: Discard,
    ) -> Result<bool, Error>;
    /// See [`Root::peek`].
    fn peek(&self) -> Result<Mapping, ProviderFailure>;
    /// See [`Root::unmap`].
    ///
    /// # Safety
    ///
    /// As there.
    unsafe fn unmap(&self, mapping: Mapping);
}

impl<M: SegmentProvider + Root + 'static> Memory for M {
    fn provider(&self) -> &dyn ErasedProvider {
        self
    }

    fn open<'a>(
        &'a self,
        platform: namespace::Platform<'a>,
        config: &NamespaceConfig,
        local: &'a ProcessLocal<'a>,
    ) -> Result<(Namespace<'a>, Opened), Error> {
        Namespace::open(self, platform, config, local)
    }

    fn is_named(&self, namespace: &Namespace<'_>) -> Result<bool, Error> {
        namespace.is_named(self)
    }

    fn leave(&self, namespace: Namespace<'_>) -> Result<(), Error> {
        namespace.leave(self)
    }

    fn discard(
        &self,
        platform: namespace::Platform<'_>,
        patience: Duration,
        which: Discard,
    ) -> Result<bool, Error> {
        Namespace::discard(self, platform, patience, which)
    }

    fn peek(&self) -> Result<Mapping, ProviderFailure> {
        Root::peek(self).map_err(|e| e.failure())
    }

    unsafe fn unmap(&self, mapping: Mapping) {
        // SAFETY: the caller's promise.
        unsafe { Root::unmap(self, mapping) }
    }
}

/// The system's default backend.
pub(crate) fn default() -> Option<Box<dyn Platform>> {
    #[cfg(any(unix, windows))]
    return Some(Box::new(crate::system::SharedMemory::default()));
    #[cfg(not(any(unix, windows)))]
    None
}

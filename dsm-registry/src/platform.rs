//! The platform a namespace lives on: one trait that names a provider, a root and an environment,
//! and its erased form, which is all that the rest of this crate works with.

use std::time::Duration;

use dsm_core::env::Environment;
use dsm_core::error::ProviderFailure;
use dsm_core::namespace::{Discard, Error, Namespace, NamespaceConfig, Opened, ProcessLocal};
use dsm_core::provider::{ErasedProvider, Mapping, ProviderError, Root, SegmentProvider};

use crate::reaper::{MakeWatch, Watch, no_watch};

/// A backend: what `Builder::provider` takes.
///
/// Implemented for the backends of the platform crates. An own one needs a provider of memory, a
/// root, and an environment; see `dsm_core` for what each must promise.
pub trait Platform: Send + Sync + 'static {
    /// Memory.
    type Provider: SegmentProvider + 'static;
    /// The control object.
    type Root: Root + 'static;
    /// Waits, liveness, time, entropy.
    type Environment: Environment + 'static;

    /// Where the objects are, for example `/dev/shm`; for messages, and for
    /// [`identity`](Self::identity).
    fn place(&self) -> String;

    /// Which place a connection has led to, however it is called: a process that opens a namespace
    /// twice attaches once, if the names are the same and this is. By itself it is what
    /// [`place`](Self::place) says. A place that several names may lead to, or one name to several as
    /// time goes by, has something better: files of a directory have its device and inode. It must not
    /// change its meaning while the connection lives.
    fn identity(&self, connection: &Connected<Self>) -> String {
        let _ = connection;
        self.place()
    }

    /// Connects to a namespace, without opening it: nothing is created yet.
    ///
    /// # Errors
    ///
    /// Whatever the platform says, for example of a name it can't express.
    fn connect(&self, namespace: &str, mode: u32) -> Result<Connected<Self>, ProviderFailure>;

    /// Names of the namespaces of which there are objects in this place, dead ones included.
    ///
    /// # Errors
    ///
    /// `Unsupported` where objects can't be listed.
    fn namespaces(&self) -> Result<Vec<String>, ProviderFailure>;

    /// What hears of the death of processes of this platform, for
    /// [`Registry::spawn_reaper`](crate::Registry::spawn_reaper).
    ///
    /// # Errors
    ///
    /// `Unsupported` where there is nothing of that kind, which is what this does by itself.
    fn watch() -> Result<Box<dyn Watch>, ProviderFailure>
    where
        Self: Sized,
    {
        no_watch()
    }
}

/// What a certain [`Platform`] connects to a namespace with.
pub type Connected<P> =
    Connection<<P as Platform>::Provider, <P as Platform>::Root, <P as Platform>::Environment>;

/// What a [`Platform`] connects to a namespace with.
#[derive(Debug)]
pub struct Connection<P, R, E> {
    /// Memory.
    pub provider: P,
    /// The control object.
    pub root: R,
    /// Waits, liveness, time, entropy.
    pub environment: E,
}

/// A [`Platform`], erased.
pub(crate) trait Backend: Send + Sync {
    fn place(&self) -> String;
    /// A connection, and the identity of the place that it led to.
    fn connect(
        &self,
        namespace: &str,
        mode: u32,
    ) -> Result<(Box<dyn Link>, String), ProviderFailure>;
    fn namespaces(&self) -> Result<Vec<String>, ProviderFailure>;
    fn make_watch(&self) -> MakeWatch;
}

/// A [`Connection`], erased.
pub(crate) trait Link: Send + Sync {
    fn provider(&self) -> &dyn ErasedProvider;
    fn environment(&self) -> &dyn Environment;
    /// See [`Namespace::open`].
    fn open<'a>(
        &'a self,
        config: &NamespaceConfig,
        local: &'a ProcessLocal<'a>,
    ) -> Result<(Namespace<'a>, Opened), Error>;
    /// See [`Namespace::is_named`].
    fn is_named(&self, namespace: &Namespace<'_>) -> Result<bool, Error>;
    /// See [`Namespace::leave`].
    fn leave(&self, namespace: Namespace<'_>) -> Result<(), Error>;
    /// See [`Namespace::discard`].
    fn discard(&self, patience: Duration, which: Discard) -> Result<bool, Error>;
    /// See [`Root::peek`].
    fn peek(&self) -> Result<Mapping, ProviderFailure>;
    /// See [`Root::unmap`].
    ///
    /// # Safety
    ///
    /// As there.
    unsafe fn unmap(&self, mapping: Mapping);
}

pub(crate) fn erase<P: Platform>(platform: P) -> Box<dyn Backend> {
    Box::new(Erased(platform))
}

struct Erased<P>(P);

impl<P: Platform> Backend for Erased<P> {
    fn place(&self) -> String {
        self.0.place()
    }

    fn connect(
        &self,
        namespace: &str,
        mode: u32,
    ) -> Result<(Box<dyn Link>, String), ProviderFailure> {
        let connection = self.0.connect(namespace, mode)?;
        let identity = self.0.identity(&connection);
        Ok((Box::new(connection), identity))
    }

    fn namespaces(&self) -> Result<Vec<String>, ProviderFailure> {
        self.0.namespaces()
    }

    fn make_watch(&self) -> MakeWatch {
        P::watch
    }
}

impl<P: SegmentProvider, R, E: Environment> Connection<P, R, E> {
    fn platform(&self) -> dsm_core::namespace::Platform<'_> {
        dsm_core::namespace::Platform { provider: &self.provider, env: &self.environment }
    }
}

impl<P, R, E> Link for Connection<P, R, E>
where
    P: SegmentProvider + 'static,
    R: Root + 'static,
    E: Environment + 'static,
{
    fn provider(&self) -> &dyn ErasedProvider {
        &self.provider
    }

    fn environment(&self) -> &dyn Environment {
        &self.environment
    }

    fn open<'a>(
        &'a self,
        config: &NamespaceConfig,
        local: &'a ProcessLocal<'a>,
    ) -> Result<(Namespace<'a>, Opened), Error> {
        Namespace::open(&self.root, self.platform(), config, local)
    }

    fn is_named(&self, namespace: &Namespace<'_>) -> Result<bool, Error> {
        namespace.is_named(&self.root)
    }

    fn discard(&self, patience: Duration, which: Discard) -> Result<bool, Error> {
        Namespace::discard(&self.root, self.platform(), patience, which)
    }

    fn leave(&self, namespace: Namespace<'_>) -> Result<(), Error> {
        namespace.leave(&self.root)
    }

    fn peek(&self) -> Result<Mapping, ProviderFailure> {
        self.root.peek().map_err(|e| e.failure())
    }

    unsafe fn unmap(&self, mapping: Mapping) {
        // SAFETY: the caller's promise.
        unsafe { self.root.unmap(mapping) }
    }
}

/// The system's default backend.
pub(crate) fn default() -> Option<Box<dyn Backend>> {
    #[cfg(any(unix, windows))]
    return Some(erase(crate::system::SharedMemory::default()));
    #[cfg(not(any(unix, windows)))]
    None
}

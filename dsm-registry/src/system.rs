//! The backends of the system that this is built for, as [`Platform`]s: those of `platform-posix` or
//! `platform-windows`, which have the same types for the same jobs.
//!
//! | | on Unix | on Windows |
//! |---|---|---|
//! | [`SharedMemory`], the default | POSIX shared memory | temporary files of this user, mapped |
//! | [`Directory`] | files of a directory, mapped | the same |
//! | [`Options`], [`Owners`] | other users, huge pages, memory nodes | other users, all sessions, the page file |

use std::path::PathBuf;

use dsm_core::error::ProviderFailure;
#[cfg(unix)]
use dsm_core::handle::ObjectId;
#[cfg(unix)]
use platform_posix::{self as system, Posix as Environment};
#[cfg(windows)]
use platform_windows::{self as system, Windows as Environment};
use system::{File, NamespaceName, Shm};
pub use system::{Options, Owners};

use crate::platform::{Connection, Platform};
use crate::reaper::Watch;
#[cfg(not(unix))]
use crate::reaper::no_watch as watch;
#[cfg(unix)]
use crate::watch::watch;

fn texts(names: Vec<NamespaceName>) -> Vec<String> {
    names.iter().map(|name| name.as_str().to_owned()).collect()
}

/// What a place is known by that has an identity of its own, and is called by many names perhaps.
#[cfg(unix)]
fn identity(id: ObjectId, name: impl FnOnce() -> String) -> String {
    if id == ObjectId::default() {
        return name();
    }
    format!("device {} inode {}", id.device, id.object)
}

/// Shared memory that is found by name alone, `/dev/shm` on Linux: the default.
#[derive(Clone, Debug, Default)]
pub struct SharedMemory {
    options: Options,
}

impl SharedMemory {
    /// With options. The mode is the builder's.
    #[must_use]
    pub fn with_options(options: Options) -> Self {
        Self { options }
    }
}

impl Platform for SharedMemory {
    type Provider = Shm;
    type Root = Shm;
    type Environment = Environment;

    fn place(&self) -> String {
        #[cfg(windows)]
        return Shm::place(&self.options);
        #[cfg(unix)]
        if cfg!(target_os = "linux") { "/dev/shm".into() } else { "shared memory".into() }
    }

    fn connect(
        &self,
        namespace: &str,
        mode: u32,
    ) -> Result<Connection<Shm, Shm, Environment>, ProviderFailure> {
        let shm = Shm::with_options(namespace, self.options.clone().mode(mode))?;
        Ok(Connection { environment: shm.environment(), root: shm.clone(), provider: shm })
    }

    #[cfg(unix)]
    fn identity(&self, connection: &Connection<Shm, Shm, Environment>) -> String {
        identity(connection.provider.place_id(), || self.place())
    }

    fn namespaces(&self) -> Result<Vec<String>, ProviderFailure> {
        #[cfg(windows)]
        let found = Shm::namespaces_with_options(&self.options);
        #[cfg(unix)]
        let found = Shm::namespaces();
        Ok(texts(found?))
    }

    fn watch() -> Result<Box<dyn Watch>, ProviderFailure> {
        watch()
    }
}

/// Files of a directory, mapped.
#[derive(Clone, Debug)]
pub struct Directory {
    path: PathBuf,
    options: Options,
}

impl Directory {
    /// The files of a directory, which must exist.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self::with_options(path, Options::new())
    }

    /// As [`new`](Self::new), with options. The mode is the builder's.
    #[must_use]
    pub fn with_options(path: impl Into<PathBuf>, options: Options) -> Self {
        Self { path: path.into(), options }
    }
}

impl Platform for Directory {
    type Provider = File;
    type Root = File;
    type Environment = Environment;

    fn place(&self) -> String {
        let path = self.path.canonicalize().unwrap_or_else(|_| self.path.clone());
        path.display().to_string()
    }

    fn connect(
        &self,
        namespace: &str,
        mode: u32,
    ) -> Result<Connection<File, File, Environment>, ProviderFailure> {
        let file = File::with_options(&self.path, namespace, self.options.clone().mode(mode))?;
        Ok(Connection { environment: file.environment(), root: file.clone(), provider: file })
    }

    #[cfg(unix)]
    fn identity(&self, connection: &Connection<File, File, Environment>) -> String {
        identity(connection.provider.place_id(), || self.place())
    }

    fn namespaces(&self) -> Result<Vec<String>, ProviderFailure> {
        Ok(texts(File::namespaces(&self.path)?))
    }

    fn watch() -> Result<Box<dyn Watch>, ProviderFailure> {
        watch()
    }
}

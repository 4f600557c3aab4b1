//! The backends of the system that this is built for, as [`Platform`]s: those of `platform-posix`
//! or `platform-windows`, which have the same types for the same jobs.
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
use platform_posix as system;
#[cfg(windows)]
use platform_windows as system;
use system::{File, NamespaceName, Shm};
pub use system::{Options, Owners};

use crate::platform::{Connection, Platform};
#[cfg(not(unix))]
use crate::reaper::no_watch as watch;
#[cfg(unix)]
use crate::watch::watch;

fn texts(names: Vec<NamespaceName>) -> Vec<String> {
    names.iter().map(|name| name.as_str().to_owned()).collect()
}

/// Says which place a connection has led to, if that has an identity of its own, and is called by
/// many names perhaps.
#[cfg(unix)]
fn identified(connection: Connection, place: ObjectId) -> Connection {
    if place == ObjectId::default() {
        return connection;
    }
    connection.identity(format!("device {} inode {}", place.device, place.object))
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
    fn place(&self) -> String {
        #[cfg(windows)]
        return Shm::place(&self.options);
        #[cfg(unix)]
        if cfg!(target_os = "linux") { "/dev/shm".into() } else { "shared memory".into() }
    }

    fn connect(&self, namespace: &str, mode: u32) -> Result<Connection, ProviderFailure> {
        let shm = Shm::with_options(namespace, self.options.clone().mode(mode))?;
        let environment = shm.environment();
        #[cfg(unix)]
        let place = shm.place_id();
        let connection = Connection::new(shm, environment).watched_by(watch);
        #[cfg(unix)]
        return Ok(identified(connection, place));
        #[cfg(not(unix))]
        Ok(connection)
    }

    fn namespaces(&self) -> Result<Vec<String>, ProviderFailure> {
        #[cfg(windows)]
        let found = Shm::namespaces_with_options(&self.options);
        #[cfg(unix)]
        let found = Shm::namespaces();
        Ok(texts(found?))
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
    fn place(&self) -> String {
        let path = self.path.canonicalize().unwrap_or_else(|_| self.path.clone());
        path.display().to_string()
    }

    fn connect(&self, namespace: &str, mode: u32) -> Result<Connection, ProviderFailure> {
        let file = File::with_options(&self.path, namespace, self.options.clone().mode(mode))?;
        let environment = file.environment();
        #[cfg(unix)]
        let place = file.place_id();
        let connection = Connection::new(file, environment).watched_by(watch);
        #[cfg(unix)]
        return Ok(identified(connection, place));
        #[cfg(not(unix))]
        Ok(connection)
    }

    fn namespaces(&self) -> Result<Vec<String>, ProviderFailure> {
        Ok(texts(File::namespaces(&self.path)?))
    }
}

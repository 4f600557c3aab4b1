//! [`Options`]: where memory lies, who sees it, who may use it.

use dsm_core::error::ErrorKind;

use crate::error::Error;

/// Whose objects are accepted, and who has access to those of this process.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub enum Owners {
    /// Only this process's user.
    #[default]
    Own,
    /// Also these users, by their security identifiers (`S-1-5-21-...`).
    Listed(Vec<String>),
    /// Objects of anybody, whoever has access to them; for tools that only look. What such a tool
    /// creates, if it does, is its own user's.
    Any,
}

/// Which processes find a namespace.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum Scope {
    /// Those of the same session (`Local\`): of one logon, or all services.
    #[default]
    Local,
    /// Those of the machine (`Global\`). Creating sections of the page file there is a privilege
    /// (`SeCreateGlobalPrivilege`) that services have.
    Global,
}

/// What memory is made of.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum Backing {
    /// Temporary files. Segments outlive every process.
    #[default]
    Files,
    /// The page file. A segment goes with the last process that has it attached, see the
    /// [crate's documentation](crate).
    PageFile,
}

/// How a provider creates objects, and which it accepts.
///
/// ```
/// use platform_windows::{Backing, Options, Scope, Shm};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let options = Options::new().scope(Scope::Global).backing(Backing::PageFile);
/// let shm = Shm::with_options("demo", options)?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, Default)]
pub struct Options {
    pub(crate) mode: u32,
    pub(crate) owners: Owners,
    pub(crate) scope: Scope,
    pub(crate) backing: Backing,
}

impl Options {
    /// Own objects only, of this session, in temporary files.
    #[must_use]
    pub fn new() -> Self {
        Self { mode: 0o600, ..Self::default() }
    }

    /// Permission bits as POSIX has them. Windows has no group of a file's own: access for
    /// more than the owner is refused when the options are used, and given by
    /// [`owners`](Self::owners) instead.
    #[must_use]
    pub fn mode(mut self, mode: u32) -> Self {
        self.mode = mode & 0o777;
        self
    }

    /// Whose objects are accepted, and who has access to new ones.
    #[must_use]
    pub fn owners(mut self, owners: Owners) -> Self {
        self.owners = owners;
        self
    }

    /// Which processes find the namespace.
    #[must_use]
    pub fn scope(mut self, scope: Scope) -> Self {
        self.scope = scope;
        self
    }

    /// What memory is made of; concerns [`Shm`](crate::Shm) alone.
    #[must_use]
    pub fn backing(mut self, backing: Backing) -> Self {
        self.backing = backing;
        self
    }

    pub(crate) fn check(&self) -> Result<(), Error> {
        if self.mode & 0o077 == 0 {
            return Ok(());
        }
        let why = format!(
            "mode {:04o} gives access to a group or to everybody, which Windows has no bits for; \
             list the users with Options::owners",
            self.mode
        );
        Err(Error::new(ErrorKind::Unsupported, "check of the mode", why))
    }
}

//! [`Shm`]: shared memory that is found by name alone.

use std::path::PathBuf;

use dsm_core::error::ErrorKind;
use dsm_core::handle::SegmentHandle;
use dsm_core::provider::Forward;

use crate::error::Error;
use crate::file::{self, Folder};
use crate::liveness::Windows;
use crate::name::{NamespaceName, Role};
use crate::object::Named;
use crate::options::{Backing, Options, Scope};
use crate::section::PageFile;

/// Segments in shared memory, one object each: in temporary files, or in the page file if the
/// [options](Options::backing) say so.
///
/// The temporary files lie in the user's folder for such files (`GetTempPath2`), those of
/// [`Scope::Global`] in the folder that the programs of all users share (`%ProgramData%`).
///
/// Implements [`SegmentProvider`](dsm_core::provider::SegmentProvider) and
/// [`Root`](dsm_core::provider::Root), with the errors of [`Error`].
#[doc(alias = "CreateFileMapping")]
#[derive(Clone, Debug)]
pub struct Shm(Named);

// SAFETY: the same field each time.
unsafe impl Forward for Shm {
    type Target = Named;

    fn target(&self) -> &Named {
        &self.0
    }
}

impl Shm {
    /// The objects of a namespace, in temporary files, for this user's processes of this session.
    ///
    /// # Errors
    ///
    /// [`InvalidName`](dsm_core::error::ErrorKind::InvalidName), see [`NamespaceName::new`].
    pub fn new(namespace: &str) -> Result<Self, Error> {
        Self::with_options(namespace, Options::new())
    }

    /// The objects of a namespace.
    ///
    /// # Errors
    ///
    /// As [`new`](Self::new).
    pub fn with_options(namespace: &str, options: Options) -> Result<Self, Error> {
        Ok(Self(match options.backing {
            Backing::Files => {
                Named::new(Folder::new(&Self::directory(options.scope), namespace, options)?)
            }
            Backing::PageFile => Named::new(PageFile::new(namespace, options)?),
        }))
    }

    /// The namespace.
    #[must_use]
    pub fn namespace(&self) -> &NamespaceName {
        &self.0.domain().namespace
    }

    /// Waits, liveness, time and entropy for the processes of this namespace.
    #[must_use]
    pub fn environment(&self) -> Windows {
        Windows::new(self.0.clone())
    }

    /// The temporary file of a segment, or of the control object, whether it exists or not; `None`
    /// in the page file. For those who look after leftovers, and for tests.
    #[must_use]
    pub fn file(&self, segment: Option<SegmentHandle>) -> Option<PathBuf> {
        self.0.store.file(segment.map_or(Role::Control, Role::Segment))
    }

    /// Names of all namespaces of which a temporary file exists, sorted: those of this session.
    ///
    /// # Errors
    ///
    /// As the system says of the folder.
    pub fn namespaces() -> Result<Vec<NamespaceName>, Error> {
        Self::namespaces_with_options(&Options::new())
    }

    /// As [`namespaces`](Self::namespaces), in the scope of the options.
    ///
    /// # Errors
    ///
    /// [`Unsupported`](ErrorKind::Unsupported) for sections of the page file; else as the system
    /// says of the folder.
    pub fn namespaces_with_options(options: &Options) -> Result<Vec<NamespaceName>, Error> {
        match options.backing {
            Backing::Files => file::namespaces(&Self::directory(options.scope), options),
            Backing::PageFile => {
                let why = "sections of the page file are not listed";
                Err(Error::new(ErrorKind::Unsupported, "listing", why))
            }
        }
    }

    /// Where objects lie under these options: the folder, or `page file`.
    #[must_use]
    pub fn place(options: &Options) -> String {
        match (options.backing, options.scope) {
            (Backing::Files, scope) => Self::directory(scope).display().to_string(),
            (Backing::PageFile, Scope::Local) => "page file".to_owned(),
            (Backing::PageFile, Scope::Global) => "page file of all sessions".to_owned(),
        }
    }

    /// The folder of the temporary files.
    #[must_use]
    pub fn directory(scope: Scope) -> PathBuf {
        let shared = match scope {
            Scope::Local => None,
            Scope::Global => std::env::var_os("ProgramData").map(PathBuf::from),
        };
        shared.unwrap_or_else(std::env::temp_dir)
    }
}

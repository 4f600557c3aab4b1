//! How the errors of other layers become an [`Error`]: by `?` where they say all there is to say,
//! and by [`Context::of`] where people need to know in which namespace, and what was to be done.

use dsa_core::FreeError;
use dshash_core::MemoryError;
use dsm_core::error::{ErrorKind as FailureKind, OutOfRange, ProviderFailure, Reason};
use dsm_core::lock::LockError;
use dsm_core::namespace;

use super::kind::ErrorKind;
use super::{Error, Shortage};
use crate::process::Attachment;

impl From<LockError> for Error {
    #[cold]
    fn from(error: LockError) -> Self {
        match error {
            LockError::NotRegistered => ErrorKind::Forked,
            LockError::DeclaredDead => ErrorKind::DeclaredDead,
            error => ErrorKind::Lock(error),
        }
        .into()
    }
}

impl From<namespace::Error> for Error {
    #[cold]
    fn from(error: namespace::Error) -> Self {
        match error {
            namespace::Error::Forked => ErrorKind::Forked.into(),
            namespace::Error::Lock(
                error @ (LockError::NotRegistered | LockError::DeclaredDead),
            ) => error.into(),
            namespace::Error::InvalidConfig(range) => range.into(),
            source => ErrorKind::Namespace { namespace: Box::default(), source }.into(),
        }
    }
}

impl From<ProviderFailure> for Error {
    #[cold]
    fn from(failure: ProviderFailure) -> Self {
        namespace::Error::Provider(failure).into()
    }
}

impl From<OutOfRange> for Error {
    #[cold]
    fn from(range: OutOfRange) -> Self {
        ErrorKind::InvalidOption { what: range.option, reason: format!("it {range:#}") }.into()
    }
}

impl From<dsa_core::Error> for Error {
    #[cold]
    fn from(error: dsa_core::Error) -> Self {
        match error {
            dsa_core::Error::Namespace(error) => error.into(),
            dsa_core::Error::Lock(error) => error.into(),
            dsa_core::Error::InvalidOptions(range) => {
                // As the setters of `AreaOptions` are called.
                let option = match range.option {
                    "initial" => "first_segment",
                    "maximum" => "largest_segment",
                    other => other,
                };
                OutOfRange { option, ..range }.into()
            }
            error => ErrorKind::Area(error).into(),
        }
    }
}

impl From<FreeError> for Error {
    #[cold]
    fn from(error: FreeError) -> Self {
        match error {
            FreeError::Refused(error) => error.into(),
            error => ErrorKind::Free(error).into(),
        }
    }
}

impl From<MemoryError> for Error {
    #[cold]
    fn from(error: MemoryError) -> Self {
        dshash_core::Error::Memory(error).into()
    }
}

/// What its area says stays an error of the table's.
impl From<dshash_core::Error> for Error {
    #[cold]
    fn from(error: dshash_core::Error) -> Self {
        match error {
            dshash_core::Error::Poisoned => ErrorKind::Poisoned.into(),
            dshash_core::Error::WouldDeadlock => LockError::WouldDeadlock.into(),
            dshash_core::Error::Lock(error) => error.into(),
            dshash_core::Error::Memory(MemoryError::Area(memory)) => match Self::from(memory) {
                of_area if matches!(of_area.kind(), ErrorKind::Area(_)) => {
                    ErrorKind::Table(error).into()
                }
                other => other,
            },
            error => ErrorKind::Table(error).into(),
        }
    }
}

impl Error {
    /// Turns an error of the namespace into ours; `what` was to be made.
    #[cold]
    pub(crate) fn from_namespace(
        namespace: &str,
        place: &str,
        what: &dyn Fn() -> String,
        source: namespace::Error,
    ) -> Self {
        let (name, place) = (namespace, Box::from(place));
        let namespace = name.into();
        match source {
            namespace::Error::InUse(processes) => {
                ErrorKind::NamespaceInUse { namespace, processes: processes as usize }.into()
            }
            namespace::Error::Provider(failure) if failure.reason.is_about_the_place() => {
                ErrorKind::Place { namespace, place, failure }.into()
            }
            namespace::Error::Provider(failure)
                if matches!(failure.kind, FailureKind::NoSpace | FailureKind::NoMemory) =>
            {
                let place = place.into();
                ErrorKind::OutOfMemory(Shortage { what: what(), place, failure }).into()
            }
            source => Self::from(source).in_namespace(name),
        }
    }

    /// The same; of a namespace, with its name.
    pub(crate) fn in_namespace(mut self, name: &str) -> Self {
        if let ErrorKind::Namespace { namespace, .. } = &mut self.0.kind {
            *namespace = name.into();
        }
        self
    }

    /// The same; of memory that was removed, with the name that it belongs to.
    pub(crate) fn of_memory(mut self, of: &str) -> Self {
        if let ErrorKind::MemoryRemoved { name, .. } = &mut self.0.kind {
            *name = Some(of.into());
        }
        self
    }
}

/// An error of another layer, which doesn't know in which namespace it happened.
pub(crate) trait Refusal {
    /// The same, in the namespace that this process has open as `home`; `what` was to be made or
    /// used.
    fn of(self, home: &Attachment, what: &str) -> Error;
}

impl Refusal for namespace::Error {
    #[cold]
    fn of(self, home: &Attachment, what: &str) -> Error {
        if let Self::Provider(failure) = self {
            // The namespace lists it. A descriptor that was not passed may be of something that is
            // there, and so may what lies in a directory that is not.
            let there = failure.reason == Reason::DescriptorNotPassed
                || failure.reason.is_about_the_place();
            if matches!(failure.kind, FailureKind::NotFound | FailureKind::Foreign) && !there {
                return home.memory_removed();
            }
        }
        Error::from_namespace(home.name(), home.place(), &|| what.to_owned(), self)
    }
}

impl Refusal for ProviderFailure {
    fn of(self, home: &Attachment, what: &str) -> Error {
        namespace::Error::Provider(self).of(home, what)
    }
}

impl Refusal for dsa_core::Error {
    #[cold]
    fn of(self, home: &Attachment, what: &str) -> Error {
        match self {
            Self::Namespace(error) => error.of(home, what),
            error => error.into(),
        }
    }
}

impl Refusal for FreeError {
    #[cold]
    fn of(self, home: &Attachment, what: &str) -> Error {
        match self {
            Self::Refused(error) => error.of(home, what),
            error => error.into(),
        }
    }
}

impl Refusal for dshash_core::Error {
    #[cold]
    fn of(self, home: &Attachment, what: &str) -> Error {
        match self {
            Self::Memory(MemoryError::Area(error @ dsa_core::Error::Namespace(_))) => {
                error.of(home, what)
            }
            // What leads nowhere may lead to a segment that can't be mapped: nothing is damaged
            // then.
            Self::Corrupt(_) => home.unmapped().unwrap_or_else(|| self.into()),
            error => error.into(),
        }
    }
}

/// What a call of another layer returned, with what [`Refusal::of`] adds if it failed.
pub(crate) trait Context<T> {
    /// The same with an error that people understand.
    fn of(self, home: &Attachment, what: &str) -> Result<T, Error>;
}

impl<T, E: Refusal> Context<T> for Result<T, E> {
    #[inline]
    fn of(self, home: &Attachment, what: &str) -> Result<T, Error> {
        self.map_err(|error| error.of(home, what))
    }
}

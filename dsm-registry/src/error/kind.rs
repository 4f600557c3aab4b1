//! [`ErrorKind`]: all that can go wrong, as plain data for programs, and the sentence of each.

use std::fmt;
use std::time::Duration;

use dsm_core::error::ProviderFailure;
use dsm_core::lock::LockError;
use dsm_core::namespace;

use super::{Mismatch, Shortage, explain};

/// What went wrong, to match on: what [`Error::kind`](crate::Error::kind) returns.
///
/// A call says which of these it returns for reasons of its own. Besides, any call on a handle may
/// return [`Forked`](Self::Forked), [`DeclaredDead`](Self::DeclaredDead) and
/// [`ThreadEnding`](Self::ThreadEnding); the first call of a thread [`Namespace`](Self::Namespace)
/// when all participant slots are taken; what has to map a segment first
/// [`OutOfMemory`](Self::OutOfMemory), or [`Namespace`](Self::Namespace) if that is refused; and
/// what meets damaged memory [`Damaged`](Self::Damaged), [`Area`](Self::Area) or
/// [`Table`](Self::Table).
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The namespace's name is not `[A-Za-z0-9._-]{1,63}`.
    InvalidNamespaceName {
        /// The name.
        name: Box<str>,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A name in a namespace is empty, too long, or has a NUL in it.
    InvalidName {
        /// The name.
        name: Box<str>,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A size or a setting that can't be had; says which.
    InvalidOption {
        /// The setting.
        what: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// No backend is known for this operating system; pass one to `Builder::provider`.
    NoBackend,
    /// The namespace could not be opened, or refused an operation.
    Namespace {
        /// Its name; empty for an error of the cores that `?` made one of this crate.
        namespace: Box<str>,
        /// Why.
        source: namespace::Error,
    },
    /// The namespace does not exist.
    NoNamespace {
        /// Its name.
        namespace: Box<str>,
    },
    /// Processes live in a namespace that was to be removed.
    NamespaceInUse {
        /// Its name.
        namespace: Box<str>,
        /// How many.
        processes: usize,
    },
    /// The place where namespaces live can't be used: it is not there, is no directory, or can't be
    /// written to.
    Place {
        /// The namespace's name.
        namespace: Box<str>,
        /// The directory, or what else [`Platform::place`](crate::Platform::place) says.
        place: Box<str>,
        /// What the platform said.
        failure: ProviderFailure,
    },
    /// Shared memory is full.
    OutOfMemory(Shortage),
    /// A name's kind, size or type is not what was asked for, or this process uses it as another
    /// type.
    Mismatch(Mismatch),
    /// The caller's initialiser returned an error, which is
    /// [`Error::initialiser_error`](crate::Error::initialiser_error). The name is free again: the
    /// next caller initialises.
    Initialiser {
        /// The name.
        name: Box<str>,
    },
    /// A name was asked for, or was to be removed, inside its own initialiser.
    OwnInitialiser {
        /// The name.
        name: Box<str>,
    },
    /// Initialisers wait for each other's names.
    InitialiserCycle {
        /// The name.
        name: Box<str>,
    },
    /// A name was to be removed while it is being initialised.
    Initialising {
        /// The name.
        name: Box<str>,
        /// Process id of the initialiser, which may be this process.
        process: u64,
    },
    /// The name was not initialised within the time allowed by the builder.
    InitialiserTimedOut {
        /// The name.
        name: Box<str>,
        /// How long this call waited.
        waited: Duration,
        /// Process id of the initialiser.
        process: u64,
    },
    /// No such name.
    NotFound {
        /// The name.
        name: Box<str>,
    },
    /// A name that others use was to be removed.
    InUse {
        /// The name.
        name: Box<str>,
        /// Other processes that have it attached.
        processes: u32,
    },
    /// The namespace's control object was removed from outside (`rm`) while this process had it
    /// open. What is attached goes on working, among the processes that have it; whoever opens the
    /// name now gets another namespace.
    ///
    /// Drop what was had from this handle, and open the namespace again.
    NamespaceUnlinked {
        /// The namespace.
        namespace: Box<str>,
        /// Where it was.
        place: Box<str>,
    },
    /// The memory that a name stands for was removed from outside (`rm`), or replaced by something
    /// else. Handles that are there already stay good.
    MemoryRemoved {
        /// The namespace.
        namespace: Box<str>,
        /// The name; `None` for what the call didn't ask for by name, such as a further segment of
        /// a table.
        name: Option<Box<str>>,
        /// Where it was.
        place: Box<str>,
    },
    /// The process has forked since the handle was made.
    Forked,
    /// Other processes declared this one dead, or one of its threads, while it lived. They have
    /// taken over what it held and given its place to others; its guards give nothing back any
    /// more. It happens to a process that closes descriptors that it did not open, in a place where
    /// no other proof speaks for it: see `docs/RECOVERY.md`.
    ///
    /// Drop what was had from this handle, and open the namespace again.
    DeclaredDead,
    /// A lock was not acquired.
    Lock(LockError),
    /// The entry was being changed when its holder died or panicked.
    Poisoned,
    /// The calling thread is ending and can't use shared memory any more.
    ThreadEnding,
    /// An area refused a request.
    Area(dsa_core::Error),
    /// A pointer could not be freed.
    Free(dsa_core::FreeError),
    /// A hash table refused an operation, or has reached its limit.
    Table(dshash_core::Error),
    /// Something in shared memory is not as it was left.
    Damaged {
        /// The namespace.
        namespace: Box<str>,
        /// What was found.
        what: &'static str,
    },
}

impl ErrorKind {
    /// Whether something is used up; see [`Error::is_full`](crate::Error::is_full).
    pub(super) fn is_full(&self) -> bool {
        match self {
            Self::OutOfMemory(_) => true,
            Self::Namespace { source, .. } => source.is_full(),
            Self::Area(error) => error.is_full(),
            Self::Table(error) => error.is_full(),
            _ => false,
        }
    }

    /// See [`Error::is_timeout`](crate::Error::is_timeout).
    pub(super) fn is_timeout(&self) -> bool {
        match self {
            Self::InitialiserTimedOut { .. } => true,
            Self::Lock(error) => error.is_timeout(),
            Self::Namespace { source, .. } => source.is_timeout(),
            Self::Area(error) => error.is_timeout(),
            Self::Table(error) => error.is_timeout(),
            _ => false,
        }
    }

    /// See [`Error::is_would_deadlock`](crate::Error::is_would_deadlock).
    pub(super) fn is_would_deadlock(&self) -> bool {
        match self {
            Self::OwnInitialiser { .. } | Self::InitialiserCycle { .. } => true,
            Self::Lock(error) => error.is_would_deadlock(),
            Self::Namespace { source, .. } => source.is_would_deadlock(),
            Self::Area(error) => error.is_would_deadlock(),
            Self::Table(error) => error.is_would_deadlock(),
            _ => false,
        }
    }

    /// What the platform said, where it is the platform that refused.
    pub(super) fn failure(&self) -> Option<&ProviderFailure> {
        match self {
            Self::Namespace { source: namespace::Error::Provider(failure), .. }
            | Self::Place { failure, .. } => Some(failure),
            Self::OutOfMemory(shortage) => Some(&shortage.failure),
            _ => None,
        }
    }
}

/// The sentence, but for what an initialiser returned.
impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InvalidNamespaceName { name, reason } => {
                write!(f, "{name:?} can't be the name of a namespace: {reason}")
            }
            Self::InvalidName { name, reason } => {
                write!(f, "{name:?} can't be a name in a namespace: {reason}")
            }
            Self::InvalidOption { what, reason } => write!(f, "invalid {what}: {reason}"),
            Self::NoBackend => f.write_str(
                "there is no default backend on this system; pass one to `Builder::provider`",
            ),
            Self::Namespace { namespace, source } if namespace.is_empty() => source.fmt(f),
            Self::Namespace { namespace, source } => {
                write!(f, "namespace {namespace:?}: {}", explain(namespace, source))
            }
            Self::NoNamespace { namespace } => write!(
                f,
                "there is no namespace {namespace:?}: nobody has opened it yet, or the last process \
                 has left it; `dsm ls` or `Registry::namespaces` lists those there are"
            ),
            Self::NamespaceInUse { namespace, processes } => {
                write!(f, "{processes} process(es) live in namespace {namespace:?}; end them first")
            }
            Self::Place { namespace, place, failure } => {
                write!(f, "namespace {namespace:?} can't be in {place}: {}", failure.explain("", ""))
            }
            Self::OutOfMemory(shortage) => shortage.fmt(f),
            Self::Mismatch(mismatch) => mismatch.fmt(f),
            Self::Initialiser { name } => write!(
                f,
                "the initialiser of {name:?} failed, and the next to ask for the name tries again"
            ),
            Self::OwnInitialiser { name } => write!(
                f,
                "{name:?} was asked for, or was to be removed, inside its own initialiser, which \
                 would wait for itself; return an error from it to leave no name"
            ),
            Self::InitialiserCycle { name } => write!(
                f,
                "waiting for {name:?} would never end: its initialiser waits, directly or by way \
                 of others, for a name that this thread is initialising; let initialisers ask for \
                 names in one order"
            ),
            Self::Initialising { name, process } => write!(
                f,
                "{name:?} is being initialised by process {process}; wait for that, or end it"
            ),
            Self::InitialiserTimedOut { name, waited, process } => write!(
                f,
                "{name:?} was not initialised within {waited:?}: process {process} is still at \
                 it; see what it is doing, or allow more time with `Builder::initialiser_patience`"
            ),
            Self::NotFound { name } => {
                write!(f, "there is no {name:?} in this namespace; `Registry::list` says what is")
            }
            Self::InUse { name, processes } => write!(
                f,
                "{name:?} is in use by {processes} other process(es); end them first, or force its \
                 removal: they keep what they have until they detach"
            ),
            Self::NamespaceUnlinked { namespace, place } => write!(
                f,
                "the control object of namespace {namespace:?} was removed from {place} while this \
                 process had it open: processes that open the name now are in another namespace of \
                 that name, and share nothing with this one; drop all handles and open it again, \
                 in each process that had it before"
            ),
            Self::MemoryRemoved { namespace, name, place } => write!(
                f,
                "{} was removed from {place}, or replaced, while the namespace was in use; {}",
                memory_of(name, namespace),
                instead_of(name)
            ),
            Self::Forked => f.write_str(
                "this handle was made before this process was forked off: open the namespace anew \
                 in the child",
            ),
            Self::DeclaredDead => f.write_str(
                "this process was declared dead while it lived, and what it held was given to \
                 others: its token of life was lost, as when a program closes descriptors that it \
                 did not open; open the namespace again",
            ),
            // The only locks for which a call waits no longer than it was told to.
            Self::Lock(error) if error.is_timeout() => f.write_str(
                "the key's part of the table was locked by another thread or process for as long as \
                 this call waits; try again, or allow more time with `HashTable::within`",
            ),
            Self::Lock(error) => error.fmt(f),
            Self::Poisoned => f.write_str(
                "the entry's value was being changed when the thread that held it died or panicked; \
                 look at it and repair it through `HashTable::poisoned`, or remove the entry",
            ),
            Self::ThreadEnding => f.write_str(
                "the thread is ending: shared memory can't be used in destructors of thread-locals",
            ),
            Self::Area(error) => error.fmt(f),
            Self::Free(error) => error.fmt(f),
            Self::Table(error) => f.write_str(&explain_table(error)),
            Self::Damaged { namespace, what } => write!(
                f,
                "the registry of namespace {namespace:?} is damaged: {what}; remove the namespace"
            ),
        }
    }
}

/// For [`ErrorKind::MemoryRemoved`]: what was removed.
fn memory_of(name: &Option<Box<str>>, namespace: &str) -> String {
    match name {
        Some(name) => format!("the memory of {name:?}"),
        None => format!("some memory of namespace {namespace:?}"),
    }
}

/// For [`ErrorKind::MemoryRemoved`]: what to do.
fn instead_of(name: &Option<Box<str>>) -> &'static str {
    match name {
        Some(_) => {
            "remove the name (`Registry::remove_forced`): the next to ask for it creates it anew"
        }
        None => {
            "remove the name that it belonged to (`Registry::remove_forced`), or end all its \
             processes and remove the namespace, by `dsm rm` or `Registry::destroy`"
        }
    }
}

/// What a table's error means to somebody who doesn't know that it lives in an area.
fn explain_table(error: &dshash_core::Error) -> String {
    use dshash_core::{Error as E, MemoryError as M};
    match error {
        E::Memory(M::Area(dsa_core::Error::SizeLimit { needed, total, limit, .. })) => format!(
            "the table needs {needed} bytes more, has {total} and is limited to {limit}; remove \
             entries, or create it with a higher `HashOptions::limit`"
        ),
        E::Memory(M::Area(dsa_core::Error::TooManySegments)) => {
            "the table can't grow any more: its 1024 segments are in use or used up".to_owned()
        }
        E::Memory(M::Area(dsa_core::Error::SegmentShare { segments, slots })) => format!(
            "the table has {segments} segments, and the namespace few of its {slots} segment slots \
             left, which are kept for others; remove entries, or create the namespace with more \
             (`Builder::max_segments`)"
        ),
        E::Memory(M::Area(dsa_core::Error::Corrupt(what))) => {
            format!("the table's memory is damaged: {} ({:#x})", what.what, what.at)
        }
        other => other.to_string(),
    }
}

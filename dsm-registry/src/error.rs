//! What can go wrong, said so that the reader knows what happened, why, and what to do next.

use std::fmt;
use std::time::Duration;

use dsm_core::error::{ErrorKind, OutOfRange, ProviderFailure};
use dsm_core::lock::LockError;
use dsm_core::namespace;

/// Any error of a caller's initialiser.
pub type BoxError = Box<dyn std::error::Error + Send + Sync + 'static>;

/// What a name stands for.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum Kind {
    /// One value of one type in a segment of its own.
    Segment,
    /// Raw bytes in a segment of their own.
    Bytes,
    /// An area to allocate from.
    Area,
    /// A hash table.
    Hash,
}

impl Kind {
    /// What errors call something of this kind.
    pub(crate) fn label(self, name: &str) -> String {
        format!("{self} {name:?}")
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Segment => "segment",
            Self::Bytes => "byte segment",
            Self::Area => "area",
            Self::Hash => "hash table",
        })
    }
}

/// One of the two sides of a mismatch: what a name was created as, or asked for as.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Description {
    /// What it is.
    pub kind: Kind,
    /// Type of the value (or the tail of its name, if that is long); empty where there is none.
    pub value: String,
    /// Size of the value in bytes; of the whole, for a byte segment.
    pub value_size: u64,
    /// Tag of the value's type; see [`TypeTag`](crate::TypeTag).
    pub value_tag: u64,
    /// Type of the key; empty where there is none.
    pub key: String,
    /// Size of the key in bytes.
    pub key_size: u64,
    /// Tag of the key's type.
    pub key_tag: u64,
}

impl fmt::Display for Description {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kind, value, value_size, value_tag, key, key_size, key_tag } = self;
        match kind {
            Kind::Segment => {
                write!(f, "a segment of {value} ({value_size} bytes, type tag {value_tag:016x})")
            }
            Kind::Bytes => write!(f, "a byte segment of {value_size} bytes"),
            Kind::Area => f.write_str("an area"),
            Kind::Hash => write!(
                f,
                "a hash table from {key} ({key_size} bytes, type tag {key_tag:016x}) \
                 to {value} ({value_size} bytes, type tag {value_tag:016x})"
            ),
        }
    }
}

/// A name that means one thing to this call and another to whoever created it, or to the rest of
/// this process.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Mismatch {
    /// The name.
    pub name: String,
    /// What it was created as; with `in_this_process`, what this process uses it as.
    pub there: Description,
    /// What this call asked for.
    pub asked: Description,
    /// Whether this process uses it already, as another Rust type with the same tags. The types'
    /// names may be equal all the same.
    pub in_this_process: bool,
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, there, asked, in_this_process } = self;
        if *in_this_process {
            return write!(
                f,
                "{name:?} is used in this process as {there}; this call asks for {asked}, which \
                 is another Rust type, though its tag is the same (a local type, say, or that of \
                 another version of its crate); use one type throughout, or another name"
            );
        }
        write!(f, "{name:?} was created as {there}; this process asks for {asked}; ")?;
        f.write_str(if there.kind == asked.kind && there.value_size == asked.value_size {
            "use the same type in all programs, or give its tag in the options; or remove the \
             name first"
        } else {
            "use the same kind and sizes in all programs, another name, or remove the name first"
        })
    }
}

/// Shared memory, or a limit of the namespace, that did not suffice.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Shortage {
    /// What was to be made.
    pub what: String,
    /// Where memory comes from, for example `/dev/shm`.
    pub place: String,
    /// What the platform said.
    pub failure: ProviderFailure,
}

/// Bytes in a form people read.
pub(crate) fn human(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["bytes", "KiB", "MiB", "GiB", "TiB"];
    let (mut whole, mut rest, mut unit) = (bytes, 0, 0);
    while whole >= 1024 && unit + 1 < UNITS.len() {
        (whole, rest, unit) = (whole / 1024, whole % 1024, unit + 1);
    }
    let tenth = rest * 10 / 1024;
    if tenth == 0 || whole >= 100 {
        format!("{whole} {}", UNITS[unit])
    } else {
        format!("{whole}.{tenth} {}", UNITS[unit])
    }
}

impl fmt::Display for Shortage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { what, place, failure } = self;
        if failure.requested == 0 {
            return write!(f, "{what} failed: {failure}");
        }
        write!(f, "{what} needs {}", human(failure.requested))?;
        if failure.kind == ErrorKind::NoMemory {
            return f.write_str(
                ", and this process cannot map more: its addresses are limited (`ulimit -v`) or \
                 used up",
            );
        }
        if failure.total != 0 {
            let (free, total) = (human(failure.available), human(failure.total));
            write!(f, " but {place} has {free} free of {total}")?;
        } else {
            write!(f, ", more than {place} has left")?;
        }
        if place.starts_with("/dev/shm") {
            let enough = (failure.requested + failure.total).max(1 << 26).next_power_of_two();
            let mib = enough >> 20;
            write!(
                f,
                "; in Docker pass --shm-size={mib}m, elsewhere `mount -o remount,size={mib}m /dev/shm`"
            )?;
        }
        Ok(())
    }
}

/// What went wrong.
///
/// Nothing is left behind by a call that fails, and a name whose initialiser failed is as free as
/// before.
///
/// A call says which of these it returns for reasons of its own. Besides, any call on a handle may
/// return [`Forked`](Self::Forked), [`DeclaredDead`](Self::DeclaredDead) and
/// [`ThreadEnding`](Self::ThreadEnding); the first call of a thread [`Namespace`](Self::Namespace)
/// when all participant slots are taken; what has to map a segment first
/// [`OutOfMemory`](Self::OutOfMemory), or [`Namespace`](Self::Namespace) if that is refused; and
/// what meets damaged memory [`Damaged`](Self::Damaged), [`Area`](Self::Area) or
/// [`Table`](Self::Table).
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The namespace's name is not `[A-Za-z0-9._-]{1,63}`.
    #[error("{name:?} can't be the name of a namespace: {reason}")]
    InvalidNamespaceName {
        /// The name.
        name: Box<str>,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A name in a namespace is empty, too long, or has a NUL in it.
    #[error("{name:?} can't be a name in a namespace: {reason}")]
    InvalidName {
        /// The name.
        name: Box<str>,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A size or a setting that can't be had; says which.
    #[error("invalid {what}: {reason}")]
    InvalidOption {
        /// The setting.
        what: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// No backend is known for this operating system; pass one to `Builder::provider`.
    #[error("there is no default backend on this system; pass one to `Builder::provider`")]
    NoBackend,
    /// The namespace could not be opened, or refused an operation.
    #[error("namespace {namespace:?}: {}", explain(.namespace, .source))]
    Namespace {
        /// Its name.
        namespace: Box<str>,
        /// Why.
        source: namespace::Error,
    },
    /// The namespace does not exist.
    #[error("there is no namespace {namespace:?}")]
    NoNamespace {
        /// Its name.
        namespace: Box<str>,
    },
    /// Processes live in a namespace that was to be removed.
    #[error("{processes} process(es) live in namespace {namespace:?}; end them first")]
    NamespaceInUse {
        /// Its name.
        namespace: Box<str>,
        /// How many.
        processes: usize,
    },
    /// The place where namespaces live can't be used: it is not there, is no directory, or can't be
    /// written to.
    #[error("namespace {namespace:?} can't be in {place}: {}", explain_place(.failure))]
    Place {
        /// The namespace's name.
        namespace: Box<str>,
        /// The directory, or what else [`Platform::place`](crate::Platform::place) says.
        place: Box<str>,
        /// What the platform said.
        failure: ProviderFailure,
    },
    /// Shared memory is full.
    #[error("{0}")]
    OutOfMemory(Box<Shortage>),
    /// A name's kind, size or type is not what was asked for, or this process uses it as another
    /// type.
    #[error("{0}")]
    Mismatch(Box<Mismatch>),
    /// The caller's initialiser returned an error. The name is free again: the next caller
    /// initialises.
    #[error("the initialiser of {name:?} failed: {source}")]
    Initialiser {
        /// The name.
        name: Box<str>,
        /// What it returned.
        source: BoxError,
    },
    /// A name was asked for, or was to be removed, inside its own initialiser.
    #[error(
        "{name:?} was asked for, or was to be removed, inside its own initialiser, which would wait \
         for itself; return an error from it to leave no name"
    )]
    OwnInitialiser {
        /// The name.
        name: Box<str>,
    },
    /// Initialisers wait for each other's names.
    #[error(
        "waiting for {name:?} would never end: its initialiser waits, directly or by way of \
         others, for a name that this thread is initialising; let initialisers ask for names in \
         one order"
    )]
    InitialiserCycle {
        /// The name.
        name: Box<str>,
    },
    /// A name was to be removed while it is being initialised.
    #[error("{name:?} is being initialised by process {process}; wait for that, or end it")]
    Initialising {
        /// The name.
        name: Box<str>,
        /// Process id of the initialiser, which may be this process.
        process: u64,
    },
    /// The name was not initialised within the time allowed by the builder.
    #[error(
        "{name:?} was not initialised within {waited:?}: process {process} is still at it; see \
         what it is doing, or allow more time with `Builder::initialiser_patience`"
    )]
    InitialiserTimedOut {
        /// The name.
        name: Box<str>,
        /// How long this call waited.
        waited: Duration,
        /// Process id of the initialiser.
        process: u64,
    },
    /// No such name.
    #[error("there is no {name:?} in this namespace")]
    NotFound {
        /// The name.
        name: Box<str>,
    },
    /// A name that others use was to be removed.
    #[error(
        "{name:?} is in use by {processes} other process(es); end them first, or force its \
         removal: they keep what they have until they detach"
    )]
    InUse {
        /// The name.
        name: Box<str>,
        /// Other processes that have it attached.
        processes: u32,
    },
    /// The namespace's control object was removed from outside (`rm`) while this process had it open.
    /// What is attached goes on working, among the processes that have it; whoever opens the name
    /// now gets another namespace.
    ///
    /// Drop what was had from this handle, and open the namespace again.
    #[error(
        "the control object of namespace {namespace:?} was removed from {place} while this process had it \
         open: processes that open the name now are in another namespace of that name, and share \
         nothing with this one; drop all handles and open it again, in each process that had it before"
    )]
    NamespaceUnlinked {
        /// The namespace.
        namespace: Box<str>,
        /// Where it was.
        place: Box<str>,
    },
    /// The memory that a name stands for was removed from outside (`rm`), or replaced by something else.
    /// Handles that are there already stay good.
    #[error(
        "{} was removed from {place}, or replaced, while the namespace was in use; {}",
        memory_of(.name, .namespace),
        instead_of(.name)
    )]
    MemoryRemoved {
        /// The namespace.
        namespace: Box<str>,
        /// The name; `None` for what the call didn't ask for by name, such as a further segment of a
        /// table.
        name: Option<Box<str>>,
        /// Where it was.
        place: Box<str>,
    },
    /// The process has forked since the handle was made.
    #[error(
        "this handle was made before this process was forked off: open the namespace anew in the \
         child"
    )]
    Forked,
    /// Other processes declared this one dead, or one of its threads, while it lived. They have
    /// taken over what it held and given its place to others; its guards give nothing back any more.
    /// It happens to a process that closes descriptors that it did not open, in a place where no
    /// other proof speaks for it: see `docs/RECOVERY.md`.
    ///
    /// Drop what was had from this handle, and open the namespace again.
    #[error(
        "this process was declared dead while it lived, and what it held was given to others: its \
         token of life was lost, as when a program closes descriptors that it did not open; open \
         the namespace again"
    )]
    DeclaredDead,
    /// A lock was not acquired.
    #[error("{0}")]
    Lock(LockError),
    /// The entry was being changed when its holder died or panicked.
    #[error(
        "the value was being changed when the thread that held it died or panicked; look at it \
         and repair it through `Poisoned`"
    )]
    Poisoned,
    /// The calling thread is ending and can't use shared memory any more.
    #[error("the thread is ending: shared memory can't be used in destructors of thread-locals")]
    ThreadEnding,
    /// An area refused a request.
    #[error("{0}")]
    Area(dsa_core::Error),
    /// A pointer could not be freed.
    #[error("{0}")]
    Free(dsa_core::FreeError),
    /// A hash table refused an operation, or has reached its limit.
    #[error("{}", explain_table(.0))]
    Table(dshash_core::Error),
    /// Something in shared memory is not as it was left.
    #[error("the registry of namespace {namespace:?} is damaged: {what}; remove the namespace")]
    Damaged {
        /// The namespace.
        namespace: Box<str>,
        /// What was found.
        what: &'static str,
    },
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
        match source {
            namespace::Error::Forked => Self::Forked,
            namespace::Error::Lock(LockError::NotRegistered) => Self::Forked,
            namespace::Error::Lock(LockError::DeclaredDead) => Self::DeclaredDead,
            namespace::Error::InvalidConfig(range) => Self::out_of_range(range),
            namespace::Error::InUse(processes) => {
                Self::NamespaceInUse { namespace: namespace.into(), processes: processes as usize }
            }
            namespace::Error::Provider(failure) if is_about_the_place(&failure) => {
                Self::Place { namespace: namespace.into(), place: place.into(), failure }
            }
            namespace::Error::Provider(failure)
                if matches!(failure.kind, ErrorKind::NoSpace | ErrorKind::NoMemory) =>
            {
                Self::OutOfMemory(Box::new(Shortage {
                    what: what(),
                    place: place.to_owned(),
                    failure,
                }))
            }
            source => Self::Namespace { namespace: namespace.into(), source },
        }
    }
}

impl Error {
    /// The same; of memory that was removed, with the name that it belongs to.
    pub(crate) fn of_memory(self, name: &str) -> Self {
        match self {
            Self::MemoryRemoved { namespace, place, .. } => {
                Self::MemoryRemoved { namespace, name: Some(name.into()), place }
            }
            error => error,
        }
    }

    pub(crate) fn out_of_range(range: OutOfRange) -> Self {
        Self::InvalidOption { what: range.option, reason: format!("it {range:#}") }
    }
}

impl From<LockError> for Error {
    #[cold]
    fn from(error: LockError) -> Self {
        match error {
            LockError::NotRegistered => Self::Forked,
            LockError::DeclaredDead => Self::DeclaredDead,
            error => Self::Lock(error),
        }
    }
}

/// For [`Error::MemoryRemoved`]: what was removed.
fn memory_of(name: &Option<Box<str>>, namespace: &str) -> String {
    match name {
        Some(name) => format!("the memory of {name:?}"),
        None => format!("some memory of namespace {namespace:?}"),
    }
}

/// For [`Error::MemoryRemoved`]: what to do.
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
        E::Memory(M::Area(dsa_core::Error::SizeLimit { needed, total, limit })) => format!(
            "the table needs {needed} bytes more, has {total} and is limited to {limit}; remove \
             entries, or create it with a higher `HashOptions::limit`"
        ),
        E::Memory(M::Area(dsa_core::Error::TooManySegments)) => {
            "the table can't grow any more: its 1024 segments are in use or used up".to_owned()
        }
        E::Memory(M::Area(dsa_core::Error::Corrupt(what))) => {
            format!("the table's memory is damaged: {} ({:#x})", what.what, what.at)
        }
        other => other.to_string(),
    }
}

/// What a namespace's error means to somebody who only knows names, and what to do.
fn explain(namespace: &str, error: &namespace::Error) -> String {
    use namespace::Error as E;
    match error {
        E::Provider(failure) if failure.kind == ErrorKind::PermissionDenied => {
            format!("{failure}; {}", permit(namespace, failure))
        }
        E::Provider(failure) if failure.kind == ErrorKind::InvalidSize && failure.os_code != 0 => {
            format!("{failure}; ask for less, or raise that limit")
        }
        E::Provider(failure) if failure.step == "lookup of a descriptor" => format!(
            "{failure}; this process has not been passed the segment's descriptor: pass it \
             (`Memfd::insert`), or take a backend whose segments have names"
        ),
        E::Provider(failure) if failure.kind == ErrorKind::TimedOut => {
            format!("{failure}; another process is opening or leaving it, and has not finished")
        }
        E::Provider(failure) if failure.kind == ErrorKind::TooMany => {
            format!("{failure}; close some, or raise the limit (`ulimit -n`)")
        }
        E::Truncated(..) | E::Corrupt(_) | E::Copied => {
            format!("{error}, by `dsm rm {namespace}` or `Registry::destroy`")
        }
        E::Version(theirs, ours) if theirs < ours => {
            format!("{error}, by `dsm rm {namespace}` or `Registry::destroy`")
        }
        other => other.to_string(),
    }
}

/// What to do about a missing right.
fn permit(namespace: &str, failure: &ProviderFailure) -> String {
    let what = match (failure.owner, failure.step) {
        (None, "check of the mode") => {
            "more may write it than was asked for: agree on `Builder::mode`, or use another name"
        }
        (None, step) if !step.contains("owner") => {
            "see that this user may write there, or choose another place"
        }
        (Some(_), "unlink") => {
            return format!(
                "let that user, or root, open the namespace, or call `dsm reap {namespace}`"
            );
        }
        _ => {
            "list that user in the backend's options (`Owners::Listed`) and agree on \
             `Builder::mode`, or use another name"
        }
    };
    what.to_owned()
}

/// Whether it is the place that an error is about, and no object in it.
fn is_about_the_place(failure: &ProviderFailure) -> bool {
    failure.step == "opening the directory" || is_read_only(failure)
}

fn is_read_only(failure: &ProviderFailure) -> bool {
    let system = std::io::Error::from_raw_os_error(failure.os_code);
    failure.os_code != 0 && system.kind() == std::io::ErrorKind::ReadOnlyFilesystem
}

/// What is wrong with a place, and what to do.
fn explain_place(failure: &ProviderFailure) -> String {
    match failure.kind {
        _ if is_read_only(failure) => {
            "it is mounted read-only; mount it for writing, or choose another directory".to_owned()
        }
        ErrorKind::NotFound => {
            "there is no such directory; create it, or choose another".to_owned()
        }
        ErrorKind::Foreign => "that is no directory; choose one".to_owned(),
        _ => failure.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn description(value: &str, size: u64, tag: u64) -> Description {
        Description {
            kind: Kind::Hash,
            value: value.into(),
            value_size: size,
            value_tag: tag,
            key: "u64".into(),
            key_size: 8,
            key_tag: 5,
        }
    }

    #[test]
    fn a_mismatch_names_both_sides() {
        let error = Error::Mismatch(Box::new(Mismatch {
            name: "hits".into(),
            there: description("app::Counter", 16, 0xabc),
            asked: description("u64", 8, 0xdef),
            in_this_process: false,
        }));
        let text = error.to_string();
        for part in ["\"hits\"", "app::Counter (16 bytes", "u64 (8 bytes", "abc", "def"] {
            assert!(text.contains(part), "{part} in {text}");
        }
    }

    #[test]
    fn a_full_store_names_sizes_and_the_way_out() {
        let failure = ProviderFailure {
            kind: ErrorKind::NoSpace,
            requested: 128 << 20,
            available: 60 << 20,
            total: 64 << 20,
            ..ProviderFailure::default()
        };
        let error = Error::from_namespace(
            "demo",
            "/dev/shm",
            &|| "segment \"big\"".into(),
            namespace::Error::Provider(failure),
        );
        assert_eq!(
            error.to_string(),
            "segment \"big\" needs 128 MiB but /dev/shm has 60 MiB free of 64 MiB; in Docker pass \
             --shm-size=256m, elsewhere `mount -o remount,size=256m /dev/shm`"
        );
    }

    #[test]
    fn a_place_that_cannot_be_used_is_named() {
        let text = |kind, step, os_code| {
            let failure = ProviderFailure { os_code, ..ProviderFailure::new(kind, step) };
            let of = || "it".into();
            Error::from_namespace("demo", "/mnt/x", &of, failure.into()).to_string()
        };
        let opening = "opening the directory";
        let missing = text(ErrorKind::NotFound, opening, 2);
        assert!(missing.contains("/mnt/x: there is no such directory; create it"), "{missing}");
        let file = text(ErrorKind::Foreign, opening, 20);
        assert!(file.contains("/mnt/x: that is no directory"), "{file}");
        if cfg!(target_os = "linux") {
            let read_only = text(ErrorKind::PermissionDenied, "open", 30);
            assert!(read_only.contains("/mnt/x: it is mounted read-only"), "{read_only}");
        }
        let unpassed = text(ErrorKind::NotFound, "lookup of a descriptor", 0);
        assert!(unpassed.contains("Memfd::insert"), "{unpassed}");
        let limit = text(ErrorKind::InvalidSize, "shmget: kernel.shmmax", 22);
        assert!(limit.contains("kernel.shmmax") && limit.contains("raise"), "{limit}");
    }

    #[test]
    fn sizes_for_people() {
        assert_eq!(human(0), "0 bytes");
        assert_eq!(human(1536), "1.5 KiB");
        assert_eq!(human(64 << 20), "64 MiB");
        assert_eq!(human((64 << 20) + 1), "64 MiB");
    }
}

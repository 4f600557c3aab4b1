//! What can go wrong, said so that the reader knows what happened, why, and what to do next.
//!
//! **One rule for texts**: a sentence is whole, and nothing is said twice. Where another layer refused,
//! what it says stands in the sentence, in its words or better ones. So it is not the `source`, or a
//! chain of errors would say it again: the `source` is what lies further down and the sentence
//! doesn't have, the system's own error. Programs find the errors of other layers in the [`kind`].
//!
//! | module | its idea |
//! |---|---|
//! | [`kind`] | all that can go wrong, as data, and the sentence of each |
//! | [`context`] | how the errors of other layers become this one |
//! | [`mismatch`] | two sides that mean different things by one name |

use std::fmt;

use dsm_core::error::ProviderFailure;
use dsm_core::namespace;

pub use self::mismatch::{Description, Kind, Mismatch};

pub(crate) mod context;
pub(crate) mod kind;
mod mismatch;

/// Any error of a caller's initialiser.
pub type BoxError = Box<dyn std::error::Error + Send + Sync + 'static>;

/// Shared memory, or a limit of the namespace, that did not suffice.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Shortage {
    /// What was to be made.
    pub what: String,
    /// Where memory comes from, for example `/dev/shm`.
    pub place: String,
    /// What the platform said.
    pub failure: ProviderFailure,
}

impl fmt::Display for Shortage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.failure.explain(&self.what, &self.place))
    }
}

/// What went wrong: one word, so that calls in which nothing does return it for nothing.
///
/// Nothing is left behind by a call that fails, and a name whose initialiser failed is as free as
/// before.
///
/// **For people** it is a sentence that says what failed, why, and what to do next. `Debug` shows the
/// same, so that a `main` that returns the error prints `Error: ` and the sentence. The sentence is
/// whole: what lower layers say stands in it. [`source`](std::error::Error::source) is therefore what
/// it doesn't contain: the operating system's own error, as an [`io::Error`](std::io::Error), or
/// what lies below the error of an initialiser. Printed with or without its sources, nothing is said
/// twice.
///
/// **For programs** [`kind`](Self::kind) is what to match on. What many ask for has methods:
///
/// ```
/// use dsm_registry::{Error, ErrorKind, Registry};
///
/// fn forget(registry: &Registry, name: &str) -> Result<(), Error> {
///     match registry.remove(name) {
///         Err(error) if error.is_not_found() => Ok(()),
///         Err(error) => match error.kind() {
///             ErrorKind::InUse { processes: 1, .. } => registry.remove_forced(name),
///             _ => Err(error),
///         },
///         Ok(()) => Ok(()),
///     }
/// }
/// # let registry = Registry::open(&format!("doc-kind-{}", std::process::id()))?;
/// # forget(&registry, "nothing")?;
/// # Ok::<(), Error>(())
/// ```
///
/// `?` makes an `Error` of the errors of the cores, too.
pub struct Error(Box<Inner>);

struct Inner {
    kind: kind::ErrorKind,
    below: Below,
}

/// What lies below an error and isn't in its [`ErrorKind`](kind::ErrorKind).
enum Below {
    Nothing,
    /// The system's error.
    System(std::io::Error),
    /// What an initialiser returned.
    Initialiser(BoxError),
}

// What is returned by the calls that must be quick.
const _: () = assert!(size_of::<Result<(), Error>>() == size_of::<usize>());

impl Error {
    /// What went wrong, to match on.
    #[must_use]
    pub fn kind(&self) -> &kind::ErrorKind {
        &self.0.kind
    }

    /// As [`kind`](Self::kind), to keep.
    #[must_use]
    pub fn into_kind(self) -> kind::ErrorKind {
        self.0.kind
    }

    /// What the initialiser returned, if that is what failed; for its text there is this error's
    /// own.
    ///
    /// ```
    /// # let registry = dsm_registry::Registry::open(&format!("doc-init-{}", std::process::id()))?;
    /// let failed = registry.segment::<u64>("limit", |limit| limit.write("1O".parse()?));
    /// let error = failed.unwrap_err();
    /// assert_eq!(
    ///     error.to_string(),
    ///     "the initialiser of \"limit\" failed, and the next to ask for the name tries again: invalid \
    ///      digit found in string"
    /// );
    /// assert!(error.initialiser_error().unwrap().is::<std::num::ParseIntError>());
    /// # Ok::<(), dsm_registry::Error>(())
    /// ```
    #[must_use]
    pub fn initialiser_error(&self) -> Option<&(dyn std::error::Error + Send + Sync + 'static)> {
        match &self.0.below {
            Below::Initialiser(error) => Some(&**error),
            _ => None,
        }
    }

    /// Whether something is used up: shared memory, this process's addresses or descriptors, slots
    /// of the namespace, or a limit that was set for an area or a table. Nothing has changed: after
    /// something was freed the same call may succeed.
    ///
    /// ```
    /// use dsm_registry::HashOptions;
    ///
    /// # let registry = dsm_registry::Registry::open(&format!("doc-full-{}", std::process::id()))?;
    /// let options = HashOptions::new().partitions(1).limit(64 << 10);
    /// let cache = registry.hash_with::<u64, [u64; 128]>("cache", options)?;
    /// for key in 0..1000 {
    ///     match cache.insert(&key, [key; 128]) {
    ///         Err(error) if error.is_full() => cache.clear()?,
    ///         result => drop(result?),
    ///     }
    /// }
    /// # assert!(cache.len()? < 100);
    /// # Ok::<(), dsm_registry::Error>(())
    /// ```
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.kind().is_full()
    }

    /// Whether an entry's value was being changed when the thread that held it died or panicked:
    /// see [`HashTable::poisoned`](crate::HashTable::poisoned) and
    /// [`entry_or_repair`](crate::HashTable::entry_or_repair).
    ///
    /// ```
    /// # let registry = dsm_registry::Registry::open(&format!("doc-poison-{}", std::process::id()))?;
    /// let table = registry.hash::<u64, u64>("table")?;
    /// table.insert(&1, 10)?;
    /// # std::panic::set_hook(Box::new(|_| {}));
    /// let of_another = table.clone();
    /// let died = std::thread::spawn(move || {
    ///     let mut value = of_another.find_mut(&1).unwrap().unwrap();
    ///     *value += 1;
    ///     panic!("in the midst of a change");
    /// });
    /// assert!(died.join().is_err());
    /// match table.get(&1) {
    ///     Err(error) if error.is_poisoned() => {
    ///         let mut value = table.poisoned(&1)?.expect("nobody else repairs it");
    ///         *value = 10;
    ///         drop(value.repaired());
    ///     }
    ///     result => panic!("{result:?}"),
    /// }
    /// assert_eq!(table.get(&1)?, Some(10));
    /// # Ok::<(), dsm_registry::Error>(())
    /// ```
    #[must_use]
    pub fn is_poisoned(&self) -> bool {
        matches!(self.kind(), kind::ErrorKind::Poisoned)
    }

    /// Whether the time ran out that the caller was ready to wait, which may have been no time at
    /// all: for a lock, for another process's initialiser, or for others who open or leave the
    /// namespace. Later the same call may succeed.
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// # let registry = dsm_registry::Registry::open(&format!("doc-time-{}", std::process::id()))?;
    /// let table = registry.hash::<u64, u64>("table")?;
    /// table.insert(&1, 10)?;
    /// let held = table.find_mut(&1)?;
    /// std::thread::scope(|scope| {
    ///     let other = scope.spawn(|| {
    ///         let soon = table.within(Duration::from_millis(10));
    ///         soon.insert(&1, 11).unwrap_err().is_timeout()
    ///     });
    ///     assert!(other.join().unwrap());
    /// });
    /// # drop(held);
    /// # Ok::<(), dsm_registry::Error>(())
    /// ```
    #[must_use]
    pub fn is_timeout(&self) -> bool {
        self.kind().is_timeout()
    }

    /// Whether this thread would have waited for itself: for a lock that it holds, or for a name
    /// that it is initialising. It is to drop its guard first, or to initialise names in another
    /// order.
    ///
    /// ```
    /// # let registry = dsm_registry::Registry::open(&format!("doc-self-{}", std::process::id()))?;
    /// let table = registry.hash::<u64, u64>("table")?;
    /// table.insert(&1, 10)?;
    /// let held = table.find_mut(&1)?;
    /// assert!(table.insert(&2, 20).unwrap_err().is_would_deadlock());
    /// drop(held);
    /// table.insert(&2, 20)?;
    /// # Ok::<(), dsm_registry::Error>(())
    /// ```
    #[must_use]
    pub fn is_would_deadlock(&self) -> bool {
        self.kind().is_would_deadlock()
    }

    /// Whether there is no such namespace, or no such name in it.
    ///
    /// ```
    /// use dsm_registry::Registry;
    ///
    /// assert!(Registry::inspect("nobody-opened-this").err().unwrap().is_not_found());
    /// # let registry = Registry::open(&format!("doc-none-{}", std::process::id()))?;
    /// assert!(registry.remove("nothing").unwrap_err().is_not_found());
    /// # Ok::<(), dsm_registry::Error>(())
    /// ```
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        matches!(
            self.kind(),
            kind::ErrorKind::NotFound { .. } | kind::ErrorKind::NoNamespace { .. }
        )
    }

    /// Of an initialiser that returned an error.
    #[cold]
    pub(crate) fn of_initialiser(name: &str, error: BoxError) -> Self {
        let (kind, below) =
            (kind::ErrorKind::Initialiser { name: name.into() }, Below::Initialiser(error));
        Self(Box::new(Inner { kind, below }))
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.kind().fmt(f)?;
        self.initialiser_error().map_or(Ok(()), |error| write!(f, ": {error}"))
    }
}

dsm_core::debug_is_display!(Error, Shortage);

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match &self.0.below {
            Below::Nothing => None,
            Below::System(error) => Some(error),
            // Its own text is in the sentence.
            Below::Initialiser(error) => error.source(),
        }
    }
}

impl From<kind::ErrorKind> for Error {
    #[cold]
    fn from(kind: kind::ErrorKind) -> Self {
        let code = kind.failure().map_or(0, |failure| failure.os_code);
        let below = match code {
            0 => Below::Nothing,
            code => Below::System(std::io::Error::from_raw_os_error(code)),
        };
        Self(Box::new(Inner { kind, below }))
    }
}

/// What a namespace's error means to somebody who only knows names, and what to do.
fn explain(namespace: &str, error: &namespace::Error) -> String {
    use namespace::Error as E;
    match error {
        E::Truncated(..) | E::Corrupt(_) | E::Copied => {
            format!("{error}, by `dsm rm {namespace}` or `Registry::destroy`")
        }
        E::Version(theirs, ours) if theirs < ours => {
            format!("{error}, by `dsm rm {namespace}` or `Registry::destroy`")
        }
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use dsm_core::error::Reason;

    use super::*;

    #[test]
    fn a_full_store_names_sizes_and_the_way_out() {
        let failure = ProviderFailure {
            requested: 128 << 20,
            available: 60 << 20,
            total: 64 << 20,
            ..ProviderFailure::because(Reason::TmpfsFull, "posix_fallocate")
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
        for (reason, words) in [
            (Reason::NoSuchDirectory, "/mnt/x: there is no such directory; create it"),
            (Reason::NotADirectory, "/mnt/x: that is no directory"),
            (Reason::ReadOnlyMount, "/mnt/x: the file system is mounted read-only"),
            (Reason::DirectoryDenied, "/mnt/x: this user may not"),
        ] {
            let failure = ProviderFailure::because(reason, "open");
            let of = || "it".into();
            let error = Error::from_namespace("demo", "/mnt/x", &of, failure.into());
            assert!(matches!(error.kind(), kind::ErrorKind::Place { .. }), "{error:?}");
            assert!(error.to_string().contains(words), "{error}");
        }
    }
}

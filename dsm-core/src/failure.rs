//! [`ProviderFailure`]: what a platform refused, why, and what to do about it.
//!
//! The platform knows the reason where it is refused: which limit was met, whose object it is, what
//! is wrong with a directory. It says so by a [`Reason`], which is plain data, and so comes through
//! the cores to whoever reports it. The words for each reason are here alone. Names and paths are
//! no plain data: who knows them adds them by [`ProviderFailure::explain`].

use core::fmt;

use crate::error::ErrorKind;

/// Why a platform refused, where it knows more than the kind of error says.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Hash)]
#[non_exhaustive]
pub enum Reason {
    /// Not known: kind and error code are all there is to say.
    #[default]
    Unknown,
    /// The directory is not there.
    NoSuchDirectory,
    /// What is called the directory is none.
    NotADirectory,
    /// This user can't use the directory, or create anything there.
    DirectoryDenied,
    /// The file system is mounted read-only.
    ReadOnlyMount,
    /// The name is taken.
    NameTaken,
    /// What has the name is no shared memory: a link, a directory, a device.
    NotAnObject,
    /// The name means another object by now.
    Replaced,
    /// The object is empty: it is being set up, or who set it up died.
    BeingSetUp,
    /// The object is empty: it was never completed.
    NeverCompleted,
    /// The object belongs to a user who is not trusted.
    ForeignOwner {
        /// That user's number.
        owner: u32,
    },
    /// The object belongs to a user who is not trusted, and has no number.
    ForeignUser,
    /// The object's mode does not let this user have it.
    AccessDenied {
        /// The number of its owner.
        owner: u32,
        /// Its permission bits.
        mode: u16,
    },
    /// Only the object's owner can remove it, where it lies.
    RemovalDenied {
        /// The number of its owner.
        owner: u32,
    },
    /// The object may be written by more than was asked for.
    WritableByMore {
        /// Its permission bits.
        mode: u16,
        /// Those that were asked for.
        asked: u16,
    },
    /// Another program has the object open, and lets nobody else use it.
    OpenElsewhere,
    /// The process was not passed the segment's descriptor.
    DescriptorNotPassed,
    /// A descriptor was closed behind the library's back.
    DescriptorClosed,
    /// The process has as many open files as it may.
    DescriptorLimit,
    /// The system has as many open files as it may.
    SystemDescriptorLimit,
    /// The process may have no more addresses.
    AddressSpaceLimit,
    /// The process has as many mappings as the system lets it.
    MappingLimit,
    /// The system gives the process no further thread.
    NoThread,
    /// The process may not make so long a file.
    FileSizeLimit,
    /// The file system has no files of that length.
    LargestFile,
    /// No process with addresses of this width can map so much.
    Unaddressable,
    /// A size of zero.
    ZeroSize,
    /// The system has as many System V segments as it may.
    ShmMni,
    /// The system allows no System V segment of that size.
    ShmMax,
    /// System V segments have as many pages as they may.
    ShmAll,
    /// The file system in memory is full.
    TmpfsFull,
    /// The file system is full.
    DiskFull,
    /// The machine has not so much memory left.
    MachineFull,
    /// The file system has as many files as it can.
    ObjectLimit,
    /// The user's quota is used up.
    Quota,
    /// Another process is setting up the namespace, or leaving it.
    ElectionHeld,
    /// A living process holds the token of a process slot.
    TokenHeld {
        /// The slot.
        slot: u32,
    },
    /// The control object is not the one under which this process holds tokens.
    ControlReplaced,
}

impl Reason {
    /// The kind of failure that this is a reason for.
    #[must_use]
    pub const fn kind(self) -> ErrorKind {
        match self {
            Self::Unknown | Self::DescriptorClosed => ErrorKind::Other,
            Self::NoSuchDirectory | Self::DescriptorNotPassed => ErrorKind::NotFound,
            Self::NotADirectory | Self::NotAnObject | Self::Replaced | Self::ControlReplaced => {
                ErrorKind::Foreign
            }
            Self::DirectoryDenied
            | Self::ReadOnlyMount
            | Self::ForeignOwner { .. }
            | Self::ForeignUser
            | Self::AccessDenied { .. }
            | Self::RemovalDenied { .. }
            | Self::WritableByMore { .. }
            | Self::OpenElsewhere => ErrorKind::PermissionDenied,
            Self::NameTaken | Self::TokenHeld { .. } => ErrorKind::AlreadyExists,
            Self::BeingSetUp => ErrorKind::Unfinished,
            Self::DescriptorLimit | Self::SystemDescriptorLimit => ErrorKind::TooMany,
            Self::AddressSpaceLimit | Self::MappingLimit | Self::NoThread => ErrorKind::NoMemory,
            Self::NeverCompleted
            | Self::FileSizeLimit
            | Self::LargestFile
            | Self::Unaddressable
            | Self::ZeroSize
            | Self::ShmMax => ErrorKind::InvalidSize,
            Self::ShmMni
            | Self::ShmAll
            | Self::TmpfsFull
            | Self::DiskFull
            | Self::MachineFull
            | Self::ObjectLimit
            | Self::Quota => ErrorKind::NoSpace,
            Self::ElectionHeld => ErrorKind::TimedOut,
        }
    }

    /// Whether it is the directory that is wrong, or the file system, and no object in it.
    #[must_use]
    pub const fn is_about_the_place(self) -> bool {
        matches!(
            self,
            Self::NoSuchDirectory
                | Self::NotADirectory
                | Self::DirectoryDenied
                | Self::ReadOnlyMount
        )
    }
}

/// A provider's error as plain data: what the cores return.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct ProviderFailure {
    /// The kind.
    pub kind: ErrorKind,
    /// Why, where the platform knows more than the kind says.
    pub reason: Reason,
    /// The operating system's error code; 0 if there was none.
    pub os_code: i32,
    /// The system call or step that failed; empty if unknown.
    pub step: &'static str,
    /// Bytes that were asked for; 0 if that is not what failed.
    pub requested: u64,
    /// Bytes that were free at that moment; 0 if unknown.
    pub available: u64,
    /// Bytes the backing store has in all, or the most that a limit allows; 0 if unknown.
    pub total: u64,
}

impl ProviderFailure {
    /// A failure of this kind without further details.
    #[must_use]
    pub const fn new(kind: ErrorKind, step: &'static str) -> Self {
        Self {
            kind,
            reason: Reason::Unknown,
            os_code: 0,
            step,
            requested: 0,
            available: 0,
            total: 0,
        }
    }

    /// A failure for this reason.
    #[must_use]
    pub const fn because(reason: Reason, step: &'static str) -> Self {
        Self { reason, ..Self::new(reason.kind(), step) }
    }

    /// The failure in words for people: what is wrong, and what to do. `what` was to be made or
    /// had, and `place` is where, such as a directory; each may be empty, which is for those who
    /// name it before.
    ///
    /// ```
    /// use dsm_core::error::{ProviderFailure, Reason};
    ///
    /// let failure = ProviderFailure::because(Reason::NoSuchDirectory, "open");
    /// let text = failure.explain("", "").to_string();
    /// assert_eq!(text, "there is no such directory; create it, or choose another");
    /// ```
    #[must_use]
    pub const fn explain<'a>(&'a self, what: &'a str, place: &'a str) -> Explanation<'a> {
        Explanation { failure: self, what, place }
    }
}

/// A [`ProviderFailure`] in words; see [`ProviderFailure::explain`].
#[derive(Clone, Copy, Debug)]
pub struct Explanation<'a> {
    failure: &'a ProviderFailure,
    what: &'a str,
    place: &'a str,
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotFound => "no such object",
            Self::Unfinished => "its creator has not finished it",
            Self::AlreadyExists => "already exists",
            Self::Foreign => "the name belongs to another object",
            Self::NoSpace => "shared memory is full",
            Self::NoMemory => "the process cannot map more memory",
            Self::PermissionDenied => "permission denied",
            Self::InvalidSize => "invalid size",
            Self::InvalidName => "the platform cannot express this name",
            Self::TooMany => "too many open objects",
            Self::TimedOut => "timed out",
            Self::Unsupported => "not supported on this platform",
            Self::Other => "system error",
        })
    }
}

impl fmt::Display for ProviderFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.explain("", ""))?;
        match (self.step, self.os_code) {
            ("", 0) => Ok(()),
            ("", code) => write!(f, " (os error {code})"),
            (step, 0) => write!(f, " ({step})"),
            (step, code) => write!(f, " ({step}, os error {code})"),
        }
    }
}

crate::debug_is_display!(ProviderFailure);
impl core::error::Error for ProviderFailure {}

impl fmt::Display for Explanation<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.failure.kind, self.failure.requested) {
            (ErrorKind::NoSpace | ErrorKind::NoMemory, 1..) => self.shortage(f),
            _ if self.what.is_empty() => self.sentence(f),
            _ => {
                write!(f, "{} can't be had: ", self.what)?;
                self.sentence(f)
            }
        }
    }
}

impl Explanation<'_> {
    /// `segment "x" needs 128 MiB but /dev/shm has 60 MiB free of 64 MiB; in Docker ...`
    fn shortage(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let &ProviderFailure { kind, reason, requested, available, total, .. } = self.failure;
        let what = if self.what.is_empty() { "this" } else { self.what };
        let place = match (reason, self.place) {
            (Reason::MachineFull, _) => "this machine",
            (_, "") => "the place where it lies",
            (_, place) => place,
        };
        write!(f, "{what} needs {}", Bytes(requested))?;
        if kind == ErrorKind::NoMemory {
            f.write_str(", and this process cannot map more: ")?;
            return self.sentence(f);
        }
        match reason {
            Reason::ShmMni | Reason::ShmAll | Reason::ObjectLimit | Reason::Quota => {
                f.write_str(", and can't have it: ")?;
                return self.sentence(f);
            }
            _ if total == 0 => write!(f, ", more than {place} has left")?,
            _ => {
                let (free, total) = (Bytes(available), Bytes(total));
                write!(f, " but {place} has {free} free of {total}")?;
            }
        }
        let enough = requested.saturating_add(total).max(1 << 26).checked_next_power_of_two();
        let mib = enough.unwrap_or(u64::MAX) >> 20;
        match reason {
            Reason::TmpfsFull | Reason::Unknown if place.starts_with("/dev/shm") => write!(
                f,
                "; in Docker pass --shm-size={mib}m, elsewhere `mount -o remount,size={mib}m \
                 /dev/shm`"
            ),
            Reason::TmpfsFull => {
                write!(f, "; free some there, or `mount -o remount,size={mib}m` that file system")
            }
            Reason::DiskFull => f.write_str("; free some there, or choose another place"),
            Reason::MachineFull => f.write_str("; end other programs, or ask for less"),
            _ => Ok(()),
        }
    }

    /// What is wrong, and what to do, of what has been named before.
    fn sentence(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let &ProviderFailure { kind, reason, requested, total, .. } = self.failure;
        f.write_str(match reason {
            Reason::Unknown => {
                return match kind {
                    ErrorKind::NoMemory if requested != 0 => {
                        f.write_str("its addresses are used up; ask for less")
                    }
                    _ if requested != 0 => write!(f, "{kind}: {requested} bytes asked for"),
                    _ => write!(f, "{kind}"),
                };
            }
            Reason::NoSuchDirectory => "there is no such directory; create it, or choose another",
            Reason::NotADirectory => "that is no directory; choose one",
            Reason::DirectoryDenied => {
                "this user may not use that directory, or not create anything there; see that it \
                 may, or choose another"
            }
            Reason::ReadOnlyMount => {
                "the file system is mounted read-only; mount it for writing, or choose another \
                 directory"
            }
            Reason::NameTaken => "something has that name already; choose another name",
            Reason::NotAnObject => {
                "what has that name is no shared memory but a link, a directory or a device; \
                 remove it, or choose another name"
            }
            Reason::Replaced => "the name means another object by now, which is left alone",
            Reason::BeingSetUp => {
                "it is empty: it is being set up, or who set it up died; try again"
            }
            Reason::NeverCompleted => "it is empty: its creation was never completed; remove it",
            Reason::ForeignOwner { owner } => {
                return write!(
                    f,
                    "it belongs to user {owner}, whom this process does not trust; list that user \
                     (`Options::owners`) and agree on one mode, run this as that user, or choose \
                     another name"
                );
            }
            Reason::ForeignUser => {
                "it belongs to a user whom this process does not trust; list that user \
                 (`Options::owners`), or choose another name"
            }
            Reason::AccessDenied { owner, mode } => {
                return write!(
                    f,
                    "it belongs to user {owner}, and its mode {mode:04o} does not let this user \
                     have it; have it made with a mode that does, or choose another name"
                );
            }
            Reason::RemovalDenied { owner } => {
                return write!(
                    f,
                    "it belongs to user {owner}, and only its owner can remove it there; let that \
                     user, or root, open the namespace, or call `dsm reap`"
                );
            }
            Reason::WritableByMore { mode, asked } => {
                return write!(
                    f,
                    "it has mode {mode:04o}, and at most {asked:04o} was asked for; ask for the \
                     same mode in all programs, or choose another name"
                );
            }
            Reason::OpenElsewhere => {
                "another program has it open and lets nobody else use it; see which, or try again"
            }
            Reason::DescriptorNotPassed => {
                "this process was not passed the segment's descriptor; pass it (`Memfd::insert`), \
                 or take a backend whose segments have names"
            }
            Reason::DescriptorClosed => {
                "its descriptor was closed by another part of this program; see that nothing \
                 closes descriptors that it did not open"
            }
            Reason::DescriptorLimit => {
                "this process has too many open files; close some, or raise the limit (`ulimit -n`)"
            }
            Reason::SystemDescriptorLimit => {
                "the system has too many open files; close some, or raise the limit \
                 (`sysctl fs.file-max`)"
            }
            Reason::AddressSpaceLimit => {
                "its addresses are limited; ask for less, or raise the limit (`ulimit -v`)"
            }
            Reason::MappingLimit => {
                "it has as many mappings as it may; raise the limit (`sysctl vm.max_map_count`)"
            }
            Reason::NoThread => {
                "the system gives this process no further thread; end some, or raise the limit that \
                 it has met (`ulimit -u`, `ulimit -v`)"
            }
            Reason::FileSizeLimit => {
                return write!(
                    f,
                    "{requested} bytes are more than a file of this process may have, {total} bytes; \
                     ask for less, or raise the limit (`ulimit -f`)"
                );
            }
            Reason::LargestFile => {
                return write!(
                    f,
                    "the file system has no files of {requested} bytes; ask for less, or choose \
                     another place"
                );
            }
            Reason::Unaddressable => {
                return write!(
                    f,
                    "{requested} bytes are more than a process with {}-bit addresses can map",
                    usize::BITS
                );
            }
            Reason::ZeroSize => "an object needs at least one byte",
            Reason::ShmMni => {
                "the system has as many System V segments as `kernel.shmmni` allows; remove some \
                 (`ipcs -m`), or raise that limit"
            }
            Reason::ShmMax => {
                return write!(
                    f,
                    "{requested} bytes are more than `kernel.shmmax` allows a System V segment, \
                     {total} bytes; ask for less, or raise that limit"
                );
            }
            Reason::ShmAll => {
                "System V segments would have more pages than `kernel.shmall` allows; remove some \
                 (`ipcs -m`), or raise that limit"
            }
            Reason::TmpfsFull | Reason::DiskFull => "the file system is full; free some there",
            Reason::MachineFull => "this machine has too little memory left; end other programs",
            Reason::ObjectLimit => {
                "the file system has as many files as it can (`df -i`); remove some, or mount it \
                 with more inodes"
            }
            Reason::Quota => "this user's quota there is used up; free some, or have it raised",
            Reason::ElectionHeld => {
                "another process is opening or leaving it, and has not finished; it may be stopped: \
                 try again, or allow more time"
            }
            Reason::TokenHeld { slot } => {
                return write!(f, "a living process holds the token of process slot {slot}");
            }
            Reason::ControlReplaced => {
                "it was replaced while this process is attached to the one before; leave that one \
                 first"
            }
        })
    }
}

/// Bytes in a form people read.
struct Bytes(u64);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [&str; 5] = ["bytes", "KiB", "MiB", "GiB", "TiB"];
        let (mut whole, mut rest, mut unit) = (self.0, 0, 0);
        while whole >= 1024 && unit + 1 < UNITS.len() {
            (whole, rest, unit) = (whole / 1024, whole % 1024, unit + 1);
        }
        let tenth = rest * 10 / 1024;
        if tenth == 0 || whole >= 100 {
            write!(f, "{whole} {}", UNITS[unit])
        } else {
            write!(f, "{whole}.{tenth} {}", UNITS[unit])
        }
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use std::string::ToString;

    use super::*;

    #[test]
    fn sizes_for_people() {
        for (bytes, text) in [
            (0, "0 bytes"),
            (1536, "1.5 KiB"),
            (64 << 20, "64 MiB"),
            ((64 << 20) + 1, "64 MiB"),
            (u64::MAX, "16777215 TiB"),
        ] {
            assert_eq!(Bytes(bytes).to_string(), text);
        }
    }

    #[test]
    fn a_shortage_names_sizes_and_the_way_out() {
        let failure = ProviderFailure {
            requested: 128 << 20,
            available: 60 << 20,
            total: 64 << 20,
            ..ProviderFailure::because(Reason::TmpfsFull, "posix_fallocate")
        };
        assert_eq!(
            failure.explain("segment \"big\"", "/dev/shm").to_string(),
            "segment \"big\" needs 128 MiB but /dev/shm has 60 MiB free of 64 MiB; in Docker pass \
             --shm-size=256m, elsewhere `mount -o remount,size=256m /dev/shm`"
        );
        let text = failure.to_string();
        assert!(text.starts_with("this needs 128 MiB but the place where it lies has"), "{text}");
        // Whatever a damaged or hostile platform says.
        let huge = ProviderFailure { requested: u64::MAX, total: u64::MAX, ..failure };
        assert!(huge.explain("it", "/dev/shm").to_string().contains("--shm-size="));
        let whole = |reason| ProviderFailure {
            requested: 1 << 20,
            ..ProviderFailure::because(reason, "mmap")
        };
        let limited = whole(Reason::AddressSpaceLimit).explain("area \"a\"", "/x").to_string();
        assert!(limited.starts_with("area \"a\" needs 1 MiB, and this process cannot map more"));
        assert!(limited.contains("`ulimit -v`"), "{limited}");
        let machine = whole(Reason::MachineFull).explain("it", "/dev/shm").to_string();
        assert!(
            machine.starts_with("it needs 1 MiB, more than this machine has left"),
            "{machine}"
        );
        let segments = whole(Reason::ShmMni).explain("it", "/x").to_string();
        assert!(segments.contains("`kernel.shmmni`") && !segments.contains("/x"), "{segments}");
    }

    #[test]
    fn a_step_and_a_code_follow_the_words() {
        let failure = ProviderFailure::because(Reason::ReadOnlyMount, "open");
        let failure = ProviderFailure { os_code: 30, ..failure };
        assert_eq!(
            failure.to_string(),
            "the file system is mounted read-only; mount it for writing, or choose another \
             directory (open, os error 30)"
        );
        assert_eq!(ProviderFailure::default().to_string(), "system error");
    }

    /// An error of the cores is returned by every call that may allocate.
    #[test]
    fn a_reason_makes_no_error_larger() {
        assert!(size_of::<Reason>() <= 8);
        assert!(size_of::<ProviderFailure>() <= 40 + 2 * size_of::<&str>().max(8));
    }
}

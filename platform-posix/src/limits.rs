//! Which limit it is that the system refuses by: it tells "no space" and "no memory", and not what
//! of them. What is asked here is asked after the refusal, so it may be wrong by then, and is for
//! messages alone.

use std::ffi::{CStr, c_int};
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd};

use dsm_core::error::Reason;

use crate::sys::{open_at, page_size, wide};

/// The largest file this process may make (`ulimit -f`): going beyond it would raise SIGXFSZ.
pub(crate) fn file_size_limit() -> u64 {
    // SAFETY: writable, and of the type asked for.
    soft_limit(|limit| unsafe { wide::getrlimit(libc::RLIMIT_FSIZE, limit) })
}

/// Why the system has no addresses for a mapping of so many bytes. Allocates nothing: there may be
/// no addresses for that either.
pub(crate) fn why_unmappable(asked: usize) -> Reason {
    // SAFETY: writable, and of the type asked for.
    let limit = soft_limit(|limit| unsafe { wide::getrlimit(libc::RLIMIT_AS, limit) });
    let pages = first_number(c"/proc/self/statm");
    let used = pages.map(|pages| pages.saturating_mul(page_size() as u64));
    let asked = asked.next_multiple_of(page_size()) as u64;
    if limit < i64::MAX as u64 && used.is_none_or(|used| used.saturating_add(asked) > limit) {
        return Reason::AddressSpaceLimit;
    }
    let most = first_number(c"/proc/sys/vm/max_map_count");
    // One of them has no line, and the kernel compares before it adds.
    let there = lines(c"/proc/self/maps").map(|lines| lines + 1);
    match (there, most) {
        (Some(there), Some(most)) if there >= most => Reason::MappingLimit,
        _ => Reason::Unknown,
    }
}

/// The number that a file of the system begins with.
fn first_number(path: &CStr) -> Option<u64> {
    let mut text = [0; 32];
    let read = std::fs::File::from(open_at(None, path, libc::O_RDONLY, 0).ok()?);
    let len = std::io::Read::read(&mut &read, &mut text).ok()?;
    let digits = text[..len].split(|byte| !byte.is_ascii_digit()).next()?;
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// The lines of a file of the system.
fn lines(path: &CStr) -> Option<u64> {
    let mut text = [0; 4096];
    let read = std::fs::File::from(open_at(None, path, libc::O_RDONLY, 0).ok()?);
    let mut count = 0;
    loop {
        match std::io::Read::read(&mut &read, &mut text).ok()? {
            0 => return Some(count),
            len => count += text[..len].iter().filter(|byte| **byte == b'\n').count() as u64,
        }
    }
}

/// What there is of System V segments, and can be.
pub(crate) struct Segments {
    /// So many segments.
    pub(crate) there: u64,
    /// So many at most.
    pub(crate) most: u64,
    /// Bytes of one at most.
    pub(crate) most_bytes: u64,
}

/// Asks for the figures of System V segments, which takes no descriptor.
#[cfg(target_os = "linux")]
#[expect(clippy::unnecessary_cast, reason = "the figures differ in width between machines")]
pub(crate) fn segments() -> Option<Segments> {
    use std::ffi::c_ulong;

    /// The kernel's `shminfo64`.
    #[repr(C)]
    struct Limits {
        bytes: c_ulong,
        least: c_ulong,
        segments: c_ulong,
        others: [c_ulong; 6],
    }
    /// The kernel's `shm_info`.
    #[repr(C)]
    struct Use {
        segments: c_int,
        others: [c_ulong; 5],
    }
    const LIMITS: c_int = 3;
    const USE: c_int = 14;

    let mut limits = Limits { bytes: 0, least: 0, segments: 0, others: [0; 6] };
    // SAFETY: writable, and of the type that this command fills.
    if unsafe { libc::shmctl(0, LIMITS, (&raw mut limits).cast()) } < 0 {
        return None;
    }
    let mut used = Use { segments: 0, others: [0; 5] };
    // SAFETY: as above.
    if unsafe { libc::shmctl(0, USE, (&raw mut used).cast()) } < 0 {
        return None;
    }
    Some(Segments {
        there: u64::try_from(used.segments).ok()?,
        most: limits.segments as u64,
        most_bytes: limits.bytes as u64,
    })
}

#[cfg(not(target_os = "linux"))]
pub(crate) fn segments() -> Option<Segments> {
    None
}

/// What a process may have at present, as `getrlimit` says it.
fn soft_limit(ask: impl FnOnce(*mut wide::rlimit) -> c_int) -> u64 {
    let mut limit = MaybeUninit::<wide::rlimit>::zeroed();
    if ask(limit.as_mut_ptr()) != 0 {
        return u64::MAX;
    }
    // SAFETY: getrlimit filled it, and it is valid as zeros.
    let limit = unsafe { limit.assume_init() };
    #[expect(clippy::unnecessary_cast, reason = "rlim_t is signed on some systems")]
    let soft = limit.rlim_cur as u64;
    soft
}

/// What is full of the file system of a descriptor, if something is, and its (free, all) bytes;
/// zeros if unknown or unlimited.
#[expect(
    clippy::unnecessary_cast,
    reason = "the fields of statvfs differ in width between systems"
)]
pub(crate) fn space(fd: BorrowedFd<'_>) -> (Reason, u64, u64) {
    let mut raw = MaybeUninit::<wide::statvfs>::zeroed();
    // SAFETY: `raw` is writable and of the type asked for; the descriptor is open.
    if unsafe { wide::fstatvfs(fd.as_raw_fd(), raw.as_mut_ptr()) } != 0 {
        return Default::default();
    }
    // SAFETY: fstatvfs filled it.
    let raw = unsafe { raw.assume_init() };
    let unit = raw.f_frsize as u64;
    let (free, all) = (raw.f_bavail as u64, raw.f_blocks as u64);
    let reason = if free != 0 && raw.f_files != 0 && raw.f_favail == 0 {
        Reason::ObjectLimit
    } else if is_tmpfs(fd) {
        Reason::TmpfsFull
    } else {
        Reason::DiskFull
    };
    (reason, free.saturating_mul(unit), all.saturating_mul(unit))
}

/// (available, all) bytes of the machine's memory, swap included; `None` if unknown.
pub(crate) fn memory() -> Option<(u64, u64)> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let field = |name: &str| -> Option<u64> {
        let line = text.lines().find_map(|line| line.strip_prefix(name))?;
        Some(line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok()? * 1024)
    };
    let available = field("MemAvailable:")? + field("SwapFree:")?;
    Some((available, field("MemTotal:")? + field("SwapTotal:")?))
}

/// Whether a descriptor is of a file system in memory.
fn is_tmpfs(fd: BorrowedFd<'_>) -> bool {
    #[cfg(target_os = "linux")]
    return crate::sys::file_system(fd).is_some_and(|raw| raw.f_type == libc::TMPFS_MAGIC);
    #[cfg(not(target_os = "linux"))]
    {
        let _ = fd;
        false
    }
}

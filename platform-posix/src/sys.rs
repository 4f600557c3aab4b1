//! System calls as plain functions: one call each, errors as [`Errno`], nothing remembered.
//!
//! All `unsafe` of the providers that is a mere call into the C library is here, so that the
//! modules above read as protocol. Nothing here knows names, namespaces or policies.
//!
//! On Linux the calls are those with 64-bit sizes and inode numbers (`wide`), which a 32-bit
//! program has beside others: with those it could not even look at a file of another's.

use std::ffi::{CStr, c_int};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::ptr::NonNull;

use dsm_core::handle::ObjectId;

#[cfg(target_os = "linux")]
use crate::fork::Once;
#[cfg(target_os = "linux")]
use crate::limits;
#[cfg(not(target_os = "linux"))]
pub(crate) use libc as wide;

/// The C library's calls with 64-bit sizes, under the names that they have elsewhere.
#[cfg(target_os = "linux")]
pub(crate) mod wide {
    pub(crate) use libc::{
        fallocate64 as fallocate, fstat64 as fstat, fstatat64 as fstatat, fstatfs64 as fstatfs,
        fstatvfs64 as fstatvfs, ftruncate64 as ftruncate, getrlimit64 as getrlimit,
        lseek64 as lseek, off64_t as off_t, openat64 as openat,
        posix_fallocate64 as posix_fallocate, rlimit64 as rlimit, stat64 as stat,
        statfs64 as statfs, statvfs64 as statvfs,
    };
}

/// A system's error code.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Errno(pub(crate) i32);

impl Errno {
    /// What the last failing call left.
    pub(crate) fn last() -> Self {
        Self(io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO))
    }

    /// Whether it is the user, or the mode, that forbids it.
    pub(crate) fn is_denied(self) -> bool {
        matches!(self.0, libc::EACCES | libc::EPERM)
    }

    fn check(result: c_int) -> Result<c_int, Self> {
        if result < 0 { Err(Self::last()) } else { Ok(result) }
    }
}

/// Runs `call` until it ends for another reason than a signal.
pub(crate) fn restart<T>(mut call: impl FnMut() -> Result<T, Errno>) -> Result<T, Errno> {
    loop {
        match call() {
            Err(Errno(libc::EINTR)) => {}
            other => return other,
        }
    }
}

/// The descriptor a call returned.
fn owned(result: c_int) -> Result<OwnedFd, Errno> {
    let raw: RawFd = Errno::check(result)?;
    // SAFETY: the call that returned `raw` just created it; nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(raw) })
}

/// What `fstat` and `fstatat` say.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stat {
    pub(crate) id: ObjectId,
    pub(crate) size: u64,
    pub(crate) backed: u64,
    pub(crate) owner: u32,
    /// Permission bits, and the three above them.
    pub(crate) mode: u32,
    /// Whether it is a regular file (or a shared-memory object, which some systems give no type).
    pub(crate) regular: bool,
}

/// `fstat`.
pub(crate) fn stat(fd: BorrowedFd<'_>) -> Result<Stat, Errno> {
    let mut raw = MaybeUninit::<wide::stat>::zeroed();
    // SAFETY: `raw` is writable and of the type that fstat fills; the descriptor is open.
    Errno::check(unsafe { wide::fstat(fd.as_raw_fd(), raw.as_mut_ptr()) })?;
    // SAFETY: fstat succeeded and filled it (it is also valid as zeros).
    Ok(Stat::of(&unsafe { raw.assume_init() }))
}

/// `fstatat`, which follows no link; `None` is the current directory. Takes no descriptor.
pub(crate) fn stat_at(dir: Option<BorrowedFd<'_>>, name: &CStr) -> Result<Stat, Errno> {
    let dir = dir.map_or(libc::AT_FDCWD, |fd| fd.as_raw_fd());
    let mut raw = MaybeUninit::<wide::stat>::zeroed();
    let (at, flags) = (raw.as_mut_ptr(), libc::AT_SYMLINK_NOFOLLOW);
    // SAFETY: `name` is a C string, the directory is open, `raw` is writable and of the type that
    // fstatat fills.
    Errno::check(unsafe { wide::fstatat(dir, name.as_ptr(), at, flags) })?;
    // SAFETY: fstatat succeeded and filled it (it is also valid as zeros).
    Ok(Stat::of(&unsafe { raw.assume_init() }))
}

impl Stat {
    #[expect(
        clippy::unnecessary_cast,
        reason = "the fields of stat differ in width and sign between systems"
    )]
    fn of(raw: &wide::stat) -> Self {
        let kind = raw.st_mode as u32 & libc::S_IFMT as u32;
        Self {
            id: ObjectId { device: raw.st_dev as u64, object: raw.st_ino as u64 },
            size: u64::try_from(raw.st_size).unwrap_or(0),
            backed: u64::try_from(raw.st_blocks).unwrap_or(0).saturating_mul(512),
            owner: raw.st_uid as u32,
            mode: raw.st_mode as u32 & 0o7777,
            regular: kind == libc::S_IFREG as u32 || kind == 0,
        }
    }
}

/// `shm_open`.
pub(crate) fn shm_open(name: &CStr, flags: c_int, mode: u32) -> Result<OwnedFd, Errno> {
    #[cfg(any(target_os = "macos", target_os = "ios"))]
    // SAFETY: `name` is a C string; shm_open keeps no pointer to it.
    let result = unsafe { libc::shm_open(name.as_ptr(), flags, mode as std::ffi::c_uint) };
    #[cfg(not(any(target_os = "macos", target_os = "ios")))]
    // SAFETY: `name` is a C string; shm_open keeps no pointer to it.
    let result = unsafe { libc::shm_open(name.as_ptr(), flags, mode as libc::mode_t) };
    owned(result)
}

/// `shm_unlink`.
pub(crate) fn shm_unlink(name: &CStr) -> Result<(), Errno> {
    // SAFETY: `name` is a C string.
    Errno::check(unsafe { libc::shm_unlink(name.as_ptr()) }).map(drop)
}

/// `openat`; `None` is the current directory.
pub(crate) fn open_at(
    dir: Option<BorrowedFd<'_>>,
    name: &CStr,
    flags: c_int,
    mode: u32,
) -> Result<OwnedFd, Errno> {
    let dir = dir.map_or(libc::AT_FDCWD, |fd| fd.as_raw_fd());
    let flags = flags | libc::O_CLOEXEC;
    // SAFETY: `name` is a C string, the directory is open, the mode is passed as the promoted
    // type that the variadic call reads.
    restart(|| owned(unsafe { wide::openat(dir, name.as_ptr(), flags, mode as std::ffi::c_uint) }))
}

/// `unlinkat`.
pub(crate) fn unlink_at(dir: BorrowedFd<'_>, name: &CStr) -> Result<(), Errno> {
    // SAFETY: `name` is a C string, the directory is open.
    Errno::check(unsafe { libc::unlinkat(dir.as_raw_fd(), name.as_ptr(), 0) }).map(drop)
}

/// `fchmod`.
pub(crate) fn set_mode(fd: BorrowedFd<'_>, mode: u32) -> Result<(), Errno> {
    // SAFETY: the descriptor is open.
    Errno::check(unsafe { libc::fchmod(fd.as_raw_fd(), mode as libc::mode_t) }).map(drop)
}

/// A length or offset as the C library wants it.
pub(crate) fn offset(bytes: u64) -> Result<wide::off_t, Errno> {
    wide::off_t::try_from(bytes).map_err(|_| Errno(libc::EFBIG))
}

/// `ftruncate`.
pub(crate) fn set_len(fd: BorrowedFd<'_>, len: u64) -> Result<(), Errno> {
    let len = offset(len)?;
    // SAFETY: the descriptor is open.
    restart(|| Errno::check(unsafe { wide::ftruncate(fd.as_raw_fd(), len) }).map(drop))
}

/// All signals that can be blocked are, until this is dropped; then the caller's mask is back.
///
/// Signals by which a fault reports itself stay as they are: blocking them would turn a fault
/// into a silent kill, and they don't interrupt a system call.
struct SignalsBlocked {
    before: libc::sigset_t,
}

impl SignalsBlocked {
    fn new() -> Self {
        let mut all = MaybeUninit::<libc::sigset_t>::zeroed();
        // SAFETY: `all` is writable.
        unsafe { libc::sigfillset(all.as_mut_ptr()) };
        for signal in [
            libc::SIGSEGV,
            libc::SIGBUS,
            libc::SIGFPE,
            libc::SIGILL,
            libc::SIGTRAP,
            libc::SIGABRT,
            libc::SIGSYS,
        ] {
            // SAFETY: `all` was filled above, the signals exist.
            unsafe { libc::sigdelset(all.as_mut_ptr(), signal) };
        }
        let mut before = MaybeUninit::<libc::sigset_t>::zeroed();
        // SIG_BLOCK adds to the mask: what the caller had blocked stays blocked.
        // SAFETY: both sets are valid; the call fails for a bad first argument only.
        unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, all.as_ptr(), before.as_mut_ptr()) };
        // SAFETY: pthread_sigmask filled it (it is also valid as zeros).
        Self { before: unsafe { before.assume_init() } }
    }
}

impl Drop for SignalsBlocked {
    fn drop(&mut self) {
        // SAFETY: `before` is what pthread_sigmask stored.
        unsafe {
            libc::pthread_sigmask(libc::SIG_SETMASK, &raw const self.before, std::ptr::null_mut())
        };
    }
}

/// Bytes that are backed at a time, while signals wait: of memory that is some five milliseconds'
/// work. A multiple of every page size but the hugest, whose pages are longer than this.
pub(crate) const PIECE: u64 = 8 << 20;

/// Backs `len` bytes from `start` with memory, and extends the file to their end.
///
/// `posix_fallocate` on tmpfs gives up and undoes all its work on any pending signal (on all but
/// recent kernels), so that a process with an interval timer would never finish: signals wait
/// meanwhile. They would wait for most of a second if a gibibyte were backed at once, so it is done
/// in pieces of [`PIECE`] bytes, and signals are let through in between.
///
/// The last piece sets the size of the file. On failure the pieces before stay backed, and the size
/// is what it was.
#[cfg(target_os = "linux")]
pub(crate) fn back(fd: BorrowedFd<'_>, start: u64, len: u64) -> Result<(), Errno> {
    let end = start.checked_add(len).ok_or(Errno(libc::EFBIG))?;
    let mut at = start;
    while end - at > PIECE {
        back_piece(fd, at, PIECE)?;
        at += PIECE;
    }
    if len == 0 {
        return Ok(());
    }
    let (start, len) = (offset(at)?, offset(end - at)?);
    let _blocked = SignalsBlocked::new();
    extend(fd, start, len)
}

/// As [`back`], of a file that has nothing in it: on failure it has not either. What its file
/// system could not hold if it were empty is not begun: others would find it full meanwhile.
#[cfg(target_os = "linux")]
pub(crate) fn back_new(fd: BorrowedFd<'_>, len: u64) -> Result<(), Errno> {
    if len > PIECE && matches!(limits::space(fd), (_, _, total @ 1..) if len > total) {
        return Err(Errno(libc::ENOSPC));
    }
    back(fd, 0, len).inspect_err(|_| {
        // What can't be given back goes with the file.
        let _ = punch(fd, 0, len);
    })
}

/// Backs a piece that another one follows: leaves the file's size alone where the file system can.
#[cfg(target_os = "linux")]
fn back_piece(fd: BorrowedFd<'_>, start: u64, len: u64) -> Result<(), Errno> {
    let (start, len) = (offset(start)?, offset(len)?);
    let _blocked = SignalsBlocked::new();
    let keep = libc::FALLOC_FL_KEEP_SIZE;
    // SAFETY: the descriptor is open.
    let backed =
        restart(|| Errno::check(unsafe { wide::fallocate(fd.as_raw_fd(), keep, start, len) }));
    match backed {
        // The C library knows another way.
        Err(Errno(libc::EOPNOTSUPP)) => extend(fd, start, len),
        other => other.map(drop),
    }
}

/// `posix_fallocate`, whose error is its return value.
#[cfg(target_os = "linux")]
fn extend(fd: BorrowedFd<'_>, start: wide::off_t, len: wide::off_t) -> Result<(), Errno> {
    // SAFETY: the descriptor is open.
    restart(|| match unsafe { wide::posix_fallocate(fd.as_raw_fd(), start, len) } {
        0 => Ok(()),
        code => Err(Errno(code)),
    })
}

/// Backs a *new* file with storage by writing zeros. Signals are let through after each [`PIECE`].
#[cfg(not(target_os = "linux"))]
pub(crate) fn write_zeros(fd: BorrowedFd<'_>, len: u64) -> Result<(), Errno> {
    let mut blocked = SignalsBlocked::new();
    let zeros = vec![0u8; 1 << 16];
    let mut done = 0;
    while done < len {
        let step = usize::try_from(len - done).unwrap_or(usize::MAX).min(zeros.len());
        let at = offset(done)?;
        let wrote = restart(|| {
            // SAFETY: `zeros` has at least `step` bytes.
            let n = unsafe { libc::pwrite(fd.as_raw_fd(), zeros.as_ptr().cast(), step, at) };
            if n < 0 { Err(Errno::last()) } else { Ok(n as u64) }
        })?;
        if wrote == 0 {
            // A short write without an error means that the device is full.
            return Err(Errno(libc::ENOSPC));
        }
        if done / PIECE != (done + wrote) / PIECE {
            drop(blocked);
            blocked = SignalsBlocked::new();
        }
        done += wrote;
    }
    drop(blocked);
    Ok(())
}

/// Whether a descriptor is of a file system of processes.
#[cfg(target_os = "linux")]
pub(crate) fn is_procfs(fd: BorrowedFd<'_>) -> bool {
    file_system(fd).is_some_and(|raw| raw.f_type == libc::PROC_SUPER_MAGIC)
}

#[cfg(target_os = "linux")]
pub(crate) fn file_system(fd: BorrowedFd<'_>) -> Option<wide::statfs> {
    let mut raw = MaybeUninit::<wide::statfs>::zeroed();
    // SAFETY: `raw` is writable and of the type asked for; the descriptor is open.
    let said = unsafe { wide::fstatfs(fd.as_raw_fd(), raw.as_mut_ptr()) };
    // SAFETY: filled by the call, and valid as zeros.
    (said == 0).then(|| unsafe { raw.assume_init() })
}

/// Where the description's next read would begin.
pub(crate) fn position(fd: BorrowedFd<'_>) -> Result<u64, Errno> {
    seek(fd, 0, libc::SEEK_CUR)
}

/// Sets where the description's next read would begin.
pub(crate) fn set_position(fd: BorrowedFd<'_>, to: u64) -> Result<u64, Errno> {
    seek(fd, offset(to)?, libc::SEEK_SET)
}

fn seek(fd: BorrowedFd<'_>, to: wide::off_t, whence: c_int) -> Result<u64, Errno> {
    // SAFETY: no memory is involved.
    let at = unsafe { wide::lseek(fd.as_raw_fd(), to, whence) };
    u64::try_from(at).map_err(|_| Errno::last())
}

/// Gives a range back to the system; it reads as zeros afterwards. The size stays.
#[cfg(target_os = "linux")]
pub(crate) fn punch(fd: BorrowedFd<'_>, start: u64, len: u64) -> Result<(), Errno> {
    let (start, len) = (offset(start)?, offset(len)?);
    let how = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
    // SAFETY: the descriptor is open.
    restart(|| Errno::check(unsafe { wide::fallocate(fd.as_raw_fd(), how, start, len) }).map(drop))
}

/// Maps `len` bytes of a file, shared; `writable` or for reading only.
pub(crate) fn map(fd: BorrowedFd<'_>, len: usize, writable: bool) -> Result<NonNull<u8>, Errno> {
    let protection = libc::PROT_READ | if writable { libc::PROT_WRITE } else { 0 };
    // SAFETY: a new mapping at an address of the system's choice affects no other memory.
    let base = unsafe {
        libc::mmap(std::ptr::null_mut(), len, protection, libc::MAP_SHARED, fd.as_raw_fd(), 0)
    };
    mapped(base)
}

/// Maps `len` bytes of private zeros.
pub(crate) fn map_private(len: usize) -> Result<NonNull<u8>, Errno> {
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    let flags = libc::MAP_PRIVATE | libc::MAP_ANON;
    // SAFETY: a new mapping at an address of the system's choice affects no other memory.
    let base = unsafe { libc::mmap(std::ptr::null_mut(), len, protection, flags, -1, 0) };
    mapped(base)
}

fn mapped(base: *mut libc::c_void) -> Result<NonNull<u8>, Errno> {
    if base == libc::MAP_FAILED {
        return Err(Errno::last());
    }
    NonNull::new(base.cast::<u8>()).ok_or(Errno(libc::ENOMEM))
}

/// Replaces a mapping in place by private zeros. Where the system refuses, the mapping stays what
/// it is.
///
/// # Safety
///
/// The range must be a mapping of the caller's whose contents nobody relies on.
pub(crate) unsafe fn map_blank(base: NonNull<u8>, len: usize) {
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    // Hardly any of it is ever touched: no memory is promised for it.
    #[cfg(target_os = "linux")]
    let flags = libc::MAP_PRIVATE | libc::MAP_ANON | libc::MAP_FIXED | libc::MAP_NORESERVE;
    #[cfg(not(target_os = "linux"))]
    let flags = libc::MAP_PRIVATE | libc::MAP_ANON | libc::MAP_FIXED;
    // SAFETY: the caller's promise: the range is its own to replace.
    unsafe { libc::mmap(base.as_ptr().cast(), len, protection, flags, -1, 0) };
}

/// `munmap`; what cannot be unmapped stays.
///
/// # Safety
///
/// Nothing may use the range any more.
pub(crate) unsafe fn unmap(base: NonNull<u8>, len: usize) {
    // SAFETY: the caller's promise.
    unsafe { libc::munmap(base.as_ptr().cast(), len) };
}

/// Backs the pages of a shared mapping with memory, from the beginning of a page on, leaving their
/// contents alone. `EFAULT` where touching would have been a bus error.
#[cfg(target_os = "linux")]
pub(crate) fn populate(base: NonNull<u8>, len: usize) -> Result<(), Errno> {
    match populate_at_once(base, len) {
        Err(Errno(libc::EINVAL | libc::ENOSYS)) => add_nothing(base, len),
        advised => advised,
    }
}

/// [`populate`] by a single call; `EINVAL` on Linux before 5.14.
#[cfg(target_os = "linux")]
pub(crate) fn populate_at_once(base: NonNull<u8>, len: usize) -> Result<(), Errno> {
    if !advice_is_heeded() {
        return Err(Errno(libc::EINVAL));
    }
    restart(|| {
        let advice = libc::MADV_POPULATE_WRITE;
        // SAFETY: populating changes no contents, and a range that is not mapped is an error.
        Errno::check(unsafe { libc::madvise(base.as_ptr().cast(), len, advice) }).map(drop)
    })
}

/// [`populate`] with what every Linux has: the kernel is asked to add 0 to a word of each page.
///
/// An addition of our own would be a bus error where there is no memory left; that of
/// `FUTEX_WAKE_OP` is an error of the call. It is one atomic read-modify-write, unlike all else
/// that has the kernel write to memory: what others store to that word at the same time is kept.
/// Whom the call wakes would wait for a word of our stack, or for the page's as one of this process
/// alone: nobody.
#[cfg(target_os = "linux")]
fn add_nothing(base: NonNull<u8>, len: usize) -> Result<(), Errno> {
    let call = libc::FUTEX_WAKE_OP | libc::FUTEX_PRIVATE_FLAG;
    let addition = libc::FUTEX_OP(libc::FUTEX_OP_ADD, 0, libc::FUTEX_OP_CMP_EQ, 0);
    let (nobodys, few): (u32, usize) = (0, 1);
    for at in (0..len).step_by(page_size()) {
        let word = base.as_ptr().wrapping_add(at);
        // SAFETY: the kernel looks at the first word's address alone, adds nothing to the second,
        // which is aligned as its page is, and says so if that isn't mapped.
        let woken = unsafe {
            libc::syscall(libc::SYS_futex, &raw const nobodys, call, few, few, word, addition)
        };
        if woken < 0 {
            return Err(Errno::last());
        }
    }
    Ok(())
}

/// Whether the system does what `madvise` asks for, or refuses it: qemu's user mode agrees to
/// everything and does next to nothing. Found out by an advice that there isn't.
#[cfg(target_os = "linux")]
pub(crate) fn advice_is_heeded() -> bool {
    static HEEDED: Once<bool> = Once::new();
    *HEEDED.get_or_make(|| {
        let Ok(page) = map_private(page_size()) else { return true };
        // SAFETY: concerns only a fresh page of our own.
        let refused = unsafe { libc::madvise(page.as_ptr().cast(), page_size(), 0x7a7a) } != 0;
        // SAFETY: mapped above, and nobody has seen it.
        unsafe { unmap(page, page_size()) };
        refused
    })
}

/// Bytes of a page.
pub(crate) fn page_size() -> usize {
    // SAFETY: no preconditions.
    let size = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    usize::try_from(size).unwrap_or(4096)
}

/// The effective user.
pub(crate) fn effective_user() -> u32 {
    // SAFETY: no preconditions; never fails.
    unsafe { libc::geteuid() }
}

/// The process.
pub(crate) fn process_id() -> u32 {
    // SAFETY: no preconditions; never fails.
    let pid = unsafe { libc::getpid() };
    pid as u32
}

/// Whether the system is certain that there is no such process in this pid namespace.
pub(crate) fn no_such_process(pid: u64) -> bool {
    let Ok(pid) = libc::pid_t::try_from(pid) else { return false };
    if pid <= 0 {
        return false;
    }
    // SAFETY: signal 0 is never delivered.
    let result = unsafe { libc::kill(pid, 0) };
    result != 0 && Errno::last() == Errno(libc::ESRCH)
}

/// Two ends of a stream, without waiting.
#[cfg(target_os = "linux")]
pub(crate) fn stream() -> Result<[OwnedFd; 2], Errno> {
    let kind = libc::SOCK_STREAM | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
    let mut ends = [-1; 2];
    // SAFETY: room for two descriptors.
    let result = unsafe { libc::socketpair(libc::AF_UNIX, kind, 0, ends.as_mut_ptr()) };
    if result < 0 {
        return Err(Errno::last());
    }
    Ok([owned(ends[0])?, owned(ends[1])?])
}

/// Makes the other end of a stream readable.
#[cfg(target_os = "linux")]
pub(crate) fn send_byte(end: BorrowedFd<'_>) {
    let byte = 1_u8;
    // It fails if the other end is full, hence readable anyhow, or closed; without a signal.
    // SAFETY: one readable byte.
    unsafe { libc::send(end.as_raw_fd(), (&raw const byte).cast(), 1, libc::MSG_NOSIGNAL) };
}

/// Makes an end of a stream unreadable, but for more than a hundred bytes.
#[cfg(target_os = "linux")]
pub(crate) fn drain(end: BorrowedFd<'_>) {
    let mut bytes = [0_u8; 128];
    // SAFETY: as many writable bytes. It fails only if nothing is there.
    unsafe { libc::recv(end.as_raw_fd(), bytes.as_mut_ptr().cast(), bytes.len(), 0) };
}

/// Sets the signal that the description would send if it were asked to send any.
#[cfg(target_os = "linux")]
pub(crate) fn set_signal(fd: BorrowedFd<'_>, signal: c_int) -> Result<(), Errno> {
    const F_SETSIG: c_int = 10;
    // SAFETY: no memory is involved.
    let result = unsafe { libc::fcntl(fd.as_raw_fd(), F_SETSIG, signal) };
    if result < 0 { Err(Errno::last()) } else { Ok(()) }
}

/// That signal; 0 if nobody has set any.
#[cfg(target_os = "linux")]
pub(crate) fn signal(fd: BorrowedFd<'_>) -> Result<c_int, Errno> {
    const F_GETSIG: c_int = 11;
    // SAFETY: no memory is involved.
    let signal = unsafe { libc::fcntl(fd.as_raw_fd(), F_GETSIG) };
    if signal < 0 { Err(Errno::last()) } else { Ok(signal) }
}

/// A descriptor of the process that has that number now.
#[cfg(target_os = "linux")]
pub(crate) fn process_fd(pid: u64) -> Result<OwnedFd, Errno> {
    let pid = libc::pid_t::try_from(pid).map_err(|_| Errno(libc::ESRCH))?;
    // SAFETY: no preconditions; the descriptor is close-on-exec.
    let opened = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    owned(opened as c_int)
}

/// Waits until a descriptor is ready, or the time is over, rounded up to a millisecond.
#[cfg(target_os = "linux")]
pub(crate) fn poll(polled: &mut [libc::pollfd], time: std::time::Duration) {
    let time = time.as_micros().div_ceil(1000).try_into().unwrap_or(c_int::MAX);
    polled.iter_mut().for_each(|one| one.revents = 0);
    // What it returns is in the slice; a signal ends the wait early.
    // SAFETY: the slice is writable, with as many descriptors as it has.
    unsafe { libc::poll(polled.as_mut_ptr(), polled.len() as libc::nfds_t, time) };
}

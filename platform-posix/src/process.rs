//! Who a process or a thread is: pid and start time, and whether that one is still there.
//!
//! Start times are in the system's units: clock ticks since boot on Linux (`/proc/<pid>/stat`,
//! field 22), microseconds since boot on FreeBSD, since 1970 on macOS. Together with the pid they name a process for
//! ever, provided both sides count alike: pids are relative to a pid namespace, ticks to a time namespace
//! and a boot. All three are mixed into [`ProcessProof::pid_namespace`].
//!
//! # Traps (Linux)
//!
//! - `kill(pid, 0)` finds a zombie alive; `/proc` may hide the processes of other users (`hidepid`):
//!   "no such file" proves nothing, "no such process" does, and the file does if it is there.
//! - `/proc` may have been mounted for another pid namespace, where our pid means somebody else: it
//!   is used only if `/proc/self` says our pid.
//! - The command name in the stat file may contain blanks and parentheses: fields are counted
//!   from the *last* parenthesis.
//! - A process whose first thread ended looks like a zombie while its other threads run: it is dead only
//!   if no other thread is left. Such a process finds itself without namespaces under `/proc/self`.
//! - qemu's user mode makes up `/proc/self/stat` (and `/proc/<own pid>/stat`), with a start time that is
//!   a tick off, but not the files of tasks: those of the first thread, whose times are the process's,
//!   are read throughout.
//!
//! # Traps (FreeBSD)
//!
//! - Who is in a jail gets "no such process" for those outside: the jail counts as pid namespace. So
//!   does everybody, for processes of other users and groups, where the administrator hides those:
//!   then it proves nothing.
//! - Start times are told as moments of the wall clock and move when it is set.

use dsm_core::env::{ProcessProof, ThreadProof};

use crate::sys;

/// Describes the calling process.
pub(crate) fn own_proof() -> ProcessProof {
    ProcessProof {
        pid: u64::from(sys::process_id()),
        start_time: system::own_start_time(),
        pid_namespace: system::namespace(),
        user: u64::from(sys::effective_user()),
    }
}

/// Describes the calling thread.
pub(crate) fn own_thread() -> ThreadProof {
    system::own_thread()
}

/// Whether pid and start time prove a process dead, seen from the process `own`.
pub(crate) fn is_dead(own: &ProcessProof, other: &ProcessProof) -> bool {
    if other.pid == 0 || !comparable(own, other) {
        return false;
    }
    if other.pid == own.pid {
        // The pid is ours now.
        return differ(own.start_time, other.start_time);
    }
    (sys::no_such_process(other.pid) && system::sees_all()) || system::pid_is_of_another(other)
}

/// Whether a thread of a living process is proven gone, seen from the process `own`.
pub(crate) fn thread_is_dead(
    own: &ProcessProof,
    process: &ProcessProof,
    thread: &ThreadProof,
) -> bool {
    thread.tid != 0
        && process.pid != 0
        && comparable(own, process)
        && system::thread_is_gone(process.pid, thread)
}

/// Whether pids and times of the two mean the same.
pub(crate) fn comparable(own: &ProcessProof, other: &ProcessProof) -> bool {
    own.pid_namespace == other.pid_namespace && (own.pid_namespace != 0 || !system::NAMESPACES)
}

/// Whether two start times are known and different.
fn differ(a: u64, b: u64) -> bool {
    a != 0 && b != 0 && a != b
}

#[cfg(target_os = "linux")]
mod system {
    use std::fs;
    use std::io::ErrorKind;
    use std::os::unix::fs::MetadataExt;

    use dsm_core::env::{ProcessProof, ThreadProof};

    use super::differ;
    use crate::name::hash;
    use crate::sys::{self, Errno};

    pub(super) const NAMESPACES: bool = true;

    /// "No such process" is always true here: what may not be signalled is "not permitted".
    pub(super) fn sees_all() -> bool {
        true
    }

    /// What a stat file of `/proc` says.
    struct ProcStat {
        /// `R`, `S`, `T`, `Z`, ...
        state: u8,
        threads: u64,
        start_time: u64,
    }

    impl ProcStat {
        fn parse(text: &str) -> Option<Self> {
            let mut fields = text.get(text.rfind(')')? + 1..)?.split_ascii_whitespace();
            let state = *fields.next()?.as_bytes().first()?;
            // The state is field 3, the number of threads 20, the start time 22.
            let threads = fields.nth(16)?.parse().ok()?;
            let start_time = fields.nth(1)?.parse().ok()?;
            Some(Self { state, threads, start_time })
        }

        fn read(path: &str) -> Option<Self> {
            Self::parse(&String::from_utf8_lossy(&fs::read(path).ok()?))
        }

        /// What the system says of a process; see the module's essay for the choice of file.
        fn of(pid: impl std::fmt::Display) -> Option<Self> {
            Self::read(&format!("/proc/{pid}/task/{pid}/stat"))
        }

        fn ended(&self) -> bool {
            matches!(self.state, b'Z' | b'X' | b'x')
        }
    }

    pub(super) fn own_start_time() -> u64 {
        ProcStat::of(sys::process_id()).map_or(0, |stat| stat.start_time)
    }

    /// Mixes boot, pid namespace and time namespace; 0 if they are not known.
    ///
    /// Asked of the calling thread: the process is looked up by its first thread, which belongs to
    /// no namespace any more once it has ended.
    pub(super) fn namespace() -> u64 {
        let Ok(boot) = fs::read("/proc/sys/kernel/random/boot_id") else { return 0 };
        let Ok(pids) = fs::metadata("/proc/thread-self/ns/pid") else { return 0 };
        let times = match fs::metadata("/proc/thread-self/ns/time") {
            Ok(times) => (times.dev(), times.ino()),
            // A kernel without time namespaces: then there is only one.
            Err(e) if e.kind() == ErrorKind::NotFound => (0, 0),
            Err(_) => return 0,
        };
        let mut bytes = boot;
        for part in [pids.dev(), pids.ino(), times.0, times.1] {
            bytes.extend_from_slice(&part.to_ne_bytes());
        }
        hash(&bytes).max(1)
    }

    /// Whether `/proc` counts pids as we do.
    fn proc_is_ours() -> bool {
        fs::read_link("/proc/self")
            .is_ok_and(|target| target.to_str() == Some(&*sys::process_id().to_string()))
    }

    /// Whether the process of that pid is another one, or a zombie.
    pub(super) fn pid_is_of_another(other: &ProcessProof) -> bool {
        if !proc_is_ours() {
            return false;
        }
        ProcStat::of(other.pid).is_some_and(|stat| {
            differ(stat.start_time, other.start_time) || (stat.ended() && stat.threads <= 1)
        })
    }

    pub(super) fn own_thread() -> ThreadProof {
        // SAFETY: no preconditions; never fails.
        let tid = unsafe { libc::syscall(libc::SYS_gettid) };
        let stat = ProcStat::read(&format!("/proc/self/task/{tid}/stat"));
        ThreadProof {
            tid: u64::try_from(tid).unwrap_or(0),
            start_time: stat.map_or(0, |stat| stat.start_time),
        }
    }

    pub(super) fn thread_is_gone(pid: u64, thread: &ThreadProof) -> bool {
        if no_such_thread(pid, thread.tid) {
            return true;
        }
        if !proc_is_ours() {
            return false;
        }
        ProcStat::read(&format!("/proc/{pid}/task/{}/stat", thread.tid))
            .is_some_and(|stat| differ(stat.start_time, thread.start_time) || stat.ended())
    }

    /// Whether the system is certain that the process has no such thread.
    fn no_such_thread(pid: u64, tid: u64) -> bool {
        let (Ok(pid), Ok(tid)) = (libc::pid_t::try_from(pid), libc::pid_t::try_from(tid)) else {
            return false;
        };
        if pid <= 0 || tid <= 0 {
            return false;
        }
        // SAFETY: signal 0 is never delivered.
        let result = unsafe { libc::syscall(libc::SYS_tgkill, pid, tid, 0) };
        result != 0 && Errno::last() == Errno(libc::ESRCH)
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn names_with_parentheses_and_blanks_are_skipped() {
            let text =
                "42 (a) R 1 (b) ) Z 1 42 42 0 -1 4194304 5 6 7 8 9 10 11 12 20 0 3 0 987654 0 0";
            let stat = ProcStat::parse(text).unwrap();
            assert_eq!((stat.state, stat.threads, stat.start_time), (b'Z', 3, 987_654));
            assert!(stat.ended());
            assert!(ProcStat::parse("42 (cut) R 1 2").is_none());
            assert!(ProcStat::parse("").is_none());
        }

        #[test]
        fn own_thread_is_found_alive_and_a_wrong_start_time_dead() {
            let own = super::super::own_proof();
            let thread = own_thread();
            assert!(thread.tid != 0 && thread.start_time != 0 && own.pid_namespace != 0);
            let dead = |thread| super::super::thread_is_dead(&own, &own, &thread);
            assert!(!dead(thread));
            assert!(dead(ThreadProof { start_time: thread.start_time + 1, ..thread }));
            assert!(!dead(ThreadProof { start_time: 0, ..thread }));
            assert!(!dead(ThreadProof { tid: 0, ..thread }));
        }
    }
}

#[cfg(target_os = "freebsd")]
mod system {
    use std::ffi::{CStr, c_int, c_long};
    use std::mem::MaybeUninit;

    use dsm_core::env::{ProcessProof, ThreadProof};

    use super::differ;
    use crate::sys::{self, Errno};

    pub(super) const NAMESPACES: bool = true;

    /// What the system tells of a process.
    struct Process {
        /// Microseconds from boot to its start.
        start: u64,
        zombie: bool,
        jail: c_int,
    }

    /// A value of the kernel's of type `T`, for which any bytes must do.
    ///
    /// # Safety
    ///
    /// All bytes must be a valid `T`.
    unsafe fn value<T>(name: &[c_int]) -> Option<T> {
        let mut value = MaybeUninit::<T>::zeroed();
        let mut len = size_of::<T>();
        let (at, count) = (value.as_mut_ptr().cast(), name.len() as libc::c_uint);
        // SAFETY: `value` is writable for `len` bytes, `name` has `count` numbers.
        let result =
            unsafe { libc::sysctl(name.as_ptr(), count, at, &raw mut len, std::ptr::null(), 0) };
        if result != 0 || len != size_of::<T>() {
            return None;
        }
        // SAFETY: filled by the call, and valid whatever its bytes are.
        Some(unsafe { value.assume_init() })
    }

    fn microseconds(time: libc::timeval) -> u64 {
        (time.tv_sec as u64).wrapping_mul(1_000_000).wrapping_add(time.tv_usec as u64)
    }

    fn boot() -> Option<u64> {
        // SAFETY: a timeval consists of integers.
        unsafe { value::<libc::timeval>(&[libc::CTL_KERN, libc::KERN_BOOTTIME]) }.map(microseconds)
    }

    /// The start is told as a moment of the wall clock, as which it changes when that is set; the
    /// kernel adds the time of boot to what it knows, and here it is taken off again. Once more if
    /// the clock was set in between.
    fn look(pid: u64) -> Option<Process> {
        let pid = c_int::try_from(pid).ok()?;
        let name = [libc::CTL_KERN, libc::KERN_PROC, libc::KERN_PROC_PID, pid];
        for _ in 0..3 {
            let before = boot()?;
            // SAFETY: consists of integers, pointers that are not followed, and arrays of them.
            let info = unsafe { value::<libc::kinfo_proc>(&name) }?;
            if boot()? == before {
                return Some(Process {
                    start: microseconds(info.ki_start).wrapping_sub(before).max(1),
                    zombie: info.ki_stat == libc::SZOMB,
                    jail: info.ki_jid,
                });
            }
        }
        None
    }

    pub(super) fn own_start_time() -> u64 {
        look(u64::from(sys::process_id())).map_or(0, |process| process.start)
    }

    /// The jail: who is in one doesn't see the processes outside.
    pub(super) fn namespace() -> u64 {
        look(u64::from(sys::process_id())).map_or(0, |process| process.jail as u64 + 1)
    }

    /// Whether this process would be told of any other in its jail. The administrator may hide
    /// those of other users and groups: they are "no such process" then, and live.
    pub(super) fn sees_all() -> bool {
        let shown = |name: &CStr| {
            let (mut value, mut len): (c_int, usize) = (0, size_of::<c_int>());
            let at = (&raw mut value).cast();
            // SAFETY: `value` is writable for `len` bytes, `name` is a C string.
            let result =
                unsafe { libc::sysctlbyname(name.as_ptr(), at, &raw mut len, std::ptr::null(), 0) };
            result == 0 && value != 0
        };
        sys::effective_user() == 0
            || (shown(c"security.bsd.see_other_uids") && shown(c"security.bsd.see_other_gids"))
    }

    pub(super) fn pid_is_of_another(other: &ProcessProof) -> bool {
        look(other.pid)
            .is_some_and(|process| process.zombie || differ(process.start, other.start_time))
    }

    /// The system doesn't tell when a thread started. Its number may be given out again, in
    /// which case it is not found dead before its process.
    pub(super) fn own_thread() -> ThreadProof {
        // SAFETY: no preconditions; never fails.
        let tid = unsafe { libc::pthread_getthreadid_np() };
        ThreadProof { tid: u64::try_from(tid).unwrap_or(0), start_time: 0 }
    }

    pub(super) fn thread_is_gone(pid: u64, thread: &ThreadProof) -> bool {
        let (Ok(pid), Ok(tid)) = (libc::pid_t::try_from(pid), c_long::try_from(thread.tid)) else {
            return false;
        };
        if pid <= 0 || tid <= 0 || !sees_all() {
            return false;
        }
        // SAFETY: signal 0 is never delivered.
        let result = unsafe { libc::thr_kill2(pid, tid, 0) };
        result != 0 && Errno::last() == Errno(libc::ESRCH)
    }
}

#[cfg(target_os = "macos")]
mod system {
    use std::ffi::c_int;
    use std::mem::MaybeUninit;

    use dsm_core::env::{ProcessProof, ThreadProof};

    use super::differ;
    use crate::sys::{self, Errno};

    /// There are none.
    pub(super) const NAMESPACES: bool = false;

    /// `PROC_PIDTHREADID64INFO`: of a thread by the number that it alone ever has.
    const BY_THREAD_ID: c_int = 15;

    /// What `proc_pidinfo` says, a `T` of integers; the last error if it says nothing.
    ///
    /// # Safety
    ///
    /// `T` must be what that `flavor` fills, and valid whatever its bytes are.
    unsafe fn ask<T>(pid: u64, flavor: c_int, argument: u64) -> Result<T, Errno> {
        let pid = c_int::try_from(pid).map_err(|_| Errno(libc::EINVAL))?;
        let mut info = MaybeUninit::<T>::zeroed();
        let (at, len) = (info.as_mut_ptr().cast(), size_of::<T>() as c_int);
        // SAFETY: `info` is writable for `len` bytes.
        let got = unsafe { libc::proc_pidinfo(pid, flavor, argument, at, len) };
        if got < len {
            return Err(Errno::last());
        }
        // SAFETY: filled by the call, and valid whatever its bytes are.
        Ok(unsafe { info.assume_init() })
    }

    /// (start in microseconds since 1970, noted when it started; whether it is a zombie).
    fn look(pid: u64) -> Option<(u64, bool)> {
        // The argument asks for zombies too.
        // SAFETY: the flavour fills this structure of integers.
        let info = unsafe { ask::<libc::proc_bsdinfo>(pid, libc::PROC_PIDTBSDINFO, 1) }.ok()?;
        let start = info.pbi_start_tvsec * 1_000_000 + info.pbi_start_tvusec;
        Some((start, info.pbi_status == libc::SZOMB))
    }

    pub(super) fn own_start_time() -> u64 {
        look(u64::from(sys::process_id())).map_or(0, |(start, _)| start)
    }

    pub(super) fn namespace() -> u64 {
        0
    }

    /// What may not be looked at is "not permitted".
    pub(super) fn sees_all() -> bool {
        true
    }

    pub(super) fn pid_is_of_another(other: &ProcessProof) -> bool {
        look(other.pid).is_some_and(|(start, zombie)| zombie || differ(start, other.start_time))
    }

    /// Thread numbers are 64 bits and never used again, so that there is no need for a time.
    pub(super) fn own_thread() -> ThreadProof {
        let mut tid = 0;
        // SAFETY: `tid` is writable; thread 0 means the caller.
        let result = unsafe { libc::pthread_threadid_np(0, &raw mut tid) };
        ThreadProof { tid: if result == 0 { tid } else { 0 }, start_time: 0 }
    }

    pub(super) fn thread_is_gone(pid: u64, thread: &ThreadProof) -> bool {
        // SAFETY: the flavour fills this structure of integers and characters.
        let found = unsafe { ask::<libc::proc_threadinfo>(pid, BY_THREAD_ID, thread.tid) };
        matches!(found, Err(Errno(libc::ESRCH)))
    }
}

/// Systems on which only the absence of a pid proves anything.
#[cfg(not(any(target_os = "linux", target_os = "freebsd", target_os = "macos")))]
mod system {
    use dsm_core::env::{ProcessProof, ThreadProof};

    pub(super) const NAMESPACES: bool = false;

    pub(super) fn own_start_time() -> u64 {
        0
    }

    pub(super) fn namespace() -> u64 {
        0
    }

    pub(super) fn sees_all() -> bool {
        true
    }

    pub(super) fn pid_is_of_another(_other: &ProcessProof) -> bool {
        false
    }

    pub(super) fn own_thread() -> ThreadProof {
        ThreadProof::default()
    }

    pub(super) fn thread_is_gone(_pid: u64, _thread: &ThreadProof) -> bool {
        false
    }
}

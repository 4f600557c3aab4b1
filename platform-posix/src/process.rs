//! Who a process or a thread is: pid and start time, and whether that one is still there.
//!
//! Start times are in the system's units: clock ticks since boot on Linux (`/proc/<pid>/stat`,
//! field 22), microseconds since 1970 elsewhere. Together with the pid they name a process for
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
    sys::no_such_process(other.pid) || system::pid_is_of_another(other)
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

        fn ended(&self) -> bool {
            matches!(self.state, b'Z' | b'X' | b'x')
        }
    }

    pub(super) fn own_start_time() -> u64 {
        ProcStat::read("/proc/self/stat").map_or(0, |stat| stat.start_time)
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
        ProcStat::read(&format!("/proc/{}/stat", other.pid)).is_some_and(|stat| {
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

#[cfg(not(target_os = "linux"))]
mod system {
    use dsm_core::env::{ProcessProof, ThreadProof};

    use super::differ;

    pub(super) const NAMESPACES: bool = false;

    /// (start time in microseconds since 1970, whether it is a zombie).
    #[cfg(target_os = "freebsd")]
    fn look(pid: u64) -> Option<(u64, bool)> {
        let pid = libc::c_int::try_from(pid).ok()?;
        let name = [libc::CTL_KERN, libc::KERN_PROC, libc::KERN_PROC_PID, pid];
        let mut info = std::mem::MaybeUninit::<libc::kinfo_proc>::zeroed();
        let mut len = size_of::<libc::kinfo_proc>();
        // SAFETY: `info` is writable for `len` bytes, `name` has four numbers.
        let result = unsafe {
            libc::sysctl(
                name.as_ptr(),
                4,
                info.as_mut_ptr().cast(),
                &raw mut len,
                std::ptr::null(),
                0,
            )
        };
        if result != 0 || len < size_of::<libc::kinfo_proc>() {
            return None;
        }
        // SAFETY: filled by the call, and valid as zeros.
        let info = unsafe { info.assume_init() };
        let start = info.ki_start.tv_sec as u64 * 1_000_000 + info.ki_start.tv_usec as u64;
        Some((start, info.ki_stat == libc::SZOMB))
    }

    #[cfg(target_os = "macos")]
    fn look(pid: u64) -> Option<(u64, bool)> {
        let pid = libc::c_int::try_from(pid).ok()?;
        let mut info = std::mem::MaybeUninit::<libc::proc_bsdinfo>::zeroed();
        let len = size_of::<libc::proc_bsdinfo>() as libc::c_int;
        // SAFETY: `info` is writable for `len` bytes.
        let got = unsafe {
            libc::proc_pidinfo(pid, libc::PROC_PIDTBSDINFO, 0, info.as_mut_ptr().cast(), len)
        };
        if got < len {
            return None;
        }
        // SAFETY: filled by the call, and valid as zeros.
        let info = unsafe { info.assume_init() };
        let start = info.pbi_start_tvsec * 1_000_000 + info.pbi_start_tvusec;
        Some((start, info.pbi_status == libc::SZOMB))
    }

    /// Systems on which only the absence of a pid proves anything.
    #[cfg(not(any(target_os = "freebsd", target_os = "macos")))]
    fn look(_pid: u64) -> Option<(u64, bool)> {
        None
    }

    pub(super) fn own_start_time() -> u64 {
        look(u64::from(crate::sys::process_id())).map_or(0, |(start, _)| start)
    }

    pub(super) fn namespace() -> u64 {
        0
    }

    pub(super) fn pid_is_of_another(other: &ProcessProof) -> bool {
        look(other.pid).is_some_and(|(start, zombie)| zombie || differ(start, other.start_time))
    }

    pub(super) fn own_thread() -> ThreadProof {
        ThreadProof::default()
    }

    pub(super) fn thread_is_gone(_pid: u64, _thread: &ThreadProof) -> bool {
        false
    }
}

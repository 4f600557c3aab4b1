//! Processes of Linux, as `/proc` tells of them.

use std::ffi::CString;
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};

use dsm_core::env::ThreadProof;
use dsm_core::handle::ObjectId;

use super::{Seen, differ};
use crate::name::hash;
use crate::sys::{self, Errno};

pub(super) const NAMESPACES: bool = true;

/// How this process counts, and what `/proc` it has.
pub(super) struct View {
    namespace: u64,
    /// `None` unless it counts pids as we do.
    proc: Option<Proc>,
}

impl View {
    pub(super) fn now() -> Self {
        let Some(proc) = Proc::open() else { return Self { namespace: 0, proc: None } };
        let namespace = proc.namespace().unwrap_or(0);
        Self { namespace, proc: proc.is_ours().then_some(proc) }
    }

    /// Mixes boot, pid namespace and time namespace; 0 if they are not known.
    pub(super) fn namespace(&self) -> u64 {
        self.namespace
    }

    /// "No such process" is always true here: what may not be signalled is "not permitted".
    pub(super) fn sees_all(&self) -> bool {
        true
    }

    pub(super) fn look(&self, pid: u64) -> Option<Seen> {
        let stat = self.proc.as_ref()?.stat(pid, pid)?;
        let ended = stat.ended() && stat.threads <= 1;
        Some(Seen { start_time: stat.start_time, ended })
    }

    pub(super) fn own_thread(&self) -> ThreadProof {
        // SAFETY: no preconditions; never fails.
        let tid = unsafe { libc::syscall(libc::SYS_gettid) };
        let tid = u64::try_from(tid).unwrap_or(0);
        let own = u64::from(sys::process_id());
        let stat = self.proc.as_ref().and_then(|proc| proc.stat(own, tid));
        ThreadProof { tid, start_time: stat.map_or(0, |stat| stat.start_time) }
    }

    pub(super) fn thread_is_gone(&self, pid: u64, thread: &ThreadProof) -> bool {
        if no_such_thread(pid, thread.tid) {
            return true;
        }
        let stat = self.proc.as_ref().and_then(|proc| proc.stat(pid, thread.tid));
        stat.is_some_and(|stat| differ(stat.start_time, thread.start_time) || stat.ended())
    }

    pub(super) fn has_mapped(&self, pid: u64, id: ObjectId, name: &str) -> bool {
        let Some(proc) = &self.proc else { return false };
        // A first thread that has ended has no memory any more.
        let maps = proc.read(&format!("{pid}/maps")).filter(|maps| !maps.is_empty());
        let maps = maps.or_else(|| {
            let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).ok()?;
            let of = |task: std::fs::DirEntry| {
                proc.read(&format!("{pid}/task/{}/maps", task.file_name().to_str()?))
            };
            tasks.map_while(Result::ok).filter_map(of).find(|maps| !maps.is_empty())
        });
        maps.is_some_and(|maps| maps.lines().any(|line| is_mapping_of(line, id, name)))
    }
}

/// Whether a line of a process's `maps` is of an object that is shared and may be written.
///
/// Some file systems (btrfs, overlayfs) have another device there than `fstat` tells: there the
/// name has to do.
pub(super) fn is_mapping_of(line: &str, id: ObjectId, name: &str) -> bool {
    let mut fields = line.splitn(6, ' ');
    let (_, Some(access)) = (fields.next(), fields.next()) else { return false };
    let (_, Some(device), Some(inode)) = (fields.next(), fields.next(), fields.next()) else {
        return false;
    };
    let path = fields.next().unwrap_or("").trim_start();
    let path = path.strip_suffix(" (deleted)").unwrap_or(path);
    let device = device.split_once(':').and_then(|(major, minor)| {
        let number = |text| u32::from_str_radix(text, 16).ok();
        Some(libc::makedev(number(major)?, number(minor)?))
    });
    access.as_bytes().get(1) == Some(&b'w')
        && access.as_bytes().get(3) == Some(&b's')
        && inode.parse() == Ok(id.object)
        && (device == Some(id.device) || path.rsplit('/').next() == Some(name))
}

/// An open `/proc`.
struct Proc(OwnedFd);

impl Proc {
    fn open() -> Option<Self> {
        let flags = libc::O_PATH | libc::O_DIRECTORY;
        let proc = sys::open_at(None, c"/proc", flags, 0).ok()?;
        sys::is_procfs(proc.as_fd()).then_some(Self(proc))
    }

    fn at(&self, path: &str, flags: libc::c_int) -> Result<OwnedFd, Errno> {
        let path = CString::new(path).map_err(|_| Errno(libc::EINVAL))?;
        sys::open_at(Some(self.0.as_fd()), &path, flags, 0)
    }

    fn read(&self, path: &str) -> Option<String> {
        let mut bytes = Vec::new();
        File::from(self.at(path, libc::O_RDONLY).ok()?).read_to_end(&mut bytes).ok()?;
        Some(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// What a file means that stands for something else.
    fn identity(&self, path: &str) -> Result<ObjectId, Errno> {
        Ok(sys::stat(self.at(path, libc::O_PATH)?.as_fd())?.id)
    }

    /// Whether pids are counted as we do: the calling process has one number here, its own.
    fn is_ours(&self) -> bool {
        let Some(status) = self.read("thread-self/status") else { return false };
        let own = sys::process_id().to_string();
        let field =
            |name| status.lines().find_map(|line: &str| line.strip_prefix(name)).map(str::trim);
        // A kernel without pid namespaces has the second line only.
        field("NStgid:").or_else(|| field("Tgid:")) == Some(&*own)
    }

    /// Asked of the calling thread: the process is looked up by its first thread, which belongs to
    /// no namespace any more once it has ended.
    fn namespace(&self) -> Option<u64> {
        let pids = self.identity("thread-self/ns/pid").ok()?;
        let times = match self.identity("thread-self/ns/time") {
            Ok(times) => times,
            // A kernel without time namespaces: then there is only one.
            Err(Errno(libc::ENOENT)) => ObjectId::default(),
            Err(_) => return None,
        };
        let mut bytes = Vec::new();
        for part in [self.boot()?, pids.device, pids.object, times.device, times.object] {
            bytes.extend_from_slice(&part.to_ne_bytes());
        }
        Some(hash(&bytes).max(1))
    }

    /// Which boot of the machine this is: nobody sees two.
    fn boot(&self) -> Option<u64> {
        static BOOT: AtomicU64 = AtomicU64::new(0);
        let known = BOOT.load(Ordering::Relaxed);
        if known != 0 {
            return Some(known);
        }
        let boot = hash(self.read("sys/kernel/random/boot_id")?.as_bytes()).max(1);
        BOOT.store(boot, Ordering::Relaxed);
        Some(boot)
    }

    /// The stat file of a thread; see the module's essay for the choice of file.
    fn stat(&self, pid: u64, tid: u64) -> Option<ProcStat> {
        ProcStat::parse(&self.read(&format!("{pid}/task/{tid}/stat"))?)
    }
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

    fn ended(&self) -> bool {
        matches!(self.state, b'Z' | b'X' | b'x')
    }
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
    use crate::process::{Fate, fate, own_proof, own_thread, thread_is_dead};

    #[test]
    fn names_with_parentheses_and_blanks_are_skipped() {
        let text = "42 (a) R 1 (b) ) Z 1 42 42 0 -1 4194304 5 6 7 8 9 10 11 12 20 0 3 0 987654 0 0";
        let stat = ProcStat::parse(text).unwrap();
        assert_eq!((stat.state, stat.threads, stat.start_time), (b'Z', 3, 987_654));
        assert!(stat.ended());
        assert!(ProcStat::parse("42 (cut) R 1 2").is_none());
        assert!(ProcStat::parse("").is_none());
    }

    #[test]
    fn own_thread_is_found_alive_and_a_wrong_start_time_dead() {
        let (own, thread) = (own_proof(), own_thread());
        assert!(thread.tid != 0 && thread.start_time != 0 && own.pid_namespace != 0);
        let dead = |thread| thread_is_dead(&own, &thread);
        assert!(!dead(thread));
        assert!(dead(ThreadProof { start_time: thread.start_time + 1, ..thread }));
        assert!(!dead(ThreadProof { start_time: 0, ..thread }));
        assert!(!dead(ThreadProof { tid: 0, ..thread }));
    }

    #[test]
    fn who_is_described_in_full_is_there_and_who_is_not_may_be() {
        let own = own_proof();
        assert_eq!(fate(&own), Fate::There);
        let changed = |change: fn(&mut dsm_core::env::ProcessProof)| {
            let mut other = own;
            change(&mut other);
            fate(&other)
        };
        assert_eq!(changed(|other| other.start_time += 1), Fate::Dead);
        assert_eq!(changed(|other| other.start_time = 0), Fate::Unknown);
        assert_eq!(changed(|other| other.pid_namespace += 1), Fate::Unknown);
        assert_eq!(changed(|other| other.pid = (1 << 22) - 1), Fate::Dead);
    }

    #[test]
    fn mappings_are_told_apart() {
        let id = ObjectId { device: libc::makedev(0, 0x1a), object: 42 };
        let is = |line| is_mapping_of(line, id, "dsm.x.ctl");
        assert!(is("7f00-7f10 rw-s 00000000 00:1a 42                 /dev/shm/dsm.x.ctl"));
        assert!(is("7f00-7f10 rw-s 00000000 00:1a 42                 /else/where (deleted)"));
        assert!(is("7f00-7f10 rw-s 00000000 00:1b 42                 /a b/dsm.x.ctl (deleted)"));
        assert!(is("7f00-7f10 rw-s 00000000 00:1a 42"));
        for other in [
            "7f00-7f10 r--s 00000000 00:1a 42                 /dev/shm/dsm.x.ctl",
            "7f00-7f10 rw-p 00000000 00:1a 42                 /dev/shm/dsm.x.ctl",
            "7f00-7f10 rw-s 00000000 00:1a 43                 /dev/shm/dsm.x.ctl",
            "7f00-7f10 rw-s 00000000 00:1b 42                 /dev/shm/dsm.y.ctl",
            "7f00-7f10 rw-p 00000000 00:00 0 ",
            "",
        ] {
            assert!(!is(other), "{other}");
        }
    }
}

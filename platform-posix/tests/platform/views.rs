//! Who counts otherwise than others do, or than it did: pid namespaces under a foreign `/proc`,
//! time namespaces.

use dsm_core::env::{Liveness, ProcessProof, ThreadProof};

use testkit::process::{Part, Peer, say};

use crate::processes::World;
use crate::support::{ENTRY, read_proof, skip, spawn, spawn_under, told, write_proof};

/// Role: the first process of a pid namespace, which sees the `/proc` of another one when it claims
/// slot 1, and gets its own after that. Then a second process of the namespace judges it.
pub(crate) fn newcomer(part: &Part) {
    let environment = told(part).environment();
    environment.claim(1).unwrap();
    let ThreadProof { tid, start_time } = environment.thread_proof();
    let proof = write_proof(&environment.process_proof());
    part.say(&proof);
    part.ask();
    // SAFETY: C strings; the mount namespace is this process's own.
    let mounted = unsafe {
        libc::mount(c"proc".as_ptr(), c"/proc".as_ptr(), c"proc".as_ptr(), 0, std::ptr::null())
    };
    assert_eq!(mounted, 0, "{}", std::io::Error::last_os_error());
    let thread = format!("{tid} {start_time}");
    let mut judge = Peer::start(ENTRY, "judge", &[part.argument(0), &proof, &thread]);
    part.say(&judge.hear());
    judge.finish();
    // Described anew, it is known in full.
    let again = told(part).environment().process_proof();
    part.say(&format!("{} {}", again.pid, again.start_time != 0));
    part.hear();
}

/// Role: says whether the tenant of slot 1, and its thread, are dead.
pub(crate) fn judge(part: &Part) {
    let environment = told(part).environment();
    let proof = read_proof(part.argument(1));
    let (tid, start_time) = part.argument(2).split_once(' ').unwrap();
    let thread = ThreadProof { tid: tid.parse().unwrap(), start_time: start_time.parse().unwrap() };
    // From the same namespaces, so that it counts.
    assert_eq!(environment.process_proof().pid_namespace, proof.pid_namespace);
    let dead = environment.process_is_dead(1, &proof);
    part.say(&format!("{dead} {}", environment.thread_is_dead(&proof, &thread)));
}

#[test]
fn what_a_foreign_proc_says_of_a_pid_is_not_recorded() {
    let world = World::new("foreign-proc");
    let under = ["unshare", "--pid", "--fork", "--kill-child", "--mount"];
    let Some(mut child) = spawn_under(&under, "newcomer", world.name()) else {
        return skip("there is no unshare");
    };
    let Some(line) = child.try_hear() else { return skip("unshare --pid is not permitted") };
    let proof = read_proof(&line);
    assert_eq!((proof.pid, proof.start_time), (1, 0), "not that of this namespace's first process");
    assert!(!world.environment.process_is_dead(1, &proof));
    assert_eq!(child.ask("mount"), "false false", "alive, whatever is mounted by now");
    child.expect("1 true");
}

/// Role: forks a process that describes itself, and enters another time namespace after that: from
/// then on everybody seems to have started at another time.
pub(crate) fn traveller(part: &Part) {
    let shm = told(part);
    let other = read_proof(part.argument(1));
    // SAFETY: the child has one thread, as it must; the harness's others hold no lock that it
    // needs.
    let pid = unsafe { libc::fork() };
    assert!(pid >= 0);
    if pid == 0 {
        let environment = shm.environment();
        environment.claim(2).unwrap();
        let own = environment.process_proof();
        let before = environment.process_is_dead(1, &other);
        if let Err(error) = enter_time_namespace() {
            say(&format!("refused {error}"));
        } else {
            let fresh = shm.environment().process_proof();
            let after = environment.process_is_dead(1, &other);
            let (counts, myself) = (own != fresh, environment.process_is_dead(2, &own));
            say(&format!("{before} {after} {counts} {myself}"));
        }
        // SAFETY: ends the child without running anything of the harness.
        unsafe { libc::_exit(0) };
    }
    // SAFETY: our own child; no status is asked for.
    unsafe { libc::waitpid(pid, std::ptr::null_mut(), 0) };
    part.hear();
}

fn enter_time_namespace() -> std::io::Result<()> {
    const CLONE_NEWTIME: libc::c_int = 0x80;
    let check = |result: libc::c_int| match result {
        0 => Ok(()),
        _ => Err(std::io::Error::last_os_error()),
    };
    // SAFETY: concerns this process alone.
    check(unsafe { libc::unshare(CLONE_NEWTIME) })?;
    std::fs::write("/proc/self/timens_offsets", "boottime 100000 0\n")?;
    let namespace = std::fs::File::open("/proc/self/ns/time_for_children")?;
    let fd = std::os::fd::AsRawFd::as_raw_fd(&namespace);
    // SAFETY: concerns this process alone.
    check(unsafe { libc::setns(fd, CLONE_NEWTIME) })
}

#[test]
fn who_enters_another_time_namespace_takes_nobody_for_dead() {
    let world = World::new("time-namespace");
    let mut claimant = spawn("claimant", world.name());
    let proof: ProcessProof = read_proof(&claimant.hear());
    let mut traveller = Peer::start(ENTRY, "traveller", &[world.name(), &write_proof(&proof)]);
    let said = traveller.hear();
    if said.starts_with("refused") {
        return skip(&said);
    }
    assert_eq!(said, "false false true false");
}

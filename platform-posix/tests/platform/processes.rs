//! Who is dead and who only looks it: zombies, stopped processes, other pid namespaces, threads.

use std::sync::mpsc::channel;

use dsm_core::env::{Liveness, ThreadProof};
use dsm_core::provider::{Election, Mapping, Root};
use platform_posix::{Posix, Shm};

use testkit::process::{Part, say};

use crate::support::{
    PATIENCE, eventually, name, read_proof, send_signal, skip, spawn, spawn_under, told, unmap,
    unseen, write_proof,
};

/// A namespace with a control object, and an environment in it.
pub(crate) struct World {
    pub(crate) shm: Shm,
    pub(crate) environment: Posix,
    control: Option<Mapping>,
}

impl World {
    pub(crate) fn new(test: &str) -> Self {
        let shm = Shm::new(&name(test)).unwrap();
        let control = shm.elect(PATIENCE).unwrap().create(4096).unwrap();
        Self { environment: shm.environment(), shm, control: Some(control) }
    }

    pub(crate) fn name(&self) -> &str {
        self.shm.namespace().as_str()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if let Ok(mut election) = self.shm.elect(PATIENCE) {
            let _ = election.remove();
        }
        if let Some(control) = self.control.take() {
            unmap(&self.shm, control);
        }
    }
}

/// Role: claims slot 1, describes itself, and stays.
pub(crate) fn claimant(part: &Part) {
    let environment = told(part).environment();
    environment.claim(1).unwrap();
    part.say(&write_proof(&environment.process_proof()));
    part.hear();
}

#[test]
fn a_zombie_is_dead_by_either_proof() {
    let world = World::new("zombie");
    let mut child = spawn("claimant", world.name());
    let proof = read_proof(&child.hear());
    assert!(!world.environment.process_is_dead(1, &proof));
    child.kill();
    assert!(eventually(|| world.environment.process_is_dead(1, &unseen(proof))), "by its token");
    // Hold the token ourselves: what is left is the pid, which still exists.
    let other = world.shm.environment();
    other.claim(1).unwrap();
    assert!(std::path::Path::new(&format!("/proc/{}", child.id())).exists(), "not yet reaped");
    assert!(eventually(|| world.environment.process_is_dead(1, &proof)), "by its pid");
    assert!(!world.environment.process_is_dead(1, &unseen(proof)));
    child.end();
    assert!(world.environment.process_is_dead(1, &proof), "reaped");
}

#[test]
fn a_stopped_process_lives() {
    let world = World::new("stopped");
    let mut child = spawn("claimant", world.name());
    let proof = read_proof(&child.hear());
    send_signal(child.id() as i32, libc::SIGSTOP);
    let stat = format!("/proc/{}/stat", child.id());
    assert!(eventually(|| std::fs::read_to_string(&stat).unwrap().contains(") T ")));
    assert!(!world.environment.process_is_dead(1, &proof));
    assert!(!world.environment.process_is_dead(1, &unseen(proof)));
    assert!(world.environment.claim(1).is_err());
    send_signal(child.id() as i32, libc::SIGKILL);
    assert!(eventually(|| world.environment.process_is_dead(1, &proof)));
}

#[test]
fn a_process_in_another_pid_namespace_lives_until_it_loses_its_token() {
    for options in [&["--mount-proc"][..], &[]] {
        let world = World::new("pid-namespace");
        let mut under = vec!["unshare", "--pid", "--fork", "--kill-child"];
        under.extend(options);
        let child = spawn_under(&under, "claimant", world.name());
        let Some(mut child) = child else { return skip("there is no unshare") };
        let Some(line) = child.try_hear() else { return skip("unshare --pid is not permitted") };
        let proof = read_proof(&line);
        let own = world.environment.process_proof();
        assert_eq!(proof.pid, 1, "first of its namespace");
        assert_ne!(proof.pid_namespace, own.pid_namespace);
        assert_ne!(proof.pid_namespace, 0);
        assert!(!world.environment.process_is_dead(1, &proof));
        // Its pid here is another's, or nobody's; neither proves anything.
        let nobody = dsm_core::env::ProcessProof { pid: (1 << 22) - 1, ..proof };
        assert!(!world.environment.process_is_dead(1, &nobody));
        child.kill();
        assert!(eventually(|| world.environment.process_is_dead(1, &proof)));
    }
}

#[test]
fn closing_the_control_object_elsewhere_in_the_process_changes_nothing() {
    let world = World::new("close");
    world.environment.claim(1).unwrap();
    let path = format!("/dev/shm/dsm.{}.ctl", world.name());
    for _ in 0..3 {
        drop(std::fs::OpenOptions::new().read(true).write(true).open(&path).unwrap());
        drop(world.shm.elect_existing(PATIENCE).unwrap());
        unmap(&world.shm, world.shm.peek().unwrap());
    }
    let other = world.shm.environment();
    assert!(!other.process_is_dead(1, &other.process_proof()));
    drop(other);
    assert!(world.shm.environment().claim(1).is_err());
    world.environment.release(1);
}

#[test]
fn a_process_that_lost_its_descriptor_takes_nobody_for_dead() {
    let world = World::new("lost");
    let mut child = spawn("claimant", world.name());
    let proof = unseen(read_proof(&child.hear()));
    world.environment.claim(2).unwrap();
    assert!(!world.environment.process_is_dead(1, &proof));
    // Another file in its place, as after a daemon's closing of all that it finds open.
    let path = format!("/dev/shm/dsm.{}.ctl", world.name());
    let entries = std::fs::read_dir("/proc/self/fd").unwrap().map_while(Result::ok);
    let ours =
        entries.filter(|e| std::fs::read_link(e.path()).is_ok_and(|at| at.to_str() == Some(&path)));
    let ours: Vec<i32> = ours.map(|e| e.file_name().to_str().unwrap().parse().unwrap()).collect();
    assert_eq!(ours.len(), 2, "that of the tokens, and that for the next election");
    let other = tempfile::tempfile().unwrap();
    for fd in &ours {
        // SAFETY: replaces the descriptor by another; the library must notice.
        assert!(unsafe { libc::dup2(std::os::fd::AsRawFd::as_raw_fd(&other), *fd) } >= 0);
    }
    let election = world.shm.elect_existing(PATIENCE).unwrap();
    assert!(election.size() > 0, "of the control object, not of that file");
    drop(election);
    assert!(!world.environment.process_is_dead(1, &proof), "its lock isn't on that file");
    assert!(world.environment.claim(3).is_err());
    world.environment.release(2);
    for fd in ours {
        // SAFETY: asks for flags only.
        assert!(unsafe { libc::fcntl(fd, libc::F_GETFD) } >= 0, "closed a stranger's descriptor");
        // SAFETY: the copy made above, which nobody else knows.
        unsafe { libc::close(fd) };
    }
    world.environment.claim(2).unwrap();
    assert!(!world.environment.process_is_dead(1, &proof));
    world.environment.release(2);
}

#[test]
fn a_control_object_made_anew_does_not_take_old_tokens() {
    let world = World::new("anew");
    world.environment.claim(1).unwrap();
    world.shm.elect(PATIENCE).unwrap().remove().unwrap();
    let fresh = world.shm.elect(PATIENCE).unwrap().create(4096).unwrap();
    let failure = world.environment.claim(2).unwrap_err();
    assert_eq!(failure.kind, dsm_core::error::ErrorKind::Foreign);
    world.environment.release(1);
    world.environment.claim(2).unwrap();
    assert!(world.shm.environment().claim(2).is_err(), "on the new object");
    world.environment.release(2);
    unmap(&world.shm, fresh);
}

#[test]
fn a_thread_that_ends_without_its_destructors_is_found_dead() {
    let world = World::new("thread");
    let process = world.environment.process_proof();
    let (sender, receiver) = channel::<ThreadProof>();
    let (go, wait) = channel::<()>();
    let environment = world.shm.environment();
    // Never joined: there is nothing left to be joined. What it owned is leaked, as it would be.
    let thread = std::thread::spawn(move || {
        sender.send(environment.thread_proof()).unwrap();
        wait.recv().unwrap();
        // SAFETY: ends this thread and nothing else; nobody waits for what its destructors do.
        unsafe { libc::syscall(libc::SYS_exit, 0) };
    });
    let proof = receiver.recv().unwrap();
    assert!(!world.environment.thread_is_dead(&process, &proof));
    let elsewhere = unseen(process);
    go.send(()).unwrap();
    assert!(eventually(|| world.environment.thread_is_dead(&process, &proof)));
    assert!(!world.environment.thread_is_dead(&elsewhere, &proof), "its tid means nothing here");
    std::mem::forget(thread);
}

/// Role: forks a process whose first thread ends while a second one lives.
pub(crate) fn headless(part: &Part) {
    let shm = told(part);
    // SAFETY: the child starts one thread and ends; the harness's other threads hold no lock that
    // it needs.
    let pid = unsafe { libc::fork() };
    assert!(pid >= 0);
    if pid == 0 {
        std::thread::spawn(move || {
            let environment = shm.environment();
            environment.claim(1).unwrap();
            let thread = environment.thread_proof();
            let proof = write_proof(&environment.process_proof());
            say(&format!("{proof} {} {}", thread.tid, thread.start_time));
            std::thread::sleep(PATIENCE);
        });
        // SAFETY: ends the first thread of the child and nothing else.
        unsafe { libc::syscall(libc::SYS_exit, 0) };
    }
    part.hear();
    // SAFETY: our own child.
    unsafe { libc::kill(pid, libc::SIGKILL) };
    // SAFETY: as above; no status is asked for.
    unsafe { libc::waitpid(pid, std::ptr::null_mut(), 0) };
    part.say("reaped");
    part.hear();
}

#[test]
fn a_process_without_its_first_thread_lives() {
    let world = World::new("headless");
    let mut child = spawn("headless", world.name());
    let line = child.hear();
    let mut parts = line.rsplitn(3, ' ');
    let start_time = parts.next().unwrap().parse().unwrap();
    let tid = parts.next().unwrap().parse().unwrap();
    let (second, proof) = (ThreadProof { tid, start_time }, read_proof(parts.next().unwrap()));
    let stat = format!("/proc/{}/stat", proof.pid);
    assert!(eventually(|| std::fs::read_to_string(&stat).unwrap().contains(") Z ")));
    assert!(!world.environment.process_is_dead(1, &proof), "it looks like a zombie");
    assert!(!world.environment.thread_is_dead(&proof, &second));
    let first = ThreadProof { tid: proof.pid, start_time: proof.start_time };
    assert!(world.environment.thread_is_dead(&proof, &first));
    assert_eq!(child.ask("end"), "reaped");
    assert!(world.environment.process_is_dead(1, &proof));
}

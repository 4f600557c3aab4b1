//! Proofs of death: processes that end in various ways, are suspended, or whose ids are used again.

use std::sync::mpsc::channel;

use dsm_core::env::{Liveness, ThreadProof};
use dsm_core::error::ErrorKind;
use dsm_core::provider::{Election, Mapping, Root};
use platform_windows::{Backing, Shm, Windows};
use testkit::process::{Part, Peer};
use windows_sys::Win32::Foundation::{CloseHandle, HANDLE};
use windows_sys::Win32::System::Threading::{
    ExitThread, OpenProcess, PROCESS_SUSPEND_RESUME, TerminateThread,
};

use crate::support::{
    BOTH, PATIENCE, eventually, open, read_proof, spawn, told, unmap, unseen, write_proof,
};

#[link(name = "ntdll")]
unsafe extern "system" {
    fn NtSuspendProcess(process: HANDLE) -> i32;
    fn NtResumeProcess(process: HANDLE) -> i32;
}

/// A namespace with a control object, which tokens belong to.
struct World {
    shm: Shm,
    environment: Windows,
    control: Option<Mapping>,
}

impl World {
    fn new(test: &str, backing: Backing) -> Self {
        let shm = open(test, backing);
        let control = shm.elect(PATIENCE).unwrap().create(4096).unwrap();
        let environment = shm.environment();
        Self { shm, environment, control: Some(control) }
    }

    fn spawn(&self) -> Peer {
        spawn("claimant", &self.shm)
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.shm.elect(PATIENCE).unwrap().remove().unwrap();
        unmap(&self.shm, self.control.take().unwrap());
    }
}

/// Role: claims slots, starts and ends threads, and ends, as it is told.
pub(crate) fn claimant(part: &Part) {
    let shm = told(part);
    let environment = shm.environment();
    let (end, ended) = channel::<()>();
    let mut ended = Some(ended);
    while let Some(line) = part.hear() {
        match line.split_once(' ').unwrap_or((&line, "")) {
            ("claim", slot) => {
                environment.claim(slot.parse().unwrap()).unwrap();
                part.say(&write_proof(&environment.process_proof()));
            }
            ("thread", _) => {
                let (sender, receiver) = channel();
                let (environment, ended) = (shm.environment(), ended.take().unwrap());
                std::thread::spawn(move || {
                    sender.send(environment.thread_proof()).unwrap();
                    let _ = ended.recv();
                });
                let ThreadProof { tid, start_time } = receiver.recv().unwrap();
                part.say(&format!("{tid} {start_time}"));
            }
            ("end", "thread") => {
                end.send(()).unwrap();
                part.say("done");
            }
            ("exit", _) => std::process::exit(0),
            ("abort", _) => std::process::abort(),
            other => panic!("{other:?}"),
        }
    }
}

/// Whatever the end, and though this process still has a handle to the one that ended.
#[test]
fn every_end_is_death() {
    for backing in BOTH {
        let world = World::new("ends", backing);
        for (slot, end) in [(0, "exit"), (1, "abort"), (2, "kill")] {
            let mut child = world.spawn();
            let proof = read_proof(&child.ask(&format!("claim {slot}")));
            assert!(!world.environment.process_is_dead(slot, &proof));
            if end == "kill" {
                child.kill()
            } else {
                child.say(end)
            }
            let dead = |proof| eventually(|| world.environment.process_is_dead(slot, proof));
            assert!(dead(&proof), "{end}");
            assert!(dead(&unseen(proof)), "{end}, by the token alone");
            world.environment.claim(slot).unwrap();
            world.environment.release(slot);
        }
    }
}

/// A process is known by its id and start time alone, where another one has its slot's token.
#[test]
fn an_id_that_is_free_or_used_again_is_death() {
    let world = World::new("ids", Backing::Files);
    let mut holder = world.spawn();
    let living = read_proof(&holder.ask("claim 3"));
    let mut child = world.spawn();
    let proof = read_proof(&child.ask("claim 4"));
    assert!(!world.environment.process_is_dead(3, &proof), "it lives, whoever has the token");
    let reused = dsm_core::env::ProcessProof { start_time: living.start_time - 1, ..living };
    assert!(world.environment.process_is_dead(3, &reused), "somebody else has the id now");
    assert!(!world.environment.process_is_dead(3, &unseen(reused)), "another machine's ids");
    // Ended, and still there for those who have a handle; then not there at all.
    child.kill();
    assert!(eventually(|| world.environment.process_is_dead(3, &proof)));
    child.end();
    assert!(eventually(|| world.environment.process_is_dead(3, &proof)));
    assert!(!world.environment.process_is_dead(3, &living));
}

/// A suspended process is not dead, however long it says nothing.
#[test]
fn a_suspended_process_lives() {
    let world = World::new("suspended", Backing::Files);
    let mut child = world.spawn();
    let proof = read_proof(&child.ask("claim 5"));
    // SAFETY: no preconditions.
    let process = unsafe { OpenProcess(PROCESS_SUSPEND_RESUME, 0, child.id()) };
    assert!(!process.is_null());
    // SAFETY: an open handle of our own child.
    assert!(unsafe { NtSuspendProcess(process) } >= 0);
    for _ in 0..20 {
        assert!(!world.environment.process_is_dead(5, &proof));
        assert!(!world.environment.process_is_dead(5, &unseen(proof)));
        assert_eq!(world.environment.claim(5).unwrap_err().kind, ErrorKind::AlreadyExists);
    }
    // SAFETY: as above.
    assert!(unsafe { NtResumeProcess(process) } >= 0);
    // SAFETY: opened above, and used no more.
    unsafe { CloseHandle(process) };
    assert_eq!(read_proof(&child.ask("claim 6")), proof);
    child.end();
    assert!(world.environment.process_is_dead(5, &proof));
}

#[test]
fn a_token_is_of_its_control_object() {
    for backing in BOTH {
        let world = World::new("token", backing);
        world.environment.claim(1).unwrap();
        let mut election = world.shm.elect(PATIENCE).unwrap();
        election.remove().unwrap();
        drop(election);
        let fresh = world.shm.elect(PATIENCE).unwrap().create(4096).unwrap();
        let other = world.shm.environment();
        other.claim(1).unwrap();
        let refused = world.environment.claim(2).unwrap_err().kind;
        assert_eq!(refused, ErrorKind::Foreign, "{backing:?}: it is attached to the one before");
        world.environment.release(1);
        assert!(!other.process_is_dead(1, &other.process_proof()));
        unmap(&world.shm, fresh);
    }
}

#[test]
fn threads_of_another_process_end() {
    let world = World::new("threads", Backing::Files);
    let mut child = world.spawn();
    let process = read_proof(&child.ask("claim 0"));
    let line = child.ask("thread");
    let (tid, start_time) = line.split_once(' ').unwrap();
    let thread = ThreadProof { tid: tid.parse().unwrap(), start_time: start_time.parse().unwrap() };
    let dead = |thread: ThreadProof| world.environment.thread_is_dead(&process, &thread);
    assert!(!dead(thread));
    assert!(dead(ThreadProof { start_time: thread.start_time - 1, ..thread }), "used again");
    assert_eq!(child.ask("end thread"), "done");
    assert!(eventually(|| dead(thread)));
    assert!(!world.environment.thread_is_dead(&unseen(process), &thread), "another machine's");
}

/// Ended behind the language's back: no destructor ran.
#[test]
fn a_thread_that_ends_without_destructors_is_dead() {
    let world = World::new("raw", Backing::Files);
    let process = world.environment.process_proof();
    for terminate in [false, true] {
        let (sender, receiver) = channel();
        let (go, wait) = channel::<()>();
        let environment = world.shm.environment();
        // What it owned is leaked, as it would be; it can't be joined.
        let thread = std::thread::spawn(move || {
            sender.send(environment.thread_proof()).unwrap();
            wait.recv().unwrap();
            // SAFETY: ends this thread and nothing else; nobody waits for what its destructors do.
            unsafe { ExitThread(0) };
        });
        let proof = receiver.recv().unwrap();
        assert!(!world.environment.thread_is_dead(&process, &proof));
        if terminate {
            use std::os::windows::io::AsRawHandle;
            // SAFETY: a thread of our own that waits and holds no lock.
            assert_ne!(unsafe { TerminateThread(thread.as_raw_handle(), 1) }, 0);
        } else {
            go.send(()).unwrap();
        }
        // Though its handle is open.
        assert!(eventually(|| world.environment.thread_is_dead(&process, &proof)));
        std::mem::forget((thread, go));
    }
}

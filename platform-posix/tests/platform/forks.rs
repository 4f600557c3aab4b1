//! A fork child without `exec` holds nothing of its parent, and is nobody until it registers.

use std::sync::atomic::{AtomicU64, Ordering};

use dsm_core::env::{Liveness, ProcessProof};
use dsm_core::provider::{Election, Root};
use platform_posix::fork::Wiped;
use platform_posix::{Posix, Shm};

use testkit::process::{Part, Peer, say};

use crate::processes::World;
use crate::support::{
    PATIENCE, adopt_orphans, end, eventually, read_proof, spawn, told, unmap, unseen, write_proof,
};

/// Forks as the C library does, or (`bare`) behind its back, where no handler runs.
fn fork(bare: bool) -> i32 {
    let pid = if bare {
        // SAFETY: with no flags but the signal, clone is fork.
        unsafe { libc::syscall(libc::SYS_clone, libc::SIGCHLD, 0, 0, 0, 0) as i32 }
    } else {
        // SAFETY: the harness's other threads hold no lock that the child needs.
        unsafe { libc::fork() }
    };
    assert!(pid >= 0);
    pid
}

/// Role: claims slot 1, perhaps wins the election, and forks. The child may stay silent, or try
/// what it can do; both stay until killed.
pub(crate) fn forker(part: &Part) {
    let shm = told(part);
    let environment = shm.environment();
    environment.claim(1).unwrap();
    let token = Wiped::<AtomicU64>::new().unwrap();
    token.store(7, Ordering::Release);
    let order = part.ask();
    let election = order.contains("elect").then(|| shm.elect(PATIENCE).unwrap());
    let proof = environment.process_proof();
    let pid = fork(order.contains("bare"));
    if pid == 0 {
        if order.contains("silent") {
            std::thread::sleep(PATIENCE);
            std::process::exit(0);
        }
        in_child(&shm, &environment, &proof, &token);
        std::thread::sleep(PATIENCE);
        std::process::exit(0);
    }
    assert_eq!(token.load(Ordering::Acquire), 7, "the parent keeps its own");
    say(&format!("{pid} {}", write_proof(&proof)));
    std::thread::sleep(PATIENCE);
    drop(election);
}

fn in_child(shm: &Shm, environment: &Posix, parent: &ProcessProof, token: &Wiped<AtomicU64>) {
    let mut wrong = Vec::new();
    let mut check = |good: bool, what: &str| {
        if !good {
            wrong.push(what.to_owned());
        }
    };
    check(token.load(Ordering::Acquire) == 0, "the token was not wiped");
    check(environment.process_proof() != *parent, "it takes itself for its parent");
    check(!environment.process_is_dead(1, parent), "it takes its parent for dead");
    environment.release(1);
    check(!environment.process_is_dead(1, &unseen(*parent)), "it released its parent's token");
    check(environment.claim(1).is_err(), "it took its parent's token");
    check(environment.claim(2).is_ok(), "it can't claim a slot of its own");
    check(shm.environment().claim(2).is_err(), "its own slot is free");
    say(&format!("child {}", if wrong.is_empty() { "good".into() } else { wrong.join(", ") }));
}

/// Starts a forker: (it, its child's pid, its proof, what its child says if it does).
fn start(world: &World, order: &str) -> (Peer, i32, ProcessProof, Option<String>) {
    adopt_orphans();
    let mut forker = spawn("forker", world.name());
    forker.say(order);
    let (mut pid, mut said) = (None, None);
    while pid.is_none() || (said.is_none() && !order.contains("silent")) {
        let line = forker.hear();
        match line.strip_prefix("child ") {
            Some(words) => said = Some(words.to_owned()),
            None => pid = Some(line),
        }
    }
    let line = pid.unwrap();
    let (pid, proof) = line.split_once(' ').unwrap();
    (forker, pid.parse().unwrap(), read_proof(proof), said)
}

#[test]
fn a_silent_child_does_not_keep_its_parent_alive() {
    let world = World::new("fork-silent");
    let (forker, pid, proof, _) = start(&world, "silent");
    assert!(!world.environment.process_is_dead(1, &proof));
    assert!(!world.environment.process_is_dead(1, &unseen(proof)));
    drop(forker);
    // The child closes its copy before it returns from `fork`, which the parent does not wait for.
    let dead = || world.environment.process_is_dead(1, &unseen(proof));
    assert!(eventually(dead), "its child has the lock");
    assert!(world.environment.process_is_dead(1, &proof));
    end(pid);
}

#[test]
fn a_child_does_not_keep_its_parents_election() {
    let world = World::new("fork-election");
    let (forker, pid, _, _) = start(&world, "silent elect");
    assert!(world.shm.elect(std::time::Duration::from_millis(20)).is_err());
    drop(forker);
    drop(world.shm.elect(PATIENCE).unwrap());
    end(pid);
}

#[test]
fn a_child_is_a_stranger_and_may_register_anew() {
    let world = World::new("fork-stranger");
    let (forker, pid, proof, said) = start(&world, "try");
    assert_eq!(said.as_deref(), Some("good"));
    assert!(!world.environment.process_is_dead(1, &unseen(proof)));
    drop(forker);
    assert!(world.environment.process_is_dead(1, &unseen(proof)));
    assert!(world.environment.claim(2).is_err(), "the child lives");
    end(pid);
    assert!(eventually(|| world.environment.claim(2).is_ok()), "the child is dead");
    world.environment.release(2);
}

#[test]
fn a_child_made_behind_the_c_librarys_back_is_a_stranger_too() {
    let world = World::new("fork-bare");
    let (forker, pid, proof, said) = start(&world, "bare try");
    assert_eq!(said.as_deref(), Some("good"));
    drop(forker);
    assert!(world.environment.process_is_dead(1, &unseen(proof)), "closed at its first use");
    end(pid);
}

#[test]
fn the_pid_proves_a_parent_dead_whose_silent_child_kept_the_lock() {
    let world = World::new("fork-bare-silent");
    let (forker, pid, proof, _) = start(&world, "bare silent");
    assert!(!world.environment.process_is_dead(1, &proof));
    drop(forker);
    assert!(!world.environment.process_is_dead(1, &unseen(proof)), "the token can't tell");
    assert!(world.environment.process_is_dead(1, &proof));
    end(pid);
}

#[test]
fn wiped_memory_is_usable_by_many_and_goes_when_dropped() {
    let many: Vec<_> = (0..100u64)
        .map(|n| {
            let word = Wiped::<AtomicU64>::new().unwrap();
            assert_eq!(word.load(Ordering::Relaxed), 0);
            word.store(n, Ordering::Relaxed);
            word
        })
        .collect();
    assert!(many.iter().enumerate().all(|(n, word)| word.load(Ordering::Relaxed) == n as u64));
    let mapping = World::new("wiped");
    let peeked = mapping.shm.peek().unwrap();
    unmap(&mapping.shm, peeked);
    mapping.shm.elect(PATIENCE).unwrap().remove().unwrap();
}

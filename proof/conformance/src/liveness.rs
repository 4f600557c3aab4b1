//! What [`Liveness`] promises: proofs, never guesses.

use std::time::Duration;

use dsm_core::env::{Liveness, ProcessProof, ThreadProof};
use dsm_core::error::ErrorKind;
use dsm_core::provider::{Election, Mapping, Root};

use crate::{Backend, Context};
use testkit::process::Part;
use testkit::proof::{eventually, read_proof, unseen, write_proof};

const PATIENCE: Duration = Duration::from_secs(30);

/// Runs a case with a control object, which tokens belong to.
fn with_control<B: Backend>(context: &Context<B>, case: impl FnOnce(&B::Environment)) {
    let root = context.backend.root();
    let mapping: Mapping = root.elect(PATIENCE).unwrap().create(4096).unwrap();
    case(&context.backend.environment());
    root.elect(PATIENCE).unwrap().remove().unwrap();
    // SAFETY: not used any more.
    unsafe { root.unmap(mapping) };
}

/// A token has one holder; when it is given back its holder counts as gone.
pub fn a_token_is_held_once<B: Backend>(context: &Context<B>) {
    with_control(context, |one| {
        let two = context.backend.environment();
        let proof = one.process_proof();
        assert_eq!(proof, two.process_proof());
        assert!(!B::PROCESSES || proof.pid == u64::from(std::process::id()));
        for _ in 0..3 {
            one.claim(0).unwrap();
            assert_eq!(one.claim(0).unwrap_err().kind, ErrorKind::AlreadyExists);
            assert_eq!(two.claim(0).unwrap_err().kind, ErrorKind::AlreadyExists);
            assert!(!one.process_is_dead(0, &proof));
            assert!(!two.process_is_dead(0, &proof));
            one.release(0);
            two.claim(0).unwrap();
            assert!(!one.process_is_dead(0, &proof));
            two.release(0);
            two.release(0);
        }
    });
}

/// The tokens of two slots have nothing to do with each other, nor with the election.
pub fn slots_are_independent<B: Backend>(context: &Context<B>) {
    with_control(context, |one| {
        let two = context.backend.environment();
        let proof = one.process_proof();
        one.claim(1).unwrap();
        two.claim(2).unwrap();
        one.claim(0).unwrap();
        one.claim(127).unwrap();
        drop(context.backend.root().elect(PATIENCE).unwrap());
        one.release(127);
        two.claim(127).unwrap();
        for slot in [0, 1, 2, 127] {
            assert!(!one.process_is_dead(slot, &proof), "slot {slot}");
            assert!(!two.process_is_dead(slot, &proof), "slot {slot}");
        }
        one.release(0);
        one.release(1);
        two.release(2);
        two.release(127);
    });
}

/// Who cleans up after a dead process holds its token meanwhile: the dead stays dead for all.
pub fn a_reaper_holds_the_token_of_the_dead<B: Backend>(context: &Context<B>) {
    if !B::PROCESSES {
        return;
    }
    with_control(context, |environment| {
        let mut child = context.spawn("claimant");
        let proof = read_proof(&child.ask("claim 4"));
        assert!(!environment.process_is_dead(4, &proof));
        child.end();
        environment.claim(4).unwrap();
        assert!(environment.process_is_dead(4, &proof), "for the reaper");
        assert!(environment.process_is_dead(4, &unseen(proof)), "by the token alone");
        let own = environment.process_proof();
        assert!(!environment.process_is_dead(4, &own), "the reaper itself lives");
        environment.release(4);
    });
}

/// A process lives until it is killed, and is dead from then on, reaped or not.
pub fn a_living_process_is_alive_and_a_killed_one_dead<B: Backend>(context: &Context<B>) {
    if !B::PROCESSES {
        return;
    }
    with_control(context, |environment| {
        for slot in [0, 5] {
            let mut child = context.spawn("claimant");
            let proof = read_proof(&child.ask(&format!("claim {slot}")));
            assert_eq!(proof.pid, u64::from(child.id()));
            assert_eq!(environment.claim(slot).unwrap_err().kind, ErrorKind::AlreadyExists);
            for _ in 0..10 {
                assert!(!environment.process_is_dead(slot, &proof));
                assert!(!environment.process_is_dead(slot, &unseen(proof)));
            }
            child.kill();
            // A zombie from here on; the signal may take a moment to arrive.
            let dead = eventually(|| environment.process_is_dead(slot, &unseen(proof)));
            assert!(dead, "a killed process that nobody has reaped");
            assert!(environment.process_is_dead(slot, &proof));
            child.end();
            assert!(environment.process_is_dead(slot, &proof), "a reaped one");
            environment.claim(slot).unwrap();
            environment.release(slot);
        }
    });
}

/// The token is held, but by a process that started at another time than the recorded one.
pub fn a_proof_of_somebody_else_is_death<B: Backend>(context: &Context<B>) {
    if !B::PROCESSES || !B::PROOFS {
        return;
    }
    with_control(context, |environment| {
        let mut child = context.spawn("claimant");
        let proof = read_proof(&child.ask("claim 6"));
        assert!(proof.start_time != 0);
        let reused = ProcessProof { start_time: proof.start_time + 1, ..proof };
        assert!(environment.process_is_dead(6, &reused), "its pid is another's now");
        let unknown = ProcessProof { start_time: 0, ..proof };
        assert!(!environment.process_is_dead(6, &unknown), "nothing is proven");
        assert!(!environment.process_is_dead(6, &unseen(reused)), "pids mean something else there");
        assert!(!environment.process_is_dead(6, &ProcessProof::default()));
        assert!(!environment.process_is_dead(6, &proof));
        child.end();
    });
}

/// A thread lives until it ends; a thread nobody described lives.
pub fn threads_end<B: Backend>(context: &Context<B>) {
    let environment = context.backend.environment();
    let process = environment.process_proof();
    let own = environment.thread_proof();
    assert!(!environment.thread_is_dead(&process, &own));
    assert!(!environment.thread_is_dead(&process, &ThreadProof::default()));
    if !B::THREADS {
        return;
    }
    let other =
        std::thread::scope(|scope| scope.spawn(|| environment.thread_proof()).join().unwrap());
    assert_ne!(own, other);
    // The system may be a moment behind the join.
    assert!(eventually(|| environment.thread_is_dead(&process, &other)));
    let reused = ThreadProof { start_time: own.start_time + 1, ..own };
    assert!(environment.thread_is_dead(&process, &reused));
}

/// Claims slots as it is told and describes itself.
pub(crate) fn claimant<B: Backend>(backend: &B, parent: &Part) {
    let environment = backend.environment();
    while let Some(line) = parent.hear() {
        let Some(slot) = line.strip_prefix("claim ") else { return };
        environment.claim(slot.parse().unwrap()).unwrap();
        parent.say(&write_proof(&environment.process_proof()));
    }
}

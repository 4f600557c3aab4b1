//! Tokens of life that get lost: a program closes descriptors that it did not open, or becomes another
//! program.

use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;

use dsm_core::env::Liveness;
use dsm_core::provider::{Election, Root};

use testkit::process::{Part, command};

use crate::processes::World;
use crate::support::{
    ENTRY, PATIENCE, eventually, read_proof, spawn, told, unmap, unseen, write_proof,
};

/// Role: claims slot 1 and has the control object mapped, as who is in a namespace has. Then it closes
/// all descriptors, and opens the control object under their numbers, as any program may.
pub(crate) fn closer(part: &Part) {
    let shm = told(part);
    let environment = shm.environment();
    environment.claim(1).unwrap();
    let mapping = shm.elect(PATIENCE).unwrap().map().unwrap();
    part.say(&write_proof(&environment.process_proof()));
    part.ask();
    close_all();
    let path = format!("/dev/shm/dsm.{}.ctl", part.argument(0));
    let open = || std::fs::OpenOptions::new().read(true).write(true).open(&path).unwrap();
    let files: Vec<_> = (0..8).map(|_| open()).collect();
    part.say("closed");
    part.ask();
    environment.release(1);
    drop(environment);
    // SAFETY: asks for flags only.
    let is_open = |fd| unsafe { libc::fcntl(fd, libc::F_GETFD) } >= 0;
    let kept = files.iter().all(|file| is_open(file.as_raw_fd()));
    part.say(if kept { "kept" } else { "closed a stranger's descriptor" });
    unmap(&shm, mapping);
    part.say("unmapped");
    part.hear();
}

fn close_all() {
    // SAFETY: closes what is not this program's: the library must bear it.
    let result = unsafe { libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, 0) };
    assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
}

#[test]
fn a_process_that_lost_its_token_lives_where_its_pid_speaks_for_it() {
    let world = World::new("closed");
    let mut child = spawn("closer", world.name());
    let proof = read_proof(&child.hear());
    assert!(!world.environment.process_is_dead(1, &proof));
    child.say("close");
    child.expect("closed");
    let other = world.shm.environment();
    for environment in [&world.environment, &other] {
        assert!(!environment.process_is_dead(1, &proof), "pid and start time prove that it lives");
        assert!(
            environment.process_is_dead(1, &unseen(proof)),
            "where they say nothing it is dead"
        );
    }
    // Its token can be had, and still it lives.
    other.claim(1).unwrap();
    assert!(!other.process_is_dead(1, &proof));
    assert!(!world.environment.process_is_dead(1, &proof));
    other.release(1);
    assert_eq!(child.ask("release"), "kept");
    // What pid and start time say is not enough, once it is not seen to be in the namespace.
    child.expect("unmapped");
    assert!(world.environment.process_is_dead(1, &proof));
    child.end();
}

#[test]
fn a_process_that_lost_its_token_asks_for_others_and_knows_itself() {
    let world = World::new("closed-asks");
    let mut claimant = spawn("claimant", world.name());
    let proof = read_proof(&claimant.hear());
    let mut asker = spawn("asker", world.name());
    assert_eq!(asker.ask(&write_proof(&proof)), "false false");
    claimant.end();
    assert_eq!(asker.ask(&write_proof(&proof)), "true false");
}

/// Role: claims slot 2, closes everything, and says of the tenant of slot 1, and of itself, whether they
/// are dead. Of the other one only the token can tell.
pub(crate) fn asker(part: &Part) {
    let environment = told(part).environment();
    environment.claim(2).unwrap();
    close_all();
    let own = environment.process_proof();
    while let Some(line) = part.hear() {
        let other = unseen(read_proof(&line));
        let dead = environment.process_is_dead(1, &other);
        part.say(&format!("{dead} {}", environment.process_is_dead(2, &own)));
    }
}

/// Role: claims slot 1, has the control object mapped, and becomes another program, or this one again.
pub(crate) fn phoenix(part: &Part) {
    let shm = told(part);
    let environment = shm.environment();
    if part.arguments.len() > 1 {
        // The second life: it opens the namespace anew, and knows that it isn't in the first slot.
        let before = read_proof(part.argument(1));
        let mapping = shm.elect(PATIENCE).unwrap().map().unwrap();
        environment.claim(2).unwrap();
        let same = before == environment.process_proof();
        part.say(&format!("{same} {}", environment.process_is_dead(1, &before)));
        part.hear();
        unmap(&shm, mapping);
        return;
    }
    environment.claim(1).unwrap();
    let mapping = shm.elect(PATIENCE).unwrap().map().unwrap();
    let proof = write_proof(&environment.process_proof());
    part.say(&proof);
    let error = match &*part.ask() {
        "sleep" => std::process::Command::new("sleep").arg("1000").exec(),
        _ => command(ENTRY, "phoenix", &[part.argument(0), &proof]).exec(),
    };
    unmap(&shm, mapping);
    panic!("{error}");
}

#[test]
fn a_process_that_became_another_program_is_dead() {
    let world = World::new("exec");
    let mut child = spawn("phoenix", world.name());
    let proof = read_proof(&child.hear());
    assert!(!world.environment.process_is_dead(1, &proof));
    child.say("sleep");
    assert!(eventually(|| world.environment.process_is_dead(1, &proof)), "its pid is the same");
    child.end();
}

#[test]
fn a_process_that_began_anew_knows_that_it_was_another() {
    let world = World::new("exec-self");
    let mut child = spawn("phoenix", world.name());
    child.hear();
    assert_eq!(child.ask("again"), "true true", "the same process, and not in the old slot");
    child.end();
}

//! Tokens of life that get lost: a program closes descriptors that it did not open, or becomes
//! another program.

use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::time::{Duration, Instant};

use dsm_core::env::Liveness;
use dsm_core::provider::{Election, Root};

use platform_posix::{Watch, Watched};
use testkit::process::{Part, Peer, command};

use crate::processes::World;
use crate::support::{
    ENTRY, PATIENCE, eventually, read_proof, spawn, told, unmap, unseen, write_proof,
};

/// Role: claims slot 1 and has the control object mapped, as who is in a namespace has. Then it
/// closes all descriptors, and opens the control object under their numbers, as any program may.
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

/// Role: claims slot 2, closes everything, and says of the tenant of slot 1, and of itself, whether
/// they are dead. Of the other one only the token can tell.
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

/// Role: claims slot 1, has the control object mapped, and becomes another program, or this one
/// again.
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

/// Role: watches a process, closes all descriptors, and opens as many of the same kinds. Then the
/// watch is interrupted, hears of a death, and is dropped.
pub(crate) fn watcher(part: &Part) {
    let proof = read_proof(part.argument(0));
    let mut watch = Watch::new().unwrap();
    assert_eq!(watch.add(7, &proof), Watched::Seen);
    let interrupt = watch.interrupt();
    close_all();
    // SAFETY: no preconditions.
    let event = || unsafe { libc::eventfd(0, libc::EFD_NONBLOCK | libc::EFD_CLOEXEC) };
    // SAFETY: no preconditions.
    let process = || unsafe { libc::syscall(libc::SYS_pidfd_open, proof.pid, 0) } as i32;
    let mine: Vec<_> = (0..4).flat_map(|_| [event(), process(), event()]).collect();
    assert!(mine.contains(&3) && mine.contains(&4), "{mine:?}");
    // SAFETY: each is open, and nobody else's.
    let mine: Vec<_> = mine.into_iter().map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }).collect();

    interrupt.send();
    let begin = Instant::now();
    assert!(watch.wait(Duration::from_secs(60)).is_empty());
    assert!(begin.elapsed() < Duration::from_secs(30), "the interrupt was lost");
    // Also one that comes while it waits.
    std::thread::scope(|scope| {
        scope.spawn(|| {
            std::thread::sleep(Duration::from_millis(20));
            interrupt.send();
        });
        assert!(watch.wait(Duration::from_secs(60)).is_empty());
    });
    assert!(begin.elapsed() < Duration::from_secs(30), "the second interrupt was lost");
    part.say("its death");
    part.ask();
    let heard = std::iter::repeat_with(|| watch.wait(Duration::from_secs(60)));
    assert_eq!(heard.take(3).find(|dead| !dead.is_empty()), Some(vec![7]));
    assert!(begin.elapsed() < Duration::from_secs(60), "a death was not heard of");

    drop((watch, interrupt));
    let touched = mine.iter().filter(|fd| {
        let mut count = 0_u64;
        // SAFETY: eight writable bytes.
        unsafe { libc::read(fd.as_raw_fd(), (&raw mut count).cast(), 8) > 0 }
    });
    assert_eq!(touched.count(), 0, "wrote to a stranger's descriptor");
    // SAFETY: asks for flags only.
    let is_open = |fd| unsafe { libc::fcntl(fd, libc::F_GETFD) } >= 0;
    assert!(mine.iter().all(|fd| is_open(fd.as_raw_fd())), "closed a stranger's descriptor");
    part.say("fine");
}

/// Somebody may have its numbers, even for the same process.
#[test]
fn a_watch_that_lost_its_descriptors_opens_others_and_leaves_strangers_alone() {
    let world = World::new("closed-watch");
    let mut victim = spawn("claimant", world.name());
    let proof = victim.hear();
    let mut watcher = Peer::start(ENTRY, "watcher", &[&proof]);
    watcher.expect("its death");
    victim.end();
    assert_eq!(watcher.ask("dead"), "fine");
    watcher.finish();
}

/// Descriptors that are closed while somebody waits end the wait, rather than make it deaf.
#[test]
fn a_watch_that_waits_hears_that_its_descriptors_are_closed() {
    let mut sleeper = Peer::start(ENTRY, "sleeper", &[]);
    sleeper.expect("ended");
    sleeper.finish();
}

/// Role: waits for long, while another thread closes all descriptors, and interrupts it then.
pub(crate) fn sleeper(part: &Part) {
    let mut watch = Watch::new().unwrap();
    let interrupt = watch.interrupt();
    let begin = Instant::now();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            std::thread::sleep(Duration::from_millis(100));
            close_all();
            interrupt.send();
        });
        watch.wait(Duration::from_secs(60));
    });
    assert!(begin.elapsed() < Duration::from_secs(30), "it could not be interrupted");
    part.say("ended");
}

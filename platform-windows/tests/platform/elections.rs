//! Elections whose holder is terminated, at several points.

use dsm_core::error::ErrorKind;
use dsm_core::provider::{Election, ProviderError, Root};
use platform_windows::{Backing, File, Options, Scope, Shm};
use testkit::process::Part;

use crate::support::{BOTH, PATIENCE, byte, open, set_byte, spawn, told, unmap};

/// Role: holds the election, and works on the control object as it is told, until it is killed.
pub(crate) fn elected(part: &Part) {
    let shm = told(part);
    let mut election = shm.elect(PATIENCE).unwrap();
    part.say(&format!("{} {}", election.size(), election.was_abandoned()));
    while let Some(line) = part.hear() {
        match line.as_str() {
            "create" => {
                let mapping = election.create(8192).unwrap();
                set_byte(&mapping, 5, 7);
                set_byte(&mapping, 8191, 7);
            }
            "remove" => election.remove().unwrap(),
            other => panic!("{other}"),
        }
        part.say("done");
    }
}

#[test]
fn abandonment_is_reported_once() {
    for backing in BOTH {
        let shm = open("abandoned", backing);
        let mut child = spawn("elected", &shm);
        assert_eq!(child.hear(), "0 false");
        let refused = shm.elect(std::time::Duration::from_millis(30));
        assert_eq!(refused.err().map(|e| e.kind()), Some(ErrorKind::TimedOut));
        // Whoever waits is told, whether the holder dies before or while it waits.
        let waiter = std::thread::scope(|scope| {
            let waiter = scope.spawn(|| shm.elect(PATIENCE).unwrap().was_abandoned());
            std::thread::sleep(std::time::Duration::from_millis(50));
            child.kill_and_collect();
            waiter.join().unwrap()
        });
        assert!(waiter, "{backing:?}");
        let mut election = shm.elect(PATIENCE).unwrap();
        assert!(!election.was_abandoned(), "{backing:?}: given back since");
        election.remove().unwrap();
    }
}

/// A mutex that nobody has open any more is forgotten, and its abandonment with it: the object's
/// state is what counts.
#[test]
fn a_dead_initialisers_object_is_set_up_again() {
    for backing in BOTH {
        let shm = open("dead", backing);
        for work in ["", "create", "remove"] {
            let mut child = spawn("elected", &shm);
            assert_eq!(child.hear(), "0 false", "{backing:?}, {work}");
            if !work.is_empty() {
                assert_eq!(child.ask("create"), "done");
            }
            if work == "remove" {
                assert_eq!(child.ask("remove"), "done");
            }
            child.kill_and_collect();

            let mut election = shm.elect(PATIENCE).unwrap();
            let left = if work == "create" && backing == Backing::Files { 8192 } else { 0 };
            assert_eq!(election.size(), left, "{backing:?}, {work}");
            let mapping = election.create(4096).unwrap();
            assert!((0..4096).all(|offset| byte(&mapping, offset) == 0), "{backing:?}, {work}");
            unmap(&shm, mapping);
            election.remove().unwrap();
        }
    }
}

#[test]
fn namespaces_are_elected_to_independently() {
    let directories = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let in_one = File::new(directories[0].path(), "name").unwrap();
    let in_two = File::new(directories[1].path(), "name").unwrap();
    let other = File::new(directories[0].path(), "Name").unwrap();
    let global = Options::new().scope(Scope::Global);
    let global = File::with_options(directories[0].path(), "name", global).unwrap();
    let mut held = [in_one.elect(PATIENCE), in_two.elect(PATIENCE), other.elect(PATIENCE)]
        .map(Result::unwrap)
        .into_iter()
        .chain([global.elect(PATIENCE).unwrap()])
        .collect::<Vec<_>>();
    // By whatever path the same folder is reached.
    let around = directories[0].path().join(".").join("..").join(directories[0].path());
    let same = File::new(around, "name").unwrap();
    assert!(same.elect(std::time::Duration::ZERO).is_err());
    let ids: std::collections::HashSet<_> =
        held.iter().map(|election| format!("{:?}", election.id())).collect();
    assert_eq!(ids.len(), 4, "an object for each");
    for election in &mut held {
        election.remove().unwrap();
    }
}

/// The threads of a process are told apart though the system would let its owner in again.
#[test]
fn a_thread_does_not_win_twice() {
    for backing in BOTH {
        let shm = open("twice", backing);
        let again = Shm::with_options(shm.namespace().as_str(), Options::new().backing(backing));
        let mut election = shm.elect(PATIENCE).unwrap();
        let refused = again.unwrap().elect(std::time::Duration::from_millis(10)).err();
        assert_eq!(refused.map(|e| e.kind()), Some(ErrorKind::TimedOut));
        election.remove().unwrap();
    }
}

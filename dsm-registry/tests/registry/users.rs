//! Users who share a namespace, in a directory where each can remove its own objects only:
//! `/dev/shm`, and a directory with the sticky bit. By peers that become two other users, which
//! takes root; others are told that nothing was tested.

use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use dsm_registry::system::{Directory, Options, Owners, SharedMemory};
use dsm_registry::{Area, Builder, Error, HashTable, Registry, Segment};
use testkit::process::Peer;

use crate::support::{Part, Roles, Space};

pub(crate) const ROLES: Roles = &[("user", user), ("former root", former_root)];

/// Two users, neither of whom is root.
const ANN: u32 = 65_534;
const BEN: u32 = 12_345;

/// Makes this process another user's, for good.
fn become_user(user: u32) {
    // SAFETY: no memory is involved.
    assert_eq!(unsafe { libc::setgroups(0, std::ptr::null()) }, 0);
    // SAFETY: as above.
    assert_eq!(unsafe { libc::setgid(user) }, 0);
    // SAFETY: as above.
    assert_eq!(unsafe { libc::setuid(user) }, 0);
}

/// Whether there is nothing to be tested, which is said.
fn skipped() -> bool {
    // SAFETY: no preconditions.
    let root = unsafe { libc::geteuid() } == 0;
    if !root {
        let _ = writeln!(
            std::io::stderr(),
            "SKIPPED, NOTHING WAS TESTED: only root can become the two users"
        );
    }
    !root
}

/// For both users, in a directory or, if that is empty, in `/dev/shm`.
fn shared(namespace: &str, directory: &str) -> Builder {
    let options = Options::new().owners(Owners::Listed(vec![ANN, BEN]));
    let builder = Registry::builder(namespace).mode(0o666);
    if directory.is_empty() {
        builder.provider(SharedMemory::with_options(options))
    } else {
        builder.provider(Directory::with_options(directory, options))
    }
}

/// What a user has open.
struct Things {
    registry: Registry,
    area: Area,
    table: HashTable<u64, u64>,
    segments: Vec<Segment<u64>>,
}

impl Things {
    fn of(registry: Registry) -> Result<Self, Error> {
        let (area, table) = (registry.area("area")?, registry.hash("table")?);
        Ok(Self { registry, area, table, segments: Vec::new() })
    }

    /// What a test orders; returns the answer.
    fn obey(&mut self, order: &str) -> Result<String, Error> {
        let (verb, argument) = order.split_once(' ').unwrap_or((order, ""));
        let number = || argument.parse::<u64>().unwrap();
        match verb {
            "insert" => {
                for key in 0..number() {
                    self.table.insert(&key, key)?;
                }
            }
            "count" => return Ok(self.table.iter()?.count().to_string()),
            "grow" => {
                for _ in 0..number() {
                    self.area.allocate_unwritten::<[u8; 1 << 20]>()?;
                }
            }
            "segment" => {
                let made = self.registry.segment::<u64>(argument, |value| value.write(7))?;
                self.segments.push(made);
            }
            "remove" => self.registry.remove(argument)?,
            "force" => self.registry.remove_forced(argument)?,
            "reap" => return Ok(format!("reaped {}", self.registry.reap()?)),
            other => panic!("{other}"),
        }
        Ok("done".to_owned())
    }
}

/// Becomes a user, and does what it is told.
fn user(part: &Part) {
    let (user, directory) = part.argument.split_once(' ').unwrap();
    become_user(user.parse().unwrap());
    let mut things = None;
    loop {
        let order = part.ask();
        let said = match (order.as_str(), &mut things) {
            ("open", things) => shared(&part.space, directory)
                .patience(std::time::Duration::from_secs(5))
                .open()
                .and_then(Things::of)
                .map(|opened| *things = Some(opened))
                .map(|()| "done".to_owned()),
            ("leave", things) => {
                *things = None;
                Ok("done".to_owned())
            }
            (order, things) => things.as_mut().expect("open").obey(order),
        };
        part.say(&said.unwrap_or_else(|error| format!("error: {error}")));
    }
}

/// A place with two users.
struct Place {
    space: Space,
    directory: String,
}

impl Place {
    fn user(&self, user: u32) -> Peer {
        self.space.peer_with("user", &format!("{user} {}", self.directory))
    }

    fn objects(&self) -> Vec<PathBuf> {
        if self.directory.is_empty() {
            return self.space.objects();
        }
        std::fs::read_dir(&self.directory).unwrap().map(|entry| entry.unwrap().path()).collect()
    }

    /// Objects of a user that have memory.
    fn of(&self, user: u32) -> usize {
        let with_memory = |path: &&PathBuf| {
            let found = path.metadata().unwrap();
            found.uid() == user && found.blocks() > 0
        };
        self.objects().iter().filter(with_memory).count()
    }

    /// All objects of a user.
    fn all_of(&self, user: u32) -> usize {
        self.objects().iter().filter(|path| path.metadata().unwrap().uid() == user).count()
    }
}

fn order(peer: &mut Peer, order: &str) {
    let answer = peer.ask(order);
    assert_eq!(answer, "done", "{order}");
}

/// Every step of a life that two users share.
fn live(place: &Place) {
    let (mut ann, mut ben) = (place.user(ANN), place.user(BEN));
    for step in ["open", "insert 1000", "grow 3", "segment removed"] {
        order(&mut ann, step);
    }
    for step in ["open", "insert 20000", "grow 9"] {
        order(&mut ben, step);
    }
    for step in ["leave", "open", "segment forced"] {
        order(&mut ann, step);
    }
    assert!(place.of(ANN) > 2 && place.of(BEN) > 0, "both have made something");

    // What Ann made and let go of is removed by Ben, as far as he may, and its name is free.
    order(&mut ben, "remove removed");
    order(&mut ben, "segment removed");
    order(&mut ben, "force forced");
    let before = place.of(ANN);
    ann.kill_and_collect();
    assert!(ben.ask("reap").starts_with("reaped "));
    assert_eq!(place.of(ANN), before - 1, "the memory of what only she had comes back");

    // She finds what is left to her.
    let left = place.all_of(ANN);
    let mut ann = place.user(ANN);
    order(&mut ann, "open");
    assert_eq!(place.all_of(ANN), left - 2, "what Ben could not remove is removed");
    assert_eq!(ann.ask("count"), "20000");
    ann.kill_and_collect();

    // Ben is the last to leave, and comes again.
    order(&mut ben, "leave");
    assert_eq!(place.all_of(BEN), 0, "he has removed what is his");
    assert_eq!(place.of(ANN), 1, "of hers, the list has memory");
    order(&mut ben, "open");
    assert_eq!(ben.ask("count"), "0", "what nobody lived in is gone");
    for step in ["insert 20000", "grow 9", "segment removed"] {
        order(&mut ben, step);
    }
    ben.kill_and_collect();

    // Nor can Ann remove what is Ben's, and she goes on all the same.
    let mut ann = place.user(ANN);
    order(&mut ann, "open");
    assert_eq!(ann.ask("count"), "0");
    assert_eq!(place.of(BEN), 0, "his memory came back");
    for step in ["insert 1000", "grow 3"] {
        order(&mut ann, step);
    }
    assert!(place.all_of(BEN) > 0);
    let mut ben = place.user(BEN);
    order(&mut ben, "open");
    assert_eq!(place.all_of(BEN), 0, "he removes what is left to him");
    assert_eq!(ben.ask("count"), "1000");
    order(&mut ben, "insert 20000");
    order(&mut ben, "leave");
    order(&mut ann, "leave");
    // Each removes what is left to it, and she the list of it in the end.
    assert_eq!((place.all_of(ANN), place.of(BEN)), (1, 0), "{:?}", place.objects());
    order(&mut ben, "open");
    order(&mut ben, "leave");
    assert_eq!((place.all_of(ANN), place.all_of(BEN)), (1, 0));
    order(&mut ann, "open");
    order(&mut ann, "leave");
    assert!(place.objects().is_empty(), "{:?}", place.objects());
}

#[test]
fn two_users_share_a_namespace_in_shared_memory() {
    if !skipped() {
        let space = Space::new("users");
        live(&Place { space, directory: String::new() });
    }
}

#[test]
fn two_users_share_a_namespace_in_a_directory() {
    if skipped() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    std::fs::set_permissions(directory.path(), PermissionsExt::from_mode(0o1777)).unwrap();
    let space = Space::new("users");
    let place = Place { space, directory: directory.path().display().to_string() };
    live(&place);
    assert!(place.objects().is_empty(), "{:?}", place.objects());
}

/// What this user may not map is no damage, and the error says whose it is.
#[test]
fn what_may_not_be_mapped_is_not_damaged() {
    if skipped() {
        return;
    }
    let place = Place { space: Space::new("unmapped"), directory: String::new() };
    let (mut ann, mut ben) = (place.user(ANN), place.user(BEN));
    order(&mut ann, "open");
    order(&mut ben, "open");
    let before = place.objects();
    order(&mut ann, "insert 50000");
    let grown: Vec<_> = place.objects().into_iter().filter(|at| !before.contains(at)).collect();
    let set = |mode| {
        for at in &grown {
            std::fs::set_permissions(at, PermissionsExt::from_mode(mode)).unwrap();
        }
    };
    assert!(!grown.is_empty());
    set(0o600);
    let told = ben.ask("insert 50000");
    set(0o666);
    assert!(told.contains("mode 0600") && told.contains("to user 65534"), "{told}");
    assert!(!told.contains("damaged"), "{told}");
    order(&mut ben, "insert 50000");
    order(&mut ben, "leave");
    order(&mut ann, "leave");
}

/// Gives up its privileges with the namespace open, and goes on.
fn former_root(part: &Part) {
    let mut things = Things::of(part.open()).unwrap();
    things.obey("grow 2").unwrap();
    become_user(BEN);
    for step in ["grow 40", "insert 50000", "segment new", "reap"] {
        things.obey(step).unwrap_or_else(|error| panic!("{step}: {error}"));
    }
    part.say("has grown");
    part.ask();
    drop(things);
    part.say("has left");
    part.ask();
}

#[test]
fn who_gives_up_its_privileges_goes_on() {
    if skipped() {
        return;
    }
    let space = Space::new("former");
    let mut peer = space.peer("former root");
    peer.expect("has grown");
    let owner = |path: &Path| path.metadata().unwrap().uid();
    assert!(space.objects().iter().any(|path| owner(path) == BEN), "made by the user it is now");
    // Who is root still, and trusts root only, is told why.
    let registry = space.open();
    let told = registry.segment::<u64>("new", |_| Ok(())).unwrap_err().to_string();
    for part in ["user 12345", "`Options::owners`"] {
        assert!(told.contains(part), "{part} in {told}");
    }
    drop(registry);
    peer.say("leave");
    peer.expect("has left");
    peer.finish();
    // It could not remove the list, which root had made, and root has not been told to trust it.
    assert!(!space.objects().is_empty());
    drop(shared(&space.name, "").open().unwrap());
}

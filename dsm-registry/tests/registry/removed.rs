//! Objects that somebody removes from outside (`rm /dev/shm/...`) while processes have the
//! namespace open: what is there goes on, and what is missing is said by its name, with a way out.

use std::collections::BTreeSet;
use std::path::PathBuf;

use dsm_registry::{Error, ErrorKind, Registry};

use crate::support::{Part, Roles, Space};

pub(crate) const ROLES: Roles =
    &[("newcomer", newcomer), ("holder", holder), ("looks", looks), ("opens", opens)];

/// Objects that `make` makes.
fn made(space: &Space, make: impl FnOnce()) -> Vec<PathBuf> {
    let before: BTreeSet<_> = space.objects().into_iter().collect();
    make();
    space.objects().into_iter().filter(|path| !before.contains(path)).collect()
}

fn remove(path: &PathBuf) {
    std::fs::remove_file(path).unwrap();
}

/// Opens the name after its control object has gone.
fn newcomer(part: &Part) {
    let registry = part.open();
    let table = registry.hash::<u64, u64>("table").unwrap();
    part.say(&format!("{:?}", table.get(&1).unwrap()));
    table.insert(&1, 100).unwrap();
    part.say("inserted");
    part.ask();
}

/// Is killed with an entry in its hands.
fn holder(part: &Part) {
    let table = part.open().hash::<u64, u64>("table").unwrap();
    let _guard = table.find_mut(&1).unwrap().unwrap();
    part.say("holding");
    part.ask();
}

#[test]
fn who_has_a_control_object_that_was_removed_is_told() {
    let space = Space::new("unlinked");
    let registry = space.open();
    let table = registry.hash::<u64, u64>("table").unwrap();
    table.insert(&1, 1).unwrap();
    let mut holder = space.peer("holder");
    holder.expect("holding");
    registry.reap().unwrap();
    drop(registry.hash::<u64, u64>("another").unwrap());

    remove(&space.control());
    holder.kill_and_collect();
    let unlinked = |result: Result<(), Error>| {
        let error = result.unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::NamespaceUnlinked { .. }), "{error}");
        let text = error.to_string();
        assert!(text.contains(&space.name) && text.contains("open it again"), "{text}");
    };
    // While the name means nothing, and while it means another namespace.
    unlinked(Registry::open(&space.name).map(drop));
    let mut newcomer = space.peer("newcomer");
    newcomer.expect("None");
    newcomer.expect("inserted");
    unlinked(Registry::open(&space.name).map(drop));
    unlinked(registry.area("new").map(drop));
    unlinked(registry.segment::<u64>("value", |value| value.write(1)).map(drop));
    unlinked(registry.reap().map(drop));
    // The dead were swept all the same, and what is attached goes on.
    assert!(matches!(table.without_waiting().find_mut(&1), Err(e) if e.is_poisoned()));
    table.insert(&2, 2).unwrap();
    assert_eq!(registry.hash::<u64, u64>("table").unwrap().get(&2).unwrap(), Some(2));

    // The way out.
    drop((registry, table));
    let again = space.open().hash::<u64, u64>("table").unwrap();
    assert_eq!((again.get(&1).unwrap(), again.get(&2).unwrap()), (Some(100), None));
    newcomer.say("end");
    newcomer.finish();
}

/// Says what a newcomer sees of a namespace of which the memory of "lost" is gone.
fn looks(part: &Part) {
    let registry = part.open();
    let names: Vec<_> = registry.list().unwrap().into_iter().map(|listed| listed.name).collect();
    part.say(&names.join(" "));
    let kept = registry.hash::<u64, u64>("kept").unwrap();
    assert_eq!(kept.get(&1).unwrap(), Some(1));
    for _ in 0..2 {
        let error = registry.hash::<u64, [u64; 8]>("lost").err().unwrap();
        assert!(matches!(error.kind(), ErrorKind::MemoryRemoved { .. }), "{error}");
        let text = error.to_string();
        assert!(text.contains("\"lost\"") && text.contains("remove_forced"), "{text}");
    }
    registry.remove_forced("lost").unwrap();
    let anew = registry.hash::<u64, [u64; 8]>("lost").unwrap();
    assert_eq!(anew.len().unwrap(), 0);
    anew.insert(&1, [1; 8]).unwrap();
    part.say("made anew");
}

#[test]
fn a_table_whose_object_was_removed_is_named() {
    let space = Space::new("lost-table");
    let registry = space.open();
    registry.hash::<u64, u64>("kept").unwrap().insert(&1, 1).unwrap();
    let mut lost = None;
    let objects = made(&space, || lost = Some(registry.hash::<u64, [u64; 8]>("lost").unwrap()));
    assert_eq!(objects.len(), 1);
    objects.iter().for_each(remove);
    let mut peer = space.peer("looks");
    peer.expect("kept lost");
    peer.expect("made anew");
    peer.finish();
    // Who had it has it.
    let lost = lost.unwrap();
    lost.insert(&1, [2; 8]).unwrap();
    assert_eq!(lost.get(&1).unwrap(), Some([2; 8]));
    assert_eq!(registry.list().unwrap().len(), 2);
}

/// Opens and says why it can't, or which entries can't be read and why.
fn opens(part: &Part) {
    let registry = match Registry::open(&part.space) {
        Ok(registry) => registry,
        Err(error) => return part.say(&error.to_string()),
    };
    let table = registry.hash::<u64, [u64; 8]>("table").unwrap();
    let error = (0..5000).find_map(|key| table.get(&key).err()).unwrap();
    assert!(matches!(error.kind(), ErrorKind::MemoryRemoved { name: None, .. }), "{error}");
    part.say(&error.to_string());
}

#[test]
fn a_part_of_a_table_that_was_removed_is_not_damage() {
    let space = Space::new("lost-part");
    let registry = space.open();
    let table = registry.hash::<u64, [u64; 8]>("table").unwrap();
    let grown = made(&space, || {
        for key in 0..5000 {
            table.insert(&key, [key; 8]).unwrap();
        }
    });
    assert!(grown.len() > 1);
    grown.iter().for_each(remove);
    let said = space.peer("opens").hear();
    assert!(said.contains(&space.name) && said.contains("dsm rm"), "{said}");
    assert_eq!(table.get(&4999).unwrap(), Some([4999; 8]));
}

#[test]
fn the_memory_of_the_names_that_was_removed_is_said_at_opening() {
    let space = Space::new("lost-names");
    let mut registry = None;
    let objects = made(&space, || registry = Some(space.open()));
    let control = space.control();
    objects.iter().filter(|path| **path != control).for_each(remove);
    let said = space.peer("opens").hear();
    assert!(said.contains(&space.name) && said.contains("Registry::destroy"), "{said}");
    // The way out.
    drop(registry);
    drop(space.open());
}

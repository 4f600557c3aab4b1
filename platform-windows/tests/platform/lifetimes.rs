//! How long objects live: until they are destroyed, whoever is terminated; in the page file as long
//! as somebody has them.

use std::path::Path;

use dsm_core::error::ErrorKind;
use dsm_core::handle::{ObjectId, SegmentHandle};
use dsm_core::namespace::{
    LocalSegment, Namespace, NamespaceConfig, Opened, Platform, ProcessLocal,
};
use dsm_core::provider::{Election, ProviderError, Root, SegmentProvider};
use dsm_core::sync::AtomicU64;
use platform_windows::{Backing, File, Shm};
use testkit::process::Part;
use testkit::system::forever;

use crate::support::{BOTH, PATIENCE, byte, handle, names, open, set_byte, spawn, told, unmap};

const SIZE: usize = 300_000;

/// Role: makes a segment and a control object, or attaches them, and stays until it is killed.
pub(crate) fn keeper(part: &Part) {
    let shm = told(part);
    while let Some(line) = part.hear() {
        match line.as_str() {
            "make" => {
                let (mapping, _) = shm.create(handle(1), SIZE, SIZE).unwrap();
                let control = shm.elect(PATIENCE).unwrap().create(SIZE).unwrap();
                for offset in 0..SIZE {
                    set_byte(&mapping, offset, offset as u8);
                    set_byte(&control, offset, !offset as u8);
                }
            }
            "attach" => {
                shm.attach(handle(1), ObjectId::default()).unwrap();
                shm.elect_existing(PATIENCE).unwrap().map().unwrap();
            }
            other => panic!("{other}"),
        }
        part.say("done");
    }
}

#[test]
fn what_a_terminated_process_alone_had_stays_in_files() {
    let shm = open("alone", Backing::Files);
    let mut child = spawn("keeper", &shm);
    assert_eq!(child.ask("make"), "done");
    child.kill_and_collect();

    let mapping = shm.attach(handle(1), ObjectId::default()).unwrap();
    let mut election = shm.elect_existing(PATIENCE).unwrap();
    let control = election.map().unwrap();
    assert_eq!((mapping.len, election.size()), (SIZE, SIZE));
    for offset in 0..SIZE {
        assert_eq!(byte(&mapping, offset), offset as u8, "segment at {offset}");
        assert_eq!(byte(&control, offset), !offset as u8, "control object at {offset}");
    }
    election.remove().unwrap();
    shm.destroy(handle(1), ObjectId::default()).unwrap();
    unmap(&shm, mapping);
    unmap(&shm, control);
}

/// The documented weakness, and that it goes no further.
#[test]
fn what_a_terminated_process_alone_had_goes_in_the_page_file() {
    let shm = open("alone", Backing::PageFile);
    let mut child = spawn("keeper", &shm);
    assert_eq!(child.ask("make"), "done");
    child.kill_and_collect();
    let kind = shm.attach(handle(1), ObjectId::default()).unwrap_err().kind();
    assert_eq!(kind, ErrorKind::NotFound);
    assert_eq!(shm.peek().unwrap_err().kind(), ErrorKind::NotFound);

    // One more who has it is enough: memory and name stay.
    let mut children = [spawn("keeper", &shm), spawn("keeper", &shm)];
    assert_eq!(children[0].ask("make"), "done");
    assert_eq!(children[1].ask("attach"), "done");
    children[0].kill_and_collect();
    let mapping = shm.attach(handle(1), ObjectId::default()).unwrap();
    let control = shm.peek().unwrap();
    children[1].kill_and_collect();
    let again = shm.attach(handle(1), ObjectId::default()).unwrap();
    for offset in 0..SIZE {
        assert_eq!(byte(&again, offset), offset as u8, "segment at {offset}");
        assert_eq!(byte(&control, offset), !offset as u8, "control object at {offset}");
    }
    for mapping in [mapping, again, control] {
        unmap(&shm, mapping);
    }
    assert_eq!(shm.stat(handle(1)).unwrap_err().kind(), ErrorKind::NotFound);
}

/// Windows deletes no file that is mapped: its name is free at once all the same, and it goes with
/// the last mapping.
#[test]
fn a_file_that_was_destroyed_goes_with_its_last_mapping() {
    let directory = tempfile::tempdir().unwrap();
    let file = File::new(directory.path(), "gone").unwrap();
    let detach = |mapping| {
        // SAFETY: not used any more.
        unsafe { file.detach(mapping) };
    };
    let (one, id) = file.create(handle(1), SIZE, SIZE).unwrap();
    let two = file.attach(handle(1), id).unwrap();
    set_byte(&one, 5, 55);
    file.destroy(handle(1), id).unwrap();
    assert_eq!(file.stat(handle(1)).unwrap_err().kind(), ErrorKind::NotFound);
    let (new, new_id) = file.create(handle(1), SIZE, SIZE).unwrap();
    assert_eq!((byte(&two, 5), byte(&new, 5)), (55, 0));
    file.destroy(handle(1), new_id).unwrap();
    detach(new);
    detach(one);
    assert_eq!(byte(&two, 5), 55);
    let mut listed = 0;
    file.enumerate(&mut |_| listed += 1).unwrap();
    assert_eq!(listed, 0);
    detach(two);
    assert_eq!(names(directory.path()), Vec::<String>::new());
}

/// The one that would have deleted it was killed: the next election does.
#[test]
fn what_the_killed_had_mapped_is_deleted_later() {
    let shm = open("later", Backing::Files);
    let mut child = spawn("keeper", &shm);
    assert_eq!(child.ask("make"), "done");
    let index = shm.stat(handle(1)).unwrap().id.object;
    shm.destroy(handle(1), ObjectId::default()).unwrap();
    child.kill_and_collect();
    let gone = Shm::directory(Default::default()).join(format!("dsm.{index:016x}.gone"));
    // There only if the system let it be deleted no earlier.
    shm.elect(PATIENCE).unwrap().remove().unwrap();
    assert!(!gone.exists());
}

/// A namespace can be set up anew while somebody still has the one before.
#[test]
fn a_removed_control_object_is_in_nobodys_way() {
    for backing in BOTH {
        let shm = open("anew", backing);
        let mut held = Vec::new();
        for round in 0..5u8 {
            let mut election = shm.elect(PATIENCE).unwrap();
            assert_eq!(election.size(), 0, "{backing:?}, round {round}");
            let mapping = election.create(5000).unwrap();
            assert_eq!(byte(&mapping, 4999), 0);
            set_byte(&mapping, 4999, round + 1);
            assert_eq!(byte(&shm.peek().unwrap(), 4999), round + 1);
            election.remove().unwrap();
            held.push(mapping);
        }
        for (round, mapping) in held.into_iter().enumerate() {
            assert_eq!(usize::from(byte(&mapping, 4999)), round + 1);
            unmap(&shm, mapping);
        }
    }
}

/// Role: a member of a namespace, with segments, which is killed.
pub(crate) fn member(part: &Part) {
    let shm = forever(told(part));
    let (namespace, opened) = join(shm);
    let segments: Vec<_> =
        (0..3).map(|n| namespace.create_segment(10_000 << n, 4096).unwrap()).collect();
    part.say(&format!("{opened:?} {}", segments.len()));
    part.hang();
}

fn join(shm: &'static Shm) -> (Namespace<'static>, Opened) {
    let config = NamespaceConfig { max_segments: 16, ..NamespaceConfig::default() };
    let records: Vec<_> = (0..config.max_segments).map(|_| LocalSegment::new()).collect();
    let local = forever(ProcessLocal::new(forever(AtomicU64::new(0)), records.leak()));
    let platform = Platform { provider: shm, env: forever(shm.environment()) };
    Namespace::open(shm, platform, &config, local).unwrap()
}

/// All members are killed at once: what they leave is found by name and cleaned up by the next.
#[test]
fn what_remains_when_all_are_killed_is_cleaned_up() {
    let shm: &'static Shm = forever(open("all", Backing::Files));
    let mut children = Vec::new();
    for said in ["Created 3", "Joined 3"] {
        let mut child = spawn("member", shm);
        child.expect(said);
        children.push(child);
    }
    for child in &mut children {
        child.kill_and_collect();
    }
    let objects = || {
        let mut handles: Vec<Option<SegmentHandle>> = Vec::new();
        shm.enumerate(&mut |object| handles.push(object.handle)).unwrap();
        handles.len()
    };
    assert_eq!(objects(), 7, "a control object and six segments");
    let (namespace, opened) = join(shm);
    assert_eq!(opened, Opened::Recreated);
    assert_eq!(objects(), 1, "what the dead had is gone");
    namespace.leave(shm).unwrap();
    assert_eq!(objects(), 0, "the last to leave removes the rest");
    let control = shm.file(None).unwrap();
    let name = control.file_name().unwrap().to_string_lossy();
    let prefix = name.strip_suffix("ctl").unwrap();
    let directory: &Path = control.parent().unwrap();
    assert!(!names(directory).iter().any(|name| name.starts_with(prefix)));
}

//! References to providers, and newtypes around them, are providers: each call reaches the one that
//! is meant.
#![cfg(not(loom))]

use std::sync::{Arc, Mutex};
use std::time::Duration;

use dsm_core::handle::{ObjectId, SegmentHandle};
use dsm_core::namespace::{Namespace, NamespaceConfig, Opened, Platform};
use dsm_core::provider::{Election, Forward, RangeOwner, Root, SegmentProvider};
use sim::{HeapMachine, HeapProcess};

/// A provider within a provider.
struct Newtype<'p>(&'p HeapProcess);

// SAFETY: the same field each time.
unsafe impl<'p> Forward for Newtype<'p> {
    type Target = &'p HeapProcess;

    fn target(&self) -> &&'p HeapProcess {
        &self.0
    }
}

/// Names of the platform's calls.
fn watch(machine: &HeapMachine) -> Arc<Mutex<Vec<&'static str>>> {
    let calls = Arc::new(Mutex::new(Vec::new()));
    let list = calls.clone();
    machine.on_call(Some(Arc::new(move |_, call| list.lock().unwrap().push(call))));
    calls
}

fn exercise<P: SegmentProvider + Root>(provider: &P, process: &HeapProcess) {
    let handle = SegmentHandle::from_raw(2).unwrap();
    let calls = watch(process.machine());
    assert_eq!(SegmentProvider::page_size(provider), sim::PAGE);
    let (mapping, id) = SegmentProvider::create(provider, handle, 8192, 1).unwrap();
    assert_eq!((mapping.len, process.mapped()), (8192, 1));
    assert!(SegmentProvider::attach(provider, handle, ObjectId { device: 7, object: 7 }).is_err());
    let again = SegmentProvider::attach(provider, handle, id).unwrap();
    SegmentProvider::reserve(provider, handle, &mapping, 0..8192).unwrap();
    let info = SegmentProvider::stat(provider, handle).unwrap();
    assert_eq!((info.size, info.reserved, info.id), (8192, 8192, id));
    assert_eq!(process.mapped(), 2);
    let owner = RangeOwner::of(&handle);
    // SAFETY: not read.
    unsafe { SegmentProvider::blank(provider, mapping, owner) };
    // SAFETY: not used any more.
    unsafe { SegmentProvider::detach(provider, again) };
    // SAFETY: not used any more.
    unsafe { SegmentProvider::release_blanks(provider, owner) };
    assert_eq!(process.mapped(), 0);
    SegmentProvider::destroy(provider, handle, id).unwrap();
    assert!(SegmentProvider::stat(provider, handle).is_err());
    let expected = [
        "create",
        "attach",
        "attach",
        "reserve",
        "stat",
        "blank",
        "detach",
        "release_blanks",
        "destroy",
        "stat",
    ];
    assert_eq!(*calls.lock().unwrap(), expected);

    let calls = watch(process.machine());
    assert!(provider.elect_existing(Duration::ZERO).is_err());
    let mut election = provider.elect(Duration::ZERO).unwrap();
    assert_eq!(process.machine().elector(), Some(process.pid()));
    let control = election.create(100).unwrap();
    let seen = provider.peek().unwrap();
    assert_eq!((control.base, process.mapped()), (seen.base, 2));
    let mut found = 0;
    provider.enumerate(&mut |_| found += 1).unwrap();
    assert_eq!(found, 1);
    election.remove().unwrap();
    drop(election);
    for mapping in [control, seen] {
        // SAFETY: not used any more.
        unsafe { provider.unmap(mapping) };
    }
    let expected =
        ["elect_existing", "elect", "create control", "peek", "enumerate", "remove control"];
    assert_eq!(*calls.lock().unwrap(), expected);
    process.machine().on_call(None);
    assert_eq!((process.mapped(), process.machine().used()), (0, 0));
}

#[test]
fn every_call_reaches_the_process_behind() {
    let machine = HeapMachine::new();
    let (process, _other) = (machine.process(), machine.process());
    exercise(&process, &process);
    exercise(&&process, &process);
    exercise(&Newtype(&process), &process);
    exercise(&&Newtype(&process), &process);
}

#[test]
fn a_namespace_lives_on_what_forwards() {
    let machine = HeapMachine::new();
    let (first, second) = (machine.process(), machine.process());
    let (a, b) = (first.local(), second.local());
    let (newtype, reference) = (Newtype(&first), &second);
    let config = NamespaceConfig::default();
    let platform = Platform { provider: &newtype, env: &first };
    let (one, _) = Namespace::open(&newtype, platform, &config, &a).unwrap();
    let platform = Platform { provider: &reference, env: &second };
    let (two, opened) = Namespace::open(&reference, platform, &config, &b).unwrap();
    assert_eq!(opened, Opened::Joined);
    let segment = one.create_segment(5000, 5000).unwrap();
    let attached = two.attach_segment(segment.handle()).unwrap().unwrap();
    assert_eq!(attached.base(), segment.base());
    drop((segment, attached));
    one.leave(&newtype).unwrap();
    two.leave(&reference).unwrap();
    assert_eq!((machine.objects().len(), machine.used()), (0, 0));
}

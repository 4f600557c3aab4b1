//! What [`Root`] and [`Election`] promise.

use std::time::Duration;

use dsm_core::error::ErrorKind;
use dsm_core::handle::ObjectId;
use dsm_core::provider::{Election, Mapping, ProviderError, Root, SegmentProvider};
use dsm_core::sync::Ordering;

use crate::segments::detach;
use crate::{Backend, Context};
use testkit::memory::{byte, handle, is_zero, long, set_byte, word};
use testkit::process::Part;

/// Longer than any election lasts here.
const PATIENCE: Duration = Duration::from_secs(30);
/// What an initialiser writes last.
const MAGIC: u64 = 0x6d61_6769_635f_6f6b;

fn refused<T, E: ProviderError>(result: Result<T, E>) -> ErrorKind {
    match result {
        Ok(_) => panic!("this must be refused"),
        Err(error) => error.kind(),
    }
}

fn unmap<B: Backend>(backend: &B, mapping: Mapping) {
    // SAFETY: the cases use a mapping no more after this.
    unsafe { backend.root().unmap(mapping) };
}

fn remove<B: Backend>(context: &Context<B>) {
    context.backend.root().elect(PATIENCE).unwrap().remove().unwrap();
}

/// From nothing to an object and back, twice.
pub fn the_control_object_lives_and_goes<B: Backend>(context: &Context<B>) {
    let (backend, root) = (&context.backend, context.backend.root());
    for round in 0..2 {
        assert_eq!(refused(root.elect_existing(Duration::ZERO)), ErrorKind::NotFound, "{round}");
        assert_eq!(refused(root.peek()), ErrorKind::NotFound);

        let mut election = root.elect(PATIENCE).unwrap();
        assert_eq!(election.size(), 0);
        let unfinished = refused(root.peek());
        let known = [ErrorKind::Unfinished, ErrorKind::NotFound].contains(&unfinished);
        assert!(known, "not set up yet: {unfinished:?}");
        let first = election.create(10_000).unwrap();
        assert_eq!(first.len, 10_000);
        assert!(is_zero(&first));
        set_byte(&first, 9_999, 99);
        assert_eq!(election.size(), 10_000);
        let id = election.id();
        drop(election);
        assert_eq!(byte(&first, 9_999), 99, "the mapping outlives the election");

        let mut election = root.elect_existing(PATIENCE).unwrap();
        assert_eq!((election.size(), election.id()), (10_000, id));
        let second = election.map().unwrap();
        let third = root.peek().unwrap();
        assert_eq!((second.len, byte(&second, 9_999), byte(&third, 9_999)), (10_000, 99, 99));
        set_byte(&second, 0, 1);
        assert_eq!((byte(&first, 0), byte(&third, 0)), (1, 1));

        election.remove().unwrap();
        drop(election);
        assert_eq!(byte(&first, 0), 1, "mappings live on");
        for mapping in [first, second, third] {
            unmap(backend, mapping);
        }
    }
}

/// An object whose creator died may be set up anew, smaller or larger: it is zero again.
pub fn a_control_object_is_set_up_again_with_zeros<B: Backend>(context: &Context<B>) {
    let (backend, root) = (&context.backend, context.backend.root());
    for size in [8192, 4096, 50_000, 50_000] {
        let mut election = root.elect(PATIENCE).unwrap();
        let mapping = election.create(size).unwrap();
        assert_eq!(mapping.len, size);
        assert!(is_zero(&mapping), "of {size} bytes");
        for offset in 0..size {
            set_byte(&mapping, offset, 0xee);
        }
        assert!(election.size() >= size);
        unmap(backend, mapping);
    }
    let mut election = root.elect(PATIENCE).unwrap();
    assert_eq!(refused(election.create(0)), ErrorKind::InvalidSize);
    drop(election);
    remove(context);
}

/// Threads of one process are excluded like processes are.
pub fn the_election_excludes_threads<B: Backend>(context: &Context<B>) {
    let root = context.backend.root();
    let counter = std::sync::atomic::AtomicU64::new(0);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..50 {
                    let election = root.elect(PATIENCE).unwrap();
                    // Not one addition, so that an overlap loses some.
                    let before = counter.load(Ordering::Relaxed);
                    std::thread::yield_now();
                    counter.store(before + 1, Ordering::Relaxed);
                    drop(election);
                }
            });
        }
    });
    assert_eq!(counter.into_inner(), 200);
    remove(context);
}

/// Who waits no longer than nothing, or a little, gets an error that says so.
pub fn an_impatient_elector_gives_up<B: Backend>(context: &Context<B>) {
    let root = context.backend.root();
    let mut election = root.elect(Duration::ZERO).unwrap();
    for patience in [Duration::ZERO, Duration::from_millis(20)] {
        assert_eq!(refused(root.elect(patience)), ErrorKind::TimedOut);
    }
    election.remove().unwrap();
    drop(election);
}

/// Another process holds the election; it is killed; the election is free.
pub fn the_election_ends_with_its_holder<B: Backend>(context: &Context<B>) {
    if !B::PROCESSES {
        return;
    }
    let root = context.backend.root();
    for _ in 0..5 {
        let mut child = context.spawn("holder");
        assert_eq!(child.hear(), "held");
        assert_eq!(refused(root.elect(Duration::from_millis(20))), ErrorKind::TimedOut);
        child.end();
        drop(root.elect(PATIENCE).unwrap());
    }
    remove(context);
}

/// Two processes start on a fresh namespace at the same moment: exactly one finds it new.
pub fn exactly_one_process_finds_it_new<B: Backend>(context: &Context<B>) {
    if !B::PROCESSES {
        return;
    }
    let mut children = [context.spawn("newcomer"), context.spawn("newcomer")];
    for round in 0..testkit::rounds(300) {
        for child in &mut children {
            child.say("go");
        }
        let said = children.each_mut().map(testkit::process::Peer::hear);
        let made = said.iter().filter(|said| *said == "made").count();
        let found = said.iter().filter(|said| *said == "found").count();
        assert_eq!((made, found), (1, 1), "round {round}: {said:?}");
        remove(context);
    }
}

/// Processes create, use and remove the object in turn; none ever sees another one inside, or an
/// object that exists and is not set up.
pub fn processes_create_and_remove_in_turn<B: Backend>(context: &Context<B>) {
    if !B::PROCESSES {
        return;
    }
    let (inside, id) = context.backend.provider().create(handle(1), 4096, 4096).unwrap();
    let mut children: Vec<_> = (0..3).map(|_| context.spawn("churner")).collect();
    let made: u64 = children.iter_mut().map(|child| child.hear().parse::<u64>().unwrap()).sum();
    assert!(made >= 3, "removed and created again: {made}");
    assert_eq!(long(&inside, 8).load(Ordering::Acquire), 3 * testkit::rounds(CHURN));
    drop(children);
    remove(context);
    context.backend.provider().destroy(handle(1), id).unwrap();
    detach(context, inside);
}

/// Elections that each churner wins.
const CHURN: u64 = 200;

/// Holds the election until it is killed.
pub(crate) fn holder<B: Backend>(backend: &B, parent: &Part) {
    let election = backend.root().elect(PATIENCE).unwrap();
    parent.say("held");
    std::thread::sleep(PATIENCE);
    drop(election);
}

/// Enters a namespace as often as it is told to; says whether it found it new. It stays inside
/// until the next time, when that namespace has been removed.
pub(crate) fn newcomer<B: Backend>(backend: &B, parent: &Part) {
    let mut inside = None;
    while parent.hear().is_some_and(|line| line == "go") {
        if let Some(mapping) = inside.take() {
            unmap(backend, mapping);
        }
        let mut election = backend.root().elect(PATIENCE).unwrap();
        let new = election.size() == 0;
        let mapping = if new { election.create(4096).unwrap() } else { election.map().unwrap() };
        if new {
            long(&mapping, 64).store(MAGIC, Ordering::Release);
        }
        let set_up = long(&mapping, 64).load(Ordering::Acquire) == MAGIC;
        drop(election);
        inside = Some(mapping);
        parent.say(match (new, set_up) {
            (true, true) => "made",
            (false, true) => "found",
            _ => "found it unfinished",
        });
    }
}

/// See [`processes_create_and_remove_in_turn`]; says how often it created the object.
pub(crate) fn churner<B: Backend>(backend: &B, parent: &Part) {
    let shared = backend.provider().attach(handle(1), ObjectId::default()).unwrap();
    let mut made = 0u64;
    for round in 0..testkit::rounds(CHURN) {
        let mut election = backend.root().elect(PATIENCE).unwrap();
        assert_eq!(word(&shared, 0).fetch_add(1, Ordering::AcqRel), 0, "somebody else is inside");
        let mapping = if election.size() == 0 {
            made += 1;
            let mapping = election.create(4096).unwrap();
            assert!(is_zero(&mapping));
            mapping
        } else {
            let mapping = election.map().unwrap();
            assert_eq!(long(&mapping, 0).load(Ordering::Acquire), MAGIC, "not set up");
            mapping
        };
        long(&mapping, 0).store(MAGIC, Ordering::Release);
        long(&shared, 8).fetch_add(1, Ordering::AcqRel);
        assert_eq!(word(&shared, 0).fetch_sub(1, Ordering::AcqRel), 1, "somebody else came in");
        // Once the name is gone somebody else may be elected to the next object of that name.
        if round % 3 == 0 {
            election.remove().unwrap();
        }
        drop(election);
        unmap(backend, mapping);
    }
    parent.say(&made.to_string());
}

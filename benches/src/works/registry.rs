//! Works on the registry: a name that this process has attached, looked up again, with one name
//! and with a hundred in turn.
//!
//! The measure is four cycles of the C library's process-shared lock: what it would cost to find
//! the name under a lock or two of the plainest sort.

use std::hint::black_box;

use dsm_registry::Segment;

use crate::measure::repeat;
use crate::ours::home;
use crate::peers::rwlock::Rwlock;
use crate::work::{Contestant, Lengths, Runner, Who, Work};

/// The peer.
const FOUR_CYCLES: Who = Who::Peer("4 glibc lock cycles");

/// All works of the group.
#[must_use]
pub fn works() -> Vec<Work> {
    [1, 100]
        .map(|names| {
            let contestants = vec![
                Contestant::new(Who::Registry, move || our_lookup(names)),
                Contestant::new(FOUR_CYCLES, four_cycles),
            ];
            Work::new(format!("registry_lookup_{names}"), contestants).counted(Lengths::ALIKE)
        })
        .into()
}

fn our_lookup(count: usize) -> Runner {
    let registry = home::registry();
    let names: Vec<String> = (0..count).map(|n| format!("name-{n}")).collect();
    // Attached as long as these live, as in any program that has a use for them.
    let attached: Vec<Segment<u64>> = names
        .iter()
        .map(|name| {
            registry.segment::<u64>(name, |value| value.write(7)).expect("create a segment")
        })
        .collect();
    let mut next = 0;
    Runner::new(move |operations| {
        assert_eq!(attached.len(), names.len());
        repeat(operations, || {
            let name = black_box(&names[next]);
            let found = registry.segment::<u64>(name, |_| Err("it is there".into()));
            assert!(black_box(found).is_ok());
            next = if next + 1 == names.len() { 0 } else { next + 1 };
        })
    })
}

fn four_cycles() -> Runner {
    let lock = Rwlock::new();
    Runner::new(move |operations| {
        repeat(operations, || {
            for _ in 0..4 {
                lock.shared_cycle();
            }
        })
    })
}

//! Random operations of several processes against a plain model.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::{config, join_as};
use dsm_core::handle::SegmentHandle;
use dsm_core::namespace::{Error, Namespace, NamespaceConfig};
use dsm_core::segment::{RawSegment, Segment};
use sim::HeapMachine;

#[derive(Clone, Debug)]
enum Step {
    Create { size: usize },
    Attach { segment: usize },
    Detach { handle: usize },
    Pin { segment: usize },
    PinUnder { segment: usize, parent: usize },
    Unpin { segment: usize },
    Reap,
    Kill,
}

fn steps() -> impl Strategy<Value = Vec<(usize, Step)>> {
    let index = 0..64_usize;
    let step = prop_oneof![
        6 => (1..30_000_usize).prop_map(|size| Step::Create { size }),
        6 => index.clone().prop_map(|segment| Step::Attach { segment }),
        8 => index.clone().prop_map(|handle| Step::Detach { handle }),
        3 => index.clone().prop_map(|segment| Step::Pin { segment }),
        2 => (index.clone(), index.clone())
            .prop_map(|(segment, parent)| Step::PinUnder { segment, parent }),
        3 => index.prop_map(|segment| Step::Unpin { segment }),
        1 => Just(Step::Reap),
        1 => Just(Step::Kill),
    ];
    prop::collection::vec((0..3_usize, step), 1..120)
}

/// What a segment is, in the model.
#[derive(Clone, Debug, Default)]
struct Model {
    size: usize,
    pinned: bool,
    parent: Option<u64>,
    /// Handles of each process.
    handles: [usize; 3],
}

/// A segment and what it is pinned under, to the top.
fn chain(all: &BTreeMap<u64, Model>, segment: u64) -> Vec<u64> {
    std::iter::successors(Some(segment), |at| all.get(at).and_then(|model| model.parent)).collect()
}

/// Removes what nobody holds, and what depends on it.
fn settle(all: &mut BTreeMap<u64, Model>) {
    loop {
        let living: BTreeSet<u64> = all.keys().copied().collect();
        for model in all.values_mut() {
            if model.parent.is_some_and(|parent| !living.contains(&parent)) {
                (model.pinned, model.parent) = (false, None);
            }
        }
        let before = all.len();
        all.retain(|_, model| model.pinned || model.handles.iter().any(|count| *count > 0));
        if all.len() == before {
            return;
        }
    }
}

fn check(machine: &HeapMachine, main_region: usize, steps: Vec<(usize, Step)>) {
    let config = NamespaceConfig { main_region, ..config() };
    let processes: Vec<_> = (0..3).map(|_| machine.process()).collect();
    let locals: Vec<_> = processes.iter().map(|process| process.local()).collect();
    let spaces: Vec<Namespace<'_>> =
        (0..3).map(|i| join_as(&processes[i], &locals[i], &config).0).collect();
    let mut all: BTreeMap<u64, Model> = BTreeMap::new();
    let mut raw: [Vec<RawSegment>; 3] = Default::default();
    let mut dead = [false; 3];
    let mut seen: Vec<SegmentHandle> = Vec::new();
    for (who, step) in steps {
        // The first process is never killed, and does what a dead one was to do.
        let who = if dead[who] { 0 } else { who };
        let ns = &spaces[who];
        let named = |index: usize| seen.get(index % seen.len().max(1)).copied();
        match step {
            Step::Create { size } => match ns.create_segment(size, size) {
                Ok(segment) => {
                    assert!(all.len() < 16);
                    let mut handles = [0; 3];
                    handles[who] = 1;
                    let model = Model { size, handles, ..Model::default() };
                    assert!(all.insert(segment.handle().get(), model).is_none());
                    seen.push(segment.handle());
                    raw[who].push(segment.into_raw());
                }
                Err(error) => {
                    assert_eq!((error, all.len()), (Error::TooManySegments(16), 16));
                }
            },
            Step::Attach { segment } => {
                let Some(handle) = named(segment) else { continue };
                let found = ns.attach_segment(handle).unwrap();
                assert_eq!(found.is_some(), all.contains_key(&handle.get()));
                if let Some(segment) = found {
                    let model = all.get_mut(&handle.get()).unwrap();
                    assert_eq!(segment.len(), model.size);
                    model.handles[who] += 1;
                    raw[who].push(segment.into_raw());
                }
            }
            Step::Detach { handle } => {
                if raw[who].is_empty() {
                    continue;
                }
                let index = handle % raw[who].len();
                let taken = raw[who].swap_remove(index);
                all.get_mut(&taken.handle.get()).unwrap().handles[who] -= 1;
                // SAFETY: taken out of the list, so once.
                drop(unsafe { Segment::from_raw(ns, taken) });
                settle(&mut all);
            }
            Step::Pin { segment } => {
                let Some(handle) = named(segment) else { continue };
                let expected = match all.get_mut(&handle.get()) {
                    None => Err(Error::NoSuchSegment(handle)),
                    Some(model) if model.pinned => Err(Error::Pinned(true)),
                    Some(model) => {
                        model.pinned = true;
                        Ok(())
                    }
                };
                assert_eq!(ns.pin_segment(handle), expected);
            }
            Step::PinUnder { segment, parent } => {
                let (Some(handle), Some(parent)) = (named(segment), named(parent)) else {
                    continue;
                };
                let (child, under) = (handle.get(), parent.get());
                let expected = if !all.contains_key(&under) {
                    Err(Error::NoSuchSegment(parent))
                } else if !all.contains_key(&child) {
                    Err(Error::NoSuchSegment(handle))
                } else if all[&child].pinned {
                    Err(Error::Pinned(true))
                } else if chain(&all, under).contains(&child) {
                    Err(Error::CircularPin)
                } else {
                    let model = all.get_mut(&child).unwrap();
                    (model.pinned, model.parent) = (true, Some(under));
                    Ok(())
                };
                assert_eq!(ns.pin_segment_under(handle, parent), expected);
            }
            Step::Unpin { segment } => {
                let Some(handle) = named(segment) else { continue };
                let expected = match all.get_mut(&handle.get()) {
                    None => Err(Error::NoSuchSegment(handle)),
                    Some(model) if !model.pinned => Err(Error::Pinned(false)),
                    Some(model) => {
                        (model.pinned, model.parent) = (false, None);
                        Ok(())
                    }
                };
                assert_eq!(ns.unpin_segment(handle), expected);
                settle(&mut all);
            }
            Step::Reap => {
                ns.reap().unwrap();
            }
            Step::Kill => {
                if who == 0 {
                    continue;
                }
                dead[who] = true;
                processes[who].kill();
                raw[who].clear();
                all.values_mut().for_each(|model| model.handles[who] = 0);
                spaces[0].reap().unwrap();
                settle(&mut all);
            }
        }
        for handle in &seen {
            let expected = all
                .get(&handle.get())
                .map(|model| model.handles.iter().filter(|count| **count > 0).count() as u32);
            assert_eq!(spaces[0].attached_processes(*handle), expected);
        }
        let objects = seen
            .iter()
            .filter(|handle| !handle.is_main_region() && all.contains_key(&handle.get()))
            .count();
        assert_eq!(machine.objects().len(), 1 + objects);
        let pages: usize = seen
            .iter()
            .filter(|handle| handle.is_main_region())
            .filter_map(|handle| all.get(&handle.get()))
            .map(|model| model.size.div_ceil(4096) * 4096)
            .sum();
        assert_eq!(spaces[0].main_region(), (main_region, pages));
    }
    for (index, ns) in spaces.into_iter().enumerate() {
        if !dead[index] {
            ns.leave(&processes[index]).unwrap();
        }
    }
    assert_eq!(machine.objects().len(), 0);
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 200,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn segments_behave_as_the_model_says(steps in steps()) {
        check(&HeapMachine::new(), 0, steps);
    }

    #[test]
    fn so_do_those_of_the_main_region(steps in steps()) {
        check(&HeapMachine::new(), 16 * 4096, steps);
    }
}

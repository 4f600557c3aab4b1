//! Several simulated processes that allocate, free each other's objects, leave and are killed, in
//! any order, against a plain map of what is allocated.

use std::collections::BTreeMap;

use dsa_core::{DsaPointer, Flags, Options};
use proptest::prelude::*;
use sim::HeapMachine;

use crate::support::{A, H, Proc, check_fill, fill, free, start};

#[derive(Clone, Debug)]
enum Step {
    Allocate(usize, usize, u8),
    Free(usize, prop::sample::Index),
    FreeAgain(usize),
    FreeMany(usize, u8),
    Unpublished(usize, usize),
    Settle(usize),
    Kill(usize),
    Leave(usize),
    Trim(usize),
    Maintain(usize),
}

fn size() -> impl Strategy<Value = usize> {
    prop_oneof![8 => 0usize..300, 4 => 0usize..4000, 2 => 4000usize..9000, 1 => 9000usize..150_000]
}

fn step() -> impl Strategy<Value = Step> {
    let who = 0usize..3;
    prop_oneof![
        20 => (who.clone(), size(), 0u8..13).prop_map(|(w, s, a)| Step::Allocate(w, s, a)),
        12 => (who.clone(), any::<prop::sample::Index>()).prop_map(|(w, i)| Step::Free(w, i)),
        1 => who.clone().prop_map(Step::FreeAgain),
        2 => (who.clone(), any::<u8>()).prop_map(|(w, n)| Step::FreeMany(w, n)),
        2 => (who.clone(), size()).prop_map(|(w, s)| Step::Unpublished(w, s)),
        1 => who.clone().prop_map(Step::Settle),
        1 => who.clone().prop_map(Step::Kill),
        1 => who.clone().prop_map(Step::Leave),
        1 => who.clone().prop_map(Step::Trim),
        1 => who.prop_map(Step::Maintain),
    ]
}

struct Side {
    proc: Proc,
    area: &'static A,
    heap: Option<H>,
}

impl Side {
    fn heap(&self) -> &H {
        self.heap.as_ref().unwrap()
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, max_shrink_iters: 200, ..ProptestConfig::default() })]
    #[test]
    fn agrees_with_a_map(steps in prop::collection::vec(step(), 1..400)) {
        let machine = HeapMachine::new();
        machine.fill_new(0xAA);
        let keeper = start(&machine);
        let (area, keeper_heap) = keeper.create(&Options::default());
        let handle = area.handle().unwrap();
        let join = || {
            let proc = start(&machine);
            let (area, heap) = proc.attach(handle).unwrap();
            Side { proc, area, heap: Some(heap) }
        };
        let mut sides: Vec<Side> = (0..3).map(|_| join()).collect();
        let mut live: BTreeMap<u64, usize> = BTreeMap::new();
        // By side: what it has not published.
        let mut secret: Vec<Vec<(u64, usize)>> = vec![Vec::new(); 3];
        let mut last = DsaPointer::INVALID;
        for (number, step) in steps.into_iter().enumerate() {
            match step {
                Step::Allocate(who, size, align) => {
                    let side = &sides[who];
                    let object = side.heap().allocate_aligned(size, 1 << align, Flags::empty()).unwrap();
                    prop_assert_eq!(side.area.resolve(object).unwrap().as_ptr() as usize % (1 << align), 0);
                    fill(side.area, object, size);
                    prop_assert!(live.insert(object.raw(), size).is_none(), "handed out twice");
                }
                Step::Free(who, which) if !live.is_empty() => {
                    let (raw, size) = live.iter().nth(which.index(live.len())).unwrap();
                    let (object, size) = (DsaPointer::from_raw(*raw), *size);
                    check_fill(sides[who].area, object, size);
                    free(sides[who].heap(), object);
                    live.remove(&object.raw());
                    last = object;
                }
                Step::FreeAgain(who) if last.is_valid() && !live.contains_key(&last.raw()) => {
                    let taken = secret.iter().flatten().any(|(raw, _)| *raw == last.raw());
                    // SAFETY: it must not be freed at all.
                    let refused = taken || unsafe { sides[who].heap().free(last) }.is_err();
                    prop_assert!(refused);
                }
                Step::FreeMany(who, count) => {
                    for _ in 0..count {
                        let Some((raw, size)) = live.pop_first() else { break };
                        check_fill(sides[who].area, DsaPointer::from_raw(raw), size);
                        free(sides[who].heap(), DsaPointer::from_raw(raw));
                    }
                }
                Step::Unpublished(who, size) => {
                    let heap = sides[who].heap();
                    let object = heap.allocate_unpublished(size, 8, Flags::empty()).unwrap();
                    fill(sides[who].area, object, size);
                    secret[who].push((object.raw(), size));
                }
                Step::Settle(who) => {
                    for (raw, size) in secret[who].drain(..) {
                        sides[who].heap().settle(DsaPointer::from_raw(raw)).unwrap();
                        live.insert(raw, size);
                    }
                }
                Step::Kill(who) => {
                    sides[who].proc.kill();
                    secret[who].clear();
                    sides[who] = join();
                    keeper_heap.maintain().unwrap();
                }
                Step::Leave(who) => {
                    let side = &mut sides[who];
                    side.heap.take().unwrap().release().unwrap();
                    prop_assert!(side.proc.ns.unregister(side.proc.thread));
                    secret[who].clear();
                    *side = join();
                    keeper_heap.maintain().unwrap();
                }
                Step::Trim(who) => drop(sides[who].heap().trim().unwrap()),
                Step::Maintain(who) => sides[who].heap().maintain().unwrap(),
                Step::Free(..) | Step::FreeAgain(_) => {}
            }
            if number % 16 == 0 {
                let report = area.check(keeper.participant).unwrap();
                let hidden: usize = secret.iter().map(Vec::len).sum();
                prop_assert_eq!(report.objects as usize, live.len() + hidden);
                prop_assert_eq!(report.unpublished as usize, hidden);
            }
        }
        for side in &sides {
            side.proc.kill();
        }
        for (raw, size) in live {
            check_fill(area, DsaPointer::from_raw(raw), size);
            free(&keeper_heap, DsaPointer::from_raw(raw));
        }
        keeper_heap.trim().unwrap();
        let report = area.check(keeper.participant).unwrap();
        prop_assert_eq!((report.used, report.slabs, report.unpublished), (0, 0, 0));
        prop_assert!(area.stats().unwrap().segments <= 2);
    }
}

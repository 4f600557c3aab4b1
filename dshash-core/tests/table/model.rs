//! Random operations by several processes, compared with the standard library's map.

use std::collections::HashMap;

use dshash_core::{Error, Params, Table};
use proptest::prelude::*;
use sim::HeapMachine;

use crate::support::{A, H, start};

#[derive(Clone, Debug)]
enum Op {
    Insert(u16),
    Add(u16),
    Delete(u16),
    Get(u16),
    Fill(u16, u16),
    Empty(u16, u16),
    DeleteByScan(u16),
    DeleteByGuard(u16),
    KillWithGuard(u16),
    Trim,
}

fn op() -> impl Strategy<Value = Op> {
    let key = 0u16..2000;
    prop_oneof![
        6 => key.clone().prop_map(Op::Insert),
        4 => key.clone().prop_map(Op::Add),
        6 => key.clone().prop_map(Op::Delete),
        6 => key.clone().prop_map(Op::Get),
        2 => (key.clone(), 0u16..600).prop_map(|(a, n)| Op::Fill(a, n)),
        2 => (key.clone(), 0u16..900).prop_map(|(a, n)| Op::Empty(a, n)),
        1 => (2u16..9).prop_map(Op::DeleteByScan),
        2 => key.clone().prop_map(Op::DeleteByGuard),
        1 => key.prop_map(Op::KillWithGuard),
        1 => Just(Op::Trim),
    ]
}

type Words = Table<u64, [u64; 2], &'static A>;

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]

    #[test]
    fn agrees_with_a_map(
        ops in proptest::collection::vec((op(), 0usize..3), 1..60),
        partitions in 0u32..3,
    ) {
        let machine = HeapMachine::new();
        machine.fill_new(0xaa);
        let first = start(&machine);
        let (area, heap) = first.create();
        let params = Params { partitions: 1 << partitions, ..Params::default() };
        let made = Words::create(area, heap, &params).unwrap();
        let handle = made.handle();
        let join = || {
            let process = start(&machine);
            let (other, heap): (&'static A, &'static H) = process.attach(area.handle().unwrap());
            // SAFETY: the table outlives its users.
            let table = unsafe { Words::attach(other, handle, &params) }.unwrap();
            (process, table, heap)
        };
        let mut processes = [(first, made, heap), join(), join()];
        let mut model = HashMap::<u64, [u64; 2]>::new();
        for (op, who) in ops {
            let (process, table, heap) = &processes[who];
            let session = table.bind(*heap).unwrap();
            match op {
                Op::Insert(key) => {
                    let key = u64::from(key);
                    let old = session.insert(&key, [key, 1]).unwrap();
                    prop_assert_eq!(old, model.insert(key, [key, 1]));
                }
                Op::Add(key) => {
                    let key = u64::from(key);
                    session.entry(&key).unwrap().or_insert([key, 5]).unwrap()[1] += 3;
                    model.entry(key).or_insert([key, 5])[1] += 3;
                }
                Op::Delete(key) => {
                    let key = u64::from(key);
                    prop_assert_eq!(session.delete(&key).unwrap(), model.remove(&key).is_some());
                }
                Op::Get(key) => {
                    let key = u64::from(key);
                    prop_assert_eq!(session.get(&key).unwrap(), model.get(&key).copied());
                    let found = session.find(&key).unwrap().map(|guard| *guard);
                    prop_assert_eq!(found, model.get(&key).copied());
                }
                Op::Fill(from, n) => for key in from..from + n {
                    let key = u64::from(key);
                    session.insert(&key, [key, 2]).unwrap();
                    model.insert(key, [key, 2]);
                },
                Op::Empty(from, n) => for key in from..from + n {
                    let key = u64::from(key);
                    prop_assert_eq!(session.delete(&key).unwrap(), model.remove(&key).is_some());
                },
                Op::DeleteByScan(modulus) => {
                    let mut scan = session.scan_mut();
                    while let Some(entry) = scan.next().unwrap() {
                        prop_assert_eq!(entry.value().unwrap(), &model[entry.key()]);
                        if *entry.key() % u64::from(modulus) == 0 {
                            entry.delete().unwrap();
                        }
                    }
                    model.retain(|key, _| key % u64::from(modulus) != 0);
                }
                Op::DeleteByGuard(key) => {
                    let key = u64::from(key);
                    if let Some(guard) = session.find_exclusive(&key).unwrap() {
                        guard.delete().unwrap();
                        prop_assert!(model.remove(&key).is_some());
                    }
                }
                Op::KillWithGuard(_) if who == 0 => {}
                Op::KillWithGuard(key) => {
                    let key = u64::from(key);
                    let guard = session.find_exclusive(&key).unwrap();
                    let there = guard.is_some();
                    process.kill();
                    drop(guard);
                    processes[who] = join();
                    let (_, table, heap) = &processes[0];
                    let session = table.bind(*heap).unwrap();
                    if there {
                        prop_assert_eq!(session.get(&key), Err(Error::Poisoned));
                        let expected = model[&key];
                        prop_assert!(session.repair(&key, |v| *v = expected).unwrap());
                    } else {
                        prop_assert_eq!(session.get(&key).unwrap(), None);
                    }
                }
                Op::Trim => session.trim().unwrap(),
            }
        }
        let (_, table, heap) = &processes[1];
        let session = table.bind(*heap).unwrap();
        let report = session.check().unwrap();
        prop_assert_eq!(report.stats.entries, model.len() as u64);
        prop_assert_eq!(report.poisoned, 0);
        let mut scan = session.scan();
        while let Some(entry) = scan.next().unwrap() {
            prop_assert_eq!(model.remove(entry.key()), Some(*entry.value().unwrap()));
        }
        prop_assert!(model.is_empty());
    }
}

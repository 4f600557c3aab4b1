//! Many threads of several processes at once.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use super::{assert_empty, config, join_as};
use dsm_core::handle::SegmentHandle;
use dsm_core::namespace::{Error, Namespace, NamespaceConfig};
use dsm_core::participant::ParticipantLocal;
use sim::HeapMachine;

/// Segments are made, found by others, and dropped; each carries its handle in its first word,
/// and how many threads are looking at it in its second.
fn busy(ns: &Namespace<'_>, board: &Mutex<Vec<SegmentHandle>>, seed: u64) {
    let mut random = seed;
    let mut kept = Vec::new();
    let local = ParticipantLocal::new();
    ns.register(&local).unwrap();
    for _ in 0..400 {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let pick = (random >> 40) as usize;
        match random >> 33 & 7 {
            0..=1 => match ns.create_segment(4096 + pick % 9000, 4096) {
                Ok(segment) => {
                    let words = segment.base().cast::<AtomicU64>();
                    // SAFETY: fresh memory of at least a page, which nobody knows of yet.
                    unsafe { words.write(AtomicU64::new(segment.handle().get())) };
                    board.lock().unwrap().push(segment.handle());
                    kept.push(segment);
                }
                Err(error) => assert_eq!(error, Error::TooManySegments(16)),
            },
            2..=4 => {
                let handle = {
                    let board = board.lock().unwrap();
                    board.get(pick % board.len().max(1)).copied()
                };
                let Some(handle) = handle else { continue };
                if let Some(segment) = ns.attach_segment(handle).unwrap() {
                    // SAFETY: written before the handle was published, and mapped.
                    let word = unsafe { segment.base().cast::<AtomicU64>().as_ref() };
                    assert_eq!(word.load(Ordering::Relaxed), handle.get());
                    kept.push(segment);
                }
            }
            5 => {
                assert!(ns.reap().is_ok());
            }
            _ => {
                if !kept.is_empty() {
                    kept.swap_remove(pick % kept.len());
                }
            }
        }
    }
    drop(kept);
    ns.unregister(&local);
}

#[test]
fn segments_are_whole_whoever_makes_and_drops_them() {
    for main_region in [0, 1 << 16] {
        let machine = HeapMachine::new();
        let config = NamespaceConfig { main_region, ..config() };
        let processes: Vec<_> = (0..3).map(|_| machine.process()).collect();
        let locals: Vec<_> = processes.iter().map(|process| process.local()).collect();
        let spaces: Vec<_> =
            (0..3).map(|i| join_as(&processes[i], &locals[i], &config).0).collect();
        let board = Mutex::new(Vec::new());
        std::thread::scope(|scope| {
            for (i, ns) in spaces.iter().enumerate() {
                for thread in 0..3 {
                    let board = &board;
                    scope.spawn(move || busy(ns, board, (i * 10 + thread) as u64));
                }
            }
        });
        assert_eq!(spaces[0].main_region(), (main_region, 0));
        for (process, ns) in processes.iter().zip(spaces) {
            assert_eq!(process.mapped(), 1, "the control segment alone");
            ns.leave(process).unwrap();
        }
        assert_empty(&machine);
    }
}

//! Threads that really run at once: in one process and in several, allocating, and freeing what
//! others allocated.

use std::sync::Barrier;
use std::sync::atomic::{AtomicU64, Ordering};

use dsa_core::{DsaPointer, HeapLocal, Options};
use dsm_core::participant::ParticipantLocal;
use sim::HeapMachine;

use crate::support::{Rng, check_fill, copy_in, copy_out, fill, free, start};

/// Objects are handed over through cells: whoever swaps a pointer out owns it.
#[test]
fn threads_pass_objects_around() {
    const THREADS: usize = 4;
    let machine = HeapMachine::new();
    let first = start(&machine);
    let (area, keeper) = first.create(&Options::default());
    let handle = area.handle().unwrap();
    let second = start(&machine);
    let (other, _) = second.attach(handle).unwrap();
    let cells: Vec<AtomicU64> = (0..512).map(|_| AtomicU64::new(0)).collect();
    let barrier = Barrier::new(THREADS);
    let (ours, theirs) = ((first.ns, area), (second.ns, other));
    let run = |thread: usize| {
        let (ns, area) = if thread % 2 == 0 { ours } else { theirs };
        let local = ParticipantLocal::new();
        ns.register(&local).unwrap();
        let participant = ns.participant(&local);
        let hints = HeapLocal::new();
        {
            let heap = area.heap(&participant, &hints).unwrap();
            let mut rng = Rng(thread as u64 * 7919 + 1);
            barrier.wait();
            for round in 0..30_000 {
                let size = match rng.below(30) {
                    0 => 16 + rng.below(40_000),
                    1..=4 => 16 + rng.below(3000),
                    _ => 16 + rng.below(200),
                };
                let object = heap.allocate(size).unwrap();
                // The size is kept in the object itself; a pattern follows it.
                copy_in(area, object, 0, &(size as u64).to_ne_bytes()).unwrap();
                copy_in(area, object, size - 8, &(size as u64).to_ne_bytes()).unwrap();
                let cell = &cells[rng.below(cells.len())];
                let old = DsaPointer::from_raw(cell.swap(object.raw(), Ordering::AcqRel));
                if old.is_valid() {
                    let (mut size, mut end) = ([0; 8], [0; 8]);
                    copy_out(area, old, 0, &mut size).unwrap();
                    let there = u64::from_ne_bytes(size) as usize;
                    copy_out(area, old, there - 8, &mut end).unwrap();
                    assert!(size == end, "{old:?} was changed");
                    // SAFETY: swapped out: nobody else knows it.
                    unsafe { heap.free(old) }.unwrap();
                }
                if round % 7000 == 0 {
                    heap.trim().unwrap();
                }
            }
            heap.release().unwrap();
        }
        assert!(ns.unregister(&local));
    };
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let run = &run;
            scope.spawn(move || run(thread));
        }
    });
    let live: Vec<_> =
        cells.iter().map(|c| c.load(Ordering::Relaxed)).filter(|r| *r != 0).collect();
    assert_eq!(area.check(first.participant).unwrap().objects, live.len() as u64);
    for raw in live {
        free(&keeper, DsaPointer::from_raw(raw));
    }
    keeper.trim().unwrap();
    let report = area.check(first.participant).unwrap();
    assert_eq!((report.objects, report.slabs), (0, 0));
    let object = keeper.allocate(100).unwrap();
    fill(area, object, 100);
    check_fill(other, object, 100);
}

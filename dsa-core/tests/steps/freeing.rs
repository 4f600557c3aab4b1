//! Freeing what a word names: at each store of it a kill leaves the object allocated and named, or
//! free and the word cleared, whoever comes first afterwards: whoever maintains the area, whoever
//! recovers the structure that has the word, or a slab's owner who was given the object again.

use std::cell::Cell;
use std::sync::atomic::Ordering;

use dsa_core::{Area, AreaLocal, AtomicDsaPointer, DsaPointer, Flags, Heap, HeapLocal};
use dsm_core::lock::rw::RwLock;
use dsm_core::namespace::Namespace;
use dsm_core::participant::{Participant, ParticipantLocal};
use sim::HeapMachine;

use crate::Scene;
use crate::support::{self, H, start};

type A<'a> = Area<'a, RwLock>;

/// Who allocated the object.
#[derive(Clone, Copy, PartialEq)]
enum Whose {
    Victims,
    Others,
    /// Of somebody who died with the object published but for its truth.
    Deads,
}

/// A cell that names a fresh object.
fn named(scene: &Scene, heap: &H, size: usize) -> (DsaPointer, DsaPointer) {
    let cell = scene.heap.allocate_extended(8, Flags::ZERO).unwrap();
    let dest = word(scene.area, cell);
    let object = heap.allocate_into(size, 8, Flags::empty(), dest, |_| {}).unwrap();
    (cell, object)
}

fn word<'a>(area: &'a A<'_>, cell: DsaPointer) -> &'a AtomicDsaPointer {
    // SAFETY: an allocated cell, used as one by all.
    unsafe { area.as_ref(cell.cast::<AtomicDsaPointer>()) }.unwrap()
}

fn free_from(heap: &Heap<'_, RwLock>, cell: DsaPointer) {
    // SAFETY: the object is used by nobody.
    unsafe { heap.free_from(word(heap.area(), cell)) }.unwrap();
}

/// A newcomer in a copy of the machine whose victim is dead.
fn newcomer(
    scene: &Scene,
    copy: &HeapMachine,
    look: impl FnOnce(&A<'_>, &Heap<'_, RwLock>, &Participant<'_>),
) {
    copy.kill_pid(scene.victim.process.pid());
    let process = copy.process();
    let local = process.local();
    let (ns, _) =
        Namespace::open(&process, process.platform(), &support::config(), &local).unwrap();
    let thread = ParticipantLocal::new();
    ns.register(&thread).unwrap();
    let participant = ns.participant(&thread);
    {
        let (table, hints) = (Box::new(AreaLocal::new()), Box::new(HeapLocal::new()));
        let area = Area::attach(&ns, scene.area.handle().unwrap(), &table).unwrap();
        let heap = area.heap(&participant, &hints).unwrap();
        look(&area, &heap, &participant);
    }
    assert!(ns.unregister(&thread));
    ns.leave(&process).unwrap();
}

/// Kills at every store of freeing an object of `size` bytes.
fn kill_everywhere(name: &str, whose: Whose, size: usize) {
    let mut scene = Scene::new();
    scene.allocate(3, 64);
    let dead = start(&scene.machine);
    let (_, deads) = dead.attach(scene.area.handle().unwrap()).unwrap();
    let allocator = match whose {
        Whose::Victims => &scene.heap,
        Whose::Others => &scene.other,
        Whose::Deads => &deads,
    };
    let (cell, object) = if whose == Whose::Deads {
        let cell = scene.heap.allocate_extended(8, Flags::ZERO).unwrap();
        let object = allocator.allocate_unpublished(size, 8, Flags::empty()).unwrap();
        word(scene.area, cell).store(object, Ordering::Relaxed);
        (cell, object)
    } else {
        named(&scene, allocator, size)
    };
    dead.kill();
    let live = scene.live.len() as u64;
    let outcomes = [Cell::new(0), Cell::new(0)];
    let operation = |s: &Scene| free_from(&s.heap, cell);
    scene.at_every_store(name, operation, |copy, number| {
        let what = format!("{name}, killed after {number} stores");
        // The allocator's recovery first.
        newcomer(&scene, &copy.snapshot(), |area, heap, participant| {
            // The dead's property is looked for only once the lock was taken: else the object
            // that the dead had stored in a cell by hand would be freed as unpublished.
            area.check(participant).unwrap_or_else(|e| panic!("{what}: {e}"));
            if whose != Whose::Deads {
                heap.maintain().unwrap();
            }
            let report = area.check(participant).unwrap_or_else(|e| panic!("{what}: {e}"));
            let there = word(area, cell).load(Ordering::Relaxed);
            assert!(there == object || !there.is_valid(), "{what}");
            let outcome = &outcomes[usize::from(there.is_valid())];
            outcome.set(outcome.get() + 1);
            let objects = live + 1 + u64::from(there.is_valid());
            assert_eq!(report.objects, objects, "{what}: {there:?}");
            free_from(heap, cell);
            free_from(heap, cell);
            assert_eq!(area.check(participant).unwrap().objects, live + 1, "{what}");
            if !there.is_valid() {
                // SAFETY: it must not be freed at all.
                assert!(unsafe { heap.free(object) }.is_err(), "{what}");
            }
        });
        // The structure's recovery first.
        newcomer(&scene, copy, |area, heap, participant| {
            if word(area, cell).load(Ordering::Relaxed).is_valid() {
                free_from(heap, cell);
            }
            assert!(!word(area, cell).load(Ordering::Relaxed).is_valid(), "{what}");
            let report = area.check(participant).unwrap_or_else(|e| panic!("{what}: {e}"));
            assert_eq!(report.objects, live + 1, "{what}");
            heap.maintain().unwrap();
            heap.trim().unwrap();
            let report = area.check(participant).unwrap_or_else(|e| panic!("{what}: {e}"));
            assert_eq!((report.objects, report.unpublished), (live + 1, 0), "{what}");
        });
    });
    assert!(outcomes.iter().all(|seen| seen.get() > 0), "{name}: {outcomes:?}");
}

#[test]
fn an_object_of_a_slab() {
    for size in [8, 3000] {
        kill_everywhere("an own object", Whose::Victims, size);
        kill_everywhere("another one's object", Whose::Others, size);
        kill_everywhere("an object of the dead", Whose::Deads, size);
    }
}

#[test]
fn a_run_of_pages() {
    for size in [20_000, 400_000] {
        kill_everywhere("an own run", Whose::Victims, size);

        kill_everywhere("a run of the dead", Whose::Deads, size);
    }
}

#[test]
fn an_object_given_out_again_before_recovery_is_left_alone() {
    let mut scene = Scene::new();
    scene.allocate(3, 64);
    let (cell, object) = named(&scene, &scene.other, 40);
    let live = scene.live.len() as u64;
    let handle = scene.area.handle().unwrap();
    let bytes = |machine: &HeapMachine| {
        let viewer = machine.process();
        let segment = dsm_core::provider::SegmentProvider::attach(
            &viewer,
            handle,
            dsm_core::handle::ObjectId::default(),
        );
        let mapping = segment.unwrap();
        (mapping.base.as_ptr(), mapping.len)
    };
    // Where its truth byte is: what turns from 1 to 0 when somebody frees it.
    let truth = {
        let copy = scene.machine.snapshot();
        let (base, len) = bytes(&copy);
        // SAFETY: mapped as long as the copy.
        let look = || unsafe { std::slice::from_raw_parts(base, len) }.to_vec();
        let before = look();
        newcomer(&scene, &copy, |_, heap, _| support::free(heap, object));
        let after = look();
        (0..len).find(|i| before[*i] == 1 && after[*i] == 0).unwrap()
    };
    let again = Cell::new(0);
    scene.at_every_store(
        "given out again",
        |s| free_from(&s.heap, cell),
        |copy, number| {
            let (base, _) = bytes(copy);
            // SAFETY: inside the segment.
            let byte = unsafe { base.add(truth) };
            // SAFETY: nobody else uses the copy now.
            if unsafe { byte.read() } != 0 {
                return;
            }
            again.set(again.get() + 1);
            // The owner allocates it: for the same cell, even, as it may.
            // SAFETY: as above.
            unsafe { byte.write(1) };
            newcomer(&scene, copy, |area, heap, participant| {
                assert!(!word(area, cell).load(Ordering::Relaxed).is_valid());
                word(area, cell).store(object, Ordering::Relaxed);
                heap.maintain().unwrap();
                let report = area.check(participant).unwrap();
                assert_eq!(report.objects, live + 2, "killed after {number} stores");
                assert_eq!(word(area, cell).load(Ordering::Relaxed), object);
                support::free(heap, object);
            });
        },
    );
    assert!(again.get() > 0);
}

#[test]
fn a_change_that_is_over_is_forgotten() {
    let mut scene = Scene::new();
    scene.allocate(3, 64);
    let (cell, object) = named(&scene, &scene.heap, 20_000);
    free_from(&scene.heap, cell);
    support::free(&scene.heap, cell);
    scene.allocate(1, 20_000);
    assert_eq!(scene.live[3].0, object);
    let operation = |s: &Scene| assert!(s.heap.allocate(20_000).is_ok());
    scene.kill_everywhere("allocating a run", operation, None, crate::at_most_one_more);
}

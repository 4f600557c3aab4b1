//! What a kill leaves after *each store* of an operation.
//!
//! See `testkit::steps`. In the copy that each prefix of the stores leaves the victim is dead, a newcomer
//! goes on, and everything must be in order: nothing half done, nothing lost, nothing handed out
//! twice.
#![cfg(all(target_os = "linux", target_arch = "x86_64", not(loom)))]

mod freeing;
#[path = "../area/support.rs"]
#[expect(dead_code, reason = "shared with another test, which uses all of it")]
mod support;

use dsa_core::{Area, AreaLocal, AtomicDsaPointer, DsaPointer, Flags, Heap, HeapLocal, Options};
use dsm_core::lock::rw::RwLock;
use dsm_core::namespace::Namespace;
use dsm_core::participant::ParticipantLocal;
use sim::HeapMachine;
use std::sync::atomic::Ordering;

use testkit::steps::{Samples, at_every_store};

use support::{A, H, Proc, check_fill, fill, free, start};

/// A victim and a bystander in one area, and what is allocated in it for certain.
struct Scene {
    machine: HeapMachine,
    victim: Proc,
    area: &'static A,
    heap: H,
    other: H,
    live: Vec<(DsaPointer, usize)>,
}

impl Scene {
    fn new() -> Self {
        let machine = HeapMachine::new();
        machine.fill_new(0xAA);
        let bystander = start(&machine);
        let victim = start(&machine);
        let options = Options { initial: 128 << 10, ..Options::default() };
        let (area, heap) = victim.create(&options);
        area.pin().unwrap();
        let (_, other) = bystander.attach(area.handle().unwrap()).unwrap();
        Self { machine, victim, area, heap, other, live: Vec::new() }
    }

    fn allocate(&mut self, count: usize, size: usize) {
        for _ in 0..count {
            let object = self.heap.allocate(size).unwrap();
            fill(self.area, object, size);
            self.live.push((object, size));
        }
    }

    /// Steps through `operation`, and judges what a kill leaves after each store: `judge` is given
    /// the objects there are, those that are known, and the newcomer's area. `doubtful` may be
    /// there or not.
    fn kill_everywhere(
        self,
        name: &str,
        operation: impl FnOnce(&Self),
        doubtful: Option<DsaPointer>,
        judge: impl Fn(u64, u64, &Area<'_, RwLock>, &Heap<'_, RwLock>) -> bool,
    ) {
        self.at_every_store(name, operation, |copy, number| {
            self.judge_one(copy, name, number, doubtful, &judge);
        });
    }

    /// Steps through `operation`, and gives `judge` a copy of the machine for each prefix of its
    /// stores, with their number.
    fn at_every_store(
        &self,
        name: &str,
        operation: impl FnOnce(&Self),
        judge: impl Fn(&HeapMachine, usize),
    ) {
        let samples = Samples { evenly: 24, first: 24, last: 40 };
        let stores = at_every_store(&self.machine, samples, || operation(self), judge);
        assert!(stores > 0, "{name}: nothing was stored");
    }

    fn judge_one(
        &self,
        copy: &HeapMachine,
        name: &str,
        number: usize,
        doubtful: Option<DsaPointer>,
        judge: &impl Fn(u64, u64, &Area<'_, RwLock>, &Heap<'_, RwLock>) -> bool,
    ) {
        copy.kill_pid(self.victim.process.pid());
        let process = copy.process();
        let local = process.local();
        let (ns, _) =
            Namespace::open(&process, process.platform(), &support::config(), &local).unwrap();
        let thread = ParticipantLocal::new();
        ns.register(&thread).unwrap();
        let participant = ns.participant(&thread);
        {
            let (table, hints) = (Box::new(AreaLocal::new()), Box::new(HeapLocal::new()));
            let area = Area::attach(&ns, self.area.handle().unwrap(), &table).unwrap();
            let heap = area.heap(&participant, &hints).unwrap();
            heap.maintain().unwrap();
            let report = area
                .check(&participant)
                .unwrap_or_else(|e| panic!("{name}, killed after {number} stores: {e}"));
            assert_eq!(report.unpublished, 0, "{name}, killed after {number} stores");
            let live = self.live.len() as u64;
            assert!(
                judge(report.objects, live, &area, &heap),
                "{name}, killed after {number} stores: {} objects, {live} known",
                report.objects
            );
            for (object, size) in &self.live {
                check_fill(&area, *object, *size);
            }
            let mine: Vec<_> =
                [64, 128, 3000, 20_000].iter().map(|size| heap.allocate(*size).unwrap()).collect();
            assert!(mine.iter().all(|new| self.live.iter().all(|(old, _)| old != new)));
            for object in mine.iter().chain(self.live.iter().map(|(object, _)| object)) {
                free(&heap, *object);
            }
            if let Some(object) = doubtful {
                // SAFETY: used by nobody; it may be free already.
                let _ = unsafe { heap.free(object) };
            }
            area.check(&participant).unwrap();
        }
        assert!(ns.unregister(&thread));
        ns.leave(&process).unwrap();
    }
}

/// A bare allocation may be there or not.
fn at_most_one_more(objects: u64, live: u64, _: &Area<'_, RwLock>, _: &Heap<'_, RwLock>) -> bool {
    objects == live || objects == live + 1
}

/// Nothing may be added or lost.
fn exactly(objects: u64, live: u64, _: &Area<'_, RwLock>, _: &Heap<'_, RwLock>) -> bool {
    objects == live
}

#[test]
fn making_a_slab_of_a_page() {
    let mut scene = Scene::new();
    scene.allocate(3, 64);
    let operation = |s: &Scene| assert!(s.heap.allocate(128).is_ok());
    scene.kill_everywhere("a slab of a page", operation, None, at_most_one_more);
}

#[test]
fn making_a_slab_of_a_unit() {
    let mut scene = Scene::new();
    // Four slabs of a page come first; large objects make the next one's table short.
    scene.allocate(16, 1024);
    let slabs = scene.area.check(scene.victim.participant).unwrap().slabs;
    assert_eq!(slabs, 4);
    let operation = |s: &Scene| assert!(s.heap.allocate(1024).is_ok());
    scene.kill_everywhere("a slab of a unit", operation, None, at_most_one_more);
}

#[test]
fn allocating_and_freeing_a_run() {
    let mut scene = Scene::new();
    scene.allocate(3, 64);
    let operation = |s: &Scene| assert!(s.heap.allocate(20_000).is_ok());
    scene.kill_everywhere("allocating a run", operation, None, at_most_one_more);

    let mut scene = Scene::new();
    scene.allocate(3, 20_000);
    let object = scene.heap.allocate(20_000).unwrap();
    let operation = move |s: &Scene| free(&s.heap, object);
    scene.kill_everywhere("freeing a run", operation, Some(object), at_most_one_more);
}

#[test]
fn giving_up_slabs() {
    let mut scene = Scene::new();
    scene.allocate(2, 256);
    let objects: Vec<_> = (0..30).map(|_| scene.heap.allocate(1024).unwrap()).collect();
    for object in objects {
        free(&scene.heap, object);
    }
    let operation = |s: &Scene| assert_eq!(s.heap.trim(), Ok(0));
    scene.kill_everywhere("giving up slabs", operation, None, exactly);
}

#[test]
fn freeing_another_ones_object() {
    let mut scene = Scene::new();
    scene.allocate(3, 64);
    let object = scene.other.allocate(64).unwrap();
    let operation = move |s: &Scene| free(&s.heap, object);
    scene.kill_everywhere("a remote free", operation, Some(object), at_most_one_more);
}

#[test]
fn publishing() {
    for size in [40, 20_000] {
        let mut scene = Scene::new();
        scene.allocate(3, 64);
        let cell = scene.heap.allocate_extended(8, Flags::ZERO).unwrap();
        // SAFETY: zeroed, and allocated as long as the scene.
        let dest = unsafe { scene.area.as_ref(cell.cast::<AtomicDsaPointer>()) }.unwrap();
        let operation = move |s: &Scene| {
            s.heap.allocate_into(size, 8, Flags::empty(), dest, |_| {}).unwrap();
        };
        let judge =
            move |objects: u64, live: u64, area: &Area<'_, RwLock>, heap: &Heap<'_, RwLock>| {
                // SAFETY: as above.
                let dest = unsafe { area.as_ref(cell.cast::<AtomicDsaPointer>()) }.unwrap();
                let published = dest.load(Ordering::Relaxed);
                if !published.is_valid() {
                    return objects == live + 1;
                }
                let there = objects == live + 2;
                free(heap, published);
                there
            };
        scene.kill_everywhere("publishing", operation, Some(cell), judge);
    }
}

#[test]
fn adopting_what_the_dead_left() {
    let mut scene = Scene::new();
    let dead = start(&scene.machine);
    let (_, theirs) = dead.attach(scene.area.handle().unwrap()).unwrap();
    for size in [64, 64, 2000, 20_000] {
        let object = theirs.allocate(size).unwrap();
        fill(scene.area, object, size);
        scene.live.push((object, size));
        for _ in 0..3 {
            theirs.allocate_unpublished(size, 8, Flags::empty()).unwrap();
        }
    }
    let empty = theirs.allocate(500).unwrap();
    free(&theirs, empty);
    dead.kill();
    let operation = |s: &Scene| s.heap.maintain().unwrap();
    scene.kill_everywhere("adopting", operation, None, exactly);
}

#[test]
fn leaving() {
    let mut scene = Scene::new();
    scene.allocate(3, 64);
    scene.allocate(1, 2000);
    let (participant, hints) = (scene.victim.participant, support::leak(HeapLocal::new()));
    let heap = scene.area.heap(participant, hints).unwrap();
    let kept = heap.allocate(1000).unwrap();
    fill(scene.area, kept, 1000);
    scene.live.push((kept, 1000));
    let emptied = heap.allocate(64).unwrap();
    free(&heap, emptied);
    let operation = move |_: &Scene| heap.release().unwrap();
    scene.kill_everywhere("leaving", operation, None, exactly);
}

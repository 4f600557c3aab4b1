//! What a kill leaves at each call of the platform: a copy of the whole machine is taken there,
//! the caller is killed in the copy, and a newcomer goes on with what it finds. Calls of the
//! platform are made while locks are held and segments are half made, or half given back.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use dsa_core::{DsaPointer, Options};
use dsm_core::handle::SegmentHandle;
use sim::HeapMachine;

use crate::support::{check_fill, fill, free, start};

/// What the victim has allocated for certain, and what it is about to free.
#[derive(Clone, Default)]
struct Known {
    live: BTreeMap<u64, usize>,
    doubtful: Option<(u64, usize)>,
}

/// Goes on in a copy of the machine in which the victim was killed.
fn survive(copy: &HeapMachine, victim: u64, handle: SegmentHandle, known: &Known, at: &str) {
    copy.kill_pid(victim);
    let r = start(copy);
    let (area, heap) = r.attach(handle).unwrap();
    heap.maintain().unwrap();
    let report = area.check(r.participant).unwrap_or_else(|e| panic!("killed at {at}: {e}"));
    let live = known.live.len() as u64;
    // One object may be under way: allocated but not told, or told to be freed.
    assert!(
        (live..=live + 1).contains(&report.objects),
        "killed at {at}: {} objects of {live}",
        report.objects
    );
    for (raw, size) in &known.live {
        check_fill(area, DsaPointer::from_raw(*raw), *size);
    }
    // The area works: for all sizes, and it grows.
    let mine: Vec<_> = [64, 3000, 8000, 20_000, 600_000]
        .into_iter()
        .flat_map(|size| (0..3).map(move |_| size))
        .map(|size| heap.allocate(size).unwrap())
        .collect();
    for object in mine.into_iter().chain(known.live.keys().map(|raw| DsaPointer::from_raw(*raw))) {
        free(&heap, object);
    }
    if let Some((raw, _)) = known.doubtful {
        // SAFETY: used by nobody; it may be free already.
        let _ = unsafe { heap.free(DsaPointer::from_raw(raw)) };
    }
    heap.trim().unwrap();
    let report = area.check(r.participant).unwrap();
    assert!(report.objects <= 1, "killed at {at}: {} objects are left", report.objects);
    // Control segment, first segment; the sixteenth; one for an object that was under way.
    let left = copy.objects().len();
    assert!(left <= 4, "killed at {at}: {left} objects of the system are left");
    area.unpin().unwrap();
    copy.kill_all();
    let last = start(copy);
    last.ns.reap().unwrap();
    assert_eq!(copy.objects().len(), 1, "killed at {at}");
}

#[test]
fn a_kill_at_each_call_of_the_platform() {
    let machine = HeapMachine::new();
    machine.fill_new(0xAA);
    // Somebody keeps the namespace.
    let _bystander = start(&machine);
    let p = start(&machine);
    let victim = p.process.pid();
    let (area, heap) = p.create(&Options::default());
    area.pin().unwrap();
    let handle = area.handle().unwrap();
    let known = Arc::new(Mutex::new(Known::default()));
    let images = Arc::new(Mutex::new(BTreeMap::<String, u32>::new()));
    let hook = {
        let (known, images) = (known.clone(), images.clone());
        move |machine: &HeapMachine, what: &'static str| {
            let known = known.lock().unwrap().clone();
            let number = {
                let mut images = images.lock().unwrap();
                let count = images.entry(what.to_string()).or_default();
                *count += 1;
                *count
            };
            // Of calls that come in hundreds (a step of memory each), some.
            if number < 12 || number % 16 == 0 {
                let at = format!("{what} {number}");
                survive(&machine.snapshot(), victim, handle, &known, &at);
            }
        }
    };
    machine.on_call(Some(Arc::new(hook)));
    for round in 0..2 {
        for size in [100, 64, 5000, 70_000, 300_000, 2000, 1_000_000] {
            for _ in 0..if size < 4000 { 400 } else { 3 } {
                let object = heap.allocate(size).unwrap();
                fill(area, object, size);
                known.lock().unwrap().live.insert(object.raw(), size);
            }
        }
        loop {
            let Some((raw, size)) = known.lock().unwrap().live.pop_first() else { break };
            known.lock().unwrap().doubtful = Some((raw, size));
            free(&heap, DsaPointer::from_raw(raw));
            known.lock().unwrap().doubtful = None;
        }
        heap.trim().unwrap();
        assert_eq!(area.check(p.participant).unwrap().objects, 0, "round {round}");
    }
    machine.on_call(None);
    let images = images.lock().unwrap();
    for call in ["create", "reserve", "detach", "blank", "destroy"] {
        assert!(images.contains_key(call) || call == "detach", "{call} of {images:?}");
    }
}

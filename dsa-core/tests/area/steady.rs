//! Runs of pages that come and go: what the system is asked for, what is kept, and until when.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use dsa_core::{DsaPointer, Options};
use sim::HeapMachine;

use crate::support::{A, H, check_fill, fill, free, start};

/// Runs `work`; returns how often the platform was asked for memory, mappings or removals
/// meanwhile.
fn calls(machine: &HeapMachine, work: impl FnOnce()) -> u32 {
    let count = Arc::new(AtomicU32::new(0));
    let counter = count.clone();
    machine.on_call(Some(Arc::new(move |_, what| {
        if ["create", "attach", "reserve", "detach", "blank", "destroy", "stat"].contains(&what) {
            counter.fetch_add(1, Ordering::Relaxed);
        }
    })));
    work();
    machine.on_call(None);
    count.load(Ordering::Relaxed)
}

fn pair(heap: &H, size: usize) {
    free(heap, heap.allocate(size).unwrap());
}

#[test]
fn a_run_that_comes_and_goes_asks_the_system_for_nothing() {
    for size in [8193, 16 << 10, 64 << 10, 1 << 20, 20 << 20] {
        let machine = HeapMachine::new();
        let p = start(&machine);
        let (area, heap) = p.create(&Options::default());
        let first = calls(&machine, || pair(&heap, size));
        assert!(first > 0, "{size}: the test doesn't see what it counts");
        let then = calls(&machine, || (0..100).for_each(|_| pair(&heap, size)));
        assert_eq!(then, 0, "of {size} bytes, 100 times");
        area.check(p.participant).unwrap();
    }
}

/// Objects of different sizes in turn, beside some that stay.
#[test]
fn nor_do_runs_of_many_sizes() {
    let machine = HeapMachine::new();
    let p = start(&machine);
    let (area, heap) = p.create(&Options::default());
    let stay: Vec<_> = (0..40).map(|_| heap.allocate(100_000).unwrap()).collect();
    let round =
        || [1 << 20, 9000, 64 << 10, 300_000].into_iter().for_each(|size| pair(&heap, size));
    round();
    assert_eq!(calls(&machine, || (0..50).for_each(|_| round())), 0);
    for object in stay {
        free(&heap, object);
    }
    area.check(p.participant).unwrap();
}

/// What memory lies empty, in pages, and how much of it at most in one segment, as the dump has it;
/// then the pages of the segments in use, and the number of segments.
fn empty(area: &A) -> (u64, u64, u64, usize) {
    let mut text = String::new();
    area.dump(&mut text).unwrap();
    let numbers = |line: &str| -> Vec<u64> {
        let (_, line) = line.split_once(" live: ").unwrap();
        line.split(|c: char| !c.is_ascii_digit()).filter_map(|n| n.parse().ok()).collect()
    };
    let segments = text.lines().filter(|line| line.starts_with("  segment "));
    let segments: Vec<Vec<u64>> = segments.map(numbers).collect();
    // (bytes, backed, free, longest, units): all but a fiftieth is free, and one run.
    let least = |bytes: u64| bytes / 4096 - (bytes / 4096).div_ceil(50) - 1;
    let is_empty = |s: &&Vec<u64>| s[2] == s[3] && s[2] >= least(s[0]);
    let (empty, used): (Vec<_>, Vec<_>) = segments[1..].iter().partition(is_empty);
    let sum = |segments: &[&Vec<u64>]| segments.iter().map(|s| s[1]).sum();
    let most = empty.iter().map(|s| s[1]).max().unwrap_or(0);
    (sum(&empty), most, segments[0][1] + sum(&used), segments.len())
}

#[test]
fn a_quarter_of_what_is_used_is_kept_and_nothing_after_a_trim() {
    let machine = HeapMachine::new();
    let p = start(&machine);
    let options = Options { maximum: 1 << 20, ..Options::default() };
    let (area, heap) = p.create(&options);
    let mut live: Vec<_> = (0..400).map(|_| heap.allocate(100_000).unwrap()).collect();
    let mut kept = 0;
    while let Some(object) = live.pop() {
        free(&heap, object);
        let (pages, most, used, segments) = empty(area);
        assert!(pages <= most.max(used / 4), "{pages} empty, {most} at once, {used} used");
        kept = kept.max(pages / most.max(1));
        assert!(segments > 1);
    }
    assert!(kept >= 4, "{kept} segments were kept");
    let (pages, most, _, segments) = empty(area);
    assert_eq!((pages, segments), (most, 3), "one is kept, and that with the directory's rest");
    // Also by somebody who had nothing to do with it.
    let q = start(&machine);
    let (theirs, their_heap) = q.attach(area.handle().unwrap()).unwrap();
    assert_eq!(their_heap.trim(), Ok(1));
    assert_eq!(theirs.stats().unwrap().segments, 2);
    heap.maintain().unwrap();
    assert_eq!(machine.objects().len(), 3, "the control object and those two");
    theirs.check(q.participant).unwrap();
}

#[test]
fn what_is_kept_goes_with_the_last_process() {
    let machine = HeapMachine::new();
    let p = start(&machine);
    let (_, heap) = p.create(&Options::default());
    pair(&heap, 1 << 20);
    assert_eq!(machine.objects().len(), 3);
    p.kill();
    let q = start(&machine);
    q.ns.reap().unwrap();
    assert_eq!(machine.objects().len(), 1, "the control object");
}

/// What lies empty is no reason to refuse what fits instead of it.
#[test]
fn at_the_limit_nothing_is_kept() {
    let machine = HeapMachine::new();
    let p = start(&machine);
    let options = Options { limit: 4 << 20, maximum: 1 << 20, ..Options::default() };
    let (area, heap) = p.create(&options);
    pair(&heap, 2 << 20);
    assert!(area.stats().unwrap().total > 2 << 20, "it was kept");
    let object = heap.allocate(3 << 20).unwrap();
    fill(area, object, 3 << 20);
    check_fill(area, object, 3 << 20);
    free(&heap, object);
    area.check(p.participant).unwrap();
}

/// Nor when the machine has no memory any more: neither for a segment nor behind one that is there.
#[test]
fn when_memory_is_short_nothing_is_kept() {
    for more in [2 << 20, 20_000] {
        let machine = HeapMachine::new();
        let p = start(&machine);
        let (area, heap) = p.create(&Options::default());
        let stays = heap.allocate(1 << 20).unwrap();
        // It is behind the other one, in a segment that is backed as far as was needed.
        let large = heap.allocate(4 << 20).unwrap();
        free(&heap, large);
        let small: Vec<_> = (0..10).map(|_| heap.allocate(4000).unwrap()).collect();
        machine.set_capacity(Some(machine.used() + 4096));
        // Another process's table still has it, in vain.
        let mut live = vec![heap.allocate(more).unwrap()];
        while let Ok(object) = heap.allocate(more) {
            live.push(object);
        }
        for object in &live {
            fill(area, *object, more);
        }
        assert!(!p.thread.holds_any());
        area.check(p.participant).unwrap();
        machine.set_capacity(None);
        for object in live.into_iter().chain(small).chain([stays]) {
            free(&heap, object);
        }
        heap.trim().unwrap();
        assert_eq!(area.stats().unwrap().segments, 1);
    }
}

/// An eighth of what a segment has is backed at once, up to 64 KiB: few calls, little too early.
#[test]
fn backing_grows_by_an_eighth() {
    let machine = HeapMachine::new();
    let p = start(&machine);
    let (area, heap) = p.create(&Options { initial: 16 << 20, ..Options::default() });
    let mut objects = Vec::new();
    let asked = calls(&machine, || {
        objects.extend((0..700).map(|_| heap.allocate(12_000).unwrap()));
    });
    assert_eq!(area.stats().unwrap().segments, 1);
    assert!(asked < 300, "{asked} calls for 8.6 MB");
    let stats = area.stats().unwrap();
    assert!(stats.reserved < 700 * 12_288 + (400 << 10), "{stats:?}");
    assert_eq!(objects.iter().filter(|object: &&DsaPointer| object.is_valid()).count(), 700);
}

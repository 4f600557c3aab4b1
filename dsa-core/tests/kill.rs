//! Real processes on real shared memory, killed at random moments and replaced.
//!
//! Each worker has a range of cells in the area. It publishes objects into empty cells of its own
//! (`allocate_into`), takes objects out of anybody's cells, looks whether they are whole, and
//! frees them, or moves them to a cell of its own. A kill between taking out and freeing loses one
//! object, which nobody can know of; nothing else may be lost.
#![cfg(all(any(unix, windows), not(loom)))]

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use dsa_core::{
    Area, AreaLocal, AtomicDsaPointer, DsaPointer, Error, Flags, Heap, HeapLocal, Options,
};
use dsm_core::handle::SegmentHandle;
use dsm_core::lock::rw::RwLock;
use dsm_core::namespace::{Namespace, NamespaceConfig};
use dsm_core::participant::{Participant, ParticipantLocal};
use testkit::process::Peer;
use testkit::system::{System, forever};

type A = Area<'static, RwLock>;

const WORKERS: usize = 3;
const CELLS: usize = 400;
const KILLS: u64 = 60;

fn rng(state: &mut u64) -> usize {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    (*state >> 11) as usize
}

struct Home {
    system: &'static System,
    ns: Option<Namespace<'static>>,
    thread: &'static ParticipantLocal,
}

fn open(name: &str) -> Home {
    let config = NamespaceConfig { max_segments: 256, ..NamespaceConfig::default() };
    let (system, ns) = testkit::system::join(name, &config);
    let thread = forever(ParticipantLocal::new());
    ns.register(thread).unwrap();
    Home { system, ns: Some(ns), thread }
}

/// The cell at `index`.
fn cell<'a>(area: &'a Area<'_, RwLock>, cells: DsaPointer, index: usize) -> &'a AtomicDsaPointer {
    // SAFETY: the array was zeroed and is never freed while workers run.
    unsafe { area.as_ref(cells.add(index as u64 * 8).cast()) }.unwrap()
}

/// Writes the size and a pattern into a new object.
fn write(memory: std::ptr::NonNull<u8>, size: usize) {
    for word in 0..size / 8 {
        // SAFETY: inside the object of `size` bytes.
        let at = unsafe { memory.cast::<u64>().add(word) };
        // SAFETY: as above; nobody else knows it yet.
        unsafe { at.write(if word == 0 { size as u64 } else { size as u64 ^ word as u64 }) };
    }
}

fn is_whole(area: &Area<'_, RwLock>, object: DsaPointer) -> bool {
    let copy_out = |to: &mut [u8]| {
        // SAFETY: whoever has an object of this area uses it through checked copies, once it is
        // filled.
        unsafe { area.copy_out(object, 0, to) }.unwrap();
    };
    let mut size = [0; 8];
    copy_out(&mut size);
    let size = u64::from_ne_bytes(size) as usize;
    let mut data = vec![0; size];
    copy_out(&mut data);
    data.chunks_exact(8).enumerate().skip(1).all(|(word, bytes)| {
        u64::from_ne_bytes(bytes.try_into().unwrap()) == size as u64 ^ word as u64
    })
}

fn size(state: &mut u64) -> usize {
    8 * match rng(state) % 40 {
        0 => 1 + rng(state) % 8000,
        1..=8 => 1 + rng(state) % 800,
        _ => 1 + rng(state) % 30,
    }
}

fn work(
    area: &Area<'_, RwLock>,
    heap: &Heap<'_, RwLock>,
    cells: DsaPointer,
    who: usize,
    seed: u64,
) -> ! {
    let mut state = seed | 1;
    loop {
        let own = cell(area, cells, who * CELLS + rng(&mut state) % CELLS);
        if !own.load(Ordering::Relaxed).is_valid() {
            let size = size(&mut state);
            heap.allocate_into(size, 8, Flags::empty(), own, |at| write(at, size)).unwrap();
        }
        let any = cell(area, cells, rng(&mut state) % (CELLS * WORKERS));
        if rng(&mut state) % 4 == 0 {
            // SAFETY: the cells are used for nothing else.
            match unsafe { heap.move_between(any, own) } {
                Ok(_) | Err(Error::Occupied(_)) => {}
                Err(error) => panic!("{error}"),
            }
        }
        if rng(&mut state) % 3 != 0 {
            let object = heap.take(any).unwrap();
            if object.is_valid() {
                assert!(is_whole(area, object), "{object:?} was changed");
                // SAFETY: taken out of its cell: nobody else knows it.
                unsafe { heap.free(object) }.unwrap();
            }
        }
        match rng(&mut state) % 5000 {
            0 => drop(heap.trim().unwrap()),
            1 => heap.maintain().unwrap(),
            _ => {}
        }
    }
}

/// Does nothing unless started as a worker by the test below.
#[test]
fn worker() {
    let Some(part) = testkit::process::part() else { return };
    let home = open(part.argument(0));
    let ns = forever(home.ns.unwrap());
    let handle = SegmentHandle::from_raw(part.number(1)).unwrap();
    let area = forever(A::attach(ns, handle, forever(AreaLocal::new())).unwrap());
    let participant = forever(ns.participant(home.thread));
    let heap = area.heap(participant, forever(HeapLocal::new())).unwrap();
    part.say("at work");
    work(
        area,
        &heap,
        DsaPointer::from_raw(part.number(2)),
        part.number(3) as usize,
        part.number(4),
    );
}

fn spawn(name: &str, handle: SegmentHandle, cells: DsaPointer, who: usize, seed: usize) -> Peer {
    let [handle, cells, who, seed] =
        [handle.get(), cells.raw(), who as u64, seed as u64].map(|number| number.to_string());
    Peer::start("worker", "worker", &[name, &handle, &cells, &who, &seed])
}

#[test]
fn nothing_is_lost_when_workers_are_killed() {
    let name = testkit::name("dsa-kill");
    let mut home = open(&name);
    {
        let ns = home.ns.as_ref().unwrap();
        let local = Box::new(AreaLocal::new());
        let area: Area<'_, RwLock> = Area::create(ns, &Options::default(), &local).unwrap();
        let hints = Box::new(HeapLocal::new());
        let participant: Participant<'_> = ns.participant(home.thread);
        let heap = area.heap(&participant, &hints).unwrap();
        let bytes = CELLS * WORKERS * 8;
        let cells = heap.allocate_extended(bytes, Flags::ZERO).unwrap();
        let handle = area.handle().unwrap();
        let mut state = 0x1234_5678_9abc_def1;
        let mut workers: Vec<_> =
            (0..WORKERS).map(|w| spawn(&name, handle, cells, w, rng(&mut state))).collect();
        workers.iter_mut().for_each(|worker| worker.expect("at work"));
        let end = Instant::now() + Duration::from_secs(20);
        let mut kills = 0_u64;
        while kills < testkit::rounds(KILLS) && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(20 + rng(&mut state) as u64 % 60));
            let who = rng(&mut state) % WORKERS;
            workers[who].kill_and_collect();
            kills += 1;
            workers[who] = spawn(&name, handle, cells, who, rng(&mut state));
            // Every fourth one may be killed before it is at work.
            if kills % 4 != 0 {
                workers[who].expect("at work");
            }
        }
        for worker in &mut workers {
            worker.kill_and_collect();
            kills += 1;
        }
        ns.reap().unwrap();
        heap.maintain().unwrap();
        let report = area.check(&participant).unwrap();
        assert_eq!(report.unpublished, 0);
        let mut live = 0;
        for index in 0..CELLS * WORKERS {
            let object = cell(&area, cells, index).load(Ordering::Acquire);
            if object.is_valid() {
                live += 1;
                assert!(is_whole(&area, object), "{object:?} was changed");
                // SAFETY: nobody else is left.
                unsafe { heap.free(object) }.unwrap();
            }
        }
        assert!(live > 0 && kills > 5);
        // Its own array is an object, too.
        let lost = report.objects - live - 1;
        assert!(lost <= kills, "{lost} objects lost by {kills} kills");
        // SAFETY: as above.
        unsafe { heap.free(cells) }.unwrap();
        assert_eq!(area.check(&participant).unwrap().objects, lost);
        heap.trim().unwrap();
        let stats = area.stats().unwrap();
        assert!(stats.segments as u64 <= 2 + lost, "{stats:?}");
        heap.release().unwrap();
    }
    let ns = home.ns.take().unwrap();
    assert!(ns.unregister(home.thread));
    ns.leave(home.system).unwrap();
    let left = testkit::system::objects_of(&name);
    assert!(left.is_empty(), "{left:?}");
}

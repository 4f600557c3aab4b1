//! Works on the allocator: pairs of allocate and free, and the way from a pointer to an address.
//!
//! A pair at once (`alloc_lifo_*`) shows the fast path alone; 10,000 live objects freed in
//! random order (`alloc_random_*`) show what the allocator's own data costs once it no longer
//! lies in the first-level cache. The objects themselves are not touched: that would measure the
//! caches, the same for everybody. A pair of an object that is made of pages (`alloc_free_*`) is
//! to cost no call of the system, in the long run.
//!
//! `resolve` reads a word of an object through its pointer. The peers' pointers are addresses, so
//! their figure is that of the read alone.

use std::hint::black_box;

use dsa_core::Options;

use crate::interface::Heap;
use crate::measure::{Random, Sample, Stopwatch, repeat, rounds};
use crate::ours::area::{CoreHeap, RegistryHeap};
use crate::peers::heaps::{Glibc, Mimalloc};
use crate::work::{Contestant, Lengths, Runner, Who, Work};

/// Object sizes of `alloc_lifo_*`, in bytes.
const LIFO_SIZES: [usize; 4] = [16, 64, 256, 1024];
/// Object sizes of `alloc_free_*`, in bytes, and how they are called.
const RUN_SIZES: [(usize, &str); 4] =
    [((8 << 10) + 1, "8193"), (16 << 10, "16K"), (64 << 10, "64K"), (1 << 20, "1M")];
/// Objects alive at once in `alloc_random_*`.
const LIVE: usize = 10_000;
/// Object sizes of `alloc_random_*`, in bytes.
const RANDOM_SIZES: [usize; 6] = [16, 64, 256, 1024, 8192, 65536];
/// The longest object of `alloc_random_*` whose instructions are counted: so many longer ones are
/// more than an area keeps, and system calls are what they cost.
const LONGEST_COUNTED: usize = 1024;
/// Objects that `resolve` goes round: few enough to stay in the first-level cache.
const RESOLVED: usize = 256;
/// Their size.
const RESOLVED_SIZE: usize = 64;

#[derive(Clone, Copy)]
enum Operation {
    Lifo,
    Random,
    Resolve,
}

/// All works of the group.
#[must_use]
pub fn works() -> Vec<Work> {
    let lifo = LIFO_SIZES.map(|bytes| {
        let name = format!("alloc_lifo_{bytes}");
        Work::new(name, contestants(Operation::Lifo, bytes)).counted(Lengths::ALIKE)
    });
    let runs = RUN_SIZES.map(|(bytes, name)| {
        let name = format!("alloc_free_{name}");
        Work::new(name, contestants(Operation::Lifo, bytes)).counted(Lengths::ALIKE)
    });
    let random = RANDOM_SIZES.map(|bytes| {
        let name = format!("alloc_random_{bytes}");
        let work = Work::new(name, contestants(Operation::Random, bytes));
        if bytes > LONGEST_COUNTED { work } else { work.counted(Lengths::rounds(LIVE as u64, 2)) }
    });
    let resolve = contestants(Operation::Resolve, RESOLVED_SIZE);
    let resolve = Work::new("resolve", resolve).counted(Lengths::ALIKE);
    lifo.into_iter().chain(runs).chain(random).chain([resolve]).collect()
}

fn contestants(operation: Operation, bytes: usize) -> Vec<Contestant> {
    let cores = move || runner(CoreHeap::new(&Options::default()), operation, bytes);
    let mut contestants = vec![Contestant::new(Who::Cores, cores)];
    contestants.extend(through_the_registry(operation, bytes));
    contestants.extend([
        Contestant::new(Who::Peer("mimalloc"), move || runner(Mimalloc, operation, bytes)),
        Contestant::new(Who::Peer("glibc malloc"), move || runner(Glibc, operation, bytes)),
    ]);
    contestants
}

/// The registry's users allocate values of a type, so that sizes are part of the program.
fn through_the_registry(operation: Operation, bytes: usize) -> Option<Contestant> {
    fn contestant<const WORDS: usize>(operation: Operation, bytes: usize) -> Contestant {
        Contestant::new(Who::Registry, move || {
            runner(RegistryHeap::<WORDS>::new(), operation, bytes)
        })
    }
    Some(match bytes {
        16 => contestant::<2>(operation, bytes),
        64 => contestant::<8>(operation, bytes),
        256 => contestant::<32>(operation, bytes),
        1024 => contestant::<128>(operation, bytes),
        _ => return None,
    })
}

fn runner<H: Heap>(heap: H, operation: Operation, bytes: usize) -> Runner {
    match operation {
        Operation::Lifo => lifo(heap, bytes),
        Operation::Random => random(heap, bytes),
        Operation::Resolve => resolve(heap, bytes),
    }
}

fn lifo<H: Heap>(heap: H, bytes: usize) -> Runner {
    Runner::new(move |operations| {
        repeat(operations, || {
            let object = black_box(heap.allocate(black_box(bytes)));
            // SAFETY: allocated in the line above, freed once.
            unsafe { heap.free(object, bytes) };
        })
    })
}

fn random<H: Heap>(heap: H, bytes: usize) -> Runner {
    let mut order: Vec<usize> = (0..LIVE).collect();
    let mut random = Random::new(7);
    for last in (1..LIVE).rev() {
        order.swap(last, random.below(last as u64 + 1) as usize);
    }
    let mut live = Vec::with_capacity(LIVE);
    Runner::new(move |operations| {
        rounds(operations, LIVE as u64, || {
            live.clear();
            let stopwatch = Stopwatch::start();
            for _ in 0..LIVE {
                live.push(heap.allocate(black_box(bytes)));
            }
            for &object in &order {
                // SAFETY: `order` is a permutation: each object of this round once.
                unsafe { heap.free(live[object], bytes) };
            }
            stopwatch.elapsed()
        })
    })
}

fn resolve<H: Heap>(heap: H, bytes: usize) -> Runner {
    let objects: Vec<H::Pointer> = (0..RESOLVED)
        .map(|n| {
            let object = heap.allocate(bytes);
            // SAFETY: a fresh object of at least 8 bytes, aligned to 8, that nobody else knows.
            unsafe { heap.resolve(object).write(n as u64) };
            object
        })
        .collect();
    Runner::new(move |operations| {
        let rounds = operations.div_ceil(RESOLVED as u64);
        let mut sum = 0;
        let sample = repeat(rounds, || {
            for &object in black_box(&objects) {
                // SAFETY: the objects are never freed, and were written above.
                sum += unsafe { heap.resolve(object).read() };
            }
        });
        assert_eq!(black_box(sum), rounds * (RESOLVED * (RESOLVED - 1) / 2) as u64);
        Sample { operations: rounds * RESOLVED as u64, ..sample }
    })
}

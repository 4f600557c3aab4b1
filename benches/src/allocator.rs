//! Works on the allocator: pairs of allocate and free, and the way from a pointer to an address.
//!
//! A pair at once (`alloc_lifo_64`) shows the fast path alone; 10,000 live objects freed in
//! random order (`alloc_random_*`) show what the allocator's own data costs once it no longer
//! lies in the first-level cache. The objects themselves are not touched: that would measure the
//! caches, the same for everybody.
//!
//! `resolve` reads a word of an object through its pointer. The peers' pointers are addresses, so
//! their figure is that of the read alone.

use std::alloc::{GlobalAlloc, Layout};
use std::hint::black_box;

use crate::measure::{Contestant, OURS, Random, Sample, Stopwatch, Work, repeat, rounds};
use crate::ours::area::OurHeap;

/// Objects alive at once in `alloc_random_*`.
const LIVE: usize = 10_000;
/// Object sizes of `alloc_random_*`, in bytes.
const SIZES: [usize; 6] = [16, 64, 256, 1024, 8192, 65536];
/// Objects that `resolve` goes round: few enough to stay in the first-level cache.
const RESOLVED: usize = 256;

/// An allocator under test.
pub trait Heap: 'static {
    /// What names an object.
    type Pointer: Copy;
    /// Allocates.
    fn allocate(&self, bytes: usize) -> Self::Pointer;
    /// Frees what [`allocate`](Self::allocate) returned for `bytes`.
    ///
    /// # Safety
    ///
    /// Once for each object, which is not used any more.
    unsafe fn free(&self, pointer: Self::Pointer, bytes: usize);
    /// The object's address.
    fn resolve(&self, pointer: Self::Pointer) -> *mut u64;
}

/// All works of the group.
#[must_use]
pub fn works() -> Vec<Work> {
    let mut works = vec![Work::new("alloc_lifo_64", || everybody(lifo, lifo, lifo))];
    works.extend(SIZES.map(|bytes| {
        Work::new(format!("alloc_random_{bytes}"), move || {
            everybody(
                move |heap, name| random(heap, name, bytes),
                move |heap, name| random(heap, name, bytes),
                move |heap, name| random(heap, name, bytes),
            )
        })
    }));
    works.push(Work::new("resolve", || everybody(resolve, resolve, resolve)));
    works
}

/// Sets up the same work for each allocator; three closures, because a closure isn't generic.
fn everybody(
    ours: impl Fn(OurHeap, &'static str) -> Contestant,
    mimalloc: impl Fn(Mimalloc, &'static str) -> Contestant,
    glibc: impl Fn(Glibc, &'static str) -> Contestant,
) -> Vec<Contestant> {
    vec![ours(OurHeap::new(), OURS), mimalloc(Mimalloc, "mimalloc"), glibc(Glibc, "glibc malloc")]
}

fn lifo<H: Heap>(heap: H, name: &'static str) -> Contestant {
    Contestant::new(name, move |operations| {
        repeat(operations, || {
            let object = black_box(heap.allocate(black_box(64)));
            // SAFETY: allocated in the line above, freed once.
            unsafe { heap.free(object, 64) };
        })
    })
}

fn random<H: Heap>(heap: H, name: &'static str, bytes: usize) -> Contestant {
    let mut order: Vec<usize> = (0..LIVE).collect();
    let mut random = Random::new(7);
    for last in (1..LIVE).rev() {
        order.swap(last, random.below(last as u64 + 1) as usize);
    }
    let mut live = Vec::with_capacity(LIVE);
    Contestant::new(name, move |operations| {
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

fn resolve<H: Heap>(heap: H, name: &'static str) -> Contestant {
    let objects: Vec<H::Pointer> = (0..RESOLVED)
        .map(|n| {
            let object = heap.allocate(64);
            // SAFETY: a fresh object of 64 bytes, aligned to 8, that nobody else knows.
            unsafe { heap.resolve(object).write(n as u64) };
            object
        })
        .collect();
    Contestant::new(name, move |operations| {
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

/// Microsoft's allocator, called beside the global one.
struct Mimalloc;

/// What the peers are asked for: the alignment that ours gives.
fn layout(bytes: usize) -> Layout {
    Layout::from_size_align(bytes, 8).expect("a small layout")
}

impl Heap for Mimalloc {
    type Pointer = *mut u8;

    #[inline]
    fn allocate(&self, bytes: usize) -> *mut u8 {
        // SAFETY: the sizes of this module are not zero.
        unsafe { mimalloc::MiMalloc.alloc(layout(bytes)) }
    }

    #[inline]
    unsafe fn free(&self, pointer: *mut u8, bytes: usize) {
        // SAFETY: the caller's promise.
        unsafe { mimalloc::MiMalloc.dealloc(pointer, layout(bytes)) }
    }

    #[inline]
    fn resolve(&self, pointer: *mut u8) -> *mut u64 {
        pointer.cast()
    }
}

/// The C library's allocator.
struct Glibc;

impl Heap for Glibc {
    type Pointer = *mut u8;

    #[inline]
    fn allocate(&self, bytes: usize) -> *mut u8 {
        // SAFETY: malloc has no conditions.
        unsafe { libc::malloc(bytes) }.cast()
    }

    #[inline]
    unsafe fn free(&self, pointer: *mut u8, _bytes: usize) {
        // SAFETY: the caller's promise.
        unsafe { libc::free(pointer.cast()) }
    }

    #[inline]
    fn resolve(&self, pointer: *mut u8) -> *mut u64 {
        pointer.cast()
    }
}

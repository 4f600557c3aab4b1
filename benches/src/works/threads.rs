//! Works on the allocator that last: objects that come and go among many that stay, that another
//! thread frees, and two threads at once.
//!
//! `alloc_churn_*` keeps 10,000 objects; an operation frees one at random and allocates another.
//! In `alloc_remote_*` one thread allocates and another frees, batch by batch, both at the same
//! time; an operation is one allocation and one free, and its time that of both threads.
//! `alloc_two_*` is `alloc_churn_*` by two threads at once, each with objects of its own. Its time
//! is what an operation takes of its own thread: as long as in `alloc_churn_*` if the two don't
//! disturb each other, so that they do twice as much together.

use std::hint::black_box;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Barrier};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::interface::Heap;
use crate::measure::{Random, Sample, Stopwatch, repeat, rounds};
use crate::ours::area::RegistryHeap;
use crate::peers::heaps::{Glibc, Mimalloc};
use crate::work::{Contestant, Lengths, Runner, Who, Work};

/// Objects that stay.
const LIVE: usize = 10_000;
/// Objects that a thread hands to the other one at a time.
const BATCH: usize = 1000;

/// A pointer that another thread frees.
struct Handed<P>(P);

// SAFETY: an allocator under test takes back on any thread what it gave on any.
unsafe impl<P> Send for Handed<P> {}

/// All works of the group.
#[must_use]
pub fn works() -> Vec<Work> {
    vec![
        Work::new("alloc_churn_64", contestants::<8>(Threads::One)).counted(Lengths::ALIKE),
        Work::new("alloc_churn_1024", contestants::<128>(Threads::One)).counted(Lengths::ALIKE),
        Work::new("alloc_remote_64", contestants::<8>(Threads::Remote)),
        Work::new("alloc_two_64", contestants::<8>(Threads::Two)),
    ]
}

/// Who allocates, and who frees.
#[derive(Clone, Copy)]
enum Threads {
    One,
    Remote,
    Two,
}

fn contestants<const WORDS: usize>(threads: Threads) -> Vec<Contestant> {
    let bytes = 8 * WORDS;
    vec![
        Contestant::new(Who::Registry, move || {
            runner(RegistryHeap::<WORDS>::new(), threads, bytes)
        }),
        Contestant::new(Who::Peer("mimalloc"), move || runner(Mimalloc, threads, bytes)),
        Contestant::new(Who::Peer("glibc malloc"), move || runner(Glibc, threads, bytes)),
    ]
}

fn runner<H: Heap + Send + Sync>(heap: H, threads: Threads, bytes: usize) -> Runner {
    match threads {
        Threads::One => {
            let mut churn = Churn::new(Arc::new(heap), bytes);
            Runner::new(move |operations| churn.run(operations))
        }
        Threads::Remote => remote(heap, bytes),
        Threads::Two => two(heap, bytes),
    }
}

/// Objects of one thread, of which one after the other is exchanged.
struct Churn<H: Heap> {
    heap: Arc<H>,
    live: Vec<H::Pointer>,
    random: Random,
    bytes: usize,
}

impl<H: Heap> Churn<H> {
    fn new(heap: Arc<H>, bytes: usize) -> Self {
        let live = (0..LIVE).map(|_| heap.allocate(bytes)).collect();
        Self { heap, live, random: Random::new(7), bytes }
    }

    fn run(&mut self, operations: u64) -> Sample {
        repeat(operations, || {
            let chosen = &mut self.live[self.random.below(LIVE as u64) as usize];
            // SAFETY: it was allocated, and another one takes its place below.
            unsafe { self.heap.free(*chosen, self.bytes) };
            *chosen = self.heap.allocate(black_box(self.bytes));
        })
    }
}

impl<H: Heap> Drop for Churn<H> {
    fn drop(&mut self) {
        for object in self.live.drain(..) {
            // SAFETY: each is allocated, and nobody knows it any more.
            unsafe { self.heap.free(object, self.bytes) };
        }
    }
}

/// Another thread, which does what it is asked and answers. It has ended when this is dropped.
struct Partner<A, R> {
    ask: Option<SyncSender<A>>,
    answers: Receiver<R>,
    thread: Option<JoinHandle<()>>,
}

impl<A: Send + 'static, R: Send + 'static> Partner<A, R> {
    /// `set_up` runs on the thread, and makes what answers there.
    fn new<W: FnMut(A) -> R>(set_up: impl FnOnce() -> W + Send + 'static) -> Self {
        let (ask, asked) = sync_channel(1);
        let (answer, answers) = sync_channel(1);
        let thread = std::thread::spawn(move || {
            let mut work = set_up();
            for question in asked {
                if answer.send(work(question)).is_err() {
                    break;
                }
            }
        });
        Self { ask: Some(ask), answers, thread: Some(thread) }
    }

    fn ask(&self, question: A) {
        self.ask.as_ref().expect("there until dropped").send(question).expect("it works");
    }

    fn answer(&self) -> R {
        self.answers.recv().expect("it works")
    }
}

impl<A, R> Drop for Partner<A, R> {
    fn drop(&mut self) {
        drop(self.ask.take());
        if let Some(thread) = self.thread.take() {
            thread.join().expect("it works");
        }
    }
}

fn remote<H: Heap + Send + Sync>(heap: H, bytes: usize) -> Runner {
    let heap = Arc::new(heap);
    let theirs = Arc::clone(&heap);
    let partner = Partner::new(move || {
        move |batch: Vec<Handed<H::Pointer>>| {
            let stopwatch = Stopwatch::start();
            for Handed(object) in batch {
                // SAFETY: whoever allocated it has sent it, once, and forgotten it.
                unsafe { theirs.free(object, bytes) };
            }
            stopwatch.elapsed()
        }
    });
    Runner::new(move |operations| {
        let mut under_way = false;
        let mut sample = rounds(operations, BATCH as u64, || {
            let mut batch = Vec::with_capacity(BATCH);
            let stopwatch = Stopwatch::start();
            for _ in 0..BATCH {
                batch.push(Handed(heap.allocate(black_box(bytes))));
            }
            let allocated = stopwatch.elapsed();
            // The batch before this one was freed meanwhile.
            let freed = if under_way { partner.answer() } else { Duration::ZERO };
            partner.ask(batch);
            under_way = true;
            allocated + freed
        });
        sample.elapsed += partner.answer();
        sample
    })
}

fn two<H: Heap + Send + Sync>(heap: H, bytes: usize) -> Runner {
    let heap = Arc::new(heap);
    let (theirs, both) = (Arc::clone(&heap), Arc::new(Barrier::new(2)));
    let meet = Arc::clone(&both);
    let partner = Partner::new(move || {
        let mut churn = Churn::new(theirs, bytes);
        move |operations: u64| {
            meet.wait();
            churn.run(operations)
        }
    });
    let mut churn = Churn::new(heap, bytes);
    Runner::new(move |operations| {
        let half = operations.div_ceil(2);
        partner.ask(half);
        both.wait();
        let mine = churn.run(half);
        let other = partner.answer();
        let operations = mine.operations + other.operations;
        Sample { operations, elapsed: mine.elapsed + other.elapsed }
    })
}

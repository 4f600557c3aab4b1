//! The cores alone: an allocator and a hash table in a machine's own memory.
//!
//! ```console
//! cargo run -p dshash-core --example embedder
//! ```
//!
//! An embedder without an operating system, or with one that we don't know, brings four things:
//!
//! | file | what | trait |
//! |---|---|---|
//! | `ram.rs` | where memory comes from, and where the control object is found | `SegmentProvider`, `Root` |
//! | `environment.rs` | how to wait, who lives, what time it is, chance | `Wait`, `Liveness`, `Clock`, `Entropy` |
//! | `lock.rs` | a lock of its own, if ours are not wanted | `RawLock` |
//! | this one | all process-local memory, which the cores never allocate | |
//!
//! and gets segments, areas and tables. (This program has `std`, to be a program at all; the cores
//! it uses have not, and need no `alloc` either.)

mod environment;
mod lock;
mod ram;

use std::sync::atomic::AtomicU64;

use dsa_core::{Area, AreaLocal, HeapLocal, Options};
use dshash_core::{MAX_SEGMENT_SIZE, Params, Table};
use dsm_core::namespace::{LocalSegment, Namespace, NamespaceConfig, Platform, ProcessLocal};
use dsm_core::participant::ParticipantLocal;

use environment::Machine;
use lock::TicketLock;
use ram::Ram;

type Failure = Box<dyn std::error::Error>;
type Squares<'a> = Table<u64, u64, &'a Area<'a, TicketLock>>;

const THREADS: u64 = 3;
const ENTRIES: u64 = 1000;

fn main() -> Result<(), Failure> {
    let ram = Ram::new(16 << 20);
    let machine = Machine::new();
    let config =
        NamespaceConfig { max_processes: 1, max_segments: 64, ..NamespaceConfig::default() };

    // What the cores would allocate if they could: a token, and a record for each segment.
    let token = AtomicU64::new(0);
    let mut records: Vec<LocalSegment> =
        (0..config.max_segments).map(|_| LocalSegment::new()).collect();
    let local = ProcessLocal::new(&token, &mut records);

    let platform = Platform { provider: &ram, env: &machine };
    let (namespace, opened) = Namespace::open(&ram, platform, &config, &local)?;
    say(&format!("{opened:?} a namespace in {} KiB of 16 MiB", ram.used() / 1024));

    share(&namespace)?;
    namespace.leave(&ram)?;
    say(&format!("left it, and {} KiB are in use", ram.used() / 1024));
    if ram.used() == 0 { Ok(()) } else { Err("memory was left in use".into()) }
}

#[expect(clippy::print_stdout, reason = "a program's output")]
fn say(line: &str) {
    println!("{line}");
}

/// An area and a table in it, filled by several threads.
fn share(namespace: &Namespace<'_>) -> Result<(), Failure> {
    let area_local = Box::new(AreaLocal::new());
    let options = Options { maximum: MAX_SEGMENT_SIZE, ..Options::default() };
    let area = Area::<TicketLock>::create(namespace, &options, &area_local)?;

    let thread = Thread::register(namespace)?;
    let participant = namespace.participant(&thread.participant);
    let heap = area.heap(&participant, &thread.hints)?;
    let squares: &Squares<'_> = &Table::create(&area, &heap, &Params::default())?;

    std::thread::scope(|scope| {
        let fillers: Vec<_> = (0..THREADS)
            .map(|first| scope.spawn(move || fill(namespace, squares, first)))
            .collect();
        fillers
            .into_iter()
            .try_for_each(|filler| filler.join().map_err(|_| "a thread panicked".to_owned())?)
    })?;

    let session = squares.bind(&heap)?;
    for n in 0..ENTRIES {
        if session.get(&n)? != Some(n * n) {
            return Err(format!("the square of {n} is not in the table").into());
        }
    }
    let stats = area.stats()?;
    say(&format!(
        "{THREADS} threads put {ENTRIES} squares into a table: {} KiB, {} of them in use",
        stats.reserved / 1024,
        stats.used / 1024
    ));
    thread.unregister(namespace);
    Ok(())
}

/// One of the threads: every third entry.
fn fill(namespace: &Namespace<'_>, squares: &Squares<'_>, first: u64) -> Result<(), String> {
    let fill = || -> Result<(), Failure> {
        let thread = Thread::register(namespace)?;
        let participant = namespace.participant(&thread.participant);
        let heap = squares.store().heap(&participant, &thread.hints)?;
        let session = squares.bind(&heap)?;
        for n in (first..ENTRIES).step_by(THREADS as usize) {
            *session.entry(&n)?.or_insert(0)? = n * n;
        }
        // What the thread has of the area goes back before the thread does.
        heap.release()?;
        thread.unregister(namespace);
        Ok(())
    };
    fill().map_err(|error| error.to_string())
}

/// What the cores keep of a thread.
struct Thread {
    participant: ParticipantLocal,
    hints: HeapLocal,
}

impl Thread {
    fn register(namespace: &Namespace<'_>) -> Result<Self, Failure> {
        let thread = Self { participant: ParticipantLocal::new(), hints: HeapLocal::new() };
        namespace.register(&thread.participant)?;
        Ok(thread)
    }

    fn unregister(&self, namespace: &Namespace<'_>) {
        namespace.unregister(&self.participant);
    }
}

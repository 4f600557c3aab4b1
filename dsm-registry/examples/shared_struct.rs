//! One shared struct that holds several pointers into an area.
//!
//! ```console
//! cargo run -p dsm-registry --example shared_struct
//! ```
//!
//! A program's shared state is rarely one flat struct: it has parts whose sizes are known only at
//! run time. Here a named segment holds the struct, the struct holds pointers, and what they point
//! to lies in a named area. The segment's initialiser allocates the parts: it runs in exactly one
//! process, and may use the registry itself; everybody else waits until it is done and finds the
//! struct complete. The program starts two processes at the same moment to show that.

use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};

use dsm_registry::{Area, DsaPtr, DsaSlice, Registry, Segment};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

type Failure = Box<dyn std::error::Error>;

/// A part of fixed size.
#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
struct Limits {
    smallest: u64,
    largest: u64,
}

/// The shared struct. Its parts don't change once it is published; what does is atomic.
#[derive(FromBytes, KnownLayout)]
#[repr(C)]
struct Primes {
    title: DsaSlice<u8>,
    numbers: DsaSlice<u64>,
    limits: DsaPtr<Limits>,
    creator: AtomicU64,
    readers: AtomicU64,
}

/// Finds the struct, or makes it.
fn open(registry: &Registry, area: &Area) -> Result<Segment<Primes>, dsm_registry::Error> {
    registry.segment::<Primes>("primes", |primes| {
        let numbers: Vec<u64> = (2..2000u64).filter(|n| (2..*n).all(|d| n % d != 0)).collect();
        let limits = Limits { smallest: numbers[0], largest: numbers[numbers.len() - 1] };
        primes.title = area.allocate_slice("primes below 2000".as_bytes())?;
        primes.numbers = area.allocate_slice(&numbers)?;
        primes.limits = area.allocate(limits)?;
        primes.creator = AtomicU64::new(u64::from(std::process::id()));
        Ok(())
    })
}

#[expect(clippy::print_stdout, reason = "a program's output")]
fn main() -> Result<(), Failure> {
    let namespace = match std::env::args().nth(1) {
        Some(namespace) => namespace,
        None => return start_two(),
    };
    let registry = Registry::open(&namespace)?;
    let area = registry.area("parts")?;
    let primes = open(&registry, &area)?;

    let title = String::from_utf8(area.read_slice(primes.title)?)?;
    let numbers = area.read_slice(primes.numbers)?;
    let Limits { smallest, largest } = area.read(primes.limits)?;
    primes.readers.fetch_add(1, Ordering::Relaxed);
    println!(
        "process {} reads {} {title}, from {smallest} to {largest}, made by process {}",
        std::process::id(),
        numbers.len(),
        primes.creator.load(Ordering::Relaxed),
    );
    // Stay until the other has read it too: the last to leave takes everything along.
    while primes.readers.load(Ordering::Relaxed) < 2 {
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    Ok(())
}

/// Two processes at the same moment: one of them makes the struct, both read it.
fn start_two() -> Result<(), Failure> {
    let program = std::env::current_exe()?;
    let namespace = format!("example-shared-struct-{}", std::process::id());
    let start = || Command::new(&program).arg(&namespace).spawn();
    for mut process in [start()?, start()?] {
        if !process.wait()?.success() {
            return Err("a process failed".into());
        }
    }
    Ok(())
}

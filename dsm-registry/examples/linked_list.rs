//! A linked list in shared memory, built by one process and searched by another.
//!
//! ```console
//! cargo run -p dsm-registry --example linked_list                 # both processes, one after the other
//!
//! cargo run -p dsm-registry --example linked_list build 1 4 9 16  # or: build it in one terminal,
//! cargo run -p dsm-registry --example linked_list search 9        # search it in another
//! ```
//!
//! Nodes lie in a named area and point to each other by `DsaPtr`, which means the same in every
//! process whatever addresses the area is mapped at. The head of the list is a named segment of
//! its own, so that whoever comes finds it.
//!
//! A node never changes once the head leads to it, so any number of processes may push and search
//! at the same time: a push makes its node known by one compare-and-swap. Killed before that, a
//! process leaves a node that nobody finds (`Area::allocate_into` is there for those who mind).

use std::sync::atomic::Ordering;

use dsm_registry::{Area, AtomicDsaPointer, DsaPtr, Error, Registry, Segment};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

type Failure = Box<dyn std::error::Error>;

const NAMESPACE: &str = "example-linked-list";

/// A node: plain data, so that it may lie in shared memory.
#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
struct Node {
    value: u64,
    next: DsaPtr<Node>,
}

/// Where the list begins.
#[derive(FromBytes, KnownLayout)]
#[repr(C)]
struct Head {
    first: AtomicDsaPointer,
}

/// The list, as one process sees it.
struct List {
    head: Segment<Head>,
    nodes: Area,
}

impl List {
    /// Finds the list, or creates an empty one.
    fn open(registry: &Registry) -> Result<Self, Error> {
        // Zeros are a list without nodes.
        let head = registry.segment("head", |_| Ok(()))?;
        Ok(Self { head, nodes: registry.area("nodes")? })
    }

    /// Puts a value in front.
    fn push(&self, value: u64) -> Result<(), Error> {
        let mut first = self.head.first.load(Ordering::Acquire);
        let node = self.nodes.allocate(Node { value, next: first.cast() })?;
        while let Err(changed) = self.head.first.compare_exchange(
            first,
            node.pointer(),
            Ordering::AcqRel,
            Ordering::Acquire,
        ) {
            first = changed;
            // Nobody else has seen the node yet.
            self.nodes.write(node, &Node { value, next: first.cast() })?;
        }
        Ok(())
    }

    /// How many nodes it takes to find a value; `None` if it is not there.
    fn search(&self, value: u64) -> Result<Option<u64>, Error> {
        let mut next: DsaPtr<Node> = self.head.first.load(Ordering::Acquire).cast();
        let mut steps = 0;
        while next.is_valid() {
            // A checked copy: a pointer that leads nowhere would be an error, not a crash.
            let node = self.nodes.read(next)?;
            steps += 1;
            if node.value == value {
                return Ok(Some(steps));
            }
            next = node.next;
        }
        Ok(None)
    }
}

#[expect(clippy::print_stdout, reason = "a program's output")]
fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let registry = Registry::open(NAMESPACE)?;
    let list = List::open(&registry)?;
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => {
            for value in 1..=1000 {
                list.push(value * value)?;
            }
            println!("process {} built a list of 1000 squares", std::process::id());
            let searcher = std::process::Command::new(std::env::current_exe()?)
                .args(["search", "144", "145"])
                .status()?;
            if !searcher.success() {
                return Err("the searching process failed".into());
            }
        }
        ["build", ref values @ ..] => {
            for value in values {
                list.push(value.parse()?)?;
            }
            println!("built; press Enter to let go of it");
            std::io::stdin().read_line(&mut String::new())?;
        }
        ["search", ref values @ ..] => {
            for value in values {
                let process = std::process::id();
                match list.search(value.parse()?)? {
                    Some(steps) => println!("process {process} found {value} at node {steps}"),
                    None => println!("process {process} did not find {value}"),
                }
            }
        }
        _ => return Err("usage: linked_list [build VALUE... | search VALUE...]".into()),
    }
    Ok(())
}

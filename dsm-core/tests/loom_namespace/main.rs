//! Loom models of a namespace over a tiny simulated machine: who creates it, who removes it, and
//! the life cycle of a segment's slot, in every interleaving within a bound on preemptions, and
//! with a process killed before each of its stores.
//!
//! `RUSTFLAGS="--cfg loom" cargo test -p dsm-core --release --test loom_namespace`
//!
//! Each model thread is a process of its own. What is explored is the shipped code: the control
//! segment consists of loom's atomics, and the election of the simulated machine is one too.
//! Everything a model makes is leaked, as model threads must own what they use.
#![cfg(loom)]

mod death;
mod races;

use dsm_core::namespace::{Namespace, NamespaceConfig, Opened};
use sim::{HeapMachine, HeapProcess};

fn config() -> NamespaceConfig {
    NamespaceConfig {
        max_processes: 3,
        max_participants: 4,
        max_segments: 3,
        ..NamespaceConfig::default()
    }
}

/// A process in the namespace.
#[derive(Clone, Copy)]
struct Member {
    process: &'static HeapProcess,
    namespace: &'static Namespace<'static>,
    opened: Opened,
}

// SAFETY: `HeapProcess` and `Namespace` are shared by threads by design; loom's atomics in the
// process's token are too.
unsafe impl Send for Member {}

fn start(machine: &HeapMachine) -> &'static HeapProcess {
    Box::leak(Box::new(machine.process()))
}

fn join(process: &'static HeapProcess) -> Member {
    join_as(process, &config())
}

fn join_as(process: &'static HeapProcess, config: &NamespaceConfig) -> Member {
    let local = Box::leak(Box::new(process.local()));
    let (namespace, opened) = Namespace::open(process, process.platform(), config, local).unwrap();
    Member { process, namespace: Box::leak(Box::new(namespace)), opened }
}

impl Member {
    fn leave(self) {
        // SAFETY: the one owner of the leaked box; no segment borrows from it any more.
        let namespace = unsafe { Box::from_raw(std::ptr::from_ref(self.namespace).cast_mut()) };
        namespace.leave(self.process).unwrap();
    }
}

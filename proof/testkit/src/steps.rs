//! What a kill leaves after *each store* of an operation, on the simulated machine.
//!
//! The operation is single-stepped in this process, by the processor's trap flag (so this is for
//! x86-64 Linux). After each instruction shared memory is compared with a copy, and what changed is logged;
//! since a killed process leaves exactly a prefix of its stores (in the order of its program),
//! every prefix of the log, laid over a copy of the machine from before, is what a kill at that
//! instruction leaves.

use dsm_core::handle::ObjectId;
use dsm_core::provider::SegmentProvider;
use sim::HeapMachine;

use crate::system::forever;
use crate::trace;

/// Which prefixes are judged: judging takes a thousand times as long as storing. Long series of equal stores
/// (clearing a table) are sampled; their ends are not.
#[derive(Clone, Copy, Debug)]
pub struct Samples {
    /// So many, evenly.
    pub evenly: usize,
    /// All of so many at the beginning.
    pub first: usize,
    /// All of so many at the end.
    pub last: usize,
}

impl Samples {
    fn include(&self, number: usize, of: usize) -> bool {
        let stride = (of / self.evenly).max(1);
        number % stride == 0 || number < self.first || number + self.last > of
    }
}

/// Where all shared memory of the machine is.
fn ranges(machine: &HeapMachine) -> Vec<(usize, usize)> {
    let viewer = forever(machine.process());
    let (control, len) = machine.control_bytes().unwrap();
    let mut ranges = vec![(control.as_ptr() as usize, len)];
    for object in machine.objects() {
        if let Some(handle) = object.handle {
            let mapping = viewer.attach(handle, ObjectId::default()).unwrap();
            ranges.push((mapping.base.as_ptr() as usize, mapping.len));
        }
    }
    ranges
}

/// Steps through `operation`, and gives `judge` a copy of the machine for each prefix of its
/// stores, with their number. The operation may not create segments: what is replayed is what it
/// stores, not what it asks of the platform. Returns how many stores there were.
///
/// # Panics
///
/// If the operation or the judge does.
pub fn at_every_store(
    machine: &HeapMachine,
    samples: Samples,
    operation: impl FnOnce(),
    mut judge: impl FnMut(&HeapMachine, usize),
) -> usize {
    let before = machine.snapshot();
    let log = trace::stores(&ranges(machine), operation);
    let ranges = ranges(&before);
    for (number, stores) in log.iter().enumerate() {
        if samples.include(number, log.len()) {
            judge(&before.snapshot(), number);
        }
        for store in stores {
            let at = (ranges[store.range].0 + store.offset) as *mut u64;
            // SAFETY: inside an object of the copied machine, which nobody uses yet.
            unsafe { at.write(store.value) };
        }
    }
    judge(&before, log.len());
    log.len()
}

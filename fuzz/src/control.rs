//! The control segment: whatever bytes lie in its place, opening a namespace either says what is
//! wrong with them or gives a namespace that works, and never touches memory outside of them. The
//! same goes for tools, which only look.
//!
//! The first byte of a case says how the bytes come about: the rest alone, or a real control
//! segment, of a namespace whose processes live or died, with pieces overwritten. The machine is
//! simulated, so that the address sanitizer sees each access beyond an object.
//!
//! Where processes live (`live`), they have segments mapped, and a peer died with locks in them:
//! what the sweep reads of these from damaged bytes meets mappings that are as they were.

use std::time::Duration;

use arbitrary::{Arbitrary, Unstructured};
use dsm_core::handle::SegmentHandle;
use dsm_core::inspect::Inspector;
use dsm_core::namespace::{Namespace, NamespaceConfig};
use dsm_core::participant::ParticipantLocal;
use dsm_core::provider::Root;
use sim::{HeapMachine, HeapProcess};

use crate::damage::{Patch, Target};

mod live;

/// Longest object made of arbitrary bytes.
const LONGEST: usize = 1 << 16;

/// How the control object comes about.
#[derive(Arbitrary, Debug)]
enum Source {
    /// The rest of the case, as it is.
    Raw,
    /// A real one whose processes have all died.
    Abandoned,
    /// A real one, persistent, whose processes have all died.
    Persistent,
    /// A real one in which processes live, and are at work.
    Inhabited,
    /// A real one, cut off.
    Cut(u16),
}

/// Segments of a namespace.
const SEGMENTS: u32 = 6;

fn config(persistent: bool) -> NamespaceConfig {
    NamespaceConfig {
        max_processes: 3,
        max_participants: 8,
        max_segments: SEGMENTS,
        main_region: 8 << 10,
        persistent,
        patience: Duration::from_millis(1),
    }
}

/// Runs one case.
pub fn run(bytes: &[u8]) {
    let mut input = Unstructured::new(bytes);
    let Ok(source) = Source::arbitrary(&mut input) else { return };
    let machine = HeapMachine::new();
    machine.set_capacity(Some(1 << 20));
    machine.set_most_segments(2 * SEGMENTS as usize);
    match source {
        Source::Raw => {
            let rest = input.take_rest();
            machine.replace_control(&rest[..rest.len().min(LONGEST)], false);
            return visit(&machine);
        }
        Source::Abandoned => inhabit(&machine, false, |_| machine.kill_all()),
        Source::Persistent => inhabit(&machine, true, |_| machine.kill_all()),
        Source::Inhabited => return live::run(&machine, &mut input),
        Source::Cut(length) => inhabit(&machine, false, |_| {
            machine.kill_all();
            let whole = copy_of_control(&machine);
            let length = usize::from(length).min(whole.len());
            machine.replace_control(&whole[..length], true);
        }),
    }
    damage(&machine, &mut input);
    visit(&machine);
}

/// Makes a namespace with a bit of everything in it, and does `then` before its process goes. All
/// memory is reserved: a damaged control segment can't say which is.
fn inhabit(machine: &HeapMachine, persistent: bool, then: impl FnOnce(&HeapProcess)) {
    let process = machine.process();
    let local = process.local();
    let Ok((namespace, _)) =
        Namespace::open(&process, process.platform(), &config(persistent), &local)
    else {
        panic!("a fresh namespace can't be opened");
    };
    let thread = ParticipantLocal::new();
    namespace.register(&thread).expect("there is a participant slot");
    let kept = namespace.create_object(9000, 9000).expect("there is room");
    namespace.pin_segment(kept.handle()).expect("it is not pinned");
    let inner = namespace.create_segment(5000, 5000).expect("the main region has room");
    let child = namespace.create_object(100, 100).expect("there is room");
    namespace.pin_segment_under(child.handle(), kept.handle()).expect("it is not pinned");
    then(&process);
    process.kill();
    drop((kept, inner, child));
}

fn copy_of_control(machine: &HeapMachine) -> Vec<u8> {
    let Some((base, length)) = machine.control_bytes() else { return Vec::new() };
    // SAFETY: the object has that many bytes, and no other thread runs.
    unsafe { std::slice::from_raw_parts(base.as_ptr(), length) }.to_vec()
}

/// Overwrites pieces of the control object, whose processes are dead.
fn damage(machine: &HeapMachine, input: &mut Unstructured<'_>) {
    let Some(target) = Target::new(machine, false) else { return };
    while !input.is_empty() {
        let Ok(patch) = Patch::arbitrary(input) else { return };
        target.apply(patch);
    }
}

/// Opens the namespace twice over and uses it: errors are fine.
fn visit(machine: &HeapMachine) {
    visit_once(machine, false);
    visit_once(machine, true);
}

fn visit_once(machine: &HeapMachine, persistent: bool) {
    let process = machine.process();
    look(&process);
    let local = process.local();
    let opened = Namespace::open(&process, process.platform(), &config(persistent), &local);
    match opened {
        Ok((namespace, _)) => {
            use_it(&process, &namespace);
            let _ = namespace.leave(&process);
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
    process.kill();
}

/// Looks at the control object as tools do, which take part in nothing.
fn look(process: &HeapProcess) {
    let Ok(mapping) = process.peek() else { return };
    // SAFETY: the mapping is valid until it is unmapped below.
    if let Ok(Some(inspector)) = unsafe { Inspector::new(&mapping, process) } {
        let info = inspector.info();
        assert!(info.size <= mapping.len as u64);
        assert!(inspector.processes().count() <= info.max_processes as usize);
        assert!(inspector.participants().count() < info.max_participants as usize);
        for segment in inspector.segments() {
            let Some((base, length)) = inspector.in_main_region(segment.handle) else { continue };
            let offset = base.as_ptr() as usize - mapping.base.as_ptr() as usize;
            assert!(offset + length <= mapping.len, "a segment that leaves the main region");
        }
    }
    // SAFETY: mapped above, and nothing refers to it any more.
    unsafe { process.unmap(mapping) };
}

/// One of each call.
fn use_it(process: &HeapProcess, namespace: &Namespace<'_>) {
    let thread = ParticipantLocal::new();
    let registered = namespace.register(&thread);
    if let Ok(id) = registered {
        assert_eq!(namespace.participant(&thread).id(), Some(id));
    }
    let _ = namespace.reap();
    for (size, own_object) in [(3000, false), (6000, true), (9000, false)] {
        let made = if own_object {
            namespace.create_object(size, size)
        } else {
            namespace.create_segment(size, size)
        };
        let Ok(segment) = made else { continue };
        assert_eq!(segment.len(), size);
        // SAFETY: a segment is that long, and nobody else knows it.
        unsafe { segment.base().write_bytes(0x5a, size) };
        let again = namespace.attach_segment(segment.handle()).expect("it is mapped already");
        assert_eq!(again.map(|again| again.base()), Some(segment.base()));
        if namespace.pin_segment(segment.handle()).is_ok() {
            let _ = namespace.unpin_segment(segment.handle());
        }
    }
    // The handles that the control object was made with, and some that it was not.
    for object in process.machine().objects() {
        let Some(handle) = object.handle else { continue };
        if let Ok(Some(segment)) = namespace.attach_segment(handle) {
            let _ = segment.reserve(0..segment.len());
            let _ = namespace.attached_processes(handle);
        }
        let _ = namespace.unpin_segment(handle);
    }
    for slot in 0..10 {
        if let Some(handle) = SegmentHandle::compose(0x1234_5678_9abc_0000, slot, slot % 2 == 0) {
            let _ = namespace.attach_segment(handle);
        }
    }
    if registered.is_ok() {
        namespace.unregister(&thread);
    }
}

//! A namespace among things that go wrong around it: damage, hands from outside, other users.
#![cfg(not(loom))]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use dsm_core::handle::SegmentHandle;
use dsm_core::inspect::Inspector;
use dsm_core::lock::HeldMode;
use dsm_core::lock::rw::RwLock;
use dsm_core::namespace::{Error, Namespace, NamespaceConfig, Opened};
use dsm_core::participant::ParticipantLocal;
use dsm_core::provider::Root;
use sim::HeapMachine;

fn config() -> NamespaceConfig {
    NamespaceConfig {
        max_processes: 4,
        max_participants: 16,
        max_segments: 8,
        ..NamespaceConfig::default()
    }
}

#[test]
fn a_damaged_length_of_the_control_lock_is_refused() {
    let machine = HeapMachine::new();
    let first = machine.process();
    let local = first.local();
    Namespace::open(&first, first.platform(), &config(), &local).unwrap();
    first.kill();
    let (base, _) = machine.control_bytes().unwrap();
    // Behind the header's 320 bytes: owner word, wake word, shape, whose lower half is the number
    // of further reader words. A lock that trusts it reads beyond the object. SAFETY: the control
    // object is longer than that.
    let length = unsafe { base.cast::<u32>().add((320 + 12) / 4) };
    // SAFETY: as above, and nobody else uses it.
    let shape = unsafe { length.read() };
    assert_eq!(shape & 0xffff, 0);
    // SAFETY: as above.
    unsafe { length.write(shape | 0x7fff) };
    let next = machine.process();
    let local = next.local();
    let opened = Namespace::open(&next, next.platform(), &config(), &local);
    assert!(matches!(opened.err(), Some(Error::Corrupt("length of the control lock"))));
}

#[test]
fn a_length_of_the_control_lock_that_is_damaged_later_leads_nowhere() {
    let machine = HeapMachine::new();
    let process = machine.process();
    let local = process.local();
    let (namespace, _) = Namespace::open(&process, process.platform(), &config(), &local).unwrap();
    let (base, _) = machine.control_bytes().unwrap();
    // SAFETY: the control object is longer than that.
    let length = unsafe { base.add(320 + 12) };
    // SAFETY: within the control object, which lives as long as the machine.
    let shape = unsafe { length.cast::<AtomicU32>().as_ref() };
    let good = shape.load(Ordering::Relaxed);
    // What follows the lock has bits that nobody would ever take back as those of readers: the
    // process slots.
    shape.store(good | 0xffff, Ordering::Relaxed);
    namespace.reap().unwrap();
    drop(namespace.create_segment(100, 100).unwrap());
    shape.store(good, Ordering::Relaxed);
    namespace.leave(&process).unwrap();
}

#[test]
fn the_last_to_leave_a_namespace_without_a_name_removes_its_segments() {
    let machine = HeapMachine::new();
    let (first, second) = (machine.process(), machine.process());
    let (a, b) = (first.local(), second.local());
    let (one, _) = Namespace::open(&first, first.platform(), &config(), &a).unwrap();
    let (two, _) = Namespace::open(&second, second.platform(), &config(), &b).unwrap();
    let pinned = one.create_segment(5000, 5000).unwrap();
    one.pin_segment(pinned.handle()).unwrap();
    drop(pinned);
    machine.unlink_control();
    one.leave(&first).unwrap();
    assert_eq!(machine.objects().len(), 1, "the other process is still in it");
    two.leave(&second).unwrap();
    assert_eq!(machine.objects().len(), 0);
    assert_eq!(machine.used(), 0);
}

#[test]
fn a_dead_users_segments_keep_nobody_out() {
    let machine = HeapMachine::new();
    let (owner, victim, other) = (machine.process(), machine.process(), machine.process());
    let (a, b, c) = (owner.local(), victim.local(), other.local());
    let (namespace, _) = Namespace::open(&owner, owner.platform(), &config(), &a).unwrap();
    let (theirs, _) = Namespace::open(&victim, victim.platform(), &config(), &b).unwrap();
    let left = theirs.create_segment(5000, 5000).unwrap().into_raw();
    victim.kill();

    // The other one is another user's, who may not remove objects: a directory with the sticky bit.
    machine.on_call(Some(Arc::new(|machine, call| {
        if call == "destroy" {
            machine.fail_next_destroy();
        }
    })));
    let (joined, opened) = Namespace::open(&other, other.platform(), &config(), &c).unwrap();
    assert_eq!(opened, Opened::Joined);
    assert!(joined.attach_segment(left.handle).unwrap().is_none());
    // Asking for more participants than there are sweeps as well.
    let threads: Vec<_> = (0..16).map(|_| ParticipantLocal::new()).collect();
    let full = threads.iter().find_map(|thread| joined.register(thread).err());
    assert_eq!(full, Some(Error::TooManyParticipants(16)));
    threads.iter().for_each(|thread| assert!(joined.unregister(thread)));
    assert_eq!(machine.objects().len(), 2);
    // Whoever may remove it does.
    machine.on_call(None);
    namespace.reap().unwrap();
    assert_eq!(machine.objects().len(), 1);
    namespace.leave(&owner).unwrap();
    assert!(joined.leave(&other).is_ok());
    assert_eq!(machine.objects().len(), 0);
}

#[test]
fn a_sweep_does_not_touch_what_a_lock_has_become() {
    let machine = HeapMachine::new();
    let (first, victim) = (machine.process(), machine.process());
    let (a, b) = (first.local(), victim.local());
    let (namespace, _) = Namespace::open(&first, first.platform(), &config(), &a).unwrap();
    let (theirs, _) = Namespace::open(&victim, victim.platform(), &config(), &b).unwrap();
    let segment = namespace.create_segment(4096, 4096).unwrap();
    let attached = theirs.attach_segment(segment.handle()).unwrap().unwrap();
    let thread = ParticipantLocal::new();
    theirs.register(&thread).unwrap();
    // Killed between letting go of a lock and taking back the record of it.
    let (dead, address) = (theirs.participant(&thread), attached.lock_address(64));
    // SAFETY: the lock is never acquired again by this participant, who is about to die.
    let record = unsafe { dead.hold::<RwLock>(address, HeldMode::Shared) };
    let _index = record.unwrap().keep();
    victim.kill();
    // Meanwhile the lock went with its structure, and the memory is somebody's data: all bits set
    // but for zeros where a lock has its wake word and its shape.
    let pattern = |word: usize| if word % 8 == 1 { 0 } else { u64::MAX };
    let words = segment.base().cast::<u64>().as_ptr();
    for word in 0..512 {
        // SAFETY: within the segment, which nobody else uses.
        unsafe { words.wrapping_add(word).write(pattern(word)) };
    }
    assert!(namespace.reap().unwrap() > 0);
    for word in 0..512 {
        // SAFETY: as above.
        assert_eq!(unsafe { words.wrapping_add(word).read() }, pattern(word), "word {word}");
    }
    drop(segment);
    namespace.leave(&first).unwrap();
}

/// The word of a segment's slot that says how long it is, at 16 bytes into it: see docs/LAYOUT.md.
fn size_word(machine: &HeapMachine, handle: SegmentHandle) -> &AtomicU64 {
    let (base, length) = machine.control_bytes().unwrap();
    // SAFETY: the header of a control object is longer than that.
    let place = unsafe { base.add(88) };
    // SAFETY: in the header this says where the segment slots are.
    let segments_at = unsafe { place.cast::<u64>().read() } as usize;
    let at = segments_at + handle.slot() as usize * 128 + 16;
    assert!(at + 8 <= length);
    // SAFETY: within the object.
    let word = unsafe { base.add(at) };
    // SAFETY: the object stays as long as the machine has a namespace.
    unsafe { word.cast::<AtomicU64>().as_ref() }
}

#[test]
fn a_sweep_stays_within_its_mapping_whatever_a_damaged_size_says() {
    // Behind the segment, in the rest of its last page; and where nothing is mapped.
    for offset in [5056, 1 << 39] {
        let machine = HeapMachine::new();
        let (first, victim) = (machine.process(), machine.process());
        let (a, b) = (first.local(), victim.local());
        let (namespace, _) = Namespace::open(&first, first.platform(), &config(), &a).unwrap();
        let (theirs, _) = Namespace::open(&victim, victim.platform(), &config(), &b).unwrap();
        let segment = namespace.create_segment(5000, 5000).unwrap();
        let attached = theirs.attach_segment(segment.handle()).unwrap().unwrap();
        let thread = ParticipantLocal::new();
        theirs.register(&thread).unwrap();
        let dead = theirs.participant(&thread);
        // SAFETY: it is killed before it acquires another lock.
        let held = unsafe { dead.hold::<RwLock>(attached.lock_address(offset), HeldMode::Shared) };
        let _index = held.unwrap().keep();
        size_word(&machine, segment.handle()).store(1 << 40, Ordering::Relaxed);
        victim.kill();
        // What lies behind looks like a lock that everybody holds shared.
        let words = segment.base().cast::<u64>().as_ptr().wrapping_add(5056 / 8);
        let lookalike = [0, 0x5752_0000 << 32, u64::MAX, u64::MAX, u64::MAX, u64::MAX];
        for (word, value) in lookalike.into_iter().enumerate() {
            // SAFETY: in the last page of the object.
            unsafe { words.wrapping_add(word).write(value) };
        }
        assert!(namespace.reap().unwrap() > 0);
        for (word, value) in lookalike.into_iter().enumerate() {
            // SAFETY: as above.
            assert_eq!(unsafe { words.wrapping_add(word).read() }, value, "word {word}");
        }
        drop(segment);
        namespace.leave(&first).unwrap();
    }
}

#[test]
fn a_size_that_is_damaged_while_it_is_looked_at_is_read_once() {
    let machine = HeapMachine::new();
    let process = machine.process();
    let local = process.local();
    let config = NamespaceConfig { main_region: 16 << 10, ..config() };
    let (namespace, _) = Namespace::open(&process, process.platform(), &config, &local).unwrap();
    let segment = namespace.create_segment(100, 100).unwrap();
    let handle = segment.handle();
    assert!(handle.is_main_region());
    let mapping = process.peek().unwrap();
    // SAFETY: mapped until it is unmapped below.
    let inspector = unsafe { Inspector::new(&mapping, &process) }.unwrap().unwrap();
    let end = mapping.base.as_ptr() as usize + mapping.len;
    let size = size_word(&machine, handle);
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                // More than the region has, and few enough for addresses of 32 bits.
                size.store(1 << 30, Ordering::Relaxed);
                size.store(100, Ordering::Relaxed);
            }
        });
        // Until it was often seen to change, which is when it might have been between two looks.
        let (mut changes, mut good, mut longest) = (0, true, 0);
        while changes < 1000 {
            let seen = inspector.in_main_region(handle);
            changes += u32::from(seen.is_some() != good);
            good = seen.is_some();
            let end = seen.map_or(0, |(base, len)| (base.as_ptr() as usize).saturating_add(len));
            longest = longest.max(end);
        }
        over.store(true, Ordering::Relaxed);
        assert!(longest <= end, "{longest:x} of {end:x}");
    });
    // SAFETY: nothing refers to it any more.
    unsafe { process.unmap(mapping) };
    drop(segment);
    namespace.leave(&process).unwrap();
}

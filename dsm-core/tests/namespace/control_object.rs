//! Control objects that are not what they should be: each kind has an error of its own, and is
//! left alone.

use super::{assert_empty, config, join, refusal};
use std::time::Duration;

use dsm_core::error::ErrorKind;
use dsm_core::namespace::{Discard, Error, Namespace};
use dsm_core::provider::{Election, Root};
use sim::HeapMachine;

/// The bytes of a live namespace's control object, as its creator left them when it was killed.
fn image(machine: &HeapMachine) -> Vec<u8> {
    let victim = machine.process();
    let local = victim.local();
    let ns = join(&victim, &local);
    let segment = ns.create_segment(5000, 5000).unwrap();
    let (base, len) = machine.control_bytes().unwrap();
    // SAFETY: the object is that long, and nobody writes it now.
    let bytes = unsafe { std::slice::from_raw_parts(base.as_ptr(), len) }.to_vec();
    victim.kill();
    drop(segment);
    bytes
}

/// Changes a little-endian word of the image.
fn with(mut bytes: Vec<u8>, at: usize, word: &[u8]) -> Vec<u8> {
    bytes[at..at + word.len()].copy_from_slice(word);
    bytes
}

/// What a process that comes along is told of these bytes.
fn verdict(change: impl FnOnce(Vec<u8>) -> Vec<u8>, keep_identity: bool) -> Error {
    let machine = HeapMachine::new();
    let bytes = change(image(&machine));
    machine.replace_control(&bytes, keep_identity);
    let objects = machine.objects().len();
    let error = refusal(&machine);
    assert_eq!(machine.objects().len(), objects, "nothing was removed: {error}");
    let (base, len) = machine.control_bytes().unwrap();
    // SAFETY: the object is that long, and nobody writes it now.
    let after = unsafe { std::slice::from_raw_parts(base.as_ptr(), len) };
    assert!(after == bytes, "nothing was changed: {error}");
    error
}

#[test]
fn another_programs_object_is_foreign() {
    assert_eq!(verdict(|_| vec![0x42; 100_000], true), Error::Foreign);
    assert_eq!(verdict(|_| vec![0x42; 16], true), Error::Foreign);
    assert_eq!(verdict(|_| vec![0x42; 7], true), Error::Truncated(7, 320));
    assert_eq!(
        verdict(|_| b"not a namespace, but a text long enough".to_vec(), true),
        Error::Foreign
    );
}

#[test]
fn older_and_newer_layouts_are_told_apart() {
    let version = |version: u32| move |bytes| with(bytes, 8, &version.to_le_bytes());
    let older = verdict(version(0), true);
    let newer = verdict(version(9), true);
    assert_eq!((older, newer), (Error::Version(0, 2), Error::Version(9, 2)));
    assert!(older.to_string().contains("older"));
    assert!(newer.to_string().contains("newer"));
}

#[test]
fn another_machines_layout_is_a_fingerprint() {
    // The width of the others' addresses: 4 bytes where ours have 8, and 8 where they have 4.
    let width = verdict(|bytes| with(bytes, 16, &[12 - size_of::<usize>() as u8]), true);
    assert!(matches!(width, Error::Fingerprint(..)));
    assert!(width.to_string().contains(if usize::BITS == 64 { "32-bit" } else { "64-bit" }));
    let swapped = verdict(
        |mut bytes| {
            bytes[..8].reverse();
            bytes
        },
        true,
    );
    assert!(matches!(swapped, Error::Fingerprint(..)));
}

#[test]
fn a_cut_off_object_says_how_much_is_there() {
    let mut whole = 0;
    let error = verdict(
        |mut bytes| {
            whole = bytes.len();
            bytes.truncate(whole - 4096);
            bytes
        },
        true,
    );
    assert_eq!(error, Error::Truncated(whole as u64 - 4096, whole as u64));
    for len in [24, 100, 319] {
        let cut = |mut bytes: Vec<u8>| {
            bytes.truncate(len);
            bytes
        };
        assert_eq!(verdict(cut, true), Error::Truncated(len as u64, 320));
    }
}

#[test]
fn a_copy_never_makes_us_destroy_the_originals_segments() {
    // The bytes list a segment that exists: a copy that was taken for its original would be
    // found without a living process, and cleared out.
    assert_eq!(verdict(|bytes| bytes, false), Error::Copied);
}

#[test]
fn damaged_fields_are_named() {
    let damage = |at: usize, word: u64| verdict(|b| with(b, at, &word.to_le_bytes()), true);
    assert_eq!(damage(64, 8), Error::Corrupt("lock_at"));
    assert_eq!(damage(72, u64::MAX), Error::Corrupt("processes_at"));
    assert_eq!(damage(24, 64), Error::Corrupt("total_size"));
    assert_eq!(damage(112, 13), Error::Corrupt("main_region"));
    assert_eq!(damage(48, 0), Error::Corrupt("max_processes"));
    assert_eq!(damage(56, u64::MAX), Error::Corrupt("max_segments"));
    // The first process slot lies behind the header and one line of lock.
    assert_eq!(damage(320 + 64, 77), Error::Corrupt("state of a process slot"));
    assert_eq!(damage(320 + 64 + 8 * 64, 77), Error::Corrupt("state of a participant slot"));
}

#[test]
fn damage_anywhere_is_an_error_or_harmless_but_never_a_crash() {
    let machine = HeapMachine::new();
    let bytes = image(&machine);
    let mut random = 7_u64;
    for round in 0..3000 {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1442695040888963407);
        let at = (random >> 32) as usize % bytes.len() / 8 * 8;
        let word = if round % 3 == 0 { random } else { 1 << (random >> 20 & 63) };
        let machine = machine.snapshot();
        machine.replace_control(&with(bytes.clone(), at, &word.to_le_bytes()), true);
        let process = machine.process();
        let local = process.local();
        let opened =
            dsm_core::namespace::Namespace::open(&process, process.platform(), &config(), &local);
        if let Ok((ns, _)) = opened {
            ns.leave(&process).unwrap();
        }
    }
}

#[test]
fn an_unfinished_object_is_built_anew() {
    let machine = HeapMachine::new();
    let bytes = image(&machine);
    for unfinished in [vec![], vec![0; 5000], with(bytes, 0, &[0; 8])] {
        machine.replace_control(&unfinished, true);
        let process = machine.process();
        let local = process.local();
        join(&process, &local).leave(&process).unwrap();
    }
    // What the first creator's segment is: listed nowhere any more, and not ours to guess.
    assert_eq!(machine.objects().len(), 1);
    let fresh = HeapMachine::new();
    let process = fresh.process();
    let local = process.local();
    join(&process, &local).leave(&process).unwrap();
    assert_empty(&fresh);
}

#[test]
fn who_asks_is_told_that_its_name_means_something_else() {
    let machine = HeapMachine::new();
    let (first, second) = (machine.process(), machine.process());
    let (local, other) = (first.local(), second.local());
    let ns = join(&first, &local);
    assert_eq!(ns.is_named(&first), Ok(true));
    machine.unlink_control();
    assert_eq!(ns.is_named(&first), Ok(false), "nothing");
    let theirs = join(&second, &other);
    assert_eq!(ns.is_named(&first), Ok(false), "another namespace");
    assert_eq!(theirs.is_named(&second), Ok(true));
    machine.replace_control(b"no", false);
    assert_eq!(theirs.is_named(&second), Ok(false), "something shorter than any");
    ns.reset_after_fork();
    assert_eq!(ns.is_named(&first), Err(Error::Forked));
}

#[test]
fn a_name_taken_by_another_object_is_left_alone_by_who_leaves() {
    let machine = HeapMachine::new();
    let process = machine.process();
    let local = process.local();
    let ns = join(&process, &local);
    machine.replace_control(&[1; 100], false);
    ns.leave(&process).unwrap();
    assert_eq!(machine.objects().len(), 1);
    assert_eq!(process.mapped(), 0);
    machine.unlink_control();
    let ns = join(&process, &local);
    machine.unlink_control();
    ns.leave(&process).unwrap();
    assert_empty(&machine);
}

/// What becomes of a control object of these bytes, without anybody in it.
fn discard(
    bytes: &[u8],
    keep_identity: bool,
    which: Discard,
) -> (HeapMachine, Result<bool, Error>) {
    let machine = HeapMachine::new();
    image(&machine);
    machine.replace_control(bytes, keep_identity);
    let process = machine.process();
    let result = Namespace::discard(&process, process.platform(), Duration::ZERO, which);
    (machine, result)
}

#[test]
fn what_nobody_can_enter_is_discarded() {
    let bytes = image(&HeapMachine::new());
    let cut = &bytes[..bytes.len() - 4096];
    let damaged = with(bytes.clone(), 64, &8_u64.to_le_bytes());
    let older = with(bytes.clone(), 8, &0_u32.to_le_bytes());
    for bytes in [&[][..], &[0; 5000], &with(bytes.clone(), 0, &[0; 8])] {
        for which in [Discard::Unfinished, Discard::Unusable] {
            let (machine, result) = discard(bytes, true, which);
            assert_eq!(result, Ok(true), "{} bytes", bytes.len());
            // Its creator had made no segment; whose this one is nobody can tell.
            assert_eq!(machine.objects().len(), 1);
        }
    }
    for bytes in [cut, &damaged, &older] {
        let (machine, result) = discard(bytes, true, Discard::Unusable);
        assert_eq!(result, Ok(true));
        assert_eq!(machine.objects().len(), 0, "its segments go with it");
        let (machine, result) = discard(bytes, true, Discard::Unfinished);
        assert!(result.is_err() && machine.objects().len() == 2, "not unasked");
    }
    let (machine, result) = discard(&bytes, false, Discard::Unusable);
    assert_eq!((result, machine.objects().len()), (Ok(true), 1), "a copy, not the original");
}

#[test]
fn what_is_somebodys_is_not_discarded() {
    let bytes = image(&HeapMachine::new());
    let newer = with(bytes.clone(), 8, &9_u32.to_le_bytes());
    for bytes in [&bytes[..], &newer, &[0x42; 100], &[0x42; 10]] {
        let (machine, result) = discard(bytes, true, Discard::Unusable);
        assert_eq!((result, machine.objects().len()), (Ok(false), 2));
    }

    let machine = HeapMachine::new();
    let (owner, tool) = (machine.process(), machine.process());
    let attempt = |which| Namespace::discard(&tool, tool.platform(), Duration::ZERO, which);
    assert_eq!(attempt(Discard::Unfinished), Ok(false), "nothing is there");
    // A creator that lives, between making the object and giving it a size.
    let mut election = owner.elect(Duration::ZERO).unwrap();
    let late = attempt(Discard::Unfinished).unwrap_err();
    assert!(matches!(late, Error::Provider(failure) if failure.kind == ErrorKind::TimedOut));
    assert_eq!(machine.objects().len(), 1);
    election.remove().unwrap();
    drop(election);
    // Somebody lives in it, whatever has become of the control object.
    let local = owner.local();
    let namespace = join(&owner, &local);
    let (base, len) = machine.control_bytes().unwrap();
    // SAFETY: the object is that long, and nobody writes it now.
    let bytes = unsafe { std::slice::from_raw_parts(base.as_ptr(), len) }.to_vec();
    for damaged in [&[][..], &bytes[..2000]] {
        machine.replace_control(damaged, true);
        assert_eq!(attempt(Discard::Unusable), Err(Error::InUse(1)));
    }
    machine.replace_control(&bytes, true);
    namespace.leave(&owner).unwrap();
    assert_empty(&machine);
}

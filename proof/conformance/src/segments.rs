//! What [`SegmentProvider`] promises.

use dsm_core::error::{ErrorKind, Reason};
use dsm_core::handle::{ObjectId, SegmentHandle};
use dsm_core::provider::{Mapping, ProviderError, RangeOwner, Root, SegmentProvider};
use dsm_core::sync::Ordering;

use crate::{Backend, Context};
use testkit::memory::{byte, handle, is_zero, long, set_byte};
use testkit::process::Part;

/// Kind of the error that must come.
fn refused<T, E: ProviderError>(result: Result<T, E>) -> ErrorKind {
    let Err(error) = result else { panic!("this must be refused") };
    let failure = error.failure();
    assert_eq!(failure.kind, error.kind(), "the plain form says the same");
    if failure.reason != Reason::Unknown {
        assert_eq!(failure.reason.kind(), failure.kind, "a reason for another kind: {error}");
    }
    assert!(!failure.to_string().is_empty());
    assert!(!error.to_string().is_empty());
    error.kind()
}

pub(crate) fn detach<B: Backend>(context: &Context<B>, mapping: Mapping) {
    // SAFETY: the cases use a mapping no more after this.
    unsafe { context.backend.provider().detach(mapping) };
}

fn discard<B: Backend>(context: &Context<B>, handle: SegmentHandle, made: (Mapping, ObjectId)) {
    context.backend.provider().destroy(handle, made.1).unwrap();
    detach(context, made.0);
}

/// New memory is zero; two mappings of it share it; sizes are as asked for.
pub fn new_memory_is_zero_and_shared<B: Backend>(context: &Context<B>) {
    let provider = context.backend.provider();
    let page = provider.page_size();
    assert!(page.is_power_of_two());
    for (n, size) in [1, 100, page - 1, page, page + 1, 10 * page + 7].into_iter().enumerate() {
        let handle = handle(n as u32);
        let (one, id) = provider.create(handle, size, size).unwrap();
        assert_eq!(one.len, size);
        assert_eq!(one.base.addr().get() % page, 0);
        // Before anything is touched, since touching backs a page too.
        let info = provider.stat(handle).unwrap();
        assert_eq!((info.handle, info.size, info.id), (Some(handle), size as u64, id));
        assert!(info.reserved >= size as u64, "{} of {size} are backed", info.reserved);
        assert!(is_zero(&one));

        let two = provider.attach(handle, id).unwrap();
        assert_eq!(two.len, size);
        set_byte(&one, size - 1, 0xa5);
        assert_eq!(byte(&two, size - 1), 0xa5);
        set_byte(&two, 0, 0x5a);
        assert_eq!(byte(&one, 0), 0x5a);
        let any = provider.attach(handle, ObjectId::default()).unwrap();
        assert_eq!(byte(&any, 0), 0x5a);
        detach(context, any);
        detach(context, two);
        assert_eq!(byte(&one, 0), 0x5a);
        discard(context, handle, (one, id));
    }
}

/// A handle that is in use can't be created again, and its segment is not touched by the try.
pub fn a_name_is_taken_once<B: Backend>(context: &Context<B>) {
    let provider = context.backend.provider();
    let made = provider.create(handle(1), 4096, 4096).unwrap();
    set_byte(&made.0, 5, 55);
    for size in [1, 4096, 1 << 20] {
        assert_eq!(refused(provider.create(handle(1), size, size)), ErrorKind::AlreadyExists);
    }
    let again = provider.attach(handle(1), made.1).unwrap();
    assert_eq!((again.len, byte(&again, 5)), (4096, 55));
    detach(context, again);
    discard(context, handle(1), made);
}

/// What isn't there is an error of that kind, but for its destruction.
pub fn what_is_absent_is_not_found<B: Backend>(context: &Context<B>) {
    let provider = context.backend.provider();
    let some = ObjectId { device: 1, object: 2 };
    for id in [ObjectId::default(), some] {
        assert_eq!(refused(provider.attach(handle(2), id)), ErrorKind::NotFound);
        provider.destroy(handle(2), id).unwrap();
    }
    assert_eq!(refused(provider.stat(handle(2))), ErrorKind::NotFound);
}

/// An object that isn't the one meant is neither attached nor destroyed.
pub fn another_identity_is_refused_and_left_alone<B: Backend>(context: &Context<B>) {
    let provider = context.backend.provider();
    let made = provider.create(handle(3), 100, 100).unwrap();
    if made.1 != ObjectId::default() {
        let other = ObjectId { object: made.1.object ^ 1, ..made.1 };
        let elsewhere = ObjectId { device: made.1.device ^ 1, ..made.1 };
        for wrong in [other, elsewhere] {
            assert_eq!(refused(provider.attach(handle(3), wrong)), ErrorKind::Foreign);
            assert_eq!(refused(provider.destroy(handle(3), wrong)), ErrorKind::Foreign);
        }
    }
    let again = provider.attach(handle(3), made.1).unwrap();
    detach(context, again);
    discard(context, handle(3), made);
}

/// Destroying takes the name; mappings live on, and the name may be used again for other memory.
pub fn destroying_is_idempotent_and_spares_mappings<B: Backend>(context: &Context<B>) {
    let provider = context.backend.provider();
    let (old, old_id) = provider.create(handle(4), 8192, 8192).unwrap();
    set_byte(&old, 8191, 1);
    provider.destroy(handle(4), old_id).unwrap();
    provider.destroy(handle(4), old_id).unwrap();
    provider.destroy(handle(4), ObjectId::default()).unwrap();
    assert_eq!(byte(&old, 8191), 1);
    set_byte(&old, 0, 2);

    let new = provider.create(handle(4), 8192, 8192).unwrap();
    assert!(is_zero(&new.0), "new memory");
    assert_eq!(byte(&old, 0), 2, "old memory");
    detach(context, old);
    discard(context, handle(4), new);
}

/// Somebody cleans up by hand while we have it mapped: nothing fails.
pub fn a_name_removed_from_outside_does_no_harm<B: Backend>(context: &Context<B>) {
    let provider = context.backend.provider();
    let (mapping, id) = provider.create(handle(5), 1 << 20, 4096).unwrap();
    set_byte(&mapping, 1, 1);
    if context.backend.unlink(handle(5)) {
        assert_eq!(refused(provider.attach(handle(5), id)), ErrorKind::NotFound);
        provider.reserve(handle(5), &mapping, 4096..8192).unwrap();
    }
    assert_eq!(byte(&mapping, 1), 1);
    provider.destroy(handle(5), id).unwrap();
    detach(context, mapping);
}

/// Zero, more than can be mapped, and more reserved than there is.
pub fn impossible_sizes_are_refused<B: Backend>(context: &Context<B>) {
    let provider = context.backend.provider();
    for (size, reserved) in
        [(0, 0), (usize::MAX, 0), (isize::MAX as usize + 1, 1), (100, 101), (0, 1)]
    {
        let kind = refused(provider.create(handle(6), size, reserved));
        assert_eq!(kind, ErrorKind::InvalidSize, "{size} with {reserved} reserved");
        assert_eq!(refused(provider.stat(handle(6))), ErrorKind::NotFound, "nothing is left");
    }
}

/// More than there is: an error, at creation, that leaves nothing behind.
pub fn too_large_a_segment_leaves_nothing<B: Backend>(context: &Context<B>) {
    let provider = context.backend.provider();
    let kind = refused(provider.create(handle(7), B::TOO_LARGE, B::TOO_LARGE));
    let expected = [ErrorKind::NoSpace, ErrorKind::NoMemory, ErrorKind::InvalidSize];
    assert!(expected.contains(&kind), "{kind:?}");
    assert_eq!(refused(provider.stat(handle(7))), ErrorKind::NotFound);
    let made = provider.create(handle(7), 4096, 4096).unwrap();
    discard(context, handle(7), made);
}

/// Backing memory later changes no contents, may be repeated, and stays within the mapping.
pub fn reserving_keeps_the_contents<B: Backend>(context: &Context<B>) {
    let provider = context.backend.provider();
    let size = 1 << 20;
    let (mapping, id) = provider.create(handle(8), size, 4096).unwrap();
    set_byte(&mapping, 17, 17);
    for range in [0..0, 4096..20_000, 100..101, 0..size, 0..size, size..size] {
        provider.reserve(handle(8), &mapping, range).unwrap();
    }
    assert!(provider.stat(handle(8)).unwrap().reserved >= size as u64);
    assert_eq!(byte(&mapping, 17), 17);
    assert_eq!(byte(&mapping, size - 1), 0);
    for range in [0..size + 1, size..size + 4096, usize::MAX - 1..usize::MAX] {
        let kind = refused(provider.reserve(handle(8), &mapping, range));
        assert_eq!(kind, ErrorKind::InvalidSize);
    }
    discard(context, handle(8), (mapping, id));
}

/// A blanked mapping reads as zeros and can be written, for nobody to see, while others keep the
/// memory; the range stays taken until its owner gives it back.
pub fn a_blanked_mapping_is_private_zeros<B: Backend>(context: &Context<B>) {
    let provider = context.backend.provider();
    let (one, id) = provider.create(handle(9), 20_000, 20_000).unwrap();
    let two = provider.attach(handle(9), id).unwrap();
    for offset in 0..20_000 {
        set_byte(&one, offset, 0xff);
    }
    let (owner, another) = (RangeOwner::of(&one), RangeOwner::of(&two));
    // SAFETY: the contents of this mapping are of no interest any more.
    unsafe { provider.blank(one, owner) };
    assert!(!B::BLANKS || is_zero(&one));
    // Who is late with a store does not fault, and changes nothing of the others'.
    for offset in [0, 4096, 19_999] {
        set_byte(&one, offset, if B::BLANKS { 1 } else { 0xff });
    }
    // SAFETY: nothing is kept in this name.
    unsafe { provider.release_blanks(another) };
    assert_eq!(byte(&one, 19_999), if B::BLANKS { 1 } else { 0xff });
    assert_eq!((byte(&two, 0), byte(&two, 19_999)), (0xff, 0xff));
    // SAFETY: the range is not used any more.
    unsafe { provider.release_blanks(owner) };
    discard(context, handle(9), (two, id));
}

/// Everything that exists is listed, and nothing of anybody else.
pub fn objects_are_listed<B: Backend>(context: &Context<B>) {
    let (provider, root) = (context.backend.provider(), context.backend.root());
    if !B::LISTS {
        assert_eq!(refused(root.enumerate(&mut |_| {})), ErrorKind::Unsupported);
        return;
    }
    let made: Vec<_> = (0..5u32)
        .map(|n| (handle(n), provider.create(handle(n), 1000 + n as usize, 1).unwrap()))
        .collect();
    let mut found = Vec::new();
    root.enumerate(&mut |object| found.push(*object)).unwrap();
    found.sort_by_key(|object| object.size);
    assert_eq!(found.len(), 5);
    for (object, (handle, (_, id))) in found.iter().zip(&made) {
        assert_eq!((object.handle, object.id), (Some(*handle), *id));
    }
    for (handle, made) in made {
        discard(context, handle, made);
    }
}

/// Many segments at once, each with memory of its own.
pub fn segments_do_not_overlap<B: Backend>(context: &Context<B>) {
    let provider = context.backend.provider();
    let made: Vec<_> = (0..64).map(|n| provider.create(handle(n), 5000, 5000).unwrap()).collect();
    for (n, (mapping, _)) in made.iter().enumerate() {
        set_byte(mapping, n, n as u8 + 1);
        set_byte(mapping, 4999, n as u8 + 1);
    }
    for (n, (mapping, id)) in made.iter().enumerate() {
        let again = provider.attach(handle(n as u32), *id).unwrap();
        assert_eq!((byte(&again, n), byte(mapping, 4999)), (n as u8 + 1, n as u8 + 1));
        detach(context, again);
    }
    for (n, made) in made.into_iter().enumerate() {
        discard(context, handle(n as u32), made);
    }
}

/// A second process sees the same memory, at whatever address.
pub fn two_processes_share_a_segment<B: Backend>(context: &Context<B>) {
    if !B::PROCESSES {
        return;
    }
    let provider = context.backend.provider();
    let (mapping, id) = provider.create(handle(10), 300_000, 300_000).unwrap();
    long(&mapping, 8).store(1, Ordering::Release);
    let mut child = context.spawn("sharer");
    assert_eq!(child.ask("attach 10"), "300000");
    assert_eq!(child.ask("add 8 41"), "1");
    assert_eq!(long(&mapping, 8).load(Ordering::Acquire), 42);
    assert_eq!(child.ask("add 299992 7"), "0");
    assert_eq!(long(&mapping, 299_992).load(Ordering::Acquire), 7);
    assert_eq!(child.ask("attach 11"), "NotFound");
    child.say("bye");
    assert_eq!(child.hear(), "bye");
    discard(context, handle(10), (mapping, id));
}

/// A process is killed that has the segment mapped: the memory stays as it was left.
pub fn a_killed_process_leaves_the_memory<B: Backend>(context: &Context<B>) {
    if !B::PROCESSES {
        return;
    }
    let provider = context.backend.provider();
    let (mapping, id) = provider.create(handle(12), 4096, 4096).unwrap();
    let mut child = context.spawn("sharer");
    assert_eq!(child.ask("attach 12"), "4096");
    assert_eq!(child.ask("add 0 5"), "0");
    child.end();
    assert_eq!(long(&mapping, 0).load(Ordering::Acquire), 5);
    let again = provider.attach(handle(12), id).unwrap();
    assert_eq!(long(&again, 0).load(Ordering::Acquire), 5);
    detach(context, again);
    discard(context, handle(12), (mapping, id));
}

/// Attaches segments and adds to their words as it is told.
pub(crate) fn sharer<B: Backend>(backend: &B, parent: &Part) {
    let mut mapping = None;
    while let Some(line) = parent.hear() {
        let words: Vec<&str> = line.split(' ').collect();
        match words[..] {
            ["attach", n] => {
                match backend.provider().attach(handle(n.parse().unwrap()), ObjectId::default()) {
                    Ok(attached) => {
                        parent.say(&attached.len.to_string());
                        mapping = Some(attached);
                    }
                    Err(e) => parent.say(&format!("{:?}", e.kind())),
                }
            }
            ["add", offset, value] => {
                let word = long(mapping.as_ref().unwrap(), offset.parse().unwrap());
                let before = word.fetch_add(value.parse().unwrap(), Ordering::AcqRel);
                parent.say(&before.to_string());
            }
            _ => {
                parent.say("bye");
                break;
            }
        }
    }
}

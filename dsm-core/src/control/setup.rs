//! Building a control segment, and judging one that is there.
//!
//! Both are done by the holder of the election (tools judge without it). Building constructs
//! every structure in place and stores the magic last; a kill before that leaves an object
//! without a magic, which the next holder builds again from nothing. Judging goes from the
//! outside in, so that each kind of wrong object has an error of its own: too short for a header,
//! of somebody else, of another version, of another kind of machine, a copy, shorter than it
//! says, damaged.

use core::ptr::NonNull;
use core::sync::atomic::Ordering::{Acquire, Relaxed, Release};

use super::header::{Header, Layout, MAGIC, VERSION, fingerprint};
use super::process::{self, ProcessSlot};
use super::segment::SegmentRecord;
use super::{Control, ControlLock, Found, fits, participant_state, same_object};
use crate::env::Environment;
use crate::handle::ObjectId;
use crate::lock::RawLock;
use crate::namespace::Error;
use crate::participant::ParticipantSlot;
use crate::planted::{Bug, planted};
use crate::provider::Mapping;
use crate::sync::{AtomicU32, AtomicU64};

/// Builds a control segment in a new object and publishes it.
///
/// # Safety
///
/// `mapping` must be a fresh mapping of at least `layout.total` bytes of the object `id`, mapped
/// for `'a`, that nobody else uses: the caller holds the election.
pub(crate) unsafe fn initialise<'a>(
    mapping: &Mapping,
    layout: Layout,
    persistent: bool,
    id: ObjectId,
    env: &'a dyn Environment,
) -> Control<'a> {
    let base = mapping.base;
    // SAFETY: the header is the first part of the layout; nobody else uses the memory.
    unsafe { build(base, 0, || Header::new(&layout, persistent, id)) };
    if planted(Bug::MagicFirst) {
        // SAFETY: the header was built just now.
        unsafe { base.cast::<Header>().as_ref() }.magic.store(MAGIC, Release);
    }
    // SAFETY: as above; the lock's part is as long as `size_for` says.
    let lock = unsafe { base.add(layout.lock_at) }.cast::<ControlLock>();
    // SAFETY: as above.
    unsafe { ControlLock::init(lock, layout.max_participants) };
    for index in 0..layout.max_processes as usize {
        let at = layout.processes_at + index * size_of::<ProcessSlot>();
        // SAFETY: within the part of process slots.
        unsafe { build(base, at, ProcessSlot::new) };
    }
    for index in 0..layout.max_participants as usize {
        let at = layout.participants_at + index * size_of::<ParticipantSlot>();
        // SAFETY: within the part of participant slots.
        unsafe { build(base, at, ParticipantSlot::new) };
    }
    for index in 0..layout.max_segments as usize {
        let at = layout.segments_at + index * layout.segment_stride;
        // SAFETY: within the part of segment slots.
        unsafe { build(base, at, SegmentRecord::new) };
        let bits = at + size_of::<SegmentRecord>();
        // SAFETY: the stride covers these words.
        unsafe { build_words(base, bits, Layout::words(layout.max_processes as usize)) };
    }
    let pages = layout.main_len / super::PAGE;
    let words = Layout::words(layout.max_segments as usize) + Layout::words(pages);
    // SAFETY: the indexes' part has room for exactly these words.
    unsafe { build_words(base, layout.indexes_at, words) };
    // SAFETY: everything was built just now.
    let control = unsafe { Control::view(base, layout, env) };
    control.header.magic.store(MAGIC, Release);
    control
}

/// Constructs a value in place.
///
/// # Safety
///
/// The place must be valid for writes and aligned, and in use by nobody.
unsafe fn build<T>(base: NonNull<u8>, offset: usize, make: impl FnOnce() -> T) {
    // SAFETY: the caller promises that the offset lies within the mapping.
    let at = unsafe { base.add(offset) }.cast::<T>();
    debug_assert!(at.is_aligned());
    // SAFETY: the caller's promise.
    unsafe { at.write(make()) };
}

/// Constructs `count` zero words in place.
///
/// # Safety
///
/// As for `build`.
unsafe fn build_words(base: NonNull<u8>, offset: usize, count: usize) {
    for word in 0..count {
        let at = offset + word * size_of::<AtomicU64>();
        // SAFETY: the caller's promise.
        unsafe { build(base, at, || AtomicU64::new(0)) };
    }
}

/// The identity that a mapped object has recorded, if it is a control object of this layout.
///
/// # Safety
///
/// `mapping` must be valid for reads.
pub(crate) unsafe fn recorded_id(mapping: &Mapping) -> Option<ObjectId> {
    if !fits(mapping, size_of::<Header>()) {
        return None;
    }
    // SAFETY: the object is long enough, and any bytes are a header.
    let header = unsafe { mapping.base.cast::<Header>().as_ref() };
    let ours = header.magic.load(Acquire) == MAGIC && header.version.load(Relaxed) == VERSION;
    ours.then(|| header.id())
}

/// Judges a mapped control object.
///
/// # Errors
///
/// [`Error::Truncated`], [`Error::Foreign`], [`Error::Version`], [`Error::Fingerprint`],
/// [`Error::Copied`], [`Error::Corrupt`].
///
/// # Safety
///
/// `mapping` must be valid for reads, for `'a`.
pub(crate) unsafe fn validate<'a>(
    mapping: &Mapping,
    id: ObjectId,
    env: &'a dyn Environment,
) -> Result<Found<'a>, Error> {
    let too_short = |needed: usize| Error::Truncated(mapping.len as u64, needed as u64);
    // Only the first words are looked at before the length of the whole header is known to be
    // there: magic and version mean the same in every layout.
    if !fits(mapping, size_of::<AtomicU64>()) {
        return Err(too_short(size_of::<Header>()));
    }
    // SAFETY: the object is long enough for the field, which is its first.
    let magic = unsafe { mapping.base.cast::<AtomicU64>().as_ref() }.load(Acquire);
    if !fits(mapping, core::mem::offset_of!(Header, total_size)) {
        // What others have put there is not called a part of ours.
        let ours = [0, MAGIC, MAGIC.swap_bytes()].contains(&magic);
        return Err(if ours { too_short(size_of::<Header>()) } else { Error::Foreign });
    }
    // SAFETY: the object is long enough for the field.
    let version_at = unsafe { mapping.base.add(core::mem::offset_of!(Header, version)) };
    match magic {
        MAGIC => {}
        0 => return Ok(Found::Unpublished),
        swapped if swapped == MAGIC.swap_bytes() => {
            return Err(Error::Fingerprint(swapped, fingerprint()));
        }
        _ => return Err(Error::Foreign),
    }
    // SAFETY: aligned, as the mapping is to a page, and within the object.
    let version = unsafe { version_at.cast::<AtomicU32>().as_ref() }.load(Relaxed);
    if version != VERSION {
        return Err(Error::Version(version, VERSION));
    }
    if !fits(mapping, size_of::<Header>()) {
        return Err(too_short(size_of::<Header>()));
    }
    // SAFETY: the object is long enough, and any bytes are a header.
    let header = unsafe { mapping.base.cast::<Header>().as_ref() };
    let layout = judge_header(header, mapping, id)?;
    // SAFETY: the object holds the whole layout, and any bytes are slots, which are all atomics.
    let control = unsafe { Control::view(mapping.base, layout, env) };
    judge_slots(&control)?;
    // SAFETY: the lock lies where the layout says, within the object.
    let lock = unsafe { mapping.base.add(layout.lock_at) }.cast::<ControlLock>();
    // SAFETY: as above.
    if !unsafe { ControlLock::has_length_for(lock, layout.max_participants) } {
        return Err(Error::Corrupt("length of the control lock"));
    }
    Ok(Found::Valid(control))
}

fn judge_header(header: &Header, mapping: &Mapping, id: ObjectId) -> Result<Layout, Error> {
    let theirs = header.fingerprint.load(Relaxed);
    if theirs != fingerprint() {
        return Err(Error::Fingerprint(theirs, fingerprint()));
    }
    if !same_object(header.id(), id) {
        return Err(Error::Copied);
    }
    let layout = Layout::compute(
        header.max_processes.load(Relaxed),
        header.max_participants.load(Relaxed),
        header.max_segments.load(Relaxed),
        header.main_len.load(Relaxed),
    )
    .map_err(|range| Error::Corrupt(range.option))?;
    let offsets = [
        (&header.lock_at, layout.lock_at, "lock_at"),
        (&header.processes_at, layout.processes_at, "processes_at"),
        (&header.participants_at, layout.participants_at, "participants_at"),
        (&header.segments_at, layout.segments_at, "segments_at"),
        (&header.indexes_at, layout.indexes_at, "indexes_at"),
        (&header.main_at, layout.main_at, "main_at"),
        (&header.total_size, layout.total, "total_size"),
    ];
    for (word, expected, name) in offsets {
        if word.load(Relaxed) != expected as u64 {
            return Err(Error::Corrupt(name));
        }
    }
    if header.deaths.get(Relaxed) == 0 {
        return Err(Error::Corrupt("death count"));
    }
    if !fits(mapping, layout.total) {
        return Err(Error::Truncated(mapping.len as u64, layout.total as u64));
    }
    Ok(layout)
}

/// Looks for states that no slot ever has. What else a slot says is checked where it is used.
fn judge_slots(control: &Control<'_>) -> Result<(), Error> {
    if control.processes.iter().any(|slot| slot.get().1 > process::DEAD) {
        return Err(Error::Corrupt("state of a process slot"));
    }
    for slot in control.participants {
        if process::unpack(slot.state.load(Relaxed)).1 > participant_state::ENDED {
            return Err(Error::Corrupt("state of a participant slot"));
        }
    }
    if control.segments().any(|slot| !slot.is_sane()) {
        return Err(Error::Corrupt("state of a segment slot"));
    }
    Ok(())
}

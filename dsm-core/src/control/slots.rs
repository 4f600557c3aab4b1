//! Segment slots: finding, taking, publishing, retiring and freeing them; all under the control
//! lock.
//!
//! The state words are the truth, the bitmaps and hints beside them follow: each function stores
//! the word where a kill leaves the one or the other consistent story, and the indexes after it.
//! A kill in between is noticed by the lock's next owner, who rebuilds them.
//!
//! Neither hint ever lies beyond a free slot or page: taking the lowest free one raises the hint,
//! freeing lowers it.

use super::segment::{SegmentSlot, State, Word};
use super::{Control, header::PAGE};
use crate::handle::SegmentHandle;
use crate::sync::Ordering;

/// Whether a slot's pin depends on a segment that is gone.
pub(crate) fn is_parent_gone(control: &Control<'_>, slot: &SegmentSlot<'_>) -> bool {
    SegmentHandle::from_raw(slot.record.parent.load(Ordering::Relaxed))
        .is_some_and(|parent| find(control, parent).is_none())
}

/// The LIVE slot of that handle; under the control lock.
#[inline]
pub(crate) fn find<'a>(control: &Control<'a>, handle: SegmentHandle) -> Option<SegmentSlot<'a>> {
    let slot = control.segment(handle.slot())?;
    let live = slot.word().state == State::Live;
    (live && slot.record.handle.load(Ordering::Relaxed) == handle.get()).then_some(slot)
}

/// What is left to do for a slot that was retired.
#[derive(Clone, Copy)]
pub(crate) struct Retired {
    /// Whether other slots were retired with it.
    pub(crate) others: bool,
}

/// Retires a LIVE slot that nobody has attached or pinned; under the control lock.
#[inline]
pub(crate) fn retire_if_unused(control: &Control<'_>, slot: &SegmentSlot<'_>) -> Option<Retired> {
    let word = slot.word();
    if word.state != State::Live || word.pinned || slot.is_attached() {
        return None;
    }
    Some(retire(control, slot))
}

/// Retires a slot, and unpins what depends on it; under the control lock.
pub(crate) fn retire(control: &Control<'_>, slot: &SegmentSlot<'_>) -> Retired {
    let word = slot.word();
    if slot.handle().is_some_and(|handle| handle.is_main_region()) {
        let pages = control.pages_of(slot);
        free_slot(control, slot);
        if let Some((page, count)) = pages {
            control.pages_taken.fill(page as usize, count, false);
            let hint = control.header.page_hint.load(Ordering::Relaxed).min(page as u32);
            control.header.page_hint.store(hint, Ordering::Relaxed);
        }
    } else {
        slot.set(Word::new(State::Moribund, word.generation));
    }
    if word.parent {
        let parent = slot.record.handle.load(Ordering::Relaxed);
        release_children(control, parent);
    }
    Retired { others: word.parent }
}

/// Unpins the children of a retired segment and retires those that nobody has attached.
#[cold]
fn release_children(control: &Control<'_>, parent: u64) {
    for child in control.segments() {
        let word = child.word();
        let mine = child.record.parent.load(Ordering::Relaxed) == parent;
        if mine && word.pinned && word.state == State::Live {
            child.set(Word { pinned: false, ..word });
            retire_if_unused(control, &child);
        }
    }
}

/// Frees a slot whose object is gone; under the control lock.
pub(crate) fn free_slot(control: &Control<'_>, slot: &SegmentSlot<'_>) {
    slot.set(Word::new(State::Free, slot.word().generation));
    control.slots_taken.fill(slot.index as usize, 1, false);
    let hint = control.header.slot_hint.load(Ordering::Relaxed).min(slot.index);
    control.header.slot_hint.store(hint, Ordering::Relaxed);
}

/// Takes a free slot for a new segment, its generation raised; under the control lock. The slot
/// is FREE until the caller says otherwise.
#[inline]
pub(crate) fn take_slot<'a>(control: &Control<'a>) -> Option<(SegmentSlot<'a>, u32)> {
    let hint = control.header.slot_hint.load(Ordering::Relaxed);
    let index = control.slots_taken.find_run(1, hint as usize)?;
    let slot = control.segment(index as u32)?;
    slot.clear_attached();
    slot.record.parent.store(0, Ordering::Relaxed);
    Some((slot, slot.word().generation.wrapping_add(1)))
}

/// Publishes a slot taken by [`take_slot`]: from here on it is not free.
#[inline]
pub(crate) fn publish(control: &Control<'_>, slot: &SegmentSlot<'_>, word: Word) {
    slot.set(word);
    control.slots_taken.fill(slot.index as usize, 1, true);
    control.header.slot_hint.store(slot.index + 1, Ordering::Relaxed);
}

/// Takes `pages` pages of the main region; under the control lock. They count as free until the
/// slot that names them is published and [`keep_pages`] was called.
#[inline]
pub(crate) fn find_pages(control: &Control<'_>, size: usize) -> Option<(u32, usize)> {
    let pages = size.div_ceil(PAGE);
    let hint = control.header.page_hint.load(Ordering::Relaxed);
    let page = control.pages_taken.find_run(pages, hint as usize)?;
    Some((page as u32, pages))
}

/// Marks pages found by [`find_pages`] as taken.
#[inline]
pub(crate) fn keep_pages(control: &Control<'_>, page: u32, pages: usize) {
    control.pages_taken.fill(page as usize, pages, true);
    if control.header.page_hint.load(Ordering::Relaxed) == page {
        control.header.page_hint.store(page + pages as u32, Ordering::Relaxed);
    }
}

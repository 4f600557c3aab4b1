//! Segments in the namespace's preallocated main region.
//!
//! The region is the end of the control segment, so it is mapped and backed by memory as long as
//! the namespace is open: a segment in it costs no system call. Its handle is odd. Which pages
//! are taken follows from the LIVE slots; the bitmap is an index, and its hint makes the common
//! case, freeing what was taken last, independent of the size of the region. First fit from the
//! hint is linear in the bitmap's words when the region is fragmented: 64 pages, 256 KiB, a step.
//!
//! Memory is not zeroed when it is used again.

use crate::control::segment::{SegmentSlot, State, Word};
use crate::control::{Control, header, slots};
use crate::handle::{ObjectId, SegmentHandle};
use crate::namespace::{Error, Namespace, acquire};
use crate::provider::Mapping;
use crate::segment::Segment;
use crate::sync::Ordering;

/// Creates a segment in the main region; `None` if there is no room for it.
#[inline]
pub(crate) fn create<'n>(
    namespace: &'n Namespace<'_>,
    size: usize,
) -> Result<Option<Segment<'n>>, Error> {
    let control = &namespace.control;
    if size > control.layout.main_len {
        return Ok(None);
    }
    let made = namespace.with_random(|random| {
        let (page, pages) = slots::find_pages(control, size)?;
        let (slot, generation) = slots::take_slot(control)?;
        let handle = draw(random, slot.index);
        let record = slot.record;
        slot.set_handle(handle);
        record.size.store(size as u64, Ordering::Relaxed);
        record.reserved.store(size as u64, Ordering::Relaxed);
        record.page.store(u64::from(page), Ordering::Relaxed);
        slot.set_id(ObjectId::default());
        slot.set_attached(namespace.process.0, true);
        slots::publish(control, &slot, Word::new(State::Live, generation));
        slots::keep_pages(control, page, pages);
        Some((handle, page))
    })?;
    let Some((handle, page)) = made else { return Ok(None) };
    let base = control.page_address(u64::from(page));
    namespace.local.note_use(handle.slot());
    let mut mapped = acquire(&namespace.local.segments[handle.slot() as usize].mapped, control.env);
    if mapped.handle == handle.get() {
        // A thread of this process learned of the handle by a look at the control segment, and was
        // faster.
        mapped.handles += 1;
    } else {
        mapped.handle = handle.get();
        mapped.base = base.as_ptr();
        mapped.len = size;
        mapped.handles = 1;
    }
    drop(mapped);
    Ok(Some(Segment::new(namespace, handle, base, size)))
}

/// Where an attached segment of the main region, of that size, lies.
pub(crate) fn locate(
    control: &Control<'_>,
    slot: &SegmentSlot<'_>,
    size: usize,
) -> Result<Mapping, Error> {
    let pages = control.pages_for(slot, size);
    let (page, _) = pages.ok_or(Error::Corrupt("page of a segment slot"))?;
    // A length and token of zero: there is nothing to unmap.
    Ok(Mapping { base: control.page_address(page), len: 0, token: 0 })
}

/// A handle from the process's own generator, which was seeded by the platform: a call to the
/// platform would cost more than everything else here. (SplitMix64.)
fn draw(random: &mut u64, slot: u32) -> SegmentHandle {
    loop {
        *random = random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = *random;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        if let Some(handle) = SegmentHandle::compose(bits ^ (bits >> 31), slot, true) {
            return handle;
        }
    }
}

impl Namespace<'_> {
    /// Bytes of the main region: (all, taken).
    #[must_use]
    pub fn main_region(&self) -> (usize, usize) {
        (self.control.layout.main_len, self.control.pages_taken.count() * header::PAGE)
    }
}

//! Where things lie in a segment.
//!
//! ```text
//!  0        2048         +64/unit     +4/page     +16/node   +8/64 pages   (segment 0)
//! +--------+------------+------------+-----------+----------+-------------+----------- - -
//! | header | unit table | page words | tree      | bitmap   | locks       |
//! +--------+------------+------------+-----------+----------+-------------+----------- - -
//!   sides_at: 1,088 bytes a unit     meta_pages
//! - - ------+------------------------+------------------------------- - -
//!           | side areas             | pages for runs and slabs
//! - - ------+------------------------+------------------------------- - -
//! ```
//!
//! * A *unit* is 64 KiB, aligned to 64 KiB: a slab, or sixteen pages of mixed use. The unit table
//!   is at the same place in every segment, so that the header of a pointer's slab is one shift
//!   and one add away.
//! * A unit's *side area* holds the truth bytes of its slab (1,024, for objects of 64 bytes and
//!   more), or the headers of what its pages are used for (sixteen of 64 bytes, for a slab of one
//!   page or the head of a run) and sixteen times four truth bytes. Its length is an odd number
//!   of cache lines, because equal positions in areas of a power of two would share a set of the
//!   cache.
//! * Everything before `sides_at` is backed by memory when the segment is made; side areas and
//!   pages are backed together, as far as the watermark of the directory entry goes.
//!
//! The first segment of an area is 64 KiB by default; its header, locks and tables fit into one
//! page, which leaves fifteen.

/// Bytes of a page, the granule of runs.
pub(crate) const PAGE: u64 = 4096;
/// Bytes of a unit, the size of a full slab.
pub(crate) const UNIT: u64 = 65536;
/// Pages of a unit.
pub(crate) const UNIT_PAGES: u32 = 16;
/// Where the unit table starts, in every segment.
pub(crate) const UNITS_AT: u64 = 2048;
/// Bytes of a slab header.
pub(crate) const HEADER: u64 = 64;
/// Bytes of a side area.
pub(crate) const SIDE: u64 = 1088;
/// Where in a side area the truth bytes of slabs of one page are, four for each page.
pub(crate) const SIDE_MINI_TRUTH: u64 = 1024;
/// Largest segment, in bytes.
pub(crate) const MAX_SEGMENT: u64 = 1 << 40;
/// Side areas of at most this many bytes are backed at once.
const EAGER_SIDES: u64 = 64 << 10;

/// The positions in a segment of one size.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Geometry {
    /// Pages, metadata included.
    pub(crate) pages: u32,
    /// Units, the last one possibly incomplete.
    pub(crate) units: u32,
    /// Leaves of the tree: 64 pages each, a power of two.
    pub(crate) leaves: u32,
    pub(crate) words_at: u64,
    pub(crate) tree_at: u64,
    pub(crate) bitmap_at: u64,
    pub(crate) locks_at: u64,
    pub(crate) sides_at: u64,
    /// Pages at the start that are metadata.
    pub(crate) meta_pages: u32,
}

impl Geometry {
    /// The geometry of a segment of `size` bytes with `locks` bytes of locks; `None` when that
    /// is too small to hold a page besides, or too large.
    pub(crate) const fn new(size: u64, locks: u64) -> Option<Self> {
        if size > MAX_SEGMENT || locks > MAX_SEGMENT {
            return None;
        }
        let pages = (size / PAGE) as u32;
        let units = pages.div_ceil(UNIT_PAGES);
        let leaves = pages.div_ceil(64).next_power_of_two();
        let words_at = UNITS_AT + units as u64 * HEADER;
        let tree_at = words_at + units as u64 * (UNIT_PAGES as u64 * 4);
        let bitmap_at = tree_at + (2 * leaves as u64 - 1) * 16;
        let locks_at = (bitmap_at + leaves as u64 * 8).next_multiple_of(64);
        let sides_at = (locks_at + locks).next_multiple_of(64);
        let meta_pages = (sides_at + units as u64 * SIDE).div_ceil(PAGE);
        if meta_pages >= pages as u64 {
            return None;
        }
        Some(Self {
            pages,
            units,
            leaves,
            words_at,
            tree_at,
            bitmap_at,
            locks_at,
            sides_at,
            meta_pages: meta_pages as u32,
        })
    }

    /// Bytes that must be backed before the segment is used.
    pub(crate) const fn fixed(&self) -> u64 {
        if self.eager_sides() { self.meta_pages as u64 * PAGE } else { self.sides_at }
    }

    /// Whether the side areas are part of [`fixed`](Self::fixed).
    pub(crate) const fn eager_sides(&self) -> bool {
        self.units as u64 * SIDE <= EAGER_SIDES
    }

    /// The first page of a run in an empty segment.
    const fn first(&self, unit: bool) -> u32 {
        if unit { self.meta_pages.next_multiple_of(UNIT_PAGES) } else { self.meta_pages }
    }

    /// Bytes of the longest run in a segment of at most `room` bytes.
    pub(crate) fn longest_run_in(room: u64) -> u64 {
        let room = room.min(MAX_SEGMENT) / UNIT * UNIT;
        // Where a power of two is exceeded the tree doubles, and may take more than was won.
        let power = if room == 0 { 0 } else { 1 << room.ilog2() };
        let runs = [room, power].map(|size| {
            Self::new(size, 0).map_or(0, |geometry| geometry.pages - geometry.meta_pages)
        });
        u64::from(runs[0].max(runs[1])) * PAGE
    }

    /// Whether the segment can hold a run of this many pages, aligned to units or not.
    pub(crate) const fn fits(&self, pages: u32, unit: bool) -> bool {
        match self.first(unit).checked_add(pages) {
            Some(end) => end <= self.pages,
            None => false,
        }
    }

    /// The smallest segment, a multiple of 64 KiB, that can hold the run besides its metadata.
    pub(crate) fn size_for(pages: u32, unit: bool) -> Option<u64> {
        let mut size = (u64::from(pages) * PAGE).next_multiple_of(UNIT);
        // From below: each round makes room for the tables of the one before.
        while size <= MAX_SEGMENT {
            size = match Self::new(size, 0) {
                Some(geometry) if geometry.fits(pages, unit) => return Some(size),
                Some(geometry) => {
                    let end = u64::from(geometry.first(unit)) + u64::from(pages);
                    (end * PAGE).next_multiple_of(UNIT)
                }
                None => size + UNIT,
            };
        }
        None
    }

    /// Offset of the word of a page.
    pub(crate) const fn word(&self, page: u32) -> u64 {
        self.words_at + page as u64 * 4
    }

    /// Offset of a unit's side area.
    pub(crate) const fn side(&self, unit: u32) -> u64 {
        self.sides_at + unit as u64 * SIDE
    }

    /// Offset of the header of a slab of one page, or of a run's head.
    pub(crate) const fn page_header(&self, page: u32) -> u64 {
        self.side(page / UNIT_PAGES) + (page % UNIT_PAGES) as u64 * HEADER
    }

    /// Offset of the header of a unit.
    pub(crate) const fn unit_header(unit: u32) -> u64 {
        UNITS_AT + unit as u64 * HEADER
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_segment_has_one_page_of_metadata() {
        let g = Geometry::new(64 << 10, 128).unwrap();
        assert_eq!((g.pages, g.units, g.meta_pages), (16, 1, 1));
        assert!(g.fits(15, false) && !g.fits(16, false) && !g.fits(16, true));
    }

    #[test]
    fn metadata_is_a_fiftieth() {
        for shift in 20..=40 {
            let g = Geometry::new(1 << shift, 0).unwrap();
            assert!(u64::from(g.meta_pages) * 50 <= u64::from(g.pages) + 50);
            assert!(g.sides_at + u64::from(g.units) * SIDE <= u64::from(g.meta_pages) * PAGE);
        }
        assert_eq!(Geometry::new(MAX_SEGMENT + 1, 0), None);
        assert_eq!(Geometry::new(4096, 0), None);
    }

    #[test]
    fn the_longest_run_needs_no_longer_segment() {
        let rooms = (0..200).map(|n| n * 40_000);
        let powers = (20..=40).flat_map(|shift| [-1i64, 0, 1].map(|n| (1 << shift) + n * 65_536));
        for room in rooms.chain(powers.map(|room| room as u64)).chain([u64::MAX]) {
            let longest = Geometry::longest_run_in(room);
            let needed = |pages| Geometry::size_for(pages, false).is_some_and(|size| size <= room);
            assert!(longest == 0 || needed((longest / PAGE) as u32), "{room}: {longest}");
            assert!(!needed((longest / PAGE) as u32 + 1), "{room}: {longest}");
        }
    }

    #[test]
    fn a_segment_of_its_own_holds_its_run() {
        for pages in [1u32, 15, 16, 17, 1000, 16_384, 1 << 20] {
            for unit in [false, true] {
                let size = Geometry::size_for(pages, unit).unwrap();
                assert!(Geometry::new(size, 0).unwrap().fits(pages, unit));
                assert!(size <= (u64::from(pages) * PAGE) * 104 / 100 + 3 * UNIT);
            }
        }
    }
}

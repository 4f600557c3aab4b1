//! Runs of pages.
//!
//! **Truth**: one word a page. The word of a run's first page holds its kind and length, all other
//! words are 0. A run is allocated by one store and freed by one store.
//!
//! **Derived**: a bitmap of free pages, and over it a binary tree whose nodes say, of the pages
//! below them, how long a free run starts them, ends them, is the longest in them, and how many
//! units are free as a whole. The first node answers both questions exactly ("is there a run of n
//! pages?", "is there a free unit?"), a walk down finds the lowest one (address-ordered first fit,
//! which fragments about as little as best fit, and keeps the watermark of backed memory low), and
//! a change is one walk up: all of it in a number of steps that grows with the logarithm of the
//! segment's size. Adjacent free runs need no coalescing: they are neighbours in the bitmap.
//!
//! **Who writes**: everything here is written under the area's page lock, and read under it but for
//! the words. Those are released and acquired: who sees a word sees the header that was stored
//! before it, and of another's run no more than that, since it may be gone at once. The largest free
//! run and the count of free units are copied to the segment's directory entry, so that a segment is
//! chosen without mapping it.
//!
//! **After a crash**: whoever takes the page lock from a dead owner calls [`Pages::rebuild`], which
//! makes the bitmap and the tree from the words. Pages beyond the watermark are free and their
//! words are still 0, so the rebuild doesn't look there.

use dsm_core::planted::{Bug, planted};
use dsm_core::sync::{
    AtomicU32, AtomicU64,
    Ordering::{AcqRel, Acquire, Relaxed, Release},
};

use crate::error::Corruption;
use crate::layout::{Geometry, MAX_SEGMENT, PAGE, UNIT_PAGES};
use crate::memory::{Memory, Shared};
use crate::slab::{Owner, SlabHeader};

/// What a run of pages is used for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub(crate) enum Kind {
    /// The tables at a segment's start.
    Meta = 1,
    /// A slab of a whole unit.
    Slab = 2,
    /// A slab of one page.
    Mini = 3,
    /// An object.
    Large = 4,
    /// An object that its allocator has not published yet: its header names the allocator.
    Unpublished = 5,
    /// The second part of the area's directory.
    Directory = 6,
}

/// The word of a run's head.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Run {
    pub(crate) kind: Kind,
    pub(crate) pages: u32,
}

// The longest segment is not longer than a run can be.
const _: () = assert!(MAX_SEGMENT / PAGE < 1 << Run::LEN_BITS);

impl Run {
    const LEN_BITS: u32 = 29;
    /// The word of a slab of one page.
    pub(crate) const MINI: u32 = Self { kind: Kind::Mini, pages: 1 }.pack();

    pub(crate) const fn pack(self) -> u32 {
        (self.kind as u32) << Self::LEN_BITS | self.pages
    }

    /// The run that starts at the page of `word`, if one does.
    pub(crate) fn load(word: &AtomicU32) -> Result<Option<Self>, Corruption> {
        let order = if planted(Bug::PageWordRelaxed) { Relaxed } else { Acquire };
        Self::unpack(word.load(order))
    }

    /// The run starts at the page of `word`: what it is found by.
    pub(crate) fn store(self, word: &AtomicU32) {
        word.store(self.pack(), Release);
    }

    /// Whether the run starts at the page of `word`, and its header says `owner`. The page lock is
    /// held.
    pub(crate) fn is_still(self, word: &AtomicU32, header: &SlabHeader, owner: Owner) -> bool {
        word.load(Acquire) == self.pack() && header.owner() == owner
    }

    /// `None` for 0; an error for a word that no run has.
    pub(crate) const fn unpack(word: u32) -> Result<Option<Self>, Corruption> {
        let pages = word & ((1 << Self::LEN_BITS) - 1);
        let kind = match word >> Self::LEN_BITS {
            0 if pages == 0 => return Ok(None),
            1 => Kind::Meta,
            2 => Kind::Slab,
            3 => Kind::Mini,
            4 => Kind::Large,
            5 => Kind::Unpublished,
            6 => Kind::Directory,
            _ => return Err(Corruption::new("a page word of no kind", word as u64)),
        };
        if pages == 0 {
            return Err(Corruption::new("a run without pages", word as u64));
        }
        Ok(Some(Self { kind, pages }))
    }
}

/// A node of the tree over a number of pages that is a power of two.
#[repr(C)]
pub(crate) struct Node {
    /// Free pages at the start.
    start: AtomicU32,
    /// The longest free run.
    longest: AtomicU32,
    /// Free pages at the end.
    end: AtomicU32,
    /// Units that are free as a whole.
    units: AtomicU32,
}

// SAFETY: repr(C), atomics only.
unsafe impl Shared for Node {}

/// The value of a node.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Summary {
    start: u32,
    pub(crate) longest: u32,
    end: u32,
    pub(crate) units: u32,
}

impl Summary {
    fn of_leaf(bits: u64) -> Self {
        let mut longest = 0;
        // A round a run: there are few, mostly one.
        let mut rest = bits;
        while rest != 0 {
            rest >>= rest.trailing_zeros();
            let run = rest.trailing_ones();
            longest = longest.max(run);
            rest = rest.checked_shr(run).unwrap_or(0);
        }
        let units = (0..4).filter(|unit| (bits >> (16 * unit)) as u16 == u16::MAX).count();
        Self {
            start: (!bits).trailing_zeros(),
            longest,
            end: (!bits).leading_zeros(),
            units: units as u32,
        }
    }

    /// Two neighbours of `pages` pages each. The sums saturate where a node is damaged only.
    fn merge(left: Self, right: Self, pages: u32) -> Self {
        let sum = u32::saturating_add;
        Self {
            start: if left.start == pages { sum(pages, right.start) } else { left.start },
            longest: left.longest.max(right.longest).max(sum(left.end, right.start)),
            end: if right.end == pages { sum(pages, left.end) } else { right.end },
            units: sum(left.units, right.units),
        }
    }
}

/// The pages of one mapped segment; used under the page lock.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pages<'m> {
    memory: Memory<'m>,
    geometry: Geometry,
}

impl<'m> Pages<'m> {
    pub(crate) fn new(memory: Memory<'m>, geometry: Geometry) -> Self {
        Self { memory, geometry }
    }

    /// Builds the tables of a segment whose memory may hold anything.
    pub(crate) fn init(&self) -> Result<(), Corruption> {
        for page in 0..self.geometry.units * UNIT_PAGES {
            self.word(page)?.store(0, Relaxed);
        }
        let meta = Run { kind: Kind::Meta, pages: self.geometry.meta_pages };
        self.word(0)?.store(meta.pack(), Relaxed);
        self.rebuild(self.geometry.meta_pages)
    }

    pub(crate) fn word(&self, page: u32) -> Result<&'m AtomicU32, Corruption> {
        self.memory.at(self.geometry.word(page))
    }

    /// The run that starts at `page`, if one does. Without the lock that may be over at once, but
    /// for a run that the caller keeps allocated.
    pub(crate) fn run(&self, page: u32) -> Result<Option<Run>, Corruption> {
        if page >= self.geometry.pages {
            return Ok(None);
        }
        let run = Run::load(self.word(page)?)?;
        match run {
            Some(run) if run.pages > self.geometry.pages - page => {
                Err(Corruption::new("a run that leaves its segment", u64::from(page)))
            }
            run => Ok(run),
        }
    }

    /// The truth: a run now starts at `page` (whose pages are free).
    pub(crate) fn store_run(&self, page: u32, run: Run) -> Result<(), Corruption> {
        run.store(self.word(page)?);
        Ok(())
    }

    /// The truth: the run at `page` is free.
    pub(crate) fn clear_run(&self, page: u32) -> Result<(), Corruption> {
        self.word(page)?.store(0, Release);
        Ok(())
    }

    fn bits(&self, leaf: u32) -> Result<&'m AtomicU64, Corruption> {
        self.memory.at(self.geometry.bitmap_at + u64::from(leaf) * 8)
    }

    fn node(&self, node: u32) -> Result<Summary, Corruption> {
        let node: &Node = self.memory.at(self.geometry.tree_at + u64::from(node - 1) * 16)?;
        Ok(Summary {
            start: node.start.load(Relaxed),
            longest: node.longest.load(Relaxed),
            end: node.end.load(Relaxed),
            units: node.units.load(Relaxed),
        })
    }

    fn set_node(&self, node: u32, to: Summary) -> Result<(), Corruption> {
        let node: &Node = self.memory.at(self.geometry.tree_at + u64::from(node - 1) * 16)?;
        node.start.store(to.start, Relaxed);
        node.longest.store(to.longest, Relaxed);
        node.end.store(to.end, Relaxed);
        node.units.store(to.units, Relaxed);
        Ok(())
    }

    /// The segment as a whole.
    pub(crate) fn summary(&self) -> Result<Summary, Corruption> {
        self.node(1)
    }

    /// Marks a range free or used in the derived tables.
    pub(crate) fn mark(&self, page: u32, pages: u32, free: bool) -> Result<(), Corruption> {
        let (first, last) = (page / 64, (page + pages - 1) / 64);
        for leaf in first..=last {
            let from = page.max(leaf * 64) - leaf * 64;
            let to = (page + pages).min(leaf * 64 + 64) - leaf * 64;
            let mask = (u64::MAX >> (64 - (to - from))) << from;
            let bits = self.bits(leaf)?;
            let old = bits.load(Relaxed);
            let new = if free { old | mask } else { old & !mask };
            bits.store(new, Relaxed);
            self.set_node(self.geometry.leaves + leaf, Summary::of_leaf(new))?;
        }
        self.climb(first, last)
    }

    /// Makes anew the nodes above the leaves `first..=last`.
    fn climb(&self, first: u32, last: u32) -> Result<(), Corruption> {
        let (mut first, mut last) =
            ((self.geometry.leaves + first) / 2, (self.geometry.leaves + last) / 2);
        let mut half = 64;
        while first > 0 {
            for node in first..=last {
                let (left, right) = (self.node(2 * node)?, self.node(2 * node + 1)?);
                self.set_node(node, Summary::merge(left, right, half))?;
            }
            first /= 2;
            last /= 2;
            half *= 2;
        }
        Ok(())
    }

    /// The lowest free run of that many pages; with `unit`, the lowest free unit (for 16 pages).
    pub(crate) fn find(&self, pages: u32, unit: bool) -> Result<Option<u32>, Corruption> {
        let fits = |s: &Summary| if unit { s.units > 0 } else { s.longest >= pages };
        if !fits(&self.node(1)?) {
            return Ok(None);
        }
        let (mut node, mut at, mut half) = (1, 0, self.geometry.leaves * 32);
        while node < self.geometry.leaves {
            let left = self.node(2 * node)?;
            if fits(&left) {
                node *= 2;
            } else {
                let right = self.node(2 * node + 1)?;
                if !unit && left.end.saturating_add(right.start) >= pages {
                    if left.end > half || right.start > half {
                        return Err(Corruption::new("the page tree is wrong", u64::from(node)));
                    }
                    return Ok(Some(at + half - left.end));
                }
                if !fits(&right) {
                    return Err(Corruption::new("the page tree is wrong", u64::from(node)));
                }
                at += half;
                node = 2 * node + 1;
            }
            half /= 2;
        }
        let bits = self.bits(node - self.geometry.leaves)?.load(Relaxed);
        let found = if unit {
            (0..4).map(|u| 16 * u).find(|shift| (bits >> shift) as u16 == u16::MAX)
        } else {
            first_of_run(bits, pages)
        };
        match found {
            Some(bit) => Ok(Some(at + bit)),
            None => Err(Corruption::new("the page tree is wrong", u64::from(node))),
        }
    }

    /// Whether a page is free, by the bitmap.
    pub(crate) fn is_free(&self, page: u32) -> Result<bool, Corruption> {
        Ok(self.bits(page / 64)?.load(Relaxed) >> (page % 64) & 1 == 1)
    }

    /// The truth, without the lock: what was allocated unpublished is published now. False if it
    /// was freed meanwhile.
    pub(crate) fn publish_run(&self, page: u32, pages: u32) -> Result<bool, Corruption> {
        let from = Run { kind: Kind::Unpublished, pages }.pack();
        let to = Run { kind: Kind::Large, pages }.pack();
        Ok(self.word(page)?.compare_exchange(from, to, AcqRel, Relaxed).is_ok())
    }

    /// Calls `each` with every run below `watermark`, in order.
    pub(crate) fn for_each_run<E: From<Corruption>>(
        &self,
        watermark: u32,
        each: &mut dyn FnMut(u32, Run) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut page = 0;
        while page < watermark.min(self.geometry.pages) {
            match self.run(page)? {
                Some(run) => {
                    each(page, run)?;
                    page += run.pages;
                }
                None => page += 1,
            }
        }
        Ok(())
    }

    /// Makes the bitmap and the tree from the words.
    pub(crate) fn rebuild(&self, watermark: u32) -> Result<(), Corruption> {
        for leaf in 0..self.geometry.leaves {
            let pages = self.geometry.pages.saturating_sub(leaf * 64);
            let bits = if pages >= 64 { u64::MAX } else { (1 << pages) - 1 };
            self.bits(leaf)?.store(bits, Relaxed);
        }
        self.for_each_run(watermark, &mut |page, run| {
            for leaf in page / 64..=(page + run.pages - 1) / 64 {
                let from = page.max(leaf * 64) - leaf * 64;
                let to = (page + run.pages).min(leaf * 64 + 64) - leaf * 64;
                let bits = self.bits(leaf)?;
                let mask = (u64::MAX >> (64 - (to - from))) << from;
                bits.store(bits.load(Relaxed) & !mask, Relaxed);
            }
            Ok(())
        })?;
        for leaf in 0..self.geometry.leaves {
            let bits = self.bits(leaf)?.load(Relaxed);
            self.set_node(self.geometry.leaves + leaf, Summary::of_leaf(bits))?;
        }
        self.climb(0, self.geometry.leaves - 1)
    }

    /// Compares the derived tables with the words; returns the number of free pages.
    pub(crate) fn check(&self, watermark: u32) -> Result<u32, Corruption> {
        let mut next = 0;
        let mut used = 0;
        self.for_each_run(watermark, &mut |page, run| {
            self.expect(next, page, true)?;
            self.expect(page, page + run.pages, false)?;
            used += run.pages;
            next = page + run.pages;
            Ok(())
        })?;
        self.expect(next, self.geometry.pages, true)?;
        for leaf in 0..self.geometry.leaves {
            let bits = self.bits(leaf)?.load(Relaxed);
            if self.node(self.geometry.leaves + leaf)? != Summary::of_leaf(bits) {
                return Err(Corruption::new("a leaf of the page tree is wrong", u64::from(leaf)));
            }
        }
        for node in (1..self.geometry.leaves).rev() {
            let half = (self.geometry.leaves * 32) >> node.ilog2();
            let right = Summary::merge(self.node(2 * node)?, self.node(2 * node + 1)?, half);
            if self.node(node)? != right {
                return Err(Corruption::new("a node of the page tree is wrong", u64::from(node)));
            }
        }
        Ok(self.geometry.pages - used)
    }

    fn expect(&self, from: u32, to: u32, free: bool) -> Result<(), Corruption> {
        for page in from..to {
            let bit = self.bits(page / 64)?.load(Relaxed) >> (page % 64) & 1;
            if (bit == 1) != free {
                return Err(Corruption::new("the bitmap contradicts a page", u64::from(page)));
            }
        }
        Ok(())
    }
}

/// The lowest bit that starts `pages` set bits.
fn first_of_run(bits: u64, pages: u32) -> Option<u32> {
    let mut starts = bits;
    let mut have = 1;
    while have < pages {
        let step = have.min(pages - have);
        starts &= starts.checked_shr(step).unwrap_or(0);
        have += step;
    }
    (starts != 0).then(|| starts.trailing_zeros())
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use core::ptr::NonNull;
    use proptest::prelude::*;
    use std::vec::Vec;

    /// A segment in plain memory, full of rubbish to begin with.
    struct Plain {
        words: Vec<u64>,
        geometry: Geometry,
    }

    impl Plain {
        fn new(size: u64) -> Self {
            let geometry = Geometry::new(size, 0).unwrap();
            let words = std::vec![0xAAAA_AAAA_AAAA_AAAA; geometry.fixed() as usize / 8 + 8];
            Self { words, geometry }
        }

        fn pages(&mut self) -> Pages<'_> {
            let at = NonNull::new(self.words.as_mut_ptr().cast()).unwrap();
            // SAFETY: the vector outlives the borrow and is used through it alone; the tables
            // need an alignment of 8 only.
            let memory = unsafe { Memory::new(at, self.words.len() as u64 * 8) };
            Pages::new(memory, self.geometry)
        }
    }

    fn get(p: &Pages<'_>, pages: u32) -> Option<u32> {
        let page = p.find(pages, false).unwrap()?;
        p.store_run(page, Run { kind: Kind::Large, pages }).unwrap();
        p.mark(page, pages, false).unwrap();
        Some(page)
    }

    fn put(p: &Pages<'_>, page: u32) {
        let run = p.run(page).unwrap().unwrap();
        p.clear_run(page).unwrap();
        p.mark(page, run.pages, true).unwrap();
    }

    #[test]
    fn neighbours_freed_in_turn_make_one_run() {
        // PostgreSQL's free page manager once failed this: get 3, get 3, get 1, put both threes
        // back, and the six adjacent pages must be one run.
        let mut plain = Plain::new(64 << 10);
        let p = plain.pages();
        p.init().unwrap();
        let rest = get(&p, 8).unwrap();
        let (a, b, c) = (get(&p, 3).unwrap(), get(&p, 3).unwrap(), get(&p, 1).unwrap());
        assert_eq!((b, c), (a + 3, a + 6));
        put(&p, a);
        put(&p, b);
        assert_eq!(p.summary().unwrap().longest, 6);
        assert_eq!(get(&p, 6), Some(a));
        assert_eq!(get(&p, 1), None);
        put(&p, c);
        put(&p, rest);
        put(&p, a);
        p.check(16).unwrap();
        assert_eq!(p.summary().unwrap().longest, 15);
    }

    #[test]
    fn units_are_found_aligned() {
        let mut plain = Plain::new(256 << 10);
        let p = plain.pages();
        p.init().unwrap();
        assert_eq!(p.summary().unwrap().units, 3);
        let unit = p.find(16, true).unwrap().unwrap();
        assert_eq!(unit, 16);
        p.store_run(unit, Run { kind: Kind::Slab, pages: 16 }).unwrap();
        p.mark(unit, 16, false).unwrap();
        assert_eq!(p.find(16, true).unwrap(), Some(32));
        p.check(64).unwrap();
    }

    #[test]
    fn a_wrong_bitmap_is_noticed() {
        let mut plain = Plain::new(256 << 10);
        let p = plain.pages();
        p.init().unwrap();
        p.mark(20, 2, false).unwrap();
        assert!(p.check(64).is_err());
        p.rebuild(64).unwrap();
        p.check(64).unwrap();
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn agrees_with_a_plain_bitmap(
            size in 1u64..80,
            steps in prop::collection::vec((any::<bool>(), 1u32..200, any::<prop::sample::Index>()), 1..120),
        ) {
            let mut plain = Plain::new(size * 65536);
            let total = plain.geometry.pages;
            let p = plain.pages();
            p.init().unwrap();
            let mut model: Vec<bool> = (0..total).map(|i| i >= p.geometry.meta_pages).collect();
            let mut live: Vec<(u32, u32)> = Vec::new();
            for (alloc, pages, which) in steps {
                if alloc || live.is_empty() {
                    let want = model.windows(pages as usize).position(|w| w.iter().all(|f| *f));
                    let got = get(&p, pages);
                    prop_assert_eq!(got, want.map(|p| p as u32));
                    if let Some(page) = got {
                        live.push((page, pages));
                        model[page as usize..(page + pages) as usize].fill(false);
                    }
                } else {
                    let (page, pages) = live.swap_remove(which.index(live.len()));
                    put(&p, page);
                    model[page as usize..(page + pages) as usize].fill(true);
                }
                let longest = model.split(|f| !f).map(<[bool]>::len).max().unwrap_or(0);
                prop_assert_eq!(p.summary().unwrap().longest as usize, longest);
                prop_assert_eq!(p.find(16, true).unwrap().is_some(),
                    model.chunks_exact(16).any(|u| u.iter().all(|f| *f)));
            }
            let free = p.check(total).unwrap();
            prop_assert_eq!(free as usize, model.iter().filter(|f| **f).count());
            let before = p.summary().unwrap();
            p.rebuild(total).unwrap();
            prop_assert_eq!(p.summary().unwrap(), before);
        }
    }
}

//! Looking at a slab that is somebody else's: without the page lock, and once more under it.
//!
//! What happens at one page, whose header and word are all there is. The page lock is loom's here;
//! ours has models of its own.

use dsm_core::sync::{AtomicBool, AtomicU32, Ordering};
use loom::sync::{Arc, Mutex, MutexGuard};
use loom::thread;

use super::{explore, header};
use crate::pages::{Kind, Run};
use crate::slab::{Owner, Slab, SlabHeader};

const SLAB: Run = Run { kind: Kind::Mini, pages: 1 };
const UNPUBLISHED: Run = Run { kind: Kind::Unpublished, pages: 1 };
/// The heap of somebody who dies, and of somebody who doesn't.
const DYING: Owner = Owner { heap: 16, participant: 1 << 16 };
const LIVING: Owner = Owner { heap: 17, participant: 1 << 16 | 1 };

struct Page {
    word: AtomicU32,
    header: SlabHeader,
    lock: Mutex<()>,
    died: AtomicBool,
}

impl Page {
    /// A page whose header names the heap of somebody who dies.
    fn new(run: Option<Run>) -> Arc<Self> {
        Arc::new(Self {
            word: AtomicU32::new(run.map_or(0, Run::pack)),
            header: header(DYING),
            lock: Mutex::new(()),
            died: AtomicBool::new(false),
        })
    }

    fn slab(&self) -> Slab<'_> {
        Slab::without_memory(&self.header)
    }

    fn lock(&self) -> MutexGuard<'_, ()> {
        self.lock.lock().unwrap()
    }

    /// Makes a slab, of objects that are seven.
    fn make_slab(&self, owner: Owner) {
        let _pages = self.lock();
        let build = || {
            self.header.count.store(7, Ordering::Relaxed);
            Ok(())
        };
        self.slab().make(SLAB, &self.word, owner, build).unwrap();
    }

    /// As `free_slab`.
    fn unmake_slab(&self) {
        let _pages = self.lock();
        self.header.owner.store(0, Ordering::Release);
        self.word.store(0, Ordering::Release);
    }

    /// As `commit` of an unpublished run.
    fn make_run(&self, owner: Owner) {
        let _pages = self.lock();
        self.header.owner.store(0, Ordering::Release);
        self.header.give_to(owner);
        UNPUBLISHED.store(&self.word);
    }

    /// As `free_large`.
    fn free_run(&self) {
        let _pages = self.lock();
        self.word.store(0, Ordering::Release);
    }

    fn die(&self) {
        self.died.store(true, Ordering::Release);
    }

    fn is_dead(&self, participant: u64) -> bool {
        participant == DYING.participant && self.died.load(Ordering::Acquire)
    }

    /// As `adopt_slab`: whether the slab is the dead's, if it looks like it at first.
    fn look(&self) -> Option<bool> {
        if Run::load(&self.word).unwrap() != Some(SLAB) {
            return None;
        }
        let owner = self.header.owner();
        if !(owner.is_heap() && self.is_dead(owner.participant)) {
            return None;
        }
        let lock = || Ok(self.lock());
        Some(self.slab().really(SLAB, &self.word, owner, lock).unwrap().is_some())
    }
}

/// The header was of a run of somebody else's before, who has nothing to do with the slab.
#[test]
fn who_sees_a_slabs_word_sees_its_header() {
    explore(3, || {
        let page = Page::new(None);
        let other = thread::spawn({
            let page = page.clone();
            move || page.make_slab(LIVING)
        });
        let seen = Run::load(&page.word).unwrap();
        let owner = page.header.owner();
        let end = match seen {
            None => 0,
            Some(_) if !owner.is_heap() => 1,
            Some(_) => {
                assert_eq!(owner, LIVING, "the header as it was for another run");
                assert_eq!(page.header.count.load(Ordering::Relaxed), 7, "a header half made");
                2
            }
        };
        other.join().unwrap();
        end
    });
}

#[test]
fn a_slab_of_the_living_is_never_taken_for_one_of_the_dead() {
    explore(2, || {
        let page = Page::new(Some(SLAB));
        let others = thread::spawn({
            let page = page.clone();
            move || {
                // One gives the slab back, has an unpublished object there, and dies.
                page.unmake_slab();
                page.make_run(DYING);
                page.die();
                // Another one finds the object, frees it, and gets the page.
                page.free_run();
                page.make_slab(LIVING);
            }
        });
        let taken = page.look();
        assert_ne!(taken, Some(true), "what lives was taken for dead");
        others.join().unwrap();
        usize::from(taken.is_some())
    });
}

#[test]
fn a_slab_of_the_dead_is_taken() {
    explore(2, || {
        let page = Page::new(Some(SLAB));
        let other = thread::spawn({
            let page = page.clone();
            move || page.die()
        });
        let taken = page.look();
        assert_ne!(taken, Some(false), "what is dead was taken for living");
        other.join().unwrap();
        usize::from(taken.is_some())
    });
}

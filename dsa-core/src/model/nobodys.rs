//! Freeing in a slab of nobody, whose memory is something else's as soon as it is empty.
//!
//! Of two objects; the page lock is loom's here. The functions that free and count are those that
//! ship, the look is `area::nobodys`'s in short.

use dsm_core::sync::{AtomicU8, Ordering};
use loom::sync::{Arc, Mutex};
use loom::thread;

use super::{OBJECT, explore, header};
use crate::heap::{Due, free_remotely};
use crate::slab::{FREE, ORPHAN, Owner, Slab, SlabHeader, USED};

/// Who has the slab before it is let go.
const FORMER: Owner = Owner { heap: 16, participant: 1 << 16 };
/// What the header's bytes mean afterwards, for which nobody counts objects.
const OTHER_USE: u16 = 99;

struct World {
    header: SlabHeader,
    truth: [AtomicU8; 2],
    pages: Mutex<()>,
    freed: AtomicU8,
}

impl World {
    fn new(owner: Owner) -> Arc<Self> {
        let header = header(owner);
        header.count.store(2, Ordering::Relaxed);
        header.left.store(2, Ordering::Relaxed);
        Arc::new(Self {
            header,
            truth: [AtomicU8::new(USED), AtomicU8::new(USED)],
            pages: Mutex::new(()),
            freed: AtomicU8::new(0),
        })
    }

    /// As somebody who is not the slab's owner.
    fn free(&self, index: usize) {
        match free_remotely(OBJECT, &self.header, &self.truth[index]).unwrap() {
            Due::Nothing => {}
            due => self.look(due == Due::LookUncounted),
        }
    }

    /// As `tend`.
    fn look(&self, uncounted: bool) {
        let _pages = self.pages.lock().unwrap();
        if self.header.owner.load(Ordering::Acquire) != ORPHAN {
            return;
        }
        if uncounted {
            self.header.count_down();
        }
        if self.truth.iter().all(|truth| truth.load(Ordering::Acquire) == FREE) {
            self.header.owner.store(0, Ordering::Release);
            self.header.left.store(OTHER_USE, Ordering::Relaxed);
            self.freed.fetch_add(1, Ordering::Relaxed);
        }
    }
}

#[test]
fn who_frees_the_last_object_frees_the_slab_and_leaves_it_alone() {
    explore(1, || {
        let world = World::new(Owner { heap: ORPHAN, ..FORMER });
        let other = thread::spawn({
            let world = world.clone();
            move || world.free(0)
        });
        world.free(1);
        other.join().unwrap();
        assert_eq!(world.freed.load(Ordering::Relaxed), 1, "an empty slab is left");
        let now = world.header.left.load(Ordering::Relaxed);
        assert_eq!(now, OTHER_USE, "counted in what is no slab any more");
        0
    });
}

/// Who frees may have taken the slab for its owner's. If it was not seen in time that it is
/// nobody's, whoever looks later finds it: this is no leak, but late.
#[test]
fn a_slab_that_is_let_go_beside_a_free_is_freed_once() {
    explore(2, || {
        let world = World::new(FORMER);
        let owner = thread::spawn({
            let world = world.clone();
            // Full, as its owner saw it.
            move || Slab::without_memory(&world.header).let_go(2)
        });
        world.free(0);
        world.free(1);
        owner.join().unwrap();
        let at_once = world.freed.load(Ordering::Relaxed);
        world.look(false);
        assert_eq!(world.freed.load(Ordering::Relaxed), 1);
        assert_eq!(world.header.left.load(Ordering::Relaxed), OTHER_USE);
        usize::from(at_once)
    });
}

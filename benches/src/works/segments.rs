//! Works on segments of 1 MiB: create and destroy, attach and detach, and both in a preallocated
//! main region.
//!
//! The peers are bare system calls that leave no record of who has what: `segment_create` is
//! shm_open, posix_fallocate, mmap, munmap and shm_unlink; `segment_attach` is shm_open of the
//! existing object, mmap and munmap. In the main region nobody calls the system; beside the bare
//! calls stands the C library's malloc, which also hands out memory that the process has.

use std::hint::black_box;

use crate::measure::repeat;
use crate::ours::home::Home;
use crate::peers::syscalls::BareSegment;
use crate::work::{Contestant, Runner, Who, Work};

/// Bytes of a segment.
const BYTES: usize = 1 << 20;
/// Bytes of the main region: room for some segments.
const MAIN_REGION: usize = 16 << 20;
/// The peer.
const SYSCALLS: Who = Who::Peer("bare system calls");
/// The peer that calls nobody.
const MALLOC: Who = Who::Peer("glibc malloc");

/// All works of the group.
#[must_use]
pub fn works() -> Vec<Work> {
    let ours =
        |main_region| Contestant::new(Who::Cores, move || our_create(Home::new(main_region)));
    let bare = || Contestant::new(SYSCALLS, bare_create);
    let attach =
        vec![Contestant::new(Who::Cores, our_attach), Contestant::new(SYSCALLS, bare_attach)];
    let malloc = Contestant::new(MALLOC, glibc_malloc);
    vec![
        Work::new("segment_create", vec![ours(0), bare()]),
        Work::new("segment_attach", attach),
        Work::new("segment_main_region", vec![ours(MAIN_REGION), bare(), malloc]),
    ]
}

fn our_create(home: Home) -> Runner {
    Runner::new(move |operations| {
        let namespace = home.namespace();
        repeat(operations, || {
            drop(black_box(namespace.create_segment(BYTES, BYTES).expect("create a segment")));
        })
    })
}

fn our_attach() -> Runner {
    let home = Home::new(0);
    let segment = home.namespace().create_segment(BYTES, BYTES).expect("create a segment");
    let handle = segment.handle();
    home.namespace().pin_segment(handle).expect("pin a segment");
    // From here on this process has it no more mapped than any other.
    drop(segment);
    Runner::new(move |operations| {
        let namespace = home.namespace();
        repeat(operations, || {
            let segment = namespace.attach_segment(handle).expect("attach a segment");
            assert!(black_box(segment).is_some(), "it is pinned");
        })
    })
}

fn bare_create() -> Runner {
    let segment = BareSegment::new("create", BYTES);
    Runner::new(move |operations| {
        repeat(operations, || {
            let base = black_box(segment.create());
            // SAFETY: created in the line above, used by nobody.
            unsafe { segment.unmap(base) };
            segment.unlink();
        })
    })
}

fn bare_attach() -> Runner {
    let segment = BareSegment::new("attach", BYTES);
    let base = segment.create();
    // SAFETY: created in the line above, used by nobody.
    unsafe { segment.unmap(base) };
    let segment = Unlinked(segment);
    Runner::new(move |operations| {
        let segment = &segment.0;
        repeat(operations, || {
            let base = black_box(segment.open());
            // SAFETY: mapped in the line above, used by nobody.
            unsafe { segment.unmap(base) };
        })
    })
}

/// Removes the object's name when dropped.
struct Unlinked(BareSegment);

impl Drop for Unlinked {
    fn drop(&mut self) {
        self.0.unlink();
    }
}

fn glibc_malloc() -> Runner {
    Runner::new(|operations| {
        repeat(operations, || {
            // SAFETY: malloc has no conditions.
            let memory = unsafe { libc::malloc(black_box(BYTES)) };
            assert!(!black_box(memory).is_null());
            // SAFETY: allocated above, freed once.
            unsafe { libc::free(memory) };
        })
    })
}

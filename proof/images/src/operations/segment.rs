//! Segments: create, attach, detach, pin, unpin, in objects of their own and in the main region.
//!
//! What only the victim held goes with it, so that only pins leave a trace.

use dsm_core::handle::SegmentHandle;
use dsm_core::namespace::NamespaceConfig;
use dsm_core::provider::RangeOwner;
use dsm_core::segment::Segment;
use dsm_core::toc::Toc;

use crate::case::{Case, Operation};
use crate::member::{
    Member, RESCUER, VICTIM, WITNESS, config, ensure, finds_nothing, leak, mortals, text,
};
use crate::process::Process;

const CASES: [Operation; 14] = [
    Operation {
        name: "segment-create",
        must: &[
            "holds the control lock",
            "an object is named",
            "an object is sized",
            "a segment is half made or half removed",
        ],
        make: create,
    },
    Operation {
        name: "segment-create-main",
        must: &["holds the control lock"],
        make: create_in_main,
    },
    Operation {
        name: "segment-destroy",
        must: &[
            "holds the control lock",
            "an object is removed",
            "a segment is half made or half removed",
        ],
        make: destroy,
    },
    Operation {
        name: "segment-destroy-main",
        must: &["holds the control lock"],
        make: destroy_in_main,
    },
    Operation { name: "segment-attach", must: &["holds the control lock"], make: attach },
    Operation { name: "segment-detach", must: &["holds the control lock"], make: detach },
    Operation {
        name: "segment-pin",
        must: &["before", "after", "holds the control lock"],
        make: pin,
    },
    Operation {
        name: "segment-unpin",
        must: &["before", "after", "holds the control lock", "an object is removed"],
        make: unpin,
    },
    Operation {
        name: "segment-pin-under",
        must: &["before", "after", "holds the control lock"],
        make: pin_under,
    },
    Operation {
        name: "segment-end-of-parent",
        must: &["holds the control lock", "an object is removed"],
        make: end_of_parent,
    },
    Operation { name: "segment-reserve", must: &["after", "an object is sized"], make: reserve },
    Operation {
        name: "segment-detach-to-blank",
        must: &["holds the control lock", "an object is removed"],
        make: detach_to_blank,
    },
    Operation {
        name: "segment-pin-mapping",
        must: &["holds the control lock", "an object is removed"],
        make: pin_mapping,
    },
    Operation { name: "segment-contents", must: &["before", "partly", "after"], make: contents },
];

pub(super) const ALL: &[Operation] = &CASES;

/// Pages of the main region.
const MAIN: usize = 8 << 12;

pub(super) struct Scene {
    witness: Member,
    pub(super) victim: Member,
    members: Vec<Member>,
}

pub(super) fn scene(rescuers: usize) -> Scene {
    let config = NamespaceConfig { main_region: MAIN, ..config() };
    let start = |pid| Member::join(Process::start(pid), &config).expect("joins").0;
    let mut members = vec![start(WITNESS)];
    let victim = start(VICTIM);
    members.extend((0..rescuers).map(|n| start(RESCUER + n as u64)));
    Scene { witness: members[0], victim, members }
}

/// All that the witness does at the end: the main region is all free again, and nothing is left.
fn end(witness: &Member, kept: usize) -> Result<(), String> {
    witness.expect_objects(kept)?;
    let (all, taken) = witness.ns.main_region();
    ensure(taken == 0, || format!("{taken} bytes of the main region are taken"))?;
    let whole = witness.ns.create_segment(all, all).map_err(text)?;
    ensure(whole.handle().is_main_region(), || "the main region is in pieces".into())?;
    drop(whole);
    let object = witness.ns.create_object(5000, 5000).map_err(text)?;
    let again = witness.ns.attach_segment(object.handle()).map_err(text)?;
    ensure(again.is_some(), || "a segment cannot be attached twice".into())
}

impl Scene {
    fn case(
        self,
        name: &'static str,
        operate: impl Fn() + 'static,
        judge: impl Fn() -> Result<&'static str, String> + 'static,
    ) -> Case {
        let Self { witness, members, .. } = self;
        Case {
            name,
            mortals: mortals(members.len() - 1),
            operate: Box::new(operate),
            recover: Box::new(move |who, _| members[who].reap()),
            orders: 1,
            judge: Box::new(move || {
                let outcome = judge()?;
                witness.end()?;
                Ok(outcome)
            }),
            newcomer: Box::new(finds_nothing),
            places: Vec::new(),
            heir: None,
            between: false,
        }
    }

    /// An operation of which nothing may be left once its process is dead.
    pub(super) fn traceless(self, name: &'static str, operate: impl Fn() + 'static) -> Case {
        let witness = self.witness;
        let judge = move || {
            end(&witness, 0)?;
            Ok("after")
        };
        self.case(name, operate, judge)
    }
}

fn create(rescuers: usize) -> Case {
    let scene = scene(rescuers);
    let victim = scene.victim;
    scene.traceless("segment-create", move || {
        std::mem::forget(victim.ns.create_object(70_000, 4096).expect("creates"));
    })
}

fn create_in_main(rescuers: usize) -> Case {
    let scene = scene(rescuers);
    let victim = scene.victim;
    scene.traceless("segment-create-main", move || {
        for pages in [1, 3, 2] {
            let segment = victim.ns.create_segment(pages << 12, 0).expect("creates");
            assert!(segment.handle().is_main_region());
            std::mem::forget(segment);
        }
    })
}

/// A segment, to be dropped under the stepper.
fn kept(segment: Segment<'static>) -> std::cell::Cell<Option<Segment<'static>>> {
    std::cell::Cell::new(Some(segment))
}

fn destroy(rescuers: usize) -> Case {
    let scene = scene(rescuers);
    let segment = kept(scene.victim.segment());
    scene.traceless("segment-destroy", move || drop(segment.take()))
}

fn destroy_in_main(rescuers: usize) -> Case {
    let scene = scene(rescuers);
    let segments =
        [5, 3].map(|pages| kept(scene.victim.ns.create_segment(pages << 12, 0).expect("creates")));
    scene.traceless("segment-destroy-main", move || segments.iter().for_each(|s| drop(s.take())))
}

/// The witness's segment is there, attached by it alone, and goes with it.
fn still_there(
    witness: &Member,
    segment: &std::cell::Cell<Option<Segment<'static>>>,
) -> Result<(), String> {
    let segment = segment.take().ok_or("judged twice")?;
    let attached = witness.ns.attached_processes(segment.handle());
    ensure(attached == Some(1), || format!("{attached:?} processes have the segment"))?;
    witness.expect_objects(1)?;
    let handle = segment.handle();
    drop(segment);
    let gone = witness.ns.attach_segment(handle).map_err(text)?.is_none();
    ensure(gone, || "the segment outlived its last process".into())
}

fn attach(rescuers: usize) -> Case {
    let scene = scene(rescuers);
    let (witness, victim) = (scene.witness, scene.victim);
    let segment = leak(kept(witness.segment()));
    let handle = handle_of(segment);
    let operate = move || {
        std::mem::forget(victim.ns.attach_segment(handle).expect("attaches").expect("is there"));
    };
    let judge = move || {
        still_there(&witness, segment)?;
        end(&witness, 0)?;
        Ok("after")
    };
    scene.case("segment-attach", operate, judge)
}

fn handle_of(segment: &std::cell::Cell<Option<Segment<'static>>>) -> SegmentHandle {
    let held = segment.take().expect("is kept");
    let handle = held.handle();
    segment.set(Some(held));
    handle
}

fn detach(rescuers: usize) -> Case {
    let scene = scene(rescuers);
    let (witness, victim) = (scene.witness, scene.victim);
    let segment = leak(kept(witness.segment()));
    let attached = victim.ns.attach_segment(handle_of(segment)).expect("attaches");
    let attached = kept(attached.expect("is there"));
    let judge = move || {
        still_there(&witness, segment)?;
        end(&witness, 0)?;
        Ok("after")
    };
    scene.case("segment-detach", move || drop(attached.take()), judge)
}

/// Whether a pinned segment is there; unpins it, upon which it goes.
fn unpinned(witness: &Member, handle: SegmentHandle) -> Result<bool, String> {
    let attached = witness.ns.attach_segment(handle).map_err(text)?;
    let there = attached.is_some();
    drop(attached);
    if there {
        witness.ns.unpin_segment(handle).map_err(text)?;
    }
    end(witness, 0)?;
    Ok(there)
}

fn pin(rescuers: usize) -> Case {
    let scene = scene(rescuers);
    let (witness, victim) = (scene.witness, scene.victim);
    let segment = leak(victim.segment());
    let handle = segment.handle();
    let judge = move || Ok(if unpinned(&witness, handle)? { "after" } else { "before" });
    scene.case("segment-pin", move || victim.ns.pin_segment(handle).expect("pins"), judge)
}

fn unpin(rescuers: usize) -> Case {
    let scene = scene(rescuers);
    let (witness, victim) = (scene.witness, scene.victim);
    let segment = victim.segment();
    let handle = segment.handle();
    victim.ns.pin_segment(handle).expect("pins");
    drop(segment);
    let judge = move || Ok(if unpinned(&witness, handle)? { "before" } else { "after" });
    scene.case("segment-unpin", move || victim.ns.unpin_segment(handle).expect("unpins"), judge)
}

fn pin_under(rescuers: usize) -> Case {
    let scene = scene(rescuers);
    let (witness, victim) = (scene.witness, scene.victim);
    let parent = leak(kept(witness.segment()));
    let parent_handle = handle_of(parent);
    let child = leak(victim.segment()).handle();
    let operate = move || victim.ns.pin_segment_under(child, parent_handle).expect("pins");
    let judge = move || {
        let there = witness.ns.attach_segment(child).map_err(text)?.is_some();
        drop(parent.take());
        end(&witness, 0)?;
        Ok(if there { "after" } else { "before" })
    };
    scene.case("segment-pin-under", operate, judge)
}

fn end_of_parent(rescuers: usize) -> Case {
    let scene = scene(rescuers);
    let victim = scene.victim;
    let parent = victim.segment();
    for above in [parent.handle(), parent.handle()] {
        let child = victim.segment();
        victim.ns.pin_segment_under(child.handle(), above).expect("pins");
    }
    let parent = kept(parent);
    scene.traceless("segment-end-of-parent", move || drop(parent.take()))
}

fn reserve(rescuers: usize) -> Case {
    let scene = scene(rescuers);
    let victim = scene.victim;
    scene.traceless("segment-reserve", move || {
        let segment = victim.ns.create_object(70_000, 4096).expect("creates");
        segment.reserve(4096..40_000).expect("reserves");
        assert!(segment.reserved() >= 40_000);
        std::mem::forget(segment);
    })
}

fn detach_to_blank(rescuers: usize) -> Case {
    let scene = scene(rescuers);
    let victim = scene.victim;
    let segment = kept(victim.segment());
    scene.traceless("segment-detach-to-blank", move || {
        let segment = segment.take().expect("is kept");
        let owner = RangeOwner::of(victim.ns);
        // SAFETY: nobody reads or writes it.
        unsafe { segment.detach_to_blank(owner) };
        // SAFETY: as above.
        unsafe { victim.ns.release_blanks(owner) };
    })
}

/// The mapping outlives its handle, which is given up and had again; then it goes.
fn pin_mapping(rescuers: usize) -> Case {
    let scene = scene(rescuers);
    let victim = scene.victim;
    let segment = kept(victim.segment());
    scene.traceless("segment-pin-mapping", move || {
        let segment = segment.take().expect("is kept");
        let handle = segment.handle();
        segment.pin_mapping();
        drop(segment);
        let found = victim.ns.find_mapping(handle).expect("stayed").into_raw();
        // SAFETY: given up just now.
        drop(unsafe { Segment::from_raw(victim.ns, found) });
        // SAFETY: nothing uses the memory.
        assert!(unsafe { victim.ns.unpin_mapping(handle) });
    })
}

/// A table of contents: each entry is there with what it leads to, or not at all.
fn contents(rescuers: usize) -> Case {
    const MAGIC: u64 = 0x70c;
    let scene = scene(rescuers);
    let (witness, victim) = (scene.witness, scene.victim);
    let segment = leak(kept(witness.segment()));
    let handle = handle_of(segment);
    let mine = leak(victim.ns.attach_segment(handle).expect("attaches").expect("is there"));
    let operate = move || {
        // SAFETY: the segment's own bytes, which stay mapped.
        let toc = unsafe { Toc::create(MAGIC, mine.base(), mine.len()) }.expect("is long enough");
        for key in [1, 2] {
            let at = toc.allocate(64).expect("there is room");
            // SAFETY: given out to this call alone.
            unsafe { at.cast::<u64>().write(key * 100) };
            assert!(toc.insert(key, at));
        }
    };
    let judge = move || {
        let held = segment.take().ok_or("judged twice")?;
        // SAFETY: as above.
        let outcome = match unsafe { Toc::attach(MAGIC, held.base(), held.len()) } {
            None => "before",
            Some(toc) => {
                let mut there = 0;
                for key in [1, 2] {
                    let Some(at) = toc.lookup(key) else { continue };
                    // SAFETY: written before it was entered.
                    let value = unsafe { at.cast::<u64>().read() };
                    ensure(value == key * 100, || format!("{key} leads to {value}"))?;
                    there += 1;
                }
                let room = toc.allocate(64).ok_or("no room is left")?;
                ensure(toc.insert(9, room) && toc.lookup(9) == Some(room), || "is full".into())?;
                ["before", "partly", "after"][there]
            }
        };
        segment.set(Some(held));
        still_there(&witness, segment)?;
        end(&witness, 0)?;
        Ok(outcome)
    };
    scene.case("segment-contents", operate, judge)
}

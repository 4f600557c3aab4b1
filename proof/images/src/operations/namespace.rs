//! Opening and leaving a namespace, registering a thread, and the sweep of the dead itself.
//!
//! When whoever did it is dead, not a trace may be left of any of these, so that most of them end
//! in the same state whatever the victim reached ("after").

use dsm_core::namespace::{Discard, Namespace, Opened};
use dsm_core::participant::ParticipantLocal;
use dsm_core::sync::Ordering;

use crate::case::{Case, Operation};
use crate::member::{
    ANCESTOR, GUEST, Member, RESCUER, VICTIM, WITNESS, config, ensure, finds_nothing, leak,
    mortals, open, persistent, text,
};
use crate::process::Process;
use crate::{look, system};

const CASES: [Operation; 11] = [
    Operation {
        name: "open-first",
        must: &[
            "before",
            "after",
            "the election is won",
            "the control object is named",
            "the control object is sized",
            "the control segment is unfinished",
            "a token is taken",
            "the elector works",
            "a process slot is taken",
            "the election is let go",
        ],
        make: open_first,
    },
    Operation {
        name: "open-joining",
        must: &["a token is taken", "the elector works", "a process slot is taken"],
        make: open_joining,
    },
    Operation {
        name: "open-after-all-died",
        must: &[
            "an object is removed",
            "the control object is removed",
            "the control object is named",
            "the elector works",
        ],
        make: open_after_all_died,
    },
    Operation {
        name: "open-beside-anothers",
        must: &[
            "after",
            "an object is removed",
            "the elector works",
            "a token is taken",
            "a process slot is taken",
        ],
        make: open_beside_anothers,
    },
    Operation {
        name: "open-persistent",
        must: &["after", "the elector works", "a token is taken"],
        make: open_persistent,
    },
    Operation {
        name: "discard",
        must: &[
            "before",
            "after",
            "the election is won",
            "a token is taken",
            "an object is removed",
            "the control object is removed",
        ],
        make: discard,
    },
    Operation {
        name: "register-thread",
        must: &["holds the control lock", "a participant is registered"],
        make: register,
    },
    Operation {
        name: "leave",
        must: &[
            "the elector works",
            "holds the control lock",
            "a token is given back",
            "an object is removed",
        ],
        make: leave,
    },
    Operation {
        name: "leave-last",
        must: &[
            "before",
            "after",
            "an object is removed",
            "the control object is removed",
            "the election is let go",
        ],
        make: leave_last,
    },
    Operation {
        name: "reap",
        must: &[
            "holds the control lock",
            "an object is removed",
            "a segment is half made or half removed",
        ],
        make: reap,
    },
    Operation {
        name: "reap-by-register",
        must: &["holds the control lock", "after"],
        make: reap_by_register,
    },
];

pub(super) const ALL: &[Operation] = &CASES;

/// The namespace lists the living, who have all joined, and nobody else.
fn only_the_living(member: &Member) -> Result<(), String> {
    let (listed, living) = (look::listed_processes(member.process), system::living().len());
    ensure(listed == living, || format!("{listed} processes are listed, {living} live"))
}

/// A newcomer joins what the witness has, and both work.
fn joins(witness: &Member) -> Result<(), String> {
    let (guest, opened) = Member::join(Process::start(GUEST), &config())?;
    ensure(opened == Opened::Joined, || format!("{opened:?} beside a living process"))?;
    let segment = guest.ns.create_object(4096, 4096).map_err(text)?;
    let seen = witness.ns.attach_segment(segment.handle()).map_err(text)?;
    ensure(seen.is_some(), || "a newcomer's segment cannot be attached".into())?;
    drop((seen, segment));
    guest.leave()
}

fn recover_by_reaping(members: Vec<Member>) -> Box<dyn Fn(usize, usize) -> Result<(), String>> {
    Box::new(move |who, _| members[who].reap())
}

/// The witness and the rescuers.
fn helpers(rescuers: usize) -> Vec<Member> {
    std::iter::once(WITNESS)
        .chain((0..rescuers).map(|n| RESCUER + n as u64))
        .map(Member::start)
        .collect()
}

/// Nobody is there: whoever comes next recovers.
fn open_first(rescuers: usize) -> Case {
    for rescuer in 0..rescuers {
        system::start(RESCUER + rescuer as u64);
    }
    Process::start(VICTIM);
    Case {
        name: "open-first",
        mortals: mortals(rescuers),
        operate: Box::new(|| {
            open(leak(Process::again(VICTIM)), &config()).expect("opens");
        }),
        recover: Box::new(|who, _| {
            if who == 0 {
                return Ok(());
            }
            open(leak(Process::again(RESCUER + who as u64 - 1)), &config()).map(|_| ())
        }),
        orders: 1,
        judge: Box::new(|| {
            let existed = system::objects().0;
            finds_nothing(Process::start(WITNESS))?;
            Ok(if existed { "after" } else { "before" })
        }),
        newcomer: Box::new(finds_nothing),
        places: Vec::new(),
        heir: None,
        between: false,
    }
}

fn open_joining(rescuers: usize) -> Case {
    let members = helpers(rescuers);
    let witness = members[0];
    Process::start(VICTIM);
    Case {
        name: "open-joining",
        mortals: mortals(rescuers),
        operate: Box::new(|| {
            open(leak(Process::again(VICTIM)), &config()).expect("opens");
        }),
        recover: Box::new(move |who, _| members[who].reap()),
        orders: 1,
        judge: Box::new(move || {
            only_the_living(&witness)?;
            joins(&witness)?;
            witness.end()?;
            Ok("after")
        }),
        newcomer: Box::new(finds_nothing),
        places: Vec::new(),
        heir: None,
        between: false,
    }
}

/// Everybody is dead and has left segments.
fn open_after_all_died(rescuers: usize) -> Case {
    let dead = Member::start(ANCESTOR);
    let segments: Vec<_> = (0..3).map(|_| dead.segment()).collect();
    dead.ns.pin_segment(segments[0].handle()).expect("pins");
    std::mem::forget(segments);
    system::kill(ANCESTOR);
    Case { name: "open-after-all-died", ..open_first(rescuers) }
}

/// Everybody is dead, and some of what they have left, the control object too, is for another user
/// to remove: whoever comes goes on without that, and the other one removes it in the end.
fn open_beside_anothers(rescuers: usize) -> Case {
    let dead = Member::start(ANCESTOR);
    let segments: Vec<_> = (0..4).map(|_| dead.segment()).collect();
    dead.ns.pin_segment(segments[0].handle()).expect("pins");
    dead.ns.pin_segment_under(segments[1].handle(), segments[0].handle()).expect("pins");
    dead.ns.root(0).store(segments[0].handle().get(), Ordering::Relaxed);
    std::mem::forget(segments);
    system::kill(ANCESTOR);
    system::share(true);
    let newcomer = |process| {
        let (member, opened) = Member::join(process, &config())?;
        ensure(opened == Opened::Recreated, || format!("{opened:?}"))?;
        ensure(member.ns.root(0).load(Ordering::Relaxed) == 0, || "a root is left".into())?;
        member.reap()?;
        member.expect_objects(2)?;
        drop(member.ns.create_object(4096, 4096).map_err(text)?);
        system::share(false);
        member.reap()?;
        member.expect_objects(0)?;
        member.end()
    };
    Case {
        name: "open-beside-anothers",
        judge: Box::new(move || {
            newcomer(Process::start(WITNESS))?;
            Ok("after")
        }),
        newcomer: Box::new(newcomer),
        ..open_first(rescuers)
    }
}

/// Everybody is dead, and the control object is of an older layout: newcomers can't enter before
/// somebody has discarded it.
fn discard(rescuers: usize) -> Case {
    let dead = Member::start(ANCESTOR);
    std::mem::forget((dead.segment(), dead.segment()));
    system::kill(ANCESTOR);
    let at = system::look(|system| system.control.at) + 8;
    // SAFETY: the second word of the control object, whose users are dead.
    unsafe { crate::arena::at(at).cast::<u32>().write(0) };
    let rid = |process: Process| {
        let patience = config().patience;
        Namespace::discard(&process, process.platform(), patience, Discard::Unusable).map_err(text)
    };
    Case {
        name: "discard",
        operate: Box::new(move || {
            assert!(rid(Process::again(VICTIM)).expect("discards"));
        }),
        recover: Box::new(move |who, _| match who {
            0 => Ok(()),
            _ => rid(Process::again(RESCUER + who as u64 - 1)).map(|_| ()),
        }),
        judge: Box::new(move || {
            let existed = system::objects().0;
            let witness = Process::start(WITNESS);
            ensure(rid(Process::again(WITNESS))? == existed, || "not discarded".into())?;
            finds_nothing(witness)?;
            Ok(if existed { "before" } else { "after" })
        }),
        newcomer: Box::new(move |process| {
            rid(Process::again(process.pid))?;
            finds_nothing(process)
        }),
        ..open_first(rescuers)
    }
}

/// What a persistent namespace keeps: a pinned segment and a root word.
fn finds_what_was_kept(process: Process) -> Result<(), String> {
    let (member, opened) = Member::join(process, &persistent())?;
    ensure(matches!(opened, Opened::Resumed | Opened::Joined), || format!("{opened:?}"))?;
    let handle = member.ns.root(0).load(Ordering::Relaxed);
    let handle =
        dsm_core::handle::SegmentHandle::from_raw(handle).ok_or("the root word is gone")?;
    let segment = member.ns.attach_segment(handle).map_err(text)?.ok_or("the segment is gone")?;
    // SAFETY: mapped, and written by its creator.
    let kept = unsafe { segment.base().cast::<u64>().read() };
    ensure(kept == 77, || format!("{kept} was kept instead of 77"))?;
    drop(segment);
    member.expect_objects(1)?;
    member.ns.unpin_segment(handle).map_err(text)?;
    member.ns.set_persistent(false).map_err(text)?;
    member.end()
}

fn open_persistent(rescuers: usize) -> Case {
    let (dead, _) = Member::join(Process::start(ANCESTOR), &persistent()).expect("opens");
    let segment = dead.segment();
    dead.ns.pin_segment(segment.handle()).expect("pins");
    dead.ns.root(0).store(segment.handle().get(), Ordering::Relaxed);
    // SAFETY: mapped, and nobody else's.
    unsafe { segment.base().cast::<u64>().write(77) };
    std::mem::forget((segment, dead.segment()));
    system::kill(ANCESTOR);
    Case {
        name: "open-persistent",
        judge: Box::new(|| {
            finds_what_was_kept(Process::start(WITNESS))?;
            Ok("after")
        }),
        newcomer: Box::new(finds_what_was_kept),
        ..open_first(rescuers)
    }
}

fn register(rescuers: usize) -> Case {
    let members = helpers(rescuers);
    let (witness, victim) = (members[0], Member::start(VICTIM));
    Case {
        name: "register-thread",
        mortals: mortals(rescuers),
        operate: Box::new(move || {
            let thread = leak(ParticipantLocal::new());
            victim.ns.register(thread).expect("registers");
            assert!(victim.ns.unregister(thread));
            victim.ns.register(thread).expect("registers");
        }),
        recover: recover_by_reaping(members),
        orders: 1,
        judge: Box::new(move || {
            only_the_living(&witness)?;
            joins(&witness)?;
            witness.end()?;
            Ok("after")
        }),
        newcomer: Box::new(finds_nothing),
        places: Vec::new(),
        heir: None,
        between: false,
    }
}

fn leave(rescuers: usize) -> Case {
    let members = helpers(rescuers);
    let (witness, victim) = (members[0], Member::start(VICTIM));
    let shared = leak(witness.segment());
    std::mem::forget(victim.ns.attach_segment(shared.handle()).expect("attaches"));
    std::mem::forget(victim.segment());
    Case {
        name: "leave",
        mortals: mortals(rescuers),
        operate: Box::new(move || victim.leave().expect("leaves")),
        recover: recover_by_reaping(members),
        orders: 1,
        judge: Box::new(move || {
            only_the_living(&witness)?;
            let attached = witness.ns.attached_processes(shared.handle());
            ensure(attached == Some(1), || format!("{attached:?} processes have the segment"))?;
            witness.expect_objects(1)?;
            joins(&witness)?;
            witness.end()?;
            Ok("after")
        }),
        newcomer: Box::new(finds_nothing),
        places: Vec::new(),
        heir: None,
        between: false,
    }
}

fn leave_last(rescuers: usize) -> Case {
    let victim = Member::start(VICTIM);
    std::mem::forget(victim.segment());
    // Kept by nobody but the namespace, so that it goes as the last thing.
    let kept = victim.segment();
    victim.ns.pin_segment(kept.handle()).expect("pins");
    std::mem::forget(kept);
    Case {
        operate: Box::new(move || victim.leave().expect("leaves")),
        judge: Box::new(|| {
            let gone = !system::objects().0;
            finds_nothing(Process::start(WITNESS))?;
            Ok(if gone { "after" } else { "before" })
        }),
        name: "leave-last",
        ..open_first(rescuers)
    }
}

/// Two dead: one with a thread, segments of its own, one attached, one pinned; the other amid
/// nothing.
fn the_dead(witness: &Member) {
    let kept = leak(witness.segment());
    for pid in [ANCESTOR, ANCESTOR + 1] {
        let dead = Member::start(pid);
        std::mem::forget(dead.ns.attach_segment(kept.handle()).expect("attaches"));
        std::mem::forget(dead.segment());
        system::kill(pid);
    }
}

fn reap(rescuers: usize) -> Case {
    let members = helpers(rescuers);
    let (witness, victim) = (members[0], Member::start(VICTIM));
    the_dead(&witness);
    Case {
        name: "reap",
        mortals: mortals(rescuers),
        operate: Box::new(move || {
            victim.ns.reap().expect("reaps");
        }),
        recover: recover_by_reaping(members),
        orders: 1,
        judge: Box::new(move || {
            only_the_living(&witness)?;
            witness.expect_objects(1)?;
            joins(&witness)?;
            witness.end()?;
            Ok("after")
        }),
        newcomer: Box::new(finds_nothing),
        places: Vec::new(),
        heir: None,
        between: false,
    }
}

/// Registering when all slots are taken by the dead.
fn reap_by_register(rescuers: usize) -> Case {
    let members = helpers(rescuers);
    let (witness, victim) = (members[0], Member::start(VICTIM));
    let dead = Member::start(ANCESTOR);
    while dead.ns.register(leak(ParticipantLocal::new())).is_ok() {}
    system::kill(ANCESTOR);
    Case {
        name: "reap-by-register",
        mortals: mortals(rescuers),
        operate: Box::new(move || {
            victim.ns.register(leak(ParticipantLocal::new())).expect("registers");
        }),
        recover: recover_by_reaping(members),
        orders: 1,
        judge: Box::new(move || {
            only_the_living(&witness)?;
            joins(&witness)?;
            witness.end()?;
            Ok("after")
        }),
        newcomer: Box::new(finds_nothing),
        places: Vec::new(),
        heir: None,
        between: false,
    }
}

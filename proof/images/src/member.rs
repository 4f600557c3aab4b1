//! A simulated process that has joined the namespace, with a thread in it. All of it is leaked: a
//! killed process's memory stays where it is, and a real process is short.

use std::sync::atomic::{AtomicU64, Ordering};

use dsm_core::namespace::{LocalSegment, Namespace, NamespaceConfig, Opened, ProcessLocal};
use dsm_core::participant::{Participant, ParticipantLocal};
use dsm_core::segment::Segment;

pub(crate) use testkit::system::forever as leak;
pub(crate) use testkit::tool::{ensure, text};

use crate::process::Process;
use crate::system;

/// The survivor that was there all along.
pub(crate) const WITNESS: u64 = 1;
/// The first to die.
pub(crate) const VICTIM: u64 = 2;
/// The first who tries to recover, and dies; others follow.
pub(crate) const RESCUER: u64 = 3;
/// Somebody who died before the operation began.
pub(crate) const ANCESTOR: u64 = 20;
/// A second thread of the victim's process; numbered as processes are.
pub(crate) const THREAD: u64 = 50;
/// Somebody who comes when the witness looks.
pub(crate) const GUEST: u64 = 30;

/// A small namespace: an image is copied as often as there are points.
pub(crate) fn config() -> NamespaceConfig {
    NamespaceConfig {
        max_processes: 8,
        max_participants: 20,
        max_segments: 24,
        ..NamespaceConfig::default()
    }
}

/// The numbers of victim and rescuers.
pub(crate) fn mortals(rescuers: usize) -> Vec<u64> {
    (VICTIM..=VICTIM + rescuers as u64).collect()
}

/// A process in the namespace, and its thread.
#[derive(Clone, Copy)]
pub(crate) struct Member {
    pub(crate) process: &'static Process,
    pub(crate) ns: &'static Namespace<'static>,
    pub(crate) thread: &'static ParticipantLocal,
    pub(crate) participant: &'static Participant<'static>,
}

/// Opens the namespace, and nothing else.
pub(crate) fn open(
    process: &'static Process,
    config: &NamespaceConfig,
) -> Result<(Namespace<'static>, Opened), String> {
    let records: Vec<_> = (0..config.max_segments).map(|_| LocalSegment::new()).collect();
    let local = leak(ProcessLocal::new(leak(AtomicU64::new(0)), records.leak()));
    Namespace::open(process, process.platform(), config, local).map_err(text)
}

impl Member {
    pub(crate) fn join(
        process: Process,
        config: &NamespaceConfig,
    ) -> Result<(Self, Opened), String> {
        let process = leak(process);
        let (ns, opened) = open(process, config)?;
        let (ns, thread) = (leak(ns), leak(ParticipantLocal::new()));
        ns.register(thread).map_err(text)?;
        let participant = leak(ns.participant(thread));
        Ok((Self { process, ns, thread, participant }, opened))
    }

    /// Starts a process that joins.
    pub(crate) fn start(pid: u64) -> Self {
        Self::join(Process::start(pid), &config()).expect("a namespace can be joined").0
    }

    /// Starts a second thread.
    pub(crate) fn second_thread(&self) -> Self {
        system::start(THREAD);
        self.process.thread.store(THREAD, Ordering::Relaxed);
        let thread = leak(ParticipantLocal::new());
        self.ns.register(thread).expect("registers");
        self.process.thread.store(self.process.pid, Ordering::Relaxed);
        Self { thread, participant: leak(self.ns.participant(thread)), ..*self }
    }

    /// A child that was forked from the process by another of its threads at this moment: it has a
    /// copy of all the process knows, less what the platform wipes on fork.
    pub(crate) fn fork(&self) {
        crate::explore::mark("a child is forked");
        self.ns.reset_after_fork();
        self.thread.clear();
    }

    /// Leaves the namespace. The member must not be used any more.
    pub(crate) fn leave(self) -> Result<(), String> {
        ensure(self.ns.unregister(self.thread), || "a guard was leaked".into())?;
        // SAFETY: the namespace was leaked, and its copy is not used any more.
        let namespace = unsafe { std::ptr::read(self.ns) };
        namespace.leave(self.process).map_err(text)
    }

    pub(crate) fn reap(&self) -> Result<(), String> {
        self.ns.reap().map(|_| ()).map_err(text)
    }

    /// After the witness has reaped, somebody gets the victim's slots: what was left in its name
    /// (a reader's bit, an owner's word) would be the newcomer's.
    pub(crate) fn succeed(&self) -> Result<(), String> {
        if self.process.pid == WITNESS {
            Self::join(Process::start(GUEST), &config())?;
        }
        Ok(())
    }

    /// Creates a segment that is an object of its own.
    pub(crate) fn segment(&self) -> Segment<'static> {
        self.ns.create_object(64 << 10, 64 << 10).expect("a segment can be created")
    }

    /// The end: all others die, this one leaves, and nothing is left.
    pub(crate) fn end(self) -> Result<(), String> {
        self.only_survivor();
        self.ns.set_persistent(false).map_err(text)?;
        self.reap()?;
        let segments: Vec<_> = system::objects().1;
        let live = self.ns.create_object(4096, 4096).map_err(text)?;
        drop(live);
        self.leave()?;
        let left = system::objects();
        ensure(left == (false, Vec::new()), || {
            format!("objects are left in the system: {left:x?}, before the end: {segments:x?}")
        })
    }

    /// Kills all others.
    pub(crate) fn only_survivor(&self) {
        for process in system::living().into_iter().filter(|pid| *pid != self.process.pid) {
            system::kill(process);
        }
    }

    /// Fails if there are more objects than the control object and so many others.
    pub(crate) fn expect_objects(&self, most: usize) -> Result<(), String> {
        let objects = system::objects().1;
        ensure(objects.len() <= most, || format!("{} objects instead of {most}", objects.len()))
    }
}

/// A namespace that outlives its last process.
pub(crate) fn persistent() -> NamespaceConfig {
    NamespaceConfig { persistent: true, ..config() }
}

/// Somebody who takes over a persistent namespace when everybody is dead.
pub(crate) fn inherit(process: Process) -> Result<Member, String> {
    let (member, opened) = Member::join(process, &persistent())?;
    ensure(opened == Opened::Resumed, || format!("{opened:?} what was left to an heir"))?;
    Ok(member)
}

/// What a newcomer finds when everybody is dead: nothing, and a namespace that works.
pub(crate) fn finds_nothing(process: Process) -> Result<(), String> {
    let (member, opened) = Member::join(process, &config())?;
    ensure(matches!(opened, Opened::Created | Opened::Recreated), || format!("{opened:?}"))?;
    member.expect_objects(0)?;
    drop(member.ns.create_segment(100, 100).map_err(text)?);
    member.end()
}

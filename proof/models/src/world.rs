//! Processes with what they need, over the heap provider.
//!
//! A killed process's memory must stay where it is, and models hand it to threads that are never
//! dropped. So everything is [`keep`]ed for the execution and given back after it, undropped, but
//! for the processes, which own the memory of their mappings.

use std::alloc::{Layout, dealloc};
use std::any::Any;
use std::cell::RefCell;

use dsa_core::{Area, AreaLocal, DsaPointer, Heap, HeapLocal, Options};
use dshash_core::{Params, Session, Table, TableHandle};
use dsm_core::handle::SegmentHandle;
use dsm_core::lock::rw::RwLock;
use dsm_core::namespace::{Namespace, NamespaceConfig, Opened};
use dsm_core::participant::{Participant, ParticipantLocal};
use sim::{HeapMachine, HeapProcess};

use crate::play::Ended;

pub(crate) type A = Area<'static, RwLock>;
pub(crate) type H = Heap<'static, RwLock>;
pub(crate) type Value = [u64; 3];
pub(crate) type Here = Session<'static, u64, Value, &'static A>;
type Values = Table<u64, Value, &'static A>;

#[derive(Default)]
struct Kept {
    undropped: Vec<(*mut u8, Layout)>,
    dropped: Vec<Box<dyn Any>>,
}

thread_local! {
    static KEPT: RefCell<Kept> = RefCell::default();
}

/// Keeps a value until the execution is over. It is never dropped.
pub(crate) fn keep<T>(value: T) -> &'static T {
    let kept: &'static mut T = Box::leak(Box::new(value));
    if size_of::<T>() > 0 {
        let place = (std::ptr::from_mut(kept).cast(), Layout::new::<T>());
        KEPT.with_borrow_mut(|all| all.undropped.push(place));
    }
    kept
}

/// Gives back what was kept.
pub(crate) fn forget_all() {
    // The registry's, in this thread's own memory; of an execution that failed, all of them.
    dsm_registry::forget_members();
    let kept = KEPT.take();
    drop(kept.dropped);
    for (at, layout) in kept.undropped {
        // SAFETY: allocated by `keep` with this layout; the execution is over and its threads are
        // gone, dead ones included.
        unsafe { dealloc(at, layout) };
    }
}

fn start(machine: &HeapMachine) -> &'static HeapProcess {
    let process = Box::into_raw(Box::new(machine.process()));
    // SAFETY: just leaked; owned by `KEPT` from here on.
    KEPT.with_borrow_mut(|kept| kept.dropped.push(Box::new(Owned(process))));
    // SAFETY: lives until the execution is over.
    unsafe { &*process }
}

struct Owned(*mut HeapProcess);

impl Drop for Owned {
    fn drop(&mut self) {
        // SAFETY: leaked by `start`, and owned by this alone.
        drop(unsafe { Box::from_raw(self.0) });
    }
}

/// A small namespace.
pub(crate) fn config() -> NamespaceConfig {
    NamespaceConfig {
        max_processes: 8,
        max_participants: 20,
        max_segments: 16,
        ..NamespaceConfig::default()
    }
}

/// A process in the namespace.
#[derive(Clone, Copy)]
pub(crate) struct Member {
    pub(crate) process: &'static HeapProcess,
    pub(crate) ns: &'static Namespace<'static>,
    pub(crate) opened: Opened,
}

/// A process that has yet to join.
#[derive(Clone, Copy)]
pub(crate) struct Stranger(pub(crate) &'static HeapProcess);

impl Stranger {
    pub(crate) fn new(machine: &HeapMachine) -> Self {
        Self(start(machine))
    }

    pub(crate) fn join(self) -> Member {
        let process = self.0;
        let local = keep(process.local());
        let opened = Namespace::open(process, process.platform(), &config(), local);
        let (ns, opened) = opened.expect("opens");
        Member { process, ns: keep(ns), opened }
    }
}

impl Member {
    pub(crate) fn new(machine: &HeapMachine) -> Self {
        Stranger::new(machine).join()
    }

    /// A thread in it.
    pub(crate) fn thread(self) -> &'static Participant<'static> {
        let local = keep(ParticipantLocal::new());
        self.ns.register(local).expect("there is a slot");
        keep(self.ns.participant(local))
    }

    pub(crate) fn leave(self) {
        // SAFETY: kept undropped, so that this is its one owner; it is not used any more.
        let ns = unsafe { std::ptr::read(self.ns) };
        ns.leave(self.process).expect("leaves");
    }
}

/// A process with an area, and a heap in it.
#[derive(Clone, Copy)]
pub(crate) struct Kit {
    pub(crate) member: Member,
    pub(crate) me: &'static Participant<'static>,
    pub(crate) area: &'static A,
    pub(crate) heap: &'static H,
}

impl Kit {
    fn of(member: Member, area: &'static A) -> Self {
        let me = member.thread();
        let heap = keep(area.heap(me, keep(HeapLocal::new())).expect("is registered"));
        Self { member, me, area, heap }
    }

    pub(crate) fn create(machine: &HeapMachine) -> Self {
        let member = Member::new(machine);
        let options = Options { maximum: 128 << 10, ..Options::default() };
        let area = A::create(member.ns, &options, keep(AreaLocal::new())).expect("creates");
        Self::of(member, keep(area))
    }

    pub(crate) fn attach(machine: &HeapMachine, handle: SegmentHandle) -> Self {
        let member = Member::new(machine);
        let area = A::attach(member.ns, handle, keep(AreaLocal::new())).expect("attaches");
        Self::of(member, keep(area))
    }

    /// So many processes with the area that the first creates.
    pub(crate) fn several(count: usize) -> Vec<Self> {
        let machine = HeapMachine::with_seed(dsm_core::sync::shuttle::random(1 << 40));
        let first = Self::create(&machine);
        let others = (1..count).map(|_| Self::attach(&machine, first.handle()));
        std::iter::once(first).chain(others.collect::<Vec<_>>()).collect()
    }

    pub(crate) fn handle(&self) -> SegmentHandle {
        self.area.handle().expect("has a segment of its own")
    }

    pub(crate) fn free(&self, pointer: DsaPointer) {
        // SAFETY: models use objects through checked copies, and free what they own.
        unsafe { self.heap.free(pointer) }.expect("is an object");
    }

    /// Lets go of the area and leaves; neither must be used any more.
    pub(crate) fn leave(self) {
        // SAFETY: kept undropped, so that this is its one owner.
        drop(unsafe { std::ptr::read(self.area) });
        self.member.ns.unregister(self.me.local());
        self.member.leave();
    }

    /// When all that is known was freed: nothing is used but at most `lost` objects. Returns how
    /// many those are. Then the area works.
    pub(crate) fn is_empty(&self, lost: u64) -> u64 {
        self.heap.maintain().expect("maintains");
        let report = self.area.check(self.me).expect("is sound");
        assert!(report.objects <= lost, "{} objects are left, {lost} may be", report.objects);
        assert!(lost > 0 || report.used == 0, "{} bytes are left", report.used);
        assert_eq!(report.unpublished, 0, "unpublished objects are left");
        let sizes = [8, 64, 3000, 20_000];
        let mine = sizes.map(|size| self.heap.allocate(size).expect("there is memory"));
        mine.iter().for_each(|pointer| self.free(*pointer));
        self.heap.trim().expect("trims");
        let report = self.area.check(self.me).expect("is sound");
        let objects = report.objects;
        assert!(objects <= lost, "allocating after a death leaks");
        objects
    }
}

/// After the judgement: everybody who lives leaves, and nothing is left on the machine.
pub(crate) fn all_leave(kits: &[Kit], ended: &Ended) {
    let machine = kits[0].member.process.machine();
    let last = ended.survivor();
    kits[last].member.ns.reap().expect("reaps");
    for (kit, dead) in kits.iter().zip(ended.dead.iter().chain(std::iter::repeat(&false))) {
        if !dead {
            kit.leave();
        }
    }
    assert_eq!(machine.objects().len(), 0, "objects are left in the system");
}

/// A process with a table.
#[derive(Clone, Copy)]
pub(crate) struct User {
    pub(crate) kit: Kit,
    pub(crate) session: Here,
}

pub(crate) fn value(key: u64, version: u64) -> Value {
    [key, version, key.wrapping_mul(31) ^ version.rotate_left(7)]
}

impl User {
    fn params(partitions: u32) -> Params {
        Params { partitions, ..Params::default() }
    }

    fn of(kit: Kit, table: Values) -> Self {
        Self { kit, session: keep(table).bind(kit.heap).expect("the heap is of this area") }
    }

    /// So many processes with a table that the first creates.
    pub(crate) fn several(count: usize, partitions: u32) -> Vec<Self> {
        let kits = Kit::several(count);
        let params = Self::params(partitions);
        let table = Values::create(kits[0].area, kits[0].heap, &params).expect("creates");
        let first = Self::of(kits[0], table);
        let handle = first.session.table().handle();
        let others = kits[1..].iter().map(|kit| Self::attach(*kit, handle, &params));
        std::iter::once(first).chain(others.collect::<Vec<_>>()).collect()
    }

    fn attach(kit: Kit, handle: TableHandle, params: &Params) -> Self {
        // SAFETY: the table is destroyed when nobody uses it any more.
        Self::of(kit, unsafe { Values::attach(kit.area, handle, params) }.expect("attaches"))
    }

    /// Destroys the table, after which its area is empty; then all who live leave.
    pub(crate) fn end(users: &[Self], ended: &Ended) {
        let last = &users[ended.survivor()];
        last.session.clear().expect("clears");
        let report = last.session.check().expect("is sound");
        assert_eq!(report.stats.entries, 0, "entries are left in an empty table");
        // SAFETY: kept undropped, so that this is its one owner; nobody uses the table any more.
        let table = unsafe { std::ptr::read(last.session.table()) };
        // SAFETY: as above.
        unsafe { table.destroy(last.kit.heap) }.expect("destroys");
        last.kit.is_empty(0);
        let kits: Vec<_> = users.iter().map(|user| user.kit).collect();
        all_leave(&kits, ended);
    }
}

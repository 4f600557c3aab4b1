//! One participant for each thread and namespace, registered when first needed.
//!
//! A thread keeps its participants in a thread-local list, and the one it used last in a cell
//! beside it, so that finding it again is two loads and two compares. Attachments are numbered
//! and numbers never used again, so an entry of an attachment that is gone is never found; it is
//! dropped when the next one is added.
//!
//! Beside each participant lie its heaps, one for each area that the thread has used, found by the
//! area's index in its attachment. An index is used again after its area is gone: a serial number
//! tells whose heap it is.
//!
//! Every call needs the heap first of all, so the ones used last are also found by the area's
//! serial number in a small table of the thread, without a look at the attachment. Serial numbers
//! are never used again, and whoever asks keeps the area attached, so an entry that is found is of
//! a heap that is there: heaps go after their area, or at the thread's end, when the table is
//! cleared.
//!
//! **Lifetimes.** Guards refer to their thread's participant, and never leave the thread. The list
//! is dropped when the thread ends, after which a guard may still be dropped: one that was put
//! into another thread-local. Therefore a participant that still holds a lock is never freed: its
//! memory is leaked and its slot stays taken until the process ends, which is also what a guard
//! that was forgotten costs. Scans, which hold no lock before their first step, share the
//! ownership of the participant instead ([`Keep`]): after the thread's end theirs is one that is
//! not registered, and every step an error.
//!
//! **Fork.** The participant's local half lies in memory that is wiped on fork: the child's copy
//! of the list holds participants that are not registered, and it leaks them, since copies of
//! guards may refer to them.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Weak;

use dsa_core::{Heap, HeapLocal};
use dsm_core::lock::rw::RwLock;
use dsm_core::participant::Participant;

use crate::area::RawArea;
use crate::error::Error;
use crate::error::context::Context;
use crate::error::kind::ErrorKind;
use crate::fork::Local;
use crate::process::Attachment;
use crate::stable::Stable;

/// A thread's participant in one namespace.
struct Member {
    /// Number of the attachment.
    number: u64,
    home: Weak<Attachment>,
    /// Refers to `local` and to the namespace of `home`; used only while both are there.
    participant: Participant<'static>,
    /// By index of the area.
    heaps: RefCell<Vec<Option<Stable<AreaHeap>>>>,
    local: Local,
}

/// A thread's heap in one area.
struct AreaHeap {
    /// Which area, as attached by this process; the index may be another one's by now.
    serial: u64,
    /// Borrows from `_hints`, the member's participant, and the area; used only while that is
    /// attached.
    heap: Heap<'static, RwLock>,
    _hints: Stable<HeapLocal>,
}

thread_local! {
    static MEMBERS: RefCell<Members> = const { RefCell::new(Members(Vec::new())) };
    /// Number of the attachment used last, and the member of it.
    static LAST: Cell<(u64, *const Member)> = const { Cell::new((0, std::ptr::null())) };
    /// Heaps used lately, each at its area's serial number modulo the length.
    static RECENT: [Recent; RECENTS] = const {
        [const { Recent { serial: Cell::new(0), heap: Cell::new(std::ptr::null()) } }; RECENTS]
    };
}

/// Enough for the areas that a thread uses at a time; for a thread with more, the others are a few
/// nanoseconds further away.
const RECENTS: usize = 16;

/// A heap used lately.
struct Recent {
    /// Of the area; 0 for none.
    serial: Cell<u64>,
    heap: Cell<*const Heap<'static, RwLock>>,
}

/// Forgets the heaps used lately, before any of them is freed.
fn forget_recent() {
    RECENT.with(|recent| recent.iter().for_each(|recent| recent.serial.set(0)));
}

struct Members(Vec<Rc<Member>>);

/// Keeps a thread's participant in memory.
pub(crate) struct Keep {
    _member: Rc<Member>,
}

/// Keeps the calling thread's participant in `home` in memory, also beyond the thread's end.
pub(crate) fn keep(home: &Attachment) -> Result<Keep, Error> {
    // A `&Member` leads to the member alone, not to the counts beside it: the list has the `Rc`.
    let number = member(home)?.number;
    let find = |members: &Members| members.0.iter().find(|m| m.number == number).map(Rc::clone);
    let found = MEMBERS.try_with(|members| find(&members.borrow())).ok().flatten();
    found.map(|member| Keep { _member: member }).ok_or_else(|| ErrorKind::ThreadEnding.into())
}

/// The calling thread's participant in `home`.
#[inline]
pub(crate) fn participant(home: &Attachment) -> Result<&Participant<'static>, Error> {
    member(home).map(|member| &member.participant)
}

/// The calling thread's heap in an area, if it has used it lately.
#[inline(always)]
fn recent_heap(area: &RawArea) -> Option<&Heap<'static, RwLock>> {
    let serial = area.serial();
    RECENT.with(|recent| {
        let recent = &recent[serial as usize % RECENTS];
        if recent.serial.get() != serial {
            return None;
        }
        // SAFETY: of the area that the caller keeps attached, so it is there: see the module.
        let heap = unsafe { &*recent.heap.get() };
        // Not so in a forked child.
        heap.participant().is_registered().then_some(heap)
    })
}

/// The calling thread's heap in an area of `home`; knows the participant too. Two words,
/// returned in registers.
#[inline(always)]
pub(crate) fn heap<'a>(
    home: &'a Attachment,
    area: &'a RawArea,
) -> Result<&'a Heap<'static, RwLock>, Error> {
    match recent_heap(area) {
        Some(heap) => Ok(heap),
        None => find_heap(home, area),
    }
}

#[cold]
#[inline(never)]
fn find_heap<'a>(
    home: &'a Attachment,
    area: &'a RawArea,
) -> Result<&'a Heap<'static, RwLock>, Error> {
    let member = member(home)?;
    let known = match member.heaps.borrow().get(area.index()) {
        Some(Some(known)) if known.serial == area.serial() => std::ptr::from_ref(&known.heap),
        _ => std::ptr::null(),
    };
    // SAFETY: null, or boxed, and dropped with the member, or when the area's index is used by
    // another one; the caller keeps the area attached.
    let heap = match unsafe { known.as_ref() } {
        Some(heap) => heap,
        None => member.add_heap(home, area)?,
    };
    RECENT.with(|recent| {
        let recent = &recent[area.serial() as usize % RECENTS];
        recent.heap.set(heap);
        recent.serial.set(area.serial());
    });
    Ok(heap)
}

#[inline]
fn member(home: &Attachment) -> Result<&Member, Error> {
    let (number, last) = LAST.get();
    if number == home.number() {
        // SAFETY: the cell names a member of this thread's list, of an attachment that the caller
        // keeps alive; the list clears the cell before it frees anything.
        let member = unsafe { &*last };
        if member.participant.packed() != 0 {
            return Ok(member);
        }
    }
    find(home)
}

#[cold]
fn find(home: &Attachment) -> Result<&Member, Error> {
    home.check_fork()?;
    let found = MEMBERS.try_with(|members| -> Result<*const Member, Error> {
        // One that is there and not registered any more was declared dead, and had its error: what
        // it held is others' by now, and the thread begins anew. Guards may still refer to it.
        let lost = members
            .borrow()
            .0
            .iter()
            .position(|m| m.number == home.number() && !m.local.get().is_registered());
        if let Some(at) = lost {
            forget_recent();
            LAST.set((0, std::ptr::null()));
            std::mem::forget(members.borrow_mut().0.swap_remove(at));
        }
        let known = members.borrow().0.iter().position(|m| m.number == home.number());
        let at = match known {
            Some(at) => at,
            None => {
                let member = Member::register(home)?;
                let list = &mut members.borrow_mut().0;
                forget_recent();
                list.retain(|m| m.home.strong_count() > 0);
                list.push(member);
                list.len() - 1
            }
        };
        let member: *const Member = &*members.borrow().0[at];
        LAST.set((home.number(), member));
        Ok(member)
    });
    let member = found.map_err(|_| ErrorKind::ThreadEnding)??;
    // SAFETY: members are counted, and freed only once their attachment is gone, which the caller
    // keeps alive, or when the thread ends, and then only if nothing is held.
    Ok(unsafe { &*member })
}

impl Member {
    fn register(home: &Attachment) -> Result<Rc<Self>, Error> {
        let local = Local::new().of(home, "a participant of this thread")?;
        home.namespace().register(local.get()).of(home, "this thread")?;
        // SAFETY: the local half lies in pages of its own that live as long as the member.
        let pages = unsafe { &*std::ptr::from_ref(local.get()) };
        let participant = home.namespace_static().participant(pages);
        Ok(Rc::new(Self {
            number: home.number(),
            home: home.weak(),
            participant,
            heaps: RefCell::default(),
            local,
        }))
    }

    #[cold]
    fn add_heap<'a>(
        &self,
        home: &'a Attachment,
        area: &'a RawArea,
    ) -> Result<&'a Heap<'static, RwLock>, Error> {
        let hints = Stable::from(Box::<HeapLocal>::default());
        // SAFETY: kept beside the heap, and dropped after it.
        let local = unsafe { hints.forever() };
        // SAFETY: part of a counted member, which is dropped after its heaps.
        let participant = unsafe { &*std::ptr::from_ref(&self.participant) };
        let heap = area.core_static().heap(participant, local).of(home, area.label())?;
        let added = Stable::new(AreaHeap { serial: area.serial(), heap, _hints: hints });
        let heap = std::ptr::from_ref(&added.heap);
        let mut heaps = self.heaps.borrow_mut();
        forget_recent();
        if heaps.len() <= area.index() {
            heaps.resize_with(area.index() + 1, || None);
        }
        heaps[area.index()] = Some(added);
        // SAFETY: as in `heap`.
        Ok(unsafe { &*heap })
    }

    /// Gives the registration back; whether the memory may be freed.
    fn retire(&self) -> bool {
        if !self.local.get().is_registered() {
            return false;
        }
        match self.home.upgrade() {
            Some(home) => home.namespace().unregister(self.local.get()),
            // All handles are gone, so that nothing can refer to guards of theirs.
            None => true,
        }
    }
}

/// Ends the calling thread's participant in an attachment that is being left: one that is still
/// registered keeps the control segment mapped. A thread with a forgotten guard stays as it is.
pub(crate) fn depart(home: &Attachment) {
    // Where the list is gone already, so is the participant.
    let _ = MEMBERS.try_with(|members| {
        let Ok(mut members) = members.try_borrow_mut() else { return };
        let Some(at) = members.0.iter().position(|m| m.number == home.number()) else { return };
        let local = members.0[at].local.get();
        if !local.is_registered() || local.holds_any() {
            return;
        }
        LAST.set((0, std::ptr::null()));
        forget_recent();
        let member = members.0.swap_remove(at);
        drop(members);
        if !home.namespace().unregister(member.local.get()) {
            std::mem::forget(member);
        }
    });
}

/// Forgets the calling thread's participants, undropped: those of the dead of a model, all of whose
/// threads are this one.
#[cfg(shuttle)]
pub fn forget_members() {
    LAST.set((0, std::ptr::null()));
    forget_recent();
    MEMBERS.with_borrow_mut(|members| std::mem::forget(std::mem::take(&mut members.0)));
}

impl Drop for Members {
    fn drop(&mut self) {
        LAST.set((0, std::ptr::null()));
        forget_recent();
        for member in self.0.drain(..) {
            if !member.retire() {
                std::mem::forget(member);
            }
        }
    }
}

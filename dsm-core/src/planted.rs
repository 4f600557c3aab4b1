//! Planted bugs: what the tools that look for mistakes are measured with.
//!
//! A tool that never fails proves nothing. So the code has, at the places where its order of
//! stores matters most, the mistakes that one could make there, each behind an `if
//! planted(Bug::...)`. They exist in builds with `--cfg dsm_planted` only; in any other,
//! [`planted`] is the constant `false`, and nothing of them is compiled. A cfg and not a feature,
//! since features are unified across a workspace and can be switched on by anybody.
//!
//! At most one bug is selected at a time, for the whole process, by whoever starts it
//! (`crash yardsticks`, or a test's setup); these crates read no environment. The selection is no
//! part of what a model explores, which is why its atomic is not one of [`sync`](crate::sync).

macro_rules! bugs {
    ($($variant:ident $name:literal $place:literal: $doc:literal;)*) => {
        /// A mistake that can be made on request.
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        #[repr(u32)]
        pub enum Bug {
            $(#[doc = $doc] $variant,)*
        }

        impl Bug {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$variant),*];

            /// What it is called on a command line.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)*
                }
            }

            /// The file with the place where it was planted.
            #[must_use]
            pub const fn place(self) -> &'static str {
                match self {
                    $(Self::$variant => $place,)*
                }
            }

            /// What is wrong.
            #[must_use]
            pub const fn what(self) -> &'static str {
                match self {
                    $(Self::$variant => $doc,)*
                }
            }
        }
    };
}

bugs! {
    BitBeforeRecord "bit-before-record" "dsm-core/src/lock/rw.rs":
        "A reader sets its bit in the lock before its record says which lock.";
    RecordClearedEarly "record-cleared-early" "dsm-core/src/lock/rw.rs":
        "A reader takes its record back before its bit.";
    OwnerAfterSwap "owner-after-swap" "dsm-core/src/lock/rw/lines.rs":
        "A writer takes the lock first and writes down its name after that.";
    MissingRelease "missing-release" "dsm-core/src/lock/rw/lines.rs":
        "A writer lets go without releasing what it wrote.";
    MissingFence "missing-fence" "dsm-core/src/lock/rw/lines.rs":
        "A reader's look at the owner may come before its bit is set.";
    LostWake "lost-wake" "dsm-core/src/lock/rw/contended.rs":
        "An owner that others wait for lets go and wakes nobody.";
    SleepsUnlooked "sleeps-unlooked" "dsm-core/src/lock/rw/contended.rs":
        "Who says that it sleeps does so without a second look at the owner.";
    EntersUnlooked "enters-unlooked" "dsm-core/src/lock/rw/contended.rs":
        "A claimant that saw the readers go enters without a second look.";
    EnteredTakenForClaimed "entered-for-claimed" "dsm-core/src/lock/rw/contended.rs":
        "A dead owner's lock is taken over as if it had only waited: the data count as clean.";
    ReaderClearsEntered "reader-clears-entered" "dsm-core/src/lock/rw/contended.rs":
        "A reader clears a dead owner's word, which says that the data may be half-changed.";
    DeathUnannounced "death-unannounced" "dsm-core/src/deaths.rs":
        "Who declares a death doesn't raise the count: a living process that was swept goes on.";
    DeathUncompared "death-uncompared" "dsm-core/src/participant.rs":
        "A call doesn't look whether the death count has moved.";
    DeathAnnouncedLate "death-announced-late" "dsm-core/src/reap.rs":
        "The sweep raises the death count when it has swept, not before.";
    DeadReaderKept "dead-reader-kept" "dsm-core/src/reap.rs":
        "The sweep leaves a dead reader's bit where it is.";
    UnknownKindForgotten "unknown-kind-forgotten" "dsm-core/src/reap.rs":
        "The sweep frees the slot of a dead reader of a lock that it can't clear.";
    SleepersUnwoken "sleepers-unwoken" "dsm-core/src/reap.rs":
        "The sweep lets those sleep on who wait for the dead.";
    SlotFreedBeforeSweep "slot-freed-before-sweep" "dsm-core/src/reap.rs":
        "A dead participant's slot is free before its bits are cleared.";
    ReaperWithoutClaim "reaper-without-claim" "dsm-core/src/reap.rs":
        "A reaper sweeps without keeping others from doing so at the same time.";
    FreesUnlooked "frees-unlooked" "dsm-core/src/reap.rs":
        "Of two that destroy a segment the second one frees the slot's next tenant.";
    FreedBeforeRemoved "freed-before-removed" "dsm-core/src/reap.rs":
        "A segment's slot is free before its object is removed.";
    GenerationIgnored "generation-ignored" "dsm-core/src/control/mod.rs":
        "Whoever has a slot now is taken for its former tenant.";
    IndexTrusted "index-trusted" "dsm-core/src/control/mod.rs":
        "What a dead owner of the control lock left of the indexes is not rebuilt.";
    MagicFirst "magic-first" "dsm-core/src/control/setup.rs":
        "A control segment is published before it is built.";
    CreatingUnrecorded "creating-unrecorded" "dsm-core/src/namespace/segments.rs":
        "A segment is recorded when its object is there, not before.";
    AttachUnchecked "attach-unchecked" "dsm-core/src/namespace/segments.rs":
        "An attacher looks whether the segment lives before it sets its bit, and not again.";
    DeadKeepMemory "dead-keep-memory" "dsm-core/src/namespace/mod.rs":
        "Who finds too little memory doesn't look for what the dead have.";
    HeldSegmentLetGo "held-segment-let-go" "dsm-core/src/namespace/release.rs":
        "A process lets go of a segment in which a thread of its own holds a lock.";
    ListRemovedFirst "list-removed-first" "dsm-core/src/namespace/open.rs":
        "The last to leave removes the list of the objects before the objects.";
    UnlinkByName "unlink-by-name" "platform-posix/src/object.rs":
        "An object is removed by its name, whatever the name means by now.";
    TruthBeforeLink "truth-before-link" "dsa-core/src/heap/publish.rs":
        "An object counts as published before anything leads to it.";
    AdoptedUnlooked "adopted-unlooked" "dsa-core/src/slab.rs":
        "A scan for the property of the dead takes a slab at the first look.";
    PageWordRelaxed "page-word-relaxed" "dsa-core/src/pages.rs":
        "A page's word may be seen before the header that was stored before it.";
    EntryUnlooked "entry-unlooked" "dsa-core/src/local.rs":
        "A reader of the process's table doesn't look again whether the entry is still the same.";
    AdoptedUnsettled "adopted-unsettled" "dsa-core/src/area/recover.rs":
        "A dead owner's slab is given away before its unpublished objects are freed.";
    PublicationIgnored "publication-ignored" "dsa-core/src/area/recover.rs":
        "A dead owner's objects are freed though they are published but for a byte.";
    IntentForgottenEarly "intent-forgotten-early" "dsa-core/src/area/free_from.rs":
        "The intent to free is forgotten before the object is free.";
    IntentKept "intent-kept" "dsa-core/src/area/free_from.rs":
        "The intent to free a run of pages is not forgotten when they are free.";
    TakenUnsettled "taken-unsettled" "dsa-core/src/area/moving.rs":
        "Who takes an object out of a word leaves it unpublished, if it is.";
    MoveIntentForgotten "move-intent-forgotten" "dsa-core/src/area/moving.rs":
        "The intent to move an object is forgotten before the first word is cleared.";
    PublicationElsewhereIgnored "publication-elsewhere-ignored" "dsa-core/src/area/intent.rs":
        "Recovery doesn't look at a destination outside the area.";
    WordKept "word-kept" "dsa-core/src/area/free_from.rs":
        "Recovery frees the run that an intent names, and leaves the word that names it.";
    TruthUnlooked "truth-unlooked" "dsa-core/src/area/free_from.rs":
        "Recovery frees the object that an intent names, whosesoever it is by then.";
    FreePagesTrusted "free-pages-trusted" "dsa-core/src/area/recover.rs":
        "Free pages are looked up in what a dead owner of the page lock left of the index.";
    OwnerlessKept "ownerless-kept" "dsa-core/src/area/recover.rs":
        "A slab stays though its maker died before it had an owner.";
    OwnerUncleared "owner-uncleared" "dsa-core/src/slab.rs":
        "A page becomes a slab though something that looks like an owner is in its header.";
    DirectoryKept "directory-kept" "dsa-core/src/area/grow.rs":
        "The rest of an area's directory keeps its name where its segment was not finished.";
    EntryFreedBeforeUnpin "entry-freed-before-unpin" "dsa-core/src/area/give_back.rs":
        "An area forgets a segment before it gives it back.";
    RemoteFreeUnseen "remote-free-unseen" "dsa-core/src/area/nobodys.rs":
        "A slab of nobody in which there is room is not looked at.";
    CountedLate "counted-late" "dsa-core/src/heap/free.rs":
        "Who frees an object of a slab of nobody counts it after that, where the slab may be gone.";
    CountBelieved "count-believed" "dsa-core/src/area/nobodys.rs":
        "A slab of nobody is freed by the count of its objects, not by its bytes.";
    ListsTrusted "lists-trusted" "dsa-core/src/area/nobodys.rs":
        "The lists of slabs with room are believed as a dead owner of the page lock left them.";
    RecordClosedEarly "record-closed-early" "dshash-core/src/locked.rs":
        "An insertion closes its record before it stores the reference.";
    TagAfterReference "tag-after-reference" "dshash-core/src/locked.rs":
        "An insertion stores the tag after the reference that publishes.";
    FreedBeforeUnlinked "freed-before-unlinked" "dshash-core/src/locked.rs":
        "A deletion puts the entry on the free list before the bucket stops naming it.";
    SequenceStaysEven "sequence-stays-even" "dshash-core/src/sequence.rs":
        "A change doesn't tell readers without the lock that it is under way.";
    DirectoryBeforeCopy "directory-before-copy" "dshash-core/src/grow.rs":
        "A growing index is published before its entries are copied.";
    OldFreedFirst "old-freed-first" "dshash-core/src/change.rs":
        "A change of structure frees what it replaces before it replaces it.";
    PoisonForgotten "poison-forgotten" "dshash-core/src/recover.rs":
        "A value whose writer died is handed out as if it were whole.";
    CountTrusted "count-trusted" "dshash-core/src/recover.rs":
        "The count of entries is believed as a dead owner left it.";
    ClaimUnlooked "claim-unlooked" "dsm-registry/src/turn.rs":
        "Who claims a name doesn't look again, under its lock, whether somebody else has.";
    ReadyBeforeObject "ready-before-object" "dsm-registry/src/turn.rs":
        "A name is usable before it says what it stands for.";
    PinBeforeHandle "pin-before-handle" "dsm-registry/src/turn.rs":
        "A named object is pinned before its entry names it.";
}

/// The environment variable that tells tools and tests which bug to select.
pub const VARIABLE: &str = "DSM_PLANTED";

#[cfg(not(dsm_planted))]
mod selection {
    /// Whether this bug is to be made: never, in this build.
    #[inline(always)]
    #[must_use]
    pub const fn planted(_: super::Bug) -> bool {
        false
    }
}

#[cfg(dsm_planted)]
mod selection {
    use core::sync::atomic::{AtomicU32, Ordering::Relaxed};

    use super::Bug;

    /// The selected bug's number, from 1 on; 0 for none.
    static SELECTED: AtomicU32 = AtomicU32::new(0);

    /// Whether this bug is to be made.
    #[inline(always)]
    #[must_use]
    pub fn planted(bug: Bug) -> bool {
        SELECTED.load(Relaxed) == bug as u32 + 1
    }

    /// Selects the bug of this name for the whole process; the empty name for none. Whether there
    /// is such a bug.
    pub fn select(name: &str) -> bool {
        let bug = Bug::ALL.iter().find(|bug| bug.name() == name);
        SELECTED.store(bug.map_or(0, |bug| *bug as u32 + 1), Relaxed);
        bug.is_some() || name.is_empty()
    }
}

pub use selection::*;

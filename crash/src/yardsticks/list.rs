//! Which bug is to be caught by what.

use dsm_core::planted::Bug;

use super::probe::Probe;

/// A bug, what is to catch it, and words that must occur in what is said then (so that it is
/// caught for what it is, and not because something is missing for a test).
pub(super) struct Yardstick {
    pub(super) bug: Bug,
    pub(super) probe: Probe,
    pub(super) says: &'static str,
}

const fn images(op: &'static str) -> Probe {
    Probe::Images { op, depth: 1, sample: None }
}

const fn deeper(op: &'static str, sample: Option<u64>) -> Probe {
    Probe::Images { op, depth: 2, sample }
}

const fn lock_model(name: &'static str) -> Probe {
    Probe::Test { package: "dsm-core", target: "loom_locks", name, model: true }
}

const fn namespace_model(name: &'static str) -> Probe {
    Probe::Test { package: "dsm-core", target: "loom_namespace", name, model: true }
}

const fn test(package: &'static str, target: &'static str, name: &'static str) -> Probe {
    Probe::Test { package, target, name, model: false }
}

/// All bugs, in the order of the sources.
pub(super) fn all() -> Vec<Yardstick> {
    Bug::ALL
        .iter()
        .map(|bug| {
            let (probe, says) = probe(*bug);
            Yardstick { bug: *bug, probe, says }
        })
        .collect()
}

fn probe(bug: Bug) -> (Probe, &'static str) {
    match bug {
        Bug::BitBeforeRecord => (images("lock-shared"), ""),
        Bug::RecordClearedEarly => (images("lock-shared"), ""),
        Bug::OwnerAfterSwap => (lock_model("exclusion::two_writers"), ""),
        Bug::MissingRelease => (lock_model("exclusion::two_writers"), ""),
        Bug::MissingFence => (lock_model("exclusion::writer_and_reader"), ""),
        Bug::LostWake => (lock_model("exclusion::two_writers"), ""),
        Bug::EntersUnlooked => (
            lock_model("exclusion::a_nested_reader_and_an_entering_claimant_exclude_each_other"),
            "",
        ),
        Bug::EnteredTakenForClaimed => (images("lock-exclusive"), ""),
        Bug::DeadReaderKept => (images("lock-shared"), ""),
        Bug::SlotFreedBeforeSweep => (deeper("lock-shared", None), ""),
        Bug::ReaperWithoutClaim => (
            namespace_model("races::two_reapers_and_a_newcomer_meet_over_a_dead_processs_segment"),
            "",
        ),
        Bug::FreesUnlooked => (
            namespace_model("races::two_reapers_and_a_newcomer_meet_over_a_dead_processs_segment"),
            "",
        ),
        Bug::FreedBeforeRemoved => (images("segment"), ""),
        Bug::GenerationIgnored => (images("lock-exclusive"), ""),
        Bug::IndexTrusted => (images("segment"), ""),
        Bug::MagicFirst => (images("open-first"), ""),
        Bug::CreatingUnrecorded => (images("segment-create"), ""),
        Bug::AttachUnchecked => (namespace_model("races::an_attach_meets_the_last_detach"), ""),
        Bug::ListRemovedFirst => (images("leave-last"), ""),
        Bug::UnlinkByName => {
            (test("conformance", "shm", "another_identity_is_refused_and_left_alone"), "")
        }
        Bug::TruthBeforeLink => (images("allocate"), ""),
        Bug::AdoptedUnsettled => (deeper("allocate", Some(5)), ""),
        Bug::IntentForgottenEarly => (images("table-grow-split"), ""),
        Bug::FreePagesTrusted => (images("allocate"), ""),
        Bug::EntryFreedBeforeUnpin => (images("trim"), ""),
        Bug::RemoteFreeUnseen => {
            (test("dsa-core", "area", "peers::a_producer_and_a_consumer_use_bounded_memory"), "")
        }
        Bug::RecordClosedEarly => (images("table-insert"), ""),
        Bug::TagAfterReference => (images("table-insert"), ""),
        Bug::SequenceStaysEven => (images("table-change"), ""),
        Bug::DirectoryBeforeCopy => (images("table-grow-split"), ""),
        Bug::PoisonForgotten => (images("table-change"), ""),
        Bug::CountTrusted => (images("table-insert"), ""),
        Bug::PinBeforeHandle => (images("registry-s"), ""),
    }
}

//! Which bug is to be caught by what.

use dsm_core::planted::Bug;

use crate::probe::{LIB, Probe};

/// A bug, what is to catch it, and words that must occur in what is said then (so that it is
/// caught for what it is, and not because something is missing for a test).
pub(crate) struct Yardstick {
    pub(crate) bug: Bug,
    pub(crate) probe: Probe,
    pub(crate) says: &'static str,
}

const fn images(op: &'static str) -> Probe {
    Probe::Images { op, depth: 1, sample: None, rubbish: false }
}

const fn in_rubbish(op: &'static str) -> Probe {
    Probe::Images { op, depth: 1, sample: None, rubbish: true }
}

const fn deeper(op: &'static str, sample: Option<u64>) -> Probe {
    Probe::Images { op, depth: 2, sample, rubbish: false }
}

const fn lock_model(name: &'static str) -> Probe {
    Probe::Test { package: "dsm-core", target: "loom_locks", name, model: true }
}

const fn namespace_model(name: &'static str) -> Probe {
    Probe::Test { package: "dsm-core", target: "loom_namespace", name, model: true }
}

const fn area_model(name: &'static str) -> Probe {
    Probe::Test { package: "dsa-core", target: LIB, name, model: true }
}

const fn test(package: &'static str, target: &'static str, name: &'static str) -> Probe {
    Probe::Test { package, target, name, model: false }
}

/// All bugs, in the order of the sources; then what a second tool is to catch as well.
pub(crate) fn all() -> Vec<Yardstick> {
    let first = Bug::ALL.iter().map(|bug| (*bug, probe(*bug)));
    first.chain(again()).map(|(bug, (probe, says))| Yardstick { bug, probe, says }).collect()
}

/// Tools that explore at random and had no bug of their own to catch.
fn again() -> [(Bug, (Probe, &'static str)); 10] {
    let swarm = (Probe::Swarm { seconds: 6 }, "process");
    let lock = (Probe::Play { model: "lock-writers", iterations: 500 }, "FAILED");
    let names = (Probe::Play { model: "registry-initialise", iterations: 1000 }, "FAILED");
    // Two owners of one run: whether the second free or the second take fails hangs on the
    // schedule.
    let words = (Probe::Play { model: "area-publish-runs", iterations: 4000 }, "FAILED");
    let segments = (Probe::Play { model: "namespace-segments", iterations: 500 }, "FAILED");
    let declared = (Probe::Play { model: "lock-declared-dead", iterations: 100 }, "FAILED");
    [
        (Bug::DeathUnannounced, declared),
        (Bug::DeathUncompared, declared),
        (Bug::EnteredTakenForClaimed, swarm),
        (Bug::PoisonForgotten, swarm),
        (Bug::LostWake, lock),
        (Bug::TakenUnsettled, words),
        (Bug::MoveIntentForgotten, words),
        (Bug::AttachUnchecked, segments),
        (Bug::FreesUnlooked, segments),
        (Bug::PinBeforeHandle, names),
    ]
}

fn probe(bug: Bug) -> (Probe, &'static str) {
    match bug {
        Bug::BitBeforeRecord => (images("lock-shared"), "was not free before the deadline"),
        Bug::RecordClearedEarly => (images("lock-shared"), "was not free before the deadline"),
        Bug::OwnerAfterSwap => (lock_model("exclusion::two_writers"), "Causality violation"),
        Bug::MissingRelease => (lock_model("exclusion::two_writers"), "Causality violation"),
        Bug::MissingFence => (lock_model("exclusion::writer_and_reader"), "Causality violation"),
        Bug::LostWake => (lock_model("exclusion::two_writers"), "deadlock"),
        Bug::SleepsUnlooked => (lock_model("exclusion::two_writers"), "deadlock"),
        Bug::EntersUnlooked => (
            lock_model("exclusion::a_nested_reader_and_an_entering_claimant_exclude_each_other"),
            "Causality violation",
        ),
        Bug::EnteredTakenForClaimed => (images("lock-exclusive"), "but acquired: Clean"),
        Bug::ReaderClearsEntered => {
            (images("lock-exclusive"), "readers were let in to half-changed data")
        }
        Bug::DeathUnannounced => (
            test("dsm-core", "namespace", "declared_dead::guards_of_the_swept_give_nothing_back"),
            "dropping guards changed shared memory",
        ),
        Bug::DeathUncompared => (
            test(
                "dsm-core",
                "namespace",
                "declared_dead::every_call_of_a_process_that_was_swept_fails_and_changes_nothing",
            ),
            "was declared dead while it lived",
        ),
        Bug::DeathAnnouncedLate => {
            (Probe::Play { model: "lock-declared-dead", iterations: 500 }, "FAILED")
        }
        Bug::DeadReaderKept => (images("lock-shared"), "was not free before the deadline"),
        Bug::UnknownKindForgotten => {
            (images("lock-of-another-kind"), "was not free before the deadline")
        }
        Bug::HeldSegmentLetGo => {
            (images("lock-shared-forgotten"), "was not free before the deadline")
        }
        Bug::SleepersUnwoken => (
            test("dsm-core", "wakes", "a_writer_that_waits_for_a_writer_is_woken"),
            "the sweep wakes nobody",
        ),
        Bug::SlotFreedBeforeSweep => {
            (deeper("lock-shared", None), "was not free before the deadline")
        }
        Bug::ReaperWithoutClaim => (
            namespace_model("races::two_reapers_and_a_newcomer_meet_over_a_dead_processs_segment"),
            "no such object",
        ),
        Bug::FreesUnlooked => (
            namespace_model("races::two_reapers_and_a_newcomer_meet_over_a_dead_processs_segment"),
            "left == right",
        ),
        Bug::FreedBeforeRemoved => (images("segment-destroy"), "objects instead of"),
        Bug::GenerationIgnored => (images("lock-exclusive"), "was not free before the deadline"),
        Bug::IndexTrusted => (images("segment-destroy"), "main region are taken"),
        Bug::MagicFirst => (images("open-first"), "the control segment is damaged"),
        Bug::CreatingUnrecorded => (images("segment-create"), "objects instead of"),
        Bug::AttachUnchecked => {
            (namespace_model("races::an_attach_meets_the_last_detach"), "no such object")
        }
        Bug::DeadKeepMemory => (
            test("dsm-core", "namespace", "recovery::the_dead_give_memory_to_who_needs_it"),
            "memory that a dead process has",
        ),
        Bug::ListRemovedFirst => (images("leave-last"), "objects instead of"),
        Bug::UnlinkByName => (
            test("conformance", "shm", "another_identity_is_refused_and_left_alone"),
            "this must be refused",
        ),
        Bug::TruthBeforeLink => (images("allocate-into"), "objects, before"),
        Bug::AdoptedUnlooked => (
            area_model("model::adoption::a_slab_of_the_living_is_never_taken_for_one_of_the_dead"),
            "what lives was taken for dead",
        ),
        Bug::PageWordRelaxed => (
            area_model("model::adoption::who_sees_a_slabs_word_sees_its_header"),
            "the header as it was for another run",
        ),
        Bug::EntryUnlooked => (
            area_model("model::local::an_address_is_never_said_to_lie_where_it_doesnt"),
            "halves of two mappings",
        ),
        Bug::AdoptedUnsettled => {
            (deeper("allocate-into-refill", Some(30)), "an unpublished object is left")
        }
        Bug::PublicationIgnored => (images("allocate-into"), "objects, before"),
        Bug::IntentForgottenEarly => (images("table-grow-index-again"), "a truth byte"),
        Bug::IntentKept => (images("allocate-after-free-from"), "objects, before"),
        Bug::TakenUnsettled => (images("allocate-into-and-taken"), "0 in hand"),
        Bug::MoveIntentForgotten => (images("move-small"), "two words name"),
        Bug::PublicationElsewhereIgnored => (images("allocate-into-a-segment"), "0 in hand"),
        Bug::WordKept => (images("free-from-large"), "objects, before"),
        Bug::TruthUnlooked => {
            (images("free-from-given-out-again"), "what was put there since is gone")
        }
        Bug::FreePagesTrusted => (images("allocate-first"), "a segment's number of free pages"),
        Bug::OwnerlessKept => (images("allocate-refill"), "a slab without an owner"),
        Bug::OwnerUncleared => (in_rubbish("allocate-refill"), "a slab of no class"),
        Bug::DirectoryKept => (images("allocate-with-directory"), "means no allocated object"),
        Bug::EntryFreedBeforeUnpin => (images("trim"), "objects instead of"),
        Bug::RemoteFreeUnseen => (
            test("dsa-core", "area", "peers::a_producer_and_a_consumer_use_bounded_memory"),
            "bytes for",
        ),
        Bug::CountedLate => (
            area_model(
                "model::nobodys::who_frees_the_last_object_frees_the_slab_and_leaves_it_alone",
            ),
            "counted in what is no slab any more",
        ),
        Bug::CountBelieved => (images("free-gives-room"), "was never returned by this area"),
        Bug::ListsTrusted => (images("free-gives-room"), "slabs with room"),
        Bug::RecordClosedEarly => (images("table-insert"), "an entry that no bucket refers to"),
        Bug::TagAfterReference => (images("table-insert"), "the number of entries"),
        Bug::FreedBeforeUnlinked => {
            (images("table-delete"), "a reference to an entry that is free")
        }
        Bug::SequenceStaysEven => (images("table-change"), "was read at"),
        Bug::DirectoryBeforeCopy => (images("table-grow-index"), "the number of entries"),
        Bug::OldFreedFirst => (images("table-grow-index-again"), ""),
        Bug::PoisonForgotten => (images("table-change"), "neither before nor after"),
        Bug::CountTrusted => (images("table-insert"), "the number of entries"),
        Bug::ClaimUnlooked => {
            (Probe::Play { model: "registry-initialise", iterations: 1000 }, "FAILED")
        }
        Bug::ReadyBeforeObject => (images("registry-segment-create"), "was removed from"),
        Bug::PinBeforeHandle => (images("registry-segment-create"), "objects instead of"),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn mentions(path: &Path, text: &str) -> bool {
        if path.is_dir() {
            let entries = path.read_dir().expect("can be read");
            return entries.flatten().any(|entry| mentions(&entry.path(), text));
        }
        std::fs::read_to_string(path).expect("can be read").contains(text)
    }

    #[test]
    fn every_bug_is_planted_where_it_says() {
        let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        for bug in Bug::ALL {
            let planted = mentions(&workspace.join(bug.place()), &format!("Bug::{bug:?})"));
            assert!(planted, "{bug:?} is not planted in {}", bug.place());
        }
    }

    /// The README's table has a line for each bug, which says what its definition says.
    #[test]
    fn the_readme_lists_every_bug() {
        let readme = include_str!("../README.md");
        for bug in Bug::ALL {
            let (name, what, place) = (bug.name(), bug.what().trim_end_matches('.'), bug.place());
            let row = format!("| `{name}` | {what} | `{place}` |");
            assert!(readme.contains(&row), "the README's table does not have {row}");
        }
        let rows = readme.lines().filter(|line| line.starts_with("| `")).count();
        assert_eq!(rows, Bug::ALL.len(), "lines of the table");
    }
}

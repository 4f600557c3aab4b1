//! Each public function of the cores is either tried by a case of `crash images`, or is named here
//! with the reason why a kill in it can leave nothing.
//!
//! A function that is added to the cores, and to neither list, fails this test.
#![cfg(all(target_os = "linux", target_arch = "x86_64"))]

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::{Command, Stdio};

/// Type, its functions, and the case that tries them: itself or by the function that it is a form
/// of.
const TRIED: &[(&str, &str, &str)] = &[
    ("Namespace", "open", "open-first"),
    ("Namespace", "discard", "discard"),
    ("Namespace", "leave", "leave"),
    ("Namespace", "register unregister", "register-thread"),
    ("Namespace", "reap", "reap"),
    ("Namespace", "create_segment", "segment-create-main"),
    ("Namespace", "create_object", "segment-create"),
    ("Namespace", "attach_segment", "segment-attach"),
    ("Namespace", "pin_segment", "segment-pin"),
    ("Namespace", "pin_segment_under", "segment-pin-under"),
    ("Namespace", "unpin_segment", "segment-unpin"),
    ("Namespace", "find_mapping unpin_mapping", "segment-pin-mapping"),
    ("Namespace", "release_blanks", "segment-detach-to-blank"),
    ("Namespace", "reset_after_fork", "fork-segment"),
    ("Namespace", "visit_segment", "move-to-a-segment"),
    ("Segment", "reserve", "segment-reserve"),
    ("Segment", "pin_mapping into_raw from_raw", "segment-pin-mapping"),
    ("Segment", "detach_to_blank", "segment-detach-to-blank"),
    ("Toc", "create allocate insert", "segment-contents"),
    ("LockRef", "exclusive", "lock-exclusive"),
    ("LockRef", "shared", "lock-shared"),
    ("LockRef", "shared_at_once", "table-find"),
    ("Participant", "hold_first", "table-find"),
    ("ExclusiveGuard", "mark_recovered", "lock-after-dead-owner"),
    ("Participant", "hold release release_alone", "lock-many"),
    ("Record", "keep", "lock-many"),
    ("Area", "create", "area-create"),
    ("Area", "attach", "area-attach"),
    ("Area", "create_in_place", "place-create"),
    ("Area", "attach_in_place", "place-attach"),
    ("Area", "destroy_in_place", "place-destroy"),
    ("Area", "pin unpin", "area-pin"),
    ("Area", "set_size_limit", "allocate-beyond-limit"),
    ("Area", "check", "table-recover"),
    ("Heap", "allocate", "allocate-small"),
    ("Heap", "allocate_extended", "allocate-huge"),
    ("Heap", "allocate_layout allocate_aligned", "allocate-aligned"),
    ("Heap", "allocate_unpublished", "allocate-and-give-up"),
    ("Heap", "allocate_into", "allocate-into-small"),
    ("Heap", "publish", "publish-small"),
    ("Heap", "settle", "settle"),
    ("Heap", "free", "free-local"),
    ("Heap", "free_from", "free-from-small"),
    ("Heap", "take", "take-small"),
    ("Heap", "move_between", "move-small"),
    ("Heap", "trim", "trim"),
    ("Heap", "maintain", "adopt"),
    ("Heap", "release", "heap-release"),
    ("DsaBox", "new set", "box-drop"),
    ("DsaBox", "into_ptr", "settle"),
    ("Table", "create", "table-create"),
    ("Table", "create_into", "table-create-into"),
    ("Table", "destroy", "table-destroy"),
    ("Table", "destroy_from", "table-destroy-from"),
    ("Session", "check", "table-recover"),
    ("Session", "stats partition_stats dump get contains get_many scan", "table-look"),
    ("Session", "trim", "table-trim"),
    ("Session", "clear", "table-clear"),
    ("Session", "without_waiting find_or_insert", "entry-find-or-insert"),
    ("Session", "within", "entry-modify"),
    ("Session", "find", "table-find"),
    ("Session", "find_exclusive", "table-change"),
    ("Session", "find_poisoned", "entry-poison"),
    ("Session", "repair", "table-repair"),
    ("Session", "entry", "table-insert-by-entry"),
    ("Session", "insert", "table-insert"),
    ("Session", "delete", "table-delete"),
    ("Session", "scan_mut", "table-scan-change"),
    ("Entry", "or_insert or_insert_with and_modify", "entry-modify"),
    ("OccupiedEntry", "delete", "entry-delete"),
    ("VacantEntry", "insert", "table-insert-by-entry"),
    ("ExclusiveGuard", "delete", "table-delete-by-guard"),
    ("ExclusiveGuard", "poison clear_poison", "entry-poison"),
    ("ExclusiveGuard", "release", "entry-find-or-insert"),
    ("SharedGuard", "release", "table-find"),
    ("Scan", "next end each_within", "table-look"),
    ("ScanMut", "next end each_within", "entry-scan-repair"),
    ("ScanEntryMut", "poison clear_poison value_mut", "entry-scan-repair"),
    ("ScanEntryMut", "delete", "table-scan-delete"),
    ("RawTable", "create create_into", "table-create-into"),
    ("RawTable", "destroy destroy_from", "table-destroy-from"),
    ("RawSession", "find find_exclusive find_poisoned", "raw-change"),
    ("RawSession", "find_or_insert", "raw-insert"),
    ("RawSession", "delete", "raw-delete"),
    ("RawSession", "scan scan_mut", "raw-scan"),
    ("RawSession", "stats dump check", "table-look"),
    ("RawSession", "trim", "table-trim"),
    ("RawSession", "clear", "table-clear"),
    ("RawExclusiveGuard", "value_mut release", "raw-change"),
    ("RawExclusiveGuard", "delete", "table-delete-by-guard"),
    ("RawExclusiveGuard", "poison clear_poison", "entry-poison"),
    ("RawScan", "next", "raw-scan"),
    ("RawScanMut", "next", "raw-scan"),
    ("RawScanEntry", "value_mut delete", "raw-scan"),
    ("RawScanEntry", "clear_poison", "entry-scan-repair"),
    ("Registry", "open", "registry-open"),
    ("Registry", "segment segment_with", "registry-segment-create"),
    ("Registry", "segment_bytes", "registry-bytes-create"),
    ("Registry", "area area_with", "registry-area-create"),
    ("Registry", "hash hash_with", "registry-hash-create"),
    ("Registry", "remove", "registry-remove"),
    ("Registry", "remove_forced", "registry-remove-forced"),
    ("Registry", "reap spawn_reaper", "reap"),
];

/// Type, and functions that store nothing to shared memory.
const STORES_NOTHING: &[(&str, &str)] = &[
    ("DetachCallback", "new is_registered"),
    ("ProviderFailure", "new because explain"),
    ("Reason", "kind is_about_the_place"),
    ("Error", "is_full is_poisoned is_timeout is_would_deadlock"),
    ("ErrorKind", "is_full"),
    ("LockError", "is_timeout is_would_deadlock"),
    ("OutOfRange", "check check_multiple"),
    ("NamespaceConfig", "check"),
    ("Options", "check"),
    ("SegmentHandle", "compose from_raw get slot is_main_region"),
    ("ParticipantId", "pack unpack"),
    ("LockAddress", "new get from_raw slot offset"),
    ("Inspector", "new info root processes participants segments in_main_region"),
    ("HeldMode", "parse"),
    ("LockKind", "of identity"),
    ("Record", "is_again is_beside_others"),
    ("Token", "new held owner"),
    ("LockRef", "new owner"),
    ("ExclusiveGuard", "acquired participant key is_poisoned"),
    ("SharedGuard", "participant key"),
    ("RwLock", "state has_length_for wake_sleepers"),
    ("Namespace", "main_region waits_for process_of participant root platform is_persistent"),
    ("Namespace", "process_slot attached_processes processes joined lock_address place_of"),
    ("Namespace", "is_released_in_use segment_slots"),
    ("LocalSegment", "new"),
    ("ProcessLocal", "new know"),
    ("RangeOwner", "of"),
    ("ParticipantSlot", "new held"),
    ("ParticipantLocal", "new is_registered holds_any register clear"),
    ("Participant", "new peers local id packed slot held_within is_registered holds_any"),
    ("Participant", "confirm is_current owns owns_as_of_now"),
    ("DeathCount", "new never"),
    ("Namespace", "confirm is_declared_dead is_named"),
    ("Segment", "handle base len lock_address reserved on_detach cancel_on_detach namespace"),
    ("Toc", "attach free_space lookup"),
    ("TocEstimator", "new chunk keys bytes"),
    ("Area", "size_of_object copy_out minimum_size handle is_attached namespace heap stats"),
    (
        "Area",
        "total_size_of dump resolve resolve_range lock_address resolve_mapped as_ref as_mut pointer_to attach_all read",
    ),
    ("Area", "try_resolve_range"),
    ("Heap", "area participant"),
    ("HeapLocal", "new wipe"),
    ("AreaLocal", "new init"),
    ("DsaPointer", "from_raw raw key segment generation offset is_valid add cast"),
    ("DsaPtr", "pointer raw is_valid cast"),
    ("AtomicDsaPointer", "new load as_atomic"),
    ("DsaBox", "get as_ptr"),
    ("Table", "len is_empty partitions peek attach detach handle store bind bind_unchecked"),
    ("Session", "table"),
    ("OccupiedEntry", "into_guard"),
    ("Secrets", "new hash_bytes spread"),
    ("StrKey", "new as_slice as_str"),
    ("RawParams", "new"),
    ("RawTable", "attach detach handle len is_empty bind"),
    ("RawSharedGuard", "key value"),
    ("RawExclusiveGuard", "key value is_poisoned"),
    ("RawScanEntry", "key is_poisoned"),
    ("ScanEntry", "key value"),
    ("ScanEntryMut", "key is_poisoned value"),
    ("Registry", "inspect destroy namespaces list is_persistent builder namespace"),
];

/// Type, and functions that are one instruction on one word, or write bytes that are their
/// caller's.
const ONE_STORE: &[(&str, &str)] = &[
    ("Namespace", "set_persistent"),
    ("DeathCount", "raise"),
    ("Registry", "set_persistent"),
    ("Area", "copy_in write"),
    ("AtomicDsaPointer", "store swap compare_exchange"),
];

/// Public functions of public types, by a look at the sources as they are formatted.
fn public() -> BTreeSet<(String, String)> {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).expect("is a member");
    let mut found = BTreeSet::new();
    for core in ["dsm-core", "dsa-core", "dshash-core"] {
        read_sources(&workspace.join(core).join("src"), &mut found);
    }
    let mut registry = BTreeSet::new();
    read_sources(&workspace.join("dsm-registry/src"), &mut registry);
    found.extend(registry.into_iter().filter(|(owner, _)| owner == "Registry"));
    found
}

fn read_sources(folder: &Path, found: &mut BTreeSet<(String, String)>) {
    for entry in std::fs::read_dir(folder).expect("can be read") {
        let path = entry.expect("can be read").path();
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        // Planted bugs and models are no part of what ships.
        if ["model", "sync", "testing", "tests", "planted"].contains(&name.as_str()) {
            continue;
        }
        if path.is_dir() {
            read_sources(&path, found);
        } else {
            let text = std::fs::read_to_string(&path).expect("can be read");
            read_functions(&text, found);
        }
    }
}

fn read_functions(text: &str, found: &mut BTreeSet<(String, String)>) {
    let mut owner = None;
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("impl") {
            owner = owner_of(rest);
        } else if line.starts_with('}') {
            owner = None;
        }
        let Some(rest) = line.strip_prefix("    pub ") else { continue };
        let rest = rest.strip_prefix("const ").unwrap_or(rest);
        let rest = rest.strip_prefix("unsafe ").unwrap_or(rest);
        if let (Some(rest), Some(owner)) = (rest.strip_prefix("fn "), &owner) {
            found.insert((owner.clone(), word(rest)));
        }
    }
}

fn word(text: &str) -> String {
    text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
}

/// The type of an inherent `impl`, of what follows that word.
fn owner_of(mut rest: &str) -> Option<String> {
    if rest.starts_with('<') {
        let mut depth = 0;
        let end = rest.find(|c| {
            depth += i32::from(c == '<') - i32::from(c == '>');
            depth == 0
        })?;
        rest = &rest[end + 1..];
    }
    (!rest.contains(" for ")).then(|| word(rest.trim_start()))
}

fn cases() -> BTreeSet<String> {
    let output = Command::new(env!("CARGO_BIN_EXE_crash"))
        .args(["images", "--list"])
        .stdin(Stdio::null())
        .output()
        .expect("the program was built");
    String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect()
}

#[test]
fn every_public_function_has_a_case_or_a_reason() {
    let cases = cases();
    let mut known = BTreeMap::new();
    let mut enter = |owner: &str, functions: &str, why: &str| {
        for function in functions.split(' ') {
            let before = known.insert((owner.to_owned(), function.to_owned()), why.to_owned());
            // Types of the same name are in two of the cores.
            let twice = before.is_some() && !["ExclusiveGuard", "SharedGuard"].contains(&owner);
            assert!(!twice, "{owner}::{function} is listed twice");
        }
    };
    for (owner, functions, case) in TRIED {
        assert!(cases.contains(*case), "there is no case {case}");
        enter(owner, functions, case);
    }
    for (owner, functions) in STORES_NOTHING.iter().chain(ONE_STORE) {
        enter(owner, functions, "");
    }
    let public = public();
    assert!(public.len() > 200, "the sources were not found: {}", public.len());
    let new: Vec<_> = public.iter().filter(|function| !known.contains_key(function)).collect();
    assert!(new.is_empty(), "neither a case of `crash images` nor a reason to have none: {new:?}");
    let gone: Vec<_> = known.keys().filter(|function| !public.contains(function)).collect();
    assert!(gone.is_empty(), "listed but not there: {gone:?}");
}

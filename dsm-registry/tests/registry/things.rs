//! What areas, tables and segments do for one process, whatever they lie in.

use std::cell::RefCell;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use dsm_registry::system::Directory;
use dsm_registry::{
    AreaOptions, DsaPtr, DsaSlice, Entry, Error, ErrorKind, HashOptions, HashTable, LockError,
    Registry, WriteGuard,
};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::support::Space;

#[derive(Clone, Copy, PartialEq, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Node {
    value: u64,
    next: DsaPtr<Node>,
}

#[test]
fn a_list_of_nodes_is_built_and_read_without_unsafe() {
    let space = Space::new("list");
    let registry = space.open();
    let area = registry.area("nodes").unwrap();
    let heads = registry.hash::<u64, DsaPtr<Node>>("heads").unwrap();
    let mut head = DsaPtr::INVALID;
    for value in 0..1000 {
        head = area.allocate(Node { value, next: head }).unwrap();
    }
    heads.insert(&7, head).unwrap();
    let (mut at, mut sum) = (heads.get(&7).unwrap().unwrap(), 0);
    while at.is_valid() {
        let node = area.read(at).unwrap();
        sum += node.value;
        at = node.next;
    }
    assert_eq!(sum, 999 * 1000 / 2);
    assert_eq!(area.stats().unwrap().objects, 1000);
}

#[test]
fn made_up_pointers_are_refused() {
    let space = Space::new("wild");
    let registry = space.open();
    let area = registry.area("area").unwrap();
    let pointer = area.allocate(5_u64).unwrap();
    area.write(pointer, &6).unwrap();
    assert_eq!(area.read(pointer).unwrap(), 6);
    fn refused<T>(result: Result<T, Error>) -> bool {
        matches!(result.map_err(Error::into_kind), Err(ErrorKind::Area(_)))
    }
    for wild in [0, 1, u64::MAX, pointer.raw() + 8, pointer.raw() ^ 1 << 50] {
        let wild: DsaPtr<u64> = dsm_registry::DsaPointer::from_raw(wild).cast();
        assert!(refused(area.read(wild)), "{wild:?}");
        assert!(refused(area.write(wild, &1)), "{wild:?}");
    }
    // Without a value it has one, whichever.
    let room: DsaPtr<[u64; 9]> = area.allocate_unwritten().unwrap();
    area.read(room).unwrap();
    area.write(room, &[3; 9]).unwrap();
    assert_eq!(area.read(room).unwrap(), [3; 9]);
    // Larger than the object.
    let larger = pointer.cast::<[u64; 100]>();
    assert!(refused(area.read(larger)));
    // SAFETY: nobody uses the object.
    unsafe { area.free(pointer) }.unwrap();
    // SAFETY: it is free already, which is refused.
    let twice = unsafe { area.free(pointer) };
    assert!(matches!(twice.unwrap_err().kind(), ErrorKind::Free(_)));
    assert!(area.read(pointer).is_err());
}

#[test]
fn slices_and_boxes() {
    let space = Space::new("boxes");
    let registry = space.open();
    let area = registry.area("area").unwrap();
    let words: Vec<u64> = (0..10_000).collect();
    let slice = area.allocate_slice(&words).unwrap();
    assert_eq!((slice.len(), slice.is_empty()), (10_000, false));
    assert_eq!(area.read_slice(slice).unwrap(), words);
    area.write_slice(slice, &[9, 9]).unwrap();
    assert_eq!(area.read_slice(slice).unwrap()[..3], [9, 9, 2]);
    assert!(area.write_slice(slice, &vec![0; 10_001]).is_err());
    let forged: DsaSlice<u64> =
        FromBytes::read_from_bytes([slice.first().raw(), u64::MAX].as_bytes()).unwrap();
    assert!(area.read_slice(forged).is_err());

    let before = area.stats().unwrap().objects;
    let mut boxed = area.allocate_box([1_u32; 1000]).unwrap();
    let mut value = boxed.get().unwrap();
    value[999] = 2;
    boxed.set(&value).unwrap();
    assert_eq!(boxed.get().unwrap().iter().sum::<u32>(), 1001);
    assert_eq!(area.stats().unwrap().objects, before + 1);
    drop(boxed);
    assert_eq!(area.stats().unwrap().objects, before);
    let pointer = area.allocate_box(3_u64).unwrap().into_ptr().unwrap();
    assert_eq!(area.read(pointer).unwrap(), 3);
    // A box keeps its area attached.
    let boxed = area.allocate_box(4_u64).unwrap();
    drop((area, registry));
    assert_eq!(boxed.get().unwrap(), 4);
}

/// Pointers are plain data, so whoever guesses one can write there by safe code: no box may hand
/// out a reference to such memory.
#[test]
fn a_box_says_what_its_memory_holds_whoever_wrote_it() {
    let space = Space::new("forged");
    let registry = space.open();
    let area = registry.area("area").unwrap();
    let boxed = area.allocate_box(1_u64).unwrap();
    let forged: DsaPtr<u64> = FromBytes::read_from_bytes(boxed.as_ptr().as_bytes()).unwrap();
    for value in 0..1000 {
        area.write(forged, &value).unwrap();
        assert_eq!(boxed.get().unwrap(), value);
    }
}

/// A thread writes to whatever it guesses while another one frees what is there, and with it the
/// segment: an error at most.
#[test]
fn a_write_to_what_is_given_back_meanwhile_is_an_error() {
    let space = Space::new("late-write");
    let registry = space.open();
    let area = registry.area("area").unwrap();
    let (last, over) = (AtomicU64::new(0), AtomicBool::new(false));
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let bytes = vec![7_u8; 1 << 20];
            let (mut written, mut refused) = (0_u64, 0_u64);
            while !over.load(Ordering::SeqCst) {
                let parts = [last.load(Ordering::SeqCst), bytes.len() as u64];
                let forged: DsaSlice<u8> = FromBytes::read_from_bytes(parts.as_bytes()).unwrap();
                match area.write_slice(forged, &bytes) {
                    Ok(()) => written += 1,
                    Err(_) => refused += 1,
                }
            }
            (written, refused)
        });
        let values = vec![1_u8; 1 << 20];
        for _ in 0..testkit::rounds(300) {
            let slice = area.allocate_slice(&values).unwrap();
            last.store(slice.first().raw(), Ordering::SeqCst);
            std::thread::yield_now();
            // SAFETY: nobody has a reference to it.
            unsafe { area.free(slice.first()) }.unwrap();
            area.trim().unwrap();
        }
        over.store(true, Ordering::SeqCst);
        let (written, refused) = writer.join().unwrap();
        assert!(written + refused > 0);
    });
    area.check().unwrap();
    assert_eq!(area.stats().unwrap().objects, 0);
}

/// Somebody who found an address just before its segment was given back may look there as late as
/// he likes, and nothing else is mapped there meanwhile.
#[test]
fn addresses_of_what_was_given_back_stay_as_long_as_the_area() {
    let space = Space::new("late-read");
    let registry = space.open();
    let area = registry.area("area").unwrap();
    let values = vec![1_u8; 1 << 20];
    let mut late = Vec::new();
    for _ in 0..testkit::rounds(600).max(300) {
        let slice = area.allocate_slice(&values).unwrap();
        late.push(area.resolve(slice.first().pointer()).unwrap());
        // SAFETY: nobody has a reference to it.
        unsafe { area.free(slice.first()) }.unwrap();
        area.trim().unwrap();
    }
    for at in &late {
        // SAFETY: this is what the area promises of an address that it gave out.
        assert!(matches!(unsafe { at.read_volatile() }, 0 | 1));
    }
    let gone = late.len();
    late.sort_unstable();
    late.dedup();
    // A segment that was not given back at once has its addresses again.
    assert!(late.len() > gone / 2, "{} of {gone}", late.len());
}

#[test]
fn alignment_is_kept() {
    #[derive(FromBytes, IntoBytes, KnownLayout)]
    #[repr(C, align(256))]
    struct Aligned([u8; 256]);

    let space = Space::new("align");
    let registry = space.open();
    let area = registry.area("area").unwrap();
    for _ in 0..50 {
        let pointer = area.allocate(Aligned([7; 256])).unwrap();
        let at = area.resolve(pointer.pointer()).unwrap();
        assert_eq!(at.as_ptr() as usize % 256, 0);
        // SAFETY: allocated above, and nobody changes it.
        assert_eq!(unsafe { area.as_ref(pointer) }.unwrap().0, [7; 256]);
    }
}

#[test]
fn an_areas_limit_is_kept() {
    let space = Space::new("limit");
    let registry = space.open();
    let options = AreaOptions::new().first_segment(64 << 10).limit(1 << 20);
    let area = registry.area_with("area", options).unwrap();
    let mut count = 0;
    let error = loop {
        match area.allocate([1_u8; 4096]) {
            Ok(_) => count += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(error.kind(), ErrorKind::Area(_)), "{error:?}");
    assert!(count > 100 && area.stats().unwrap().total <= 1 << 20, "{count}");
    area.set_size_limit(4 << 20).unwrap();
    area.allocate([1_u8; 4096]).unwrap();
    area.trim().unwrap();
    area.check().unwrap();
}

#[test]
fn entries_by_all_means() {
    let space = Space::new("entries");
    let registry = space.open();
    let table: HashTable<u64, [u64; 3]> =
        registry.hash_with("table", HashOptions::new().partitions(16)).unwrap();
    assert_eq!(table.insert(&1, [1; 3]).unwrap(), None);
    assert_eq!(table.insert(&1, [2; 3]).unwrap(), Some([1; 3]));
    assert_eq!(table.get(&1).unwrap(), Some([2; 3]));
    assert_eq!(table.get(&2).unwrap(), None);
    match table.entry(&2).unwrap() {
        Entry::Occupied(_) => panic!("it is not there"),
        Entry::Vacant(place) => assert_eq!(*place.insert([3; 3]).unwrap().key(), 2),
    }
    match table.entry(&2).unwrap() {
        Entry::Occupied(guard) => guard.remove().unwrap(),
        Entry::Vacant(_) => panic!("it is there"),
    }
    assert!(table.find(&2).unwrap().is_none());
    drop(table.entry(&1).unwrap().and_modify(|value| value[0] += 1).or_insert([0; 3]).unwrap());
    assert_eq!(table.find(&1).unwrap().unwrap()[0], 3);
    assert!(table.remove(&1).unwrap());
    assert!(!table.remove(&1).unwrap());

    for key in 0..1000 {
        table.insert(&key, [key; 3]).unwrap();
    }
    let mut seen: Vec<u64> = table.iter().unwrap().map(|e| e.unwrap().1[2]).collect();
    seen.sort_unstable();
    assert_eq!(seen, (0..1000).collect::<Vec<_>>());
    let mut scan = table.scan_mut().unwrap();
    while let Some(mut entry) = scan.next().unwrap() {
        if entry.key() % 2 == 0 {
            entry.remove().unwrap();
        } else {
            entry.value_mut()[0] = 77;
        }
    }
    drop(scan);
    let mut scan = table.scan().unwrap();
    let mut count = 0;
    while let Some((key, value)) = scan.next().unwrap() {
        assert!(key % 2 == 1 && value.unwrap()[0] == 77);
        count += 1;
    }
    drop(scan);
    assert_eq!(count, 500);
    let keys = [1, 2, 3];
    let mut found = [None; 3];
    table.get_many(&keys, |i, value| found[i] = value.unwrap()).unwrap();
    assert_eq!(found, [Some([77, 1, 1]), None, Some([77, 3, 3])]);
    table.clear().unwrap();
    assert_eq!(table.iter().unwrap().count(), 0);

    let set = registry.hash::<[u8; 3], ()>("set").unwrap();
    assert_eq!(set.insert(b"abc", ()).unwrap(), None);
    assert_eq!(set.insert(b"abc", ()).unwrap(), Some(()));
    assert_eq!(set.get(b"abd").unwrap(), None);
}

#[test]
fn an_iterator_ends_after_an_error_that_lasts() {
    let space = Space::new("fuse");
    let registry = space.open();
    let table = registry.hash::<u64, u64>("table").unwrap();
    for key in 0..100 {
        table.insert(&key, key).unwrap();
    }
    // Beside a guard of one's own the walk can't go on, however often one asks.
    let guard = table.find_mut(&1).unwrap().unwrap();
    let mut iter = table.iter().unwrap();
    let seen = iter.by_ref().take(1000).filter(Result::is_err).count();
    assert_eq!((seen, iter.next().is_none()), (1, true));
    assert!(table.iter().unwrap().flatten().take(1000).count() < 100);
    drop(guard);
    assert!(iter.next().is_none(), "it has ended");
    // A poisoned entry is an error in its place, and the others follow.
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let _guard = table.find_mut(&50).unwrap();
        std::panic::resume_unwind(Box::new(()));
    }));
    assert!(panicked.is_err());
    let (good, bad): (Vec<_>, Vec<_>) = table.iter().unwrap().partition(Result::is_ok);
    assert_eq!((good.len(), bad.len()), (99, 1));
    assert!(matches!(&bad[0], Err(e) if e.is_poisoned()));
    // An iterator that failed, or ended, holds no lock.
    let mut ended = table.iter().unwrap();
    assert_eq!(ended.by_ref().count(), 100);
    table.insert(&1, 1).unwrap();
}

#[test]
fn waiting_for_a_lock_can_be_bounded() {
    let space = Space::new("bounded");
    let registry = space.open();
    let table = registry.hash::<u64, u64>("table").unwrap();
    let _guard = table.entry(&1).unwrap().or_insert(1).unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let now = table.without_waiting();
            assert!(matches!(now.find(&1), Err(e) if e.is_timeout()));
            assert!(matches!(now.insert(&1, 2), Err(e) if e.is_timeout()));
            assert!(matches!(now.remove(&1), Err(e) if e.is_timeout()));
            let soon = table.within(std::time::Duration::from_millis(5));
            assert!(matches!(soon.find_mut(&1), Err(e) if e.is_timeout()));
            assert!(matches!(soon.entry(&1).err(), Some(e) if e.is_timeout()));
        });
    });
}

#[test]
fn bytes_are_read_and_written() {
    let space = Space::new("bytes");
    let registry = space.open();
    let bytes = registry
        .segment_bytes("bytes", 5000, |bytes| {
            bytes[4999] = 9;
            Ok(())
        })
        .unwrap();
    assert_eq!((bytes.len(), bytes[4999].load(Ordering::SeqCst)), (5000, 9));
    bytes.write(10, b"hello").unwrap();
    let mut back = [0; 5];
    bytes.read(10, &mut back).unwrap();
    assert_eq!(&back, b"hello");
    for offset in [4996, 5000, usize::MAX] {
        assert!(bytes.read(offset, &mut back).is_err());
        assert!(bytes.write(offset, &back).is_err());
    }
}

/// What a program with short addresses may ask for, a machine may have.
#[cfg(target_pointer_width = "64")]
#[test]
fn a_full_store_is_an_error_that_names_sizes_and_leaves_nothing() {
    let space = Space::new("full");
    let registry = space.open();
    let before = space.objects().len();
    // More than any machine has.
    let error = registry.segment_bytes("huge", 1 << 42, |_| Ok(())).unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::OutOfMemory(_)), "{error:?}");
    let text = error.to_string();
    assert!(text.contains("\"huge\" needs 4 TiB"), "{text}");
    if cfg!(target_os = "linux") {
        // What is full is the machine; a larger `/dev/shm` would not help.
        assert!(text.contains("this machine has") && !text.contains("--shm-size="), "{text}");
    }
    assert_eq!(space.objects().len(), before);
    registry.segment_bytes("huge", 1, |_| Ok(())).unwrap();
}

#[test]
fn files_of_a_directory_do_as_well() {
    let directory = tempfile::tempdir().unwrap();
    let open = || {
        let place = Directory::new(directory.path());
        Registry::builder("demo").provider(place).open().unwrap()
    };
    let registry = open();
    let table = registry.hash::<u64, u64>("table").unwrap();
    table.insert(&1, 2).unwrap();
    let value = registry.segment::<AtomicU64>("value", |v| v.write(AtomicU64::new(7))).unwrap();
    assert_eq!(open().hash::<u64, u64>("table").unwrap().get(&1).unwrap(), Some(2));
    assert_eq!(value.load(Ordering::SeqCst), 7);
    let names = Registry::builder("any").provider(Directory::new(directory.path())).namespaces();
    assert_eq!(names.unwrap(), ["demo"]);
    // Another namespace than that of the same name in shared memory.
    assert!(!Registry::namespaces().unwrap().contains(&"demo".to_owned()));
    drop((registry, table, value));
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
}

#[test]
fn a_thread_outlives_the_namespace_that_it_used() {
    let space = Space::new("outlive");
    let (left, have_left) = std::sync::mpsc::channel::<()>();
    let (used, have_used) = std::sync::mpsc::channel::<()>();
    let registry = space.open();
    let handle = registry.clone();
    let name = space.name.clone();
    let thread = std::thread::spawn(move || {
        handle.hash::<u64, u64>("table").unwrap().insert(&1, 1).unwrap();
        drop(handle);
        used.send(()).unwrap();
        have_left.recv().unwrap();
        // Registered in a namespace that is gone, and now in a new one of the same name.
        let registry = Registry::open(&name).unwrap();
        assert_eq!(registry.hash::<u64, u64>("table").unwrap().get(&1).unwrap(), None);
    });
    have_used.recv().unwrap();
    drop(registry);
    assert!(space.objects().is_empty());
    left.send(()).unwrap();
    thread.join().unwrap();
}

thread_local! {
    static KEPT: RefCell<Option<WriteGuard<'static, u64, u64>>> = const { RefCell::new(None) };
    static SCANNED: RefCell<Option<Scanning>> = const { RefCell::new(None) };
}

struct Scanning(dsm_registry::Scan<'static, u64, u64>);

impl Drop for Scanning {
    fn drop(&mut self) {
        // The thread has left the namespace, or not; either way this is no use after free.
        let _ = self.0.next().map(|entry| entry.is_some());
    }
}

#[test]
fn guards_and_scans_in_thread_locals_are_dropped_in_any_order() {
    let space = Space::new("local");
    for thread_local_first in [true, false] {
        let registry = space.open();
        let table: &'static HashTable<u64, u64> =
            Box::leak(Box::new(registry.hash(&format!("{thread_local_first}")).unwrap()));
        // Joined, since a scope doesn't wait for the destructors of thread-locals.
        let thread = std::thread::spawn(move || {
            if thread_local_first {
                // Its destructor is registered first, and runs last.
                KEPT.with(|kept| assert!(kept.borrow().is_none()));
                SCANNED.with(|kept| assert!(kept.borrow().is_none()));
            }
            table.insert(&1, 1).unwrap();
            SCANNED.set(Some(Scanning(table.scan().unwrap())));
            KEPT.set(Some(table.find_mut(&1).unwrap().unwrap()));
        });
        thread.join().unwrap();
        // In the one order the lock was given back, in the other it is held for good.
        match table.without_waiting().find(&1) {
            Ok(guard) => assert_eq!(*guard.unwrap(), 1),
            Err(error) => {
                assert!(matches!(error.kind(), ErrorKind::Lock(LockError::WouldBlock)), "{error:?}")
            }
        }
        // SAFETY: leaked above, and not used any more.
        drop(unsafe { Box::from_raw(std::ptr::from_ref(table).cast_mut()) });
    }
}

#[test]
fn a_cleared_table_gives_its_memory_back() {
    let space = Space::new("clear");
    let registry = space.open();
    let table = registry.hash::<u64, [u64; 7]>("table").unwrap();
    let empty = table.stats().unwrap();
    assert!(table.is_empty().unwrap());
    for key in 0..5000 {
        table.insert(&key, [key; 7]).unwrap();
    }
    assert_eq!(table.len().unwrap(), 5000);
    let full = table.check().unwrap();
    assert_eq!((full.stats.entries, full.poisoned), (5000, 0));
    assert!(full.stats.bytes > empty.bytes + 5000 * 64);

    let guard = table.find(&1).unwrap();
    assert!(matches!(table.clear(), Err(e) if e.is_would_deadlock()));
    drop(guard);
    // All but a few: what is left needs a few chunks.
    for key in 10..5000 {
        assert!(table.remove(&key).unwrap());
    }
    table.trim().unwrap();
    let few = table.check().unwrap().stats;
    assert_eq!(few.entries, 10);
    assert!(few.bytes < empty.bytes + 64 * 1024, "{few:?}");

    table.clear().unwrap();
    assert!(table.is_empty().unwrap());
    // A partition that has had entries keeps its first chunk, a few hundred bytes.
    let cleared = table.check().unwrap().stats;
    assert!(cleared.chunks <= 128 && cleared.bytes < empty.bytes + 64 * 1024, "{cleared:?}");
}

#[test]
fn a_trimmed_table_gives_its_segments_back() {
    let space = Space::new("trim-table");
    let registry = space.open();
    let table = registry.hash::<u64, [u64; 8]>("table").unwrap();
    let empty = space.objects().len();
    for key in 0..20_000 {
        table.insert(&key, [key; 8]).unwrap();
    }
    assert!(space.objects().len() > empty + 2, "a table of several segments");
    table.clear().unwrap();
    table.trim().unwrap();
    assert_eq!(space.objects().len(), empty);
}

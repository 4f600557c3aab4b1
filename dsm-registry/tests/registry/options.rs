//! Numbers that callers choose: nothing, one, the limits and what is beyond them. What can't be had
//! is an error that names the option as the caller wrote it, the value, and what is possible.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use dsm_registry::{AreaOptions, Builder, Error, ErrorKind, HashOptions, Registry};

use crate::support::Space;

/// The text of a refused option, which names all of these.
fn assert_names<T>(refused: Result<T, Error>, option: &str, parts: &[&str]) {
    let Err(error) = refused else { panic!("{option}: accepted, not refused with {parts:?}") };
    let named = matches!(error.kind(), ErrorKind::InvalidOption { what, .. } if *what == option);
    assert!(named, "{option}: {error:?}");
    let text = error.to_string();
    for part in parts.iter().chain([&option]) {
        assert!(text.contains(part), "{part} is not in {text:?}");
    }
}

/// A namespace opened with these options does what one does.
fn assert_works(builder: Builder, most_segments: bool) {
    let registry = builder.open().unwrap();
    let value = registry.segment::<AtomicU64>("value", |_| Ok(()));
    if most_segments {
        value.unwrap().fetch_add(1, Ordering::Relaxed);
        return registry.hash::<u64, u64>("table").unwrap().insert(&1, 1).map(drop).unwrap();
    }
    let text = value.unwrap_err().to_string();
    assert!(text.contains("all 1 segment slots") && text.contains("`max_segments`"), "{text}");
}

/// A setter, of numbers.
type Set = fn(Builder, u32) -> Builder;

#[test]
fn each_number_of_a_namespace_has_a_range() {
    let space = Space::new("numbers");
    let numbers: [(&str, Set, u32, u32); 3] = [
        ("max_participants", Builder::max_participants, 3, 65_535),
        ("max_processes", Builder::max_processes, 1, 4096),
        ("max_segments", Builder::max_segments, 1, 4096),
    ];
    for (option, set, least, most) in numbers {
        for value in [0, least - 1, most + 1, u32::MAX] {
            let range = [value.to_string(), least.to_string(), most.to_string()];
            let opened = set(space.builder(), value).open();
            assert_names(opened, option, &range.each_ref().map(String::as_str));
            assert_eq!(space.objects(), <[std::path::PathBuf; 0]>::default());
        }
        for value in [least, least + 1, most] {
            let enough = option != "max_segments" || value > 1;
            // Two segments are one less than all that is made.
            let enough_for_all = option != "max_segments" || value > 2;
            if enough && !enough_for_all {
                set(space.builder(), value).open().unwrap();
                continue;
            }
            assert_works(set(space.builder(), value), enough);
        }
    }
}

#[test]
fn sizes_modes_and_patience_have_ranges() {
    let space = Space::new("sizes");
    for bytes in [0, 1, 4095, 1 << 20] {
        assert_works(space.builder().main_region(bytes), true);
    }
    #[cfg(target_pointer_width = "64")]
    for bytes in [1 << 43, (1 << 43) - 4095, usize::MAX] {
        let parts = [&bytes.to_string(), "8796093018112"];
        assert_names(space.builder().main_region(bytes).open(), "main_region", &parts);
    }
    // More than any machine has, though not more than there can be.
    #[cfg(target_pointer_width = "64")]
    {
        let error = space.builder().main_region((1 << 43) - 4096).open().err().unwrap();
        assert!(matches!(error.kind(), ErrorKind::OutOfMemory(_)), "{error:?}");
        assert!(error.to_string().contains("8 TiB"), "{error}");
    }
    for mode in [0, 1, 0o400, 0o1600, u32::MAX] {
        let parts = [&*format!("{mode:04o}"), "0600", "0777"];
        assert_names(space.builder().mode(mode).open(), "mode", &parts);
    }
    #[cfg(unix)]
    for mode in [0o600, 0o777] {
        assert_works(space.builder().mode(mode), true);
    }
    for patience in [Duration::ZERO, Duration::from_nanos(1), Duration::MAX] {
        let builder = space.builder().patience(patience).initialiser_patience(patience);
        assert_works(builder, true);
        let registry = space.open();
        let table = registry.hash::<u64, u64>("table").unwrap();
        *table.within(patience).entry(&1).unwrap().or_insert(0).unwrap() += 1;
        assert_eq!(table.within(patience).find(&1).unwrap().as_deref(), Some(&1));
    }
    assert_eq!(space.objects(), <[std::path::PathBuf; 0]>::default());
}

#[test]
fn each_number_of_an_area_has_a_range() {
    let space = Space::new("area-numbers");
    let registry = space.open();
    let area = |options| registry.area_with("area", options).map(drop);
    let new = AreaOptions::new;
    // As far as this program can say it.
    let tebibyte = usize::try_from(1_u64 << 40).unwrap_or(usize::MAX);
    for value in [0, 1, 65_535, 65_537, tebibyte.saturating_add(65_536), usize::MAX] {
        let parts = [&value.to_string(), "65536", "1099511627776"];
        assert_names(area(new().first_segment(value)), "first_segment", &parts);
    }
    #[cfg(target_pointer_width = "64")]
    for value in [0, 1, 65_535, tebibyte + 1, usize::MAX] {
        let parts = [&value.to_string(), "65536", "1099511627776"];
        assert_names(area(new().largest_segment(value)), "largest_segment", &parts);
    }
    let first = new().first_segment(131_072);
    assert_names(area(first.largest_segment(65_536)), "largest_segment", &["65536", "131072"]);
    assert_names(area(first.limit(131_071)), "limit", &["131071", "131072"]);
    for value in [0, 1, 65_535] {
        assert_names(area(new().limit(value)), "limit", &[&value.to_string(), "65536"]);
    }
    assert!(registry.list().unwrap().is_empty(), "nothing is left of what was refused");

    let smallest = 65_536;
    let good = [
        new().first_segment(smallest),
        new().first_segment(1 << 24).largest_segment(1 << 24).limit(1 << 24),
        new().largest_segment(smallest),
        new().largest_segment(smallest + 1),
        new().largest_segment(tebibyte),
        new().limit(smallest),
        new().limit(usize::MAX),
    ];
    for options in good {
        let area = registry.area_with("area", options).unwrap();
        let pointer = area.allocate(7_u64).unwrap();
        assert_eq!(area.read(pointer).unwrap(), 7);
        drop(area);
        registry.remove("area").unwrap();
    }
}

#[test]
fn each_number_of_a_table_has_a_range() {
    let space = Space::new("table-numbers");
    let registry = space.open();
    let table = |options| registry.hash_with::<u64, u64>("table", options).map(drop);
    let new = HashOptions::new;
    for value in [0, 3, 1025, 2048, u32::MAX] {
        let parts = [&value.to_string(), "from 1 to 1024"];
        assert_names(table(new().partitions(value)), "partitions", &parts);
    }
    // What so many partitions need, and no less.
    for (partitions, needs) in [(1, 65_536), (128, 327_680), (1024, 1_114_112)] {
        let options = new().partitions(partitions);
        for value in [0, 1, needs - 1] {
            let parts = [&*value.to_string(), &needs.to_string(), &partitions.to_string()];
            assert_names(table(options.limit(value)), "limit", &parts);
        }
        let table = registry.hash_with::<u64, u64>("table", options.limit(needs)).unwrap();
        table.insert(&1, 1).unwrap();
        drop(table);
        registry.remove("table").unwrap();
    }
    assert!(registry.list().unwrap().is_empty(), "nothing is left of what was refused");
}

#[test]
fn a_segment_has_a_length() {
    let space = Space::new("lengths");
    let registry = space.open();
    let bytes = |len| registry.segment_bytes("bytes", len, |_| Ok(())).map(drop);
    assert_names(bytes(0), "len", &["0"]);
    #[cfg(target_pointer_width = "64")]
    for len in [(1 << 43) + 1, usize::MAX] {
        let text = bytes(len).unwrap_err().to_string();
        assert!(text.contains(&len.to_string()) && text.contains("8796093022207"), "{text}");
    }
    #[cfg(target_pointer_width = "64")]
    {
        let text = bytes((1 << 43) - 1).unwrap_err().to_string();
        assert!(text.contains("needs 7.9 TiB") || text.contains("needs 8 TiB"), "{text}");
    }
    bytes(1).unwrap();
    let there = registry.segment_bytes("bytes", 1, |_| Ok(())).unwrap();
    for (offset, len) in [(0, 2), (1, 1), (2, 0), (usize::MAX, 1)] {
        let text = there.read(offset, &mut vec![0; len]).unwrap_err().to_string();
        assert!(text.contains(&format!("{len} bytes at {offset} in a segment of 1")), "{text}");
    }
    there.read(1, &mut []).unwrap();
    assert_eq!(registry.list().unwrap().len(), 1);
    // A handle alone keeps everything.
    drop(registry);
    assert_eq!(there.len(), 1);
    let _: Registry = space.open();
}

//! Mapped files: sizes beyond 32 bits, directories that move.

use dsm_core::provider::{Root, SegmentProvider};
use platform_posix::{File, NamespaceName, Shm};

#[cfg(target_pointer_width = "64")]
use crate::support::{byte, set_byte};
use crate::support::{handle, name, unmap};

#[cfg(target_pointer_width = "64")]
#[test]
fn the_last_byte_of_four_gibibytes_and_one_is_there() {
    let directory = tempfile::tempdir().unwrap();
    let file = File::new(directory.path(), "large").unwrap();
    let size = (4usize << 30) + 1;
    let (one, id) = file.create(handle(1), size, 4096).unwrap();
    let two = file.attach(handle(1), id).unwrap();
    assert_eq!((one.len, two.len), (size, size));
    file.reserve(handle(1), &one, size - 1..size).unwrap();
    set_byte(&one, size - 1, 77);
    assert_eq!(byte(&two, size - 1), 77);
    assert_eq!(byte(&two, 0), 0);
    let info = file.stat(handle(1)).unwrap();
    assert_eq!(info.size, size as u64);
    assert!(info.reserved < 1 << 30, "sparse: {}", info.reserved);
    file.destroy(handle(1), id).unwrap();
    for mapping in [one, two] {
        // SAFETY: not used any more.
        unsafe { file.detach(mapping) };
    }
}

/// A program with short addresses looks at what it can't map, and says why it can't.
#[cfg(target_pointer_width = "32")]
#[test]
fn what_has_no_room_in_the_address_space_is_refused() {
    use dsm_core::error::ErrorKind;
    use dsm_core::handle::ObjectId;
    use dsm_core::provider::ProviderError;

    let directory = tempfile::tempdir().unwrap();
    let file = File::new(directory.path(), "large").unwrap();
    let path = directory.path().join(format!("dsm.large.{}", handle(1)));
    for size in [(4u64 << 30) + 1, 2 << 30] {
        std::fs::File::create(&path).unwrap().set_len(size).unwrap();
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
        std::fs::set_permissions(&path, mode).unwrap();
        assert_eq!(file.stat(handle(1)).unwrap().size, size);
        let error = file.attach(handle(1), ObjectId::default()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidSize, "{error}");
        let text = error.to_string();
        assert!(text.contains(&size.to_string()) && text.contains("32-bit addresses"), "{text}");
    }
    let error = file.create(handle(2), isize::MAX as usize + 1, 1).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidSize, "{error}");
    file.destroy(handle(1), ObjectId::default()).unwrap();
}

#[test]
fn a_directory_may_be_renamed() {
    let parent = tempfile::tempdir().unwrap();
    let (old, new) = (parent.path().join("old"), parent.path().join("new"));
    std::fs::create_dir(&old).unwrap();
    let file = File::new(&old, "moves").unwrap();
    std::fs::rename(&old, &new).unwrap();
    let (mapping, id) = file.create(handle(1), 100, 100).unwrap();
    assert_eq!(std::fs::read_dir(&new).unwrap().count(), 1);
    let mut listed = 0;
    file.enumerate(&mut |_| listed += 1).unwrap();
    assert_eq!(listed, 1);
    file.destroy(handle(1), id).unwrap();
    // SAFETY: not used any more.
    unsafe { file.detach(mapping) };
}

#[test]
fn namespaces_are_listed() {
    let directory = tempfile::tempdir().unwrap();
    let mut made = Vec::new();
    for namespace in ["b", "a.ctl", "a"] {
        let file = File::new(directory.path(), namespace).unwrap();
        made.push(file.create(handle(1), 1, 1).unwrap().0);
        drop(file.elect(std::time::Duration::ZERO).unwrap());
    }
    std::fs::write(directory.path().join("other"), "").unwrap();
    let found = File::namespaces(directory.path()).unwrap();
    assert_eq!(found.iter().map(NamespaceName::as_str).collect::<Vec<_>>(), ["a", "a.ctl", "b"]);

    let shm = Shm::new(&name("listed")).unwrap();
    let (mapping, id) = shm.create(handle(1), 1, 1).unwrap();
    assert!(Shm::namespaces().unwrap().contains(shm.namespace()));
    shm.destroy(handle(1), id).unwrap();
    assert!(!Shm::namespaces().unwrap().contains(shm.namespace()));
    for mapping in made.into_iter().chain([mapping]) {
        unmap(&shm, mapping);
    }
}

//! What is no object of ours, or open to more people than asked for, is refused and left alone.

use std::path::Path;
use std::ptr::null_mut;

use dsm_core::error::ErrorKind;
use dsm_core::handle::ObjectId;
use dsm_core::provider::{Election, ProviderError, Root, SegmentProvider};
use platform_windows::{Backing, Error, Options, Owners, Scope, Shm};
use windows_sys::Win32::Foundation::LocalFree;
use windows_sys::Win32::Security::Authorization::{
    ConvertStringSecurityDescriptorToSecurityDescriptorW, SDDL_REVISION_1,
};
use windows_sys::Win32::Security::{DACL_SECURITY_INFORMATION, SetFileSecurityW};

use crate::support::{BOTH, PATIENCE, handle, open, set_byte, unmap};

fn kind<T>(result: Result<T, Error>) -> ErrorKind {
    match result {
        Ok(_) => panic!("this must be refused"),
        Err(error) => error.kind(),
    }
}

fn wide(text: impl AsRef<std::ffi::OsStr>) -> Vec<u16> {
    use std::os::windows::ffi::OsStrExt;

    text.as_ref().encode_wide().chain([0]).collect()
}

/// Gives access to a file as the text says.
fn set_access(path: &Path, text: &str) {
    let (path, text) = (wide(path), wide(text));
    let mut descriptor = null_mut();
    // SAFETY: the text ends with a zero, the result is writable.
    let made = unsafe {
        ConvertStringSecurityDescriptorToSecurityDescriptorW(
            text.as_ptr(),
            SDDL_REVISION_1,
            &raw mut descriptor,
            null_mut(),
        )
    };
    assert_ne!(made, 0);
    // SAFETY: the path ends with a zero, the descriptor was just made.
    let done = unsafe { SetFileSecurityW(path.as_ptr(), DACL_SECURITY_INFORMATION, descriptor) };
    assert_ne!(done, 0);
    // SAFETY: made above, and used no more.
    unsafe { LocalFree(descriptor) };
}

#[test]
fn a_file_that_is_open_to_everybody_is_refused() {
    let shm = open("access", Backing::Files);
    let (mapping, id) = shm.create(handle(1), 4096, 4096).unwrap();
    let control = shm.elect(PATIENCE).unwrap().create(4096).unwrap();
    let options = Options::new().owners(Owners::Any);
    let any = Shm::with_options(shm.namespace().as_str(), options).unwrap();
    for file in [shm.file(Some(handle(1))), shm.file(None)] {
        set_access(&file.unwrap(), "D:P(A;;GA;;;WD)");
    }
    assert_eq!(kind(shm.attach(handle(1), id)), ErrorKind::PermissionDenied);
    assert_eq!(kind(shm.elect(PATIENCE)), ErrorKind::PermissionDenied);
    assert_eq!(kind(shm.peek()), ErrorKind::PermissionDenied);
    let text = shm.attach(handle(1), id).unwrap_err().to_string();
    assert!(text.contains("S-1-1-0") && text.contains("Options::owners"), "{text}");
    // Those who trust everybody look, and it can be cleaned up.
    for mapping in [any.attach(handle(1), id).unwrap(), any.peek().unwrap()] {
        unmap(&any, mapping);
    }
    any.elect(PATIENCE).unwrap().remove().unwrap();
    shm.destroy(handle(1), id).unwrap();
    unmap(&shm, mapping);
    unmap(&shm, control);
}

#[test]
fn access_for_others_is_given_by_name_only() {
    let name = "test-windows-mode";
    for mode in [0o660, 0o606, 0o640] {
        let refused = Shm::with_options(name, Options::new().mode(mode));
        assert_eq!(kind(refused), ErrorKind::Unsupported, "{mode:o}");
    }
    Shm::with_options(name, Options::new().mode(0o400)).unwrap();
    for backing in BOTH {
        let everybody = Owners::Listed(vec!["S-1-1-0".into()]);
        let options = Options::new().backing(backing).owners(everybody);
        let shm = open("listed", backing);
        let listing = Shm::with_options(shm.namespace().as_str(), options).unwrap();
        let (mapping, id) = listing.create(handle(1), 4096, 4096).unwrap();
        unmap(&listing, listing.attach(handle(1), id).unwrap());
        let refused = shm.attach(handle(1), id).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::PermissionDenied, "{backing:?}: {refused}");
        listing.destroy(handle(1), id).unwrap();
        unmap(&listing, mapping);
    }
}

#[test]
fn something_else_in_an_objects_place_is_left_alone() {
    let shm = open("place", Backing::Files);
    let files = [shm.file(Some(handle(1))).unwrap(), shm.file(None).unwrap()];
    for file in &files {
        std::fs::create_dir(file).unwrap();
    }
    let any = ObjectId::default();
    assert_eq!(kind(shm.attach(handle(1), any)), ErrorKind::Foreign);
    assert_eq!(kind(shm.destroy(handle(1), any)), ErrorKind::Foreign);
    assert_eq!(kind(shm.create(handle(1), 100, 100)), ErrorKind::AlreadyExists);
    assert_eq!(kind(shm.elect(PATIENCE)), ErrorKind::Foreign);
    assert_eq!(kind(shm.peek()), ErrorKind::Foreign);
    for file in &files {
        std::fs::remove_dir(file).unwrap();
    }
    // An empty file is what a creator that was killed has left.
    std::fs::write(&files[0], "").unwrap();
    assert_eq!(kind(shm.create(handle(1), 100, 100)), ErrorKind::AlreadyExists);
    set_access(&files[0], "D:P(A;;GA;;;OW)");
    shm.destroy(handle(1), any).unwrap();
    assert!(!files[0].exists());
}

/// A taken name is a collision, whoever has taken it: the caller draws another handle.
#[test]
fn a_taken_name_is_a_collision() {
    for backing in BOTH {
        let shm = open("taken", backing);
        let (mapping, id) = shm.create(handle(1), 100, 100).unwrap();
        set_byte(&mapping, 0, 1);
        assert_eq!(kind(shm.create(handle(1), 100, 100)), ErrorKind::AlreadyExists);
        if let Some(file) = shm.file(Some(handle(1))) {
            set_access(&file, "D:P");
            assert_eq!(kind(shm.create(handle(1), 100, 100)), ErrorKind::AlreadyExists);
            set_access(&file, "D:P(A;;GA;;;WD)");
        }
        shm.destroy(handle(1), id).unwrap();
        unmap(&shm, mapping);
    }
}

#[test]
fn names_differ_by_capitals_and_by_scope() {
    for backing in BOTH {
        let name = format!("test-windows-CASE-{}", std::process::id());
        let options = Options::new().backing(backing);
        let small = name.to_lowercase();
        let all = [
            Shm::with_options(&name, options.clone()).unwrap(),
            Shm::with_options(&small, options.clone()).unwrap(),
            Shm::with_options(&name, options.scope(Scope::Global)).unwrap(),
        ];
        let mut made = Vec::new();
        for shm in &all {
            let (mapping, id) = shm.create(handle(1), 100, 100).unwrap();
            made.push((shm, mapping, id));
        }
        if backing == Backing::Files {
            let listed = Shm::namespaces().unwrap();
            let ours = listed.iter().filter(|found| found.as_str().to_lowercase() == small);
            assert_eq!(ours.count(), 2, "those of this scope");
        } else {
            let options = Options::new().backing(backing);
            assert_eq!(kind(Shm::namespaces_with_options(&options)), ErrorKind::Unsupported);
        }
        for (shm, mapping, id) in made {
            shm.destroy(handle(1), id).unwrap();
            unmap(shm, mapping);
        }
    }
}

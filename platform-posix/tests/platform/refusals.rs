//! What is no object of ours, or open to more people than asked for, is refused and left alone.

use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::PathBuf;
use std::time::Duration;

use dsm_core::error::ErrorKind;
use dsm_core::handle::ObjectId;
use dsm_core::provider::{Election, ProviderError, Root, SegmentProvider};
use platform_posix::{Error, File, Options, Owners, Shm};

use crate::support::{PATIENCE, handle, name, skip, unmap};

fn kind<T>(result: Result<T, Error>) -> ErrorKind {
    match result {
        Ok(_) => panic!("this must be refused"),
        Err(error) => error.kind(),
    }
}

fn path(shm: &Shm, last: &str) -> PathBuf {
    PathBuf::from(format!("/dev/shm/dsm.{}.{last}", shm.namespace()))
}

fn set_mode(path: &PathBuf, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

#[test]
fn something_else_in_an_objects_place_is_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    let shm = Shm::new(&name("place")).unwrap();
    refuses_what_is_there(&shm, &path(&shm, &handle(1).to_string()), &path(&shm, "ctl"));
    let file = File::new(directory.path(), "place").unwrap();
    let at = |last: &str| directory.path().join(format!("dsm.place.{last}"));
    refuses_what_is_there(&file, &at(&handle(1).to_string()), &at("ctl"));
}

fn refuses_what_is_there<P>(provider: &P, segment: &PathBuf, control: &PathBuf)
where
    P: SegmentProvider<Error = Error> + Root<Error = Error>,
{
    let directory = tempfile::tempdir().unwrap();
    let victim = directory.path().join("victim");
    std::fs::write(&victim, [7; 8192]).unwrap();
    set_mode(&victim, 0o600);
    let link = |at: &PathBuf| symlink(&victim, at).unwrap();
    let dangling = |at: &PathBuf| symlink("/nowhere/at/all", at).unwrap();
    let folder = |at: &PathBuf| std::fs::create_dir(at).unwrap();
    let pipe = |at: &PathBuf| {
        let name = std::ffi::CString::new(at.to_str().unwrap()).unwrap();
        // SAFETY: a C string.
        assert_eq!(unsafe { libc::mkfifo(name.as_ptr(), 0o600) }, 0);
    };
    let make: [&dyn Fn(&PathBuf); 4] = [&link, &dangling, &folder, &pipe];
    for (n, make) in make.iter().enumerate() {
        for at in [segment, control] {
            make(at);
        }
        let any = ObjectId::default();
        assert_eq!(kind(provider.attach(handle(1), any)), ErrorKind::Foreign, "{n}");
        assert_eq!(kind(provider.destroy(handle(1), any)), ErrorKind::Foreign, "{n}");
        assert_eq!(kind(provider.create(handle(1), 100, 100)), ErrorKind::AlreadyExists, "{n}");
        assert_eq!(kind(provider.elect(Duration::ZERO)), ErrorKind::Foreign, "{n}");
        assert_eq!(kind(provider.peek()), ErrorKind::Foreign, "{n}");
        for at in [segment, control] {
            assert!(at.symlink_metadata().is_ok(), "left alone");
            if at.is_dir() { std::fs::remove_dir(at) } else { std::fs::remove_file(at) }.unwrap();
        }
    }
    assert_eq!(std::fs::read(&victim).unwrap(), [7; 8192]);
}

#[test]
fn more_permissions_than_asked_for_are_refused() {
    let shm = Shm::new(&name("mode")).unwrap();
    let wide = Shm::with_options(shm.namespace().as_str(), Options::new().mode(0o660)).unwrap();
    let (mapping, id) = shm.create(handle(1), 4096, 4096).unwrap();
    let control = shm.elect(PATIENCE).unwrap().create(4096).unwrap();
    assert_eq!(shm.stat(handle(1)).unwrap().mode, 0o600);
    unmap(&shm, wide.attach(handle(1), id).unwrap());

    for at in [path(&shm, &handle(1).to_string()), path(&shm, "ctl")] {
        set_mode(&at, 0o660);
    }
    assert_eq!(kind(shm.attach(handle(1), id)), ErrorKind::PermissionDenied);
    assert_eq!(kind(shm.elect(PATIENCE)), ErrorKind::PermissionDenied);
    assert_eq!(kind(shm.peek()), ErrorKind::PermissionDenied);
    let text = shm.attach(handle(1), id).unwrap_err().to_string();
    assert!(text.contains("0660") && text.contains("0600"), "{text}");
    unmap(&shm, wide.attach(handle(1), id).unwrap());
    wide.elect(PATIENCE).unwrap().remove().unwrap();
    wide.destroy(handle(1), id).unwrap();
    unmap(&shm, mapping);
    unmap(&shm, control);
}

#[test]
fn the_umask_changes_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path();
    // A thread that has stopped sharing its umask with the rest of the process.
    let worker = std::thread::spawn({
        let directory = directory.to_owned();
        move || {
            // SAFETY: concerns this thread alone.
            if unsafe { libc::unshare(libc::CLONE_FS) } != 0 {
                return skip("CLONE_FS is not permitted");
            }
            for (umask, mode) in [(0, 0o600), (0o777, 0o600), (0o777, 0o664), (0o22, 0o666)] {
                // SAFETY: no preconditions; the umask is this thread's.
                unsafe { libc::umask(umask) };
                let options = Options::new().mode(mode);
                let file = File::with_options(&directory, "umask", options).unwrap();
                let (mapping, id) = file.create(handle(1), 1, 1).unwrap();
                assert_eq!(file.stat(handle(1)).unwrap().mode, mode, "umask {umask:o}");
                file.destroy(handle(1), id).unwrap();
                // SAFETY: not used any more.
                unsafe { file.detach(mapping) };
                let mut election = file.elect(PATIENCE).unwrap();
                let mut seen = 0;
                file.enumerate(&mut |object| seen = object.mode).unwrap();
                assert_eq!(seen, mode, "umask {umask:o}");
                election.remove().unwrap();
            }
        }
    });
    worker.join().unwrap();
}

#[test]
fn objects_of_another_user_are_refused_unless_trusted() {
    let shm = Shm::new(&name("owner")).unwrap();
    let (mapping, id) = shm.create(handle(1), 4096, 4096).unwrap();
    let control = shm.elect(PATIENCE).unwrap().create(4096).unwrap();
    let paths = [path(&shm, &handle(1).to_string()), path(&shm, "ctl")];
    if let Err(error) =
        paths.iter().try_for_each(|at| std::os::unix::fs::chown(at, Some(4711), None))
    {
        skip(&format!("files can't be given away: {error}"));
    } else {
        assert_eq!(kind(shm.attach(handle(1), id)), ErrorKind::PermissionDenied);
        assert_eq!(kind(shm.destroy(handle(1), id)), ErrorKind::PermissionDenied);
        assert_eq!(kind(shm.elect(PATIENCE)), ErrorKind::PermissionDenied);
        assert_eq!(kind(shm.peek()), ErrorKind::PermissionDenied);
        assert!(paths.iter().all(|at| at.exists()));
        for owners in [Owners::Listed(vec![1, 4711]), Owners::Any] {
            let options = Options::new().owners(owners);
            let trusting = Shm::with_options(shm.namespace().as_str(), options).unwrap();
            unmap(&shm, trusting.attach(handle(1), id).unwrap());
            drop(trusting.elect(PATIENCE).unwrap());
            unmap(&shm, trusting.peek().unwrap());
        }
    }
    let any = Options::new().owners(Owners::Any);
    let any = Shm::with_options(shm.namespace().as_str(), any).unwrap();
    any.elect(PATIENCE).unwrap().remove().unwrap();
    any.destroy(handle(1), id).unwrap();
    unmap(&shm, mapping);
    unmap(&shm, control);
}

#[test]
fn an_unfinished_segment_is_not_attached() {
    let shm = Shm::new(&name("unfinished")).unwrap();
    let at = path(&shm, &handle(1).to_string());
    std::fs::write(&at, "").unwrap();
    set_mode(&at, 0o600);
    assert_eq!(kind(shm.attach(handle(1), ObjectId::default())), ErrorKind::InvalidSize);
    shm.destroy(handle(1), ObjectId::default()).unwrap();
    assert!(!at.exists());
}

#[test]
fn hints_that_cannot_be_followed_change_nothing() {
    use platform_posix::Numa;

    let hints = [
        Options::new().huge_pages(true),
        Options::new().numa(Numa::Interleave(1)),
        Options::new().numa(Numa::Interleave(u64::MAX)),
        Options::new().numa(Numa::Prefer(0)),
        Options::new().numa(Numa::Prefer(63)).huge_pages(true),
        Options::new().numa(Numa::Prefer(1000)),
    ];
    for options in hints {
        let shm = Shm::with_options(&name("hints"), options).unwrap();
        let (mapping, id) = shm.create(handle(1), 4 << 20, 4 << 20).unwrap();
        crate::support::set_byte(&mapping, (4 << 20) - 1, 1);
        shm.destroy(handle(1), id).unwrap();
        unmap(&shm, mapping);
    }
}

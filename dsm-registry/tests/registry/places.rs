//! One place under several names, and one name for several places as time goes by.

use std::path::Path;

use dsm_registry::Registry;
use dsm_registry::system::Directory;

use crate::support::BOUND;

fn open(directory: &Path) -> Registry {
    let builder = Registry::builder("place").provider(Directory::new(directory));
    builder.patience(BOUND).open().unwrap()
}

/// Lets `to` be another name of `from`, for the calling thread alone. False where that isn't
/// permitted.
#[cfg(target_os = "linux")]
fn bind(from: &Path, to: &Path) -> bool {
    use std::ffi::CString;
    use std::os::unix::ffi::OsStrExt;

    let text = |path: &Path| CString::new(path.as_os_str().as_bytes()).unwrap();
    let mount = |from: &Path, to: &Path, flags| {
        let (from, to) = (text(from), text(to));
        // SAFETY: C strings that outlive the call.
        unsafe {
            libc::mount(from.as_ptr(), to.as_ptr(), std::ptr::null(), flags, std::ptr::null())
        }
    };
    let root = Path::new("/");
    // SAFETY: concerns this thread alone.
    (unsafe { libc::unshare(libc::CLONE_NEWNS) }) == 0
        && mount(root, root, libc::MS_REC | libc::MS_PRIVATE) == 0
        && mount(from, to, libc::MS_BIND) == 0
}

#[cfg(target_os = "linux")]
#[test]
fn a_directory_by_two_paths_is_one_place() {
    use std::time::Duration;

    let parent = tempfile::tempdir().unwrap();
    let (one, other) = (parent.path().join("one"), parent.path().join("other"));
    std::fs::create_dir(&one).unwrap();
    std::fs::create_dir(&other).unwrap();
    // The mount goes with the thread.
    let thread = std::thread::spawn(move || {
        if !bind(&one, &other) {
            return;
        }
        let (first, second) = (open(&one), open(&other));
        let by_first = first.hash::<u64, u64>("table").unwrap();
        let by_second = second.hash::<u64, u64>("table").unwrap();
        by_first.insert(&1, 1).unwrap();
        let guard = by_first.find_mut(&1).unwrap().unwrap();
        let again = by_second.within(Duration::from_secs(1)).find_mut(&1).err();
        assert!(matches!(&again, Some(e) if e.is_would_deadlock()), "{again:?}");
        drop(guard);
        let builder = Registry::builder("place").provider(Directory::new(&other));
        assert_eq!(builder.inspect().unwrap().processes().count(), 1, "it is in there once");
    });
    thread.join().unwrap();
}

#[test]
fn a_directory_that_was_made_anew_is_another_place() {
    let parent = tempfile::tempdir().unwrap();
    let (path, moved) = (parent.path().join("path"), parent.path().join("moved"));
    std::fs::create_dir(&path).unwrap();
    let before = open(&path);
    before.hash::<u64, u64>("table").unwrap().insert(&1, 1).unwrap();
    std::fs::rename(&path, &moved).unwrap();
    std::fs::create_dir(&path).unwrap();
    let after = open(&path);
    let table = after.hash::<u64, u64>("table").unwrap();
    assert_eq!(table.get(&1).unwrap(), None, "what others find there");
    assert!(path.join("dsm.place.ctl").exists() && moved.join("dsm.place.ctl").exists());
    // The old one goes on where it is, and is found there.
    let there = open(&moved);
    assert_eq!(there.hash::<u64, u64>("table").unwrap().get(&1).unwrap(), Some(1));
    before.hash::<u64, u64>("another").unwrap().insert(&2, 2).unwrap();
    assert_eq!(there.hash::<u64, u64>("another").unwrap().get(&2).unwrap(), Some(2));
    drop((before, there, after, table));
    let left = |path: &Path| std::fs::read_dir(path).unwrap().count();
    assert_eq!((left(&path), left(&moved)), (0, 0));
}

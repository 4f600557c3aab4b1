//! What the system refuses by is told to whoever called the registry: the place, the limit's name,
//! and what to do. Under real conditions: file systems and limits of a thread's own, which takes
//! root.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};

use dsm_core::provider::ProviderError;
use dsm_registry::system::Directory;
use dsm_registry::{Connection, Error, ErrorKind, Platform, ProviderFailure, Reason, Registry};
use platform_posix::{Memfd, SysV};

use crate::support::Space;

/// System V segments, and control objects in a directory.
struct Segments(PathBuf);

impl Platform for Segments {
    fn place(&self) -> String {
        self.0.display().to_string()
    }

    fn connect(&self, namespace: &str, _: u32) -> Result<Connection, ProviderFailure> {
        let system = SysV::new(&self.0, namespace).map_err(|e| e.failure())?;
        let environment = system.environment();
        Ok(Connection::new(system, environment))
    }

    fn namespaces(&self) -> Result<Vec<String>, ProviderFailure> {
        Ok(Vec::new())
    }
}

/// Does something on a thread that is alone in what `apart` says; skipped, aloud, where that isn't
/// permitted.
fn alone(apart: libc::c_int, prepare: impl FnOnce() -> bool + Send, work: impl FnOnce() + Send) {
    std::thread::scope(|scope| {
        let thread = scope.spawn(move || {
            // SAFETY: concerns this thread alone.
            if unsafe { libc::unshare(apart) } == 0 && prepare() {
                work();
            } else {
                skip(&std::io::Error::last_os_error().to_string());
            }
        });
        if let Err(panic) = thread.join() {
            std::panic::resume_unwind(panic);
        }
    });
}

fn skip(why: &str) {
    use std::io::Write;

    let _ = writeln!(std::io::stderr(), "SKIPPED, NOTHING WAS TESTED: {why}");
}

fn mount(options: &str, flags: libc::c_ulong) -> bool {
    let data = std::ffi::CString::new(options).unwrap();
    let (none, tmpfs, place) = (c"none".as_ptr(), c"tmpfs".as_ptr(), c"/dev/shm".as_ptr());
    let private = libc::MS_REC | libc::MS_PRIVATE;
    let root = c"/".as_ptr();
    // SAFETY: C strings that outlive the call.
    let apart = unsafe { libc::mount(none, root, std::ptr::null(), private, std::ptr::null()) };
    // SAFETY: as above.
    apart == 0 && unsafe { libc::mount(tmpfs, place, tmpfs, flags, data.as_ptr().cast()) } == 0
}

/// A limit of System V segments, of this thread's own.
fn set(limit: &str, value: u64) -> bool {
    std::fs::write(format!("/proc/sys/kernel/{limit}"), value.to_string()).is_ok()
}

#[track_caller]
fn expect<T>(result: Result<T, Error>, words: &[&str]) -> Error {
    let error = result.err().expect("an error");
    let text = error.to_string();
    assert!(words.iter().all(|word| text.contains(word)), "{words:?} in {text}");
    assert!(!text.contains("damaged") && !text.contains("Builder::mode"), "{text}");
    error
}

fn is_of_the_place(error: &Error, reason: Reason) {
    let ErrorKind::Place { failure, .. } = error.kind() else { panic!("{error:?}") };
    assert_eq!(failure.reason, reason);
}

#[test]
fn a_read_only_file_system_is_named() {
    alone(
        libc::CLONE_NEWNS,
        || mount("size=4m", libc::MS_RDONLY),
        || {
            let builder = || Registry::builder("readonly");
            let words = ["/dev/shm", "mounted read-only", "mount it for writing"];
            is_of_the_place(&expect(builder().open(), &words), Reason::ReadOnlyMount);
            let directory = Directory::new("/dev/shm");
            let opened = builder().provider(directory).open();
            is_of_the_place(&expect(opened, &words), Reason::ReadOnlyMount);
        },
    );
}

#[test]
fn a_file_system_of_few_files_is_not_short_of_memory() {
    alone(
        libc::CLONE_NEWNS,
        || mount("size=64m,nr_inodes=8", 0),
        || {
            let registry = Registry::open("few").unwrap();
            let made: Vec<_> = (0..8)
                .map(|n| registry.segment::<u64>(&format!("s{n}"), |value| value.write(n)))
                .collect();
            let refused = made.into_iter().find(Result::is_err).expect("no file is left");
            let error = expect(refused, &["segment \"s", "as many files as it can", "`df -i`"]);
            let ErrorKind::OutOfMemory(shortage) = error.kind() else { panic!("{error:?}") };
            assert_eq!(shortage.failure.reason, Reason::ObjectLimit);
        },
    );
}

/// A directory that goes while it is in use.
#[test]
fn a_directory_that_has_gone_is_named() {
    let space = Space::new("gone");
    let parent = tempfile::tempdir().unwrap();
    let path = parent.path().join("below");
    std::fs::create_dir(&path).unwrap();
    let registry = space.builder().provider(Directory::new(&path)).open().unwrap();
    std::fs::remove_dir_all(&path).unwrap();
    let made = registry.segment::<u64>("segment", |value| value.write(1));
    let error = made.expect_err("nowhere to make it");
    // It is the control object that is missed first.
    assert!(matches!(error.kind(), ErrorKind::NamespaceUnlinked { .. }), "{error:?}");
    assert!(error.to_string().contains("below"), "{error}");
}

#[test]
fn limits_of_system_v_segments_are_named() {
    let directory = tempfile::tempdir().unwrap();
    let open =
        |name: &str| Registry::builder(name).provider(Segments(directory.path().to_owned())).open();
    let number = || set("shmmni", 2);
    alone(libc::CLONE_NEWIPC, number, || {
        let registry = open("number");
        let made = registry.and_then(|registry| {
            for n in 0..4 {
                registry.segment::<u64>(&format!("s{n}"), |value| value.write(n))?;
            }
            Ok(())
        });
        let error = expect(made, &["`kernel.shmmni`", "ipcs -m", "raise that limit"]);
        let text = error.to_string();
        assert!(!text.contains("shared memory is full"), "{text}");
    });
    alone(
        libc::CLONE_NEWIPC,
        || set("shmmax", 1 << 20),
        || {
            let registry = open("size").unwrap();
            let made = registry.segment_bytes("long", 2 << 20, |_| Ok(()));
            let words = ["2097152 bytes", "`kernel.shmmax`", "1048576 bytes", "raise that limit"];
            let error = expect(made, &words);
            assert!(!error.to_string().contains("invalid size"), "{error}");
        },
    );
    alone(
        libc::CLONE_NEWIPC,
        || set("shmall", 300),
        || {
            let registry = open("pages").unwrap();
            expect(
                registry.segment_bytes("long", 2 << 20, |_| Ok(())),
                &["`kernel.shmall`", "raise that limit"],
            );
        },
    );
}

/// Memory of which another process has the descriptors.
struct Passed(std::os::fd::OwnedFd);

impl Platform for Passed {
    fn place(&self) -> String {
        "memory without names".to_owned()
    }

    /// Each connection has a table of descriptors of its own, as another process would.
    fn connect(&self, _: &str, _: u32) -> Result<Connection, ProviderFailure> {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let memory = Memfd::new(self.0.try_clone().expect("a descriptor"));
        let environment = memory.environment();
        let identity = format!("memory {}", COUNT.fetch_add(1, Ordering::Relaxed));
        Ok(Connection::new(memory, environment).identity(identity))
    }

    fn namespaces(&self) -> Result<Vec<String>, ProviderFailure> {
        Ok(Vec::new())
    }
}

/// A descriptor that was not passed is neither damage nor the removal of what it means.
#[test]
fn a_descriptor_that_was_not_passed_is_asked_for() {
    let control = Memfd::new_control().unwrap();
    let open = || {
        let copy = Passed(control.try_clone().unwrap());
        Registry::builder("passed").provider(copy).open()
    };
    let registry = open().unwrap();
    registry.hash::<u64, u64>("table").unwrap().insert(&1, 1).unwrap();
    let words = ["was not passed the segment's descriptor", "`Memfd::insert`"];
    expect(open(), &words);
}

#[test]
fn whose_an_object_is_that_is_not_trusted_is_said() {
    let space = Space::new("whose");
    let registry = space.open();
    if std::os::unix::fs::chown(space.control(), Some(4711), None).is_err() {
        return skip("only root can give files away");
    }
    let error = Registry::inspect(&space.name).err().expect("another user's");
    let text = error.to_string();
    for word in ["user 4711", "Options::owners", &space.name] {
        assert!(text.contains(word), "{word} in {text}");
    }
    std::os::unix::fs::chown(space.control(), Some(0), None).unwrap();
    drop(registry);
}

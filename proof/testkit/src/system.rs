//! The system's own backend, for tests of crates that take any: POSIX shared memory, or temporary
//! files on Windows.

use std::io::Write;
use std::path::PathBuf;

use dsm_core::env::Environment;
use dsm_core::namespace::{LocalSegment, Namespace, NamespaceConfig, Platform, ProcessLocal};
use dsm_core::provider::Root;
use dsm_core::sync::AtomicU64;

/// The backend.
#[cfg(unix)]
pub type System = platform_posix::Shm;
/// The backend.
#[cfg(windows)]
pub type System = platform_windows::Shm;

/// Connects to a namespace.
///
/// # Panics
///
/// If it can't.
#[must_use]
pub fn connect(namespace: &str) -> System {
    System::new(namespace).unwrap()
}

/// Joins a namespace, or creates it. What it borrows lives as long as the process.
///
/// # Panics
///
/// If it can't.
#[must_use]
pub fn join(namespace: &str, config: &NamespaceConfig) -> (&'static System, Namespace<'static>) {
    let system = forever(connect(namespace));
    (system, join_in(system, config, forever(system.environment())))
}

/// As [`join`], in an environment of the caller's.
///
/// # Panics
///
/// If it can't.
#[must_use]
pub fn join_in(
    system: &'static System,
    config: &NamespaceConfig,
    env: &'static dyn Environment,
) -> Namespace<'static> {
    let records: Vec<_> = (0..config.max_segments).map(|_| LocalSegment::new()).collect();
    let local = forever(ProcessLocal::new(forever(AtomicU64::new(0)), records.leak()));
    let platform = Platform { provider: system, env };
    Namespace::open(system, platform, config, local).unwrap().0
}

/// Leaks a value: a peer that will be killed has no time to drop it.
pub fn forever<T>(value: T) -> &'static T {
    Box::leak(Box::new(value))
}

/// Where objects lie, for those who look behind the library's back.
#[must_use]
pub fn directory() -> PathBuf {
    #[cfg(unix)]
    return PathBuf::from("/dev/shm");
    #[cfg(windows)]
    System::directory(platform_windows::Scope::Local)
}

/// Objects of a namespace.
///
/// # Panics
///
/// If the directory can't be read.
#[must_use]
pub fn objects_of(namespace: &str) -> Vec<PathBuf> {
    let control = control_of(namespace);
    let prefix = control.file_name().unwrap_or_default().to_string_lossy();
    let prefix = prefix.strip_suffix("ctl").unwrap_or(&prefix);
    let Ok(entries) = std::fs::read_dir(directory()) else { return Vec::new() };
    entries
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.file_name().is_some_and(|n| n.to_string_lossy().starts_with(prefix)))
        .collect()
}

/// The control object of a namespace.
#[must_use]
pub fn control_of(namespace: &str) -> PathBuf {
    #[cfg(unix)]
    return directory().join(format!("dsm.{namespace}.ctl"));
    #[cfg(windows)]
    connect(namespace).file(None).expect("an object that is a file")
}

/// Puts a file with this content, accessible to this user alone, in the place of a namespace's
/// control object.
///
/// # Panics
///
/// If it can't.
pub fn plant_control(namespace: &str, content: &[u8]) {
    // Elected to an object that is not there, one makes it, empty, with the right permissions.
    drop(connect(namespace).elect(crate::BOUND).unwrap());
    let mut file = std::fs::OpenOptions::new().write(true).open(control_of(namespace)).unwrap();
    file.write_all(content).unwrap();
}

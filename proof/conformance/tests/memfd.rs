//! The suite against anonymous memory behind descriptors.
//!
//! A child inherits the descriptors of the control object and of the segments that exist when it
//! starts; which number means what is in an environment variable.
#![cfg(target_os = "linux")]

use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::Command;

use conformance::Backend;
use dsm_core::handle::SegmentHandle;
use dsm_core::provider::Root;
use platform_posix::{Memfd, Posix};

const DESCRIPTORS: &str = "CONFORMANCE_DESCRIPTORS";

struct OnMemfd(Memfd);

impl Backend for OnMemfd {
    type Provider = Memfd;
    type Root = Memfd;
    type Environment = Posix;

    const PROCESSES: bool = true;
    const LISTS: bool = true;
    const THREADS: bool = true;
    const PROOFS: bool = true;
    const TOO_LARGE: usize = conformance::bytes_of(45);

    fn create(_namespace: &str) -> Self {
        Self(Memfd::new(Memfd::new_control().unwrap()))
    }

    fn join(_namespace: &str) -> Self {
        let list = std::env::var(DESCRIPTORS).unwrap();
        let mut entries = list.split(',').map(|entry| {
            let (handle, fd) = entry.split_once('=').unwrap();
            // SAFETY: the parent left this descriptor open for us, and nobody else takes it.
            let fd = unsafe { OwnedFd::from_raw_fd(fd.parse().unwrap()) };
            (SegmentHandle::from_raw(handle.parse().unwrap()), fd)
        });
        let memfd = Memfd::new(entries.next().unwrap().1);
        for (handle, fd) in entries {
            memfd.insert(handle.unwrap(), fd);
        }
        Self(memfd)
    }

    fn provider(&self) -> &Memfd {
        &self.0
    }

    fn root(&self) -> &Memfd {
        &self.0
    }

    fn environment(&self) -> Posix {
        self.0.environment()
    }

    fn share(&self, child: &mut Command) {
        let mut passed = vec![(0, self.0.control().try_clone_to_owned().unwrap())];
        self.0
            .enumerate(&mut |object| {
                if let Some(handle) = object.handle {
                    passed.push((handle.get(), self.0.descriptor(handle).unwrap().unwrap()));
                }
            })
            .unwrap();
        let list: Vec<_> =
            passed.iter().map(|(handle, fd)| format!("{handle}={}", fd.as_raw_fd())).collect();
        child.env(DESCRIPTORS, list.join(","));
        let keep_open = move || {
            for (_, fd) in &passed {
                let fd: RawFd = fd.as_raw_fd();
                // SAFETY: an open descriptor.
                if unsafe { libc::fcntl(fd, libc::F_SETFD, 0) } != 0 {
                    return Err(std::io::Error::last_os_error());
                }
            }
            Ok(())
        };
        // SAFETY: between fork and exec only `fcntl` is called, which is allowed there.
        unsafe { child.pre_exec(keep_open) };
    }
}

conformance::suite!(OnMemfd);

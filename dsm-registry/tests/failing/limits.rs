//! What is scarce, and how scarce.

use std::os::fd::AsRawFd;

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Limit {
    /// Open descriptors of the process: so many in all.
    Descriptors,
    /// Addresses: so many bytes more than are in use.
    Addresses,
    /// The same, with one descriptor left: what can't be mapped must be removed without another.
    Both,
    /// Bytes of a file.
    FileSize,
    /// Pages that are free at `/dev/shm`, which is a small file system of this process's own.
    Space,
}

pub(crate) const ALL: [Limit; 5] =
    [Limit::Descriptors, Limit::Addresses, Limit::Both, Limit::FileSize, Limit::Space];

const PAGE: u64 = 4096;
/// Pages of the small file system.
const PAGES: u64 = 4096;
const BALLAST: &str = "/dev/shm/ballast";
/// The heap that a process has before its addresses get scarce.
const HEAP: usize = 32 << 20;

/// A limit that is set; lifted when dropped.
pub(crate) struct Scarce {
    resources: Vec<(libc::__rlimit_resource_t, libc::rlimit)>,
    /// Whether the small file system was filled.
    filled: bool,
}

impl Limit {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Descriptors => "descriptors",
            Self::Addresses => "addresses",
            Self::Both => "both",
            Self::FileSize => "file-size",
            Self::Space => "space",
        }
    }

    pub(crate) fn may_be_skipped(self) -> bool {
        self == Self::Space
    }

    pub(crate) fn levels(self) -> Vec<u64> {
        let kibibytes = |all: &[u64]| all.iter().map(|n| n << 10).collect();
        match self {
            Self::Descriptors => (3..=40).collect(),
            Self::Addresses | Self::Both => {
                kibibytes(&[0, 4, 16, 36, 64, 100, 128, 256, 400, 512, 1024, 3000, 8192, 1 << 18])
            }
            Self::FileSize => {
                kibibytes(&[0, 4, 8, 64, 100, 128, 256, 300, 512, 700, 1024, 3000, 8192, 1 << 21])
            }
            Self::Space => {
                vec![0, 1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 64, 90, 128, 200, 256, 400, 700]
            }
        }
    }

    /// Once in a process, before anything else.
    pub(crate) fn prepare(self) -> Result<(), String> {
        match self {
            Self::Addresses | Self::Both => {
                warm_up_the_heap();
                Ok(())
            }
            Self::Space => mount_small_memory(),
            _ => Ok(()),
        }
    }

    pub(crate) fn set(self, level: u64) -> Scarce {
        let addresses = (libc::RLIMIT_AS, addresses() + level);
        let wanted = match self {
            Self::Descriptors => vec![(libc::RLIMIT_NOFILE, level)],
            Self::Addresses => vec![addresses],
            Self::Both => vec![(libc::RLIMIT_NOFILE, first_free_descriptor() + 1), addresses],
            Self::FileSize => vec![(libc::RLIMIT_FSIZE, level)],
            Self::Space => {
                fill_but(level);
                Vec::new()
            }
        };
        let set = |(resource, level)| {
            let mut before = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
            // SAFETY: writable.
            assert_eq!(unsafe { libc::getrlimit(resource, &raw mut before) }, 0);
            let scarce = libc::rlimit { rlim_cur: level, ..before };
            // SAFETY: the process's own limit.
            assert_eq!(unsafe { libc::setrlimit(resource, &raw const scarce) }, 0);
            (resource, before)
        };
        let filled = self == Self::Space;
        Scarce { resources: wanted.into_iter().map(set).collect(), filled }
    }

    /// What an error should say and does not.
    pub(crate) fn missing_from(self, text: &str, level: u64) -> Vec<String> {
        let says = |words: &str| text.contains(words);
        if self == Self::Both {
            let either = [Self::Addresses, Self::Descriptors].map(|l| l.missing_from(text, level));
            let [one, other] = either;
            return if other.is_empty() { other } else { one };
        }
        let wanted = match self {
            Self::Descriptors => {
                vec![("too many open", says("too many open")), ("ulimit -n", says("`ulimit -n`"))]
            }
            Self::Addresses | Self::Both => vec![
                ("that the process cannot map more", says("cannot map more") || says("thread")),
                ("ulimit -v", says("`ulimit -v`") || says("thread")),
                ("a size", text.contains(|c: char| c.is_ascii_digit()) || says("thread")),
            ],
            Self::FileSize => vec![
                ("ulimit -f", says("ulimit -f")),
                ("the limit", {
                    let bytes = format!("{level} bytes");
                    says(&bytes)
                }),
            ],
            Self::Space => {
                vec![
                    ("what is needed", says("needs") || says("asked for")),
                    ("what is free", says("free of")),
                ]
            }
        };
        wanted.into_iter().filter(|(_, said)| !said).map(|(what, _)| what.to_owned()).collect()
    }
}

impl Drop for Scarce {
    fn drop(&mut self) {
        for (resource, before) in &self.resources {
            // SAFETY: as above.
            assert_eq!(unsafe { libc::setrlimit(*resource, before) }, 0);
        }
        if self.filled {
            std::fs::remove_file(BALLAST).expect("it is there");
        }
    }
}

/// The number that the next descriptor gets.
fn first_free_descriptor() -> u64 {
    let next = std::fs::File::open("/dev/null").expect("it is there");
    u64::try_from(next.as_raw_fd()).expect("a descriptor")
}

/// Bytes of addresses that the process uses.
fn addresses() -> u64 {
    let text = std::fs::read_to_string("/proc/self/statm").expect("/proc is there");
    let pages: u64 = text.split(' ').next().and_then(|n| n.parse().ok()).expect("a number");
    pages * PAGE
}

/// Has the C library keep a heap that the rest of the test fits into.
fn warm_up_the_heap() {
    for (option, value) in [(libc::M_MMAP_THRESHOLD, 1 << 30), (libc::M_TRIM_THRESHOLD, 1 << 30)] {
        // SAFETY: options of the C library's heap.
        unsafe { libc::mallopt(option, value) };
    }
    // One piece, which is given back to the heap and stays there.
    let heap = vec![1_u8; HEAP];
    assert_eq!(std::hint::black_box(&heap).len(), HEAP);
}

/// Mounts a file system of this process's own at `/dev/shm`.
fn mount_small_memory() -> Result<(), String> {
    let failed = || std::io::Error::last_os_error().to_string();
    // SAFETY: concerns this thread and those that it starts.
    if unsafe { libc::unshare(libc::CLONE_NEWNS) } != 0 {
        return Err(format!("no mount namespace: {}", failed()));
    }
    let size = std::ffi::CString::new(format!("size={}", PAGES * PAGE)).expect("digits");
    let private = libc::MS_REC | libc::MS_PRIVATE;
    let none = std::ptr::null();
    // SAFETY: C strings that outlive the call.
    let private =
        unsafe { libc::mount(c"none".as_ptr(), c"/".as_ptr(), none, private, none.cast()) };
    let (tmpfs, place) = (c"tmpfs".as_ptr(), c"/dev/shm".as_ptr());
    // SAFETY: as above.
    if private != 0 || unsafe { libc::mount(tmpfs, place, tmpfs, 0, size.as_ptr().cast()) } != 0 {
        return Err(format!("a tmpfs can't be mounted: {}", failed()));
    }
    Ok(())
}

/// Takes all of the small file system but so many pages.
fn fill_but(pages: u64) {
    let file = std::fs::File::create(BALLAST).expect("can be created");
    let mut space = std::mem::MaybeUninit::<libc::statvfs>::zeroed();
    // SAFETY: writable, and the descriptor is open.
    assert_eq!(unsafe { libc::fstatvfs(file.as_raw_fd(), space.as_mut_ptr()) }, 0);
    // SAFETY: filled by the call.
    let free = unsafe { space.assume_init() }.f_bavail;
    let ballast = free.saturating_sub(pages) * PAGE;
    if ballast > 0 {
        let ballast = libc::off_t::try_from(ballast).expect("small");
        // SAFETY: the descriptor is open.
        assert_eq!(unsafe { libc::posix_fallocate(file.as_raw_fd(), 0, ballast) }, 0);
    }
}

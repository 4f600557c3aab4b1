//! Locks that die with their process: the election (byte 0) and a token of life for each process
//! slot (byte 1 + slot).
//!
//! On Linux they are open-file-description locks on bytes of the control object itself, taken
//! through a description that nobody else has. Unlike record locks they survive an unrelated
//! close of the same file; unlike `flock` there is one for each byte; and asking about one
//! (`F_OFD_GETLK`) doesn't disturb it. They say nothing about other locks of the same description,
//! so the owner of a [`Locks`] keeps track of its own. The kernel lets go when the last
//! descriptor of the description closes, which is at death (before the process is reaped by its
//! parent), provided no fork child has a copy: hence [`PrivateFd`].
//!
//! Elsewhere each byte is a file of its own in the lock directory, under `flock`. FreeBSD has no
//! open-file-description locks, and macOS has them for its own use only. Record locks (`F_SETLK`)
//! won't do: they belong to the process, and any close of the same file by anybody in it, a library
//! that reads it, say, lets go of all. `flock` locks belong to the open file description, as those
//! of Linux do, and have the same end: at the last close, which death is. They cover a whole file,
//! hence one for each byte; and they can't be asked about, hence asking means trying for a shared
//! lock for an instant, and one who wants the lock tries a few times. Shared memory itself can't be
//! locked in this way on these systems, so that the files lie in a directory. A file is removed by
//! its holder before the lock is let go, so a lock counts only if the file's name still means the
//! file that was locked. Who is killed leaves its file; so a file that isn't there says nothing of
//! a holder: it may live, and some cleaner of old files was there. Pid and start time tell of such
//! a process.

#[cfg(not(target_os = "linux"))]
pub(crate) use files::Locks;
#[cfg(target_os = "linux")]
pub(crate) use ranges::Locks;

/// The byte of the election.
pub(crate) const ELECTION: u64 = 0;

/// The byte of a process slot.
pub(crate) fn slot_byte(slot: u32) -> u64 {
    1 + u64::from(slot)
}

#[cfg(target_os = "linux")]
mod ranges {
    use std::os::fd::{AsRawFd, BorrowedFd};

    use dsm_core::handle::ObjectId;

    use crate::descriptor::PrivateFd;
    use crate::error::Error;
    use crate::fork::NoFork;
    use crate::root::ControlObject;
    use crate::sys::Errno;

    /// Locks on bytes of one control object.
    pub(crate) struct Locks {
        file: PrivateFd,
    }

    impl Locks {
        /// Opens the control object for locking; creates it if asked to and there is none.
        pub(crate) fn open(
            control: &dyn ControlObject,
            create: bool,
            no_fork: &NoFork,
        ) -> Result<Self, Error> {
            Ok(Self { file: PrivateFd::open_under(no_fork, || control.open(create))? })
        }

        /// Makes sure that the locks are on what the control object's name means now; whether they
        /// are. To be asked after byte 0 was locked, since the name may have changed until then.
        pub(crate) fn settle(
            &mut self,
            control: &dyn ControlObject,
            _create: bool,
            _no_fork: &NoFork,
        ) -> Result<bool, Error> {
            Ok(control.current()? == Some(self.id()))
        }

        /// Locks a byte unless somebody else has. In a fork child: nobody's locks, so an error.
        pub(crate) fn try_lock(&self, byte: u64, _no_fork: &NoFork) -> Result<bool, Error> {
            match self.call(libc::F_OFD_SETLK, libc::F_WRLCK as libc::c_short, byte) {
                Ok(_) => Ok(true),
                Err(Errno(libc::EAGAIN | libc::EACCES)) => Ok(false),
                Err(e) => Err(Error::os(e, "F_OFD_SETLK", "the control object")),
            }
        }

        pub(crate) fn unlock(&self, byte: u64, _no_fork: &NoFork) {
            // Unlocking fails for a bad descriptor only, and then nothing is locked.
            let _ = self.call(libc::F_OFD_SETLK, libc::F_UNLCK as libc::c_short, byte);
        }

        /// Whether somebody *else* holds the byte; own locks are not seen. `None` if unknown.
        pub(crate) fn held_elsewhere(&self, byte: u64) -> Option<bool> {
            let found = self.call(libc::F_OFD_GETLK, libc::F_WRLCK as libc::c_short, byte).ok()?;
            Some(found.l_type != libc::F_UNLCK as libc::c_short)
        }

        /// Which object the locks are on.
        pub(crate) fn id(&self) -> ObjectId {
            self.file.id()
        }

        /// The descriptor of the control object.
        pub(crate) fn control(&self) -> Option<BorrowedFd<'_>> {
            self.file.get()
        }

        pub(crate) fn close_under(self, no_fork: &NoFork) {
            self.file.close_under(no_fork);
        }

        fn call(
            &self,
            command: libc::c_int,
            kind: libc::c_short,
            byte: u64,
        ) -> Result<libc::flock, Errno> {
            let fd = self.file.get().ok_or(Errno(libc::EBADF))?;
            let mut range = std::mem::MaybeUninit::<libc::flock>::zeroed();
            // SAFETY: zeros are a valid flock, and l_pid must be zero for these commands.
            let range = unsafe { range.assume_init_mut() };
            range.l_type = kind;
            range.l_whence = libc::SEEK_SET as libc::c_short;
            range.l_start = libc::off_t::try_from(byte).map_err(|_| Errno(libc::EFBIG))?;
            range.l_len = 1;
            crate::sys::restart(|| {
                // SAFETY: the descriptor is open, and `range` is what the command reads and writes.
                let result = unsafe { libc::fcntl(fd.as_raw_fd(), command, &raw mut *range) };
                if result < 0 { Err(Errno::last()) } else { Ok(()) }
            })?;
            Ok(*range)
        }
    }
}

#[cfg(not(target_os = "linux"))]
mod files {
    use std::collections::BTreeMap;
    use std::ffi::CString;
    use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
    use std::sync::{Mutex, PoisonError};

    use dsm_core::handle::ObjectId;

    use crate::descriptor::PrivateFd;
    use crate::error::Error;
    use crate::fork::NoFork;
    use crate::root::ControlObject;
    use crate::sys::{self, Errno};

    /// Locks on files, one for each byte.
    pub(crate) struct Locks {
        /// Path of the lock files but for the byte's number.
        base: String,
        mode: u32,
        control: PrivateFd,
        held: Mutex<BTreeMap<u64, PrivateFd>>,
    }

    impl Locks {
        pub(crate) fn open(
            control: &dyn ControlObject,
            create: bool,
            no_fork: &NoFork,
        ) -> Result<Self, Error> {
            Ok(Self {
                base: control.lock_files(),
                mode: control.options().mode,
                control: PrivateFd::open_under(no_fork, || control.open(create))?,
                held: Mutex::new(BTreeMap::new()),
            })
        }

        /// Opens the control object again: it is only made and removed by who holds byte 0, and
        /// has no identity to compare on some systems.
        pub(crate) fn settle(
            &mut self,
            control: &dyn ControlObject,
            create: bool,
            no_fork: &NoFork,
        ) -> Result<bool, Error> {
            let fresh = PrivateFd::open_under(no_fork, || control.open(create))?;
            std::mem::replace(&mut self.control, fresh).close_under(no_fork);
            Ok(true)
        }

        pub(crate) fn try_lock(&self, byte: u64, no_fork: &NoFork) -> Result<bool, Error> {
            let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
            if held.contains_key(&byte) {
                return Ok(true);
            }
            let path = self.path(byte)?;
            // Somebody who merely asks holds a shared lock for an instant.
            let mut tries = 5;
            loop {
                let fail = |e| Error::os(e, "flock", format!("{}{byte}", self.base));
                let file = PrivateFd::open_under(no_fork, || {
                    let flags = libc::O_RDWR | libc::O_CREAT | libc::O_NOFOLLOW;
                    let file = sys::open_at(None, &path, flags, self.mode).map_err(fail)?;
                    let stat = sys::stat(file.as_fd()).map_err(fail)?;
                    // Whoever may use the namespace must be able to ask, whatever the umask says.
                    if stat.owner == sys::effective_user() && stat.mode != self.mode {
                        sys::set_mode(file.as_fd(), self.mode).map_err(fail)?;
                    }
                    Ok(file)
                })?;
                let locked = match file.get() {
                    Some(fd) => flock(fd, libc::LOCK_EX | libc::LOCK_NB),
                    None => Err(Errno(libc::EBADF)),
                };
                if locked.is_ok() && named(&path).is_some_and(|id| id == file.id()) {
                    held.insert(byte, file);
                    return Ok(true);
                }
                file.close_under(no_fork);
                match locked {
                    // The name means another file by now: try that one.
                    Ok(()) => {}
                    Err(Errno(libc::EWOULDBLOCK)) if tries == 0 => return Ok(false),
                    Err(Errno(libc::EWOULDBLOCK)) => {
                        tries -= 1;
                        std::thread::sleep(std::time::Duration::from_millis(1));
                    }
                    Err(e) => return Err(fail(e)),
                }
            }
        }

        pub(crate) fn unlock(&self, byte: u64, no_fork: &NoFork) {
            let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
            let (Some(file), Ok(path)) = (held.remove(&byte), self.path(byte)) else { return };
            if file.get().is_some() && named(&path).is_some_and(|id| id == file.id()) {
                // SAFETY: a C string.
                unsafe { libc::unlink(path.as_ptr()) };
            }
            file.close_under(no_fork);
        }

        pub(crate) fn held_elsewhere(&self, byte: u64) -> Option<bool> {
            let path = self.path(byte).ok()?;
            let file: OwnedFd = match sys::open_at(None, &path, libc::O_RDWR | libc::O_NOFOLLOW, 0)
            {
                Ok(file) => file,
                // A file that is gone included: see the essay.
                Err(_) => return None,
            };
            match flock(file.as_fd(), libc::LOCK_SH | libc::LOCK_NB) {
                Ok(()) => Some(false),
                Err(Errno(libc::EWOULDBLOCK)) => Some(true),
                Err(_) => None,
            }
        }

        pub(crate) fn id(&self) -> ObjectId {
            self.control.id()
        }

        pub(crate) fn control(&self) -> Option<BorrowedFd<'_>> {
            self.control.get()
        }

        pub(crate) fn close_under(self, no_fork: &NoFork) {
            let held = self.held.into_inner().unwrap_or_else(PoisonError::into_inner);
            for (_, file) in held {
                file.close_under(no_fork);
            }
            self.control.close_under(no_fork);
        }

        fn path(&self, byte: u64) -> Result<CString, Error> {
            CString::new(format!("{}{byte}", self.base))
                .map_err(|_| Error::os(Errno(libc::EINVAL), "path of a lock file", &*self.base))
        }
    }

    fn flock(fd: BorrowedFd<'_>, how: libc::c_int) -> Result<(), Errno> {
        sys::restart(|| {
            // SAFETY: the descriptor is open.
            let result = unsafe { libc::flock(fd.as_raw_fd(), how) };
            if result < 0 { Err(Errno::last()) } else { Ok(()) }
        })
    }

    fn named(path: &CString) -> Option<ObjectId> {
        let file = sys::open_at(None, path, libc::O_RDONLY | libc::O_NOFOLLOW, 0).ok()?;
        Some(sys::stat(file.as_fd()).ok()?.id)
    }
}

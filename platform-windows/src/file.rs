//! [`File`]: files of a folder, mapped; and the temporary files of [`Shm`](crate::Shm).
//!
//! # Creation
//!
//! create (exclusive, with its security descriptor) → length → zeros, if the file system gives no
//! memory by length alone → map → close
//!
//! NTFS, ReFS and FAT allocate what a file is long: a disk that is too full is an error at
//! creation. Where that isn't so (the allocated size tells) zeros are written. A file is therefore
//! backed as a whole when it is created, whatever part of it was asked for, and reserving more
//! later is no work. In folders that are compressed nothing can be reserved.
//!
//! The handles are closed once the view exists: view and file keep each other. What a terminated
//! process has written stays in the file's pages; `FILE_ATTRIBUTE_TEMPORARY` keeps them from being
//! written to the disk while memory lasts.
//!
//! | killed | leaves | and then |
//! |---|---|---|
//! | after creating | an empty file, whose handle is recorded | it is destroyed with its slot |
//! | in the midst of it | zeros | as above |
//!
//! # Removal
//!
//! By handle, so that what was compared is what goes: nothing can come between. Windows deletes no
//! file that is mapped. Such a file is renamed to its identity, which frees its name, and deleted
//! by whoever unmaps it last (`detach` looks), or by a later election, should that one have been
//! killed.

use std::fs::File as OpenFile;
use std::ops::Range;
use std::os::windows::io::AsHandle;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use dsm_core::error::{ErrorKind, Reason};
use dsm_core::handle::ObjectId;
use dsm_core::provider::{Forward, Mapping, ObjectInfo, ProviderError};
use platform_common::refusal;
use windows_sys::Win32::Foundation::{
    ERROR_ACCESS_DENIED, ERROR_DELETE_PENDING, ERROR_FILE_NOT_FOUND, ERROR_SHARING_VIOLATION,
};

use crate::disk::{self, Access, Stat};
use crate::error::{CREATE, Error, LIST, OPEN_DIRECTORY};
use crate::liveness::Windows;
use crate::name::{FileNames, NamespaceName, Role, gone, hash, is_gone};
use crate::object::{Domain, Named, Purpose, Store, check_identity, check_size};
use crate::options::Options;
use crate::security::{self, Kind};
use crate::sys::{self, Code};

/// Segments in files of a folder, one file each.
///
/// The folder should be a local one; on a network two machines would not see each other's memory,
/// and don't find each other's namespaces.
///
/// Implements [`SegmentProvider`](dsm_core::provider::SegmentProvider) and
/// [`Root`](dsm_core::provider::Root), with the errors of [`Error`].
#[derive(Clone, Debug)]
pub struct File(Named);

// SAFETY: the same field each time.
unsafe impl Forward for File {
    type Target = Named;

    fn target(&self) -> &Named {
        &self.0
    }
}

impl File {
    /// The files of a namespace in `directory`, for this user alone.
    ///
    /// # Errors
    ///
    /// [`InvalidName`](dsm_core::error::ErrorKind::InvalidName), see [`NamespaceName::new`];
    /// [`NotFound`](dsm_core::error::ErrorKind::NotFound) and others if the directory can't be
    /// opened.
    pub fn new(directory: impl AsRef<Path>, namespace: &str) -> Result<Self, Error> {
        Self::with_options(directory, namespace, Options::new())
    }

    /// The files of a namespace in `directory`.
    ///
    /// # Errors
    ///
    /// As [`new`](Self::new).
    pub fn with_options(
        directory: impl AsRef<Path>,
        namespace: &str,
        options: Options,
    ) -> Result<Self, Error> {
        Ok(Self(Named::new(Folder::new(directory.as_ref(), namespace, options)?)))
    }

    /// The namespace.
    #[must_use]
    pub fn namespace(&self) -> &NamespaceName {
        &self.0.domain().namespace
    }

    /// Waits, liveness, time and entropy for the processes of this namespace.
    #[must_use]
    pub fn environment(&self) -> Windows {
        Windows::new(self.0.clone())
    }

    /// Names of all namespaces of this session of which a file exists in `directory`, sorted.
    ///
    /// # Errors
    ///
    /// As the system says of the directory.
    pub fn namespaces(directory: impl AsRef<Path>) -> Result<Vec<NamespaceName>, Error> {
        namespaces(directory.as_ref(), &Options::new())
    }
}

/// The files of one namespace in one folder.
#[derive(Debug)]
pub(crate) struct Folder {
    path: PathBuf,
    label: String,
    names: FileNames,
    domain: Arc<Domain>,
}

/// A file that is removed unless its creation succeeds.
struct Unfinished<'a> {
    folder: &'a Folder,
    file: &'a OpenFile,
}

impl Drop for Unfinished<'_> {
    fn drop(&mut self) {
        // There is an error to be reported already; what else can fail here leaves a name whose
        // handle is recorded.
        let _ = self.folder.dispose(self.file);
    }
}

impl Folder {
    pub(crate) fn new(path: &Path, namespace: &str, options: Options) -> Result<Self, Error> {
        let label = path.display().to_string();
        let fail = |code| Error::os(code, OPEN_DIRECTORY, &*label);
        let path = std::path::absolute(path).map_err(|e| fail(Code::of(&e)))?;
        let folder = disk::open(&path, Access::Look).map_err(fail)?;
        let id = disk::stat(&folder).map_err(fail)?.id;
        if !folder.metadata().is_ok_and(|data| data.is_dir()) {
            return Err(Error::refused(Reason::NotADirectory, OPEN_DIRECTORY, &*label));
        }
        let mut place = id.device.to_ne_bytes().to_vec();
        place.extend_from_slice(&id.object.to_ne_bytes());
        let names = FileNames::new(options.scope);
        let domain = Arc::new(Domain::new(namespace, options, hash(&place))?);
        Ok(Self { path, label, names, domain })
    }

    fn path(&self, role: Role) -> PathBuf {
        self.path.join(self.names.file(&self.domain.namespace, role))
    }

    fn fail(&self, code: Code, step: &'static str, role: Role) -> Error {
        Error::os(code, step, self.label(role))
    }

    /// Opens an object, and refuses what is none of ours.
    fn open(&self, role: Role, access: Access) -> Result<(OpenFile, Stat), Error> {
        let file =
            disk::open(&self.path(role), access).map_err(|code| self.fail(code, "open", role))?;
        let stat = disk::stat(&file).map_err(|code| self.fail(code, "query", role))?;
        if !stat.regular {
            return Err(Error::refused(Reason::NotAnObject, "open", self.label(role)));
        }
        Ok((file, stat))
    }

    fn accept(&self, file: &OpenFile, role: Role) -> Result<(), Error> {
        let label = || self.label(role);
        security::accept(file.as_handle(), Kind::File, &self.domain.options, &label)
    }

    /// Creates an object, which must not exist.
    fn create_file(&self, role: Role) -> Result<OpenFile, Error> {
        let path = self.path(role);
        disk::create(&path, &self.domain.security).map_err(|code| {
            let error = self.fail(code, CREATE, role);
            // Access is denied to a name that belongs to something else, or that is about to be
            // deleted: a collision like any other.
            let denied = matches!(code.0, ERROR_ACCESS_DENIED | ERROR_SHARING_VIOLATION);
            let there =
                || !matches!(disk::open(&path, Access::Look), Err(Code(ERROR_FILE_NOT_FOUND)));
            if code.0 == ERROR_DELETE_PENDING || (denied && there()) {
                return error.because(Reason::NameTaken);
            }
            error
        })
    }

    /// Makes a file `size` bytes of zeros, all of them backed.
    fn furnish(&self, file: &OpenFile, size: usize, role: Role) -> Result<(), Error> {
        let size = size as u64;
        let fail = |code| {
            self.fail(code, "reserving", role).with_space(size, &self.label, || {
                let (free, total) = disk::space(&self.path).unwrap_or_default();
                (Reason::DiskFull, free, total)
            })
        };
        let stat = disk::stat(file).map_err(fail)?;
        let missing = size.saturating_sub(stat.backed);
        if disk::space(&self.path).is_some_and(|(free, _)| missing > free) {
            return Err(fail(Code(windows_sys::Win32::Foundation::ERROR_DISK_FULL)));
        }
        if stat.size < size {
            disk::set_len(file, size).map_err(fail)?;
        }
        let backed = disk::stat(file).map_err(fail)?.backed;
        if stat.size != 0 || backed < size {
            disk::write_zeros(file, stat.size.max(size)).map_err(fail)?;
        }
        Ok(())
    }

    fn map(
        &self,
        file: &OpenFile,
        stat: &Stat,
        len: usize,
        purpose: Purpose,
    ) -> Result<Mapping, Code> {
        let write = purpose == Purpose::Use;
        let section = sys::file_section(file.as_handle(), write)?;
        let base = sys::map(section.as_handle(), len, write)?;
        Ok(Mapping { base, len, token: stat.id.object as usize })
    }

    /// Deletes an open file, or at least frees its name.
    fn dispose(&self, file: &OpenFile) -> Result<(), Code> {
        if disk::delete_now(file).is_ok() {
            return Ok(());
        }
        let id = disk::stat(file)?.id;
        disk::rename(file, &self.path.join(gone(id.object)))?;
        // If that fails somebody has it mapped, and will find it.
        let _ = disk::delete_at_last(file);
        Ok(())
    }

    /// Deletes what was removed while it was mapped, unless it still is.
    fn delete_gone(&self, name: &str) {
        if let Ok(file) = disk::open(&self.path.join(name), Access::Remove) {
            if disk::delete_now(&file).is_err() {
                let _ = disk::delete_at_last(&file);
            }
        }
    }

    fn files(path: &Path, found: &mut dyn FnMut(&str)) -> Result<(), Code> {
        for entry in std::fs::read_dir(path).map_err(|e| Code::of(&e))? {
            if let Some(name) = entry.map_err(|e| Code::of(&e))?.file_name().to_str() {
                found(name);
            }
        }
        Ok(())
    }
}

fn info(role: Role, file: &OpenFile, stat: &Stat) -> ObjectInfo {
    let owner = security::owner(file.as_handle(), Kind::File);
    ObjectInfo {
        handle: role.handle(),
        size: stat.size,
        reserved: stat.backed,
        owner: owner.map_or(0, |owner| security::relative_id(&owner)),
        mode: 0o600,
        id: stat.id,
    }
}

impl Store for Folder {
    fn domain(&self) -> &Arc<Domain> {
        &self.domain
    }

    fn label(&self, role: Role) -> String {
        format!(r"{}\{}", self.label, self.names.file(&self.domain.namespace, role))
    }

    fn file(&self, role: Role) -> Option<PathBuf> {
        Some(self.path(role))
    }

    fn create(
        &self,
        role: Role,
        size: usize,
        reserved: usize,
    ) -> Result<(Mapping, ObjectId), Error> {
        check_size(size, reserved)?;
        let file = self.create_file(role)?;
        let unfinished = Unfinished { folder: self, file: &file };
        self.furnish(&file, size, role)?;
        let stat = disk::stat(&file).map_err(|code| self.fail(code, "query", role))?;
        let mapping = self
            .map(&file, &stat, size, Purpose::Use)
            .map_err(|code| self.fail(code, "mapping", role))?;
        std::mem::forget(unfinished);
        Ok((mapping, stat.id))
    }

    fn attach(&self, role: Role, id: ObjectId, purpose: Purpose) -> Result<Mapping, Error> {
        let access = if purpose == Purpose::Use { Access::Write } else { Access::Read };
        let (file, stat) = self.open(role, access)?;
        self.accept(&file, role)?;
        check_identity(id, stat.id, &|| self.label(role), "attaching")?;
        let len = usize::try_from(stat.size).unwrap_or(usize::MAX);
        if len == 0 {
            return Err(refusal::never_completed(self.label(role)));
        }
        self.map(&file, &stat, len, purpose).map_err(|code| self.fail(code, "mapping", role))
    }

    fn reserve(&self, _mapping: &Mapping, _range: Range<usize>) -> Result<(), Error> {
        // Backed as a whole when it was created.
        Ok(())
    }

    unsafe fn detach(&self, mapping: Mapping) {
        // SAFETY: the caller's promise.
        unsafe { sys::unmap(mapping.base) };
        self.delete_gone(&gone(mapping.token as u64));
    }

    fn destroy(&self, role: Role, id: ObjectId) -> Result<(), Error> {
        const STEP: &str = "removal";
        let (file, stat) = match self.open(role, Access::Remove) {
            Ok(opened) => opened,
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(()),
            Err(e) => return Err(e),
        };
        check_identity(id, stat.id, &|| self.label(role), STEP)?;
        let label = || self.label(role);
        security::accept_owner(file.as_handle(), Kind::File, &self.domain.options, &label)?;
        self.dispose(&file).map_err(|code| self.fail(code, STEP, role))
    }

    fn stat(&self, role: Role) -> Result<ObjectInfo, Error> {
        let (file, stat) = self.open(role, Access::Look)?;
        Ok(info(role, &file, &stat))
    }

    fn list(&self, found: &mut dyn FnMut(&ObjectInfo)) -> Result<(), Error> {
        let mut roles = Vec::new();
        let listed = Self::files(&self.path, &mut |name| {
            if let Some((namespace, role)) = self.names.split(name) {
                if namespace == self.domain.namespace {
                    roles.push(role);
                }
            }
        });
        listed.map_err(|code| Error::os(code, LIST, &*self.label))?;
        for role in roles {
            // What went meanwhile is not there.
            if let Ok((file, stat)) = self.open(role, Access::Look) {
                found(&info(role, &file, &stat));
            }
        }
        Ok(())
    }

    fn found(&self) -> Result<(), Error> {
        match self.open(Role::Control, Access::Look) {
            Ok((file, _)) => self.accept(&file, Role::Control),
            Err(e) if e.kind() == ErrorKind::NotFound => self.create_file(Role::Control).map(drop),
            Err(e) => Err(e),
        }
    }

    fn renew(&self, size: usize) -> Result<(Mapping, ObjectId), Error> {
        check_size(size, size)?;
        let role = Role::Control;
        let (file, _) = self.open(role, Access::Write)?;
        self.furnish(&file, size, role).inspect_err(|_| {
            // Of size 0 again; fails if somebody looks at an older one, which stays then.
            let _ = disk::set_len(&file, 0);
        })?;
        let stat = disk::stat(&file).map_err(|code| self.fail(code, "query", role))?;
        let mapping = self
            .map(&file, &stat, size, Purpose::Use)
            .map_err(|code| self.fail(code, "mapping", role))?;
        Ok((mapping, stat.id))
    }

    fn sweep(&self) {
        let mut names = Vec::new();
        let _ = Self::files(&self.path, &mut |name| {
            if is_gone(name) {
                names.push(name.to_owned());
            }
        });
        for name in names {
            self.delete_gone(&name);
        }
    }
}

pub(crate) fn namespaces(path: &Path, options: &Options) -> Result<Vec<NamespaceName>, Error> {
    let names = FileNames::new(options.scope);
    let mut found = Vec::new();
    let listed = Folder::files(path, &mut |file| {
        if let Some((namespace, _)) = names.split(file) {
            found.push(namespace);
        }
    });
    listed.map_err(|code| Error::os(code, LIST, path.display().to_string()))?;
    found.sort_unstable_by(|a, b| a.as_str().cmp(b.as_str()));
    found.dedup();
    Ok(found)
}

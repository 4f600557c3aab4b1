//! System calls on files, each wrapped once.
//!
//! Every handle shares everything (reading, writing, deletion), and none is open longer than a call
//! of ours takes: a view keeps its file's memory without one.

use std::fs::File;
use std::os::windows::fs::FileExt;
use std::os::windows::io::{AsHandle, AsRawHandle, FromRawHandle, OwnedHandle};
use std::path::Path;
use std::ptr::{null, null_mut};
use std::time::Duration;

use dsm_core::handle::ObjectId;
use windows_sys::Win32::Foundation::{
    ERROR_SHARING_VIOLATION, GENERIC_READ, GENERIC_WRITE, INVALID_HANDLE_VALUE,
};
use windows_sys::Win32::Security::SECURITY_ATTRIBUTES;
use windows_sys::Win32::Storage::FileSystem::{
    BY_HANDLE_FILE_INFORMATION, CREATE_NEW, CreateFileW, DELETE, FILE_ATTRIBUTE_DIRECTORY,
    FILE_ATTRIBUTE_NOT_CONTENT_INDEXED, FILE_ATTRIBUTE_REPARSE_POINT, FILE_ATTRIBUTE_TEMPORARY,
    FILE_DISPOSITION_FLAG_DELETE, FILE_DISPOSITION_FLAG_POSIX_SEMANTICS, FILE_DISPOSITION_INFO,
    FILE_DISPOSITION_INFO_EX, FILE_FLAG_BACKUP_SEMANTICS, FILE_FLAG_OPEN_REPARSE_POINT,
    FILE_READ_ATTRIBUTES, FILE_RENAME_INFO, FILE_SHARE_DELETE, FILE_SHARE_READ, FILE_SHARE_WRITE,
    FILE_STANDARD_INFO, FileDispositionInfo, FileDispositionInfoEx, FileRenameInfo,
    FileStandardInfo, GetDiskFreeSpaceExW, GetFileInformationByHandle,
    GetFileInformationByHandleEx, OPEN_EXISTING, READ_CONTROL, SetFileInformationByHandle,
};

use crate::security::Descriptor;
use crate::sys::{Code, wide};

const SHARE: u32 = FILE_SHARE_READ | FILE_SHARE_WRITE | FILE_SHARE_DELETE;

/// What a file is opened for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Access {
    /// A look at its attributes.
    Look,
    Read,
    Write,
    /// Removing it.
    Remove,
}

/// What is known of an open file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Stat {
    pub(crate) id: ObjectId,
    pub(crate) size: u64,
    /// Bytes of the disk that belong to it.
    pub(crate) backed: u64,
    /// Neither a folder nor a link.
    pub(crate) regular: bool,
}

/// Opens what exists. Whoever looks at every new file (virus scanners, indexers) opens it for a
/// moment without sharing: that is waited out.
pub(crate) fn open(path: &Path, access: Access) -> Result<File, Code> {
    let rights = match access {
        Access::Look => FILE_READ_ATTRIBUTES | READ_CONTROL,
        Access::Read => GENERIC_READ,
        Access::Write => GENERIC_READ | GENERIC_WRITE,
        Access::Remove => DELETE | FILE_READ_ATTRIBUTES | READ_CONTROL,
    };
    let path = wide(path);
    let mut pause = Duration::from_millis(1);
    loop {
        let flags = FILE_FLAG_OPEN_REPARSE_POINT | FILE_FLAG_BACKUP_SEMANTICS;
        // SAFETY: the path ends with a zero; neither attributes nor a template are given.
        let handle = unsafe {
            CreateFileW(path.as_ptr(), rights, SHARE, null(), OPEN_EXISTING, flags, null_mut())
        };
        if handle != INVALID_HANDLE_VALUE {
            // SAFETY: fresh from the system, and given to nobody else.
            return Ok(unsafe { OwnedHandle::from_raw_handle(handle) }.into());
        }
        match Code::last() {
            Code(ERROR_SHARING_VIOLATION) if pause < Duration::from_millis(200) => {
                std::thread::sleep(pause);
                pause *= 2;
            }
            code => return Err(code),
        }
    }
}

/// Creates a file that doesn't exist, empty and temporary.
pub(crate) fn create(path: &Path, security: &Descriptor) -> Result<File, Code> {
    let path = wide(path);
    let attributes = SECURITY_ATTRIBUTES {
        nLength: size_of::<SECURITY_ATTRIBUTES>() as u32,
        lpSecurityDescriptor: security.as_ptr(),
        bInheritHandle: 0,
    };
    // SAFETY: the path ends with a zero, the attributes are valid during the call.
    let handle = unsafe {
        CreateFileW(
            path.as_ptr(),
            GENERIC_READ | GENERIC_WRITE | DELETE,
            SHARE,
            &raw const attributes,
            CREATE_NEW,
            FILE_ATTRIBUTE_TEMPORARY | FILE_ATTRIBUTE_NOT_CONTENT_INDEXED,
            null_mut(),
        )
    };
    if handle == INVALID_HANDLE_VALUE {
        return Err(Code::last());
    }
    // SAFETY: fresh from the system, and given to nobody else.
    Ok(unsafe { OwnedHandle::from_raw_handle(handle) }.into())
}

/// Looks at an open file.
pub(crate) fn stat(file: &File) -> Result<Stat, Code> {
    let mut info = BY_HANDLE_FILE_INFORMATION::default();
    // SAFETY: an open handle; the result is writable.
    if unsafe { GetFileInformationByHandle(file.as_raw_handle(), &raw mut info) } == 0 {
        return Err(Code::last());
    }
    let mut standard = FILE_STANDARD_INFO::default();
    // SAFETY: an open handle; the result is writable for the size that is given.
    let done = unsafe {
        GetFileInformationByHandleEx(
            file.as_raw_handle(),
            FileStandardInfo,
            (&raw mut standard).cast(),
            size_of::<FILE_STANDARD_INFO>() as u32,
        )
    };
    if done == 0 {
        return Err(Code::last());
    }
    let join = |high: u32, low: u32| u64::from(high) << 32 | u64::from(low);
    Ok(Stat {
        id: ObjectId {
            device: u64::from(info.dwVolumeSerialNumber),
            object: join(info.nFileIndexHigh, info.nFileIndexLow),
        },
        size: join(info.nFileSizeHigh, info.nFileSizeLow),
        backed: u64::try_from(standard.AllocationSize).unwrap_or(0),
        regular: info.dwFileAttributes & (FILE_ATTRIBUTE_DIRECTORY | FILE_ATTRIBUTE_REPARSE_POINT)
            == 0,
    })
}

/// Sets the length. New bytes are zero; most file systems back them at once.
pub(crate) fn set_len(file: &File, len: u64) -> Result<(), Code> {
    file.set_len(len).map_err(|e| Code::of(&e))
}

/// Writes zeros from the beginning on.
pub(crate) fn write_zeros(file: &File, len: u64) -> Result<(), Code> {
    static ZEROS: [u8; 1 << 16] = [0; 1 << 16];
    let mut at = 0;
    while at < len {
        let part = usize::try_from(len - at).unwrap_or(usize::MAX).min(ZEROS.len());
        let written = file.seek_write(&ZEROS[..part], at).map_err(|e| Code::of(&e))?;
        if written == 0 {
            return Err(Code(windows_sys::Win32::Foundation::ERROR_DISK_FULL));
        }
        at += written as u64;
    }
    Ok(())
}

/// Bytes free to this user, and in all, where a folder lies.
pub(crate) fn space(directory: &Path) -> Option<(u64, u64)> {
    let directory = wide(directory);
    let (mut free, mut total) = (0, 0);
    // SAFETY: the path ends with a zero; the results are writable, the third is not asked for.
    let known = unsafe {
        GetDiskFreeSpaceExW(directory.as_ptr(), &raw mut free, &raw mut total, null_mut())
    };
    (known != 0).then_some((free, total))
}

/// Renames an open file, whatever its name is now; fails if the new name is taken.
pub(crate) fn rename(file: &File, to: &Path) -> Result<(), Code> {
    let to = wide(to);
    let name = size_of_val(&*to) - 2;
    let at = std::mem::offset_of!(FILE_RENAME_INFO, FileName);
    // u64 for the alignment.
    let mut room = vec![0u64; (at + name + 2).div_ceil(8).max(size_of::<FILE_RENAME_INFO>() / 8)];
    let info = room.as_mut_ptr().cast::<FILE_RENAME_INFO>();
    // SAFETY: room for the structure, aligned, valid as zeros.
    unsafe { (*info).FileNameLength = name as u32 };
    // SAFETY: within the same allocation.
    let characters = unsafe { room.as_mut_ptr().cast::<u8>().add(at) };
    // SAFETY: the structure ends with room for the name and its zero, both were allocated above.
    unsafe { characters.copy_from_nonoverlapping(to.as_ptr().cast(), name + 2) };
    // SAFETY: an open handle; the structure is valid for the size that is given.
    let done = unsafe {
        SetFileInformationByHandle(
            file.as_raw_handle(),
            FileRenameInfo,
            room.as_ptr().cast(),
            (at + name + 2).max(size_of::<FILE_RENAME_INFO>()) as u32,
        )
    };
    if done == 0 { Err(Code::last()) } else { Ok(()) }
}

/// Deletes an open file; its name is free as soon as the handle is closed, whoever else has the
/// file open. Systems before Windows 10, and some file systems, can't; nobody can while the file is
/// mapped.
pub(crate) fn delete_now(file: &File) -> Result<(), Code> {
    let info = FILE_DISPOSITION_INFO_EX {
        Flags: FILE_DISPOSITION_FLAG_DELETE | FILE_DISPOSITION_FLAG_POSIX_SEMANTICS,
    };
    // SAFETY: an open handle; the structure is valid for the size that is given.
    let done = unsafe {
        SetFileInformationByHandle(
            file.as_raw_handle(),
            FileDispositionInfoEx,
            (&raw const info).cast(),
            size_of::<FILE_DISPOSITION_INFO_EX>() as u32,
        )
    };
    if done == 0 { Err(Code::last()) } else { Ok(()) }
}

/// Deletes an open file when its last handle is closed; fails while it is mapped.
pub(crate) fn delete_at_last(file: &File) -> Result<(), Code> {
    let info = FILE_DISPOSITION_INFO { DeleteFile: true };
    // SAFETY: an open handle; the structure is valid for the size that is given.
    let done = unsafe {
        SetFileInformationByHandle(
            file.as_handle().as_raw_handle(),
            FileDispositionInfo,
            (&raw const info).cast(),
            size_of::<FILE_DISPOSITION_INFO>() as u32,
        )
    };
    if done == 0 { Err(Code::last()) } else { Ok(()) }
}

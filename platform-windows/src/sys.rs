//! System calls on kernel objects and memory, each wrapped once: checked, with the error's code.
//!
//! Handles are the standard library's [`OwnedHandle`]s, never inherited by child processes: a token
//! of life that a child has inherited would outlive its holder.

use std::os::windows::io::{AsRawHandle, BorrowedHandle, FromRawHandle, OwnedHandle};
use std::ptr::{NonNull, null};
use std::sync::OnceLock;
use std::time::Duration;

use windows_sys::Win32::Foundation::{
    ERROR_ALREADY_EXISTS, ERROR_FILE_NOT_FOUND, GetLastError, HANDLE, INVALID_HANDLE_VALUE,
    SetLastError, WAIT_ABANDONED, WAIT_OBJECT_0, WAIT_TIMEOUT,
};
use windows_sys::Win32::Security::SECURITY_ATTRIBUTES;
use windows_sys::Win32::Storage::FileSystem::READ_CONTROL;
use windows_sys::Win32::System::Memory::{
    CreateFileMappingW, FILE_MAP_READ, FILE_MAP_WRITE, MEM_COMMIT, MEMORY_BASIC_INFORMATION,
    MEMORY_MAPPED_VIEW_ADDRESS, MapViewOfFile, OpenFileMappingW, PAGE_READONLY, PAGE_READWRITE,
    SEC_COMMIT, SEC_RESERVE, UnmapViewOfFile, VirtualAlloc, VirtualQuery,
};
use windows_sys::Win32::System::SystemInformation::{
    GetSystemInfo, GlobalMemoryStatusEx, MEMORYSTATUSEX, SYSTEM_INFO,
};
use windows_sys::Win32::System::Threading::{
    CreateEventW, CreateMutexW, OpenEventW, ReleaseMutex, ResetEvent, SYNCHRONIZATION_SYNCHRONIZE,
    SetEvent, WaitForSingleObject,
};

use crate::security::Descriptor;

/// An error code of the system (`GetLastError`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Code(pub(crate) u32);

impl Code {
    /// The code of the calling thread's last failed call.
    pub(crate) fn last() -> Self {
        // SAFETY: no preconditions.
        Self(unsafe { GetLastError() })
    }

    /// Of an error of the standard library.
    pub(crate) fn of(error: &std::io::Error) -> Self {
        Self(error.raw_os_error().map_or(u32::MAX, |code| code as u32))
    }
}

/// Text as the system wants it: UTF-16 with a zero at the end.
pub(crate) fn wide(text: impl AsRef<std::ffi::OsStr>) -> Vec<u16> {
    use std::os::windows::ffi::OsStrExt;

    text.as_ref().encode_wide().chain([0]).collect()
}

/// Takes over a handle that a call has returned, if it has.
fn take(handle: HANDLE) -> Result<OwnedHandle, Code> {
    if handle.is_null() || handle == INVALID_HANDLE_VALUE {
        return Err(Code::last());
    }
    // SAFETY: fresh from the system, and given to nobody else.
    Ok(unsafe { OwnedHandle::from_raw_handle(handle) })
}

/// As [`take`]; also whether the object existed before, which is said by the last error only. The
/// caller has cleared that before the call.
fn take_created(handle: HANDLE) -> Result<(OwnedHandle, bool), Code> {
    let existed = Code::last() == Code(ERROR_ALREADY_EXISTS);
    Ok((take(handle)?, existed))
}

fn forget_last_error() {
    // SAFETY: no preconditions.
    unsafe { SetLastError(0) };
}

// ---------------------------------------------------------------------------------------------
// Mutexes and events

/// How a wait ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Waited {
    /// The object is, or was, signalled.
    Signalled,
    /// It is a mutex whose owner ended without releasing it; the caller owns it now.
    Abandoned,
    TimedOut,
}

/// Waits for a handle; a timeout of more than 24 days is one of 24 days.
pub(crate) fn wait(handle: BorrowedHandle<'_>, timeout: Duration) -> Result<Waited, Code> {
    // Rounded up: nothing is waited for in vain.
    let milliseconds = timeout.as_nanos().div_ceil(1_000_000).min(0x7fff_ffff) as u32;
    // SAFETY: an open handle.
    match unsafe { WaitForSingleObject(handle.as_raw_handle(), milliseconds) } {
        WAIT_OBJECT_0 => Ok(Waited::Signalled),
        WAIT_ABANDONED => Ok(Waited::Abandoned),
        WAIT_TIMEOUT => Ok(Waited::TimedOut),
        _ => Err(Code::last()),
    }
}

fn attributes(security: &Descriptor) -> SECURITY_ATTRIBUTES {
    SECURITY_ATTRIBUTES {
        nLength: size_of::<SECURITY_ATTRIBUTES>() as u32,
        lpSecurityDescriptor: security.as_ptr(),
        bInheritHandle: 0,
    }
}

/// Opens or creates a mutex, owned by nobody.
pub(crate) fn mutex(name: &[u16], security: &Descriptor) -> Result<OwnedHandle, Code> {
    let attributes = attributes(security);
    // SAFETY: the name ends with a zero, the attributes are valid during the call.
    take(unsafe { CreateMutexW(&raw const attributes, 0, name.as_ptr()) })
}

/// Releases a mutex that the calling thread owns.
pub(crate) fn release_mutex(mutex: BorrowedHandle<'_>) {
    // SAFETY: an open handle. Fails if the thread doesn't own it, which does no harm.
    unsafe { ReleaseMutex(mutex.as_raw_handle()) };
}

/// Opens or creates an event that stays signalled until it is reset; whether it existed before.
pub(crate) fn event(name: &[u16], security: &Descriptor) -> Result<(OwnedHandle, bool), Code> {
    let attributes = attributes(security);
    forget_last_error();
    // SAFETY: the name ends with a zero, the attributes are valid during the call.
    take_created(unsafe { CreateEventW(&raw const attributes, 1, 0, name.as_ptr()) })
}

/// Whether an event of that name exists.
pub(crate) fn event_exists(name: &[u16]) -> Result<bool, Code> {
    // SAFETY: the name ends with a zero.
    match take(unsafe { OpenEventW(SYNCHRONIZATION_SYNCHRONIZE, 0, name.as_ptr()) }) {
        Ok(_) => Ok(true),
        Err(Code(ERROR_FILE_NOT_FOUND)) => Ok(false),
        Err(other) => Err(other),
    }
}

pub(crate) fn set_event(event: BorrowedHandle<'_>) {
    // SAFETY: an open handle.
    unsafe { SetEvent(event.as_raw_handle()) };
}

pub(crate) fn reset_event(event: BorrowedHandle<'_>) {
    // SAFETY: an open handle.
    unsafe { ResetEvent(event.as_raw_handle()) };
}

// ---------------------------------------------------------------------------------------------
// Sections and views

/// A section over a file, as long as the file is. Needs no name: all sections over one file share
/// its memory.
pub(crate) fn file_section(file: BorrowedHandle<'_>, write: bool) -> Result<OwnedHandle, Code> {
    let protection = if write { PAGE_READWRITE } else { PAGE_READONLY };
    // SAFETY: an open handle; neither attributes nor name are required.
    take(unsafe { CreateFileMappingW(file.as_raw_handle(), null(), protection, 0, 0, null()) })
}

/// Opens or creates a section of the page file; whether it existed before. Its memory is
/// committed as a whole, or else step by step, by [`commit`].
pub(crate) fn page_section(
    name: &[u16],
    size: u64,
    whole: bool,
    security: &Descriptor,
) -> Result<(OwnedHandle, bool), Code> {
    let attributes = attributes(security);
    let protection = PAGE_READWRITE | if whole { SEC_COMMIT } else { SEC_RESERVE };
    let (high, low) = ((size >> 32) as u32, size as u32);
    forget_last_error();
    // SAFETY: the name ends with a zero, the attributes are valid during the call; an invalid
    // handle in place of a file means the page file.
    take_created(unsafe {
        CreateFileMappingW(
            INVALID_HANDLE_VALUE,
            &raw const attributes,
            protection,
            high,
            low,
            name.as_ptr(),
        )
    })
}

/// Opens a section of the page file.
pub(crate) fn open_section(name: &[u16], write: bool) -> Result<OwnedHandle, Code> {
    let access = FILE_MAP_READ | READ_CONTROL | if write { FILE_MAP_WRITE } else { 0 };
    // SAFETY: the name ends with a zero.
    take(unsafe { OpenFileMappingW(access, 0, name.as_ptr()) })
}

/// Maps a section, as a whole (`len` 0) or its beginning.
pub(crate) fn map(
    section: BorrowedHandle<'_>,
    len: usize,
    write: bool,
) -> Result<NonNull<u8>, Code> {
    let access = FILE_MAP_READ | if write { FILE_MAP_WRITE } else { 0 };
    // SAFETY: an open handle; the system chooses a free range of addresses.
    let view = unsafe { MapViewOfFile(section.as_raw_handle(), access, 0, 0, len) };
    NonNull::new(view.Value.cast()).ok_or_else(Code::last)
}

/// Unmaps a view.
///
/// # Safety
///
/// `base` came from [`map`], and nothing uses the memory any more.
pub(crate) unsafe fn unmap(base: NonNull<u8>) {
    let view = MEMORY_MAPPED_VIEW_ADDRESS { Value: base.as_ptr().cast() };
    // SAFETY: the caller's promise.
    unsafe { UnmapViewOfFile(view) };
}

/// The length of a view in bytes, a multiple of the page: of regions that were allocated as one,
/// some may be committed and others not.
pub(crate) fn view_len(base: NonNull<u8>) -> usize {
    let mut len = 0;
    loop {
        let at = base.as_ptr().wrapping_add(len);
        let mut region = MEMORY_BASIC_INFORMATION::default();
        // SAFETY: any address may be asked about; the structure is writable for its size.
        let got = unsafe {
            VirtualQuery(at.cast(), &raw mut region, size_of::<MEMORY_BASIC_INFORMATION>())
        };
        if got == 0 || region.AllocationBase != base.as_ptr().cast() || region.RegionSize == 0 {
            return len;
        }
        len += region.RegionSize;
    }
}

/// Commits pages of a view of a section that was only reserved. Idempotent; keeps what is there.
pub(crate) fn commit(at: NonNull<u8>, len: usize) -> Result<(), Code> {
    if len == 0 {
        return Ok(());
    }
    // SAFETY: committing pages of a view changes no page that is committed already.
    let done = unsafe { VirtualAlloc(at.as_ptr().cast(), len, MEM_COMMIT, PAGE_READWRITE) };
    if done.is_null() { Err(Code::last()) } else { Ok(()) }
}

/// The page's size in bytes.
pub(crate) fn page_size() -> usize {
    static PAGE: OnceLock<usize> = OnceLock::new();
    *PAGE.get_or_init(|| {
        let mut info = SYSTEM_INFO::default();
        // SAFETY: the structure is writable.
        unsafe { GetSystemInfo(&raw mut info) };
        info.dwPageSize as usize
    })
}

/// How much memory can still be committed, and how much there is in all, page file included.
pub(crate) fn memory() -> Option<(u64, u64)> {
    let mut status = MEMORYSTATUSEX {
        dwLength: size_of::<MEMORYSTATUSEX>() as u32,
        ..MEMORYSTATUSEX::default()
    };
    // SAFETY: the structure is writable and says its size.
    let known = unsafe { GlobalMemoryStatusEx(&raw mut status) } != 0;
    known.then_some((status.ullAvailPageFile, status.ullTotalPageFile))
}

//! Sections of the page file, as a [`Store`].
//!
//! # Layout
//!
//! A page of our own precedes the memory that is given out:
//!
//! | offset | what | written |
//! |---|---|---|
//! | 0 | magic number | last, by the creator: what has none is not there yet |
//! | 8 | identity, random | once |
//! | 16 | size in bytes, without this page | once |
//! | 24 | end of the last range that was backed | grows |
//! | 32 | 1 if backed as a whole | once |
//! | 36 | 1 once removed | once |
//!
//! A section's size is rounded to pages, so the exact one must be written somewhere. It is held
//! against the section's real size whenever it is mapped, as any process could have made a section
//! of this name.
//!
//! # Names
//!
//! A kernel object loses its name with its last handle, and none can be taken away from it. So
//! every mapping keeps a handle, and removal is a mark. While a removed section is still mapped
//! somewhere, a new one of that role takes the next of a few names (`.0` to `.7`); who looks for it
//! passes over those that are marked. Two processes never create the same role at the same time:
//! the control object's creator holds the election, and a segment's handle belongs to one slot.
//!
//! Nothing ever remains of a section whose processes are gone, so there is nothing to be listed or
//! cleaned up. What this costs is said in the crate's documentation: a segment that only one
//! process has attached goes with it.

use std::ops::Range;
use std::os::windows::io::{AsHandle, FromRawHandle, IntoRawHandle, OwnedHandle};
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use dsm_core::error::{ErrorKind, Reason};
use dsm_core::handle::ObjectId;
use dsm_core::provider::{Mapping, ObjectInfo, ProviderError};
use static_assertions::const_assert;
use windows_sys::Win32::Foundation::{
    ERROR_ACCESS_DENIED, ERROR_COMMITMENT_LIMIT, ERROR_INVALID_HANDLE,
};

use crate::entropy::random;
use crate::error::{CREATE, Error};
use crate::name::{Role, hash};
use crate::object::{Domain, Purpose, Store, check_identity, check_size};
use crate::options::{Options, Scope};
use crate::security::{self, Kind};
use crate::sys::{self, Code};

/// "dsm page"
const MAGIC: u64 = u64::from_le_bytes(*b"dsm page");
/// How many sections of one role can exist, all but one of them removed.
const NAMES: u32 = 8;

/// What precedes the memory of a section.
#[repr(C)]
struct Header {
    magic: AtomicU64,
    identity: AtomicU64,
    size: AtomicU64,
    backed: AtomicU64,
    whole: AtomicU32,
    removed: AtomicU32,
}

/// The header's page.
const FRONT: usize = 4096;
const_assert!(size_of::<Header>() <= FRONT);

/// A view of a section, or of its first page.
struct View {
    base: NonNull<u8>,
    section: OwnedHandle,
}

impl View {
    fn open(section: OwnedHandle, len: usize, write: bool) -> Result<Self, Code> {
        let base = sys::map(section.as_handle(), len, write)?;
        Ok(Self { base, section })
    }

    fn header(&self) -> &Header {
        // SAFETY: at least a page is mapped while `self` lives; the header's fields are atomics,
        // valid whatever their bytes.
        unsafe { self.base.cast().as_ref() }
    }

    fn id(&self) -> ObjectId {
        ObjectId { device: 0, object: self.header().identity.load(Ordering::Relaxed) }
    }

    fn is_there(&self) -> bool {
        self.header().magic.load(Ordering::Acquire) == MAGIC
            && self.header().removed.load(Ordering::Acquire) == 0
    }

    /// The memory behind the header; section and view are the mapping's from now on.
    fn into_mapping(self, len: usize) -> Mapping {
        let this = std::mem::ManuallyDrop::new(self);
        // SAFETY: moved out of a value that is never dropped.
        let section = unsafe { std::ptr::read(&raw const this.section) };
        // SAFETY: more than this page is mapped.
        let base = unsafe { this.base.add(FRONT) };
        Mapping { base, len, token: section.into_raw_handle().expose_provenance() }
    }
}

impl Drop for View {
    fn drop(&mut self) {
        // SAFETY: mapped by `open`, and borrowed no more.
        unsafe { sys::unmap(self.base) };
    }
}

/// The sections of one namespace.
#[derive(Debug)]
pub(crate) struct PageFile {
    domain: Arc<Domain>,
}

impl PageFile {
    pub(crate) fn new(namespace: &str, options: Options) -> Result<Self, Error> {
        let domain = Domain::new(namespace, options, hash(b"page file"))?;
        Ok(Self { domain: Arc::new(domain) })
    }

    fn name(&self, role: Role, number: u32) -> Vec<u16> {
        self.domain.kernel_name(&format!("{role}.{number}"))
    }

    fn fail(&self, code: Code, step: &'static str, role: Role) -> Error {
        Error::os(code, step, self.label(role))
    }

    /// Maps the first page of the object of that role; `None` if there is none.
    fn find(&self, role: Role, write: bool) -> Result<Option<View>, Error> {
        for number in 0..NAMES {
            let section = match sys::open_section(&self.name(role, number), write) {
                Ok(section) => section,
                Err(code) => {
                    let error = self.fail(code, "open", role);
                    match error.kind() {
                        // An object of another type, which is in nobody's way here.
                        ErrorKind::NotFound | ErrorKind::Foreign => continue,
                        _ => return Err(error),
                    }
                }
            };
            let label = || self.label(role);
            security::accept(section.as_handle(), Kind::Kernel, &self.domain.options, &label)?;
            let view = View::open(section, FRONT, write)
                .map_err(|code| self.fail(code, "mapping", role))?;
            if view.is_there() {
                return Ok(Some(view));
            }
        }
        Ok(None)
    }

    fn find_existing(&self, role: Role, write: bool) -> Result<View, Error> {
        self.find(role, write)?.ok_or_else(|| {
            let why = format!("there is no {}", self.label(role));
            Error::new(ErrorKind::NotFound, "open", why)
        })
    }
}

/// Refuses to ask for more than can be committed.
fn enough_memory(asked: usize) -> Result<(), Error> {
    match sys::memory() {
        Some((free, total)) if asked as u64 > free => Err(full(asked, (free, total))),
        _ => Ok(()),
    }
}

fn full(asked: usize, (free, total): (u64, u64)) -> Error {
    let error = Error::os(Code(ERROR_COMMITMENT_LIMIT), "reserving", "");
    error.with_space(asked as u64, "", || (Reason::MachineFull, free, total))
}

/// Commits a range behind a header.
fn back(base: NonNull<u8>, range: &Range<usize>) -> Result<(), Error> {
    let page = sys::page_size();
    let start = range.start & !(page - 1);
    // SAFETY: the range lies in the mapping that begins here.
    let at = unsafe { base.add(start) };
    sys::commit(at, range.end.next_multiple_of(page).saturating_sub(start)).map_err(|code| {
        let error = Error::os(code, "reserving", "");
        match error.kind() {
            ErrorKind::NoSpace | ErrorKind::NoMemory => {
                full(range.len(), sys::memory().unwrap_or_default())
            }
            _ => error,
        }
    })
}

impl Store for PageFile {
    fn domain(&self) -> &Arc<Domain> {
        &self.domain
    }

    fn label(&self, role: Role) -> String {
        format!("section {}.{role}", self.domain.prefix)
    }

    fn create(
        &self,
        role: Role,
        size: usize,
        reserved: usize,
    ) -> Result<(Mapping, ObjectId), Error> {
        check_size(size, reserved)?;
        enough_memory(reserved)?;
        let taken = || Err(Error::refused(Reason::NameTaken, CREATE, self.label(role)));
        match self.find(role, false) {
            Ok(None) => {}
            Ok(Some(_)) => return taken(),
            // Somebody else's: a collision like any other.
            Err(e) if e.kind() == ErrorKind::PermissionDenied => return taken(),
            Err(e) => return Err(e),
        }
        let whole = size == reserved;
        for number in 0..NAMES {
            let name = self.name(role, number);
            let len = (size + FRONT) as u64;
            let section = match sys::page_section(&name, len, whole, &self.domain.security) {
                Ok((section, false)) => section,
                // One that was removed, or an object of another type.
                Ok((_, true)) | Err(Code(ERROR_INVALID_HANDLE)) => continue,
                Err(Code(ERROR_ACCESS_DENIED)) if self.domain.options.scope == Scope::Global => {
                    let why = format!(
                        "{} can't be created: sections of the page file in Global\\ take the \
                         privilege SeCreateGlobalPrivilege; Backing::Files needs none",
                        self.label(role)
                    );
                    return Err(Error::new(ErrorKind::PermissionDenied, CREATE, why));
                }
                Err(code) => {
                    let error = self.fail(code, CREATE, role);
                    let full_up = error.kind() == ErrorKind::NoSpace;
                    let sizes = sys::memory().filter(|_| full_up);
                    return Err(sizes.map_or(error, |sizes| full(reserved, sizes)));
                }
            };
            let view =
                View::open(section, 0, true).map_err(|code| self.fail(code, "mapping", role))?;
            if !whole {
                back(view.base, &(0..FRONT + reserved))?;
            }
            let header = view.header();
            header.identity.store(random() | 1, Ordering::Relaxed);
            header.size.store(size as u64, Ordering::Relaxed);
            header.backed.store(reserved as u64, Ordering::Relaxed);
            header.whole.store(u32::from(whole), Ordering::Relaxed);
            header.magic.store(MAGIC, Ordering::Release);
            let id = view.id();
            return Ok((view.into_mapping(size), id));
        }
        taken()
    }

    fn attach(&self, role: Role, id: ObjectId, purpose: Purpose) -> Result<Mapping, Error> {
        let write = purpose == Purpose::Use;
        let front = self.find_existing(role, write)?;
        check_identity(id, front.id(), &|| self.label(role), "attaching")?;
        let section =
            front.section.try_clone().map_err(|e| self.fail(Code::of(&e), "mapping", role))?;
        let view =
            View::open(section, 0, write).map_err(|code| self.fail(code, "mapping", role))?;
        let real = sys::view_len(view.base).saturating_sub(FRONT);
        let size = usize::try_from(view.header().size.load(Ordering::Relaxed)).unwrap_or(0);
        if size == 0 || size > real {
            let why = format!("{} has {real} bytes and says {size}", self.label(role));
            return Err(Error::new(ErrorKind::Foreign, "attaching", why));
        }
        Ok(view.into_mapping(size))
    }

    fn reserve(&self, mapping: &Mapping, range: Range<usize>) -> Result<(), Error> {
        // SAFETY: a mapping of this store's: a page precedes it in the same view.
        let front = unsafe { mapping.base.sub(FRONT) };
        // SAFETY: as in `View::header`.
        let header: &Header = unsafe { front.cast().as_ref() };
        if header.whole.load(Ordering::Relaxed) != 0 || range.is_empty() {
            return Ok(());
        }
        enough_memory(range.len())?;
        back(mapping.base, &range)?;
        header.backed.fetch_max(range.end as u64, Ordering::Relaxed);
        Ok(())
    }

    unsafe fn detach(&self, mapping: Mapping) {
        // SAFETY: a mapping of this store's: a page precedes it in the same view.
        let base = unsafe { mapping.base.sub(FRONT) };
        // SAFETY: the caller's promise.
        unsafe { sys::unmap(base) };
        let section = std::ptr::with_exposed_provenance_mut(mapping.token);
        // SAFETY: the handle that `into_mapping` left to the mapping, which is used no more.
        drop(unsafe { OwnedHandle::from_raw_handle(section) });
    }

    fn destroy(&self, role: Role, id: ObjectId) -> Result<(), Error> {
        let Some(view) = self.find(role, true)? else { return Ok(()) };
        check_identity(id, view.id(), &|| self.label(role), "removal")?;
        view.header().removed.store(1, Ordering::Release);
        Ok(())
    }

    fn stat(&self, role: Role) -> Result<ObjectInfo, Error> {
        let view = self.find_existing(role, false)?;
        let owner = security::owner(view.section.as_handle(), Kind::Kernel);
        Ok(ObjectInfo {
            handle: role.handle(),
            size: view.header().size.load(Ordering::Relaxed),
            reserved: view.header().backed.load(Ordering::Relaxed),
            owner: owner.map_or(0, |owner| security::relative_id(&owner)),
            mode: 0o600,
            id: view.id(),
        })
    }

    fn list(&self, _found: &mut dyn FnMut(&ObjectInfo)) -> Result<(), Error> {
        let why = "sections of the page file are not listed; none outlives its processes";
        Err(Error::new(ErrorKind::Unsupported, "listing", why))
    }

    fn found(&self) -> Result<(), Error> {
        // There are no empty sections; the object comes into being with its size.
        Ok(())
    }

    fn hold(&self) -> Option<OwnedHandle> {
        let view = self.find(Role::Control, false).ok()??;
        view.section.try_clone().ok()
    }

    fn renew(&self, size: usize) -> Result<(Mapping, ObjectId), Error> {
        check_size(size, size)?;
        self.destroy(Role::Control, ObjectId::default())?;
        self.create(Role::Control, size, size)
    }
}

#[cfg(test)]
mod tests {
    use windows_sys::Win32::System::Memory::{MEM_COMMIT, MEMORY_BASIC_INFORMATION, VirtualQuery};

    use super::*;

    fn page_file(test: &str) -> PageFile {
        let name = format!("test-windows-{test}-{}", std::process::id());
        PageFile::new(&name, Options::new()).unwrap()
    }

    fn role() -> Role {
        Role::Segment(dsm_core::handle::SegmentHandle::from_raw(0x1234_5678).unwrap())
    }

    /// What says that it is longer than it is would be a fault on touch.
    #[test]
    fn the_real_size_counts() {
        let page_file = page_file("liar");
        let (mapping, id) = page_file.create(role(), 10_000, 10_000).unwrap();
        // SAFETY: a page precedes the mapping.
        let front = unsafe { mapping.base.sub(FRONT) };
        // SAFETY: as in `View::header`.
        let header: &Header = unsafe { front.cast().as_ref() };
        for (size, kind) in [
            (10_000, None),
            (12_288, None),
            (12_289, Some(ErrorKind::Foreign)),
            (u64::MAX, Some(ErrorKind::Foreign)),
            (0, Some(ErrorKind::Foreign)),
        ] {
            header.size.store(size, Ordering::Relaxed);
            let attached = page_file.attach(role(), id, Purpose::Use);
            assert_eq!(attached.as_ref().err().map(ProviderError::kind), kind, "{size}");
            if let Ok(attached) = attached {
                assert_eq!(attached.len as u64, size);
                // SAFETY: not used.
                unsafe { page_file.detach(attached) };
            }
        }
        // SAFETY: not used any more.
        unsafe { page_file.detach(mapping) };
    }

    /// The names of one role are used up only by sections that are all still mapped.
    #[test]
    fn removed_sections_take_names_while_they_are_mapped() {
        let page_file = page_file("names");
        let mut held = Vec::new();
        for _ in 0..NAMES {
            held.push(page_file.create(role(), 1, 1).unwrap().0);
            page_file.destroy(role(), ObjectId::default()).unwrap();
        }
        let refused = page_file.create(role(), 1, 1).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::AlreadyExists);
        // SAFETY: not used any more.
        unsafe { page_file.detach(held.swap_remove(3)) };
        held.push(page_file.create(role(), 1, 1).unwrap().0);
        let found = page_file.attach(role(), ObjectId::default(), Purpose::Use).unwrap();
        for mapping in held.into_iter().chain([found]) {
            // SAFETY: not used any more.
            unsafe { page_file.detach(mapping) };
        }
        assert_eq!(page_file.stat(role()).unwrap_err().kind(), ErrorKind::NotFound);
    }

    /// Whether the page at an offset is committed: touching one that isn't may be harmless, as it
    /// is under Wine.
    fn is_committed(mapping: &Mapping, offset: usize) -> bool {
        let at = mapping.base.as_ptr().wrapping_add(offset);
        let mut region = MEMORY_BASIC_INFORMATION::default();
        // SAFETY: any address may be asked about; the structure is writable for its size.
        let got = unsafe {
            VirtualQuery(at.cast(), &raw mut region, size_of::<MEMORY_BASIC_INFORMATION>())
        };
        assert_ne!(got, 0);
        region.State == MEM_COMMIT
    }

    #[test]
    fn memory_is_committed_as_it_is_reserved() {
        let page_file = page_file("commit");
        let (mapping, id) = page_file.create(role(), 1 << 20, 10_000).unwrap();
        let (whole, _) = page_file.create(Role::Control, 1 << 20, 1 << 20).unwrap();
        let committed = |offsets: [usize; 4]| offsets.map(|at| is_committed(&mapping, at));
        assert_eq!(committed([0, 9_999, 12_288, 1 << 19]), [true, true, false, false]);
        assert!(is_committed(&whole, (1 << 20) - 1));
        page_file.reserve(&mapping, 400_001..409_601).unwrap();
        page_file.reserve(&whole, 0..1 << 20).unwrap();
        assert_eq!(committed([397_311, 397_312, 409_600, 413_696]), [false, true, true, false]);
        // In every mapping of it.
        let again = page_file.attach(role(), id, Purpose::Use).unwrap();
        assert!(is_committed(&again, 400_001) && !is_committed(&again, 1 << 19));
        for mapping in [mapping, whole, again] {
            // SAFETY: not used any more.
            unsafe { page_file.detach(mapping) };
        }
    }

    /// Kernel objects of all types share their names.
    #[test]
    fn an_object_of_another_type_is_in_nobodys_way() {
        let page_file = page_file("types");
        let _event = sys::event(&page_file.name(role(), 0), &page_file.domain.security).unwrap();
        assert_eq!(page_file.stat(role()).unwrap_err().kind(), ErrorKind::NotFound);
        let (mapping, id) = page_file.create(role(), 1, 1).unwrap();
        assert_eq!(page_file.stat(role()).unwrap().id, id);
        // SAFETY: not used any more.
        unsafe { page_file.detach(mapping) };
    }
}

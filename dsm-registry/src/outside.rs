//! The table of names, read from outside.
//!
//! The segments of the registry's area are mapped one by one, past the namespace: that leaves no
//! trace in it, and a segment that is removed meanwhile stays readable until it is unmapped. The
//! table is attached in a store that resolves pointers in these mappings alone, and its entries
//! are copied without a lock. Nothing here writes to shared memory, and nothing that is read is
//! trusted: handles and pointers are checked before they are followed.

use std::ptr::NonNull;

use dsa_core::DsaPointer;
use dshash_core::{Params, Peeked, Store, Table, TableHandle, Unresolved};
use dsm_core::error::ErrorKind as FailureKind;
use dsm_core::handle::{LockAddress, SegmentHandle};
use dsm_core::inspect::{Inspector, SegmentInfo};
use dsm_core::lock::rw::RwLock;
use dsm_core::namespace;
use dsm_core::provider::{ErasedProvider, Mapping};

use crate::entry::{Entry, Header, MAGIC, ROOT_AREA, ROOT_HEADER, State};
use crate::error::kind::ErrorKind;
use crate::error::{Error, Kind};
use crate::manage::Listing;
use crate::name::{self, NameKey};
use crate::names::{PARTITIONS, TYPE_TAG};

/// A segment of the registry's area.
struct Mapped {
    /// As in pointers.
    key: u32,
    base: NonNull<u8>,
    len: usize,
    /// What is to be unmapped; `None` in the main region.
    mapping: Option<Mapping>,
}

/// The mapped segments of the registry's area, unmapped when dropped.
struct Outside<'p> {
    segments: Vec<Mapped>,
    provider: &'p dyn ErasedProvider,
}

impl Drop for Outside<'_> {
    fn drop(&mut self) {
        for mapping in self.segments.iter().filter_map(|segment| segment.mapping) {
            // SAFETY: mapped by `map`, and used through this alone.
            unsafe { self.provider.detach(mapping) };
        }
    }
}

impl Outside<'_> {
    /// Maps a segment, if it is one of an area, and not gone by now.
    fn map(
        &mut self,
        inspector: &Inspector<'_>,
        info: &SegmentInfo,
    ) -> Result<(), namespace::Error> {
        let (base, len, mapping) = if info.handle.is_main_region() {
            let Some((base, len)) = inspector.in_main_region(info.handle) else { return Ok(()) };
            (base, len, None)
        } else {
            match self.provider.attach(info.handle, info.id) {
                Ok(mapping) => (mapping.base, mapping.len, Some(mapping)),
                Err(e) if e.kind == FailureKind::NotFound => return Ok(()),
                Err(e) => return Err(e.into()),
            }
        };
        // SAFETY: mapped just now, aligned to a page.
        let key = unsafe { dsa_core::segment_key(base, len as u64) };
        // Kept in any case, to be unmapped; no pointer has the key 0.
        self.segments.push(Mapped { key: key.unwrap_or(0), base, len, mapping });
        Ok(())
    }
}

// SAFETY: the mappings stay until this is dropped, are aligned to pages, and shared.
unsafe impl Store for &Outside<'_> {
    type Lock = RwLock;

    fn resolve(&self, pointer: DsaPointer, len: usize) -> Result<NonNull<u8>, Unresolved> {
        let known = |segment: &&Mapped| segment.key != 0 && segment.key == pointer.key();
        let segment = self.segments.iter().find(known).ok_or(Unresolved::Nowhere)?;
        let offset = usize::try_from(pointer.offset()).map_err(|_| Unresolved::Nowhere)?;
        if offset.checked_add(len).is_none_or(|end| end > segment.len) {
            return Err(Unresolved::Nowhere);
        }
        // SAFETY: the offset lies inside the mapping.
        Ok(unsafe { segment.base.add(offset) })
    }

    fn lock_address(&self, pointer: DsaPointer) -> Option<LockAddress> {
        // Nobody takes a lock from outside.
        Some(LockAddress::new(0, pointer.offset()))
    }

    fn id(&self) -> usize {
        std::ptr::from_ref(*self).addr()
    }
}

/// All names, sorted.
pub(crate) fn names(
    inspector: &Inspector<'_>,
    provider: &dyn ErasedProvider,
    namespace: &str,
) -> Result<Vec<Listing>, Error> {
    let damaged = |what| ErrorKind::Damaged { namespace: namespace.into(), what };
    let Some(area) = SegmentHandle::from_raw(inspector.root(ROOT_AREA)) else {
        return Ok(Vec::new());
    };
    let segments: Vec<SegmentInfo> = inspector.segments().collect();
    let mut outside = Outside { segments: Vec::new(), provider };
    for info in segments.iter().filter(|s| s.handle == area || s.under == Some(area)) {
        outside.map(inspector, info).map_err(|e| Error::from(e).in_namespace(namespace))?;
    }
    let at = (&outside)
        .resolve(DsaPointer::from_raw(inspector.root(ROOT_HEADER)), size_of::<Header>())
        .ok()
        .map(NonNull::cast::<Header>)
        .filter(|at| at.is_aligned());
    let Some(header) = at else {
        // Built at this moment, or left unfinished by who died.
        return Ok(Vec::new());
    };
    // SAFETY: mapped, long enough, aligned; any bytes are a header.
    let (magic, table) = unsafe { header.as_ref() }.parts();
    if magic != MAGIC {
        return Err(damaged("the header's magic").into());
    }
    let params = Params { partitions: PARTITIONS, type_tag: TYPE_TAG };
    let handle = TableHandle(DsaPointer::from_raw(table));
    // SAFETY: the header names the table that was built with it; what is read of it is checked.
    let table = unsafe { Table::<NameKey, Entry, _>::attach(&outside, handle, &params) }?;
    let mut found = Vec::new();
    let mut show =
        |seen: Peeked<NameKey, Entry>| found.extend(listing(inspector, &segments, &seen));
    table.peek(&mut show)?;
    found.sort_by(|a, b| a.name.cmp(&b.name));
    // One that moved while it was looked at was seen twice.
    found.dedup_by(|a, b| a.name == b.name);
    Ok(found)
}

/// `None` for what makes no sense, or is being removed.
fn listing(
    inspector: &Inspector<'_>,
    segments: &[SegmentInfo],
    seen: &Peeked<NameKey, Entry>,
) -> Option<Listing> {
    let entry = &seen.value;
    let description = entry.shape.describe()?;
    let initialising = match entry.state()? {
        State::Ready => None,
        State::Removing(_) => return None,
        State::Initialising(id) => {
            let who = inspector.participants().find(|p| p.id == id);
            let slot = who.map(|p| p.process);
            let process = inspector.processes().find(|p| Some(p.slot) == slot);
            Some(process.map_or(0, |p| p.proof.pid))
        }
    };
    let handle = SegmentHandle::from_raw(entry.handle());
    let own = segments.iter().find(|s| Some(s.handle) == handle);
    let (mut size, mut used) = (description.value_size, description.value_size);
    if matches!(description.kind, Kind::Area | Kind::Hash) {
        let all = || {
            segments
                .iter()
                .filter(|s| handle.is_some() && (Some(s.handle) == handle || s.under == handle))
        };
        size = all().map(|s| s.size).sum();
        used = all().map(|s| s.reserved).sum();
    }
    Some(Listing {
        name: name::text(&seen.key),
        kind: description.kind,
        description,
        size,
        used,
        attached: own.map_or(0, |s| s.attached),
        initialising,
    })
}

//! [`Registry`]: a process's handle to a namespace, and the get-or-create calls.
//!
//! Looking up a name that was looked up before must cost no more than a few lock cycles, however
//! many names there are: each `Registry` keeps what it found in a map from names to attached
//! objects. What is found there is still meant by the name as long as the header's change count is
//! what it was when the name was last read from shared memory; a removal raises the count, and
//! every name is read anew once after that.
//!
//! The slow way is [`turn::take`]: then either the name is there, and its object is attached, or
//! this thread initialises it. Either way the object is then used as the types that were asked for,
//! and as no others in this process (module `used`).

use std::any::{Any, TypeId};
use std::collections::HashMap;
use std::hash::BuildHasherDefault;
use std::mem::ManuallyDrop;
use std::sync::{Arc, PoisonError, RwLock};

use dsm_core::handle::SegmentHandle;
use dsm_core::sync::Ordering;
use rapidhash::fast::RapidHasher;

use crate::area::{Area, AreaObject};
use crate::builder::Builder;
use crate::entry::{Shape, TypeInfo};
use crate::error::context::Context;
use crate::error::kind::ErrorKind;
use crate::error::{BoxError, Error, Kind};
use crate::name;
use crate::names::Seen;
use crate::options::{AreaOptions, HashOptions, SegmentOptions};
use crate::plain::{Key, Plain};
use crate::process::Attachment;
use crate::segment::{Bytes, Init, Segment, SegmentObject};
use crate::table::{HashTable, TypedTable};
use crate::turn::{self, Claim, Turn};
use crate::used::Asked;

/// A namespace, opened by this process. Cheap to clone; the last handle of the process, of this
/// type or of anything looked up through it, leaves the namespace when it is dropped.
#[derive(Clone)]
pub struct Registry {
    pub(crate) shared: Arc<Shared>,
}

/// What all `Registry` handles to one namespace share.
pub(crate) struct Shared {
    pub(crate) home: Arc<Attachment>,
    /// Leaked in a forked child, in which it may be locked, and half changed, for ever.
    pub(crate) cache: ManuallyDrop<RwLock<Cache>>,
}

type Cache = HashMap<Box<str>, Cached, BuildHasherDefault<RapidHasher<'static>>>;

impl Shared {
    pub(crate) fn new(home: Arc<Attachment>) -> Self {
        Self { home, cache: ManuallyDrop::default() }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        if self.home.is_ours() {
            // SAFETY: dropped here only.
            unsafe { ManuallyDrop::drop(&mut self.cache) };
        }
    }
}

/// What a name meant when it was last looked up.
pub(crate) struct Cached {
    object: Object,
    /// The Rust types it was asked for by; `None` if that was with a tag, or a size.
    types: Option<TypeId>,
    /// The header's change count when the entry was read.
    changes: u64,
}

/// Something attached.
#[derive(Clone)]
pub(crate) enum Object {
    Segment(Arc<SegmentObject>),
    Area(Arc<AreaObject>),
    /// A `TypedTable` of the types it was asked for by.
    Table(Arc<dyn Any + Send + Sync>),
}

impl Registry {
    /// Opens a namespace of the system's default backend, creating it if there is none.
    ///
    /// What the processes of an earlier namespace of this name left behind is cleaned away first
    /// if they are all dead and it is not persistent.
    ///
    /// # Errors
    ///
    /// See [`Error`]; nothing is left behind.
    pub fn open(namespace: &str) -> Result<Self, Error> {
        Self::builder(namespace).open()
    }

    /// A builder, for everything that `open` takes for granted.
    pub fn builder(namespace: &str) -> Builder {
        Builder::new(namespace)
    }

    /// The namespace's name.
    #[must_use]
    pub fn namespace(&self) -> &str {
        self.shared.home.name()
    }

    /// A named value in a segment of its own, created by `init` if there is none.
    ///
    /// Exactly one process runs `init`, on zeroed memory that nobody else sees; all others
    /// wait. If it returns an error, panics or is killed, the next caller initialises. It may use
    /// the registry, but not ask for its own name.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Initialiser`] if `init` failed; [`ErrorKind::Mismatch`] if the name means
    /// something else; [`ErrorKind::OutOfMemory`], [`ErrorKind::Namespace`] if it can't be created
    /// or attached; [`ErrorKind::InvalidName`]; what another initialiser of the name leads to:
    /// [`ErrorKind::OwnInitialiser`], [`ErrorKind::InitialiserCycle`],
    /// [`ErrorKind::InitialiserTimedOut`].
    #[doc(alias = "GetNamedDSMSegment")]
    pub fn segment<T: Plain>(
        &self,
        name: &str,
        init: impl FnOnce(&mut Init<'_, T>) -> Result<(), BoxError>,
    ) -> Result<Segment<T>, Error> {
        if let Some(Object::Segment(object)) = self.known(name, TypeId::of::<Segment<T>>()) {
            return Segment::new(object)
                .ok_or_else(|| self.shared.home.damaged("a segment's size"));
        }
        self.segment_with(name, SegmentOptions::new(), init)
    }

    /// As [`segment`](Self::segment), with options.
    ///
    /// # Errors
    ///
    /// As there.
    pub fn segment_with<T: Plain>(
        &self,
        name: &str,
        options: SegmentOptions,
        init: impl FnOnce(&mut Init<'_, T>) -> Result<(), BoxError>,
    ) -> Result<Segment<T>, Error> {
        let shape = Shape::new(Kind::Segment, TypeInfo::of::<T>(options.tag), TypeInfo::NONE);
        let asked = Asked::new::<Segment<T>, T, ()>(shape);
        let size = size_of::<T>().max(1);
        let create = |claim: Claim<'_>| {
            self.create_segment(name, &asked, claim, size, |segment| {
                // SAFETY: a new segment, long enough, aligned to a page, zeroed, and seen by
                // nobody else; T is `FromBytes`, so that zeros are a value.
                let value = unsafe { segment.core().base().cast::<T>().as_mut() };
                init(&mut Init::new(value))
            })
        };
        let attach = |seen: &Seen| self.attach_segment(name, &asked, seen);
        let object = self.find(name, &asked, options.tag.is_none(), create, attach)?;
        match object {
            Object::Segment(object) => Segment::new(object),
            _ => None,
        }
        .ok_or_else(|| self.shared.home.damaged("a segment's size"))
    }

    /// A named segment of `len` bytes, filled by `init` if there is none; otherwise as
    /// [`segment`](Self::segment).
    ///
    /// # Errors
    ///
    /// As there; another length is a mismatch, and no length at all [`ErrorKind::InvalidOption`].
    pub fn segment_bytes(
        &self,
        name: &str,
        len: usize,
        init: impl FnOnce(&mut [u8]) -> Result<(), BoxError>,
    ) -> Result<Bytes, Error> {
        let shape = Shape::new(Kind::Bytes, TypeInfo::bytes(len as u64), TypeInfo::NONE);
        let asked = Asked::new::<Bytes, (), ()>(shape);
        let create = |claim: Claim<'_>| {
            self.create_segment(name, &asked, claim, len, |segment| {
                let base = segment.core().base();
                // SAFETY: a new segment of that length, zeroed, and seen by nobody else.
                init(unsafe { std::slice::from_raw_parts_mut(base.as_ptr(), len) })
            })
        };
        let attach = |seen: &Seen| self.attach_segment(name, &asked, seen);
        let object = self.find(name, &asked, false, create, attach)?;
        match object {
            Object::Segment(object) => Bytes::new(object, len),
            _ => None,
        }
        .ok_or_else(|| self.shared.home.damaged("a segment's size"))
    }

    /// A named area to allocate from, created if there is none.
    ///
    /// # Errors
    ///
    /// As [`segment`](Self::segment), without an initialiser of the caller's.
    #[doc(alias = "GetNamedDSA")]
    pub fn area(&self, name: &str) -> Result<Area, Error> {
        if let Some(Object::Area(object)) = self.known(name, TypeId::of::<Area>()) {
            return Ok(Area::new(object));
        }
        self.area_with(name, AreaOptions::new())
    }

    /// As [`area`](Self::area), with options for its creation.
    ///
    /// # Errors
    ///
    /// As there; [`ErrorKind::InvalidOption`].
    pub fn area_with(&self, name: &str, options: AreaOptions) -> Result<Area, Error> {
        let options = options.to_core()?;
        let shape = Shape::new(Kind::Area, TypeInfo::NONE, TypeInfo::NONE);
        let asked = Asked::new::<Area, (), ()>(shape);
        let create = |claim: Claim<'_>| {
            let object = self.create_area(name, &asked, &options)?;
            self.publish(claim, object.handle(), 0)?;
            Ok(Object::Area(object))
        };
        let attach = |seen: &Seen| Ok(self.attach_area(name, &asked, seen)?.map(Object::Area));
        let object = self.find(name, &asked, true, create, attach)?;
        match object {
            Object::Area(object) => Ok(Area::new(object)),
            _ => Err(self.shared.home.damaged("an entry's kind")),
        }
    }

    /// A named hash table from `K` to `V`, created if there is none.
    ///
    /// # Errors
    ///
    /// As [`segment`](Self::segment), without an initialiser of the caller's.
    #[doc(alias = "GetNamedDSHash")]
    #[inline]
    pub fn hash<K: Key, V: Plain>(&self, name: &str) -> Result<HashTable<K, V>, Error> {
        if let Some(Object::Table(table)) = self.known(name, TypeId::of::<HashTable<K, V>>()) {
            if let Ok(table) = table.downcast() {
                return Ok(HashTable::new(table));
            }
        }
        self.hash_with(name, HashOptions::new())
    }

    /// As [`hash`](Self::hash), with options.
    ///
    /// # Errors
    ///
    /// As there; [`ErrorKind::InvalidOption`].
    pub fn hash_with<K: Key, V: Plain>(
        &self,
        name: &str,
        options: HashOptions,
    ) -> Result<HashTable<K, V>, Error> {
        let in_area = options.area()?.to_core()?;
        let value = TypeInfo::of::<V>(options.value_tag);
        let shape = Shape::new(Kind::Hash, value, TypeInfo::of::<K>(options.key_tag));
        let asked = Asked::new::<HashTable<K, V>, V, K>(shape);
        let create = |claim: Claim<'_>| {
            let area = self.create_area(name, &asked, &in_area)?;
            let table = TypedTable::<K, V>::create(Arc::clone(&area), &options)?;
            self.publish(claim, area.handle(), table.handle())?;
            Ok(Object::Table(Arc::new(table)))
        };
        let attach = |seen: &Seen| {
            let Some(area) = self.attach_area(name, &asked, seen)? else { return Ok(None) };
            // SAFETY: the entry names a table of this shape in its area, made by `create`, which
            // this process uses as one of these very types.
            let table = unsafe { TypedTable::<K, V>::attach(area, seen.table) }?;
            Ok(Some(Object::Table(Arc::new(table))))
        };
        let object = self.find(name, &asked, options.value_tag.is_none(), create, attach)?;
        let table = match object {
            Object::Table(table) => table.downcast().ok(),
            _ => None,
        };
        table.map(HashTable::new).ok_or_else(|| self.shared.home.damaged("an entry's kind"))
    }

    /// The short way: what this process found under the name before, if that is still what it
    /// means.
    #[inline]
    fn known(&self, name: &str, types: TypeId) -> Option<Object> {
        // First: in a forked child the cache may be locked for ever.
        if !self.shared.home.is_ours() {
            return None;
        }
        let cache = self.shared.cache.read().unwrap_or_else(PoisonError::into_inner);
        let cached = cache.get(name)?;
        let fresh = cached.types == Some(types)
            && cached.changes == self.shared.home.header().changes.load(Ordering::Acquire);
        fresh.then(|| cached.object.clone())
    }

    /// The long way: finds the name in shared memory, or creates it. `by_type`: whether without a
    /// tag.
    #[cold]
    fn find(
        &self,
        name: &str,
        asked: &Asked,
        by_type: bool,
        create: impl FnOnce(Claim<'_>) -> Result<Object, Error>,
        attach: impl Fn(&Seen) -> Result<Option<Object>, Error>,
    ) -> Result<Object, Error> {
        let home = &self.shared.home;
        let key = name::key(name)?;
        home.confirm_name()?;
        let mut missing = None;
        loop {
            let changes = home.header().changes.load(Ordering::Acquire);
            let object = match turn::take(home, name, &key, &asked.shape)? {
                Turn::Mine(claim) => create(claim)?,
                Turn::Ready(seen) => match attach(&seen)? {
                    Some(object) => object,
                    // Removed since it was seen; if not, somebody unpinned what is not his.
                    None if missing == Some(seen.handle) => {
                        return Err(home.memory_removed().of_memory(name));
                    }
                    None => {
                        missing = Some(seen.handle);
                        continue;
                    }
                },
            };
            let types = by_type.then_some(asked.types);
            let cached = Cached { object: object.clone(), types, changes };
            let mut cache = self.shared.cache.write().unwrap_or_else(PoisonError::into_inner);
            let old = cache.insert(name.into(), cached);
            drop(cache);
            drop(old);
            return Ok(object);
        }
    }

    fn attach_segment(
        &self,
        name: &str,
        asked: &Asked,
        seen: &Seen,
    ) -> Result<Option<Object>, Error> {
        let home = &self.shared.home;
        let Some(handle) = SegmentHandle::from_raw(seen.handle) else { return Ok(None) };
        let object = home.segments().get_or_attach(seen.handle, || {
            let segment = home.namespace_static().attach_segment(handle);
            let segment = segment.of(home, &asked.label(name)).map_err(|e| e.of_memory(name))?;
            Ok(segment.map(|segment| SegmentObject::new(segment, Arc::clone(home))))
        })?;
        object.as_deref().map_or(Ok(()), |object| object.use_as(name, asked))?;
        Ok(object.map(Object::Segment))
    }

    fn attach_area(
        &self,
        name: &str,
        asked: &Asked,
        seen: &Seen,
    ) -> Result<Option<Arc<AreaObject>>, Error> {
        let home = &self.shared.home;
        let object = home.areas().get_or_attach(seen.handle, || {
            AreaObject::attach(home, &asked.label(name), seen.handle)
        });
        let object = object.map_err(|e| e.of_memory(name))?;
        object.as_deref().map_or(Ok(()), |object| object.use_as(name, asked))?;
        Ok(object)
    }

    fn create_area(
        &self,
        name: &str,
        asked: &Asked,
        options: &dsa_core::Options,
    ) -> Result<Arc<AreaObject>, Error> {
        let home = &self.shared.home;
        let area = AreaObject::create(home, &asked.label(name), options)?;
        let area = home.areas().add(area.handle(), area);
        area.use_as(name, asked)?;
        Ok(area)
    }

    fn create_segment(
        &self,
        name: &str,
        asked: &Asked,
        claim: Claim<'_>,
        size: usize,
        init: impl FnOnce(&SegmentObject) -> Result<(), BoxError>,
    ) -> Result<Object, Error> {
        let home = &self.shared.home;
        if size == 0 {
            let reason = "it can't be 0: a segment has at least one byte".to_owned();
            return Err(ErrorKind::InvalidOption { what: "len", reason }.into());
        }
        let segment =
            home.namespace_static().create_segment(size, size).of(home, &asked.label(name))?;
        if segment.handle().is_main_region() {
            // Memory of the main region keeps what its last user left.
            // SAFETY: a new segment of that length that nobody else sees.
            unsafe { segment.base().write_bytes(0, size) };
        }
        let handle = segment.handle().get();
        let object = home.segments().add(handle, SegmentObject::new(segment, Arc::clone(home)));
        object.use_as(name, asked)?;
        init(&object).map_err(|error| Error::of_initialiser(name, error))?;
        self.publish(claim, object.handle(), 0)?;
        Ok(Object::Segment(object))
    }

    fn publish(&self, claim: Claim<'_>, handle: u64, table: u64) -> Result<(), Error> {
        let home = &self.shared.home;
        claim.publish(handle, table, || {
            let Some(handle) = SegmentHandle::from_raw(handle) else {
                return Err(home.damaged("a handle of zero"));
            };
            home.namespace().pin_segment(handle).of(home, "a pin")
        })
    }
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    /// The thread that has the cache locked is not there in a child.
    #[test]
    fn a_child_does_not_wait_for_the_cache_of_its_parent() {
        let registry = Registry::open(&format!("fork-cache-{}", std::process::id())).unwrap();
        let cache = registry.shared.cache.write().unwrap();
        // SAFETY: the child runs what a child may run, and exits.
        let child = unsafe { libc::fork() };
        if child == 0 {
            // SAFETY: ends the child, should it hang.
            unsafe { libc::alarm(20) };
            let told = matches!(registry.area("area"), Err(e) if *e.kind() == ErrorKind::Forked);
            drop(registry.clone());
            // SAFETY: ends the child without running anything of the harness.
            unsafe { libc::_exit(i32::from(!told)) };
        }
        let mut status = -1;
        // SAFETY: our own child; the status is writable.
        assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
        assert_eq!(status, 0);
        drop(cache);
    }
}

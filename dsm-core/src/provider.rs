//! Where memory comes from: [`SegmentProvider`] and [`Root`].
//!
//! An implementor maps named objects of its platform; everything about who may use them, and
//! when they go, is decided by this crate in the control segment.

use core::ops::Range;
use core::ptr::NonNull;
use core::time::Duration;

use crate::error::{ErrorKind, ProviderFailure};
use crate::handle::{ObjectId, SegmentHandle};

/// A mapped object: plain data, unmapped only by [`SegmentProvider::detach`]. Anybody can make one;
/// what a *returned* one promises is said by the trait whose function returns it.
#[derive(Clone, Copy, Debug)]
pub struct Mapping {
    /// First byte; aligned to a page.
    pub base: NonNull<u8>,
    /// Length in bytes of the object as mapped.
    pub len: usize,
    /// For the provider's own use (a Windows handle, a System V id); zero if it needs none.
    pub token: usize,
}

// SAFETY: plain data; whoever uses the pointer says why that is sound.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

/// What the platform knows of an object without mapping it.
#[derive(Clone, Copy, Debug, Default)]
pub struct ObjectInfo {
    /// The handle read from the object's name; `None` for the control object.
    pub handle: Option<SegmentHandle>,
    /// Length in bytes.
    pub size: u64,
    /// Bytes backed by memory.
    pub reserved: u64,
    /// User id of the owner; zero where the platform has none.
    pub owner: u32,
    /// Permission bits.
    pub mode: u32,
    /// Identity.
    pub id: ObjectId,
}

/// The error of a provider: any error type that tells its kind.
///
/// Safe to implement: an error of the wrong kind makes its caller give up, try again, or take an
/// object for gone, of which it then uses nothing.
pub trait ProviderError: core::error::Error + Send + Sync + 'static {
    /// The kind, on which the cores decide (retry, give up, treat as gone).
    fn kind(&self) -> ErrorKind;

    /// The error reduced to plain data, for crates that cannot be generic over it.
    fn failure(&self) -> ProviderFailure {
        ProviderFailure { kind: self.kind(), ..ProviderFailure::default() }
    }
}

/// Creates, maps and destroys segments of one namespace.
///
/// # Safety
///
/// Whoever has a segment uses its memory as long as it is mapped:
///
/// - A returned [`Mapping`] must be aligned to [`page_size`](Self::page_size) (and to 64), and
///   valid for reads and writes of `len` bytes, shared with every other mapping of the object,
///   until it is passed to `detach`, whatever becomes of the object's name. After `blank` it stays
///   valid for reads.
/// - Of a newly created object, `len` must be at least `size`. Its first `reserved` bytes must be
///   backed by memory, and so must a range for which `reserve` has returned `Ok`: touching it
///   cannot fault.
/// - `create` must make an object that nobody else has, and `attach` must map the object `id`,
///   unless that is all zero.
pub unsafe trait SegmentProvider: Send + Sync {
    /// The error type.
    type Error: ProviderError;

    /// Granularity of mapping and reservation in bytes: a power of two.
    fn page_size(&self) -> usize;

    /// Creates and maps the object named by `handle` with `size` bytes, the first `reserved` of
    /// them backed by memory. Bytes of a new object are zero unless the provider's docs say
    /// otherwise. On error nothing is left behind.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::AlreadyExists`] if the name is taken (the caller draws another handle),
    /// [`ErrorKind::NoSpace`] if memory is short, [`ErrorKind::InvalidSize`] for a size of zero,
    /// one that cannot be mapped, or more reserved than there is.
    fn create(
        &self,
        handle: SegmentHandle,
        size: usize,
        reserved: usize,
    ) -> Result<(Mapping, ObjectId), Self::Error>;

    /// Maps the existing object named by `handle`, refusing it if it is not `id` (unless `id` is
    /// all zero).
    ///
    /// # Errors
    ///
    /// [`ErrorKind::NotFound`], [`ErrorKind::Foreign`], [`ErrorKind::PermissionDenied`].
    fn attach(&self, handle: SegmentHandle, id: ObjectId) -> Result<Mapping, Self::Error>;

    /// Backs a range of a mapped object with memory. Idempotent.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::NoSpace`]; the range may be partly backed then.
    fn reserve(
        &self,
        handle: SegmentHandle,
        mapping: &Mapping,
        range: Range<usize>,
    ) -> Result<(), Self::Error>;

    /// Unmaps. Never fails: what cannot be unmapped stays mapped.
    ///
    /// # Safety
    ///
    /// Nothing may use the mapping's memory any more.
    unsafe fn detach(&self, mapping: Mapping);

    /// Replaces the mapped memory in place by private zeros, so that who comes late reads zeros, or
    /// writes where nobody looks, instead of a fault; the object itself is let go of. The provider
    /// keeps the range in the name of `owner`: nothing else is mapped there before
    /// [`release_blanks`](Self::release_blanks). Where the system can't put other memory in a
    /// mapping's place, the mapping may stay as it is until then.
    ///
    /// # Safety
    ///
    /// Nothing may rely on the contents any more.
    unsafe fn blank(&self, mapping: Mapping, owner: RangeOwner);

    /// Unmaps all ranges that [`blank`](Self::blank) keeps in the name of `owner`. Never fails,
    /// like [`detach`](Self::detach).
    ///
    /// # Safety
    ///
    /// Nothing may use those ranges any more.
    unsafe fn release_blanks(&self, owner: RangeOwner);

    /// Removes the object's name, if it is still the object `id` (all zero: whatever is there
    /// and belongs to this user). Mappings live on. Idempotent: an absent object is success.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Foreign`] if the name now means another object, which is left alone.
    fn destroy(&self, handle: SegmentHandle, id: ObjectId) -> Result<(), Self::Error>;

    /// What the platform knows of an object.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::NotFound`] and whatever the platform says.
    fn stat(&self, handle: SegmentHandle) -> Result<ObjectInfo, Self::Error>;
}

/// In whose name a provider keeps address ranges of segments that are gone: whatever has an address
/// of its own as long as it needs them, such as a process's table of an area's segments.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct RangeOwner(usize);

impl RangeOwner {
    /// The value at this address.
    pub fn of<T>(value: &T) -> Self {
        Self(core::ptr::from_ref(value).addr())
    }
}

/// [`SegmentProvider`] with its error reduced to [`ProviderFailure`]: what the cores work with,
/// so that an area or a table is not generic over the platform. Implemented for every provider.
///
/// # Safety
///
/// As for [`SegmentProvider`].
pub unsafe trait ErasedProvider: Send + Sync {
    /// See [`SegmentProvider::page_size`].
    fn page_size(&self) -> usize;
    /// See [`SegmentProvider::create`].
    ///
    /// # Errors
    /// As there.
    fn create(
        &self,
        handle: SegmentHandle,
        size: usize,
        reserved: usize,
    ) -> Result<(Mapping, ObjectId), ProviderFailure>;
    /// See [`SegmentProvider::attach`].
    ///
    /// # Errors
    /// As there.
    fn attach(&self, handle: SegmentHandle, id: ObjectId) -> Result<Mapping, ProviderFailure>;
    /// See [`SegmentProvider::reserve`].
    ///
    /// # Errors
    /// As there.
    fn reserve(
        &self,
        handle: SegmentHandle,
        mapping: &Mapping,
        range: Range<usize>,
    ) -> Result<(), ProviderFailure>;
    /// See [`SegmentProvider::detach`].
    ///
    /// # Safety
    /// As there.
    unsafe fn detach(&self, mapping: Mapping);
    /// See [`SegmentProvider::blank`].
    ///
    /// # Safety
    /// As there.
    unsafe fn blank(&self, mapping: Mapping, owner: RangeOwner);
    /// See [`SegmentProvider::release_blanks`].
    ///
    /// # Safety
    /// As there.
    unsafe fn release_blanks(&self, owner: RangeOwner);
    /// See [`SegmentProvider::destroy`].
    ///
    /// # Errors
    /// As there.
    fn destroy(&self, handle: SegmentHandle, id: ObjectId) -> Result<(), ProviderFailure>;
    /// See [`SegmentProvider::stat`].
    ///
    /// # Errors
    /// As there.
    fn stat(&self, handle: SegmentHandle) -> Result<ObjectInfo, ProviderFailure>;
}

// SAFETY: every method forwards to the implementor, which upholds the same contract.
unsafe impl<P: SegmentProvider> ErasedProvider for P {
    fn page_size(&self) -> usize {
        SegmentProvider::page_size(self)
    }
    fn create(
        &self,
        handle: SegmentHandle,
        size: usize,
        reserved: usize,
    ) -> Result<(Mapping, ObjectId), ProviderFailure> {
        SegmentProvider::create(self, handle, size, reserved).map_err(|e| e.failure())
    }
    fn attach(&self, handle: SegmentHandle, id: ObjectId) -> Result<Mapping, ProviderFailure> {
        SegmentProvider::attach(self, handle, id).map_err(|e| e.failure())
    }
    fn reserve(
        &self,
        handle: SegmentHandle,
        mapping: &Mapping,
        range: Range<usize>,
    ) -> Result<(), ProviderFailure> {
        SegmentProvider::reserve(self, handle, mapping, range).map_err(|e| e.failure())
    }
    unsafe fn detach(&self, mapping: Mapping) {
        // SAFETY: the caller's promise is the implementor's condition.
        unsafe { SegmentProvider::detach(self, mapping) }
    }
    unsafe fn blank(&self, mapping: Mapping, owner: RangeOwner) {
        // SAFETY: the caller's promise is the implementor's condition.
        unsafe { SegmentProvider::blank(self, mapping, owner) }
    }
    unsafe fn release_blanks(&self, owner: RangeOwner) {
        // SAFETY: the caller's promise is the implementor's condition.
        unsafe { SegmentProvider::release_blanks(self, owner) }
    }
    fn destroy(&self, handle: SegmentHandle, id: ObjectId) -> Result<(), ProviderFailure> {
        SegmentProvider::destroy(self, handle, id).map_err(|e| e.failure())
    }
    fn stat(&self, handle: SegmentHandle) -> Result<ObjectInfo, ProviderFailure> {
        SegmentProvider::stat(self, handle).map_err(|e| e.failure())
    }
}

/// A root, as far as a namespace needs the one that it was opened by when it goes.
pub(crate) trait Unmapper: Sync {
    /// See [`Root::unmap`].
    ///
    /// # Safety
    ///
    /// As there.
    unsafe fn unmap(&self, mapping: Mapping);
}

impl<R: Root> Unmapper for R {
    unsafe fn unmap(&self, mapping: Mapping) {
        // SAFETY: the caller's promise.
        unsafe { Root::unmap(self, mapping) }
    }
}

/// How a namespace's control object is found, or elected into being.
///
/// At most one process at a time holds the *election* of a namespace. Only its holder may
/// initialise the control object, claim process slots, or remove the object. The platform
/// lets go of it when the holder dies, at whatever instruction.
///
/// # Safety
///
/// A namespace uses the mapped control object as long as it is open:
///
/// - What [`peek`](Self::peek) returns must be aligned to 4,096 and valid for reads of `len` bytes,
///   shared with every other mapping of the object, until it is passed to [`unmap`](Self::unmap) of
///   this root. Likewise what an election's functions return, which must be valid for writes as
///   well.
/// - As long as an election lives, there may be no other one of the same namespace, in any process.
pub unsafe trait Root: Send + Sync {
    /// The error type.
    type Error: ProviderError;
    /// Holds the election until dropped.
    type Election<'a>: Election<Error = Self::Error>
    where
        Self: 'a;

    /// Opens or creates the control object under the election lock, waiting at most `patience`.
    ///
    /// POSIX: open with `O_CREAT`, lock byte 0, compare `fstat` with what the name means now, and
    /// start over when they differ (somebody removed the object in between).
    ///
    /// # Errors
    ///
    /// [`ErrorKind::TimedOut`] when another process holds the election for longer,
    /// [`ErrorKind::PermissionDenied`] for an object of another user or one that is writable by
    /// more than was asked for.
    fn elect(&self, patience: Duration) -> Result<Self::Election<'_>, Self::Error>;

    /// As [`elect`](Self::elect), but never creates the object.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::NotFound`] when there is no control object; else as `elect`.
    fn elect_existing(&self, patience: Duration) -> Result<Self::Election<'_>, Self::Error>;

    /// Maps the control object for reading only, taking no lock and leaving no trace; for tools.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::NotFound`], [`ErrorKind::Unfinished`] for an object without a size,
    /// [`ErrorKind::PermissionDenied`].
    fn peek(&self) -> Result<Mapping, Self::Error>;

    /// Unmaps what `peek` or an election's `map` or `create` returned.
    ///
    /// # Safety
    ///
    /// Nothing may use the mapping any more.
    unsafe fn unmap(&self, mapping: Mapping);

    /// Calls `found` for every object whose *name* says that it belongs to this namespace.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Unsupported`] where objects cannot be listed.
    fn enumerate(&self, found: &mut dyn FnMut(&ObjectInfo)) -> Result<(), Self::Error>;
}

/// The exclusive right to set up or remove a control object; see [`Root::elect`].
///
/// # Safety
///
/// What is said of mappings at [`Root`]. Besides, [`create`](Self::create) must return at least
/// `size` bytes, all of them zero and backed by memory, of an object that nobody else has mapped
/// for writing; and [`id`](Self::id) must be of the object that the other functions work on, and of
/// no other one that exists at the same time (unless it is all zero, for unknown).
pub unsafe trait Election {
    /// The error type.
    type Error: ProviderError;

    /// Size of the object in bytes: 0 when it is new, or its creator died before sizing it.
    fn size(&self) -> usize;
    /// Identity of the object.
    fn id(&self) -> ObjectId;
    /// Gives a new object (or one to be initialised again) its size, all of it backed by memory,
    /// and maps it. The mapping outlives the election. The bytes are zero.
    ///
    /// # Errors
    /// [`ErrorKind::NoSpace`]; a half-made object is of size 0 again.
    fn create(&mut self, size: usize) -> Result<Mapping, Self::Error>;
    /// Maps the object at its present size. The mapping outlives the election.
    ///
    /// # Errors
    /// Whatever the platform says.
    fn map(&mut self) -> Result<Mapping, Self::Error>;
    /// Removes the name, provided it still means this object; who opens it next creates anew.
    ///
    /// # Errors
    /// [`ErrorKind::Foreign`] if the name means another object by now.
    fn remove(&mut self) -> Result<(), Self::Error>;
}

/// A type whose objects are those of another provider: a newtype around it, a reference to it. It
/// is a [`SegmentProvider`] and a [`Root`] wherever the other is.
///
/// ```
/// use dsm_core::provider::{Forward, Root, SegmentProvider};
///
/// struct Mine<P>(P);
///
/// // SAFETY: the same field each time.
/// unsafe impl<P: Send + Sync> Forward for Mine<P> {
///     type Target = P;
///
///     fn target(&self) -> &P {
///         &self.0
///     }
/// }
///
/// fn use_it<P: SegmentProvider + Root>(provider: P) -> impl SegmentProvider + Root {
///     Mine(provider)
/// }
/// ```
///
/// # Safety
///
/// [`target`](Self::target) must return the same provider each time: what one has mapped
/// another can't unmap.
pub unsafe trait Forward: Send + Sync {
    /// The provider that does the work.
    type Target: ?Sized;

    /// The provider that does the work.
    fn target(&self) -> &Self::Target;
}

// SAFETY: a reference refers to one value as long as it lives.
unsafe impl<P: Sync + ?Sized> Forward for &P {
    type Target = P;

    fn target(&self) -> &P {
        self
    }
}

// SAFETY: every method forwards to one provider, which upholds the same contract.
unsafe impl<F: Forward<Target: SegmentProvider>> SegmentProvider for F {
    type Error = <F::Target as SegmentProvider>::Error;

    fn page_size(&self) -> usize {
        self.target().page_size()
    }
    fn create(
        &self,
        handle: SegmentHandle,
        size: usize,
        reserved: usize,
    ) -> Result<(Mapping, ObjectId), Self::Error> {
        self.target().create(handle, size, reserved)
    }
    fn attach(&self, handle: SegmentHandle, id: ObjectId) -> Result<Mapping, Self::Error> {
        self.target().attach(handle, id)
    }
    fn reserve(
        &self,
        handle: SegmentHandle,
        mapping: &Mapping,
        range: Range<usize>,
    ) -> Result<(), Self::Error> {
        self.target().reserve(handle, mapping, range)
    }
    unsafe fn detach(&self, mapping: Mapping) {
        // SAFETY: the caller's promise is the target's condition.
        unsafe { self.target().detach(mapping) }
    }
    unsafe fn blank(&self, mapping: Mapping, owner: RangeOwner) {
        // SAFETY: the caller's promise is the target's condition.
        unsafe { self.target().blank(mapping, owner) }
    }
    unsafe fn release_blanks(&self, owner: RangeOwner) {
        // SAFETY: the caller's promise is the target's condition.
        unsafe { self.target().release_blanks(owner) }
    }
    fn destroy(&self, handle: SegmentHandle, id: ObjectId) -> Result<(), Self::Error> {
        self.target().destroy(handle, id)
    }
    fn stat(&self, handle: SegmentHandle) -> Result<ObjectInfo, Self::Error> {
        self.target().stat(handle)
    }
}

// SAFETY: as above.
unsafe impl<F: Forward<Target: Root>> Root for F {
    type Error = <F::Target as Root>::Error;
    type Election<'a>
        = <F::Target as Root>::Election<'a>
    where
        Self: 'a;

    fn elect(&self, patience: Duration) -> Result<Self::Election<'_>, Self::Error> {
        self.target().elect(patience)
    }
    fn elect_existing(&self, patience: Duration) -> Result<Self::Election<'_>, Self::Error> {
        self.target().elect_existing(patience)
    }
    fn peek(&self) -> Result<Mapping, Self::Error> {
        self.target().peek()
    }
    unsafe fn unmap(&self, mapping: Mapping) {
        // SAFETY: the caller's promise is the target's condition.
        unsafe { self.target().unmap(mapping) }
    }
    fn enumerate(&self, found: &mut dyn FnMut(&ObjectInfo)) -> Result<(), Self::Error> {
        self.target().enumerate(found)
    }
}

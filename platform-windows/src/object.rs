//! The objects of one namespace: what all providers have in common.
//!
//! A [`Store`] says how objects are made of one kind of memory: files of a folder
//! ([`Folder`](crate::file::Folder)), or sections of the page file
//! ([`PageFile`](crate::section::PageFile)). [`Named`] is one namespace in one store.

use std::fmt;
use std::ops::Range;
use std::os::windows::io::OwnedHandle;
use std::path::PathBuf;
use std::sync::Arc;

use dsm_core::error::Reason;
use dsm_core::handle::ObjectId;
use dsm_core::provider::{Mapping, ObjectInfo};
use platform_common::blanks::Blanks;
use platform_common::refusal;

use crate::error::Error;
use crate::name::{NamespaceName, Role, kernel_prefix};
use crate::options::Options;
use crate::security::Descriptor;

/// A namespace's name, and who may use it.
#[derive(Debug)]
pub(crate) struct Domain {
    pub(crate) namespace: NamespaceName,
    pub(crate) options: Options,
    /// Of new objects.
    pub(crate) security: Descriptor,
    /// What all its kernel objects are called, but for the ending.
    pub(crate) prefix: String,
}

impl Domain {
    /// `place` is a number of where the objects are.
    pub(crate) fn new(namespace: &str, options: Options, place: u64) -> Result<Self, Error> {
        let namespace = NamespaceName::new(namespace)?;
        options.check()?;
        let security = Descriptor::new(&options)?;
        let prefix = kernel_prefix(options.scope, place, &namespace);
        Ok(Self { namespace, options, security, prefix })
    }

    /// The name of a kernel object.
    pub(crate) fn kernel_name(&self, what: &str) -> Vec<u16> {
        crate::sys::wide(format!("{}.{what}", self.prefix))
    }
}

/// What a mapping is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Purpose {
    Use,
    Look,
}

/// Objects of one namespace made of one kind of memory. Errors are those of
/// [`SegmentProvider`](dsm_core::provider::SegmentProvider).
pub(crate) trait Store: Send + Sync + fmt::Debug {
    fn domain(&self) -> &Arc<Domain>;

    /// How to call an object in messages.
    fn label(&self, role: Role) -> String;

    /// The file that an object is, if it is one.
    fn file(&self, _role: Role) -> Option<PathBuf> {
        None
    }

    fn create(
        &self,
        role: Role,
        size: usize,
        reserved: usize,
    ) -> Result<(Mapping, ObjectId), Error>;

    /// Maps an object at its real size, which is not zero, if it is `id`.
    fn attach(&self, role: Role, id: ObjectId, purpose: Purpose) -> Result<Mapping, Error>;

    /// Backs a range that lies in the mapping.
    fn reserve(&self, mapping: &Mapping, range: Range<usize>) -> Result<(), Error>;

    /// # Safety
    ///
    /// Nothing may use the mapping any more.
    unsafe fn detach(&self, mapping: Mapping);

    /// Removes a name if it means `id` (all zero: whatever is there).
    fn destroy(&self, role: Role, id: ObjectId) -> Result<(), Error>;

    fn stat(&self, role: Role) -> Result<ObjectInfo, Error>;

    fn list(&self, found: &mut dyn FnMut(&ObjectInfo)) -> Result<(), Error>;

    /// Makes the control object, empty, if there is none. Under the election.
    fn found(&self) -> Result<(), Error>;

    /// Makes the control object `size` bytes of zeros, all of them backed. Under the election.
    fn renew(&self, size: usize) -> Result<(Mapping, ObjectId), Error>;

    /// Keeps the control object, if there is one, from going with the last who has it mapped.
    fn hold(&self) -> Option<OwnedHandle> {
        None
    }

    /// Removes what removals have left. Under the election.
    fn sweep(&self) {}
}

/// One namespace in one store.
#[derive(Clone, Debug)]
pub struct Named {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) blanks: Arc<Blanks>,
}

impl Named {
    pub(crate) fn new(store: impl Store + 'static) -> Self {
        Self { store: Arc::new(store), blanks: Arc::default() }
    }

    pub(crate) fn domain(&self) -> &Arc<Domain> {
        self.store.domain()
    }
}

/// Refuses sizes that no object can have.
pub(crate) fn check_size(size: usize, reserved: usize) -> Result<(), Error> {
    // Something may be added to it.
    refusal::check_size(size, reserved, isize::MAX as usize - (1 << 20))
}

/// Refuses an object that is another than the one meant.
pub(crate) fn check_identity(
    id: ObjectId,
    found: ObjectId,
    label: &dyn Fn() -> String,
    step: &'static str,
) -> Result<(), Error> {
    if id == ObjectId::default() || id == found {
        return Ok(());
    }
    Err(Error::refused(Reason::Replaced, step, label()))
}

//! A namespace seen from outside: for tools that must not take part.
//!
//! Taking part would take a slot, sweep what the dead left, and keep a namespace alive whose last
//! process is about to leave. An inspector maps the control object for reading, and nothing else.

use std::mem::ManuallyDrop;

use dsm_core::error::{ErrorKind as FailureKind, ProviderFailure};
use dsm_core::inspect::Inspector;
use dsm_core::namespace::{self, Discard};
use dsm_core::provider::Mapping;

use crate::builder::Builder;
use crate::error::Error;
use crate::error::kind::ErrorKind;
use crate::manage::Listing;
use crate::outside;
use crate::platform::{Connection, Platform};
use crate::process;
use crate::registry::Registry;
use crate::stable::Stable;

pub use dsm_core::inspect::{NamespaceInfo, ParticipantInfo, ProcessInfo, SegmentInfo};

/// A namespace seen from outside; see [`Registry::inspect`].
pub struct RegistryInspector {
    name: Box<str>,
    /// Borrows from the connection and from the mapping; `None` if the namespace is not finished.
    inspector: Option<Inspector<'static>>,
    /// `None` if the control object has no size yet.
    mapping: Option<Mapping>,
    connection: ManuallyDrop<Stable<Connection>>,
}

impl RegistryInspector {
    /// Maps the control object.
    pub(crate) fn open(platform: &dyn Platform, name: &str, mode: u32) -> Result<Self, Error> {
        let place = platform.place();
        let fail = |e: namespace::Error| match e {
            namespace::Error::Provider(ProviderFailure { kind: FailureKind::NotFound, .. }) => {
                ErrorKind::NoNamespace { namespace: name.into() }.into()
            }
            e => Error::from_namespace(name, &place, &|| format!("namespace {name:?}"), e),
        };
        let connection = platform.connect(name, mode).map_err(|e| fail(e.into()))?;
        let mapping = match connection.memory.peek() {
            Ok(mapping) => Some(mapping),
            Err(e) if e.kind == FailureKind::Unfinished => None,
            Err(e) => return Err(fail(e.into())),
        };
        let connection = Stable::new(connection);
        // SAFETY: kept beside the inspector, and dropped after it.
        let env = &*unsafe { connection.forever() }.environment;
        let connection = ManuallyDrop::new(connection);
        let mut this = Self { name: name.into(), inspector: None, mapping, connection };
        if let Some(mapping) = &this.mapping {
            // SAFETY: mapped until this is dropped.
            this.inspector = unsafe { Inspector::new(mapping, env) }.map_err(fail)?;
        }
        Ok(this)
    }

    /// Limits and sizes; `None` if whoever creates the namespace has not finished.
    #[must_use]
    pub fn info(&self) -> Option<NamespaceInfo> {
        self.inspector.map(|inspector| inspector.info())
    }

    /// Its names, sorted, without taking part; see [`Registry::list`]. What somebody is changing at
    /// this moment, or was when it died, is left out unless it makes sense as it is.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Damaged`], or what the platform says of the objects behind the names.
    pub fn names(&self) -> Result<Vec<Listing>, Error> {
        match &self.inspector {
            Some(inspector) => {
                outside::names(inspector, self.connection.memory.provider(), &self.name)
            }
            None => Ok(Vec::new()),
        }
    }

    /// Its processes, dead ones that nobody has swept yet included.
    pub fn processes(&self) -> impl Iterator<Item = ProcessInfo> + use<'_> {
        self.inspector.iter().flat_map(Inspector::processes)
    }

    /// Their threads, as far as they use the namespace, and what these hold.
    pub fn participants(&self) -> impl Iterator<Item = ParticipantInfo> + use<'_> {
        self.inspector.iter().flat_map(Inspector::participants)
    }

    /// Its segments.
    pub fn segments(&self) -> impl Iterator<Item = SegmentInfo> + use<'_> {
        self.inspector.iter().flat_map(Inspector::segments)
    }
}

impl Drop for RegistryInspector {
    fn drop(&mut self) {
        self.inspector = None;
        if let Some(mapping) = self.mapping {
            // SAFETY: mapped by `open`; only the inspector used it.
            unsafe { self.connection.memory.unmap(mapping) };
        }
        // SAFETY: dropped here only.
        unsafe { ManuallyDrop::drop(&mut self.connection) };
    }
}

/// What a look at a namespace that nobody lives in, or its removal, amounts to.
impl Builder {
    /// Looks at the namespace from outside: takes no slot, sweeps nothing.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::NoNamespace`], and what `open` says of a control object that is not what it
    /// should be.
    pub fn inspect(self) -> Result<RegistryInspector, Error> {
        let (platform, settings) = self.into_parts()?;
        RegistryInspector::open(&*platform, &settings.namespace, settings.mode)
    }

    /// Names of the namespaces in the builder's place, dead ones included; the builder's own name
    /// doesn't matter.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Namespace`] where objects can't be listed.
    pub fn namespaces(self) -> Result<Vec<String>, Error> {
        let (platform, settings) = self.into_parts()?;
        platform.namespaces().map_err(|e| {
            let place = platform.place();
            Error::from_namespace(&settings.namespace, &place, &|| "a list".into(), e.into())
        })
    }

    /// Sweeps what the dead left; a namespace in which nobody lives is removed unless it is
    /// persistent, and so is one that its creator did not live to finish. Returns how many dead
    /// processes there were.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::NoNamespace`]; as for `open`; [`ErrorKind::Namespace`] if something could not
    /// be removed, which may be for another user to do.
    pub fn reap(self) -> Result<usize, Error> {
        let (platform, settings) = self.into_parts()?;
        let seen = RegistryInspector::open(&*platform, &settings.namespace, settings.mode)?;
        if seen.info().is_none() {
            process::discard(&*platform, &settings, Discard::Unfinished)?;
            return Ok(0);
        }
        let dead = seen.processes().filter(|process| process.dead).count();
        drop(seen);
        process::visit(&*platform, settings, |_| Ok(()))?;
        Ok(dead)
    }

    /// Removes a namespace with all that is in it, also a persistent one, and one that `open`
    /// refuses because its control object was cut off, damaged, copied, or made by an older build.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::NamespaceInUse`] while processes live in it (this one included); otherwise as
    /// [`reap`](Self::reap).
    pub fn destroy(self) -> Result<(), Error> {
        let (platform, settings) = self.into_parts()?;
        let seen = RegistryInspector::open(&*platform, &settings.namespace, settings.mode);
        if seen.as_ref().map_or(true, |seen| seen.info().is_none()) {
            // What can't be entered, unless somebody has finished or replaced it meanwhile.
            if process::discard(&*platform, &settings, Discard::Unusable)? {
                return Ok(());
            }
        }
        match seen?.processes().filter(|process| !process.dead).count() {
            0 => {}
            processes => {
                let namespace = settings.namespace.into();
                return Err(ErrorKind::NamespaceInUse { namespace, processes }.into());
            }
        }
        process::visit(&*platform, settings, |namespace| namespace.set_persistent(false))
    }
}

impl Registry {
    /// Looks at a namespace of the system's default backend from outside.
    ///
    /// # Errors
    ///
    /// As [`Builder::inspect`].
    pub fn inspect(namespace: &str) -> Result<RegistryInspector, Error> {
        Self::builder(namespace).inspect()
    }

    /// Removes a namespace of the system's default backend in which nobody lives.
    ///
    /// # Errors
    ///
    /// As [`Builder::destroy`].
    pub fn destroy(namespace: &str) -> Result<(), Error> {
        Self::builder(namespace).destroy()
    }

    /// Names of the namespaces of the system's default backend.
    ///
    /// # Errors
    ///
    /// As [`Builder::namespaces`].
    pub fn namespaces() -> Result<Vec<String>, Error> {
        Self::builder("any").namespaces()
    }
}

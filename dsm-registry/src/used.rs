//! What this process uses each object as: one Rust type, whoever asks, until its last handle goes.
//!
//! Shared memory tells types apart by their tags, which are the same for two local types of one
//! name, for a type in two versions of its crate, and for whatever a program gives one tag. Between
//! processes there is nothing better. Within one there is: the compiler's own [`TypeId`]. Without
//! it safe code could have a `&u64` and a `&AtomicU64` to the same bytes.
//!
//! So whoever looks an object up first decides what it is used as, and a lookup as anything else is
//! an error that names both. That is remembered in what the process has attached, of which there is
//! one for each namespace and handle (module `objects`), whatever handles and registries lead to
//! it. When the last of them is dropped nothing in this process refers to the bytes any more, and
//! the name may be looked up as another type. A handle is never given out twice: what a name means
//! after its removal is another object, of whatever type, while handles of the old one are still
//! good.

use std::any::{TypeId, type_name};
use std::sync::OnceLock;

use crate::entry::Shape;
use crate::error::kind::ErrorKind;
use crate::error::{Description, Error, Mismatch};
use crate::process::Attachment;

/// What a name is asked for as.
#[derive(Clone, Copy)]
pub(crate) struct Asked {
    /// What shared memory knows of it.
    pub(crate) shape: Shape,
    /// The type of the handle, with its types.
    pub(crate) types: TypeId,
    /// Their names: of the value, and of the key.
    names: [&'static str; 2],
}

impl Asked {
    /// As a handle `H`, of values and keys of these types; `()` where there is none.
    pub(crate) fn new<H: 'static, V, K>(shape: Shape) -> Self {
        Self { shape, types: TypeId::of::<H>(), names: [type_name::<V>(), type_name::<K>()] }
    }

    /// What errors call the object of that name.
    pub(crate) fn label(&self, name: &str) -> String {
        self.shape.kind().map_or_else(|| format!("{name:?}"), |kind| kind.label(name))
    }

    fn describe(&self) -> Option<Description> {
        let [value, key] = self.names;
        let mut description = self.shape.describe()?;
        // Shared memory has room for the end of a long name only.
        for (name, kept) in [(value, &mut description.value), (key, &mut description.key)] {
            if !kept.is_empty() {
                *kept = name.to_owned();
            }
        }
        Some(description)
    }
}

/// What an attached object is used as, once anybody has asked for it by name.
#[derive(Default)]
pub(crate) struct Used(OnceLock<Asked>);

impl Used {
    /// Whether this process uses it as a handle `H`.
    pub(crate) fn is<H: 'static>(&self) -> bool {
        self.0.get().is_some_and(|used| used.types == TypeId::of::<H>())
    }

    /// Uses the object that this belongs to as what it is asked for as.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Mismatch`] if this process uses it as something
    /// else.
    pub(crate) fn use_as(&self, home: &Attachment, name: &str, asked: &Asked) -> Result<(), Error> {
        let used = self.0.get_or_init(|| *asked);
        if used.types == asked.types {
            return Ok(());
        }
        match (used.describe(), asked.describe()) {
            (Some(there), Some(asked)) => {
                let name = name.to_owned();
                let mismatch = Mismatch { name, there, asked, in_this_process: true };
                Err(ErrorKind::Mismatch(mismatch).into())
            }
            _ => Err(home.damaged("an entry of unknown kind")),
        }
    }
}

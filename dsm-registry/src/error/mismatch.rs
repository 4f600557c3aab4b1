//! Two sides that mean different things by one name, each described.

use std::fmt;

/// What a name stands for.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum Kind {
    /// One value of one type in a segment of its own.
    Segment,
    /// Raw bytes in a segment of their own.
    Bytes,
    /// An area to allocate from.
    Area,
    /// A hash table.
    Hash,
}

impl Kind {
    /// What errors call something of this kind.
    pub(crate) fn label(self, name: &str) -> String {
        format!("{self} {name:?}")
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Segment => "segment",
            Self::Bytes => "byte segment",
            Self::Area => "area",
            Self::Hash => "hash table",
        })
    }
}

/// One of the two sides of a mismatch: what a name was created as, or asked for as.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Description {
    /// What it is.
    pub kind: Kind,
    /// Type of the value (or the tail of its name, if that is long); empty where there is none.
    pub value: String,
    /// Size of the value in bytes; of the whole, for a byte segment.
    pub value_size: u64,
    /// Tag of the value's type; see [`TypeTag`](crate::TypeTag).
    pub value_tag: u64,
    /// Type of the key; empty where there is none.
    pub key: String,
    /// Size of the key in bytes.
    pub key_size: u64,
    /// Tag of the key's type.
    pub key_tag: u64,
}

impl fmt::Display for Description {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kind, value, value_size, value_tag, key, key_size, key_tag } = self;
        match kind {
            Kind::Segment => {
                write!(f, "a segment of {value} ({value_size} bytes, type tag {value_tag:016x})")
            }
            Kind::Bytes => write!(f, "a byte segment of {value_size} bytes"),
            Kind::Area => f.write_str("an area"),
            Kind::Hash => write!(
                f,
                "a hash table from {key} ({key_size} bytes, type tag {key_tag:016x}) \
                 to {value} ({value_size} bytes, type tag {value_tag:016x})"
            ),
        }
    }
}

/// A name that means one thing to this call and another to whoever created it, or to the rest of
/// this process.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Mismatch {
    /// The name.
    pub name: String,
    /// What it was created as; with `in_this_process`, what this process uses it as.
    pub there: Description,
    /// What this call asked for.
    pub asked: Description,
    /// Whether this process uses it already, as another Rust type with the same tags. The types'
    /// names may be equal all the same.
    pub in_this_process: bool,
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, there, asked, in_this_process } = self;
        if *in_this_process {
            return write!(
                f,
                "{name:?} is used in this process as {there}; this call asks for {asked}, which \
                 is another Rust type, though its tag is the same (a local type, say, or that of \
                 another version of its crate); use one type throughout, or another name"
            );
        }
        write!(f, "{name:?} was created as {there}; this process asks for {asked}; ")?;
        f.write_str(if there.kind == asked.kind && there.value_size == asked.value_size {
            "use the same type in all programs, or give its tag in the options; or remove the \
             name first"
        } else {
            "use the same kind and sizes in all programs, another name, or remove the name first"
        })
    }
}

dsm_core::debug_is_display!(Mismatch);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;
    use crate::error::kind::ErrorKind;

    fn description(value: &str, size: u64, tag: u64) -> Description {
        Description {
            kind: Kind::Hash,
            value: value.into(),
            value_size: size,
            value_tag: tag,
            key: "u64".into(),
            key_size: 8,
            key_tag: 5,
        }
    }

    #[test]
    fn a_mismatch_names_both_sides() {
        let error = Error::from(ErrorKind::Mismatch(Mismatch {
            name: "hits".into(),
            there: description("app::Counter", 16, 0xabc),
            asked: description("u64", 8, 0xdef),
            in_this_process: false,
        }));
        let text = error.to_string();
        for part in ["\"hits\"", "app::Counter (16 bytes", "u64 (8 bytes", "abc", "def"] {
            assert!(text.contains(part), "{part} in {text}");
        }
    }
}

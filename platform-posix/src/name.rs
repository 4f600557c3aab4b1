//! Names of namespaces and of the objects that belong to one.
//!
//! A namespace named `demo` consists of objects `dsm.demo.ctl` (the control object) and
//! `dsm.demo.<16 hex digits>` (a segment, by its handle). Namespace names may contain dots, and
//! nothing is ambiguous by that: what follows the *last* dot is either `ctl` or sixteen digits and
//! contains no dot itself, so that everything between the prefix and it is the namespace.
//!
//! macOS allows 31 bytes for a name of shared memory, slash included, which the above exceeds:
//! there the namespace is replaced by 50 bits of a hash, and the handle is written in base 32
//! ([`Style::Short`], 29 bytes in all). Two namespaces are taken for one with a chance of 2^-50.

use core::fmt;
use std::ffi::CStr;

pub use platform_common::NamespaceName;
use platform_common::name::base32;
pub(crate) use platform_common::name::{Role, hash};

/// How object names are formed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Style {
    /// The namespace's name and the handle in full.
    Full,
    /// At most 29 bytes.
    #[cfg_attr(
        not(any(test, target_os = "macos", target_os = "ios")),
        expect(dead_code, reason = "only macOS has so little room for names")
    )]
    Short,
}

/// The file name of an object, for the system to read: on the stack, since attaching a segment
/// takes hardly longer than an allocation or two.
#[derive(Clone, Copy)]
pub(crate) struct ObjectName {
    /// A slash, the name, a zero.
    bytes: [u8; Self::MAX],
    len: usize,
}

impl ObjectName {
    /// The longest name is that of a segment: prefix, namespace, dot, sixteen digits.
    const MAX: usize = 1 + 16 + NamespaceName::MAX + 1 + 16 + 1;

    /// Of an object of a namespace.
    pub(crate) fn of(namespace: &NamespaceName, style: Style, role: Role) -> Self {
        let short;
        let namespace = namespace.as_str().as_bytes();
        let namespace = match style {
            Style::Full => namespace,
            Style::Short => {
                short = base32::<10>(hash(namespace));
                &short
            }
        };
        match (role, style) {
            (Role::Control, _) => Self::new(&[b"dsm.", namespace, b".ctl"]),
            (Role::Segment(handle), Style::Full) => {
                Self::new(&[b"dsm.", namespace, b".", &base16(handle.get())])
            }
            (Role::Segment(handle), Style::Short) => {
                Self::new(&[b"dsm.", namespace, b".", &base32::<13>(handle.get())])
            }
        }
    }

    /// Joins parts that have no zero in them and fit.
    pub(crate) fn new(parts: &[&[u8]]) -> Self {
        let mut name = Self { bytes: [0; Self::MAX], len: 1 };
        name.bytes[0] = b'/';
        for part in parts {
            name.bytes[name.len..][..part.len()].copy_from_slice(part);
            name.len += part.len();
        }
        name
    }

    /// As `shm_open` wants it.
    pub(crate) fn with_slash(&self) -> &CStr {
        CStr::from_bytes_until_nul(&self.bytes).unwrap_or_default()
    }

    /// As `openat` wants it.
    pub(crate) fn without_slash(&self) -> &CStr {
        CStr::from_bytes_until_nul(&self.bytes[1..]).unwrap_or_default()
    }
}

impl fmt::Display for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.without_slash().to_string_lossy())
    }
}

impl fmt::Debug for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Splits a file name of [`Style::Full`] into the namespace and the object's role.
pub(crate) fn split(file: &str) -> Option<(&str, Role)> {
    let (namespace, last) = file.strip_prefix("dsm.")?.rsplit_once('.')?;
    if NamespaceName::new(namespace).is_err() {
        return None;
    }
    Some((namespace, Role::parse(last)?))
}

/// All 64 bits.
fn base16(mut value: u64) -> [u8; 16] {
    let mut out = [0; 16];
    for slot in out.iter_mut().rev() {
        *slot = b"0123456789abcdef"[(value & 15) as usize];
        value >>= 4;
    }
    out
}

#[cfg(test)]
mod tests {
    use dsm_core::handle::SegmentHandle;

    use super::*;

    fn handle(raw: u64) -> SegmentHandle {
        SegmentHandle::from_raw(raw).unwrap()
    }

    #[test]
    fn object_names_come_back() {
        let roles = [Role::Control, Role::Segment(handle(1)), Role::Segment(handle(u64::MAX))];
        for name in ["demo", "a.b", "a.ctl", "a.0123456789abcdef", "..."] {
            let namespace = NamespaceName::new(name).unwrap();
            for role in roles {
                let file = ObjectName::of(&namespace, Style::Full, role).to_string();
                assert_eq!(split(&file), Some((name, role)), "{file}");
            }
        }
    }

    #[test]
    fn other_names_are_not_ours() {
        for file in [
            "dsm.demo",
            "dsm.demo.",
            "dsm..ctl",
            "dsm.demo.0123",
            "dsm.demo.0123456789ABCDEF",
            "dsm.demo.0000000000000000",
            "dsm.demo.+123456789abcdef",
            "other.demo.ctl",
            "dsm.ctl",
            "dsm.de mo.ctl",
        ] {
            assert_eq!(split(file), None, "{file}");
        }
    }

    #[test]
    fn short_names_fit_macos() {
        let longest = NamespaceName::new(&"x".repeat(63)).unwrap();
        let short = |namespace: &NamespaceName, role| {
            ObjectName::of(namespace, Style::Short, role).to_string()
        };
        let a = short(&longest, Role::Segment(handle(u64::MAX)));
        assert!(a.len() < 31, "a slash is added: {a}");
        let b = short(&longest, Role::Segment(handle(u64::MAX - 1)));
        assert_ne!(a, b);
        let other = NamespaceName::new(&"x".repeat(62)).unwrap();
        assert_ne!(a, short(&other, Role::Segment(handle(u64::MAX))));
        assert_ne!(short(&longest, Role::Control), short(&other, Role::Control));
        let full = ObjectName::of(&longest, Style::Full, Role::Segment(handle(u64::MAX)));
        assert_eq!(full.with_slash().to_bytes().len(), 1 + 4 + 63 + 1 + 16);
    }
}

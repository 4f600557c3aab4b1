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

use dsm_core::error::ErrorKind;
use dsm_core::handle::SegmentHandle;

use crate::error::Error;

/// The name of a namespace: 1 to 63 of `A-Z a-z 0-9 . _ -`, and neither `.` nor `..`.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct NamespaceName(String);

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

/// What an object is to its namespace.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Role {
    /// The control object.
    Control,
    /// A segment.
    Segment(SegmentHandle),
}

impl NamespaceName {
    /// The longest name, in bytes.
    pub const MAX: usize = 63;

    /// Checks a name.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidName`] if it is empty, too long, `.` or `..`, or has a character other
    /// than letters, digits, dot, underscore and hyphen.
    pub fn new(name: &str) -> Result<Self, Error> {
        let refuse = |why: &str| {
            let why = format!(
                "namespace name {name:?} {why}: 1 to {} of A-Z a-z 0-9 . _ - are allowed",
                Self::MAX
            );
            Err(Error::new(ErrorKind::InvalidName, "check of a name", why))
        };
        if name.is_empty() {
            return refuse("is empty");
        }
        if name.len() > Self::MAX {
            return refuse("is too long");
        }
        if name == "." || name == ".." {
            return refuse("means a directory");
        }
        match name.chars().find(|c| !(c.is_ascii_alphanumeric() || "._-".contains(*c))) {
            Some(c) => refuse(&format!("contains {c:?}")),
            None => Ok(Self(name.to_owned())),
        }
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The file name of an object.
    pub(crate) fn object(&self, style: Style, role: Role) -> ObjectName {
        let short;
        let namespace = match style {
            Style::Full => self.0.as_bytes(),
            Style::Short => {
                short = base32::<10>(hash(self.0.as_bytes()));
                &short
            }
        };
        match (role, style) {
            (Role::Control, _) => ObjectName::new(&[b"dsm.", namespace, b".ctl"]),
            (Role::Segment(handle), Style::Full) => {
                ObjectName::new(&[b"dsm.", namespace, b".", &base16(handle.get())])
            }
            (Role::Segment(handle), Style::Short) => {
                ObjectName::new(&[b"dsm.", namespace, b".", &base32::<13>(handle.get())])
            }
        }
    }

    /// What the object of that file name is to this namespace; `None` if it is not one of its own.
    pub(crate) fn role(&self, file: &str) -> Option<Role> {
        let (namespace, role) = split(file)?;
        (namespace == self.0).then_some(role)
    }
}

/// The file name of an object, for the system to read: on the stack, since attaching a segment takes
/// hardly longer than an allocation or two.
#[derive(Clone, Copy)]
pub(crate) struct ObjectName {
    /// A slash, the name, a zero.
    bytes: [u8; Self::MAX],
    len: usize,
}

impl ObjectName {
    /// The longest name is that of a segment: prefix, namespace, dot, sixteen digits.
    const MAX: usize = 1 + 16 + NamespaceName::MAX + 1 + 16 + 1;

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

impl fmt::Display for NamespaceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl core::str::FromStr for NamespaceName {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self, Error> {
        Self::new(name)
    }
}

/// Splits a file name of [`Style::Full`] into the namespace and the object's role.
pub(crate) fn split(file: &str) -> Option<(&str, Role)> {
    let (namespace, last) = file.strip_prefix("dsm.")?.rsplit_once('.')?;
    if NamespaceName::new(namespace).is_err() {
        return None;
    }
    if last == "ctl" {
        return Some((namespace, Role::Control));
    }
    let digits = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
    if last.len() != 16 || !last.bytes().all(digits) {
        return None;
    }
    let handle = SegmentHandle::from_raw(u64::from_str_radix(last, 16).ok()?)?;
    Some((namespace, Role::Segment(handle)))
}

/// FNV-1a with a final mix (of splitmix64): stable between builds, which file names must be.
pub(crate) fn hash(bytes: &[u8]) -> u64 {
    let mut h = 0xcbf2_9ce4_8422_2325_u64;
    for &byte in bytes {
        h = (h ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    }
    h = (h ^ (h >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    h = (h ^ (h >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    h ^ (h >> 31)
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

/// The low five bits for each digit.
fn base32<const DIGITS: usize>(mut value: u64) -> [u8; DIGITS] {
    let mut out = [0; DIGITS];
    for slot in out.iter_mut().rev() {
        *slot = b"0123456789abcdefghijklmnopqrstuv"[(value & 31) as usize];
        value >>= 5;
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn handle(raw: u64) -> SegmentHandle {
        SegmentHandle::from_raw(raw).unwrap()
    }

    #[test]
    fn names_are_validated() {
        for good in ["a", "demo", "A.b_c-9", "...", "-", ".hidden", &"x".repeat(63)] {
            assert!(NamespaceName::new(good).is_ok(), "{good}");
        }
        for bad in ["", ".", "..", "a/b", "../x", "a b", "a\0b", "é", "a\n", &"x".repeat(64)] {
            let error = NamespaceName::new(bad).unwrap_err();
            assert_eq!(dsm_core::provider::ProviderError::kind(&error), ErrorKind::InvalidName);
        }
    }

    #[test]
    fn object_names_come_back() {
        let roles = [Role::Control, Role::Segment(handle(1)), Role::Segment(handle(u64::MAX))];
        for name in ["demo", "a.b", "a.ctl", "a.0123456789abcdef", "..."] {
            let namespace = NamespaceName::new(name).unwrap();
            for role in roles {
                let file = namespace.object(Style::Full, role).to_string();
                assert_eq!(split(&file), Some((name, role)), "{file}");
                assert_eq!(namespace.role(&file), Some(role));
                assert_eq!(NamespaceName::new("a").unwrap().role(&file), None);
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
        let short =
            |namespace: &NamespaceName, role| namespace.object(Style::Short, role).to_string();
        let a = short(&longest, Role::Segment(handle(u64::MAX)));
        assert!(a.len() < 31, "a slash is added: {a}");
        let b = short(&longest, Role::Segment(handle(u64::MAX - 1)));
        assert_ne!(a, b);
        let other = NamespaceName::new(&"x".repeat(62)).unwrap();
        assert_ne!(a, short(&other, Role::Segment(handle(u64::MAX))));
        assert_ne!(short(&longest, Role::Control), short(&other, Role::Control));
        let full = longest.object(Style::Full, Role::Segment(handle(u64::MAX)));
        assert_eq!(full.with_slash().to_bytes().len(), 1 + 4 + 63 + 1 + 16);
    }
}

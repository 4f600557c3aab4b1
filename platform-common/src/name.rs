//! Names of namespaces, and of what belongs to one: the parts that object names are made of.
//!
//! How the parts are put together is the platform's. What follows the *last* dot of an object's
//! name says what it is to its namespace ([`Role`]) and contains no dot itself, so that nothing is
//! ambiguous about namespaces with dots in their names.

use core::fmt;

use dsm_core::error::ErrorKind;
use dsm_core::handle::SegmentHandle;

use crate::error::Error;

/// The name of a namespace: 1 to 63 of `A-Z a-z 0-9 . _ -`, and neither `.` nor `..`.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct NamespaceName(String);

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

/// What an object is to its namespace. As text it is `ctl`, or a handle's sixteen digits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Role {
    /// The control object.
    Control,
    /// A segment.
    Segment(SegmentHandle),
}

impl Role {
    /// The role of that text; `None` if it is no such text.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        if text == "ctl" {
            return Some(Self::Control);
        }
        let handle = SegmentHandle::from_raw(hexadecimal(text)?)?;
        Some(Self::Segment(handle))
    }

    /// The handle of a segment.
    #[must_use]
    pub fn handle(self) -> Option<SegmentHandle> {
        match self {
            Self::Control => None,
            Self::Segment(handle) => Some(handle),
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Control => f.write_str("ctl"),
            Self::Segment(handle) => write!(f, "{:016x}", handle.get()),
        }
    }
}

/// The value of sixteen small hexadecimal digits; `None` of any other text.
#[must_use]
pub fn hexadecimal(text: &str) -> Option<u64> {
    let digits = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
    if text.len() != 16 || !text.bytes().all(digits) {
        return None;
    }
    u64::from_str_radix(text, 16).ok()
}

/// The lowest bits of a value in digits of five bits each, `0` to `v`.
#[must_use]
pub fn base32<const DIGITS: usize>(mut value: u64) -> [u8; DIGITS] {
    let mut out = [0; DIGITS];
    for slot in out.iter_mut().rev() {
        *slot = b"0123456789abcdefghijklmnopqrstuv"[(value & 31) as usize];
        value >>= 5;
    }
    out
}

/// FNV-1a with a final mix (of splitmix64): stable between builds, which names must be.
#[must_use]
pub fn hash(bytes: &[u8]) -> u64 {
    let mut h = 0xcbf2_9ce4_8422_2325_u64;
    for &byte in bytes {
        h = (h ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    }
    h = (h ^ (h >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    h = (h ^ (h >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    h ^ (h >> 31)
}

#[cfg(test)]
mod tests {
    use dsm_core::provider::ProviderError;

    use super::*;

    #[test]
    fn names_are_validated() {
        for good in ["a", "demo", "A.b_c-9", "...", "-", ".hidden", &"x".repeat(63)] {
            assert_eq!(NamespaceName::new(good).unwrap().as_str(), good);
            assert_eq!(good.parse::<NamespaceName>().unwrap().to_string(), good);
        }
        for bad in [
            "",
            ".",
            "..",
            "a/b",
            r"a\b",
            "../x",
            "a b",
            "a\0b",
            "é",
            "a\n",
            "a:b",
            &"x".repeat(64),
        ] {
            let error = NamespaceName::new(bad).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidName, "{bad}");
            assert!(bad.parse::<NamespaceName>().is_err());
        }
    }

    #[test]
    fn roles_come_back() {
        let handle = |raw| SegmentHandle::from_raw(raw).unwrap();
        for (role, text) in [
            (Role::Control, "ctl"),
            (Role::Segment(handle(1)), "0000000000000001"),
            (Role::Segment(handle(u64::MAX)), "ffffffffffffffff"),
        ] {
            assert_eq!(role.to_string(), text);
            assert_eq!(Role::parse(text), Some(role));
        }
        for other in [
            "",
            "CTL",
            "ctl ",
            "0123",
            "0123456789ABCDEF",
            "0000000000000000",
            "+123456789abcdef",
            "00000000000000001",
        ] {
            assert_eq!(Role::parse(other), None, "{other}");
        }
    }

    /// Programs of different builds, and of different releases, are to find each other.
    #[test]
    fn hashes_and_digits_stay_what_they_are() {
        assert_eq!(hash(b""), 0xf52a_15e9_a9b5_e89b);
        assert_eq!(hash(b"page file"), 0x263416298bdfcece);
        assert_eq!(&base32::<10>(u64::MAX), b"vvvvvvvvvv");
        assert_eq!(&base32::<13>(u64::MAX), b"fvvvvvvvvvvvv");
        assert_eq!(&base32::<4>(0x1_0000 | 31 << 5 | 10), b"20va");
    }
}

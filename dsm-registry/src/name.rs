//! Names: of namespaces, which become names of operating-system objects, and of the things in
//! them, which are keys of the registry's own table.

use crate::error::Error;
use crate::error::kind::ErrorKind;

/// Longest name in bytes, of either sort.
pub const MAX_NAME: usize = 63;

/// The fixed form in which a name is a key: its bytes, then zeros.
pub(crate) type NameKey = [u8; MAX_NAME + 1];

/// Checks the name of a namespace: `[A-Za-z0-9._-]{1,63}`, not starting with a dot.
pub(crate) fn check_namespace(name: &str) -> Result<(), Error> {
    let reason = if name.is_empty() {
        "it is empty; take 1 to 63 bytes"
    } else if name.len() > MAX_NAME {
        "it is longer than 63 bytes; take a shorter one"
    } else if name.starts_with('.') {
        "it starts with a dot; take one that doesn't"
    } else if !name.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b)) {
        "it may consist of letters, digits, dot, underscore and hyphen only"
    } else {
        return Ok(());
    };
    Err(ErrorKind::InvalidNamespaceName { name: name.into(), reason }.into())
}

/// Turns the name of a thing into its key: 1 to 63 bytes of UTF-8 without NUL.
#[inline]
pub(crate) fn key(name: &str) -> Result<NameKey, Error> {
    let mut key = [0; MAX_NAME + 1];
    if name.is_empty() || name.len() > MAX_NAME || name.as_bytes().contains(&0) {
        return Err(invalid(name));
    }
    key[..name.len()].copy_from_slice(name.as_bytes());
    Ok(key)
}

#[cold]
fn invalid(name: &str) -> Error {
    let reason = if name.is_empty() {
        "it is empty; take 1 to 63 bytes"
    } else if name.len() > MAX_NAME {
        "it is longer than 63 bytes; take a shorter one"
    } else {
        "it contains a NUL byte; take one without"
    };
    ErrorKind::InvalidName { name: name.into(), reason }.into()
}

/// The name in a key, however its bytes came about.
pub(crate) fn text(key: &NameKey) -> String {
    let len = key.iter().position(|b| *b == 0).unwrap_or(key.len());
    String::from_utf8_lossy(&key[..len]).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn namespaces() {
        for good in ["demo", "a", "A-1.b_c", &"x".repeat(63)] {
            check_namespace(good).unwrap();
        }
        for bad in ["", ".", "..", ".x", "a/b", "a b", "ä", "a\0", &"x".repeat(64)] {
            let error = check_namespace(bad).unwrap_err();
            let refused = matches!(error.kind(), ErrorKind::InvalidNamespaceName { .. });
            assert!(refused, "{bad:?}: {error}");
        }
    }

    #[test]
    fn names() {
        for good in ["hits", "a/b c", "größe", &"x".repeat(63)] {
            assert_eq!(text(&key(good).unwrap()), good);
        }
        for bad in ["", "a\0b", &"x".repeat(64), &"ä".repeat(32)] {
            let error = key(bad).unwrap_err();
            assert!(matches!(error.kind(), ErrorKind::InvalidName { .. }), "{bad:?}: {error}");
        }
    }
}

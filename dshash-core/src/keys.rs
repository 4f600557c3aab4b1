//! Ready-made keys: functions for the untyped table, and a byte string as a typed key.

use core::mem::size_of;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::error::Error;
use crate::hash::Secrets;

/// How an untyped table treats its keys. A key as callers give it is any byte slice that
/// [`check`](Self::check) accepts; as the table keeps it, it is a field of fixed size.
///
/// Implementors may carry an argument of their own. All processes that share a table must agree
/// on what these functions do, which [`identity`](Self::identity) stands for.
#[doc(alias = "dshash_parameters")]
pub trait KeyFunctions: Send + Sync {
    /// Stored with the table and compared on attach.
    fn identity(&self) -> u64;

    /// Whether `key` can be kept in `field` bytes.
    ///
    /// # Errors
    ///
    /// [`Error::KeyTooLong`].
    fn check(&self, key: &[u8], field: usize) -> Result<(), Error>;

    /// The hash of a key; equal keys have equal hashes. It is spread over all bits by the table.
    #[doc(alias = "dshash_hash_function")]
    fn hash(&self, key: &[u8], secrets: &Secrets) -> u64;

    /// Whether `key` is what is kept in `field`.
    #[doc(alias = "dshash_compare_function")]
    fn equal(&self, key: &[u8], field: &[u8]) -> bool;

    /// Writes `key` to `field`, whose bytes are zero.
    #[doc(alias = "dshash_copy_function")]
    fn copy(&self, field: &mut [u8], key: &[u8]);
}

/// Keys that fill their field: compared byte by byte.
#[doc(alias = "dshash_memcmp")]
#[doc(alias = "dshash_memhash")]
#[derive(Clone, Copy, Debug, Default)]
pub struct MemoryKeys;

/// Strings that end at a NUL byte, kept in a field of fixed size: at least one byte shorter. What
/// follows a NUL in a caller's slice is ignored.
#[doc(alias = "dshash_strcmp")]
#[doc(alias = "dshash_strhash")]
#[derive(Clone, Copy, Debug, Default)]
pub struct StringKeys;

/// Byte strings of any content up to two bytes less than the field, kept with their length.
#[derive(Clone, Copy, Debug, Default)]
pub struct BytesKeys;

fn fits(len: usize, most: usize) -> Result<(), Error> {
    if len > most { Err(Error::KeyTooLong(len, most)) } else { Ok(()) }
}

impl KeyFunctions for MemoryKeys {
    fn identity(&self) -> u64 {
        u64::from_le_bytes(*b"memory\0\x01")
    }
    fn check(&self, key: &[u8], field: usize) -> Result<(), Error> {
        if key.len() == field { Ok(()) } else { Err(Error::KeyTooLong(key.len(), field)) }
    }
    fn hash(&self, key: &[u8], secrets: &Secrets) -> u64 {
        secrets.hash_bytes(key)
    }
    fn equal(&self, key: &[u8], field: &[u8]) -> bool {
        key == field
    }
    fn copy(&self, field: &mut [u8], key: &[u8]) {
        field.copy_from_slice(key);
    }
}

/// The part of a slice before its first NUL.
fn string(bytes: &[u8]) -> &[u8] {
    bytes.split(|b| *b == 0).next().unwrap_or(bytes)
}

impl KeyFunctions for StringKeys {
    fn identity(&self) -> u64 {
        u64::from_le_bytes(*b"string\0\x01")
    }
    fn check(&self, key: &[u8], field: usize) -> Result<(), Error> {
        fits(string(key).len(), field - 1)
    }
    fn hash(&self, key: &[u8], secrets: &Secrets) -> u64 {
        secrets.hash_bytes(string(key))
    }
    fn equal(&self, key: &[u8], field: &[u8]) -> bool {
        string(key) == string(field)
    }
    fn copy(&self, field: &mut [u8], key: &[u8]) {
        let key = string(key);
        field[..key.len()].copy_from_slice(key);
    }
}

impl KeyFunctions for BytesKeys {
    fn identity(&self) -> u64 {
        u64::from_le_bytes(*b"bytes\0\0\x01")
    }
    fn check(&self, key: &[u8], field: usize) -> Result<(), Error> {
        fits(key.len(), field.saturating_sub(2).min(usize::from(u16::MAX)))
    }
    fn hash(&self, key: &[u8], secrets: &Secrets) -> u64 {
        secrets.hash_bytes(key)
    }
    fn equal(&self, key: &[u8], field: &[u8]) -> bool {
        match field.split_first_chunk() {
            Some((len, bytes)) => bytes.get(..usize::from(u16::from_le_bytes(*len))) == Some(key),
            None => key.is_empty(),
        }
    }
    fn copy(&self, field: &mut [u8], key: &[u8]) {
        if let Some((len, bytes)) = field.split_first_chunk_mut() {
            *len = (key.len() as u16).to_le_bytes();
            bytes[..key.len()].copy_from_slice(key);
        }
    }
}

/// A byte string of at most `N` bytes as a key of a typed table: kept inline with its length, the
/// rest zero, so that equal strings have equal bytes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C, packed)]
pub struct StrKey<const N: usize> {
    len: [u8; 2],
    bytes: [u8; N],
}

impl<const N: usize> StrKey<N> {
    /// The key of these bytes.
    ///
    /// # Errors
    ///
    /// [`Error::KeyTooLong`] for more than `N` (or 65,535).
    pub fn new(bytes: impl AsRef<[u8]>) -> Result<Self, Error> {
        let from = bytes.as_ref();
        fits(from.len(), N.min(usize::from(u16::MAX)))?;
        let mut bytes = [0; N];
        bytes[..from.len()].copy_from_slice(from);
        Ok(Self { len: (from.len() as u16).to_le_bytes(), bytes })
    }

    /// The bytes.
    #[must_use]
    pub fn as_slice(&self) -> &[u8] {
        // Plain data: the length may be anything.
        let len = usize::from(u16::from_le_bytes(self.len)).min(N);
        // A field of a packed struct cannot be borrowed, whatever its alignment; all bytes can.
        &self.as_bytes()[size_of::<[u8; 2]>()..][..len]
    }

    /// The bytes as text; `None` if they are not UTF-8.
    #[must_use]
    pub fn as_str(&self) -> Option<&str> {
        core::str::from_utf8(self.as_slice()).ok()
    }
}

impl<const N: usize> core::fmt::Debug for StrKey<N> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self.as_str() {
            Some(text) => text.fmt(f),
            None => self.as_slice().fmt(f),
        }
    }
}

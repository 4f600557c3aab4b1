//! The hash of keys: rapidhash v3 over their bytes.
//!
//! Processes that share a table must agree on the hash for as long as it lives, which may be
//! longer than one build of one program: so it is a function with a fixed specification, not
//! `core::hash::Hash`. A table stores an identity of its hash and a random seed; the secrets are
//! derived from the seed, so that nobody can prepare colliding keys without reading the table.

use rapidhash::v3::{RapidSecrets, rapidhash_v3_inline};

/// Identity of [`Secrets::hash_bytes`]: changes when its output does.
pub const RAPIDHASH_V3: u64 = u64::from_le_bytes(*b"rapid3s\0");

/// What a seed is expanded to; kept by each process.
#[derive(Clone, Copy)]
pub struct Secrets(RapidSecrets);

impl Secrets {
    /// Expands a table's seed.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self(RapidSecrets::seed(seed))
    }

    /// The hash of some bytes.
    #[inline]
    #[must_use]
    pub fn hash_bytes(&self, bytes: &[u8]) -> u64 {
        rapidhash_v3_inline::<true, false, false>(bytes, &self.0)
    }

    /// Spreads a hash that a user's function computed, which may be weak, over all 64 bits.
    #[inline]
    #[must_use]
    pub fn spread(&self, hash: u64) -> u64 {
        self.hash_bytes(&hash.to_le_bytes())
    }
}

impl core::fmt::Debug for Secrets {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        // The seed is what keeps outsiders from making keys collide.
        f.write_str("Secrets(..)")
    }
}

/// The half of a hash that an entry keeps.
#[inline]
pub(crate) fn kept(hash: u64) -> u32 {
    (hash >> 32) as u32
}

/// The tag: the lowest byte, never zero.
#[inline]
pub(crate) fn tag(hash: u64) -> u8 {
    let tag = hash as u8;
    tag + u8::from(tag == 0)
}

/// The partition: the top bits.
#[inline]
pub(crate) fn partition(kept: u32, bits: u32) -> usize {
    (u64::from(kept) >> (32 - bits)) as usize
}

/// The directory word: the bits below those of the partition.
#[inline]
pub(crate) fn directory_index(kept: u32, partition_bits: u32, depth: u32) -> usize {
    // As 64 bits where the shift may be by all 32.
    (u64::from(kept << partition_bits) >> (32 - depth)) as usize
}

/// The home bucket in a segment of `mask + 1`.
#[inline]
pub(crate) fn home(kept: u32, mask: usize) -> usize {
    kept as usize & mask
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The output is part of the layout of every table: these values never change.
    #[test]
    fn golden() {
        let got = [
            Secrets::new(0).hash_bytes(b""),
            Secrets::new(0).hash_bytes(b"a"),
            Secrets::new(0).hash_bytes(&1u64.to_le_bytes()),
            Secrets::new(1).hash_bytes(&1u64.to_le_bytes()),
            Secrets::new(7).hash_bytes(&[0x5a; 33]),
            Secrets::new(u64::MAX).hash_bytes(&[1; 300]),
        ];
        let expected = [
            9_803_252_772_108_305_337,
            5_797_680_245_665_467_775,
            15_628_200_301_033_270_839,
            10_501_946_452_263_122_500,
            6_017_641_870_536_533_992,
            3_287_131_563_401_942_516,
        ];
        assert_eq!(got, expected);
    }

    #[test]
    fn parts_are_within_bounds_at_the_extremes() {
        assert_eq!(partition(u32::MAX, 0), 0);
        assert_eq!(partition(u32::MAX, 10), 1023);
        assert_eq!(directory_index(u32::MAX, 10, 0), 0);
        assert_eq!(directory_index(u32::MAX, 10, 16), 65535);
        assert_eq!(directory_index(0x00ff_ffff, 8, 4), 15);
        assert_eq!(tag(0x1200), 1);
        assert_eq!(tag(0x12ff), 255);
    }
}

//! Type tags: how two processes find out that they mean the same type.
//!
//! A tag is 64 bits stored beside a name. By default it is a hash of the type's name as
//! [`core::any::type_name`] gives it, of its size and of its alignment: it tells `Config` from
//! `Counter`, and a `Config` that gained a field from one that did not. It does not look at the
//! fields, so two fields of one type that changed places go unnoticed; and the compiler does not
//! promise that a type's name stays the same from one of its versions to the next, or says from
//! which crate version a type comes. Programs that are built apart give a tag of their own:
//! [`TypeTag::named`], through the options of each call.
//!
//! Within one process a tag is not what decides: the first lookup of an object does, and who asks
//! for another Rust type with the same tag gets [`ErrorKind::Mismatch`](crate::ErrorKind::Mismatch)
//! as long as there are handles of the first. (A program that contains this library twice is like
//! two processes.)
//!
//! The hash is FNV-1a of 64 bits over the bytes of the name, then size and alignment as eight
//! little-endian bytes each: part of the shared layout, and never changed within one.

/// Tells types apart across processes; see the module's essay.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct TypeTag(pub(crate) u64);

pub(crate) const FNV_OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
const FNV_PRIME: u64 = 0x0000_0100_0000_01b3;

pub(crate) const fn fnv(mut hash: u64, bytes: &[u8]) -> u64 {
    let mut i = 0;
    while i < bytes.len() {
        hash = (hash ^ bytes[i] as u64).wrapping_mul(FNV_PRIME);
        i += 1;
    }
    hash
}

impl TypeTag {
    /// The tag of a type that is not given one: of its name, size and alignment.
    #[must_use]
    pub fn of<T: 'static>() -> Self {
        let hash = fnv(FNV_OFFSET, core::any::type_name::<T>().as_bytes());
        let hash = fnv(hash, &(size_of::<T>() as u64).to_le_bytes());
        Self(fnv(hash, &(align_of::<T>() as u64).to_le_bytes()))
    }

    /// A tag that only its text and version decide: stays what it is when a type is renamed, or
    /// compiled by another compiler. Raise the version with each change of the type's layout or
    /// meaning.
    #[must_use]
    pub const fn named(text: &str, version: u32) -> Self {
        Self(fnv(fnv(FNV_OFFSET, text.as_bytes()), &(version as u64).to_le_bytes()))
    }

    /// The bits.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_types_apart() {
        assert_eq!(TypeTag::of::<u64>(), TypeTag::of::<u64>());
        assert_ne!(TypeTag::of::<u64>(), TypeTag::of::<i64>());
        assert_ne!(TypeTag::of::<[u8; 8]>(), TypeTag::of::<[u8; 9]>());
        assert_ne!(TypeTag::named("a", 1), TypeTag::named("a", 2));
    }

    #[test]
    fn is_part_of_the_layout() {
        // Golden values: FNV-1a as published, and the tag of a type that is the same everywhere.
        assert_eq!(fnv(FNV_OFFSET, b"foobar"), 0x8594_4171_f739_67e8);
        assert_eq!(
            TypeTag::of::<u32>().get(),
            fnv(FNV_OFFSET, b"u32\x04\0\0\0\0\0\0\0\x04\0\0\0\0\0\0\0")
        );
    }
}

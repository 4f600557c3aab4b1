//! What may lie in shared memory: plain data.
//!
//! The bounds are zerocopy's. A type that implements `FromBytes` has no invalid bit patterns, so
//! whatever a peer left in the memory is a value of the type; it holds no references, no `Box`,
//! no `String` and no raw pointer, all of which would mean nothing in another process. `Sync` keeps
//! out `Cell`, which would let two processes change one value unguarded; integer atomics pass.
//! Destructors are never run: what lies in shared memory has no single owner.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// A value that may lie in shared memory. Implemented for every type that qualifies: derive
/// [`zerocopy::FromBytes`] and [`zerocopy::KnownLayout`].
#[diagnostic::on_unimplemented(
    message = "`{Self}` can't lie in shared memory",
    note = "it must be plain data: `#[derive(zerocopy::FromBytes, zerocopy::KnownLayout)]`, \
            without references, `Box`, `String`, `Cell`; use atomics where it changes while shared, \
            and `DsaPtr` where it points"
)]
pub trait Plain: FromBytes + KnownLayout + Send + Sync + 'static {}

impl<T: FromBytes + KnownLayout + Send + Sync + 'static> Plain for T {}

/// A key of a hash table: plain data without padding and without interior mutability, compared
/// and hashed by its bytes. Implemented for every type that qualifies.
#[diagnostic::on_unimplemented(
    message = "`{Self}` can't be a key in shared memory",
    note = "a key is hashed and compared by its bytes: derive zerocopy's `FromBytes`, \
            `KnownLayout`, `IntoBytes` and `Immutable` for it"
)]
pub trait Key: Plain + IntoBytes + Immutable {}

impl<T: Plain + IntoBytes + Immutable> Key for T {}

/// A value that can be allocated in an [`Area`](crate::Area): plain data without padding and
/// without anything uninitialised, since [`Area::read`](crate::Area::read) copies an object's bytes
/// out as whatever type is asked for. Implemented for every type that qualifies.
#[diagnostic::on_unimplemented(
    message = "`{Self}` can't be allocated in an area",
    note = "the bytes of an object can be read as other types, so that each must mean something: \
            derive zerocopy's `FromBytes`, `KnownLayout` and `IntoBytes` for it, and make fields of \
            what would be padding"
)]
pub trait Object: Plain + IntoBytes {}

impl<T: Plain + IntoBytes> Object for T {}

/// A value that can be read without a lock: plain data, copied by its bytes.
#[diagnostic::on_unimplemented(
    message = "`{Self}` can't be copied out of shared memory without a lock",
    note = "it must be `Copy` and derive zerocopy's `FromBytes`, `KnownLayout`, `IntoBytes` and \
            `Immutable`; other values are read through `find`"
)]
pub trait Snapshot: Plain + Copy + IntoBytes + Immutable {}

impl<T: Plain + Copy + IntoBytes + Immutable> Snapshot for T {}

//! What ours and the peers have in common, for works that are written once for all of them.
//!
//! Operations are functions of their own, `#[inline(never)]`, as they are in a program that uses
//! them in several places: otherwise the compiler would put them into the loop of a work or not
//! depending on how many works there are, which is worth 25 instructions. What is but a few
//! instructions itself is `#[inline(always)]`.

/// An allocator under test.
pub trait Heap: 'static {
    /// What names an object.
    type Pointer: Copy;
    /// Allocates.
    fn allocate(&self, bytes: usize) -> Self::Pointer;
    /// Frees what [`allocate`](Self::allocate) returned for `bytes`.
    ///
    /// # Safety
    ///
    /// Once for each object, which is not used any more.
    unsafe fn free(&self, pointer: Self::Pointer, bytes: usize);
    /// The object's address.
    fn resolve(&self, pointer: Self::Pointer) -> *mut u64;
}

/// The value of a map's entry.
pub type Value = [u64; 7];

/// A map under test, from `u64` to [`Value`].
pub trait Map: Sized + 'static {
    /// An empty one.
    fn create() -> Self;
    /// Inserts a key that is not there, or overwrites.
    fn insert(&self, key: u64, value: &Value);
    /// A word of the key's value.
    fn get(&self, key: u64) -> Option<u64>;
    /// A word of the key's value, looked at under a lock.
    fn find(&self, key: u64) -> Option<u64>;
    /// Writes a word of the key's value; whether the key was there.
    fn update(&self, key: u64, word: u64) -> bool;
    /// Deletes; whether the key was there.
    fn delete(&self, key: u64) -> bool;
}

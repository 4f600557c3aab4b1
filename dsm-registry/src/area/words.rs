//! Objects and the words that name them: a pointer is stored, taken out, moved or freed together
//! with what it names, so that a kill at any moment loses nothing.
//!
//! A *word* is an [`AtomicDsaPointer`] that others find: a field of a [`Segment`](crate::Segment),
//! of a table's value, of an object in an area. The core writes down where the word lies, so that
//! whoever cleans up after a kill can look there.
//!
//! **What is safe, and why.** A word is a `&AtomicDsaPointer` that the caller already has, so that what a
//! call stores there itself is no more than what `AtomicDsaPointer::store` does. But whoever cleans up
//! after a kill is another process, later, in which nobody has that reference any more:
//!
//! * Of a destination it only reads (see `dsa_core`'s `area::intent`): `allocate_into` and
//!   `allocate_slice_into` are safe with any word.
//! * `take` leaves nothing to clean up. It is safe with any word.
//! * `move_between` may leave a word to be cleared later, `from`. In an area or a segment it is a
//!   word then, too, for what is there is shared as long as it exists. In a table's value it may be
//!   behind a `&mut` by then: such words are refused.
//! * `free_from` frees, which is the caller's to answer for, and may leave a word to be cleared
//!   later.

use std::ptr::NonNull;

use dsa_core::{AtomicDsaPointer, DsaPointer, DsaPtr, Flags};

use super::{Area, DsaSlice};
use crate::error::Error;
use crate::error::kind::ErrorKind;
use crate::plain::Object;

impl Area {
    /// Allocates memory for a value, stores the value there, and its pointer in `destination`:
    /// wherever this process is killed, either `destination` has the pointer, or the memory is
    /// freed by whoever cleans up. What `destination` held before is overwritten.
    ///
    /// `destination` lies in this area (which is quickest), in another one, in a segment or in a
    /// table's value.
    ///
    /// ```
    /// use dsm_registry::AtomicDsaPointer;
    /// use zerocopy::{FromBytes, KnownLayout};
    ///
    /// #[derive(FromBytes, KnownLayout)]
    /// struct Job {
    ///     input: AtomicDsaPointer,
    /// }
    ///
    /// # let registry = dsm_registry::Registry::open(&format!("doc-into-{}", std::process::id()))?;
    /// let area = registry.area("work")?;
    /// // A word in a segment.
    /// let head = registry.segment::<AtomicDsaPointer>("head", |_| Ok(()))?;
    /// area.allocate_into([1_u64, 2, 3], &head)?;
    /// // A word in a table's value.
    /// let jobs = registry.hash::<u64, Job>("jobs")?;
    /// let job = jobs.entry(&7)?.or_insert(Job { input: AtomicDsaPointer::default() })?;
    /// let input = area.allocate_into([4_u64; 100], &job.input)?;
    /// assert_eq!(area.read(input)?, [4; 100]);
    /// # Ok::<(), dsm_registry::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// As [`allocate`](Self::allocate), and [`ErrorKind::Area`] if `destination` is not in shared
    /// memory of this namespace; nothing is changed then.
    pub fn allocate_into<T: Object>(
        &self,
        value: T,
        destination: &AtomicDsaPointer,
    ) -> Result<DsaPtr<T>, Error> {
        let init = |at: NonNull<u8>| {
            // SAFETY: allocated just now for a `T`, and nobody else knows it.
            unsafe { at.cast::<T>().write(value) };
        };
        self.allocate_in(size_of::<T>(), align_of::<T>(), destination, init).map(DsaPointer::cast)
    }

    /// As [`allocate_into`](Self::allocate_into), for many values one after the other.
    /// `destination` gets the pointer to the first one; how many there are is to be found
    /// otherwise, for example in the first of them.
    ///
    /// ```
    /// use dsm_registry::AtomicDsaPointer;
    ///
    /// # let registry = dsm_registry::Registry::open(&format!("doc-slice-{}", std::process::id()))?;
    /// let area = registry.area("work")?;
    /// let head = registry.segment::<AtomicDsaPointer>("head", |_| Ok(()))?;
    /// let all = area.allocate_slice_into(&[3_u64, 10, 20, 30], &head)?;
    /// assert_eq!(area.read_slice(all)?, [3, 10, 20, 30]);
    /// # Ok::<(), dsm_registry::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// As [`allocate_into`](Self::allocate_into).
    pub fn allocate_slice_into<T: Object + Copy>(
        &self,
        values: &[T],
        destination: &AtomicDsaPointer,
    ) -> Result<DsaSlice<T>, Error> {
        let init = |at: NonNull<u8>| {
            let to = at.cast::<T>().as_ptr();
            // SAFETY: allocated just now for this many, and nobody else knows it.
            unsafe { to.copy_from_nonoverlapping(values.as_ptr(), values.len()) };
        };
        let first = self.allocate_in(size_of_val(values), align_of::<T>(), destination, init)?;
        Ok(DsaSlice::new(first.cast(), values.len()))
    }

    fn allocate_in(
        &self,
        size: usize,
        align: usize,
        destination: &AtomicDsaPointer,
        init: impl FnOnce(NonNull<u8>),
    ) -> Result<DsaPointer, Error> {
        let heap = self.object.heap()?;
        let made = heap.allocate_into(size, align, Flags::empty(), destination, init);
        self.say(made)
    }

    /// Takes out of a word what it names, and leaves the invalid pointer there; returns the invalid
    /// pointer if it finds that. Of several who take from a word one gets the object. Takes a lock.
    ///
    /// This, [`move_between`](Self::move_between) and [`free_from`](Self::free_from) are how a word
    /// is emptied into which others allocate. Who swaps the pointer out by hand may get an object
    /// that is freed and given to somebody else, if the one who allocated it is killed at that
    /// moment.
    ///
    /// A process that is killed before it has stored the pointer somewhere, or freed the object,
    /// loses it: the memory stays allocated as long as the area.
    ///
    /// ```
    /// use dsm_registry::{AtomicDsaPointer, DsaPtr};
    ///
    /// # let registry = dsm_registry::Registry::open(&format!("doc-take-{}", std::process::id()))?;
    /// let area = registry.area("work")?;
    /// let mailbox = registry.segment::<AtomicDsaPointer>("mailbox", |_| Ok(()))?;
    /// area.allocate_into(42_u64, &mailbox)?;
    /// let letter: DsaPtr<u64> = area.take(&mailbox)?;
    /// assert_eq!(area.read(letter)?, 42);
    /// assert!(!area.take::<u64>(&mailbox)?.is_valid());
    /// # Ok::<(), dsm_registry::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Area`] if the word names no allocated object of this area. Nothing is changed
    /// then.
    pub fn take<T>(&self, word: &AtomicDsaPointer) -> Result<DsaPtr<T>, Error> {
        let taken = self.object.heap()?.take(word);
        self.say(taken.map(DsaPointer::cast))
    }

    /// Moves what `from` names to `to`, and returns it; the invalid pointer if `from` names
    /// nothing. Wherever this process is killed, one of the two names the object (once somebody has
    /// used this function, `take` or `free_from` on the area again; until then both may). Takes a
    /// lock.
    ///
    /// `from` lies in an area or in a segment, `to` in a table's value if need be.
    ///
    /// ```
    /// use dsm_registry::AtomicDsaPointer;
    ///
    /// # let registry = dsm_registry::Registry::open(&format!("doc-move-{}", std::process::id()))?;
    /// let area = registry.area("work")?;
    /// // What is to be done, and what each of four workers is doing.
    /// let queue = registry.segment::<[AtomicDsaPointer; 8]>("queue", |_| Ok(()))?;
    /// let mine = registry.segment::<[AtomicDsaPointer; 4]>("in work", |_| Ok(()))?;
    /// area.allocate_into(42_u64, &queue[0])?;
    /// let job = area.move_between::<u64>(&queue[0], &mine[3])?;
    /// assert_eq!(area.read(job)?, 42);
    /// # Ok::<(), dsm_registry::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Area`] if `to` names something, if `from` names no allocated object of this
    /// area, or if `to` is not in shared memory of this namespace; [`ErrorKind::InvalidOption`] if
    /// `from` is neither in an area nor in a segment: [`take`](Self::take) does without. Nothing is
    /// changed then.
    pub fn move_between<T>(
        &self,
        from: &AtomicDsaPointer,
        to: &AtomicDsaPointer,
    ) -> Result<DsaPtr<T>, Error> {
        let heap = self.object.heap()?;
        if !self.stays_a_word(from) {
            let reason =
                "the word must lie in a named area or segment; take from it instead".into();
            return Err(ErrorKind::InvalidOption { what: "from", reason }.into());
        }
        // SAFETY: what lies in a named area, or in a segment, and safe code got a reference to, is
        // nobody's exclusively as long as it exists; who frees memory of an area promises that
        // nobody uses it any more, in any process.
        let moved = unsafe { heap.move_between(from, to) };
        self.say(moved.map(DsaPointer::cast))
    }

    /// Whether a word lies where it can be nothing but a word as long as its memory exists.
    fn stays_a_word(&self, word: &AtomicDsaPointer) -> bool {
        let address: *const u8 = std::ptr::from_ref(word).cast();
        let home = &self.object.home;
        self.object.is_named_and_has(address)
            || home.segments().any(|segment| segment.contains(address.addr()))
            || home.areas().any(|area| area.is_named_and_has(address))
    }

    /// Frees what a word names, and leaves the invalid pointer there: wherever this process is
    /// killed, both are done or neither, once somebody has used the area again. Does nothing if the
    /// word names nothing. Takes a lock.
    ///
    /// ```
    /// use dsm_registry::AtomicDsaPointer;
    ///
    /// # let registry = dsm_registry::Registry::open(&format!("doc-from-{}", std::process::id()))?;
    /// let area = registry.area("work")?;
    /// let head = registry.segment::<AtomicDsaPointer>("head", |_| Ok(()))?;
    /// area.allocate_into(42_u64, &head)?;
    /// // SAFETY: nobody follows the pointer by a reference.
    /// unsafe { area.free_from(&head)? };
    /// assert!(!area.take::<u64>(&head)?.is_valid());
    /// # Ok::<(), dsm_registry::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Free`] if the word names no allocated object of this area, [`ErrorKind::Area`]
    /// if it is not in shared memory of this namespace. Nothing is changed then.
    ///
    /// # Safety
    ///
    /// Nobody may use the object any more, in any process. If this process is killed, somebody else
    /// may clear the word up to the time that the area was used again by this function, `take` or
    /// `move_between`: as long its memory must not be used for anything else, and nobody may have
    /// it exclusively, unless it names the object no longer. (So a word in a table's value is to be
    /// freed from by who decides about the entry after such a kill, before anything else.)
    pub unsafe fn free_from(&self, word: &AtomicDsaPointer) -> Result<(), Error> {
        let heap = self.object.heap()?;
        // SAFETY: the caller's promise.
        self.say(unsafe { heap.free_from(word) })
    }
}

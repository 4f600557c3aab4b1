//! Checked copies in and out of objects, for memory that anyone may change.
//!
//! The pointer must be the first byte of an allocated object, and the range must lie inside it, so
//! that metadata (truth bytes, headers, tables) is out of reach. The bytes move by relaxed atomic
//! accesses, words where both ends are aligned to 8 and bytes elsewhere: what races with another
//! copy yields some mixture of the values written, and nothing worse.
//!
//! An object can be freed in the midst of a copy; the bytes are then of whatever is there, and
//! belong to another object, perhaps. Its whole segment can be given back: then a copy goes from,
//! or to, zeros of this process that nobody else sees (see `local`), and finds out afterwards.
//!
//! What is checked is that memory of objects is meant, not whose it is: a pointer made up from
//! bytes can name an object that somebody has a reference to, an entry of a table in the same area
//! among them. So these functions are `unsafe`. An area in which nobody has references, like those
//! that `dsm-registry` finds by name, can offer them as safe ones.

use dsm_core::lock::RawLock;
use dsm_core::sync::{AtomicU8, AtomicU64, Ordering, fence};

use super::Area;
use super::runs::Located;
use crate::class::SIZES;
use crate::error::Error;
use crate::layout::PAGE;
use crate::memory::Memory;
use crate::pointer::DsaPointer;
use crate::slab::is_allocated;

impl<L: RawLock> Area<'_, L> {
    /// Bytes that the object at `pointer` can hold: its size class or its pages.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidPointer`] unless an allocated object starts there.
    #[doc(alias = "malloc_usable_size")]
    pub fn size_of_object(&self, pointer: DsaPointer) -> Result<u64, Error> {
        let wild = Error::InvalidPointer(pointer);
        match self.locate(pointer)? {
            Located::Slab(slab) => {
                let class = slab.class()?;
                let index = slab.index_of(pointer).ok_or(wild)?;
                if !is_allocated(slab.truth(index)?.load(Ordering::Acquire)) {
                    return Err(wild);
                }
                Ok(u64::from(SIZES[class]))
            }
            Located::Large { pages, .. } => Ok(u64::from(pages) * PAGE),
            Located::Unknown => Err(wild),
        }
    }

    fn inside(
        &self,
        pointer: DsaPointer,
        offset: usize,
        bytes: usize,
    ) -> Result<(Memory<'_>, u64), Error> {
        let size = self.size_of_object(pointer)?;
        let end = (offset as u64).checked_add(bytes as u64);
        if end.is_none_or(|end| end > size) {
            return Err(Error::OutOfObject(end.unwrap_or(u64::MAX), size));
        }
        let memory = self.map(pointer.key())?;
        let start = pointer.offset() + offset as u64;
        memory.range(start, bytes as u64)?;
        Ok((memory, start))
    }

    /// Copies bytes out of the object at `pointer`, from `offset` in it.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidPointer`] unless an allocated object starts there, [`Error::OutOfObject`]
    /// if the range leaves it.
    ///
    /// # Safety
    ///
    /// Nobody may have a `&mut` to any of the object's bytes meanwhile.
    pub unsafe fn copy_out(
        &self,
        pointer: DsaPointer,
        offset: usize,
        to: &mut [u8],
    ) -> Result<(), Error> {
        let (memory, start) = self.inside(pointer, offset, to.len())?;
        let mut at = start;
        let (head, words) = split(start, to.len());
        let (first, rest) = to.split_at_mut(head);
        let (middle, last) = rest.split_at_mut(words * 8);
        for byte in first {
            *byte = memory.at::<AtomicU8>(at)?.load(Ordering::Relaxed);
            at += 1;
        }
        for word in middle.chunks_exact_mut(8) {
            let value = memory.at::<AtomicU64>(at)?.load(Ordering::Relaxed);
            word.copy_from_slice(&value.to_ne_bytes());
            at += 8;
        }
        for byte in last {
            *byte = memory.at::<AtomicU8>(at)?.load(Ordering::Relaxed);
            at += 1;
        }
        // The loads come before the look.
        fence(Ordering::Acquire);
        self.still_there(pointer)
    }

    /// Says so if the object's segment was given back by now.
    fn still_there(&self, pointer: DsaPointer) -> Result<(), Error> {
        if self.local.key(pointer.segment()) == pointer.key() {
            Ok(())
        } else {
            Err(Error::InvalidPointer(pointer))
        }
    }

    /// Copies bytes into the object at `pointer`, from `offset` in it on.
    ///
    /// # Errors
    ///
    /// As [`copy_out`](Self::copy_out).
    ///
    /// # Safety
    ///
    /// Nobody may have a reference to any of the object's bytes meanwhile, but to atomics.
    pub unsafe fn copy_in(
        &self,
        pointer: DsaPointer,
        offset: usize,
        from: &[u8],
    ) -> Result<(), Error> {
        let (memory, start) = self.inside(pointer, offset, from.len())?;
        let mut at = start;
        let (head, words) = split(start, from.len());
        let (first, rest) = from.split_at(head);
        let (middle, last) = rest.split_at(words * 8);
        for byte in first {
            memory.at::<AtomicU8>(at)?.store(*byte, Ordering::Relaxed);
            at += 1;
        }
        for word in middle.chunks_exact(8) {
            let mut value = [0; 8];
            value.copy_from_slice(word);
            memory.at::<AtomicU64>(at)?.store(u64::from_ne_bytes(value), Ordering::Relaxed);
            at += 8;
        }
        for byte in last {
            memory.at::<AtomicU8>(at)?.store(*byte, Ordering::Relaxed);
            at += 1;
        }
        // The stores come before the look: else one could go astray unnoticed.
        fence(Ordering::SeqCst);
        self.still_there(pointer)
    }
}

/// Bytes before the first aligned word, and how many words follow.
fn split(start: u64, bytes: usize) -> (usize, usize) {
    let head = ((8 - start % 8) % 8).min(bytes as u64) as usize;
    (head, (bytes - head) / 8)
}

//! The pool: blocks of files in shared memory, read through by all server processes.
//!
//! A named hash table from a block's name to its bytes. Who misses a block reads it from its file
//! and puts it there, as long as the pool has room; then blocks are served from their files. (A
//! real server would evict; who prewarms doesn't need to know how.)

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use dsm_registry::{Entry, Error, HashTable, Registry, Segment};

use super::block::{Block, BlockId};
use super::server::Failure;

/// The pool's size.
#[derive(zerocopy::FromBytes, zerocopy::KnownLayout)]
#[repr(C)]
struct Shape {
    /// Most blocks that the pool holds.
    capacity: u64,
    /// Blocks that it holds: a count beside the truth, which is the table. Who is killed between
    /// the two leaves it wrong by one; each dump sets it right.
    used: AtomicU64,
}

/// The pool, as one process sees it.
pub(crate) struct Pool {
    shape: Segment<Shape>,
    blocks: HashTable<BlockId, Block>,
}

/// How a block was found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Found {
    /// In the pool.
    Hit,
    /// In its file; it is in the pool now.
    Loaded,
    /// In its file; the pool is full.
    Full,
    /// Nowhere.
    Missing,
}

impl Pool {
    /// Finds the pool, or creates it for `capacity` blocks.
    pub(crate) fn open(registry: &Registry, capacity: u64) -> Result<Self, Error> {
        let shape = registry.segment::<Shape>("pool", |shape| {
            shape.capacity = capacity;
            Ok(())
        })?;
        let blocks = registry.hash("pool.blocks")?;
        Ok(Self { shape, blocks })
    }

    /// Most blocks that it holds.
    pub(crate) fn capacity(&self) -> u64 {
        self.shape.capacity
    }

    /// Blocks that it holds.
    pub(crate) fn used(&self) -> u64 {
        self.shape.used.load(Ordering::Relaxed)
    }

    /// Whether there is no room for another.
    pub(crate) fn is_full(&self) -> bool {
        self.used() >= self.capacity()
    }

    /// Reads a block through the pool: how it was found, and the sum of its bytes.
    pub(crate) fn read(&self, data: &Path, id: BlockId) -> Result<(Found, u64), Failure> {
        match self.blocks.find(&id) {
            Ok(Some(block)) => return Ok((Found::Hit, sum(&block))),
            // Poisoned: a process was killed as it put the block there. Read it anew.
            Ok(None) => {}
            Err(error) if error.is_poisoned() => {}
            Err(error) => return Err(error.into()),
        }
        let Some(block) = id.read(data)? else { return Ok((Found::Missing, 0)) };
        if self.is_full() {
            return Ok((Found::Full, sum(&block)));
        }
        if let Entry::Vacant(place) = self.blocks.entry_or_repair(&id, |old| *old = block)? {
            let _placed = place.insert(block)?;
            self.shape.used.fetch_add(1, Ordering::Relaxed);
        }
        Ok((Found::Loaded, sum(&block)))
    }

    /// Which blocks the pool holds, in no particular order.
    pub(crate) fn list(&self) -> Result<Vec<BlockId>, Error> {
        let mut blocks = Vec::new();
        let mut scan = self.blocks.scan()?;
        while let Some((id, _)) = scan.next()? {
            blocks.push(*id);
        }
        self.shape.used.store(blocks.len() as u64, Ordering::Relaxed);
        Ok(blocks)
    }
}

fn sum(block: &Block) -> u64 {
    block.0.iter().map(|byte| u64::from(*byte)).sum()
}

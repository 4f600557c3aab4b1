//! A block of a file, by name.
//!
//! Files lie where a database server would have them: `DATA/TABLESPACE/DATABASE/FILE`, all three
//! numbers; a file can have forks beside it, `FILE_fsm`, `FILE_vm` and `FILE_init`. Block `n` of a
//! file is its n-th 8 KiB; a last block that is shorter is as good as filled up with zeros.

use std::fmt;
use std::io::{ErrorKind, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Bytes of a block.
pub(crate) const BLOCK_BYTES: usize = 8192;

/// Names of a file's forks, as the end of its name.
const FORKS: [&str; 4] = ["", "_fsm", "_vm", "_init"];

/// Names a block. The order of the fields is the order in which blocks are loaded: by database,
/// then file by file from front to back.
#[derive(
    Clone,
    Copy,
    PartialEq,
    Eq,
    Hash,
    PartialOrd,
    Ord,
    Debug,
    FromBytes,
    IntoBytes,
    KnownLayout,
    Immutable,
)]
#[repr(C)]
pub(crate) struct BlockId {
    /// Database.
    pub(crate) database: u32,
    /// Tablespace.
    pub(crate) tablespace: u32,
    /// File.
    pub(crate) file: u32,
    /// Fork: an index of the known forks.
    pub(crate) fork: u32,
    /// Block of the fork.
    pub(crate) block: u32,
}

impl BlockId {
    /// Where the file lies; `None` if there is no such fork.
    pub(crate) fn path(&self, data: &Path) -> Option<PathBuf> {
        let fork = FORKS.get(self.fork as usize)?;
        Some(
            data.join(self.tablespace.to_string())
                .join(self.database.to_string())
                .join(format!("{}{fork}", self.file)),
        )
    }

    /// Reverses [`path`](Self::path) for a path relative to the data directory: block 0 of it.
    pub(crate) fn from_path(path: &str) -> Option<Self> {
        let mut parts = path.split('/');
        let tablespace = parts.next()?.parse().ok()?;
        let database = parts.next()?.parse().ok()?;
        let name = parts.next()?;
        if parts.next().is_some() {
            return None;
        }
        let digits = name.find(|c: char| !c.is_ascii_digit()).unwrap_or(name.len());
        let fork = FORKS.iter().position(|fork| *fork == &name[digits..])? as u32;
        let file = name[..digits].parse().ok()?;
        Some(Self { database, tablespace, file, fork, block: 0 })
    }

    /// How many blocks the file has; 0 if it is not there.
    pub(crate) fn blocks_of_file(&self, data: &Path) -> std::io::Result<u32> {
        let Some(path) = self.path(data) else { return Ok(0) };
        match std::fs::metadata(path) {
            Ok(metadata) => {
                let blocks = metadata.len().div_ceil(BLOCK_BYTES as u64);
                Ok(u32::try_from(blocks).unwrap_or(u32::MAX))
            }
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(0),
            Err(error) => Err(error),
        }
    }

    /// Reads the block; `None` if there is no such file, or if it ends before the block.
    pub(crate) fn read(&self, data: &Path) -> std::io::Result<Option<Block>> {
        let Some(path) = self.path(data) else { return Ok(None) };
        let mut file = match std::fs::File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        file.seek(SeekFrom::Start(u64::from(self.block) * BLOCK_BYTES as u64))?;
        let mut bytes = Vec::with_capacity(BLOCK_BYTES);
        file.take(BLOCK_BYTES as u64).read_to_end(&mut bytes)?;
        if bytes.is_empty() {
            return Ok(None);
        }
        let mut block = Block([0; BLOCK_BYTES]);
        block.0[..bytes.len()].copy_from_slice(&bytes);
        Ok(Some(block))
    }
}

impl fmt::Display for BlockId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { database, tablespace, file, fork, block } = self;
        let fork = FORKS.get(*fork as usize).unwrap_or(&"_?");
        write!(f, "{tablespace}/{database}/{file}{fork}:{block}")
    }
}

/// The bytes of a block.
#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub(crate) struct Block(pub(crate) [u8; BLOCK_BYTES]);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_name_blocks() {
        let id = BlockId::from_path("1663/5/1259_vm").unwrap();
        assert_eq!(id, BlockId { database: 5, tablespace: 1663, file: 1259, fork: 2, block: 0 });
        assert_eq!(id.path(Path::new("d")).unwrap(), Path::new("d/1663/5/1259_vm"));
        assert_eq!(id.to_string(), "1663/5/1259_vm:0");
        for bad in ["", "1/2", "1/2/3/4", "a/2/3", "1/2/_vm", "1/2/3_x", "1/2/99999999999"] {
            assert_eq!(BlockId::from_path(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn a_file_is_read_block_by_block() {
        let data = tempfile::tempdir().unwrap();
        let id = BlockId::from_path("1/2/3").unwrap();
        assert!(id.read(data.path()).unwrap().is_none());
        assert_eq!(id.blocks_of_file(data.path()).unwrap(), 0);
        std::fs::create_dir_all(data.path().join("1/2")).unwrap();
        std::fs::write(data.path().join("1/2/3"), [vec![1; BLOCK_BYTES], vec![2; 10]].concat())
            .unwrap();
        assert_eq!(id.blocks_of_file(data.path()).unwrap(), 2);
        assert_eq!(id.read(data.path()).unwrap().unwrap().0[BLOCK_BYTES - 1], 1);
        let last = BlockId { block: 1, ..id }.read(data.path()).unwrap().unwrap();
        assert_eq!((last.0[9], last.0[10]), (2, 0));
        assert!(BlockId { block: 2, ..id }.read(data.path()).unwrap().is_none());
        assert!(BlockId { fork: 9, ..id }.read(data.path()).unwrap().is_none());
    }
}

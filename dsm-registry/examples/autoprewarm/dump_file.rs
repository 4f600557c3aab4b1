//! The dump file: which blocks were in the pool.
//!
//! ```text
//! <<3>>
//! 5,1663,1259,0,0
//! 5,1663,1259,0,1
//! 5,1663,1259,2,0
//! ```
//!
//! A count, then a line per block: database, tablespace, file, fork, block. Nothing in the file
//! is taken on trust: memory is taken as lines are read, not as the count says; a line that is not
//! five numbers, or a count that is not that of the lines, is an error that says which line.
//!
//! The file is replaced as a whole: written beside its place, forced to the disk, renamed, and the
//! directory forced too (where directories can be: not on Windows). A crash at any moment leaves
//! the old file or the new one.

use std::fmt;
use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};

use super::block::BlockId;

/// Why a dump file can't be read.
pub(crate) enum Error {
    /// The system says so.
    Io(PathBuf, io::Error),
    /// It is damaged: file, line from 1, and what is wrong with it.
    Damaged(PathBuf, usize, String),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(path, error) => write!(f, "{}: {error}", path.display()),
            Self::Damaged(path, line, what) => write!(
                f,
                "{}, line {line}: {what}; the file is damaged: remove it, and the pool starts cold",
                path.display()
            ),
        }
    }
}

dsm_core::debug_is_display!(Error);
impl std::error::Error for Error {}

/// Reads the file; `None` if there is none.
pub(crate) fn read(path: &Path) -> Result<Option<Vec<BlockId>>, Error> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Error::Io(path.to_owned(), error)),
    };
    parse(path, BufReader::new(file)).map(Some)
}

fn parse(path: &Path, input: impl BufRead) -> Result<Vec<BlockId>, Error> {
    let damaged = |line: usize, what: String| Error::Damaged(path.to_owned(), line, what);
    let mut promised = None;
    let mut blocks = Vec::new();
    for (index, line) in input.split(b'\n').enumerate() {
        let number = index + 1;
        let bytes = line.map_err(|error| Error::Io(path.to_owned(), error))?;
        let line = String::from_utf8_lossy(&bytes);
        let Some(promised) = promised else {
            promised = Some(parse_count(&line).ok_or_else(|| {
                damaged(number, format!("expected a count such as <<100>>, found {line:.40?}"))
            })?);
            continue;
        };
        if blocks.len() as u64 == promised {
            return Err(damaged(number, format!("more than the {promised} blocks of line 1")));
        }
        blocks.push(parse_block(&line).ok_or_else(|| {
            damaged(
                number,
                format!("expected database,tablespace,file,fork,block, found {line:.60?}"),
            )
        })?);
    }
    match promised {
        None => Err(damaged(1, "the file is empty".to_owned())),
        Some(promised) if promised != blocks.len() as u64 => Err(damaged(
            blocks.len() + 2,
            format!("the file ends after {} of the {promised} blocks of line 1", blocks.len()),
        )),
        Some(_) => Ok(blocks),
    }
}

fn parse_count(line: &str) -> Option<u64> {
    line.strip_prefix("<<")?.strip_suffix(">>")?.parse().ok()
}

fn parse_block(line: &str) -> Option<BlockId> {
    let mut fields = line.split(',').map(|field| field.parse::<u32>().ok());
    let mut next = || fields.next().flatten();
    let id = BlockId {
        database: next()?,
        tablespace: next()?,
        file: next()?,
        fork: next()?,
        block: next()?,
    };
    fields.next().is_none().then_some(id)
}

/// Replaces the file by one that lists `blocks`.
pub(crate) fn write(path: &Path, blocks: &[BlockId]) -> Result<(), Error> {
    let temporary = path.with_extension("tmp");
    write_and_rename(path, &temporary, blocks).map_err(|error| {
        // The error that matters is the first one.
        let _ = std::fs::remove_file(&temporary);
        Error::Io(path.to_owned(), error)
    })
}

fn write_and_rename(path: &Path, temporary: &Path, blocks: &[BlockId]) -> io::Result<()> {
    let mut out = BufWriter::new(File::create(temporary)?);
    writeln!(out, "<<{}>>", blocks.len())?;
    for BlockId { database, tablespace, file, fork, block } in blocks {
        writeln!(out, "{database},{tablespace},{file},{fork},{block}")?;
    }
    out.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()?;
    std::fs::rename(temporary, path)?;
    if cfg!(unix) {
        let directory = path.parent().filter(|p| !p.as_os_str().is_empty());
        File::open(directory.unwrap_or(Path::new(".")))?.sync_all()?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(block: u32) -> BlockId {
        BlockId { database: 5, tablespace: 1663, file: 1259, fork: 0, block }
    }

    #[test]
    fn what_is_written_is_read() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("autoprewarm.blocks");
        assert!(read(&path).unwrap().is_none());
        for blocks in [vec![], vec![id(1)], vec![id(3), id(2), id(u32::MAX)]] {
            write(&path, &blocks).unwrap();
            assert_eq!(read(&path).unwrap().unwrap(), blocks);
        }
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1, "no temporary is left");
    }

    #[test]
    fn damage_is_refused_by_line() {
        for (content, line, what) in [
            ("", 1, "empty"),
            ("5,1,2,0,0\n", 1, "expected a count"),
            ("<<x>>\n", 1, "expected a count"),
            ("<<-1>>\n", 1, "expected a count"),
            ("<<2>>\n1,2,3,0,0\n", 3, "ends after 1 of the 2"),
            ("<<1>>\n1,2,3,0,0\n1,2,3,0,1\n", 3, "more than the 1"),
            (
                "<<18446744073709551615>>\n1,2,3,0,0\n",
                3,
                "ends after 1 of the 18446744073709551615",
            ),
            ("<<2>>\n1,2,3,0,0\n1,2,3,x,0\n", 3, "found \"1,2,3,x,0\""),
            ("<<1>>\n1,2,3,0\n", 2, "expected database"),
            ("<<1>>\n1,2,3,0,0,0\n", 2, "expected database"),
            ("<<1>>\n1,2,3,0,4294967296\n", 2, "expected database"),
            ("<<1>>\n\u{fffd}\n", 2, "expected database"),
        ] {
            match parse(Path::new("f"), content.as_bytes()) {
                Err(error @ Error::Damaged(_, at, _)) => {
                    assert_eq!(at, line, "{content:?}");
                    assert!(error.to_string().contains(what), "{content:?}: {error}");
                }
                other => panic!("{content:?}: {other:?}"),
            }
        }
    }

    #[test]
    fn a_failed_write_leaves_the_old_file() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("autoprewarm.blocks");
        write(&path, &[id(1)]).unwrap();
        // A directory in the place of the temporary.
        std::fs::create_dir(path.with_extension("tmp")).unwrap();
        assert!(write(&path, &[id(2)]).is_err());
        assert_eq!(read(&path).unwrap().unwrap(), [id(1)]);
    }
}

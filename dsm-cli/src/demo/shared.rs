//! What the processes of a demo share: the board, the text, and the table of counts.

use std::collections::HashMap;
use std::sync::atomic::Ordering;

use dsm_registry::system::SharedMemory;
use dsm_registry::{Bytes, Error, HashTable, Platform, Registry, Segment, WriteGuard};

use super::board::{Board, MAX_PIECES};
use super::exactly_once;
use super::text::{Word, pieces, words};

const BOARD: &str = "board";
const TEXT: &str = "text";
const WORDS: &str = "words";

/// The namespace of a demo and the three things in it.
pub(crate) struct Shared {
    /// Dropped last.
    pub(crate) registry: Registry,
    /// Who counts what.
    pub(crate) board: Segment<Board>,
    /// The bytes to be counted.
    pub(crate) text: Bytes,
    /// The counts.
    pub(crate) table: HashTable<Word, u64>,
}

impl Shared {
    /// Creates the namespace and puts the work on its board.
    pub(crate) fn create(name: &str, text: &str, passes: u64) -> Result<Self, Error> {
        let work: Vec<_> = pieces(text, MAX_PIECES)
            .into_iter()
            .map(|range| (range.clone(), words(&text[range]).count()))
            .filter(|(_, words)| *words > 0)
            .collect();
        let registry = Registry::open(name)?;
        let board = registry.segment::<Board>(BOARD, |board| {
            board.text_bytes.store(text.len() as u64, Ordering::Relaxed);
            board.passes.store(passes, Ordering::Relaxed);
            board.set_pieces(&work);
            Ok(())
        })?;
        let bytes = registry.segment_bytes(TEXT, text.len(), |bytes| {
            bytes.copy_from_slice(text.as_bytes());
            Ok(())
        })?;
        let table = registry.hash(WORDS)?;
        Ok(Self { registry, board, text: bytes, table })
    }

    /// Joins the namespace of a demo that is running.
    pub(crate) fn join(name: &str) -> Result<Self, Error> {
        let registry = Registry::open(name)?;
        let gone = || Err("there is no demo of this name".into());
        let board = registry.segment::<Board>(BOARD, |_| gone())?;
        let len = board.text_bytes.load(Ordering::Relaxed) as usize;
        let text = registry.segment_bytes(TEXT, len, |_| gone())?;
        let table = registry.hash(WORDS)?;
        Ok(Self { registry, board, text, table })
    }

    /// Locks the entry of a word. If its last holder died with it, its count is made right first.
    pub(crate) fn entry<'s>(&'s self, word: &'s Word) -> Result<WriteGuard<'s, Word, u64>, Error> {
        let repair = |count: &mut u64| {
            exactly_once::repair(&self.board, word, count);
        };
        self.table.entry_or_repair(word, repair)?.or_insert(0)
    }

    /// All counts; those that the dead left unrepaired are made right.
    pub(crate) fn counts(&self) -> Result<HashMap<Word, u64>, Error> {
        let mut counts = HashMap::new();
        let mut poisoned = Vec::new();
        let mut scan = self.table.scan()?;
        while let Some((word, count)) = scan.next()? {
            match count {
                Ok(count) => drop(counts.insert(*word, *count)),
                Err(error) if error.is_poisoned() => poisoned.push(*word),
                Err(error) => return Err(error),
            }
        }
        drop(scan);
        for word in poisoned {
            counts.insert(word, *self.entry(&word)?);
        }
        Ok(counts)
    }

    /// How much memory all this takes.
    pub(crate) fn usage(&self) -> Result<Usage, Error> {
        let inspector = Registry::inspect(self.registry.namespace())?;
        let segments: u64 = inspector.segments().map(|segment| segment.reserved).sum();
        let names = self.registry.list()?;
        let table = names.iter().filter(|listing| listing.name == WORDS).map(|words| words.used);
        Ok(Usage {
            reserved: inspector.info().map_or(0, |info| info.size) + segments,
            table: table.sum(),
        })
    }

    /// Lets go of everything, as the last to leave: returns the objects that are left in shared
    /// memory nevertheless, and their bytes.
    pub(crate) fn leave(self) -> Result<(u64, Vec<String>), String> {
        let namespace = self.registry.namespace().to_owned();
        drop(self);
        let mut left: Vec<(String, u64)> = objects_of(&namespace);
        if left.is_empty() && !matches!(Registry::inspect(&namespace), Err(e) if e.is_not_found()) {
            left.push((format!("namespace {namespace}"), 0));
        }
        let bytes = left.iter().map(|(_, bytes)| bytes).sum();
        Ok((bytes, left.into_iter().map(|(name, _)| name).collect()))
    }
}

/// Memory of a demo, in bytes.
pub(crate) struct Usage {
    /// Of shared memory in all.
    pub(crate) reserved: u64,
    /// In use by the table.
    pub(crate) table: u64,
}

/// The objects in shared memory whose names say that they belong to a namespace: looked up behind
/// the library's back, where the system shows them as files.
fn objects_of(namespace: &str) -> Vec<(String, u64)> {
    let part = format!("{namespace}.");
    let entries =
        std::fs::read_dir(SharedMemory::default().place()).into_iter().flatten().flatten();
    entries
        .filter_map(|entry| {
            let name = entry.file_name().to_string_lossy().into_owned();
            let bytes = entry.metadata().map_or(0, |metadata| metadata.len());
            (name.starts_with("dsm.") && name.contains(&part)).then_some((name, bytes))
        })
        .collect()
}

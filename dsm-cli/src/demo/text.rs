//! The text: where it comes from, how it is cut into pieces, and what a word is.
//!
//! All files together become one text, in which every worker sees the same bytes: it lies in a
//! shared segment. A *word* is a longest run of letters and digits, in lower case; one that does
//! not fit into a key is cut off at the last whole character that does (the count of a single
//! process, which the result is compared with, uses whole words and cuts only when it compares).
//!
//! A *piece* is a range of bytes that neither begins nor ends inside a word, so that cutting never
//! changes what is counted. A piece is small enough to be read again from its start in no time:
//! who takes it over skips as many words as its progress says.

use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Bytes of a key, the NUL at its end included.
pub(crate) const KEY_BYTES: usize = 48;

/// A word as a key of the table: its bytes, then NULs.
#[derive(
    Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, FromBytes, IntoBytes, KnownLayout, Immutable,
)]
#[repr(C)]
pub(crate) struct Word(pub(crate) [u8; KEY_BYTES]);

impl Word {
    /// The key of a word, cut off at the last whole character that fits.
    pub(crate) fn new(word: &str) -> Self {
        let mut end = word.len().min(KEY_BYTES - 1);
        while !word.is_char_boundary(end) {
            end -= 1;
        }
        let mut bytes = [0; KEY_BYTES];
        bytes[..end].copy_from_slice(&word.as_bytes()[..end]);
        Self(bytes)
    }
}

impl fmt::Display for Word {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let end = self.0.iter().position(|b| *b == 0).unwrap_or(KEY_BYTES);
        f.write_str(&String::from_utf8_lossy(&self.0[..end]))
    }
}

impl fmt::Debug for Word {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.to_string())
    }
}

/// The words of a text, in their order.
pub(crate) fn words(text: &str) -> impl Iterator<Item = String> + '_ {
    text.split(|c: char| !c.is_alphanumeric()).filter(|run| !run.is_empty()).map(str::to_lowercase)
}

/// Cuts a text into at most `count` pieces of about the same length; together they are the text.
pub(crate) fn pieces(text: &str, count: usize) -> Vec<Range<usize>> {
    let step = text.len().div_ceil(count.max(1)).max(1);
    let mut pieces = Vec::new();
    let mut start = 0;
    while start < text.len() {
        let mut target = (start + step).min(text.len());
        while !text.is_char_boundary(target) {
            target += 1;
        }
        // A cut may only fall between words: move it on to the next character that is in none.
        let end = text[target..]
            .find(|c: char| !c.is_alphanumeric())
            .map_or(text.len(), |further| target + further);
        pieces.push(start..end);
        start = end;
    }
    pieces
}

/// Files that were read.
#[derive(Debug)]
pub(crate) struct Text {
    /// All of them, one after the other.
    pub(crate) content: String,
    /// How many.
    pub(crate) files: usize,
}

/// Reads the files, or the project's documents if there are none.
pub(crate) fn read(files: &[PathBuf]) -> Result<Text, String> {
    if files.is_empty() {
        return Ok(own_documents());
    }
    let mut content = String::new();
    for file in files {
        let bytes =
            std::fs::read(file).map_err(|e| format!("cannot read {}: {e}", file.display()))?;
        content.push_str(&String::from_utf8_lossy(&bytes));
        // The last word of one file and the first of the next are two.
        content.push('\n');
    }
    if words(&content).next().is_none() {
        return Err("there are no words in what was given; try a text file".to_owned());
    }
    Ok(Text { content, files: files.len() })
}

/// The documents of the source tree this program was built from, or, where that is gone, those
/// that were built into it.
fn own_documents() -> Text {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut paths = markdown_in(&root);
    for directory in directories_in(&root) {
        paths.extend(markdown_in(&directory));
    }
    paths.sort();
    let found = if paths.is_empty() { None } else { read(&paths).ok() };
    found.unwrap_or_else(|| {
        let built_in =
            [include_str!("../../../README.md"), include_str!("../../../ARCHITECTURE.md")];
        Text { content: built_in.join("\n"), files: built_in.len() }
    })
}

fn entries(directory: &Path) -> impl Iterator<Item = PathBuf> {
    std::fs::read_dir(directory).into_iter().flatten().flatten().map(|entry| entry.path())
}

fn markdown_in(directory: &Path) -> Vec<PathBuf> {
    entries(directory).filter(|p| p.extension().is_some_and(|e| e == "md") && p.is_file()).collect()
}

fn directories_in(directory: &Path) -> Vec<PathBuf> {
    let is_hidden = |p: &PathBuf| {
        p.file_name().is_none_or(|n| n.to_string_lossy().starts_with('.') || n == "target")
    };
    entries(directory).filter(|p| p.is_dir() && !is_hidden(p)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_runs_of_letters_and_digits_in_lower_case() {
        let found: Vec<String> = words("Größe—x86_64's  ÄRGER\n(1)").collect();
        assert_eq!(found, ["größe", "x86", "64", "s", "ärger", "1"]);
    }

    #[test]
    fn a_long_word_is_cut_between_characters() {
        let word = "ä".repeat(40);
        let key = Word::new(&word);
        assert_eq!(key.to_string(), "ä".repeat(23));
        assert_eq!(key.0[KEY_BYTES - 1], 0);
    }

    #[test]
    fn cutting_changes_no_word() {
        let text = "eins zwei größe drei vier ärger — fünf undsoweiterohneende x";
        let whole: Vec<String> = words(text).collect();
        for count in 1..=text.len() + 1 {
            let pieces = pieces(text, count);
            assert!(pieces.len() <= count);
            assert_eq!(pieces.first().map(|p| p.start), Some(0));
            assert_eq!(pieces.last().map(|p| p.end), Some(text.len()));
            assert!(pieces.windows(2).all(|two| two[0].end == two[1].start));
            let cut: Vec<String> = pieces.iter().flat_map(|p| words(&text[p.clone()])).collect();
            assert_eq!(cut, whole, "{count} pieces");
        }
        assert!(pieces("", 3).is_empty());
    }

    #[test]
    fn the_own_documents_are_found() {
        let text = read(&[]).unwrap();
        assert!(text.files >= 2 && text.content.contains("shared"));
    }

    #[test]
    fn what_cannot_be_counted_is_refused() {
        let missing = read(&[PathBuf::from("/nonexistent/file")]).unwrap_err();
        assert!(missing.contains("/nonexistent/file"), "{missing}");
        let directory = tempfile::tempdir().unwrap();
        let empty = directory.path().join("empty");
        std::fs::write(&empty, "--- \n").unwrap();
        assert!(read(&[empty]).unwrap_err().contains("no words"));
    }
}

//! The board: one shared segment that says who counts what, and how far it is.
//!
//! ```text
//! Board    header | worker slots (MAX_WORKERS) | pieces (MAX_PIECES)
//! Piece    byte range, words a pass | owner | next | undo { armed, old, key }
//! ```
//!
//! Everything is an atomic word, because others look at it while its writer works. Who writes
//! what:
//!
//! - the *supervisor* fills in the header, the ranges and `words` before it starts any worker, and
//!   writes `hold` and `open`, and a worker slot's `stop` together with the worker;
//! - a piece's `owner` changes once, from nobody to a worker *slot*, by a compare-and-swap; the
//!   process in the slot may be replaced, the owner stays;
//! - `next` is written by the process in the owning slot only, and so is `undo`, except that who
//!   repairs a word on behalf of a dead process disarms the record. How that fits together is told
//!   in the `exactly_once` module.
//!
//! `next` is the truth of the count's progress: every word before it is in the table, no word
//! after it is. It counts through all passes: word `next % words` of pass `next / words`.

use std::sync::atomic::{AtomicU64, Ordering};

use zerocopy::{FromBytes, KnownLayout};

use super::text::{KEY_BYTES, Word};

/// Workers at once.
pub(crate) const MAX_WORKERS: usize = 64;
/// Pieces of a text.
pub(crate) const MAX_PIECES: usize = 256;

const KEY_WORDS: usize = KEY_BYTES / 8;

/// What is done to a word, in case that its writer dies: see the `exactly_once` module.
#[derive(FromBytes, KnownLayout)]
#[repr(C)]
pub(crate) struct Undo {
    /// 0: nothing is in flight; else the index of the word, and 1.
    pub(crate) armed: AtomicU64,
    /// The word's count before.
    pub(crate) old: AtomicU64,
    key: [AtomicU64; KEY_WORDS],
}

impl Undo {
    /// Enters a key, while disarmed.
    pub(crate) fn set_key(&self, word: &Word) {
        for (to, from) in self.key.iter().zip(word.0.chunks_exact(8)) {
            let mut bytes = [0; 8];
            bytes.copy_from_slice(from);
            to.store(u64::from_ne_bytes(bytes), Ordering::Relaxed);
        }
    }

    /// The key.
    pub(crate) fn key(&self) -> Word {
        let mut bytes = [0; KEY_BYTES];
        for (to, from) in bytes.chunks_exact_mut(8).zip(&self.key) {
            to.copy_from_slice(&from.load(Ordering::Relaxed).to_ne_bytes());
        }
        Word(bytes)
    }
}

/// A piece of the text and its progress.
#[derive(FromBytes, KnownLayout)]
#[repr(C, align(64))]
pub(crate) struct Piece {
    /// First byte of the text.
    pub(crate) start: AtomicU64,
    /// The byte after the last.
    pub(crate) end: AtomicU64,
    /// Words in it.
    pub(crate) words: AtomicU64,
    /// 0: nobody; else the index of a worker slot, and 1.
    pub(crate) owner: AtomicU64,
    /// How many words (of all passes) are in the table.
    pub(crate) next: AtomicU64,
    _pad: [AtomicU64; 3],
    /// The word in flight.
    pub(crate) undo: Undo,
}

/// The worker has not been asked to stop.
pub(crate) const GO_ON: u64 = 0;
/// The supervisor wants it to stop between the two stores of its next update.
pub(crate) const STOP_MIDWAY: u64 = 1;
/// It has stopped there, and waits for its end.
pub(crate) const STOPPED: u64 = 2;

/// A worker's place, and the messages between its process and the supervisor.
#[derive(FromBytes, KnownLayout)]
#[repr(C, align(64))]
pub(crate) struct WorkerSlot {
    /// [`GO_ON`], [`STOP_MIDWAY`] or [`STOPPED`]: both sides change it by compare-and-swap, so that
    /// a wish is either granted or withdrawn.
    pub(crate) stop: AtomicU64,
    /// The process in the slot that has begun to count: 1 for the first, 2 for its replacement...
    pub(crate) started: AtomicU64,
    /// The piece it began with (its index and 1; 0 if there was none left), and `next` then.
    pub(crate) first_piece: AtomicU64,
    /// See above.
    pub(crate) first_word: AtomicU64,
    _pad: [AtomicU64; 4],
}

/// The shared segment.
#[derive(FromBytes, KnownLayout)]
#[repr(C, align(64))]
pub(crate) struct Board {
    /// Bytes of the text.
    pub(crate) text_bytes: AtomicU64,
    /// Pieces in use.
    pub(crate) piece_count: AtomicU64,
    /// How often the text is counted.
    pub(crate) passes: AtomicU64,
    /// Updates of dead workers that were found done and kept.
    pub(crate) completed: AtomicU64,
    /// Updates of dead workers that were undone, to be done again.
    pub(crate) undone: AtomicU64,
    /// Poisoned entries that were found consistent: their holder died before or after its update.
    pub(crate) untouched: AtomicU64,
    /// Not 0: a kill is due and its victim not ready yet. Workers wait before their next word, but
    /// for the first of each process.
    pub(crate) hold: AtomicU64,
    /// How many pieces, from the first on, may be begun. The others are for after the next kill.
    pub(crate) open: AtomicU64,
    /// Places of workers.
    pub(crate) workers: [WorkerSlot; MAX_WORKERS],
    all_pieces: [Piece; MAX_PIECES],
}

impl Board {
    /// The pieces in use.
    pub(crate) fn pieces(&self) -> &[Piece] {
        let count = self.piece_count.load(Ordering::Acquire) as usize;
        &self.all_pieces[..count.min(MAX_PIECES)]
    }

    /// Puts pieces, given as byte range and number of words, on the board.
    ///
    /// Pieces beyond [`MAX_PIECES`] would be lost: the caller cuts no more than that.
    pub(crate) fn set_pieces(&self, pieces: &[(std::ops::Range<usize>, usize)]) {
        assert!(pieces.len() <= MAX_PIECES, "too many pieces");
        for (slot, (range, words)) in self.all_pieces.iter().zip(pieces) {
            slot.start.store(range.start as u64, Ordering::Relaxed);
            slot.end.store(range.end as u64, Ordering::Relaxed);
            slot.words.store(*words as u64, Ordering::Relaxed);
        }
        self.piece_count.store(pieces.len() as u64, Ordering::Release);
    }

    /// Words of a piece in all passes.
    pub(crate) fn total_of(&self, piece: &Piece) -> u64 {
        piece.words.load(Ordering::Relaxed) * self.passes.load(Ordering::Relaxed)
    }

    /// Words of all pieces and passes.
    pub(crate) fn total(&self) -> u64 {
        self.pieces().iter().map(|piece| self.total_of(piece)).sum()
    }

    /// Words counted so far.
    pub(crate) fn done(&self) -> u64 {
        self.pieces().iter().map(|piece| piece.next.load(Ordering::Relaxed)).sum()
    }

    /// The next piece for the process in worker slot `worker`: one that the slot owns and has not
    /// finished (its process before may have died over it), or else an open one that nobody owns.
    pub(crate) fn claim(&self, worker: usize) -> Option<usize> {
        let me = worker as u64 + 1;
        let unfinished = |piece: &Piece| piece.next.load(Ordering::Acquire) < self.total_of(piece);
        let own = |piece: &Piece| piece.owner.load(Ordering::Relaxed) == me && unfinished(piece);
        let take = |piece: &Piece| {
            piece.owner.compare_exchange(0, me, Ordering::AcqRel, Ordering::Relaxed).is_ok()
        };
        let pieces = self.pieces();
        pieces.iter().position(own).or_else(|| self.open_pieces().iter().position(take))
    }

    /// The pieces that may be begun.
    fn open_pieces(&self) -> &[Piece] {
        let pieces = self.pieces();
        &pieces[..pieces.len().min(self.open.load(Ordering::Acquire) as usize)]
    }

    /// Whether some pieces may not be begun yet.
    pub(crate) fn has_closed_pieces(&self) -> bool {
        self.open_pieces().len() < self.pieces().len()
    }

    /// Whether all words of the pieces that may be begun are counted.
    pub(crate) fn is_open_work_done(&self) -> bool {
        self.open_pieces()
            .iter()
            .all(|piece| piece.next.load(Ordering::Relaxed) >= self.total_of(piece))
    }

    /// Whether the process in worker slot `worker` is in the midst of a piece.
    pub(crate) fn is_busy(&self, worker: usize) -> bool {
        let me = worker as u64 + 1;
        self.pieces().iter().any(|piece| {
            piece.owner.load(Ordering::Relaxed) == me
                && piece.next.load(Ordering::Relaxed) < self.total_of(piece)
        })
    }
}

#[cfg(test)]
mod tests {
    use zerocopy::FromZeros;

    use super::*;

    #[test]
    fn a_replacement_gets_the_piece_that_was_not_finished() {
        let board = Board::new_zeroed();
        board.passes.store(2, Ordering::Relaxed);
        board.set_pieces(&[(0..10, 3), (10..20, 0), (20..30, 4)]);
        assert_eq!(board.total(), 14);
        assert_eq!(board.claim(0), None, "none is open");
        board.open.store(3, Ordering::Relaxed);
        assert_eq!(board.claim(0), Some(0));
        assert_eq!(board.claim(1), Some(1));
        board.pieces()[0].next.store(5, Ordering::Relaxed);
        assert_eq!(board.claim(0), Some(0), "not finished: 5 of 6");
        board.pieces()[0].next.store(6, Ordering::Relaxed);
        assert!(!board.is_busy(0));
        assert_eq!(board.claim(0), Some(2));
        assert!(board.is_busy(0) && !board.is_busy(1));
        assert_eq!(board.claim(1), None);
        assert_eq!(board.done(), 6);
    }

    #[test]
    fn keys_survive_the_record() {
        let board = Board::new_zeroed();
        board.set_pieces(&[(0..1, 1)]);
        let word = Word::new("größenwahn");
        board.pieces()[0].undo.set_key(&word);
        assert_eq!(board.pieces()[0].undo.key(), word);
    }
}

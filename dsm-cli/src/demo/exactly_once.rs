//! Counting each word exactly once, whenever its process is killed.
//!
//! Counting a word changes two words of shared memory: its count in the table, and the progress
//! of the piece. A kill between the two would lose the word or count it twice. So each update
//! leaves a record in the piece, and goes through these steps, the word's entry locked
//! throughout:
//!
//! | step | stores | killed after it |
//! |---|---|---|
//! | record | `undo.key`, `undo.old` | nothing has happened: the record is not armed |
//! | arm | `undo.armed = index + 1` | progress is at `index`: **undo**, set the count to `old` |
//! | count | the entry's count `= old + 1` | the same |
//! | commit | `next = index + 1` | progress is past `index`: **complete**, set it to `old + 1` |
//! | disarm | `undo.armed = 0` | all is done |
//!
//! The library marks the entry poisoned whose exclusive guard its holder died with. Whoever locks
//! it next, in whatever process, is told so and repairs it *first*: it looks for an armed record
//! with this key. There is at most one: a record is armed only by who has the entry locked, and
//! whoever has it locked now is the repairer. The repair sets the count to what the record and the
//! progress say, an absolute value, and then disarms: killed in between, it is simply repeated by
//! the next. No armed record means that the holder died before the second step or after the
//! last, and the count is right as it stands.
//!
//! The process that takes a piece over settles its record (which takes the entry's lock, and so
//! happens before or after a repair by somebody else, never beside it) before it moves `next`:
//! until then `next` is what it was when its process died, and every repairer decides the same.
//!
//! For a process that is killed, all that counts is the order of its stores in the program; the
//! compiler is kept from changing it by fences.

use std::sync::atomic::{AtomicU64, Ordering, compiler_fence, fence};

use super::board::{Board, Piece};
use super::text::Word;

/// Moments inside an update, for whoever wants to stop or die there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Step {
    /// The record is written but not armed.
    Recorded,
    /// The record is armed.
    Armed,
    /// The count is raised, the progress is not.
    Counted,
    /// The progress is raised, the record still armed.
    Committed,
    /// All is done, the entry still locked.
    Disarmed,
}

/// What a repair found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Repair {
    /// The update had been committed: its count was kept.
    Completed,
    /// It had not: its count was taken back, and the piece's next worker does it again.
    Undone,
    /// No update was in flight.
    Untouched,
}

/// Counts word `index` of `piece`. `count` is the word's entry, which the caller has locked, and
/// which is not poisoned.
#[inline]
pub(crate) fn count(
    piece: &Piece,
    index: u64,
    word: &Word,
    count: &mut u64,
    mut at: impl FnMut(Step),
) {
    let old = *count;
    piece.undo.set_key(word);
    piece.undo.old.store(old, Ordering::Relaxed);
    at(Step::Recorded);
    piece.undo.armed.store(index + 1, Ordering::Release);
    compiler_fence(Ordering::SeqCst);
    at(Step::Armed);
    *count = old + 1;
    compiler_fence(Ordering::SeqCst);
    at(Step::Counted);
    piece.next.store(index + 1, Ordering::Release);
    at(Step::Committed);
    piece.undo.armed.store(0, Ordering::Release);
    at(Step::Disarmed);
}

/// Makes a poisoned entry right. `count` is the word's entry, which the caller has locked.
pub(crate) fn repair(board: &Board, word: &Word, count: &mut u64) -> Repair {
    let found = board.pieces().iter().find(|piece| is_armed_for(piece, word));
    let repair = match found {
        Some(piece) => settle(piece, count),
        None => Repair::Untouched,
    };
    tally(board, repair).fetch_add(1, Ordering::Relaxed);
    repair
}

/// The word that was in flight when the piece's last process died, if there was one and nobody
/// has repaired it yet. Its entry must be locked before [`settle_in_flight`].
pub(crate) fn in_flight(piece: &Piece) -> Option<Word> {
    (piece.undo.armed.load(Ordering::Acquire) != 0).then(|| piece.undo.key())
}

/// Settles the record of the piece that this process has taken over, unless somebody was faster.
/// `count` is the entry of the word that [`in_flight`] named, locked by the caller.
pub(crate) fn settle_in_flight(board: &Board, piece: &Piece, count: &mut u64) -> Option<Repair> {
    if piece.undo.armed.load(Ordering::Acquire) == 0 {
        return None;
    }
    let repair = settle(piece, count);
    tally(board, repair).fetch_add(1, Ordering::Relaxed);
    Some(repair)
}

fn settle(piece: &Piece, count: &mut u64) -> Repair {
    let index = piece.undo.armed.load(Ordering::Acquire) - 1;
    let committed = piece.next.load(Ordering::Acquire) > index;
    *count = piece.undo.old.load(Ordering::Relaxed) + u64::from(committed);
    compiler_fence(Ordering::SeqCst);
    piece.undo.armed.store(0, Ordering::Release);
    if committed { Repair::Completed } else { Repair::Undone }
}

/// Whether the piece's record is armed for `word`. The records of the living change while this
/// looks at them: a key counts only if the record was armed for the same index before and after
/// it was read, and an index is armed once in a process's life.
fn is_armed_for(piece: &Piece, word: &Word) -> bool {
    let before = piece.undo.armed.load(Ordering::Acquire);
    if before == 0 {
        return false;
    }
    let same = piece.undo.key() == *word;
    fence(Ordering::Acquire);
    same && piece.undo.armed.load(Ordering::Relaxed) == before
}

fn tally(board: &Board, repair: Repair) -> &AtomicU64 {
    match repair {
        Repair::Completed => &board.completed,
        Repair::Undone => &board.undone,
        Repair::Untouched => &board.untouched,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

    use zerocopy::FromZeros;

    use super::*;

    const STEPS: [Step; 5] =
        [Step::Recorded, Step::Armed, Step::Counted, Step::Committed, Step::Disarmed];

    /// A table as the library's: who dies with an entry locked leaves it poisoned.
    #[derive(Default)]
    struct Table {
        counts: HashMap<Word, (u64, bool)>,
    }

    impl Table {
        /// Locks an entry for `body`; repairs it first if it is poisoned. A panic stands for a
        /// kill: it leaves the entry poisoned and everything else as it is.
        fn with(&mut self, board: &Board, word: Word, body: impl FnOnce(&mut u64)) {
            let (count, poisoned) = self.counts.entry(word).or_default();
            if *poisoned {
                repair(board, &word, count);
                *poisoned = false;
            }
            if let Err(death) = catch_unwind(AssertUnwindSafe(|| body(count))) {
                *poisoned = true;
                resume_unwind(death);
            }
        }
    }

    struct Killed;

    fn die() -> ! {
        resume_unwind(Box::new(Killed))
    }

    /// Counts a piece from where it stands, dying at `step` of word `at`.
    fn work(
        board: &Board,
        table: &mut Table,
        piece: &Piece,
        text: &[Word],
        kill: Option<(u64, Step)>,
    ) {
        if let Some(word) = in_flight(piece) {
            table.with(board, word, |count| {
                settle_in_flight(board, piece, count);
            });
        }
        while piece.next.load(Ordering::Relaxed) < board.total_of(piece) {
            let index = piece.next.load(Ordering::Relaxed);
            let word = text[index as usize % text.len()];
            table.with(board, word, |value| {
                count(piece, index, &word, value, |step| {
                    if kill == Some((index, step)) {
                        die();
                    }
                });
            });
        }
    }

    fn board() -> Board {
        let board = Board::new_zeroed();
        board.passes.store(2, Ordering::Relaxed);
        board.set_pieces(&[(0..0, 3), (0..0, 2)]);
        board
    }

    fn text() -> [Word; 3] {
        [Word::new("a"), Word::new("b"), Word::new("a")]
    }

    fn survives(body: impl FnOnce()) -> bool {
        catch_unwind(AssertUnwindSafe(body)).is_ok()
    }

    /// Killed at every step of every word; repaired by the replacement, or before it by another
    /// worker that meets the poisoned word.
    #[test]
    fn each_word_is_counted_once_wherever_its_process_dies() {
        for other_first in [false, true] {
            for index in 0..6 {
                for step in STEPS {
                    let (board, mut table, text) = (board(), Table::default(), text());
                    let [first, second] = board.pieces() else { unreachable!() };
                    let kill = Some((index, step));
                    assert!(!survives(|| work(&board, &mut table, first, &text, kill)));
                    if other_first {
                        work(&board, &mut table, second, &text[..2], None);
                    }
                    work(&board, &mut table, first, &text, None);
                    work(&board, &mut table, second, &text[..2], None);
                    let counts = |word| table.counts[&Word::new(word)];
                    assert_eq!(counts("a"), (4 + 2, false), "{index} {step:?} {other_first}");
                    assert_eq!(counts("b"), (2 + 2, false), "{index} {step:?} {other_first}");
                }
            }
        }
    }

    #[test]
    fn a_repair_says_what_it_did() {
        for (step, expected) in [
            (Step::Recorded, Repair::Untouched),
            (Step::Armed, Repair::Undone),
            (Step::Counted, Repair::Undone),
            (Step::Committed, Repair::Completed),
            (Step::Disarmed, Repair::Untouched),
        ] {
            let (board, mut table, text) = (board(), Table::default(), text());
            let piece = &board.pieces()[0];
            assert!(!survives(|| work(&board, &mut table, piece, &text, Some((2, step)))));
            let entry = &mut table.counts.get_mut(&text[2]).unwrap().0;
            assert_eq!(repair(&board, &text[2], entry), expected, "{step:?}");
            assert_eq!(repair(&board, &text[2], entry), Repair::Untouched);
        }
    }

    /// The repairer dies too, having set the count but not disarmed the record.
    #[test]
    fn a_repair_can_be_repeated() {
        let (board, mut table, text) = (board(), Table::default(), text());
        let piece = &board.pieces()[0];
        assert!(!survives(|| work(&board, &mut table, piece, &text, Some((5, Step::Committed)))));
        let entry = &mut table.counts.get_mut(&text[2]).unwrap().0;
        let armed = piece.undo.armed.load(Ordering::Relaxed);
        repair(&board, &text[2], entry);
        piece.undo.armed.store(armed, Ordering::Relaxed);
        assert_eq!(repair(&board, &text[2], entry), Repair::Completed);
        assert_eq!(*entry, 4);
    }
}

//! A worker: a process that counts the words of one piece after the other.
//!
//! It takes over whatever its slot of the board has begun, from the exact word, and goes on with
//! pieces that nobody owns. It ends when none is left, or when its supervisor is gone: a worker
//! is started with a pipe as its standard input, which ends when the supervisor does.

use std::io::Read;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::board::{GO_ON, Piece, STOP_MIDWAY, STOPPED, WorkerSlot};
use super::exactly_once::{self, Step};
use super::shared::Shared;
use super::text::{Word, words};

/// How long a worker sleeps that has to wait for the supervisor.
const PAUSE: Duration = Duration::from_micros(200);

/// Counts until no piece is left. `generation` says the how many-th process of its slot this is.
pub(crate) fn run(namespace: &str, worker: usize, generation: u64) -> Result<(), String> {
    std::thread::spawn(end_with_the_supervisor);
    let shared = Shared::join(namespace).map_err(|e| e.to_string())?;
    let slot = shared.board.workers.get(worker).ok_or("there is no such worker slot")?;
    loop {
        // Looked at first: once no piece is closed, there is none to come.
        let more_to_come = shared.board.has_closed_pieces();
        match shared.board.claim(worker) {
            Some(piece) => count_piece(&shared, slot, piece, generation)?,
            None if more_to_come => std::thread::sleep(PAUSE),
            None => break,
        }
    }
    report_start(slot, generation, 0, 0);
    Ok(())
}

fn end_with_the_supervisor() {
    let mut input = std::io::stdin().lock();
    while !matches!(input.read(&mut [0; 64]), Ok(0) | Err(_)) {}
    std::process::exit(1);
}

fn count_piece(
    shared: &Shared,
    slot: &WorkerSlot,
    number: usize,
    generation: u64,
) -> Result<(), String> {
    let board = &shared.board;
    let piece = &board.pieces()[number];
    let words = words_of(shared, piece)?;
    settle(shared, piece)?;
    let begin = piece.next.load(Ordering::Acquire);
    let end = board.total_of(piece);
    for index in begin..end {
        if slot.started.load(Ordering::Relaxed) == generation {
            wait_while_held(shared, slot);
        }
        let word = &words[index as usize % words.len()];
        count_word(shared, slot, piece, index, word)?;
        if index == begin {
            report_start(slot, generation, number as u64 + 1, begin);
        }
    }
    Ok(())
}

/// Waits as long as the supervisor wants everybody to; not if it wants this one to stop midway.
#[inline]
fn wait_while_held(shared: &Shared, slot: &WorkerSlot) {
    while shared.board.hold.load(Ordering::Relaxed) != 0
        && slot.stop.load(Ordering::Relaxed) == GO_ON
    {
        std::thread::sleep(PAUSE);
    }
}

/// The words of a piece, which must be as many as the board says.
fn words_of(shared: &Shared, piece: &Piece) -> Result<Vec<Word>, String> {
    let start = piece.start.load(Ordering::Relaxed) as usize;
    let end = piece.end.load(Ordering::Relaxed) as usize;
    let mut bytes = vec![0; end.saturating_sub(start)];
    shared.text.read(start, &mut bytes).map_err(|e| e.to_string())?;
    let text = String::from_utf8(bytes).map_err(|_| "the text is damaged".to_owned())?;
    let found: Vec<Word> = words(&text).map(|word| Word::new(&word)).collect();
    if found.len() as u64 == piece.words.load(Ordering::Relaxed) {
        Ok(found)
    } else {
        Err("the board and the text do not fit together".to_owned())
    }
}

/// Says what this process began with, unless it has said so already.
fn report_start(slot: &WorkerSlot, generation: u64, piece: u64, word: u64) {
    if slot.started.load(Ordering::Relaxed) < generation {
        slot.first_piece.store(piece, Ordering::Relaxed);
        slot.first_word.store(word, Ordering::Relaxed);
        slot.started.store(generation, Ordering::Release);
    }
}

/// Counts one word exactly once; see the `exactly_once` module.
fn count_word(
    shared: &Shared,
    slot: &WorkerSlot,
    piece: &Piece,
    index: u64,
    word: &Word,
) -> Result<(), String> {
    with_entry(shared, word, |count| {
        exactly_once::count(piece, index, word, count, |step| {
            if step == Step::Counted && slot.stop.load(Ordering::Relaxed) == STOP_MIDWAY {
                stop(&slot.stop);
            }
        });
    })
}

/// If the process that had the piece before died over a word, makes that word right.
fn settle(shared: &Shared, piece: &Piece) -> Result<(), String> {
    let Some(word) = exactly_once::in_flight(piece) else { return Ok(()) };
    with_entry(shared, &word, |count| {
        exactly_once::settle_in_flight(&shared.board, piece, count);
    })
}

/// Stays where it is until it is killed, unless that is no longer wanted.
#[cold]
fn stop(wish: &AtomicU64) {
    let granted = wish.compare_exchange(STOP_MIDWAY, STOPPED, Ordering::AcqRel, Ordering::Relaxed);
    if granted.is_ok() {
        loop {
            std::thread::sleep(Duration::from_secs(3600));
        }
    }
}

/// Runs `body` on a word's count, its entry locked; makes the entry right first if its last holder
/// died with it.
fn with_entry(shared: &Shared, word: &Word, body: impl FnOnce(&mut u64)) -> Result<(), String> {
    let mut count = shared.entry(word).map_err(|e| e.to_string())?;
    body(&mut count);
    Ok(())
}

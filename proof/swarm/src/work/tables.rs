//! Tables: entries of a seat's own, whose books are exact; entries of everybody's, that are whole
//! or poisoned; a table that grows and shrinks, and is scanned.
//!
//! A seat's keys in the table that grows are those from `low` to below `high`: it is a queue,
//! filled at its end, emptied from its begin.

use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};

use dsm_registry::{Error, HashTable, WriteGuard};

use crate::board::{Asked, Board};
use crate::plan::Event;
use crate::thread::Thread;
use crate::world::{ENTRY_KEYS, HOT_KEYS, Hot, World, whole};
use testkit::tool::{ensure, text};

/// Keys of a seat's own accounts.
const ACCOUNTS: u64 = 100;
/// Entries of a seat in the table that grows.
const LONGEST: u64 = 2000;

const fn own_key(seat: usize, number: u64) -> u64 {
    (seat as u64) << 40 | number
}

fn increment(world: &World, key: u64) -> Result<(), String> {
    *world.accounts.entry(&key).map_err(text)?.or_insert(0).map_err(text)? += 1;
    Ok(())
}

pub(super) fn account(thread: &mut Thread) -> Result<(), String> {
    let (board, world, seat) = (thread.board(), thread.world(), thread.tenant.seat);
    let key = own_key(seat, thread.random.below(ACCOUNTS));
    let books = &board.seats[seat];
    let balance = world.accounts.get(&key).map_err(text)?.unwrap_or(0);
    books.balance.store(balance + 1, Relaxed);
    books.then.store(books.increments.load(Relaxed) + 1, Relaxed);
    books.account.store(key + 1, Release);
    increment(world, key)?;
    settle_account(board, world, seat)
}

/// Finishes the increment that a seat wrote down.
fn settle_account(board: &Board, world: &World, seat: usize) -> Result<(), String> {
    let books = &board.seats[seat];
    let Some(key) = books.account.load(Acquire).checked_sub(1) else { return Ok(()) };
    let target = books.balance.load(Relaxed);
    let balance = match world.accounts.get(&key) {
        Ok(value) => value.unwrap_or(0),
        Err(error) if error.is_poisoned() => {
            let entry = world.accounts.poisoned(&key).map_err(text)?;
            let mut entry = entry.ok_or("poisoned, and not poisoned")?;
            board.count(Event::Poisoned);
            *entry = target - 1;
            drop(entry.repaired());
            target - 1
        }
        Err(error) => return Err(text(error)),
    };
    ensure(balance == target || balance + 1 == target, || {
        format!("seat {seat}: {balance} at {key:x}, and about to be {target}")
    })?;
    if balance != target {
        increment(world, key)?;
    }
    books.increments.store(books.then.load(Relaxed), Release);
    books.account.store(0, Release);
    Ok(())
}

/// An entry that everybody changes, locked and repaired.
pub(in super::super) fn hot_guard(
    thread: &mut Thread,
    asked: Asked,
) -> Result<WriteGuard<'static, u64, Hot>, String> {
    let key = thread.random.below(HOT_KEYS);
    let (life, tenant) = (thread.life, thread.tenant.word());
    let hot: &'static HashTable<u64, Hot> = &life.world.hot;
    loop {
        let mut guard = match hot.find_mut(&key) {
            Ok(Some(guard)) => guard,
            Ok(None) => {
                hot.entry(&key).map_err(text)?.or_insert([0; 3]).map(drop).or_else(unpoisoned)?;
                continue;
            }
            Err(error) if error.is_poisoned() => {
                let Some(mut entry) = hot.poisoned(&key).map_err(text)? else { continue };
                life.board.waited(&life.board.name_waits, entry[2], asked);
                life.board.count(Event::Poisoned);
                *entry = [entry[0], entry[0], 0];
                entry.repaired()
            }
            Err(error) => return Err(text(error)),
        };
        ensure(guard[0] == guard[1] && guard[2] == 0, || format!("{:x?} at {key}", *guard))?;
        guard[2] = tenant;
        return Ok(guard);
    }
}

fn unpoisoned(error: Error) -> Result<(), String> {
    if error.is_poisoned() { Ok(()) } else { Err(text(error)) }
}

pub(super) fn hot(thread: &mut Thread, asked: Asked) -> Result<(), String> {
    let mut guard = hot_guard(thread, asked)?;
    guard[0] += 1;
    guard[1] = guard[0];
    guard[2] = 0;
    Ok(())
}

/// Entries that everybody inserts and removes.
pub(super) fn entry(thread: &mut Thread) -> Result<(), String> {
    let entries = &thread.world().entries;
    let key = thread.random.below(ENTRY_KEYS);
    let done = match thread.random.below(4) {
        0 => entries.insert(&key, whole(key)).map(drop),
        1 => entries.remove(&key).map(drop),
        2 => match entries.find(&key) {
            Ok(Some(value)) if *value != whole(key) => {
                return Err(format!("{:x?} at {key}", *value));
            }
            found => found.map(drop),
        },
        _ => match entries.get(&key) {
            Ok(Some(value)) if value != whole(key) => return Err(format!("{value:x?} at {key}")),
            found => found.map(drop),
        },
    };
    match done {
        Err(error) if error.is_poisoned() => {
            thread.board().count(Event::Poisoned);
            entries.remove(&key).map(drop).map_err(text)
        }
        done => done.map_err(text),
    }
}

pub(super) fn grow(thread: &mut Thread) -> Result<(), String> {
    let (board, seat) = (thread.board(), thread.tenant.seat);
    let (queue, books) = (&thread.world().queue, &board.seats[seat]);
    let (low, high) = (books.low.load(Relaxed), books.high.load(Relaxed));
    if high - low >= LONGEST {
        return Ok(());
    }
    let key = own_key(seat, high);
    books.inserting.store(high + 1, Release);
    ensure(queue.insert(&key, whole(key)).map_err(text)?.is_none(), || {
        format!("{key:x} was there")
    })?;
    books.high.store(high + 1, Release);
    books.inserting.store(0, Release);
    Ok(())
}

pub(super) fn shrink(thread: &mut Thread) -> Result<(), String> {
    let (board, seat) = (thread.board(), thread.tenant.seat);
    let (queue, books) = (&thread.world().queue, &board.seats[seat]);
    let (low, high) = (books.low.load(Relaxed), books.high.load(Relaxed));
    if low >= high {
        return Ok(());
    }
    let key = own_key(seat, low);
    books.removing.store(low + 1, Release);
    ensure(queue.remove(&key).map_err(text)?, || format!("{key:x} was not there"))?;
    books.low.store(low + 1, Release);
    books.removing.store(0, Release);
    Ok(())
}

/// Looks at all entries; of a seat's own there are as many as its books say.
pub(super) fn scan(thread: &mut Thread) -> Result<(), String> {
    let (board, seat) = (thread.board(), thread.tenant.seat);
    let books = &board.seats[seat];
    let mut scan = thread.world().queue.scan().map_err(text)?;
    let mut own = 0;
    while let Some((key, value)) = scan.next().map_err(text)? {
        own += u64::from(key >> 40 == seat as u64);
        match value {
            Ok(value) => ensure(*value == whole(*key), || format!("{value:x?} at {key:x}"))?,
            Err(error) if error.is_poisoned() => {}
            Err(error) => return Err(text(error)),
        }
    }
    drop(scan);
    let noted = books.high.load(Relaxed) - books.low.load(Relaxed);
    ensure(own == noted, || format!("a scan found {own} entries of {noted}"))
}

/// Removes half of the seat's own entries, in the order of a scan.
pub(super) fn scan_remove(thread: &mut Thread) -> Result<(), String> {
    remove_by_scan(thread, |_| {})
}

pub(super) fn remove_by_scan(thread: &Thread, each: impl Fn(usize)) -> Result<(), String> {
    let (board, world, seat) = (thread.board(), thread.world(), thread.tenant.seat);
    let books = &board.seats[seat];
    let (low, high) = (books.low.load(Relaxed), books.high.load(Relaxed));
    let end = low + (high - low).div_ceil(2);
    books.removing.store(end, Release);
    let mut scan = world.queue.scan_mut().map_err(text)?;
    let mut removed = Vec::new();
    while let Some(entry) = scan.next().map_err(text)? {
        if (own_key(seat, low)..own_key(seat, end)).contains(entry.key()) {
            removed.push(*entry.key());
            entry.remove().map_err(text)?;
            each(removed.len());
        }
    }
    drop(scan);
    for key in own_key(seat, low)..own_key(seat, end) {
        ensure(removed.contains(&key), || {
            let there = world.queue.get(&key).map(|found| found.is_some());
            format!("a scan of {low}..{end} did not meet {key:x}, which is there: {there:?}")
        })?;
    }
    books.low.store(end, Release);
    books.removing.store(0, Release);
    Ok(())
}

/// An entry of the table that grows, which nobody ever changes: where a scan that might have died,
/// it is repaired.
fn find(board: &Board, world: &World, key: u64) -> Result<bool, String> {
    let value = match world.queue.get(&key) {
        Err(error) if error.is_poisoned() => match world.queue.poisoned(&key).map_err(text)? {
            Some(entry) => {
                board.count(Event::Poisoned);
                Some(*entry.repaired())
            }
            None => world.queue.get(&key).map_err(text)?,
        },
        found => found.map_err(text)?,
    };
    let well = value.is_none_or(|value| value == whole(key));
    ensure(well, || format!("{value:x?} at {key:x}"))?;
    Ok(value.is_some())
}

/// Finishes what a seat was doing to the table that grows.
fn settle_queue(board: &Board, world: &World, seat: usize) -> Result<(), String> {
    let books = &board.seats[seat];
    let inserting = books.inserting.load(Acquire);
    if let Some(number) = inserting.checked_sub(1) {
        let key = own_key(seat, number);
        if !find(board, world, key)? {
            world.queue.insert(&key, whole(key)).map_err(text)?;
        }
        books.high.store(number + 1, Release);
        books.inserting.store(0, Release);
    }
    let removing = books.removing.load(Acquire);
    if removing != 0 {
        for number in books.low.load(Acquire)..removing {
            world.queue.remove(&own_key(seat, number)).map_err(text)?;
        }
        books.low.store(removing, Release);
        books.removing.store(0, Release);
    }
    Ok(())
}

pub(super) fn settle(board: &Board, world: &World, seat: usize) -> Result<(), String> {
    settle_account(board, world, seat)?;
    settle_queue(board, world, seat)
}

/// When all are dead and settled: every entry is there once, and whole.
pub(in super::super) fn verify(board: &Board, world: &World) -> Result<(), String> {
    let mut entries = 0;
    for (seat, books) in board.seats.iter().enumerate() {
        let mut sum = 0;
        for number in 0..ACCOUNTS {
            let balance = world.accounts.get(&own_key(seat, number)).map_err(text)?;
            sum += balance.unwrap_or(0);
        }
        let noted = books.increments.load(Acquire);
        ensure(sum == noted, || format!("seat {seat} did {noted} increments, {sum} are there"))?;
        let (low, high) = (books.low.load(Acquire), books.high.load(Acquire));
        for number in low..high {
            let key = own_key(seat, number);
            ensure(find(board, world, key)?, || format!("{key:x} is gone"))?;
        }
        entries += high - low;
    }
    for key in 0..ENTRY_KEYS {
        match world.entries.get(&key) {
            Ok(None) => {}
            Err(error) if error.is_poisoned() => {}
            Ok(Some(value)) => ensure(value == whole(key), || format!("{value:x?} at {key}"))?,
            Err(error) => return Err(text(error)),
        }
    }
    for key in 0..HOT_KEYS {
        match world.hot.get(&key) {
            Ok(Some([a, b, holder])) => {
                ensure(a == b && holder == 0, || format!("{a}, {b}, {holder} at {key}"))?
            }
            Ok(None) => {}
            Err(error) if error.is_poisoned() => {}
            Err(error) => return Err(text(error)),
        }
    }
    world.accounts.check().map_err(text)?;
    world.hot.check().map_err(text)?;
    world.entries.check().map_err(text)?;
    let found = world.queue.check().map_err(text)?;
    ensure(found.stats.entries == entries, || {
        format!("{} entries in the table that grows, {entries} in the books", found.stats.entries)
    })
}

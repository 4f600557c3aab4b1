//! What a worker of the swarm does, and what it finishes for the life before.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};
use std::time::Instant;

use clap::Args;
use dsm_registry::{
    Area, AtomicDsaPointer, DsaPointer, DsaPtr, Error, HashTable, Registry, Segment,
};

use super::random;
use crate::member::{ensure, text};

/// Cells that hold objects.
pub(super) const CELLS: usize = 320;
/// Keys of a worker's own, and of all.
const KEYS: u64 = 100;
const SHARED_KEYS: u64 = 400;
const NAMES: u64 = 6;
/// Words of the board for each worker; after those of all come those for everybody.
const WORDS: usize = 8;
const WORKERS: usize = 32;

#[derive(Args)]
pub(crate) struct Orders {
    namespace: String,
    who: u64,
    seed: u64,
}

/// Words in shared memory by which workers keep their accounts.
pub(super) struct Board(Segment<[AtomicU64; WORDS * WORKERS + WORDS]>);

/// A worker's words.
#[derive(Clone, Copy)]
pub(super) enum Word {
    /// 1 + the key that it is about to increment; 0 for none.
    Intent,
    /// What the increment leads to.
    Target,
    /// Increments done, and what that will be when the intent is.
    Done,
    DoneThen,
    Operations,
    /// Nanoseconds.
    Longest,
    Poisoned,
}

impl Board {
    pub(super) fn of(&self, who: u64, word: Word) -> &AtomicU64 {
        &self.0[who as usize * WORDS + word as usize]
    }

    /// Says that somebody is stopped, or goes on.
    pub(super) fn stop(&self, begins: bool) {
        let step = if begins { 1 } else { u64::MAX };
        self.0[WORDS * WORKERS].fetch_add(step, AcqRel);
        self.0[WORDS * WORKERS + 1].fetch_add(1, AcqRel);
    }

    /// Differs between two moments if anybody was stopped meanwhile; `None` while somebody is.
    fn undisturbed(&self) -> Option<u64> {
        let now = self.0[WORDS * WORKERS + 1].load(Acquire);
        (self.0[WORDS * WORKERS].load(Acquire) == 0).then_some(now)
    }
}

/// Everything that the swarm shares.
pub(super) struct Shared {
    pub(super) board: Board,
    pub(super) accounts: HashTable<u64, u64>,
    pub(super) entries: HashTable<u64, [u64; 4]>,
    pub(super) area: Area,
    cells: Segment<[AtomicU64; 1]>,
}

impl Shared {
    pub(super) fn open(registry: &Registry) -> Result<Self, Error> {
        let area = registry.area("area")?;
        let cells = registry.segment::<[AtomicU64; 1]>("cells", |init| {
            let cells = area.allocate([0_u64; CELLS])?;
            init.write([AtomicU64::new(cells.pointer().raw())])
        })?;
        Ok(Self {
            board: Board(registry.segment("board", |_| Ok(()))?),
            accounts: registry.hash("accounts")?,
            entries: registry.hash("entries")?,
            area,
            cells,
        })
    }

    /// The object with the cells.
    pub(super) fn cells(&self) -> DsaPointer {
        DsaPointer::from_raw(self.cells[0].load(Acquire))
    }

    pub(super) fn cell(&self, index: u64) -> Result<&AtomicDsaPointer, String> {
        let at: DsaPtr<AtomicDsaPointer> = self.cells().add(index * 8).cast();
        // SAFETY: inside the object with the cells, zeroed, and freed when nobody is left.
        unsafe { self.area.as_ref(at) }.ok_or_else(|| "the cells are gone".into())
    }

    /// The account of a worker's key, repaired if its last life died amid the change from
    /// `target` less one to `target`.
    fn balance(&self, key: u64, target: u64) -> Result<u64, String> {
        match self.accounts.get(&key) {
            Ok(value) => Ok(value.unwrap_or(0)),
            Err(Error::Poisoned) => {
                let mut entry =
                    self.accounts.poisoned(&key).map_err(text)?.ok_or("not poisoned")?;
                *entry = target - 1;
                drop(entry.repaired());
                Ok(target - 1)
            }
            Err(error) => Err(text(error)),
        }
    }

    /// Finishes what a worker's last life wrote down.
    pub(super) fn settle(&self, who: u64) -> Result<(), String> {
        let word = |word| self.board.of(who, word);
        let Some(key) = word(Word::Intent).load(Acquire).checked_sub(1) else { return Ok(()) };
        let target = word(Word::Target).load(Relaxed);
        let poisoned = matches!(self.accounts.get(&key), Err(Error::Poisoned));
        word(Word::Poisoned).fetch_add(u64::from(poisoned), Relaxed);
        let balance = self.balance(key, target)?;
        ensure(balance == target || balance + 1 == target, || {
            format!("worker {who}: {balance} at {key}, and about to be {target}")
        })?;
        if balance != target {
            self.increment(key)?;
        }
        word(Word::Done).store(word(Word::DoneThen).load(Relaxed), Release);
        word(Word::Intent).store(0, Release);
        Ok(())
    }

    fn increment(&self, key: u64) -> Result<(), String> {
        *self.accounts.entry(&key).map_err(text)?.or_insert(0).map_err(text)? += 1;
        Ok(())
    }

    fn account(&self, who: u64, state: &mut u64) -> Result<(), String> {
        let key = (who << 32) | (random(state) % KEYS);
        let word = |word| self.board.of(who, word);
        let balance = self.accounts.get(&key).map_err(text)?.unwrap_or(0);
        word(Word::Target).store(balance + 1, Relaxed);
        word(Word::DoneThen).store(word(Word::Done).load(Relaxed) + 1, Relaxed);
        word(Word::Intent).store(key + 1, Release);
        self.increment(key)?;
        self.settle(who)
    }

    /// Entries that everybody inserts and removes.
    fn entry(&self, who: u64, state: &mut u64) -> Result<(), String> {
        let key = random(state) % SHARED_KEYS;
        let done = match random(state) % 3 {
            0 => self.entries.insert(&key, whole(key)).map(drop),
            1 => self.entries.remove(&key).map(drop),
            _ => match self.entries.get(&key) {
                Ok(Some(value)) if value != whole(key) => {
                    return Err(format!("{value:?} at {key}"));
                }
                found => found.map(drop),
            },
        };
        match done {
            Err(Error::Poisoned) => {
                self.board.of(who, Word::Poisoned).fetch_add(1, Relaxed);
                self.entries.remove(&key).map(drop).map_err(text)
            }
            done => done.map_err(text),
        }
    }

    fn object(&self, state: &mut u64) -> Result<(), String> {
        let cell = self.cell(random(state) % CELLS as u64)?;
        let taken = cell.swap(DsaPointer::INVALID, AcqRel);
        if taken.is_valid() { self.free(taken) } else { Ok(()) }
    }

    /// Fills a cell that is this worker's to fill: of two who fill the same, one would lose its
    /// object.
    fn fill(&self, who: u64, state: &mut u64) -> Result<(), String> {
        let workers = WORKERS as u64;
        let own = random(state) % (CELLS as u64 / workers) * workers + who;
        let cell = self.cell(own)?;
        if cell.load(Relaxed).is_valid() {
            return Ok(());
        }
        let done = match random(state) % 12 {
            0 => self.area.allocate_into([2000_u64; 2000], cell).map(drop),
            1..=3 => self.area.allocate_into([300_u64; 300], cell).map(drop),
            _ => self.area.allocate_into([12_u64; 12], cell).map(drop),
        };
        done.map_err(text)
    }

    fn is_whole<const WORDS: usize>(&self, object: DsaPointer) -> Result<bool, String> {
        let words: [u64; WORDS] = self.area.read(object.cast()).map_err(text)?;
        Ok(words == [WORDS as u64; WORDS])
    }

    /// Looks whether an object is whole, and frees it.
    pub(super) fn free(&self, object: DsaPointer) -> Result<(), String> {
        let words: u64 = self.area.read(object.cast()).map_err(text)?;
        let whole = match words {
            12 => self.is_whole::<12>(object)?,
            300 => self.is_whole::<300>(object)?,
            2000 => self.is_whole::<2000>(object)?,
            _ => false,
        };
        ensure(whole, || format!("an object that starts with {words} was changed"))?;
        // SAFETY: taken out of its cell: nobody else knows it.
        unsafe { self.area.free::<u64>(object.cast()) }.map_err(text)
    }
}

fn whole(key: u64) -> [u64; 4] {
    [key, !key, key * 3, key ^ 0x5555]
}

/// Names that come and go.
fn name(registry: &Registry, state: &mut u64) -> Result<(), String> {
    let number = random(state) % NAMES;
    let name = format!("name-{number}");
    match random(state) % 3 {
        0 => match registry.remove(&name) {
            Ok(()) | Err(Error::NotFound { .. } | Error::InUse { .. }) => Ok(()),
            Err(error) => Err(text(error)),
        },
        1 => {
            let segment = registry.segment::<[u64; 4]>(&name, |init| init.write(whole(number)));
            let segment = segment.map_err(text)?;
            ensure(*segment == whole(number), || format!("{:?} in {name}", *segment))
        }
        _ => {
            let table = registry.hash::<u64, u64>(&format!("table-{number}")).map_err(text)?;
            match table.insert(&1, 1) {
                Ok(_) => {}
                Err(Error::Poisoned) => drop(table.remove(&1).map_err(text)?),
                Err(error) => return Err(text(error)),
            }
            drop(table);
            match registry.remove(&format!("table-{number}")) {
                Ok(()) | Err(Error::NotFound { .. } | Error::InUse { .. }) => Ok(()),
                Err(error) => Err(text(error)),
            }
        }
    }
}

/// Works until killed.
pub(crate) fn work(orders: &Orders) -> Result<bool, String> {
    let Orders { namespace, who, seed } = orders;
    let registry = Registry::open(namespace).map_err(text)?;
    let shared = Shared::open(&registry).map_err(text)?;
    shared.settle(*who)?;
    let mut state = seed | 1;
    let word = |word| shared.board.of(*who, word);
    loop {
        let (before, started) = (shared.board.undisturbed(), Instant::now());
        match random(&mut state) % 40 {
            0 => name(&registry, &mut state)?,
            1..=15 => shared.account(*who, &mut state)?,
            16..=27 => shared.entry(*who, &mut state)?,
            28..=33 => shared.object(&mut state)?,
            _ => shared.fill(*who, &mut state)?,
        }
        if before.is_some() && before == shared.board.undisturbed() {
            word(Word::Longest).fetch_max(started.elapsed().as_nanos() as u64, Relaxed);
        }
        word(Word::Operations).fetch_add(1, Relaxed);
    }
}

impl Shared {
    /// When everybody is dead: the sum of a worker's accounts.
    pub(super) fn sum(&self, who: u64) -> Result<u64, String> {
        let mut sum = 0;
        for key in 0..KEYS {
            sum += self.accounts.get(&((who << 32) | key)).map_err(text)?.unwrap_or(0);
        }
        Ok(sum)
    }

    /// Every entry that is there is whole, or poisoned; returns how many are poisoned.
    pub(super) fn verify_entries(&self) -> Result<u64, String> {
        let mut poisoned = 0;
        for key in 0..SHARED_KEYS {
            match self.entries.get(&key) {
                Ok(None) => {}
                Ok(Some(value)) => ensure(value == whole(key), || format!("{value:?} at {key}"))?,
                Err(Error::Poisoned) => poisoned += 1,
                Err(error) => return Err(text(error)),
            }
        }
        Ok(poisoned)
    }
}

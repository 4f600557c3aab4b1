//! Everything that the swarm shares, as one process has it open.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Acquire;

use dsm_core::namespace::Opened;
use dsm_registry::{
    Area, AtomicDsaPointer, DsaPointer, DsaPtr, Error, HashTable, Registry, Segment,
};

use crate::board::SEATS;
use crate::cores::Core;
use testkit::tool::text;

/// Words of the registry's area in which a seat's objects are found by everybody.
pub(crate) const CELLS: usize = 6;
/// Keys of the tables that everybody uses.
pub(crate) const HOT_KEYS: u64 = 24;
pub(crate) const ENTRY_KEYS: u64 = 400;

/// A value of the table of hot entries: two words that are equal while nobody changes them, and
/// who does.
pub(crate) type Hot = [u64; 3];

pub(crate) struct World {
    pub(crate) name: String,
    pub(crate) registry: Registry,
    /// Each seat's own keys.
    pub(crate) accounts: HashTable<u64, u64>,
    pub(crate) hot: HashTable<u64, Hot>,
    pub(crate) entries: HashTable<u64, [u64; 4]>,
    /// Grows and shrinks.
    pub(crate) queue: HashTable<u64, [u64; 4]>,
    pub(crate) area: Area,
    cells: Segment<[AtomicU64; 1]>,
    pub(crate) core: &'static Core,
}

/// The namespace of the cores.
pub(crate) fn core_name(name: &str) -> String {
    format!("{name}-core")
}

/// One that is not persistent: created, left and cleaned away all the time.
pub(crate) fn brief_name(name: &str) -> String {
    format!("{name}-brief")
}

impl World {
    pub(crate) fn open(name: &str) -> Result<(Self, Opened), String> {
        let registry = Registry::builder(name).persistent(true).open().map_err(text)?;
        let (core, opened) = Core::open(&core_name(name))?;
        Ok((Self::of(name, registry, core).map_err(text)?, opened))
    }

    fn of(name: &str, registry: Registry, core: &'static Core) -> Result<Self, Error> {
        let area = registry.area("area")?;
        let cells = registry.segment::<[AtomicU64; 1]>("cells", |init| {
            let cells = area.allocate([0_u64; SEATS * CELLS])?;
            init.write([AtomicU64::new(cells.pointer().raw())])
        })?;
        Ok(Self {
            name: name.into(),
            accounts: registry.hash("accounts")?,
            hot: registry.hash("hot")?,
            entries: registry.hash("entries")?,
            queue: registry.hash("queue")?,
            registry,
            area,
            cells,
            core,
        })
    }

    /// The object with the cells.
    pub(crate) fn cells(&self) -> DsaPointer {
        DsaPointer::from_raw(self.cells[0].load(Acquire))
    }

    pub(crate) fn cell(&self, index: usize) -> Result<&AtomicDsaPointer, String> {
        let at: DsaPtr<AtomicDsaPointer> = self.cells().add(index as u64 * 8).cast();
        // SAFETY: inside the object with the cells, zeroed, and freed when nobody is left.
        unsafe { self.area.as_ref(at) }.ok_or_else(|| "the cells are gone".into())
    }

    /// Leaves both namespaces in order.
    pub(crate) fn leave(self) -> Result<(), String> {
        let core = self.core;
        drop(self);
        core.leave()
    }
}

/// The value of an entry that is never half-changed.
pub(crate) fn whole(key: u64) -> [u64; 4] {
    [key, !key, key.wrapping_mul(3), key ^ 0x5555]
}

//! The blocks to be loaded, in shared memory, so that loaders need not read the dump file again.
//!
//! A list in a named area, to which a word of the shared state leads. When the load is done, the
//! area is removed. A worker that is killed leaves it behind, with or without a list that somebody
//! could find: the next one removes it before it begins.

use std::sync::atomic::Ordering;

use dsm_registry::{Area, DsaPointer, DsaPtr, DsaSlice};

use super::block::BlockId;
use super::server::{Failure, Server};

const NAME: &str = "autoprewarm.records";

/// A published list, while it is being loaded.
pub(crate) struct Records {
    area: Area,
}

impl Records {
    /// Publishes a list.
    pub(crate) fn publish(server: &Server, blocks: &[BlockId]) -> Result<Self, Failure> {
        remove(server)?;
        let area = server.registry().area(NAME)?;
        let list = area.allocate(area.allocate_slice(blocks)?)?;
        server.state.records.store(list.pointer(), Ordering::Release);
        Ok(Self { area })
    }

    /// The list that a worker has published.
    pub(crate) fn read(server: &Server) -> Result<Vec<BlockId>, Failure> {
        let list: DsaPtr<DsaSlice<BlockId>> = server.state.records.load(Ordering::Acquire).cast();
        let area = server.registry().area(NAME)?;
        Ok(area.read_slice(area.read(list)?)?)
    }

    /// Takes the list back.
    pub(crate) fn discard(self, server: &Server) -> Result<(), Failure> {
        drop(self.area);
        remove(server)
    }
}

fn remove(server: &Server) -> Result<(), Failure> {
    server.state.records.store(DsaPointer::INVALID, Ordering::Release);
    match server.registry().remove(NAME) {
        Ok(()) => Ok(()),
        Err(error) if error.is_not_found() => Ok(()),
        Err(error) => Err(error.into()),
    }
}

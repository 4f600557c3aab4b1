//! What a process of the server has: its name, its data, and what it shares with the others.

use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

use dsm_registry::{Registry, Segment};

use super::block::BlockId;
use super::claim::{Claim, Held};
use super::pool::{Found, Pool};
use super::state::State;

/// Anything that goes wrong is told to the user.
pub(crate) type Failure = Box<dyn std::error::Error + Send + Sync>;

/// One process of a server.
pub(crate) struct Server {
    /// Blocks in shared memory.
    pub(crate) pool: Pool,
    /// What the worker and the commands share.
    pub(crate) state: Segment<State>,
    /// Held by who runs the worker.
    pub(crate) worker: Claim,
    /// Held by who uses the dump file.
    pub(crate) dumper: Claim,
    data: PathBuf,
    registry: Registry,
}

impl Server {
    /// Joins the server called `name`, or starts it, with a pool of `capacity` blocks in the
    /// latter case.
    pub(crate) fn join(name: &str, data: &Path, capacity: u64) -> Result<Self, Failure> {
        let registry = Registry::open(name)?;
        let pool = Pool::open(&registry, capacity)?;
        let state = registry.segment("autoprewarm", |_| Ok(()))?;
        let worker = Claim::open(&registry, "autoprewarm.worker")?;
        let dumper = Claim::open(&registry, "autoprewarm.dumper")?;
        Ok(Self { pool, state, worker, dumper, data: data.to_owned(), registry })
    }

    /// The registry.
    pub(crate) fn registry(&self) -> &Registry {
        &self.registry
    }

    /// Takes the dump file for this process, until the result is dropped.
    pub(crate) fn take_dump_file(&self) -> Result<Held<'_>, Failure> {
        let pid = &self.state.dumper_pid;
        self.dumper.take(pid)?.ok_or_else(|| {
            let pid = pid.load(Ordering::Acquire);
            format!("the dump file is being used by the process with pid {pid}").into()
        })
    }

    /// The data directory.
    pub(crate) fn data(&self) -> &Path {
        &self.data
    }

    /// Where the dump file lies: with the data.
    pub(crate) fn dump_file(&self) -> PathBuf {
        self.data.join("autoprewarm.blocks")
    }

    /// Reads files (as `TABLESPACE/DATABASE/FILE`) through the pool, as a server process does for
    /// its queries: the sum of their bytes, and how the blocks were found.
    pub(crate) fn read_files(&self, files: &[String]) -> Result<Reading, Failure> {
        let mut reading = Reading::default();
        for file in files {
            let first = BlockId::from_path(file)
                .ok_or_else(|| format!("{file:?} is not of the form TABLESPACE/DATABASE/FILE"))?;
            let blocks = first.blocks_of_file(&self.data)?;
            if blocks == 0 {
                return Err(format!("{file}: there is no such file, or it is empty").into());
            }
            for block in 0..blocks {
                let (found, sum) = self.pool.read(&self.data, BlockId { block, ..first })?;
                reading.sum += sum;
                match found {
                    Found::Hit => reading.hits += 1,
                    Found::Loaded | Found::Full => reading.read += 1,
                    Found::Missing => {}
                }
            }
        }
        Ok(reading)
    }

    /// Whether somebody wants the worker to end; `seen` is what `stop_requests` was when it began.
    pub(crate) fn is_to_stop(&self, seen: u64) -> bool {
        self.state.stop_requests.load(Ordering::Acquire) != seen
    }
}

/// What a server process read.
#[derive(Default)]
pub(crate) struct Reading {
    /// Blocks found in the pool.
    pub(crate) hits: u64,
    /// Blocks read from their files.
    pub(crate) read: u64,
    /// All bytes added up: that of the files, wherever the blocks came from.
    pub(crate) sum: u64,
}

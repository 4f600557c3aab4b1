//! The worker: loads the pool once, then writes down from time to time what is in it.
//!
//! One worker a server: who holds the claim `worker`. A worker that was killed is replaced by
//! simply starting another, which finds in the shared state how far the one before came: a load
//! that was interrupted is begun again (blocks that are in the pool already cost nothing), one that
//! was done is not.
//!
//! **Load.** The dump file's blocks are sorted and put into a list in shared memory, database by
//! database. For each database the worker starts a *loader*, a process of its own as a database
//! server would need, waits for it, and goes on with the next. The loader takes blocks from
//! `start` to `stop`, and stores how far it has come after each; if it is killed, another goes on
//! from there. Files that are gone, and blocks beyond the end of their file, are skipped; a full
//! pool ends the load.
//!
//! **Dump.** Whoever holds the claim `dumper` takes a list of what is in the pool and replaces the
//! dump file, every interval, on request, and when the worker ends; but never while a load has
//! begun and not come to its end: the file would lose what was not loaded yet.

use std::process::{Child, Command, Stdio};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::dump_file;
use super::pool::Found;
use super::records::Records;
use super::say;
use super::server::{Failure, Server};
use super::state::Phase;

/// How often the worker looks whether it is to end.
const TICK: Duration = Duration::from_millis(20);
/// How often a database's loader may die before the worker gives up on it.
const ATTEMPTS: u32 = 3;

/// Runs the worker until somebody asks it to stop. `interval`: between dumps; zero: only at the
/// end.
pub(crate) fn run(server: &Server, name: &str, interval: Duration) -> Result<(), Failure> {
    let state = &server.state;
    let stop_requests = state.stop_requests.load(Ordering::Acquire);
    let _worker = server.worker.take(&state.worker_pid)?.ok_or_else(|| {
        let pid = state.worker_pid.load(Ordering::Acquire);
        format!("an autoprewarm worker is already running for {name:?} with pid {pid}")
    })?;
    say(&format!("autoprewarm worker {} for {name:?}", std::process::id()));
    if state.phase() != Phase::Loaded {
        load(server, name, stop_requests)?;
    }
    let mut last_dump = Instant::now();
    while !server.is_to_stop(stop_requests) {
        if !interval.is_zero() && last_dump.elapsed() >= interval {
            report_dump(dump(server));
            last_dump = Instant::now();
        }
        std::thread::sleep(TICK);
    }
    if state.phase() == Phase::Loaded {
        say(&dump(server)?);
    }
    Ok(())
}

/// A dump that fails, because somebody else is at it or the disk is full, is tried again later.
fn report_dump(result: Result<String, Failure>) {
    say(&result.unwrap_or_else(|error| format!("not dumped: {error}")));
}

/// Writes down which blocks are in the pool; says what it did.
pub(crate) fn dump(server: &Server) -> Result<String, Failure> {
    let state = &server.state;
    match state.phase() {
        Phase::Cold => return Err("no worker has been started for this pool yet".into()),
        Phase::Loading => {
            return Err("the pool is still being loaded; a dump now would lose blocks".into());
        }
        Phase::Loaded => {}
    }
    let _dumper = server.take_dump_file()?;
    let mut blocks = server.pool.list()?;
    blocks.sort_unstable();
    let path = server.dump_file();
    dump_file::write(&path, &blocks)?;
    Ok(format!("wrote block details for {} blocks to {}", blocks.len(), path.display()))
}

fn load(server: &Server, name: &str, stop_requests: u64) -> Result<(), Failure> {
    let state = &server.state;
    let blocks = {
        let _dumper = server.take_dump_file()?;
        dump_file::read(&server.dump_file())?
    };
    let Some(mut blocks) = blocks else {
        state.set_phase(Phase::Loaded);
        say("there is no dump file: the pool starts cold");
        return Ok(());
    };
    blocks.sort_unstable();
    blocks.dedup();
    if u32::try_from(blocks.len()).is_err() {
        return Err("the dump file lists more than 2^32 blocks".into());
    }
    state.set_phase(Phase::Loading);
    state.set_progress(0, 0);
    let records = Records::publish(server, &blocks)?;
    let mut first = 0;
    for database in blocks.chunk_by(|a, b| a.database == b.database) {
        let last = first + database.len();
        if server.pool.is_full() || server.is_to_stop(stop_requests) {
            break;
        }
        let (_, prewarmed) = state.progress();
        state.database.store(database[0].database, Ordering::Relaxed);
        state.set_progress(first as u32, prewarmed);
        state.stop.store(last as u64, Ordering::Release);
        load_database(server, name, stop_requests)?;
        first = last;
    }
    records.discard(server)?;
    if server.is_to_stop(stop_requests) {
        say("interrupted: the dump file is left as it is");
        return Ok(());
    }
    state.set_phase(Phase::Loaded);
    say(&format!("prewarmed {} of {} previously-loaded blocks", state.progress().1, blocks.len()));
    Ok(())
}

/// Runs loaders for the current database until one has come to its end.
fn load_database(server: &Server, name: &str, stop_requests: u64) -> Result<(), Failure> {
    let database = server.state.database.load(Ordering::Relaxed);
    for _ in 0..ATTEMPTS {
        let loader = Command::new(std::env::current_exe()?)
            .arg("load")
            .arg(name)
            .arg(server.data())
            .stdin(Stdio::null())
            .spawn()?;
        server.state.loader_pid.store(loader.id(), Ordering::Release);
        let done = wait(Killed(loader), server, stop_requests);
        server.state.loader_pid.store(0, Ordering::Release);
        if done? {
            return Ok(());
        }
        say(&format!("the loader of database {database} died; another goes on"));
    }
    Err(format!("the loaders of database {database} died {ATTEMPTS} times").into())
}

/// A process that does not outlive this value.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        // Fails only for one that has ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Waits for a loader, or for a request to stop; false if the loader failed.
fn wait(mut loader: Killed, server: &Server, stop_requests: u64) -> Result<bool, Failure> {
    loop {
        if let Some(status) = loader.0.try_wait()? {
            return Ok(status.success());
        }
        if server.is_to_stop(stop_requests) {
            return Ok(true);
        }
        std::thread::sleep(TICK / 4);
    }
}

/// A loader: loads the published blocks from `start` to `stop`.
pub(crate) fn load_published(server: &Server) -> Result<(), Failure> {
    let state = &server.state;
    let records = Records::read(server)?;
    let stop = state.stop.load(Ordering::Acquire) as usize;
    let (start, mut prewarmed) = state.progress();
    for (index, id) in records.iter().enumerate().take(stop).skip(start as usize) {
        match server.pool.read(server.data(), *id)?.0 {
            Found::Hit | Found::Loaded => prewarmed += 1,
            Found::Full => return Ok(()),
            // The file was removed or has become shorter since the dump.
            Found::Missing => {}
        }
        state.set_progress(index as u32 + 1, prewarmed);
    }
    Ok(())
}

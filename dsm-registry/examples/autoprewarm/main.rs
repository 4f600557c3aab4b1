//! A server whose cache is warm again after a restart, as PostgreSQL's autoprewarm does it.
//!
//! Several processes share a pool of blocks that they read from files. A worker writes down from
//! time to time which blocks are in the pool; when the server starts again it reads them in,
//! before anybody has asked for them. All of them find each other by one name.
//!
//! ```console
//! alias autoprewarm='cargo run -q -p dsm-registry --example autoprewarm --'
//! mkdir -p data/1663/5; head -c 1M /dev/urandom > data/1663/5/1259
//! autoprewarm start demo data &                     # the worker; the pool starts cold
//! autoprewarm read demo data 1663/5/1259            # a server process: 128 blocks from the file
//! autoprewarm read demo data 1663/5/1259            # another: 128 blocks from the pool
//! autoprewarm status demo data
//! autoprewarm dump-now demo data                    # data/autoprewarm.blocks
//! autoprewarm stop demo data                        # the last one out takes the pool with it
//! autoprewarm start demo data &                     # prewarmed 128 of 128 previously-loaded blocks
//! ```
//!
//! | module | its idea |
//! |---|---|
//! | `block` | a block's name, and where its bytes are |
//! | `pool` | a named hash table from a block's name to its bytes |
//! | `state` | the struct by which worker, loaders and commands know of each other |
//! | `claim` | a role that one process at a time plays, and that the dead give up: a lock |
//! | `records` | the list of blocks to be loaded, in an area |
//! | `dump_file` | the list of blocks on disk |
//! | `worker` | loading and dumping |
//! | `server` | what each process has |

mod block;
mod claim;
mod dump_file;
mod pool;
mod records;
mod server;
mod state;
mod worker;

use std::path::Path;
use std::process::ExitCode;
use std::sync::atomic::Ordering;
use std::time::Duration;

use server::{Failure, Server};

const USAGE: &str = "usage: autoprewarm start NAME DATA [--pool BLOCKS] [--interval SECONDS]
       autoprewarm stop|status|dump-now NAME DATA
       autoprewarm read NAME DATA TABLESPACE/DATABASE/FILE...
       autoprewarm serve NAME DATA    (reads the files that its standard input names; or `status`)";

/// Blocks of a pool, unless told otherwise: 64 MiB.
const CAPACITY: u64 = 8192;
/// Time between dumps, unless told otherwise.
const INTERVAL: Duration = Duration::from_secs(300);

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(&format!("autoprewarm: {error}"));
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &[String]) -> Result<(), Failure> {
    let [command, name, data, rest @ ..] = arguments else { return Err(USAGE.into()) };
    let data = Path::new(data);
    if !data.is_dir() {
        return Err(format!("{}: there is no such directory", data.display()).into());
    }
    match (command.as_str(), rest) {
        ("start", options) => {
            let (capacity, interval) = parse_options(options)?;
            worker::run(&Server::join(name, data, capacity)?, name, interval)
        }
        ("stop", []) => {
            Server::join(name, data, CAPACITY)?.state.stop_requests.fetch_add(1, Ordering::AcqRel);
            Ok(())
        }
        ("status", []) => status(&Server::join(name, data, CAPACITY)?),
        ("dump-now", []) => {
            say(&worker::dump(&Server::join(name, data, CAPACITY)?)?);
            Ok(())
        }
        ("read", files @ [_, ..]) => read(&Server::join(name, data, CAPACITY)?, files),
        ("serve", []) => {
            let server = Server::join(name, data, CAPACITY)?;
            for line in std::io::stdin().lines() {
                match line?.as_str() {
                    "status" => status(&server)?,
                    file => read(&server, &[file.to_owned()])?,
                }
            }
            Ok(())
        }
        // Not for people: a worker starts this.
        ("load", []) => worker::load_published(&Server::join(name, data, CAPACITY)?),
        _ => Err(USAGE.into()),
    }
}

fn parse_options(options: &[String]) -> Result<(u64, Duration), Failure> {
    let (mut capacity, mut interval) = (CAPACITY, INTERVAL);
    for option in options.chunks(2) {
        let [option, value] = option else { return Err(USAGE.into()) };
        let number =
            || value.parse().map_err(|_| format!("{option} takes a number, not {value:?}"));
        match option.as_str() {
            "--pool" => capacity = number()?,
            "--interval" => interval = Duration::from_secs(number()?),
            _ => return Err(USAGE.into()),
        }
    }
    Ok((capacity, interval))
}

fn read(server: &Server, files: &[String]) -> Result<(), Failure> {
    let reading = server.read_files(files)?;
    say(&format!(
        "{} blocks from the pool, {} from files, sum of bytes {}",
        reading.hits, reading.read, reading.sum
    ));
    Ok(())
}

fn status(server: &Server) -> Result<(), Failure> {
    let state = &server.state;
    let pid = |holder: Option<u32>| holder.map_or("nobody".to_owned(), |pid| format!("pid {pid}"));
    say(&format!("worker      {}", pid(server.worker.holder(&state.worker_pid)?)));
    say(&format!(
        "dump file   {}, used by {}",
        server.dump_file().display(),
        pid(server.dumper.holder(&state.dumper_pid)?)
    ));
    let loader = state.loader_pid.load(Ordering::Acquire);
    say(&format!("loader      {}", pid((loader != 0).then_some(loader))));
    say(&format!("pool        {} of {} blocks", server.pool.used(), server.pool.capacity()));
    say(&format!("load        {:?}", state.phase()));
    say(&format!("prewarmed   {}", state.progress().1));
    Ok(())
}

/// A line of output; a reader that has gone away is no reason to fail.
fn say(line: &str) {
    use std::io::Write as _;
    let _ = writeln!(std::io::stdout(), "{line}");
}

fn complain(line: &str) {
    use std::io::Write as _;
    let _ = writeln!(std::io::stderr(), "{line}");
}

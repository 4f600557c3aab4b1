//! Insert or update in a named table, from several processes at once.
//!
//! ```console
//! cargo run -p dsm-registry --example upsert
//! ```
//!
//! Four processes record 25,000 page views each, of a hundred pages, in one table. `entry` locks
//! the page's place in the table, whether it has an entry or not, until the guard is dropped: no
//! view is lost, and no page gets two entries. A view that was being recorded by a process that
//! was killed would be *poisoned*, and the next to want the page would be told so and repair it
//! (here: keep what is there, since a half-recorded view is no loss).

use std::process::Command;

use dsm_registry::{Error, HashTable, Registry};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

type Failure = Box<dyn std::error::Error>;

const PROCESSES: u64 = 4;
const VIEWS: u64 = 25_000;
const PAGES: u64 = 100;

/// What is known of a page.
#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
struct Page {
    views: u64,
    last_viewer: u64,
}

fn main() -> Result<(), Failure> {
    match std::env::args().nth(1) {
        Some(namespace) => Ok(view_pages(&namespace)?),
        None => start_viewers(),
    }
}

/// Records one view: a new entry, or a changed one.
fn upsert(pages: &HashTable<u64, Page>, page: u64, viewer: u64) -> Result<(), Error> {
    let mut entry = pages
        .entry_or_repair(&page, |_half_recorded| ())?
        .or_insert(Page { views: 0, last_viewer: 0 })?;
    entry.views += 1;
    entry.last_viewer = viewer;
    Ok(())
}

/// One of the processes.
fn view_pages(namespace: &str) -> Result<(), Error> {
    let pages = Registry::open(namespace)?.hash("pages")?;
    let viewer = u64::from(std::process::id());
    for view in 0..VIEWS {
        upsert(&pages, (view * 7 + viewer) % PAGES, viewer)?;
    }
    Ok(())
}

/// Starts them, and looks at what they have done.
#[expect(clippy::print_stdout, reason = "a program's output")]
fn start_viewers() -> Result<(), Failure> {
    let namespace = format!("example-upsert-{}", std::process::id());
    let registry = Registry::open(&namespace)?;
    let pages: HashTable<u64, Page> = registry.hash("pages")?;
    let program = std::env::current_exe()?;
    let viewers: Result<Vec<_>, _> =
        (0..PROCESSES).map(|_| Command::new(&program).arg(&namespace).spawn()).collect();
    for mut viewer in viewers? {
        if !viewer.wait()?.success() {
            return Err("a process failed".into());
        }
    }
    let (mut count, mut views) = (0, 0);
    for entry in pages.iter()? {
        let (_, page) = entry?;
        count += 1;
        views += page.views;
    }
    println!("{PROCESSES} processes recorded {views} views of {count} pages");
    if (count, views) == (PAGES, PROCESSES * VIEWS) {
        Ok(())
    } else {
        Err(format!("{} views of {PAGES} pages were expected", PROCESSES * VIEWS).into())
    }
}

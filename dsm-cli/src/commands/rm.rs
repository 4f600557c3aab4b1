//! `dsm rm`: removes a namespace, or one name in it.

use dsm_registry::{Error, ErrorKind, Registry};
use serde::Serialize;

use super::{inspect, say_json};
use crate::output::say;

/// Remove a namespace in which nobody lives, or a name that nobody else uses.
#[derive(clap::Args, Debug)]
pub(crate) struct Arguments {
    /// The namespace.
    name: String,
    /// A name in it: only that is removed.
    item: Option<String>,
    /// Also while processes use it. They keep what they have until they let go of it; a namespace
    /// loses its names at once, and goes with the last process that leaves it.
    #[arg(long)]
    force: bool,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Removed<'a> {
    namespace: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    item: Option<&'a str>,
    /// Whether it is gone; if not, it goes with the last process that lives in it.
    gone: bool,
}

/// Runs the command.
pub(crate) fn run(arguments: &Arguments) -> Result<bool, String> {
    let Arguments { name, item, force, json } = arguments;
    let gone = match item {
        Some(item) => {
            // Opening a namespace that is not there would create it.
            inspect(name)?;
            remove_item(name, item, *force).map(|()| true)
        }
        None => remove_namespace(name, *force),
    }
    .map_err(|e| e.to_string())?;
    let item = item.as_deref();
    if *json {
        say_json(&Removed { namespace: name, item, gone })?;
    } else {
        say(&match (item, gone) {
            (Some(item), _) => format!("removed {item} from {name}"),
            (None, true) => format!("removed {name}"),
            (None, false) => {
                format!("removed the names in {name}; it goes with its last process")
            }
        });
    }
    Ok(true)
}

fn remove_item(namespace: &str, item: &str, force: bool) -> Result<(), Error> {
    let registry = Registry::open(namespace)?;
    if force { registry.remove_forced(item) } else { registry.remove(item) }
}

/// Whether the namespace is gone at once.
fn remove_namespace(namespace: &str, force: bool) -> Result<bool, Error> {
    match Registry::destroy(namespace) {
        Err(error) if force && matches!(error.kind(), ErrorKind::NamespaceInUse { .. }) => {}
        done => return done.map(|()| true),
    }
    let registry = Registry::open(namespace)?;
    for listing in registry.list()? {
        match registry.remove_forced(&listing.name) {
            // Removed by somebody else meanwhile.
            Ok(()) => {}
            Err(error) if error.is_not_found() => {}
            Err(error) => return Err(error),
        }
    }
    registry.set_persistent(false)?;
    drop(registry);
    Ok(matches!(Registry::inspect(namespace), Err(e) if e.is_not_found()))
}

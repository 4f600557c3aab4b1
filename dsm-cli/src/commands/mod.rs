//! The commands that look at namespaces and clear them away.
//!
//! `ls` and `show` only look: they take no slot in a namespace, sweep nothing, and leave what a
//! crash has left as it is. `rm` and `reap` take part.

pub(crate) mod ls;
pub(crate) mod reap;
pub(crate) mod rm;
pub(crate) mod show;

use comfy_table::{CellAlignment, Table, presets};
use dsm_registry::{Registry, RegistryInspector};
use serde::Serialize;

/// Looks at a namespace from outside.
fn inspect(namespace: &str) -> Result<RegistryInspector, String> {
    Registry::inspect(namespace).map_err(|e| e.to_string())
}

/// The names of all namespaces, sorted.
fn namespaces() -> Result<Vec<String>, String> {
    let mut names = Registry::namespaces().map_err(|e| e.to_string())?;
    names.sort();
    Ok(names)
}

/// Prints a value as JSON.
fn say_json(value: &impl Serialize) -> Result<(), String> {
    crate::output::say(&serde_json::to_string(value).map_err(|e| e.to_string())?);
    Ok(())
}

/// Lays out rows under headings; the columns in `numbers` to the right.
fn table(headings: &[&str], numbers: &[usize], rows: Vec<Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_header(headings).add_rows(rows);
    for column in table.column_iter_mut() {
        let alignment = if numbers.contains(&column.index) {
            CellAlignment::Right
        } else {
            CellAlignment::Left
        };
        column.set_cell_alignment(alignment);
        column.set_padding((0, 2));
    }
    let lines: Vec<String> = table.lines().map(|line| line.trim_end().to_owned()).collect();
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    #[test]
    fn tables_are_plain_and_aligned() {
        let rows = vec![
            vec!["a".to_owned(), "1".to_owned(), "x".to_owned()],
            vec!["bcd".to_owned(), "1000".to_owned(), "y".to_owned()],
        ];
        let expected = "name  size  what\na        1  x\nbcd   1000  y";
        assert_eq!(super::table(&["name", "size", "what"], &[1], rows), expected);
    }
}

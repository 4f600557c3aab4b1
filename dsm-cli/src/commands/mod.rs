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

/// Breaks the words of one column into lines, so that the table is no wider than so many columns,
/// if the others leave room for some words a line.
fn wrap(headings: &[&str], rows: &mut [Vec<String>], column: usize, columns: usize) {
    const LEAST: usize = 24;
    let width = |at: usize| {
        let cells = rows.iter().map(|row| row[at].chars().count());
        cells.chain([headings[at].chars().count()]).max().unwrap_or(0) + 2
    };
    let others: usize = (0..headings.len()).filter(|at| *at != column).map(width).sum();
    let room = columns.saturating_sub(others + 2).max(LEAST);
    for row in rows {
        let mut lines = vec![String::new()];
        for word in row[column].split(' ') {
            let line = lines.last_mut().expect("at least one");
            if line.is_empty() {
                line.push_str(word);
            } else if line.chars().count() + 1 + word.chars().count() <= room {
                line.push(' ');
                line.push_str(word);
            } else {
                lines.push(word.to_owned());
            }
        }
        row[column] = lines.join("\n");
    }
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
    fn many_process_ids_take_several_lines() {
        let pids: Vec<String> = (100_000..100_126).map(|pid| pid.to_string()).collect();
        let headings = ["namespace", "dead", "why"];
        let mut rows = vec![vec!["demo".to_owned(), pids.join(" "), "dead".to_owned()]];
        super::wrap(&headings, &mut rows, 1, 80);
        let table = super::table(&headings, &[], rows);
        assert!(table.lines().all(|line| line.len() <= 80), "{table}");
        assert!(table.lines().count() < 20, "{table}");
        for pid in pids {
            assert!(table.contains(&pid), "{pid}");
        }
    }

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

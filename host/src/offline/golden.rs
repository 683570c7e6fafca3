//! What a plugin left, as a text that is the same on every machine: to be kept beside its source and compared.

use std::fmt::Write as _;

use bitcoin::hashes::{Hash, HashEngine, sha256};
use bitcoin::hex::DisplayHex;

use super::bed::Subject;
use super::blocks::BlockList;
use crate::compare::{Outcome, ShownValue};
use crate::lane::Position;
use crate::store::{RowWrite, StateChanges, TableWrites};

/// How each text begins.
const BEGIN: &str = "plugin ";
/// Rows that are written out; those after them are there by their hash.
const SHOWN_ROWS: usize = 500;
/// Lines of each side that are shown where two texts part.
const SHOWN_LINES: usize = 6;

/// The text, as it grows.
pub struct Golden {
    text: String,
    rows: usize,
}

/// A hash that is fed with pieces of any length: each carries its own.
pub(super) struct Digest(bitcoin::hashes::sha256::HashEngine);

impl Digest {
    pub(super) fn new() -> Self {
        Self(sha256::Hash::engine())
    }

    pub(super) fn piece(&mut self, bytes: &[u8]) {
        self.0.input(&(bytes.len() as u64).to_le_bytes());
        self.0.input(bytes);
    }

    pub(super) fn finish(self) -> String {
        sha256::Hash::from_engine(self.0)
            .to_byte_array()
            .to_lower_hex_string()
    }

    /// The first half: enough to tell two blocks apart in a text for people.
    fn short(self) -> String {
        let mut text = self.finish();
        text.truncate(32);
        text
    }

    pub(super) fn row(&mut self, row: &RowWrite) {
        for value in &row.values {
            self.piece(ShownValue(value).to_string().as_bytes());
        }
    }
}

impl Golden {
    /// Whether a text is one that a test wrote, of any plugin.
    pub fn is_one(text: &str) -> bool {
        text.starts_with(BEGIN)
    }

    pub(super) fn new(subject: &Subject, list: &BlockList) -> Self {
        let descriptor = &subject.descriptor;
        let mut text = String::new();
        let _ = writeln!(
            text,
            "{BEGIN}{} state-version {}\nsettings {}\nnetwork {}",
            descriptor.name, descriptor.state_version, subject.settings, list.params.name
        );
        Self { text, rows: 0 }
    }

    pub(super) fn block(&mut self, position: Position, outcome: &Outcome) {
        let _ = write!(self.text, "block {} {}", position.height, position.hash);
        if !outcome.state.is_empty() {
            let _ = write!(
                self.text,
                " keys {} {}",
                outcome.state.len(),
                changes(&outcome.state)
            );
        }
        if let Some(spent) = &outcome.spent {
            let mut digest = Digest::new();
            digest.piece(&spent.encode());
            let _ = write!(self.text, " spent {} {}", spent.len(), digest.short());
        }
        self.text.push('\n');
        for table in &outcome.rows {
            self.table(table);
        }
    }

    fn table(&mut self, table: &TableWrites) {
        if table.writes.is_empty() {
            return;
        }
        self.rows += table.writes.len();
        if self.rows > SHOWN_ROWS {
            let mut digest = Digest::new();
            table.writes.iter().for_each(|row| digest.row(row));
            let _ = writeln!(
                self.text,
                "  {} rows {} {}",
                table.table,
                table.writes.len(),
                digest.short()
            );
            return;
        }
        for row in &table.writes {
            let _ = write!(self.text, "  {}", table.table);
            for (name, value) in table.columns.iter().zip(&row.values) {
                let _ = write!(self.text, " {name}={}", ShownValue(value));
            }
            self.text.push('\n');
        }
    }

    pub(super) fn state(&mut self, keys: u64, bytes: u64, hash: &str) {
        let _ = writeln!(self.text, "state keys {keys} bytes {bytes} sha256 {hash}");
    }

    pub(super) fn rows(&mut self, table: &str, rows: u64, hash: &str) {
        let _ = writeln!(self.text, "table {table} rows {rows} sha256 {hash}");
    }

    pub(super) fn query(&mut self, query: &str, answer: &str) {
        let _ = writeln!(self.text, "query {query}\n  {answer}");
    }

    /// The text.
    pub fn text(&self) -> &str {
        &self.text
    }
}

fn changes(changes: &StateChanges) -> String {
    let mut digest = Digest::new();
    for (key, value) in changes {
        digest.piece(key);
        match value {
            Some(value) => digest.piece(value),
            // No value has this length.
            None => digest.0.input(&u64::MAX.to_le_bytes()),
        }
    }
    digest.short()
}

/// Where a text differs from the one expected: the first lines that do, and how many there are in all.
pub fn golden_difference(expected: &str, found: &str) -> Option<String> {
    if expected == found {
        return None;
    }
    let (old, new): (Vec<&str>, Vec<&str>) = (expected.lines().collect(), found.lines().collect());
    let same = old.iter().zip(&new).take_while(|(a, b)| a == b).count();
    // What is the same at the end, so that a block with a row more does not look like another chain.
    let (rest_old, rest_new) = (
        old.get(same..).unwrap_or_default(),
        new.get(same..).unwrap_or_default(),
    );
    let ends = rest_old.iter().rev().zip(rest_new.iter().rev());
    let tail = ends.take_while(|(a, b)| a == b).count();
    let mut text = format!("from line {} on:\n", same + 1);
    if let Some(block) = old
        .get(..same)
        .unwrap_or_default()
        .iter()
        .rev()
        .find(|line| line.starts_with("block "))
    {
        let block: Vec<&str> = block.split(' ').take(2).collect();
        text = format!("from line {} on, after {}:\n", same + 1, block.join(" "));
    }
    for (sign, lines) in [('-', rest_old), ('+', rest_new)] {
        let lines = lines.get(..lines.len() - tail).unwrap_or_default();
        for line in lines.iter().take(SHOWN_LINES) {
            let _ = writeln!(text, "{sign} {line}");
        }
        if lines.len() > SHOWN_LINES {
            let _ = writeln!(text, "{sign} … {} lines more", lines.len() - SHOWN_LINES);
        }
    }
    Some(text)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

    use super::*;

    #[test]
    fn where_two_texts_part_is_shown() {
        let old = "plugin a\nblock 1 x\n  t a=1\nblock 2 y\nstate 1\n";
        assert_eq!(golden_difference(old, old), None);
        let new = old.replace("a=1\n", "a=2\n  t a=3\n");
        assert_eq!(
            golden_difference(old, &new).unwrap(),
            "from line 3 on, after block 1:\n-   t a=1\n+   t a=2\n+   t a=3\n"
        );
        let longer = format!("{old}{}", "more\n".repeat(20));
        let shown = golden_difference(old, &longer).unwrap();
        assert!(shown.ends_with("+ … 14 lines more\n"), "{shown}");
    }
}

//! Two plugins over the same blocks, up to the first difference in what they leave.

use std::fmt;
use std::sync::Arc;

use anyhow::{Result, bail};
use serde::Serialize;

use super::bed::{Bed, Subject};
use super::blocks::BlockList;
use super::feeder::Feeder;
use crate::compare::{Difference, Outcome};
use crate::plugin::{Descriptor, PluginEngine};

/// What a comparison found.
#[derive(Debug, Serialize)]
pub struct DiffReport {
    /// The first file.
    pub first: String,
    /// The second file.
    pub second: String,
    /// Where the blocks come from.
    pub blocks: String,
    /// Blocks that both were given.
    pub compared: usize,
    /// In what the two describe themselves differently.
    pub descriptions: Vec<String>,
    /// Where they first leave something else.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub difference: Option<FirstDifference>,
}

/// The first block for which two plugins leave something else.
#[derive(Debug, Serialize)]
pub struct FirstDifference {
    /// Its height; none when they differ before the first block, in what they write when they start.
    pub height: Option<u32>,
    /// Its hash.
    pub hash: Option<String>,
    /// How they differ.
    pub difference: Difference,
}

impl fmt::Display for FirstDifference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.height, &self.hash) {
            (Some(height), Some(hash)) => write!(f, "block {height} ({hash})"),
            _ => f.write_str("the start"),
        }
    }
}

/// Gives the blocks to both, and stops at the first difference. `tick` is called with the number of blocks that are done.
///
/// # Errors
///
/// When both fail alike, so that there is nothing more to compare, or a store fails.
pub fn diff(
    engine: &Arc<PluginEngine>,
    first: Subject,
    second: Subject,
    list: &BlockList,
    mut tick: impl FnMut(usize),
) -> Result<DiffReport> {
    let mut report = DiffReport {
        first: first.file.clone(),
        second: second.file.clone(),
        blocks: list.source.clone(),
        compared: 0,
        descriptions: descriptions(&first.descriptor, &second.descriptor),
        difference: None,
    };
    let spent = first.descriptor.columns.spent || second.descriptor.columns.spent;
    let bed = |subject: Subject| {
        Bed::new(
            engine.clone(),
            Arc::new(subject),
            list.params,
            list.first == 0,
        )
    };
    let (mut first, mut second) = (bed(first)?, bed(second)?);
    let mut feeder = Feeder::new(list, spent, false);
    first.instance()?;
    second.instance()?;
    let started = |bed: &mut Bed| -> Result<Outcome> {
        Ok(Outcome {
            state: bed.whole_state()?,
            ..Outcome::default()
        })
    };
    if let Some(difference) = started(&mut first)?.difference(&started(&mut second)?) {
        report.difference = Some(FirstDifference {
            height: None,
            hash: None,
            difference,
        });
        return Ok(report);
    }
    while let Some(given) = feeder.next()? {
        let (of_first, _) = first.give(&given, false)?;
        let (of_second, _) = second.give(&given, false)?;
        let position = given.position;
        if let Some(difference) = of_first.difference(&of_second) {
            report.difference = Some(FirstDifference {
                height: Some(position.height),
                hash: Some(position.hash.to_string()),
                difference,
            });
            return Ok(report);
        }
        if let Some(error) = of_first.error {
            bail!("both fail at block {}: {error}", position.height);
        }
        report.compared += 1;
        tick(report.compared);
    }
    Ok(report)
}

/// What two plugins say of themselves differently, a line each.
fn descriptions(a: &Descriptor, b: &Descriptor) -> Vec<String> {
    let mut lines = Vec::new();
    let mut note = |what: &str, a: String, b: String| {
        if a != b {
            lines.push(format!("{what}: {a} and {b}"));
        }
    };
    note("name", a.name.clone(), b.name.clone());
    note("version", a.version.clone(), b.version.clone());
    note(
        "state version",
        a.state_version.to_string(),
        b.state_version.to_string(),
    );
    note("columns", a.columns.to_string(), b.columns.to_string());
    note("mempool", a.mempool.to_string(), b.mempool.to_string());
    note("role coins", a.coins.to_string(), b.coins.to_string());
    for table in &a.tables {
        match b.tables.iter().find(|other| other.name == table.name) {
            None => lines.push(format!("table {}: only the first has it", table.name)),
            Some(other) if other != table => {
                lines.push(format!("table {}: it is declared differently", table.name));
            }
            Some(_) => {}
        }
    }
    for table in &b.tables {
        if !a.tables.iter().any(|other| other.name == table.name) {
            lines.push(format!("table {}: only the second has it", table.name));
        }
    }
    lines
}

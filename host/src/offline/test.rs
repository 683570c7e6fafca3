//! A plugin over a chain of blocks, twice at once: undisturbed, and with everything that may happen to it between blocks.
//! Both must leave the same, or the plugin keeps something outside of its state, or answers by chance.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde::Serialize;

use super::bed::{Bed, Cut, Given, Subject};
use super::blocks::BlockList;
use super::disturb::{Disturbance, Disturbances, MAX_DEPTH, schedule};
use super::feeder::Feeder;
use super::golden::{Digest, Golden};
use crate::compare::{Difference, Outcome};
use crate::plugin::PluginEngine;
use crate::store::{RowAction, RowWrite, SqlValue, TableKind, TableSpec, TableWrites};

/// The disturbed plugin is flushed after so many blocks, so that a crash takes some back and not all.
const FLUSH_EVERY: usize = 5;
/// Blocks that are kept to be given again: more than a crash or a reorg takes back.
const KEPT: usize = 2 * (FLUSH_EVERY + MAX_DEPTH);
/// The whole states are compared after each disturbance as long as that takes no longer than this.
const QUICK: Duration = Duration::from_millis(250);
/// Blocks whose rows are compared at once in the end.
const ROW_SPAN: u32 = 20;

/// How a plugin is tested.
#[derive(Debug, Clone, Copy, Default)]
pub struct TestOptions {
    /// Reorgs too, beside restarts, crashes and cut calls.
    pub reorg: bool,
}

/// What a test found.
#[derive(Debug, Serialize)]
pub struct TestReport {
    /// The plugin's name.
    pub plugin: String,
    /// Its version.
    pub version: String,
    /// Hash of its file.
    pub sha256: String,
    /// Bytes of its file.
    pub size: u64,
    /// Where the blocks come from.
    pub blocks: String,
    /// Their network.
    pub network: String,
    /// Height of the first.
    pub first: u32,
    /// Height of the last that was given.
    pub last: u32,
    /// Keys in the state.
    pub state_keys: u64,
    /// Bytes of keys and values in the state.
    pub state_bytes: u64,
    /// Hash of the state: of each key and value with their lengths before them, in the order of the keys.
    pub state_sha256: String,
    /// What the tables hold that belong to blocks.
    pub tables: Vec<TableFigures>,
    /// Median time of a call, µs.
    pub block_time_median: u64,
    /// Longest call, µs.
    pub block_time_max: u64,
    /// The block of the longest call.
    pub block_time_max_height: u32,
    /// The most time that a call may take, µs.
    pub block_time_limit: u64,
    /// All calls together, µs.
    pub time: u64,
    /// The most memory that the instance had, bytes.
    pub memory: u64,
    /// The most memory that it may have, bytes.
    pub memory_limit: u64,
    /// What was done to the disturbed one.
    pub disturbances: Disturbances,
    /// Where the disturbed one did not leave the same. The run ends there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failure: Option<Failure>,
}

/// A table at the end.
#[derive(Debug, Serialize)]
pub struct TableFigures {
    /// Its name.
    pub table: String,
    /// Its rows.
    pub rows: u64,
    /// Hash of its rows, in the order written.
    pub sha256: String,
}

/// What was found wrong.
#[derive(Debug, Serialize)]
pub struct Failure {
    /// Height of the block at which it showed.
    pub height: u32,
    /// What was done to the plugin last, and when.
    pub after: String,
    /// How the disturbed one differs from the undisturbed one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub difference: Option<Difference>,
    /// Why the disturbed one could not go on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "at block {}, after {}:", self.height, self.after)?;
        if let Some(difference) = &self.difference {
            write!(f, "{}", difference.named("undisturbed", "disturbed"))?;
        }
        if let Some(error) = &self.error {
            writeln!(f, "{error}")?;
        }
        Ok(())
    }
}

/// Tests a plugin over blocks; `tick` is called with the number of blocks that are done.
///
/// # Errors
///
/// When the undisturbed plugin fails, says of a block what is not so, or a store fails. That the disturbed one leaves
/// something else is not an error but a [`Failure`] in the report.
pub fn test(
    engine: &Arc<PluginEngine>,
    subject: Subject,
    list: &BlockList,
    options: TestOptions,
    mut tick: impl FnMut(usize),
) -> Result<(TestReport, Golden)> {
    let subject = Arc::new(subject);
    let mut run = Run::new(engine, &subject, list)?;
    let schedule = schedule(list, options.reorg);
    while let Some(given) = run.feeder.next()? {
        let index = run.done;
        run.calm(&given)?;
        run.failure = run.disturbed(&given, schedule.get(&index).map_or(&[], Vec::as_slice))?;
        if run.failure.is_some() {
            break;
        }
        tick(run.done);
    }
    run.finish()
}

struct Run<'a> {
    subject: Arc<Subject>,
    list: &'a BlockList,
    feeder: Feeder<'a>,
    calm: Bed,
    rough: Bed,
    /// The last blocks and what the undisturbed plugin left for them.
    recent: VecDeque<(Given, Outcome)>,
    /// Blocks that the undisturbed plugin has had.
    done: usize,
    /// What was done to the disturbed one last, and before which block.
    last: String,
    disturbances: Disturbances,
    quick: bool,
    times: Vec<(Duration, u32)>,
    memory: usize,
    tables: BTreeMap<String, (u64, Digest)>,
    golden: Golden,
    failure: Option<Failure>,
}

impl<'a> Run<'a> {
    fn new(
        engine: &Arc<PluginEngine>,
        subject: &Arc<Subject>,
        list: &'a BlockList,
    ) -> Result<Self> {
        let descriptor = &subject.descriptor;
        let whole_chain = list.first == 0;
        let bed = || Bed::new(engine.clone(), subject.clone(), list.params, whole_chain);
        let coins = descriptor.columns.spent || (descriptor.coins && whole_chain);
        Ok(Self {
            feeder: Feeder::new(list, coins),
            calm: bed()?,
            rough: bed()?,
            recent: VecDeque::new(),
            done: 0,
            last: "nothing".to_owned(),
            disturbances: Disturbances::default(),
            quick: true,
            times: Vec::new(),
            memory: 0,
            tables: anchored(&descriptor.tables)
                .map(|table| (table.name.clone(), (0, Digest::new())))
                .collect(),
            golden: Golden::new(subject, list),
            failure: None,
            subject: subject.clone(),
            list,
        })
    }

    /// Gives a block to the undisturbed plugin and notes what it left.
    fn calm(&mut self, given: &Given) -> Result<()> {
        let height = given.position.height;
        let (mut outcome, took) = self.calm.give(given, false)?;
        if let Some(error) = &outcome.error {
            bail!("the plugin fails at block {height}: {error}");
        }
        self.check_spent(given, &outcome)?;
        // What a volatile table holds depends on the pool and on when the plugin was started.
        outcome
            .rows
            .retain(|table| self.tables.contains_key(&table.table));
        self.memory = self.memory.max(self.calm.memory()?);
        self.times.push((took, height));
        self.golden.block(given.position, &outcome);
        for table in &outcome.rows {
            if let Some((rows, digest)) = self.tables.get_mut(&table.table) {
                *rows += table.writes.len() as u64;
                for row in &table.writes {
                    digest.piece(&height.to_le_bytes());
                    digest.row(row);
                }
            }
        }
        self.recent.push_back((given.clone(), outcome));
        if self.recent.len() > KEPT {
            self.recent.pop_front();
        }
        self.done += 1;
        Ok(())
    }

    /// The plugin with the role `coins` must say what the blocks themselves say.
    fn check_spent(&self, given: &Given, outcome: &Outcome) -> Result<()> {
        if !self.subject.descriptor.coins {
            return Ok(());
        }
        let height = given.position.height;
        let Some(said) = outcome.spent.clone() else {
            bail!("the plugin has the role \"coins\" and does not say what block {height} spends");
        };
        let Some(expected) = &given.spent else {
            return Ok(());
        };
        let spent = |spent| Outcome {
            spent: Some(spent),
            ..Outcome::default()
        };
        match spent(expected.as_ref().clone()).difference(&spent(said)) {
            None => Ok(()),
            Some(difference) => bail!(
                "the plugin does not say rightly what block {height} spends\n{}",
                difference.named("the blocks", "the plugin")
            ),
        }
    }

    /// Does to the disturbed plugin what is due before a block, gives it the block, and compares.
    fn disturbed(&mut self, given: &Given, due: &[Disturbance]) -> Result<Option<Failure>> {
        for &disturbance in due {
            let height = given.position.height;
            self.last = format!("{disturbance} before block {height}");
            let failure = match disturbance {
                Disturbance::Restart => {
                    self.disturbances.restarts += 1;
                    self.rough.restart(true)?;
                    None
                }
                Disturbance::Crash => {
                    self.disturbances.crashes += 1;
                    self.rough.restart(false)?;
                    self.catch_up(1)?
                }
                Disturbance::Cut(percent) => {
                    self.cut(given, percent)?;
                    None
                }
                Disturbance::Reorg(depth) => {
                    self.disturbances.reorgs += 1;
                    self.reorg(depth)?
                }
            };
            if failure.is_some() {
                return Ok(failure);
            }
        }
        let failure = self.catch_up(0)?;
        if failure.is_none() && !due.is_empty() && self.quick {
            let began = Instant::now();
            let failure = self.compare_state()?;
            self.quick = began.elapsed() < QUICK;
            return Ok(failure);
        }
        if self.done.is_multiple_of(FLUSH_EVERY) {
            self.rough.flush()?;
        }
        Ok(failure)
    }

    /// Gives the disturbed plugin the blocks after its cursor, up to the last but `but`.
    fn catch_up(&mut self, but: usize) -> Result<Option<Failure>> {
        let next = match self.rough.cursor()? {
            Some(cursor) => cursor.height + 1,
            None => self.list.first,
        };
        let kept = self.recent.len().saturating_sub(but);
        let mut expected = next;
        for (given, outcome) in self.recent.iter().take(kept) {
            let height = given.position.height;
            if height < next {
                continue;
            }
            anyhow::ensure!(
                height == expected,
                "block {expected} is not kept to be given again"
            );
            expected += 1;
            let (mut found, _) = self.rough.give(given, true)?;
            found
                .rows
                .retain(|table| self.tables.contains_key(&table.table));
            if let Some(difference) = outcome.difference(&found) {
                return Ok(Some(failed(height, &self.last, Some(difference), None)));
            }
        }
        Ok(None)
    }

    /// Gives a block and drops it, in the middle of what the undisturbed plugin wrote for it.
    fn cut(&mut self, given: &Given, percent: Option<u64>) -> Result<()> {
        self.disturbances.cut_calls += 1;
        let outcome = self.recent.back().map(|(_, outcome)| outcome);
        let keys = outcome.map_or(0, |outcome| outcome.state.len() as u64);
        let rows = outcome.is_some_and(|outcome| outcome.rows.iter().any(|t| !t.writes.is_empty()));
        let cut = match percent {
            Some(percent) if keys > 0 => Cut::State(keys * percent / 100),
            Some(_) if rows => Cut::Rows,
            _ => Cut::Nowhere,
        };
        if self.rough.cut(given, cut)? {
            self.disturbances.cut_in_the_middle += 1;
        }
        Ok(())
    }

    /// Takes blocks back, gives others in their place, takes those back too, and gives the first ones again.
    fn reorg(&mut self, depth: usize) -> Result<Option<Failure>> {
        let kept = self.recent.len();
        let all: Vec<Given> = self.recent.iter().map(|(given, _)| given.clone()).collect();
        // The last of them was not given to the disturbed plugin yet.
        let last = kept.checked_sub(1).context("no block was given")?;
        let start = last.saturating_sub(depth);
        let (old, above) = (
            all.get(start..last).unwrap_or_default(),
            all.get(last..).unwrap_or_default(),
        );
        let Some(first) = old.first() else {
            return Ok(None);
        };
        let fork = first.position.height.saturating_sub(1);
        let branch = self.feeder.branch(old, above)?;
        self.rough.rewind(fork)?;
        for given in &branch {
            let (found, _) = self.rough.give(given, true)?;
            if let Some(error) = found.error {
                let height = given.position.height;
                let error = format!(
                    "the plugin fails with the block that took the place of block {height}: {error}"
                );
                return Ok(Some(failed(height, &self.last, None, Some(error))));
            }
        }
        self.rough.rewind(fork)?;
        self.catch_up(1)
    }

    fn compare_state(&mut self) -> Result<Option<Failure>> {
        if digest(&mut self.calm)? == digest(&mut self.rough)? {
            return Ok(None);
        }
        let state = |state| Outcome {
            state,
            ..Outcome::default()
        };
        let calm = state(self.calm.whole_state()?);
        let rough = state(self.rough.whole_state()?);
        let difference = calm.difference(&rough);
        Ok(Some(failed(self.height(), &self.last, difference, None)))
    }

    /// Height of the last block given.
    fn height(&self) -> u32 {
        let last = self.recent.back();
        last.map_or(self.list.first, |(given, _)| given.position.height)
    }

    /// The rows of both as they lie in the database.
    fn compare_rows(&mut self) -> Result<Option<Failure>> {
        self.calm.flush()?;
        self.rough.flush()?;
        let (calm, rough) = (self.calm.rows()?, self.rough.rows()?);
        for table in anchored(&self.subject.descriptor.tables) {
            let mut from = self.list.first;
            while from <= self.list.last() {
                let read = |store: &crate::store::RowStore| stored(store, table, from);
                let difference = read(&calm)?.difference(&read(&rough)?);
                if let Some(difference) = difference {
                    return Ok(Some(failed(
                        self.height(),
                        &self.last,
                        Some(difference),
                        None,
                    )));
                }
                from += ROW_SPAN;
            }
        }
        Ok(None)
    }

    fn finish(mut self) -> Result<(TestReport, Golden)> {
        if self.failure.is_none() {
            self.last = "a restart at the end".to_owned();
            self.disturbances.restarts += 1;
            self.rough.restart(true)?;
            self.rough.instance()?;
            self.failure = self.compare_state()?;
        }
        if self.failure.is_none() {
            self.failure = self.compare_rows()?;
        }
        let (mut keys, mut bytes) = (0, 0);
        self.calm.each_entry(|key, value| {
            keys += 1;
            bytes += (key.len() + value.len()) as u64;
        })?;
        let state_sha256 = digest(&mut self.calm)?;
        let last = self.height();
        self.golden.state(keys, bytes, &state_sha256);
        let mut tables = Vec::new();
        for (table, (rows, digest)) in std::mem::take(&mut self.tables) {
            let sha256 = digest.finish();
            self.golden.rows(&table, rows, &sha256);
            tables.push(TableFigures {
                table,
                rows,
                sha256,
            });
        }
        let time = self.times.iter().map(|(took, _)| *took).sum();
        self.times.sort_unstable();
        let median = self
            .times
            .get(self.times.len() / 2)
            .copied()
            .unwrap_or_default();
        let max = self.times.last().copied().unwrap_or_default();
        let (descriptor, limits) = (&self.subject.descriptor, &self.subject.limits);
        let report = TestReport {
            plugin: descriptor.name.clone(),
            version: descriptor.version.clone(),
            sha256: self.subject.compiled.sha256.to_string(),
            size: self.subject.compiled.size,
            blocks: self.list.source.clone(),
            network: self.list.params.name.to_owned(),
            first: self.list.first,
            last,
            state_keys: keys,
            state_bytes: bytes,
            state_sha256,
            tables,
            block_time_median: micros(median.0),
            block_time_max: micros(max.0),
            block_time_max_height: max.1,
            block_time_limit: micros(limits.block_time),
            time: micros(time),
            memory: self.memory as u64,
            memory_limit: limits.memory as u64,
            disturbances: self.disturbances,
            failure: self.failure,
        };
        Ok((report, self.golden))
    }
}

fn failed(
    height: u32,
    after: &str,
    difference: Option<Difference>,
    error: Option<String>,
) -> Failure {
    Failure {
        height,
        after: after.to_owned(),
        difference,
        error,
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

fn anchored(tables: &[TableSpec]) -> impl Iterator<Item = &TableSpec> {
    tables
        .iter()
        .filter(|table| table.kind == TableKind::Anchored)
}

/// A hash of the whole state.
fn digest(bed: &mut Bed) -> Result<String> {
    let mut digest = Digest::new();
    bed.each_entry(|key, value| {
        digest.piece(key);
        digest.piece(value);
    })?;
    Ok(digest.finish())
}

/// The rows of a table for some heights, sorted: a database does not keep the order in which they were written.
fn stored(store: &crate::store::RowStore, table: &TableSpec, from: u32) -> Result<Outcome> {
    let columns: Vec<String> = std::iter::once("height".to_owned())
        .chain(table.columns.iter().map(|column| column.name.clone()))
        .collect();
    let order: Vec<String> = (1..=columns.len()).map(|n| n.to_string()).collect();
    let sql = format!(
        "SELECT * FROM \"{}\" WHERE height >= ? AND height < ? ORDER BY {}",
        table.name,
        order.join(",")
    );
    let bound = |height: u32| SqlValue::Integer(i64::from(height));
    let rows = store.query(&sql, &[bound(from), bound(from.saturating_add(ROW_SPAN))])?;
    let writes = rows.into_iter().map(|values| RowWrite {
        action: RowAction::Append,
        values,
    });
    Ok(Outcome {
        rows: vec![TableWrites {
            table: table.name.clone(),
            key: std::iter::once("height".to_owned())
                .chain(table.key.clone())
                .collect(),
            columns,
            writes: writes.collect(),
        }],
        ..Outcome::default()
    })
}

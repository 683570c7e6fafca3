//! A plugin over a chain of blocks, twice at once: undisturbed, and with everything that may happen to it between blocks.
//! Both must leave the same, or the plugin keeps something outside of its state, or answers by chance.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::bed::{Answer, Bed, Cut, Given, Subject};
use super::blocks::BlockList;
use super::disturb::{Disturbance, Disturbances, MAX_DEPTH, schedule};
use super::feeder::Feeder;
use super::golden::{Digest, Golden};
use super::query::{AskedQuery, Question};
use super::report::{Failure, TableFigures, TestReport, failed};
use super::tables::{anchored_rows, of_kind, sum, volatile_rows};
use crate::compare::Outcome;
use crate::plugin::PluginEngine;
use crate::store::{RowStore, TableKind};

/// The disturbed plugin is flushed after so many blocks, so that a crash takes some back and not all.
const FLUSH_EVERY: usize = 5;
/// Blocks that are kept to be given again: more than a crash or a reorg takes back.
const KEPT: usize = 2 * (FLUSH_EVERY + MAX_DEPTH);
/// The whole states are compared after each disturbance as long as that takes no longer than this.
const QUICK: Duration = Duration::from_millis(250);
/// The queues of the two plugins for changes of the pool.
const CALM: &str = "calm";
const ROUGH: &str = "rough";
/// Blocks whose rows are compared at once in the end.
const ROW_SPAN: u32 = 20;

/// How a plugin is tested.
#[derive(Debug, Clone, Default)]
pub struct TestOptions {
    /// Reorgs too, beside restarts, crashes and calls that are cut or interrupted.
    pub reorg: bool,
    /// Nothing is told of the memory pool.
    pub no_pool: bool,
    /// What is asked in the end.
    pub queries: Vec<Question>,
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
    let mut run = Run::new(engine, &subject, list, &options)?;
    let schedule = schedule(list, options.reorg);
    while let Some(given) = run.feeder.next()? {
        let index = run.done;
        run.calm(&given)?;
        run.failure = run.disturbed(&given, schedule.get(&index).map_or(&[], Vec::as_slice))?;
        if run.failure.is_none() {
            run.failure = run.pool(&given, schedule.contains_key(&index))?;
        }
        if run.failure.is_some() {
            break;
        }
        tick(run.done);
    }
    run.finish(&options.queries)
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
    no_pool: Option<&'static str>,
    pool_time: Duration,
    golden: Golden,
    failure: Option<Failure>,
}

impl<'a> Run<'a> {
    fn new(
        engine: &Arc<PluginEngine>,
        subject: &Arc<Subject>,
        list: &'a BlockList,
        options: &TestOptions,
    ) -> Result<Self> {
        let descriptor = &subject.descriptor;
        let whole_chain = list.first == 0;
        let no_pool = match (options.no_pool, whole_chain) {
            _ if !descriptor.mempool => None,
            (true, _) => Some("--no-mempool"),
            (false, false) => Some(
                "the blocks do not begin with the first, so that nobody knows what its transactions pay",
            ),
            (false, true) => None,
        };
        let pool = descriptor.mempool && no_pool.is_none();
        let bed = || Bed::new(engine.clone(), subject.clone(), list.params, whole_chain);
        let coins = descriptor.columns.spent || (descriptor.coins && whole_chain);
        Ok(Self {
            feeder: Feeder::new(list, coins, pool),
            calm: bed()?,
            rough: bed()?,
            recent: VecDeque::new(),
            done: 0,
            last: "nothing".to_owned(),
            disturbances: Disturbances::default(),
            quick: true,
            times: Vec::new(),
            memory: 0,
            tables: of_kind(&descriptor.tables, TableKind::Anchored)
                .map(|table| (table.name.clone(), (0, Digest::new())))
                .collect(),
            no_pool,
            pool_time: Duration::ZERO,
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
                Disturbance::Interrupt(percent) => {
                    self.interrupt(given, percent)?;
                    None
                }
                Disturbance::Reorg(depth) => {
                    self.disturbances.reorgs += 1;
                    self.reorg(depth)?
                }
            };
            let failure = match failure {
                None => self.tell_rough(height)?,
                failure => failure,
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

    /// Gives a block and ends the call in the middle of what it computes, as if its time were up, and drops it.
    fn interrupt(&mut self, given: &Given, percent: u64) -> Result<()> {
        // Both calls on a fresh instance: what it remembers changes how often it looks.
        self.rough.vacate();
        let looks = self.rough.looks(given)?;
        if self.rough.cut(given, Cut::Time(looks * percent / 100))? {
            self.disturbances.interrupted_calls += 1;
        }
        Ok(())
    }

    /// Brings the pool to a block that both plugins have had, and tells both.
    fn pool(&mut self, given: &Given, compare: bool) -> Result<Option<Failure>> {
        let height = given.position.height;
        self.feeder.follow(given)?;
        let Some(pool) = self.feeder.pool() else {
            return Ok(None);
        };
        let began = Instant::now();
        if let Some(error) = self.calm.tell(pool, CALM)? {
            bail!("the plugin fails with changes of the memory pool after block {height}: {error}");
        }
        self.pool_time = self.pool_time.max(began.elapsed());
        match self.tell_rough(height)? {
            None if compare => self.compare_volatile(),
            failure => Ok(failure),
        }
    }

    /// Tells the disturbed plugin what changed in the pool.
    fn tell_rough(&mut self, height: u32) -> Result<Option<Failure>> {
        let Some(pool) = self.feeder.pool() else {
            return Ok(None);
        };
        let error = self.rough.tell(pool, ROUGH)?;
        let error =
            error.map(|error| format!("the plugin fails with changes of the pool: {error}"));
        Ok(error.map(|error| failed(height, &self.last, None, Some(error))))
    }

    /// The tables that depend on the pool must be the same in both: of a plugin that is told of it.
    fn compare_volatile(&mut self) -> Result<Option<Failure>> {
        let (calm, rough) = (self.calm.rows()?, self.rough.rows()?);
        for table in of_kind(&self.subject.descriptor.tables, TableKind::Volatile) {
            let (calm, rough) = (volatile_rows(&calm, table)?, volatile_rows(&rough, table)?);
            if let Some(difference) = calm.difference(&rough) {
                let difference = Some(difference);
                return Ok(Some(failed(self.height(), &self.last, difference, None)));
            }
        }
        Ok(None)
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
        if let Some(failure) = self.tell_rough(fork + branch.len() as u32)? {
            return Ok(Some(failure));
        }
        self.feeder.back(&branch, old, above)?;
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
        for table in of_kind(&self.subject.descriptor.tables, TableKind::Anchored) {
            let mut from = self.list.first;
            while from <= self.list.last() {
                let to = from.saturating_add(ROW_SPAN);
                let read = |store: &RowStore| anchored_rows(store, table, from, to);
                let difference = read(&calm)?.difference(&read(&rough)?);
                if let Some(difference) = difference {
                    return Ok(Some(failed(
                        self.height(),
                        &self.last,
                        Some(difference),
                        None,
                    )));
                }
                from = to;
            }
        }
        Ok(None)
    }

    /// Asks both the queries, and notes the answers of the undisturbed one.
    fn ask(&mut self, queries: &[Question]) -> Result<(Vec<AskedQuery>, Option<Failure>)> {
        let mut asked = Vec::new();
        for Question { text, path, params } in queries {
            let answer = self.calm.ask(path, params)?;
            let rough = self.rough.ask(path, params)?;
            if let Answer::Failed(error) = &answer {
                bail!("the query {text} fails: {error}");
            }
            if answer != rough {
                let error = format!(
                    "the query {text} is answered differently\nundisturbed: {}\ndisturbed:   {}",
                    answer.shown(),
                    rough.shown()
                );
                let failure = failed(self.height(), &self.last, None, Some(error));
                return Ok((asked, Some(failure)));
            }
            self.golden.query(text, &answer.shown());
            asked.push(match answer {
                Answer::Json(json) => AskedQuery {
                    query: text.clone(),
                    answer: Some(serde_json::from_str(&json).unwrap_or(json.into())),
                    refused: None,
                },
                Answer::Refused(why) | Answer::Failed(why) => AskedQuery {
                    query: text.clone(),
                    answer: None,
                    refused: Some(why),
                },
            });
        }
        Ok((asked, None))
    }

    /// What the undisturbed plugin's volatile tables hold.
    fn volatile(&mut self) -> Result<Vec<TableFigures>> {
        let mut figures = Vec::new();
        if self.feeder.pool().is_none() {
            return Ok(figures);
        }
        let store = self.calm.rows()?;
        for table in of_kind(&self.subject.descriptor.tables, TableKind::Volatile) {
            for writes in &volatile_rows(&store, table)?.rows {
                let (rows, sha256) = sum(writes);
                self.golden.rows(&writes.table, rows, &sha256);
                figures.push(TableFigures {
                    table: table.name.clone(),
                    rows,
                    sha256,
                });
            }
        }
        Ok(figures)
    }

    fn finish(mut self, queries: &[Question]) -> Result<(TestReport, Golden)> {
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
        if self.failure.is_none() {
            self.failure = match self.tell_rough(self.height())? {
                None => self.compare_volatile()?,
                failure => failure,
            };
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
        let volatile = self.volatile()?;
        let (mut asked, mut failure) = (Vec::new(), None);
        if self.failure.is_none() {
            (asked, failure) = self.ask(queries)?;
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
            pool: self.feeder.pool().map(|pool| pool.figures),
            no_pool: self.no_pool,
            pool_time_max: micros(self.pool_time),
            volatile,
            queries: asked,
            disturbances: self.disturbances,
            failure: self.failure.or(failure),
        };
        Ok((report, self.golden))
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
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

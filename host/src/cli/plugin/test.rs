//! `blockmill plugin test`: a plugin in the production runtime, without a host.

use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use clap::Args;
use serde::Serialize;

use super::source::{BlockArgs, SettingArgs, plugin_file};
use super::{field, size, time};
use crate::offline::{self, Golden, Question, Subject, TestOptions, TestReport, golden_difference};
use crate::plugin::PluginEngine;

#[derive(Args, Debug)]
pub(in crate::cli) struct Test {
    /// The plugin file, or the folder of its source, which is built first
    #[arg(value_name = "FILE|PATH")]
    path: PathBuf,
    #[command(flatten)]
    blocks: BlockArgs,
    #[command(flatten)]
    settings: SettingArgs,
    /// Take blocks back too, with others in their place for a while
    #[arg(long)]
    reorg: bool,
    /// Tell a plugin that asks for the memory pool nothing of it: for one whose state learns from the pool
    #[arg(long)]
    no_mempool: bool,
    /// Ask this in the end, beside what queries.txt in the plugin's folder asks; may be given several times
    #[arg(long = "query", value_name = "PATH[=JSON]", value_parser = query)]
    queries: Vec<Question>,
    /// Compare what the plugin leaves with this text; it is written when it does not exist
    #[arg(long, value_name = "FILE")]
    golden: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Answer<'a> {
    #[serde(flatten)]
    report: &'a TestReport,
    /// "the same", "written", or where the texts part.
    #[serde(skip_serializing_if = "Option::is_none")]
    golden: Option<&'a str>,
}

/// The file in a plugin's folder that has queries, one a line.
const QUERIES: &str = "queries.txt";

fn query(text: &str) -> Result<Question, String> {
    Question::parse(text).map_err(|error| error.to_string())
}

/// Characters of an answer that are printed; JSON and the golden file have all of them.
const SHOWN: usize = 160;

/// What came of the golden file.
enum Compared {
    Same,
    Written,
    Differs(String),
}

impl Test {
    pub(super) fn run(&self, out: &mut dyn Write) -> Result<()> {
        let queries = self.queries()?;
        let file = plugin_file(&self.path)?;
        let list = self.blocks.list()?;
        let engine = Arc::new(PluginEngine::new()?);
        let subject = Subject::load(&engine, &file, self.settings.settings()?)?;
        let options = TestOptions {
            reorg: self.reorg,
            no_pool: self.no_mempool,
            queries,
        };
        let (report, golden) = offline::test(&engine, subject, &list, options, |_| {})?;
        // A plugin that fails its test is nothing to be compared with later.
        let golden = match (&self.golden, &report.failure) {
            (Some(path), None) => Some(compare(path, golden.text())?),
            _ => None,
        };
        if self.json {
            let golden = golden.as_ref().map(|golden| match golden {
                Compared::Same => "the same",
                Compared::Written => "written",
                Compared::Differs(where_) => where_,
            });
            let answer = Answer {
                report: &report,
                golden,
            };
            super::super::line(out, &serde_json::to_string(&answer)?)?;
        } else {
            print(out, &report)?;
            match (&golden, &self.golden) {
                (Some(Compared::Same), Some(path)) => {
                    field(out, "golden", format!("{}: the same", path.display()))?;
                }
                (Some(Compared::Written), Some(path)) => {
                    field(
                        out,
                        "golden",
                        format!("{} did not exist and was written", path.display()),
                    )?;
                }
                (Some(Compared::Differs(lines)), Some(path)) => {
                    field(
                        out,
                        "golden",
                        format!("{} differs (- there, + now) {lines}", path.display()),
                    )?;
                }
                _ => {}
            }
        }
        if let Some(failure) = &report.failure {
            // A state that learns from the pool is no function of the blocks.
            let pool = match report.pool {
                Some(_) => ", or learns from the memory pool (--no-mempool tests it without)",
                None => "",
            };
            bail!(
                "{} does not leave the same after {}: it keeps something outside of its state, or answers by chance{pool}",
                report.plugin,
                failure.after
            );
        }
        if let (Some(Compared::Differs(_)), Some(path)) = (&golden, &self.golden) {
            bail!(
                "{} leaves something else than {} says; remove the file to have it written anew",
                report.plugin,
                path.display()
            );
        }
        Ok(())
    }
}

impl Test {
    /// Those of the plugin's folder, then those of the command line.
    fn queries(&self) -> Result<Vec<Question>> {
        let file = self.path.join(QUERIES);
        let mut queries = match std::fs::read_to_string(&file) {
            _ if !self.path.is_dir() => Vec::new(),
            Ok(text) => Question::parse_file(&text)
                .with_context(|| format!("{} cannot be used", file.display()))?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
            Err(error) => {
                return Err(error).with_context(|| format!("failed to read {}", file.display()));
            }
        };
        queries.extend(self.queries.iter().cloned());
        Ok(queries)
    }
}

fn compare(path: &PathBuf, text: &str) -> Result<Compared> {
    match std::fs::read(path) {
        Ok(bytes) => Ok(
            match std::str::from_utf8(&bytes)
                .ok()
                .filter(|text| Golden::is_one(text))
            {
                None => bail!(
                    "{} is no golden file: this command did not write it; remove it, or name another",
                    path.display()
                ),
                Some(expected) => match golden_difference(expected, text) {
                    None => Compared::Same,
                    Some(difference) => Compared::Differs(difference),
                },
            },
        ),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            std::fs::write(path, text)
                .with_context(|| format!("failed to write the golden file {}", path.display()))?;
            Ok(Compared::Written)
        }
        Err(error) => {
            Err(error).with_context(|| format!("failed to read the golden file {}", path.display()))
        }
    }
}

/// The beginning of an answer that is long.
fn short(text: &str) -> String {
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{} …", text.get(..end).unwrap_or_default()),
        None => text.to_owned(),
    }
}

fn print(out: &mut dyn Write, report: &TestReport) -> Result<()> {
    let blocks = u64::from(report.last - report.first) + 1;
    field(
        out,
        "plugin",
        format!(
            "{} {}, {}",
            report.plugin,
            report.version,
            size(report.size)
        ),
    )?;
    field(
        out,
        "blocks",
        format!(
            "{}: {} {} to {}, {blocks} in all",
            report.blocks, report.network, report.first, report.last
        ),
    )?;
    field(
        out,
        "state",
        format!("{} keys, {}", report.state_keys, size(report.state_bytes)),
    )?;
    if report.tables.is_empty() {
        field(out, "rows", "no table of blocks")?;
    }
    for table in &report.tables {
        field(out, "rows", format!("{} in {}", table.rows, table.table))?;
    }
    if let Some(pool) = &report.pool {
        field(
            out,
            "mempool",
            format!(
                "{} transactions came before their block, {} rivals were pushed out; {} there now; longest call {}",
                pool.arrived,
                pool.rivals,
                pool.left,
                time(report.pool_time_max)
            ),
        )?;
    }
    if let Some(why) = report.no_pool {
        field(out, "mempool", format!("nothing was told of it: {why}"))?;
    }
    for table in &report.volatile {
        let (rows, name) = (table.rows, &table.table);
        field(out, "rows", format!("{rows} in {name}, of the pool"))?;
    }
    let share = report.block_time_max as f64 * 100.0 / report.block_time_limit.max(1) as f64;
    field(
        out,
        "block time",
        format!(
            "median {}, longest {} (block {}): {share:.2} % of the {} that it may take",
            time(report.block_time_median),
            time(report.block_time_max),
            report.block_time_max_height,
            time(report.block_time_limit)
        ),
    )?;
    field(
        out,
        "wasm time",
        format!(
            "{} in all, {:.0} blocks/s",
            time(report.time),
            blocks as f64 * 1e6 / report.time.max(1) as f64
        ),
    )?;
    let share = report.memory as f64 * 100.0 / report.memory_limit.max(1) as f64;
    field(
        out,
        "memory",
        format!(
            "{}: {share:.1} % of {}",
            size(report.memory),
            size(report.memory_limit)
        ),
    )?;
    for asked in &report.queries {
        let answer = match (&asked.answer, &asked.refused) {
            (Some(answer), _) => answer.to_string(),
            (None, refused) => format!("refused: {}", refused.as_deref().unwrap_or_default()),
        };
        field(out, "query", format!("{}: {}", asked.query, short(&answer)))?;
    }
    field(out, "disturbed", report.disturbances)?;
    match &report.failure {
        None => field(out, "", "each left the same state and rows"),
        Some(failure) => {
            write!(out, "\nNOT THE SAME {failure}")?;
            Ok(())
        }
    }
}

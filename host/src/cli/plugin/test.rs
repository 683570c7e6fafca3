//! `blockmill plugin test`: a plugin in the production runtime, without a host.

use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use clap::Args;
use serde::Serialize;

use super::source::{BlockArgs, SettingArgs, plugin_file};
use super::{field, size, time};
use crate::offline::{self, Subject, TestOptions, TestReport, golden_difference};
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

/// What came of the golden file.
enum Compared {
    Same,
    Written,
    Differs(String),
}

impl Test {
    pub(super) fn run(&self, out: &mut dyn Write) -> Result<()> {
        let file = plugin_file(&self.path)?;
        let list = self.blocks.list()?;
        let engine = Arc::new(PluginEngine::new()?);
        let subject = Subject::load(&engine, &file, self.settings.settings()?)?;
        let options = TestOptions { reorg: self.reorg };
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
            bail!(
                "{} does not leave the same after {}: it keeps something outside of its state, or answers by chance",
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

fn compare(path: &PathBuf, text: &str) -> Result<Compared> {
    match std::fs::read_to_string(path) {
        Ok(expected) => Ok(match golden_difference(&expected, text) {
            None => Compared::Same,
            Some(difference) => Compared::Differs(difference),
        }),
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
    field(out, "disturbed", report.disturbances)?;
    match &report.failure {
        None => field(out, "", "each left the same state and rows"),
        Some(failure) => {
            write!(out, "\nNOT THE SAME {failure}")?;
            Ok(())
        }
    }
}

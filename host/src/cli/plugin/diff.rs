//! `blockmill plugin diff`: two plugins side by side.

use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Result, bail};
use clap::Args;

use super::field;
use super::source::{BlockArgs, SettingArgs, plugin_file};
use crate::offline::{self, Subject};
use crate::plugin::PluginEngine;

#[derive(Args, Debug)]
pub(in crate::cli) struct Diff {
    /// A plugin file, or the folder of its source, which is built first
    #[arg(value_name = "A.wasm")]
    first: PathBuf,
    /// The other one
    #[arg(value_name = "B.wasm")]
    second: PathBuf,
    #[command(flatten)]
    blocks: BlockArgs,
    #[command(flatten)]
    settings: SettingArgs,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl Diff {
    pub(super) fn run(&self, out: &mut dyn Write) -> Result<()> {
        let files = [plugin_file(&self.first)?, plugin_file(&self.second)?];
        let list = self.blocks.list()?;
        let engine = Arc::new(PluginEngine::new()?);
        let settings = self.settings.settings()?;
        let [first, second] = files.map(|file| Subject::load(&engine, &file, settings.clone()));
        let report = offline::diff(&engine, first?, second?, &list, |_| {})?;
        if self.json {
            super::super::line(out, &serde_json::to_string(&report)?)?;
        } else {
            for line in &report.descriptions {
                field(out, "described", line)?;
            }
            match &report.difference {
                None => field(
                    out,
                    "the same",
                    format!(
                        "state and rows of {} blocks ({})",
                        report.compared, report.blocks
                    ),
                )?,
                Some(found) => {
                    let (first, second) = match report.first == report.second {
                        true => ("first", "second"),
                        false => (report.first.as_str(), report.second.as_str()),
                    };
                    field(out, "differ at", found)?;
                    write!(out, "{}", found.difference.named(first, second))?;
                }
            }
        }
        match report.difference {
            Some(found) => bail!(
                "they differ at {found}, after {} blocks that do not",
                report.compared
            ),
            None => Ok(()),
        }
    }
}

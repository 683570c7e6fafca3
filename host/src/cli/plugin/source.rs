//! Which blocks and which settings a command takes.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::Args;
use serde_json::{Map, Value};

use crate::offline::BlockList;

/// Blocks that are made when none are asked for.
const DEFAULT_DEVNET: u32 = 40;
/// The most that are made: they are all held in memory.
const MAX_DEVNET: u32 = 10_000;

/// Which blocks.
#[derive(Args, Debug)]
pub(super) struct BlockArgs {
    /// Blocks framed as in Bitcoin Core's blk*.dat, of any network
    #[arg(long, value_name = "FILE", conflicts_with = "devnet")]
    blocks: Option<PathBuf>,
    /// So many made-up regtest blocks full of payments, after the 100 in which the first coins ripen [default: 40]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(..=i64::from(MAX_DEVNET)))]
    devnet: Option<u32>,
}

impl BlockArgs {
    pub(super) fn list(&self) -> Result<BlockList> {
        match &self.blocks {
            Some(file) => BlockList::read(file),
            None => BlockList::devnet(self.devnet.unwrap_or(DEFAULT_DEVNET)),
        }
    }
}

/// What the plugin is told.
#[derive(Args, Debug)]
pub(super) struct SettingArgs {
    /// A setting of the plugin, its value as in TOML; may be given several times
    #[arg(long = "set", value_name = "KEY=VALUE", value_parser = setting)]
    set: Vec<(String, Value)>,
    /// Settings in a TOML file, as they stand below [plugins.NAME.settings]
    #[arg(long, value_name = "FILE")]
    settings: Option<PathBuf>,
}

impl SettingArgs {
    pub(super) fn settings(&self) -> Result<Map<String, Value>> {
        let mut settings = match &self.settings {
            Some(file) => read(file)?,
            None => Map::new(),
        };
        settings.extend(self.set.iter().cloned());
        Ok(settings)
    }
}

fn read(file: &Path) -> Result<Map<String, Value>> {
    let text = std::fs::read_to_string(file)
        .with_context(|| format!("failed to read the settings in {}", file.display()))?;
    toml::from_str(&text)
        .with_context(|| format!("failed to read the settings in {}", file.display()))
}

fn setting(text: &str) -> Result<(String, Value), String> {
    let Some((key, value)) = text.split_once('=').filter(|(key, _)| !key.is_empty()) else {
        return Err("a setting is written key=value, such as from_sat=1000".to_owned());
    };
    // What is no TOML value is text without its quotes.
    let parsed: Option<Map<String, Value>> = toml::from_str(&format!("value = {value}")).ok();
    let value = parsed
        .and_then(|mut table| table.remove("value"))
        .unwrap_or_else(|| Value::String(value.to_owned()));
    Ok((key.trim().to_owned(), value))
}

/// The plugin file that a path means: the file itself, or what a folder's source compiles to.
pub(super) fn plugin_file(path: &Path) -> Result<PathBuf> {
    if path.is_dir() {
        return Ok(super::build::build(path)?.file);
    }
    if !path.exists() {
        bail!("there is no plugin at {}", path.display());
    }
    Ok(path.to_owned())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

    use super::*;
    use serde_json::json;

    #[test]
    fn a_setting_is_a_toml_value_or_text() {
        for (text, key, value) in [
            ("from=10", "from", json!(10)),
            ("on=true", "on", json!(true)),
            ("a=[1, 2]", "a", json!([1, 2])),
            ("a=\"x y\"", "a", json!("x y")),
            ("a=bc1qxyz", "a", json!("bc1qxyz")),
            ("a=x=y", "a", json!("x=y")),
            ("a={ b = 1 }", "a", json!({ "b": 1 })),
        ] {
            assert_eq!(setting(text).unwrap(), (key.to_owned(), value), "{text}");
        }
        assert!(setting("nothing").is_err());
        assert!(setting("=1").is_err());
    }
}

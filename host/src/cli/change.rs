//! The commands that change the plugins of a running host, and the configuration with them.

use std::{io::Write, path::Path};

use anyhow::{Context, Result, bail, ensure};
use clap::Subcommand;
use toml_edit::{DocumentMut, Item, Table, value};

use super::client::{self, Client, Unanswered};
use super::{ConfigArgs, line};
use crate::api::OwnerToken;
use crate::config::Config;

#[derive(Debug, Subcommand)]
pub(super) enum ChangeCommand {
    /// Switch a plugin on, in the configuration and in the host
    #[command(
        long_about = "Set plugins.NAME.enabled = true in the configuration file, whose comments stay. A running host starts the \
                      plugin at once; it takes in blocks at its own pace while the others follow the tip.",
        after_help = "Example:\n  blockmill plugin enable block-stats"
    )]
    Enable {
        #[command(flatten)]
        config: ConfigArgs,
        /// The plugin's name
        name: String,
    },
    /// Switch a plugin off, in the configuration and in the host; its data stay
    #[command(
        long_about = "Set plugins.NAME.enabled = false in the configuration file, whose comments stay. A running host ends the \
                      plugin at once and keeps its data: `plugin purge` removes them.",
        after_help = "Example:\n  blockmill plugin disable block-stats"
    )]
    Disable {
        #[command(flatten)]
        config: ConfigArgs,
        /// The plugin's name
        name: String,
    },
    /// Take a plugin's file as it is now
    #[command(
        long_about = "Take a plugin's file as it is now, also when it was taken back before. The host does so by itself when the \
                      file changes: the new component is tried on the last blocks and takes over between two blocks.",
        after_help = "Example:\n  blockmill plugin reload tx-writer"
    )]
    Reload {
        #[command(flatten)]
        config: ConfigArgs,
        /// The plugin's name
        name: String,
    },
    /// Go back to the component that ran before
    #[command(
        long_about = "Go back to the component that ran before the last change, and to its state when it is of another state \
                      version. The file that is there now is set aside until it changes, or until `plugin reload`.",
        after_help = "Example:\n  blockmill plugin revert tx-writer"
    )]
    Revert {
        #[command(flatten)]
        config: ConfigArgs,
        /// The plugin's name
        name: String,
    },
    /// Try a plugin that failed again, at once
    #[command(
        long_about = "Try the block on which a plugin failed again, at once and on a fresh instance.",
        after_help = "Example:\n  blockmill plugin retry tx-writer"
    )]
    Retry {
        #[command(flatten)]
        config: ConfigArgs,
        /// The plugin's name
        name: String,
    },
    /// Make a plugin's data anew from the first block
    #[command(
        long_about = "Make a plugin's state and rows anew from the first block, in a second set of data, while those that are \
                      there serve. They take over when they are level with the others.",
        after_help = "Example:\n  blockmill plugin rebuild tx-writer"
    )]
    Rebuild {
        #[command(flatten)]
        config: ConfigArgs,
        /// The plugin's name
        name: String,
    },
    /// Remove the data of a plugin that is switched off
    #[command(
        long_about = "Remove state and rows of a plugin that is switched off, and give the disk back.",
        after_help = "Example:\n  blockmill plugin disable block-stats\n  blockmill plugin purge block-stats"
    )]
    Purge {
        #[command(flatten)]
        config: ConfigArgs,
        /// The plugin's name
        name: String,
    },
}

pub(super) fn execute(command: &ChangeCommand, out: &mut dyn Write) -> Result<()> {
    match command {
        ChangeCommand::Enable { config, name } => switch(config, name, true, out),
        ChangeCommand::Disable { config, name } => switch(config, name, false, out),
        ChangeCommand::Reload { config, name } => act(config, name, "reload", out),
        ChangeCommand::Revert { config, name } => act(config, name, "revert", out),
        ChangeCommand::Retry { config, name } => act(config, name, "retry", out),
        ChangeCommand::Rebuild { config, name } => act(config, name, "rebuild", out),
        ChangeCommand::Purge { config, name } => act(config, name, "purge", out),
    }
}

fn act(args: &ConfigArgs, name: &str, action: &str, out: &mut dyn Write) -> Result<()> {
    let config = args.load_client()?;
    let client = Client::of(&config)?;
    let path = format!("/api/v1/plugins/{}/{action}", client::segment(name));
    line(out, &done(&post(&client, &config, &path)?)?)
}

fn post(client: &Client, config: &Config, path: &str) -> Result<String> {
    // Whether a host runs is said before what only its owner can read.
    client.get("/api/v1/tip", &[])?;
    client.post(path, &[], &OwnerToken::read(&config.network_dir())?)
}

/// What the host says that it did.
fn done(answer: &str) -> Result<String> {
    let answer: serde_json::Value =
        serde_json::from_str(answer).context("the host's answer cannot be read")?;
    let done = answer.get("done").and_then(serde_json::Value::as_str);
    Ok(done.unwrap_or("done").to_owned())
}

fn switch(args: &ConfigArgs, name: &str, on: bool, out: &mut dyn Write) -> Result<()> {
    let config = args.load_client()?;
    let Some(file) = &config.file else {
        bail!("there is no configuration file to change: name it with --config");
    };
    let text = std::fs::read_to_string(file)
        .with_context(|| format!("failed to read {}", file.display()))?;
    let changed = edited(&text, name, on)?;
    if changed == text {
        let state = if on { "on" } else { "off" };
        line(out, &format!("{name} is switched {state} already"))?;
    } else {
        replace(file, &changed)?;
        let state = if on { "true" } else { "false" };
        line(
            out,
            &format!("{}: plugins.{name}.enabled = {state}", file.display()),
        )?;
    }
    let client = match Client::of(&config) {
        Ok(client) if config.api.enabled => client,
        _ => return Ok(()),
    };
    match post(&client, &config, "/api/v1/config/reload") {
        Ok(answer) => line(out, &done(&answer)?),
        Err(why) if why.downcast_ref::<Unanswered>().is_some() => {
            line(out, "no host runs: this holds from its next start on")
        }
        Err(why) => Err(why),
    }
}

/// The configuration with a plugin switched on or off, and everything else as it was.
fn edited(text: &str, name: &str, on: bool) -> Result<String> {
    let mut document: DocumentMut = text.parse().context("the configuration is no TOML")?;
    let plugins = document
        .entry("plugins")
        .or_insert_with(|| {
            let mut plugins = Table::new();
            plugins.set_implicit(true);
            Item::Table(plugins)
        })
        .as_table_like_mut()
        .context("[plugins] is no table")?;
    ensure!(
        on || plugins.contains_key(name),
        "no plugin {name:?} is in the configuration"
    );
    let plugin = plugins
        .entry(name)
        .or_insert_with(|| Item::Table(Table::new()))
        .as_table_like_mut()
        .with_context(|| format!("[plugins.{name}] is no table"))?;
    let said_nothing = plugin.is_empty();
    match plugin.get_mut("enabled").and_then(Item::as_value_mut) {
        Some(enabled) => {
            // The comment behind it stays.
            let decor = enabled.decor().clone();
            *enabled = on.into();
            *enabled.decor_mut() = decor;
        }
        // A plugin of the configuration is on when nothing else is said.
        None if on && !said_nothing => {}
        None => {
            plugin.insert("enabled", value(on));
        }
    }
    Ok(document.to_string())
}

/// Puts a file in the place of another, whole or not at all.
fn replace(file: &Path, text: &str) -> Result<()> {
    let file = file.canonicalize()?;
    crate::whole_file::replace(&file, text.as_bytes())
        .with_context(|| format!("failed to write {}", file.display()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

    use super::edited;

    const CONFIG: &str = "# of mine\nnetwork = \"regtest\"\n\n[plugins.watch] # the eye\nenabled = true # for now\n\n\
                          [plugins.watch.settings]\nlist = [1, 2]\n\n[plugins.other]\nfile = \"x.wasm\"\n";

    #[test]
    fn only_the_word_changes_and_comments_stay() {
        let off = edited(CONFIG, "watch", false).unwrap();
        assert_eq!(off, CONFIG.replace("true # for now", "false # for now"));
        assert_eq!(edited(&off, "watch", true).unwrap(), CONFIG);
        assert_eq!(edited(CONFIG, "watch", true).unwrap(), CONFIG);
    }

    #[test]
    fn a_plugin_that_says_nothing_is_on_and_one_that_is_not_there_is_added() {
        assert_eq!(edited(CONFIG, "other", true).unwrap(), CONFIG);
        let off = edited(CONFIG, "other", false).unwrap();
        assert!(
            off.ends_with("file = \"x.wasm\"\nenabled = false\n"),
            "{off}"
        );
        let added = edited(CONFIG, "new", true).unwrap();
        assert!(
            added.ends_with("[plugins.new]\nenabled = true\n"),
            "{added}"
        );
        let why = edited(CONFIG, "new", false).unwrap_err().to_string();
        assert!(why.contains("no plugin \"new\""), "{why}");
    }
}

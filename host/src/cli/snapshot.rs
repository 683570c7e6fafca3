//! `blockmill snapshot`: a plugin's state as a file.

use std::io::Write;
use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::Subcommand;

use super::client::{self, Client, Unanswered};
use super::{ConfigArgs, HostArgs, line};
use crate::api::OwnerToken;
use crate::config::{Config, Origin};
use crate::node;
use crate::snapshot::{Exported, Vouched};
use crate::status::Status;

#[derive(Debug, Subcommand)]
pub(super) enum SnapshotCommand {
    /// Write the state of a plugin into a file
    #[command(
        long_about = "Write the state of a plugin as of a block into a file, with hashes of it. A running host does it from a \
                      consistent view and goes on meanwhile, as its owner asks through its API; otherwise the data folder is \
                      read. Rows are not part of it.",
        after_help = "Example:\n  blockmill snapshot export utxo-tracker utxo-840000.snapshot --at 840000"
    )]
    Export {
        #[command(flatten)]
        config: ConfigArgs,
        /// The plugin's name
        plugin: String,
        /// The file to write
        file: PathBuf,
        /// As of the block of this height, at most chain.undo_depth blocks below the last; the last that is stored by default
        #[arg(long, value_name = "HEIGHT")]
        at: Option<u32>,
    },
    /// Begin a plugin with the state in a file
    #[command(
        long_about = "Begin a plugin that has no data with the state in a file. No host may run. The file must be whole, of this \
                      network, this plugin and its state version, and its block must be on the chain with the most work, as far \
                      as headers are here; what is not known yet is looked at once they come. In a fresh data folder the blocks \
                      up to that one are not downloaded. Rows begin above it.",
        after_help = "Example: the coins, checked against what a node of one's own says of that block\n  \
                      bitcoin-cli gettxoutsetinfo hash_serialized_3 840000 | jq -r .hash_serialized_3\n  \
                      blockmill snapshot import utxo-tracker utxo-840000.snapshot --expect HASH"
    )]
    Import {
        #[command(flatten)]
        config: ConfigArgs,
        #[command(flatten)]
        host: HostArgs,
        /// The plugin's name
        plugin: String,
        /// The file to read
        file: PathBuf,
        /// What it must hash to: muhash or hash_serialized_3 of the coins, as Bitcoin Core prints them, or the state hash
        #[arg(long, value_name = "HASH")]
        expect: Option<String>,
    },
}

pub(super) fn execute(command: &SnapshotCommand, out: &mut dyn Write) -> Result<()> {
    match command {
        SnapshotCommand::Export {
            config,
            plugin,
            file,
            at,
        } => {
            let config = config.load_client()?;
            let file = std::path::absolute(file).context("failed to find the working directory")?;
            let exported = match running(&config)? {
                Some(client) => ask(&client, &config, plugin, &file, *at)?,
                None => node::export_offline(&config, plugin, &file, *at)
                    .with_context(|| format!("failed to export {plugin}"))?,
            };
            line(out, &format!("height             {}", exported.height))?;
            line(out, &format!("block              {}", exported.block))?;
            line(out, &format!("entries            {}", exported.entries))?;
            line(out, &format!("state_hash         {}", exported.state_hash))?;
            if let Some(hash) = &exported.hash_serialized_3 {
                line(out, &format!("hash_serialized_3  {hash}"))?;
            }
            line(out, &format!("bytes              {}", exported.bytes))
        }
        SnapshotCommand::Import {
            config,
            host,
            plugin,
            file,
            expect,
        } => {
            let config = config.load(host)?;
            let expect = expect.as_deref().map(str::to_lowercase);
            let report = node::import(&config, plugin, file, expect.as_deref())?;
            let imported = &report.imported;
            let header = &imported.header;
            line(out, &format!("height             {}", header.cursor.height))?;
            line(out, &format!("block              {}", imported.block()))?;
            line(out, &format!("entries            {}", header.entries))?;
            if let (Some(muhash), Some(serialized)) =
                (&imported.muhash, &imported.hash_serialized_3)
            {
                line(out, &format!("muhash             {muhash}"))?;
                line(out, &format!("hash_serialized_3  {serialized}"))?;
            }
            let vouched = match imported.vouched {
                Vouched::Expected => "the hash is the one that was given",
                Vouched::BuiltIn => "the hash is the one that is built in for this block",
                Vouched::Nobody => {
                    "nobody but the file says that this is the state of the chain: give --expect to be sure"
                }
            };
            line(out, vouched)?;
            if !report.on_chain {
                line(
                    out,
                    "the block is not among the headers here: it is looked for as soon as they come",
                )?;
            }
            if report.tables {
                line(
                    out,
                    "the plugin's rows are not in the file: its tables begin above this block",
                )?;
            }
            Ok(())
        }
    }
}

/// The running host of the network, if there is one.
fn running(config: &Config) -> Result<Option<Client>> {
    if !config.api.enabled {
        return Ok(None);
    }
    let client = Client::of(config)?;
    match client.get("/api/v1/status", &[]) {
        Ok(text) => {
            let status: Status = super::parse(&client, &text)?;
            let ours = status.network == config.network.name()
                || config.origin("network") == Origin::Default;
            Ok(ours.then_some(client))
        }
        Err(why) if why.downcast_ref::<Unanswered>().is_some() => Ok(None),
        Err(why) => Err(why),
    }
}

fn ask(
    client: &Client,
    config: &Config,
    plugin: &str,
    file: &std::path::Path,
    at: Option<u32>,
) -> Result<Exported> {
    let file = file.to_str().context("the file's name is not UTF-8")?;
    let mut params = vec![("file".to_owned(), file.to_owned())];
    params.extend(at.map(|at| ("at".to_owned(), at.to_string())));
    let path = format!("/api/v1/plugins/{}/snapshot", client::segment(plugin));
    let token = OwnerToken::read(&config.network_dir())?;
    super::parse(client, &client.post_slow(&path, &params, &token)?)
}

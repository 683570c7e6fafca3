//! The commands about the peers of a running host.

use std::io::Write;

use anyhow::{Context, Result};
use clap::{Args, Subcommand};

use super::client::Client;
use super::{ConfigArgs, line, parse, table};
use crate::api::OwnerToken;
use crate::status::Peers;

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(super) struct PeersArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// Print the JSON of GET /api/v1/peers
    #[arg(long)]
    json: bool,
    #[command(subcommand)]
    command: Option<PeersCommand>,
}

#[derive(Debug, Subcommand)]
enum PeersCommand {
    /// Ban an address or a range, and close its connections
    #[command(
        long_about = "Ban an IP address or a range of them: it may not connect and is not connected to, and its connections are \
                      closed. The ban is kept over a restart. Peers that the configuration names cannot be banned.",
        after_help = "Example:\n  blockmill peers ban 192.0.2.7 --for 2h\n  \
                      blockmill peers ban 192.0.2.0/24 --for ever --reason spam"
    )]
    Ban {
        #[command(flatten)]
        config: ConfigArgs,
        /// An IP address, or a range such as 192.0.2.0/24 or 2001:db8::/32
        address: String,
        /// How long: a duration such as 2h, or `ever`
        #[arg(long = "for", value_name = "TIME", default_value = "24h")]
        time: String,
        /// Why; shown with the ban
        #[arg(long, value_name = "TEXT")]
        reason: Option<String>,
    },
    /// Lift a ban
    #[command(
        long_about = "Lift the ban of an IP address or of a range, as `peers` shows it, and forgive its offences.",
        after_help = "Example:\n  blockmill peers unban 192.0.2.0/24"
    )]
    Unban {
        #[command(flatten)]
        config: ConfigArgs,
        /// The address or range
        address: String,
    },
    /// Connect to a peer and keep connected to it
    #[command(
        long_about = "Connect to a peer, and again whenever it is lost, until the host ends. The key peers.add keeps one for good.",
        after_help = "Example:\n  blockmill peers add 192.0.2.7:8333"
    )]
    Add {
        #[command(flatten)]
        config: ConfigArgs,
        /// host:port, or host with the network's own port
        address: String,
    },
    /// Close a connection
    #[command(
        long_about = "Close the connection to a peer. One that was added is not connected to again, one that the configuration \
                      names is, after a pause.",
        after_help = "Example:\n  blockmill peers drop 192.0.2.7:8333\n  blockmill peers drop 12"
    )]
    Drop {
        #[command(flatten)]
        config: ConfigArgs,
        /// The peer's address with its port, or the connection's number
        peer: String,
    },
}

pub(super) fn execute(args: &PeersArgs, out: &mut dyn Write) -> Result<()> {
    let (config, word, mut params) = match &args.command {
        None => {
            let client = Client::of(&args.config.load_client()?)?;
            let text = client.get("/api/v1/peers", &[])?;
            let peers: Peers = parse(&client, &text)?;
            return match args.json {
                true => line(out, &text),
                false => table::peers(out, &peers),
            };
        }
        Some(PeersCommand::Ban {
            config,
            address,
            time,
            reason,
        }) => {
            let mut params = vec![("address", address), ("for", time)];
            params.extend(reason.as_ref().map(|reason| ("reason", reason)));
            (config, "ban", params)
        }
        Some(PeersCommand::Unban { config, address }) => {
            (config, "unban", vec![("address", address)])
        }
        Some(PeersCommand::Add { config, address }) => (config, "add", vec![("address", address)]),
        Some(PeersCommand::Drop { config, peer }) => (config, "drop", vec![("address", peer)]),
    };
    let params: Vec<(String, String)> = params
        .drain(..)
        .map(|(name, value)| (name.to_owned(), value.clone()))
        .collect();
    let config = config.load_client()?;
    let client = Client::of(&config)?;
    // Whether a host runs is said before what only its owner can read.
    client.get("/api/v1/tip", &[])?;
    let token = OwnerToken::read(&config.network_dir())?;
    let answer = client.post(&format!("/api/v1/peers/{word}"), &params, &token)?;
    let answer: serde_json::Value =
        serde_json::from_str(&answer).context("the host's answer cannot be read")?;
    let done = answer.get("done").and_then(serde_json::Value::as_str);
    line(out, done.unwrap_or("done"))
}

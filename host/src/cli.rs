//! The command line.

mod change;
mod client;
mod peers;
mod plugin;
mod replay;
mod snapshot;
mod table;

use std::{
    io::{self, Write},
    path::PathBuf,
    process::ExitCode,
    sync::Arc,
};

use anyhow::{Context, Result};
use clap::{Args, Parser, Subcommand};

use self::client::{Client, Unanswered};
use crate::{
    api::OwnerToken,
    config::{Config, ConfigError, Origin, Overrides},
    logging,
    progress::Progress,
    status::{Plugin, Status, TxOutSet},
};

/// Exit code for a wrong configuration, as clap's own for wrong usage.
const WRONG_USAGE: u8 = 2;

/// What the commands call: the host itself.
#[derive(Clone, Copy, Debug)]
pub struct Hooks {
    /// `run`: the host, until a signal or the height that was asked for. The log is started before.
    pub run: fn(Config, RunOptions) -> Result<()>,
    /// `check`: loads every enabled plugin, touches nothing, starts nothing. The configuration and the presence of the plugin
    /// files were checked before.
    pub check: fn(&Config) -> Result<Vec<CheckedPlugin>>,
    /// `txoutset` of a host that does not run: reads the data folder.
    pub txoutset_offline: fn(&Config) -> Result<TxOutSet>,
}

/// Reads the configuration again, from where it was read first.
pub type ConfigSource = Arc<dyn Fn() -> Result<Config, ConfigError> + Send + Sync>;

/// How the host is to run, beside its configuration.
#[derive(Clone)]
pub struct RunOptions {
    /// The configuration as it is now.
    pub source: ConfigSource,
    /// End with exit code 0 once every plugin has this block and it is on the disk.
    pub stop_at_height: Option<u32>,
    /// Where the sync shows how far it is.
    pub progress: Progress,
}

/// A plugin that could be loaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckedPlugin {
    /// Its name.
    pub name: String,
    /// Its own version.
    pub version: String,
    /// Hash of its file, hexadecimal.
    pub sha256: String,
    /// One line on what it does.
    pub description: String,
}

#[derive(Debug, Parser)]
#[command(
    name = "blockmill",
    version,
    about = "Feeds every Bitcoin block, transaction and mempool change to sandboxed WebAssembly plugins",
    long_about = "Blockmill speaks the Bitcoin peer-to-peer protocol, checks what it hears, and feeds every block, transaction \
                  and mempool change to WebAssembly plugins, whose state and rows can be queried.",
    after_help = "Exit code: 0 success, 1 failure, 2 wrong usage or configuration.\n\n\
                  Example: follow mainnet with the plugins in ~/.blockmill/plugins\n  blockmill run --config config/blockmill.toml"
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the host until Ctrl-C or SIGTERM
    #[command(
        long_about = "Run the host: connect to peers, take in blocks and transactions, feed the plugins and serve the API. \
                      Ctrl-C or SIGTERM ends it with everything stored; a second one ends it at once.",
        after_help = "Example: follow a regtest node of one's own\n  \
                      blockmill run --network regtest --connect 127.0.0.1:18444"
    )]
    Run {
        #[command(flatten)]
        config: ConfigArgs,
        #[command(flatten)]
        host: HostArgs,
        /// End with exit code 0 once every plugin has the block of this height
        #[arg(long, value_name = "N")]
        stop_at_height: Option<u32>,
    },
    /// Check the configuration and the plugins, start nothing
    #[command(
        long_about = "Check that the configuration is right and that every enabled plugin can be loaded. Nothing is started and \
                      nothing is written.",
        after_help = "Example:\n  blockmill check --config config/blockmill.toml"
    )]
    Check {
        #[command(flatten)]
        config: ConfigArgs,
        #[command(flatten)]
        host: HostArgs,
    },
    /// Show what a running host is doing
    #[command(
        long_about = "Show what a running host is doing: tip, peers, mempool and plugins. It is asked through its API.",
        after_help = "Example:\n  blockmill status --json | jq .tip.height"
    )]
    Status {
        #[command(flatten)]
        config: ConfigArgs,
        /// Print the JSON of GET /api/v1/status
        #[arg(long)]
        json: bool,
    },
    /// Show size and hashes of the set of unspent outputs
    #[command(
        long_about = "Show height, bestblock, txouts, total_sats, muhash and hash_serialized_3 of the set of unspent outputs, \
                      as Bitcoin Core's gettxoutsetinfo computes them. A running host is asked through its API and goes on \
                      meanwhile; otherwise the data folder is read.",
        after_help = "Example: compare with a node\n  blockmill txoutset --json | jq -r .muhash\n  \
                      bitcoin-cli gettxoutsetinfo muhash | jq -r .muhash"
    )]
    Txoutset {
        #[command(flatten)]
        config: ConfigArgs,
        /// Print the JSON of GET /api/v1/txoutset
        #[arg(long)]
        json: bool,
    },
    /// Write a plugin's state into a file, or begin a plugin with one
    #[command(
        long_about = "Write the state of a plugin as of a block into a file, or begin a plugin that has no data with the state in \
                      such a file.",
        after_help = "Example:\n  blockmill snapshot export utxo-tracker utxo.snapshot"
    )]
    Snapshot {
        #[command(subcommand)]
        command: snapshot::SnapshotCommand,
    },
    /// Show peers and bans of a running host; ban, unban, add and drop peers
    #[command(
        long_about = "Show the peers of a running host with what they are for and what they did, the bans that hold, and how \
                      many addresses are known; or ban, unban, add and drop peers, as the host's owner.",
        after_help = "Example:\n  blockmill peers --json | jq '.peers[] | {addr, kind, ping_ms}'"
    )]
    Peers(peers::PeersArgs),
    /// Write, test and compare plugins; list, ask and change those of a running host
    #[command(
        long_about = "Begin, build, test, inspect and compare plugins, for which no host need run; or list the plugins of a \
                      running host, ask one of them, switch them, replace them and go back, through the host's API.",
        after_help = "Example:\n  blockmill plugin list"
    )]
    Plugin {
        #[command(subcommand)]
        command: PluginCommand,
    },
}

#[derive(Debug, Subcommand)]
enum PluginCommand {
    #[command(flatten)]
    Offline(plugin::OfflineCommand),
    /// Show name, version, hash, state, height, lag and last error of each plugin
    #[command(
        long_about = "Show name, version, sha256, state, height, lag and last error of each plugin of a running host.",
        after_help = "Example:\n  blockmill plugin list --json | jq '.[] | {name, lag}'"
    )]
    List {
        #[command(flatten)]
        config: ConfigArgs,
        /// Print the JSON of GET /api/v1/plugins
        #[arg(long)]
        json: bool,
    },
    #[command(flatten)]
    Change(change::ChangeCommand),
    /// Run a failed call again from its capsule, without the host
    #[command(
        long_about = "Run the call of a capsule again, in the engine and under the limits of the host, with the state that the \
                      plugin read then. Says whether it still fails. No host need run, and nothing is written. Exit code: 0 when \
                      the call succeeds now, 1 when it fails.",
        after_help = "Example: does the new version take the block that the old one failed on?\n  \
                      blockmill plugin replay ~/.blockmill/mainnet/capsules/watch.820000.trap.1f2e3d4c.capsule --with watch.wasm"
    )]
    Replay {
        /// The capsule: `plugin list --json` and the log name it
        capsule: PathBuf,
        /// Another version of the plugin, instead of the one that failed
        #[arg(long, value_name = "FILE")]
        with: Option<PathBuf>,
        /// Print what came of it as JSON
        #[arg(long)]
        json: bool,
    },
    /// Ask a plugin and print its JSON
    #[command(
        long_about = "Ask a plugin of a running host. The answer is that of GET /api/v1/plugins/NAME/query/PATH?k=v.",
        after_help = "Example: a fee rate for confirmation within six blocks\n  \
                      blockmill plugin query fee-estimator estimate target=6"
    )]
    Query {
        #[command(flatten)]
        config: ConfigArgs,
        /// The plugin's name
        name: String,
        /// What it is asked for
        path: String,
        /// Parameters of the question
        #[arg(value_name = "k=v", value_parser = parameter)]
        params: Vec<(String, String)>,
        /// Ask as the host's owner: the question may change the plugin's settings
        #[arg(long)]
        change: bool,
    },
}

/// Flags that say which host, and which data.
#[derive(Args, Clone, Debug, Default)]
struct ConfigArgs {
    /// Configuration file [default: blockmill.toml in the data folder, if it is there]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// mainnet, testnet3, testnet4, signet, regtest, bsv-main, bsv-test, bsv-stn or the path of a chain file (key `network`)
    #[arg(long, value_name = "NAME")]
    network: Option<String>,
    /// Where everything is kept (key `data_dir`)
    #[arg(long, value_name = "FOLDER")]
    data_dir: Option<String>,
    /// Address of the API (key `api.listen`)
    #[arg(long, value_name = "IP:PORT")]
    api_listen: Option<String>,
}

/// Flags of the host itself.
#[derive(Args, Clone, Debug, Default)]
struct HostArgs {
    /// Connect to this peer only; may be given several times (key `peers.connect`)
    #[arg(long, value_name = "HOST:PORT")]
    connect: Vec<String>,
    /// Folder of the plugin files (key `plugins.dir`)
    #[arg(long, value_name = "FOLDER")]
    plugins_dir: Option<String>,
    /// human or json (key `log.format`)
    #[arg(long, value_name = "FORMAT")]
    log_format: Option<String>,
    /// error, warn, info, debug, trace or a filter (key `log.level`)
    #[arg(long, value_name = "LEVEL")]
    log_level: Option<String>,
}

fn parameter(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("a parameter is written name=value, such as target=6".to_owned()),
    }
}

impl ConfigArgs {
    fn load(&self, host: &HostArgs) -> Result<Config, ConfigError> {
        let mut overrides = Overrides::new();
        for (flag, key, value) in [
            ("--network", "network", &self.network),
            ("--data-dir", "data_dir", &self.data_dir),
            ("--api-listen", "api.listen", &self.api_listen),
            ("--plugins-dir", "plugins.dir", &host.plugins_dir),
            ("--log-format", "log.format", &host.log_format),
            ("--log-level", "log.level", &host.log_level),
        ] {
            if let Some(value) = value {
                overrides = overrides.set(flag, key, value.as_str());
            }
        }
        if !host.connect.is_empty() {
            let peers: Vec<&str> = host.connect.iter().map(String::as_str).collect();
            overrides = overrides.set("--connect", "peers.connect", peers);
        }
        Config::load(self.config.as_deref(), &overrides)
    }

    pub(super) fn load_client(&self) -> Result<Config, ConfigError> {
        self.load(&HostArgs::default())
    }
}

/// The whole program: parses the command line, does what it says, and prints what went wrong.
pub fn main(hooks: Hooks) -> ExitCode {
    // prints help and wrong usage by itself, with exit codes 0 and 2
    let cli = Cli::parse();
    // not locked: the host may print from other threads
    let result = execute(&cli.command, &hooks, &mut io::stdout());
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) if is_broken_pipe(&why) => ExitCode::SUCCESS,
        Err(why) => {
            eprint!("{}", report(&why));
            exit_code(&why)
        }
    }
}

fn execute(command: &Command, hooks: &Hooks, out: &mut dyn Write) -> Result<()> {
    match command {
        Command::Run {
            config,
            host,
            stop_at_height,
        } => {
            let (again, host_again) = (config.clone(), host.clone());
            let config = config.load(host)?;
            config.check_plugin_files()?;
            let progress = Progress::new();
            logging::init(&config.log, progress.bars())?;
            let options = RunOptions {
                source: Arc::new(move || again.load(&host_again)),
                stop_at_height: *stop_at_height,
                progress: progress.clone(),
            };
            let result = (hooks.run)(config, options);
            progress.finish();
            result
        }
        Command::Check { config, host } => {
            let config = config.load(host)?;
            config.check_plugin_files()?;
            let plugins = (hooks.check)(&config)?;
            table::checked(out, &config, &plugins)
        }
        Command::Status { config, json } => {
            let client = Client::of(&config.load_client()?)?;
            let text = client.get("/api/v1/status", &[])?;
            let status: Status = parse(&client, &text)?;
            if *json {
                line(out, &text)
            } else {
                table::status(out, &status)
            }
        }
        Command::Txoutset { config, json } => {
            let set = txoutset(&config.load_client()?, hooks)?;
            if *json {
                line(out, &serde_json::to_string(&set)?)
            } else {
                table::txoutset(out, &set)
            }
        }
        Command::Snapshot { command } => snapshot::execute(command, out),
        Command::Peers(args) => peers::execute(args, out),
        Command::Plugin {
            command: PluginCommand::Offline(command),
        } => plugin::execute(command, out),
        Command::Plugin {
            command: PluginCommand::List { config, json },
        } => {
            let client = Client::of(&config.load_client()?)?;
            let text = client.get("/api/v1/plugins", &[])?;
            let plugins: Vec<Plugin> = parse(&client, &text)?;
            if *json {
                line(out, &text)
            } else {
                table::plugins(out, &plugins)
            }
        }
        Command::Plugin {
            command: PluginCommand::Change(command),
        } => change::execute(command, out),
        Command::Plugin {
            command:
                PluginCommand::Replay {
                    capsule,
                    with,
                    json,
                },
        } => replay::replay(out, capsule, with.as_deref(), *json),
        Command::Plugin {
            command:
                PluginCommand::Query {
                    config,
                    name,
                    path,
                    params,
                    change,
                },
        } => {
            let config = config.load_client()?;
            let client = Client::of(&config)?;
            let path = path.trim_start_matches('/');
            let address = format!(
                "/api/v1/plugins/{}/query/{}",
                client::segment(name),
                client::path(path)
            );
            let answer = match change {
                true => client.post(&address, params, &OwnerToken::read(&config.network_dir())?)?,
                false => client.get(&address, params)?,
            };
            line(out, &answer)
        }
    }
}

/// That of the running host, or of the data folder when no host of its network runs.
fn txoutset(config: &Config, hooks: &Hooks) -> Result<TxOutSet> {
    if config.api.enabled {
        let client = Client::of(config)?;
        match client.get("/api/v1/status", &[]) {
            Ok(text) => {
                let status: Status = parse(&client, &text)?;
                // a host of another network says nothing about the data that was asked for by name
                if status.network == config.network.name()
                    || config.origin("network") == Origin::Default
                {
                    return parse(&client, &client.get_slow("/api/v1/txoutset")?);
                }
            }
            Err(why) if why.downcast_ref::<Unanswered>().is_some() => {}
            Err(why) => return Err(why),
        }
    }
    (hooks.txoutset_offline)(config).with_context(|| {
        format!(
            "failed to read the coins of {}",
            config.network_dir().display()
        )
    })
}

fn parse<T: serde::de::DeserializeOwned>(client: &Client, text: &str) -> Result<T> {
    serde_json::from_str(text).with_context(|| {
        format!(
            "what answers at {} is no blockmill of this version",
            client.address()
        )
    })
}

fn line(out: &mut dyn Write, text: &str) -> Result<()> {
    writeln!(out, "{text}")?;
    Ok(())
}

/// An error and its causes, a line each.
fn report(why: &anyhow::Error) -> String {
    let mut text = format!("error: {why}\n");
    let mut before = why.to_string();
    for cause in why.chain().skip(1).map(ToString::to_string) {
        // some errors say what their cause says
        if cause != before {
            text.push_str(&format!("because: {cause}\n"));
        }
        before = cause;
    }
    text
}

fn exit_code(why: &anyhow::Error) -> ExitCode {
    if why.chain().any(|cause| cause.is::<ConfigError>()) {
        ExitCode::from(WRONG_USAGE)
    } else {
        ExitCode::FAILURE
    }
}

/// The reader of our output went away, as `head` does: nobody is left to be told.
fn is_broken_pipe(why: &anyhow::Error) -> bool {
    why.downcast_ref::<io::Error>()
        .is_some_and(|why| why.kind() == io::ErrorKind::BrokenPipe)
}

#[cfg(test)]
mod tests;

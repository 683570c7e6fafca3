//! The host as a whole: opens what is on the disk, starts every part, watches over them, and ends them in order.

mod backend;
mod lanes;
mod manager;
mod open;
mod snapshot;
mod start;
mod watch;

pub(crate) use open::limits;
pub use snapshot::{ImportReport, export_offline, import};

use crate::cli::{CheckedPlugin, RunOptions};
use crate::config::Config;
use crate::plugin::{Instance, PluginEngine};
use crate::status::TxOutSet;
use crate::store::{DataDir, RowStore, Slot, StateStore};
use anyhow::{Context, Result, bail};

/// Runs the host until a signal, or until every plugin has the height that was asked for.
///
/// # Errors
///
/// When the configuration does not fit what is found (with [`crate::config::ConfigError`] in the chain), or a part that
/// the host cannot do without fails.
pub fn run(config: Config, options: RunOptions) -> Result<()> {
    start::run(config, options)
}

/// Loads every enabled plugin and asks it what it is. Nothing is started and nothing on the disk is touched.
///
/// # Errors
///
/// The first plugin that cannot be used, and why.
pub fn check(config: &Config) -> Result<Vec<CheckedPlugin>> {
    let engine = PluginEngine::new()?;
    let plugins = open::load_plugins(config, &engine)?;
    open::check_data_dir(config)?;
    open::source_folder(config, config.network.params())?;
    for plugin in &plugins {
        Instance::check(
            &engine,
            &plugin.compiled,
            &plugin.settings.settings,
            open::limits(&plugin.settings),
        )
        .map_err(|error| open::plugin_error(config, &plugin.settings.name, "settings", &error))?;
    }
    Ok(plugins
        .into_iter()
        .map(|plugin| CheckedPlugin {
            name: plugin.settings.name,
            version: plugin.descriptor.version,
            sha256: plugin.compiled.sha256.to_string(),
            description: plugin.descriptor.description,
        })
        .collect())
}

/// The set of unspent outputs of a host that does not run, as its last flush left it.
///
/// # Errors
///
/// When the folder holds no such data, or another host has it open.
pub fn txoutset_offline(config: &Config) -> Result<TxOutSet> {
    let folder = DataDir::open_existing(&config.network_dir(), config.network.name())?;
    let state = StateStore::open(&folder.state(), config.database.block_cache)?;
    let plugin = open::coins_lane(&folder)?;
    let note = RowStore::open(&config.database_url())?.note(&plugin)?;
    let slot = note.map_or(Slot::First, |note| note.slot);
    let Some(snapshot) = state.snapshot(&slot.lane(&plugin))? else {
        bail!("the plugin {plugin} has not stored a block yet");
    };
    txoutset(&snapshot, || true)
}

/// The set in a snapshot; `go_on` is asked now and then.
fn txoutset(
    snapshot: &crate::store::StateSnapshot,
    mut go_on: impl FnMut() -> bool,
) -> Result<TxOutSet> {
    let set = crate::store::txoutset(snapshot, |_| go_on())
        .context("failed to read the coins")?
        .context("the host is ending")?;
    Ok(TxOutSet {
        height: set.height,
        bestblock: set.bestblock.to_string(),
        txouts: set.txouts,
        total_sats: set.total_sats,
        muhash: set.muhash.to_string(),
        hash_serialized_3: set.hash_serialized_3.to_string(),
    })
}

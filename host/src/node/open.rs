//! Opening: plugins, data folder, chain. Everything that can be wrong is found here, before anything is started.

use super::manager::Components;
use crate::block_log::core_folder::{CoreFolder, FolderError};
use crate::block_log::{BlockLog, ForeignBlocks, SegmentLogOptions, SpentLog};
use crate::chain::block_stream::BlockStream;
use crate::chain::sync::Base;
use crate::chain::{BlockContext, HeaderTree, check_block};
use crate::config::{CheckStart, Config, ConfigError, EnabledPlugin, KeepBlocks};
use crate::frame::Frame;
use crate::headers_file::HeadersFile;
use crate::network::Params;
use crate::plugin::{Compiled, Descriptor, Instance, Limits, PluginEngine};
use crate::source;
use crate::store::{DataDir, RowStore, StoreError};
use crate::whole_file;
use anyhow::{Context, Result};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Names the plugin that had the role `coins` when the host last ran.
const COINS_FILE: &str = "coins-plugin";
/// Holds the height below which blocks were pruned.
const PRUNED_FILE: &str = "pruned-below";

/// Bytes of a segment of blocks, at least.
const LEAST_SEGMENT: u64 = 16 << 10;

/// A plugin that can run.
pub(super) struct LoadedPlugin {
    pub settings: EnabledPlugin,
    pub compiled: Compiled,
    pub descriptor: Descriptor,
}

/// What is wrong with a plugin, as an error about its key.
pub(super) fn plugin_error(
    config: &Config,
    name: &str,
    key: &str,
    error: &dyn std::fmt::Display,
) -> ConfigError {
    config.error(&format!("plugins.{name}.{key}"), format!("{error:#}"), "")
}

pub(crate) fn limits(plugin: &EnabledPlugin) -> Limits {
    plugin.limits
}

/// Compiles the enabled plugins and asks each what it is; checks that they fit together.
pub(super) fn load_plugins(config: &Config, engine: &PluginEngine) -> Result<Vec<LoadedPlugin>> {
    let mut plugins = Vec::new();
    for settings in config.enabled_plugins() {
        let name = settings.name.clone();
        let compiled = engine
            .load(&settings.file, settings.wasi)
            .map_err(|e| plugin_error(config, &name, "file", &e))?;
        // Before any of its code runs.
        settings
            .check_pin(&compiled.sha256.to_string())
            .map_err(|problem| {
                let hint = "put the file there that is pinned, or pin this one";
                config.error(&format!("plugins.{name}.sha256"), problem, hint)
            })?;
        let descriptor = Instance::describe(engine, &compiled)
            .map_err(|e| plugin_error(config, &name, "file", &e))?;
        if descriptor.name != name {
            let problem = format!(
                "{} is the plugin {:?}",
                settings.file.display(),
                descriptor.name
            );
            let hint = format!(
                "call the table [plugins.{}] or name another file",
                descriptor.name
            );
            return Err(config
                .error(&format!("plugins.{name}"), problem, hint)
                .into());
        }
        plugins.push(LoadedPlugin {
            settings,
            compiled,
            descriptor,
        });
    }
    let mut coins = plugins.iter().filter(|plugin| plugin.descriptor.coins);
    let first = coins.next().map(|plugin| plugin.settings.name.clone());
    if let (Some(first), Some(second)) = (&first, coins.next()) {
        let problem = format!(
            "both {first} and {} have the role \"coins\"",
            second.settings.name
        );
        let key = format!("plugins.{}.enabled", second.settings.name);
        return Err(config.error(&key, problem, "switch one of them off").into());
    }
    if first.is_none()
        && let Some(follower) = plugins
            .iter()
            .find(|plugin| plugin.descriptor.columns.spent)
    {
        let name = &follower.settings.name;
        let problem = format!(
            "{name} asks for what blocks spend, and no plugin with the role \"coins\" is on"
        );
        let hint = "switch utxo-tracker on: [plugins.utxo-tracker] enabled = true";
        return Err(config
            .error(&format!("plugins.{name}.enabled"), problem, hint)
            .into());
    }
    for (index, plugin) in plugins.iter().enumerate() {
        for table in &plugin.descriptor.tables {
            let twin = plugins.iter().take(index).find(|other| {
                other
                    .descriptor
                    .tables
                    .iter()
                    .any(|theirs| theirs.name == table.name)
            });
            if let Some(twin) = twin {
                let problem = format!(
                    "the table {} is declared by {} too",
                    table.name, twin.settings.name
                );
                let key = format!("plugins.{}.enabled", plugin.settings.name);
                return Err(config.error(&key, problem, "switch one of them off").into());
            }
        }
    }
    Ok(plugins)
}

/// The plugin with the component that it goes on with, where its file must not be used at once: a file that was taken back,
/// or one of another state version, whose data are made while the old component serves.
pub(super) fn before_change(
    mut plugin: LoadedPlugin,
    rows: &RowStore,
    components: &Components,
    engine: &PluginEngine,
) -> Result<LoadedPlugin> {
    let Some(note) = rows.note(&plugin.settings.name)? else {
        return Ok(plugin);
    };
    let set_aside = note.set_aside == Some(plugin.compiled.sha256.to_string());
    if !set_aside && note.state_version == plugin.descriptor.state_version
        || plugin.settings.check_pin(&note.sha256).is_err()
    {
        return Ok(plugin);
    }
    let kept = components
        .get(&note.sha256)
        .and_then(|bytes| engine.compile(&bytes, plugin.settings.wasi))
        .and_then(|compiled| Ok((Instance::describe(engine, &compiled)?, compiled)));
    match kept {
        Ok((descriptor, compiled)) => {
            tracing::info!(
                plugin = plugin.settings.name,
                sha256 = note.sha256,
                set_aside,
                "goes on with the component before"
            );
            plugin.descriptor = descriptor;
            plugin.compiled = compiled;
        }
        Err(error) => tracing::warn!(
            plugin = plugin.settings.name,
            error = format!("{error:#}"),
            "the component before cannot be used"
        ),
    }
    Ok(plugin)
}

/// A store's refusal of the data folder, as an error about its key.
fn data_dir_error(config: &Config, error: StoreError) -> anyhow::Error {
    let hint = match &error {
        StoreError::OtherNetwork { .. } => {
            "give another data_dir, or the network that the data are of"
        }
        StoreError::NewerVersion { .. } => {
            "use the newer blockmill that wrote it, or give another data_dir"
        }
        StoreError::Locked { .. } => "end the other blockmill, or give another data_dir",
        _ => return error.into(),
    };
    config.error("data_dir", error.to_string(), hint).into()
}

/// Says whether the data folder can be used, without making it.
pub(super) fn check_data_dir(config: &Config) -> Result<()> {
    match DataDir::open_existing(&config.network_dir(), config.network.name()) {
        Ok(_) | Err(StoreError::NoData { .. } | StoreError::Locked { .. }) => Ok(()),
        Err(error) => Err(data_dir_error(config, error)),
    }
}

/// Takes the data folder.
pub(super) fn data_dir(config: &Config, params: &Params) -> Result<DataDir> {
    let folder = DataDir::open(&config.network_dir(), config.network.name())
        .map_err(|e| data_dir_error(config, e))?;
    folder
        .bind_genesis(&params.genesis_hash.to_string())
        .map_err(|e| data_dir_error(config, e))?;
    Ok(folder)
}

/// Remembers which plugin keeps the coins, for `txoutset` of a stopped host.
pub(super) fn keep_coins_lane(folder: &DataDir, name: &str) -> Result<()> {
    let path = folder.path().join(COINS_FILE);
    std::fs::write(&path, name).with_context(|| format!("failed to write {}", path.display()))
}

/// The plugin that kept the coins when the host last ran.
pub(super) fn coins_lane(folder: &DataDir) -> Result<String> {
    std::fs::read_to_string(folder.path().join(COINS_FILE))
        .context("no plugin with the role \"coins\" has run on this data")
}

/// The chain on the disk.
pub(super) struct OpenChain {
    pub tree: HeaderTree,
    pub headers: HeadersFile,
    pub blocks: Arc<BlockLog>,
    pub spent: Arc<SpentLog>,
    /// The block of a snapshot, while the headers do not have it.
    pub base: Option<Base>,
}

/// Whole segments are pruned: where few bytes are kept, they are small.
fn segments(keep: KeepBlocks) -> SegmentLogOptions {
    let mut options = SegmentLogOptions::default();
    if let KeepBlocks::Bytes(keep) = keep {
        options.max_segment_bytes = (keep / 8).clamp(LEAST_SEGMENT, options.max_segment_bytes);
    }
    options
}

/// Looks at the folder that is the source of blocks, if there is one. Nothing on the disk is touched.
pub(super) fn source_folder(config: &Config, params: &Params) -> Result<Option<Arc<CoreFolder>>> {
    let Some(path) = config.source_path() else {
        return Ok(None);
    };
    if source::is_own(&path, &config.network_dir().join("blocks")) {
        let problem = format!(
            "{} is where this blockmill keeps its own blocks",
            path.display()
        );
        let hint = "give Bitcoin Core's block folder, such as \"~/.bitcoin/blocks\"";
        return Err(config.error("source.path", problem, hint).into());
    }
    let folder = CoreFolder::open(&path, params.magic).map_err(|error| {
        let hint = match &error {
            FolderError::OneFurther { inside, .. } => format!("give \"{}\"", inside.display()),
            FolderError::OtherNetwork { .. } => {
                "give the folder of this network, or the other network".to_owned()
            }
            FolderError::Io { .. } => {
                "let the user that blockmill runs as read the folder and its files".to_owned()
            }
            FolderError::BadKey { .. } => "xor.dat is Bitcoin Core's: 8 bytes".to_owned(),
            _ => "give the folder in which Bitcoin Core keeps blk00000.dat".to_owned(),
        };
        config.error("source.path", error.to_string(), hint)
    })?;
    Ok(Some(Arc::new(folder)))
}

/// Opens headers and blocks, and finds the chain that they make. Blocks may also lie in `source`.
pub(super) fn chain(
    config: &Config,
    params: &'static Params,
    folder: &DataDir,
    source: Option<Arc<CoreFolder>>,
) -> Result<OpenChain> {
    let dir = folder.path().join("blocks");
    let options = segments(config.chain.keep_blocks);
    let mut blocks = BlockLog::open(&dir, params.magic, options.clone())?;
    let foreign = dir.join("foreign.index");
    if source.is_some() || foreign.is_file() {
        blocks = blocks.with_foreign(ForeignBlocks::open(foreign, params.magic, source)?);
    }
    let spent = SpentLog::open(&dir, params.magic, options)?;
    let genesis = params.genesis_block.clone();
    blocks.append(&params.genesis_hash, 0, &genesis)?;

    let (mut file, kept) = HeadersFile::open(&folder.path().join("headers.dat"))?;
    let mut tree = match HeaderTree::load(params, kept.iter().copied()) {
        Ok(tree) => tree,
        Err(error) => {
            // Torn or written by a version with other rules: what comes after is asked for again.
            tracing::warn!(%error, "the headers file is kept up to a header that is not valid");
            file.cut(error.index)?;
            HeaderTree::load(params, kept.iter().take(error.index).copied())
                .map_err(|e| anyhow::anyhow!("the headers file cannot be used: {e}"))?
        }
    };
    let mut base = super::snapshot::base(folder.path())?;
    if let Some(block) = base
        && tree.best_hash_at(block.height) == Some(block.hash)
        && tree.best_work() >= params.minimum_chain_work
    {
        tree.mark_checked_through(&block.hash);
        base = None;
    }
    let pruned = pruned_below(folder);
    for header in &kept {
        let hash = header.block_hash();
        if !blocks.was_checked(&hash) {
            continue;
        }
        // Blocks below were checked once, and pruned.
        if pruned.is_some_and(|lowest| tree.height_of(&hash) == Some(lowest)) {
            tree.mark_checked_through(&hash);
        }
        tree.mark_checked(&hash);
    }
    check_blocks(config.chain.check_start, params, &blocks, &mut tree);
    Ok(OpenChain {
        tree,
        headers: file,
        blocks: Arc::new(blocks),
        spent: Arc::new(spent),
        base,
    })
}

/// Reads and hashes the last blocks; a damaged one is forgotten and comes again from a peer.
fn check_blocks(
    how: CheckStart,
    params: &'static Params,
    blocks: &BlockLog,
    tree: &mut HeaderTree,
) {
    let (tip, _) = tree.tip();
    let lowest = tip.saturating_sub(how.depth()).max(1);
    for height in lowest..=tip {
        let Some(hash) = tree.hash_at(height) else {
            break;
        };
        // A pruned block is not there to be checked.
        if !blocks.contains(&hash) {
            continue;
        }
        let median_time_past = tree
            .header(&hash)
            .and_then(|header| tree.median_time(&header.prev_blockhash))
            .unwrap_or(0);
        let context = BlockContext {
            params,
            height,
            median_time_past,
        };
        let large = blocks.length_of(&hash).filter(|length| *length > LARGE);
        if let Some(length) = large {
            if let Err(error) = check_large(blocks, &hash, length, context) {
                tracing::warn!(height, %hash, error = format!("{error:#}"), "a block in the log is damaged");
                tree.mark_missing(&hash);
                break;
            }
            continue;
        }
        let whole = blocks
            .get(&hash)
            .map_err(anyhow::Error::from)
            .and_then(|raw| {
                let frame = Frame::decode(raw.context("it is gone")?)?;
                anyhow::ensure!(frame.hash == hash, "it is another block");
                Ok(check_block(&frame, &context)?)
            });
        if let Err(error) = whole {
            tracing::warn!(height, %hash, error = format!("{error:#}"), "a block in the log is damaged");
            tree.mark_missing(&hash);
            break;
        }
    }
}

/// Blocks of more bytes are checked in pieces.
const LARGE: u64 = 4_000_000;

fn check_large(
    blocks: &BlockLog,
    hash: &bitcoin::BlockHash,
    length: u64,
    context: BlockContext,
) -> Result<()> {
    let mut stream = BlockStream::new(context, length, usize::MAX);
    let mut pieces = blocks.pieces(hash)?.context("it is gone")?;
    while let Some(bytes) = pieces.next(1 << 20)? {
        stream.push(&bytes)?;
    }
    stream.finish()?;
    Ok(())
}

fn pruned_path(folder: &Path) -> PathBuf {
    folder.join(PRUNED_FILE)
}

fn pruned_below(folder: &DataDir) -> Option<u32> {
    std::fs::read_to_string(pruned_path(folder.path()))
        .ok()?
        .trim()
        .parse()
        .ok()
}

/// Remembers that blocks below a height were pruned.
pub(super) fn keep_pruned_below(folder: &Path, height: u32) -> Result<()> {
    let path = pruned_path(folder);
    whole_file::replace(&path, height.to_string().as_bytes())
        .with_context(|| format!("failed to write {}", path.display()))
}

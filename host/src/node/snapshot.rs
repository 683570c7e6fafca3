//! `blockmill snapshot`: a plugin's state out of the data folder, and into it.

use super::open;
use crate::chain::HeaderTree;
use crate::chain::sync::Base;
use crate::config::Config;
use crate::headers_file::HeadersFile;
use crate::network::Params;
use crate::snapshot::{self, Exported, Imported, Wanted};
use crate::store::{DataDir, PluginNote, RowStore, Slot, StateStore, StoreError, other_rows};
use anyhow::{Context, Result, bail, ensure};
use bitcoin::BlockHash;
use bitcoin::hashes::Hash as _;
use std::fs::File;
use std::path::{Path, PathBuf};

/// Names the block up to which nothing is asked for, because plugins began above it.
const BASE_FILE: &str = "snapshot-base";

/// What is said of a plugin's state besides the state itself.
pub(super) fn about(
    params: &Params,
    plugin: &str,
    note: &PluginNote,
    coins: bool,
) -> Result<snapshot::About> {
    Ok(snapshot::About {
        magic: params.magic,
        plugin: plugin.to_owned(),
        state_version: note.state_version,
        component: snapshot::unhex(&note.sha256).context("the component's hash cannot be read")?,
        coins,
    })
}

/// Writes the state of a plugin of a host that does not run.
///
/// # Errors
///
/// When there is none, `at` cannot be reached, or the file cannot be written.
pub fn export_offline(
    config: &Config,
    plugin: &str,
    file: &Path,
    at: Option<u32>,
) -> Result<Exported> {
    let folder = DataDir::open_existing(&config.network_dir(), config.network.name())?;
    let state = StateStore::open(&folder.state(), config.database.block_cache)?;
    let note = RowStore::open(&config.database_url())?.note(plugin)?;
    let note = note.with_context(|| format!("the plugin {plugin} has not stored a block yet"))?;
    let coins = open::coins_lane(&folder).is_ok_and(|name| name == plugin);
    let about = about(config.network.params(), plugin, &note, coins)?;
    let fork = state.fork(&note.slot.lane(plugin))?;
    Ok(snapshot::export(fork, about, file, at, || true)?)
}

/// What an import did.
#[derive(Debug)]
pub struct ImportReport {
    /// What was read.
    pub imported: Imported,
    /// Whether the block was found among the headers that are here; otherwise it is looked for as soon as they come.
    pub on_chain: bool,
    /// Whether the plugin has tables: they begin above the block.
    pub tables: bool,
}

/// Reads a file into the data folder, as the state of a plugin that has none.
///
/// # Errors
///
/// When the plugin has data, the file is not whole or of something else, its block is not on the chain that is known here,
/// or its hash is not `expect`. The data are as before then.
pub fn import(
    config: &Config,
    plugin: &str,
    file: &Path,
    expect: Option<&str>,
) -> Result<ImportReport> {
    let params = config.network.params();
    let engine = crate::plugin::PluginEngine::new()?;
    let loaded = open::load_plugins(config, &engine)?;
    let loaded = loaded
        .into_iter()
        .find(|loaded| loaded.settings.name == plugin)
        .with_context(|| format!("no plugin {plugin:?} is switched on in the configuration"))?;
    let wanted = Wanted {
        params,
        plugin,
        state_version: loaded.descriptor.state_version,
        coins: loaded.descriptor.coins,
        expect,
    };
    let read = || File::open(file).with_context(|| format!("failed to open {}", file.display()));
    // What the file says of itself is refused before a folder is made.
    let header = snapshot::open(read()?, &wanted)
        .with_context(|| refused(file))?
        .header()
        .clone();
    let folder = open::data_dir(config, params)?;
    let cursor = header.cursor;
    let hash = BlockHash::from_byte_array(cursor.hash);
    let on_chain = known_block(folder.path(), params, cursor.height, hash)?;

    let state = StateStore::open(&folder.state(), config.database.block_cache)?;
    let rows = RowStore::open(&config.database_url())?;
    let note = rows.note(plugin)?;
    let slot = note.as_ref().map_or(Slot::First, |note| note.slot);
    let has_data = rows.cursor(plugin)?.is_some()
        || state
            .snapshot(&slot.lane(plugin))?
            .is_some_and(|snapshot| snapshot.cursor().is_some());
    if has_data {
        bail!(
            "{plugin} has data already: give another data_dir, or remove them with `blockmill plugin purge {plugin}` while it \
             is switched off"
        );
    }
    // The second set is nobody's until the note says so: a kill before that leaves nothing that counts.
    let other = slot.other().lane(plugin);
    rows.reset(&other_rows(plugin))?;
    let imported =
        snapshot::import(read()?, &wanted, &state, &other).with_context(|| refused(file))?;
    ensure!(
        imported.header == header,
        "{} changed while it was read",
        file.display()
    );
    keep_base(folder.path(), cursor.height, hash)?;
    if loaded.descriptor.coins {
        open::keep_coins_lane(&folder, plugin)?;
    }
    // Rows first: with a cursor and no state a start empties them.
    rows.rewind(plugin, Some(cursor))?;
    let note = PluginNote {
        slot: slot.other(),
        state_version: header.state_version,
        sha256: loaded.compiled.sha256.to_string(),
        previous_sha256: None,
        other: None,
        set_aside: None,
    };
    rows.set_note(plugin, &note)?;
    Ok(ImportReport {
        imported,
        on_chain,
        tables: !loaded.descriptor.tables.is_empty(),
    })
}

fn refused(file: &Path) -> String {
    format!("{} cannot be imported", file.display())
}

/// Whether the headers that are here have the block on their best branch.
fn known_block(
    folder: &Path,
    params: &'static Params,
    height: u32,
    hash: BlockHash,
) -> Result<bool> {
    let (_, headers) = HeadersFile::open(&folder.join("headers.dat"))?;
    let tree = HeaderTree::load(params, headers)
        .map_err(|error| anyhow::anyhow!("the headers file cannot be used: {error}"))?;
    match tree.best_hash_at(height) {
        None => Ok(false),
        Some(found) if found == hash => Ok(true),
        Some(found) => bail!(
            "the file is of block {hash} at height {height}, and the chain with the most work has {found} there"
        ),
    }
}

fn base_path(folder: &Path) -> PathBuf {
    folder.join(BASE_FILE)
}

/// Remembers the lowest block that a plugin began above, where no block is kept yet.
fn keep_base(folder: &Path, height: u32, hash: BlockHash) -> Result<()> {
    let before = base(folder)?;
    let has_blocks = std::fs::metadata(folder.join("blocks/blk.index"))
        .is_ok_and(|index| index.len() > FRESH_INDEX)
        || folder.join("blocks/foreign.index").is_file();
    let lower = before.is_none_or(|before| height < before.height);
    if !lower || (before.is_none() && has_blocks) {
        return Ok(());
    }
    let path = base_path(folder);
    crate::whole_file::replace(&path, format!("{height} {hash}\n").as_bytes())
        .with_context(|| format!("failed to write {}", path.display()))
}

/// The index of a block log that holds the genesis block alone.
const FRESH_INDEX: u64 = 16 + 64;

/// The block up to which nothing is asked for, if plugins began above one.
pub(super) fn base(folder: &Path) -> Result<Option<Base>> {
    let path = base_path(folder);
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => {
            return Err(error).with_context(|| format!("failed to read {}", path.display()));
        }
    };
    let read = || {
        let (height, hash) = text.trim().split_once(' ')?;
        Some(Base {
            height: height.parse().ok()?,
            hash: hash.parse().ok()?,
        })
    };
    let base = read().with_context(|| format!("{} is damaged", path.display()))?;
    Ok(Some(base))
}

/// Why a store says no, as the command line shows it.
impl From<snapshot::SnapshotError> for crate::api::QueryFailure {
    fn from(error: snapshot::SnapshotError) -> Self {
        match error {
            snapshot::SnapshotError::Store(StoreError::Engine(_)) => {
                Self::Failed(error.to_string())
            }
            error => Self::Failed(format!("{:#}", anyhow::Error::from(error))),
        }
    }
}

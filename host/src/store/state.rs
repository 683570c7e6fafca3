//! The state store: one fjall database, two keyspaces a lane.
//!
//! ```text
//! NAME        the lane's keys and values, and under a key longer than any of theirs the cursor
//! NAME.undo   height u32 BE → undo record, for the last blocks
//! ```
//!
//! The cursor lives beside the data that it speaks of, so that both become visible, and durable, in one step, whichever
//! way they are written.

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use fjall::compaction::Leveled;
use fjall::config::{BlockSizePolicy, CompressionPolicy, PartitioningPolicy};
use fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode};

use super::error::StoreError;
use super::lane_state::LaneState;
use super::snapshot::StateSnapshot;
use super::{Cursor, MAX_KEY};

/// Blocks that can be undone: as long as a coinbase must mature, deeper than any reorg the chain has seen.
pub const UNDO_DEPTH: u32 = 100;

/// The key of the cursor: sorts behind every key that a plugin can have, and is longer than any.
pub(super) const CURSOR_KEY: [u8; MAX_KEY + 1] = [0xFF; MAX_KEY + 1];

/// Empty keyspaces, one at a time, whose number is above all that were deleted. No plugin's has such a name.
const HIGHEST: [&str; 2] = ["highest.0", "highest.1"];

/// A keyspace that is never deleted, with one entry, which is written after keyspaces came or went (see [`Shared::stamp`]). No
/// plugin's has such a name.
const STAMPED: &str = "stamped.0";
/// Numbers that an engine that was killed between a change of its keyspaces and the stamp may have given away, and more.
const UNSTAMPED: usize = 256;

/// Changes gathered in memory before the engine writes a table, a keyspace. Bulk flushes do not pass through it.
const MEMTABLE_BYTES: u64 = 16 << 20;
/// The engine's write-ahead journal, in bytes on disk, after which it writes tables to be able to drop it.
const JOURNAL_BYTES: u64 = 128 << 20;
/// Bytes of a data block: a coin lookup reads one.
const BLOCK_BYTES: u32 = 4 << 10;
/// Bytes of a table that a compaction writes.
const TABLE_BYTES: u64 = 32 << 20;
/// Tables side by side from which on they are merged into the level below. Keys are random, so a merge rewrites all of that
/// level: more tables are merged less often, but a lookup asks the filter of each. Five was quickest with a small cache.
const LOOSE_TABLES: u8 = 5;

/// The two keyspaces of a lane.
#[derive(Clone)]
pub(super) struct LaneKeyspaces {
    pub(super) state: Keyspace,
    pub(super) undo: Keyspace,
}

/// What the store and its lanes share.
pub(super) struct Shared {
    pub(super) db: Database,
    lanes: Mutex<HashMap<String, LaneKeyspaces>>,
    taken: Mutex<HashSet<String>>,
}

/// The state of all plugins.
#[derive(Clone)]
pub struct StateStore {
    shared: Arc<Shared>,
}

impl StateStore {
    /// Opens the store in the folder `path`, or makes it. `cache_bytes` bounds the cache of blocks read from disk, which
    /// all lanes share.
    pub fn open(path: &Path, cache_bytes: u64) -> Result<Self, StoreError> {
        let db = Database::builder(path)
            .cache_size(cache_bytes)
            .max_journaling_size(JOURNAL_BYTES)
            // Txids, keys and scripts do not compress.
            .journal_compression(fjall::CompressionType::None)
            .manual_journal_persist(true)
            // One: the engine keeps its first of several free for memtables, and that one spins while another merges.
            .worker_threads(1)
            .open()?;
        let shared = Shared {
            db,
            lanes: Mutex::default(),
            taken: Mutex::default(),
        };
        shared.stamp(UNSTAMPED)?;
        Ok(Self {
            shared: Arc::new(shared),
        })
    }

    /// Opens a plugin's state for its lane, or makes it. A lane's state is open once at a time.
    pub fn lane(&self, name: &str) -> Result<LaneState, StoreError> {
        check_name(name)?;
        if !self.shared.taken().insert(name.to_owned()) {
            return Err(StoreError::LaneTaken(name.to_owned()));
        }
        let keyspaces = self.shared.keyspaces(name);
        let lane =
            keyspaces.and_then(|keyspaces| LaneState::open(self.shared.clone(), name, keyspaces));
        if lane.is_err() {
            self.shared.taken().remove(name);
        }
        lane
    }

    /// A view of a plugin's state as of its last flush; `None` when the store has no state of that plugin.
    pub fn snapshot(&self, name: &str) -> Result<Option<StateSnapshot>, StoreError> {
        check_name(name)?;
        if !self.shared.db.keyspace_exists(name) {
            return Ok(None);
        }
        let keyspaces = self.shared.keyspaces(name)?;
        Ok(Some(StateSnapshot::new(
            self.shared.db.snapshot(),
            keyspaces.state,
            name,
        )?))
    }

    /// A fork of a plugin's state as of its last flush: it can be changed and taken back like a lane's, and nothing of that
    /// ever reaches the disk.
    pub fn fork(&self, name: &str) -> Result<LaneState, StoreError> {
        check_name(name)?;
        LaneState::fork(self.shared.clone(), name)
    }

    /// Names of the plugins whose state is here.
    pub fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = self
            .shared
            .db
            .list_keyspace_names()
            .iter()
            .map(ToString::to_string)
            .collect();
        names.retain(|name| !name.contains('.'));
        names.sort();
        names
    }

    /// Removes a plugin's state from the disk. Its lane must not be open.
    pub fn remove(&self, name: &str) -> Result<(), StoreError> {
        self.lane(name)?.reset()?;
        self.shared.keep_ids()?;
        let removed = self.shared.lanes().remove(name);
        if let Some(LaneKeyspaces { state, undo }) = removed {
            self.shared.db.delete_keyspace(undo)?;
            self.shared.db.delete_keyspace(state)?;
        }
        self.shared.stamp(1)
    }

    /// Bytes that the store takes on disk, journals included.
    pub fn disk_bytes(&self) -> Result<u64, StoreError> {
        Ok(self.shared.db.disk_space()?)
    }
}

impl Shared {
    fn lanes(&self) -> MutexGuard<'_, HashMap<String, LaneKeyspaces>> {
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn taken(&self) -> MutexGuard<'_, HashSet<String>> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The lane's keyspaces, made when they do not exist.
    pub(super) fn keyspaces(&self, name: &str) -> Result<LaneKeyspaces, StoreError> {
        let mut lanes = self.lanes();
        if let Some(keyspaces) = lanes.get(name) {
            return Ok(keyspaces.clone());
        }
        let keyspaces = self.create(name)?;
        lanes.insert(name.to_owned(), keyspaces.clone());
        Ok(keyspaces)
    }

    fn create(&self, name: &str) -> Result<LaneKeyspaces, StoreError> {
        let undo = format!("{name}.undo");
        let known = self.db.keyspace_exists(name) && self.db.keyspace_exists(&undo);
        let keyspaces = LaneKeyspaces {
            state: self.db.keyspace(name, options)?,
            undo: self.db.keyspace(&undo, options)?,
        };
        if !known {
            self.stamp(1)?;
        }
        Ok(keyspaces)
    }

    /// Writes an entry, so that the engine goes on above the numbers that it gave to changes of its keyspaces.
    ///
    /// fjall 3.1 numbers every change, and which keyspaces there are is such changes too. After a restart it goes on above the
    /// highest number of the *entries*. A deletion of a keyspace could then get a lower number than the keyspace's own
    /// creation: it had no effect, and at the next start the old keyspace came back under the name of the new one.
    fn stamp(&self, times: usize) -> Result<(), StoreError> {
        let stamped = self.db.keyspace(STAMPED, options)?;
        for left in (0..times).rev() {
            let mut batch = self.db.batch();
            batch.insert(&stamped, b"at", b"");
            let durability = (left == 0).then_some(PersistMode::SyncAll);
            batch.durability(durability).commit()?;
        }
        Ok(())
    }

    /// Replaces the lane's keyspaces by empty ones. Snapshots of the old ones stay readable until they are dropped.
    /// (Not `Keyspace::clear`: fjall 3.1 clears again when it replays its journal, what was bulk-loaded since included.)
    pub(super) fn recreate(&self, name: &str) -> Result<LaneKeyspaces, StoreError> {
        let mut lanes = self.lanes();
        if let Some(LaneKeyspaces { state, undo }) = lanes.remove(name) {
            self.db.delete_keyspace(undo)?;
            self.db.delete_keyspace(state)?;
        }
        let keyspaces = self.create(name)?;
        lanes.insert(name.to_owned(), keyspaces.clone());
        Ok(keyspaces)
    }

    /// Makes a keyspace with a higher number than any other's. fjall 3.1 gives the number of a deleted keyspace to a new one after
    /// a restart when it was the highest, and then hides the new one behind the deletion at the restart after that.
    fn keep_ids(&self) -> Result<(), StoreError> {
        let [old, new] = match self.db.keyspace_exists(HIGHEST[0]) {
            true => HIGHEST,
            false => [HIGHEST[1], HIGHEST[0]],
        };
        let old = match self.db.keyspace_exists(old) {
            true => Some(self.db.keyspace(old, options)?),
            false => None,
        };
        self.db.keyspace(new, options)?;
        if let Some(old) = old {
            self.db.delete_keyspace(old)?;
        }
        Ok(())
    }

    /// Lets the lane be opened again.
    pub(super) fn release(&self, name: &str) {
        self.taken().remove(name);
    }
}

fn options() -> KeyspaceCreateOptions {
    KeyspaceCreateOptions::default()
        .max_memtable_size(MEMTABLE_BYTES)
        .data_block_size_policy(BlockSizePolicy::all(BLOCK_BYTES))
        .data_block_compression_policy(CompressionPolicy::disabled())
        // In pieces of a block's size. By default a table's filter and its index are one block each, near a megabyte for a
        // million coins: too large for a shard of a small cache, so that each lookup reads and checks them whole.
        .filter_block_partitioning_policy(PartitioningPolicy::all(true))
        .index_block_partitioning_policy(PartitioningPolicy::all(true))
        .compaction_strategy(Arc::new(
            Leveled::default()
                .with_l0_threshold(LOOSE_TABLES)
                .with_table_target_size(TABLE_BYTES),
        ))
        .manual_journal_persist(true)
        .with_kv_separation(None)
}

fn check_name(name: &str) -> Result<(), StoreError> {
    let allowed = |byte: u8| {
        byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-' || byte == b'_'
    };
    if (1..=64).contains(&name.len()) && name.bytes().all(allowed) {
        Ok(())
    } else {
        Err(StoreError::BadName(name.to_owned()))
    }
}

/// Reads a cursor as it is kept on disk.
pub(super) fn decode_cursor(
    lane: &str,
    bytes: Option<fjall::Slice>,
) -> Result<Option<Cursor>, StoreError> {
    bytes
        .map(|bytes| {
            Cursor::from_bytes(&bytes).ok_or_else(|| StoreError::Corrupt {
                lane: lane.to_owned(),
                what: "its cursor",
            })
        })
        .transpose()
}

//! What can go wrong in the stores, one enum a kind of operation.

use std::path::PathBuf;

/// An error of the data folder or of the state store.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Reading or writing a file failed.
    #[error("failed to {what} {}", path.display())]
    Io {
        /// What was being done, as a verb: "create", "read", …
        what: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// Another process holds the data folder.
    #[error("data folder {} is in use by another blockmill process", path.display())]
    Locked {
        /// The data folder.
        path: PathBuf,
    },
    /// There is no data where an existing data folder was asked for.
    #[error("no blockmill data in {}", path.display())]
    NoData {
        /// The data folder.
        path: PathBuf,
    },
    /// The folder holds another network's data.
    #[error("data folder {} holds data of {found}, but the network is {wanted}", path.display())]
    OtherNetwork {
        /// The data folder.
        path: PathBuf,
        /// The network, or genesis hash, found in the folder.
        found: String,
        /// The network, or genesis hash, that was asked for.
        wanted: String,
    },
    /// The folder was written by a newer version of the program.
    #[error(
        "data folder {} has format {found}, this version reads up to {supported}: use a newer blockmill",
        path.display()
    )]
    NewerVersion {
        /// The data folder.
        path: PathBuf,
        /// The format version found.
        found: u32,
        /// The newest format version that this program reads.
        supported: u32,
    },
    /// The folder's marker file cannot be understood.
    #[error("{} is damaged: {why}", path.display())]
    BadMarker {
        /// The marker file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// The storage engine failed.
    #[error("state store")]
    Engine(#[from] fjall::Error),
    /// What is on disk is not what was written.
    #[error("state of {lane} is damaged: {what}")]
    Corrupt {
        /// The plugin whose state it is.
        lane: String,
        /// What does not decode.
        what: &'static str,
    },
    /// A plugin's name that cannot name a keyspace.
    #[error("plugin name {0:?} is not 1 to 64 of a-z, 0-9, '-' and '_'")]
    BadName(String),
    /// The lane is already open in this process.
    #[error("state of {0} is already open")]
    LaneTaken(String),
    /// The keys, values or columns given do not fit.
    #[error("{0}")]
    Argument(#[from] ArgumentError),
    /// A block was committed that does not follow the one before.
    #[error("block {next} does not follow block {last}")]
    OutOfOrder {
        /// Height of the last block committed.
        last: u32,
        /// Height of the block that came.
        next: u32,
    },
    /// The overlay cannot hold more before it is flushed.
    #[error("state overlay is full, {bytes} bytes: flush it")]
    OverlayFull {
        /// Bytes it holds.
        bytes: usize,
    },
    /// The state cannot be rewound so far.
    #[error(transparent)]
    Rewind(#[from] RewindError),
    /// A write was refused on purpose, see [`LaneState::cut_after`](super::LaneState::cut_after).
    #[error("a write was refused on purpose")]
    Cut,
}

impl StoreError {
    /// Whether the caller of the state, that is the plugin, is at fault and not the store.
    pub fn is_callers_fault(&self) -> bool {
        matches!(self, Self::Argument(_) | Self::OverlayFull { .. })
    }
}

/// Keys or values that the state does not take: the plugin's mistake.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ArgumentError {
    /// Keys are 1 to [`MAX_KEY`](super::MAX_KEY) bytes.
    #[error("a state key has {len} bytes, keys have 1 to {max}")]
    Key {
        /// Bytes of the key.
        len: usize,
        /// The most that a key may have.
        max: usize,
    },
    /// Values are at most [`MAX_VALUE`](super::MAX_VALUE) bytes.
    #[error("a state value has {len} bytes, values have at most {max}")]
    Value {
        /// Bytes of the value.
        len: usize,
        /// The most that a value may have.
        max: usize,
    },
    /// A flat column's length is not a multiple of its width.
    #[error("a column of {len} bytes is not made of entries of {width} bytes")]
    Width {
        /// Bytes of the column.
        len: usize,
        /// Bytes of an entry.
        width: usize,
    },
    /// A column's ends go backwards, or past or short of its bytes.
    #[error("the ends of a column do not fit its {len} bytes")]
    Ends {
        /// Bytes of the column.
        len: usize,
    },
    /// Two columns that belong together differ in length.
    #[error("{keys} keys but {values} values")]
    Counts {
        /// Number of keys.
        keys: usize,
        /// Number of values.
        values: usize,
    },
    /// An answer would not fit a column with 32-bit ends.
    #[error("the answer is larger than 4 GiB")]
    AnswerTooLarge,
    /// State was written outside of a block.
    #[error("state is written only while a block is open")]
    NoOpenBlock,
}

/// The state cannot be rewound as far as asked. Nothing was changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RewindError {
    /// A block's undo record was pruned, or never written.
    #[error(
        "state of {lane} cannot be rewound from {from} to {to}: no undo record for block {missing}"
    )]
    NoUndo {
        /// The plugin whose state it is.
        lane: String,
        /// The height that the state is at.
        from: u32,
        /// The height asked for.
        to: u32,
        /// The highest height whose record is missing.
        missing: u32,
    },
}

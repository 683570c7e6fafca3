//! A plugin's state at a height, as one file: to begin elsewhere without the blocks below.
//!
//! [`format`] says what the bytes are. A file proves that it is whole and not altered by accident; that what it says of the
//! chain is true it cannot prove: the block is compared with the headers, and the coins with what Bitcoin Core has for that
//! block, where that is known ([`known`]) or given.

mod export;
pub mod format;
mod import;
pub mod known;

pub use export::{About, Exported, export, unhex};
pub use import::{Imported, Vouched, Wanted, import, open};

/// Why a file is no snapshot that can be used.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// It ends too early.
    #[error("the file is torn: it ends in the middle of {0}")]
    Torn(&'static str),
    /// It is something else.
    #[error("the file is no snapshot of blockmill")]
    NotASnapshot,
    /// A newer program wrote it.
    #[error("the file is of version {found}, this program knows up to {known}")]
    Newer {
        /// Its version.
        found: u32,
        /// The newest known.
        known: u32,
    },
    /// Its bytes are not those that were written.
    #[error("the file is damaged: {0}")]
    Damaged(&'static str),
    /// It is of something else than what is asked for.
    #[error("{0}")]
    Other(String),
    /// It cannot be read or written.
    #[error("failed to {doing} the file")]
    Io {
        /// What was being done.
        doing: &'static str,
        /// What the system said.
        source: std::io::Error,
    },
    /// The state store failed.
    #[error(transparent)]
    Store(#[from] crate::store::StoreError),
}

impl SnapshotError {
    fn reading(what: &'static str) -> impl Fn(std::io::Error) -> Self {
        move |source| match source.kind() {
            std::io::ErrorKind::UnexpectedEof => Self::Torn(what),
            _ => Self::Io {
                doing: "read",
                source,
            },
        }
    }

    fn writing(source: std::io::Error) -> Self {
        Self::Io {
            doing: "write",
            source,
        }
    }
}

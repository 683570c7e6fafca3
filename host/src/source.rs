//! Where blocks come from besides peers: Bitcoin Core's own block folder, read in place.
//!
//! A thread finds out where each block lies ([`scan`]) and tells the network machine, which puts the headers into the tree and
//! has the blocks read and checked in the order of the best branch. What is in the folder is asked of no peer; the rest is.

mod blocks_dir;
pub mod scan;

use bitcoin::block::Header;

pub use blocks_dir::{BlocksDir, SourceProgress, is_own};

/// What the source has to say to the network machine.
#[derive(Debug)]
pub enum SourceEvent {
    /// These blocks are there: their headers, and their lengths in bytes. In the order of the files, which need not be that of
    /// the chain.
    Found(Vec<(Header, u32)>),
    /// All files were looked through once.
    Scanned,
}

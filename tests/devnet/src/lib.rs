//! A small Bitcoin node for tests and demonstrations.
//!
//! It mines blocks with realistic, signed transactions from a seed, keeps a pool, serves the peer-to-peer protocol to any
//! number of clients, reorganises on demand, misbehaves on demand, and knows the hash of its own coin set without a line of
//! the host's code. It also serves block files of any network.
//!
//! ```
//! # fn main() -> anyhow::Result<()> {
//! let devnet = devnet::Devnet::new(7)?;
//! devnet.mine(110)?;
//! devnet.reorg(2, 3)?;
//! assert_eq!(devnet.status().height, 111);
//! println!("peer at {}, coins {}", devnet.p2p_addr(), devnet.utxo_set()?.muhash);
//! devnet.stop();
//! # Ok(())
//! # }
//! ```
//!
//! # What it is not
//!
//! A node to trust: it runs no scripts, believes the timestamps of the blocks it is given, and holds everything in memory.

pub mod blockfile;
pub mod chain;
pub mod coins;
mod control;
mod devnet;
pub mod large;
mod miner;
mod muhash;
mod node;
pub mod pool;
mod server;
mod signet;
mod state;
mod utxo;
mod wallet;

pub use control::Control;
pub use devnet::{Config, Devnet, Status};
pub use node::Node;
pub use server::{Behaviour, Dial};
pub use signet::Signet;
pub use state::{Clock, Mining, News, Reorg, State};
pub use utxo::{Snapshot, UtxoSet};

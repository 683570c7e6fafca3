//! The sockets: a thin shell around [`Sync`], which decides everything.
//!
//! One task owns the machine. Every connection has a task that reads and one that writes; blocks that were asked for go
//! to the checker, whose verdicts come back here.

mod checker;
mod connection;
mod event_log;
mod gate;
mod large;
mod listener;
mod names;
mod peer_changes;
mod peers_file;
mod proxy;
mod shell;

pub use checker::{BlockFrom, Checked, Checker, ToCheck};
pub use event_log::EventLog;
pub use listener::bind;
pub use peers_file::PeersFile;
pub use proxy::{Proxy, Target};
pub use shell::{Net, NetConfig, NetHandle, NetParts, NetView, TransactionSink, chain_of};

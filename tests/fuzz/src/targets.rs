//! The targets, a file each.

mod block;
mod capsule;
mod chain_file;
mod coins;
mod config;
mod core_blocks;
mod frames;
mod headers;
mod http;
mod log_recovery;
mod payload;
pub(crate) use payload::COMMANDS;
mod peer_book;
mod pool;
mod pool_file;
mod snapshot;
mod socks;
mod spent;
mod sync;
mod transport;

/// What a target made of its input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It was, at least at its beginning, what the decoder reads.
    Taken,
    /// It was not.
    Refused,
}

impl Verdict {
    /// [`Taken`](Self::Taken) if so.
    pub fn taken(taken: bool) -> Verdict {
        if taken {
            Verdict::Taken
        } else {
            Verdict::Refused
        }
    }
}

/// A decoder, and what is asserted of it.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// The name of its program, and of its corpus.
    pub name: &'static str,
    body: fn(&[u8]) -> Verdict,
}

impl Target {
    /// The one of this name.
    pub fn find(name: &str) -> Option<Target> {
        TARGETS.into_iter().find(|target| target.name == name)
    }

    /// Runs it.
    ///
    /// # Panics
    ///
    /// When something is wrong with the decoder.
    pub fn run(&self, data: &[u8]) -> Verdict {
        (self.body)(data)
    }
}

/// All of them.
pub const TARGETS: [Target; 19] = [
    target("block", block::run),
    target("capsule", capsule::run),
    target("chain_file", chain_file::run),
    target("coins", coins::run),
    target("config", config::run),
    target("core_blocks", core_blocks::run),
    target("frames", frames::run),
    target("headers", headers::run),
    target("http", http::run),
    target("log_recovery", log_recovery::run),
    target("payload", payload::run),
    target("peer_book", peer_book::run),
    target("pool", pool::run),
    target("pool_file", pool_file::run),
    target("snapshot", snapshot::run),
    target("socks", socks::run),
    target("spent", spent::run),
    target("sync", sync::run),
    target("transport", transport::run),
];

const fn target(name: &'static str, body: fn(&[u8]) -> Verdict) -> Target {
    Target { name, body }
}

//! The HTTP interface: what the host is doing, and what plugins answer.
//!
//! Reading takes no password, so it listens on loopback unless told otherwise; what changes plugins takes a token that only
//! the owner of the data folder can read. Everything a client can make big is
//! bounded: connections, headers, the query string, the number of questions that run at once and the time they take.

mod answer;
mod owner;
mod peers;
mod routes;
mod server;

use crate::status::{
    BlockInfo, Health, Peers, Plugin, PoolTransaction, Status, Tip, TxOutSet, Values,
};

pub use self::owner::OwnerToken;
pub use self::peers::PeerOrder;
pub use self::server::{Bounds, bind, serve, serve_stream};

/// What the interface asks of the host. Calls may block: they run on threads of their own, a bounded number at once.
pub trait Backend: Send + Sync + 'static {
    /// What the host is doing.
    fn status(&self) -> Status;

    /// A transaction of the pool, if it is there.
    fn pool_transaction(&self, txid: bitcoin::Txid) -> Option<PoolTransaction>;

    /// Whether it follows the chain.
    fn health(&self) -> Health;

    /// The last block of the active branch that is stored and checked.
    fn tip(&self) -> Tip;

    /// A block that is known, or none.
    ///
    /// # Errors
    /// When it cannot be read.
    fn block(&self, id: BlockId) -> anyhow::Result<Option<BlockInfo>>;

    /// Every plugin of the configuration.
    fn plugins(&self) -> Vec<Plugin>;

    /// Asks a plugin. The answer is a JSON text.
    ///
    /// # Errors
    /// Why there is no answer.
    fn query(
        &self,
        plugin: &str,
        path: &str,
        params: Vec<(String, String)>,
    ) -> Result<String, QueryFailure>;

    /// Asks a plugin as the host's owner, who may change its settings by asking.
    ///
    /// # Errors
    /// Why there is no answer; nothing has changed then.
    fn change(
        &self,
        plugin: &str,
        path: &str,
        params: Vec<(String, String)>,
    ) -> Result<String, QueryFailure>;

    /// Whether this is the token that only the host's owner has.
    fn is_owner(&self, token: &str) -> bool;

    /// The gauges and series that a plugin has set.
    ///
    /// # Errors
    /// There is no such plugin.
    fn values(&self, plugin: &str) -> Result<Values, QueryFailure>;

    /// Changes a plugin, or with none brings all in line with the configuration file. Says what was done, for people.
    ///
    /// # Errors
    /// Why nothing was.
    fn manage(&self, plugin: Option<(String, PluginAction)>) -> Result<String, QueryFailure>;

    /// Writes the state of a plugin into a file of this machine, as of the last block stored or of one a little below. May take
    /// minutes.
    ///
    /// # Errors
    /// Why it was not written.
    fn export_snapshot(
        &self,
        plugin: &str,
        file: &std::path::Path,
        at: Option<u32>,
    ) -> Result<crate::snapshot::Exported, QueryFailure> {
        let _ = (file, at);
        Err(QueryFailure::NoSuchPlugin(plugin.to_owned()))
    }
    /// Peers, bans and the peer book.
    fn peers(&self) -> Peers;

    /// Changes peers as the host's owner says. Says what was done, for people.
    ///
    /// # Errors
    /// Why nothing was.
    fn change_peers(&self, order: PeerOrder) -> Result<String, QueryFailure>;

    /// The set of unspent outputs, on a snapshot. May take minutes.
    ///
    /// # Errors
    /// Why it is not known.
    fn txoutset(&self) -> Result<TxOutSet, QueryFailure>;
}

/// What the owner can have done with a plugin: `POST /api/v1/plugins/{name}/{action}`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PluginAction {
    /// Takes its file as it is now.
    Reload,
    /// Goes back to the component before.
    Revert,
    /// Tries again at once.
    Retry,
    /// Makes its data anew, beside those that serve.
    Rebuild,
    /// Removes its data, when it does not run.
    Purge,
}

impl PluginAction {
    /// All of them, by the word in the address.
    pub const ALL: [(&'static str, Self); 5] = [
        ("reload", Self::Reload),
        ("revert", Self::Revert),
        ("retry", Self::Retry),
        ("rebuild", Self::Rebuild),
        ("purge", Self::Purge),
    ];

    /// The one that a word names.
    pub fn parse(word: &str) -> Option<Self> {
        let mut all = Self::ALL.into_iter();
        all.find(|(name, _)| *name == word)
            .map(|(_, action)| action)
    }
}

/// Names a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BlockId {
    /// The one at a height of the active branch.
    Height(u32),
    /// The one with a hash, on any branch. Internal byte order.
    Hash([u8; 32]),
}

impl BlockId {
    /// A height in decimal, or 64 hexadecimal digits in display order.
    pub fn parse(text: &str) -> Option<Self> {
        if text.len() == 64 {
            let hash: bitcoin::BlockHash = text.parse().ok()?;
            return Some(Self::Hash(*AsRef::<[u8; 32]>::as_ref(&hash)));
        }
        // parse() would take a plus sign
        let digits = text.bytes().all(|digit| digit.is_ascii_digit());
        digits
            .then(|| text.parse().ok())
            .flatten()
            .map(Self::Height)
    }
}

/// Why a question has no answer. The text is for the person who asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QueryFailure {
    /// The plugin knows no such thing.
    #[error("{0}")]
    NotFound(String),
    /// The plugin does not understand the question.
    #[error("{0}")]
    BadRequest(String),
    /// Only the host's owner may ask this.
    #[error("{0}")]
    Forbidden(String),
    /// The plugin failed.
    #[error("{0}")]
    Failed(String),
    /// There is no plugin of this name, or it does not run.
    #[error("{0}")]
    NoSuchPlugin(String),
    /// Too much is going on, or it is not ready yet: ask again later.
    #[error("{0}")]
    Busy(String),
}

#[cfg(test)]
pub(crate) mod tests;

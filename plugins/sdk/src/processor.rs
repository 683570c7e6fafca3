//! What a plugin is.

use crate::block::Block;
use crate::mempool::{Entry, MempoolChanges, Removal};
use crate::params::Params;
use crate::transaction::Transaction;
use crate::{BlockAnswer, BlockError, Descriptor, Json, QueryError, StartInfo};

/// Where the transaction that [`Processor::on_transaction`] is given was seen.
#[derive(Clone, Copy, Debug)]
pub enum Seen<'a> {
    /// In this block of the chain.
    Block(&'a Block),
    /// In the memory pool, unconfirmed.
    Pool(&'a Entry<'a>),
}

/// Where a part of a large block stands in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// Transactions of the block before those of the part.
    pub first: u32,
    /// Transactions of the whole block.
    pub transactions: u32,
    /// It is the block's last part.
    pub last: bool,
}

impl Part {
    /// The whole block as its only part.
    pub fn whole(block: &Block) -> Self {
        Part {
            first: 0,
            transactions: block.len() as u32,
            last: true,
        }
    }

    /// It is the block's first part.
    pub fn is_first(&self) -> bool {
        self.first == 0
    }
}

/// A plugin. `describe` and `start` are its own; the rest has defaults, and most plugins write one or two more.
///
/// | to handle | write |
/// |---|---|
/// | single transactions, of blocks and of the pool | `on_transaction` |
/// | something before or after a block's transactions | `begin_block`, `end_block` |
/// | whole blocks, column by column | `on_block` |
/// | the pool | `on_mempool`, or `on_transaction` and `on_removed` |
/// | questions | `query` |
///
/// The host's functions are modules: [`state`](crate::state), [`volatile`](crate::volatile), [`rows`](crate::rows),
/// [`values`](crate::values), [`log`](crate::log), [`chain`](crate::chain).
pub trait Processor: Sized + 'static {
    /// Name, version, what the plugin wants to see, its tables. Always the same answer; the host may not be called.
    fn describe() -> Descriptor;

    /// Makes the plugin out of its settings and its state. An error says what is wrong with the settings.
    fn start(info: &StartInfo) -> Result<Self, String>;

    /// Makes the state that a component of state version `from` left into one of this version, through
    /// [`state`](crate::state). `Ok(false)`, as by default, when that cannot be done: then the host makes the state anew from
    /// the first block, while the old component goes on. The tables must be the same in both versions. `start` comes after.
    fn migrate(_from: u32) -> Result<bool, String> {
        Ok(false)
    }

    /// The next block of the chain. By default: `begin_block`, `on_transaction` for each transaction, `end_block`.
    fn on_block(&mut self, block: &Block) -> Result<BlockAnswer, BlockError> {
        self.begin_block(block)?;
        let seen = Seen::Block(block);
        for transaction in block.transactions() {
            self.on_transaction(&transaction, &seen)?;
        }
        self.end_block(block)?;
        Ok(BlockAnswer::none())
    }

    /// Whether blocks that are too large to be held come in parts, to `on_part`. Otherwise they come whole, up to a limit of
    /// the host (`whole_block_limit`), and at a larger one the plugin stands still.
    const TAKES_PARTS: bool = false;

    /// Some transactions of the next block. All parts of a block come one after the other, to one instance; when one fails, the
    /// host begins with the first again, on a fresh one. Columns and [`Transaction::position`] count from the part's first
    /// transaction.
    fn on_part(&mut self, _part: &Block, _place: &Part) -> Result<BlockAnswer, BlockError> {
        Err(BlockError::Failed("this plugin takes no parts".into()))
    }

    /// Before the transactions of a block.
    fn begin_block(&mut self, _block: &Block) -> Result<(), BlockError> {
        Ok(())
    }

    /// A transaction of a block or, for a plugin that asked for the pool, of the pool. An error fails the whole block.
    fn on_transaction(
        &mut self,
        _transaction: &Transaction<'_>,
        _seen: &Seen<'_>,
    ) -> Result<(), String> {
        Ok(())
    }

    /// After the transactions of a block.
    fn end_block(&mut self, _block: &Block) -> Result<(), BlockError> {
        Ok(())
    }

    /// Changes of the memory pool. By default: `on_removed` for each transaction that left, `on_transaction` for each
    /// that came.
    fn on_mempool(&mut self, changes: &MempoolChanges) -> Result<(), String> {
        for (txid, reason) in changes.removed() {
            self.on_removed(txid, reason)?;
        }
        for entry in changes.added() {
            self.on_transaction(entry.transaction(), &Seen::Pool(&entry))?;
        }
        Ok(())
    }

    /// A transaction left the pool. `txid` is in internal order.
    fn on_removed(&mut self, _txid: &[u8; 32], _reason: Removal) -> Result<(), String> {
        Ok(())
    }

    /// A question from a person or a program: `GET /api/v1/plugins/NAME/query/PATH?params`. It runs on an instance of its
    /// own that was given no block: what it answers comes from the state and the volatile space.
    fn query(&self, path: &str, _params: &Params) -> Result<Json, QueryError> {
        Err(QueryError::NotFound(format!(
            "this plugin answers no query at `{path}`"
        )))
    }
}

impl BlockAnswer {
    /// What every plugin answers that does not keep the coins.
    pub fn none() -> Self {
        BlockAnswer { spent: None }
    }
}

impl From<String> for BlockError {
    fn from(message: String) -> Self {
        BlockError::Failed(message)
    }
}

impl From<&str> for BlockError {
    fn from(message: &str) -> Self {
        BlockError::Failed(message.into())
    }
}

impl From<String> for QueryError {
    fn from(message: String) -> Self {
        QueryError::Failed(message)
    }
}

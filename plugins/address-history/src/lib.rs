//! The history and balance of every script, confirmed and unconfirmed.
//!
//! ```text
//! state     'H' sha256(script)[..12] !number(5 BE) → received, sent           newest first; varints, sat
//!           'B' sha256(script)[..12]               → received, sent, transactions
//!           'T' !number(5 BE)                      → height (u32 LE), txid
//!           'C' txid[..12] vout(u32 BE)            → sha256(script)[..12], sat  of unspent outputs; setting `unconfirmed`
//!           'N'                                    → number of the next transaction (u64 LE)
//! volatile  what the pool does with each script (see `pool`)
//! query     history?address=|script=|scripthash=[&limit=&after=]    balance?…    unconfirmed?…    status
//! ```
//!
//! `number` counts the transactions of the chain. Outputs that nobody can spend have no history. Script hashes are those of
//! the Electrum protocol. (The outputs of the two coinbases of mainnet that came again are counted twice here, as they were
//! paid twice; nobody can spend the first ones.)

pub mod connect;
pub mod entries;
pub mod pool;
pub mod query;

use blockmill_sdk::Single;
use blockmill_sdk::prelude::*;

use connect::Connect;
use pool::Pool;

/// Whether the state was made with coins.
const WITH_COINS: Single<bool> = Single::new(b"U");

/// The plugin.
#[derive(Debug)]
pub struct AddressHistory {
    connect: Connect,
    pool: Pool,
    height: Option<u32>,
}

impl Processor for AddressHistory {
    fn describe() -> Descriptor {
        Descriptor::new(
            "address-history",
            env!("CARGO_PKG_VERSION"),
            "History and balance of every script, confirmed and unconfirmed",
        )
        .wants(WantedColumns::INPUTS | WantedColumns::OUTPUTS | WantedColumns::SPENT)
        .wants_mempool()
    }

    fn start(info: &StartInfo) -> Result<Self, String> {
        let mut settings = info.settings()?;
        let coins = settings.bool("unconfirmed", true)?;
        settings.finish()?;
        if info.height.is_some() && WITH_COINS.get()? != Some(coins) {
            return Err(format!(
                "the setting `unconfirmed` is {coins}, but the state was built with {}: rebuild this plugin's state to change it",
                !coins
            ));
        }
        Ok(AddressHistory {
            connect: Connect::new(coins),
            pool: Pool::default(),
            height: info.height,
        })
    }

    fn on_block(&mut self, block: &Block) -> Result<BlockAnswer, BlockError> {
        self.on_part(block, &Part::whole(block))
    }

    const TAKES_PARTS: bool = true;

    fn on_part(&mut self, block: &Block, place: &Part) -> Result<BlockAnswer, BlockError> {
        if self.height.is_none() && place.is_first() {
            WITH_COINS.put(&self.connect.coins);
        }
        self.connect.part(block)?;
        self.pool.confirm(block, place.last);
        if place.last {
            self.height = Some(block.height());
        }
        Ok(BlockAnswer::none())
    }

    fn on_mempool(&mut self, changes: &MempoolChanges) -> Result<(), String> {
        if !self.connect.coins {
            return Ok(());
        }
        if changes.reset() {
            self.pool.reset();
        }
        for (txid, _) in changes.removed() {
            self.pool.remove(txid);
        }
        self.pool.add(changes.added_columns().transactions());
        self.pool.publish(changes.height());
        Ok(())
    }

    fn query(&self, path: &str, params: &Params) -> Result<Json, QueryError> {
        query::answer(self, path, params)
    }
}

export_plugin!(AddressHistory);

#[cfg(test)]
mod tests;

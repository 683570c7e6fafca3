//! The coin set: every output that is not spent yet, checked block by block.
//!
//! This is the plugin with the role `coins`. It answers each block with the outputs that the block spends, which the host
//! gives to the plugins that ask for the `spent` column, and it refuses blocks that spend what is not there, spend twice,
//! spend a coinbase too early, or make more coins than they may (see [`connect`]). Scripts are not run.
//!
//! ```text
//! state   'C' txid vout(u32 BE)             → height*2+coinbase (u32 LE)  sat (u64 LE)  script
//!         'S' sha256(script)[..16] txid vout → height*2+coinbase (u32 LE)  sat (u64 LE)      with the setting `index`
//!         'T'                                → totals
//! query   coin?txid=&vout=    coins?address= or script=    balance?address= or script=    totals
//! ```

pub mod coin;
pub mod connect;
pub mod created;
pub mod index;
pub mod query;
pub mod rules;
pub mod totals;

use blockmill_sdk::prelude::*;

use coin::Coin;
use connect::{Connect, Open};
use index::Index;
use totals::{TOTALS, Totals};

/// The plugin.
#[derive(Debug)]
pub struct UtxoTracker {
    totals: Totals,
    connect: Connect,
    index: Option<Index>,
    height: Option<u32>,
    /// The block whose further parts are to come.
    open: Option<Open>,
}

impl Processor for UtxoTracker {
    fn describe() -> Descriptor {
        Descriptor::new(
            "utxo-tracker",
            env!("CARGO_PKG_VERSION"),
            "The coin set, checked; balances by address",
        )
        .wants(WantedColumns::INPUTS | WantedColumns::OUTPUTS)
        .role("coins")
    }

    fn start(info: &StartInfo) -> Result<Self, String> {
        let mut settings = info.settings()?;
        let index = settings.bool("index", false)?;
        settings.finish()?;
        if info.height.is_some() && index != index::is_built() {
            return Err(format!(
                "the setting `index` is {index}, but the state was built with {}: rebuild this plugin's state to change it",
                !index
            ));
        }
        Ok(UtxoTracker {
            totals: TOTALS.get()?.unwrap_or_default(),
            connect: Connect::new(&chain::network()),
            index: index.then(Index::new),
            height: info.height,
            open: None,
        })
    }

    fn on_block(&mut self, block: &Block) -> Result<BlockAnswer, BlockError> {
        self.on_part(block, &Part::whole(block))
    }

    const TAKES_PARTS: bool = true;

    fn on_part(&mut self, block: &Block, place: &Part) -> Result<BlockAnswer, BlockError> {
        // A block that failed may have left something behind: the first part begins anew.
        let before = match place.is_first() {
            true => Open::new(&self.totals),
            false => self.open.take().ok_or("a part without the first one")?,
        };
        let (open, spent) = self
            .connect
            .part(block, place, before, self.index.as_mut())?;
        if !place.last {
            self.open = Some(open);
            return Ok(BlockAnswer { spent: Some(spent) });
        }
        let totals = open.totals;
        if self.height.is_none() {
            index::mark(self.index.is_some());
        }
        TOTALS.put(&totals);
        values::set("txouts", totals.txouts as f64);
        values::set("total_sats", totals.total_sats as f64);
        // Only now: a block that was refused must leave no trace here.
        self.totals = totals;
        self.height = Some(block.height());
        Ok(BlockAnswer { spent: Some(spent) })
    }

    fn query(&self, path: &str, params: &Params) -> Result<Json, QueryError> {
        query::answer(self, path, params)
    }
}

impl UtxoTracker {
    /// The totals after the last block.
    pub fn totals(&self) -> &Totals {
        &self.totals
    }

    /// Height of the last block, none before the first.
    pub fn height(&self) -> Option<u32> {
        self.height
    }

    /// True when the next block may spend a coinbase's coin.
    pub fn is_mature(&self, coin: &Coin<'_>) -> bool {
        self.height
            .is_some_and(|height| height + 1 >= coin.height + rules::COINBASE_MATURITY)
    }

    /// True when coins can be looked up by script.
    pub fn has_index(&self) -> bool {
        self.index.is_some()
    }
}

export_plugin!(UtxoTracker);

#[cfg(test)]
mod tests;

//! Writes blocks and transactions as rows, for people to query with SQL.
//!
//! ```text
//! block    one row a block                                             always
//! tx       one row a transaction of a block                            always
//! output   one row an output of a transaction                          with the setting `outputs`
//! input    one row an input, with the output that it spends            with the setting `inputs`
//! mempool  one row a transaction of the pool; volatile                 always, once the host follows the tip
//! ```
//!
//! All five tables are always declared, because a plugin's settings cannot change what it declares; those that are off
//! stay empty. Amounts are sat, times unix seconds, sizes bytes, weights weight units, fee rates sat per vbyte.

pub mod tables;

use blockmill_sdk::prelude::*;
use blockmill_sdk::rows::Column;

use tables::{
    BlockRow, Blocks, InputRow, Inputs, MempoolRow, MempoolTable, OutputRow, Outputs,
    TransactionRow, Transactions,
};

/// The plugin.
pub struct TxWriter {
    blocks: Blocks,
    transactions: Transactions,
    outputs: Option<Outputs>,
    inputs: Option<Inputs>,
    mempool: MempoolTable,
    /// The block at hand.
    open: Open,
    /// How addresses are written.
    network: String,
}

impl Processor for TxWriter {
    fn describe() -> Descriptor {
        Descriptor::new(
            "tx-writer",
            env!("CARGO_PKG_VERSION"),
            "Blocks, transactions and the pool as SQL rows",
        )
        .wants(WantedColumns::INPUTS | WantedColumns::OUTPUTS | WantedColumns::SPENT)
        .wants_mempool()
        .table::<Blocks>()
        .table::<Transactions>()
        .table::<Outputs>()
        .table::<Inputs>()
        .table::<MempoolTable>()
    }

    fn start(info: &StartInfo) -> Result<Self, String> {
        let mut settings = info.settings()?;
        let outputs = settings.bool("outputs", false)?;
        let inputs = settings.bool("inputs", false)?;
        settings.finish()?;
        Ok(TxWriter {
            blocks: Blocks::of::<Self>(),
            transactions: Transactions::of::<Self>(),
            outputs: outputs.then(Outputs::of::<Self>),
            inputs: inputs.then(Inputs::of::<Self>),
            mempool: MempoolTable::of::<Self>(),
            open: Open::default(),
            network: chain::network(),
        })
    }

    fn begin_block(&mut self, _block: &Block) -> Result<(), BlockError> {
        // What a failed block may have left.
        self.transactions.clear();
        self.outputs.iter_mut().for_each(Outputs::clear);
        self.inputs.iter_mut().for_each(Inputs::clear);
        Ok(())
    }

    fn on_transaction(&mut self, tx: &Transaction<'_>, seen: &Seen<'_>) -> Result<(), String> {
        match seen {
            Seen::Block(_) => self.confirmed(tx, 0),
            Seen::Pool(entry) => self.mempool.push(MempoolRow {
                txid: tx.txid(),
                first_seen: entry.first_seen(),
                fee: entry.fee(),
                vsize: i64::from(entry.vsize()),
                fee_rate: entry.fee() as f64 / f64::from(entry.vsize().max(1)),
                depends: &depends(entry.parents()),
            }),
        }
        Ok(())
    }

    fn end_block(&mut self, block: &Block) -> Result<(), BlockError> {
        self.open = Open::default();
        self.open.add(block);
        self.block_row(block, block.len() as u32);
        Ok(())
    }

    const TAKES_PARTS: bool = true;

    fn on_part(&mut self, part: &Block, place: &Part) -> Result<BlockAnswer, BlockError> {
        if place.is_first() {
            self.begin_block(part)?;
            self.open = Open::default();
        }
        for tx in part.transactions() {
            self.confirmed(&tx, place.first);
        }
        self.open.add(part);
        if place.last {
            self.block_row(part, place.transactions);
        } else {
            self.flush();
        }
        Ok(BlockAnswer::none())
    }

    fn on_mempool(&mut self, changes: &MempoolChanges) -> Result<(), String> {
        // On a reset the host has emptied the table already.
        let gone: Vec<u8> = changes.removed().flat_map(|(txid, _)| *txid).collect();
        if !gone.is_empty() && !changes.reset() {
            self.mempool.delete(&[Column::hashes(gone)]);
        }
        for entry in changes.added() {
            self.on_transaction(entry.transaction(), &Seen::Pool(&entry))?;
        }
        self.mempool.flush();
        Ok(())
    }
}

/// What a block's transactions add up to, so far.
struct Open {
    out: u64,
    /// None where a fee is not known.
    fees: Option<u64>,
}

impl Default for Open {
    fn default() -> Self {
        Open {
            out: 0,
            fees: Some(0),
        }
    }
}

impl Open {
    fn add(&mut self, part: &Block) {
        self.out += part.transactions().map(|tx| tx.output_value()).sum::<u64>();
        self.fees = part
            .transactions()
            .filter(|tx| !tx.is_coinbase())
            .try_fold(self.fees.unwrap_or(0), |sum, tx| Some(sum + tx.fee()?))
            .filter(|_| self.fees.is_some());
    }
}

impl TxWriter {
    /// Writes the row of a block that is done. `block` is it, or its last part.
    fn block_row(&mut self, block: &Block, transactions: u32) {
        let header = block.header();
        self.blocks.push(BlockRow {
            hash: &header.hash,
            previous: &header.previous,
            merkle_root: &header.merkle_root,
            version: i64::from(header.version),
            time: u64::from(header.time),
            median_time: u64::from(header.median_time),
            bits: i64::from(header.bits),
            nonce: i64::from(header.nonce),
            tx_count: i64::from(transactions),
            size: i64::from(header.size),
            weight: i64::from(header.weight),
            total_fees: self.open.fees,
            total_out: self.open.out,
        });
        self.blocks.flush();
        self.flush();
        values::push("block_transactions", f64::from(transactions));
    }

    fn flush(&mut self) {
        self.transactions.flush();
        self.outputs.iter_mut().for_each(Outputs::flush);
        self.inputs.iter_mut().for_each(Inputs::flush);
    }

    /// `before` transactions of the block come before those that the transaction is counted among.
    fn confirmed(&mut self, tx: &Transaction<'_>, before: u32) {
        let at = tx.position() as i64 + i64::from(before);
        self.transactions.push(TransactionRow {
            position: at,
            txid: tx.txid(),
            size: i64::from(tx.size()),
            weight: i64::from(tx.weight()),
            fee: tx.fee(),
            inputs: tx.input_count() as i64,
            outputs: tx.output_count() as i64,
            total_out: tx.output_value(),
        });
        if let Some(outputs) = &mut self.outputs {
            for output in tx.outputs() {
                outputs.push(OutputRow {
                    tx_position: at,
                    vout: i64::from(output.vout()),
                    value: output.value(),
                    script: output.script(),
                    address: address::from_script(output.script(), &self.network).as_deref(),
                });
            }
        }
        if let Some(inputs) = &mut self.inputs {
            for (position, input) in tx.inputs().enumerate() {
                let previous = Some(input.previous()).filter(|previous| !previous.is_null());
                let spent = input.spent();
                inputs.push(InputRow {
                    tx_position: at,
                    position: position as i64,
                    previous_txid: previous.map(|previous| previous.txid),
                    previous_vout: previous.map(|previous| i64::from(previous.vout)),
                    sequence: i64::from(input.sequence()),
                    value: spent.map(|coin| coin.value),
                    script: spent.map(|coin| coin.script),
                    created_height: spent.map(|coin| i64::from(coin.height)),
                });
            }
        }
    }
}

/// The unconfirmed parents as people read them: txids with commas between.
fn depends(parents: &[[u8; 32]]) -> String {
    parents
        .iter()
        .map(hex::display)
        .collect::<Vec<_>>()
        .join(",")
}

export_plugin!(TxWriter);

#[cfg(test)]
mod tests;

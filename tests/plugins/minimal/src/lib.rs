//! Counts what blocks hold: a row a block, the sums in its state, and a query for them.

use blockmill_sdk::prelude::*;
use blockmill_sdk::rows::{Amount, Hash, Integer};
use blockmill_sdk::table;

table! {
    /// One row a block; the host adds its height.
    pub table Blocks of BlockRow: Anchored "minimal_block" {
        hash: Hash,
        transactions: Integer,
        outputs: Integer,
        paid: Amount,
    }
    key [];
    indexes [];
}

/// Transactions in all blocks so far: what is in the state is there after a restart, and is taken back with a block.
const TRANSACTIONS: Single<u64> = Single::new(b"transactions");
/// Outputs in all blocks so far.
const OUTPUTS: Single<u64> = Single::new(b"outputs");

/// The plugin. Its memory is a cache of its state: [`start`](Processor::start) reads back what it needs.
pub struct Minimal {
    transactions: u64,
    outputs: u64,
    blocks: Blocks,
}

impl Processor for Minimal {
    fn describe() -> Descriptor {
        Descriptor::new(
            "minimal",
            env!("CARGO_PKG_VERSION"),
            "Counts what blocks hold",
        )
        .wants(WantedColumns::OUTPUTS)
        .table::<Blocks>()
    }

    fn start(info: &StartInfo) -> Result<Self, String> {
        // Settings that nobody asks for are an error of whoever wrote them.
        info.settings()?.finish()?;
        Ok(Minimal {
            transactions: TRANSACTIONS.get()?.unwrap_or(0),
            outputs: OUTPUTS.get()?.unwrap_or(0),
            blocks: Blocks::of::<Self>(),
        })
    }

    fn on_block(&mut self, block: &Block) -> Result<BlockAnswer, BlockError> {
        let (mut transactions, mut outputs, mut paid) = (0, 0, 0);
        for tx in block.transactions() {
            transactions += 1;
            for output in tx.outputs() {
                outputs += 1;
                paid += output.value();
            }
        }
        // What a failed block may have left.
        self.blocks.clear();
        self.blocks.push(BlockRow {
            hash: block.hash(),
            transactions,
            outputs,
            paid,
        });
        self.blocks.flush();
        self.transactions += transactions.unsigned_abs();
        self.outputs += outputs.unsigned_abs();
        TRANSACTIONS.put(&self.transactions);
        OUTPUTS.put(&self.outputs);
        Ok(BlockAnswer::none())
    }

    fn query(&self, _path: &str, _params: &Params) -> Result<Json, QueryError> {
        Ok(json!({ "transactions": self.transactions, "outputs": self.outputs }))
    }
}

export_plugin!(Minimal);

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

    use super::*;
    use blockmill_sdk::testing::{Harness, chain};

    #[test]
    fn blocks_are_counted_and_forgotten_when_they_are_left() {
        let mut harness = Harness::<Minimal>::new(json!({}));
        let payment = chain::transaction(&[], &[(1000, &[0x51]), (5000, &[0x51])]);
        harness
            .block(&chain::block(chain::hash(1), 1, 50, vec![payment]))
            .unwrap();
        harness
            .block(&chain::block(chain::hash(2), 2, 50, vec![]))
            .unwrap();
        assert_eq!(harness.rows("minimal_block").len(), 2);
        assert_eq!(harness.query("", &[]).unwrap()["outputs"], 4);
        harness.restart();
        assert_eq!(harness.query("", &[]).unwrap()["outputs"], 4);
        harness.rollback(1);
        assert_eq!(harness.rows("minimal_block").len(), 1);
        assert_eq!(harness.query("", &[]).unwrap()["transactions"], 2);
    }
}

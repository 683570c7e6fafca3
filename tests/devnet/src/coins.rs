//! The set of unspent outputs, kept in the plainest way: one map, one undo record a block.
//!
//! This is an oracle for the host, so it shares nothing with it. Blocks are checked here for everything that concerns
//! coins (inputs exist, maturity, no inflation) and for nothing else; scripts are not run.

use std::collections::HashMap;

use bitcoin::{Block, Network, OutPoint, Transaction, TxOut, Txid};
use thiserror::Error;

/// Blocks a coinbase output must be deep before it may be spent.
pub const COINBASE_MATURITY: u32 = 100;
/// Scripts longer than this cannot be spent and never become coins (Core: `MAX_SCRIPT_SIZE`).
const MAX_SCRIPT_LEN: usize = 10_000;
/// `OP_RETURN`: scripts that begin with it never become coins.
const OP_RETURN: u8 = 0x6a;
/// Sat of the first subsidy.
const INITIAL_SUBSIDY: u64 = 50 * 100_000_000;
/// The two mainnet blocks whose coinbase repeats an older, unspent one (BIP30).
const BIP30_REPEATS: [u32; 2] = [91_842, 91_880];

/// An unspent output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Coin {
    /// Value and script.
    pub output: TxOut,
    /// Height of the block that made it.
    pub height: u32,
    /// Whether a coinbase made it.
    pub coinbase: bool,
}

impl Coin {
    /// Whether a transaction in a block at `height` may spend it.
    pub fn mature_at(&self, height: u32) -> bool {
        !self.coinbase || height.saturating_sub(self.height) >= COINBASE_MATURITY
    }
}

/// Why a block cannot be connected or disconnected.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum CoinError {
    /// An input spends what does not exist.
    #[error("transaction {0} spends {1}, which is missing or spent")]
    Missing(Txid, OutPoint),
    /// An input spends a coinbase that is not deep enough.
    #[error("transaction {0} spends the immature coinbase {1}")]
    Immature(Txid, OutPoint),
    /// A transaction pays out more than it takes in.
    #[error("transaction {0} pays out {1} sat, takes in {2} sat")]
    Inflation(Txid, u64, u64),
    /// The coinbase pays out more than subsidy and fees.
    #[error("coinbase pays out {0} sat, allowed are {1} sat")]
    Coinbase(u64, u64),
    /// An output exists already (BIP30).
    #[error("output {0} exists already")]
    Exists(OutPoint),
    /// There is no first transaction, or it is not a coinbase, or another one is.
    #[error("coinbase missing, not first, or twice")]
    NoCoinbase,
    /// Amounts add up past 64 bits.
    #[error("amounts overflow")]
    Overflow,
    /// There is no undo record.
    #[error("no block to disconnect")]
    NothingToUndo,
}

/// What a connected block changed.
#[derive(Debug, Default)]
struct Undo {
    /// Coins it spent, and coins of BIP30 pairs it overwrote.
    removed: Vec<(OutPoint, Coin)>,
    /// Outputs it made.
    created: Vec<OutPoint>,
}

/// The coin set after a chain of connected blocks.
#[derive(Debug)]
pub struct Coins {
    network: Network,
    coins: HashMap<OutPoint, Coin>,
    undo: Vec<Undo>,
}

impl Coins {
    /// The empty set, which is also the set after the genesis block: its coinbase can never be spent.
    pub fn new(network: Network) -> Self {
        Self {
            network,
            coins: HashMap::new(),
            undo: Vec::new(),
        }
    }

    /// Height of the last block connected.
    pub fn height(&self) -> u32 {
        u32::try_from(self.undo.len()).unwrap_or(u32::MAX)
    }

    /// Sat that a block at `height` may make out of nothing.
    pub fn subsidy(&self, height: u32) -> u64 {
        let interval = if self.network == Network::Regtest {
            150
        } else {
            210_000
        };
        INITIAL_SUBSIDY.checked_shr(height / interval).unwrap_or(0)
    }

    /// An unspent output.
    pub fn get(&self, outpoint: &OutPoint) -> Option<&Coin> {
        self.coins.get(outpoint)
    }

    /// All unspent outputs, in no order.
    pub fn iter(&self) -> impl Iterator<Item = (&OutPoint, &Coin)> {
        self.coins.iter()
    }

    /// A copy of all unspent outputs, sorted by outpoint (txid in internal order, then index).
    pub fn sorted(&self) -> Vec<(OutPoint, Coin)> {
        let mut all: Vec<_> = self
            .coins
            .iter()
            .map(|(out, coin)| (*out, coin.clone()))
            .collect();
        all.sort_unstable_by_key(|(outpoint, _)| *outpoint);
        all
    }

    /// Connects the next block and returns the fees its transactions pay, in sat. On an error nothing has changed.
    ///
    /// # Errors
    /// Every [`CoinError`] but `NothingToUndo`.
    pub fn connect(&mut self, block: &Block) -> Result<u64, CoinError> {
        let height = self.height().saturating_add(1);
        let mut undo = Undo::default();
        match self.apply(block, height, &mut undo) {
            Ok(fees) => {
                self.undo.push(undo);
                Ok(fees)
            }
            Err(error) => {
                self.revert(undo);
                Err(error)
            }
        }
    }

    /// Takes the last connected block back.
    ///
    /// # Errors
    /// `NothingToUndo` at genesis.
    pub fn disconnect(&mut self) -> Result<(), CoinError> {
        let undo = self.undo.pop().ok_or(CoinError::NothingToUndo)?;
        self.revert(undo);
        Ok(())
    }

    fn apply(&mut self, block: &Block, height: u32, undo: &mut Undo) -> Result<u64, CoinError> {
        let (coinbase, others) = block.txdata.split_first().ok_or(CoinError::NoCoinbase)?;
        if !coinbase.is_coinbase() || others.iter().any(Transaction::is_coinbase) {
            return Err(CoinError::NoCoinbase);
        }
        let mut fees = 0_u64;
        self.create(coinbase, true, height, undo)?;
        for tx in others {
            let txid = tx.compute_txid();
            let mut taken = 0_u64;
            for input in &tx.input {
                let outpoint = input.previous_output;
                let coin = self
                    .coins
                    .remove(&outpoint)
                    .ok_or(CoinError::Missing(txid, outpoint))?;
                let mature = coin.mature_at(height);
                let value = coin.output.value.to_sat();
                undo.removed.push((outpoint, coin));
                if !mature {
                    return Err(CoinError::Immature(txid, outpoint));
                }
                taken = taken.checked_add(value).ok_or(CoinError::Overflow)?;
            }
            let paid = total_out(tx)?;
            let fee = taken
                .checked_sub(paid)
                .ok_or(CoinError::Inflation(txid, paid, taken))?;
            fees = fees.checked_add(fee).ok_or(CoinError::Overflow)?;
            self.create(tx, false, height, undo)?;
        }
        let allowed = self
            .subsidy(height)
            .checked_add(fees)
            .ok_or(CoinError::Overflow)?;
        let claimed = total_out(coinbase)?;
        if claimed > allowed {
            return Err(CoinError::Coinbase(claimed, allowed));
        }
        Ok(fees)
    }

    fn create(
        &mut self,
        tx: &Transaction,
        coinbase: bool,
        height: u32,
        undo: &mut Undo,
    ) -> Result<(), CoinError> {
        let txid = tx.compute_txid();
        for (vout, output) in (0_u32..).zip(&tx.output) {
            let script = output.script_pubkey.as_bytes();
            if script.first() == Some(&OP_RETURN) || script.len() > MAX_SCRIPT_LEN {
                continue;
            }
            let outpoint = OutPoint { txid, vout };
            let coin = Coin {
                output: output.clone(),
                height,
                coinbase,
            };
            let overwritten = self.coins.insert(outpoint, coin);
            undo.created.push(outpoint);
            if let Some(old) = overwritten {
                undo.removed.push((outpoint, old));
                let known = self.network == Network::Bitcoin && BIP30_REPEATS.contains(&height);
                if !known {
                    return Err(CoinError::Exists(outpoint));
                }
            }
        }
        Ok(())
    }

    fn revert(&mut self, undo: Undo) {
        // Created outputs go first and everything removed comes back after, so that a coin that was overwritten by its
        // BIP30 twin returns. Coins made and spent in this block are in both lists and must not.
        let height = self.height().saturating_add(1);
        for outpoint in undo.created {
            self.coins.remove(&outpoint);
        }
        for (outpoint, coin) in undo.removed {
            if coin.height < height {
                self.coins.insert(outpoint, coin);
            }
        }
    }
}

fn total_out(tx: &Transaction) -> Result<u64, CoinError> {
    tx.output.iter().try_fold(0_u64, |sum, output| {
        sum.checked_add(output.value.to_sat())
            .ok_or(CoinError::Overflow)
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]
    use super::*;
    use bitcoin::absolute::LockTime;
    use bitcoin::hashes::Hash;
    use bitcoin::transaction::Version;
    use bitcoin::{Amount, ScriptBuf, Sequence, TxIn, Witness};

    fn pay(inputs: &[OutPoint], outputs: &[u64]) -> Transaction {
        let input = |previous_output: &OutPoint| TxIn {
            previous_output: *previous_output,
            script_sig: ScriptBuf::new(),
            sequence: Sequence::MAX,
            witness: Witness::new(),
        };
        let output = |value: &u64| TxOut {
            value: Amount::from_sat(*value),
            script_pubkey: ScriptBuf::from_bytes(vec![0x51]),
        };
        Transaction {
            version: Version::TWO,
            lock_time: LockTime::ZERO,
            input: inputs.iter().map(input).collect(),
            output: outputs.iter().map(output).collect(),
        }
    }

    /// A coinbase that differs from others in `mark`.
    fn coinbase(mark: u32, value: u64) -> Transaction {
        let mut tx = pay(&[OutPoint::null()], &[value]);
        tx.input[0].script_sig = ScriptBuf::from_bytes(mark.to_le_bytes().to_vec());
        tx
    }

    fn block(txdata: Vec<Transaction>) -> Block {
        let mut block = bitcoin::constants::genesis_block(Network::Regtest);
        block.txdata = txdata;
        block
    }

    fn first(tx: &Transaction) -> OutPoint {
        OutPoint {
            txid: tx.compute_txid(),
            vout: 0,
        }
    }

    /// A set at `height` whose coinbases are marked with their heights.
    fn at_height(network: Network, height: u32) -> Coins {
        let mut coins = Coins::new(network);
        for height in 1..=height {
            assert_eq!(coins.connect(&block(vec![coinbase(height, 1_000)])), Ok(0));
        }
        coins
    }

    #[test]
    fn every_way_to_break_the_rules_of_coins_is_refused_and_leaves_no_trace() {
        let mut coins = at_height(Network::Regtest, 100);
        let before = coins.sorted();
        let (old, young) = (first(&coinbase(1, 1_000)), first(&coinbase(2, 1_000)));
        let nowhere = OutPoint {
            txid: Txid::all_zeros(),
            vout: 0,
        };
        let good = pay(&[old], &[900]);
        let spend = |tx: &Transaction| block(vec![coinbase(101, 0), tx.clone()]);

        let tx = pay(&[nowhere], &[1]);
        let missing = CoinError::Missing(tx.compute_txid(), nowhere);
        assert_eq!(coins.connect(&spend(&tx)), Err(missing));
        let twice = pay(&[old], &[800]);
        let missing = CoinError::Missing(twice.compute_txid(), old);
        assert_eq!(
            coins.connect(&block(vec![coinbase(101, 0), good.clone(), twice])),
            Err(missing)
        );
        let tx = pay(&[young], &[1]);
        assert_eq!(
            coins.connect(&spend(&tx)),
            Err(CoinError::Immature(tx.compute_txid(), young))
        );
        let tx = pay(&[old], &[1_001]);
        let inflation = CoinError::Inflation(tx.compute_txid(), 1_001, 1_000);
        assert_eq!(coins.connect(&spend(&tx)), Err(inflation));
        let greedy = block(vec![coinbase(101, INITIAL_SUBSIDY + 101), good.clone()]);
        let claim = CoinError::Coinbase(INITIAL_SUBSIDY + 101, INITIAL_SUBSIDY + 100);
        assert_eq!(coins.connect(&greedy), Err(claim));
        let tx = pay(&[old], &[u64::MAX, 2]);
        assert_eq!(coins.connect(&spend(&tx)), Err(CoinError::Overflow));
        assert_eq!(
            coins.connect(&block(vec![coinbase(1, 0), good.clone()])),
            Ok(100)
        );
        coins.disconnect().unwrap();
        let repeat = block(vec![coinbase(1, 1_000)]);
        assert_eq!(coins.connect(&repeat), Err(CoinError::Exists(old)));
        for wrong in [
            vec![],
            vec![good.clone()],
            vec![coinbase(1, 0), coinbase(2, 0)],
        ] {
            assert_eq!(coins.connect(&block(wrong)), Err(CoinError::NoCoinbase));
        }
        assert_eq!(coins.height(), 100);
        assert_eq!(coins.sorted(), before);

        let taken_whole = block(vec![coinbase(101, INITIAL_SUBSIDY + 100), good]);
        assert_eq!(coins.connect(&taken_whole), Ok(100));
        coins.disconnect().unwrap();
        assert_eq!(coins.sorted(), before);
        assert_eq!(
            Coins::new(Network::Regtest).disconnect(),
            Err(CoinError::NothingToUndo)
        );
    }

    #[test]
    fn the_bip30_pairs_of_mainnet_overwrite_and_come_back_when_undone() {
        let mut coins = at_height(Network::Bitcoin, 91_879);
        let old = first(&coinbase(91_722, 1_000));
        let before = coins.sorted();
        assert_eq!(coins.get(&old).unwrap().height, 91_722);
        coins
            .connect(&block(vec![coinbase(91_722, 1_000)]))
            .unwrap();
        assert_eq!(coins.get(&old).unwrap().height, 91_880);
        assert_eq!(coins.iter().count(), before.len());
        coins.disconnect().unwrap();
        assert_eq!(coins.sorted(), before);
    }

    #[test]
    fn what_cannot_be_spent_is_no_coin_and_a_coin_may_live_within_a_block() {
        let mut coins = at_height(Network::Regtest, 100);
        let before = coins.sorted();
        let mut parent = pay(&[first(&coinbase(1, 1_000))], &[500, 100, 100, 300]);
        parent.output[1].script_pubkey = ScriptBuf::from_bytes(vec![OP_RETURN, 1, 2]);
        parent.output[2].script_pubkey = ScriptBuf::from_bytes(vec![0x51; MAX_SCRIPT_LEN + 1]);
        parent.output[3].script_pubkey = ScriptBuf::from_bytes(vec![0x51; MAX_SCRIPT_LEN]);
        let child = pay(&[first(&parent)], &[450]);
        let mined = block(vec![coinbase(101, 1_000), parent.clone(), child.clone()]);
        assert_eq!(coins.connect(&mined), Ok(50));
        let outpoint = |vout| OutPoint {
            txid: parent.compute_txid(),
            vout,
        };
        let there: Vec<bool> = (0..4)
            .map(|vout| coins.get(&outpoint(vout)).is_some())
            .collect();
        assert_eq!(there, [false, false, false, true]);
        assert!(coins.get(&first(&child)).is_some());
        coins.disconnect().unwrap();
        assert_eq!(coins.sorted(), before);
    }

    #[test]
    fn subsidies_halve_as_each_network_has_it() {
        let regtest = Coins::new(Network::Regtest);
        let main = Coins::new(Network::Bitcoin);
        let early = [5_000_000_000, 2_500_000_000, 1_250_000_000];
        assert_eq!([149, 150, 300].map(|height| regtest.subsidy(height)), early);
        let late = [5_000_000_000, 2_500_000_000];
        assert_eq!([209_999, 210_000].map(|height| main.subsidy(height)), late);
        assert_eq!(main.subsidy(210_000 * 33), 0);
        assert_eq!(main.subsidy(210_000 * 64), 0);
    }
}

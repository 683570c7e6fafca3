//! Whatever happens in whatever order, the figures are those that are computed from nothing.

use bitcoin::{ScriptBuf, Sequence, Transaction};
use proptest::prelude::*;

use super::chain::{coinbase, median_time};
use super::*;

#[derive(Debug, Clone)]
enum Step {
    /// A transaction that spends some outputs of the chain or of the pool, or of neither.
    Offer {
        picks: Vec<prop::sample::Index>,
        outputs: u8,
        fee: u64,
        sequence: u32,
    },
    /// A block of some of the pool, its parents first, and of some transactions that nobody has
    /// seen.
    Connect {
        picks: Vec<prop::sample::Index>,
        strangers: Vec<prop::sample::Index>,
    },
    /// So many blocks less and so many others instead.
    Reorg {
        depth: usize,
        keep: Vec<prop::sample::Index>,
        /// The new blocks are so many seconds apart, or as far as others.
        apart: Option<u32>,
    },
    Expire(u64),
    Drain,
}

fn picks(max: usize) -> impl Strategy<Value = Vec<prop::sample::Index>> {
    prop::collection::vec(any::<prop::sample::Index>(), 0..max)
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        12 => (prop::collection::vec(any::<prop::sample::Index>(), 1..4), 1..4u8, 0..5_000u64, sequence())
            .prop_map(|(picks, outputs, fee, sequence)| Step::Offer { picks, outputs, fee, sequence }),
        2 => (picks(6), picks(3)).prop_map(|(picks, strangers)| Step::Connect { picks, strangers }),
        1 => (1..4usize, picks(4), prop::option::of(0..600u32))
            .prop_map(|(depth, keep, apart)| Step::Reorg { depth, keep, apart }),
        1 => (0..400u64).prop_map(Step::Expire),
        2 => Just(Step::Drain),
    ]
}

/// Mostly none, else a relative lock of a few blocks, or by time of as many (BIP68).
fn sequence() -> impl Strategy<Value = u32> {
    prop_oneof![
        3 => Just(u32::MAX),
        1 => 1..4u32,
        1 => (1..4u32).prop_map(|lock| BY_TIME | lock),
    ]
}

/// BIP68, a lock by time.
const BY_TIME: u32 = 1 << 22;

fn decode(entry: &Entry) -> Transaction {
    bitcoin::consensus::deserialize(&entry.raw).unwrap()
}

/// Everything in the pool that could be in the next block, and a part of it, closed under parents.
fn with_parents(pool: &Mempool, picks: &[prop::sample::Index]) -> Vec<Transaction> {
    let snapshot = pool.snapshot();
    if snapshot.is_empty() {
        return Vec::new();
    }
    let mut wanted: std::collections::HashSet<Txid> =
        picks.iter().map(|pick| pick.get(&snapshot).txid).collect();
    for entry in snapshot.iter().rev() {
        if wanted.contains(&entry.txid) {
            wanted.extend(entry.depends.iter().copied());
        }
    }
    snapshot
        .iter()
        .filter(|entry| wanted.contains(&entry.txid))
        .map(|entry| decode(entry))
        .collect()
}

struct World {
    chain: Chain,
    pool: Mempool,
    /// Outputs that were ever made, to be spent again or for the first time.
    outpoints: Vec<OutPoint>,
    values: std::collections::HashMap<OutPoint, u64>,
    now: u64,
    blocks: u32,
    /// What a consumer of the changes believes the pool to be.
    mirror: std::collections::HashSet<Txid>,
}

impl World {
    fn new(max_bytes: usize) -> Self {
        let (chain, outpoints) = Chain::with_coins(101, 40, 1_000_000);
        let values = outpoints
            .iter()
            .map(|outpoint| (*outpoint, 1_000_000))
            .collect();
        // Small limits, so that they are met.
        let config = MempoolConfig {
            max_bytes,
            expiry_seconds: 300,
            max_cluster_entries: 12,
            max_orphans: 5,
            ..Default::default()
        };
        let mirror = Default::default();
        Self {
            chain,
            pool: Mempool::new(config),
            outpoints,
            values,
            now: NOW,
            blocks: 0,
            mirror,
        }
    }

    fn made(&mut self, inputs: &[OutPoint], outputs: u8, fee: u64, sequence: u32) -> Transaction {
        let sum: u64 = inputs.iter().map(|outpoint| self.values[outpoint]).sum();
        let each = sum.saturating_sub(fee) / u64::from(outputs);
        let mut tx = spend(inputs, &vec![each; outputs as usize]);
        tx.input[0].sequence = Sequence(sequence);
        if outputs == 3 {
            // Operations that count for more than its weight.
            tx.output[2].script_pubkey = ScriptBuf::from_bytes(vec![0xac; 20]);
        }
        let txid = tx.compute_txid();
        for vout in 0..u32::from(outputs) {
            let outpoint = OutPoint::new(txid, vout);
            if self.values.insert(outpoint, each).is_none() {
                self.outpoints.push(outpoint);
            }
        }
        tx
    }

    fn reward(&mut self) -> Transaction {
        self.blocks += 1;
        let tx = coinbase(10_000 + self.blocks);
        self.outpoints.push(pay(&tx));
        self.values.insert(pay(&tx), tx.output[0].value.to_sat());
        tx
    }

    fn block(&mut self, mut txs: Vec<Transaction>, strangers: &[prop::sample::Index]) {
        let mut spent: std::collections::HashSet<OutPoint> = txs
            .iter()
            .flat_map(|tx| tx.input.iter().map(|input| input.previous_output))
            .collect();
        let mut coins: Vec<OutPoint> = self
            .chain
            .coins
            .iter()
            .filter(|(_, coin)| !coin.coinbase)
            .map(|(outpoint, _)| *outpoint)
            .collect();
        coins.sort();
        for stranger in strangers {
            let coin = *stranger.get(&coins);
            if spent.insert(coin) {
                let tx = self.made(&[coin], 2, 3, u32::MAX);
                if txs
                    .iter()
                    .all(|other| other.compute_txid() != tx.compute_txid())
                {
                    txs.push(tx);
                }
            }
        }
        let reward = self.reward();
        txs.insert(0, reward);
        self.chain.connect_both(&mut self.pool, txs);
    }

    fn take(&mut self, step: Step) {
        self.now += 1;
        match step {
            Step::Offer {
                picks,
                outputs,
                fee,
                sequence,
            } => {
                let mut inputs: Vec<OutPoint> = picks
                    .iter()
                    .map(|pick| *pick.get(&self.outpoints))
                    .collect();
                inputs.sort();
                inputs.dedup();
                let tx = self.made(&inputs, outputs, fee, sequence);
                let _ = self
                    .pool
                    .accept(raw(&tx), self.now, &self.chain, self.chain.tip());
            }
            Step::Connect { picks, strangers } => {
                let txs = with_parents(&self.pool, &picks);
                self.block(txs, &strangers);
                self.pool
                    .settle(self.now, &self.chain, self.chain.tip())
                    .unwrap();
            }
            Step::Reorg { depth, keep, apart } => {
                let depth = depth.min(self.blocks.min(3) as usize);
                let mut abandoned = Vec::new();
                for _ in 0..depth {
                    abandoned.push(self.chain.disconnect_both(&mut self.pool));
                }
                // The new branch holds some of what the old one held, where it still fits, and is
                // one block longer.
                let abandoned: Vec<Transaction> = abandoned
                    .into_iter()
                    .rev()
                    .flatten()
                    .filter(|tx| !tx.is_coinbase())
                    .collect();
                for at in 0..=depth {
                    let mut txs = Vec::new();
                    if at == 0 && !abandoned.is_empty() {
                        let kept: Vec<Txid> = keep
                            .iter()
                            .map(|pick| pick.get(&abandoned).compute_txid())
                            .collect();
                        let fits = |tx: &&Transaction| {
                            kept.contains(&tx.compute_txid())
                                && tx.input.iter().all(|input| {
                                    self.chain.coins.contains_key(&input.previous_output)
                                })
                        };
                        txs = abandoned.iter().filter(fits).cloned().collect();
                    }
                    let tip = self.chain.tip();
                    let slow = apart.map(|apart| tip.median_time + apart);
                    let time = slow.unwrap_or_else(|| median_time(tip.height + 1));
                    self.chain.times.insert(tip.height + 1, time);
                    self.block(txs, if at == 1 { &keep } else { &[] });
                }
                self.pool
                    .settle(self.now, &self.chain, self.chain.tip())
                    .unwrap();
            }
            Step::Expire(seconds) => {
                self.now += seconds;
                self.pool.expire(self.now);
            }
            Step::Drain => self.drain(),
        }
    }

    fn drain(&mut self) {
        let changes = self.pool.drain_changes();
        for (txid, _) in changes.removed {
            assert!(
                self.mirror.remove(&txid),
                "{txid} was taken out and was not there"
            );
        }
        for (entry, _) in changes.added {
            assert!(
                entry
                    .depends
                    .iter()
                    .all(|parent| self.mirror.contains(parent)),
                "a child was told of before its parent"
            );
            assert!(
                self.mirror.insert(entry.txid),
                "{} was told of twice",
                entry.txid
            );
        }
        let pool: std::collections::HashSet<Txid> = self
            .pool
            .snapshot()
            .iter()
            .map(|entry| entry.txid)
            .collect();
        assert_eq!(self.mirror, pool);
    }

    /// Every entry could be in the next block.
    fn verify(&self) {
        self.pool.verify();
        for entry in self.pool.snapshot() {
            let mut sum = 0;
            for outpoint in &entry.spends {
                let coin = self.chain.coins.get(outpoint);
                match coin {
                    Some(coin) => {
                        assert!(!coin.coinbase || coin.height + 100 <= self.chain.tip().height + 1);
                        sum += coin.value;
                    }
                    None => {
                        assert!(
                            entry.depends.contains(&outpoint.txid),
                            "{outpoint} is neither a coin nor in the pool"
                        );
                        sum += self.values[outpoint];
                    }
                }
            }
            assert_eq!(entry.fee, sum - entry.output_values.iter().sum::<u64>());
            self.assert_is_open(&entry);
            // No script here refers to another one: the crate needs none of those that are spent.
            let cost = decode(&entry).total_sigop_cost(|_| None) as u64;
            assert_eq!(entry.sigop_cost, Some(cost as u32));
            assert_eq!(entry.vsize, entry.weight.max(cost * 20).div_ceil(4));
        }
    }

    /// Its relative locks are open in the next block, as BIP68 has it.
    fn assert_is_open(&self, entry: &Entry) {
        let tip = self.chain.tip();
        for input in decode(entry).input {
            let sequence = input.sequence.0;
            if sequence == u32::MAX {
                continue;
            }
            let coin = self.chain.coins.get(&input.previous_output);
            let height = coin.map_or(tip.height + 1, |coin| coin.height);
            let lock = sequence & 0xffff;
            if sequence & BY_TIME == 0 {
                assert!(height + lock <= tip.height + 1, "{} blocks", lock);
            } else {
                let since = self.chain.median_time_at(height - 1).unwrap();
                assert!(since + lock * 512 <= tip.median_time, "{lock} * 512 s");
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    #[test]
    fn any_sequence_leaves_the_figures_that_are_computed_from_nothing(
        steps in prop::collection::vec(step(), 1..100),
        max_bytes in prop_oneof![Just(300_000_000usize), 5_000..30_000usize],
    ) {
        let mut world = World::new(max_bytes);
        for step in steps {
            world.take(step);
            world.verify();
        }
        world.drain();
    }

    #[test]
    fn any_bytes_are_refused_and_never_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let (chain, _) = Chain::with_coins(1, 1, 1);
        let mut pool = Mempool::new(MempoolConfig::default());
        let refused = matches!(pool.accept(Bytes::from(bytes), NOW, &chain, chain.tip()), Ok(Accepted::Orphan { .. }) | Err(_));
        prop_assert!(refused);
    }

    /// A real transaction with one byte changed.
    #[test]
    fn a_changed_transaction_is_refused_or_another(at in any::<prop::sample::Index>(), bit in 0..8u8) {
        let (chain, coins) = Chain::with_coins(200, 2, 100_000);
        let mut bytes = raw(&spend(&coins, &[90_000, 90_000])).to_vec();
        let at = at.index(bytes.len());
        bytes[at] ^= 1 << bit;
        let mut pool = Mempool::new(MempoolConfig::default());
        let _ = pool.accept(Bytes::from(bytes), NOW, &chain, chain.tip());
        pool.verify();
    }
}

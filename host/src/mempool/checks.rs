//! What a transaction must be to enter the pool, scripts aside.

use std::sync::Arc;

use bitcoin::{Amount, OutPoint, ScriptBuf, Transaction, Txid, Wtxid};
use bytes::Bytes;

use super::coins::{CoinLookup, Tip};
use super::entry::{Entry, Figures, Locks};
use super::graph::Graph;
use super::{COINBASE_MATURITY, MempoolConfig, sigops};

/// Core's `MAX_STANDARD_TX_WEIGHT`, in weight units.
const MAX_WEIGHT: u64 = 400_000;

/// Core's `MIN_STANDARD_TX_NONWITNESS_SIZE`: 64 bytes could be an inner node of a merkle tree
/// (CVE-2017-12842).
const MIN_BASE_BYTES: usize = 65;

/// Core's `MAX_STANDARD_TX_SIGOPS_COST`: a fifth of a block's.
const MAX_SIGOP_COST: u64 = 16_000;

/// Weight units that a signature operation counts for at least: Core's `DEFAULT_BYTES_PER_SIGOP`, which are virtual bytes for each that
/// costs four.
const WEIGHT_PER_SIGOP: u64 = 20;

/// Lock times below this are heights, from it on unix times.
const LOCK_TIME_THRESHOLD: u32 = 500_000_000;

/// BIP68: set, the sequence is no lock; set, it is a lock by time; the value, which of a lock by time counts 512 seconds.
const SEQUENCE_NO_LOCK: u32 = 1 << 31;
const SEQUENCE_TIME: u32 = 1 << 22;
const SEQUENCE_VALUE: u32 = 0xffff;
const SEQUENCE_GRANULARITY: u32 = 9;

/// How a transaction breaks a rule that holds whatever the chain is.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// It does not decode, or bytes are left over.
    #[error("it does not decode: {0}")]
    Encoding(String),
    /// No inputs or no outputs.
    #[error("it has no inputs or no outputs")]
    Empty,
    /// An output, or their sum, is above 21 million bitcoin.
    #[error("its outputs are out of range")]
    OutputRange,
    /// Two inputs spend the same outpoint (CVE-2018-17144).
    #[error("two of its inputs spend the same output")]
    DuplicateInput,
    /// A coinbase outside of a block, or an input with the null outpoint.
    #[error("it is a coinbase or has a null input")]
    Coinbase,
}

/// Why a transaction is not in the pool.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// It breaks a consensus rule by itself: the peer that sent it misbehaves.
    #[error("malformed: {0}")]
    Malformed(#[from] Malformed),
    /// More than 400,000 weight units, or fewer than 65 bytes without witnesses.
    #[error("its size is not standard: {weight} weight units")]
    NotStandard {
        /// In weight units.
        weight: u64,
    },
    /// More operations on signatures than a standard transaction may have.
    #[error("its signature operations cost {cost}, more than the standard {MAX_SIGOP_COST}")]
    TooManySigops {
        /// As consensus counts them.
        cost: u64,
    },
    /// The pool has it.
    #[error("already in the pool")]
    Known,
    /// A block has it.
    #[error("already confirmed")]
    Confirmed,
    /// Outputs that neither the chain nor the pool has. [`Mempool::accept`](super::Mempool::accept)
    /// keeps such a transaction as an orphan and does not answer with this.
    #[error("inputs are missing")]
    MissingInputs {
        /// Transactions that are not known.
        missing: Vec<Txid>,
    },
    /// It spends a coinbase too early.
    #[error("it spends a coinbase output of height {height} too early")]
    Immature {
        /// Of the coinbase.
        height: u32,
    },
    /// Outputs are worth more than inputs.
    #[error("it spends {spent} sat out of {available} sat")]
    Overspends {
        /// Sum of the outputs, in sat.
        spent: u64,
        /// Sum of the inputs, in sat.
        available: u64,
    },
    /// Its lock time, or a relative lock (BIP68), keeps it out of the next block.
    #[error("it is locked beyond the next block")]
    Locked,
    /// Less than the minimum fee rate.
    #[error("fee of {fee} sat for {vsize} vB is below {min_fee_rate} sat/kvB")]
    LowFee {
        /// In sat.
        fee: u64,
        /// In virtual bytes.
        vsize: u64,
        /// In sat/kvB.
        min_fee_rate: f64,
    },
    /// An entry spends the same output, and this is no replacement for it.
    #[error("conflicts with {with}: {why}")]
    Conflict {
        /// One such entry.
        with: Txid,
        /// The term of a replacement that it fails.
        why: &'static str,
    },
    /// Too many unconfirmed transactions hang together, or with too many bytes.
    #[error("too many unconfirmed transactions hang together")]
    LongChain,
    /// The pool is full of transactions that pay more.
    #[error("the pool is full, its minimum is {min_fee_rate} sat/kvB")]
    PoolFull {
        /// In sat/kvB.
        min_fee_rate: f64,
    },
    /// A saved transaction whose time is over.
    #[error("expired")]
    Expired,
    /// The coins could not be looked up. Nothing is said about the transaction.
    #[error("failed to look up coins")]
    Coins(#[source] anyhow::Error),
}

impl Refused {
    /// Whether offering it again before the next block would be refused again.
    pub fn is_about_the_transaction(&self) -> bool {
        !matches!(
            self,
            Self::Known | Self::Coins(_) | Self::MissingInputs { .. }
        )
    }

    /// Whether it only pays too little: with a child that pays for it, it may be taken before the
    /// next block (Core's `TX_RECONSIDERABLE`).
    pub fn is_reconsiderable(&self) -> bool {
        matches!(
            self,
            Self::LowFee { .. } | Self::PoolFull { .. } | Self::Conflict { .. }
        )
    }
}

/// A decoded transaction that is well formed.
#[derive(Debug, Clone)]
pub(super) struct Candidate {
    pub(super) txid: Txid,
    pub(super) wtxid: Wtxid,
    tx: Transaction,
    raw: Bytes,
    weight: u64,
}

impl Candidate {
    pub(super) fn decode(raw: &Bytes) -> Result<Self, Refused> {
        // Witness bytes weigh one unit each: nothing longer can be standard, and nothing longer is
        // decoded.
        if raw.len() as u64 > MAX_WEIGHT {
            return Err(Refused::NotStandard {
                weight: raw.len() as u64,
            });
        }
        let tx: Transaction = bitcoin::consensus::deserialize(raw)
            .map_err(|error| Malformed::Encoding(error.to_string()))?;
        check_form(&tx)?;
        let weight = tx.weight().to_wu();
        if weight > MAX_WEIGHT || tx.base_size() < MIN_BASE_BYTES {
            return Err(Refused::NotStandard { weight });
        }
        Ok(Self {
            txid: tx.compute_txid(),
            wtxid: tx.compute_wtxid(),
            tx,
            raw: Bytes::copy_from_slice(raw),
            weight,
        })
    }

    /// Looks up what it spends, in the pool and in the chain, and makes an entry of it, not yet
    /// linked to others.
    pub(super) fn price(
        self,
        graph: &Graph,
        rules: &MempoolConfig,
        coins: &dyn CoinLookup,
        tip: Tip,
    ) -> Result<Entry, Refused> {
        self.price_with(graph, None, rules, coins, tip)
    }

    /// As [`price`](Self::price), as if `parent` were in the pool already.
    pub(super) fn price_with(
        self,
        graph: &Graph,
        parent: Option<&Entry>,
        rules: &MempoolConfig,
        coins: &dyn CoinLookup,
        tip: Tip,
    ) -> Result<Entry, Refused> {
        let spends: Vec<OutPoint> = self
            .tx
            .input
            .iter()
            .map(|input| input.previous_output)
            .collect();
        let next_height = tip.height.saturating_add(1);
        let mut depends = Vec::new();
        let mut locks = self.lock_time();
        // Value and height of each; `None` until the chain is asked.
        let mut spent: Vec<Option<(u64, u32)>> = Vec::with_capacity(spends.len());
        let mut scripts: Vec<ScriptBuf> = vec![ScriptBuf::new(); spends.len()];
        let mut unknown = Vec::new();
        for outpoint in &spends {
            let value = match parent.filter(|parent| parent.txid == outpoint.txid) {
                Some(parent) => parent.output_values.get(outpoint.vout as usize).copied(),
                None => graph.output_value(outpoint),
            };
            if value.is_some() && !depends.contains(&outpoint.txid) {
                depends.push(outpoint.txid);
            }
            if value.is_none() {
                unknown.push(*outpoint);
            }
            spent.push(value.map(|value| (value, next_height)));
        }

        let mut missing = Vec::new();
        if !unknown.is_empty() {
            let found = coins.coins(&unknown).map_err(Refused::Coins)?;
            if found.len() != unknown.len() {
                return Err(Refused::Coins(anyhow::anyhow!(
                    "{} answers to {} questions",
                    found.len(),
                    unknown.len()
                )));
            }
            let mut answers = unknown.iter().zip(found);
            let open = spent.iter_mut().zip(&mut scripts);
            for (slot, script) in open.filter(|(slot, _)| slot.is_none()) {
                match answers.next() {
                    Some((_, Some(coin))) => {
                        if coin.coinbase {
                            locks.not_before(coin.height.saturating_add(COINBASE_MATURITY));
                            if next_height.saturating_sub(coin.height) < COINBASE_MATURITY {
                                return Err(Refused::Immature {
                                    height: coin.height,
                                });
                            }
                        }
                        *slot = Some((coin.value, coin.height));
                        *script = sigops::counted(coin.script);
                    }
                    Some((outpoint, None)) if !missing.contains(&outpoint.txid) => {
                        missing.push(outpoint.txid)
                    }
                    _ => {}
                }
            }
        }
        if !missing.is_empty() {
            return Err(self.why_missing(coins, missing));
        }

        let spent: Vec<(u64, u32)> = spent.into_iter().flatten().collect();
        if rules.relative_locks {
            self.add_relative_locks(&mut locks, &spent, coins)?;
        }
        if !locks.are_open(tip) {
            return Err(Refused::Locked);
        }
        let available = spent
            .iter()
            .try_fold(0u64, |sum, (value, _)| sum.checked_add(*value))
            .unwrap_or(u64::MAX);
        let output_values: Vec<u64> = self
            .tx
            .output
            .iter()
            .map(|output| output.value.to_sat())
            .collect();
        let paid: u64 = output_values.iter().sum();
        let fee = available.checked_sub(paid).ok_or(Refused::Overspends {
            spent: paid,
            available,
        })?;
        let sigop_cost = if rules.sigops {
            let parents = depends.iter().filter_map(|txid| {
                let given = parent.filter(|parent| parent.txid == *txid);
                given.or_else(|| graph.get(txid).map(Arc::as_ref))
            });
            self.sigop_cost(parents, scripts, rules)?
        } else {
            0
        };
        Ok(Entry {
            txid: self.txid,
            wtxid: self.wtxid,
            size: self.raw.len() as u64,
            raw: self.raw,
            fee,
            vsize: self
                .weight
                .max(u64::from(sigop_cost) * WEIGHT_PER_SIGOP)
                .div_ceil(4),
            weight: self.weight,
            sigop_cost: Some(sigop_cost),
            first_seen: 0,
            depends,
            spends,
            output_values,
            locks,
            ancestors: Figures::default(),
            descendants: Figures::default(),
        })
    }

    /// What its operations on signatures cost, given the scripts that it spends of the chain, and the entries of which it spends
    /// others.
    fn sigop_cost<'a>(
        &self,
        parents: impl Iterator<Item = &'a Entry> + Clone,
        mut scripts: Vec<ScriptBuf>,
        rules: &MempoolConfig,
    ) -> Result<u32, Refused> {
        // Parents are decoded for their scripts: no more of them than may hang together.
        let (count, vsize) = parents.clone().fold((1, 0), |sum: (u64, u64), parent| {
            (sum.0 + 1, sum.1.saturating_add(parent.vsize))
        });
        if count > rules.max_cluster_entries
            || vsize.saturating_add(self.weight.div_ceil(4)) > rules.max_cluster_vsize
        {
            return Err(Refused::LongChain);
        }
        for parent in parents {
            let Ok(tx) = bitcoin::consensus::deserialize::<Transaction>(&parent.raw) else {
                continue;
            };
            for (input, script) in self.tx.input.iter().zip(&mut scripts) {
                let OutPoint { txid, vout } = input.previous_output;
                if let (true, Some(output)) = (txid == parent.txid, tx.output.get(vout as usize)) {
                    *script = sigops::counted(output.script_pubkey.clone());
                }
            }
        }
        let cost = sigops::cost(&self.tx, scripts.iter().map(|script| script.as_script()));
        match u32::try_from(cost) {
            Ok(small) if cost <= MAX_SIGOP_COST => Ok(small),
            _ => Err(Refused::TooManySigops { cost }),
        }
    }

    /// Inputs are also missing when a block has the transaction itself: then an output of it may be
    /// there.
    fn why_missing(&self, coins: &dyn CoinLookup, missing: Vec<Txid>) -> Refused {
        let own: Vec<OutPoint> = (0..self.tx.output.len() as u32)
            .map(|vout| OutPoint::new(self.txid, vout))
            .collect();
        match coins.coins(&own) {
            Ok(found) if found.iter().any(Option::is_some) => Refused::Confirmed,
            Ok(_) => Refused::MissingInputs { missing },
            Err(error) => Refused::Coins(error),
        }
    }

    /// What its lock time says (BIP65, BIP113): it is in no block up to that height, or that time.
    fn lock_time(&self) -> Locks {
        let lock_time = self.tx.lock_time.to_consensus_u32();
        let mut locks = Locks::default();
        if lock_time == 0 || !self.tx.is_lock_time_enabled() {
            return locks;
        }
        if lock_time < LOCK_TIME_THRESHOLD {
            locks.not_before(lock_time + 1);
        } else {
            locks.not_until(lock_time);
        }
        locks
    }

    /// What its inputs say, given the value and height of what each spends (BIP68; Core's `CalculateSequenceLocks`).
    fn add_relative_locks(
        &self,
        locks: &mut Locks,
        spent: &[(u64, u32)],
        coins: &dyn CoinLookup,
    ) -> Result<(), Refused> {
        // Core compares the version as unsigned.
        if (self.tx.version.0 as u32) < 2 {
            return Ok(());
        }
        for (input, (_, height)) in self.tx.input.iter().zip(spent) {
            let sequence = input.sequence.to_consensus_u32();
            let lock = sequence & SEQUENCE_VALUE;
            // A lock of nothing is open wherever the coin is: median times never fall along a chain.
            if sequence & SEQUENCE_NO_LOCK != 0 || lock == 0 {
                continue;
            }
            locks.relative = true;
            if sequence & SEQUENCE_TIME == 0 {
                locks.not_before(height.saturating_add(lock));
                continue;
            }
            // From the block before the one that holds the coin, or would hold it.
            let from = coins
                .median_time_at(height.saturating_sub(1))
                .map_err(Refused::Coins)?;
            // The last second at which it is closed: BIP68 has the meaning of lock times.
            let closed = from.saturating_add((lock << SEQUENCE_GRANULARITY) - 1);
            locks.not_until(closed);
        }
        Ok(())
    }
}

/// Core's `CheckTransaction`.
fn check_form(tx: &Transaction) -> Result<(), Malformed> {
    if tx.input.is_empty() || tx.output.is_empty() {
        return Err(Malformed::Empty);
    }
    let mut sum = 0u64;
    for output in &tx.output {
        // Each is checked before it is added, so the sum cannot overflow.
        sum += output
            .value
            .min(Amount::MAX_MONEY + Amount::ONE_SAT)
            .to_sat();
        if sum > Amount::MAX_MONEY.to_sat() {
            return Err(Malformed::OutputRange);
        }
    }
    if tx.is_coinbase() || tx.input.iter().any(|input| input.previous_output.is_null()) {
        return Err(Malformed::Coinbase);
    }
    let mut outpoints: Vec<OutPoint> = tx.input.iter().map(|input| input.previous_output).collect();
    outpoints.sort_unstable();
    outpoints.dedup();
    if outpoints.len() != tx.input.len() {
        return Err(Malformed::DuplicateInput);
    }
    Ok(())
}

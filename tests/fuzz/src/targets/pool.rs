//! Transactions of peers: decoded, checked without their scripts, and taken into the pool.

use std::collections::HashSet;

use bitcoin::consensus::deserialize;
use bitcoin::{OutPoint, ScriptBuf, Transaction, Txid};
use blockmill::frame::Columns;
use blockmill::mempool::{Accepted, Coin, CoinLookup, Entry, Mempool, MempoolConfig, Tip};
use bytes::Bytes;

use super::Verdict;
use crate::{Input, memory, shapes};

const TIP: Tip = Tip {
    height: 1_000,
    median_time: 1_690_000_000,
};

/// Witness programs, P2SH and others.
fn script(txid: &[u8]) -> ScriptBuf {
    let hash = |count: usize| &txid[32 - count..];
    match txid[4] & 3 {
        0 => ScriptBuf::from_bytes([&[0x00, 20], hash(20)].concat()),
        1 => ScriptBuf::from_bytes([&[0x00, 32], hash(32)].concat()),
        2 => ScriptBuf::from_bytes([&[0xa9, 20], hash(20), &[0x87]].concat()),
        _ => ScriptBuf::from_bytes(hash(9).to_vec()),
    }
}

/// Coins wherever somebody looks, but for one txid in four.
struct Anywhere;

impl CoinLookup for Anywhere {
    fn coin(&self, outpoint: &OutPoint) -> anyhow::Result<Option<Coin>> {
        let bytes: &[u8] = outpoint.txid.as_ref();
        Ok((bytes[0] & 3 != 0).then(|| Coin {
            value: 100_000 + u64::from(outpoint.vout % 1_000) + (u64::from(bytes[1]) << 24),
            height: (u32::from(bytes[2]) * 4).min(TIP.height),
            coinbase: bytes[3] & 15 == 0,
            script: script(bytes),
        }))
    }

    fn median_time_at(&self, height: u32) -> anyhow::Result<u32> {
        assert!(height <= TIP.height, "asked of a block that is not there");
        Ok(TIP.median_time - (TIP.height - height) * 600)
    }
}

/// Transactions, each with its length before it; a length of zero stands for an hour that passes.
pub fn run(data: &[u8]) -> Verdict {
    let mut input = Input::new(data);
    memory::bounded(memory::THE_CRATE + 200 * data.len(), || {
        let mut pool = Mempool::new(MempoolConfig {
            max_bytes: 20_000,
            max_orphans: 4,
            max_orphan_bytes: 2_000,
            mining_floor: 1_000,
            ..MempoolConfig::default()
        });
        let mut now = shapes::NOW;
        let mut entered = 0;
        while !input.is_empty() {
            let raw = input.chunk();
            if raw.is_empty() {
                now += 3_600;
                pool.expire(now);
                continue;
            }
            let by_the_crate = deserialize::<Transaction>(raw).ok();
            let columns = Columns::of_transactions([raw]);
            let taken = pool.accept(Bytes::copy_from_slice(raw), now, &Anywhere, TIP);
            if let Ok(columns) = &columns {
                let tx = by_the_crate.as_ref().expect("decoded by us");
                assert_eq!(columns.txids().next(), Some(tx.compute_txid().as_ref()));
            }
            match taken {
                Ok(Accepted::Entered { entry, .. }) => {
                    let tx = by_the_crate.as_ref().expect("it is in the pool");
                    assert!(columns.is_ok(), "it will be shown to plugins");
                    assert_eq!(entry.txid, tx.compute_txid());
                    assert_eq!(entry.wtxid, tx.compute_wtxid());
                    assert_eq!(entry.raw, raw);
                    assert_eq!(entry.weight, tx.weight().to_wu());
                    let cost = u64::from(entry.sigop_cost.expect("counted"));
                    assert!(cost <= 16_000);
                    assert_eq!(entry.vsize, entry.weight.max(cost * 20).div_ceil(4));
                    entered += 1;
                }
                Ok(Accepted::Orphan { txid, missing }) => {
                    assert_eq!(Some(txid), by_the_crate.map(|tx| tx.compute_txid()));
                    assert!(!missing.is_empty());
                }
                Err(refused) => assert!(!refused.to_string().is_empty()),
            }
            holds_together(&pool, now);
        }
        Verdict::taken(entered > 0)
    })
}

/// Parents before children, no coin spent twice, and figures that are those of the entries.
fn holds_together(pool: &Mempool, now: u64) {
    let entries = pool.snapshot();
    let info = pool.info(now);
    assert_eq!(info.txs, entries.len());
    let sum = |of: fn(&Entry) -> u64| entries.iter().map(|entry| of(entry)).sum::<u64>();
    assert_eq!(info.vbytes, sum(|entry| entry.vsize));
    assert_eq!(info.fees_sats, sum(|entry| entry.fee));
    assert!(info.orphans <= 4);
    let mut before: HashSet<Txid> = HashSet::new();
    let mut spent: HashSet<OutPoint> = HashSet::new();
    for entry in &entries {
        assert!(entry.depends.iter().all(|parent| before.contains(parent)));
        before.insert(entry.txid);
        for outpoint in &entry.spends {
            assert!(spent.insert(*outpoint), "{outpoint} is spent twice");
            assert_eq!(pool.spender(outpoint), Some(entry.txid));
        }
    }
}

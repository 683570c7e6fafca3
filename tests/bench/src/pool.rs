//! Large pools into fee-estimator, and its projection of the next blocks.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use bitcoin::hashes::Hash;
use bitcoin::{
    Amount, OutPoint, ScriptBuf, Sequence, Transaction, TxIn, TxOut, Txid, Witness, absolute,
    consensus, transaction,
};
use blockmill::mempool::{Coin, CoinLookup, Mempool, MempoolChanges, MempoolConfig, Tip};
use blockmill::network::Network;
use blockmill::plugin::Limits;
use bytes::Bytes;

use crate::lane::Bench;
use crate::report::{Report, Times};

/// What each coin is worth, sat.
const COIN: u64 = 10_000_000;
const NOW: u64 = 1_700_000_000;
const TIP: Tip = Tip {
    height: 800_000,
    median_time: 1_700_000_000,
};
/// How often each query is asked.
const QUERIES: usize = 3;
/// Every answer is one of a pool that is listened to long enough.
const SETTINGS: &str = r#"{"warm_blocks": 0, "warm_percent": 0}"#;

/// How the transactions of a pool hang together.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Shape {
    /// Most alone, some in pairs, a few in chains of 25.
    Usual,
    /// All in clusters of 64, as deep as they can be: each spends the one before it.
    Worst,
}

/// Every coin that anybody names is there.
struct Coins;

impl CoinLookup for Coins {
    fn coin(&self, outpoint: &OutPoint) -> Result<Option<Coin>> {
        // Transactions of the pool have random hashes; a coin's says which one it is.
        let made = outpoint.txid.as_byte_array().ends_with(&[0xC0; 24]);
        Ok(made.then_some(Coin {
            value: COIN,
            height: 1,
            coinbase: false,
            script: ScriptBuf::new(),
        }))
    }

    fn median_time_at(&self, _: u32) -> Result<u32> {
        Ok(0)
    }
}

/// Prints the table.
pub fn measure(target: &Path, folder: &Path, report: &mut Report) -> Result<()> {
    let file = target.join("plugins").join("fee-estimator.wasm");
    report.note("fee-estimator with a large pool, given at once, and asked for the next eight blocks; medians");
    report.table(&[
        "pool",
        "into the pool",
        "on-mempool",
        "`recommended`",
        "`projection`",
        "budget of each",
    ]);
    for (shape, name) in [
        (Shape::Usual, "most alone"),
        (Shape::Worst, "all in chains of 64"),
    ] {
        for count in [20_000, 100_000] {
            let (took, changes) = pool(count, shape)?;
            let bench = Bench::new(&folder.join("pool"), Network::Regtest)?;
            let mut lane = bench.wasm(&file, SETTINGS)?;
            let given = lane.pool(&changes, true)?;
            let mut ask = |path: &str| -> Result<f64> {
                let mut times = Times::default();
                for _ in 0..QUERIES {
                    let (took, answer) = lane.query(&bench.engine, path)?;
                    let answer: serde_json::Value = serde_json::from_str(&answer)?;
                    ensure!(
                        answer.get("warming_up") == Some(&false.into()),
                        "{path} says {answer}"
                    );
                    times.push(took);
                }
                Ok(times.median())
            };
            report.row(&[
                format!("{count}, {name}"),
                millis(took.as_secs_f64()),
                millis(given.as_secs_f64()),
                millis(ask("recommended")?),
                millis(ask("projection")?),
                format!("{:?}", Limits::DEFAULT.query_time),
            ]);
        }
    }
    Ok(())
}

fn millis(seconds: f64) -> String {
    format!("{:.0} ms", seconds * 1e3)
}

/// A pool of `count` transactions, and how long they took to come in.
fn pool(count: u32, shape: Shape) -> Result<(Duration, MempoolChanges)> {
    let mut pool = Mempool::new(MempoolConfig::default());
    let raws = transactions(count, shape);
    let start = Instant::now();
    for raw in raws {
        pool.accept(raw, NOW, &Coins, TIP)
            .map_err(|refused| anyhow!(refused))
            .context("the pool refuses what was made for it")?;
    }
    let took = start.elapsed();
    ensure!(pool.len() == count as usize, "{} came in", pool.len());
    Ok((took, pool.drain_changes()))
}

/// Of the usual size, and of rates from 1 to 200 sat/vB, many low and few high.
fn transactions(count: u32, shape: Shape) -> Vec<Bytes> {
    let mut made = Vec::new();
    // The last one that was made, and what its first output holds.
    let mut last: Option<(Txid, u64)> = None;
    let mut length = 0;
    for n in 0..count {
        let longest = match (shape, n % 100) {
            (Shape::Worst, _) => 64,
            (_, 0..60) => 1,
            (_, 60..75) => 2,
            _ => 25,
        };
        let parent = last.filter(|_| length < longest);
        length = if parent.is_some() { length + 1 } else { 1 };
        let mut coin = [0xC0; 32];
        coin.iter_mut()
            .zip(n.to_le_bytes())
            .for_each(|(to, from)| *to = from);
        let coin = OutPoint {
            txid: Txid::from_byte_array(coin),
            vout: 0,
        };
        let spent = parent.map(|(txid, _)| OutPoint { txid, vout: 0 });
        let held = COIN + parent.map_or(0, |(_, value)| value);
        // 0 to 199, the square of a number that looks random.
        let random = u64::from(n.wrapping_mul(2_654_435_761) >> 16) % 1_000;
        let fee = 250 * (1 + random * random / 5_000);
        let first = (held - fee) / 2;
        let output = |value| TxOut {
            value: Amount::from_sat(value),
            script_pubkey: ScriptBuf::from_bytes([&[0x00, 0x14][..], &[7; 20]].concat()),
        };
        let tx = Transaction {
            version: transaction::Version::TWO,
            lock_time: absolute::LockTime::ZERO,
            input: spent
                .into_iter()
                .chain([coin])
                .map(|previous_output| TxIn {
                    previous_output,
                    script_sig: ScriptBuf::new(),
                    sequence: Sequence::ENABLE_RBF_NO_LOCKTIME,
                    witness: Witness::from_slice(&[vec![7; 72], vec![2; 33]]),
                })
                .collect(),
            output: vec![output(first), output(held - fee - first)],
        };
        last = Some((tx.compute_txid(), first));
        made.push(Bytes::from(consensus::serialize(&tx)));
    }
    made
}

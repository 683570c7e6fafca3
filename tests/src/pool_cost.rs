//! What a pool costs that a host takes in: for the figures of docs/performance.md.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde_json::Value;

use crate::host::Host;

/// How long a peer may take to be shown, and a large pool to come.
const LIMIT: Duration = Duration::from_secs(600);
/// How long the pool may stand still before it is announced again.
const STILL: Duration = Duration::from_millis(500);

/// After this the journal has all that came before.
const JOURNALED: Duration = Duration::from_secs(4);

/// What was there before the transactions came.
#[derive(Debug)]
pub struct PoolCost {
    /// The host's memory in bytes.
    held: u64,
    /// Bytes that the peer had sent.
    heard: u64,
    start: Instant,
}

impl PoolCost {
    /// Of what comes from now on.
    ///
    /// # Errors
    ///
    /// When the host has no peer.
    pub fn begin(host: &mut Host) -> Result<Self> {
        Ok(Self {
            held: memory(host)?,
            heard: heard(host)?,
            start: Instant::now(),
        })
    }

    /// Of all that comes to a host that was just started.
    ///
    /// # Errors
    ///
    /// When its memory cannot be read.
    pub fn from_the_start(host: &Host) -> Result<Self> {
        Ok(Self {
            held: memory(host)?,
            heard: 0,
            start: Instant::now(),
        })
    }

    /// The time since then.
    pub fn elapsed(&self) -> Duration {
        self.start.elapsed()
    }

    /// Prints what `txs` transactions cost that came within `took`.
    ///
    /// # Errors
    ///
    /// When the host does not answer.
    pub fn print(&self, host: &mut Host, txs: usize, took: Duration) -> Result<()> {
        let txs = txs.max(1) as u64;
        let bytes = heard(host)?.saturating_sub(self.heard);
        let memory = memory(host)?.saturating_sub(self.held);
        // It is written every two seconds.
        std::thread::sleep(JOURNALED);
        let journal = host.installation().data().join("mempool.journal");
        println!(
            "{txs} transactions in {took:?}: {bytes} bytes from the peer ({} a transaction), {} bytes of memory a transaction, \
             {} in the journal",
            bytes / txs,
            memory / txs,
            fs::metadata(journal).map_or(0, |file| file.len()),
        );
        Ok(())
    }
}

/// Waits until the pool has `txs`, and calls `again` whenever it has stood still for a while before that.
///
/// # Errors
///
/// When they do not all come.
pub fn wait_for_pool(host: &mut Host, txs: usize, again: impl Fn()) -> Result<()> {
    let mut last = (0, Instant::now());
    host.wait_for("the pool", LIMIT, |status| {
        let here = status
            .pointer("/mempool/txs")
            .and_then(Value::as_u64)
            .unwrap_or(0);
        if here != last.0 {
            last = (here, Instant::now());
        } else if last.1.elapsed() > STILL {
            println!("{here} transactions; they are announced again");
            again();
            last.1 = Instant::now();
        }
        (here == txs as u64).then_some(())
    })
}

/// Resident memory of the host in bytes.
fn memory(host: &Host) -> Result<u64> {
    let text = fs::read_to_string(format!("/proc/{}/status", host.id()))?;
    let kilobytes = text
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .and_then(|line| line.split_whitespace().next())
        .context("no VmRSS")?;
    Ok(kilobytes.parse::<u64>()? * 1_024)
}

/// Bytes that came from the only peer. The host shows a peer some time after its handshake.
fn heard(host: &mut Host) -> Result<u64> {
    host.wait_for("its peer", LIMIT, |status| {
        status.pointer("/peers/0/bytes_in").and_then(Value::as_u64)
    })
}

//! What the stores cost on the coins and rows of a chain of a million transactions: puts, takes, flushes, rows.
//!
//!     cargo run --release --example store_bench [-- MEGABYTES_OF_OVERLAY [MEGABYTES_OF_BLOCK_CACHE]]

use std::time::{Duration, Instant};

use anyhow::Context;
use blockmill::store::{
    COIN_KEY_LEN, ColumnData, ColumnKind, ColumnSpec, Cursor, Keys, OutPointKey, RowStore,
    StateStore, TableKind, TableSpec, ValueColumn, coin_key, encode_coin, txoutset,
};

const BLOCKS: u32 = 700;
const TXS: u64 = 1_450;
const OUTPUTS: usize = 3_644;
const INPUTS: usize = 2_501;

/// A small generator of numbers that are the same each time (splitmix64).
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn bytes32(&mut self) -> [u8; 32] {
        let mut bytes = [0; 32];
        bytes
            .chunks_exact_mut(8)
            .for_each(|chunk| chunk.copy_from_slice(&self.next().to_le_bytes()));
        bytes
    }
}

/// CPU seconds of the whole process, where the system tells them.
fn cpu() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let ticks = |field: usize| {
        stat.split(' ')
            .nth(field)
            .and_then(|ticks| ticks.parse::<f64>().ok())
            .unwrap_or(0.0)
    };
    (ticks(13) + ticks(14)) / 100.0
}

/// Peak memory in MB, where the system tells it.
fn peak() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))
        .unwrap_or_default();
    line.trim()
        .trim_end_matches(" kB")
        .parse::<f64>()
        .unwrap_or(0.0)
        / 1024.0
}

fn rate(count: usize, time: Duration) -> String {
    format!(
        "{:.2} s, {:.2} million/s",
        time.as_secs_f64(),
        count as f64 / time.as_secs_f64() / 1e6
    )
}

fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args()
        .skip(1)
        .map(|argument| argument.parse::<usize>());
    let overlay = arguments.next().transpose()?.unwrap_or(512) << 20;
    let cache = arguments.next().transpose()?.unwrap_or(32) << 20;
    let dir = tempfile::tempdir().context("failed to make a folder")?;
    coins(dir.path(), overlay, cache as u64)?;
    rows(dir.path())
}

fn coins(dir: &std::path::Path, overlay: usize, cache: u64) -> anyhow::Result<()> {
    let store = StateStore::open(&dir.join("state"), cache)?;
    let mut lane = store.lane("utxo-tracker")?;
    let mut numbers = Numbers(7);
    let mut live: Vec<[u8; COIN_KEY_LEN]> = Vec::new();
    let (mut putting, mut taking, mut fetching, mut closing, mut flushing) = (
        Duration::ZERO,
        Duration::ZERO,
        Duration::ZERO,
        Duration::ZERO,
        Duration::ZERO,
    );
    if std::env::var_os("STORE_BENCH_BATCH").is_some() {
        lane.set_bulk_changes(usize::MAX);
    }
    let (mut puts, mut takes, mut flushes, mut cpu_spent, mut largest) = (0, 0, 0, 0.0, 0);
    let mut spent = ValueColumn::default();
    for height in 0..BLOCKS {
        let mut take_keys = Vec::with_capacity(INPUTS * COIN_KEY_LEN);
        for _ in 0..INPUTS.min(live.len() / 2) {
            let pick = numbers.next() as usize % live.len();
            take_keys.extend_from_slice(&live.swap_remove(pick));
        }
        let (mut put_keys, mut values, mut ends) = (Vec::new(), Vec::new(), Vec::new());
        for output in 0..OUTPUTS {
            let txid = if output % 5 < 2 {
                numbers.bytes32()
            } else {
                [output as u8; 32]
            };
            let txid = if output % 5 < 2 {
                txid
            } else {
                numbers.bytes32()
            };
            let key = coin_key(&OutPointKey {
                txid,
                vout: output as u32 % 3,
            });
            let script = [0x51; 34];
            let lens = [22, 22, 34, 25, 23];
            let len = lens.get(numbers.next() as usize % 5).copied().unwrap_or(0);
            encode_coin(
                height,
                false,
                numbers.next() >> 30,
                script.get(..len).unwrap_or_default(),
                &mut values,
            );
            ends.push(values.len() as u32);
            put_keys.extend_from_slice(&key);
            live.push(key);
        }
        let cpu_before = cpu();
        lane.begin_block();
        spent.clear();
        let start = Instant::now();
        lane.prefetch(Keys::fixed(COIN_KEY_LEN, &take_keys))?;
        fetching += start.elapsed();
        let start = Instant::now();
        lane.take_many(Keys::fixed(COIN_KEY_LEN, &take_keys), &mut spent)?;
        taking += start.elapsed();
        anyhow::ensure!(
            spent.found.iter().all(|found| *found == 1),
            "a coin was lost"
        );
        takes += spent.len();
        let start = Instant::now();
        lane.put_many(
            Keys::fixed(COIN_KEY_LEN, &put_keys),
            Keys::ends(&ends, &values),
        )?;
        putting += start.elapsed();
        puts += ends.len();
        let start = Instant::now();
        lane.commit_block(
            Cursor {
                height,
                hash: numbers.bytes32(),
            },
            height + 100 > BLOCKS,
        )?;
        closing += start.elapsed();
        largest = largest.max(lane.dirty_bytes());
        if lane.dirty_bytes() > overlay || height + 1 == BLOCKS {
            let start = Instant::now();
            lane.flush()?;
            flushing += start.elapsed();
            flushes += 1;
        }
        cpu_spent += cpu() - cpu_before;
    }
    println!("puts      {puts:>9}  {}", rate(puts, putting));
    println!("prefetch             {:.2} s", fetching.as_secs_f64());
    println!("takes     {takes:>9}  {}", rate(takes, taking));
    println!("commits   {BLOCKS:>9}  {:.2} s", closing.as_secs_f64());
    println!(
        "flushes   {flushes:>9}  {:.2} s for {} coins left",
        flushing.as_secs_f64(),
        live.len()
    );
    println!(
        "coins in all {:.2} s, {cpu_spent:.2} CPU s; overlay at most {:.0} MB, peak memory {:.0} MB (with this program's own)",
        (putting + taking + fetching + closing + flushing).as_secs_f64(),
        largest as f64 / 1e6,
        peak()
    );
    std::thread::sleep(Duration::from_millis(500));
    let bytes = |bytes: u64| bytes as f64 / live.len() as f64;
    println!(
        "disk      {:.1} bytes a coin; with undo records and the journal {:.1}",
        bytes(lane.disk_bytes()),
        bytes(store.disk_bytes()?)
    );
    let (start, cpu_before) = (Instant::now(), cpu());
    let set = txoutset(&lane.snapshot()?, |_| true)?.context("no coins")?;
    println!(
        "txoutset  {:>9}  {}, {:.2} CPU s",
        set.txouts,
        rate(set.txouts as usize, start.elapsed()),
        cpu() - cpu_before
    );
    anyhow::ensure!(
        set.txouts == live.len() as u64,
        "{} coins on disk, {} alive",
        set.txouts,
        live.len()
    );
    Ok(())
}

fn rows(dir: &std::path::Path) -> anyhow::Result<()> {
    let column = |name: &str, kind| ColumnSpec {
        name: name.to_owned(),
        kind,
        nullable: false,
    };
    let spec = TableSpec {
        name: "tx".to_owned(),
        kind: TableKind::Anchored,
        columns: vec![
            column("position", ColumnKind::Integer),
            column("txid", ColumnKind::Hash),
            column("size", ColumnKind::Integer),
            column("weight", ColumnKind::Integer),
            column("fee", ColumnKind::Amount),
            column("inputs", ColumnKind::Integer),
            column("outputs", ColumnKind::Integer),
            column("total_out", ColumnKind::Amount),
        ],
        key: vec!["position".to_owned()],
        indexes: vec![vec!["txid".to_owned()]],
    };
    let path = dir.join("rows.db");
    let store = RowStore::open(&format!("sqlite:{}", path.display()))?;
    let mut buffer = store.register("tx-writer", &[spec])?;
    let mut numbers = Numbers(9);
    let (mut gathering, mut flushing, mut cpu_spent) = (Duration::ZERO, Duration::ZERO, 0.0);
    for height in 0..BLOCKS {
        let mut integers = |bits: u32| {
            ColumnData::Integers(
                (0..TXS)
                    .map(|_| (numbers.next() >> (64 - bits)) as i64)
                    .collect(),
            )
        };
        let [size, weight, fee, inputs, outputs, total] = [9, 11, 14, 2, 2, 40].map(&mut integers);
        let txids = (0..TXS).flat_map(|_| numbers.bytes32()).collect();
        let positions = ColumnData::Integers((0..TXS as i64).collect());
        let columns = [
            positions,
            ColumnData::Hashes(txids),
            size,
            weight,
            fee,
            inputs,
            outputs,
            total,
        ]
        .map(Into::into);
        let cpu_before = cpu();
        let start = Instant::now();
        buffer.begin_block();
        buffer.append(0, height, &columns)?;
        gathering += start.elapsed();
        if buffer.bytes() > 8 << 20 || height + 1 == BLOCKS {
            let start = Instant::now();
            store.flush(
                "tx-writer",
                &mut buffer,
                Some(Cursor {
                    height,
                    hash: [1; 32],
                }),
            )?;
            flushing += start.elapsed();
        }
        cpu_spent += cpu() - cpu_before;
    }
    let rows = store.count("tx")?;
    println!(
        "rows      {rows:>9}  {}, gathering {:.2} s, {cpu_spent:.2} CPU s",
        rate(rows as usize, flushing),
        gathering.as_secs_f64()
    );
    let bytes = std::fs::metadata(&path)?.len();
    let start = Instant::now();
    store.build_indexes("tx-writer")?;
    println!(
        "disk      {:.1} bytes a row; index on txid {:.2} s; peak memory {:.0} MB",
        bytes as f64 / rows as f64,
        start.elapsed().as_secs_f64(),
        peak()
    );
    Ok(())
}

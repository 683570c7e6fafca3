//! The largest blocks against the default budgets: real ones, and ones made as heavy in one respect as the rules allow. What
//! recording a plugin's reads costs, too.

use std::collections::HashSet;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bitcoin::absolute::LockTime;
use bitcoin::blockdata::transaction::Version;
use bitcoin::consensus::{deserialize, serialize};
use bitcoin::constants::genesis_block;
use bitcoin::hashes::Hash;
use bitcoin::{
    Amount, Block, OutPoint, ScriptBuf, Sequence, Transaction, TxIn, TxOut, Txid, Witness,
};
use blockmill::config::Wasi;
use blockmill::frame::{Frame, Spent};
use blockmill::network::Network;
use blockmill::plugin::{Budget, Compiled, Limits};
use blockmill::store::{Cursor, Keys, OutPointKey, Values, coin_key, encode_coin};
use blockmill_sdk::ValueBytes;
use utxo_tracker::totals::Totals;

use crate::blocks;
use crate::lane::{Bench, WasmLane};
use crate::report::{Report, load, micros};

/// Bytes of a block without witnesses, with a little room for header and coinbase.
const BASE: usize = 999_000;
/// Weight that witnesses fill.
const WITNESS: usize = 3_990_000;
/// The block before all of these.
const BEFORE: u32 = 799_999;
/// Each is given so often to a fresh instance, with and without recording in turns.
const ROUNDS: usize = 3;
/// Where utxo-tracker keeps its totals.
const TOTALS: &[u8] = b"T";
/// Bytes of reads that are recorded at most, as by default.
const RECORDED: usize = 64_000_000;

/// The plugins with all that they can do switched on.
const PLUGINS: [(&str, &str); 6] = [
    ("utxo-tracker", r#"{"index": true}"#),
    ("tx-writer", r#"{"inputs": true, "outputs": true}"#),
    ("fee-estimator", "{}"),
    ("block-stats", "{}"),
    ("address-history", "{}"),
    (
        "watch",
        r#"{"collections": {"many": {"patterns": ["^0014", "^bc1q.*q$"], "descendants": true}}}"#,
    ),
];

/// Budgets of a call with a block.
const BUDGETS: [Budget; 6] = [
    Budget::BlockTime,
    Budget::Memory,
    Budget::BlockKeys,
    Budget::BlockState,
    Budget::BlockRows,
    Budget::BlockRowBytes,
];

/// A block, and what it says of itself.
pub struct Case {
    pub name: String,
    block: Block,
}

/// What a plugin used of its budgets for a block.
pub struct Used {
    pub plugin: &'static str,
    /// Per cent of each of the limits.
    pub percent: Vec<(Budget, f64)>,
    /// The quickest call, and the quickest that was recorded.
    pub took: Duration,
    pub recorded: Duration,
    /// Bytes that were recorded, and whether they were all.
    pub bytes: usize,
    pub whole: bool,
}

fn coinbase() -> Transaction {
    Transaction {
        version: Version::TWO,
        lock_time: LockTime::ZERO,
        input: vec![TxIn {
            previous_output: OutPoint::null(),
            script_sig: ScriptBuf::from_bytes(vec![3, 0, 53, 12]),
            sequence: Sequence::MAX,
            witness: Witness::new(),
        }],
        output: vec![TxOut {
            value: Amount::ZERO,
            script_pubkey: ScriptBuf::from_bytes(vec![0x51]),
        }],
    }
}

/// An input that spends the coin of this number.
fn input(number: u32) -> TxIn {
    let mut txid = [7; 32];
    if let Some(first) = txid.first_chunk_mut() {
        *first = number.to_le_bytes();
    }
    TxIn {
        previous_output: OutPoint::new(Txid::from_byte_array(txid), number % 5),
        script_sig: ScriptBuf::new(),
        sequence: Sequence::MAX,
        witness: Witness::new(),
    }
}

/// An output of one sat with a script of so many bytes, each number another.
fn output(number: u32, bytes: usize) -> TxOut {
    let script = number.to_le_bytes().into_iter().cycle().take(bytes);
    TxOut {
        value: Amount::ONE_SAT,
        script_pubkey: ScriptBuf::from_bytes(script.collect()),
    }
}

fn transaction(input: Vec<TxIn>, output: Vec<TxOut>) -> Transaction {
    Transaction {
        version: Version::TWO,
        lock_time: LockTime::ZERO,
        input,
        output,
    }
}

fn made(name: &str, transactions: Vec<Transaction>) -> Case {
    let mut txdata = vec![coinbase()];
    txdata.extend(transactions);
    let header = genesis_block(bitcoin::Network::Bitcoin).header;
    let mut block = Block { header, txdata };
    if let Some(root) = block.compute_merkle_root() {
        block.header.merkle_root = root;
    }
    Case {
        name: name.to_owned(),
        block,
    }
}

/// The blocks that are made: as many of one thing as fit.
pub fn heaviest() -> Vec<Case> {
    let numbers = |bytes: usize| 0..(BASE / bytes) as u32;
    let outputs = |bytes: usize| {
        let all = numbers(9 + bytes).map(|number| output(number, bytes));
        vec![transaction(vec![input(0)], all.collect())]
    };
    let inputs = numbers(41).map(input).collect();
    let small = numbers(63).map(|number| transaction(vec![input(number)], vec![output(number, 3)]));
    let mut witness = input(0);
    witness.witness.push(vec![0; WITNESS]);
    vec![
        made("made: outputs without a script", outputs(0)),
        made("made: outputs of 3 bytes, each another", outputs(3)),
        made(
            "made: inputs",
            vec![transaction(inputs, vec![output(0, 3)])],
        ),
        made("made: transactions of 63 bytes", small.collect()),
        made(
            "made: one witness of 4 MB",
            vec![transaction(vec![witness], vec![output(0, 3)])],
        ),
    ]
}

/// Blocks of mainnet, those that are there.
pub fn real(target: &Path) -> Result<Vec<Case>> {
    let heights = [367_891, 413_567, 800_000];
    let files = heights.into_iter().filter_map(|height| {
        let path = blocks::real(target, height)?;
        Some((height, path))
    });
    files
        .map(|(height, path)| {
            let raw = std::fs::read(&path)
                .with_context(|| format!("failed to read {}", path.display()))?;
            Ok(Case {
                name: format!("mainnet {height}"),
                block: deserialize(&raw)
                    .with_context(|| format!("{} is no block", path.display()))?,
            })
        })
        .collect()
}

impl Case {
    /// The coins that the block spends and does not make: each transaction's are worth what it pays, and the first pays for
    /// the coinbase.
    fn coins(&self) -> Vec<(OutPointKey, u64)> {
        let own: HashSet<Txid> = self
            .block
            .txdata
            .iter()
            .map(|tx| tx.compute_txid())
            .collect();
        let value = |tx: &Transaction| tx.output.iter().map(|out| out.value.to_sat()).sum::<u64>();
        let mut more = self.block.txdata.first().map_or(0, value);
        let mut coins = Vec::new();
        for tx in self.block.txdata.iter().skip(1) {
            let outside = || {
                let prevouts = tx.input.iter().map(|input| input.previous_output);
                prevouts.filter(|prevout| !own.contains(&prevout.txid))
            };
            let count = outside().count() as u64;
            if count == 0 {
                continue;
            }
            let each = (value(tx) + std::mem::take(&mut more)).div_ceil(count);
            coins.extend(outside().map(|prevout| {
                let outpoint = OutPointKey {
                    txid: prevout.txid.to_byte_array(),
                    vout: prevout.vout,
                };
                (outpoint, each)
            }));
        }
        coins
    }

    fn frame(&self) -> Result<Frame> {
        Ok(Frame::decode(serialize(&self.block).into())?)
    }
}

/// Puts the coins into the state as blocks before would have.
fn prepare(lane: &mut WasmLane, coins: &[(OutPointKey, u64)]) -> Result<()> {
    let (mut keys, mut values, mut ends) = (Vec::new(), Vec::new(), Vec::new());
    for (number, (outpoint, value)) in (0u32..).zip(coins) {
        keys.extend_from_slice(&coin_key(outpoint));
        let script = [&[0, 20][..], &number.to_le_bytes(), &[9; 16]].concat();
        encode_coin(1, false, *value, &script, &mut values);
        ends.push(u32::try_from(values.len())?);
    }
    let totals = Totals {
        txouts: coins.len() as u64,
        total_sats: coins.iter().map(|(_, value)| value).sum(),
        ..Totals::default()
    };
    let state = &mut lane.instance.space_mut().state;
    state.begin_block();
    state.put_many(
        Keys::fixed(blockmill::store::COIN_KEY_LEN, &keys),
        Values::ends(&ends, &values),
    )?;
    let mut encoded = Vec::new();
    totals.write(&mut encoded);
    state.put(TOTALS, &encoded)?;
    let before = Cursor {
        height: BEFORE,
        hash: [0; 32],
    };
    Ok(state.commit_block(before, false)?)
}

/// Gives a block to all plugins within the default budgets, to a fresh instance each of so many times, half of them recorded.
///
/// # Errors
///
/// When a budget is broken, or the block is refused.
pub fn give(bench: &Bench, plugins: &[Compiled], case: &Case, times: usize) -> Result<Vec<Used>> {
    let frame = case.frame()?;
    let coins = case.coins();
    let mut spent: Option<Spent> = None;
    let mut all = Vec::new();
    for ((plugin, settings), compiled) in PLUGINS.into_iter().zip(plugins) {
        let mut used = Used {
            plugin,
            percent: Vec::new(),
            took: Duration::MAX,
            recorded: Duration::MAX,
            bytes: 0,
            whole: true,
        };
        for round in 0..times {
            let recorded = round % 2 == 1;
            let name = format!("{plugin}-{round}-{}", frame.hash);
            let name = name.chars().take(64).collect::<String>();
            let mut lane = bench.start(compiled, &name, settings, Limits::DEFAULT)?;
            if lane.descriptor.coins {
                prepare(&mut lane, &coins)?;
            }
            let watched = &lane.surroundings.clone().watched;
            if recorded {
                watched.recorder.arm(RECORDED);
            }
            let (took, answer) = lane
                .block(BEFORE + 1, &frame, spent.as_ref())
                .with_context(|| format!("{plugin} with the block {:?}", case.name))?;
            if let Some(recording) = watched.recorder.take() {
                used.recorded = used.recorded.min(took);
                (used.bytes, used.whole) = (recording.bytes(), !recording.truncated);
            } else {
                used.took = used.took.min(took);
            }
            used.percent = BUDGETS
                .into_iter()
                .map(|budget| {
                    let amount = watched.usage.max(budget) as f64;
                    (budget, 100.0 * amount / Limits::DEFAULT.of(budget) as f64)
                })
                .collect();
            spent = spent.or(answer);
        }
        ensure!(spent.is_some(), "nobody says what the block spends");
        all.push(used);
    }
    Ok(all)
}

/// The plugins of [`give`], compiled.
pub fn compiled(bench: &Bench, target: &Path) -> Result<Vec<Compiled>> {
    let file = |(name, _)| target.join("plugins").join(format!("{name}.wasm"));
    PLUGINS
        .into_iter()
        .map(|plugin| bench.engine.load(&file(plugin), Wasi::None))
        .collect()
}

/// Measures all of them and prints the table.
pub fn measure(target: &Path, folder: &Path, report: &mut Report) -> Result<()> {
    let bench = Bench::new(&folder.join("budgets"), Network::Mainnet)?;
    let plugins = compiled(&bench, target)?;
    report.note(&format!(
        "budgets: what a block takes of the defaults, per cent; the call alone, and recorded, quickest of {ROUNDS} in turns, load {}",
        load()
    ));
    let mut columns = vec!["block", "plugin", "call", "recorded", "bytes recorded"];
    columns.extend(BUDGETS.map(Budget::key));
    report.table(&columns);
    for case in real(target)?.into_iter().chain(heaviest()) {
        for used in give(&bench, &plugins, &case, 2 * ROUNDS)? {
            let mut cells = vec![
                case.name.clone(),
                used.plugin.to_owned(),
                micros(used.took.as_secs_f64()),
                format!(
                    "{:.2}",
                    used.recorded.as_secs_f64() / used.took.as_secs_f64()
                ),
                format!("{}{}", used.bytes, if used.whole { "" } else { ", cut" }),
            ];
            let percent = used.percent.iter();
            cells.extend(percent.map(|(_, percent)| format!("{percent:.1}")));
            report.row(&cells);
        }
    }
    Ok(())
}

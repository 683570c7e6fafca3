//! Block 800,000 of mainnet: into columns, and walked, in wasm and natively.

use std::hint::black_box;
use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use bitcoin::Block;
use bitcoin::consensus::deserialize;
use bitcoin::hashes::Hash;
use blockmill::frame::Frame;
use blockmill::network::Network;
use bytes::Bytes;

use crate::blocks;
use crate::lane::Bench;
use crate::native;
use crate::report::{Report, Times, load, micros};

/// Rounds that warm up and are not counted, and rounds that are.
const ROUNDS: (usize, usize) = (30, 600);
const HEIGHT: u32 = 800_000;

/// Measures it and prints the table.
pub fn measure(target: &Path, folder: &Path, report: &mut Report) -> Result<()> {
    let Some(path) = blocks::real(target, HEIGHT) else {
        report.note(
            "skipped the walk: no test data with mainnet block 800,000 (BLOCKMILL_TEST_DATA)",
        );
        return Ok(());
    };
    let raw: Bytes = std::fs::read(&path)
        .with_context(|| format!("failed to read {}", path.display()))?
        .into();
    let block: Block = deserialize(&raw).context("the bitcoin crate cannot read the block")?;
    let frame = Frame::decode(raw.clone())?;
    let view = native::block(HEIGHT, &frame)?;

    let bench = Bench::new(&folder.join("walk"), Network::Regtest)?;
    let file = target.join("plugins/test/walk.wasm");
    let expected = tree(&block);
    ensure!(walk::walk(&view) == expected, "the native walks disagree");
    let mut checked = bench.wasm(&file, r#"{"report": true}"#)?;
    checked.block(HEIGHT, &frame, None)?;
    let sum = checked
        .instance
        .space_mut()
        .state
        .get(walk::SUM)?
        .map(|sum| sum.to_vec());
    ensure!(
        sum.as_deref() == Some(&expected.to_le_bytes()[..]),
        "the walk in wasm disagrees"
    );

    let mut lane = bench.wasm(&file, "{}")?;
    let [
        mut wasm,
        mut over_tree,
        mut over_view,
        mut copied,
        mut columns,
        mut txids,
        mut crate_decode,
    ] = std::array::from_fn(|_| Times::default());
    let mut copy = Copy::default();
    let (warm, counted) = ROUNDS;
    for round in 0..warm + counted {
        // The stores want every block to follow the one before.
        let (took, _) = lane.block(HEIGHT + round as u32, &frame, None)?;
        let timed = |times: &mut Times, work: &mut dyn FnMut()| {
            let start = Instant::now();
            work();
            if round >= warm {
                times.push(start.elapsed());
            }
        };
        if round >= warm {
            wasm.push(took);
        }
        timed(&mut over_tree, &mut || {
            black_box(tree(black_box(&block)));
        });
        timed(&mut over_view, &mut || {
            black_box(walk::walk(black_box(&view)));
        });
        timed(&mut copied, &mut || copy.take(black_box(&frame)));
        let mut decoded = None;
        timed(&mut columns, &mut || {
            decoded = Some(Frame::decode_without_txids(black_box(raw.clone())));
        });
        if round % 20 == 0
            && let Some(Ok(mut decoded)) = decoded
        {
            timed(&mut txids, &mut || decoded.columns.hash_txids(&raw));
            let mut owned = None;
            timed(&mut crate_decode, &mut || {
                owned = deserialize::<Block>(black_box(&raw)).ok();
            });
            drop(owned);
        }
    }

    report.note(&format!(
        "walk: mainnet block 800,000 ({} transactions, {} inputs, {} outputs), {counted} rounds in turns, load {}",
        frame.tx_count(),
        frame.columns.inputs.prev_vouts.len(),
        frame.columns.outputs.values.len(),
        load()
    ));
    report.table(&["what", "median", "best"]);
    for (what, times) in [
        (
            "the call into wasm: columns copied and checked, every input and output walked",
            &wasm,
        ),
        ("the same walk natively over `bitcoin::Block`", &over_tree),
        (
            "the same walk natively over the SDK's views, nothing copied",
            &over_view,
        ),
        (
            "copying those columns from one place in memory to another, and nothing else",
            &copied,
        ),
        ("block bytes to columns, once for all plugins", &columns),
        ("hashing the txids", &txids),
        (
            "decoding with the `bitcoin` crate, for comparison",
            &crate_decode,
        ),
    ] {
        report.row(&[
            what.to_owned(),
            micros(times.median()),
            micros(times.best()),
        ]);
    }
    report.row(&[
        "**wasm / native over `bitcoin::Block`** (owed: at most 1.3, aim 1.15)".to_owned(),
        format!("**{:.2}**", wasm.median() / over_tree.median()),
        format!("{:.2}", wasm.best() / over_tree.best()),
    ]);
    Ok(())
}

/// Room for the columns that the plugin asks for: what any boundary between two memories costs.
#[derive(Default)]
struct Copy {
    bytes: Vec<u8>,
    words: Vec<u32>,
    longs: Vec<u64>,
}

impl Copy {
    fn take(&mut self, frame: &Frame) {
        let columns = &frame.columns;
        let (txs, inputs, outputs) = (&columns.transactions, &columns.inputs, &columns.outputs);
        self.bytes.clear();
        for bytes in [
            &txs.txids,
            &inputs.prev_txids,
            &inputs.scripts,
            &outputs.scripts,
        ] {
            self.bytes.extend_from_slice(bytes);
        }
        self.words.clear();
        for words in [
            &txs.versions,
            &txs.lock_times,
            &txs.sizes,
            &txs.weights,
            &txs.input_ends,
            &txs.output_ends,
            &inputs.prev_vouts,
            &inputs.sequences,
            &inputs.script_ends,
            &outputs.script_ends,
        ] {
            self.words.extend_from_slice(words);
        }
        self.longs.clear();
        self.longs.extend_from_slice(&outputs.values);
        black_box(&self);
    }
}

/// The walk of the plugin over the `bitcoin` crate's tree.
#[inline(never)]
fn tree(block: &Block) -> u64 {
    let mut sum = 0u64;
    for transaction in &block.txdata {
        for input in &transaction.input {
            let previous = &input.previous_output;
            let first = previous.txid.as_byte_array().first().copied();
            sum = sum.wrapping_add(
                u64::from(previous.vout)
                    + u64::from(input.sequence.0)
                    + input.script_sig.len() as u64
                    + u64::from(first.unwrap_or_default()),
            );
        }
        for output in &transaction.output {
            let script = output.script_pubkey.as_bytes();
            sum = sum.wrapping_add(
                output.value.to_sat()
                    + script.len() as u64
                    + u64::from(script.first().copied().unwrap_or_default()),
            );
        }
    }
    sum
}

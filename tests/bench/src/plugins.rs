//! The plugins, each in wasm and natively, block after block on stores of their own.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use blockmill::frame::{Frame, Spent};
use blockmill::network::Network;
use blockmill_sdk::Processor;
use fee_estimator::FeeEstimator;
use tx_writer::TxWriter;
use utxo_tracker::UtxoTracker;

use crate::blocks::Chain;
use crate::lane::{Bench, WasmLane};
use crate::native::NativeLane;
use crate::report::{Report, Times, load, micros};

/// One plugin twice.
struct Pair<P> {
    name: &'static str,
    wasm: WasmLane,
    native: NativeLane<P>,
    times: [Times; 2],
    totals: [f64; 2],
}

impl<P: Processor> Pair<P> {
    fn new(bench: &Bench, target: &Path, name: &'static str) -> Result<Self> {
        let file = target.join("plugins").join(format!("{name}.wasm"));
        let descriptor = bench.describe(&file)?;
        Ok(Self {
            name,
            wasm: bench.wasm(&file, "{}")?,
            native: NativeLane::new(bench.space(&format!("{name}-native"), &descriptor)?)?,
            times: std::array::from_fn(|_| Times::default()),
            totals: [0.0; 2],
        })
    }

    /// Gives a block to both, the one that begins in turns; returns what it spends.
    fn block(
        &mut self,
        height: u32,
        frame: &Frame,
        spent: Option<&Spent>,
    ) -> Result<Option<Spent>> {
        let mut given = None;
        for turn in 0..2 {
            let native = (turn + height) % 2 == 1;
            let took = if native {
                self.native.block(height, frame, spent)?
            } else {
                let (took, answer) = self.wasm.block(height, frame, spent)?;
                given = answer;
                took
            };
            if let (Some(times), Some(total)) = (
                self.times.get_mut(usize::from(native)),
                self.totals.get_mut(usize::from(native)),
            ) {
                times.push(took);
                *total += took.as_secs_f64();
            }
        }
        Ok(given)
    }

    fn report(&self, report: &mut Report) {
        let [wasm, native] = &self.times;
        let [wasm_total, native_total] = self.totals;
        report.row(&[
            self.name.to_owned(),
            micros(wasm.median()),
            micros(native.median()),
            format!("**{:.2}**", wasm.median() / native.median()),
            format!("{wasm_total:.2} s"),
            format!("{native_total:.2} s"),
        ]);
    }
}

/// Measures them and prints the table.
pub fn measure(target: &Path, folder: &Path, chain: &Chain, report: &mut Report) -> Result<()> {
    let bench = Bench::new(&folder.join("plugins"), Network::Regtest)?;
    let mut utxo = Pair::<UtxoTracker>::new(&bench, target, "utxo-tracker")?;
    let mut writer = Pair::<TxWriter>::new(&bench, target, "tx-writer")?;
    let mut fees = Pair::<FeeEstimator>::new(&bench, target, "fee-estimator")?;
    for (height, raw) in (1..).zip(&chain.blocks) {
        let frame = Frame::decode(raw.clone())?;
        let spent = utxo
            .block(height, &frame, None)
            .with_context(|| format!("utxo-tracker at block {height}"))?;
        ensure!(
            spent.is_some(),
            "utxo-tracker did not say what block {height} spends"
        );
        writer
            .block(height, &frame, spent.as_ref())
            .with_context(|| format!("tx-writer at block {height}"))?;
        fees.block(height, &frame, None)
            .with_context(|| format!("fee-estimator at block {height}"))?;
    }
    report.note(&format!(
        "plugins: the call with a block of the chain, state and rows in the host's own stores (memory), in turns, load {}",
        load()
    ));
    report.table(&[
        "plugin",
        "wasm, median",
        "native, median",
        "wasm / native",
        "wasm, all blocks",
        "native, all blocks",
    ]);
    utxo.report(report);
    writer.report(report);
    fees.report(report);
    Ok(())
}

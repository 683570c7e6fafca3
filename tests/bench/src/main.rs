//! What Blockmill costs, measured: `cargo xtask bench` builds everything in the release profile and runs this.
//!
//! Everything that is compared is measured in turns in one run, so that what else the machine does falls on both sides;
//! figures are medians, with the best beside them.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::{Parser, ValueEnum};

use blockmill_bench::report::Report;
use blockmill_bench::{blocks, budgets, peers, plugins, pool, source, sync, walk};

/// What can be measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    /// Block 800,000 into a wasm plugin, every input and output walked, against native walks
    Walk,
    /// The three plugins, wasm against the same code compiled natively
    Plugins,
    /// A whole sync over loopback with the three plugins
    Sync,
    /// A sync with a small cache on top of many coins
    Memory,
    /// Bytes on disk
    Disk,
    /// The largest blocks against the default budgets, and what recording costs
    Budgets,
    /// A sync from one peer, from three, and from three of which one crawls and one lies
    Peers,
    /// A sync from Bitcoin Core's folder, as it is and masked, beside one from a peer
    Source,
    /// The next blocks projected from pools of 20,000 and 100,000 transactions
    Pool,
}

/// Measures Blockmill. Usually started by `cargo xtask bench`, which builds what it needs.
#[derive(Debug, Parser)]
struct Args {
    /// Measure this and nothing else (may be given again)
    #[arg(long, value_name = "PART", value_enum)]
    only: Vec<Part>,
    /// A regtest chain in blk*.dat framing
    #[arg(long, value_name = "FILE")]
    blocks: Option<PathBuf>,
    /// How often a sync is measured
    #[arg(long, value_name = "N", default_value_t = 3)]
    runs: usize,
    /// The workspace's target folder
    #[arg(long, value_name = "DIR", default_value = "target")]
    target: PathBuf,
}

fn main() -> ExitCode {
    match run(Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: Args) -> Result<()> {
    let target = args
        .target
        .canonicalize()
        .with_context(|| format!("no folder {}", args.target.display()))?;
    let folder = target.join("bench");
    std::fs::create_dir_all(&folder)
        .with_context(|| format!("failed to make {}", folder.display()))?;
    let wanted = |part: Part| args.only.is_empty() || args.only.contains(&part);
    let mut report = Report::default();
    report.machine();
    if wanted(Part::Walk) {
        walk::measure(&target, &folder, &mut report)?;
    }
    if wanted(Part::Budgets) {
        budgets::measure(&target, &folder, &mut report)?;
    }
    if wanted(Part::Pool) {
        pool::measure(&target, &folder, &mut report)?;
    }
    let chain = [
        Part::Plugins,
        Part::Sync,
        Part::Memory,
        Part::Disk,
        Part::Peers,
        Part::Source,
    ];
    if chain.into_iter().any(wanted) {
        let chain = blocks::Chain::find(args.blocks.as_deref(), &folder)?;
        report.note(&format!(
            "chain: {} blocks, {} transactions, {} inputs, {} outputs, {:.0} MB{}",
            chain.blocks.len(),
            chain.transactions,
            chain.inputs,
            chain.outputs,
            chain.bytes as f64 / 1e6,
            if chain.mined {
                " (mined by the devnet: no larger one was found)"
            } else {
                ""
            },
        ));
        if wanted(Part::Plugins) {
            plugins::measure(&target, &folder, &chain, &mut report)?;
        }
        if wanted(Part::Sync) || wanted(Part::Disk) {
            let runs = if wanted(Part::Sync) { args.runs } else { 1 };
            sync::measure(&target, &folder, &chain, runs, &mut report)?;
        }
        if wanted(Part::Peers) {
            peers::measure(&target, &folder, &chain, args.runs, &mut report)?;
        }
        if wanted(Part::Source) {
            let programs = target.join("release");
            source::measure(&target, &programs, &folder, &chain, args.runs, &mut report)?;
        }
        if wanted(Part::Memory) {
            sync::measure_memory(&target, &folder, &chain, &mut report)?;
        }
    }
    Ok(())
}

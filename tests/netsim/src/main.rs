//! `netsim`: runs simulated networks from seeds, and says which went wrong.

use anyhow::{Result, bail};
use clap::Parser;
use netsim::Simulation;

/// Simulated networks of hundreds of peers, good and bad, one a seed.
#[derive(Parser)]
struct Args {
    /// The first seed.
    #[arg(long, default_value_t = 1)]
    first: u64,
    /// How many seeds.
    #[arg(long, default_value_t = 1_000)]
    seeds: u64,
    /// Say what came of each.
    #[arg(long)]
    verbose: bool,
}

fn main() -> Result<()> {
    let args = Args::parse();
    let mut failed = Vec::new();
    let mut peak = 0;
    for seed in args.first..args.first.saturating_add(args.seeds) {
        let outcome = Simulation::new(seed).run();
        peak = peak.max(outcome.peak);
        if args.verbose || !outcome.failures.is_empty() {
            println!("seed {seed}: {outcome}");
        }
        for failure in &outcome.failures {
            println!("seed {seed}: {failure}");
        }
        if !outcome.failures.is_empty() {
            failed.push(seed);
        }
    }
    println!(
        "{} networks, {} went wrong; the machine kept {} kB at most",
        args.seeds,
        failed.len(),
        peak / 1_000
    );
    if let Some(seed) = failed.first() {
        bail!("run one again with --first {seed} --seeds 1");
    }
    Ok(())
}

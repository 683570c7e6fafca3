//! A sync from one peer, from three, and from three of which one crawls and one lies: side by side.

use std::path::Path;

use anyhow::{Context, Result};
use devnet::Behaviour;

use crate::blocks::Chain;
use crate::process::{Peer, Usage};
use crate::report::{Report, load};
use crate::sync::Setup;

/// Transactions that are synced.
const TRANSACTIONS: usize = 200_000;
/// What the crawling peer sends in a second.
const CRAWL: u32 = 20_000;

/// Who is there, by how they behave.
fn crowds() -> [(&'static str, Vec<Behaviour>); 3] {
    let good = Behaviour::default;
    let crawling = Behaviour {
        bytes_per_second: Some(CRAWL),
        ..good()
    };
    let lying = Behaviour {
        mutated_block: true,
        ..good()
    };
    [
        ("one", vec![good()]),
        ("three", vec![good(), good(), good()]),
        (
            "three: one sends 20 kB/s, one sends mutated blocks",
            vec![crawling, lying, good()],
        ),
    ]
}

/// Syncs from each crowd in turns, `runs` times, and prints what it took.
///
/// # Errors
///
/// When a program fails, or the coins at the end are wrong.
pub fn measure(
    target: &Path,
    folder: &Path,
    chain: &Chain,
    runs: usize,
    report: &mut Report,
) -> Result<()> {
    let reached = |&until: &usize| until >= TRANSACTIONS;
    let height = chain.until.iter().position(reached);
    let height = height.map_or(chain.height(), |height| height as u32);
    let transactions = chain
        .until
        .get(height as usize)
        .copied()
        .unwrap_or_default();
    let mut peers = Vec::new();
    for _ in 0..3 {
        peers.push(Peer::start(&target.join("release/devnet"), &chain.path)?);
    }
    let setup = Setup::new(target, &folder.join("peers"))?;
    let config = setup.config(target, "")?;
    let crowds = crowds();
    let mut done: [Vec<Usage>; 3] = Default::default();
    for _ in 0..runs.max(1) {
        for ((_, crowd), done) in crowds.iter().zip(&mut done) {
            for (peer, behaviour) in peers.iter().zip(crowd) {
                peer.behave(behaviour)?;
            }
            setup.forget()?;
            let some = peers.get(..crowd.len()).context("too few peers")?;
            done.push(setup.run(&config, some, height)?);
            setup.check(&config, chain, height)?;
        }
    }
    report.note(&format!(
        "peers: {height} blocks, {transactions} transactions, all three plugins, in turns, median of {runs}, load {}",
        load()
    ));
    report.table(&["peers", "wall", "all runs", "CPU", "peak memory"]);
    for ((name, _), mut done) in crowds.into_iter().zip(done) {
        let all: Vec<String> = done
            .iter()
            .map(|usage| format!("{:.2}", usage.wall))
            .collect();
        done.sort_by(|a, b| a.wall.total_cmp(&b.wall));
        let Some(median) = done.get(done.len() / 2) else {
            continue;
        };
        report.row(&[
            name.to_owned(),
            format!("{:.2} s", median.wall),
            all.join(", "),
            format!("{:.2} s", median.cpu()),
            format!("{:.0} MB", median.peak as f64 / 1e6),
        ]);
    }
    Ok(())
}

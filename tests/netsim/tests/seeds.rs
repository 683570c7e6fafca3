//! Twenty networks; `cargo xtask soak` runs a thousand.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use std::collections::BTreeSet;

use netsim::{Kind, Scenario, Simulation};

/// The seeds of the test below.
const SEEDS: std::ops::RangeInclusive<u64> = 1..=20;

/// One test, because memory is counted for the whole process.
#[test]
fn the_host_ends_on_the_chain_with_the_most_work_in_bounded_memory_with_its_honest_peers_and_runs_repeat()
 {
    let mut failures = Vec::new();
    let mut first = None;
    for seed in SEEDS {
        let outcome = Simulation::new(seed).run();
        failures.extend(
            outcome
                .failures
                .iter()
                .map(|failure| format!("seed {seed}: {failure}")),
        );
        first.get_or_insert(outcome.trace);
    }
    assert!(failures.is_empty(), "{failures:#?}");
    assert_eq!(Some(Simulation::new(1).run().trace), first);
}

/// Only drawn, not run: a kind of peer that no seed draws would be tested by nothing.
#[test]
fn the_seeds_meet_every_kind_of_peer_and_every_trouble() {
    let scenarios: Vec<Scenario> = SEEDS.map(Scenario::new).collect();
    let met: BTreeSet<Kind> = scenarios
        .iter()
        .flat_map(|scenario| scenario.nodes.iter().map(|node| node.kind))
        .collect();
    let mut all = BTreeSet::from(Kind::BAD);
    all.extend([Kind::Honest, Kind::Slow]);
    let missing: Vec<&Kind> = all.difference(&met).collect();
    assert!(missing.is_empty(), "{missing:?} are in none of the seeds");
    let splits = |host: bool| {
        let of = |scenario: &&Scenario| scenario.split.is_some() && scenario.host_is_split == host;
        scenarios.iter().filter(of).count()
    };
    assert!(splits(true) > 0 && splits(false) > 0);
    assert!(
        scenarios
            .iter()
            .any(|scenario| scenario.sleeps_at.is_some())
    );
    for scenario in &scenarios {
        assert!((50..253).contains(&scenario.nodes.len()));
    }
}

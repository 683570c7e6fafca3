//! What the twenty networks of `seeds` hold. A file of its own: there memory is counted for the whole process.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use std::collections::BTreeSet;

use netsim::{Kind, Node, Scenario};

/// Those of the test in `seeds`.
const SEEDS: std::ops::RangeInclusive<u64> = 1..=20;

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
        let (callers, listeners): (Vec<&Node>, Vec<&Node>) =
            scenario.nodes.iter().partition(|n| n.calls.is_some());
        assert!((50..253).contains(&listeners.len()));
        let honest = callers.iter().filter(|n| n.kind.is_honest()).count();
        assert!((2..=11).contains(&honest));
        assert!(callers.len() - honest >= 40);
    }
}

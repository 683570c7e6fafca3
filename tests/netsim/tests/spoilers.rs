//! Many peers of one kind that spoil compact blocks or handshakes, and few that are honest.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use std::time::Duration;

use blockmill::chain::sync::TransportPreference;
use netsim::node::Calls;
use netsim::{Kind, Node, Outcome, Scenario, Simulation, World};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);

/// Six honest peers and twice as many of a kind that the host connects to, and some of each that connect to it.
fn run(kind: Kind, v2: bool) -> Outcome {
    let mut chance = ChaCha8Rng::seed_from_u64(kind as u64);
    let listeners = [vec![Kind::Honest; 6], vec![kind; 12]].concat();
    let callers = [vec![Kind::Honest; 3], vec![kind; 6]].concat();
    let count = listeners.len();
    let mut nodes: Vec<Node> = (listeners.into_iter().chain(callers).zip(0u16..))
        .map(|(kind, number)| Node::new(number, kind, &mut chance))
        .collect();
    for node in &mut nodes[count..] {
        node.addr.set_port(50_000);
        node.calls = Some(Calls {
            first: Duration::from_secs(5),
            pause: (20_000, 40_000),
            last: MINUTE * 15,
        });
    }
    for node in &mut nodes {
        // Who speaks version 2 alone must be able to.
        node.v2 |= v2;
    }
    let mut scenario = Scenario::download(nodes, 1, chance);
    scenario.spacing = Duration::from_secs(40);
    scenario.trouble = MINUTE * 20;
    scenario.transport = TransportPreference::PreferV2;
    Simulation::of(scenario, World::even(200, 0)).run()
}

/// One test, because memory is counted for the whole process.
#[test]
fn whatever_they_spoil_the_host_gets_every_block_and_keeps_its_honest_peers() {
    let compact = [
        Kind::Scrambler,
        Kind::Swapper,
        Kind::Withholder,
        Kind::Miscounter,
    ];
    for kind in compact {
        let outcome = run(kind, false);
        assert!(outcome.failures.is_empty(), "{kind:?}: {outcome:?}");
        // However many they are, a block is not late by more than one of them costs: two seconds and a bit.
        assert!(outcome.slowest < SECOND * 5, "{kind:?}: {outcome:?}");
        assert!(outcome.spoiled > 0, "{kind:?}: {outcome:?}");
        // What makes another block than it should is found out, and the whole block asked for.
        let makes_another = matches!(kind, Kind::Scrambler | Kind::Swapper);
        assert_eq!(outcome.compact.wrong > 0, makes_another, "{outcome:?}");
        // Within a minute of the last block, beside the minute that it has to last.
        assert!(outcome.took < MINUTE * 22, "{kind:?}: {outcome:?}");
    }
    for kind in [Kind::Babbler, Kind::Hush, Kind::Quitter] {
        let outcome = run(kind, true);
        assert!(outcome.failures.is_empty(), "{kind:?}: {outcome:?}");
        // However many they are, a block is not late by more than one of them costs: two seconds and a bit.
        assert!(outcome.slowest < SECOND * 5, "{kind:?}: {outcome:?}");
        assert!(outcome.spoiled > 0, "{kind:?}: {outcome:?}");
        assert!(outcome.encrypted.incoming >= 3, "{kind:?}: {outcome:?}");
        assert!(outcome.took < MINUTE * 22, "{kind:?}: {outcome:?}");
    }
}

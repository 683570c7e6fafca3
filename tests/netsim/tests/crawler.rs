//! What a peer costs that sends twenty kilobytes a second, with blocks of a megabyte: fifty seconds for each, and never nothing.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use std::time::Duration;

use netsim::{Kind, Node, Scenario, Simulation, World};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

/// Blocks of 20 kB that count fifty times on the lines.
const SIZE: usize = 20_000;
const PADDING: u64 = 50;
const CRAWL: u64 = 20_000;

/// Simulated time from nothing to the tip, with good peers of this many bytes a second each and so many crawlers.
fn download(good: &[u64], crawlers: usize, world: World) -> Duration {
    let mut chance = ChaCha8Rng::seed_from_u64(7);
    let lines = good.iter().map(|speed| (Kind::Honest, *speed));
    let lines = lines.chain((0..crawlers).map(|_| (Kind::Crawler, CRAWL)));
    let nodes: Vec<Node> = lines
        .zip(0..)
        .map(|((kind, bandwidth), number)| {
            let mut node = Node::new(number, kind, &mut chance);
            node.bandwidth = bandwidth;
            node.latency = Duration::from_millis(50);
            node.loss = 0;
            node
        })
        .collect();
    let scenario = Scenario::download(nodes, PADDING, chance);
    let outcome = Simulation::of(scenario, world).run();
    assert!(outcome.failures.is_empty(), "{:?}", outcome.failures);
    outcome.took
}

#[test]
fn beside_a_crawler_a_download_takes_at_most_a_tenth_longer_than_without_it() {
    for (good, blocks) in [
        (&[4_000_000][..], 300),
        (&[1_000_000], 300),
        // What crawlers cost is some seconds and comes once, so that it is less of a longer download.
        (&[2_000_000; 3], 600),
    ] {
        let world = || World::even(blocks, SIZE);
        let alone = download(good, 0, world());
        // So much comes over these lines: what counts is the line, and not the handshakes.
        let least = f64::from(blocks) * 1e6 / good.iter().sum::<u64>() as f64;
        assert!(alone.as_secs_f64() > least, "{alone:?}");
        for crawlers in [1, 3] {
            let beside = download(good, crawlers, world());
            println!("{good:?}: {alone:?} alone, {beside:?} beside {crawlers}");
            assert!(
                beside <= alone.mul_f64(1.1),
                "{good:?}: {beside:?} beside {crawlers}, {alone:?} alone"
            );
        }
    }
}

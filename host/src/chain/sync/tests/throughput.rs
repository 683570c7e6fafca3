//! How long a download takes over lines with a speed, in simulated time.

use std::time::Duration;

use bitcoin::Block;

use super::network::{FakePeer, START, Sim, chain};
use crate::chain::fixtures;
use crate::chain::sync::{DropReason, SyncConfig};

const BLOCKS: u32 = 800;
const LATENCY: Duration = Duration::from_millis(50);
/// Blocks a second of a good peer.
const GOOD: u64 = 60;

/// Its name, how far above the tip the shell lets blocks be asked for, and the rest.
type Window = (&'static str, Option<u32>, fn(&mut SyncConfig));

/// A peer that sends so many blocks a second.
fn peer(port: u16, chain: &[Block], blocks: f64) -> FakePeer {
    let size = fixtures::raw(&chain[chain.len() / 2]).len() + 24;
    let mut peer = FakePeer::new(port, chain.to_vec());
    peer.line = Some(((size as f64 * blocks) as u64, LATENCY));
    peer
}

/// Seconds of simulated time, and who was dropped for what.
fn seconds(peers: Vec<FakePeer>, ahead: Option<u32>, configure: fn(&mut SyncConfig)) -> (f64, Sim) {
    let best = peers[0].chain.last().unwrap().block_hash();
    let mut sim = Sim::new(1, peers, configure);
    sim.checks_at_once = true;
    sim.ahead = ahead;
    sim.run_until("headers", Duration::from_secs(600), |sim| {
        sim.sync.best_header().0 == BLOCKS
    });
    let begin = sim.now;
    sim.run_until("the tip", Duration::from_secs(3_600), |sim| {
        sim.sync.tip().1 == best
    });
    let took = sim.now.since(begin).as_secs_f64();
    assert!(begin > START);
    (took, sim)
}

/// How the window ends: a window that the good peers fill in a second, the whole chain, or a shell that lets few blocks
/// wait.
fn windows() -> [Window; 3] {
    [
        ("short window", None, |config| config.download_window = 64),
        ("long window", None, |_| {}),
        ("busy shell", Some(24), |_| {}),
    ]
}

#[test]
fn a_crawling_peer_costs_no_tenth_of_what_a_good_one_gives() {
    let chain = chain(BLOCKS);
    for (name, ahead, configure) in windows() {
        let good = || peer(1, &chain, GOOD as f64);
        let (alone, _) = seconds(vec![good()], ahead, configure);
        // From one block in five seconds to one in 80 ms: a staller, and one that never quite stalls.
        for crawl in [0.2, 0.9, 3.0, 12.0] {
            let crawler = peer(2, &chain, crawl);
            let (both, sim) = seconds(vec![good(), crawler], ahead, configure);
            println!("{name}: {alone:.2} s alone, {both:.2} s beside {crawl} blocks a second");
            assert!(both <= alone * 1.1, "{name}: {both} and {alone}, {crawl}");
            let bad = sim.peers[1].addr;
            assert!(
                sim.dropped.iter().all(|(addr, _)| *addr == bad),
                "{:?}",
                sim.dropped
            );
        }
    }
}

#[test]
fn three_equal_peers_are_nearly_three_times_as_fast_as_one_and_a_crawler_and_a_liar_cost_nothing() {
    let chain = chain(BLOCKS);
    for (name, ahead, configure) in windows() {
        let one = |port| peer(port, &chain, GOOD as f64);
        let (alone, _) = seconds(vec![one(1)], ahead, configure);
        let (three, sim) = seconds(vec![one(1), one(2), one(3)], ahead, configure);
        assert!(sim.dropped.is_empty(), "{:?}", sim.dropped);
        let shares: Vec<usize> = sim.peers.iter().map(|p| p.blocks_asked().len()).collect();
        let mut liar = one(3);
        liar.faults.mutates = true;
        let (mixed, sim) = seconds(vec![one(1), peer(2, &chain, 1.2), liar], ahead, configure);
        println!(
            "{name}: one {alone:.2} s, three {three:.2} s {shares:?}, with a crawler and a liar {mixed:.2} s"
        );
        assert!(three <= alone / 2.2, "{name}: {three} and {alone}");
        assert!(
            shares.iter().all(|share| *share >= BLOCKS as usize / 5),
            "{shares:?}"
        );
        assert!(mixed <= alone * 1.1, "{name}: {mixed} and {alone}");
        let (first, lies) = (sim.peers[0].addr, sim.peers[2].addr);
        assert!(sim.dropped.iter().all(|(addr, _)| *addr != first));
        assert!(
            sim.dropped
                .iter()
                .any(|(addr, why)| *addr == lies && matches!(why, DropReason::BadBlock { .. }))
        );
    }
}

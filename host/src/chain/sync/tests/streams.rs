//! Blocks that come in pieces: from slow peers, once more, and those that cannot be taken here.

use std::time::Duration;

use bitcoin::{Amount, Block, ScriptBuf, TxOut};

use super::network::{FakePeer, Sim, chain};
use crate::chain::fixtures;
use crate::chain::sync::SyncConfig;

const MINUTE: Duration = Duration::from_secs(60);
const LARGE: usize = 900_000;

/// Three small blocks and then so many large ones, with a small one after them.
fn with_large(count: u32) -> Vec<Block> {
    let mut blocks = chain(3);
    for height in 4..=4 + count {
        let mut coinbase = fixtures::coinbase(height, 0);
        if height < 4 + count {
            coinbase.output.push(TxOut {
                value: Amount::ZERO,
                script_pubkey: ScriptBuf::from_bytes(vec![0x6a; LARGE]),
            });
        }
        let parent = blocks.last().unwrap().header;
        blocks.push(fixtures::block(&parent, vec![coinbase]));
    }
    blocks
}

fn crawls(port: u16, chain: &[Block], rate: u64) -> FakePeer {
    let mut peer = FakePeer::new(port, chain.to_vec());
    peer.line = Some((rate, Duration::from_millis(10)));
    peer
}

/// Large blocks come in pieces, and the machine connects to the first peer alone.
fn first_alone(config: &mut SyncConfig) {
    config.connect.truncate(1);
    config.stream_above = LARGE / 2;
}

fn is_at(sim: &Sim, block: &Block) -> bool {
    sim.sync.tip().1 == block.block_hash() && sim.waiting.is_empty()
}

#[test]
fn a_block_that_crawls_in_is_taken_from_a_fast_peer_as_soon_as_there_is_one() {
    let chain = with_large(1);
    let tip = chain.last().unwrap();
    let peers = vec![crawls(1, &chain, 10_000), FakePeer::new(2, chain.clone())];
    let mut sim = Sim::new(4, peers, first_alone);
    sim.run_until("its first piece", MINUTE, |sim| sim.pieces > 0);
    sim.connect_inbound(1);
    sim.run_until("the tip", Duration::from_secs(45), |sim| is_at(sim, tip));
    let [(addr, reason)] = sim.dropped.as_slice() else {
        panic!("{:?}", sim.dropped);
    };
    assert_eq!(*addr, sim.peers[0].addr);
    assert!(reason.is_fault() && !reason.is_offence(), "{reason}");
    assert_eq!(sim.broken, 1);
    sim.check_outputs();
}

#[test]
fn a_block_that_crawls_in_from_the_only_peer_is_waited_for() {
    let chain = with_large(1);
    let tip = chain.last().unwrap();
    let lacks = FakePeer::new(2, chain[..3].to_vec());
    let mut sim = Sim::new(5, vec![crawls(1, &chain, 10_000), lacks], first_alone);
    sim.run_until("its first piece", MINUTE, |sim| sim.pieces > 0);
    // It has the blocks before and not this one.
    sim.connect_inbound(1);
    sim.run_until("the tip", 3 * MINUTE, |sim| is_at(sim, tip));
    assert!(sim.dropped.is_empty(), "{:?}", sim.dropped);
    assert_eq!(sim.broken, 0);
}

#[test]
fn where_all_peers_crawl_the_block_comes_all_the_same() {
    let chain = with_large(1);
    let tip = chain.last().unwrap();
    let peers = vec![crawls(1, &chain, 12_000), crawls(2, &chain, 12_000)];
    let mut sim = Sim::new(6, peers, |config| config.stream_above = LARGE / 2);
    sim.run_until("the tip", 10 * MINUTE, |sim| is_at(sim, tip));
    assert!(sim.broken <= 5, "{}", sim.broken);
}

#[test]
fn a_stream_is_measured_by_what_others_showed() {
    let chain = with_large(2);
    let fast = crawls(1, &chain[..4], 2_000_000);
    let mut sim = Sim::new(7, vec![fast, crawls(2, &chain, 60_000)], |config| {
        first_alone(config);
        config.stream_floor = 0;
        config.stream_patience = Duration::from_secs(3);
    });
    sim.run_to_tip(&chain[3]);
    // 15 seconds for the second large block, which the fast peer has after the slow one.
    sim.connect_inbound(1);
    let before = sim.pieces;
    sim.run_until("its first piece", MINUTE, |sim| sim.pieces > before);
    sim.run_for(Duration::from_secs(1));
    sim.peers[0].chain = chain.clone();
    sim.peers[0].announce(2);
    let tip = chain.last().unwrap();
    let (slow, hash) = (sim.id_of(1).unwrap(), chain[4].block_hash());
    assert!(!sim.sync.is_superseded(&hash, slow));
    sim.run_until("the fast one's", Duration::from_secs(8), |sim| {
        sim.sync.is_superseded(&hash, slow)
    });
    sim.run_until("the tip", Duration::from_secs(8), |sim| is_at(sim, tip));
    assert_eq!(sim.broken, 1);
}

#[test]
fn a_pruned_block_that_comes_in_pieces_is_taken_once_more_and_from_another_when_its_peer_goes() {
    let chain = with_large(1);
    let large = chain[3].block_hash();
    let peers = vec![crawls(1, &chain, 100_000), crawls(2, &chain, 100_000)];
    let mut sim = Sim::new(8, peers, |config| config.stream_above = LARGE / 2);
    sim.run_to_tip(chain.last().unwrap());
    sim.run_for(Duration::from_secs(10));
    for peer in &mut sim.peers {
        peer.heard.clear();
    }
    let (blocks, pieces) = (sim.blocks.len(), sim.pieces);
    let wanted: Vec<_> = chain[1..].iter().map(Block::block_hash).collect();
    sim.sync.set_refetch(&wanted, usize::MAX, sim.now);
    sim.settle();
    sim.run_until("some pieces", MINUTE, |sim| sim.pieces > pieces + 2);
    // Who sends it goes away in the middle.
    let asked = |sim: &Sim, at: usize| sim.peers[at].blocks_asked().contains(&large);
    let first = if asked(&sim, 0) { 0 } else { 1 };
    assert!(asked(&sim, first) && !asked(&sim, 1 - first));
    let id = sim.id_of(first).unwrap();
    sim.peers[first].reachable = false;
    assert!(!sim.sync.is_superseded(&large, id));
    sim.sync.disconnected(id, sim.now);
    sim.settle();
    assert!(!sim.sync.is_superseded(&large, id), "nobody else sends it");
    // What is still said of its pieces is not said of the other's.
    let other = sim.id_of(1 - first).unwrap();
    sim.run_until("the other's first piece", MINUTE, |sim| {
        sim.sync.is_superseded(&large, id)
    });
    assert!(!sim.sync.is_superseded(&large, other));
    sim.run_until("all of them", 2 * MINUTE, |sim| sim.again.len() == 4);
    assert!(asked(&sim, 1 - first), "it is asked of the other");
    assert_eq!(sim.broken, 1);
    let mut came: Vec<u32> = sim.again.iter().map(|(_, height)| *height).collect();
    came.sort_unstable();
    assert_eq!(came, [2, 3, 4, 5]);
    // Nothing of it is a new block, and nobody is to blame.
    assert_eq!(sim.blocks.len(), blocks);
    assert_eq!(sim.sync.refetch_unavailable(), None);
    assert!(sim.dropped.is_empty(), "{:?}", sim.dropped);
    for peer in sim.sync.peers() {
        assert_eq!(peer.misbehaviour, 0);
    }
    // It has come: it is not asked for once more.
    sim.run_for(10 * MINUTE);
    assert_eq!(sim.again.len(), 4);
}

#[test]
fn a_block_that_cannot_be_taken_here_is_not_asked_for_again() {
    let chain = with_large(1);
    let peers = vec![
        FakePeer::new(1, chain.clone()),
        FakePeer::new(2, chain.clone()),
    ];
    let mut sim = Sim::new(9, peers, |config| config.stream_above = LARGE / 2);
    let large = chain[3].block_hash();
    sim.busy = true;
    sim.run_until("its first piece", MINUTE, |sim| sim.pieces > 0);
    sim.sync.block_untakable(large, sim.now);
    // Its peer goes away in the middle of it, or is through with it: both are no reason to ask again.
    sim.run_for(Duration::from_secs(5));
    sim.waiting.retain(|waiting| waiting.hash != large);
    sim.busy = false;
    sim.sleep(2 * MINUTE);
    sim.run_for(10 * MINUTE);
    let asked = sim.peers.iter().flat_map(FakePeer::blocks_asked);
    assert_eq!(asked.filter(|hash| *hash == large).count(), 1);
    assert_eq!(sim.sync.tip().0, 3);
    assert_eq!(sim.sync.untakable(), Some(4));
    // Of a branch that nobody follows any more it is nobody's concern.
    let other = super::network::fork(&chain, 3, 5, 1);
    sim.peers[0].chain = other.clone();
    sim.peers[0].announce(5);
    sim.run_to_tip(other.last().unwrap());
    assert_eq!(sim.sync.untakable(), None);
}

//! What is held against a peer and what is not: floods, answers, and messages that another may send by mistake.

use std::net::SocketAddr;
use std::time::Duration;

use bitcoin::hashes::Hash;
use bitcoin::p2p::message_blockdata::Inventory;
use bitcoin::{Block, BlockHash, Witness};

use super::network::{FakePeer, MAGIC, Sim, chain, txid_bytes};
use crate::chain::fixtures::{mine_header, spend};
use crate::chain::sync::{DropReason, PeerInfo, SyncConfig};
use crate::wire::codec::{Decoder, WireError, encode_frame};
use crate::wire::message::Message;

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);

fn address() -> SocketAddr {
    SocketAddr::from(([50, 1, 1, 1], 5))
}

/// A host that one peer connected to, and nobody else is there.
fn incoming(seed: u64, chain: &[Block], configure: impl FnOnce(&mut SyncConfig)) -> Sim {
    let mut peer = FakePeer::new(1, chain.to_vec());
    peer.addr = address();
    // About 2 kB of what it says at a time.
    peer.line = Some((100_000, Duration::from_millis(20)));
    let mut sim = Sim::new(seed, vec![peer], |config| {
        config.connect.clear();
        configure(config);
    });
    sim.connect_inbound(0);
    sim
}

fn info(sim: &Sim) -> PeerInfo {
    sim.sync.peers().pop().expect("the peer is here")
}

fn is_banned(sim: &Sim) -> bool {
    let now = sim.now.secs();
    sim.sync.bans().of(address().ip(), now).is_some()
}

/// Says nothing that was asked for until it is dropped; how often.
fn flood(sim: &mut Sim) -> usize {
    let noise = Message::Inv(vec![Inventory::WTx(bitcoin::Wtxid::all_zeros()); 20]);
    for rounds in 0.. {
        if sim.id_of(0).is_none() {
            return rounds;
        }
        assert!(rounds < 1_000, "it is never dropped");
        sim.peers[0].say(&noise);
        sim.run_for(SECOND / 10);
    }
    0
}

#[test]
fn what_an_incoming_peer_was_asked_for_is_not_held_against_it() {
    let chain = chain(2_500);
    let last = chain.last().unwrap();
    let mut sim = incoming(61, &chain, |config| config.incoming_rate = 300);
    // Headers and blocks.
    sim.run_to_tip(last);
    assert_eq!(info(&sim).misbehaviour, 0);
    assert_eq!(info(&sim).blocks, 2_500);
    // Blocks once more.
    let hashes: Vec<BlockHash> = chain[1_000..1_400].iter().map(Block::block_hash).collect();
    for portion in hashes.chunks(50) {
        let before = sim.again.len();
        sim.sync.set_refetch(portion, usize::MAX, sim.now);
        sim.settle();
        sim.run_until("old blocks", MINUTE, |sim| sim.again.len() == before + 50);
    }
    assert_eq!(info(&sim).misbehaviour, 0);
    assert_eq!(info(&sim).blocks, 2_900);
    // Transactions.
    sim.run_until("synced", MINUTE, |sim| sim.sync.synced(sim.now));
    for n in 0..20 {
        let mut tx = spend(n);
        tx.input[0].witness = Witness::from_slice(&[vec![n as u8; 20_000]]);
        let wtxid = tx.compute_wtxid();
        let peer = &mut sim.peers[0];
        peer.pool.insert(*wtxid.as_ref(), tx.clone());
        peer.pool.insert(txid_bytes(&tx), tx);
        peer.say(&Message::Inv(vec![Inventory::WTx(wtxid)]));
    }
    sim.run_until("transactions", MINUTE, |sim| sim.transactions.len() == 20);
    assert_eq!(info(&sim).misbehaviour, 0);
    // Noise still is.
    flood(&mut sim);
    assert!(matches!(sim.dropped[0].1, DropReason::Flooding));
    assert!(is_banned(&sim));
}

#[test]
fn a_block_in_pieces_is_not_held_against_its_peer_and_counts() {
    let chain = chain(300);
    let mut sim = incoming(62, &chain, |config| {
        config.incoming_rate = 100;
        config.stream_above = 100;
    });
    sim.run_to_tip(&chain[299]);
    assert!(sim.pieces >= 300);
    assert_eq!(info(&sim).misbehaviour, 0);
    assert_eq!(info(&sim).blocks, 300);
}

#[test]
fn a_peer_that_owes_us_a_block_may_not_flood_us_meanwhile() {
    let chain = chain(5);
    let mut sim = incoming(63, &chain, |config| config.incoming_rate = 1_000);
    sim.peers[0].faults.stalls = true;
    sim.run_until("asked", MINUTE, |sim| {
        !sim.peers[0].blocks_asked().is_empty()
    });
    assert!(info(&sim).inflight > 0);
    let rounds = flood(&mut sim);
    assert!(rounds > 40, "half a minute of the rate may come at once");
    assert!(matches!(sim.dropped[0].1, DropReason::Flooding));
}

#[test]
fn a_second_version_costs_nothing_and_a_spoiled_message_the_connection_alone() {
    let chain = chain(5);
    let mut spoiled = encode_frame(MAGIC, "ping", &[7; 8]).to_vec();
    *spoiled.last_mut().unwrap() ^= 1;
    let too_short = encode_frame(MAGIC, "ping", &[7; 3]).to_vec();
    let too_long = encode_frame(MAGIC, "sendcmpct", &[1; 20]).to_vec();
    let no_transaction = encode_frame(MAGIC, "tx", &[1, 2, 3]).to_vec();
    for bytes in [spoiled, too_short, too_long, no_transaction] {
        let mut sim = incoming(64, &chain, |_| {});
        sim.run_to_tip(&chain[4]);
        sim.peers[0].say_bytes(&encode_frame(MAGIC, "version", &[1; 100]));
        sim.run_for(SECOND);
        assert!(sim.dropped.is_empty());
        sim.peers[0].say_bytes(&bytes);
        sim.run_for(SECOND);
        assert_eq!(sim.dropped.len(), 1);
        assert!(!is_banned(&sim), "{}", sim.dropped[0].1);
    }
    // What is no message of ours at all is no mistake.
    let mut sim = incoming(64, &chain, |_| {});
    sim.run_to_tip(&chain[4]);
    sim.peers[0].say_bytes(b"GET / HTTP/1.1\r\n\r\nHost: localhost");
    sim.run_for(SECOND);
    assert!(is_banned(&sim));
}

#[test]
fn an_offer_of_compact_blocks_before_verack_counts() {
    let chain = chain(5);
    let mut sim = incoming(65, &chain, |_| {});
    sim.peers[0].say(&Message::SendCmpct {
        announce: false,
        version: 2,
    });
    sim.run_to_tip(&chain[4]);
    let early = |message: &Message| matches!(message, Message::Verack);
    assert!(sim.peers[0].heard.iter().any(early));
    assert!(sim.sync.peers.values().all(|session| session.sends_compact));
}

#[test]
fn a_full_header_tree_is_nobodys_fault() {
    let chain = chain(10);
    let peers = (0..3u8).map(|n| {
        let mut peer = FakePeer::new(1, chain.clone());
        peer.addr = SocketAddr::from(([50, n, 1, 1], 5));
        peer
    });
    let mut sim = Sim::new(66, peers.collect(), |config| config.connect.clear());
    // The genesis and five more.
    sim.sync.tree.set_max_headers(6);
    for peer in 0..3 {
        sim.connect_inbound(peer);
    }
    sim.run_to_tip(&chain[4]);
    sim.coast(5 * MINUTE);
    assert!(sim.dropped.is_empty(), "{:?}", sim.dropped);
    assert_eq!(sim.sync.best_header().0, 5);
    assert_eq!(sim.sync.bans().holding(sim.now.secs()).count(), 0);
    assert!(sim.sync.said.tree_full);
}

/// What a decoder says of a block with an extended header that announces so many bytes.
fn announced(bytes: u64) -> WireError {
    let mut header = MAGIC.to_vec();
    header.extend_from_slice(b"extmsg\0\0\0\0\0\0");
    header.extend_from_slice(&u32::MAX.to_le_bytes());
    header.extend_from_slice(&[0; 4]);
    header.extend_from_slice(b"block\0\0\0\0\0\0\0");
    header.extend_from_slice(&bytes.to_le_bytes());
    let mut decoder = Decoder::new(MAGIC);
    decoder.set_extended(true);
    decoder.set_blocks(1 << 30, 32_000_000);
    decoder.feed(&header);
    decoder.next().unwrap_err()
}

#[test]
fn a_block_of_four_gibibytes_is_not_taken_and_its_peer_not_banned() {
    let chain = chain(5);
    for (bytes, banned) in [(1 << 32, false), (1 << 40, false), ((1 << 32) - 1, true)] {
        let mut sim = incoming(67, &chain, |_| {});
        sim.run_to_tip(&chain[4]);
        let id = sim.id_of(0).unwrap();
        sim.sync.failed(id, announced(bytes).into(), sim.now);
        sim.settle();
        assert!(sim.id_of(0).is_none());
        assert_eq!(is_banned(&sim), banned, "{bytes}");
        assert_eq!(sim.sync.said.huge_block, !banned);
    }
}

#[test]
fn who_does_not_read_is_dropped_and_not_banned() {
    let chain = chain(5);
    let mut sim = incoming(68, &chain, |_| {});
    sim.run_to_tip(&chain[4]);
    let id = sim.id_of(0).unwrap();
    sim.sync.does_not_read(id, sim.now);
    sim.settle();
    assert!(matches!(sim.dropped[0].1, DropReason::DoesNotRead));
    assert!(!is_banned(&sim));
}

#[test]
fn small_offences_of_a_peer_that_we_chose_show_before_it_is_dropped_for_them() {
    let chain = chain(5);
    let mut sim = Sim::new(66, vec![FakePeer::new(1, chain.clone())], |_| {});
    sim.run_to_tip(&chain[4]);
    assert_eq!(info(&sim).misbehaviour, 0);
    assert!(info(&sim).outbound);
    // A block that it was not asked for, again and again.
    let block = Message::Block(crate::chain::fixtures::raw(&chain[2]).into());
    for sent in 1..=256 {
        sim.peers[0].say(&block);
        sim.run_until("counted", MINUTE, |sim| info(sim).misbehaviour == sent);
    }
    // And headers that nobody can connect.
    let stranger = mine_header(
        &mine_header(&chain[0].header, |header| header.time += 1),
        |_| {},
    );
    sim.peers[0].faults.hides_headers = true;
    sim.peers[0].say(&Message::Headers(vec![stranger]));
    sim.run_until("counted", MINUTE, |sim| info(sim).misbehaviour == 257);
    assert!(sim.dropped.is_empty());
    sim.peers[0].say(&block);
    sim.run_until("dropped", MINUTE, |sim| !sim.dropped.is_empty());
    assert!(matches!(sim.dropped[0].1, DropReason::UnrequestedBlocks));
}

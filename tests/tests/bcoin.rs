//! bcoin does what the tests with it count on: it mines, relays, confirms, counts its coins, and talks to peers.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    missing_docs
)]

use std::collections::BTreeSet;
use std::io::{BufReader, Write};
use std::net::TcpStream;
use std::time::Duration;

use bitcoin::consensus::{Decodable, encode};
use bitcoin::hashes::Hash;
use bitcoin::p2p::message::{NetworkMessage, RawNetworkMessage};
use bitcoin::p2p::message_blockdata::{GetHeadersMessage, Inventory};
use bitcoin::p2p::message_network::VersionMessage;
use bitcoin::p2p::{Address, Magic, ServiceFlags};
use bitcoin::{Amount, BlockHash, Txid, blockdata::constants::genesis_block};
use blockmill_tests::bcoin::{self, Bcoin};
use blockmill_tests::miner::Miner;

/// The reward of regtest's first 150 blocks.
const SUBSIDY: Amount = Amount::from_int_btc(50);
const FEE: Amount = Amount::from_sat(12_345);

/// Mines `blocks` blocks and shows them to the miner.
fn mine(node: &Bcoin, miner: &mut Miner, blocks: u32) -> Vec<BlockHash> {
    let hashes = node.generate(blocks, &miner.key_hash()).unwrap();
    for hash in &hashes {
        miner.see(&node.block(hash).unwrap());
    }
    hashes
}

#[test]
fn bcoin_confirms_what_is_sent_and_its_coin_total_is_all_that_was_mined() {
    let Some(node) = Bcoin::start().unwrap() else {
        return;
    };
    let mut miner = Miner::new(1, bcoin::NETWORK).unwrap();
    mine(&node, &mut miner, 110);
    assert_eq!(node.height().unwrap(), 110);
    let totals = node.coin_totals().unwrap();
    assert_eq!((totals.height, totals.txouts), (110, 110));
    assert_eq!(totals.total, SUBSIDY * 110);
    assert_eq!(miner.balance(), SUBSIDY * 110);

    let mut sent = BTreeSet::new();
    for outputs in 1..=5 {
        let transaction = miner.split(outputs, FEE).unwrap();
        assert_eq!(node.send(&transaction).unwrap(), transaction.compute_txid());
        sent.insert(transaction.compute_txid());
    }
    assert_eq!(node.mempool().unwrap(), sent);

    let hashes = mine(&node, &mut miner, 1);
    let block = node.block(&hashes[0]).unwrap();
    let confirmed: BTreeSet<Txid> = block.txdata[1..]
        .iter()
        .map(|tx| tx.compute_txid())
        .collect();
    assert_eq!(confirmed, sent);
    assert!(node.mempool().unwrap().is_empty());
    let totals = node.coin_totals().unwrap();
    assert_eq!((totals.height, totals.best), (111, hashes[0]));
    // Five coins became 1 + 2 + 3 + 4 + 5, and one more was mined, with the fees. What division left over is in them too.
    assert_eq!(totals.txouts, 110 - 5 + 15 + 1);
    assert_eq!(totals.total, SUBSIDY * 111);
    assert_eq!(miner.balance(), SUBSIDY * 111);
    node.stop().unwrap();
}

/// A peer that says nothing by itself; enough of one to hear what bcoin says.
struct Peer {
    stream: TcpStream,
    reader: BufReader<TcpStream>,
}

impl Peer {
    fn connect(node: &Bcoin) -> Self {
        let stream = TcpStream::connect(node.peer_address()).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(20)))
            .unwrap();
        let mut peer = Self {
            reader: BufReader::new(stream.try_clone().unwrap()),
            stream,
        };
        let nowhere = Address::new(&node.peer_address(), ServiceFlags::NONE);
        peer.send(NetworkMessage::Version(VersionMessage {
            version: 70015,
            services: ServiceFlags::NETWORK | ServiceFlags::WITNESS,
            timestamp: 0,
            receiver: nowhere.clone(),
            sender: nowhere,
            nonce: 7,
            user_agent: "/test/".to_owned(),
            start_height: 0,
            relay: true,
        }));
        peer.wait_for(|message| matches!(message, NetworkMessage::Verack).then_some(()));
        peer.send(NetworkMessage::Verack);
        peer
    }

    fn send(&mut self, message: NetworkMessage) {
        let message = RawNetworkMessage::new(Magic::REGTEST, message);
        self.stream.write_all(&encode::serialize(&message)).unwrap();
    }

    /// Reads until a message is the one; pings are answered on the way.
    fn wait_for<T>(&mut self, mut wanted: impl FnMut(&NetworkMessage) -> Option<T>) -> T {
        loop {
            let message = RawNetworkMessage::consensus_decode(&mut self.reader).unwrap();
            if let NetworkMessage::Ping(nonce) = message.payload() {
                self.send(NetworkMessage::Pong(*nonce));
            }
            if let Some(found) = wanted(message.payload()) {
                return found;
            }
        }
    }
}

#[test]
fn bcoin_serves_headers_and_blocks_and_announces_transactions_and_blocks() {
    let Some(node) = Bcoin::start().unwrap() else {
        return;
    };
    let mut miner = Miner::new(3, bcoin::NETWORK).unwrap();
    let hashes = mine(&node, &mut miner, 110);
    let mut peer = Peer::connect(&node);

    let genesis = genesis_block(bcoin::NETWORK).block_hash();
    let locator = GetHeadersMessage::new(vec![genesis], BlockHash::all_zeros());
    peer.send(NetworkMessage::GetHeaders(locator));
    let headers = peer.wait_for(|message| match message {
        NetworkMessage::Headers(headers) => Some(headers.clone()),
        _ => None,
    });
    let heard: Vec<BlockHash> = headers.iter().map(|header| header.block_hash()).collect();
    assert_eq!(heard, hashes);

    peer.send(NetworkMessage::GetData(vec![Inventory::WitnessBlock(
        hashes[42],
    )]));
    let block = peer.wait_for(|message| match message {
        NetworkMessage::Block(block) => Some(block.clone()),
        _ => None,
    });
    assert_eq!(block, node.block(&hashes[42]).unwrap());

    let transaction = miner.split(3, FEE).unwrap();
    let txid = node.send(&transaction).unwrap();
    peer.wait_for(|message| match message {
        NetworkMessage::Inv(inv) => inv.contains(&Inventory::Transaction(txid)).then_some(()),
        _ => None,
    });
    peer.send(NetworkMessage::GetData(vec![
        Inventory::WitnessTransaction(txid),
    ]));
    let relayed = peer.wait_for(|message| match message {
        NetworkMessage::Tx(transaction) => Some(transaction.clone()),
        _ => None,
    });
    assert_eq!(relayed, transaction);

    let next = mine(&node, &mut miner, 1)[0];
    peer.wait_for(|message| match message {
        NetworkMessage::Inv(inv) => inv.contains(&Inventory::Block(next)).then_some(()),
        NetworkMessage::Headers(headers) => headers
            .iter()
            .any(|header| header.block_hash() == next)
            .then_some(()),
        _ => None,
    });
}

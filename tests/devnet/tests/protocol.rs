//! The protocol as a client sees it, over TCP.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod client;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use bitcoin::consensus::deserialize;
use bitcoin::hashes::Hash;
use bitcoin::p2p::ServiceFlags;
use bitcoin::p2p::message::NetworkMessage;
use bitcoin::p2p::message_blockdata::Inventory;
use bitcoin::{Block, BlockHash, Network, Wtxid};
use client::Client;
use devnet::{Behaviour, Config, Devnet};

const SOON: Duration = Duration::from_secs(10);

fn regtest(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../data/regtest")
        .join(name)
}

fn genesis() -> BlockHash {
    bitcoin::constants::genesis_block(Network::Regtest).block_hash()
}

#[test]
fn a_client_shakes_hands_and_fetches_every_header_and_block_of_a_file() {
    let devnet = Devnet::serve_file(regtest("main.dat"), Network::Regtest).unwrap();
    let mut client = Client::connect(devnet.p2p_addr(), Network::Regtest);
    let version = client.shake_hands(true);
    assert_eq!(version.start_height, 130);
    assert_eq!(version.user_agent, "/devnet:0.1/");
    assert_eq!(version.version, 70_016);
    assert!(
        version
            .services
            .has(ServiceFlags::NETWORK | ServiceFlags::WITNESS)
    );
    devnet.wait_for_clients(1, SOON).unwrap();

    let headers = client.headers(vec![genesis()]);
    assert_eq!(headers.len(), 130);
    let hashes: Vec<BlockHash> = headers.iter().map(|header| header.block_hash()).collect();
    assert_eq!(*hashes.last().unwrap(), devnet.status().tip);

    // All at once: the server must take any number of requests.
    client.send(NetworkMessage::GetData(
        hashes
            .iter()
            .map(|hash| Inventory::WitnessBlock(*hash))
            .collect(),
    ));
    // The table counts the one of the genesis block.
    let mut txs = 1;
    for header in &headers {
        let block = client.block();
        assert_eq!(block.header, *header);
        assert!(block.check_merkle_root() && block.check_witness_commitment());
        txs += block.txdata.len();
    }
    assert_eq!(txs, 7_573);

    // Without the witness flag the same blocks come without witnesses.
    client.send(NetworkMessage::GetData(vec![Inventory::Block(hashes[129])]));
    let stripped = client.block();
    assert_eq!(stripped.block_hash(), hashes[129]);
    assert!(
        stripped
            .txdata
            .iter()
            .flat_map(|tx| &tx.input)
            .all(|input| input.witness.is_empty())
    );

    let nothing = BlockHash::all_zeros();
    client.send(NetworkMessage::GetData(vec![Inventory::WitnessBlock(
        nothing,
    )]));
    let answer = client.wait(|message| matches!(message, NetworkMessage::NotFound(_)));
    assert_eq!(
        answer,
        NetworkMessage::NotFound(vec![Inventory::WitnessBlock(nothing)])
    );
}

#[test]
fn a_locator_is_answered_from_the_first_hash_that_is_active() {
    let devnet = Devnet::serve_file(regtest("main.dat"), Network::Regtest).unwrap();
    let mut client = Client::connect(devnet.p2p_addr(), Network::Regtest);
    client.shake_hands(false);
    let all = client.headers(vec![genesis()]);
    let at = |height: usize| all[height - 1].block_hash();

    assert_eq!(client.headers(vec![at(100)]).len(), 30);
    assert_eq!(
        client
            .headers(vec![BlockHash::all_zeros(), at(120), at(100)])
            .len(),
        10
    );
    assert_eq!(client.headers(vec![BlockHash::all_zeros()]).len(), 130);
    assert_eq!(client.headers(vec![at(130)]).len(), 0);

    // A locator of the branch that was left is answered from the fork.
    devnet.load(regtest("branch.dat")).unwrap();
    let branch = client.headers(vec![at(130), at(126), at(122)]);
    assert_eq!(branch.len(), 10);
    assert_eq!(branch[1].block_hash(), at(124));
    assert_eq!(branch[2].prev_blockhash, at(124));
}

#[test]
fn headers_come_two_thousand_at_a_time() {
    let folder = std::env::var_os("BLOCKMILL_TEST_DATA").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data"),
        PathBuf::from,
    );
    let path = folder.join("blocks/mainnet-0-4312.dat");
    if !path.exists() {
        println!("skipped: no {}", path.display());
        return;
    }
    let devnet = Devnet::serve_file(path, Network::Bitcoin).unwrap();
    let mut client = Client::connect(devnet.p2p_addr(), Network::Bitcoin);
    client.shake_hands(true);
    let mut locator = bitcoin::constants::genesis_block(Network::Bitcoin).block_hash();
    let mut counts = Vec::new();
    loop {
        let headers = client.headers(vec![locator]);
        counts.push(headers.len());
        let Some(last) = headers.last() else { break };
        assert_eq!(headers[0].prev_blockhash, locator);
        locator = last.block_hash();
    }
    assert_eq!(counts, [2_000, 2_000, 312, 0]);
    assert_eq!(locator, devnet.status().tip);
}

#[test]
fn new_blocks_are_announced_by_headers_or_inv_as_asked() {
    let devnet = Devnet::new(3).unwrap();
    devnet.mine(3).unwrap();
    let mut modern = Client::connect(devnet.p2p_addr(), Network::Regtest);
    modern.shake_hands(true);
    modern.send(NetworkMessage::SendHeaders);
    let mut plain = Client::connect(devnet.p2p_addr(), Network::Regtest);
    plain.shake_hands(true);
    modern.ping();
    plain.ping();

    let hash = devnet.mine(1).unwrap()[0];
    let NetworkMessage::Headers(headers) =
        modern.wait(|message| matches!(message, NetworkMessage::Headers(_)))
    else {
        unreachable!()
    };
    assert_eq!(headers[0].block_hash(), hash);
    let inv = plain.wait(|message| matches!(message, NetworkMessage::Inv(_)));
    assert_eq!(inv, NetworkMessage::Inv(vec![Inventory::Block(hash)]));

    let reorg = devnet.reorg(2, 3).unwrap();
    let NetworkMessage::Headers(headers) =
        modern.wait(|message| matches!(message, NetworkMessage::Headers(_)))
    else {
        unreachable!()
    };
    let announced: Vec<BlockHash> = headers.iter().map(|header| header.block_hash()).collect();
    assert_eq!(announced, reorg.added);
    let inv = plain.wait(|message| matches!(message, NetworkMessage::Inv(_)));
    assert_eq!(
        inv,
        NetworkMessage::Inv(vec![Inventory::Block(devnet.status().tip)])
    );
}

#[test]
fn transactions_are_announced_served_taken_and_relayed() {
    let devnet = Devnet::new(4).unwrap();
    devnet.mine(110).unwrap();
    let mut first = Client::connect(devnet.p2p_addr(), Network::Regtest);
    first.shake_hands(true);
    let mut second = Client::connect(devnet.p2p_addr(), Network::Regtest);
    second.shake_hands(false);
    first.ping();
    second.ping();

    let txid = devnet.fill_mempool(1)[0];
    let NetworkMessage::Inv(items) =
        first.wait(|message| matches!(message, NetworkMessage::Inv(_)))
    else {
        unreachable!()
    };
    let [Inventory::WTx(wtxid)] = items[..] else {
        panic!("not announced by wtxid: {items:?}")
    };
    let inv = second.wait(|message| matches!(message, NetworkMessage::Inv(_)));
    assert_eq!(inv, NetworkMessage::Inv(vec![Inventory::Transaction(txid)]));

    first.send(NetworkMessage::GetData(vec![Inventory::WTx(wtxid)]));
    let by_wtxid = first.transaction();
    assert_eq!(
        (by_wtxid.compute_wtxid(), by_wtxid.compute_txid()),
        (wtxid, txid)
    );
    first.send(NetworkMessage::GetData(vec![
        Inventory::WitnessTransaction(txid),
    ]));
    assert_eq!(first.transaction(), by_wtxid);
    first.send(NetworkMessage::GetData(vec![Inventory::Transaction(txid)]));
    assert!(
        first
            .transaction()
            .input
            .iter()
            .all(|input| input.witness.is_empty())
    );
    let unknown = Inventory::WTx(Wtxid::all_zeros());
    first.send(NetworkMessage::GetData(vec![unknown]));
    let answer = first.wait(|message| matches!(message, NetworkMessage::NotFound(_)));
    assert_eq!(answer, NetworkMessage::NotFound(vec![unknown]));

    // The same wallet in another node writes a transaction that this one has not seen.
    let twin = Devnet::new(4).unwrap();
    twin.mine(110).unwrap();
    twin.fill_mempool(2);
    let state = twin.node().state();
    let order = state.pool().in_order();
    assert_eq!(order[0], txid);
    let other = state.pool().get(&order[1]).unwrap().tx.clone();
    drop(state);
    second.send(NetworkMessage::Inv(vec![Inventory::Transaction(order[1])]));
    let asked = second.wait(|message| matches!(message, NetworkMessage::GetData(_)));
    assert_eq!(
        asked,
        NetworkMessage::GetData(vec![Inventory::WitnessTransaction(order[1])])
    );
    second.send(NetworkMessage::Tx(other.clone()));
    let inv = first.wait(|message| matches!(message, NetworkMessage::Inv(_)));
    assert_eq!(
        inv,
        NetworkMessage::Inv(vec![Inventory::WTx(other.compute_wtxid())])
    );
    assert_eq!(devnet.status().mempool, 2);
    // Who told it is not told.
    assert!(second.ping().is_empty());

    // A fee filter above everything silences transactions but not blocks.
    first.send(NetworkMessage::FeeFilter(2_100_000_000_000_000));
    first.ping();
    devnet.fill_mempool(3);
    let hash = devnet.mine_block().unwrap();
    let inv = first.wait(|message| matches!(message, NetworkMessage::Inv(_)));
    assert_eq!(inv, NetworkMessage::Inv(vec![Inventory::Block(hash)]));

    // A client that comes later hears of the whole pool.
    devnet.fill_mempool(5);
    let mut late = Client::connect(devnet.p2p_addr(), Network::Regtest);
    late.shake_hands(true);
    let NetworkMessage::Inv(items) = late.wait(|message| matches!(message, NetworkMessage::Inv(_)))
    else {
        unreachable!()
    };
    assert_eq!(items.len(), devnet.status().mempool);
}

/// A client of a server with this behaviour, that has asked for the block at `height` of main.dat.
fn ask(devnet: &Devnet, behaviour: Behaviour, height: u32) -> (Client, Block) {
    let addr = devnet.add_server("/liar:1/", behaviour).unwrap();
    let mut client = Client::connect(addr, Network::Regtest);
    assert_eq!(client.shake_hands(true).user_agent, "/liar:1/");
    client.ping();
    let state = devnet.node().state();
    let block = state.chain().block_at(height).unwrap().decode().unwrap();
    client.send(NetworkMessage::GetData(vec![Inventory::WitnessBlock(
        block.block_hash(),
    )]));
    drop(state);
    (client, block)
}

#[test]
fn each_fault_of_a_block_is_as_named() {
    let devnet = Devnet::serve_file(regtest("main.dat"), Network::Regtest).unwrap();
    let magic = Network::Regtest.magic().to_bytes();

    let (mut client, block) = ask(
        &devnet,
        Behaviour {
            wrong_checksum: true,
            ..Behaviour::default()
        },
        120,
    );
    let (head, payload) = client.raw();
    assert_eq!(deserialize::<Block>(&payload).unwrap(), block);
    assert_ne!(head[20..], client::checksum(&payload));

    let (mut client, block) = ask(
        &devnet,
        Behaviour {
            wrong_magic: true,
            ..Behaviour::default()
        },
        120,
    );
    let (head, payload) = client.raw();
    assert_eq!(deserialize::<Block>(&payload).unwrap(), block);
    assert_ne!(head[..4], magic);

    let (mut client, _) = ask(
        &devnet,
        Behaviour {
            oversized_length: Some(u32::MAX),
            ..Behaviour::default()
        },
        120,
    );
    let head = client.raw_head();
    assert_eq!(head[16..20], u32::MAX.to_le_bytes());

    let (mut client, block) = ask(
        &devnet,
        Behaviour {
            disconnect_mid_block: true,
            ..Behaviour::default()
        },
        120,
    );
    let head = client.raw_head();
    let rest = client.until_the_end();
    let promised = u32::from_le_bytes(head[16..20].try_into().unwrap()) as usize;
    assert_eq!(promised, bitcoin::consensus::serialize(&block).len());
    assert_eq!(rest.len(), promised / 2);

    let mutation = Behaviour {
        mutated_block: true,
        ..Behaviour::default()
    };
    let heights = (102..=130).filter(|height| {
        let state = devnet.node().state();
        !state
            .chain()
            .block_at(*height)
            .unwrap()
            .decode()
            .unwrap()
            .txdata
            .len()
            .is_power_of_two()
    });
    let heights: Vec<u32> = heights.collect();
    assert!(heights.len() > 5);
    for height in heights {
        let (mut client, block) = ask(&devnet, mutation.clone(), height);
        let mutated = client.block();
        assert_eq!(mutated.block_hash(), block.block_hash());
        assert!(mutated.txdata.len() > block.txdata.len());
        assert!(mutated.check_merkle_root() && mutated.check_witness_commitment());
    }
}

#[test]
fn a_stalling_server_answers_everything_but_getdata_and_only_when_its_honest_blocks_are_used_up() {
    let devnet = Devnet::serve_file(regtest("main.dat"), Network::Regtest).unwrap();
    let stall = Behaviour {
        stall: true,
        honest_blocks: 1,
        ..Behaviour::default()
    };
    let (mut client, block) = ask(&devnet, stall, 110);
    assert_eq!(client.block(), block);
    let again = NetworkMessage::GetData(vec![Inventory::WitnessBlock(block.block_hash())]);
    client.send(again.clone());
    // The pong comes after whatever the block request brought.
    assert!(client.ping().is_empty());

    let addr = devnet.add_server("/slow:1/", Behaviour::default()).unwrap();
    let mut client = Client::connect(addr, Network::Regtest);
    client.shake_hands(true);
    devnet
        .set_behaviour(
            addr,
            Behaviour {
                latency_ms: 400,
                ..Behaviour::default()
            },
        )
        .unwrap();
    client.ping();
    let start = Instant::now();
    client.send(again.clone());
    client.send(again);
    assert_eq!((client.block(), client.block()), (block.clone(), block));
    let waited = start.elapsed();
    assert!(waited >= Duration::from_millis(400), "{waited:?}");
    assert!(
        waited < Duration::from_millis(790),
        "latency adds up: {waited:?}"
    );
}

#[test]
fn header_faults_are_as_named() {
    let devnet = Devnet::serve_file(regtest("main.dat"), Network::Regtest).unwrap();
    let addr = devnet
        .add_server(
            "/liar:1/",
            Behaviour {
                bad_pow_header: true,
                ..Behaviour::default()
            },
        )
        .unwrap();
    let mut client = Client::connect(addr, Network::Regtest);
    client.shake_hands(true);
    let headers = client.headers(vec![genesis()]);
    assert_eq!(headers.len(), 130);
    let valid = |header: &bitcoin::block::Header| header.validate_pow(header.target()).is_ok();
    assert!(headers[..129].iter().all(valid));
    assert!(!valid(&headers[129]));

    let empty = Behaviour {
        empty_headers: true,
        ..Behaviour::default()
    };
    devnet.set_behaviour(addr, empty).unwrap();
    assert!(client.headers(vec![genesis()]).is_empty());
    devnet.set_behaviour(addr, Behaviour::default()).unwrap();
    assert_eq!(client.headers(vec![genesis()]).len(), 130);
}

#[test]
fn many_clients_fetch_at_once_while_the_chain_moves_on() {
    let devnet = Devnet::serve_file(regtest("main.dat"), Network::Regtest).unwrap();
    let addr = devnet.p2p_addr();
    let moved = std::thread::scope(|scope| {
        let fetchers: Vec<_> = (0..6)
            .map(|_| {
                scope.spawn(move || {
                    let mut client = Client::connect(addr, Network::Regtest);
                    client.shake_hands(true);
                    let headers = client.headers(vec![genesis()]);
                    let wanted = headers
                        .iter()
                        .map(|h| Inventory::WitnessBlock(h.block_hash()));
                    client.send(NetworkMessage::GetData(wanted.collect()));
                    for header in &headers {
                        assert_eq!(client.block().header, *header);
                    }
                    headers.len()
                })
            })
            .collect();
        for depth in 1..6 {
            devnet.fill_mempool(5);
            devnet.mine(1).unwrap();
            devnet.reorg(depth, depth + 1).unwrap();
        }
        fetchers
            .into_iter()
            .map(|fetcher| fetcher.join().unwrap())
            .collect::<Vec<_>>()
    });
    assert!(
        moved.iter().all(|count| (130..=140).contains(count)),
        "{moved:?}"
    );
    assert_eq!(devnet.status().height, 140);
}

#[test]
fn stopping_closes_every_connection_and_frees_the_port() {
    let devnet = Devnet::start(Config {
        seed: 5,
        ..Config::default()
    })
    .unwrap();
    let addr = devnet.p2p_addr();
    let mut shaken = Client::connect(addr, Network::Regtest);
    shaken.shake_hands(true);
    let mut silent = Client::connect(addr, Network::Regtest);
    devnet.wait_for_clients(1, SOON).unwrap();
    devnet.stop();
    shaken.until_the_end();
    assert!(silent.until_the_end().is_empty());
    std::net::TcpListener::bind(addr).unwrap();
}

#[test]
fn nonsense_and_bip35_end_the_connection() {
    let devnet = Devnet::new(6).unwrap();
    // Another's first message may be a key of version 2: only who knows no such keys can tell at once.
    let behaviour = Behaviour {
        no_v2: true,
        ..Behaviour::default()
    };
    devnet.set_behaviour(devnet.p2p_addr(), behaviour).unwrap();
    let mut client = Client::connect(devnet.p2p_addr(), Network::Bitcoin);
    client.send(NetworkMessage::Verack);
    assert!(client.until_the_end().is_empty());

    let mut client = Client::connect(devnet.p2p_addr(), Network::Regtest);
    client.shake_hands(true);
    client.send(NetworkMessage::MemPool);
    client.until_the_end();
    // Others are served as before.
    Client::connect(devnet.p2p_addr(), Network::Regtest).shake_hands(true);
}

//! A signet of one's own: who may make blocks is in the chain file, and blocks of others are nobody's, however much work is in them.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    missing_docs
)]

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bitcoin::Network;
use blockmill_tests::host::{Host, Installation};
use devnet::{Config, Devnet, Mining, Signet};
use serde_json::Value;

const LIMIT: Duration = Duration::from_secs(60);

/// A node of a signet with so many blocks. All is from seeds, the nonces too, so it takes the same hashes each time.
fn mined(signet: Signet, blocks: u32) -> Devnet {
    let devnet = Devnet::start(Config {
        seed: 5,
        network: Network::Signet,
        signet: Some(signet),
        mining: Mining {
            txs_per_block: 0,
            ..Config::default().mining
        },
        ..Config::default()
    })
    .unwrap();
    devnet.mine(blocks).unwrap();
    devnet
}

/// What a host of that signet runs on, with the coins' plugin alone.
fn installation(signet: &Signet, peers: &[SocketAddr]) -> Installation {
    let chain = format!(
        "name = \"ours\"\nbase = \"signet\"\nsignet_challenge = \"{}\"\n",
        signet.challenge().to_hex_string()
    );
    Installation::new("ours", peers)
        .unwrap()
        .chain_file(&chain)
        .unwrap()
        .plugins("\n[plugins.utxo-tracker]\n")
}

fn assert_same_coins(host: &mut Host, devnet: &Devnet) {
    let tip = devnet.status().tip.to_string();
    let ours = host.coins_at(&tip, LIMIT).unwrap();
    assert_eq!(ours["muhash"], devnet.utxo_set().unwrap().muhash);
    assert_eq!(ours["height"], devnet.status().height);
}

#[test]
fn a_chain_that_is_signed_as_its_challenge_asks_is_followed() {
    for (signet, blocks) in [(Signet::of_key(1), 2), (Signet::open(), 1)] {
        let devnet = mined(signet.clone(), blocks);
        let mut host = installation(&signet, &[devnet.p2p_addr()]).start().unwrap();
        assert_same_coins(&mut host, &devnet);
        if blocks > 1 {
            devnet.mine(1).unwrap();
            assert_same_coins(&mut host, &devnet);
        }
        host.stop().unwrap();
    }
}

#[test]
fn blocks_of_another_signer_are_refused_and_the_shorter_chain_of_the_right_one_is_followed() {
    let signet = Signet::of_key(1);
    let forged = mined(signet.clone().forged_by(2), 2);
    let mut host = installation(&signet, &[forged.p2p_addr()]).start().unwrap();
    let refused = |line: &str| line.contains("peer dropped") && line.contains("challenge");
    let line = host.wait_for_log("the refusal", LIMIT, refused).unwrap();
    assert!(line.contains(&forged.p2p_addr().to_string()), "{line}");
    let status = host.get("status").unwrap();
    assert_eq!(status.pointer("/tip/height"), Some(&Value::from(0)));
    let installation = host.installation().clone();
    host.stop().unwrap();

    let honest = mined(signet, 1);
    let peers = [forged.p2p_addr(), honest.p2p_addr()];
    let mut host = installation.peers(&peers).start().unwrap();
    assert_same_coins(&mut host, &honest);
    host.stop().unwrap();
}

#[test]
fn a_network_with_another_challenge_is_another_network() {
    let devnet = mined(Signet::of_key(1), 0);
    let installation = installation(&Signet::of_key(3), &[devnet.p2p_addr()])
        .key("peers", "event_log = \"{data_dir}/events.csv\"")
        .key("peers", "handshake_timeout = \"1s\"");
    let host = installation.start().unwrap();
    // Neither version of the transport finds anybody who understands it.
    let events = installation.folder().join("data/events.csv");
    let end = Instant::now() + LIMIT;
    let log = loop {
        let log = std::fs::read_to_string(&events).unwrap_or_default();
        if log.contains(",fallback,") && log.contains("wrong magic") {
            break log;
        }
        assert!(Instant::now() < end, "{log}");
        std::thread::sleep(Duration::from_millis(50));
    };
    assert!(!log.contains(",ready,"), "{log}");
    assert!(devnet.session_ids().is_empty());
    host.stop().unwrap();
}

//! The encrypted transport (BIP324) end to end: taken where the peer has it, given up for good where it has not, insisted
//! on where the operator says so.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    missing_docs
)]

use std::time::{Duration, Instant};

use blockmill_tests::free_address;
use blockmill_tests::host::{ALL_ROWS, Host, Installation};
use devnet::{Behaviour, Config, Devnet, Dial, Mining};
use serde_json::Value;

const LIMIT: Duration = Duration::from_secs(60);
const BLOCKS: u32 = 300;
/// What the event log says when version 1 is tried instead.
const FALLBACK: &str = ",fallback,";

fn chain(behaviour: Behaviour) -> Devnet {
    let devnet = Devnet::start(Config {
        seed: 11,
        mining: Mining {
            txs_per_block: 4,
            ..Config::default().mining
        },
        behaviour,
        ..Config::default()
    })
    .unwrap();
    devnet.mine(BLOCKS).unwrap();
    devnet
}

fn installation(devnet: &Devnet, transport: &str) -> Installation {
    Installation::new("regtest", &[devnet.p2p_addr()])
        .unwrap()
        .key("peers", &format!("transport = \"{transport}\""))
        .key("peers", "event_log = \"{data_dir}/events.csv\"")
        .key("peers", "handshake_timeout = \"3s\"")
        .plugins(ALL_ROWS)
}

/// The transport and session id of the only peer, once there is one.
fn peer(host: &mut Host) -> (String, Option<String>) {
    host.wait_for("a peer", LIMIT, |status| {
        let peer = status["peers"].get(0)?;
        let id = peer.get("session_id").and_then(Value::as_str);
        Some((
            peer["transport"].as_str()?.to_owned(),
            id.map(str::to_owned),
        ))
    })
    .unwrap()
}

/// How often an event is in the log.
fn count(host: &Host, event: &str) -> usize {
    let events = host.installation().folder().join("data/events.csv");
    let text = std::fs::read_to_string(events).unwrap_or_default();
    text.lines().filter(|line| line.contains(event)).count()
}

/// Waits for so many connections that came about; how often version 1 was tried instead, until then.
fn fallbacks_by_connection(host: &Host, connections: usize) -> usize {
    let end = Instant::now() + LIMIT;
    while count(host, ",ready,") < connections {
        assert!(Instant::now() < end, "fewer than {connections} connections");
        std::thread::sleep(Duration::from_millis(50));
    }
    count(host, FALLBACK)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn assert_same_coins(host: &mut Host, devnet: &Devnet) {
    let tip = devnet.status().tip.to_string();
    let ours = host.coins_at(&tip, LIMIT).unwrap();
    assert_eq!(ours["muhash"], devnet.utxo_set().unwrap().muhash);
}

#[test]
fn a_sync_over_version_2_ends_with_the_same_coins_and_both_ends_show_the_same_session() {
    let devnet = chain(Behaviour {
        only_v2: true,
        ..Behaviour::default()
    });
    for transport in ["prefer-v2", "v2"] {
        let mut host = installation(&devnet, transport).start().unwrap();
        assert_same_coins(&mut host, &devnet);
        let (kind, id) = peer(&mut host);
        assert_eq!(kind, "v2");
        let theirs: Vec<String> = devnet
            .session_ids()
            .iter()
            .flatten()
            .map(|id| hex(id))
            .collect();
        assert_eq!(theirs, [id.unwrap()]);
        assert_eq!(fallbacks_by_connection(&host, 1), 0);
        // What is mined is heard of as before.
        devnet.mine(2).unwrap();
        assert_same_coins(&mut host, &devnet);
        host.stop().unwrap();
        devnet.disconnect_clients();
    }
}

#[test]
fn a_peer_without_version_2_is_spoken_to_in_version_1_at_once_and_not_asked_again() {
    let devnet = chain(Behaviour {
        no_v2: true,
        ..Behaviour::default()
    });
    let mut host = installation(&devnet, "prefer-v2").start().unwrap();
    assert_same_coins(&mut host, &devnet);
    assert_eq!(peer(&mut host), ("v1".to_owned(), None));
    assert_eq!(fallbacks_by_connection(&host, 1), 1);
    devnet.disconnect_clients();
    devnet.mine(1).unwrap();
    assert_same_coins(&mut host, &devnet);
    assert_eq!(peer(&mut host).0, "v1");
    assert_eq!(fallbacks_by_connection(&host, 2), 1);
    host.stop().unwrap();
}

#[test]
fn a_peer_that_answers_a_key_with_nonsense_or_silence_is_spoken_to_in_version_1() {
    for behaviour in [
        Behaviour {
            half_handshake: true,
            ..Behaviour::default()
        },
        Behaviour {
            endless_garbage: true,
            ..Behaviour::default()
        },
    ] {
        let devnet = chain(behaviour);
        let mut host = installation(&devnet, "prefer-v2").start().unwrap();
        assert_same_coins(&mut host, &devnet);
        assert_eq!(peer(&mut host).0, "v1");
        assert_eq!(fallbacks_by_connection(&host, 1), 1);
        host.stop().unwrap();
    }
}

#[test]
fn who_insists_on_version_2_connects_to_nobody_without_it() {
    let devnet = chain(Behaviour {
        no_v2: true,
        ..Behaviour::default()
    });
    let host = installation(&devnet, "v2").start().unwrap();
    // Two tries, and neither in version 1.
    let end = Instant::now() + LIMIT;
    while count(&host, ",disconnected,") < 2 {
        assert!(Instant::now() < end);
        std::thread::sleep(Duration::from_millis(50));
    }
    assert!(devnet.session_ids().is_empty());
    assert_eq!(count(&host, FALLBACK), 0);
    host.stop().unwrap();
}

#[test]
fn on_regtest_version_2_is_spoken_once_the_peer_has_offered_it() {
    let devnet = chain(Behaviour::default());
    let mut host = installation(&devnet, "auto").start().unwrap();
    host.wait_for_height(BLOCKS, LIMIT).unwrap();
    assert_eq!(peer(&mut host).0, "v1");
    devnet.disconnect_clients();
    host.wait_for("version 2", LIMIT, |status| {
        (status["peers"].get(0)?["transport"] == "v2").then_some(())
    })
    .unwrap();
    // The peer takes it no more: version 1, at once.
    devnet
        .set_behaviour(
            devnet.p2p_addr(),
            Behaviour {
                no_v2: true,
                claims_v2: true,
                ..Behaviour::default()
            },
        )
        .unwrap();
    devnet.disconnect_clients();
    host.wait_for("version 1", LIMIT, |status| {
        (status["peers"].get(0)?["transport"] == "v1").then_some(())
    })
    .unwrap();
    assert_eq!(fallbacks_by_connection(&host, 3), 1);
    host.stop().unwrap();
}

#[test]
fn who_spoils_a_packet_is_dropped_and_the_sync_goes_on_with_another() {
    // Slow, so that the other is asked for blocks before it has sent them all.
    let devnet = chain(Behaviour {
        latency_ms: 100,
        ..Behaviour::default()
    });
    let bad = devnet
        .add_server(
            "/spoiler/",
            Behaviour {
                wrong_checksum: true,
                only_v2: true,
                ..Behaviour::default()
            },
        )
        .unwrap();
    let mut host = installation(&devnet, "prefer-v2")
        .peers(&[bad, devnet.p2p_addr()])
        .key("chain", "download_window = 32")
        .start()
        .unwrap();
    let dropped = |line: &str| line.contains("peer dropped") && line.contains("decrypted");
    let line = host.wait_for_log("the drop", LIMIT, dropped).unwrap();
    assert!(line.contains(&bad.to_string()), "{line}");
    assert_same_coins(&mut host, &devnet);
    host.stop().unwrap();
}

/// What `peers --json` of a host says of its incoming peers, once there are `count` that have shaken hands.
fn incoming(host: &Host, count: usize) -> Vec<Value> {
    let end = Instant::now() + LIMIT;
    loop {
        let output = host.installation().command(&["peers", "--json"]).unwrap();
        assert!(output.status.success());
        let json: Value = serde_json::from_slice(&output.stdout).unwrap();
        let peers = json["peers"].as_array().unwrap().iter();
        let ready = peers.filter(|peer| peer["direction"] == "inbound" && peer["ping_ms"].is_u64());
        let ready: Vec<Value> = ready.cloned().collect();
        if ready.len() == count {
            return ready;
        }
        assert!(Instant::now() < end, "not {count} incoming peers: {json}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn who_connects_to_us_in_version_2_or_1_is_spoken_to_so_and_gives_us_its_chain() {
    let (first, second) = (chain(Behaviour::default()), chain(Behaviour::default()));
    let listen = free_address().unwrap();
    let mut host = Installation::new("regtest", &[])
        .unwrap()
        .key("peers", &format!("listen = \"{listen}\""))
        .plugins(ALL_ROWS)
        .start()
        .unwrap();
    first.dial(listen, Dial::V2).unwrap();
    assert_same_coins(&mut host, &first);
    let peers = incoming(&host, 1);
    assert_eq!(peers[0]["transport"], "v2");
    let theirs = first.session_ids()[0].expect("a session of version 2");
    assert_eq!(peers[0]["session_id"], hex(&theirs));

    // The other has the same chain, and then a longer one, so that these blocks come in the clear.
    second.dial(listen, Dial::V1).unwrap();
    let peers = incoming(&host, 2);
    let mut kinds: Vec<&str> = peers
        .iter()
        .map(|peer| peer["transport"].as_str().unwrap())
        .collect();
    kinds.sort_unstable();
    assert_eq!(kinds, ["v1", "v2"]);
    let clear = peers.iter().find(|peer| peer["transport"] == "v1").unwrap();
    assert!(clear["session_id"].is_null());
    assert_eq!(second.session_ids(), [None]);
    second.mine(2).unwrap();
    assert_same_coins(&mut host, &second);
    // And what is mined at the end of an encrypted line still comes.
    first.mine(4).unwrap();
    assert_same_coins(&mut host, &first);
    host.stop().unwrap();
}

#[test]
fn who_insists_on_version_2_lets_nobody_in_without_it() {
    let devnet = chain(Behaviour::default());
    let listen = free_address().unwrap();
    let mut host = Installation::new("regtest", &[])
        .unwrap()
        .key("peers", &format!("listen = \"{listen}\""))
        .key("peers", "transport = \"v2\"")
        .plugins(ALL_ROWS)
        .start()
        .unwrap();
    devnet.dial(listen, Dial::V1).unwrap();
    let refused = |line: &str| line.contains("peer dropped") && line.contains("version 1");
    host.wait_for_log("the refusal", LIMIT, refused).unwrap();
    assert!(devnet.session_ids().is_empty());
    host.stop().unwrap();
}

#[test]
fn two_hosts_agree_on_version_2_and_part_because_neither_serves_blocks() {
    let listen = free_address().unwrap();
    let listener = Installation::new("regtest", &[])
        .unwrap()
        .key("peers", &format!("listen = \"{listen}\""))
        .start()
        .unwrap();
    let mut dialler = Installation::new("regtest", &[listen])
        .unwrap()
        .key("peers", "transport = \"v2\"")
        .start()
        .unwrap();
    // What the listener offers came through the encrypted line: there is no other.
    let parted = |line: &str| line.contains("services") && line.contains("P2P_V2");
    dialler.wait_for_log("the services", LIMIT, parted).unwrap();
    dialler.stop().unwrap();
    listener.stop().unwrap();
}
